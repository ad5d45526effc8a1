"""How much memory objects hold."""

import functools
import types
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import tensorflow as tf


def held(root: Any) -> float:
    """Bytes of the arrays and tensors that an object holds, in attributes, containers and functions; each counts once."""
    seen: set[int] = set()
    total, rest = 0.0, [root]
    while rest:
        each = rest.pop()
        if id(each) in seen or isinstance(each, str | bytes | int | float | type | types.ModuleType):
            continue
        seen.add(id(each))
        if isinstance(each, np.ndarray):
            view = isinstance(each.base, np.ndarray)  # others' bases are what manages their memory
            total += 0 if view else each.nbytes
            rest += [each.base] if view else []
        elif tf.is_tensor(each) and hasattr(each, "numpy"):
            total += each.dtype.size * each.shape.num_elements()
        else:
            rest += _inside(each)
    return total


def _inside(each: Any) -> list[Any]:
    if isinstance(each, dict):
        return list(each.values())
    if isinstance(each, list | tuple | set | frozenset):
        return list(each)
    if isinstance(each, functools.partial):
        return [each.func, *each.args, *each.keywords.values()]
    if isinstance(each, types.MethodType):
        return [each.__self__]
    if isinstance(each, types.FunctionType):
        return [cell.cell_contents for cell in each.__closure__ or ()]
    own = [getattr(each, known.name, None) for known in fields(each)] if is_dataclass(each) else []
    return [*own, *vars(each).values()] if hasattr(each, "__dict__") and type(each).__module__.startswith("geoinv") else own
