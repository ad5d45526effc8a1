"""Reversal with checkpoints: the binomial optimum of Griewank & Walther, and the errors of use."""

import math

import pytest

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


def replay(segments: int, checkpoints: int) -> tuple[list[int], int, int]:
    """(order in which segments are reversed, segment runs after the first forward one, most states held) by the rules of the module."""
    reversed_order, runs, held, most = [], 0, 0, 0
    places = list(strategy.kept_on_the_way(segments, checkpoints))
    held = most = len(places)

    def reverse(first: int, count: int, spare: int) -> None:
        nonlocal runs, held, most
        if count == 1:
            runs += 1
            reversed_order.append(first)
            return
        split = strategy.cost(count, spare)[1] if spare else count - 1
        runs += split
        held += 1
        most = max(most, held if spare else held - 1)  # the last stretch is run from its start each time, with nothing kept
        reverse(first + split, count - split, max(spare - 1, 0))
        held -= 1
        reverse(first, split, spare)

    for number in reversed(range(len(places))):
        end = [*places[1:], segments][number]
        reverse(places[number], end - places[number], checkpoints - 1 - number)
        held -= 1
    return reversed_order, runs, most


@pytest.mark.parametrize(("segments", "checkpoints"), [(1, 1), (7, 1), (10, 3), (23, 4), (23, 30)])
def test_every_segment_is_reversed_once_within_the_budget(segments: int, checkpoints: int) -> None:
    order, runs, most = replay(segments, checkpoints)
    assert order == list(range(segments))[::-1]
    assert most <= checkpoints
    # The first run, which is there anyway, serves as the recursion's first way forward.
    assert runs + segments <= binomial_cost(segments, checkpoints) + segments


def test_states_kept_on_the_way_begin_with_the_first_and_are_within_the_budget() -> None:
    for segments in range(1, 30):
        for checkpoints in range(1, 8):
            kept = list(strategy.kept_on_the_way(segments, checkpoints))
            assert kept[0] == 0 and kept == sorted(set(kept)) and kept[-1] < segments and len(kept) <= checkpoints


def test_plans() -> None:
    assert StoreAll().plan(100, 9.0) == (1, 100, 1, False, 0.0)
    assert Every(4).plan(100, 9.0) == (4, 100, 1, False, 5e-4)
    assert Boundary().plan(100, 9.0) == (1, 100, 1, True, 0.0)
    # The steps of a segment take the memory of the checkpoints: 3 states, each as large as what 5 steps keep.
    assert Checkpointed(3).plan(100, 5.0) == (1, 15, 3, False, 0.0)
    assert Checkpointed(30).plan(100, 5.0) == (1, 100, 30, False, 0.0)


@pytest.mark.parametrize("kind", [Every, Checkpointed])
@pytest.mark.parametrize("given", [0, -1, 1.5, "2", None])
def test_counts_are_whole_numbers(kind: type, given: object) -> None:
    with pytest.raises(ValueError, match="a whole number, 1 or more"):
        kind(given)
