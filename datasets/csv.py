"""Gravity surveys as CSV: any column names, units, sign of the z axis, projected or geographic coordinates."""

import csv
import os
from collections.abc import Mapping, Sequence

import numpy as np
import xarray

from geoinv.operators import checks

from . import files, projection, survey
from .atomic import atomic_path
from .table import Table, read_table

_GEOGRAPHIC = ("longitude", "latitude")
_PLANE = ("easting", "northing")
_KNOWN = (*_PLANE, *_GEOGRAPHIC, "upward", "station_id", "uncertainty", *survey.COMPONENTS, *(f"uncertainty_{c}" for c in survey.COMPONENTS))


def read_csv(
    path: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    units: str | Mapping[str, str] = "mGal",
    positive: str = "down",
    length_units: str = "m",
    crs: str = "",
    delimiter: str | None = None,
    drop_missing: bool = False,
) -> xarray.Dataset:
    """Read a survey from a text table with a header.

    Args:
        path: The file, possibly compressed (.gz, .bz2, .xz).
        columns: The file's column name for each of our names: `easting` and `northing` or `longitude` and `latitude`
            (degrees), `upward`, one or more components (`gz`, `gzz`, ...), and optionally `uncertainty` (for one component),
            `uncertainty_gz`, ... and `station_id`. By default the file uses our names; columns of a file without a header are "1", "2", ...
        units: Of the components and their uncertainties: one unit, or one for each component.
        positive: Where the file's z axis points, "down" or "up"; "up" turns the sign of gz, gxz and gyz.
        length_units: Of `easting`, `northing` and `upward`.
        crs: The projected system of easting and northing ("" when local), or to project longitude and latitude to.
        delimiter: See `table.read_table`.
        drop_missing: Leave out rows with a blank or NaN in a needed column, and say so in the history, instead of raising.

    Returns:
        A survey (see `geoinv.datasets.survey`), in SI, gz positive down; uncertainties are zero where the file has none.

    Raises:
        ValueError: No such file or column, an unreadable or blank number (names the line), an unknown unit or name in `columns`,
            no component, or a `crs` that is missing, geographic or not in metres.
    """
    metres = checks.unit_factor("length_units", length_units, "length")
    projection.check_projected(crs)
    table = read_table(path, delimiter=delimiter)
    names = _named(table, columns or {})
    components = _components(names)
    history = [f"read from {path}: lengths in {length_units}, z positive {positive}"]
    table = _complete(table, names, drop_missing, history)
    easting, northing = _position(table, names, metres, crs, history)
    observed, uncertainty = {}, {}
    for component in components:
        unit = _unit(component, units)
        factor = survey.file_factor(component, unit, positive)
        observed[component] = factor * table.numbers(names[component])
        deviation = names.get(f"uncertainty_{component}", names.get("uncertainty"))
        if deviation is not None:
            uncertainty[component] = abs(factor) * table.numbers(deviation)
        history.append(f"{component}: column '{names[component]}' in {unit} times {factor:g}")
    return survey.make(
        easting,
        northing,
        metres * table.numbers(names["upward"]),
        observed,
        uncertainty,
        station_id=table.text(names["station_id"]) if "station_id" in names else None,
        crs=crs,
        source=str(path),
        sha256=files.sha256(path),
        history=history,
    )


def write_csv(
    path: str | os.PathLike[str],
    data: xarray.Dataset,
    *,
    units: str | Mapping[str, str] = "mGal",
    positive: str = "down",
    length_units: str = "m",
    delimiter: str = ",",
) -> None:
    """Write a survey as a table that `read_csv` reads with the same options and no `columns`.

    Coordinates and values carry 12 significant digits (10 micrometres in a UTM zone's northing is lost).

    Args:
        path: The file to write or replace.
        data: A survey.
        units, positive, length_units: As for `read_csv`.
        delimiter: One character between columns.

    Raises:
        ValueError: An unknown unit or direction.
    """
    metres = checks.unit_factor("length_units", length_units, "length")
    table: dict[str, Sequence[str]] = {"station_id": list(data["station_id"].values)} if "station_id" in data else {}
    table |= {name: _digits(data[name].values / metres) for name in survey.COORDINATES}
    for i, component in enumerate(map(str, data["component"].values)):
        factor = survey.file_factor(component, _unit(component, units), positive)
        table[component] = _digits(data["observed"].values[:, i] / factor)
        table[f"uncertainty_{component}"] = _digits(data["uncertainty"].values[:, i] / abs(factor))
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))


def _digits(values: np.ndarray) -> list[str]:
    # Adding zero turns -0.0, which a change of sign makes of 0.0, into 0.0.
    return [f"{value + 0.0:.12g}" for value in values]


def _named(table: Table, given: Mapping[str, str]) -> dict[str, str]:
    """The file's column of each of our names: those given, over those that the file has under our names."""
    own = {name: name for name in _KNOWN if name in table.columns}
    for rivals in (survey.COMPONENTS, (*_PLANE, *_GEOGRAPHIC)):
        wanted = [name for name in rivals if name in given]
        pair = {partner for group in (_PLANE, _GEOGRAPHIC) if set(wanted) & set(group) for partner in group}
        if wanted:
            own = {name: column for name, column in own.items() if name not in rivals or name in pair}
    return own | dict(given)


def _components(names: Mapping[str, str]) -> list[str]:
    """The components among our names, after checking that the names say everything needed, once."""
    for name in names:
        checks.choice("columns", name, _KNOWN)
    components = [name for name in survey.COMPONENTS if name in names]
    if not components:
        raise checks.invalid("columns", f"with {', '.join(names) or 'nothing'}", f"naming a component, one of {', '.join(survey.COMPONENTS)}")
    pairs = [pair for pair in (_PLANE, _GEOGRAPHIC) if all(name in names for name in pair)]
    stray = [name for name in (*_PLANE, *_GEOGRAPHIC) if name in names and not any(name in pair for pair in pairs)]
    if len(pairs) != 1 or stray:
        raise checks.invalid("columns", f"with {', '.join(names)}", "naming easting and northing, or longitude and latitude")
    if "upward" not in names:
        raise checks.invalid("columns", f"with {', '.join(names)}", "naming upward, the stations' elevation")
    if "uncertainty" in names and len(components) > 1:
        advice = "Write " + ", ".join(f"uncertainty_{component}" for component in components) + "."
        raise checks.invalid("columns", f"with 'uncertainty' and {len(components)} components", "one uncertainty for each component", advice)
    return components


def _unit(component: str, units: str | Mapping[str, str]) -> str:
    if isinstance(units, str):
        return units
    if component not in units:
        raise checks.invalid("units", f"without {component}", "one unit, or one for each component")
    return units[component]


def _complete(table: Table, names: Mapping[str, str], drop_missing: bool, history: list[str]) -> Table:
    """The table without the rows that miss a needed number, or an error that names the first such line."""
    missing = np.zeros(len(table.rows), dtype=bool)
    for name in names:
        if name == "station_id":
            continue
        blank = table.missing(names[name])
        if blank.any() and not drop_missing:
            line, advice = table.lines[np.flatnonzero(blank)[0]], f"{blank.sum()} rows are blank there; drop_missing=True leaves them out."
            raise files.bad_line(table.path, line, f"blank in column '{names[name]}'", "a number", advice)
        missing |= blank
    if missing.any():
        history.append(f"removed {missing.sum()} of {missing.size} rows with blank values")
    return table.keep(~missing)


def _position(table: Table, names: Mapping[str, str], metres: float, crs: str, history: list[str]) -> tuple[np.ndarray, np.ndarray]:
    if "longitude" not in names:
        return metres * table.numbers(names["easting"]), metres * table.numbers(names["northing"])
    history.append(f"longitude and latitude (WGS84) projected to {crs}")
    return projection.project(table.numbers(names["longitude"]), table.numbers(names["latitude"]), crs)
