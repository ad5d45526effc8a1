"""Source wavelets: analytic ones, from files, fitted to a record; and the band that a signal occupies.

A wavelet is sampled at times 0, dt, 2 dt, ... and zero before. It is the s(t) on the right of the wave equation, not the
pressure it radiates. Nothing here needs TensorFlow.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft

from .. import checks
from .resampling import resample

_NEGLIGIBLE = 1e-3  # of the peak: the start of an Ormsby wavelet, and what may be cut off the end of any


def ricker(frequency: float, n: int, dt: float, *, delay: float | None = None) -> np.ndarray:
    """The Ricker wavelet ``(1 - 2 a) exp(-a)``, ``a = (pi f (t - delay))^2``: peak 1 at the delay, amplitude spectrum largest at f.

    Args:
        frequency: f, in Hz; below half the Nyquist, where 20 % of the peak amplitude would be left at the Nyquist.
        n: Number of samples.
        dt: Sampling interval, in seconds.
        delay: Time of the peak, in seconds; ``1.5 / f`` by default, which makes the first sample 1e-8.

    Returns:
        [n] float64.

    Raises:
        ValueError: A frequency, interval or number that is not positive, or the frequency too high for dt.

    Source: Ricker, Geophysics 18 (1953), 10-40.
    """
    times = _times(n, dt)
    frequency = float(checks.positive("frequency", frequency))
    if frequency >= 0.25 / dt:
        raise checks.invalid("frequency", f"{frequency:g} Hz", f"below half the Nyquist frequency, {0.25 / dt:g} Hz, at dt = {dt:g} s")
    a = (np.pi * frequency * (times - (1.5 / frequency if delay is None else delay))) ** 2
    return (1 - 2 * a) * np.exp(-a)


def ormsby(corners: Sequence[float], n: int, dt: float, *, delay: float | None = None) -> np.ndarray:
    """The Ormsby wavelet: zero phase about the delay, spectrum a trapezoid that rises over f1..f2, is flat to f3 and falls to zero at f4.

    ``sum_k +-f_k^2 sinc^2(f_k (t - delay)) / width``, the width of its ramp, scaled to peak 1. It decays as 1 / t^2 only, as

        |s| <= (1 / (f2 - f1) + 1 / (f4 - f3)) / (pi^2 (f4 + f3 - f2 - f1) (t - delay)^2),

    and the default delay is where this bound is 1e-3: steep ramps need long delays.

    Args:
        corners: f1 < f2 <= f3 < f4, in Hz, up to the Nyquist; f1 may be 0.
        n: Number of samples.
        dt: Sampling interval, in seconds.
        delay: Time of the peak, in seconds.

    Returns:
        [n] float64.

    Raises:
        ValueError: Corners out of order or above the Nyquist, an interval or number that is not positive.

    Source: Ryan, Ricker, Ormsby, Klauder, Butterworth - a choice of wavelets, CSEG Recorder 19 (1994), no. 7.
    """
    times = _times(n, dt)
    four = checks.finite("corners", corners)
    if four.shape != (4,) or not (0 <= four[0] < four[1] <= four[2] < four[3] <= 0.5 / dt):
        raise checks.invalid("corners", four, f"four frequencies 0 <= f1 < f2 <= f3 < f4 <= {0.5 / dt:g} Hz, the Nyquist")
    f1, f2, f3, f4 = four
    total = f4 + f3 - f2 - f1
    if delay is None:
        delay = np.sqrt((1 / (f2 - f1) + 1 / (f4 - f3)) / (np.pi**2 * total * _NEGLIGIBLE))
    s1, s2, s3, s4 = (f**2 * np.sinc(f * (times - delay)) ** 2 for f in four)
    return ((s4 - s3) / (f4 - f3) - (s2 - s1) / (f2 - f1)) / total


def _times(n: int, dt: float) -> np.ndarray:
    checks.positive("dt", dt)
    if n < 1:
        raise checks.invalid("n", n, "1 or higher")
    return np.arange(n) * float(dt)


def read(path: str | os.PathLike[str], *, dt: float, n: int) -> np.ndarray:
    """A wavelet from a file, at the samples of a record.

    Args:
        path: Text (columns separated by white space or commas; '#' begins a comment) or a NumPy .npy array. One column holds
            amplitudes at 0, dt, ...; two hold times in seconds, evenly spaced and not before zero, and amplitudes, which are resampled
            band-limitedly where the times are not those of the record.
        dt: Sampling interval wanted, in seconds.
        n: Number of samples wanted; see `fit_length`.

    Returns:
        [n] float64.

    Raises:
        ValueError: No such file, an unreadable line (named), values that are not finite, times that are uneven or negative, or an
            end that would be cut off.

    Warns:
        UserWarning: Amplitudes without times, and more of them than the record has.
    """
    checks.positive("dt", dt)
    name = f"wavelet of {os.fspath(path)}"
    table = checks.finite(name, _load(path))
    if table.size == 0 or table.ndim > 2 or (table.ndim == 2 and table.shape[1] > 2):
        raise checks.invalid(name, f"of shape {table.shape}", "one column (amplitudes) or two (times in seconds, amplitudes)")
    if table.ndim == 1 or table.shape[1] == 1:
        if table.size > n:
            text = f"{name} has {table.size} samples, more than the record's {n}: are they {dt:g} s apart? A column with their times would say so"
            checks.warn(text)
        return fit_length(table.ravel(), n)
    times, amplitudes = table.T
    own = _interval(name, times)
    last = int(np.floor(times[-1] / dt + 1e-6))
    return fit_length(resample(amplitudes, own, dt, last + 1, start=float(times[0])), n)


def _load(path: str | os.PathLike[str]) -> np.ndarray:
    try:
        if os.fspath(path).endswith(".npy"):
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError, TypeError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise checks.invalid("wavelet", f"'{os.fspath(path)}'", "a readable text or .npy file of real numbers", f"{reason}.") from None
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].replace(",", " ").split()
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if words and (not row or (rows and len(row) != len(rows[0]))):
            raise checks.invalid("wavelet", f"'{os.fspath(path)}' line {number}, {line.strip()!r}", "one or two numbers, as many on every line")
        rows += [row] if row else []
    return np.array(rows, dtype=np.float64)


def _interval(name: str, times: np.ndarray) -> float:
    """The interval of evenly spaced times, which files round to a few digits."""
    if times.size < 2:
        raise checks.invalid(name, "with one time", "two or more times")
    own = float(times[-1] - times[0]) / (times.size - 1)
    if own <= 0 or np.abs(times - times[0] - own * np.arange(times.size)).max() > 0.01 * own:
        raise checks.invalid(name, f"at times {times[0]:g}, {times[1]:g} ... {times[-1]:g} s", "evenly spaced, to 1 % of the interval")
    if times[0] < 0:
        raise checks.invalid(name, f"that begins at {times[0]:g} s", "zero before time zero", f"Delay it by adding {-times[0]:g} s to its times.")
    return own


def fit_length(wavelet: Any, n: int) -> np.ndarray:
    """A wavelet with as many samples as the record.

    A shorter one is padded with zeros, with a warning. The end of a longer one cannot reach the record, since no wave arrives before
    it is sent; it is cut off where it is below 1e-3 of the peak, and refused otherwise, for it then speaks of another record or interval.

    Args:
        wavelet: [..., time].
        n: Number of samples of the record.

    Returns:
        [..., n] float64.

    Raises:
        ValueError: Values that are not finite, or an end that is not negligible.
    """
    wavelet = checks.finite("wavelet", wavelet)
    given = wavelet.shape[-1]
    if given < n:
        checks.warn(f"wavelet shorter than the record: {given} samples are padded with zeros to {n}")
        return np.concatenate([wavelet, np.zeros((*wavelet.shape[:-1], n - given))], axis=-1)
    rest, peak = np.abs(wavelet[..., n:]).max(initial=0.0), np.abs(wavelet).max(initial=0.0)
    if rest > _NEGLIGIBLE * peak:
        raise checks.invalid(
            "wavelet",
            f"of {given} samples, {n} in the record",
            f"below {_NEGLIGIBLE:g} of its peak after the record's end",
            f"It reaches {rest / peak:.2g} of it there: check dt and the number of samples, or cut it yourself.",
        )
    return wavelet[..., :n]


def band(signal: Any, dt: float, *, level: float = 5e-4) -> tuple[float, float]:
    """The lowest and highest frequency of a signal: what lies below, and above, has at most `level` of its root-mean-square amplitude.

    Why so defined: a sum over every k-th step of the product of two fields (the imaging condition) equals k dt times
    their inner product up to what their product has at multiples of ``1 / (k dt)``. If f_1 + f_2 is below that, only parts above f_1 or
    f_2 contribute, which by the Cauchy-Schwarz inequality is at most (level_1 + level_2) of the product of the two root-mean-squares:
    1e-3 with the default. An image weights its fields with derivatives in time; give the signal so differentiated.

    A record cut off in the middle of a signal ends with a jump, which has energy at all frequencies but meets the image in one instant
    only, with an error of order k / n; the last 5 % of the samples fade out in the measure.

    Args:
        signal: [..., time]; the traces count together, by their energy.
        dt: Sampling interval, in seconds.
        level: The amplitude ratio, below 1.

    Returns:
        lowest, highest: In Hz, on a frequency grid of ``1 / (n dt)`` or somewhat finer; zeros for a signal that is zero.

    Raises:
        ValueError: Values that are not finite, an interval that is not positive.
    """
    dtype = np.float32 if getattr(signal, "dtype", None) == np.float32 else np.float64
    signal = checks.finite("signal", signal, dtype=dtype)
    checks.positive("dt", dt)
    n, largest = signal.shape[-1], np.abs(signal).max(initial=0)
    if largest == 0:
        return 0.0, 0.0
    faded = signal * (fading(n) / largest).astype(dtype)  # squares of single-precision pressures would underflow
    length = scipy.fft.next_fast_len(n, real=True)
    spectra = scipy.fft.rfft(faded, length).reshape(-1, length // 2 + 1)
    power = sum(np.einsum("tf,tf->f", part, part, dtype=np.float64) for part in (spectra.real, spectra.imag))
    power[1 : (length + 1) // 2] *= 2  # the negative frequencies
    allowed = level**2 * power.sum()
    frequencies = scipy.fft.rfftfreq(length, dt)
    highest = power.size - 1 - np.searchsorted(np.cumsum(power[::-1]), allowed, side="right")
    return float(frequencies[np.searchsorted(np.cumsum(power), allowed, side="right")]), float(frequencies[highest])


def fading(n: int) -> np.ndarray:
    """[n] ones that go to zero over the last 5 %."""
    fade = max(1, n // 20)
    return np.r_[np.ones(n - fade), np.cos(np.pi / 2 * np.arange(1, fade + 1) / (fade + 1)) ** 2]


def imaged_band(signal: Any, dt: float, *, level: float = 5e-4) -> tuple[float, float]:
    """The band of a source's wavefield as the gradient weighs it, by its second derivative in time; of one sample none.

    By central differences twice, which see less of what comes near the Nyquist frequency, such as a small jump at the wavelet's start.
    """
    signal = np.asarray(signal)
    if signal.shape[-1] < 2:
        return 0.0, 0.0
    return band(np.gradient(np.gradient(signal, axis=-1), axis=-1), dt, level=level)


def peak(signal: Any, dt: float) -> float:
    """The frequency of the largest amplitude of a signal [..., time], Hz; the traces count together."""
    signal = checks.finite("signal", signal)
    n = signal.shape[-1]
    power = np.sum(np.abs(np.fft.rfft(signal, 2 * n)) ** 2, axis=tuple(range(signal.ndim - 1)))
    return float(np.fft.rfftfreq(2 * n, dt)[np.argmax(power)])
