"""Filters, mutes, weights and normalisation of traces, whose last axis is time.

All functions of traces are pure TensorFlow: they may be traced by `tf.function`, compiled by XLA and differentiated; the number of
samples must be known when traced. `trapezoid` and `taper` are amplitudes, in NumPy. Times count from the first sample, which is at 0.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft
import tensorflow as tf

from geoinv.operators import checks

#: What wraps around is what a filter still rings after this many periods of its narrowest taper's width: below 1e-4 of its peak.
RESPONSE_PERIODS = 8.0


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
    ramps = [width for width in (corners[1] - corners[0], corners[3] - corners[2]) if width > 0]
    return filtered(traces, lambda frequencies: trapezoid(frequencies, corners), dt, padding=RESPONSE_PERIODS / min(ramps))


def check_corners(corners: Sequence[float], dt: float) -> tuple[float, float, float, float]:
    """The four corners of a band, after checking them against each other and the Nyquist frequency."""
    checks.positive("dt", dt)
    given = tuple(float(corner) for corner in corners)
    if len(given) != 4 or not (0 <= given[0] <= given[1] < given[2] < given[3]) or given[0] == given[1] > 0:
        raise checks.invalid("corners", list(given), "four increasing frequencies in Hz (the first two may be 0, for a low-pass)")
    if given[3] > 0.5 / dt:
        raise checks.invalid("corners", list(given), f"below the Nyquist frequency {0.5 / dt:g} Hz of samples every {dt:g} s")
    return given[0], given[1], given[2], given[3]


def trapezoid(frequencies: np.ndarray, corners: Sequence[float]) -> np.ndarray:
    """Amplitudes of a band between four corners with cosine tapers, at frequencies in Hz."""
    first, second, third, fourth = corners
    return taper(frequencies - first, second - first) * taper(fourth - frequencies, fourth - third)


def taper(distance: np.ndarray, width: float) -> np.ndarray:
    """0 below zero distance, 1 from the width on, a cosine taper between."""
    return np.sin(np.pi / 2 * np.clip(distance / width, 0, 1)) ** 2 if width else np.where(distance >= 0, 1.0, 0.0)


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


def padded(samples: int, more: int) -> int:
    """An even length of at least `samples + more` whose Fourier transform is fast."""
    return 2 * scipy.fft.next_fast_len((samples + more + 1) // 2, real=True)


def mute(offsets: tf.Tensor, times: tf.Tensor, *, velocity: float, delay: float = 0.0, taper: float, side: str) -> tf.Tensor:
    """Weights of a mute along the straight line t = delay + |offset| / velocity.

    Args:
        offsets: Distances from source to receiver, m [...], usually [shot, receiver].
        times: Times of the samples, s [time].
        velocity: Of the line, m/s; infinite for a mute at one time.
        delay: Time of the line at zero offset, s.
        taper: Length of the cosine taper inside the part that is kept, s; 0 for a sharp mute.
        side: What is muted: 'top' (before the line) or 'bottom' (after it).

    Returns:
        Weights between 0 and 1, [..., time]: 0 on the muted side up to the line itself, 1 from `taper` beyond it.

    Raises:
        ValueError: An unknown side, a velocity that is not positive, or a negative taper.
    """
    checks.choice("side", side, ("top", "bottom"))
    if not velocity > 0:
        raise checks.invalid("velocity", velocity, "positive")
    line = delay + tf.abs(offsets)[..., tf.newaxis] / velocity
    return _ramp(times - line if side == "top" else line - times, taper)


def offset_weights(offsets: tf.Tensor, *, nearest: float = 0.0, farthest: float = math.inf, taper: float = 0.0) -> tf.Tensor:
    """Weights of traces by offset: 1 from `nearest` to `farthest` m, cosine tapers of `taper` m inside these; of the offsets' shape."""
    if not 0 <= nearest < farthest:
        raise checks.invalid("offset range", f"from {nearest} to {farthest}", "increasing, from zero or more")
    distance = tf.abs(offsets)
    weights = tf.cast((distance >= nearest) & (distance <= farthest), offsets.dtype)
    return weights * _ramp(distance - (nearest or -math.inf), taper) * _ramp(farthest - distance, taper) if taper else weights


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


def _ramp(distance: tf.Tensor, width: float) -> tf.Tensor:
    """0 up to zero distance, 1 from `width` on, a cosine taper between."""
    if not 0 <= width < math.inf:
        raise checks.invalid("taper", width, "zero or more")
    if width == 0:
        return tf.cast(distance > 0, distance.dtype)
    return tf.sin(math.pi / 2 * tf.clip_by_value(distance / width, 0.0, 1.0)) ** 2
