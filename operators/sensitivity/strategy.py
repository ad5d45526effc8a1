r"""How a loop over time steps is differentiated: what it keeps on the way forward for the way back.

The adjoint of step n needs what step n computed. `StoreAll` keeps that of every step; `Every` of every k-th one, which is right
while the product of the two wavefields is sampled finely enough; `Checkpointed` keeps a few complete states and computes the rest
again, segment by segment; `Boundary` runs the
step backwards. With s checkpoints the cheapest order of recomputation is a recursion over splits (Griewank & Walther,
ACM TOMS 26, 2000, 19-45): from a state at the first of l segments go on m segments, keep the state, and reverse the later l - m
segments before the first m,

.. math:: t(l, s) = \min_{0 < m < l} \; m + t(l - m, s - 1) + t(m, s), \qquad t(1, s) = 1, \quad t(l, 0) = l (l + 1) / 2.

Nothing here needs TensorFlow.
"""

import abc
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, final

from .. import checks


class Plan(NamedTuple):
    """What is kept of a loop.

    Args:
        every: Steps between those whose inner state is kept, within a segment.
        segment: Steps of a segment; one covers the whole loop unless there are checkpoints.
        checkpoints: How many whole states are kept at a time, that at the start included.
        boundary: Whether of every step only what its reversal cannot know is kept: that of the absorbing layers.
        level: What of a signal's amplitude may lie beyond its band, where steps are left out.
    """

    every: int
    segment: int
    checkpoints: int
    boundary: bool = False
    level: float = 0.0


class Strategy(abc.ABC):
    """What a loop keeps for its derivative."""

    @abc.abstractmethod
    def plan(self, steps: int, state: float, size: int) -> Plan:
        """For a loop of so many steps whose whole state takes `size` bytes, as much as the inner state of `state` steps."""


@final
@dataclass(frozen=True)
class StoreAll(Strategy):
    """Keep every step: exact and fastest, with the most memory."""

    def plan(self, steps: int, state: float, size: int) -> Plan:
        return Plan(1, steps, 1)


@final
@dataclass(frozen=True)
class Every(Strategy):
    """Keep every k-th step: 1 / k of the memory.

    The gradient is a sum over time of a product of two fields; taking every k-th term, k times, is right as long as the product has no
    frequency from 1 / (k dt) on that matters, that is while k dt < 1 / (f_source + f_residual). The gradient then agrees with that of
    `StoreAll` to twice the level, 1e-3 of its norm by default.

    Args:
        steps: k.
        level: What of a signal's root-mean-square amplitude may lie beyond the band that it is said to have (see `wavelets.band`).
    """

    steps: int
    level: float = field(default=5e-4, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        checks.count("steps", self.steps)
        if not 0 < self.level < 1:
            raise checks.invalid("level", self.level, "between 0 and 1")

    def plan(self, steps: int, state: float, size: int) -> Plan:
        return Plan(self.steps, steps, 1, level=self.level)


@final
@dataclass(frozen=True, repr=False)
class Checkpointed(Strategy):
    """Keep n whole states and compute the steps between them again: exact, for a small part of the memory.

    Args:
        states: n, how many are kept at a time, that at the start included. What may be run back again, such as a linearization, holds on
            to those of its way forward besides.
        memory: Instead: bytes that the states and the steps between two of them may take (of a survey, those of one shot), beside the
            few states that a step works on.
    """

    states: int | None = None
    memory: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if (self.states is None) == (self.memory is None):
            raise checks.invalid("checkpoints", "with both states and memory" if self.memory else "without a number", "given by one of the two")
        if self.states is not None:
            checks.count("states", self.states)
        else:
            checks.positive("memory", self.memory)

    def __repr__(self) -> str:
        return f"Checkpointed(states={self.states})" if self.memory is None else f"Checkpointed(memory={self.memory:g})"

    def plan(self, steps: int, state: float, size: int) -> Plan:
        if self.states is not None:
            # A segment's inner states take about the memory that the checkpoints take.
            return Plan(1, min(steps, max(1, round(self.states * state))), self.states)
        memory, inner = float(self.memory or 0), size / state
        if steps * inner <= memory:
            return Plan(1, steps, 1)
        if memory < 2 * size + inner:
            least = f"at least {math.ceil(2 * size + inner)} bytes"
            raise checks.invalid("memory", f"{memory:.4g} bytes", least, "That is two states of this loop, and what the shortest segment keeps.")
        # Beside the states that are kept there is the one that a segment is run back from.
        states = max(1, int(memory / (2 * size)) - 1)
        return Plan(1, int((memory - (states + 1) * size) / inner), states)


@final
@dataclass(frozen=True)
class Boundary(Strategy):
    """Keep what happens in the absorbing layers, and run the rest backwards from its end.

    Without absorption the leapfrog step is its own inverse: two fields at the end give all earlier ones. Exact but for rounding, which
    the way back adds to: over some hundred steps the gradient agrees with that of `StoreAll` to 1e-9 in float64 and 1e-3 in float32 of
    its norm. The memory is
    the layers' share of that of `StoreAll`; nothing where no side absorbs. Costs one more run of the field.
    """

    def plan(self, steps: int, state: float, size: int) -> Plan:
        return Plan(1, steps, 1, boundary=True)


@final
@dataclass(frozen=True)
class Implicit(Strategy):
    """Keep the end alone, where it is a fixed point: its derivative does not depend on the way to it (see `fixed_point`)."""

    def plan(self, steps: int, state: float, size: int) -> Plan:
        raise checks.invalid("strategy", self, "StoreAll(), Every(k), Checkpointed(n) or Boundary() for a loop", "Implicit() is for fixed points.")


def cost(segments: int, checkpoints: int) -> tuple[int, int]:
    """(segment runs, first split) of reversing so many segments from a state, with so many more checkpoints to spare.

    With s states, that at the start included, and r runs of each segment at most, ``reach(s, r) = binomial(s + r, s)`` segments can be
    reversed. For l segments and the least r that reaches them, ``t = (r + 1) l - reach(s + 1, r - 1)``, and the splits between
    ``max(reach(s, r - 2), l - reach(s - 1, r))`` and ``min(reach(s, r - 1), l - reach(s - 1, r - 1))`` are the best ones.
    """
    if segments == 1:
        return 1, 0
    if checkpoints == 0:
        return segments * (segments + 1) // 2, 0
    s, r = checkpoints + 1, 1
    while _reach(s, r) < segments:
        r += 1
    return (r + 1) * segments - _reach(s + 1, r - 1), max(_reach(s, r - 2), segments - _reach(s - 1, r), 1)


def _reach(states: int, runs: int) -> int:
    return math.comb(states + runs, states) if runs >= 0 else 0


def kept_on_the_way(segments: int, checkpoints: int) -> Iterator[int]:
    """The segments at whose start the first, forward run keeps its state: 0 first."""
    first, spare = 0, checkpoints - 1
    yield first
    while segments > 1 and spare > 0:
        split = cost(segments, spare)[1]
        first, segments, spare = first + split, segments - split, spare - 1
        yield first
