"""Shots on the workers of a Dask cluster: the same bits as in one process, also where workers are lost."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from geoinv import inversion
from geoinv.blockwise import Blockwise, SpreadProducts
from geoinv.cluster import Cluster, connected
from geoinv.config import dump_toml, parse
from geoinv.datasets import netcdf, synthetic, synthetic_picks
from geoinv.datasets.files import sha256
from geoinv.gravity import inputs as gravity_inputs
from geoinv.gravity import job as gravity_job
from geoinv.operators.forward import Chain
from geoinv.operators.gravity.prism import GravityPrism
from geoinv.trainer import Trainer
from geoinv.training.loss import Fit
from geoinv.training.methods import GaussNewton
from geoinv.traveltime import inputs as traveltime_inputs
from geoinv.traveltime import job as traveltime_job
from geoinv.waveform import inputs as waveform_inputs
from geoinv.waveform import inversion as waveform
from geoinv.waveform.spread import OnCluster

pytest.importorskip("distributed")
CONFIG: dict[str, Any] = {
    "kind": "waveform",
    "data": {"file": "shots.nc"},
    "model": {"file": "start.nc"},
    "source": {"frequency": 7.0, "estimate_every": 2},
    "bands": {"lowpass": [4.0, 6.0], "iterations": [3, 2]},
    "propagator": {"absorbing_cells": 10},
    "bounds": {"lower": 1400.0, "upper": 3600.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cluster")
    waves = synthetic.waveform(shape=(12, 40), spacing=40.0, shot_count=5, receiver_count=16, frequency=6.0, length=1.4, noise=0.05)
    netcdf.write(made / "shots.nc", waves.survey)
    netcdf.write(made / "start.nc", waves.start)
    stations = synthetic.gravity(seed=3, shape=(5, 8, 8), spacing=(100.0, 150.0, 150.0), stations=(6, 6), noise=3e-7)
    netcdf.write(made / "stations.nc", stations.survey)
    netcdf.write(made / "picks.nc", synthetic_picks.refraction(seed=1, receiver_count=20, spacing=3.0, shot_count=5).survey)
    (made / "shots.toml").write_text(dump_toml(parse(CONFIG, folder=made)), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def connection() -> Iterator[Cluster]:
    with connected(2) as made:
        assert made is not None and made.threads == 2
        yield made


@pytest.fixture
def cluster(connection: Cluster) -> Cluster:
    """With both of its workers: those that were killed come again."""
    connection._client.wait_for_workers(2, timeout=60)
    return connection


def files(folder: Path) -> dict[str, str]:
    return {str(folder / name): sha256(folder / name) for name in ("shots.nc", "start.nc")}


def run(folder: Path, cluster: Cluster | None, watch: waveform.Watch | None = None) -> waveform.Outcome:
    config = parse(CONFIG, folder=folder)
    spread = None if cluster is None else OnCluster(cluster, files(folder))
    return waveform.run(config, waveform_inputs.load(config), watch or waveform.Watch(), spread=spread)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def alone(folder: Path) -> waveform.Outcome:
    return run(folder, None)


def same(one: waveform.Outcome, other: waveform.Outcome) -> None:
    for a, b in zip(one.bands, other.bands, strict=True):
        np.testing.assert_array_equal(a.model, b.model)
        np.testing.assert_array_equal(a.objective.wavelet, b.objective.wavelet)
        np.testing.assert_array_equal(a.round.diagonal, b.round.diagonal)
    assert [{**each, "seconds": 0} for each in one.records] == [{**each, "seconds": 0} for each in other.records]


@pytest.mark.slow
def test_workers_give_the_same_bits(folder: Path, alone: waveform.Outcome, cluster: Cluster) -> None:
    same(run(folder, cluster), alone)


def test_lost_workers_cost_time_and_not_the_run(folder: Path, alone: waveform.Outcome, cluster: Cluster) -> None:
    """Killed while they compute: one in the first band, one in the second."""
    killed: list[int] = []

    def kill() -> None:
        time.sleep(0.05)
        pids = cluster._client.run(os.getpid)
        killed.append(next(iter(pids.values())))
        os.kill(killed[-1], signal.SIGKILL)

    def record(row: dict[str, Any]) -> None:
        if row["iteration"] == 1:
            threading.Thread(target=kill).start()

    same(run(folder, cluster, waveform.Watch(record)), alone)
    assert len(set(killed)) == 2


def test_arguments_that_are_used_again_stay_with_the_workers(cluster: Cluster) -> None:
    loss = [1, 2, 3]
    first = cluster._kept(loss)
    for number in range(20):
        cluster._kept([number])
        assert cluster._kept(loss) is first


def test_files_that_are_others_on_a_worker_are_refused(folder: Path, cluster: Cluster) -> None:
    """Also where the worker had read those of before."""
    config = parse(CONFIG, folder=folder)
    inputs = waveform_inputs.load(config)  # type: ignore[arg-type]
    spread = OnCluster(cluster, {str(folder / "shots.nc"): "another"})
    with pytest.raises(OSError, match=r"shots.nc' is not on a worker what it was when the inversion began"):
        waveform.run(config, inputs, waveform.Watch(), spread=spread)  # type: ignore[arg-type]


def test_results_come_in_order_and_errors_as_they_are(cluster: Cluster) -> None:
    assert list(cluster.in_turn(pow, (2,), range(9))) == [2**part for part in range(9)]
    found = cluster.in_turn(divmod, (7,), [1, 2, 0])
    assert [next(found), next(found)] == [(7, 0), (3, 1)]
    with pytest.raises(ZeroDivisionError):
        next(found)


@pytest.mark.parametrize("optimizer", [lambda: tf.keras.optimizers.Adam(1.0), lambda: GaussNewton(cg_iterations=5)])
def test_trainers_have_blocks_computed_there(cluster: Cluster, optimizer: Callable[[], Any]) -> None:
    example = synthetic.gravity(seed=1, shape=(3, 8, 8), stations=(6, 6))
    places = {dim: example.survey[dim].values for dim in example.grid.dims}
    prism, data = GravityPrism(example.grid, places), {name: example.survey[name].values for name in ("observed", "uncertainty")}

    def trained(**options: Any) -> Any:
        made = Trainer(Fit(prism), np.zeros(example.grid.shape), data, optimizer=optimizer(), batch=20, block=5, **options)
        return made.fit(3).model.numpy()

    np.testing.assert_array_equal(trained(cluster=cluster), trained())
    with pytest.raises(ValueError, match="Invalid 'cluster' for a loss that is compiled here"):
        Trainer(lambda m, batch: tf.reduce_sum(m), np.zeros(3), data, cluster=cluster)


GAUSS_NEWTON: dict[str, dict[str, Any]] = {
    "prism": {
        "data": {"file": "stations.nc"},
        "grid": {"spacing": [100.0, 200.0, 200.0], "depth": 400.0, "margin": 200.0},
        "operator": {"kind": "prism"},
        "inversion": {"max_iterations": 3, "target_chi2": 1e-3, "holdout": 0.1},
    },
    "picks": {"kind": "traveltime", "data": {"file": "picks.nc"}, "inversion": {"max_iterations": 3, "target_chi2": 1e-3, "holdout": 0.1}},
}
GAUSS_NEWTON["poisson"] = GAUSS_NEWTON["prism"] | {"operator": {"kind": "poisson"}}


@pytest.fixture
def in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Surveys for tests are of one block each otherwise."""
    for home, name in ((gravity_job, "KERNEL"), (gravity_job, "STATIONS"), (gravity_job, "CELLS"), (traveltime_job, "BLOCK")):
        monkeypatch.setattr(home, name, {"STATIONS": 10, "CELLS": 1e9, "KERNEL": 3000.0, "BLOCK": 1500.0}[name])


def inverted(folder: Path, name: str, cluster: Cluster | None, report: Callable[[Any], None] = lambda _: None) -> Any:
    """The operator and the iterates of a Gauss-Newton inversion."""
    config: Any = parse(GAUSS_NEWTON[name], folder=folder)
    if config.kind == "traveltime":
        problem = traveltime_job.build_problem(config, traveltime_inputs.load(config), cluster)
    else:
        inputs, quiet = gravity_inputs.load(config), Console(quiet=True)
        problem = gravity_job.build_problem(config, inputs, gravity_job.build_operator(config, inputs, quiet), quiet, cluster)
    return problem.operator, inversion.run(problem, inversion.Settings.of(config.inversion, 0), report).iterates


@pytest.mark.usefixtures("in_small_blocks")
@pytest.mark.parametrize("name", GAUSS_NEWTON)
def test_gauss_newton_gives_the_same_bits_on_workers(folder: Path, name: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is killed while it has products of the second iteration to compute: what it held is made anew."""
    killed: list[int] = []
    pullback = SpreadProducts.pullback

    def watched(at: SpreadProducts, cotangents: Any) -> Any:
        if name != "poisson" and len(iterates) == 2 and not killed:
            killed.append(cluster._client.run(os.getpid).popitem()[1])
            os.kill(killed[0], signal.SIGKILL)
        return pullback(at, cotangents)

    monkeypatch.setattr(SpreadProducts, "pullback", watched)
    _, alone = inverted(folder, name, None)
    iterates: list[inversion.Iterate] = []
    operator, spread = inverted(folder, name, cluster, iterates.append)
    assert len(killed) == (name != "poisson")
    while isinstance(operator, Chain):
        operator = operator.outer
    assert isinstance(operator, Blockwise) and operator.cluster is cluster and len(operator.blocks) > 2
    assert len(alone) == len(spread) == 4
    for one, other in zip(alone, spread, strict=True):
        np.testing.assert_array_equal(one.model, other.model)
        np.testing.assert_array_equal(one.predicted, other.predicted)
        assert {**one.record(), "seconds": 0} == {**other.record(), "seconds": 0}


@pytest.mark.usefixtures("in_small_blocks")
def test_operators_on_workers_are_asked_in_eager_mode(folder: Path, cluster: Cluster) -> None:
    operator, iterates = inverted(folder, "prism", None)
    spread = Blockwise(operator.blocks, operator.rows, cluster)
    with pytest.raises(ValueError, match="Invalid 'cluster' in a graph: must be asked in eager mode"):
        tf.function(spread.forward)(iterates[0].model)
    with tf.GradientTape() as tape:
        tape.watch(iterates[0].model)
        data = spread(iterates[0].model)
    np.testing.assert_array_equal(tape.gradient(data, iterates[0].model), operator.linearize(iterates[0].model).vjp(tf.ones_like(data)))


def test_there_is_no_waiting_for_workers_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoinv.cluster.POLL", 0.2)
    monkeypatch.setattr("geoinv.cluster.PATIENCE", 1)
    with connected(1) as alone:
        assert alone is not None
        alone._client.retire_workers(list(alone._client.nthreads()), close_workers=True)
        with pytest.raises(ConnectionError, match="The workers of the cluster were lost: for 1 s none has been there that takes on work"):
            list(alone.in_turn(pow, (2,), [1, 2]))


def test_paused_workers_are_none(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(cluster.places) == 2
    there = {"a": {"status": "paused", "nthreads": 1}, "b": {"status": "running", "nthreads": 2}}
    monkeypatch.setattr(cluster._client, "scheduler_info", lambda n_workers: {"workers": there})
    assert cluster.places == ("b", "b")


@pytest.mark.usefixtures("in_small_blocks")
def test_groups_are_formed_anew_where_workers_come_or_go(folder: Path, cluster: Cluster) -> None:
    operator, iterates = inverted(folder, "prism", cluster)
    (before,) = operator._spreads.values()
    os.kill(next(iter(cluster._client.run(os.getpid).values())), signal.SIGKILL)
    for _ in range(600):
        if len(cluster.places) == 2 and cluster.places not in operator._spreads:
            break
        time.sleep(0.1)
    np.testing.assert_array_equal(operator.forward(iterates[-1].model), iterates[-1].predicted)
    (spread,) = operator._spreads.values()
    holders = [each for names in cluster._client.who_has(spread._groups).values() for each in names]
    assert spread is not before and len(spread._groups) == len(set(holders)) == 2


def test_small_surveys_stay_in_this_process(folder: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match="the survey is too small to be spread over workers: it is computed in this process"):
        assert not isinstance(inverted(folder, "prism", cluster)[0], Blockwise)
    monkeypatch.setattr(gravity_job, "KERNEL", 6000.0)
    monkeypatch.setattr(Cluster, "threads", 8)
    with pytest.warns(UserWarning, match="workers have something to do on 2 of 8 threads: the survey is one of 2 blocks"):
        inverted(folder, "prism", cluster)


def test_from_the_command_line(folder: Path, command_line: Callable[..., tuple[int, list[str], list[str]]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoinv.report.DPI", 30)
    code, _, errors = command_line("invert", str(folder / "shots.toml"), "--workers", "0")
    assert code == 2 and errors[-1] == "error: Invalid 'workers' 0: must be a whole number, 1 or more."
    code, _, errors = command_line("invert", str(folder / "shots.toml"), "--workers", "2", "--scheduler", "tcp://127.0.0.1:1")
    assert code == 2 and "given without workers" in errors[-1]
    code, _, errors = command_line("invert", str(folder / "shots.toml"), "--scheduler", "nowhere")
    assert code == 2 and errors[-1].startswith("error: Invalid 'scheduler' 'nowhere': must be the address of a running Dask scheduler")


@pytest.mark.slow
def test_a_scheduler_by_its_address(folder: Path, alone: waveform.Outcome, cluster: Cluster, tmp_path: Path) -> None:
    from geoinv import resuming, rundir

    address = cluster._client.scheduler.address
    config = parse(CONFIG, folder=folder)
    resuming.invert(config, tmp_path / "out", scheduler=address, console=Console(quiet=True))
    model = rundir.read(tmp_path / "out").model
    np.testing.assert_array_equal(model["velocity"].values[inputs_free(folder)], alone.last.model.astype(np.float32))


def inputs_free(folder: Path) -> np.ndarray:
    return waveform_inputs.load(parse(CONFIG, folder=folder)).free  # type: ignore[arg-type]
