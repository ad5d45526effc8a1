"""The contract of a forward operator; `autodiff` is where operators meet TensorFlow's automatic differentiation.

A forward operator maps a model to data, ``d = F(m)``. Models and data are nests of tensors (one tensor, a tuple, a
dict). The physics writes `forward` and `linearize`; everything else is derived here. One inner product serves the whole
project, ``<a, b> = Re sum(conj(a) b)`` over the ravelled leaves, and `Linearization.vjp` is the adjoint of `jvp` in it.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np
import tensorflow as tf
from scipy.sparse.linalg import LinearOperator

from . import checks
from .autodiff import Recorded, recording

if TYPE_CHECKING:
    from .sensitivity.looped import Looped

Nest = Any  # a tensor, or a tuple / dict / nest of tensors


def conform(name: str, values: Nest, spec: Nest) -> Nest:
    """`values` as tensors with the structure, shapes and dtypes of `spec`; a ValueError names the leaf that does not fit."""
    if not tf.nest.is_nested(spec):  # a list of numbers is one leaf here, not a structure
        return _conform_leaf(name, values, spec)
    try:
        tf.nest.assert_same_structure(values, spec, expand_composites=False)
    except (TypeError, ValueError):
        raise checks.invalid(name, f"structured as {_structure(values)}", f"structured as {_structure(spec)}") from None
    return tf.nest.map_structure(lambda leaf, expected: _conform_leaf(name, leaf, expected), values, spec)


def _structure(nest: Nest) -> str:
    return str(tf.nest.map_structure(lambda leaf: tuple(np.shape(leaf)) if not isinstance(leaf, tf.TensorSpec) else tuple(leaf.shape), nest))


def _conform_leaf(name: str, leaf: Any, spec: tf.TensorSpec) -> tf.Tensor:
    if leaf is None:
        raise checks.invalid(name, "None", f"of shape {tuple(spec.shape)}")
    tensor = tf.convert_to_tensor(leaf, dtype=None if tf.is_tensor(leaf) else spec.dtype)
    if tensor.dtype != spec.dtype:
        raise checks.invalid(
            name, f"of dtype {tensor.dtype.name}", f"of dtype {spec.dtype.name}", f"Cast it with tf.cast(..., tf.{spec.dtype.name})."
        )
    if not tensor.shape.is_compatible_with(spec.shape):
        raise checks.invalid(name, f"of shape {tuple(tensor.shape)}", f"of shape {tuple(spec.shape)}")
    return tensor


@final
@dataclass(frozen=True, eq=False)
class Linearization:
    """The derivative J of an operator at one model; keeps the forward state, so that many products are cheap.

    Args:
        model_spec, data_spec: Those of the operator.
        data: F(m), structured as `data_spec`.
        pushforward: Computes J v.
        pullback: Computes the adjoint product J* w.
        curvature: Computes ``sum_k w_k (d2F_k/dm2) v`` from (v, w), for operators that are twice differentiable.
    """

    model_spec: Nest
    data_spec: Nest
    data: Nest = field(repr=False)
    pushforward: Callable[[Nest], Nest] = field(repr=False)
    pullback: Callable[[Nest], Nest] = field(repr=False)
    curvature: Callable[[Nest, Nest], Nest] | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(data, model): the sizes of J over the ravelled leaves (see `ravel`)."""
        return _ravelled_size(self.data_spec), _ravelled_size(self.model_spec)

    def jvp(self, tangent: Nest) -> Nest:
        """J v: the change of the data for a change of the model structured as `model_spec`."""
        return self.pushforward(conform("tangent", tangent, self.model_spec))

    def vjp(self, cotangent: Nest, add_to: Nest | None = None) -> Nest:
        """J* w, added to `add_to` where given; structured as `model_spec`."""
        product = self.pullback(conform("cotangent", cotangent, self.data_spec))
        if add_to is None:
            return product
        return tf.nest.map_structure(tf.add, conform("add_to", add_to, self.model_spec), product)

    def gauss_newton_product(self, tangent: Nest, weights: Nest | None = None) -> Nest:
        """``J* W J v``: what the Hessian of ``1/2 (F - d)* W (F - d)`` makes of v, second derivatives of F left out.

        Args:
            tangent: v, structured as `model_spec`.
            weights: The diagonal of W, structured as `data_spec`, such as 1 / uncertainty^2; ones by default.
        """
        change = self.jvp(tangent)
        if weights is not None:
            change = tf.nest.map_structure(tf.multiply, conform("weights", weights, self.data_spec), change)
        return self.vjp(change)

    def hessian_product(self, tangent: Nest, cotangent: Nest) -> Nest:
        """``sum_k w_k (d2F_k/dm2) v``: the derivative of ``vjp(w)`` with respect to the model, along v."""
        if self.curvature is None:
            raise ValueError("Invalid 'hessian_product': this operator is not twice differentiable (see `twice_differentiable`).")
        return self.curvature(conform("tangent", tangent, self.model_spec), conform("cotangent", cotangent, self.data_spec))

    def to_scipy(self) -> LinearOperator:
        """J as a SciPy LinearOperator over the ravelled leaves; a complex leaf counts as its real parts, then its imaginary parts."""
        return LinearOperator(
            dtype=np.float64,
            shape=self.shape,
            matvec=lambda v: ravel(self.jvp(unravel(v, self.model_spec))),
            rmatvec=lambda w: ravel(self.vjp(unravel(w, self.data_spec))),
        )


class ForwardOperator(abc.ABC):
    """A map from a model to data, ``d = F(m)``, that TensorFlow can differentiate.

    A concrete operator is a final frozen dataclass that provides the members below; `__call__` and the compositions
    ``f @ g`` and ``f + g`` come with them. `forward` and `linearize` are pure functions of the model.
    """

    #: Whether `forward` and the products of `linearize` compile under ``jit_compile=True``.
    xla: bool = True
    #: Whether derivatives of derivatives are exact. Where False, asking for one raises.
    twice_differentiable: bool = True

    @property
    @abc.abstractmethod
    def model_spec(self) -> Nest:
        """Nest of tf.TensorSpec the model must match."""

    @property
    @abc.abstractmethod
    def data_spec(self) -> Nest:
        """Nest of tf.TensorSpec the data will match."""

    @abc.abstractmethod
    def forward(self, model: Nest) -> Nest:
        """The data of a model."""

    @abc.abstractmethod
    def linearize(self, model: Nest) -> Linearization:
        """The derivative at a model, with the data there."""

    @abc.abstractmethod
    def subset(self, units: Any) -> "ForwardOperator":
        """The same physics for some units (stations, shots), given by their indices. Never retraces within a bucket of sizes."""

    def looped(self, model: Nest) -> "Looped | None":
        """The time loop in it, as `sensitivity.plan` chooses a strategy for it; None where there is none to choose."""
        return None

    def __call__(self, model: Nest) -> Nest:
        """The data of a model, differentiable by GradientTape and ForwardAccumulator.

        Args:
            model: Structured as `model_spec`; arrays and lists are converted.

        Raises:
            ValueError: The model does not match `model_spec`.
        """
        model = conform("model", model, self.model_spec)
        # In eager mode, where nobody records, nothing is kept for a derivative: of waves that is nearly all of the memory.
        return Recorded.at(self, model).data() if recording() else self.forward(model)

    def __matmul__(self, inner: "ForwardOperator") -> "Chain":
        return Chain(self, inner)

    def __add__(self, other: "ForwardOperator") -> "Sum":
        return Sum((self, other))


def linear(operator: ForwardOperator, model: Nest, adjoint: Callable[[Nest], Nest]) -> Linearization:
    """The linearization of an operator whose `forward` is linear, with its adjoint."""

    def zero(tangent: Nest, _: Nest) -> Nest:
        return tf.nest.map_structure(tf.zeros_like, tangent)

    return Linearization(operator.model_spec, operator.data_spec, operator.forward(model), operator.forward, adjoint, zero)


@final
@dataclass(frozen=True, eq=False)
class Chain(ForwardOperator):
    """``outer(inner(m))``, written ``outer @ inner``: physics after a model map, for instance."""

    outer: ForwardOperator
    inner: ForwardOperator

    def __post_init__(self) -> None:
        if not _same_spec(self.outer.model_spec, self.inner.data_spec):
            raise checks.invalid(
                "chain", f"of an inner operator that gives {self.inner.data_spec}", f"what the outer one takes, {self.outer.model_spec}"
            )

    @property
    def xla(self) -> bool:  # type: ignore[override]
        return self.outer.xla and self.inner.xla

    @property
    def twice_differentiable(self) -> bool:  # type: ignore[override]
        return self.outer.twice_differentiable and self.inner.twice_differentiable

    @property
    def model_spec(self) -> Nest:
        return self.inner.model_spec

    @property
    def data_spec(self) -> Nest:
        return self.outer.data_spec

    def forward(self, model: Nest) -> Nest:
        return self.outer.forward(self.inner.forward(model))

    def linearize(self, model: Nest) -> Linearization:
        inner = self.inner.linearize(model)
        outer = self.outer.linearize(inner.data)

        def curvature(tangent: Nest, cotangent: Nest) -> Nest:
            # (f o g)'' [v]* w = g''[v]* (f' * w)  +  g'* f''[g' v]* w
            bent = inner.hessian_product(tangent, outer.pullback(cotangent))
            return inner.vjp(outer.hessian_product(inner.pushforward(tangent), cotangent), add_to=bent)

        return Linearization(
            self.model_spec,
            self.data_spec,
            outer.data,
            lambda v: outer.pushforward(inner.pushforward(v)),
            lambda w: inner.pullback(outer.pullback(w)),
            curvature if self.twice_differentiable else None,
        )

    def subset(self, units: Any) -> "Chain":
        return Chain(self.outer.subset(units), self.inner)


@final
@dataclass(frozen=True, eq=False)
class Stack(ForwardOperator):
    """``(F1(m), F2(m), ...)``: several data sets of one model. `subset` takes one index set for each."""

    operators: tuple[ForwardOperator, ...]

    def __post_init__(self) -> None:
        _require_same("stack", "model_spec", self.operators)

    @property
    def xla(self) -> bool:  # type: ignore[override]
        return all(operator.xla for operator in self.operators)

    @property
    def twice_differentiable(self) -> bool:  # type: ignore[override]
        return all(operator.twice_differentiable for operator in self.operators)

    @property
    def model_spec(self) -> Nest:
        return self.operators[0].model_spec

    @property
    def data_spec(self) -> Nest:
        return tuple(operator.data_spec for operator in self.operators)

    def forward(self, model: Nest) -> Nest:
        return tuple(operator.forward(model) for operator in self.operators)

    def linearize(self, model: Nest) -> Linearization:
        parts = [operator.linearize(model) for operator in self.operators]
        return Linearization(
            self.model_spec,
            self.data_spec,
            tuple(part.data for part in parts),
            lambda v: tuple(part.pushforward(v) for part in parts),
            lambda w: _total(part.pullback(leaf) for part, leaf in zip(parts, w, strict=True)),
            (lambda v, w: _total(part.hessian_product(v, leaf) for part, leaf in zip(parts, w, strict=True))) if self.twice_differentiable else None,
        )

    def subset(self, units: Any) -> "Stack":
        return Stack(tuple(operator.subset(some) for operator, some in zip(self.operators, units, strict=True)))


@final
@dataclass(frozen=True, eq=False)
class Sum(ForwardOperator):
    """``F1(m) + F2(m) + ...``, written ``f + g``: a signal and a regional field, for instance."""

    operators: tuple[ForwardOperator, ...]

    def __post_init__(self) -> None:
        _require_same("sum", "model_spec", self.operators)
        _require_same("sum", "data_spec", self.operators)

    @property
    def xla(self) -> bool:  # type: ignore[override]
        return all(operator.xla for operator in self.operators)

    @property
    def twice_differentiable(self) -> bool:  # type: ignore[override]
        return all(operator.twice_differentiable for operator in self.operators)

    @property
    def model_spec(self) -> Nest:
        return self.operators[0].model_spec

    @property
    def data_spec(self) -> Nest:
        return self.operators[0].data_spec

    def forward(self, model: Nest) -> Nest:
        return _total(operator.forward(model) for operator in self.operators)

    def linearize(self, model: Nest) -> Linearization:
        parts = [operator.linearize(model) for operator in self.operators]
        return Linearization(
            self.model_spec,
            self.data_spec,
            _total(part.data for part in parts),
            lambda v: _total(part.pushforward(v) for part in parts),
            lambda w: _total(part.pullback(w) for part in parts),
            (lambda v, w: _total(part.hessian_product(v, w) for part in parts)) if self.twice_differentiable else None,
        )

    def subset(self, units: Any) -> "Sum":
        return Sum(tuple(operator.subset(units) for operator in self.operators))


def ravel(nest: Nest) -> np.ndarray:
    """All leaves as one real NumPy vector; a complex leaf gives its real parts, then its imaginary parts."""
    leaves = [np.ravel(leaf) for leaf in tf.nest.flatten(nest)]
    return np.concatenate([part for leaf in leaves for part in ((leaf.real, leaf.imag) if np.iscomplexobj(leaf) else (leaf,))])


def ravel_weights(weights: Nest, spec: Nest, name: str = "weights") -> np.ndarray:
    """Weights structured as `spec` as one vector that multiplies a ravelled one: those of complex numbers serve both of their parts.

    Raises:
        ValueError: Weights that are negative, not finite or complex.
    """
    given = conform(name, weights, spec)
    for leaf in tf.nest.flatten(given):
        if leaf.dtype.is_complex and np.any(tf.math.imag(leaf)):
            raise checks.invalid(name, "with imaginary parts", "real", "One for both parts of a complex number.")
    found = ravel(tf.nest.map_structure(lambda leaf: leaf * (1 + 1j) if leaf.dtype.is_complex else leaf, given))
    if np.any(checks.finite(name, found) < 0):
        raise checks.invalid(name, f"{found.min():g} at index {found.argmin()}", "zero or more")
    return found


def unravel(vector: np.ndarray, spec: Nest) -> Nest:
    """The inverse of `ravel`: tensors structured as `spec`."""
    leaves, start = [], 0
    for leaf in tf.nest.flatten(spec):
        size = leaf.shape.num_elements()
        part = vector[start : start + size]
        if leaf.dtype.is_complex:
            part = part + 1j * vector[start + size : start + 2 * size]
        start += _ravelled_size(leaf)
        leaves.append(tf.constant(np.reshape(part, leaf.shape), leaf.dtype))
    return tf.nest.pack_sequence_as(spec, leaves)


def _ravelled_size(spec: Nest) -> int:
    return sum(leaf.shape.num_elements() * (2 if leaf.dtype.is_complex else 1) for leaf in tf.nest.flatten(spec))


def _total(nests: Any) -> Nest:
    first, *rest = nests
    return tf.nest.map_structure(lambda *leaves: tf.add_n(leaves), first, *rest)


def _same_spec(first: Nest, second: Nest) -> bool:
    try:
        same = tf.nest.map_structure(lambda a, b: a.dtype == b.dtype and a.shape == b.shape, first, second)
    except (TypeError, ValueError):  # differently nested
        return False
    return all(tf.nest.flatten(same))


def _require_same(name: str, attribute: str, operators: tuple[ForwardOperator, ...]) -> None:
    specs = [getattr(operator, attribute) for operator in operators]
    for spec in specs[1:]:
        if not _same_spec(specs[0], spec):
            raise checks.invalid(name, f"of operators with {attribute} {specs[0]} and {spec}", f"of operators with one {attribute}")
