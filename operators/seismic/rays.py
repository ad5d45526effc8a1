"""Travel times along straight rays: what crosshole and surface-wave tomography begin with, and all of it where velocity varies little."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import scipy.sparse
import tensorflow as tf

from .. import checks
from ..forward import ForwardOperator, Linearization, linear
from ..grid import Grid
from ..sparse import CSRMatrix, SparseOperator
from ..sparse.operator import SparseRows

#: Crossings of rays and faces that are worked on at a time.
AT_ONCE = 4_000_000


def path_lengths(grid: Grid, sources: Any, receivers: Any) -> CSRMatrix:
    """The length of straight rays in cells.

    The crossings with all faces, sorted along a ray, cut it into pieces, and the middle of each lies in its cell (Siddon, Med. Phys. 12,
    1985). A ray along a face counts for the cell above it.

    Args:
        grid: Of the cells.
        sources, receivers: [ray, axis] where rays begin and end, m, in the order of the grid's axes.

    Returns:
        [ray, cell] float64, m.

    Raises:
        ValueError: Points outside of the grid, or of unequal number.
    """
    first, last = (grid.positions(name, points) for name, points in (("sources", sources), ("receivers", receivers)))
    if first.shape != last.shape:
        raise checks.invalid("receivers", f"of shape {last.shape}", f"of shape {first.shape}, as the sources")
    some = max(1, AT_ONCE // sum(axis.size for axis in grid.edges))
    parts = [_pieces(grid, first[at : at + some], last[at : at + some]) for at in range(0, len(first), some)]
    return CSRMatrix.from_scipy(scipy.sparse.vstack(parts, format="csr"))


def _pieces(grid: Grid, first: np.ndarray, last: np.ndarray) -> scipy.sparse.csr_array:
    along = last - first
    crossings = np.sort(np.concatenate([np.broadcast_to([0.0, 1.0], (len(first), 2)), *_crossings(grid, first, along)], axis=1), axis=1)
    ray, piece = np.nonzero(np.diff(crossings, axis=1) > 0)
    begins, ends = crossings[ray, piece], crossings[ray, piece + 1]
    cells = np.ravel_multi_index(tuple(grid.cell_index(first[ray] + ((begins + ends) / 2)[:, np.newaxis] * along[ray]).T), grid.shape)
    lengths = (ends - begins) * np.linalg.norm(along, axis=1)[ray]
    return scipy.sparse.coo_array((lengths, (ray, cells)), shape=(len(first), grid.size)).tocsr()


def _crossings(grid: Grid, first: np.ndarray, along: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of each ray at which it crosses the faces along each axis [ray, face]; 0 or 1 where it does not."""
    for axis, edges in enumerate(grid.edges):
        step = along[:, axis, np.newaxis]
        yield np.clip(np.divide(edges - first[:, axis, np.newaxis], step, out=np.zeros((len(first), edges.size)), where=step != 0), 0, 1)


@final
@dataclass(frozen=True, eq=False)
class StraightRay(ForwardOperator):
    """``T = L s``: times [ray], s, of slownesses [grid.shape], s/m, float64, along straight rays; its units are rays.

    Args:
        grid: Of the cells.
        sources, receivers: [ray, axis] where rays begin and end, m, in the order of the grid's axes.

    Raises:
        ValueError: Points outside of the grid, or of unequal number.
    """

    grid: Grid
    sources: np.ndarray
    receivers: np.ndarray
    _rows: SparseOperator | SparseRows = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", SparseOperator(path_lengths(self.grid, self.sources, self.receivers)))

    @property
    def matrix(self) -> CSRMatrix:
        """L [ray, cell], m; of a subset computed anew."""
        return self._rows.matrix if isinstance(self._rows, SparseOperator) else path_lengths(self.grid, self.sources, self.receivers)

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.grid.shape, tf.float64)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return self._rows.data_spec

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return self._rows.forward(tf.reshape(model, [-1]))

    def linearize(self, model: tf.Tensor) -> Linearization:
        adjoint = self._rows.linearize(tf.reshape(model, [-1])).pullback
        return linear(self, model, lambda w: tf.reshape(adjoint(w), self.grid.shape))

    def subset(self, units: Any) -> "StraightRay":
        """Some of the rays, in the order given.

        Args:
            units: Numbers of rays, a slice, or a mask.
        """
        sources, receivers = np.atleast_2d(self.sources), np.atleast_2d(self.receivers)
        chosen = checks.units(units, len(sources))
        part = copy.copy(self)
        for name, value in (("sources", sources[chosen]), ("receivers", receivers[chosen]), ("_rows", self._rows.subset(chosen))):
            object.__setattr__(part, name, value)
        return part
