"""Travel times as a table: a row for each pick, with the positions of its shot and its receiver."""

import csv
import os
from collections.abc import Mapping

import numpy as np
import xarray

from geoinv.operators import checks

from . import files, picks
from .atomic import atomic_path
from .table import Table, read_table

_PLACES = tuple(f"{kind}_{axis}" for kind in ("shot", "receiver") for axis in ("easting", "northing", "upward"))
#: Our names of columns; northings and uncertainty may be missing.
COLUMNS = (*_PLACES, "time", "uncertainty")
#: Positions that agree to so many decimals of a metre are one sensor.
DECIMALS = 4


def read_csv(
    path: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    time_units: str = "s",
    length_units: str = "m",
    crs: str = "",
) -> xarray.Dataset:
    """The picks of a text table with a header, as a survey (see `picks`).

    Args:
        path: The file, possibly compressed (.gz, .bz2, .xz).
        columns: The file's column for each of our names: `shot_easting`, `shot_upward`, `receiver_easting`, `receiver_upward`, `time`, and
            optionally `shot_northing`, `receiver_northing` and `uncertainty`; by default the file uses our names.
        time_units: Of times and uncertainties, "s", "ms" or "us".
        length_units: Of positions.
        crs: Of the positions, "" when local.

    Raises:
        ValueError: No such file or column, an unreadable number or a time that is not positive (names the line), an unknown unit or name.
    """
    metres = checks.unit_factor("length_units", length_units, "length")
    seconds = checks.unit_factor("time_units", time_units, "time")
    table = read_table(path)
    names = _named(table, columns or {})
    here = [table.numbers(names[name]) * metres if name in names else np.zeros(len(table.rows)) for name in _PLACES]
    places = np.stack(here, axis=1).reshape(-1, 2, 3).transpose(1, 0, 2).reshape(-1, 3)  # shots, then receivers
    _, first, number = np.unique(places.round(DECIMALS), axis=0, return_index=True, return_inverse=True)
    sensors, (shot, receiver) = places[first], number.reshape(2, -1)
    times = table.numbers(names["time"]) * seconds
    for line, time, a, b in zip(table.lines, times, shot, receiver, strict=True):
        if not time > 0:
            raise files.bad_line(path, line, f"a time of {time:g} s", "positive")
        if a == b:
            raise files.bad_line(path, line, "a pick from a sensor to itself", "between two sensors")
    deviations = _deviations(table, names["uncertainty"]) * seconds if "uncertainty" in names else 0.0
    known = {"crs": crs, "source": str(path), "sha256": files.sha256(path)}
    return picks.make(sensors[:, 0], sensors[:, 2], shot, receiver, times, deviations, northing=sensors[:, 1], **known)


def write_csv(path: str | os.PathLike[str], survey: xarray.Dataset) -> None:
    """Write a survey of picks as a table in metres and seconds, as `read_csv` reads it, without sensors that no pick has.

    The file is whole or not there.
    """
    ends = {name: survey[name.partition("_")[2]].values[survey[name.partition("_")[0]].values] for name in _PLACES}
    table = {**ends, "time": survey["observed"].values, "uncertainty": survey["uncertainty"].values}
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*(values.tolist() for values in table.values()), strict=True))


def _deviations(table: Table, column: str) -> np.ndarray:
    """Zero where there is none."""
    given = ~table.missing(column)
    found = np.zeros(given.size)
    if given.any():
        found[given] = table.keep(given).numbers(column)
    for line, value in zip(table.lines, found, strict=True):
        if value < 0:
            raise files.bad_line(table.path, line, f"an uncertainty of {value:g}", "positive, zero or blank")
    return found


def _named(table: Table, columns: Mapping[str, str]) -> dict[str, str]:
    """The file's column of each of our names that it has."""
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise checks.invalid("columns", repr(unknown[0]), f"one of {', '.join(COLUMNS)}")
    names = {name: columns.get(name, name) for name in COLUMNS if name in columns or name in table.columns}
    northings = [name for name in ("shot_northing", "receiver_northing") if name in names]
    if len(northings) == 1:
        raise checks.invalid("columns", f"with '{northings[0]}' alone", "with northings of both shots and receivers, or of neither")
    for name in COLUMNS:
        if name not in names and not name.endswith("northing") and name != "uncertainty":
            advice = f"The file has {', '.join(table.columns)}; name the one that holds it in data.columns."
            raise checks.invalid("columns", f"without '{name}'", "with all of shot, receiver and time", advice)
    return names
