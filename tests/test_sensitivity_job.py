"""`geoinv sensitivity` from end to end: its fields against dense matrices and theory, what it refuses, and that it repeats."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
import xarray
from rich.console import Console

from geoinv import config, rundir
from geoinv.config import parse
from geoinv.datasets import netcdf, synthetic
from geoinv.gravity import job as gravity_job
from geoinv.gravity import sensitivity as gravity
from geoinv.gravity.config import GravityConfig
from geoinv.operators.forward import Linearization
from geoinv.operators.grid import Grid
from geoinv.operators.sensitivity import Prior, informed
from geoinv.sensitivity import job, report
from geoinv.sensitivity.target import Target
from geoinv.waveform import sensitivity as waveform
from geoinv.waveform.bands import bands
from geoinv.waveform.config import WaveformConfig
from geoinv.waveform.inputs import load
from geoinv.waveform.objective import Objective

from test_gravity_job import BASIC, EXAMPLE  # isort: skip
from test_waveform_inversion import TOY, options  # isort: skip

QUIET = Console(quiet=True)
#: Upward, northing, easting of a shallow and of a deep cell.
CELLS = [[-150.0, 500.0, 500.0], [-350.0, 700.0, 300.0]]
SAMPLES = 2000
#: Depth of the water of the waveform survey, m, whose velocity is known.
WATER = 120.0


def settings(folder: Path, **sections: dict[str, Any]) -> GravityConfig:
    """Of the gravity survey in a folder."""
    known = {**BASIC, "sensitivity": {"trade_off": 2e-3, "enough": 1e-6, "samples": SAMPLES, "cells": CELLS}}
    made = parse({**{key: {**known.get(key, {}), **sections.get(key, {})} for key in {**known, **sections}}, "seed": 5}, folder=folder)
    assert isinstance(made, GravityConfig)
    return made


def lines(folder: Path, **sections: dict[str, Any]) -> WaveformConfig:
    """Of the waveform survey in a folder: its first, third and fifth shot."""
    few = {"data": {"file": "shots.nc", "shot_every": 2}, "model": {"file": "start.nc", "water_depth": WATER}, "bands": {"lowpass": [4.0]}}
    return options(folder, **{key: {**few.get(key, {}), **sections.get(key, {})} for key in {**few, **sections}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sensitivity")
    netcdf.write(made / "stations.nc", EXAMPLE.survey)
    shots = synthetic.waveform(**TOY)
    netcdf.write(made / "shots.nc", shots.survey)
    netcdf.write(made / "start.nc", shots.start)
    return made


# ------------------------------------------------------------------------------------------------- gravity, dense matrices


class Dense:
    """The posterior by dense matrices, over all unknowns of a problem."""

    def __init__(self, target: Target) -> None:
        self.cells = int(target.active.sum())
        unknowns = target.prior.size
        self.jacobian = np.stack([np.ravel(target.at.jvp(tf.constant(row))) for row in np.eye(unknowns)], axis=1)
        self.information = self.jacobian.T * np.ravel(target.weights) @ self.jacobian
        precision = target.prior.precision.toarray()
        self.prior, self.posterior = np.linalg.inv(precision), np.linalg.inv(precision + self.information)
        self.resolution = self.posterior @ self.information

    def of_cells(self, values: np.ndarray) -> np.ndarray:
        return values[: self.cells]


TRENDS = {"removed": {"trend_degree": 1}, "solved": {"trend_degree": 1, "trend": "solve"}}


@pytest.fixture(scope="module", params=TRENDS)
def resolved(request: pytest.FixtureRequest, folder: Path) -> tuple[Target, Dense, xarray.Dataset, dict[str, Any]]:
    """A gravity problem, the same by dense matrices, and what the job wrote."""
    chosen, output = settings(folder, data=TRENDS[request.param]), folder / f"gravity-{request.param}"
    summary = job.run(chosen, output, console=QUIET)
    target = gravity.target(chosen, None, QUIET)
    return target, Dense(target), netcdf.read(output / "sensitivity.nc"), summary


def test_fields_are_those_of_dense_matrices(resolved: tuple[Target, Dense, xarray.Dataset, dict[str, Any]]) -> None:
    target, dense, data, summary = resolved
    cells = target.active

    def same(name: str, values: np.ndarray, tolerance: float) -> None:
        np.testing.assert_allclose(data[name].values[cells], dense.of_cells(values), atol=tolerance * np.abs(values).max())

    same("resolution", np.diag(dense.resolution), 1e-6)
    same("coverage", np.sqrt(np.diag(dense.information)), 1e-6)
    assert summary["degrees_of_freedom"] == pytest.approx(np.trace(dense.resolution[: dense.cells, : dense.cells]), rel=1e-6)
    assert summary["complete"] and (summary["n_data"], summary["n_model"]) == (dense.jacobian.shape[0], dense.cells)
    for number, place in enumerate(CELLS):
        index = tuple(target.grid.cell_index(np.array([place]))[0])
        column = np.flatnonzero(np.ravel_multi_index(np.nonzero(cells), cells.shape) == np.ravel_multi_index(index, cells.shape))[0]
        expected = dense.of_cells(dense.resolution[:, column])
        np.testing.assert_allclose(data["point_spread"].values[number][cells], expected, atol=1e-6 * np.abs(expected).max())
        at = [float(data[f"cell_{dim}"][number]) for dim in target.grid.dims]
        assert at == [centers[i] for centers, i in zip(target.grid.centers, index, strict=True)]


def test_deviations_and_index_are_right_within_their_sampling(resolved: tuple[Target, Dense, xarray.Dataset, dict[str, Any]]) -> None:
    target, dense, data, _ = resolved
    for name, covariance in (("prior_deviation", dense.prior), ("deviation", dense.posterior)):
        exact = dense.of_cells(np.sqrt(np.diag(covariance)))
        off = (data[name].values[target.active] / exact - 1) * np.sqrt(2 * SAMPLES)
        assert np.abs(off).max() < 5 and 0.3 < np.sqrt(np.mean(off**2)) < 2
    left = np.eye(len(dense.prior)) - dense.resolution
    smooth = dense.prior * np.diag(target.prior.precision.toarray())
    changes = smooth @ dense.prior @ smooth.T
    expected = np.sqrt(np.diag(left @ changes @ left.T) / np.diag(changes))
    np.testing.assert_allclose(data["index"].values[target.active], dense.of_cells(expected), atol=5 / np.sqrt(SAMPLES))


def test_depth_of_investigation_is_where_the_index_stays_high(resolved: tuple[Target, Dense, xarray.Dataset, dict[str, Any]]) -> None:
    target, _, data, _ = resolved
    index, edges = data["index"].values, target.grid.edges[0]
    for north, east in np.ndindex(index.shape[1:]):
        rows = [row for row in reversed(range(index.shape[0])) if target.active[row, north, east]]
        lost = next((place for place, row in enumerate(rows) if index[row, north, east] > 0.9), len(rows))
        depth = edges[rows[0] + 1] - edges[rows[lost - 1]] if lost else 0.0
        assert data["depth_of_investigation"].values[north, east] == pytest.approx(depth)


def test_a_solved_trend_leaves_less_about_the_cells(folder: Path) -> None:
    """What the data tell about the trend is not told about the cells."""
    traces = {}
    for name, trend in TRENDS.items():
        dense = Dense(gravity.target(settings(folder, data=trend), None, QUIET))
        assert np.trace(dense.resolution) - np.trace(dense.resolution[: dense.cells, : dense.cells]) == pytest.approx(
            3 * (name == "solved"), abs=0.01
        )
        traces[name] = np.trace(dense.resolution[: dense.cells, : dense.cells])
    assert traces["solved"] < traces["removed"] - 1


def test_cells_above_the_ground_have_no_values() -> None:
    """And depths are counted from the topmost cell below it."""
    grid = Grid.uniform((4, 1, 2), (10.0, 10.0, 10.0), origin=(-40.0, 0.0, 0.0))
    active = np.ones(grid.shape, bool)
    active[2:, 0, 1] = False
    unknowns = int(active.sum())
    at = Linearization(tf.TensorSpec(unknowns, tf.float64), tf.TensorSpec(unknowns, tf.float64), None, tf.identity, tf.identity)
    prior = Prior(scipy.sparse.eye_array(unknowns))
    # Row by row from the bottom: both columns are known (100) down to one cell above the bottom.
    weights = tf.constant(np.where(np.nonzero(active)[0] > 0, 100.0, 1e-3), tf.float64)
    target = Target(grid, active, at, weights, prior, np.zeros(grid.shape), "x", "1", (), {})
    found, cells = informed(at, weights, prior, enough=1e-9), np.array([0])
    data = job.fields(target, found, cells, found.point_spread(cells), found.spread(samples=50))
    np.testing.assert_array_equal(np.isnan(data["resolution"].values), ~active)
    np.testing.assert_array_equal(data["depth_of_investigation"].values, [[30.0, 10.0]])


# ------------------------------------------------------------------------------------------------------------- waveforms


@pytest.fixture(scope="module")
def shots(folder: Path) -> Target:
    return waveform.target(lines(folder), None, QUIET)


@pytest.fixture(scope="module")
def imaged(folder: Path) -> tuple[xarray.Dataset, dict[str, Any]]:
    """What the job wrote, of a prior that leaves few directions to the data."""
    places = [[-220.0, 980.0], [-420.0, 980.0]]
    chosen = lines(folder, sensitivity={"deviation": 20.0, "length": 150.0, "enough": 0.3, "cells": places})
    summary = job.run(chosen, folder / "waveform", console=QUIET)
    return netcdf.read(folder / "waveform" / "sensitivity.nc"), summary


def test_the_derivative_of_waveforms_and_its_adjoint_are_one(shots: Target) -> None:
    random, (data, size) = np.random.default_rng(1), shots.at.shape
    assert size == int(shots.active.sum()) == 13 * 50, "the three topmost rows are water"
    v, u = (tf.constant(random.normal(size=size)) for _ in range(2))
    w = tf.constant(random.normal(size=shots.at.data_spec.shape), tf.float32)
    pushed, pulled = shots.at.jvp(v), shots.at.vjp(w)
    scale = float(tf.norm(pushed) * tf.norm(w))
    assert data == tf.size(pushed) and abs(float(tf.reduce_sum(pushed * w)) - float(tf.tensordot(pulled, v, 1))) < 1e-5 * scale
    left, right = (float(tf.tensordot(a, shots.at.gauss_newton_product(b, shots.weights), 1)) for a, b in ((u, v), (v, u)))
    energy = float(tf.reduce_sum(shots.weights * pushed**2))
    assert abs(left - right) < 1e-5 * energy
    assert float(tf.tensordot(v, shots.at.gauss_newton_product(v, shots.weights), 1)) == pytest.approx(energy, rel=1e-5)


def test_the_derivative_of_waveforms_is_a_difference_of_traces(folder: Path, shots: Target) -> None:
    """Modelled anew on both sides of the start model, with a lump in the cells that are unknown."""
    chosen = lines(folder)
    inputs = load(chosen)
    objective = Objective.of(chosen, inputs, bands(chosen, 0.004)[-1])
    wave = objective.fitted(objective.start(inputs.velocity)).wave
    up, east = np.meshgrid(*shots.grid.centers, indexing="ij")
    lump = np.where(shots.active, 10.0 * np.exp(-(((up + 250) / 80) ** 2) - ((east - 900) / 80) ** 2), 0.0)
    before, after = (wave.forward({"velocity": tf.constant(shots.model + sign * lump, tf.float32)}).numpy() for sign in (-1, 1))
    expected, pushed = (after - before) / 2, shots.at.jvp(tf.constant(lump[shots.active])).numpy()
    assert np.linalg.norm(pushed - expected) < 0.01 * np.linalg.norm(expected)


def test_weights_are_those_of_the_noise_whatever_the_misfit(folder: Path, shots: Target) -> None:
    other = waveform.target(lines(folder, misfit={"normalise": True, "time_power": 1.0, "kind": "envelope"}), None, QUIET)
    np.testing.assert_array_equal(other.weights, shots.weights)


def test_the_prior_has_the_deviation_asked_for(folder: Path) -> None:
    target = waveform.target(lines(folder, sensitivity={"deviation": 75.0}), None, QUIET)
    assert np.sqrt(np.mean(np.diag(np.linalg.inv(target.prior.precision.toarray())))) == pytest.approx(75.0, rel=0.02)


def test_images_of_points_peak_at_their_cells(imaged: tuple[xarray.Dataset, dict[str, Any]], shots: Target) -> None:
    data, summary = imaged
    assert summary["complete"] and summary["smallest_eigenvalue"] < 0.6
    for image, up, east in zip(data["point_spread"].values, data["cell_upward"].values, data["cell_easting"].values, strict=True):
        row, column = np.unravel_index(np.nanargmax(image), image.shape)
        assert abs(shots.grid.centers[0][row] - up) <= 80 and abs(shots.grid.centers[1][column] - east) <= 80, "within two cells of 40 m"
    np.testing.assert_array_equal(np.isnan(data["point_spread"].values), np.broadcast_to(~shots.active, data["point_spread"].shape))
    for name in ("coverage", "resolution", "index", "deviation", "prior_deviation"):
        np.testing.assert_array_equal(np.isnan(data[name].values), ~shots.active)
    assert np.nanmax(data["deviation"] / data["prior_deviation"]) <= 1.05 and 0 <= np.nanmin(data["resolution"]) <= np.nanmax(data["resolution"]) <= 1
    resolution = data["resolution"].values
    assert np.mean(resolution[12]) > 2 * np.mean(resolution[0]), "near the sources more is resolved than at the bottom"


def test_too_few_products_are_said(folder: Path) -> None:
    summary = job.run(lines(folder, sensitivity={"products": 8}), folder / "few", console=QUIET)
    assert not summary["complete"] and summary["directions"] == 8
    assert f"not all below {summary['smallest_eigenvalue']:.3g} are found" in report.sentence(summary)
    assert "Not all directions are found (sensitivity.products was too few)" in (folder / "few" / "report.html").read_text()
    assert summary["degrees_of_freedom_error"] > 0 and summary["degrees_of_freedom"] > 8, "there are more than the directions that are found"


def test_a_constant_reference_is_kept_as_two_inversions_tell(resolved: tuple[Target, Dense, xarray.Dataset, dict[str, Any]]) -> None:
    target, dense, data, _ = resolved
    shift = np.where(np.arange(target.prior.size) < dense.cells, 1.0, 0.0)
    expected = dense.of_cells(dense.posterior @ (target.prior.precision @ shift))
    np.testing.assert_allclose(data["constant_index"].values[target.active], expected, atol=1e-5)


def test_as_many_directions_as_data_are_all(resolved: tuple[Target, Dense, xarray.Dataset, dict[str, Any]]) -> None:
    """Even where the last of them is well above what was asked for."""
    target, dense, data, summary = resolved
    assert np.count_nonzero(data["eigenvalue"] > 1e-6 * data["eigenvalue"][0]) <= dense.jacobian.shape[0]
    found = informed(target.at, target.weights, target.prior, enough=1e-9)
    assert job.reach(found)["complete"] and "not all" not in report.sentence(summary) and not summary["warnings"]
    cut = informed(target.at, target.weights, target.prior, enough=1e-9, products=12)
    assert not job.reach(cut)["complete"]


# ------------------------------------------------------------------------------------------------- from the command line

Called = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture(scope="module")
def inverted(folder: Path) -> Path:
    """A finished inversion of the gravity survey."""
    gravity_job.invert(settings(folder, sensitivity={"trade_off": None, "cells": None}), folder / "run", console=QUIET)
    return folder / "run"


@pytest.fixture
def call(inverted: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Called) -> Called:
    """The command line in a folder of its own with lake.toml and line.toml: its exit code, lines of output and of errors."""
    made = settings(folder).model_dump()
    made["sensitivity"] |= {"trade_off": None, "samples": 100}
    (tmp_path / "lake.toml").write_text(config.dump_toml(parse(made)))
    (tmp_path / "line.toml").write_text(config.dump_toml(lines(folder, sensitivity={"products": 4})))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("geoinv.report.DPI", 60)  # drawn in less time
    return command_line


def test_the_trade_off_is_that_of_the_run(call: Called, inverted: Path) -> None:
    code, out, _ = call("sensitivity", "lake.toml", "--model", str(inverted))
    last = rundir.read(inverted).history[-1]["trade_off"]
    assert code == 0 and out[-1] == "lake-sensitivity/report.html"
    assert any(line.endswith(f"trade-off {last:.4g}") for line in out)
    model = netcdf.read(Path("lake-sensitivity/sensitivity.nc"))["model"].values
    np.testing.assert_array_equal(model, rundir.read(inverted).model["density"].values)
    shutil.copytree(inverted, "lake-output")
    assert call("sensitivity", "lake.toml", "--overwrite")[0] == 0, "that of this config is found"
    assert json.loads(Path("lake-sensitivity/summary.json").read_text())["linearized_at"] == "lake-output"
    code, out, _ = call("sensitivity", "lake.toml", "--overwrite", "--set", "sensitivity.trade_off=0.5")
    assert code == 0 and any(line.endswith("trade-off 0.5") for line in out), "what the config says comes first"


def test_the_report_is_drawn_again_and_numbers_repeat(call: Called) -> None:
    given = ("--set", "sensitivity.trade_off=0.002")
    outs = [call("sensitivity", "lake.toml", *given, "--output", name)[1][-2:] for name in ("one", "two")]
    assert outs[0][0] == outs[1][0] and outs[0][0].startswith("31 data tell ")
    one, two = (netcdf.read(Path(name, "sensitivity.nc")) for name in ("one", "two"))
    xarray.testing.assert_identical(one, two)
    first, second = (json.loads(Path(name, "summary.json").read_text()) for name in ("one", "two"))
    timed = {"seconds", "peak_memory_bytes"}
    assert {key: first[key] for key in first.keys() - timed} == {key: second[key] for key in second.keys() - timed}
    assert {path.name for path in Path("one").iterdir()} == {"config.toml", "sensitivity.nc", "summary.json", "report.html", "figures"}
    pictures = {path.stem: path.read_bytes() for path in Path("one/figures").glob("*.png")}
    assert set(pictures) == {"fields", "point-spread", "spectrum"} and min(map(len, pictures.values())) > 5_000
    page = Path("one/report.html").read_text()
    shutil.rmtree("one/figures")
    Path("one/report.html").unlink()
    assert call("report", "one")[:2] == (0, ["one/report.html"])
    assert {path.stem: path.read_bytes() for path in Path("one/figures").glob("*.png")} == pictures
    assert Path("one/report.html").read_text() == page and page.count('src="data:image/png;base64,') == 3
    code, _, _ = call("sensitivity", "one/config.toml", "--output", "three")
    assert code == 0 and netcdf.read(Path("three/sensitivity.nc")).identical(one), "the config that is written makes the same"


def test_an_interruption_ends_with_its_own_code(call: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a process that Ctrl-C ends, 130; what was found is written."""
    monkeypatch.setattr(job, "_images", lambda *_: (None, True))
    code, out, _ = call("sensitivity", "lake.toml", "--set", "sensitivity.trade_off=0.002")
    assert code == 130 and out[-1] == "lake-sensitivity/report.html" and json.loads(Path("lake-sensitivity/summary.json").read_text())["interrupted"]


def test_an_inversion_in_the_directory_replaces_all_of_it(call: Called) -> None:
    """And the other way round: a report is of one kind of results."""
    assert call("sensitivity", "lake.toml", "--set", "sensitivity.trade_off=0.002", "--output", "both")[0] == 0
    assert call("invert", "lake.toml", "--output", "both", "--overwrite", "--set", "inversion.max_iterations=1")[0] == 0
    assert not Path("both/sensitivity.nc").exists() and "Iterations" in Path("both/report.html").read_text()
    assert call("sensitivity", "lake.toml", "--set", "sensitivity.trade_off=0.002", "--output", "both", "--overwrite")[0] == 0
    assert not Path("both/model.nc").exists() and "Depth of investigation" in Path("both/report.html").read_text()


TRADE_OFF = ("--set", "sensitivity.trade_off=0.002")
MISTAKES = {
    "no trade-off": (["lake.toml"], r"Invalid 'sensitivity.trade_off' off: must be known"),
    "another grid": (["lake.toml", "--model", "{run}", "--set", "grid.depth=300"], "Invalid 'model' of 5 x 8 x 8 cells: must be of 4 x 8 x 8"),
    "cells elsewhere": (["lake.toml", "--model", "{run}", "--set", "grid.top=50"], "Invalid 'model' on cells from "),
    "another kind": (["line.toml", "--model", "{run}"], "a gravity inversion: must be one of waveform"),
    "no run": (["lake.toml", "--model", "nowhere"], "Invalid 'directory' 'nowhere': must be the output of 'geoinv invert'"),
    "onto the run": (["lake.toml", "--model", "{run}", "--output", "{run}", "--overwrite"], "must be another directory than the inversion's"),
    "outside": (["lake.toml", *TRADE_OFF, "--set", "sensitivity.cells=[[-1e5,0,0]]"], r"'sensitivity.cells' \[-100000.0, 0.0, 0.0\]: must be inside"),
    "one axis": (["lake.toml", *TRADE_OFF, "--set", "sensitivity.cells=[[-150,0]]"], r"must be a list of \[upward, northing, easting\] in m"),
    "ragged": (["lake.toml", *TRADE_OFF, "--set", "sensitivity.cells=[[-150,500,500],[-150]]"], "must be a list of"),
    "no cells": (["lake.toml", *TRADE_OFF, "--set", "sensitivity.cells=[]"], r"'sensitivity.cells' \[\]: must be a list of"),
    "in water": (
        ["line.toml", "--set", "sensitivity.cells=[[-20,980]]"],
        r"in the inactive cell at \[-20.0, 980.0\]: must be in cells that are unknown",
    ),
    "no smallness": (["lake.toml", *TRADE_OFF, "--set", "regularization.smallness=0"], "Invalid 'regularization.smallness' 0: must be above zero"),
    "unknown option": (["lake.toml", *TRADE_OFF, "--set", "sensitivity.depth=3"], "sensitivity.depth"),
    "out of range": (["lake.toml", *TRADE_OFF, "--set", "sensitivity.investigated=1.5"], "sensitivity.investigated"),
    "no config": (["nowhere.toml"], "Invalid 'config' 'nowhere.toml': must be a TOML file that can be read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_end_in_one_line_and_2_and_write_nothing(mistake: str, call: Called, inverted: Path) -> None:
    arguments, message = MISTAKES[mistake]
    before, kept = set(Path.cwd().rglob("*")), {path: path.read_bytes() for path in inverted.rglob("*") if path.is_file()}
    code, _, err = call("sensitivity", *(each.format(run=inverted) for each in arguments))
    assert code == 2 and len(err) == 1 and err[0].startswith("error: "), err
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(err[0])
    assert set(Path.cwd().rglob("*")) == before and {path: path.read_bytes() for path in inverted.rglob("*") if path.is_file()} == kept


def test_results_are_not_replaced_unasked(call: Called) -> None:
    Path("lake-sensitivity").mkdir()
    Path("lake-sensitivity/notes.txt").write_text("mine")
    code, _, err = call("sensitivity", "lake.toml", *TRADE_OFF)
    assert code == 2 and err == [
        "error: Invalid 'output' 'lake-sensitivity': must be new or empty. Give another --output, or --overwrite to replace its results."
    ]
    assert [path.name for path in Path("lake-sensitivity").iterdir()] == ["notes.txt"]
