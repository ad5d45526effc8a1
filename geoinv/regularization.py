r"""What is asked of a model besides fitting the data: to be small and smooth, where the data say nothing else.

.. math:: \phi_m(m) = \alpha_s \sum_c V_c w_c^2 (m_c - m_c^{ref})^2 + L^2 \sum_{axes} \alpha_a \sum_{faces} V_f w_f^2
          \left(\frac{\Delta(m - m^{ref})}{d}\right)^2

over active cells and the faces between two of them, with volumes V relative to their mean, weights w that balance shallow against deep
cells, distances d between centres, and L the smallest horizontal cell size, so that equal alphas mean equal smoothness in every
direction whatever the shape of the cells. phi_m is quadratic: it is kept as one CSR matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.sparse
import tensorflow as tf

from geoinv.operators import checks
from geoinv.operators.differences import gradient
from geoinv.operators.grid import Grid
from geoinv.operators.sparse.csr import CSRMatrix


@final
@dataclass(frozen=True, eq=False)
class Regularization:
    """``(m - reference)^T H (m - reference)`` with a symmetric sparse H.

    Args:
        hessian: H, [n, n].
        reference: [n] float64.
    """

    hessian: CSRMatrix
    reference: tf.Tensor

    def value(self, model: tf.Tensor) -> tf.Tensor:
        """phi_m of a model [n]."""
        departure = model - self.reference
        return tf.tensordot(departure, self.product(departure), 1)

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """H v: half the gradient of phi_m at ``reference + v``."""
        return self.hessian.matvec(vector)

    def diagonal(self) -> tf.Tensor:
        """The diagonal of H, [n]."""
        return self.hessian.diagonal()

    def extended(self, extra: int) -> "Regularization":
        """The same for a model with `extra` further entries that are left free, such as a trend's coefficients."""
        matrix = scipy.sparse.block_diag([self.hessian.to_scipy(), scipy.sparse.csr_array((extra, extra))], format="csr")
        return Regularization(CSRMatrix.from_scipy(matrix), tf.pad(self.reference, [[0, extra]]))


def small_and_smooth(
    grid: Grid,
    active: np.ndarray,
    *,
    smallness: float = 1.0,
    smoothness: Sequence[float] = (1.0, 1.0, 1.0),
    reference: float | np.ndarray = 0.0,
    weights: np.ndarray | None = None,
) -> Regularization:
    """The regularization of the module's docstring over the active cells.

    Args:
        grid: The model's grid.
        active: Mask, shaped as the grid.
        smallness: alpha_s.
        smoothness: alpha along each axis of the grid (upward, northing, easting).
        reference: One value, or one for each active cell.
        weights: w of each active cell; ones by default.

    Raises:
        ValueError: A negative weight, or weights that are all zero.
    """
    alphas = checks.finite("smoothness", smoothness)
    if smallness < 0 or (alphas < 0).any() or (smallness == 0 and not alphas.any()) or alphas.size != grid.ndim:
        raise checks.invalid("smallness, smoothness", f"{smallness}, {tuple(alphas)}", f"one and {grid.ndim} numbers, 0 or more, not all 0")
    cells = np.flatnonzero(active)
    weights = np.ones(cells.size) if weights is None else checks.shape("weights", weights, cells.shape)
    square = weights**2 * grid.volumes.ravel()[cells] / grid.volumes.ravel()[cells].mean()
    length = min(widths.min() for widths in grid.widths[1:])
    hessian = smallness * scipy.sparse.diags_array(square, format="csr")
    for axis in (axis for axis, cells_along in enumerate(grid.shape) if cells_along > 1):
        alpha = alphas[axis]
        hessian = hessian + alpha * length**2 * _roughness(grid, axis, cells, square)
    return Regularization(CSRMatrix.from_scipy(hessian), tf.constant(np.broadcast_to(np.asarray(reference, float), cells.shape)))


def _roughness(grid: Grid, axis: int, cells: np.ndarray, square: np.ndarray) -> scipy.sparse.csr_array:
    """D^T diag(w) D of the first differences along an axis, over the faces between two active cells."""
    difference = gradient(grid, axis=axis).to_scipy()[:, cells].tocsr()
    difference = difference[np.diff(difference.indptr) == 2]
    faces = abs(difference).sign() @ square / 2  # the mean of both cells
    return (difference.T @ scipy.sparse.diags_array(faces) @ difference).tocsr()
