"""What an inversion will take, from a few units of it."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from geoinv import estimate
from geoinv.config import GaussNewton, dump_toml, parse
from geoinv.datasets import netcdf, shots, synthetic, synthetic_picks
from geoinv.estimate import Estimate, told
from geoinv.gravity import estimate as gravity_estimate
from geoinv.memory import held
from geoinv.operators.gravity.prism import GravityPrism
from geoinv.operators.sensitivity.strategy import Checkpointed
from geoinv.traveltime import estimate as traveltime_estimate
from geoinv.waveform import estimate as waveform_estimate
from geoinv.waveform import inputs as waveform_inputs
from geoinv.waveform.bands import Setup, bands
from geoinv.waveform.waves import build_operator, changed

Run = Callable[..., tuple[int, list[str], list[str]]]
WAVEFORM = {
    "kind": "waveform",
    "data": {"file": "shots.nc"},
    "model": {"file": "start.nc"},
    "source": {"frequency": 7.0},
    "bands": {"lowpass": [4.0, 6.0]},
    "propagator": {"absorbing_cells": 10, "snapshot_every": 1},
    "bounds": {"lower": 1400.0, "upper": 3600.0},
}
GRAVITY = {"data": {"file": "stations.nc"}, "grid": {"spacing": [100.0, 200.0, 200.0], "depth": 400.0, "margin": 200.0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("estimate")
    waves = synthetic.waveform(shape=(12, 40), spacing=40.0, shot_count=5, receiver_count=16, frequency=6.0, length=1.4, noise=0.05)
    netcdf.write(made / "shots.nc", waves.survey)
    netcdf.write(made / "start.nc", waves.start)
    netcdf.write(made / "stations.nc", synthetic.gravity(seed=3, shape=(5, 8, 8), spacing=(100.0, 150.0, 150.0), stations=(20, 20)).survey)
    netcdf.write(made / "picks.nc", synthetic_picks.refraction(seed=1, receiver_count=20, spacing=3.0, shot_count=5).survey)
    (made / "shots.toml").write_text(dump_toml(parse(WAVEFORM, folder=made)), encoding="utf-8")
    return made


def test_arrays_count_once_wherever_they_are_held() -> None:
    array, tensor = np.zeros(1000), tf.zeros(500, tf.float32)

    def function() -> float:
        return float(array[0])

    assert held([array, array[10:], {"a": tensor, "b": (tensor,)}, function, functools.partial(max, array)]) == 8000 + 2000


def test_a_dense_kernel_is_as_large_as_it_is() -> None:
    """8 bytes x stations x cells, from the operators of 4 and 12 stations."""
    example = synthetic.gravity(seed=1, shape=(4, 10, 10), stations=(12, 12))
    places = {dim: example.survey[dim].values for dim in example.grid.dims}
    prism = GravityPrism(example.grid, places)
    found = estimate.of_gauss_newton("some", prism.subset, 144, np.zeros(example.grid.shape), GaussNewton(), (4, 12))
    assert found.memory["operator"] == pytest.approx(8 * 144 * 400, rel=0.1)
    assert prism.subset(np.arange(144)) is prism, "a job that fits all stations has no second kernel"
    assert found.memory["model vectors"] == 8 * 16 * 400 and found.peak > 2e8 and found.seconds > 0


def test_estimates_are_held_against_a_budget() -> None:
    some = [
        Estimate("band 1", {"process": 5e8, "snapshots": 1e9}, 2.0, ["a note"], {"propagator.snapshot_memory": 0.8}),
        Estimate("band 2", {"process": 5e8, "snapshots": 2e9}, 8000.0, (), {"propagator.snapshot_memory": 0.5}),
    ]
    assert told(some, 3e9) == [
        "band 1: 1.50 GB, 2 s an iteration",
        "  memory: process 0.50 GB, snapshots 1.00 GB",
        "  a note",
        "band 2: 2.50 GB, 2.2 h an iteration",
        "  memory: process 0.50 GB, snapshots 2.00 GB",
        "to keep to 3.00 GB: --set propagator.snapshot_memory=0.5",
    ]
    with pytest.raises(ValueError, match=r"Invalid '--memory' 2.00 GB: must be at least 2.50 GB, for band 2. Use larger or fewer cells"):
        told(some, 2e9)


def test_gauss_newton_jobs(folder: Path) -> None:
    (gravity,) = gravity_estimate.estimates(parse(GRAVITY, folder=folder), None)  # type: ignore[arg-type]
    (times,) = traveltime_estimate.estimates(parse({"kind": "traveltime", "data": {"file": "picks.nc"}}, folder=folder), None)  # type: ignore[arg-type]
    assert gravity.title.startswith("400 stations, ") and gravity.title.endswith("cells (poisson)") and times.title.startswith("100 picks of 5 shots")
    for each in (gravity, times):
        own = each.peak - each.memory["process, programs and data"]  # that of these tests may be anything
        assert 1e4 < each.memory["operator"] < own < 1e8 and 0 < each.seconds < 60


def test_a_budget_decides_what_waves_keep(folder: Path) -> None:
    """Every step is kept where there is room for it, checkpoints where there is not."""
    config = parse(WAVEFORM, folder=folder)
    first, second = waveform_estimate.estimates(config, None)  # type: ignore[arg-type]
    assert first.title == "band 1 (up to 4 Hz)" and not first.options and "gradients with Every(steps=1)" in first.notes[0]
    assert second.memory["filtered data"] > first.memory["filtered data"]
    tight = estimate.resident() + second.memory["filtered data"] + second.memory["model vectors"] + 1e9
    for each in waveform_estimate.estimates(config, tight):  # type: ignore[arg-type]
        assert 0 < each.options["propagator.snapshot_memory"] < 1.0 and each.peak <= tight


def test_a_tight_budget_has_fewer_shots_side_by_side(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even the fewest checkpoints of all that could run fit."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    config = parse(WAVEFORM | {"bands": {"lowpass": [4.0]}}, folder=folder)
    (first,) = waveform_estimate.estimates(config, None)  # type: ignore[arg-type]
    single = config.model_copy(update={"propagator": config.propagator.model_copy(update={"shots_at_a_time": 1})})  # type: ignore[union-attr]
    (alone,) = waveform_estimate.estimates(single, None)  # type: ignore[arg-type]
    assert "2 at a time" in first.notes[0] and "1 at a time" in alone.notes[0]
    assert alone.memory["snapshots"] == first.memory["snapshots"] / 2 and alone.memory["wavefields"] < first.memory["wavefields"]
    inputs = waveform_inputs.load(config)  # type: ignore[arg-type]
    (band,) = bands(config, shots.dt(inputs.survey))  # type: ignore[arg-type]
    setup = Setup.of(config, inputs, band)  # type: ignore[arg-type]
    wave = build_operator(config, inputs, setup.averaging.coarse, setup.wavelet, setup.filter.interval)  # type: ignore[arg-type]
    fewest = changed(wave, differentiation=Checkpointed(2)).memory_estimate(2)
    chosen, running, options = waveform_estimate._fitting(config, band, wave, 0.9e-9 * (fewest.kept + fewest.running))  # type: ignore[arg-type]
    assert running == options["propagator.shots_at_a_time"] == 1 and "Checkpointed" in str(chosen.differentiation)
    _, running, options = waveform_estimate._fitting(config, band, wave, 1.0)  # type: ignore[arg-type]
    assert running == 2 and "propagator.shots_at_a_time" not in options


def test_from_the_command_line(folder: Path, command_line: Run) -> None:
    code, lines, errors = command_line("estimate", str(folder / "shots.toml"), "--set", "bands.lowpass=[4.0]", "--memory", "0.1")
    for wrong in ("nan", "0", "-1"):
        assert command_line("estimate", str(folder / "shots.toml"), "--memory", wrong)[0] == 2
    assert code == 2 and not lines and errors[-1].startswith("error: Invalid '--memory' 0.10 GB: must be at least ")
