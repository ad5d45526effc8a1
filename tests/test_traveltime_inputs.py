"""What a travel-time inversion starts from: config, ground, cells, uncertainties and start model, against numbers by hand."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from geoinv.config import dump_toml, load, parse, template
from geoinv.datasets import netcdf, pick_table, picks, sgt
from geoinv.operators.grid import Grid
from geoinv.traveltime import inputs as traveltime_inputs
from geoinv.traveltime import job
from geoinv.traveltime.config import TravelTimeConfig
from geoinv.traveltime.inputs import Ground, Inputs

MINIMAL: dict[str, Any] = {"kind": "traveltime", "data": {"file": "picks.sgt"}}
UNIT = {"grid": {"spacing": [1.0, 1.0]}}
#: Receivers every 2 m from 0 to 20 m, and one shot between two of them.
EASTING = np.append(np.arange(0.0, 21.0, 2.0), 9.0)


def line(easting: Any = EASTING, upward: Any = 0.0, **changed: Any) -> xarray.Dataset:
    """A survey whose last sensor is the shot that all others hear, at 1000 m/s along the line and 1 ms more."""
    easting, last = np.asarray(easting, float), len(easting) - 1
    times = 1e-3 * (1 + np.abs(easting[:-1] - easting[-1]))
    given = {"shot": np.full(last, last), "receiver": np.arange(last), "observed": times} | changed
    return picks.make(easting, np.broadcast_to(np.asarray(upward, float), easting.shape), **given)


def options(*sections: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = dict(MINIMAL)
    for each in sections:
        found |= {name: {**found.get(name, {}), **section} for name, section in each.items()}
    return found


def loaded(folder: Path, survey: xarray.Dataset | None, *sections: dict[str, dict[str, Any]], seed: int = 0) -> Inputs:
    """What the survey, written as .sgt, and options lead to."""
    if survey is not None:
        sgt.write_sgt(folder / "picks.sgt", survey)
    config = parse({**options(*sections), "seed": seed}, folder=folder)
    assert isinstance(config, TravelTimeConfig)
    return traveltime_inputs.load(config)


def hill(folder: Path, easting: Any, upward: Any) -> dict[str, dict[str, Any]]:
    """Options for ground through points, which a file holds."""
    np.savetxt(folder / "ground.csv", np.stack([easting, upward], axis=1), "%.17g", ",", header="easting,upward", comments="")
    return {"topography": {"source": "file", "file": "ground.csv"}}


def held_by_active_cells(inputs: Inputs) -> np.ndarray:
    """Whether each sensor lies in an active cell, or on the side of one to a rounding."""
    (up, along), (rows, columns), hair = inputs.grid.edges, np.nonzero(inputs.active), 1e-9
    z, x = (column[:, np.newaxis] for column in inputs.sensors().T)
    within = (up[rows] - hair <= z) & (z <= up[rows + 1] + hair) & (along[columns] - hair <= x) & (x <= along[columns + 1] + hair)
    return np.asarray(within.any(axis=1))


# The config


def test_template_loads_to_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "line.toml").write_text(template("traveltime"))
    config = load(tmp_path / "line.toml")
    assert isinstance(config, TravelTimeConfig) and config == parse(MINIMAL, folder=tmp_path)
    (tmp_path / "again.toml").write_text(dump_toml(config))
    assert load(tmp_path / "again.toml") == config


def test_template_shows_every_option_and_its_examples_are_valid() -> None:
    shown = tomllib.loads(re.sub(r"(?m)^# ([a-z_.]+ = )", r"\1", template("traveltime")))
    shown["topography"]["source"] = "file"  # an example names one
    config = parse(shown)
    for name, section in shown.items():
        if isinstance(section, dict):
            assert set(section) == set(type(getattr(config, name)).model_fields)
    assert {name for name, section in shown.items() if isinstance(section, dict)} == set(TravelTimeConfig.model_fields) - {"kind", "seed"}


@pytest.mark.parametrize(("changed", "says"), [
    ({"data": {"column": {}}}, r"'data.column' \(unknown\): must be an option that exists. Did you mean columns"),
    ({"data": {"columns": {"shot_x": "sx"}}}, r"'data.columns.shot_x' \(unknown\)"),
    ({"data": {"time_units": "min"}}, "'data.time_units' 'min'"),
    ({"topography": {"source": "file"}}, "'topography.file' not given: must be given if and only if source = 'file'"),
    ({"topography": {"file": "ground.csv"}}, "'topography.file' .*ground.csv: must be given if and only if source = 'file'"),
    ({"bounds": {"lower": 3000, "upper": 2000}}, "'bounds' lower = 3000, upper = 2000: must be crossed nowhere"),
    ({"regularization": {"smallness": 0, "smoothness": [0, 0]}}, "'regularization' with zero weights only"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(options(changed))


# The ground


@pytest.mark.parametrize("seed", range(4))
def test_ground_against_many_points(seed: int) -> None:
    """Height along straight lines between points; the highest of a cell from 2000 places in it, and from the points that lie in it."""
    random = np.random.default_rng(seed)
    easting, upward = np.sort(random.uniform(0, 30, 12)), random.normal(0, 3, 12)
    ground, edges = Ground(easting, upward), np.linspace(-3.0, 33.0, int(random.integers(5, 60)))
    for x in random.uniform(-5, 35, 300):
        after = int(np.sum(easting <= x))
        if 0 < after < 12:
            share = (x - easting[after - 1]) / (easting[after] - easting[after - 1])
            expected = (1 - share) * upward[after - 1] + share * upward[after]
        else:
            expected = upward[0] if after == 0 else upward[-1]
        assert ground.at(np.array([x]))[0] == pytest.approx(expected, abs=1e-9)
    for low, high, found in zip(edges[:-1], edges[1:], ground.highest(edges), strict=True):
        within = upward[(easting >= low) & (easting <= high)]
        expected = max(ground.at(np.linspace(low, high, 2001)).max(), within.max(initial=-np.inf))
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("source", ["sensors", "file"])
@pytest.mark.parametrize("seed", range(4))
def test_every_sensor_lies_in_an_active_cell_of_rough_ground(tmp_path: Path, seed: int, source: str) -> None:
    """A cell is active if and only if the ground rises above its bottom anywhere in it."""
    random = np.random.default_rng(seed)
    easting, upward = np.sort(random.uniform(0, 40, 15)), random.normal(0, 4, 15)
    sections: list[dict[str, dict[str, Any]]] = [{"grid": {"spacing": random.uniform(0.5, 3, 2).tolist(), "growth": 1 + 0.2 * (seed % 2)}}]
    if source == "file":
        sections.append(hill(tmp_path, random.uniform(-5, 45, 25), random.normal(0, 4, 25)))
    inputs = loaded(tmp_path, line(easting, upward), *sections)
    assert held_by_active_cells(inputs).all()
    up, along = inputs.grid.edges
    places = np.linspace(along[:-1], along[1:], 501)
    highest = inputs.ground.at(places).max(axis=0)
    clear = np.abs(up[:-1, np.newaxis] - highest) > 0.05  # a vertex between two of these places rises above them by a little
    np.testing.assert_array_equal(inputs.active[clear], (up[:-1, np.newaxis] < highest)[clear])
    assert np.count_nonzero(~clear) < 0.05 * clear.size


def test_ground_passes_through_the_highest_sensors(tmp_path: Path) -> None:
    """Of the two at 10 m the higher; the other is in the ground."""
    inputs = loaded(tmp_path, line([0, 10, 10, 20.0], [1, 5, 2, 3.0]), UNIT)
    np.testing.assert_array_equal(inputs.ground.at(np.array([0, 5, 10, 15, 20])), [1, 3, 5, 4, 3])
    assert not inputs.survey["moved"].any() and inputs.warnings == ()


def test_sensors_far_above_the_ground_are_moved_and_told(tmp_path: Path) -> None:
    """Cells of 1 m: 0.75 m above the ground is within the error of a map, 1.25 m is worth a word, below it is no fault."""
    upward = np.zeros(12)
    upward[[2, 4, 6]] = 1.25, 0.75, -1.5
    flat = hill(tmp_path, [0, 20], [0, 0])
    inputs = loaded(tmp_path, line(upward=upward), UNIT, flat)
    np.testing.assert_array_equal(inputs.survey["moved"], np.maximum(upward, 0))
    np.testing.assert_array_equal(inputs.survey["upward"], np.minimum(upward, 0))
    assert inputs.survey["moved"].attrs["units"] == "m"
    (said,) = inputs.warnings
    assert "Sensors more than a cell above the ground are moved to it: 1, the farthest by 1.25 m at easting" in said
    assert job.check_lines(inputs)[-1] == f"warning: {said}"
    assert loaded(tmp_path, line(upward=np.minimum(upward, 0.75)), UNIT, flat).warnings == ()


def test_crosshole_sensors_below_flat_ground(tmp_path: Path) -> None:
    """Two boreholes 10 m apart: the ground is level with the highest sensor, and cells reach 4 of theirs beyond and below the sensors."""
    depth = np.arange(1.0, 22.0, 2.0)
    shot, receiver = (part.ravel() for part in np.meshgrid(np.arange(11), np.arange(11, 22), indexing="ij"))
    times = np.hypot(10.0, np.tile(depth, 2)[shot] - np.tile(depth, 2)[receiver]) / 2000
    survey = picks.make(np.repeat([0.0, 10.0], 11), -np.tile(depth, 2), shot, receiver, times)
    inputs = loaded(tmp_path, survey, {"topography": {"source": "flat"}})
    assert inputs.active.all() and held_by_active_cells(inputs).all() and not inputs.survey["moved"].any()
    np.testing.assert_allclose(inputs.grid.edges[0], np.arange(-25.0, 0.0))
    np.testing.assert_allclose(inputs.grid.edges[1], np.arange(-4.0, 15.0))


# The cells


@pytest.mark.parametrize(("easting", "upward", "spacing"), [
    (EASTING, 0.0, 1.0),
    ([0, 1, 3, 6, 10, 4.0], 0.0, 1.0),  # the nearest neighbours lie 1, 1, 2, 3 and 4 m away
    ([0, 3, 6, 9, 12, 12.1], [0, 4, 0, 4, 0, 0.0], 2.5),  # legs of 3 : 4 : 5; the shot is no receiver
    ([0, 0, 0, 0, 30.0], [-1, -4.4, -7.8, -11.2, 0], 1.7),  # a borehole
    ([0, 6.6666, 13.3333, 3.0], 0.0, 3.3),  # two digits
])  # fmt: skip
def test_cells_are_half_the_median_distance_of_neighbouring_receivers(tmp_path: Path, easting: Any, upward: Any, spacing: float) -> None:
    grid = loaded(tmp_path, line(easting, upward), {"topography": {"source": "flat"}}).grid
    for widths in grid.widths:
        np.testing.assert_allclose(widths, spacing)


def test_a_single_receiver_tells_no_cell_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'survey' with a single receiver: must be of two or more\. Give grid\.spacing"):
        loaded(tmp_path, line([0, 20.0]))
    assert loaded(tmp_path, line([0, 20.0]), UNIT).grid.shape == (7, 28)


@pytest.mark.parametrize(("margin", "low", "high"), [(None, -4, 24), (0.0, 0, 20), (3.0, -3, 23), (3.3, -3.5, 23.5)])
def test_margin_beside_the_sensors(tmp_path: Path, margin: float | None, low: float, high: float) -> None:
    """Of 4 cells where not given; 26.6 m take 27 cells of a metre."""
    edges = loaded(tmp_path, line(), UNIT, {"grid": {"margin": margin}}).grid.edges[1]
    np.testing.assert_allclose(edges, np.arange(low, high + 0.5), atol=1e-12)


@pytest.mark.parametrize(("upward", "depth", "layers"), [
    (0.0, None, 7),  # 20 m / 3
    (0.0, 10.2, 11),
    (np.append(np.zeros(11), -30.0), None, 34),  # 4 cells below the shot
    (np.append(np.zeros(11), -30.0), 30.5, 31),
])  # fmt: skip
def test_depth_below_the_lowest_ground(tmp_path: Path, upward: Any, depth: float | None, layers: int) -> None:
    grid = loaded(tmp_path, line(upward=upward), UNIT, {"grid": {"depth": depth}}, hill(tmp_path, [0, 20], [0, 0])).grid
    np.testing.assert_allclose(grid.edges[0], np.arange(-layers, 1.0))


@pytest.mark.parametrize(("upward", "growth", "uniform", "expected"), [
    (0.0, 1.5, 3.0, [1, 1, 1, 1.5, 2.25, 3.375, 5.0625, 7.59375]),
    (0.0, 1.5, 0.0, [1.5, 2.25, 3.375, 5.0625, 7.59375, 11.390625]),
    (0.0, 1.5, None, [1, 1, 1, 1, 1, 1.5, 2.25, 3.375, 5.0625, 7.59375]),  # a quarter of 20 m
    (0.2 * EASTING, 2.0, 2.0, [1, 1, 1, 1, 1, 1, 2, 4, 8, 16]),  # from the top of the hill, 4 m, to 2 and to 20 m below its foot
])  # fmt: skip
def test_layers_grow_downwards(tmp_path: Path, upward: Any, growth: float, uniform: float | None, expected: list[float]) -> None:
    grid = loaded(tmp_path, line(upward=upward), UNIT, {"grid": {"depth": 20.0, "growth": growth, "uniform_depth": uniform}}).grid
    np.testing.assert_allclose(grid.widths[0][::-1], expected)
    assert grid.edges[0][-1] == np.max(upward)


@pytest.mark.parametrize(("upward", "grid", "says"), [
    (np.append(np.zeros(11), -6.0), {"depth": 5.0}, r"'grid.depth' 5 m: must be below the lowest sensor, 6 m below the lowest ground"),
    (np.append(np.zeros(11), -6.0), {"depth": 6.0}, r"'grid.depth' 6 m: must be below the lowest sensor"),
    (0.0, {"spacing": [1e-3, 1e-3], "depth": 10.0}, r"'grid.spacing' that makes 2e\+08 cells: must be large enough for at most 2e\+07"),
    (0.0, {"spacing": [1e-6, 1.0], "depth": 10.0, "growth": 2.0, "uniform_depth": 9.0}, r"'grid.spacing' that makes 2.52e\+08 cells"),
])  # fmt: skip
def test_cells_that_cannot_be_are_refused(tmp_path: Path, upward: Any, grid: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        loaded(tmp_path, line(upward=upward), UNIT, hill(tmp_path, [0, 20], [0, 0]), {"grid": grid})


# The picks


def test_uncertainty_is_a_part_of_the_median_time_and_of_each(tmp_path: Path) -> None:
    """0.02 x 30 ms + 0.03 of 10, 20, 30, 40 and 50 ms."""
    found = loaded(tmp_path, line(range(6), observed=[0.01, 0.05, 0.03, 0.02, 0.04])).survey["uncertainty"]
    np.testing.assert_allclose(found, [9e-4, 21e-4, 15e-4, 12e-4, 18e-4], rtol=1e-12)
    given = {"data": {"uncertainty_absolute": 1e-3, "uncertainty_relative": 0.1}}
    np.testing.assert_allclose(loaded(tmp_path, None, given).survey["uncertainty"], [2e-3, 6e-3, 4e-3, 3e-3, 5e-3], rtol=1e-12)


def test_given_uncertainties_are_kept(tmp_path: Path) -> None:
    given = np.linspace(1e-5, 1e-3, 11)
    inputs = loaded(tmp_path, line(uncertainty=given))
    np.testing.assert_array_equal(inputs.survey["uncertainty"], given)
    floor = loaded(tmp_path, None, {"data": {"uncertainty_absolute": 5e-4}}).survey["uncertainty"]
    np.testing.assert_array_equal(floor, np.maximum(given, 5e-4))


def test_held_back_picks_are_those_of_the_seed(tmp_path: Path) -> None:
    share = {"inversion": {"holdout": 0.3}}
    first, same, other = (loaded(tmp_path, line(), share, seed=seed) for seed in (1, 1, 2))
    assert first.held.size == 3
    np.testing.assert_array_equal(np.sort(np.append(first.fitted, first.held)), np.arange(11))
    np.testing.assert_array_equal(first.held, same.held)
    assert not np.array_equal(first.held, other.held)


@pytest.mark.parametrize("data", [
    {"file": "a.csv"},
    {"file": "a.nc", "crs": "EPSG:25832"},
    {"file": "foreign.dat", "format": "csv", "time_units": "ms", "length_units": "km",
     "columns": {"shot_easting": "sx", "shot_upward": "sz", "receiver_easting": "gx", "receiver_upward": "gz", "time": "t", "uncertainty": "err"}},
])  # fmt: skip
def test_formats_give_the_same_picks(tmp_path: Path, data: dict[str, Any]) -> None:
    survey = line(upward=0.1 * EASTING, uncertainty=1e-3)
    expected = loaded(tmp_path, survey)
    pick_table.write_csv(tmp_path / "a.csv", survey)
    netcdf.write(tmp_path / "a.nc", survey)
    rows = [f"0.009,0.0009,{x / 1e3},{x / 1e4},{1e3 * t},1" for x, t in zip(EASTING[:-1], survey["observed"].values, strict=True)]
    (tmp_path / "foreign.dat").write_text("\n".join(["sx,sz,gx,gz,t,err", *rows]))
    found = loaded(tmp_path, None, {"data": data})
    for kind in ("shot", "receiver"):
        here, there = (each.sensors()[each.survey[kind].values] for each in (found, expected))
        np.testing.assert_allclose(here, there, rtol=1e-12)
    for name in ("observed", "uncertainty"):
        np.testing.assert_allclose(found.survey[name], expected.survey[name], rtol=1e-12)
    assert found.survey.attrs["crs"] == data.get("crs", "")


def test_oblique_lines_become_distances(tmp_path: Path) -> None:
    """Legs of 3 : 4 : 5."""
    inputs = loaded(tmp_path, line(4e5 + 0.6 * EASTING, northing=5e6 + 0.8 * EASTING), UNIT)
    np.testing.assert_allclose(inputs.survey["easting"], EASTING, atol=1e-6)
    np.testing.assert_allclose(inputs.grid.edges[1], np.arange(-4, 25), atol=1e-6)


def test_picks_that_disagree_with_those_of_the_way_back_are_told(tmp_path: Path) -> None:
    """Five deviations of a difference are 5 sqrt(2) 0.1 ms = 0.7 ms: 0.5 ms are none of them, 3 ms are the most."""
    given: dict[str, Any] = {"shot": [0, 1, 0, 2, 1, 2], "receiver": [1, 0, 2, 0, 2, 1], "observed": [0.010, 0.011, 0.020, 0.023, 0.03, 0.0305]}
    inputs = loaded(tmp_path, picks.make([0, 10, 20.0], np.zeros(3), **given, uncertainty=1e-4))
    worst = "2 and 3 (20 and 23 ms), 0 and 1 (10 and 11 ms)"
    assert inputs.warnings == (f"2 of 3 picks differ from those of the way back by more than 5 deviations: {worst}.",)


# The start model


def test_start_grows_alike_below_all_of_the_ground(tmp_path: Path) -> None:
    """On a slope, where the section goes 7 m below its foot; above the ground there is the velocity of its top."""
    inputs = loaded(tmp_path, line(upward=0.2 * EASTING), UNIT, {"start": {"top": 600.0, "bottom": 3000.0}})
    up, along = inputs.grid.centers
    assert inputs.grid.edges[0][0] == -7
    for column, x in enumerate(along):
        depth = 0.2 * np.clip(x, 0, 20) - up
        np.testing.assert_allclose(inputs.start[:, column], np.clip(600 + 2400 * depth / 7, 600, 3000))


def test_start_from_a_file_on_the_same_cells(tmp_path: Path) -> None:
    """As a result is written: without velocity above the ground."""
    first = loaded(tmp_path, line(upward=0.2 * EASTING))
    values = np.where(first.active, np.random.default_rng(0).uniform(500, 4000, first.grid.shape), np.nan)
    assert not first.active.all()
    model = first.grid.to_xarray(values, name="velocity", units="m/s").to_dataset()
    netcdf.write(tmp_path / "model.nc", model)
    netcdf.write(tmp_path / "turned.nc", model.transpose("easting", "upward"))
    for name in ("model.nc", "turned.nc"):
        np.testing.assert_array_equal(loaded(tmp_path, None, {"start": {"file": name}}).start, values)


def velocity(grid: Grid, value: float = 1000.0, name: str = "velocity", units: str = "m/s") -> xarray.DataArray:
    return grid.to_xarray(np.full(grid.shape, value), name=name, units=units)


@pytest.mark.parametrize(("model", "says"), [
    (lambda g: velocity(Grid((g.edges[0], g.edges[1] + 0.5))), r"'start.file' '.*model.nc' on other cells: must be on those of \[grid\]"),
    (lambda g: velocity(Grid((g.edges[0][1:], g.edges[1]))), "on other cells: must be .* They are 7 x 28 up to 0 m, from -4 m on"),
    (lambda g: velocity(Grid((2 * g.edges[0], g.edges[1]))), "on other cells"),
    (lambda g: velocity(Grid((*g.edges, g.edges[1]))), "'start.file' .*: must be a model with 'velocity' over upward, easting"),
    (lambda g: velocity(g, name="slowness"), "'start.file' .*: must be a model with 'velocity'"),
    (lambda g: velocity(g, units="km/s"), "'velocity' in 'km/s': must be in 'm/s'"),
    (lambda g: velocity(g, np.nan), "'start' nan m/s in 196 cells: must be within the bounds, 100 to 8000 m/s"),
])  # fmt: skip
def test_start_from_a_file_of_something_else_is_refused(tmp_path: Path, model: Callable[[Grid], xarray.DataArray], says: str) -> None:
    netcdf.write(tmp_path / "model.nc", model(loaded(tmp_path, line(), UNIT).grid))
    with pytest.raises(ValueError, match=says):
        loaded(tmp_path, None, UNIT, {"start": {"file": "model.nc"}})


def test_bounds_hold_a_gradient_and_refuse_a_file_beyond_them(tmp_path: Path) -> None:
    """Seven layers of 28 cells from 1050 to 1650 m/s: two lie above 1500 m/s, one below 1100 m/s."""
    start = {"start": {"top": 1000.0, "bottom": 1700.0}}
    held = loaded(tmp_path, line(), UNIT, start, {"bounds": {"lower": 1100.0, "upper": 1500.0}})
    np.testing.assert_allclose(held.start[:, 0], [1500, 1500, 1450, 1350, 1250, 1150, 1100])
    whole = loaded(tmp_path, None, UNIT, start)
    netcdf.write(tmp_path / "model.nc", whole.grid.to_xarray(whole.start, name="velocity", units="m/s"))
    with pytest.raises(ValueError, match=r"'start' 1650 m/s in 56 cells: must be within the bounds, 100 to 1500 m/s"):
        loaded(tmp_path, None, UNIT, {"start": {"file": "model.nc"}}, {"bounds": {"upper": 1500.0}})
    with pytest.raises(ValueError, match=r"'start' 1050 m/s in 28 cells: must be within the bounds, 1100 to 8000 m/s"):
        loaded(tmp_path, None, UNIT, {"start": {"file": "model.nc"}}, {"bounds": {"lower": 1100.0}})


def test_a_sensor_moved_to_the_ground_is_exactly_there(tmp_path: Path) -> None:
    """7.3 - (7.3 - 1.6) is more than 1.6 by rounding."""
    found = loaded(tmp_path, line(upward=7.3), UNIT, hill(tmp_path, [0.0, 20.0], [1.6, 1.6]))
    assert np.all(found.survey["upward"].values == 1.6)


def test_given_uncertainties_stay_where_others_are_missing(tmp_path: Path) -> None:
    given = np.where(np.arange(EASTING.size - 1) < 3, 1e-5, 0.0)
    deviations = loaded(tmp_path, line(uncertainty=given), UNIT).survey["uncertainty"].values
    np.testing.assert_array_equal(deviations[:3], 1e-5)
    assert np.all(deviations[3:] > 1e-4)


def test_cells_without_end_are_refused_before_they_are_made(tmp_path: Path) -> None:
    cells = {"grid": {"spacing": [1e-9, 5.0], "growth": 1.0000001, "uniform_depth": 0.0, "depth": 5.0}}
    with pytest.raises(ValueError, match=r"'grid.spacing' that makes .* cells"):
        loaded(tmp_path, line(), cells)
