"""Functions as they are now.

Derivatives call a function again when they are first asked for, and Python looks up anew each time what the function's names stand for.
By then the loop around it may have gone on, and the derivative would be that of another function.
"""

import dis
import functools
import hashlib
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from .. import checks

Library = dict[str, Any]  # the functions of a stored graph, by their names

#: What is not the user's code: TensorFlow, what is installed beside it, Python's own, and these operators.
LIBRARIES = [Path(tf.__file__).resolve().parents[1], Path(functools.__file__).resolve().parent, Path(checks.__file__).resolve().parent]
#: Attributes of operations that name things, anew in each graph.
_NAMES = ("token", "shared_name", "container")


def ours(file: str) -> bool:
    """Whether a file of Python is none of the user's."""
    return any(Path(file).resolve().is_relative_to(folder) for folder in LIBRARIES)


def bound(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the user's that keeps to what its names stand for now: its closure and globals, but those that it writes itself.

    What changes inside of the things that are named is not held, such as an attribute, an array's entries, or what another function that
    it calls reads: `likeness` tells. What a Keras layer around it casts its variables to is held.
    """
    keras = getattr(sys.modules.get("keras.src.backend.common.global_state"), "GLOBAL_STATE_TRACKER", None)  # no public name
    scope, held = getattr(keras, "autocast_scope", None), _bound(function)
    return held if scope is None else functools.partial(_within, keras, scope, held)


def _within(keras: Any, scope: Any, function: Callable[..., Any], *given: Any) -> Any:
    before, keras.autocast_scope = getattr(keras, "autocast_scope", None), scope
    try:
        return function(*given)
    finally:
        keras.autocast_scope = before


def _bound(given: Any) -> Any:
    if isinstance(given, functools.partial):
        return functools.partial(_bound(given.func), *given.args, **given.keywords)
    if isinstance(given, types.MethodType):
        return types.MethodType(_bound(given.__func__), given.__self__)
    if not isinstance(given, types.FunctionType) or ours(given.__code__.co_filename):
        return given
    written, names = _written(given.__code__), given.__globals__
    cells = zip(given.__code__.co_freevars, given.__closure__ or (), strict=True)
    held = tuple(cell if name in written or cell == types.CellType() else types.CellType(cell.cell_contents) for name, cell in cells)
    made = types.FunctionType(given.__code__, names if written & names.keys() else dict(names), given.__name__, given.__defaults__, held)
    made.__kwdefaults__, made.__qualname__ = given.__kwdefaults__, given.__qualname__
    made.__dict__.update(given.__dict__)
    return made


def _written(code: types.CodeType) -> set[str]:
    """The names outside of a function that it writes, itself or in one within it."""
    own = {each.argval for each in dis.get_instructions(code) if each.opname in ("STORE_GLOBAL", "STORE_DEREF")}
    return own.union(*(_written(each) for each in code.co_consts if isinstance(each, types.CodeType)))


def likeness(definition: Any, library: Library) -> bytes:
    """Of a stored graph: the same for two that do the same with what they read, whatever their operations are called.

    Rules of `tf.custom_gradient` and host calls are not looked into: what they read is to stay as it is.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(definition.node, library):
        digest.update(part)
    return digest.digest()


def _parts(nodes: Any, library: Library) -> Iterator[bytes]:
    numbers: defaultdict[str, int] = defaultdict(lambda: len(numbers))
    for node in nodes:
        sources = [numbers[each.partition(":")[0].lstrip("^")] for each in node.input]
        yield repr((node.op, numbers[node.name], sources, [each.partition(":")[2] for each in node.input])).encode()
        for key, value in sorted(node.attr.items()):
            called = [library[each.name] for each in (value.func, *value.list.func) if each.name in library]
            for function in called:
                yield from _parts(function.node_def, library)
            if not called and not key.startswith("_") and key not in _NAMES:
                yield value.SerializeToString(deterministic=True)
