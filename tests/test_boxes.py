"""Boxes of cells, and the partition of a grid by its layers: every cell exactly once."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoinv.operators.seismic.boxes import Box, partition
from geoinv.operators.seismic.lattice import Lattice


def marked(box: Box, whole: Box) -> np.ndarray:
    field = np.zeros(whole.shape, int)
    field[box.slices(whole)] = 1
    return field


def layers_of(whole: Box, widths: tuple[tuple[int, int], ...]) -> tuple[tuple[int, Box], ...]:
    """Slabs of so many cells at the (lower, upper) end of each axis, none of them empty."""
    found = []
    for axis, pair in enumerate(widths):
        for upper, width in enumerate(pair):
            start = tuple(n - width if each == axis and upper else 0 for each, n in enumerate(whole.shape))
            if width:
                found.append((axis, Box(start, tuple(width if each == axis else n for each, n in enumerate(whole.shape)))))
    return tuple(found)


@pytest.mark.parametrize(
    "widths", [*itertools.product(itertools.product((0, 2), (0, 3)), repeat=2), *itertools.product(((0, 0), (2, 3), (0, 1)), repeat=3)]
)
def test_partition_covers_every_cell_once(widths: tuple[tuple[int, int], ...]) -> None:
    whole = Box((0,) * len(widths), (7, 8, 6)[: len(widths)])
    layers = layers_of(whole, widths)
    inner, parts = partition(whole, layers)
    assert np.all(marked(inner, whole) + sum(marked(own, whole) for own, _ in parts) == 1)
    for (axis, layer), (own, overlaps) in zip(layers, parts, strict=True):
        # A layer's own part and its overlaps are the layer, each cell once; the overlaps lie in layers of earlier axes.
        np.testing.assert_array_equal(
            marked(own, whole) + sum((marked(each, whole) for each in overlaps), np.zeros(whole.shape, int)), marked(layer, whole)
        )
        earlier = sum((marked(other, whole) for across, other in layers if across < axis), np.zeros(whole.shape, int))
        assert all(np.all(earlier[each.slices(whole)] > 0) for each in overlaps)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([2, 4, 6, 8]), st.booleans(), st.lists(st.tuples(*[st.sampled_from([0, 1, 2, 5])] * 2), min_size=2, max_size=3))
def test_lattices_are_cut_so_too(order: int, free: bool, widths: list[tuple[int, int]]) -> None:
    """With what the stencils of a layer reach: sums over the cells see each layer in each of its cells once."""
    if free:
        widths = [(widths[0][0], 0), *widths[1:]]
    shape = tuple(order + 1 + sum(pair) for pair in widths)
    lattice = Lattice(shape, (10.0,) * len(shape), order, tuple(widths), free)
    inner, parts = lattice.parts
    total = marked(inner, lattice.whole)
    for strip, (own, overlaps) in zip(lattice.strips, parts, strict=True):
        total += marked(own, lattice.whole)
        touched = marked(own, lattice.whole) + sum((marked(each, lattice.whole) for each in overlaps), np.zeros(shape, int))
        np.testing.assert_array_equal(touched, marked(strip.touched, lattice.whole))
    assert np.all(total == 1)


def test_boxes_are_slices_of_one_another() -> None:
    box, cover = Box((3, -1), (4, 5)), Box((1, -2), (8, 9))
    assert box.slices(cover) == (slice(2, 6), slice(1, 6))
    assert (box.size, box.stop) == (20, (7, 4))
    assert box.moved(1, -2) == Box((3, -3), (4, 5))
    assert box.grown(1) == Box((2, -2), (6, 7))
    assert box.common(Box((5, 0), (9, 2))) == Box((5, 0), (2, 2))
    assert box.common(Box((7, 0), (9, 2))).size == 0
    assert box.without(Box((0, -1), (5, 5)), 0) == Box((5, -1), (2, 5))
    assert box.without(Box((6, -1), (5, 5)), 0) == Box((3, -1), (3, 5))
