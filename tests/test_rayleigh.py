"""Straight-ray tomography of real Rayleigh waves through the sparse matrices, and of made-up paths whose answer is known."""

import os
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from geoinv.datasets import netcdf

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "invert_rayleigh.py"
FILE = Path(os.environ.get("GEOINV_DATA", "GEOINV_DATA-is-not-set")) / "australia-rayleigh-5s" / "sw_tomography.npz"
SIDE, PATHS, NAN = 6, 300, float("nan")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def made_up_paths() -> dict[str, np.ndarray]:
    """Random paths over SIDE x SIDE cells of one degree, with their matrices and slownesses that the cells explain exactly."""
    rng = np.random.default_rng(0)
    shares = scipy.sparse.random_array((PATHS, SIDE * SIDE), density=0.2, rng=rng, format="csr")
    shares = scipy.sparse.csr_array(scipy.sparse.diags_array(1 / shares.sum(axis=1)) @ shares)
    shares.sort_indices()
    step = scipy.sparse.diags_array([np.ones(SIDE - 1), -np.ones(SIDE - 1)], offsets=[0, 1], shape=(SIDE - 1, SIDE))
    same = scipy.sparse.eye_array(SIDE)
    roughness = scipy.sparse.vstack([scipy.sparse.kron(step, same), scipy.sparse.kron(same, step)], format="csr")
    south, west = np.divmod(np.arange(SIDE * SIDE), SIDE)
    slowness = 3e-4 + 1e-5 * np.sin(south) * np.cos(west)
    matrices = {
        f"{name}_{part}": getattr(matrix, part) for name, matrix in (("jac", shares), ("R", roughness)) for part in ("data", "indices", "indptr")
    }
    coordinates = rng.uniform(0, SIDE, (PATHS, 4))
    cells = np.stack([south, south + 1, west, west + 1], axis=1).astype(float)
    return {**matrices, "slowness": shares @ slowness, "station_coords": coordinates, "grid_mesh": cells, "true": slowness}


def test_australia(script: dict[str, Any], tmp_path: Path) -> None:
    """The fit of the published solution or a better one, on all paths and on those held out, and velocities that exist."""
    if not FILE.is_file():
        pytest.skip(f"needs the survey files: set GEOINV_DATA ({FILE} is not there)")
    model, message = script["run"](FILE, tmp_path)
    assert model.attrs["rms"] <= 8.45e-6
    assert model.attrs["holdout_rms"] <= 9.1e-6
    slowness = model["slowness"].values[np.isfinite(model["slowness"].values)]
    assert slowness.min() > 0
    with np.load(FILE) as archive:
        mesh, measured, published = (archive[name] for name in ("grid_mesh", "slowness", "model"))
        parts = tuple(archive[f"jac_{part}"] for part in ("data", "indices", "indptr"))
    shares = scipy.sparse.csr_array(parts, shape=(measured.size, published.size))
    latitude, longitude = np.round(mesh[:, :2].mean(axis=1), 6), np.round(mesh[:, 2:].mean(axis=1), 6)
    read = netcdf.read(tmp_path / "model.nc")["slowness"]
    cells = read.values[np.searchsorted(read["latitude"], latitude), np.searchsorted(read["longitude"], longitude)]
    assert np.sqrt(np.mean((shares @ cells - measured) ** 2)) == pytest.approx(model.attrs["rms"], rel=1e-9), "the file holds the model that fits"
    assert np.sqrt(np.mean((cells / published - 1) ** 2)) < 0.005, "the published model, to half a per cent"
    assert "8.44e-06 s/m on all paths (2.7 %" in message


def test_the_model_is_that_of_the_normal_equations(script: dict[str, Any], tmp_path: Path) -> None:
    arrays, damping = made_up_paths(), 0.3
    np.savez(tmp_path / "paths.npz", **arrays)
    paths = script["load"](tmp_path / "paths.npz")
    weights = 1.0 - script["held_out"](PATHS, 0.1, 3)
    assert weights.sum() == 270
    shares, roughness = (scipy.sparse.csr_array(matrix.to_scipy()) for matrix in (paths.shares, paths.roughness))
    chosen = shares[weights == 1]
    normal = (chosen.T @ chosen + damping**2 * roughness.T @ roughness).tocsc()
    expected = scipy.sparse.linalg.spsolve(normal, chosen.T @ arrays["slowness"][weights == 1])
    np.testing.assert_allclose(script["invert"](paths, weights, damping), expected, rtol=1e-8)


@pytest.mark.slow
def test_little_damping_finds_the_slownesses_that_made_the_data(script: dict[str, Any], tmp_path: Path) -> None:
    arrays = made_up_paths()
    np.savez(tmp_path / "paths.npz", **arrays)
    model, message = script["run"](tmp_path / "paths.npz", tmp_path / "out", damping=1e-4)
    read = netcdf.read(tmp_path / "out" / "model.nc")
    np.testing.assert_allclose(read["slowness"].values.ravel(), arrays["true"], rtol=1e-4)
    np.testing.assert_allclose(read["velocity"] * read["slowness"], 1.0)
    assert read["paths"].sum() == arrays["jac_indices"].size
    np.testing.assert_array_equal(read["latitude"], np.arange(SIDE) + 0.5)
    assert model.attrs["holdout_rms"] < 1e-8 and "30 paths that were held out (seed 0)" in message
    assert (tmp_path / "out" / "velocity.png").read_bytes().startswith(b"\x89PNG")


def test_path_lengths_are_great_circles(script: dict[str, Any], tmp_path: Path) -> None:
    arrays = made_up_paths()
    arrays["station_coords"][:2] = [[0, 0, 0, 90], [30, 10, -60, 10]]
    np.savez(tmp_path / "paths.npz", **arrays)
    np.testing.assert_allclose(script["load"](tmp_path / "paths.npz").lengths[:2], 6371 * np.pi / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slowness": None, "R_data": None}, "without R_data, slowness"),
        ({"slowness": np.r_[0.0, np.ones(PATHS - 1)]}, "Invalid 'slowness' 0 at index 0: must be positive"),
        ({"slowness": np.ones(5)}, r"Invalid 'station_coords' of shape \(300, 4\): must be of shape \(5, 4\)"),
        ({"slowness": np.ones(5), "station_coords": np.zeros((5, 4))}, "Invalid 'indptr' of length 301: must be of length 6"),
        ({"grid_mesh": np.zeros((10, 4))}, "Invalid 'indices'"),
        ({"station_coords": np.zeros((PATHS, 2))}, r"Invalid 'station_coords' of shape \(300, 2\)"),
        ({"station_coords": np.full((PATHS, 4), np.nan)}, "Invalid 'station_coords' nan at index 0"),
        ({"slowness": np.ones((PATHS, 1))}, r"Invalid 'slowness' of shape \(300, 1\): must be of shape \(300,\)"),
        ({"grid_mesh": np.zeros((36, 2))}, r"Invalid 'grid_mesh' of shape \(36, 2\): must be of shape \(36, 4\)"),
        ({"grid_mesh": np.zeros(36)}, r"Invalid 'grid_mesh' of shape \(36,\): must be of shape \(36, 4\)"),
        ({"grid_mesh": np.float64(0)}, r"Invalid 'grid_mesh' of shape \(\)"),
        ({"R_data": np.array([1.0, None])}, "Invalid 'R_data' that cannot be read: must be an array of numbers"),
        ({"slowness": np.array(["a"] * PATHS)}, "Invalid 'slowness' of dtype <U1: must be an array of real numbers"),
        ({"jac_data": np.array([1j])}, "Invalid 'jac_data' of dtype complex128"),
        ({"R_indptr": np.zeros(0, int)}, "Invalid 'R_indptr' with 0 entries"),
    ],
)
def test_bad_archives_are_named(script: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str) -> None:
    arrays = {name: array for name, array in {**made_up_paths(), **change}.items() if array is not None}
    np.savez(tmp_path / "paths.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        script["load"](tmp_path / "paths.npz")


@pytest.mark.parametrize("options", [{"damping": 0.0}, {"damping": NAN}, {"holdout": 1.0}, {"holdout": 0.0}, {"holdout": NAN}, {"seed": -1}])
def test_bad_options_are_named(script: dict[str, Any], tmp_path: Path, options: dict[str, Any]) -> None:
    np.savez(tmp_path / "paths.npz", **made_up_paths())
    with pytest.raises(ValueError, match=f"Invalid '--{next(iter(options))}'"):
        script["run"](tmp_path / "paths.npz", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", ["taken", "taken/deeper"])
def test_an_output_that_is_a_file_is_refused_before_the_archive_is_read(script: dict[str, Any], tmp_path: Path, output: str) -> None:
    (tmp_path / "taken").write_text("kept")
    with pytest.raises(ValueError, match=r"Invalid '--output'.*must be a directory"):
        script["run"](tmp_path / "absent.npz", tmp_path / output)
    assert (tmp_path / "taken").read_text() == "kept"


def test_mistakes_end_in_one_line(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    for name, message in (("absent.npz", "must be an existing file"), ("text.npz", "must be an archive of NumPy arrays")):
        monkeypatch.setattr("sys.argv", ["invert_rayleigh.py", str(tmp_path / name)])
        assert script["main"]() == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: Invalid '{'path' if name == 'absent.npz' else 'FILE.npz'}'") and message in line
