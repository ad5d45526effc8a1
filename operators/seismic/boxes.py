"""Boxes of cells: where an array lies on a grid, and the part of it that lies in another box.

Positions are cells of one grid; an array may begin before its first cell (a halo) or hold a few of its cells only (a layer, the
surroundings of the receivers). Nothing here needs TensorFlow.
"""

import functools
from dataclasses import dataclass
from typing import final

import numpy as np


@final
@dataclass(frozen=True)
class Box:
    """A box of cells.

    Args:
        start: Its first cell along each axis.
        shape: Its number of cells along each axis.
    """

    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of cells."""
        return int(np.prod(self.shape))

    @property
    def stop(self) -> tuple[int, ...]:
        """The cell after its last one along each axis."""
        return tuple(first + count for first, count in zip(self.start, self.shape, strict=True))

    def moved(self, axis: int, cells: int) -> "Box":
        """The box moved along an axis."""
        return Box(tuple(first + cells * (each == axis) for each, first in enumerate(self.start)), self.shape)

    def grown(self, cells: int) -> "Box":
        """The box with as many more cells on every side."""
        return Box(tuple(first - cells for first in self.start), tuple(count + 2 * cells for count in self.shape))

    def common(self, other: "Box") -> "Box":
        """The cells in both; of size zero where there are none."""
        start = tuple(map(max, self.start, other.start))
        stop = map(min, self.stop, other.stop)
        return Box(start, tuple(max(0, last - first) for first, last in zip(start, stop, strict=True)))

    def without(self, layer: "Box", axis: int) -> "Box":
        """The box without the cells of a layer at one of its ends along an axis."""
        first, last = self.start[axis], self.stop[axis]
        if layer.start[axis] <= first:
            first = max(first, layer.stop[axis])
        else:
            last = min(last, layer.start[axis])
        start, shape = list(self.start), list(self.shape)
        start[axis], shape[axis] = first, max(0, last - first)
        return Box(tuple(start), tuple(shape))

    def slices(self, inside: "Box") -> tuple[slice, ...]:
        """Where the box is in an array that covers `inside`."""
        offsets = [first - origin for first, origin in zip(self.start, inside.start, strict=True)]
        return tuple(slice(offset, offset + count) for offset, count in zip(offsets, self.shape, strict=True))


@functools.cache
def partition(whole: Box, layers: tuple[tuple[int, Box], ...]) -> tuple[Box, tuple[tuple[Box, tuple[Box, ...]], ...]]:
    """Cut a grid so that every cell is computed once: an interior, and for each layer a part of its own and its overlaps with earlier ones.

    Args:
        whole: The grid.
        layers: (axis, box) of each layer, those of one axis after the other; a box spans the grid along the other axes.

    Returns:
        The cells in no layer; and for each layer the cells in it and in no layer of an earlier axis, and boxes, disjoint, that hold
        those which are.
    """
    parts = []
    for axis, box in layers:
        own, overlaps = box, []
        for earlier, other in layers:
            if earlier < axis:
                overlaps.append(own.common(other))
                own = own.without(other, earlier)
        parts.append((own, tuple(each for each in overlaps if each.size)))
    inner = whole
    for axis, box in layers:
        inner = inner.without(box, axis)
    return inner, tuple(parts)
