"""Explicit derivatives given to TensorFlow: the only place where this project meets its automatic differentiation.

Tapes and accumulators never look inside a function given to `differentiable`: they see its value and the two rules, pullback
and pushforward. Rules are made of such functions again, so that derivatives of derivatives follow the rules too.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import tensorflow as tf
from tensorflow.python.eager import record  # no public name; tests/test_forward.py says at once if it moves
from tensorflow.python.ops import control_flow_v2_func_graphs as branches  # nor this
from tensorflow.python.ops import handle_data_util as handles  # nor this

if TYPE_CHECKING:
    from .forward import ForwardOperator, Linearization

#: Of the records of functions with rules of their own.
NAME = "Differentiable"
Nest = Any  # a tensor, or a tuple / dict / nest of tensors


def differentiable(
    function: Callable[..., Any], pullback: Callable[..., Any], pushforward: Callable[..., Any], *inputs: tf.Tensor
) -> list[tf.Tensor]:  # fmt: skip
    """``function(*inputs)``, a list of tensors, whose derivatives are the ones given here, in eager, tf.function and XLA alike.

    `tf.custom_gradient` alone is not enough: under tf.function a ForwardAccumulator looks inside it, at the plain operations.
    So the function sees stopped inputs, and one record with both rules is made for tapes and accumulators; the custom
    gradient serves the symbolic gradient of a whole tf.function, which does not see records.

    Args:
        function: The primal; never differentiated itself.
        pullback: (inputs, results, cotangents) to one cotangent for each input; itself made of differentiable functions. A function
            in the place of a cotangent (see `postponed`) is called only if a tape watches that input by now, or if nobody can say.
        pushforward: (inputs, results, tangents) to the tangents of the results; itself made of differentiable functions.
        inputs: Float or complex tensors.
    """
    inputs = tuple(tf.convert_to_tensor(part) for part in inputs)

    def back(at: Sequence[tf.Tensor], cotangents: Sequence[Any], wanted: Sequence[bool]) -> list[Any]:
        # What a user gathers from a result comes back as IndexedSlices.
        found = pullback(at, outputs, [tf.convert_to_tensor(part) for part in cotangents])
        return [part if not callable(part) else part() if want else None for part, want in zip(found, wanted, strict=True)]

    if not recording():
        return list(function(*inputs))  # nobody asks for a derivative: the records below would cost more than a small product
    if not tf.executing_eagerly():
        # Tensors of this graph: a tape may be recording in the backward graph of another one, whose tensors arrive uncaptured.
        inputs = tuple(map(tf.identity, inputs))
    # Recording goes on inside: the function may well use a tape of its own.
    values = tuple(function(*map(tf.stop_gradient, inputs)))

    @tf.custom_gradient
    def evaluate(*inputs: tf.Tensor) -> tuple[Any, Any]:
        # This rule serves a graph that asks for all cotangents: which of them matter, TensorFlow does not say.
        return values, lambda *cotangents: tuple(back(inputs, cotangents, [True] * len(inputs)))

    watched = [record.should_record_backprop([part]) for part in inputs]

    def rule(*cotangents: Any) -> list[Any]:
        return back(inputs, cotangents, watched)

    def forward(*tangents: Any) -> list[Any]:
        # TensorFlow runs this before its tapes know the results, and would lose what the tangents' own derivatives owe to them.
        record.record_operation_backprop_only(NAME, outputs, list(inputs), rule)
        return list(pushforward(inputs, outputs, tangents))

    with record.stop_recording():
        outputs = list(evaluate(*inputs))
    record.record_operation(NAME, outputs, list(inputs), rule, forward)
    return outputs


def pulled(function: Callable[[], Sequence[tf.Tensor]], at: Sequence[Any], w: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The gradient of ``<w, function()>`` with respect to tensors and variables that the function reads; zero where it does not."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for each in at:
            tape.watch(each)
        values = function()
    found = tape.gradient(values, list(at), output_gradients=list(w), unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [tf.convert_to_tensor(part) for part in found]  # what is gathered comes back as slices


def pushed(function: Callable[[], Sequence[tf.Tensor]], at: Sequence[Any], v: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """``function()``, and its change when the tensors and variables that it reads change by v: the gradient, linear in w, differentiated by w.

    Not by TensorFlow's accumulator: under a tape or in a graph it looks inside of `tf.custom_gradient`, and two of them give wrong numbers
    (2.21). Tapes nest to any depth, keep to the rules they are given, and graphs drop what is not needed of the way back. The outer tape
    watches w alone, so that no second derivatives are asked for.
    """
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            for each in at:
                inner.watch(each)
            values = list(function())
        w = [tf.zeros_like(value) for value in values]
        for each in w:
            outer.watch(each)
        back = inner.gradient(values, list(at), output_gradients=w, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        back = [tf.convert_to_tensor(part) for part in back]
    # `here`: the gradient of a branch takes no tensor from a graph further out than the next one.
    found = outer.gradient(back, w, output_gradients=here(list(v)), unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return values, [tf.convert_to_tensor(part) for part in found]  # of segment sums come slices


def postponed(cotangents: Callable[[], Sequence[tf.Tensor]], count: int) -> list[Callable[[], tf.Tensor]]:
    """So many cotangents of a pullback, all computed when the first one is asked for: they cost much, or are refused."""
    found = functools.cache(cotangents)
    return [functools.partial(lambda i: found()[i], i) for i in range(count)]


def recording() -> bool:
    """Whether a derivative of what is computed now may be asked for: a tape or an accumulator is there, or a graph is built."""
    return not tf.executing_eagerly() or record.could_possibly_record()


def apart(function: Callable[[], Any]) -> Any:
    """``function()`` in a thread of its own, where no tape and no accumulator records but those that it makes itself.

    `record.stop_recording` would stop these too; without it, accumulators follow the function into graphs that they cannot follow.
    """
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def inside() -> Any:
        with graph.as_default() if graph else nullcontext():
            return function()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(inside).result()


def in_graph(nest: Nest) -> Nest:
    """Eager tensors as the graph that is being built may use them, also in the gradient of a loop or a branch.

    The body of such a gradient does not take an eager tensor (TensorFlow's while_v2 loses it); it takes one of the function around
    it, into which the tensor comes as an input.
    """
    if tf.executing_eagerly():
        return nest
    graph = tf.compat.v1.get_default_graph()
    while isinstance(graph, (branches.CondBranchFuncGraph, branches.WhileBodyFuncGraph, branches.WhileCondFuncGraph)):
        graph = graph.outer_graph
    with graph.as_default():  # a small tensor becomes a constant of it
        return tf.nest.map_structure(lambda leaf: graph.capture(leaf) if tf.is_tensor(leaf) and not tf.is_symbolic_tensor(leaf) else leaf, nest)


def here(nest: Nest) -> Nest:
    """Tensors as those of the graph that is being built: rules that run in the gradient of its gradient find them in scope."""
    return nest if tf.executing_eagerly() else tf.nest.map_structure(tf.identity, nest)


@contextmanager
def standing_in(outer: Sequence[tf.Tensor], inner: Sequence[tf.Tensor]) -> Iterator[None]:
    """While it lasts a function that reads the outer tensors gets the inner ones instead, which belong to the function's graph."""
    graph = tf.compat.v1.get_default_graph()
    for each, value in zip(outer, inner, strict=True):
        if each.dtype == tf.resource:
            handles.copy_handle_data(each, value)  # the shape of what a variable holds
        graph.replace_capture(each, value)
    try:
        yield
    finally:
        for each in outer:  # or they would be inputs of the graph a second time
            graph._function_captures.pop(id(each))


def ensure_shape(tensor: tf.Tensor, shape: Sequence[int | None]) -> tf.Tensor:
    """The tensor with a static shape, checked when it runs where it is not known before; derivatives pass in every mode."""
    if tensor.shape.is_fully_defined() and tensor.shape.is_compatible_with(shape):
        return tensor
    return differentiable(lambda x: [tf.ensure_shape(x, shape)], lambda _, __, g: g, lambda _, __, d: d, tensor)[0]


@final
@dataclass(frozen=True, eq=False)
class Recorded:
    """An operator at one model as TensorFlow differentiates it: F(m), J v, J* w and their derivatives, written with one another.

    With C(v, w) = `hessian_product`: the cotangent u of J v goes to (C(v, u), J* u) for (m, v), that of J* w to (C(u, w), J u)
    for (m, w), where C is computed only if a tape watches m; that of C(v, w) to C(u, w) for v. What is not known, F''(v, v') in the
    data and third derivatives, raises; it is never a silent zero.
    """

    operator: "ForwardOperator"
    model: tuple[tf.Tensor, ...]
    derivative: "Linearization"

    @classmethod
    def at(cls, operator: "ForwardOperator", model: Nest) -> "Recorded":
        # All derivatives are explicit: nothing inside the physics is kept for them.
        stopped = tf.nest.map_structure(tf.stop_gradient, model)
        return cls(operator, tuple(tf.nest.flatten(model)), operator.linearize(stopped))

    def data(self) -> Nest:
        outputs = differentiable(
            lambda *_: tf.nest.flatten(self.derivative.data),
            lambda at, _, cotangents: self._adjoint(at, cotangents),
            lambda at, _, tangents: self._tangent(at, tangents),
            *self.model,
        )
        return tf.nest.pack_sequence_as(self.operator.data_spec, outputs)

    def _tangent(self, model: Sequence[tf.Tensor], v: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        n = len(model)
        return differentiable(
            lambda *at: tf.nest.flatten(self.derivative.pushforward(self._model(at[n:]))),
            lambda at, _, u: [*postponed(lambda: self._bend(at[:n], at[n:], u), n), *self._adjoint(at[:n], u)],
            _refuse,
            *model, *v,
        )  # fmt: skip

    def _adjoint(self, model: Sequence[tf.Tensor], w: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        n = len(model)
        return differentiable(
            lambda *at: tf.nest.flatten(self.derivative.pullback(self._data(at[n:]))),
            lambda at, _, u: [*postponed(lambda: self._bend(at[:n], u, at[n:]), n), *self._tangent(at[:n], u)],
            lambda at, _, d: [
                a + b for a, b in zip(self._bend(at[:n], d[:n], at[n:]), self._adjoint(at[:n], d[n:]), strict=True)
            ],
            *model, *w,
        )  # fmt: skip

    def _bend(self, model: Sequence[tf.Tensor], v: Sequence[tf.Tensor], w: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        n = len(model)
        if not self.operator.twice_differentiable:
            _refuse()
        return differentiable(
            lambda *at: tf.nest.flatten(self.derivative.hessian_product(self._model(at[n : 2 * n]), self._data(at[2 * n :]))),
            # Symmetric in v.
            lambda at, _, u: [*postponed(_refuse, n), *self._bend(at[:n], u, at[2 * n :]), *postponed(_refuse, len(at) - 2 * n)],
            _refuse,
            *model, *v, *w,
        )  # fmt: skip

    def _model(self, leaves: Sequence[tf.Tensor]) -> Nest:
        return tf.nest.pack_sequence_as(self.operator.model_spec, leaves)

    def _data(self, leaves: Sequence[tf.Tensor]) -> Nest:
        return tf.nest.pack_sequence_as(self.operator.data_spec, leaves)


def _refuse(*_: Any) -> Any:
    raise ValueError(
        "Invalid derivative of a derivative: this operator is not twice differentiable (see `twice_differentiable`), "
        "or a second derivative in the data or a third one was asked for."
    )
