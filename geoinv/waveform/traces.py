"""Filters and normalisation of traces, whose last axis is time, in pure TensorFlow.

They may be traced by `tf.function`, compiled by XLA and differentiated; the number of samples must be known when traced.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from .filters import RESPONSE_PERIODS, check_corners, narrowest, padded, trapezoid


def bandpass(traces: tf.Tensor, dt: float, corners: Sequence[float]) -> tf.Tensor:
    """A zero-phase band-pass with cosine tapers: amplitudes rise from 0 to 1 between two corners and fall between the other two.

    Args:
        traces: [..., time], float32 or float64.
        dt: Sampling interval, s.
        corners: Four increasing frequencies, Hz; the first may be zero twice, which makes it a low-pass.

    Returns:
        Filtered traces, of the same shape; the operation is linear and its own adjoint.

    Raises:
        ValueError: Corners that do not increase or lie above the Nyquist frequency.
    """
    corners = check_corners(corners, dt)
    return filtered(traces, lambda frequencies: trapezoid(frequencies, corners), dt, padding=RESPONSE_PERIODS / narrowest(corners))


def filtered(traces: tf.Tensor, amplitudes: Callable[[np.ndarray], np.ndarray], dt: float, *, padding: float) -> tf.Tensor:
    """Traces with their spectrum multiplied by real amplitudes, a function of frequencies in Hz, after padding with zeros.

    Args:
        traces: [..., time].
        amplitudes: Frequencies, Hz [frequency] -> factors [frequency].
        dt: Sampling interval, s.
        padding: How long the filter rings on either side, s: what wraps around is older than this.
    """
    samples = traces.shape[-1]
    length = padded(samples, math.ceil(padding / dt))
    gains = tf.constant(amplitudes(np.fft.rfftfreq(length, dt)), traces.dtype)
    spectrum = tf.signal.rfft(traces, [length])
    return tf.signal.irfft(spectrum * tf.cast(gains, spectrum.dtype), [length])[..., :samples]


def normalised(traces: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
    """Traces over their root mean square where samples count; those that count nowhere, or are dead there, become zero, with zero gradients.

    Args:
        traces: [..., time].
        counted: Whether a sample counts, bool [..., time].
    """
    inside = tf.where(counted, traces, tf.zeros_like(traces))
    scaled, size = unit_peak(inside)
    share = tf.reduce_mean(tf.cast(counted, traces.dtype), axis=-1, keepdims=True)
    power = tf.math.divide_no_nan(tf.reduce_mean(scaled**2, axis=-1, keepdims=True), share)
    live = power > 0
    rms = tf.sqrt(tf.where(live, power, tf.ones_like(power))) * size
    return tf.where(live, traces / rms, tf.zeros_like(traces))


def unit_peak(traces: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Traces over their largest magnitude, a constant to derivatives, and that magnitude [..., 1], 1 for dead traces.

    Squares of single-precision pressures would underflow.
    """
    peak = tf.stop_gradient(tf.reduce_max(tf.abs(traces), axis=-1, keepdims=True))
    size = tf.where(peak > 0, peak, tf.ones_like(peak))
    return traces / size, size
