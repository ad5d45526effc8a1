"""The bands of a full-waveform inversion: what each computes with, worked out and checked without TensorFlow and before anything is computed."""

import warnings
from dataclasses import dataclass
from typing import final

import numpy as np

from geoinv.datasets import shots
from geoinv.operators import checks
from geoinv.operators.grid import Grid
from geoinv.operators.seismic import limits, wavelets

from .cells import Averaging, coarsened
from .config import WaveformConfig
from .filters import Corners, Filter, band_corners
from .gathers import Weights
from .inputs import Inputs, fewest_cells, top_frequency

#: Where adjoint sources have no frequencies any more, over the highest one of the sources (see `Objective`).
BEYOND = 1.5
#: Part of the cells that may be too slow for their size, such as air over land.
SLOW = 0.05


@final
@dataclass(frozen=True)
class Band:
    """Frequencies and how long to invert them.

    Args:
        number: Counted from 1.
        corners: Of the filter, Hz; None for all frequencies.
        iterations: Their limit.
        time_power: Of time, that weighs samples.
    """

    number: int
    corners: Corners | None
    iterations: int
    time_power: float

    @property
    def top(self) -> float | None:
        """The frequency up to which amplitudes pass in full, Hz."""
        return None if self.corners is None else self.corners[2]


def bands(config: WaveformConfig, dt: float) -> list[Band]:
    """The bands of a config, for data sampled every dt s."""
    options, powers = config.bands, config.misfit.time_power
    corners = band_corners(options, 0.5 / dt)
    iterations = options.iterations or (config.inversion.max_iterations,) * len(corners)
    powers = powers if len(powers) > 1 else powers * len(corners)
    return [Band(number, *each) for number, each in enumerate(zip(corners, iterations, powers, strict=True), start=1)]


@final
@dataclass(frozen=True, eq=False)
class Setup:
    """What a band of an inversion computes with.

    Args:
        filter: From the survey's samples to the band's.
        averaging: From the model's cells to the band's.
        weights: How samples count.
        wavelet: Before any fit, [time] or [shot, source, time] at the band's samples, in `Inputs.unit`.
    """

    filter: Filter
    averaging: Averaging
    weights: Weights
    wavelet: np.ndarray

    @classmethod
    def of(cls, config: WaveformConfig, inputs: Inputs, band: Band) -> "Setup":
        """That of a band.

        Raises:
            ValueError: Offsets and mutes leave nothing, cells are too few or too large, or snapshots too far apart.
        """
        cells = averaging(config, inputs, band)
        chosen = Filter.of(band.corners, shots.dt(inputs.survey), stable_step(config, inputs, cells.coarse))
        wavelet = chosen.eased(chosen(inputs.wavelet / inputs.unit).astype(np.float64))
        made = cls(chosen, cells, Weights.of(inputs, chosen, config.misfit, band.time_power), wavelet)
        made._check_snapshots(config, inputs)
        made._check_cells(config, inputs, band)
        return made

    def warn(self, config: WaveformConfig, inputs: Inputs) -> None:
        """Warn of what the operator will warn of: cells that are large for the wavelet, as far as that is known before a fit."""
        if highest := self._highest(config):
            limits.warn_of_dispersion(config.propagator.order, self._spacing, float(inputs.velocity.min()), highest, self._step(config, inputs))

    def _highest(self, config: WaveformConfig) -> float:
        """Frequency of the wavelet, Hz; zero where a fit without a filter will decide on it."""
        open_ended = config.source.estimate and self.filter.corners is None
        return 0.0 if open_ended else wavelets.band(self.wavelet, self.filter.interval, level=limits.VISIBLE)[1]

    @property
    def _spacing(self) -> list[float]:
        return [float(widths[0]) for widths in self.averaging.coarse.widths]

    def _step(self, config: WaveformConfig, inputs: Inputs) -> float:
        """The time step, s, where no jumps of density shorten it."""
        interval = self.filter.interval
        return interval / limits.substeps(interval, None, stable_step(config, inputs, self.averaging.coarse), "")

    def _check_cells(self, config: WaveformConfig, inputs: Inputs, band: Band) -> None:
        """Refuse cells of which the shortest waves have less than two, in all but a few slow places: no grid holds those."""
        slowest, widest = float(np.quantile(inputs.velocity, SLOW)), max(self._spacing)
        own = self._highest(config)
        highest = min(band.top or own, np.inf if config.source.estimate else own)
        if highest * 2 * widest > slowest:
            given = f"that makes cells of {widest:.4g} m in band {band.number}"
            expected = f"below {slowest / highest / 2:.3g} m: two to the wavelength of {highest:.3g} Hz at {slowest:g} m/s"
            raise checks.invalid("grid.spacing", given, expected, "Use four or more.")

    def _check_snapshots(self, config: WaveformConfig, inputs: Inputs) -> None:
        """Refuse an interval that this wavelet, or where it will be fitted none of the band, allows."""
        given, interval, fitted = config.propagator.snapshot_every, self.filter.interval, config.source.estimate
        if given is None or inputs.density is not None or (fitted and self.filter.corners is None):
            return  # the operator tells later: jumps of density shorten its steps, and without a filter a fit may have any frequencies
        step = self._step(config, inputs)
        wavelet = np.zeros_like(self.wavelet) if fitted else self.wavelet
        check_snapshots(given, snapshot_interval(wavelet, interval, adjoint_top(self.filter.corners, wavelet, interval), step))


def check(config: WaveformConfig, inputs: Inputs) -> list[str]:
    """Refuse what any band would refuse before it computes anything.

    Returns:
        What the bands will warn of, as far as it is known by then, a line each.

    Raises:
        ValueError: As `Setup.of`.
    """
    found = []
    for band in bands(config, shots.dt(inputs.survey)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            Setup.of(config, inputs, band).warn(config, inputs)
        found += [f"band {band.number}: {each.message}" for each in caught]
    return found


def adjoint_corners(corners: Corners | None, wavelet: np.ndarray, dt: float) -> Corners | None:
    """The filter of adjoint sources, Hz, for a band or else for the frequencies of a wavelet sampled every dt s; None where all pass."""
    top = corners[3] if corners else wavelets.band(wavelet, dt)[1]
    return (0.0, 0.0, top, BEYOND * top) if 0 < BEYOND * top < 0.5 / dt else None


def adjoint_top(corners: Corners | None, wavelet: np.ndarray, dt: float) -> float:
    """The highest frequency of adjoint sources, Hz."""
    passed = adjoint_corners(corners, wavelet, dt)
    return 0.5 / dt if passed is None else passed[3]


def snapshot_interval(wavelet: np.ndarray, dt: float, highest: float, step: float) -> int:
    """The most steps of so many s from one snapshot to the next, for a wavelet sampled every dt s and adjoint sources up to a frequency, Hz."""
    source = wavelets.imaged_band(wavelet, dt)[1]
    return limits.snapshot_interval(source, max(source, highest), step)


def check_snapshots(given: int | None, largest: int) -> None:
    """Refuse a config's interval between snapshots that is longer than the largest."""
    if given is not None and given > largest:
        raise checks.invalid("propagator.snapshot_every", given, f"at most {largest} in this band", "Off, it is chosen.")


def stable_step(config: WaveformConfig, inputs: Inputs, grid: Grid) -> float:
    """The largest time step on the cells of a band, s."""
    return limits.stable_step([float(widths[0]) for widths in grid.widths], fastest(inputs), config.propagator.order)


def fastest(inputs: Inputs) -> float:
    """The highest velocity that may come up, m/s: it decides on the time step."""
    return float(max(inputs.upper[inputs.free].max(), inputs.velocity.max()))


def averaging(config: WaveformConfig, inputs: Inputs, band: Band) -> Averaging:
    """From the model's cells to those of a band."""
    points = config.bands.points_per_wavelength
    if points is None or band.top is None:
        return Averaging(inputs.grid, inputs.grid)
    shortest = float(inputs.velocity.min()) / top_frequency(band.top, config.bands.rolloff)
    coarse = coarsened(inputs.grid, shortest / points)
    if min(coarse.shape) < (fewest := fewest_cells(config.propagator.order)):
        given = f"{points:g}, which makes {' x '.join(map(str, coarse.shape))} cells in band {band.number}"
        raise checks.invalid("bands.points_per_wavelength", given, f"so many that there are {fewest} or more along each axis", "Use more points.")
    return Averaging(inputs.grid, coarse)
