"""Functions as they are now.

Derivatives call a function again when they are first asked for, and Python looks up anew each time what the function's names stand for.
By then the loop around it may have gone on, and the derivative would be that of another function.
"""

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
    """A function that keeps to what its names stand for now, in functions of the user's that it calls by their names as well.

    What changes inside of the things that are named, such as an attribute or an array's entries, is not held (see `likeness`). What a Keras
    layer around it casts its variables to is.
    """
    keras = getattr(sys.modules.get("keras.src.backend.common.global_state"), "GLOBAL_STATE_TRACKER", None)  # no public name
    scope = getattr(keras, "autocast_scope", None)
    held = _bound(function, {})
    return held if scope is None else functools.partial(_within, keras, scope, held)


def _within(keras: Any, scope: Any, function: Callable[..., Any], *given: Any) -> Any:
    before, keras.autocast_scope = getattr(keras, "autocast_scope", None), scope
    try:
        return function(*given)
    finally:
        keras.autocast_scope = before


def _bound(given: Any, seen: dict[int, Any]) -> Any:
    if isinstance(given, functools.partial):
        return functools.partial(_bound(given.func, seen), *given.args, **given.keywords)
    if isinstance(given, types.MethodType):
        return types.MethodType(_bound(given.__func__, seen), given.__self__)
    if not isinstance(given, types.FunctionType) or ours(given.__code__.co_filename):
        return given
    if id(given) not in seen:
        cells, named = given.__closure__ or (), dict(given.__globals__)
        held = tuple(types.CellType() for _ in cells)
        seen[id(given)] = made = types.FunctionType(given.__code__, named, given.__name__, given.__defaults__, held)
        made.__kwdefaults__, made.__qualname__ = given.__kwdefaults__, given.__qualname__
        made.__dict__.update(given.__dict__)
        for cell, other in zip(cells, held, strict=True):
            if cell != types.CellType():  # one that is not filled yet stays empty
                other.cell_contents = _bound(cell.cell_contents, seen)
        for name in _names(given.__code__) & named.keys():
            named[name] = _bound(named[name], seen)
    return seen[id(given)]


def _names(code: types.CodeType) -> set[str]:
    """The names that a function looks up, and those within it."""
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def likeness(definition: Any, library: Library) -> bytes:
    """Of a stored graph: the same for two that do the same with what they read, whatever their operations are called."""
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
