"""Inversions of published surveys from end to end: fit, prediction of stations held out, truth where it is known."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from geoinv import config, rundir
from geoinv.operators.gravity.components import prism_field
from geoinv.operators.grid import Grid

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("GEOINV_DATA", "GEOINV_DATA-is-not-set"))


def _invert(name: str, folder: str, output: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> rundir.Run:
    if not (DATA / folder).is_dir():
        pytest.skip(f"needs the survey files: set GEOINV_DATA ({DATA / folder} is not there)")
    monkeypatch.setenv("GEOINV_DATA", str(DATA))
    options = config.load(ROOT / "scripts" / "configs" / f"{name}.toml", overrides)
    importlib.import_module(f"geoinv.{options.kind}.job").invert(options, output, console=Console(quiet=True))
    return rundir.read(output)


@pytest.mark.slow
def test_clear_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2929 real stations: as good a fit as the published SimPEG models' (0.237 to 0.252 mGal), and one that predicts."""
    run = _invert("clear_lake", "clear-lake-gravity", tmp_path / "run", monkeypatch)
    predicted, fitted = run.predicted, run.predicted["holdout"].values == 0
    residual = 1e5 * (predicted["observed"] - predicted["predicted"]).values[:, 0]
    assert np.std(residual[fitted]) <= 0.26
    held = residual[~fitted]
    assert held.size == 293 and 1.4826 * np.median(np.abs(held - np.median(held))) <= 0.7
    assert run.summary["peak_memory_bytes"] <= 6e9
    # The same model through the closed form of prisms, at the stations as they stand: no finite differences, no near field, nothing raised.
    grid = Grid.from_xarray(run.model["density"])
    points = np.stack([predicted[dim].values for dim in grid.dims], axis=1)[fitted]
    exact = prism_field("gz", points, grid, np.nan_to_num(run.model["density"].values))
    assert np.std(predicted["observed"].values[fitted, 0] - exact) <= 0.35e-5


@pytest.mark.slow
def test_do27(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The low of the model lies inside the outlines of the true pipes, above their roots."""
    run = _invert("do27", "do27-joint-synthetic", tmp_path / "run", monkeypatch)
    assert run.summary["chi2"] <= 1.1
    density = np.nan_to_num(run.model["density"].values)
    low = density < density.min() / 2
    grid = Grid.from_xarray(run.model["density"])
    centre = [
        np.average(axis, weights=(density * low * grid.volumes).sum(axis=others))
        for axis, others in zip(grid.centers, [(1, 2), (0, 2), (0, 1)], strict=True)
    ]
    vertices = np.concatenate([_vertices(DATA / "do27-joint-synthetic" / f"{name}.ts") for name in ("PK1", "VK", "HK1")])
    inside = np.column_stack([vertices.min(axis=0), vertices.max(axis=0)])
    assert np.all((inside[:, 0] <= centre) & (centre <= inside[:, 1]))
    distance = np.min(np.linalg.norm(vertices[:, 1:] - np.array(centre[1:]), axis=1))
    assert distance <= 60.0, "within the pipes, which are some 120 m across, in plan"


def test_koenigsee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """714 real picks: a better fit than pyGIMLi's 0.743 ms, one that predicts, and rock that lies deepest below the middle of the line."""
    run = _invert("koenigsee", "koenigsee-refraction", tmp_path / "run", monkeypatch)
    assert run.summary["n_data"] == 643 and run.summary["chi2"] <= 1 and run.summary["rms"] <= 0.74
    assert run.summary["holdout_rms"] <= 1.5 * run.summary["rms"]
    velocity = run.model["velocity"]
    ground = np.interp(velocity["easting"], run.model["surface_easting"], run.model["surface_upward"])
    depth = velocity["easting"].copy(data=ground) - velocity["upward"]
    shallow, deep = (velocity.where((depth > low) & (depth < high)).sel(easting=slice(0, 48)) for low, high in ((0, 1), (5, 10)))
    assert float(shallow.median()) < 700 and 1700 < float(deep.median()) < 3000
    slow = velocity.where((depth > 1) & (depth < 3))
    assert float(slow.sel(easting=slice(22, 34)).median()) < 0.7 * float(slow.sel(easting=slice(2, 14)).median())


def _vertices(path: Path) -> np.ndarray:
    """Upward, northing, easting of the vertices of a GOCAD surface."""
    rows = [line.split() for line in path.read_text().splitlines() if line.startswith(("VRTX", "PVRTX"))]
    return np.array([[float(word) for word in row[2:5]] for row in rows])[:, ::-1]
