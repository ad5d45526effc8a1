"""Band-limited resampling in time, as sparse matrices whose adjoints are their transposes.

One kernel serves both ways, the Kaiser-windowed sinc h of `sinc.kernel` with its half width r counted in coarse samples.
With `factor` fine samples to a coarse one, fine sample m and coarse sample n,

    interpolation:    fine[m] = sum_n h(m / factor - n) coarse[n]
    decimation:       coarse[n] = (1 / factor) sum_m h(m / factor - n) fine[m]

so decimation is the transpose of interpolation over `factor`. The kernel passes frequencies up to `BAND` of the coarse
Nyquist and stops those above ``2 - BAND`` of it, both to an error set by r (Kaiser's formula for b and the error): 4e-5
with r = 12, 1.2e-3 with r = 8. Between the two it falls off: keep signals below `BAND`. Samples outside a record count
as zero. The last coarse samples need r more of them in fine samples after the end (`fine_length`), so that a time
loop that feeds a decimation runs on for that long. Nothing here needs TensorFlow.
"""

import math
from typing import Any

import numpy as np
import scipy.sparse

from .. import checks
from .sinc import kernel

#: Of the coarse Nyquist frequency: up to here signals pass to the accuracy stated above.
BAND = 0.75


def fine_length(n: int, factor: int, *, half_width: int = 12) -> int:
    """Number of fine samples that belong to n coarse ones: from time zero to just before `half_width` coarse samples after the last.

    Args:
        n: Number of coarse samples.
        factor: Fine samples to a coarse one, 1 or more.
        half_width: r of the kernel, in coarse samples.

    Returns:
        ``(n - 1 + half_width) * factor``, or n where the factor is 1.

    Raises:
        ValueError: A number that is not a positive integer.
    """
    for name, value in (("n", n), ("factor", factor), ("half_width", half_width)):
        checks.count(name, value)
    return n if factor == 1 else (n - 1 + half_width) * factor


def interpolation(n: int, factor: int, *, half_width: int = 12) -> scipy.sparse.csr_array:
    """The matrix from n samples at dt to samples at dt / factor; every factor-th of them is a given sample, exactly.

    Args:
        n: Number of coarse samples.
        factor: Fine samples to a coarse one.
        half_width: r of the kernel, in coarse samples.

    Returns:
        [fine_length(n, factor), n] float64; the identity where the factor is 1.

    Raises:
        ValueError: A number that is not a positive integer.
    """
    return _matrix(np.arange(fine_length(n, factor, half_width=half_width)) / factor, n, 1.0, half_width)


def decimation(n: int, factor: int, *, half_width: int = 12) -> scipy.sparse.csr_array:
    """The low-pass matrix from samples at dt / factor to n samples at dt.

    ``decimation @ interpolation`` is the identity up to twice the kernel's error for signals below `BAND` of the coarse Nyquist.

    Args:
        n: Number of coarse samples.
        factor: Fine samples to a coarse one.
        half_width: r of the kernel, in coarse samples.

    Returns:
        [n, fine_length(n, factor)] float64; the identity where the factor is 1.

    Raises:
        ValueError: A number that is not a positive integer.
    """
    return (interpolation(n, factor, half_width=half_width).T / factor).tocsr()


def resample(signal: Any, dt_from: float, dt_to: float, n_to: int, *, start: float = 0.0, half_width: int = 12) -> np.ndarray:
    """A sampled signal at another interval, finer or coarser and not necessarily by a whole factor, from time zero on.

    Args:
        signal: [..., time], zero outside its samples.
        dt_from, dt_to: Sampling intervals, in seconds.
        n_to: Number of samples wanted, at 0, dt_to, ...
        start: Time of the signal's first sample, in seconds.
        half_width: r of the kernel, in samples of the coarser interval.

    Returns:
        [..., n_to] float64. Frequencies above the lower Nyquist are filtered out.

    Raises:
        ValueError: An interval that is not positive, a signal that is not finite.
    """
    signal = checks.finite("signal", signal)
    ratio = float(checks.positive("dt_to", dt_to) / checks.positive("dt_from", dt_from))
    at = np.arange(n_to) * ratio - start / dt_from
    weights = _matrix(at, signal.shape[-1], max(1.0, ratio), half_width)
    return (weights @ signal.reshape(-1, signal.shape[-1]).T).T.reshape(*signal.shape[:-1], n_to)


def _matrix(at: np.ndarray, size: int, stretch: float, half_width: int) -> scipy.sparse.csr_array:
    """``h((at - j) / stretch) / stretch`` [len(at), size]: what is wanted at fractional samples, from `size` samples."""
    shape = _kaiser(half_width)
    at = np.where(np.abs(at - np.rint(at)) < 1e-9, np.rint(at), at)
    reach = math.ceil(half_width * stretch)
    columns = np.floor(at)[:, np.newaxis] + np.arange(1 - reach, reach + 1)
    values = kernel((at[:, np.newaxis] - columns) / stretch, half_width, shape) / stretch
    rows, slots = np.nonzero((values != 0) & (columns >= 0) & (columns < size))
    return scipy.sparse.csr_array((values[rows, slots], (rows, columns[rows, slots].astype(np.int64))), shape=(at.size, size))


def _kaiser(half_width: int) -> float:
    """Kaiser's b for a window 2 r samples long whose pass and stop bands are ``2 pi (1 - BAND)`` apart (IEEE ISCAS 1974, 20-23)."""
    decibels = 2.285 * 2 * half_width * 2 * np.pi * (1 - BAND) + 7.95
    if decibels > 50:
        return float(0.1102 * (decibels - 8.7))
    return float(0.5842 * max(0.0, decibels - 21) ** 0.4 + 0.07886 * max(0.0, decibels - 21))
