"""Checks of what users pass in, with one message form: what is wrong, expected, given, what to do.

Every check returns the value in the form the code works with (a NumPy array, a tuple), so that a caller writes
``x = checks.finite("x", x)``. No check imports TensorFlow.
"""

import numbers
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .constants import QUANTITIES, SPELLINGS, UNITS


class Coordinates(Protocol):
    """Anything that gives a coordinate by its name: a dict of arrays, an xarray Dataset."""

    def __contains__(self, name: object) -> bool: ...

    def __getitem__(self, name: Any) -> Any: ...


def invalid(name: str, given: object, expected: str, advice: str = "") -> ValueError:
    """The one form of an error of use, ready to be raised."""
    message = f"Invalid '{name}' {given}: must be {expected}."
    return ValueError(f"{message} {advice}".rstrip())


def warn(message: str) -> None:
    """A UserWarning that points at the line of the user's: the nearest one outside of this package, and of `dataclasses.replace`."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and f"{frame.f_globals.get('__name__')}.".startswith(("geoinv.", "dataclasses.")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def finite(name: str, values: Any, *, dtype: Any = np.float64) -> np.ndarray:
    """An array without NaN or infinite entries; names the first bad one."""
    try:
        array = np.asarray(values, dtype=dtype)
    except (TypeError, ValueError):
        given = repr(values)
        raise invalid(name, given if len(given) < 60 else f"of type {type(values).__name__}", "a number, or an array of numbers") from None
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        first = array.ravel()[bad[0]]
        raise invalid(name, f"{first} at index {bad[0]}", "finite everywhere", f"{bad.size} of {array.size} values are not.")
    return array


def positive(name: str, values: Any) -> np.ndarray:
    """A finite array with every entry above zero."""
    array = finite(name, values)
    bad = np.flatnonzero(array <= 0)
    if bad.size:
        raise invalid(name, f"{array.ravel()[bad[0]]:g} at index {bad[0]}", "positive", f"{bad.size} of {array.size} values are not.")
    return array


def count(name: str, given: Any, least: int = 1, most: int | None = None, advice: str = "") -> int:
    """A whole number of things."""
    whole = isinstance(given, numbers.Integral) and not isinstance(given, bool | np.bool_)
    if not whole or given < least or (most is not None and given > most):
        raise invalid(name, repr(given), f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}", advice)
    return int(given)


def increasing(name: str, values: Any) -> np.ndarray:
    """A finite 1-D array of two or more strictly increasing entries."""
    array = finite(name, values)
    if array.ndim != 1 or array.size < 2:
        raise invalid(name, f"of shape {array.shape}", "one-dimensional with two or more entries")
    bad = np.flatnonzero(np.diff(array) <= 0)
    if bad.size:
        at = int(bad[0])
        raise invalid(name, f"{array[at]:g}, {array[at + 1]:g} at index {at}", "strictly increasing")
    return array


def choice(name: str, given: Any, options: Sequence[Any]) -> Any:
    """One of `options`."""
    if given not in options:
        raise invalid(name, repr(given), "one of " + ", ".join(map(repr, options)))
    return given


def shape(name: str, values: Any, expected: Sequence[int]) -> np.ndarray:
    """An array of exactly the expected shape."""
    array = np.asarray(values)
    if array.shape != tuple(expected):
        raise invalid(name, f"of shape {array.shape}", f"of shape {tuple(expected)}")
    return array


def unit_factor(name: str, unit: str, quantity: str) -> float:
    """The factor to SI of a unit of the given quantity ('acceleration', 'gradient', 'density', 'length' or 'time')."""
    return UNITS[choice(name, unit, QUANTITIES[quantity])]


def in_unit(name: str, attributes: Mapping[Any, Any], unit: str) -> None:
    """Refuse data that say in their attribute `units` that they are in another unit than the expected one; without it they are taken to be in that.

    Args:
        name: Of the data.
        attributes: Theirs.
        unit: A key of `constants.SPELLINGS`.
    """
    given = attributes.get("units")
    text = (given.decode(errors="replace") if isinstance(given, bytes) else "" if given is None else str(given)).strip(" []")
    if text and text.casefold() not in SPELLINGS[unit]:
        raise invalid(name, f"in '{text}'", f"in '{unit}'", "Convert the values and the attribute 'units'.")


def points(name: str, coordinates: Coordinates, dims: Sequence[str]) -> np.ndarray:
    """Named coordinates (a dict, an xarray Dataset) as one float64 array [point, axis] in the order of `dims`."""
    missing = [dim for dim in dims if dim not in coordinates]
    if missing:
        raise invalid(name, f"without {', '.join(missing)}", f"a mapping with the coordinates {', '.join(dims)} in metres")
    columns = [np.atleast_1d(finite(f"{name} {dim}", np.asarray(coordinates[dim]))) for dim in dims]
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
        raise invalid(name, f"of shapes {[column.shape for column in columns]}", "one-dimensional coordinates of equal length")
    if columns[0].size == 0:
        raise invalid(name, "with 0 points", "at least one point")
    return np.stack(columns, axis=1)


def units(given: Any, count: int) -> np.ndarray:
    """Indices of some of `count` units (stations, shots, rows), in the order given: integers, a slice, or a mask of them all."""
    chosen = np.atleast_1d(np.asarray(np.arange(count)[given] if isinstance(given, slice) else given))
    index = np.flatnonzero(chosen) if chosen.dtype == bool and chosen.shape == (count,) else chosen
    if index.ndim != 1 or index.size == 0 or index.dtype.kind not in "iu" or index.min() < 0 or index.max() >= count:
        raise invalid("units", given, f"some of the numbers from 0 to {count - 1}, a slice, or a mask of {count}")
    return index
