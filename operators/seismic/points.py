"""Sources and receivers between cells as sparse matrices, factored where many of them share a line of the grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import scipy.sparse

from .. import checks
from ..grid import Grid
from . import sinc
from .boxes import Box

Taps = tuple[np.ndarray, np.ndarray]  # nodes and weights along an axis, [..., tap]
#: Multiplications for the points of a shot, in those for its cells: with fewer, half of them are less than a tenth of the time of a step.
WORTH = 0.25


@final
@dataclass(frozen=True, eq=False)
class Rows:
    """A sparse matrix for each shot as padded rows, all of one shape, so that all shots run one program.

    Args:
        columns, weights: [shot, row, tap]; those of weight zero are padding.
        size: Columns of each matrix.
        widest: The most rows of a shot that share a column.
    """

    columns: np.ndarray
    weights: np.ndarray
    size: int
    widest: int

    @classmethod
    def of(cls, shots: Sequence[Taps], size: int) -> "Rows":
        """From the rows (columns, weights) of each shot, as many as it has."""
        shape = (len(shots), max(len(columns) for columns, _ in shots), shots[0][0].shape[1])
        columns, weights, widest = np.zeros(shape, np.int32), np.zeros(shape), 1
        for shot, (own, values) in enumerate(shots):
            columns[shot, : len(own)], weights[shot, : len(own)] = np.where(values != 0, own, 0), values
            widest = max(widest, int(np.bincount(own[values != 0]).max(initial=1)))
        return cls(columns, weights, size, widest)

    def subset(self, shots: np.ndarray) -> "Rows":
        """Those of some shots, padded as they were."""
        return Rows(self.columns[shots], self.weights[shots], self.size, self.widest)

    def transposed(self, shot: int) -> Taps:
        """Rows of the transpose for one shot: [column, tap] row numbers and weights."""
        row, tap = np.nonzero(self.weights[shot])
        column = self.columns[shot, row, tap]
        order = np.argsort(column, kind="stable")
        column, row, tap = column[order], row[order], tap[order]
        count = np.bincount(column, minlength=self.size)
        place = np.arange(column.size) - np.repeat(np.cumsum(count) - count, count)
        rows, values = np.zeros((self.size, self.widest), np.int32), np.zeros((self.size, self.widest))
        rows[column, place], values[column, place] = row, self.weights[shot, row, tap]
        return rows, values

    def matrix(self, shot: int) -> scipy.sparse.csr_array:
        """[row, column] for one shot."""
        rows, taps = self.columns.shape[1:]
        parts = (self.weights[shot].ravel(), self.columns[shot].ravel(), np.arange(rows + 1) * taps)
        return scipy.sparse.csr_array(parts, shape=(rows, self.size))


@final
@dataclass(frozen=True, eq=False)
class Points:
    """Sources or receivers of every shot between the cells of one box.

    Args:
        box: The cells, those of all shots together.
        factors: Their product samples the box's ravelled cells at the points; the first one is applied first.
    """

    box: Box
    factors: tuple[Rows, ...]

    @classmethod
    def between(cls, taps: Sequence[Taps], live: np.ndarray) -> "Points":
        """Points as `located` found them; those that are not live [shot, point] have no weight."""
        inside = [nodes[(weights != 0) & live.reshape(-1, 1)] for nodes, weights in taps]
        box = Box(tuple(int(nodes.min()) for nodes in inside), tuple(int(np.ptp(nodes)) + 1 for nodes in inside))
        local = [(np.where(weights != 0, nodes - first, 0), weights) for first, (nodes, weights) in zip(box.start, taps, strict=True)]
        local[-1] = (local[-1][0], local[-1][1] * live.reshape(-1, 1))
        by_shot = [[tuple(part.reshape(*live.shape, -1)[shot] for part in axis) for axis in local] for shot in range(len(live))]
        lines = [_lines(axes) for axes in by_shot]
        widths = [nodes.shape[1] for nodes, _ in taps]
        # Only the cheaper one is made: where points share no lines, the other would take the memory of all lines for each of them.
        rows = [max(len(each[axis][0]) for each in lines) * math.prod(box.shape[axis + 1 :]) for axis in range(len(taps))]
        at_once = live.shape[1] * math.prod(widths) <= sum(count * width for count, width in zip(rows, widths, strict=True))
        return cls(box, _at_once(by_shot, box.shape) if at_once else _by_axis(by_shot, lines, box.shape))

    @property
    def count(self) -> int:
        """Points of each shot, padding included."""
        return int(self.factors[-1].columns.shape[1])

    def subset(self, shots: np.ndarray) -> "Points":
        """Those of some shots, in the same box and of the same widths."""
        return Points(self.box, tuple(factor.subset(shots) for factor in self.factors))

    def matrix(self, shot: int, whole: Box) -> scipy.sparse.csr_array:
        """[points, cells] of one shot's sampling, over all cells of a lattice."""
        cells = np.arange(whole.size).reshape(whole.shape)[self.box.slices(whole)].ravel()
        matrix = scipy.sparse.csr_array((np.ones(cells.size), cells, np.arange(cells.size + 1)), shape=(cells.size, whole.size))
        for factor in self.factors:
            matrix = factor.matrix(shot) @ matrix
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        return matrix


def located(
    name: str, grid: Grid, positions: np.ndarray, live: np.ndarray, windows: Sequence[Box], layers: Sequence[Sequence[int]], mirror_top: bool
) -> list[Taps]:
    """Nodes and weights along each axis, [shot * point, tap], of positions [shot, point, axis] in each shot's window, with the layers around it.

    Raises:
        ValueError: A live point outside of the grid, on a free surface, or too near a side that reflects (names it).
    """
    count = positions.shape[1]
    flat, counts = positions.reshape(-1, grid.ndim), live.ravel()

    def refuse(wrong: np.ndarray, where: str, expected: str) -> None:
        numbers = np.flatnonzero(counts & wrong)
        if numbers.size:
            place = ", ".join(f"{value:.10g}" for value in flat[numbers[0]])
            given = f"({place}) m (shot {numbers[0] // count}, number {numbers[0] % count}){where}"
            raise checks.invalid(name, given, expected, f"{numbers.size} {'is' if numbers.size == 1 else 'are'} not.")

    limits = ", ".join(f"{dim} {edges[0]:g} to {edges[-1]:g} m" for dim, edges in zip(grid.dims, grid.edges, strict=True))
    refuse(~grid.contains(flat), "", f"inside the grid ({limits})")
    shape = tuple(n + lower + upper for n, (lower, upper) in zip(windows[0].shape, layers, strict=True))
    origin = np.repeat([[first - lower for first, (lower, _) in zip(window.start, layers, strict=True)] for window in windows], count, axis=0)
    first, size = (np.array([each[0] for each in parts]) for parts in (grid.centers, grid.widths))
    index = (flat - first) / size - origin  # padding stands where a live point of its shot does
    room = f"{sinc.HALF_WIDTH} cells or more from it, or on a cell's centre, or next to a layer of {sinc.HALF_WIDTH} cells or more"
    refuse(sinc.crowded(index, shape, mirror_top=mirror_top), ", too near a side that reflects or hardly absorbs", room)
    taps = sinc.points(index, shape, mirror_top=mirror_top)
    refuse(~np.all([weights.any(axis=1) for _, weights in taps], axis=0), ", on the free surface", "below it, where the pressure is not zero")
    return taps


def spreads(taps: Sequence[Taps], live: np.ndarray, cells: int) -> list[tuple[np.ndarray, Points]]:
    """Shots and their points up to the last live one, as `located` found them: of spreads that are as long as the longest, half as long, and so on.

    Programs are compiled for each of these, which takes as long as some dozen gradients of a shot: a longest spread that is little work
    beside the cells that are stepped, such as one along a line of the grid, serves all shots.
    """
    last = live.shape[1] - np.argmax(live[:, ::-1], axis=1)
    longest = _points_of(taps, live, np.array([np.argmax(last)]), last.max())
    work = sum(factor.columns.size for factor in longest.factors)
    halvings = np.floor(np.log2(np.minimum(last.max() / last, max(1.0, work / (WORTH * cells)))))
    groups = [np.flatnonzero(halvings == each) for each in np.unique(halvings)]
    return [(shots, _points_of(taps, live, shots, last[shots].max())) for shots in groups]


def _points_of(taps: Sequence[Taps], live: np.ndarray, shots: np.ndarray, count: int) -> Points:
    """The first points of some shots."""

    def own(values: np.ndarray) -> np.ndarray:
        return values.reshape(*live.shape, -1)[shots, :count].reshape(shots.size * count, -1)

    return Points.between([(own(nodes), own(weights)) for nodes, weights in taps], live[shots, :count])


def _lines(axes: Sequence[Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each axis, for one shot: the first points of the lines that differ up to it, and the line before it that each point is on."""
    found, now = [], np.zeros(len(axes[0][0]), int)
    for nodes, weights in axes[:-1]:
        _, chosen, after = np.unique(np.column_stack([now, nodes, weights]), axis=0, return_index=True, return_inverse=True)
        found.append((chosen, now))
        now = after.ravel()
    return [*found, (np.arange(len(now)), now)]


def _at_once(shots: Sequence[Sequence[Any]], shape: Sequence[int]) -> tuple[Rows, ...]:
    """One matrix with the products of the weights along all axes."""
    found = []
    for axes in shots:
        columns, weights = np.zeros((len(axes[0][0]), 1), int), np.ones((len(axes[0][0]), 1))
        for size, (nodes, along) in zip(shape, axes, strict=True):
            columns = (columns[:, :, np.newaxis] * size + nodes[:, np.newaxis]).reshape(len(columns), -1)
            weights = (weights[:, :, np.newaxis] * along[:, np.newaxis]).reshape(len(weights), -1)
        found.append((columns, weights))
    return (Rows.of(found, math.prod(shape)),)


def _by_axis(shots: Sequence[Sequence[Any]], lines: Sequence[Any], shape: Sequence[int]) -> tuple[Rows, ...]:
    """A matrix for each axis: points at one depth share the line of the grid that is interpolated there, and so on.

    A spread of receivers at one depth takes 8 multiplications for each cell of the line and 8 for each receiver instead of 64; a
    carpet of them in three dimensions 8 instead of 512. With as many depths as receivers it would take more: `_at_once` is less work.
    """
    factors: list[Rows] = []
    for axis, size in enumerate(shape):
        beyond, rows = math.prod(shape[axis + 1 :]), []
        for axes, own in zip(shots, lines, strict=True):
            (nodes, weights), (chosen, line) = axes[axis], own[axis]
            places = (line[chosen, np.newaxis] * size + nodes[chosen])[:, np.newaxis] * beyond + np.arange(beyond)[:, np.newaxis]
            values = np.broadcast_to(weights[chosen][:, np.newaxis], places.shape)
            rows.append((places.reshape(-1, nodes.shape[1]), values.reshape(-1, nodes.shape[1])))
        factors.append(Rows.of(rows, factors[-1].columns.shape[1] if factors else math.prod(shape)))
    return tuple(factors)
