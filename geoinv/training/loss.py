"""Losses that are sums over the units of a survey, and their gradients, block by block."""

import abc
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import tensorflow as tf

from geoinv.operators import checks
from geoinv.operators.forward import ForwardOperator, Nest, conform

from ..misfit import L2, Misfit

Batch = Mapping[str, Any]


class UnitLoss(abc.ABC):
    """A sum over units: what a block of them adds to it. Pure functions of the model and the block."""

    #: Whether `gradient` is TensorFlow throughout, to be compiled with the addition of what it gives.
    traceable: bool = False

    @abc.abstractmethod
    def value(self, model: Nest, batch: Batch) -> tf.Tensor:
        """The block's part, a scalar."""

    @abc.abstractmethod
    def gradient(self, model: Nest, batch: Batch) -> tuple[tf.Tensor, Nest]:
        """That, and its gradient, structured as the model."""

    def product(self, model: Nest, batch: Batch, tangent: Nest) -> Nest:
        """The block's part of the Gauss-Newton Hessian times a change of the model.

        Raises:
            ValueError: The loss has no residuals.
        """
        raise checks.invalid("loss", type(self).__name__, "a loss with residuals, for Gauss-Newton", "Use Fit(operator).")


@final
@dataclass(frozen=True, eq=False)
class Loss(UnitLoss):
    """A function of the model and a block of units.

    Args:
        function: (model, batch) to a scalar, in TensorFlow; the batch holds the survey's arrays [unit, ...] as tensors, and their numbers as
            "unit". A sum over the units, not a mean.
        traceable: Whether it can be compiled: that it does not look at values.
    """

    function: Callable[[Nest, Batch], tf.Tensor]
    traceable: bool = True

    def value(self, model: Nest, batch: Batch) -> tf.Tensor:
        return self.function(model, batch)

    def gradient(self, model: Nest, batch: Batch) -> tuple[tf.Tensor, Nest]:
        return differentiated(lambda given: self.function(given, batch), model)


@final
@dataclass(frozen=True, eq=False)
class Fit(UnitLoss):
    """The misfit of an operator's data to observed ones, both over their uncertainties: ``phi((F(m) - d) / sigma)``.

    A block's data are those of `operator.subset(units)`. Where the survey has "live", what is not live does not count; nor does what has an
    uncertainty of zero.

    Args:
        operator: Physics, with units as the survey's.
        misfit: phi.
        observed, uncertainty: Names in the survey; without the latter in it uncertainties are 1.
    """

    operator: ForwardOperator
    misfit: Misfit = field(default_factory=L2)
    observed: str = "observed"
    uncertainty: str = "uncertainty"

    def value(self, model: Nest, batch: Batch) -> tf.Tensor:
        return self.misfit.value(self._residual(self._of(batch).forward(self._given(model)), batch))

    def gradient(self, model: Nest, batch: Batch) -> tuple[tf.Tensor, Nest]:
        at = self._of(batch).linearize(self._given(model))
        value, cotangent = differentiated(lambda data: self.misfit.value(self._residual(data, batch)), at.data)
        return value, at.pullback(cotangent)

    def product(self, model: Nest, batch: Batch, tangent: Nest) -> Nest:
        at = self._of(batch).linearize(self._given(model))
        residual = self._residual(at.data, batch)
        # Residuals are affine in the data: what they become for a change of these, without what they are without.
        change = self._residual(at.pushforward(tangent), batch) - self._residual(tf.zeros_like(at.data), batch)
        weighted = 2 * tf.cast(self.misfit.weights(residual), change.dtype) * change
        return at.pullback(differentiated(lambda data: tf.reduce_sum(weighted * self._residual(data, batch)), at.data)[1])

    def _given(self, model: Nest) -> Nest:
        return conform("model", model, self.operator.model_spec)

    def _of(self, batch: Batch) -> ForwardOperator:
        return self.operator.subset(batch["unit"])

    def _residual(self, data: tf.Tensor, batch: Batch) -> tf.Tensor:
        if self.observed not in batch:
            raise checks.invalid("observed", f"'{self.observed}'", f"of {', '.join(batch)}")
        observed = tf.cast(batch[self.observed], data.dtype)
        weights = tf.ones_like(observed)
        if self.uncertainty in batch:
            deviation = _trailing(tf.cast(batch[self.uncertainty], data.dtype), observed)
            weights *= tf.math.divide_no_nan(tf.ones_like(deviation), deviation)
        if "live" in batch:
            weights *= _trailing(tf.cast(batch["live"], data.dtype), observed)
        observed = tf.where(weights > 0, observed, tf.zeros_like(observed))
        if len(data.shape) == 1 and len(observed.shape) == 2 and "live" in batch:  # picks of shots, one after another
            live = tf.cast(batch["live"], tf.bool)
            observed, weights = tf.boolean_mask(observed, live), tf.boolean_mask(weights, live)
        if len(data.shape) == len(observed.shape) + 1 and data.shape[-1] == 1:  # one component of gravity
            observed, weights = observed[..., tf.newaxis], weights[..., tf.newaxis]
        return weights * (_cut(data, tuple(observed.shape)) - observed)


def _trailing(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """With as many axes as `like`, of length 1 where there were none."""
    return tf.reshape(values, [*values.shape, *[1] * (len(like.shape) - len(values.shape))])


def _cut(data: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """The first entries along each axis: batches are cut behind the last receiver that is live."""
    if len(data.shape) != len(shape) or any(n < wanted for n, wanted in zip(data.shape, shape, strict=True)):
        raise checks.invalid("observed", f"of shape {shape}", f"as the operator's data, {tuple(data.shape)}")
    return data[tuple(slice(n) for n in shape)]


@final
@dataclass(frozen=True, eq=False)
class Mapped(UnitLoss):
    """A loss of what a map makes of the model, such as `maps.Bounded`, active cells or a network.

    Args:
        loss: Of the map's result.
        map: A differentiable function in TensorFlow; operators are.
    """

    loss: UnitLoss
    map: Callable[[Nest], Nest]

    @property
    def traceable(self) -> bool:  # type: ignore[override]
        return self.loss.traceable

    def value(self, model: Nest, batch: Batch) -> tf.Tensor:
        return self.loss.value(self.map(model), batch)

    def gradient(self, model: Nest, batch: Batch) -> tuple[tf.Tensor, Nest]:
        with tf.GradientTape() as tape:
            tape.watch(tf.nest.flatten(model))
            mapped = self.map(model)
        value, gradient = self.loss.gradient(mapped, batch)
        return value, tape.gradient(mapped, model, output_gradients=gradient, unconnected_gradients="zero")

    def product(self, model: Nest, batch: Batch, tangent: Nest) -> Nest:
        if isinstance(self.map, ForwardOperator):
            at = self.map.linearize(model)
            return at.pullback(self.loss.product(at.data, batch, at.pushforward(tangent)))
        leaves = tf.nest.flatten(model)
        with tf.autodiff.ForwardAccumulator(leaves, tf.nest.flatten(tangent)) as forward, tf.GradientTape() as tape:
            tape.watch(leaves)
            mapped = self.map(model)
        change = tf.nest.map_structure(lambda leaf: forward.jvp(leaf, unconnected_gradients="zero"), mapped)
        product = self.loss.product(mapped, batch, change)
        return tape.gradient(mapped, model, output_gradients=product, unconnected_gradients="zero")


def differentiated(function: Callable[[Nest], tf.Tensor], at: Nest) -> tuple[tf.Tensor, Nest]:
    """A scalar function's value and gradient; zeros for what it does not depend on."""
    with tf.GradientTape() as tape:
        tape.watch(tf.nest.flatten(at))
        value = function(at)
    if len(value.shape):
        raise checks.invalid("loss", f"of shape {tuple(value.shape)}", "a scalar", "Sum over the units.")
    return value, tape.gradient(value, at, unconnected_gradients="zero")


def as_loss(given: Any) -> UnitLoss:
    """A loss, from itself or from a function of the model and a batch."""
    if isinstance(given, UnitLoss):
        return given
    if not callable(given):
        raise checks.invalid("loss", given, "a function of the model and a batch, or a loss such as Fit(operator)")
    return Loss(given)


@final
@dataclass(frozen=True, eq=False)
class Penalty:
    """What is added to the mean over units: a scalar function of the model, in TensorFlow; nothing by default."""

    function: Callable[[Nest], tf.Tensor] | None = None

    @functools.cached_property
    def _compiled(self) -> Any:
        return tf.function(lambda model: differentiated(self.function, model), jit_compile=True)  # type: ignore[arg-type]

    def value(self, model: Nest) -> float:
        """Of a model."""
        return 0.0 if self.function is None else float(self.function(model))

    def gradient(self, model: Nest) -> tuple[float, Nest]:
        """Of a model, with its gradient."""
        value, gradient = self._compiled(model)
        return float(value), tf.nest.map_structure(tf.convert_to_tensor, gradient)

    def product(self, model: Nest, tangent: Nest) -> Nest:
        """The Hessian times a change of the model."""

        def slope(given: Nest) -> tf.Tensor:
            found = [tf.convert_to_tensor(each) for each in tf.nest.flatten(differentiated(self.function, given)[1])]  # type: ignore[arg-type]
            return tf.add_n([tf.reduce_sum(a * b) for a, b in zip(found, tf.nest.flatten(tangent), strict=True)])

        return tf.nest.map_structure(tf.convert_to_tensor, differentiated(slope, model)[1])
