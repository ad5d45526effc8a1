"""The units of a survey (shots, stations), read a few at a time from memory or from files larger than it.

A unit is a row of every array along the survey's first dimension. Where units differ in length, as spreads of receivers do, those that are
read together are cut to one of a few lengths (`ladder`), so that what is compiled for each is compiled a few times and not for every length.
"""

import abc
import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import h5py
import numpy as np

from geoinv.operators import checks

from . import files, netcdf

#: Chunks of more units than these, and larger, bytes, are warned of.
FEW, SMALL = 4, 1_000_000
#: How much longer each length is than the one before, at most.
GROWTH = 1.25
Batch = dict[str, np.ndarray]


class Units(abc.ABC):
    """What batches are drawn from."""

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """How many units there are."""

    @abc.abstractmethod
    def read(self, units: np.ndarray) -> Batch:
        """The arrays of some units by name, [unit, ...], and their numbers as "unit".

        Raises:
            ValueError: Reading failed.
        """

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """What tells these data from others, as JSON holds it, without reading all of them."""


@final
@dataclass(frozen=True, eq=False)
class Arrays(Units):
    """Units in memory.

    Args:
        arrays: By name, [unit, ...].

    Raises:
        ValueError: None, or of different numbers of units.
    """

    arrays: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        made = {name: np.asarray(array) for name, array in self.arrays.items()}
        counts = {name: array.shape[0] if array.ndim else 0 for name, array in made.items()}
        if len(set(counts.values())) != 1 or not min(counts.values()):
            raise checks.invalid("arrays", f"of {counts} units", "one array or more, with one number of units, 1 or more")
        for name, array in made.items():
            if name == "unit" or array.dtype.kind not in "fiub":
                raise checks.invalid("arrays", f"with '{name}', {array.dtype}", "of numbers, and of other names than 'unit', which numbers the units")
        object.__setattr__(self, "arrays", made)

    @property
    def count(self) -> int:
        return len(next(iter(self.arrays.values())))

    def read(self, units: np.ndarray) -> Batch:
        return {**{name: array[units] for name, array in self.arrays.items()}, "unit": np.asarray(units)}

    def describe(self) -> dict[str, Any]:
        return {name: f"{array.dtype} {array.shape} {files.digest(array)}" for name, array in self.arrays.items()}


@final
@dataclass(frozen=True, eq=False)
class SurveyFile(Units):
    """Units in a netCDF-4 or HDF5 file with dimensions, of which only what a batch needs is read.

    Args:
        path: The file.
        unit: Its dimension of units.
        variables: Names of what is read, each with the units first; all such variables by default.
        live: Name of the mask [unit, entry] that says where a unit has data: batches are cut behind the last of these along the entries'
            dimension, to a length of `ladder`. By default "live" where the file has it.

    Raises:
        ValueError: No such file, dimension or variable; scaled integers.
    """

    path: str | os.PathLike[str]
    unit: str = "shot"
    variables: Sequence[str] | None = None
    live: str | None = None

    def __post_init__(self) -> None:
        known = self._layout
        if not known:
            raise checks.invalid("unit", f"'{self.unit}'", f"the first dimension of variables of '{self.path}'")
        for name in [*(self.variables or ()), *([self.live] if self.live else [])]:
            if name not in known:
                raise checks.invalid("variables", f"'{name}'", f"of {', '.join(sorted(known))}: those that '{self.path}' has by {self.unit}")
        for name in self._names:
            if (chunks := known[name].chunks) and chunks[0] > FEW and known[name].dtype.itemsize * math.prod(chunks) > SMALL:
                text = f"'{self.path}' keeps {name} in chunks of {chunks[0]} {self.unit}s, all of which are read for one of them"
                checks.warn(f"{text}; write it with chunks of one")

    @functools.cached_property
    def _layout(self) -> dict[str, netcdf.Layout]:
        """Of every variable that has units."""
        return {name: each for name, each in netcdf.layout(self.path).items() if each.dims[:1] == (self.unit,)}

    @property
    def _names(self) -> list[str]:
        return [name for name in (sorted(self._layout) if self.variables is None else self.variables) if name != "unit"]

    @property
    def count(self) -> int:
        return next(iter(self._layout.values())).shape[0]

    @functools.cached_property
    def _mask(self) -> str | None:
        return self.live or ("live" if "live" in self._layout and len(self._layout["live"].dims) == 2 else None)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Entries of every unit up to its last live one, [unit]; zeros where there is no mask."""
        if self._mask is None:
            return np.zeros(self.count, int)
        with h5py.File(self.path, "r") as file:
            live = file[self._mask][...].astype(bool)
        return np.where(live.any(axis=1), live.shape[1] - np.argmax(live[:, ::-1], axis=1), 0)

    def read(self, units: np.ndarray) -> Batch:
        units = np.asarray(units)
        entries, length = None, 0
        if self._mask is not None:
            entries, longest = self._layout[self._mask].dims[1], self._layout[self._mask].shape[1]
            length = ladder(int(self.lengths[units].max()), longest)
        found = {}
        try:
            with h5py.File(self.path, "r") as file:
                for name in self._names:
                    layout = self._layout[name]
                    part = tuple(slice(length) if dim == entries else slice(None) for dim in layout.dims[1:])
                    stored = _rows(file[name], units, part)
                    found[name] = stored.astype(layout.dtype, copy=False)
                    if layout.missing:
                        found[name][np.isin(stored, layout.missing)] = np.nan
        except (OSError, KeyError) as error:
            raise checks.invalid("file", f"'{self.path}', {self.unit} {units.tolist()}", "readable, as it was", f"{error}.") from error
        return {**found, "unit": units}

    def describe(self) -> dict[str, Any]:
        stat = Path(self.path).stat()
        return {"path": str(self.path), "bytes": stat.st_size, "changed": stat.st_mtime_ns, "unit": self.unit, "variables": self._names}


def _rows(data: h5py.Dataset, units: np.ndarray, part: tuple[slice, ...]) -> np.ndarray:
    """[unit, ...]: neighbours in one go, for HDF5's own lists of rows are slow."""
    cuts = np.flatnonzero(np.diff(units) != 1) + 1
    pieces = [data[(slice(int(run[0]), int(run[-1]) + 1), *part)] for run in np.split(units, cuts)]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def ladder(length: int, longest: int) -> int:
    """The smallest of 1, 2, 3, 4, 5, 7, 9, 12, ... that is not below a length, each a quarter longer than the one before, and `longest` at most."""
    step = 1
    while step < length:
        step = max(step + 1, int(GROWTH * step))
    return min(step, longest)
