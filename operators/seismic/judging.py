"""What of waves is refused or warned of: wavelets, velocities, wavefields that are not finite, snapshots too far apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import scipy.fft
import tensorflow as tf

from .. import checks
from ..graphs import guarded
from ..sensitivity.strategy import Strategy
from . import limits, wavelets
from .runs import Run
from .shots import Gradient, Loop
from .stepping import State

#: Cells of an absorbing layer in which no field grew, whatever the density.
WIDE = 12


def wavelet(given: Any, samples: int | None, sources: tuple[int, int]) -> np.ndarray:
    """The wavelets [shot, source, time] of a record of so many samples (those of the wavelet by default), from one or from all of them."""
    if np.iscomplexobj(given):
        raise checks.invalid("wavelet", "of complex numbers", "real")
    found = checks.finite("wavelet", given)
    if found.ndim == 0 or not found.size:
        raise checks.invalid("wavelet", f"of shape {found.shape}", "of shape [time] or [shot, source, time], of one sample or more")
    if samples is not None and (checks.finite("samples", samples) % 1 != 0 or samples < 1):
        raise checks.invalid("samples", samples, "a whole number, 1 or more")
    found = wavelets.fit_length(found, found.shape[-1] if samples is None else int(samples))
    shape = (*sources, found.shape[-1])
    if found.ndim != 1 and found.shape != shape:
        raise checks.invalid("wavelet", f"of shape {found.shape}", f"of shape {shape[2:]} or {shape}")
    return np.broadcast_to(found, shape)


def check_velocity(velocity: np.ndarray, lowest: float, highest: float) -> None:
    """Refuse velocities that are not positive or above the limit; warn of those below."""
    checks.positive("velocity", velocity)
    if velocity.max() > highest * (1 + 1e-6):
        at = np.unravel_index(velocity.argmax(), velocity.shape)
        given = f"{velocity.max():g} m/s at cell {tuple(map(int, at))}"
        raise checks.invalid("velocity", given, f"at most {highest:g} m/s", "Raise velocity_limits: they decide on the time step.")
    if velocity.min() < lowest * (1 - 1e-6):
        # The same words in every iteration of an inversion, so that they are shown once.
        text = f"velocities below velocity_limits ({lowest:g} m/s): waves may be more dispersed there than was judged"
        checks.warn(text)


def warn_of_edges(density: np.ndarray, layers: Sequence[Sequence[int]], dims: Sequence[str]) -> None:
    """Warn of a density that differs too much along a narrow layer (see `boundaries`, which has what was seen), in the same words each time.

    Args:
        density: On the grid, or on a window of it, kg/m3.
        layers: (lower, upper) width along each axis, in cells.
        dims: Names of the axes.
    """
    for axis, pair in enumerate(layers):
        for end, width in zip((0, -1), pair, strict=True):
            edge = np.take(density, end, axis=axis)
            if 0 < width < WIDE and edge.max() > 10 ** min(width / 2, 3) * edge.min():
                side = f"the {'upper' if end else 'lower'} end of {dims[axis]}, where the absorbing layer has {width} cells"
                text = f"density differs by orders of magnitude along {side}: fields may grow there in thousands of steps"
                checks.warn(f"{text}. Take {WIDE} cells or more, or even the outermost cells out.")
                return


def check_finite(loop: Callable[[int], Loop], run: Run, ends: Mapping[int, State]) -> None:
    """Refuse wavefields, by their shots, that are not finite at the end."""
    if not tf.executing_eagerly():
        return
    for shot, end in ends.items():
        if not tf.reduce_all(tf.math.is_finite(end.old.field)):
            step = loop(shot).failure(run.medium(shot), run.shot(shot))
            given = f"not finite in shot {run.numbers[shot]} by step {step} ({step * run.time_step:.4g} s)"
            raise checks.invalid("wavefield", given, "finite", "Is the wavelet finite, and the velocity within velocity_limits?")


def check_gradients(run: Run, gradients: Mapping[int, Gradient]) -> None:
    """Refuse gradients, by their shots, that are not finite where the cotangents were: an adjoint wavefield that grew beyond the dtype."""
    if not tf.executing_eagerly():
        return
    for shot, gradient in gradients.items():
        if not all(tf.reduce_all(tf.math.is_finite(part)) for part in tf.nest.flatten(gradient.material)):
            advice = "The cotangent may be too large for the dtype: scale it, or take tf.float64."
            raise checks.invalid("gradient", f"not finite in shot {run.numbers[shot]}", "finite", advice)


@final
@dataclass(frozen=True)
class Snapshots:
    """Those of a strategy: whether they sample the product of two wavefields finely enough (see `wavelets.band`).

    Args:
        strategy: What the time loop keeps.
        dt: Sampling interval of wavelet and data, s.
        time_step: s.
    """

    strategy: Strategy
    dt: float
    time_step: float

    @property
    def every(self) -> int:
        """Steps from one to the next."""
        return self.strategy.plan(1, 1.0, 1).every

    def check(self, name: str, source: np.ndarray, residual: np.ndarray) -> None:
        """Refuse an interval too long for a source signal and a residual, or what bounds it, of that name: [..., time] each."""
        if self.every == 1:
            return
        source_top = wavelets.imaged_band(source, self.dt, level=self._level)[1]
        residual_top = wavelets.band(checks.finite(name, residual, dtype=residual.dtype), self.dt, level=self._level)[1]
        largest = limits.snapshot_interval(source_top, residual_top, self.time_step)
        if self.every <= largest:
            return
        given = f"{self.strategy} of {self.time_step:.3g} s for frequencies up to {source_top:.3g} Hz (source) and {residual_top:.3g} Hz ({name})"
        raise checks.invalid("differentiation", given, f"Every({largest}) or finer", "Or filter the data, or take StoreAll().")

    def guarded(self, name: str, source: tf.Tensor, residual: tf.Tensor) -> tf.Tensor:
        """The residual, if it passes the check. In a graph, that cannot raise, one that does not becomes NaN; where it can assert it does."""
        if tf.executing_eagerly():
            _check_cotangent(name, residual.numpy())
        if self.every == 1:
            return residual
        if tf.executing_eagerly():
            self.check(name, source.numpy(), residual.numpy())
            return residual
        total = _top(_bent(source), self.dt, self._level) + _top(residual, self.dt, self._level)
        fine = self.every * self.time_step * total < 1
        return guarded(residual, fine, f"Invalid 'differentiation' {self.strategy}: too few snapshots for the frequencies of the {name} or wavelet.")

    @property
    def _level(self) -> float:
        return self.strategy.plan(1, 1.0, 1).level


def _check_cotangent(name: str, values: np.ndarray) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if bad.size:
        given = f"{values[tuple(bad[0])]:g} at {tuple(map(int, bad[0]))}"
        where = {3: "(shot, receiver, sample)", 2: "(receiver, sample)"}[values.ndim]
        raise checks.invalid(name, given, "finite everywhere", f"{len(bad)} of {values.size} values are not; places are {where}.")


def _top(signal: tf.Tensor, dt: float, level: float) -> tf.Tensor:
    """The highest frequency of `wavelets.band`, within a graph."""
    n, length = signal.shape[-1], scipy.fft.next_fast_len(signal.shape[-1], real=True)
    faded = tf.reshape(signal, [-1, n]) * tf.constant(wavelets.fading(n), signal.dtype)
    spectra = tf.signal.rfft(tf.math.divide_no_nan(faded, tf.reduce_max(tf.abs(signal))), [length])
    twice = np.r_[1.0, np.full((length - 1) // 2, 2.0), np.ones(1 - length % 2)]  # the negative frequencies
    power = tf.constant(twice) * tf.reduce_sum(tf.square(tf.cast(tf.abs(spectra), tf.float64)), axis=0)
    above = tf.cumsum(power, reverse=True)
    return tf.reduce_max(tf.where(above > level**2 * above[0], tf.constant(np.fft.rfftfreq(length, dt)), 0.0))


def _bent(signal: tf.Tensor) -> tf.Tensor:
    """The second derivative of `wavelets.imaged_band`, within a graph."""
    if signal.shape[-1] < 2:
        return tf.zeros_like(signal)
    for _ in range(2):
        first, last = signal[..., 1:2] - signal[..., :1], signal[..., -1:] - signal[..., -2:-1]
        signal = tf.concat([first, (signal[..., 2:] - signal[..., :-2]) / 2, last], axis=-1)
    return signal
