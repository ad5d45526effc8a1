"""What a travel-time inversion starts from, read and checked as its config says: picks, ground, cells, start model.

Nothing here imports TensorFlow, so that `geoinv check` answers quickly.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import scipy.spatial
import xarray

from geoinv.datasets import netcdf, pick_table, picks, sgt
from geoinv.datasets.ground import Ground
from geoinv.datasets.survey import add_history
from geoinv.datasets.table import read_table
from geoinv.operators import checks
from geoinv.operators.grid import Grid, layer_count, layers

from .config import Data, Topography, TravelTimeConfig

#: More cells than this are refused: no machine this runs on marches through them for every shot.
MAX_CELLS = 20_000_000
#: Cells between the outermost sensors and the sides.
MARGIN_CELLS = 4
#: Slope, of 60 degrees, at whose lower end a sensor is not on the ground.
STEEPEST = float(np.sqrt(3))
#: Standard deviation where none is given, over the median time: short times are not picked better in proportion.
PICKED = 0.02
#: Depth of the grid, over the length of the line.
DEPTH = 1 / 3


@final
@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything an inversion needs but the operator.

    Args:
        survey: Picks along the line, with uncertainties, their sensors in the ground.
        ground: The surface.
        grid: The model's cells (upward, easting).
        active: Cells with any ground [grid.shape].
        start: Velocity [grid.shape], m/s; at least that of the ground's top above it.
        fitted, held: Numbers of the picks that are fitted, and of those that test the fit.
        warnings: What a user should know, a line each.
    """

    survey: xarray.Dataset
    ground: Ground
    grid: Grid
    active: np.ndarray
    start: np.ndarray
    fitted: np.ndarray
    held: np.ndarray
    warnings: tuple[str, ...]

    def steepness(self) -> float:
        """The largest slope of the ground below sensors."""
        within = self.ground.between(float(self.survey["easting"].min()), float(self.survey["easting"].max()))
        return float(np.abs(np.diff(within.upward) / np.diff(within.easting)).max(initial=0.0))

    def sensors(self) -> np.ndarray:
        """Positions [sensor, (upward, easting)], m."""
        return np.stack([self.survey["upward"].values, self.survey["easting"].values], axis=1)


def load(config: TravelTimeConfig) -> Inputs:
    """Read and check all inputs; warnings are collected, not shown.

    Raises:
        ValueError: Anything wrong with the files, the picks, the grid or the start model.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        survey = read_survey(config.data)
        ground = _ground(config.topography, survey)
        spacing = config.grid.spacing or (spacing_of(survey),) * 2
        survey = _in_the_ground(survey, ground, spacing[0])
        grid = _grid(config, survey, ground, spacing)
        active = ground.active(grid)
        start = _start(config, grid, ground)
        fitted, held = picks.split_holdout(survey, config.inversion.holdout, config.seed)
    outside = np.flatnonzero(active & ~((start >= config.bounds.lower) & (start <= config.bounds.upper)))
    if outside.size:
        given = f"{start.flat[outside[0]]:g} m/s in {outside.size} cells"
        raise checks.invalid("start", given, f"within the bounds, {config.bounds.lower:g} to {config.bounds.upper:g} m/s")
    return Inputs(survey, ground, grid, active, start, fitted, held, tuple(str(each.message) for each in caught))


def describe(inputs: Inputs) -> list[str]:
    """What was read, in lines for a person."""
    survey, grid = inputs.survey, inputs.grid
    times, deviations = 1e3 * survey["observed"].values, 1e3 * survey["uncertainty"].values
    sizes = " x ".join(f"{axis.min():g}" if np.isclose(axis.min(), axis.max()) else f"{axis.min():g}-{axis.max():.4g}" for axis in grid.widths)
    velocity = inputs.start[inputs.active]
    return [
        f"survey: {survey.sizes['pick']} picks, shots at {np.unique(survey['shot']).size} of {survey.sizes['sensor']} sensors, "
        f"{times.min():.4g} to {times.max():.4g} ms, uncertainty {deviations.min():.3g} to {deviations.max():.3g} ms",
        f"grid: {' x '.join(map(str, grid.shape))} cells of {sizes} m (upward, easting), {int(inputs.active.sum())} of {grid.size} active",
        f"start: {velocity.min():.4g} to {velocity.max():.4g} m/s",
        *(line for line in survey.attrs.get("history", "").splitlines() if line),
    ]


def read_survey(data: Data) -> xarray.Dataset:
    """The picks of a config's [data] along their line, validated and with uncertainties."""
    survey = _read(data)
    picks.check_values(survey)
    given, floor = survey["uncertainty"].values, data.uncertainty_absolute
    survey = picks.project(survey)
    if floor is None and np.all(given > 0):
        return picks.validate(survey)
    if not (floor is None or floor or data.uncertainty_relative or np.all(given > 0)):
        raise checks.invalid("data.uncertainty_absolute, uncertainty_relative", "0", "above zero, one of them, where the file has no uncertainties")
    if floor is not None:
        return picks.validate(picks.assign_uncertainty(survey, absolute=floor, relative=data.uncertainty_relative))
    floor = float(f"{PICKED * np.median(survey['observed'].values):.2g}")
    none = survey.assign(uncertainty=("pick", np.zeros(given.size), {"units": "s"}))
    made = picks.assign_uncertainty(none, absolute=floor, relative=data.uncertainty_relative)
    if np.any(given > 0):
        made = add_history(made, f"{np.count_nonzero(given)} uncertainties of the file kept")
    return picks.validate(made.assign(uncertainty=("pick", np.where(given > 0, given, made["uncertainty"].values), {"units": "s"})))


def _read(data: Data) -> xarray.Dataset:
    suffix = Path(data.file).suffix.lower()
    known = {".nc": "netcdf", ".nc4": "netcdf", ".csv": "csv", ".txt": "csv"}
    form = data.format if data.format != "auto" else known.get(suffix, "sgt")
    if form == "csv":
        named = {name: column for name, column in data.columns if column is not None}
        return pick_table.read_csv(data.file, columns=named, time_units=data.time_units, length_units=data.length_units, crs=data.crs or "")
    unused = [f"data.{name}" for name, default in (("time_units", "s"), ("length_units", "m")) if getattr(data, name) != default]
    unused += [f"data.columns.{name}" for name, column in data.columns if column is not None]
    if unused:
        raise checks.invalid(unused[0], "given", f"off for {form} files", "They name their columns and units themselves.")
    if form == "sgt":
        return sgt.read_sgt(data.file, crs=data.crs or "")
    survey = picks.check_layout(netcdf.read(data.file))
    return survey.assign_attrs(crs=survey.attrs.get("crs") or data.crs or "")


def spacing_of(survey: xarray.Dataset) -> float:
    """A cell size, m, of two digits: half the median distance of neighbouring receivers."""
    heard = np.unique(survey["receiver"].values)
    points = np.unique(np.stack([survey["easting"].values[heard], survey["upward"].values[heard]], axis=1), axis=0)
    if len(points) < 2:
        raise checks.invalid("survey", "with a single receiver", "of two or more", "Give grid.spacing.")
    nearest, _ = scipy.spatial.KDTree(points).query(points, k=2)
    return float(f"{np.median(nearest[:, 1]) / 2:.2g}")


def _ground(options: Topography, survey: xarray.Dataset) -> Ground:
    easting, upward = survey["easting"].values, survey["upward"].values
    if options.source == "flat":
        return Ground(np.array([easting.mean()]), np.array([upward.max()]))
    if options.file is not None:
        table = read_table(options.file)
        return _covering(Ground.through(table.numbers("easting"), table.numbers("upward")), survey, options.file)
    through = Ground.through(easting, upward)
    found = through.without_drops(STEEPEST)
    buried = through.easting.size - found.easting.size
    if buried:
        text = f"{buried} of {through.easting.size} places of sensors lie below drops of more than 60 degrees and are taken as buried"
        checks.warn(f"{text}: say topography.source = 'flat', or give a file of the ground, if it does not run through the others.")
    return found


def _covering(ground: Ground, survey: xarray.Dataset, path: str) -> Ground:
    """The ground of a file, if it is one of this line."""
    easting, (first, last) = survey["easting"].values, (float(ground.easting[0]), float(ground.easting[-1]))
    line = f"{easting.min():.6g} to {easting.max():.6g} m"
    if last < easting.min() or first > easting.max():
        advice = f"Along the line the sensors lie at {line}."
        raise checks.invalid("topography.file", f"'{path}' from {first:.6g} to {last:.6g} m", "of the ground along the line", advice)
    step = float(np.median(np.diff(np.unique(easting)))) if np.unique(easting).size > 1 else 0.0
    if first > easting.min() + step or last < easting.max() - step:
        checks.warn(f"The ground of {path}, {first:.6g} to {last:.6g} m, does not cover the line, {line}: it is level beyond.")
    below = float(np.min(ground.at(easting) - survey["upward"].values))
    if below > max(step, 1e-3):
        checks.warn(f"All sensors lie {below:.4g} m or more below the ground of {path}: are both heights above the same datum?")
    return ground


def _in_the_ground(survey: xarray.Dataset, ground: Ground, cell: float) -> xarray.Dataset:
    """The survey with the sensors above the ground moved down to it."""
    easting, upward = survey["easting"].values, survey["upward"].values
    kept = np.minimum(upward, ground.at(easting))
    moved = upward - kept
    far = np.count_nonzero(moved > cell)
    if far:
        worst = int(np.argmax(moved))
        where = f"{far}, the farthest by {moved[worst]:.3g} m at easting {easting[worst]:.6g} m"
        checks.warn(f"Sensors more than a cell above the ground are moved to it: {where}.")
    lowered = survey.assign_coords(upward=("sensor", kept, {"units": "m"})).assign(moved=("sensor", moved, {"units": "m"}))
    picks.check_values(lowered)  # a shot may have come to where its receiver is
    return lowered


def _grid(config: TravelTimeConfig, survey: xarray.Dataset, ground: Ground, spacing: tuple[float, float]) -> Grid:
    options, easting = config.grid, survey["easting"].values
    length = float(np.ptp(easting))
    margin = MARGIN_CELLS * spacing[1] if options.margin is None else options.margin
    columns = max(int(np.ceil((length + 2 * margin) / spacing[1] - 1e-9)), 2)
    left = (easting.min() + easting.max() - columns * spacing[1]) / 2
    edges = left + spacing[1] * np.arange(columns + 1)
    within = ground.between(edges[0], edges[-1])
    top, lowest = float(within.upward.max()), float(within.upward.min())
    below = lowest - float(survey["upward"].values.min())  # of the lowest sensor: waves pass around it
    depth = options.depth or max(DEPTH * length, below + MARGIN_CELLS * spacing[0])
    if depth <= below:
        raise checks.invalid("grid.depth", f"{depth:g} m", f"below the lowest sensor, {below:g} m below the lowest ground")
    uniform = lowest - (depth / 4 if options.uniform_depth is None else options.uniform_depth)
    rows = layer_count(top, uniform, lowest - depth, spacing[0], options.growth)
    if rows * columns > MAX_CELLS:
        given = f"that makes {rows * columns:.3g} cells"
        raise checks.invalid("grid.spacing", given, f"large enough for at most {MAX_CELLS:.0e}", "Use larger cells.")
    upward = layers(top, uniform, lowest - depth, spacing[0], options.growth)
    return Grid((upward, edges))


def _start(config: TravelTimeConfig, grid: Grid, ground: Ground) -> np.ndarray:
    options = config.start
    if options.file is None:
        depth = np.maximum(ground.at(grid.centers[1]) - grid.centers[0][:, np.newaxis], 0.0)
        whole = float(ground.between(*grid.edges[1][[0, -1]]).upward.min() - grid.edges[0][0])
        growing = options.top + (options.bottom - options.top) * np.minimum(depth / whole, 1.0)
        return np.clip(growing, config.bounds.lower, config.bounds.upper)
    data = netcdf.read(options.file)
    if "velocity" not in data or set(data["velocity"].dims) != set(grid.dims):
        raise checks.invalid("start.file", f"'{options.file}'", f"a model with 'velocity' over {', '.join(grid.dims)}")
    checks.in_unit("velocity", data["velocity"].attrs, "m/s")
    if not grid.like(Grid.from_xarray(data["velocity"])):
        advice = f"They are {' x '.join(map(str, grid.shape))} up to {grid.edges[0][-1]:g} m, from {grid.edges[1][0]:g} m on."
        raise checks.invalid("start.file", f"'{options.file}' on other cells", "on those of [grid]", advice)
    return np.asarray(data["velocity"].transpose(*grid.dims).values, float)
