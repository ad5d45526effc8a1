"""What a full-waveform inversion starts from, read and checked as its config says: shots, cells, start model, bounds and wavelet.

Nothing here imports TensorFlow, so that `geoinv check` answers quickly.
"""

import functools
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import final

import h5py
import numpy as np
import xarray

from geoinv.datasets import files, line, netcdf, shots
from geoinv.operators import checks
from geoinv.operators.grid import DIMS, Grid
from geoinv.operators.seismic import limits, wavelets

from .cells import interpolated
from .config import Model, WaveformConfig
from .filters import band_corners
from .source import below_nyquist, read_wavelet
from .survey import NETCDF, read_survey

#: More cells than this are refused: no machine this runs on propagates waves through them in reasonable time.
MAX_CELLS = 200_000_000
#: Error of the phase velocity at the highest frequency for which cells are chosen.
DISPERSION = 0.01
#: Higher bounds are refused, m/s: no rock is faster, and they set the time step.
FASTEST = 20_000.0
#: Density of water, kg/m3.
WATER = 1000.0
HDF5 = (".h5", ".hdf5")


@final
@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything an inversion needs but the operators.

    Args:
        survey: Shots to invert, with uncertainties, on the grid's axes, their time from the source's on.
        first_time: When the records begin, s; samples before it are zeros that do not count.
        grid: The model's cells.
        velocity: Start model [grid.shape], m/s.
        free: Cells that may change, bool [grid.shape].
        lower, upper: Bounds [grid.shape], m/s.
        density: [grid.shape], kg/m3, or None where it is constant.
        wavelet: Before any fit to the data, [time] or [shot, source, time], at the survey's samples.
        warnings: What a user should know, a line each.
    """

    survey: xarray.Dataset
    first_time: float
    grid: Grid
    velocity: np.ndarray
    free: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    density: np.ndarray | None
    wavelet: np.ndarray
    warnings: tuple[str, ...]

    @functools.cached_property
    def unit(self) -> float:
        """What data and wavelet are computed in, so that they are neither too small nor too large for single precision: about the traces' rms.

        A power of two, by which nothing is rounded.
        """
        sizes = shots.rms(self.survey)
        return float(2.0 ** np.round(np.log2(np.median(sizes[sizes > 0]))))


def load(config: WaveformConfig) -> Inputs:
    """Read and check all inputs; warnings are collected, not shown.

    Raises:
        ValueError: Anything wrong with the files, the data, the grid, the model or the wavelet.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        survey, first_time, numbers = read_survey(config)
        _check_lines(config, survey)
        own = _read_velocity(config) if config.model.file is not None else None
        grid = _grid(config, survey, None if own is None else own[0])
        velocity, rock = _start(config.model, grid, own)
        free = rock & _chosen(config.model, grid)
        lower, upper = (_bound(name, getattr(config.bounds, name), grid) for name in ("lower", "upper"))
        _check_start(velocity, lower, upper, free)
        _check_inside(survey, grid, config.propagator.free_surface)
        _check_bands(config, survey, first_time)
        wavelet = read_wavelet(config.source, survey, numbers)
        density = _density(config.model, grid, velocity, rock)
    return Inputs(survey, first_time, grid, velocity, free, lower, upper, density, wavelet, tuple(str(each.message) for each in caught))


def describe(inputs: Inputs) -> list[str]:
    """What was read, in lines for a person."""
    survey, grid, free = inputs.survey, inputs.grid, inputs.velocity[inputs.free]
    live = survey["live"].values
    sizes = " x ".join(f"{widths[0]:g}" for widths in grid.widths)
    water = f", {grid.size - free.size} of them fixed" if free.size < grid.size else ""
    return [
        f"survey: {survey.sizes['shot']} shots, {live.sum()} traces of {survey.sizes['time']} samples every {1e3 * shots.dt(survey):g} ms, "
        f"offsets to {shots.offsets(survey)[live].max():.4g} m",
        f"grid: {' x '.join(map(str, grid.shape))} cells of {sizes} m ({', '.join(grid.dims)}){water}",
        _of_wavelet(inputs),
        f"start: {free.min():.4g} to {free.max():.4g} m/s; bounds {inputs.lower.min():g} to {inputs.upper.max():g} m/s",
        *(line for line in survey.attrs.get("history", "").splitlines() if line),
    ]


def _of_wavelet(inputs: Inputs) -> str:
    """Where a wavelet has its peaks, in time and frequency: a file of another sampling interval shows there."""
    dt, signals = shots.dt(inputs.survey), inputs.wavelet.reshape(-1, inputs.wavelet.shape[-1])
    latest = dt * np.abs(signals).argmax(axis=1).max()
    which = "wavelet" if len(signals) == 1 else f"{len(signals)} wavelets"
    return f"{which}: largest amplitude at {latest:.3g} s{' or before' if len(signals) > 1 else ''}, spectrum at {wavelets.peak(signals, dt):.3g} Hz"


# ------------------------------------------------------------------------------------------------------- grid and model


def _check_lines(config: WaveformConfig, survey: xarray.Dataset) -> None:
    """Refuse models that say that they are of another line than the survey's."""
    for option in config.placed():
        table, name = option.split(".")
        path = getattr(getattr(config, table), name)
        if not isinstance(path, str) or Path(path).suffix.lower() not in NETCDF:
            continue
        attributes = netcdf.attributes(path)
        if line.PLACE[0] in attributes and not line.same_place(attributes, survey.attrs):
            placed = ", ".join(f"{each} = {np.round(attributes[each], 2).tolist()}" for each in line.PLACE if each in attributes)
            raise checks.invalid(option, f"'{path}' along another line than the survey", "along the survey's", f"It has {placed}.")


def _read_velocity(config: WaveformConfig) -> tuple[Grid, np.ndarray]:
    """The cells and the velocity, m/s, of the model's file."""
    model, grid = config.model, config.grid
    path = files.existing(str(model.file))
    if path.suffix.lower() in NETCDF:
        if model.file_spacing is not None:
            raise checks.invalid("model.file_spacing", model.file_spacing, "off for netCDF models", "They have their own cells.")
        own, values = read_model(str(path), model.dataset or "velocity", model.quantity)
        return own, _velocity(values, model.quantity)
    values = _array(path, model.dataset)
    spacing = model.file_spacing or grid.spacing
    if values.ndim not in DIMS or spacing is None:
        expected = "an array of 2 or 3 axes, depth first" if values.ndim not in DIMS else "given with file_spacing"
        raise checks.invalid("model.file", f"'{path}' of shape {values.shape}", expected, "Its samples are file_spacing metres apart.")
    corner = [0.0 if extent is None else extent[0] for extent in (grid.northing, grid.easting)[3 - values.ndim :]]
    bottom = (0.0 if grid.upward is None else grid.upward[1]) - len(values) * spacing
    return Grid.uniform(values.shape, [spacing] * values.ndim, (bottom, *corner)), _velocity(values[::-1], model.quantity)


def _array(path: Path, dataset: str | None) -> np.ndarray:
    try:
        if path.suffix.lower() not in HDF5:
            return np.asarray(np.load(path, allow_pickle=False), np.float64)
        with h5py.File(path) as file:
            return np.asarray(file[str(dataset)], np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        names = "" if path.suffix.lower() not in HDF5 else " with model.dataset the name of an array in it"
        raise checks.invalid("model.file", f"'{path}'", f"a netCDF model, or an HDF5 or .npy array{names}", f"{error}.") from None


def _velocity(values: np.ndarray, quantity: str) -> np.ndarray:
    checks.positive("model.file", values)
    return {"m/s": values, "km/s": 1e3 * values, "s2/km2": 1e3 / np.sqrt(values)}[quantity]


def read_model(path: str, name: str, unit: str | None) -> tuple[Grid, np.ndarray]:
    """The cells and the values of a netCDF model, in a unit."""
    data = netcdf.read(path)
    if name not in data:
        raise checks.invalid("path", f"'{path}' with {', '.join(map(str, data.data_vars))}", f"a model with '{name}'")
    if unit is not None:
        checks.in_unit(name, data[name].attrs, unit)
    grid = Grid.from_xarray(data[name])
    return grid, checks.finite(name, data[name].transpose(*grid.dims).values)


def _grid(config: WaveformConfig, survey: xarray.Dataset, own: Grid | None) -> Grid:
    options, axes = config.grid, shots.axes_of(survey)
    if own is not None and own.dims != axes:
        raise checks.invalid("model.file", f"of {len(own.dims)} axes", f"of {len(axes)}, as the survey")
    if (options.northing is not None) and len(axes) == 2:
        raise checks.invalid("grid.northing", list(options.northing), "off in two dimensions")
    extents = [getattr(options, axis) for axis in axes]
    if own is not None:
        _check_even(own)
    if own is not None and not any(extents) and all(options.spacing in (None, widths[0]) for widths in own.widths):
        return own
    spacing = options.spacing or (float(own.widths[0][0]) if own is not None else _spacing(config))
    around = _around(survey, axes, options.margin) if own is None else [(edges[0], edges[-1]) for edges in own.edges]
    # An extent that was given may miss a whole number of cells by rounding; one around the survey has to hold all of it.
    sides = [(given or found, 1e-6 if given else 0.0) for given, found in zip(extents, around, strict=True)]
    counts = [math.ceil((high - low) / spacing - slack) for (low, high), slack in sides]
    cells = math.prod(map(float, counts))
    if cells > MAX_CELLS:
        raise checks.invalid("grid.spacing", f"that makes {cells:.3g} cells", f"large enough for at most {MAX_CELLS:.0e}", "Use larger cells.")
    fewest = fewest_cells(config.propagator.order)
    if min(counts) < fewest:
        sizes = " x ".join(map(str, counts))
        raise checks.invalid("grid.spacing", f"that makes {sizes} cells", f"small enough for {fewest} along each axis (order {fewest - 1})")
    return Grid(tuple(high - spacing * np.arange(count, -1, -1) for ((_, high), _), count in zip(sides, counts, strict=True)))


def fewest_cells(order: int) -> int:
    """How many cells there must be along each axis, for differences in space of an order."""
    return order + 1


def _check_even(grid: Grid) -> None:
    for dim, widths in zip(grid.dims, grid.widths, strict=True):
        if np.ptp(widths) > 1e-6 * widths[0]:
            given = f"with cells of {widths.min():g} to {widths.max():g} m along {dim}"
            raise checks.invalid("model.file", given, "with cells of one size along each axis", "Resample it.")


def _around(survey: xarray.Dataset, axes: tuple[str, ...], margin: float) -> list[tuple[float, float]]:
    """The extent of sources and receivers, and below their highest one half the length of the survey."""
    live = survey["live"].values
    found = []
    for axis in axes:
        at = np.r_[survey[f"source_{axis}"].values.ravel(), survey[f"receiver_{axis}"].values[live]]
        found.append((float(at.min() - margin), float(at.max() + margin)))
    length = max(high - low for low, high in found[1:])
    if not length > 0:
        raise checks.invalid("survey", "with every source and receiver at one place", "spread out", "Give grid.easting and grid.upward.")
    return [(found[0][1] - length / 2, found[0][1]), *found[1:]]


def _spacing(config: WaveformConfig) -> float:
    """The cell size, of two digits, that the highest band asks for in the slowest part of the start model."""
    assert config.bands.lowpass and config.model.velocity  # the config checks it
    slowest = min(config.model.velocity, config.model.water_velocity) if config.model.water_depth else config.model.velocity
    exact = slowest / (top_frequency(config.bands.lowpass[-1], config.bands.rolloff) * points_per_wavelength(config.propagator.order))
    return float(f"{exact:.2g}")


def top_frequency(passed: float, rolloff: float) -> float:
    """The frequency, Hz, at which a band's amplitudes have fallen to one half."""
    return passed * (1 + rolloff) / 2


def points_per_wavelength(order: int) -> float:
    """Cells to the shortest wavelength at which waves travel to within DISPERSION of their velocity, at half the largest time step."""
    counts = np.arange(2.5, 40.0, 0.25)
    courant = 0.5 * limits.stable_step((1.0, 1.0), 1.0, order)
    return float(next(count for count in counts if abs(limits.phase_velocity(order, count, courant) - 1) <= DISPERSION))


def _start(model: Model, grid: Grid, own: tuple[Grid, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
    """The start model and the cells that are not water."""
    depth, floor = _depth(grid), model.water_depth or 0.0
    water = np.broadcast_to(depth < floor, grid.shape)
    if own is not None:
        return (own[1] if own[0] is grid else _resampled_by_layer(own[1], own[0], grid, floor)), ~water
    velocity = np.broadcast_to(float(model.velocity or 0.0) + model.gradient * np.maximum(depth - floor, 0.0), grid.shape)
    return np.where(water, model.water_velocity, velocity), ~water


def _depth(grid: Grid) -> np.ndarray:
    """Of the cells' centres below the top of a grid, m, broadcastable over it."""
    return (grid.edges[0][-1] - grid.centers[0]).reshape(-1, *[1] * (grid.ndim - 1))


def _resampled_by_layer(values: np.ndarray, own: Grid, grid: Grid, floor: float) -> np.ndarray:
    """A file's velocity on the grid: water and what lies below the sea floor each from its own cells, so that the floor stays sharp."""
    wet = grid.edges[0][-1] - own.centers[0] < floor  # the top of the grid is the sea's, whatever the file's is
    if wet.all() or not wet.any():
        return _resampled("model.file", values, own, grid)
    first = np.argmax(wet)  # the lowest row of water
    rows = np.arange(len(wet))
    water = _resampled("model.file", values[np.maximum(rows, first)], own, grid)
    return np.where(_depth(grid) < floor, water, interpolated(values[np.minimum(rows, first - 1)], own, grid))


def _chosen(model: Model, grid: Grid) -> np.ndarray:
    """The cells that may change as far as the model's free_file is concerned."""
    if model.free_file is None:
        return np.ones(grid.shape, bool)
    return _on("model.free_file", model.free_file, "free", None, grid) >= 0.5


def _density(model: Model, grid: Grid, velocity: np.ndarray, rock: np.ndarray) -> np.ndarray | None:
    if model.density == "constant":
        return None
    if model.density == "gardner":
        return np.where(rock, 310.0 * velocity**0.25, WATER)  # Gardner et al., Geophysics 39 (1974), 770-780
    return checks.positive("model.density_file", _on("model.density_file", str(model.density_file), "density", "kg/m3", grid))


def _bound(name: str, given: float | str, grid: Grid) -> np.ndarray:
    return _on(f"bounds.{name}", given, "velocity", "m/s", grid) if isinstance(given, str) else np.full(grid.shape, given)


def _on(option: str, path: str, name: str, unit: str | None, grid: Grid) -> np.ndarray:
    """A netCDF model on the grid's cells."""
    own, values = read_model(path, name, unit)
    if own.dims != grid.dims:
        raise checks.invalid(option, f"of {len(own.dims)} axes", f"of {grid.ndim}, as the grid")
    return _resampled(option, values, own, grid)


def _resampled(option: str, values: np.ndarray, own: Grid, grid: Grid) -> np.ndarray:
    """A file's field on the grid; what it does not reach goes on as at its edge, which is said."""
    beyond = max(max(its[0] - edges[0], edges[-1] - its[-1]) for its, edges in zip(own.edges, grid.edges, strict=True))
    if beyond > max(widths[0] for widths in grid.widths):
        checks.warn(f"The grid reaches {beyond:.4g} m beyond the cells of {option}: the values at its edge go on there.")
    return interpolated(values, own, grid)


def _check_start(velocity: np.ndarray, lower: np.ndarray, upper: np.ndarray, free: np.ndarray) -> None:
    checks.positive("model", velocity)
    if not free.any():
        raise checks.invalid("model", "with a water_depth or free_file that leaves no cell", "with cells that may change", "Is the depth in metres?")
    crossed = np.argwhere(free & ~(lower < upper))
    if crossed.size:
        at = tuple(map(int, crossed[0]))
        raise checks.invalid("bounds", f"lower {lower[at]:g}, upper {upper[at]:g} m/s at cell {at}", "crossed nowhere: lower < upper")
    if (highest := float(upper[free].max())) > FASTEST:
        advice = "The highest velocity sets the time step: give little more than that of the fastest rock, such as 7000."
        raise checks.invalid("bounds.upper", f"{highest:g} m/s", f"at most {FASTEST:g} m/s", advice)
    outside = np.argwhere(free & ((velocity < lower) | (velocity > upper)))
    if outside.size:
        at = tuple(map(int, outside[0]))
        given = f"{velocity[at]:g} m/s at cell {at}"
        raise checks.invalid("model", given, f"within the bounds {lower[at]:g} to {upper[at]:g} m/s", f"{len(outside)} cells are not.")


def _check_inside(survey: xarray.Dataset, grid: Grid, free_surface: bool) -> None:
    """Refuse sources and receivers outside of the grid, or where the pressure is zero, before any operator is built."""
    sources, receivers, live = shots.acquisition_arrays(survey, grid.dims)
    for name, points, counted in (("source", sources, np.ones(sources.shape[:2], bool)), ("receiver", receivers, live)):
        outside = np.argwhere(counted & ~grid.contains(points.reshape(-1, grid.ndim)).reshape(counted.shape))
        if outside.size:
            place = ", ".join(f"{dim} {value:g} m" for dim, value in zip(grid.dims, points[tuple(outside[0])], strict=True))
            inside = ", ".join(f"{dim} {edges[0]:g} to {edges[-1]:g} m" for dim, edges in zip(grid.dims, grid.edges, strict=True))
            along = " Eastings are distances along data.line_origin's line." if "line_origin" in survey.attrs else ""
            raise checks.invalid(name, f"{place} (shot {outside[0][0]})", f"inside the grid ({inside})", f"{len(outside)} are not.{along}")
        silent = np.argwhere(counted & (points[..., 0] >= grid.edges[0][-1] - 1e-3 * grid.widths[0][0]))
        if free_surface and silent.size:
            given, expected = f"on the free surface (shot {silent[0][0]})", "below it, where the pressure is not zero"
            raise checks.invalid(name, given, expected, f"{len(silent)} are. Give grid.upward, or margin.")


def _check_bands(config: WaveformConfig, survey: xarray.Dataset, first_time: float) -> None:
    dt = shots.dt(survey)
    lowest, length = (config.bands.lowpass or (np.inf,))[0], float(survey["time"].values[-1])
    if lowest * length < 1:
        raise checks.invalid("bands.lowpass", f"{lowest:g} Hz", f"above {1 / length:.3g} Hz, one period in the records")
    if config.bands.lowcut is not None:
        below_nyquist("bands.lowcut", config.bands.lowcut[1], dt / 0.9)
    highest = config.bands.lowpass[-1] * config.bands.rolloff if config.bands.lowpass else 0.0
    if highest > 0.5 / dt:
        raise checks.invalid("bands.lowpass", list(config.bands.lowpass or ()), f"times rolloff below the Nyquist frequency, {0.5 / dt:g} Hz")
    for first, second, third, fourth in filter(None, band_corners(config.bands, 0.5 / dt)):
        if second > 0:
            advice = f"corners {4 / (length - first_time):.2g} Hz apart, for instance."
            _check_ramp("bands.lowcut", first, second, length - first_time, advice)
        wide = math.ceil(100 * (1 + 4 / (length - first_time) / third)) / 100
        _check_ramp("bands.rolloff", third, fourth, length - first_time, f"bands.rolloff = {wide:g}, for instance.")


def _check_ramp(option: str, low: float, high: float, recorded: float, advice: str) -> None:
    """Refuse a ramp of a filter, between two frequencies in Hz, that rings for longer than the records last, s; warn from a quarter of them on."""
    width = high - low
    given = f"with a ramp of {width:.3g} Hz from {low:g} Hz on, which rings for {1 / width:.3g} s"
    if width * recorded < 1:
        raise checks.invalid(option, given, f"wider than {1 / recorded:.3g} Hz, for records of {recorded:.3g} s", f"Widen it: {advice}")
    if width * recorded < 4:
        text = f"{option} {given}: the ends of records of {recorded:.3g} s are tapered as long. Widen it to lose less of them: {advice}"
        checks.warn(text)
