"""`geoinv sensitivity` while it runs: what interruptions leave, progress, and searches that end early."""

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from rich.console import Console

from geoinv.datasets import netcdf, synthetic
from geoinv.gravity import sensitivity as gravity
from geoinv.operators.grid import Grid
from geoinv.operators.sensitivity import informed
from geoinv.regularization import small_and_smooth
from geoinv.sensitivity import job
from geoinv.sensitivity.target import lines
from geoinv.waveform import sensitivity as waveform

from test_gravity_job import EXAMPLE  # isort: skip
from test_sensitivity_job import CELLS, QUIET, Dense, settings  # isort: skip
from test_waveform_inversion import options  # isort: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sensitivity")
    netcdf.write(made / "stations.nc", EXAMPLE.survey)
    return made


INTERRUPTIONS = {
    "directions that the data inform": "Not all directions are found (interrupted)",
    "images of points": "Images of points are made of the directions that were found.",
    "deviations": "Interrupted: deviations are from 100 samples.",
}


@pytest.mark.parametrize("label", INTERRUPTIONS)
def test_an_interruption_writes_what_was_found(label: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the second unit of a long step."""

    @contextlib.contextmanager
    def progress(console: Console, text: str, total: int | None = None) -> Iterator[Callable[[float], None]]:
        done: list[float] = []

        def advance(units: float) -> None:
            done.append(units)
            if text == label and len(done) == 2:
                raise KeyboardInterrupt

        yield advance

    monkeypatch.setattr(job, "progress", progress)
    output, console = folder / "interrupted", Console(record=True, file=io.StringIO(), width=500)
    chosen = settings(folder, sensitivity={"samples": 200, "enough": 1e-2})
    summary = job.run(chosen, output, overwrite=True, console=console)
    data = netcdf.read(output / "sensitivity.nc")
    assert summary["complete"] == (label != "directions that the data inform") and summary["interrupted"]
    assert any(line.startswith(INTERRUPTIONS[label]) for line in summary["warnings"])
    assert f"warning: {INTERRUPTIONS[label]}" in console.export_text() and INTERRUPTIONS[label] in (output / "report.html").read_text()
    assert json.loads((output / "summary.json").read_text())["warnings"] == summary["warnings"]
    assert np.all(np.isfinite(data["deviation"].values[~np.isnan(data["model"].values)])) and data["point_spread"].values[0].any()
    if not summary["complete"]:
        exact = np.trace(Dense(gravity.target(chosen, None, QUIET)).resolution)
        assert summary["directions"] == 2 and abs(summary["degrees_of_freedom"] - exact) < 3 * summary["degrees_of_freedom_error"]


def test_progress_counts_products_and_samples(folder: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    job.resolve(settings(folder, sensitivity={"samples": 150, "enough": 1e-2, "products": 300}), console)
    shown = console.file.getvalue()
    assert "150/150" in shown and "2/2" in shown and re.search(r"directions that the data inform.* [1-9][0-9]*/300", shown)


def test_lines_follow_the_axis_whose_cells_are_tied_most() -> None:
    """Cells of a fifth of their width: columns, of the active cells only, and a trend's coefficient behind them."""
    grid, active = Grid.uniform((4, 3, 2), (20.0, 100.0, 100.0), origin=(-80.0, 0.0, 0.0)), np.ones((4, 3, 2), bool)
    active[3, 0, 0] = False
    matrix = scipy.sparse.block_diag([small_and_smooth(grid, active).hessian.to_scipy(), np.eye(1)], format="csr")
    places = np.argwhere(active)[lines(matrix, active)[:-1]]
    assert lines(matrix, active)[-1] == 23
    np.testing.assert_array_equal(places[:3], [[0, 0, 0], [1, 0, 0], [2, 0, 0]])
    np.testing.assert_array_equal(places[3:7], [[0, 0, 1], [1, 0, 1], [2, 0, 1], [3, 0, 1]])


def test_images_need_no_complete_search(folder: Path) -> None:
    """They are solved for, and so as of dense matrices to a thousandth though few directions are found."""
    chosen = settings(folder, sensitivity={"products": 8, "samples": 2})
    made, dense = job.resolve(chosen, QUIET), Dense(gravity.target(chosen, None, QUIET))
    assert not made.found.complete
    numbers = np.full(made.target.grid.shape, -1)
    numbers[made.target.active] = np.arange(dense.cells)
    for image, place in zip(made.data["point_spread"].values, CELLS, strict=True):
        expected = dense.resolution[: dense.cells, numbers[tuple(made.target.grid.cell_index(np.array([place]))[0])]]
        np.testing.assert_allclose(image[made.target.active], expected, atol=1e-3 * np.abs(expected).max())


def test_waveforms_tell_what_their_dense_jacobian_does(tmp_path: Path) -> None:
    """In single precision, and of a symmetric line: degrees of freedom, deviations and images within their errors."""
    shots = synthetic.waveform(shape=(10, 20), spacing=60.0, shot_count=2, receiver_count=9, length=1.2, frequency=6.0, noise=0.05)
    netcdf.write(tmp_path / "survey.nc", shots.survey)
    netcdf.write(tmp_path / "start.nc", shots.start)
    chosen = options(tmp_path, bands={"lowpass": [4.0]}, sensitivity={"deviation": 100.0, "length": 60.0})
    target = waveform.target(chosen, None, QUIET)
    dense, found = Dense(target), informed(target.at, target.weights, target.prior)
    exact = np.linalg.eigvals(dense.prior @ dense.information).real
    large = np.sort(exact[exact > 0.1])[::-1]
    assert found.complete and large.size > 15
    np.testing.assert_allclose(found.values[: large.size], large, rtol=0.02)
    told = found.degrees_of_freedom
    assert abs(told.value - np.trace(dense.resolution)) < 3 * told.error < 2
    ratio = np.sqrt(np.diag(found.covariance(np.eye(dense.cells))) / np.diag(dense.posterior))
    assert ratio.min() > 0.999 and ratio.max() < np.sqrt(1.1)
    images, _ = job._images(target, found, np.array([30, 50, 90]), QUIET)
    np.testing.assert_allclose(images, dense.resolution[:, [30, 50, 90]], atol=2e-3 * np.abs(dense.resolution[:, [30, 50, 90]]).max())
