"""Text tables (CSV, tab or space separated): named columns of numbers, each cell traceable to its line."""

import csv
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from geoinv.operators import checks

from . import files

#: What stands for "no value" in a cell, in lower case.
MISSING = ("", "nan", "na")


@final
@dataclass(frozen=True, eq=False)
class Table:
    """The cells of a text table.

    Args:
        path: The file, for messages.
        columns: Column names; "1", "2", ... where the file has no header.
        rows: The cells, as text [row][column].
        lines: The line of the file on which each row ends.
    """

    path: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    lines: Sequence[int]

    def text(self, column: str) -> list[str]:
        """The cells of a column as written.

        Raises:
            ValueError: The column is absent, or two columns have this name.
        """
        if self.columns.count(column) != 1:
            name = f"'{column}' of {self.path}"
            if column in self.columns:
                raise checks.invalid("column", f"{name}, which is there twice", "there once")
            raise checks.invalid("column", name, f"one of {', '.join(map(repr, self.columns))}", "It is not there.")
        at = self.columns.index(column)
        return [row[at] for row in self.rows]

    def missing(self, column: str) -> np.ndarray:
        """Whether each cell of a column holds no value, bool [row]."""
        return np.array([cell.lower() in MISSING for cell in self.text(column)], dtype=bool)

    def numbers(self, column: str) -> np.ndarray:
        """The cells of a column as float64 [row].

        Raises:
            ValueError: A cell is blank, unreadable, NaN or infinite; names its line.
        """
        cells = self.text(column)
        values = np.array([_number(cell) for cell in cells], dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            cell, line = cells[bad[0]], self.lines[bad[0]]
            advice = f"{bad.size} of {values.size} values of this column are not."
            raise files.bad_line(self.path, line, f"{cell!r} in column '{column}'", "a finite number", advice)
        return values

    def keep(self, rows: np.ndarray) -> "Table":
        """The table with only the rows where the bool array `rows` is true."""
        chosen = np.flatnonzero(rows).tolist()
        return Table(self.path, self.columns, [self.rows[i] for i in chosen], [self.lines[i] for i in chosen])


def read_table(path: str | os.PathLike[str], *, delimiter: str | None = None) -> Table:
    """Read a text table; blank lines and lines that begin with '#' are skipped, and a first line of numbers means no header.

    Args:
        path: A text file, possibly compressed (.gz, .bz2, .xz).
        delimiter: The character between columns; " " means any white space; None finds comma, semicolon, tab or white space.

    Raises:
        ValueError: No such file, no rows, or a row with too few or too many cells (names the line).
    """
    text = files.read_text(path)
    records = _records(str(path), text, _delimiter(text) if delimiter is None else delimiter)
    records = ((line, cells) for line, cells in records if any(cells) and not cells[0].startswith("#"))
    first = next(records, None)
    if first is None:
        raise checks.invalid("path", f"'{path}'", "a table with a header and rows", "The file is empty.")
    rows = list(records)
    columns = tuple(first[1])
    if all(math.isfinite(_number(cell)) for cell in columns):
        rows.insert(0, first)
        columns = tuple(str(i + 1) for i in range(len(columns)))
    if not rows:
        raise checks.invalid("path", f"'{path}'", "a table with a header and rows", "There are no rows below the header.")
    for line, cells in rows:
        # A trailing separator is common and harmless; any other mismatch shifts values into wrong columns.
        if len(cells) < len(columns) or any(cells[len(columns) :]):
            raise files.bad_line(path, line, f"with {len(cells)} cells", f"of {len(columns)} cells like the first line")
    return Table(str(path), columns, [cells for _, cells in rows], [line for line, _ in rows])


def _delimiter(text: str) -> str:
    """The first of comma, semicolon and tab in the first line that counts, else white space."""
    first = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    return next((mark for mark in ",;\t" if mark in first), " ")


def _records(path: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every record."""
    if delimiter == " ":
        yield from ((number, line.split()) for number, line in enumerate(text.splitlines(), start=1))
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        for cells in reader:
            yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise files.bad_line(path, reader.line_num, f"({error})", "a line of a text table") from error


def _number(cell: str) -> float:
    """The number a cell holds, NaN where it holds none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan
