"""Any differentiable TensorFlow function as a linearization, like an operator's."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .. import checks
from ..autodiff import apart, pulled, pushed
from ..forward import Linearization, Nest
from ..graphs import compiled, traced
from .tracing import Traced, floating


def linearization(function: Callable[[Nest], Nest], model: Nest, *, jit_compile: bool = False) -> Linearization:
    """The derivative J of a function at a model: products with J, its adjoint, and second derivatives.

    Each product runs the function again, with its derivative, in one graph: nothing is kept between products but the model.

    Args:
        function: From a model to data, in TensorFlow; projects' operators, Keras layers and loops may be part of it.
        model: A tensor, or a nest of tensors, floating or complex, at which it is linearized.
        jit_compile: Compile the products with XLA.

    Returns:
        Products with second derivatives raise where the function holds an operator that is not twice differentiable.

    Raises:
        ValueError: The function calls NumPy or Python on the way from model to data, draws random numbers or assigns variables (the line is
            named), or model or data have no derivative.
    """
    model = tf.nest.map_structure(tf.convert_to_tensor, model)
    seen = apart(lambda: Traced.of("function", function, model))
    for name, spec in (("model", seen.spec), ("data", seen.data_spec)):
        for leaf in tf.nest.flatten(spec):
            if not floating(leaf):
                raise checks.invalid(
                    name, f"with a leaf of dtype {leaf.dtype.name}", "of floating or complex leaves", "Close the function over others."
                )

    def values(leaves: list[tf.Tensor]) -> list[tf.Tensor]:
        return tf.nest.flatten(function(tf.nest.pack_sequence_as(seen.spec, leaves)))

    def push(leaves: list[tf.Tensor], v: list[tf.Tensor]) -> list[tf.Tensor]:
        return pushed(lambda: values(leaves), leaves, v)[1]

    def pull(leaves: list[tf.Tensor], w: list[tf.Tensor]) -> list[tf.Tensor]:
        return pulled(lambda: values(leaves), leaves, w)

    def bend(leaves: list[tf.Tensor], v: list[tf.Tensor], w: list[tf.Tensor]) -> list[tf.Tensor]:
        return pushed(lambda: pull(leaves, w), leaves, v)[1]

    graph = compiled if jit_compile else traced
    at, run, push_graph, pull_graph, bend_graph = tf.nest.flatten(model), graph(values), graph(push), graph(pull), graph(bend)

    def product(of: Any, spec: Nest) -> Callable[..., Nest]:
        return lambda *given: tf.nest.pack_sequence_as(spec, of(at, *map(tf.nest.flatten, given)))

    return Linearization(
        seen.spec,
        seen.data_spec,
        tf.nest.pack_sequence_as(seen.data_spec, run(at)),
        product(push_graph, seen.data_spec),
        product(pull_graph, seen.spec),
        product(bend_graph, seen.spec),
    )
