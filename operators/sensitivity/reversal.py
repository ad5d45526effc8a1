"""A loop run back from checkpoints: the schedule of `strategy`, carried out.

The loop is cut into segments of one length. Whoever owns it says how segments are run and how one is run back; here it is decided
which states are kept, and when they are let go.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .strategy import cost, kept_on_the_way

State = Any  # a nest of tensors: all that the next segment needs
Later = Any  # a nest of tensors: the derivative with respect to the state behind a segment, and what all later ones gave
#: (state at the start of the first one, segments) to the state behind the last one.
Run = Callable[[State, range], State]
#: (state at the start of a segment, the segment, what is behind it) to the derivative before it.
Back = Callable[[State, int, Later], Later]


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
    places = list(kept_on_the_way(segments, checkpoints))
    ends = [*places[1:], segments]
    for number in reversed(range(len(places))):
        later = _reverse(places[number], ends[number] - places[number], kept.pop(), checkpoints - 1 - number, run, back, later)
    return later


def _reverse(first: int, count: int, state: State, spare: int, run: Run, back: Back, later: Later) -> Later:
    """Run `count` segments back from a state on, with so many checkpoints to spare."""
    while count > 1:
        split = cost(count, spare)[1] if spare else count - 1
        # The state between has no name here, so that it is let go when the later segments are done.
        later = _reverse(first + split, count - split, run(_behind(state, later), range(first, first + split)), max(spare - 1, 0), run, back, later)
        count = split
    return back(_behind(state, later), first, later)


def _behind(state: State, later: Later) -> State:
    """A state that is not there before `later` is: graphs would compute all segments again at once, and hold them all."""
    if tf.executing_eagerly():
        return state
    with tf.control_dependencies(tf.nest.flatten(later)):
        return tf.nest.map_structure(tf.identity, state)
