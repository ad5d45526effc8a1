r"""The Poisson equation on a rectilinear grid, solved exactly by separation of variables.

The discretisation is the compact finite-volume scheme (Collatz's "Mehrstellenverfahren") of

.. math:: -\nabla^2 u = f

with u and f at cell centres. Along each axis, with cell widths w, distances d between neighbouring
centres and D the difference of neighbours,

.. math:: K = D^T d^{-1} D, \qquad M = w - D^T \frac{c}{12} D, \qquad c \approx d,

and in three dimensions

.. math:: (K \otimes M \otimes M + M \otimes K \otimes M + M \otimes M \otimes K) \, u = (M \otimes M \otimes M) \, f .

On uniform cells the scheme is of 4th order for smooth f; where cell sizes change it is of 2nd, and conserves mass.

K and M being symmetric, and M positive, the generalised eigenvectors of each axis, ``K P = M P L`` with ``P^T M P = I``,
turn the inverse into six small dense products and a division (Lynch, Rice & Thomas 1964, "Direct solution of partial
difference equations by tensor product methods"): no iterations, exact to rounding, self-adjoint, and pure matrix products.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.linalg
import scipy.sparse
import tensorflow as tf

from .. import checks
from ..grid import Grid
from .csr import CSRMatrix


@final
@dataclass(frozen=True, eq=False)
class Axis:
    """The one-dimensional matrices over all cells of an axis, its end cells (which carry boundary values) included.

    Args:
        stiffness, mass: K and M as sparse [n, n].
        modes: Eigenvectors of the n - 2 inner cells, [n - 2, n - 2], a mode a column.
        eigenvalues: [n - 2], in 1/m2.
    """

    stiffness: scipy.sparse.csr_array
    mass: scipy.sparse.csr_array
    modes: np.ndarray
    eigenvalues: np.ndarray

    @classmethod
    def from_edges(cls, edges: np.ndarray) -> "Axis":
        """The matrices for an axis of three or more cells with these edges, in metres."""
        widths, centers = np.diff(edges), (edges[1:] + edges[:-1]) / 2
        if widths.size < 3:
            raise checks.invalid("axis", f"of {widths.size} cells", "of three or more cells, two of them for boundary values")
        distance = np.diff(centers)
        # The correction is bounded by both neighbours' widths so that M stays positive definite where sizes jump.
        correction = np.minimum(distance, np.minimum(widths[1:], widths[:-1]))
        difference = scipy.sparse.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(distance.size, widths.size))
        volume = scipy.sparse.diags_array(widths)

        def penalty(weights: np.ndarray) -> scipy.sparse.csr_array:
            return (difference.T @ scipy.sparse.diags_array(weights) @ difference).tocsr()

        stiffness = penalty(1 / distance)
        mass = (volume - penalty(correction / 12)).tocsr()
        inner = slice(1, -1)
        eigenvalues, modes = scipy.linalg.eigh(stiffness[inner, inner].toarray(), mass[inner, inner].toarray())
        return cls(stiffness, mass, modes, eigenvalues)

    @property
    def point_source(self) -> np.ndarray:
        """What a unit of mass at each node adds to the spectrum, [n - 2, mode]: ``w^-1 M P``."""
        widths = self.mass.sum(axis=1)  # the rest of M has zero row sums
        return (self.mass[1:-1, 1:-1] @ self.modes) / widths[1:-1, None]


def transform(values: tf.Tensor, matrices: Sequence[tf.Tensor]) -> tf.Tensor:
    """Apply a matrix along each of the last axes: ``out[..., i, j, k] = A[i, a] B[j, b] C[k, c] values[..., a, b, c]``.

    The axis that shrinks most goes first, so that the later products are the smallest possible.
    """
    first = len(values.shape) - len(matrices)
    order = sorted(range(len(matrices)), key=lambda axis: matrices[axis].shape[0] / matrices[axis].shape[1])
    letters = "abcdef"[: len(values.shape)]
    for axis in order:
        inside = letters[first + axis]
        values = tf.einsum(f"{letters},z{inside}->{letters.replace(inside, 'z')}", values, matrices[axis])
    return values


@final
@dataclass(frozen=True, eq=False)
class SeparablePoisson:
    """The compact Poisson operator on a grid whose outermost ring of cells carries the boundary values.

    Args:
        grid: Two or three axes of three or more cells each. The unknowns are the cells inside the ring.
    """

    grid: Grid

    @functools.cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The one-dimensional matrices of each axis."""
        return tuple(Axis.from_edges(edges) for edges in self.grid.edges)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the unknowns: the grid without its ring."""
        return tuple(n - 2 for n in self.grid.shape)

    @functools.cached_property
    def eigenvalues(self) -> np.ndarray:
        """Sums of the axes' eigenvalues, shaped as the unknowns, in 1/m2."""
        return functools.reduce(np.add.outer, [axis.eigenvalues for axis in self.axes])

    def solve(self, right_side: tf.Tensor) -> tf.Tensor:
        """The unknowns u of ``A u = b`` for float64 b of shape [..., *shape]; exact, differentiable, its own adjoint."""
        values = tf.convert_to_tensor(right_side, tf.float64)
        if tuple(values.shape[-self.grid.ndim :]) != self.shape:
            raise checks.invalid("right_side", f"of shape {tuple(values.shape)}", f"of shape [..., {', '.join(map(str, self.shape))}]")
        modes = [tf.constant(axis.modes) for axis in self.axes]
        spectrum = transform(values, [tf.transpose(matrix) for matrix in modes]) / tf.constant(self.eigenvalues)
        return transform(spectrum, modes)

    def to_scipy(self) -> scipy.sparse.csr_array:
        """The matrix A over the ravelled unknowns (9 or 27 entries a row)."""
        inner = slice(1, -1)
        return _kronecker_sum([(axis.stiffness[inner, inner], axis.mass[inner, inner]) for axis in self.axes])

    def to_csr(self) -> CSRMatrix:
        """The matrix A as a CSRMatrix over the ravelled unknowns."""
        return CSRMatrix.from_scipy(self.to_scipy())

    def boundary_source(self, potential: Callable[..., np.ndarray]) -> np.ndarray:
        """What given boundary values add to the right-hand side, shaped as the unknowns.

        Args:
            potential: Function of broadcastable coordinates (one array per axis, metres) that gives the boundary values.

        The ring is taken face by face. A face couples only to the layer of unknowns beside it, because K and M are
        tridiagonal, so each costs a few sparse products of its own size.
        """
        total = np.zeros(self.shape)
        for axis in range(self.grid.ndim):
            for end in (0, -1):
                layer = (slice(None),) * axis + (end,)
                total[layer] -= self._face(axis, end, potential)
        return total

    @functools.cached_property
    def _rows(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """The unknowns' rows of K and M of each axis, dense: `boundary_source` may be called for many potentials."""
        return tuple((axis.stiffness[1:-1].toarray(), axis.mass[1:-1].toarray()) for axis in self.axes)

    def _face(self, axis: int, end: int, potential: Callable[..., np.ndarray]) -> np.ndarray:
        others = [other for other in range(self.grid.ndim) if other != axis]
        # Each ring cell belongs to one face: the earlier axes' faces take the ring's edges and corners.
        columns = {other: slice(1, -1) if other < axis else slice(None) for other in others}
        mesh = np.ix_(*[self.grid.centers[b][columns[b]] if b != axis else self.grid.centers[b][[end]] for b in range(self.grid.ndim)])
        values = np.squeeze(np.broadcast_to(potential(*mesh), np.broadcast_shapes(*(m.shape for m in mesh))), axis)
        beside = 0 if end == 0 else -1
        total = np.zeros([self.shape[other] for other in others])
        for stiff in range(self.grid.ndim):
            term = values
            for position, other in enumerate(others):
                matrix = self._rows[other][other != stiff]
                term = np.moveaxis(np.tensordot(matrix[:, columns[other]], term, (1, position)), 0, position)
            total += self._rows[axis][axis != stiff][beside, end] * term
        return total


def _kronecker_sum(factors: Sequence[tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]]) -> scipy.sparse.csr_array:
    terms = []
    for stiff in range(len(factors)):
        matrices = [stiffness if axis == stiff else mass for axis, (stiffness, mass) in enumerate(factors)]
        terms.append(functools.reduce(lambda a, b: scipy.sparse.kron(a, b, format="csr"), matrices))
    return functools.reduce(lambda a, b: a + b, terms).tocsr()
