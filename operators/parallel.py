"""Parts of a computation that do not depend on one another, side by side: one on each core, results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import tensorflow as tf

from . import checks

Result = TypeVar("Result")


#: What `at_most` allows now.
_LIMITS: list[int] = []


def cores() -> int:
    """How many parts run side by side: the cores that this process may use, or fewer where `at_most` says so."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([there, *_LIMITS])


@contextmanager
def at_most(count: int | None) -> Iterator[None]:
    """No more parts side by side meanwhile, in any thread, where a number is given: each part holds what it needs."""
    limits = [] if count is None else [checks.count("count", count)]
    _LIMITS.extend(limits)
    try:
        yield
    finally:
        for limit in limits:
            _LIMITS.remove(limit)


def each(function: Callable[[int], Result], count: int) -> list[Result]:
    """``function(part)`` of every part, as many at a time as there are cores, in order.

    In a graph the parts are nodes that do not depend on one another, which TensorFlow runs side by side by itself; in eager mode
    threads do that, for a compiled program waits outside of Python. What a part computes does not depend on the others: results are
    the same bit for bit, however many there are at a time.
    """
    if not tf.executing_eagerly() or count == 1:
        return [function(part) for part in range(count)]
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(function, range(count)))


def in_turn(function: Callable[[int], Result], count: int) -> Iterator[Result]:
    """The same one by one, each when it is asked for: ahead of that, as many are computed as there are cores."""
    if not tf.executing_eagerly() or count == 1:
        yield from map(function, range(count))
        return
    with ThreadPoolExecutor(cores()) as pool:
        try:
            rest = iter(range(count))
            ahead = deque(pool.submit(function, part) for part in islice(rest, cores()))
            while ahead:
                found = ahead.popleft().result()
                ahead.extend(pool.submit(function, part) for part in islice(rest, 1))
                yield found
        finally:  # where one failed, or nobody asks for more
            pool.shutdown(cancel_futures=True)
