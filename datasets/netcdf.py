"""Surveys and models on disk: netCDF-4 through h5netcdf, written atomically."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xarray

from geoinv.operators import checks

from . import files
from .atomic import atomic_path, require_space

#: Of a file, and of each variable in it, besides its numbers: bytes, at most.
OVERHEAD = 16_384


def write(path: str | os.PathLike[str], data: xarray.Dataset | xarray.DataArray) -> None:
    """Write a survey, or a named model, replacing the file at once or not at all.

    Args:
        path: The .nc file.
        data: A Dataset, or a DataArray with a name (read it back with ``read(path)[name]``).

    Raises:
        ValueError: A DataArray without a name, or a folder that does not exist.
        OSError: The disk is too full.
    """
    if isinstance(data, xarray.DataArray):
        if not data.name:
            raise checks.invalid("data", "without a name", "a Dataset or a named DataArray", "Use data.rename('density').")
        data = data.to_dataset()
    with atomic_path(path) as temporary:
        require_space(path, OVERHEAD * (1 + len(data.variables)) + data.nbytes)
        data.to_netcdf(temporary, engine="h5netcdf")


def attributes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The attributes of a netCDF-4 file, without reading its data.

    Raises:
        ValueError: As `read`.
    """
    return dict(_opened(path, lambda dataset: dataset.attrs))


class Layout(NamedTuple):
    """Of a variable: dimensions, shape, dtype, the shape of its chunks where it has any, and numbers that stand for NaN."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...] | None
    missing: tuple[float, ...]


def layout(path: str | os.PathLike[str]) -> dict[str, Layout]:
    """The variables of a netCDF-4 file that hold numbers, without reading them.

    Raises:
        ValueError: As `read`; numbers that are stored scaled.
    """

    def laid_out(dataset: xarray.Dataset) -> dict[str, Layout]:
        return {str(name): _layout(str(name), each) for name, each in dataset.variables.items() if each.dtype.kind in "fiub"}

    return dict(_opened(path, laid_out))


def _layout(name: str, variable: xarray.Variable) -> Layout:
    if {"scale_factor", "add_offset"} & set(variable.encoding):
        raise checks.invalid("variable", f"'{name}', stored scaled", "stored as it is", "Write it as float32.")
    missing = [float(variable.encoding[key]) for key in ("_FillValue", "missing_value") if key in variable.encoding]
    numbers = tuple(each for each in missing if not np.isnan(each))
    return Layout(tuple(map(str, variable.dims)), variable.shape, variable.dtype, variable.encoding.get("chunksizes"), numbers)


def read(path: str | os.PathLike[str]) -> xarray.Dataset:
    """Read a netCDF-4 file into memory and close it.

    Raises:
        ValueError: No such file, or not netCDF-4.
    """
    return _opened(path, lambda dataset: dataset.load())


def _opened(path: str | os.PathLike[str], take: Callable[[xarray.Dataset], Any]) -> Any:
    given = files.existing(path)
    try:
        # Times stay numbers, so that their unit can be checked: xarray would turn those in "seconds", not those in "s", into its own type.
        with xarray.open_dataset(given, engine="h5netcdf", decode_timedelta=False) as dataset:
            return take(dataset)
    except OSError as error:
        raise checks.invalid("path", f"'{given}'", "a netCDF-4 (HDF5) file", f"Reading it failed: {error}.") from error
