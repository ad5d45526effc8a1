"""A progress bar for work that turns out to be long."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")

#: Seconds after which a bar appears.
PATIENCE = 2.0


def tracked(items: Iterable[Item], text: str, total: int | None = None) -> Iterator[Item]:
    """The items; where they take longer than a moment, and in a terminal, with a bar and the time that is left.

    Args:
        items: Of which `total` are expected, where they do not know themselves.
        text: What is being done.
        total: How many.
    """
    total = len(items) if total is None and isinstance(items, Sized) else total
    began, bar, task = time.monotonic(), None, None
    try:
        for number, item in enumerate(items):
            if bar is None and sys.stdout.isatty() and time.monotonic() - began > PATIENCE:
                from rich.progress import Progress  # not needed by most

                bar = Progress(transient=True)
                bar.start()
                task = bar.add_task(text, total=total, completed=number)
            yield item
            if bar is not None and task is not None:
                bar.update(task, completed=number + 1)
    finally:
        if bar is not None:
            bar.stop()
