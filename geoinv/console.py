"""What a running job shows: a live table of iterations and progress of long steps; plain lines where there is no terminal."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, final

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Columns = Sequence[tuple[str, str, str]]
_GAUSS_NEWTON: Columns = (
    ("iteration", "iteration", "d"),
    ("misfit phi_d", "phi_d", ".4g"),
    ("chi2", "chi2", ".3f"),
    ("phi_m", "phi_m", ".4g"),
    ("trade-off", "trade_off", ".3g"),
    ("CG steps", "cg_iterations", "d"),
    ("seconds", "seconds", ".1f"),
)
#: Heading, key of the record, and format of every column of each kind's iterations.
COLUMNS: dict[str, Columns] = {
    "gravity": _GAUSS_NEWTON,
    "traveltime": _GAUSS_NEWTON,
    "waveform": (
        ("band", "band", "d"),
        ("to Hz", "frequency", ".3g"),
        ("iteration", "iteration", "d"),
        ("misfit", "misfit", ".4g"),
        ("of the start's", "relative", ".1%"),
        ("evaluations", "evaluations", "d"),
        ("seconds", "seconds", ".1f"),
    ),
}


@final
class IterationTable:
    """A table that grows by one row an iteration; a context manager.

    Args:
        console: Where to show it. A terminal gets a live table; a file or a pipe one line for each record.
        columns: What to show; those of a kind of inversion stand in COLUMNS.
    """

    def __init__(self, console: Console, columns: Columns) -> None:
        self._console, self._columns = console, columns
        self._table = Table(*(heading for heading, _, _ in columns))
        for column in self._table.columns:
            column.justify = "right"
        self._live = Live(self._table, console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> "IterationTable":
        if self._live:
            self._live.start()
        else:
            self._print(heading for heading, _, _ in self._columns)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def add(self, record: Mapping[str, Any]) -> None:
        """Show one more iteration; a key that is missing leaves its cell empty."""
        cells = [format(record[key], form) if record.get(key) is not None else "" for _, key, form in self._columns]
        if self._live:
            self._table.add_row(*cells)
            self._live.refresh()
        else:
            self._print(cells)

    def _print(self, cells: Any) -> None:
        line = "  ".join(cell.rjust(max(len(heading), 9)) for cell, (heading, _, _) in zip(cells, self._columns, strict=True))
        self._console.print(line, highlight=False, soft_wrap=True)


def _ignore(units: float = 1) -> None:
    """The progress nobody sees."""


@contextmanager
def progress(console: Console, label: str, total: int | None = None) -> Iterator[Callable[[float], None]]:
    """Show the progress of a long step: a bar on a terminal, else one line at its start and one at its end.

    Args:
        console: Where to show it.
        label: What is being done.
        total: How many units of work there are, where known.

    Yields:
        A function to call with the number of units just done.
    """
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(label, total=total)
            yield partial(bar.advance, task)
        return
    start = time.perf_counter()
    console.print(f"{label} ...", highlight=False, soft_wrap=True)
    yield _ignore
    console.print(f"{label}: {time.perf_counter() - start:.1f} s", highlight=False, soft_wrap=True)
