r"""The source wavelet, by the filter that best turns predicted into observed traces.

With predicted traces P of the wavelet in use and observed ones O, as spectra, the filter

.. math:: A(f) = \frac{\sum_r W_r^2 \bar P_r(f) O_r(f)}{\sum_r W_r^2 |P_r(f)|^2 + \epsilon}

fits them by least squares (Pratt 1999, equation 17, there for a unit source), and A times the wavelet in use is the new one.
Weights that change with time (mutes) multiply both sides, which is exact as far as they change little within a wavelet. All of
it is NumPy on the host: it costs a few Fourier transforms of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.fft

from geoinv.operators import checks

from . import filters
from .filters import check_corners, padded, trapezoid


@final
@dataclass(frozen=True, eq=False)
class NormalEquations:
    """Both sides of the least-squares problem for A, shot by shot: those of batches of shots are joined by `joined`.

    Args:
        cross: sum over receivers of conj(P) O, complex [shot, frequency].
        power: sum over receivers of |P|^2 [shot, frequency].
    """

    cross: np.ndarray
    power: np.ndarray

    @staticmethod
    def joined(batches: Sequence["NormalEquations"]) -> "NormalEquations":
        """The equations of all shots of some batches, in their order."""
        return NormalEquations(np.concatenate([each.cross for each in batches]), np.concatenate([each.power for each in batches]))

    def filter(self, regularization: float, *, one_for_all: bool) -> np.ndarray:
        """A(f) [shot, frequency], one row if it is one for all shots; zero where nothing is predicted."""
        cross, power = (np.sum(each, axis=0, keepdims=True) if one_for_all else each for each in (self.cross, self.power))
        damped = power + regularization * power.max(axis=1, keepdims=True)
        return np.divide(cross, damped, out=np.zeros_like(cross), where=damped > 0)


def normal_equations(predicted: np.ndarray, observed: np.ndarray, weights: np.ndarray | float) -> NormalEquations:
    """The least-squares problem of some shots.

    Args:
        predicted, observed: Traces [shot, receiver, time] in one unit; predicted with the wavelet in use.
        weights: Zero or more, of a shape that broadcasts to theirs; zero for dead traces.

    Raises:
        ValueError: Shapes that differ, or values that are not finite.
    """
    predicted = checks.finite("predicted", predicted)
    if predicted.ndim != 3:
        raise checks.invalid("predicted", f"of shape {predicted.shape}", "[shot, receiver, time]")
    observed = checks.finite("observed", checks.shape("observed", observed, predicted.shape))
    try:
        weights = np.broadcast_to(weights, predicted.shape)
    except ValueError:
        raise checks.invalid("weights", f"of shape {np.shape(weights)}", f"broadcastable to {predicted.shape}") from None
    length = _length(predicted.shape[-1])
    cross, power = [], []
    for shot in range(predicted.shape[0]):  # one at a time: the spectra of all would take twice the memory of the data
        p, o = (scipy.fft.rfft(weights[shot] * each[shot], length, axis=-1) for each in (predicted, observed))
        cross.append(np.sum(np.conj(p) * o, axis=0))
        power.append(np.sum(np.abs(p) ** 2, axis=0))
    return NormalEquations(np.array(cross), np.array(power))


def estimate(
    predicted: np.ndarray,
    observed: np.ndarray,
    wavelet: np.ndarray,
    weights: np.ndarray | float,
    dt: float,
    *,
    regularization: float = 1e-3,
    band: Sequence[float] | None = None,
    duration: float | None = None,
    taper: float = 0.0,
) -> np.ndarray:
    """The wavelet with which the predicted traces fit the observed ones best.

    Args:
        predicted, observed: Traces [shot, receiver, time] in one unit; predicted with `wavelet`.
        wavelet: In use, sampled from t = 0: [time], to find one for all shots, or [shot, source, time], to find the filter of each shot.
        weights: Zero or more, of a shape that broadcasts to the traces'; zero for dead traces.
        dt: Sampling interval, s.
        regularization, band, duration, taper: See `filtered_wavelet`.

    Returns:
        The new wavelet, in the shape and dtype of the given one.

    Raises:
        ValueError: Shapes that do not fit, values that are not finite, no predicted energy, or options out of range.
    """
    equations = normal_equations(predicted, observed, weights)
    return filtered_wavelet(equations, wavelet, np.shape(predicted)[-1], dt, regularization=regularization, band=band, duration=duration, taper=taper)


def filtered_wavelet(
    equations: NormalEquations,
    wavelet: np.ndarray,
    samples: int,
    dt: float,
    *,
    regularization: float = 1e-3,
    band: Sequence[float] | None = None,
    duration: float | None = None,
    taper: float = 0.0,
) -> np.ndarray:
    """The wavelet in use through the filter of the normal equations.

    Args:
        equations: Of all shots.
        wavelet: In use, [time] or [shot, source, time]; see `estimate`.
        samples: Of the traces.
        dt: Sampling interval, s.
        regularization: Added to the denominator, as a fraction of its largest value; about the inverse of the signal-to-noise power ratio.
        band: Four increasing frequencies, Hz, outside which the new wavelet has no energy, with cosine tapers between each two.
        duration: Time, s, after which the new wavelet is zero; its given length if None. What comes before t = 0 is cut.
        taper: Length of the cosine taper before `duration`, s.

    Returns:
        The new wavelet, in the shape and dtype of the given one.
    """
    wavelet = checks.finite("wavelet", wavelet, dtype=np.asarray(wavelet).dtype)
    shots = equations.power.shape[0]
    if not (wavelet.ndim == 1 or (wavelet.ndim == 3 and wavelet.shape[0] == shots)) or wavelet.shape[-1] > samples:
        raise checks.invalid("wavelet", f"of shape {wavelet.shape}", f"[time] or [{shots}, source, time], with {samples} samples at most")
    checks.positive("dt", dt)
    if not 0 <= regularization < np.inf:
        raise checks.invalid("regularization", regularization, "zero or more")
    if not equations.power.any():
        raise checks.invalid("predicted", "zero everywhere", "traces with energy where the weights are positive")
    length = _length(samples)
    filters = equations.filter(regularization, one_for_all=wavelet.ndim == 1)
    if band is not None:
        filters = filters * trapezoid(scipy.fft.rfftfreq(length, dt), check_corners(band, dt))
    spectra = scipy.fft.rfft(np.asarray(wavelet, float), length, axis=-1) * (filters[0] if wavelet.ndim == 1 else filters[:, np.newaxis])
    new = scipy.fft.irfft(spectra, length, axis=-1)[..., : wavelet.shape[-1]]
    return (new * _window(wavelet.shape[-1], dt, duration, taper)).astype(wavelet.dtype)


def _window(samples: int, dt: float, duration: float | None, taper: float) -> np.ndarray:
    """1 from t = 0 on, falling to 0 at the duration."""
    end = samples * dt if duration is None else duration
    if not 0 <= taper <= end:
        raise checks.invalid("taper", f"{taper} s", f"between zero and the duration, {end:g} s")
    remaining = end - np.arange(samples) * dt
    return filters.taper(remaining, taper)


def _length(samples: int) -> int:
    """Twice the record: products of spectra are convolutions that do not wrap around."""
    return padded(samples, samples)
