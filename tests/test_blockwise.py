"""Operators in blocks: the operator itself to rounding, sums by one tree wherever branches of it are computed."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from geoinv.blockwise import Blockwise, Group, Span, added, blockwise, cut, total
from geoinv.memory import held
from geoinv.operators.gravity.prism import GravityPrism
from geoinv.operators.grid import Grid
from geoinv.operators.seismic import Eikonal
from geoinv.operators.seismic.arrivals import Arrivals
from geoinv.operators.testing import dot_test, jvp_vjp_check, mode_test, random, relative_difference, taylor_test
from geoinv.traveltime import job as traveltime_job

GRID = Grid.uniform((4, 5, 6), (50.0, 60.0, 70.0), (-200.0, 0.0, 0.0))


def prism(count: int = 9) -> GravityPrism:
    drawn = np.random.default_rng(3).uniform(0, 1, (3, count))
    return GravityPrism(GRID, {"upward": 1 + 20 * drawn[0], "northing": 300 * drawn[1], "easting": 420 * drawn[2]})


def arrivals() -> tuple[Arrivals, list[np.ndarray], list[np.ndarray], tf.Tensor]:
    """Of shots whose picks are mixed, their blocks, and the slowness of nodes."""
    drawn = np.random.default_rng(3)
    shots = np.array([2, 0, 1, 4, 3, 0, 2, 1, 4, 3, 0])
    places = np.stack([np.full(5, -1.0), np.linspace(20, 280, 5), np.linspace(400, 30, 5)], axis=1)
    receivers = np.stack([np.full(11, -190.0), drawn.uniform(0, 300, 11), drawn.uniform(0, 420, 11)], axis=1)
    operator = Eikonal(GRID, places, receivers, shots)
    units = [np.array([0, 1]), np.array([2]), np.array([3, 4])]
    rows = [np.concatenate([operator.arrivals.ways[shot].picks for shot in block]) for block in units]
    return operator.arrivals, units, rows, operator.of_nodes.forward(tf.constant(drawn.uniform(4e-4, 6e-4, GRID.shape)))


def test_blocks_are_the_operator() -> None:
    whole, blocks = prism(), cut(9, 2.5)
    part = blockwise(whole, blocks, blocks)
    assert isinstance(part, Blockwise) and [block.size for block in blocks] == [3, 2, 2, 2]
    model, w = random(whole.model_spec, 0), random(whole.data_spec, 1)
    assert part.data_spec == tf.TensorSpec((9, 1), tf.float64)
    assert relative_difference(part(model), whole(model)) < 1e-14
    assert relative_difference(part.linearize(model).vjp(w), whole.linearize(model).vjp(w)) < 1e-14
    assert dot_test(part) < 1e-13 and taylor_test(part) > 1.9 and jvp_vjp_check(part) < 1e-13 and mode_test(part) < 1e-13


def test_data_stand_where_those_of_the_operator_do() -> None:
    whole, units, rows, model = arrivals()
    part = blockwise(whole, units, rows)
    at, other = part.linearize(model), whole.linearize(model)
    np.testing.assert_array_equal(at.data, other.data)
    np.testing.assert_array_equal(part.forward(model), other.data)
    v, w = random(whole.model_spec, 0), random(whole.data_spec, 1)
    np.testing.assert_array_equal(at.jvp(v), other.jvp(v))
    assert relative_difference(at.vjp(w), other.vjp(w)) < 1e-14
    graph = tf.function(lambda m, w: part.linearize(m).pullback(w))
    assert relative_difference(graph(model, w), at.vjp(w)) < 1e-15, "TensorFlow may reorder sums in a graph"


def test_gradients_do_not_depend_on_what_was_asked_before() -> None:
    """Bit for bit: after a worker is lost another one has linearized anew."""
    whole, _, _, model = arrivals()
    at, w = whole.linearize(model), random(whole.data_spec, 1)
    before = at.vjp(w)
    at.jvp(random(whole.model_spec, 0))  # triangles are assembled for it
    np.testing.assert_array_equal(at.vjp(w), before)


def test_units_are_blocks() -> None:
    whole, units, rows, model = arrivals()
    data, part = whole(model).numpy(), Blockwise([whole.subset(block) for block in units], rows)
    np.testing.assert_array_equal(part.subset([2, 0])(model), data[np.sort(np.concatenate([rows[0], rows[2]]))])
    with pytest.raises(ValueError, match=r"'units' \[3\]: must be some of the numbers from 0 to 2"):
        part.subset([3])


def test_sums_are_those_of_one_tree_wherever_it_is_cut() -> None:
    """Numbers whose sum depends on the order, to the last bit, in any two or three groups."""
    values = [tf.constant(value) for value in np.random.default_rng(0).normal(size=13) * 10.0 ** np.arange(-6, 7)]
    whole = Span(0, 13)
    expected = added(iter(values), whole)
    low, high = whole.halves
    assert (low, high) == (Span(0, 6), Span(6, 13)) and expected == added(iter(values[:6]), low) + added(iter(values[6:]), high)
    assert float(expected) != float(sum(values[1:], values[0])), "in turn they make another sum"
    for ends in itertools.chain(itertools.combinations(range(1, 13), 1), itertools.combinations(range(1, 13), 2)):
        sums = {}
        for span in map(Span._make, itertools.pairwise((0, *ends, 13))):
            parts = iter(span.of(values))
            found = {branch: added(parts, branch) for branch in span.branches(whole)}
            assert len(found) <= 6 and next(parts, None) is None
            sums |= found
        assert total(sums, whole) == expected


def test_one_block_is_the_operator_itself() -> None:
    whole = prism(3)
    assert blockwise(whole, [np.arange(3)], [np.arange(3)]) is whole
    assert isinstance(blockwise(whole, [np.arange(3)], [np.array([1, 0, 2])]), Blockwise)


def test_a_group_says_how_much_it_holds() -> None:
    """Else Dask would take it for a few bytes, and send it about."""
    whole = prism()
    group = Group([whole], Span(0, 1), Span(0, 1))
    for each in (group, group.linearize(random(whole.model_spec, 0))):
        assert 8 * 9 * GRID.size <= each.__sizeof__() < 10 * 9 * GRID.size


def test_rows_are_given_once() -> None:
    whole = prism(4)
    halves = [whole.subset([0, 1]), whole.subset([2, 3])]
    with pytest.raises(ValueError, match="'rows' that are missing or given twice: must be each number from 0 to 3 once"):
        Blockwise(halves, [np.array([0, 1]), np.array([1, 2])])
    with pytest.raises(ValueError, match=r"'rows' of shape \(3,\): must be of shape \(2,\)"):
        Blockwise(halves, [np.array([0, 1]), np.array([2, 3, 4])])


def test_blocks_of_eight_stations_are_slices_of_a_kernel() -> None:
    """And no copies: a kernel may be as large as memory allows."""
    whole = prism(40)
    address = np.asarray(whole._kernel).ctypes.data
    for block in cut(40, 16.0, 8):
        part = np.asarray(whole.subset(block)._kernel)
        assert part.ctypes.data == address + 8 * GRID.size * int(block[0])
        np.testing.assert_array_equal(part, np.asarray(whole._kernel)[block])


def test_blocks_share_what_triangles_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _, _, model = arrivals()
    monkeypatch.setattr(traveltime_job, "BLOCK", 1.0)
    part = traveltime_job.in_blocks(dataclasses.replace(whole, assembled=2e4), None)
    assert isinstance(part, Blockwise) and [block.assembled for block in part.blocks] == [4e3] * 5
    at, w = part.linearize(model), random(part.data_spec, 1)
    held_before = held(at)
    at.jvp(random(whole.model_spec, 0))
    few = held(at) - held_before
    assert few < 2e4
    roomy = traveltime_job.in_blocks(whole, None).linearize(model)
    roomy.jvp(random(whole.model_spec, 0))
    assert held(roomy) - held_before > 5e4, "triangles of all shots, which numba made"
    np.testing.assert_array_equal(at.vjp(w), roomy.vjp(w))


@pytest.mark.parametrize(
    ("count", "size", "multiple", "expected"),
    [(10, 4.0, 1, [5, 5]), (10, 100.0, 1, [10]), (3, 0.1, 1, [1, 1, 1]), (1, 5.0, 1, [1]), (21, 5.0, 8, [8, 8, 5]), (7, 1.0, 8, [7])],
)
def test_blocks_are_even(count: int, size: float, multiple: int, expected: list[int]) -> None:
    blocks = cut(count, size, multiple)
    assert [block.size for block in blocks] == expected
    np.testing.assert_array_equal(np.concatenate(blocks), np.arange(count))
