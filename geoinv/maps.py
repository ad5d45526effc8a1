"""Model maps: from what is solved for to what the physics takes. Each is a forward operator, so maps chain with ``@``."""

import functools
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import tensorflow as tf

from geoinv.operators import checks
from geoinv.operators.forward import ForwardOperator, Linearization, linear


@final
@dataclass(frozen=True, eq=False)
class ActiveCells(ForwardOperator):
    """A vector over the active cells placed on the grid, with zero elsewhere.

    Args:
        active: Boolean mask, shaped as the grid.
    """

    active: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "active", np.asarray(self.active, dtype=bool))
        if self._cells.size == 0:
            raise checks.invalid("active", "without any active cell", "true for one cell or more")

    @functools.cached_property
    def _cells(self) -> np.ndarray:
        """Where each entry of the vector lies in the ravelled grid."""
        return np.flatnonzero(self.active)

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """Where each cell lies in the vector, the inactive ones at a zero appended to it: a gather is faster than a scatter."""
        places = np.full(self.active.size, self._cells.size)
        places[self._cells] = np.arange(self._cells.size)
        return places

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec((self._cells.size,), tf.float64)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.active.shape, tf.float64)

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.gather(tf.pad(model, [[0, 1]]), self._places), self.active.shape)

    def linearize(self, model: tf.Tensor) -> Linearization:
        return linear(self, model, lambda w: tf.gather(tf.reshape(w, [-1]), self._cells))

    def subset(self, units: Any) -> "ActiveCells":
        raise checks.invalid("subset", "of a model map", "taken of the physics", "A map has no units.")


@final
@dataclass(frozen=True, eq=False)
class Exponential(ForwardOperator):
    """``exp(m)`` for each entry: keeps a property positive while its logarithm is solved for.

    Args:
        shape: Of the model.
    """

    shape: tuple[int, ...]

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.shape, tf.float64)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.shape, tf.float64)

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return tf.exp(model)

    def linearize(self, model: tf.Tensor) -> Linearization:
        value = tf.exp(model)
        return Linearization(self.model_spec, self.data_spec, value, lambda v: value * v, lambda w: value * w, lambda v, w: value * v * w)

    def subset(self, units: Any) -> "Exponential":
        raise checks.invalid("subset", "of a model map", "taken of the physics", "A map has no units.")


@final
@dataclass(frozen=True, eq=False)
class Reciprocal(ForwardOperator):
    """``1 / m`` for each entry, zero where m is: slowness from velocity, or the other way about.

    Args:
        shape: Of the model.
    """

    shape: tuple[int, ...]

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.shape, tf.float64)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.shape, tf.float64)

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return tf.math.reciprocal_no_nan(model)

    def linearize(self, model: tf.Tensor) -> Linearization:
        value = tf.math.reciprocal_no_nan(model)
        slope = -(value**2)
        return Linearization(
            self.model_spec, self.data_spec, value, lambda v: slope * v, lambda w: slope * w, lambda v, w: -2 * slope * value * v * w
        )

    def subset(self, units: Any) -> "Reciprocal":
        raise checks.invalid("subset", "of a model map", "taken of the physics", "A map has no units.")


@final
@dataclass(frozen=True, eq=False)
class WithTrend(ForwardOperator):
    """Physics plus a regional trend that is solved for with it: the model is the physics' vector, then the trend's coefficients.

    Args:
        physics: Operator on a vector [n], with data [station, component].
        trend: [station, component, term] values of each term of the trend, in the units of the data.
    """

    physics: ForwardOperator
    trend: np.ndarray

    def __post_init__(self) -> None:
        if tuple(np.shape(self.trend)[:-1]) != tuple(self.physics.data_spec.shape):
            raise checks.invalid("trend", f"of shape {np.shape(self.trend)}", f"of shape {(*self.physics.data_spec.shape, 'terms')}")

    @property
    def twice_differentiable(self) -> bool:  # type: ignore[override]
        return self.physics.twice_differentiable

    @property
    def xla(self) -> bool:  # type: ignore[override]
        return self.physics.xla

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec((self._split + self.trend.shape[-1],), tf.float64)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return self.physics.data_spec

    @property
    def _split(self) -> int:
        return int(self.physics.model_spec.shape[0])

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return self.physics.forward(model[: self._split]) + tf.linalg.matvec(self.trend, model[self._split :])

    def linearize(self, model: tf.Tensor) -> Linearization:
        at = self.physics.linearize(model[: self._split])

        def pushforward(v: tf.Tensor) -> tf.Tensor:
            return at.pushforward(v[: self._split]) + tf.linalg.matvec(self.trend, v[self._split :])

        def pullback(w: tf.Tensor) -> tf.Tensor:
            return tf.concat([at.pullback(w), tf.einsum("sct,sc->t", self.trend, w)], axis=0)

        def curvature(v: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
            return tf.pad(at.hessian_product(v[: self._split], w), [[0, self.trend.shape[-1]]])

        data = at.data + tf.linalg.matvec(self.trend, model[self._split :])
        return Linearization(self.model_spec, self.data_spec, data, pushforward, pullback, curvature if self.twice_differentiable else None)

    def subset(self, units: Any) -> "WithTrend":
        return WithTrend(self.physics.subset(units), self.trend[checks.units(units, len(self.trend))])
