"""Model maps: from what is solved for to what the physics takes. Each is a forward operator, so maps chain with ``@``."""

import abc
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


class Elementwise(ForwardOperator):
    """A function of each entry by itself; a concrete one has the model's `shape` and `dtype`, and gives its derivatives."""

    shape: tuple[int, ...]
    dtype: tf.DType

    @abc.abstractmethod
    def derivatives(self, model: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Values, first and second derivatives, each of the model's shape."""

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.shape, self.dtype)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return self.model_spec

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return self.derivatives(model)[0]

    def linearize(self, model: tf.Tensor) -> Linearization:
        value, slope, bend = self.derivatives(model)
        return Linearization(self.model_spec, self.data_spec, value, lambda v: slope * v, lambda w: slope * w, lambda v, w: bend * v * w)

    def subset(self, units: Any) -> "Elementwise":
        raise checks.invalid("subset", "of a model map", "taken of the physics", "A map has no units.")


@final
@dataclass(frozen=True, eq=False)
class Exponential(Elementwise):
    """``exp(m)`` for each entry: keeps a property positive while its logarithm is solved for.

    Args:
        shape: Of the model.
        dtype: tf.float64 or tf.float32.
    """

    shape: tuple[int, ...]
    dtype: tf.DType = tf.float64

    def derivatives(self, model: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        value = tf.exp(model)
        return value, value, value


@final
@dataclass(frozen=True, eq=False)
class Reciprocal(Elementwise):
    """``1 / m`` for each entry, zero where m is: slowness from velocity, or the other way about.

    Args:
        shape: Of the model.
        dtype: tf.float64 or tf.float32.
    """

    shape: tuple[int, ...]
    dtype: tf.DType = tf.float64

    def derivatives(self, model: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        value = tf.math.reciprocal_no_nan(model)
        return value, -(value**2), 2 * value**3


@final
@dataclass(frozen=True, eq=False)
class Bounded(Elementwise):
    """``l + (u - l) / (1 + exp(-m))`` for each entry: keeps a property between bounds while any number is solved for.

    Args:
        lower, upper: Bounds l and u, numbers or arrays [shape].
        shape: Of the model.
        dtype: tf.float64 or tf.float32.

    Raises:
        ValueError: Bounds that are not finite, or crossed.
    """

    lower: np.ndarray | float
    upper: np.ndarray | float
    shape: tuple[int, ...]
    dtype: tf.DType = tf.float64

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            bound = np.broadcast_to(checks.finite(name, getattr(self, name)), self.shape)
            object.__setattr__(self, name, bound.astype(self.dtype.as_numpy_dtype))
        if not np.all(self.lower < self.upper):
            raise checks.invalid("bounds", "crossed", "lower < upper everywhere")

    def derivatives(self, model: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        part, width = tf.sigmoid(model), self.upper - self.lower
        slope = width * part * (1 - part)
        return self.lower + width * part, slope, slope * (1 - 2 * part)

    def inverse(self, values: Any) -> tf.Tensor:
        """The model that gives values between the bounds.

        Raises:
            ValueError: Values at the bounds, or beyond.
        """
        given = checks.finite("values", values, dtype=self.dtype.as_numpy_dtype)
        if outside := int(np.sum((given <= self.lower) | (given >= self.upper))):
            raise checks.invalid("values", f"with {outside} at the bounds or beyond", "between them")
        return tf.constant(np.log((given - self.lower) / (self.upper - given)), self.dtype)


@final
@dataclass(frozen=True, eq=False)
class Weighted(Elementwise):
    """``r + w m`` for each entry: a reference changes by as much as its weight allows, and not where that is zero.

    Args:
        reference, weights: r and w, arrays of one shape.
        dtype: tf.float64 or tf.float32.
    """

    reference: np.ndarray
    weights: np.ndarray
    dtype: tf.DType = tf.float64

    def __post_init__(self) -> None:
        checks.shape("weights", self.weights, np.shape(self.reference))
        for name in ("reference", "weights"):
            object.__setattr__(self, name, checks.finite(name, getattr(self, name)).astype(self.dtype.as_numpy_dtype))

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.reference.shape

    def derivatives(self, model: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return self.reference + self.weights * model, tf.constant(self.weights), tf.zeros_like(model)


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
