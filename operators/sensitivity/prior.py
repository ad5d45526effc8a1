r"""What is assumed of a model besides the data, by a sparse precision R: the inverse of the covariance of a Gaussian.

It is made of smallness and of first differences: of columns g that hold one entry, or two that cancel, such that

.. math:: R = G G^T, \qquad x = R^{-1} G z

is a model drawn from the prior for white noise z. Small problems are solved by factors. In large ones, whose factors would fill up, what
makes them stiff is mostly one axis, along which cells are thin: conjugate gradients are preconditioned by the tridiagonal part of R along
that axis (lines; Saad 2003, "Iterative methods for sparse linear systems", section 12.2.2), which is solved at the price of a product.
"""

import functools
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import scipy.sparse
from scipy.linalg import lapack
from scipy.sparse.linalg import LinearOperator, cg

from .. import checks
from ..sparse import CSRMatrix

#: Unknowns up to which the precision is factorised.
FACTORISED = 30_000
#: Iterations of a solve without factors.
MOST_ITERATIONS = 10_000


@final
@dataclass(frozen=True, eq=False)
class Prior:
    """What is assumed of a model besides the data: Gaussian, around the model at which the problem is linearized.

    Args:
        precision: R, [model, model] SciPy sparse: symmetric, with entries beside the diagonal that are not positive and rows whose sum is
            not negative, such as smallness and first differences make.
        order: The unknowns [model] line by line, along the axis in which neighbours are tied most: large problems are solved fastest so.
            As they are by default.

    Raises:
        ValueError: Not such a matrix, one that leaves a constant free, or an order of other unknowns.
    """

    precision: Any
    order: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not scipy.sparse.issparse(self.precision) or self.precision.shape[0] != self.precision.shape[1]:
            raise checks.invalid("precision", f"a {type(self.precision).__name__}", "a square SciPy sparse matrix")
        matrix = scipy.sparse.csr_array(self.precision, dtype=np.float64)
        beside, size = matrix - scipy.sparse.diags_array(matrix.diagonal(), format="csr"), abs(matrix).max()
        if abs(matrix - matrix.T).max() > 1e-10 * size or beside.max() > 1e-10 * size or np.min(_sums(matrix)) < -1e-8 * size:
            raise checks.invalid("precision", "of other form", "symmetric and made of smallness and first differences")
        if not np.max(_sums(matrix)) > 1e-12 * size:
            raise checks.invalid("precision", "that leaves a constant free", "one with some smallness", "Otherwise no variance is finite.")
        if self.order is not None and not np.array_equal(np.sort(self.order), np.arange(matrix.shape[0])):
            raise checks.invalid("order", f"of {np.size(self.order)} entries", f"each of the {matrix.shape[0]} unknowns once")
        object.__setattr__(self, "precision", matrix)

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return int(self.precision.shape[0])

    def solve(self, b: np.ndarray, *, tolerance: float = 1e-8) -> np.ndarray:
        """``R^-1 b``: the covariance times a vector [model] or some [model, k].

        Args:
            b: What is multiplied.
            tolerance: Residual that a problem without factors may leave, relative to b, all unknowns scaled to a diagonal of ones.

        Raises:
            ValueError: Not converged.
        """
        b = np.asarray(b, np.float64)
        if self.size <= FACTORISED:
            return np.asarray(self._factors.solve(b, method="lu"))
        return self._lines.solve(b, tolerance) if b.ndim == 1 else np.stack([self._lines.solve(each, tolerance) for each in b.T], axis=1)

    def smoothed(self, x: np.ndarray) -> np.ndarray:
        """``R^-1 D x``, D the diagonal of R: averages of models [model, k] over the lengths on which the prior is alike, but for a factor."""
        return self.solve((self.precision.diagonal() * x.T).T, tolerance=1e-4)

    def samples(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Models drawn from it, [model, count]: noise on the smallness of each cell and on each difference, carried back by R."""
        # What is drawn is uncertain by more than the solve leaves.
        return self.solve(self._root @ random.standard_normal((self._root.shape[1], count)), tolerance=1e-4)

    @functools.cached_property
    def _factors(self) -> CSRMatrix:
        return CSRMatrix.from_scipy(self.precision)

    @functools.cached_property
    def _lines(self) -> "_Lines":
        return _Lines(self.precision, np.arange(self.size) if self.order is None else self.order)

    @functools.cached_property
    def _root(self) -> scipy.sparse.csr_array:
        """G, [model, model + differences]."""
        upper = scipy.sparse.triu(self.precision, 1).tocoo()
        small, steps = np.sqrt(np.clip(_sums(self.precision), 0, None)), np.sqrt(np.clip(-upper.data, 0, None))
        number = np.arange(steps.size)
        rows, columns = np.concatenate(upper.coords), np.concatenate([number, number])
        differences = scipy.sparse.csr_array((np.concatenate([steps, -steps]), (rows, columns)), shape=(self.size, steps.size))
        return scipy.sparse.hstack([scipy.sparse.diags_array(small), differences], format="csr")


class _Lines:
    """Conjugate gradients, preconditioned by the tridiagonal part of a symmetric positive matrix in some order of the unknowns."""

    def __init__(self, matrix: scipy.sparse.csr_array, order: np.ndarray) -> None:
        self._order, self._scale = order, matrix.diagonal()[order] ** -0.5
        scaled = scipy.sparse.diags_array(self._scale) @ matrix[order][:, order] @ scipy.sparse.diags_array(self._scale)
        self._matrix = scipy.sparse.csr_array(scaled)
        diagonal, beside, _ = lapack.dpttrf(self._matrix.diagonal(), self._matrix.diagonal(1))
        self._inverse = LinearOperator(matrix.shape, lambda r: lapack.dpttrs(diagonal, beside, r)[0], dtype=np.float64)

    def solve(self, b: np.ndarray, tolerance: float) -> np.ndarray:
        known = self._scale * b[self._order]
        found, failed = cg(self._matrix, known, rtol=tolerance, maxiter=MOST_ITERATIONS, M=self._inverse)
        if failed:
            left = np.linalg.norm(self._matrix @ found - known) / np.linalg.norm(known)
            raise checks.invalid(
                "precision",
                f"whose solve leaves {left:.1e}",
                f"one that is solved to {tolerance:.1e} in {failed} iterations",
                "Give the prior more smallness.",
            )
        x = np.empty_like(found)
        x[self._order] = self._scale * found
        return x


def _sums(matrix: scipy.sparse.csr_array) -> np.ndarray:
    return np.asarray(matrix.sum(axis=1)).ravel()
