"""A function of tensors, looked at as a graph: what it reads from outside of itself, where it leaves TensorFlow, and where it is not pure."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import tensorflow as tf

from .. import checks

Nest = Any  # a tensor, or a tuple / dict / nest of tensors
Library = dict[str, Any]  # the functions of a stored graph, by their names

#: Operations that call Python: no derivative passes through `tf.numpy_function`, and none in forward mode through `tf.py_function`.
CALLBACKS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
#: Operations that no derivative passes, and that say so.
STOPS = ("StopGradient", "PreventGradient")
#: Operations that change what they are given: variables, the state of a random generator, tables, an iterator over data.
CHANGES = re.compile(
    r"Assign|Resource(Sparse)?Apply|ResourceScatter|ResourceStridedSliceAssign|Rng|Stateful(?!PartitionedCall)|Iterator|LookupTable(Insert|Import|Remove)"
)
#: What is not the user's code: TensorFlow, what is installed beside it, and these operators.
LIBRARIES = [Path(tf.__file__).resolve().parents[1], Path(checks.__file__).resolve().parent]


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
        variables: All that it reads.
        outside: Tensors and variables with derivatives that it reads and that are not in its argument.
        scoped: All tensors that it reads and that are not in its argument, variables as their handles.
    """

    function: Callable[[Nest], Nest]
    spec: Nest
    data_spec: Nest
    variables: tuple[tf.Variable, ...]
    outside: tuple[Any, ...]
    scoped: tuple[tf.Tensor, ...]

    @classmethod
    def of(cls, name: str, function: Callable[[Nest], Nest], argument: Nest) -> "Traced":
        """That of a function at an argument, tensors or specs.

        Raises:
            ValueError: It leaves TensorFlow: NumPy on a tensor, or a call of Python on the way from its argument to its result; or it is not
                pure: it draws random numbers, or changes a variable.
        """
        spec = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), argument)
        try:
            graph = tf.function(function, autograph=False).get_concrete_function(spec)
        except (NotImplementedError, AttributeError, TypeError) as error:
            if "symbolic" not in str(error).lower():  # an error of the function's own
                raise
            says = str(error).strip().splitlines()[0].split(". ")[0]
            raise checks.invalid(name, "that cannot be traced", "made of TensorFlow operations", f"TensorFlow says: {says}.") from error
        refuse_impure(name, graph)
        variables = [variable for variable in graph.variables if floating(variable)]
        tensors = [tensor for tensor in graph.captured_inputs if floating(tensor)]
        results = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), graph.structured_outputs)
        return cls(function, spec, results, tuple(graph.variables), (*tensors, *variables), tuple(graph.captured_inputs))


def refuse_impure(name: str, graph: Any) -> None:
    """Refuse a concrete function that calls Python on the way to its result, or that does not do the same each time it is run."""
    definition = graph.graph.as_graph_def()
    library = {function.signature.name: function for function in definition.library.function}
    inputs, outputs = ({each.op.name for each in some if _carries(each.dtype.as_datatype_enum)} for some in (graph.inputs, graph.outputs))
    found = {
        _draws: ("that draws random numbers", "the same each time it is run", "Use tf.random.stateless_normal and the like, seeds in the state."),
        _assigns: ("that changes a variable or a generator", "the same each time it is run", "Make what it changes a part of the state."),
    }
    for refused, (given, expected, advice) in found.items():
        for node in definition.node:
            if any(refused(each) for each in _nodes_within(node, library)):
                raise checks.invalid(name, f"{given} {_place(graph.graph, node.name)}", expected, advice)
    if (node := _callback(definition.node, inputs, outputs, library)) is not None:
        advice = "No derivative passes through it: write it in TensorFlow, or give it as a ForwardOperator with its own."
        raise checks.invalid(name, f"that calls Python {_place(graph.graph, node.name)}", "made of TensorFlow operations", advice)


def _draws(node: Any) -> bool:
    """Stateless operations take their seed as an input, others as an attribute (cuDNN's recurrent layers too, for their dropout)."""
    return "seed2" in node.attr and not ("dropout" in node.attr and node.attr["dropout"].f == 0)


def _assigns(node: Any) -> bool:
    return CHANGES.match(node.op) is not None


def _nodes_within(node: Any, library: Library) -> Iterator[Any]:
    """An operation, and those of the functions that it calls, such as the body of a loop."""
    yield node
    for function in _functions(node, library):
        for inner in function.node_def:
            yield from _nodes_within(inner, library)


def _callback(nodes: Sequence[Any], inputs: set[str], outputs: set[str], library: Library) -> Any:
    """The first operation that calls Python between inputs and outputs that carry derivatives, itself or in a function that it calls.

    What `autodiff.differentiable` is given reads stopped inputs, and has its own derivatives: host calls in there are no matter.
    """
    named = {node.name: node for node in nodes}
    before = {node.name: [_source(each) for each in node.input if not each.startswith("^")] for node in nodes}
    after: dict[str, list[str]] = {}
    for node in nodes:
        for each in before[node.name]:
            after.setdefault(each, []).append(node.name)
    ahead = _reached(inputs, lambda each: () if each in named and named[each].op in STOPS else after.get(each, ()))
    behind = _reached(outputs, lambda each: before.get(each, ()))
    for node in nodes:
        if node.name in ahead & behind and (_calls(node) or any(_callback_in(function, library) for function in _functions(node, library))):
            return node
    return None


def _callback_in(function: Any, library: Library) -> bool:
    inputs = {each.name for each in function.signature.input_arg if _carries(each.type)}
    outputs = {_source(function.ret[each.name]) for each in function.signature.output_arg if _carries(each.type)}
    return _callback(function.node_def, inputs, outputs, library) is not None


def _calls(node: Any) -> bool:
    """Whether an operation calls Python with numbers that carry derivatives, for others."""
    return node.op in CALLBACKS and all(any(map(_carries, node.attr[key].list.type)) for key in ("Tin", "Tout"))


def _carries(number: int) -> bool:
    """Whether a type of a stored graph may carry a derivative: that of numbers, of a variable, or of a list of tensors (a variant)."""
    dtype = tf.as_dtype(number)
    return bool(dtype.is_floating or dtype.is_complex or dtype in (tf.resource, tf.variant))


def _source(reference: str) -> str:
    """The operation that a stored graph's reference to one of its results names."""
    return reference.split(":")[0]


def _reached(first: Iterable[str], following: Callable[[str], Iterable[str]]) -> set[str]:
    found, rest = set(), list(first)
    while rest:
        name = rest.pop()
        if name not in found:
            found.add(name)
            rest.extend(following(name))
    return found


def _functions(node: Any, library: Library) -> list[Any]:
    """Those that an operation calls, such as the body of a loop."""
    values = (value for attribute in node.attr.values() for value in (attribute.func, *attribute.list.func))
    return [library[value.name] for value in values if value.name in library]


def _place(graph: tf.Graph, name: str) -> str:
    """The line of the user's code that made an operation."""
    frames = [frame for frame in graph.get_operation_by_name(name).traceback if not _ours(frame.filename)]
    return f"(operation '{name}', {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else f"(operation '{name}')"


def _ours(file: str) -> bool:
    return any(Path(file).resolve().is_relative_to(folder) for folder in LIBRARIES)
