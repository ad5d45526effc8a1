"""The nodes on which travel times are computed: corners of a grid's cells, or of finer ones, and how points and cells lie among them.

The velocity of a node is the mean of those of the active cells around it. Of the power means this one errs least about waves along an
interface and across it together: of head waves in layers of 1:1.8 and 1:4 it made half the error of the mean slowness. Points take values
from the corners of their cell.
"""

import functools
import itertools
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from .. import checks
from ..grid import Grid
from .marching import OUTSIDE, Mesh

#: Distances from a source, in spacings beyond those of its cell's corners, at which the straight way's share begins to fall and has ended.
BLEND = 2.0


class Medium(NamedTuple):
    """What marches see of nodes.

    Args:
        mesh: Where they are.
        outside, links: [node] see `Nodes`.
    """

    mesh: Mesh
    outside: np.ndarray
    links: np.ndarray

    @property
    def size(self) -> int:
        """How many there are, margin and all."""
        return self.outside.size


@final
@dataclass(frozen=True, eq=False)
class Nodes:
    """The corners of active cells, with a margin of one node around the grid, ravelled.

    Args:
        grid: Of the cells.
        active: Cells of the medium, bool [grid.shape], or those of their parts that are, [refinement * grid.shape].
        refinement: Into how many parts cells are cut along each axis.
    """

    grid: Grid
    active: np.ndarray
    refinement: int = 1

    @functools.cached_property
    def edges(self) -> tuple[np.ndarray, ...]:
        """Of the finer cells along each axis, m: the positions of nodes."""
        share = np.arange(self.refinement) / self.refinement
        return tuple(np.append((axis[:-1, np.newaxis] + np.outer(np.diff(axis), share)).ravel(), axis[-1]) for axis in self.grid.edges)

    @functools.cached_property
    def fine(self) -> np.ndarray:
        """Which of the parts of cells are of the medium."""
        if self.active.shape != self.grid.shape:
            return self.active
        return functools.reduce(lambda found, axis: np.repeat(found, self.refinement, axis), range(self.grid.ndim), self.active)

    @functools.cached_property
    def cells(self) -> np.ndarray:
        """[grid.shape] which cells have any part in the medium."""
        pairs = [each for n in self.grid.shape for each in (n, self.refinement)]
        return np.asarray(self.fine.reshape(pairs).any(axis=tuple(range(1, 2 * self.grid.ndim, 2))))

    @functools.cached_property
    def medium(self) -> Medium:
        """They without the cells."""
        return Medium(self.mesh, self.outside, self.links)

    @functools.cached_property
    def mesh(self) -> Mesh:
        """As kernels take them."""
        sizes = [axis.size + 2 for axis in self.edges]
        x = np.zeros((len(sizes), max(sizes)))
        for row, axis in zip(x, self.edges, strict=True):
            row[: axis.size + 2] = np.concatenate([[2 * axis[0] - axis[1]], axis, [2 * axis[-1] - axis[-2]]])
        return Mesh(x, np.array(sizes), np.array([int(np.prod(sizes[axis + 1 :])) for axis in range(len(sizes))]))

    @property
    def size(self) -> int:
        """How many there are, margin and all."""
        return int(np.prod([axis.size + 2 for axis in self.edges]))

    @functools.cached_property
    def averages(self) -> scipy.sparse.csr_array:
        """[node, cell]: means over the active cells around nodes; rows of nodes outside of the medium are empty."""
        fine = tuple(axis.size - 1 for axis in self.edges)
        cells = np.indices(fine).reshape(len(fine), -1)
        owner = np.asarray(np.ravel_multi_index(tuple(cells // self.refinement), self.grid.shape))
        inside = np.ravel(self.fine)
        cells, owner = cells[:, inside], owner[inside]
        corners = [self._number(cells + np.reshape(corner, (-1, 1))) for corner in itertools.product((0, 1), repeat=len(fine))]
        rows = np.concatenate(corners)
        share = 1 / np.bincount(rows, minlength=self.size)[rows]
        found = scipy.sparse.coo_array((share, (rows, np.tile(owner, len(corners)))), shape=(self.size, self.grid.size))
        return found.tocsr()

    @functools.cached_property
    def outside(self) -> np.ndarray:
        """[node] uint8, `OUTSIDE` where there is no medium."""
        return np.where(np.diff(self.averages.indptr) == 0, OUTSIDE, 0).astype(np.uint8)

    @functools.cached_property
    def links(self) -> np.ndarray:
        """[node] uint8, with bit d where the way to the next node along axis d has an active cell beside it: waves cross no gap of one cell."""
        fine = self.fine
        found = np.zeros(self.mesh.shape, np.uint8)
        for axis in range(fine.ndim):
            beside = np.pad(fine, [(1, 1) if other == axis else (1, 2) for other in range(fine.ndim)])
            for other in {*range(fine.ndim)} - {axis}:
                beside = beside | np.roll(beside, 1, other)
            inner = tuple(slice(n) for n in found.shape)
            part = np.pad(beside, [(0, 1) if other == axis else (0, 0) for other in range(fine.ndim)])[inner]
            found |= (part.astype(np.uint8) << axis).astype(np.uint8)
        return found.ravel()

    def slowness(self, model: np.ndarray) -> np.ndarray:
        """Of nodes [node], zero outside of the medium, from that of cells [grid.shape]."""
        velocity = self.averages @ np.divide(1, model, out=np.zeros(model.shape), where=self.cells).ravel()
        return np.divide(1, velocity, out=np.zeros(self.size), where=velocity > 0)

    def change(self, slowness: np.ndarray, model: np.ndarray, v: np.ndarray) -> np.ndarray:
        """That of nodes' slowness for a change v of cells' [grid.shape], at the slowness of both."""
        return slowness**2 * (self.averages @ np.divide(v, model**2, out=np.zeros(model.shape), where=self.cells).ravel())

    def changes(self, slowness: np.ndarray, model: np.ndarray) -> scipy.sparse.csr_array:
        """`change` as a matrix [node, cell]."""
        of_cells = np.divide(1, model**2, out=np.zeros(model.shape), where=self.cells).ravel()
        return scipy.sparse.csr_array(scipy.sparse.diags_array(slowness**2) @ self.averages @ scipy.sparse.diags_array(of_cells))

    def gradient(self, slowness: np.ndarray, model: np.ndarray, w: np.ndarray) -> np.ndarray:
        """The adjoint of `change`: by cells' slowness [grid.shape] from that by nodes'."""
        found = (self.averages.T @ (slowness**2 * w)).reshape(model.shape)
        return np.divide(found, model**2, out=np.zeros(model.shape), where=self.cells)

    def corners(self, name: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nodes [point, corner] around each point, and their weights in multilinear interpolation.

        Raises:
            ValueError: Points in no active cell.
        """
        cells, found = np.zeros(points.shape, np.int64), np.zeros(len(points), bool)
        for upper in itertools.product((True, False), repeat=self.grid.ndim):  # a point on a face may take either cell
            trial = np.stack([self._cell(axis, column, up) for axis, column, up in zip(self.edges, points.T, upper, strict=True)], axis=1)
            fits = self.fine[tuple(trial.T)] & ~found
            cells[fits], found = trial[fits], found | fits
        if not found.all():
            first = int(np.argmin(found))
            given = f"{points[first].tolist()} at index {first}"
            raise checks.invalid(name, given, "in an active cell", f"{np.count_nonzero(~found)} of {len(points)} are not: move them to the ground.")
        nodes, weights = np.zeros((len(points), 1), np.int64), np.ones((len(points), 1))
        for axis, column, cell, stride in zip(self.edges, points.T, cells.T, self.mesh.strides, strict=True):
            upper = (column - axis[cell]) / (axis[cell + 1] - axis[cell])
            nodes = (nodes[:, :, np.newaxis] + ((cell + 1)[:, np.newaxis] + [0, 1])[:, np.newaxis] * stride).reshape(len(points), -1)
            weights = (weights[:, :, np.newaxis] * np.stack([1 - upper, upper], axis=1)[:, np.newaxis]).reshape(len(points), -1)
        return nodes, weights

    def zone(self, at: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nodes around a position that take a share of the straight way from it, and that share.

        Args:
            at: [axis] m.
            corners: The nodes of its cell: those that these are linked with, within reach, count, and not those across a gap.
        """
        spans, distances = [], []
        for axis, x in zip(self.edges, at, strict=True):
            widths = np.diff(axis)
            spacing = np.interp(x, axis, np.maximum(np.append(widths, 0), np.append(0, widths)))  # continuous, and a cell's width at least
            distance = np.abs(axis - x) / spacing
            spans.append(np.flatnonzero(distance < np.sqrt(at.size) + BLEND))
            distances.append(distance[spans[-1]])
        square = functools.reduce(np.add.outer, [each**2 for each in distances]).ravel()
        nodes = self._number(np.stack([each.ravel() for each in np.meshgrid(*spans, indexing="ij")]))
        far = np.clip((np.sqrt(square) - np.sqrt(at.size)) / BLEND, 0, 1)
        kept = (far < 1) & self._linked(nodes, corners)
        return nodes[kept], (1 - far**2 * (3 - 2 * far))[kept]

    def _linked(self, nodes: np.ndarray, corners: np.ndarray) -> np.ndarray:
        """Which of some nodes, in ascending order, are linked with some of them, by way of them."""
        pairs = []
        for axis, stride in enumerate(self.mesh.strides):
            place = np.searchsorted(nodes, nodes + stride)
            there = (place < nodes.size) & (nodes[np.minimum(place, nodes.size - 1)] == nodes + stride) & ((self.links[nodes] >> axis & 1) > 0)
            pairs.append(np.stack([np.flatnonzero(there), place[there]]))
        rows, columns = np.concatenate(pairs, axis=1)
        graph = scipy.sparse.coo_array((np.ones(rows.size), (rows, columns)), shape=(nodes.size, nodes.size))
        _, group = scipy.sparse.csgraph.connected_components(graph, directed=False)
        return np.isin(group, group[np.searchsorted(nodes, corners)])

    def _number(self, index: np.ndarray) -> np.ndarray:
        """The number of nodes from their index [axis, node] without the margin."""
        return self.mesh.strides @ (index + 1)

    def _cell(self, axis: np.ndarray, x: np.ndarray, upper: bool) -> np.ndarray:
        return np.clip(np.searchsorted(axis, x, side="right" if upper else "left") - 1, 0, axis.size - 2)
