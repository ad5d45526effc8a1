"""What a gravity inversion starts from, read and checked as its config says: survey, grid, ground and bounds.

Nothing here imports TensorFlow, so that `geoinv check` answers quickly.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import xarray

from geoinv.datasets import csv, netcdf, projection, topography, trend, ubc
from geoinv.datasets import survey as surveys
from geoinv.operators import checks
from geoinv.operators.gravity.ground import raise_stations, too_deep
from geoinv.operators.grid import Grid, layer_count, layers

from .config import Data, GravityConfig

#: More cells than this are refused: no machine this runs on holds them.
MAX_CELLS = 200_000_000
#: Cells between the outermost stations and the edge of the grid.
MARGIN_CELLS = 3


@final
@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything an inversion needs but the operator.

    Args:
        survey: Observed data in SI, with uncertainties, reduced and without the trend as asked for.
        grid: The model's cells.
        active: Cells below the ground.
        raised: How far each station is raised to the staircase of cells, in metres.
        lower, upper: Bounds of each active cell, kg/m3; infinite where none.
        reference: Reference density of each active cell, kg/m3.
        fitted, held: Indices of the stations that are fitted, and of those that test the fit.
        warnings: What a user should know, a line each.
    """

    survey: xarray.Dataset
    grid: Grid
    active: np.ndarray
    raised: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    reference: np.ndarray
    fitted: np.ndarray
    held: np.ndarray
    warnings: tuple[str, ...]


def load(config: GravityConfig) -> Inputs:
    """Read and check all inputs; warnings are collected, not shown.

    Raises:
        ValueError: Anything wrong with the files, the data, the grid or the bounds.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        survey, fitted, held = read_survey(config)
        ground = _ground(config, survey)
        grid = _grid(config, survey, ground)
        active = _active(config, grid, survey, ground)
        _, raised = raise_stations(grid, active, checks.points("stations", survey, grid.dims))
        bounds, reference = config.bounds, _cell_values("regularization.reference", config.regularization.reference, grid, active)
        lower = _cell_values("bounds.lower", -np.inf if bounds.lower is None else bounds.lower, grid, active)
        upper = _cell_values("bounds.upper", np.inf if bounds.upper is None else bounds.upper, grid, active)
    crossed = np.flatnonzero(~(lower < upper))
    if crossed.size:
        at = crossed[0]
        raise checks.invalid("bounds", f"lower {lower[at]:g}, upper {upper[at]:g} kg/m3 at active cell {at}", "crossed nowhere: lower < upper")
    return Inputs(survey, grid, active, raised, lower, upper, reference, fitted, held, tuple(str(warning.message) for warning in caught))


def describe(inputs: Inputs) -> list[str]:
    """What was read, in lines for a person."""
    survey, grid = inputs.survey, inputs.grid
    observed, uncertainty = (survey[name].values[:, 0] * 1e5 for name in ("observed", "uncertainty"))
    sizes = " x ".join(
        f"{widths.min():g}" if np.isclose(widths.min(), widths.max()) else f"{widths.min():g}-{widths.max():g}" for widths in grid.widths
    )
    count = int((inputs.raised > 0).sum())
    return [
        f"survey: {survey.sizes['station']} stations, {observed.min():.4g} to {observed.max():.4g} mGal, "
        f"uncertainty {uncertainty.min():.3g} to {uncertainty.max():.3g} mGal",
        f"grid: {' x '.join(map(str, grid.shape))} cells of {sizes} m (upward, northing, easting), {int(inputs.active.sum())} of {grid.size} active",
        f"ground: {count} stations raised to the top of their cell, by {inputs.raised.max():.3g} m at most" if count else "ground: no station raised",
        *(line for line in survey.attrs.get("history", "").splitlines() if line),
    ]


def read_survey(config: GravityConfig) -> tuple[xarray.Dataset, np.ndarray, np.ndarray]:
    """The survey of the config's [data], in SI, validated and with uncertainties, and the indices of fitted and held-out stations."""
    data = config.data
    survey = _gz(_read(config))
    if data.reduction != "none":
        survey = _reduce(survey, data)
    if data.height:
        survey = survey.assign_coords(upward=survey["upward"] + data.height)
        survey = surveys.add_history(survey, f"{data.height:g} m added to the height of every station")
    if data.uncertainty_floor is not None or data.uncertainty_relative:
        floor = (data.uncertainty_floor or 0.0) * checks.unit_factor("data.units", data.units, "acceleration")
        survey = surveys.assign_uncertainty(survey, floor=floor, relative=data.uncertainty_relative)
    elif not survey["uncertainty"].values.all():
        zeros = int((survey["uncertainty"].values == 0).sum())
        given = f"zero or not given at {zeros} of {survey.sizes['station']} stations"
        raise checks.invalid("uncertainty", given, "positive", "Give data.uncertainty_floor in data.units.")
    fitted, held = surveys.split_holdout(survey, config.inversion.holdout, config.seed)
    if data.trend_degree is not None and data.trend == "remove":
        survey, _ = trend.remove_trend(survey, data.trend_degree, stations=fitted)
    elif data.trend_degree is not None:
        terms = trend.trend_matrix(survey["easting"].values, survey["northing"].values, data.trend_degree)
        trend.check_determined(terms[fitted], data.trend_degree)
    return surveys.validate(survey), fitted, held


def _read(config: GravityConfig) -> xarray.Dataset:
    data = config.data
    suffix = Path(data.file).suffix.lower()
    form = data.format if data.format != "auto" else {".nc": "netcdf", ".nc4": "netcdf", ".obs": "ubc", ".grv": "ubc"}.get(suffix, "csv")
    if form == "netcdf":
        if data.positive != "down":
            raise checks.invalid("data.positive", repr(data.positive), "'down' for netCDF surveys, which are in SI and count gz down")
        survey = surveys.check_layout(netcdf.read(data.file))
        surveys.check_values(survey)
        return survey.assign_attrs(crs=survey.attrs.get("crs") or data.crs or "")
    if form == "ubc":
        return ubc.read_observations(data.file, units=data.units, positive=data.positive, crs=data.crs or "")
    named = {name: column for name, column in data.columns if column is not None}
    return csv.read_csv(
        data.file, columns=named, units=data.units, positive=data.positive, crs=data.crs or "",
        length_units=data.length_units, delimiter=data.delimiter, drop_missing=data.drop_missing,
    )  # fmt: skip


def _gz(survey: xarray.Dataset) -> xarray.Dataset:
    """The component that is inverted."""
    names = [str(name) for name in survey["component"].values]
    if "gz" not in names:
        raise checks.invalid("data.file", f"with {', '.join(names)}", "a survey of gz")
    return survey.isel(component=[names.index("gz")])


def _reduce(survey: xarray.Dataset, data: Data) -> xarray.Dataset:
    """Absolute gravity less normal gravity at the sensor, and for 'bouguer' less that of a slab below the station's ground."""
    crs = survey.attrs.get("crs")
    if not crs:
        raise checks.invalid("data.crs", "''", "the projected system of the stations: normal gravity needs their latitude")
    _, latitude = projection.unproject(survey["easting"].values, survey["northing"].values, crs)
    ground = survey["upward"].values
    values = projection.normal_gravity_disturbance(latitude, ground + data.height, survey["observed"].values[:, 0])
    line = "normal gravity of WGS84 at the height of each sensor subtracted"
    if data.reduction == "bouguer":
        values = values - projection.bouguer_slab(ground, data.bouguer_density)
        line += f"; Bouguer slab of {data.bouguer_density:g} kg/m3 below the file's heights subtracted"
    return surveys.add_history(survey.assign(observed=(("station", "component"), values[:, None])), line)


def _ground(config: GravityConfig, survey: xarray.Dataset) -> topography.Topography | None:
    options = config.topography
    if options.source == "stations":
        heights = survey["upward"].values - config.data.height  # of the ground below an instrument or a flight
        return topography.from_points(survey["easting"].values, survey["northing"].values, heights)
    if options.source == "flat":
        return None
    crs = options.crs or survey.attrs.get("crs", "")
    path = str(options.file)
    if Path(path).suffix.lower() in (".nc", ".nc4", ".grd"):
        return topography.read_grid(path, crs=crs)
    named = {name: column for name, column in options.columns if column is not None}
    return topography.read_points(path, columns=named or None, crs=crs)


def _grid(config: GravityConfig, survey: xarray.Dataset, ground: topography.Topography | None) -> Grid:
    options = config.grid
    if options.file is not None:
        return ubc.read_mesh(options.file)
    assert options.spacing is not None  # the config checks it
    vertical, *horizontal = options.spacing
    plane = []
    for name, size in zip(("northing", "easting"), horizontal, strict=True):
        values = survey[name].values
        margin = MARGIN_CELLS * size if options.margin is None else options.margin
        count = max(int(np.ceil((np.ptp(values) + 2 * margin) / size)), 2)
        _check_count(count)
        start = (values.min() + values.max() - count * size) / 2
        plane.append(start + size * np.arange(count + 1))
    lowest = float(survey["upward"].values.min()) - config.data.height
    depth = options.depth or min(np.ptp(edges) for edges in plane) / 2
    top = _top(options.top, vertical, lowest, ground, plane)
    if top <= lowest - depth:
        raise checks.invalid("grid.top", f"{top:g} m", f"above the grid's bottom, {lowest - depth:g} m")
    _check_count(layer_count(top, lowest - options.uniform_depth, lowest - depth, vertical, options.growth) * plane[0].size * plane[1].size)
    return Grid((layers(top, lowest - options.uniform_depth, lowest - depth, vertical, options.growth), *plane))


def _check_count(cells: float) -> None:
    if cells > MAX_CELLS:
        raise checks.invalid("grid.spacing", f"that makes {cells:.3g} cells", f"large enough for at most {MAX_CELLS:.0e}", "Use larger cells.")


def _top(given: float | None, vertical: float, lowest: float, ground: topography.Topography | None, plane: list[np.ndarray]) -> float:
    if given is not None:
        return given
    if ground is None:
        return lowest
    north, east = ((edges[1:] + edges[:-1]) / 2 for edges in plane)
    highest = ground.elevation(east, north[:, None]).max()
    return float(np.ceil(highest / vertical - 1e-9) * vertical)  # interpolation's rounding asks for no further layer


def _active(config: GravityConfig, grid: Grid, survey: xarray.Dataset, ground: topography.Topography | None) -> np.ndarray:
    if ground is None:
        return np.ones(grid.shape, dtype=bool)
    points = checks.points("stations", survey, grid.dims)
    below = ground.elevation(survey["easting"].values, survey["northing"].values) - points[:, 0]
    cell = grid.widths[0][grid.cell_index(points)[:, 0]]
    if (below > cell).any():
        at = int(np.argmax(np.where(below > cell, below, -np.inf)))
        raise too_deep(below > cell, at, below[at], cell[at], "the topography")
    inside = grid.contains(np.column_stack([np.full(len(points), grid.centers[0][0]), points[:, 1:]]))
    honoured = survey.isel(station=np.flatnonzero(inside)) if inside.any() else None
    return topography.active_cells(grid, ground.on_columns(grid), honoured)


def _cell_values(name: str, given: float | str, grid: Grid, active: np.ndarray) -> np.ndarray:
    """A property of each active cell, from a number or a model file."""
    if not isinstance(given, str):
        return np.full(int(active.sum()), float(given))
    values = _density(given, grid) if Path(given).suffix.lower() in (".nc", ".nc4") else ubc.read_model(given, grid)
    return checks.finite(name, values[active])


def _density(path: str, grid: Grid) -> np.ndarray:
    """The density of a netCDF model, after checking that it lies on the grid's cells."""
    data = netcdf.read(path)
    if "density" not in data or set(data["density"].dims) != set(grid.dims):
        raise checks.invalid("path", f"'{path}'", f"a model with 'density' over {', '.join(grid.dims)}")
    density = data["density"].transpose(*grid.dims)
    checks.in_unit("density", density.attrs, "kg/m3")
    if density.shape != grid.shape:
        raise checks.invalid("path", f"'{path}' of shape {density.shape}", f"a model of shape {grid.shape}")
    for name, centers, widths in zip(grid.dims, grid.centers, grid.widths, strict=True):
        if np.abs(density[name].values - centers).max() > 1e-3 * widths.min():
            raise checks.invalid("path", f"'{path}' with other {name} coordinates", "a model on the cells of the grid")
    return density.values
