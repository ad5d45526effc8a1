"""A function of tensors, looked at as a graph: what it reads from outside of itself, and where it leaves TensorFlow."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import tensorflow as tf

from .. import checks

Nest = Any  # a tensor, or a tuple / dict / nest of tensors

#: Operations that call Python: no derivative passes through `tf.numpy_function`, and none in forward mode through `tf.py_function`.
CALLBACKS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


def floating(leaf: Any) -> bool:
    """Whether a tensor, variable or spec carries a derivative."""
    return bool(leaf.dtype.is_floating or leaf.dtype.is_complex)


@final
@dataclass(frozen=True, eq=False)
class Traced:
    """A function whose graph has been looked at.

    Args:
        function: From and to nests of tensors.
        spec: Of its argument, a nest of tf.TensorSpec.
        data_spec: Of its result.
        outside: Tensors and variables with derivatives that it reads and that are not in its argument.
        scoped: Those tensors that belong to a graph, whether with derivatives or not.
    """

    function: Callable[[Nest], Nest]
    spec: Nest
    data_spec: Nest
    outside: tuple[Any, ...]
    scoped: tuple[tf.Tensor, ...]

    @classmethod
    def of(cls, name: str, function: Callable[[Nest], Nest], argument: Nest) -> "Traced":
        """That of a function at an argument, tensors or specs.

        Raises:
            ValueError: It leaves TensorFlow: NumPy on a tensor, or a call of Python on the way from its argument to its result.
        """
        spec = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), argument)
        try:
            graph = tf.function(function, autograph=False).get_concrete_function(spec)
        except (NotImplementedError, AttributeError, tf.errors.OperatorNotAllowedInGraphError, TypeError) as error:
            says = str(error).strip().splitlines()[0].split(". ")[0]
            raise checks.invalid(name, "that cannot be traced", "made of TensorFlow operations", f"TensorFlow says: {says}.") from error
        if (where := callback(graph)) is not None:
            advice = "No derivative passes through it: write it in TensorFlow, or give it as a ForwardOperator with its own."
            raise checks.invalid(name, f"that calls Python {where}", "made of TensorFlow operations", advice)
        variables = [variable for variable in graph.variables if floating(variable)]
        tensors = [tensor for tensor in graph.captured_inputs if floating(tensor)]
        scoped = [tensor for tensor in graph.captured_inputs if tf.is_symbolic_tensor(tensor)]
        results = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), graph.structured_outputs)
        return cls(function, spec, results, (*tensors, *variables), tuple(scoped))


def callback(graph: Any) -> str | None:
    """Where a concrete function calls Python between an input and an output that carry derivatives, as a line for a person."""
    ahead = _reached(
        (op for tensor in graph.inputs for op in tensor.consumers()), lambda op: (each for out in op.outputs for each in out.consumers())
    )
    behind = _reached((tensor.op for tensor in graph.outputs if floating(tensor)), lambda op: (tensor.op for tensor in op.inputs))
    inner = {definition.signature.name: {node.op for node in definition.node_def} for definition in graph.graph.as_graph_def().library.function}
    for op in graph.graph.get_operations():
        if op in ahead and op in behind and any(floating(tensor) for tensor in op.inputs):
            called = {op.type} | {kind for name in _functions(op, inner) for kind in inner[name]}
            if called & set(CALLBACKS):
                return _place(op)
    return None


def _reached(first: Iterable[tf.Operation], following: Callable[[tf.Operation], Iterable[tf.Operation]]) -> set[tf.Operation]:
    found, rest = set(), list(first)
    while rest:
        op = rest.pop()
        if op not in found:
            found.add(op)
            rest.extend(following(op))
    return found


def _functions(op: tf.Operation, library: dict[str, set[str]]) -> Sequence[str]:
    """Names of the library's functions that an operation calls, such as the body of a loop."""
    values = (value for attribute in op.node_def.attr.values() for value in (attribute.func, *attribute.list.func))
    return [value.name for value in values if value.name in library]


def _place(op: tf.Operation) -> str:
    """The line of the user's code that made an operation."""
    own = str(Path(tf.__file__).parent)
    frames = [frame for frame in op.traceback if not frame.filename.startswith(own)]
    return f"(operation '{op.name}', {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else f"(operation '{op.name}')"
