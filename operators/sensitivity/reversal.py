"""A loop run back from checkpoints: the schedule of `strategy`, carried out.

The loop is cut into segments of one length. Whoever owns it says how segments are run and how one is run back; here it is decided
which states are kept, and when they are let go.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from .strategy import cost, kept_on_the_way

State = Any  # a nest of tensors: all that the next segment needs
Later = Any  # a nest of tensors: the derivative with respect to the state behind a segment, and what all later ones gave
#: (state at the start of the first one, segments) to the state behind the last one.
Run = Callable[[State, range], State]
#: (state at the start of a segment, the segment, what is behind it) to the derivative before it.
Back = Callable[[State, int, Later], Later]


class Move(NamedTuple):
    """From the state on top of the stack, which is before these segments, on to a new one behind them; or back over the one, and off with it."""

    segments: range
    back: bool


def run_kept(segments: int, checkpoints: int, state: State, run: Run) -> tuple[State, list[State]]:
    """The state at the end, and those that are kept for `run_back`.

    Args:
        segments: How many.
        checkpoints: How many states may be kept at a time, that at the start included.
        state: At the start.
        run: Runs segments, keeping nothing.
    """
    places, kept = list(kept_on_the_way(segments, checkpoints)), []
    for first, stop in zip(places, [*places[1:], segments], strict=True):
        kept.append(state)
        state = run(state, range(first, stop))
    return state, kept


def run_back(segments: int, checkpoints: int, kept: list[State], run: Run, back: Back, later: Later) -> Later:
    """What is left before the first segment, of `later` behind the last one.

    Args:
        segments, checkpoints, run: As of `run_kept`.
        kept: What that kept; emptied, for each state is let go once it has served.
        back: Runs one segment back, last ones first.
        later: Behind the last segment.
    """
    for move in moves(segments, checkpoints):
        if move.back:
            later = back(_behind(kept.pop(), later), move.segments.start, later)
        else:
            kept.append(run(_behind(kept[-1], later), move.segments))
    return later


def moves(segments: int, checkpoints: int) -> Iterator[Move]:
    """What is done in turn to run back from the states that `run_kept` keeps, as a stack, the last one on top."""
    places = list(kept_on_the_way(segments, checkpoints))
    ends = [*places[1:], segments]
    for number in reversed(range(len(places))):
        yield from _moves(places[number], ends[number] - places[number], checkpoints - 1 - number)


def _moves(first: int, count: int, spare: int) -> Iterator[Move]:
    """To run `count` segments back from the state on top, with so many checkpoints to spare."""
    while count > 1:
        split = cost(count, spare)[1] if spare else count - 1
        yield Move(range(first, first + split), back=False)
        yield from _moves(first + split, count - split, max(spare - 1, 0))
        count = split
    yield Move(range(first, first + 1), back=True)


def _behind(state: State, later: Later) -> State:
    """A state that is not there before `later` is: graphs would compute all segments again at once, and hold them all."""
    if tf.executing_eagerly():
        return state
    with tf.control_dependencies(tf.nest.flatten(later)):
        return tf.nest.map_structure(tf.identity, state)
