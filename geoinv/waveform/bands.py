r"""One band of frequencies of a full-waveform inversion: its data, its weights, its cells and its operator.

Zero-phase filters spread signals to both sides, so records and wavelet start earlier by a `lead` in a band: zeros before the filter,
the filter's ringing after it. A band is sampled at the largest stable time step on its cells, so that the operator need not resample.

Leapfrog in time makes of a frequency w that the scheme is driven at what the exact derivative makes of :math:`(2 / \Delta t) \sin(w \Delta t / 2)`.
Data and wavelet are taken to the scheme's frequencies on the way into the band, which undoes its error in time altogether (Stork,
EAGE 2013, Tu1106; Wang & Xu, Geophysics 80, 2015, T197-T206): large steps are as good as small ones. Times of a band are the scheme's: a wave of
w arrives early in them by a fraction of about :math:`(w \Delta t)^2 / 8`, which mutes and gathers show.
"""

import dataclasses
import functools
import math
import warnings
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import tensorflow as tf

from geoinv.datasets import shots
from geoinv.operators import checks
from geoinv.operators.grid import Grid
from geoinv.operators.seismic import Absorbing, AcousticWave, Acquisition, limits, wavelets
from geoinv.operators.seismic.shots import cores
from geoinv.operators.sensitivity.strategy import Checkpointed, Every, Strategy

from . import traces
from .cells import Averaging, coarsened, interpolated
from .config import Bands, Misfit, WaveformConfig
from .inputs import Inputs, top_frequency
from .misfit import WaveformMisfit

#: What of the amplitude of adjoint sources may lie above the frequency that snapshots are chosen for: they end with the record.
LEVEL = 5e-3
#: The share of the largest interval between snapshots that is used.
MARGIN = 0.8
#: Where adjoint sources have no frequencies any more, over the highest one of the sources (see `Objective`).
BEYOND = 1.5
#: Steps between snapshots to choose from. The loop is unrolled over an interval, and over several of those that 3, 4 and 5 do not divide.
INTERVALS = (12, 10, 9, 8, 6, 5, 4, 3, 2)

Corners = tuple[float, float, float, float]


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
    corners = _corners(options, 0.5 / dt)
    iterations = options.iterations or (config.inversion.max_iterations,) * len(corners)
    powers = powers if len(powers) > 1 else powers * len(corners)
    return [Band(number, *each) for number, each in enumerate(zip(corners, iterations, powers, strict=True), start=1)]


def _corners(options: Bands, nyquist: float) -> list[Corners | None]:
    low = options.lowcut or (0.0, 0.0)
    if options.lowpass is not None:
        return [(*low, passed, passed * options.rolloff) for passed in options.lowpass]
    return [None if options.lowcut is None else (*low, 0.9 * nyquist, nyquist)]


@final
@dataclass(frozen=True, eq=False)
class Filter:
    """How traces [..., time] at the survey's samples become those of a band.

    Args:
        corners: Hz, or None to keep all frequencies and samples.
        dt: Sampling interval of the survey, s.
        interval: Of the band, s.
        lead: Samples of the band before time zero.
    """

    corners: Corners | None
    dt: float
    interval: float
    lead: int

    @classmethod
    def of(cls, corners: Corners | None, dt: float, stable: float) -> "Filter":
        """That of a band, whose operator is stable up to a given time step, s."""
        if corners is None:
            return cls(None, dt, dt, 0)
        interval = min(stable, 1 / (4 * corners[3]))  # the scheme's own frequencies end at 1 / (pi interval)
        return cls(corners, dt, interval, math.ceil(1 / _ramp(corners) / interval))

    def __call__(self, signals: np.ndarray) -> np.ndarray:
        """Filtered, from the lead on, at the band's samples and of the scheme's frequencies; float32."""
        if self.corners is None:
            return np.asarray(signals, np.float32)
        count = self.lead + math.floor((signals.shape[-1] - 1) * self.dt / self.interval * (1 + 1e-9)) + 1
        length = traces.padded(count, math.ceil(traces.RESPONSE_PERIODS / _ramp(self.corners) / self.interval))
        angular = 2 * np.pi * np.fft.rfftfreq(length, self.interval)
        true = 2 / self.interval * np.sin(angular * self.interval / 2)
        gains = traces.trapezoid(true / (2 * np.pi), self.corners) * self.dt / self.interval
        passed = np.flatnonzero(gains)
        waves = np.exp(-1j * self.dt * np.outer(np.arange(signals.shape[-1]), true[passed]))
        spectrum = np.zeros((*signals.shape[:-1], angular.size), complex)
        spectrum[..., passed] = signals @ waves * (gains * np.exp(-1j * angular * self.lead * self.interval))[passed]
        return np.fft.irfft(spectrum, length)[..., :count].astype(np.float32)

    def eased(self, wavelet: np.ndarray) -> np.ndarray:
        """A wavelet [..., time] that begins without a jump: eased in over half of the lead."""
        return wavelet * traces.taper(np.arange(1, wavelet.shape[-1] + 1) * self.interval, self.lead * self.interval / 2)


def _ramp(corners: Corners) -> float:
    """The width of the narrowest taper of a filter, Hz."""
    return min(width for width in (corners[1] - corners[0], corners[3] - corners[2]) if width > 0)


@final
@dataclass(frozen=True, eq=False)
class Gathers:
    """The observed traces of a band, and how they count.

    Args:
        observed: [shot, receiver, time].
        trace_weights: [shot, receiver]: zero where dead.
        offsets: [shot, receiver], m.
        times: Of the samples, s, zero where the source starts [time].
        first_time: Before which there are no data, s.
        ringing: How long before the records' end, and after their beginning where that is late, the filter misses what was not recorded, s.
        options: Mutes and tapers.
        time_power: Of time, that weighs samples.
    """

    observed: np.ndarray
    trace_weights: np.ndarray
    offsets: np.ndarray
    times: np.ndarray
    first_time: float
    ringing: float
    options: Misfit
    time_power: float

    @classmethod
    def of(cls, inputs: Inputs, chosen: Filter, options: Misfit, time_power: float) -> "Gathers":
        """Those of the inputs through a filter.

        Raises:
            ValueError: Offsets and mutes leave nothing.
        """
        survey = inputs.survey
        observed = np.stack([chosen(gather) for gather in survey["observed"].values])
        live, uncertainty = survey["live"].values, survey["uncertainty"].values
        each = live.astype(float) if options.normalise else np.divide(1.0, uncertainty, out=np.zeros(live.shape), where=live & (uncertainty > 0))
        offsets = shots.offsets(survey)
        farthest = math.inf if options.farthest_offset is None else options.farthest_offset
        tapers = traces.offset_weights(
            tf.constant(offsets, tf.float32), nearest=options.nearest_offset, farthest=farthest, taper=options.offset_taper
        )
        times = (np.arange(observed.shape[-1]) - chosen.lead) * chosen.interval
        made = cls(observed, each * tapers.numpy(), offsets, times, inputs.first_time, chosen.lead * chosen.interval, options, time_power)
        if not any(np.any(made.weights(shot).numpy()[..., times > 0]) for shot in np.arange(len(observed))[:, np.newaxis]):
            raise checks.invalid("misfit", "with offsets and mutes that leave no sample", "such that some data count", "Widen them.")
        return made

    def weights(self, chosen: np.ndarray) -> tf.Tensor:
        """Weights [shot, receiver, time] of some shots."""
        options, times = self.options, tf.constant(self.times, tf.float32)
        found = tf.constant(self.trace_weights[chosen], tf.float32)[..., tf.newaxis] * self._of_time()
        offsets = tf.constant(self.offsets[chosen], tf.float32)
        for side, velocity, delay in (
            ("top", options.top_mute_velocity, options.top_mute_delay),
            ("bottom", options.bottom_mute_velocity, options.bottom_mute_delay),
        ):
            if velocity is not None:
                found *= traces.mute(offsets, times, velocity=velocity, delay=delay, taper=options.mute_taper, side=side)
        return found

    def count(self, misfit: WaveformMisfit) -> float:
        """Terms of a misfit of all shots."""
        if misfit not in self._counts:
            each = (misfit.count(tf.constant(self.observed[shot]), self.weights(shot)) for shot in np.arange(len(self.observed))[:, np.newaxis])
            self._counts[misfit] = max(1.0, float(sum(float(count) for count in each)))
        return self._counts[misfit]

    @functools.cached_property
    def _counts(self) -> dict[WaveformMisfit, float]:
        return {}

    def _of_time(self) -> np.ndarray:
        """A gain of root mean square 1, zero where nothing was recorded [time]."""
        gain = np.where(self.times < -1e-9, 0.0, np.clip(self.times, 0.0, None) ** self.time_power)
        gain = gain / np.sqrt(np.mean(gain**2)) * traces.taper(self.times[-1] - self.times, self.ringing)
        if self.first_time:  # the filter misses what was before that, too
            gain = gain * (self.times >= self.first_time - 1e-9) * traces.taper(self.times - self.first_time, self.ringing)
        return gain.astype(np.float32)


def stable_step(config: WaveformConfig, inputs: Inputs, grid: Grid) -> float:
    """The largest time step on the cells of a band, s."""
    return limits.stable_step([float(widths[0]) for widths in grid.widths], _highest(inputs), config.propagator.order)


def _highest(inputs: Inputs) -> float:
    return float(max(inputs.upper[inputs.free].max(), inputs.velocity.max()))


def averaging(config: WaveformConfig, inputs: Inputs, band: Band) -> Averaging:
    """From the model's cells to those of a band."""
    points = config.bands.points_per_wavelength
    if points is None or band.top is None:
        return Averaging(inputs.grid, inputs.grid)
    shortest = float(inputs.velocity.min()) / top_frequency(band.top, config.bands.rolloff)
    return Averaging(inputs.grid, coarsened(inputs.grid, shortest / points))


def build_operator(config: WaveformConfig, inputs: Inputs, grid: Grid, wavelet: np.ndarray, dt: float) -> AcousticWave:
    """The wave operator of a band, which keeps no snapshots yet.

    Args:
        config, inputs: Of the job.
        grid: The band's cells.
        wavelet: [time] or [shot, source, time] at the band's samples.
        dt: Between these, s.
    """
    options = config.propagator
    return AcousticWave(
        grid,
        Acquisition(*shots.acquisition_arrays(inputs.survey, grid.dims)),
        wavelet,
        dt=dt,
        velocity_limits=(float(inputs.velocity.min()), _highest(inputs)),
        order=options.order,
        boundary=Absorbing(options.absorbing_cells, free_surface=options.free_surface),
        density=None if inputs.density is None else interpolated(inputs.density, inputs.grid, grid),
        aperture=options.aperture,
    )


def changed(wave: AcousticWave, **options: Any) -> AcousticWave:
    """An operator with other options, made without the warnings that were given when the first one of the band was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return dataclasses.replace(wave, **options)


def snapshots(config: WaveformConfig, wave: AcousticWave, highest: float) -> Strategy:
    """What the operator keeps for gradients: as few snapshots as the bands of wavelet and adjoint sources allow, or checkpoints.

    Args:
        config: Of the job.
        wave: With the band's wavelet.
        highest: Frequency of the adjoint sources, Hz.

    Raises:
        ValueError: The config's interval between snapshots is too long.

    Warns:
        UserWarning: Not even the fewest checkpoints fit in snapshot_memory.
    """
    options = config.propagator
    source = wavelets.imaged_band(wave.wavelet, wave.dt)[1]
    largest = limits.snapshot_interval(source, max(source, highest), wave.internal_step)
    if options.snapshot_every is not None and options.snapshot_every > largest:
        raise checks.invalid("propagator.snapshot_every", options.snapshot_every, f"at most {largest} in this band", "Off, it is chosen.")
    every = options.snapshot_every or next((every for every in INTERVALS if every <= MARGIN * largest), 1)
    running = min(cores(), wave.acquisition.shots)
    plans: list[Strategy] = [Every(every, level=LEVEL), *(Checkpointed(states) for states in (64, 32, 16, 8, 4, 2))]
    for plan in plans:
        size = changed(wave, differentiation=plan).memory_estimate(running)
        if (gigabytes := (size.kept + size.running) / 1e9) <= options.snapshot_memory:
            return plan
    text = f"gradients take {gigabytes:.2g} GB with {plan}, more than snapshot_memory = {options.snapshot_memory:g} GB"
    warnings.warn(f"{text}; larger cells, or an aperture, would save some", stacklevel=2)
    return plan
