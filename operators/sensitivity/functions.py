"""Any differentiable TensorFlow function as a linearization, like an operator's."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .. import checks
from ..autodiff import apart, in_graph, pulled, pushed, standing_in
from ..forward import Linearization, Nest
from ..graphs import compiled, guarded, traced
from .binding import bound
from .tracing import Traced, floating

_READ = "Read it before, value = tf.identity(variable), and use the value in the function."


@tf.autograph.experimental.do_not_convert
def linearization(function: Callable[[Nest], Nest], model: Nest, *, jit_compile: bool = False) -> Linearization:
    """The derivative J of a function at a model: products with J, its adjoint, and second derivatives.

    Each product runs the function again, with its derivative, in one graph: nothing is kept between products but the model.

    Args:
        function: From a model to data, in TensorFlow; projects' operators, Keras layers and loops may be part of it. Variables that it
            reads count with their values now; a graph that assigns them before a product says so.
        model: A tensor, or a nest of tensors, floating or complex, at which it is linearized.
        jit_compile: Compile the products with XLA.

    Returns:
        Products with second derivatives raise where the function holds an operator that is not twice differentiable.

    Raises:
        ValueError: The function calls NumPy or Python on the way from model to data, draws random numbers or assigns variables (the line is
            named), or model or data have no derivative. Of a product: something else that the function reads has changed since.
    """
    model = tf.nest.map_structure(tf.convert_to_tensor, model)
    seen = apart(lambda: Traced.of("function", bound(function), model))
    _check("model", seen.spec)

    def values(leaves: list[tf.Tensor]) -> list[tf.Tensor]:
        data = seen.function(tf.nest.pack_sequence_as(seen.spec, leaves))
        return [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(data)]

    def push(leaves: list[tf.Tensor], v: list[tf.Tensor]) -> list[tf.Tensor]:
        return pushed(lambda: values(leaves), leaves, v)[1]

    def pull(leaves: list[tf.Tensor], w: list[tf.Tensor]) -> list[tf.Tensor]:
        return pulled(lambda: values(leaves), leaves, w)

    def bend(leaves: list[tf.Tensor], v: list[tf.Tensor], w: list[tf.Tensor]) -> list[tf.Tensor]:
        return pushed(lambda: pull(leaves, w), leaves, v)[1]

    at, held = tf.nest.flatten(model), _held(seen)
    run, *products = (_graph(body, seen, held, jit_compile) for body in (values, push, pull, bend))
    data = tf.nest.pack_sequence_as(seen.data_spec, run(at))
    data_spec = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), data)
    _check("data", data_spec)

    def packed(product: Callable[..., Any], spec: Nest) -> Callable[..., Nest]:
        return lambda *given: tf.nest.pack_sequence_as(spec, product(at, *map(tf.nest.flatten, given)))

    return Linearization(seen.spec, data_spec, data, *map(packed, products, (data_spec, seen.spec, seen.spec)))


def _check(name: str, spec: Nest) -> None:
    for leaf in tf.nest.flatten(spec):
        if not floating(leaf):
            raise checks.invalid(name, f"with a leaf of dtype {leaf.dtype.name}", "of floating or complex leaves", "Close the function over others.")
        if not leaf.shape.is_fully_defined():
            raise checks.invalid(name, f"with a leaf of shape {leaf.shape}", "of shapes known when it is traced", "Set them with tf.ensure_shape.")


def _held(seen: Traced) -> list[tf.Variable]:
    """Variables with the values that those which a function reads have now; none in graphs, where none can be made."""
    return [tf.Variable(each, trainable=False) for each in seen.variables] if tf.executing_eagerly() else []


def _graph(body: Callable[..., Any], seen: Traced, held: list[tf.Variable], jit_compile: bool) -> Callable[..., Any]:
    """What a body gives with the function as it was, and with variables as they were."""
    handles = {id(each.handle): other.handle for each, other in zip(seen.variables if held else (), held, strict=True)}
    scoped = [handles.get(id(each), each) for each in seen.scoped]
    start = [] if held else [(each, in_graph(tf.convert_to_tensor(each))) for each in seen.variables]

    def inner(scoped: list[tf.Tensor], *given: Any) -> Any:
        seen.check_same()
        with standing_in(seen.scoped, scoped):
            return body(*given)

    graph = (compiled if jit_compile else traced)(inner)
    return lambda *given: _unless_assigned(graph(scoped, *given), start)


def _unless_assigned(values: list[tf.Tensor], start: list[tuple[tf.Variable, tf.Tensor]]) -> list[tf.Tensor]:
    """The values, with an error if variables are no longer what they were."""
    for each, then in start:
        now = tf.convert_to_tensor(each)
        same, expected = tf.reduce_all((then == now) | ((then != then) & (now != now))), "of unchanged ones"
        error = checks.invalid("function", f"reading the variable '{each.name}', which is assigned before the product", expected, _READ)
        values = [guarded(value, same, str(error)) for value in values]
    return values
