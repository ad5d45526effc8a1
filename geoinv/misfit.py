"""Measures of the misfit between observed and predicted data, in residuals divided by their uncertainties.

Each gives its value, and the weights of the reweighted least-squares problem whose gradient it shares: a Gauss-Newton
iteration with these weights is one step of iteratively reweighted least squares (Huber 1964; Farquharson & Oldenburg 1998).
"""

from dataclasses import dataclass
from typing import Protocol, final

import tensorflow as tf

from geoinv.operators import checks


class Misfit(Protocol):
    """What an inversion needs of a misfit; r is the residual over the uncertainty, of any shape."""

    def value(self, r: tf.Tensor) -> tf.Tensor:
        """The misfit, a scalar; about the number of data for residuals as large as their uncertainties."""

    def weights(self, r: tf.Tensor) -> tf.Tensor:
        """Weights w(r) with which sum(w r^2) has the misfit's gradient."""


@final
@dataclass(frozen=True)
class L2:
    """``sum r^2``."""

    def value(self, r: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(r**2)

    def weights(self, r: tf.Tensor) -> tf.Tensor:
        return tf.ones_like(r)


@final
@dataclass(frozen=True)
class Huber:
    """``r^2`` up to a threshold k and ``2 k |r| - k^2`` beyond: an outlier pulls with a bounded force.

    Args:
        threshold: k, in uncertainties; 1.345 keeps 95 % of the efficiency of least squares on Gaussian noise.
    """

    threshold: float = 1.345

    def __post_init__(self) -> None:
        checks.positive("threshold", self.threshold)

    def value(self, r: tf.Tensor) -> tf.Tensor:
        size = tf.abs(r)
        return tf.reduce_sum(tf.where(size <= self.threshold, r**2, 2 * self.threshold * size - self.threshold**2))

    def weights(self, r: tf.Tensor) -> tf.Tensor:
        return self.threshold / tf.maximum(tf.abs(r), self.threshold)


def chosen(name: str, threshold: float) -> Misfit:
    """The misfit of a config: 'l2', or 'huber' with its threshold."""
    return Huber(threshold) if checks.choice("misfit", name, ("l2", "huber")) == "huber" else L2()
