"""What a gravity inversion starts from: grid, ground, reductions, uncertainties and bounds, against numbers by hand."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoinv.config import parse
from geoinv.datasets import csv, netcdf, projection, ubc
from geoinv.datasets import survey as surveys
from geoinv.gravity import inputs as gravity_inputs
from geoinv.gravity.inputs import Inputs
from geoinv.operators.grid import Grid

MGAL = 1e-5
NORTHING, EASTING = (axis.ravel() for axis in np.meshgrid([1000.0, 1450.0, 2000.0], [5000.0, 5300.0, 6100.0], indexing="ij"))
UPWARD = np.linspace(10.0, 50.0, 9)
OBSERVED = np.array([3.0, -2.0, 5.0, 1.0, 0.5, -4.0, 2.0, 7.0, 0.1])


def write(folder: Path, *, observed: np.ndarray = OBSERVED, uncertainty: Any = 0.1, upward: np.ndarray = UPWARD, crs: str = "") -> None:
    made = surveys.make(EASTING, NORTHING, upward, {"gz": observed * MGAL}, {"gz": np.broadcast_to(uncertainty, 9) * MGAL}, crs=crs)
    csv.write_csv(folder / "stations.csv", made)


def load(folder: Path, **sections: dict[str, Any]) -> Inputs:
    if not (folder / "stations.csv").exists():
        write(folder)
    options: dict[str, dict[str, Any]] = {"data": {"file": "stations.csv"}, "grid": {"spacing": [25.0, 100.0, 200.0], "depth": 200.0}}
    for name, section in sections.items():
        options[name] = {**options.get(name, {}), **section}
    if "file" in options["grid"]:
        options["grid"] = {"file": options["grid"]["file"]}
    return gravity_inputs.load(parse(options, folder=folder))


def gz(inputs: Inputs) -> np.ndarray:
    return inputs.survey["observed"].values[:, 0] / MGAL


# The grid


def test_grid_covers_the_stations_and_a_margin_of_three_cells(tmp_path: Path) -> None:
    grid = load(tmp_path).grid
    for axis, size, low, high in ((1, 100.0, 1000.0, 2000.0), (2, 200.0, 5000.0, 6100.0)):
        np.testing.assert_allclose(grid.widths[axis], size)
        assert 3 * size <= low - grid.edges[axis][0] < 4 * size
        assert low - grid.edges[axis][0] == pytest.approx(grid.edges[axis][-1] - high)


def test_margin_is_an_option(tmp_path: Path) -> None:
    edges = load(tmp_path, grid={"margin": 0.0}).grid.edges
    np.testing.assert_allclose(edges[1], np.arange(1000.0, 2001.0, 100.0))
    np.testing.assert_allclose(edges[2], np.arange(4950.0, 6151.0, 200.0))  # 1100 m take 6 cells of 200 m


def test_layers_reach_from_the_ground_to_the_depth(tmp_path: Path) -> None:
    upward = load(tmp_path).grid.edges[0]
    np.testing.assert_allclose(np.diff(upward), 25.0)
    assert 50.0 <= upward[-1] < 75.0  # the highest station, rounded up to a cell
    assert -190.0 - 25.0 < upward[0] <= -190.0  # 200 m below the lowest


def test_depth_is_half_the_smaller_extent_by_default(tmp_path: Path) -> None:
    """1600 m along northing and 2400 m along easting: 800 m below 10 m."""
    upward = load(tmp_path, grid={"depth": None}).grid.edges[0]
    assert -790.0 - 25.0 < upward[0] <= -790.0


def test_top_is_an_option(tmp_path: Path) -> None:
    assert load(tmp_path, grid={"top": 123.0}).grid.edges[0][-1] == 123.0


def test_layers_grow_below_the_uniform_depth(tmp_path: Path) -> None:
    upward = load(tmp_path, grid={"growth": 1.5, "uniform_depth": 60.0, "depth": 500.0, "top": 50.0}).grid.edges[0]
    # Downwards from 50: 25 m layers to 10 - 60 = -50, then 25 x 1.5^n to -490 or just below.
    expected = [25.0] * 4 + [37.5, 56.25, 84.375, 126.5625, 189.84375]
    np.testing.assert_allclose(np.diff(upward)[::-1], expected)
    assert upward[0] <= -490.0 < upward[1]


def test_mesh_file_is_the_grid(tmp_path: Path) -> None:
    mesh = Grid((np.array([-300.0, -100.0, 0.0, 50.0]), np.array([900.0, 1400.0, 2100.0]), np.array([4900.0, 5200.0, 5600.0, 6200.0])))
    ubc.write_mesh(tmp_path / "m.msh", mesh)
    for found, expected in zip(load(tmp_path, grid={"file": "m.msh"}).grid.edges, mesh.edges, strict=True):
        np.testing.assert_allclose(found, expected)


# The ground


def test_flat_ground_is_active_everywhere_below_the_stations(tmp_path: Path) -> None:
    inputs = load(tmp_path, topography={"source": "flat"})
    assert inputs.active.all()
    assert inputs.grid.edges[0][-1] == 10.0
    assert not inputs.raised.any()


def test_ground_through_the_stations(tmp_path: Path) -> None:
    """Cells are active where their centre lies below a plane through stations that stand on one."""
    plane = 20.0 + 0.02 * (NORTHING - 1000.0) + 0.01 * (EASTING - 5000.0)
    write(tmp_path, upward=plane)
    inputs = load(tmp_path, grid={"spacing": [5.0, 100.0, 100.0], "margin": 0.0})
    up, north, east = inputs.grid.centers
    height = 20.0 + 0.02 * (north[:, None] - 1000.0) + 0.01 * (east - 5000.0)
    expected = up[:, None, None] < height
    assert np.mean(inputs.active == expected) > 0.99  # stations may lower the top of their column
    assert inputs.raised.max() <= 5.0


@pytest.mark.parametrize("kind", ["csv", "nc"])
def test_ground_from_a_file(tmp_path: Path, kind: str) -> None:
    """A step: 0 m in the south, 100 m in the north; the stations stand on it."""
    north, east = np.array([0.0, 1499.0, 1501.0, 3000.0]), np.array([4000.0, 7000.0])
    step = np.repeat([0.0, 0.0, 100.0, 100.0], 2).reshape(4, 2)
    if kind == "nc":
        import xarray

        netcdf.write(tmp_path / "t.nc", xarray.DataArray(step, {"northing": north, "easting": east}, ("northing", "easting"), "z").to_dataset())
    else:
        lines = [f"{e},{n},{z}" for n, row in zip(north, step, strict=True) for e, z in zip(east, row, strict=True)]
        (tmp_path / "t.csv").write_text("\n".join(["easting,northing,upward", *lines]) + "\n")
    write(tmp_path, upward=np.where(NORTHING < 1500, 0.0, 100.0))
    inputs = load(tmp_path, topography={"source": "file", "file": f"t.{kind}"}, grid={"margin": 0.0})
    north_of = inputs.grid.centers[1] > 1500
    below = inputs.grid.centers[0] < 0
    assert inputs.active[:, north_of].all()
    assert not inputs.active[~below][:, ~north_of].any()
    assert inputs.active[below].all()


def test_stations_in_the_staircase_are_raised_to_its_top(tmp_path: Path) -> None:
    write(tmp_path, upward=np.full(9, -7.0))
    (tmp_path / "t.csv").write_text("easting,northing,upward\n0,0,0\n9000,0,0\n0,9000,0\n9000,9000,0\n")
    inputs = load(tmp_path, topography={"source": "file", "file": "t.csv"})
    np.testing.assert_allclose(inputs.raised, 7.0)


# The data


def test_height_is_added(tmp_path: Path) -> None:
    inputs = load(tmp_path, data={"height": 2.5})
    np.testing.assert_allclose(inputs.survey["upward"], UPWARD + 2.5)
    assert "2.5 m added" in inputs.survey.attrs["history"]


def test_disturbance_by_hand(tmp_path: Path) -> None:
    """Somigliana's formula at height zero: 9.7803253359 (1 + k sin^2) / sqrt(1 - e^2 sin^2) of WGS84."""
    crs = "EPSG:32631"
    east, north = projection.project([3.0, 3.1, 3.05], [45.0, 45.0, 45.1], crs)
    made = surveys.make(east, north, np.zeros(3), {"gz": np.full(3, 9.806)}, {"gz": np.full(3, 1e-6)}, crs=crs)
    csv.write_csv(tmp_path / "stations.csv", made)
    inputs = load(tmp_path, data={"reduction": "disturbance", "crs": crs}, grid={"spacing": [100.0, 2000.0, 2000.0]})
    square = np.sin(np.radians([45.0, 45.0, 45.1])) ** 2
    normal = 9.7803253359 * (1 + 0.00193185265241 * square) / np.sqrt(1 - 0.00669437999013 * square)
    np.testing.assert_allclose(gz(inputs), (9.806 - normal) / MGAL, atol=1e-3)
    assert "normal gravity" in inputs.survey.attrs["history"]


def test_bouguer_by_hand(tmp_path: Path) -> None:
    """0.04193 mGal a metre of 1000 kg/m3, besides the disturbance; 0.3086 mGal a metre of free air."""
    crs = "EPSG:32631"
    east, north = projection.project([3.0, 3.1, 3.05], [45.0, 45.0, 45.0], crs)
    height = np.array([0.0, 100.0, 200.0])
    made = surveys.make(east, north, height, {"gz": np.full(3, 9.806)}, {"gz": np.full(3, 1e-6)}, crs=crs)
    csv.write_csv(tmp_path / "stations.csv", made)
    grid = {"spacing": [100.0, 2000.0, 2000.0]}
    free = gz(load(tmp_path, data={"reduction": "disturbance", "crs": crs}, grid=grid))
    full = gz(load(tmp_path, data={"reduction": "bouguer", "crs": crs, "bouguer_density": 2000.0}, grid=grid))
    np.testing.assert_allclose(free - free[0], 0.3086 * height, atol=0.05)
    np.testing.assert_allclose(free - full, 2 * np.pi * 6.6743e-11 * 2000.0 * height / MGAL, rtol=1e-4, atol=1e-9)


def test_reduction_of_a_netcdf_survey_takes_the_crs_of_the_config(tmp_path: Path) -> None:
    crs = "EPSG:32631"
    east, north = projection.project([3.0, 3.1, 3.05], [45.0, 45.0, 45.1], crs)
    netcdf.write(tmp_path / "s.nc", surveys.make(east, north, np.zeros(3), {"gz": np.full(3, 9.806)}, {"gz": np.full(3, 1e-6)}))
    inputs = load(tmp_path, data={"file": "s.nc", "reduction": "disturbance", "crs": crs}, grid={"spacing": [100.0, 2000.0, 2000.0]})
    assert np.abs(gz(inputs)).max() < 100.0


@pytest.mark.parametrize("degree", [0, 1])
def test_trend_removed_is_gone_and_recorded(tmp_path: Path, degree: int) -> None:
    plane = 12.0 + (0.004 * (EASTING - 5500.0) - 0.002 * NORTHING if degree else 0.0)
    write(tmp_path, observed=plane + np.zeros(9))
    inputs = load(tmp_path, data={"trend_degree": degree})
    np.testing.assert_allclose(gz(inputs), 0.0, atol=1e-8)
    assert f"trend of degree {degree} removed from gz" in inputs.survey.attrs["history"]
    assert len(inputs.survey.attrs["trend_coefficients"]) == (3 if degree else 1)


def test_trend_to_solve_for_stays_in_the_data(tmp_path: Path) -> None:
    np.testing.assert_allclose(gz(load(tmp_path, data={"trend_degree": 1, "trend": "solve"})), OBSERVED, atol=1e-9)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, np.full(9, 0.3)),
        ({"uncertainty_floor": 0.2}, np.full(9, 0.3)),
        ({"uncertainty_floor": 0.4, "uncertainty_relative": 0.05}, np.full(9, 0.4)),
        ({"uncertainty_relative": 0.05}, np.full(9, 0.3)),
    ],
)
def test_uncertainty_rules(tmp_path: Path, rule: dict[str, float], expected: np.ndarray) -> None:
    write(tmp_path, uncertainty=0.3)
    np.testing.assert_allclose(load(tmp_path, data=rule).survey["uncertainty"].values[:, 0] / MGAL, expected, rtol=1e-9)


def test_without_uncertainties_floor_and_relative_make_them(tmp_path: Path) -> None:
    write(tmp_path, uncertainty=0.0)
    rule = {"uncertainty_floor": 0.2, "uncertainty_relative": 0.05}
    found = load(tmp_path, data=rule).survey["uncertainty"].values[:, 0] / MGAL
    np.testing.assert_allclose(found, 0.2 + 0.05 * np.abs(OBSERVED), rtol=1e-9)


def test_floor_takes_the_place_of_zeros(tmp_path: Path) -> None:
    write(tmp_path, uncertainty=np.array([0.0] + [0.3] * 8))
    with pytest.raises(ValueError, match=r"1 of 9 stations: must be positive\. Give data.uncertainty_floor"):
        load(tmp_path)
    np.testing.assert_allclose(load(tmp_path, data={"uncertainty_floor": 0.05}).survey["uncertainty"].values[0, 0] / MGAL, 0.05)


def test_floor_is_in_the_units_of_the_file(tmp_path: Path) -> None:
    inputs = load(tmp_path, data={"units": "uGal", "uncertainty_floor": 20.0})
    np.testing.assert_allclose(gz(inputs), OBSERVED / 1000, rtol=1e-9)
    np.testing.assert_allclose(inputs.survey["uncertainty"] / MGAL, 0.02, rtol=1e-9)


def test_formats_give_the_same_survey(tmp_path: Path) -> None:
    from_csv = load(tmp_path).survey
    ubc.write_observations(tmp_path / "s.obs", from_csv)
    netcdf.write(tmp_path / "s.nc", from_csv)
    (tmp_path / "s.txt").write_bytes((tmp_path / "s.obs").read_bytes())
    for data in ({"file": "s.obs"}, {"file": "s.nc"}, {"file": "s.txt", "format": "ubc"}):
        other = load(tmp_path, data=data).survey
        for name in ("easting", "northing", "upward", "observed", "uncertainty"):
            np.testing.assert_allclose(other[name], from_csv[name], rtol=1e-9, atol=1e-13)


def test_gravity_counted_up_is_turned(tmp_path: Path) -> None:
    np.testing.assert_allclose(gz(load(tmp_path, data={"positive": "up"})), -OBSERVED, atol=1e-9)


# Bounds


def test_bounds_from_numbers_and_none(tmp_path: Path) -> None:
    inputs = load(tmp_path, bounds={"upper": 300.0})
    assert inputs.lower.shape == inputs.upper.shape == (inputs.active.sum(),)
    assert np.all(inputs.lower == -np.inf)
    assert np.all(inputs.upper == 300.0)


def test_bounds_from_model_files(tmp_path: Path) -> None:
    first = load(tmp_path)
    grid, active = first.grid, first.active
    values = np.random.default_rng(0).uniform(100.0, 200.0, grid.shape)
    netcdf.write(tmp_path / "u.nc", grid.to_xarray(values, name="density", units="kg/m3"))
    ubc.write_model(tmp_path / "l.den", grid, np.where(active, -values, np.nan))  # air where there is air
    inputs = load(tmp_path, bounds={"lower": "l.den", "upper": "u.nc"})
    assert not active.all()
    np.testing.assert_array_equal(inputs.upper, values[active])
    np.testing.assert_allclose(inputs.lower, -values[active], rtol=1e-7)


# What is said


def test_description(tmp_path: Path) -> None:
    write(tmp_path, uncertainty=0.0)
    inputs = load(tmp_path, data={"uncertainty_floor": 0.2, "uncertainty_relative": 0.1}, grid={"margin": 0.0, "top": 60.0})
    lines = gravity_inputs.describe(inputs)
    assert lines[0] == "survey: 9 stations, -4 to 7 mGal, uncertainty 0.21 to 0.9 mGal"
    assert lines[1] == f"grid: 10 x 10 x 6 cells of 25 x 100 x 200 m (upward, northing, easting), {inputs.active.sum()} of 600 active"
    assert lines[2].startswith("ground: ")
    assert any("uncertainty (SI) set to" in line for line in lines[3:])


def test_description_counts_what_is_raised(tmp_path: Path) -> None:
    inputs = load(tmp_path)
    count = int((inputs.raised > 0).sum())
    assert count > 0
    assert f"{count} stations raised to the top of their cell, by {inputs.raised.max():.3g} m at most" in gravity_inputs.describe(inputs)[2]


def test_check_does_not_import_tensorflow(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "c.toml").write_text('[data]\nfile = "stations.csv"\ntrend_degree = 1\n[grid]\nspacing = [25.0, 100.0, 200.0]\n')
    code = (
        "import sys; from geoinv import cli; sys.argv = ['geoinv', 'check', 'c.toml']\ntry: cli.main()\nfinally: print('tensorflow' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "9 stations" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "False"
