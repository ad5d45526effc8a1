"""A function of tensors, looked at as a graph: what it reads from outside of itself, where it leaves TensorFlow, and where it is not pure."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import tensorflow as tf

from .. import checks
from ..autodiff import apart
from .binding import Library, likeness, ours

Nest = Any  # a tensor, or a tuple / dict / nest of tensors

#: Operations that call Python: no derivative passes through `tf.numpy_function`, and none in forward mode through `tf.py_function`.
CALLBACKS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
#: Operations that no derivative passes, and that say so.
STOPS = ("StopGradient", "PreventGradient")
#: Operations that change what they are given: variables, the state of a random generator, tables, an iterator over data.
CHANGES = re.compile(
    r"Assign|Resource(Sparse)?Apply|ResourceScatter|ResourceStridedSliceAssign|Rng|Stateful(?!PartitionedCall)|Iterator|LookupTable(Insert|Import|Remove)"
)


def floating(leaf: Any) -> bool:
    """Whether a tensor, variable or spec carries a derivative."""
    return bool(leaf.dtype.is_floating or leaf.dtype.is_complex)


def floats(leaves: Sequence[Any]) -> list[Any]:
    """Those that carry a derivative."""
    return [leaf for leaf in leaves if floating(leaf)]


def rounding(leaf: Any) -> float:
    """The relative distance of numbers of a leaf's precision."""
    real = leaf.dtype.real_dtype
    return 2.0**-7 if real == tf.bfloat16 else float(np.finfo(real.as_numpy_dtype).eps)


@final
@dataclass(frozen=True, eq=False)
class Traced:
    """A function whose graph has been looked at.

    Args:
        name: Of the argument that it was given as.
        function: From and to nests of tensors.
        spec: Of its argument, a nest of tf.TensorSpec.
        data_spec: Of its result.
        variables: All that it reads.
        outside: Tensors and variables with derivatives that it reads and that are not in its argument.
        scoped: All tensors that it reads and that are not in its argument, variables as their handles.
        likeness: Of its graph.
    """

    name: str
    function: Callable[[Nest], Nest]
    spec: Nest
    data_spec: Nest
    variables: tuple[tf.Variable, ...]
    outside: tuple[Any, ...]
    scoped: tuple[tf.Tensor, ...]
    likeness: bytes

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
        definition = graph.graph.as_graph_def()
        library = {each.signature.name: each for each in definition.library.function}
        refuse_impure(name, graph, definition, library)
        variables = [variable for variable in graph.variables if floating(variable)]
        tensors = [tensor for tensor in graph.captured_inputs if floating(tensor)]
        if any(not tf.is_tensor(leaf) for leaf in tf.nest.flatten(graph.structured_outputs)):
            raise checks.invalid(name, "that gives None", "from tensors to tensors", "Does it lack a return?")
        results = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), graph.structured_outputs)
        scoped, like = tuple(graph.captured_inputs), likeness(definition, library)
        return cls(name, function, spec, results, tuple(graph.variables), (*tensors, *variables), scoped, like)

    def check_same(self) -> None:
        """Raise if the function is another one by now: its derivatives, which call it again, would be none of its own.

        Raises:
            ValueError: It does something else than when it was traced, or reads other tensors.
        """
        now = apart(lambda: Traced.of(self.name, self.function, self.spec))
        alike = len(now.read) == len(self.read) and all(map(_same, now.read, self.read))
        if now.likeness != self.likeness or not alike or (self.placed and now.placed and now.placed != self.placed):
            given = "that has changed before its derivative was taken"
            advice = "An attribute, a list or an array that it reads was changed: read it before, value = holder.value, and use value."
            raise checks.invalid(self.name, given, "the same each time it is run", advice)

    @property
    def read(self) -> tuple[Any, ...]:
        """What it reads, variables as such: their handles may be other objects in other graphs. TensorFlow lists them in any order."""
        return (*sorted(self.variables, key=id), *(each for each in self.scoped if each.dtype != tf.resource))

    @property
    def placed(self) -> list[int]:
        """Which variable is read where; nothing of one that was traced within a graph, which has its own handles."""
        handles = [id(each) for each in self.scoped if each.dtype == tf.resource]
        return handles if {id(each.handle) for each in self.variables} == set(handles) else []


def _same(one: Any, other: Any) -> bool:
    """Whether two things that a function reads are one, or constants that it makes each time."""
    eager = isinstance(one, tf.Tensor) and not (tf.is_symbolic_tensor(one) or tf.is_symbolic_tensor(other))
    return one is other or (eager and one.dtype == other.dtype and one.shape == other.shape and _bytes(one) == _bytes(other))


def _bytes(tensor: tf.Tensor) -> bytes:
    """What a tensor holds, numbers that are none and all."""
    return np.asarray(tensor).tobytes()


def refuse_impure(name: str, graph: Any, definition: Any, library: Library) -> None:
    """Refuse a concrete function that calls Python on the way to its result, or that does not do the same each time it is run."""
    inputs, outputs = ({each.name for each in some if _carries(each.dtype.as_datatype_enum)} for some in (graph.inputs, graph.outputs))
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

    What `autodiff.differentiable` is given reads stopped inputs, and has its own derivatives: host calls in there are no matter. Nor
    are they in `tf.custom_gradient`, whose rule stands for all between its arguments and its results.
    """
    named = {node.name: node for node in nodes}
    before = {node.name: [_source(each) for each in node.input if not each.startswith("^")] for node in nodes}
    for name, count in _ruled(nodes, outputs).items():
        before[name] = before[name][count:]
    after: dict[str, list[str]] = {}
    for node in nodes:
        for each in before[node.name]:
            after.setdefault(each, []).append(node.name)
    ahead = _reached(map(_source, inputs), lambda each: () if each in named and named[each].op in STOPS else after.get(each, ()))
    behind = _reached(map(_source, outputs), lambda each: before.get(each, ()))
    for node in nodes:
        if node.name in ahead & behind and (_calls(node) or any(_callback_in(function, library) for function in _functions(node, library))):
            return node
    return None


def _ruled(nodes: Sequence[Any], outputs: set[str]) -> dict[str, int]:
    """The operations that hold a rule of the user's, by name, and how many of their inputs are its results; arguments follow these.

    Both go through the operation, and derivatives pass to the arguments alone. What comes out is used of the results only.
    """
    found = {node.name: 0 for node in nodes if "_gradient_op_type" in node.attr}
    for reference in (*(each for node in nodes for each in node.input), *outputs):
        if (name := _source(reference)) in found:
            found[name] = max(found[name], int(reference.rpartition(":")[2]) + 1 if ":" in reference else 1)
    return found


def _callback_in(function: Any, library: Library) -> bool:
    inputs = {each.name for each in function.signature.input_arg if _carries(each.type)}
    outputs = {function.ret[each.name] for each in function.signature.output_arg if _carries(each.type)}
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
    frames = [frame for frame in graph.get_operation_by_name(name).traceback if not ours(frame.filename)]
    return f"(operation '{name}', {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else f"(operation '{name}')"
