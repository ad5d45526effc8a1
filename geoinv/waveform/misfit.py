r"""Misfits of predicted to observed traces, as plain TensorFlow: the gradient with respect to the predicted ones is the adjoint source.

With p and o the predicted and observed traces and w the weights (mutes, offset and time weights, one over uncertainties), each
misfit is a sum over traces, so that those of batches of shots add up, and `count` is the number of its terms: ``value / count``
does not depend on the survey's size. Samples and traces of zero weight, and dead traces, add nothing to either, nor to gradients.
"""

import abc
from dataclasses import dataclass
from typing import final

import tensorflow as tf

from .filters import padded
from .traces import unit_peak


class WaveformMisfit(abc.ABC):
    """What full-waveform inversion needs of a misfit."""

    @abc.abstractmethod
    def value(self, predicted: tf.Tensor, observed: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """The misfit, a scalar, zero where the traces agree.

        Args:
            predicted, observed: Traces [..., time], usually [shot, receiver, time], of one dtype.
            weights: Zero or more, of a shape that broadcasts to theirs.
        """

    @abc.abstractmethod
    def count(self, observed: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """The number of terms of the sum, a scalar of the traces' dtype."""


@final
@dataclass(frozen=True)
class L2(WaveformMisfit):
    """``1/2 sum (w (p - o))^2`` over samples. With w = 1 / uncertainty, 2 value / count is chi2."""

    def value(self, predicted: tf.Tensor, observed: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum((weights * (predicted - observed)) ** 2) / 2

    def count(self, observed: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return _samples(observed, weights)


@final
@dataclass(frozen=True)
class CrossCorrelation(WaveformMisfit):
    r"""The global correlation norm ``sum (1 - c)`` over traces (Choi & Alkhalifah 2012; Liu et al. 2017).

    .. math:: c = \frac{\langle w p, w o \rangle}{|w p| |w o|}

    is the normalised cross-correlation at zero lag: a trace counts whatever its amplitude, and a weight that is the same at all
    times of a trace cancels unless it is zero. A trace that is predicted to be zero adds 1. Computed as
    ``1/2 |w p / |w p| - w o / |w o||^2``, which does not cancel close to c = 1.
    """

    def value(self, predicted: tf.Tensor, observed: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        (p, some), (o, live) = _unit(weights * predicted), _unit(weights * observed)
        each = tf.where(some, tf.reduce_sum((p - o) ** 2, axis=-1) / 2, tf.ones_like(p[..., 0]))
        return tf.reduce_sum(tf.where(live, each, tf.zeros_like(each)))

    def count(self, observed: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(_unit(weights * observed)[1], observed.dtype))


@final
@dataclass(frozen=True)
class Envelope(WaveformMisfit):
    r"""``1/2 sum (w (E(p) - E(o)))^2`` over samples, :math:`E(p) = \sqrt{p^2 + (\mathcal{H} p)^2}` (Bozdag et al. 2011; Wu et al. 2014).

    Envelopes carry the low frequencies that the data lack: the misfit's basin of attraction is as wide as the wavelet's envelope.
    """

    def value(self, predicted: tf.Tensor, observed: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum((weights * (envelope(predicted) - envelope(observed))) ** 2) / 2

    def count(self, observed: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return _samples(observed, weights)


def envelope(traces: tf.Tensor) -> tf.Tensor:
    """The magnitude of the analytic signal, of the traces' shape; its gradient is zero where it is zero."""
    scaled, size = unit_peak(traces)
    square = scaled**2 + hilbert(scaled) ** 2
    some = square > 0
    return tf.where(some, tf.sqrt(tf.where(some, square, tf.ones_like(square))) * size, tf.zeros_like(square))


def hilbert(traces: tf.Tensor) -> tf.Tensor:
    """The Hilbert transform of traces [..., time], padded with as many zeros: the imaginary part of the analytic signal."""
    samples = traces.shape[-1]
    length = padded(samples, samples)
    spectrum = tf.signal.rfft(traces, [length])
    turned = tf.complex(tf.math.imag(spectrum), -tf.math.real(spectrum))  # times -i
    inside = tf.concat([[0.0], tf.ones([length // 2 - 1]), [0.0]], axis=0)  # neither the mean nor the Nyquist frequency has a phase
    return tf.signal.irfft(turned * tf.cast(inside, turned.dtype), [length])[..., :samples]


def _unit(traces: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Traces of norm 1, dead ones zero, and which ones are live [...]."""
    scaled, _ = unit_peak(traces)
    square = tf.reduce_sum(scaled**2, axis=-1, keepdims=True)
    live = square > 0
    return scaled / tf.sqrt(tf.where(live, square, tf.ones_like(square))), live[..., 0]


def _samples(observed: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Samples of live traces with weight."""
    live = tf.reduce_any(observed != 0, axis=-1, keepdims=True)
    return tf.reduce_sum(tf.cast(live & (tf.broadcast_to(weights, tf.shape(observed)) > 0), observed.dtype))
