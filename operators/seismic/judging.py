"""Whether snapshots are close enough together for the two wavefields whose product they sample (see `wavelets.band`)."""

from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.fft
import tensorflow as tf

from .. import checks
from ..sensitivity.strategy import Strategy
from . import limits, wavelets


@final
@dataclass(frozen=True)
class Snapshots:
    """Those of a strategy.

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
        if self.every == 1:
            return residual
        if tf.executing_eagerly():
            self.check(name, source.numpy(), residual.numpy())
            return residual
        total = _top(_bent(source), self.dt, self._level) + _top(residual, self.dt, self._level)
        fine = self.every * self.time_step * total < 1
        says = f"Invalid 'differentiation' {self.strategy}: too few snapshots for the frequencies of the {name}, or of the wavelet."
        with tf.control_dependencies([tf.debugging.Assert(fine, [says])]):  # XLA leaves it out
            return tf.where(fine, residual, tf.constant(np.nan, residual.dtype))

    @property
    def _level(self) -> float:
        return self.strategy.plan(1, 1.0, 1).level


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
