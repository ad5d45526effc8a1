"""Surveys and models on disk: netCDF-4 through h5netcdf, written atomically."""

import os
from collections.abc import Callable
from typing import Any

import xarray

from geoinv.operators import checks

from . import files
from .atomic import atomic_path


def write(path: str | os.PathLike[str], data: xarray.Dataset | xarray.DataArray) -> None:
    """Write a survey, or a named model, replacing the file at once or not at all.

    Args:
        path: The .nc file.
        data: A Dataset, or a DataArray with a name (read it back with ``read(path)[name]``).

    Raises:
        ValueError: A DataArray without a name, or a folder that does not exist.
    """
    if isinstance(data, xarray.DataArray):
        if not data.name:
            raise checks.invalid("data", "without a name", "a Dataset or a named DataArray", "Use data.rename('density').")
        data = data.to_dataset()
    with atomic_path(path) as temporary:
        data.to_netcdf(temporary, engine="h5netcdf")


def attributes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The attributes of a netCDF-4 file, without reading its data.

    Raises:
        ValueError: As `read`.
    """
    return dict(_opened(path, lambda dataset: dataset.attrs))


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
