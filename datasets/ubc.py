"""UBC-GIF files: gravity observations, tensor meshes and models.

Observations: the number of stations; then `easting northing elevation value [uncertainty]` in metres and mGal.
Mesh: the numbers of cells `nE nN nZ`; the corner `E0 N0 Ztop`; the widths along easting, northing and, from the top DOWN,
along z, where `n*w` stands for n cells of width w. Model: one value a line, in g/cc, z fastest (top down), then easting, then
northing; air carries a flag. Blank lines and everything after "!" count for nothing.

Format: UBC-GIF GRAV3D 3.0 manual, "Elements of the program GRAV3D". Writers print lengths to a micrometre and values to 9 or
10 digits; reading a written file and writing it again gives the same bytes.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray

from geoinv.operators import checks
from geoinv.operators.grid import Grid

from . import files, survey
from .atomic import atomic_path


def read_observations(path: str | os.PathLike[str], *, units: str = "mGal", positive: str = "down", crs: str = "") -> xarray.Dataset:
    """Read a gravity observation file.

    Args:
        path: The file.
        units: Of the values and uncertainties.
        positive: "down" when an excess of mass reads positive, else "up" (many codes count gz up).
        crs: The projected system of the coordinates, kept as an attribute.

    Returns:
        A survey with the component gz, in m/s2 and positive down; uncertainties are zero where the file has none.

    Raises:
        ValueError: No such file, an unreadable line (names it), or another number of stations than announced.
    """
    factor = survey.file_factor("gz", units, positive)
    lines = list(_lines(path))
    announced = _count(path, lines)
    if len(lines) - 1 != announced:
        raise files.bad_line(path, lines[0][0], f"announces {announced} stations", f"the number of lines that follow, {len(lines) - 1}")
    for line, words in lines[1:]:
        if len(words) not in (4, 5):
            raise files.bad_line(path, line, f"with {len(words)} numbers", "easting northing elevation value [uncertainty]")
    rows = np.array([[*(_number(path, line, word) for word in words), *[0.0] * (5 - len(words))] for line, words in lines[1:]])
    easting, northing, upward, value, deviation = rows.reshape(-1, 5).T
    return survey.make(
        easting,
        northing,
        upward,
        {"gz": factor * value},
        {"gz": abs(factor) * deviation},
        crs=crs,
        source=str(path),
        sha256=files.sha256(path),
        history=[f"read from {path}: UBC-GIF observations in {units}, gz positive {positive}, times {factor:g}"],
    )


def write_observations(path: str | os.PathLike[str], data: xarray.Dataset, *, units: str = "mGal", positive: str = "down") -> None:
    """Write the component gz of a survey as a gravity observation file; uncertainties only if any is given.

    Raises:
        ValueError: A survey without gz, or an unknown unit or direction.
    """
    checks.choice("component", "gz", [str(name) for name in data["component"].values])
    factor = survey.file_factor("gz", units, positive)
    # Adding zero turns -0.0, which a change of sign makes of 0.0, into 0.0.
    gz = data.sel(component="gz")
    table = [*(data[name].values for name in survey.COORDINATES), gz["observed"].values / factor + 0.0]
    pattern = "{:.6f} {:.6f} {:.6f} {:.9e}"
    if np.any(gz["uncertainty"].values):
        table.append(gz["uncertainty"].values / abs(factor))
        pattern += " {:.9e}"
    _write_lines(path, [str(gz.sizes["station"]), *(pattern.format(*row) for row in zip(*table, strict=True))])


def read_mesh(path: str | os.PathLike[str]) -> Grid:
    """Read a tensor mesh as a grid [upward, northing, easting]; the file does not say which cells are padding.

    Raises:
        ValueError: No such file, an unreadable number, or not as many widths as cells (names the line).
    """
    lines = list(_lines(path))
    if len(lines) < 3 or len(lines[0][1]) != 3 or len(lines[1][1]) != 3:
        raise checks.invalid("path", f"'{path}'", "a UBC-GIF tensor mesh: 'nE nN nZ', 'E0 N0 Ztop', then the cell widths")
    counts = [_whole(path, lines[0][0], word) for word in lines[0][1]]
    west, south, top = (_number(path, lines[1][0], word) for word in lines[1][1])
    widths = np.array([width for line, words in lines[2:] for word in words for width in _widths(path, line, word)])
    if widths.size != sum(counts):
        raise files.bad_line(path, lines[-1][0], f"ends with {widths.size} cell widths in all", f"{' + '.join(map(str, counts))} of them")
    along_east, along_north, downward = np.split(widths, np.cumsum(counts)[:2])
    return Grid(
        (
            top - np.concatenate([[0], np.cumsum(downward)])[::-1],
            south + np.concatenate([[0], np.cumsum(along_north)]),
            west + np.concatenate([[0], np.cumsum(along_east)]),
        )
    )


def write_mesh(path: str | os.PathLike[str], grid: Grid) -> None:
    """Write a 3-D grid as a tensor mesh, lengths to a micrometre.

    Raises:
        ValueError: A 2-D grid.
    """
    _check_3d(grid)
    upward, northing, easting = grid.edges
    corner = np.array([easting[0], northing[0], upward[-1]])
    rows = [corner, grid.widths[2], grid.widths[1], grid.widths[0][::-1]]
    counts = " ".join(str(n) for n in grid.shape[::-1])
    _write_lines(path, [counts, *(" ".join(f"{value:.6f}" for value in row) for row in rows)])


def read_model(path: str | os.PathLike[str], grid: Grid, *, units: str = "g/cc", air_flag: float | None = -100.0) -> np.ndarray:
    """Read a model on the cells of a mesh.

    Args:
        path: The file.
        grid: The mesh it belongs to.
        units: Of its values.
        air_flag: The value, in the file, of cells in the air; None when there is none.

    Returns:
        The model [upward, northing, easting], in kg/m3; NaN in the air.

    Raises:
        ValueError: No such file, an unreadable line (names it), or another number of values than cells.
    """
    _check_3d(grid)
    factor = checks.unit_factor("units", units, "density")
    values = np.array([_number(path, line, word) for line, words in _lines(path) for word in words])
    if values.size != grid.size:
        raise checks.invalid("path", f"'{path}' with {values.size} values", f"a model of {grid.size} cells, as its mesh")
    model = factor * values if air_flag is None else np.where(values == air_flag, np.nan, factor * values)
    depth, northing, easting = grid.shape
    return np.ascontiguousarray(model.reshape(northing, easting, depth).transpose(2, 0, 1)[::-1])


def write_model(path: str | os.PathLike[str], grid: Grid, model: np.ndarray, *, units: str = "g/cc", air_flag: float = -100.0) -> None:
    """Write a model [upward, northing, easting], in kg/m3, to 9 digits; NaN is written as the air flag.

    Raises:
        ValueError: A 2-D grid, a model of another shape, or a value that would read as the air flag.
    """
    _check_3d(grid)
    values = checks.shape("model", model, grid.shape) / checks.unit_factor("units", units, "density")
    if np.any(values == air_flag):
        raise checks.invalid("model", f"with a cell of {air_flag:g} {units}", "different from the air flag", "Choose another air_flag.")
    in_file_order = np.where(np.isnan(values), air_flag, values)[::-1].transpose(1, 2, 0).ravel()
    _write_lines(path, [f"{value + 0.0:.9g}" for value in in_file_order])


def _check_3d(grid: Grid) -> None:
    if grid.ndim != 3:
        raise checks.invalid("grid", f"with {grid.ndim} axes", "three-dimensional for a UBC-GIF file")


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number and words of every line that holds something besides a comment."""
    for number, line in enumerate(files.read_text(path).splitlines(), start=1):
        words = line.partition("!")[0].split()
        if words:
            yield number, words


def _write_lines(path: str | os.PathLike[str], lines: list[str]) -> None:
    with atomic_path(path) as temporary:
        Path(temporary).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _count(path: str | os.PathLike[str], lines: list[tuple[int, list[str]]]) -> int:
    if not lines:
        raise checks.invalid("path", f"'{path}'", "a UBC-GIF gravity observation file", "The file is empty.")
    line, words = lines[0]
    if len(words) != 1:
        advice = "Magnetic files begin with the inducing field and are not read here."
        raise files.bad_line(path, line, f"'{' '.join(words)}'", "the number of stations alone", advice)
    return _whole(path, line, words[0])


def _number(path: str | os.PathLike[str], line: int, word: str) -> float:
    try:
        value = float(word.lower().replace("d", "e"))  # Fortran writes 1.0D+00
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise files.bad_line(path, line, repr(word), "a finite number")
    return value


def _whole(path: str | os.PathLike[str], line: int, word: str) -> int:
    if not word.isdecimal() or int(word) == 0:
        raise files.bad_line(path, line, repr(word), "a positive whole number")
    return int(word)


def _widths(path: str | os.PathLike[str], line: int, word: str) -> list[float]:
    """The widths a word stands for: one, or n of them in the notation n*w."""
    count, star, width = word.rpartition("*")
    value = _number(path, line, width)
    if value <= 0:
        raise files.bad_line(path, line, repr(word), "a positive cell width")
    return [value] * (_whole(path, line, count) if star else 1)
