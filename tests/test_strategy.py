"""Reversal with checkpoints: the binomial optimum of Griewank & Walther, and the errors of use."""

import functools
import itertools
import math
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

from geoinv.operators.seismic.shots import Loop
from geoinv.operators.sensitivity import Boundary, Checkpointed, Every, StoreAll, strategy


def binomial_cost(segments: int, checkpoints: int) -> int:
    """Segment runs by Griewank & Walther's formula (ACM TOMS 26, 2000, eq. 2): with r the least number such that
    ``binomial(s + r, s) >= l``, ``r l - binomial(s + r, r - 1)`` recomputed segments; and each one run once more as it is reversed.
    """
    r = next(r for r in range(segments + 1) if math.comb(checkpoints + r, checkpoints) >= segments)
    return r * segments - (math.comb(checkpoints + r, r - 1) if r else 0) + segments


@pytest.mark.parametrize("checkpoints", [1, 2, 3, 5, 8])
def test_cost_is_the_binomial_optimum(checkpoints: int) -> None:
    """Griewank & Walther count the state at the start as a checkpoint; here it is there anyway."""
    for segments in range(1, 41):
        assert strategy.cost(segments, checkpoints - 1)[0] == binomial_cost(segments, checkpoints), segments


@functools.cache
def best_split(segments: int, checkpoints: int) -> tuple[int, int]:
    """(segment runs, first split), by trying them all: the recursion in the module's docstring."""
    if segments == 1:
        return 1, 0
    if checkpoints == 0:
        return segments * (segments + 1) // 2, 0
    tried = range(1, segments)
    return min((split + best_split(segments - split, checkpoints - 1)[0] + best_split(split, checkpoints)[0], split) for split in tried)


def test_cost_and_first_split_are_those_of_the_recursion() -> None:
    for checkpoints in range(8):
        for segments in range(1, 60):
            assert strategy.cost(segments, checkpoints) == best_split(segments, checkpoints), (segments, checkpoints)
    assert strategy.cost(10**6, 20)[0] == binomial_cost(10**6, 21), "no table of a million rows"


class State:
    """Stands for a wavefield."""


class Follow:
    """Takes the place of the runs of a loop: notes what they are asked for, and how many states are held."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.order: list[int] = []
        self.runs, self.most = 0, 0
        self._held: weakref.WeakSet[State] = weakref.WeakSet()
        monkeypatch.setattr(Loop, "_run", self._run)
        monkeypatch.setattr(Loop, "_back", self._back)

    def state(self) -> State:
        made = State()
        self._held.add(made)
        self.most = max(self.most, len(self._held))
        return made

    def _run(self, medium: object, shot: object, state: State, segments: range, keeping: object) -> tuple[tf.Tensor, State, None]:
        self.runs += len(segments)
        return tf.zeros([1, len(segments)]), self.state(), None

    def _back(self, medium: object, shot: object, segment: int, images: None, residual: object, later: object) -> object:
        self.order.append(segment)
        return later


@pytest.mark.parametrize(("segments", "checkpoints"), [(7, 1), (10, 3), (23, 4), (23, 30)])
def test_every_segment_is_reversed_once_within_the_budget(segments: int, checkpoints: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Follow(monkeypatch)
    scheme: Any = SimpleNamespace(rest=lambda dtype: None)
    loop = Loop(scheme, segments, strategy.Plan(1, 1, checkpoints), sources=None, receivers=None)  # type: ignore[arg-type]
    medium, shot = SimpleNamespace(material=tf.zeros([])), SimpleNamespace(start=seen.state(), wavelet=tf.zeros([1, segments]))
    record = loop.record(medium, shot)[2]  # type: ignore[arg-type]
    assert seen.runs == segments
    loop.adjoint(medium, shot, record, tf.zeros([1, segments]))  # type: ignore[arg-type]
    assert seen.order == list(range(segments))[::-1]
    assert seen.most <= checkpoints + 2, "those that are kept, where a run begins, and where it ends"
    # The first run, which is there anyway, serves as the recursion's first way forward.
    assert seen.runs - segments <= binomial_cost(segments, checkpoints)


def test_states_kept_on_the_way_begin_with_the_first_and_are_within_the_budget() -> None:
    for segments in range(1, 30):
        for checkpoints in range(1, 8):
            kept = list(strategy.kept_on_the_way(segments, checkpoints))
            assert kept[0] == 0 and kept == sorted(set(kept)) and kept[-1] < segments and len(kept) <= checkpoints


def test_plans() -> None:
    assert StoreAll().plan(100, 9.0, 8) == (1, 100, 1, False, 0.0)
    assert Every(4).plan(100, 9.0, 8) == (4, 100, 1, False, 5e-4)
    assert Boundary().plan(100, 9.0, 8) == (1, 100, 1, True, 0.0)
    # The steps of a segment take the memory of the checkpoints: 3 states, each as large as what 5 steps keep.
    assert Checkpointed(3).plan(100, 5.0, 8) == (1, 15, 3, False, 0.0)
    assert Checkpointed(30).plan(100, 5.0, 8) == (1, 100, 30, False, 0.0)


@pytest.mark.parametrize("kind", [Every, Checkpointed])
@pytest.mark.parametrize("given", [0, -1, 1.5, "2", True])
def test_counts_are_whole_numbers(kind: type, given: object) -> None:
    with pytest.raises(ValueError, match="a whole number, 1 or more"):
        kind(given)


def test_checkpoints_within_a_budget() -> None:
    """Of bytes: half of them for the states that are kept and the one in hand, the rest for the steps between two of them."""
    assert Checkpointed(memory=20.0).plan(100, 5.0, 8) == (1, 2, 1, False, 0.0), "two states, and two steps of a fifth of one"
    assert Checkpointed(memory=38.0).plan(100, 0.5, 8) == (1, 1, 1, False, 0.0), "a step of two states, beside two: not two"
    assert Checkpointed(memory=48.0).plan(100, 5.0, 8) == (1, 15, 2, False, 0.0)
    assert Checkpointed(memory=160.0).plan(100, 5.0, 8) == StoreAll().plan(100, 5.0, 8), "100 steps of a fifth of a state of 8 bytes"
    with pytest.raises(
        ValueError, match=r"'memory' 17 bytes: must be at least 18 bytes.*two states of this loop, and what the shortest segment keeps"
    ):
        Checkpointed(memory=17.0).plan(100, 5.0, 8)
    for memory, steps, state, size in itertools.product((50, 333, 5000), (7, 100, 3000), (0.5, 1.0, 5.0), (3, 8)):
        _, segment, states, *_ = Checkpointed(memory=memory).plan(steps, state, size)
        held = 0 if segment >= steps else (states + 1) * size
        assert segment >= 1 and held + segment * size / state <= memory * (1 + 1e-12)
    for given in ({}, {"states": 2, "memory": 1e6}):
        with pytest.raises(ValueError, match=r"'checkpoints' with.*: must be given by one of the two"):
            Checkpointed(**given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'memory'"):
        Checkpointed(memory=-1.0)
