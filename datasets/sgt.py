"""Travel times in the unified data format of pyGIMLi and BERT (.sgt): a block of positions and one of picks.

    3 # shot/geophone points          number of positions; what follows # is a comment
    #x y                              their columns: x; x y or x z, the second upward; or x y z
    0 0
    ...
    2 # measurements                  number of picks
    #s g t err valid                  their columns, in any order
    1 2 0.0123 0.0004 1
    ...

A block of points of the ground may follow. `s` and `g` are numbers of positions from 1, `t` is the time and `err`, optional, its standard
deviation, both in seconds (as pyGIMLi 1.5 reads them) unless the column says otherwise ("t/ms"); picks whose `valid` is 0 are left out.
"""

import os
from collections.abc import Iterator

import numpy as np
import xarray

from geoinv.operators import checks

from . import files, picks
from .atomic import atomic_path

#: Seconds in what a column of times may be in, and metres in what positions may be in.
SECONDS, METRES = {"s": 1.0, "ms": 1e-3, "us": 1e-6}, {"m": 1.0, "km": 1e3}
Row = tuple[int, list[str]]


def read_sgt(path: str | os.PathLike[str], *, crs: str = "") -> xarray.Dataset:
    """The picks of a file, as a survey (see `picks`).

    Args:
        path: A text file, possibly compressed (.gz, .bz2, .xz).
        crs: Of the positions, "" when local.

    Raises:
        ValueError: No such file, an empty or truncated one, counts or numbers of positions that do not fit, or values that are no picks; names
            the line.
    """
    lines = _lines(files.read_text(path))
    sensors, columns = _block(path, lines, "positions", ("x",))
    placed = _places(path, sensors, columns)
    rows, names = _block(path, lines, "measurements", ("s", "g", "t"))
    _end(path, lines, len(rows))
    rows = [row for row in rows if "valid" not in names or _number(path, row, names["valid"][0]) != 0]
    if not rows:
        raise checks.invalid("path", f"'{path}'", "with valid picks", "None of them is marked so.")
    shot, receiver = (np.array([_sensor(path, row, names[name][0], len(sensors)) for row in rows]) for name in "sg")
    times = _values(path, rows, names["t"], SECONDS)
    for (line, _), time, a, b in zip(rows, times, shot, receiver, strict=True):
        if not time > 0:
            raise files.bad_line(path, line, f"a time of {time:g} s", "positive")
        if a == b:
            raise files.bad_line(path, line, f"a pick from sensor {a + 1} to itself", "between two sensors")
    deviations = _values(path, rows, names["err"], SECONDS) if "err" in names else np.zeros(len(rows))
    known = {"crs": crs, "source": str(path), "sha256": files.sha256(path)}
    return picks.make(placed["easting"], placed["upward"], shot, receiver, times, deviations, northing=placed["northing"], **known)


def write_sgt(path: str | os.PathLike[str], survey: xarray.Dataset) -> None:
    """Write a survey of picks; the file is whole or not there.

    Args:
        path: Replaced if it is there.
        survey: As of `picks`. Northings are left out where all are zero.
    """
    names = ["easting", "northing", "upward"] if np.any(survey["northing"].values) else ["easting", "upward"]
    positions = np.stack([survey[name].values for name in names], axis=1)
    given = bool(np.any(survey["uncertainty"].values))
    lines = [f"{len(positions)} # shot/geophone points", "#" + "\t".join("xyz"[: len(names)])]
    lines += ["\t".join(f"{value!r}" for value in row) for row in positions.tolist()]
    lines += [f"{survey.sizes['pick']} # measurements", "#s\tg\tt" + "\terr" * given]
    columns = [(survey[name].values + 1).tolist() for name in ("shot", "receiver")] + [survey["observed"].values.tolist()]
    columns += [survey["uncertainty"].values.tolist()] * given
    lines += ["\t".join(f"{value!r}" for value in row) for row in zip(*columns, strict=True)]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(text: str) -> Iterator[Row]:
    """Number and words of each line that is not blank."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.split()


def _block(path: object, lines: Iterator[Row], what: str, needed: tuple[str, ...]) -> tuple[list[Row], dict[str, tuple[int, str]]]:
    """The rows of a block, and (place, unit) of its columns by name."""
    line, words = next(lines, (0, []))
    if not words:
        raise checks.invalid("path", f"'{path}'", f"a file with a number of {what}", "It ends before." if what == "measurements" else "It is empty.")
    if not words[0].isdecimal() or int(words[0]) == 0:
        raise files.bad_line(str(path), line, f"'{' '.join(words)[:40]}'", f"the number of {what}")
    count = int(words[0])
    line, words = next(lines, (line, []))
    header = " ".join(words)
    if not header.startswith("#"):
        raise files.bad_line(str(path), line, f"'{header[:40]}'", f"the names of the columns of {what}, after a #")
    tokens = [token.partition("/") for token in header.lstrip("#").lower().split()]
    names = {name: (place, unit) for place, (name, _, unit) in enumerate(tokens)}
    if len(names) < len(tokens):
        raise files.bad_line(str(path), line, f"columns {', '.join(name for name, *_ in tokens)}", "each of them once")
    missing = [name for name in needed if name not in names]
    if missing:
        raise files.bad_line(str(path), line, f"columns {', '.join(names) or 'without names'}", f"with {', '.join(missing)} among them")
    rows: list[Row] = []
    while len(rows) < count:
        number, words = next(lines, (0, []))
        if not words:
            raise checks.invalid("path", f"'{path}'", f"a file of {count} {what}, as line {line - 1} says", f"It ends after {len(rows)} of them.")
        if words[0].startswith("#"):
            raise files.bad_line(str(path), number, f"'{' '.join(words)[:40]}'", f"one of the {count} {what}", f"{len(rows)} came before it.")
        if len(words) < len(names) or (len(words) > len(names) and not words[len(names)].startswith("#")):
            raise files.bad_line(str(path), number, f"{len(words)} values", f"{len(names)}, one for each column", f"Are there {count} {what}?")
        rows.append((number, words))
    return rows, names


def _end(path: object, lines: Iterator[Row], count: int) -> None:
    """Refuse more measurements than were announced; points of the ground behind them are left out, and that is said."""
    line, words = next((row for row in lines if not row[1][0].startswith("#")), (0, []))
    if not words or words[0] == "0":
        return
    if not words[0].isdecimal() or (len(words) > 1 and not words[1].startswith("#")):
        given, advice = f"'{' '.join(words)[:40]}'", "Are there more than the file says?"
        raise files.bad_line(str(path), line, given, f"nothing behind {count} measurements, or the number of points of the ground", advice)
    points = int(words[0])
    rest = list(lines)
    found = sum(not words[0].startswith("#") for _, words in rest)
    if found != points:
        raise checks.invalid("path", f"'{path}'", f"a file of {points} points of the ground, as line {line} says", f"It has {found} of them.")
    checks.warn(f"{points} points of the ground in {path} are left out: the ground runs through the sensors, or give a file of it.")


def _places(path: object, rows: list[Row], columns: dict[str, tuple[int, str]]) -> dict[str, np.ndarray]:
    """Coordinates of sensors; the last column of several is upward."""
    order = [name for name in "xyz" if name in columns]
    named = (
        dict(zip(order, ("easting", "northing", "upward"), strict=False))
        if len(order) == 3
        else dict(zip(order, ("easting", "upward"), strict=False))
    )
    found = {named[name]: _values(path, rows, columns[name], METRES) for name in order}
    return {"northing": np.zeros(len(rows)), "upward": np.zeros(len(rows))} | found


def _values(path: object, rows: list[Row], column: tuple[int, str], units: dict[str, float]) -> np.ndarray:
    place, unit = column
    factor = units[checks.choice(f"unit of a column of {path}", unit or next(iter(units)), tuple(units))]
    return factor * np.array([_number(path, row, place) for row in rows])


def _number(path: object, row: Row, place: int) -> float:
    line, words = row
    try:
        value = float(words[place])
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise files.bad_line(str(path), line, f"'{words[place]}'", "a finite number")
    return value


def _sensor(path: object, row: Row, place: int, count: int) -> int:
    value = _number(path, row, place)
    if value != int(value) or not 1 <= value <= count:
        raise files.bad_line(str(path), row[0], f"'{row[1][place]}'", f"the number of a position, 1 to {count}", "Positions count from 1.")
    return int(value) - 1
