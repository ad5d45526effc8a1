r"""What is asked of a model besides fitting the data: to be small and smooth, where the data say nothing else.

.. math:: \phi_m(m) = \alpha_s \sum_c V_c w_c^2 (m_c - m_c^{ref})^2 + L^2 \sum_{axes} \alpha_a \sum_{faces} V_f w_f^2
          \left(\frac{\Delta(m - m^{ref})}{d}\right)^2

over active cells and the faces between two of them, with volumes V relative to their mean, weights w that balance shallow against deep
cells, distances d between centres, and L the smallest horizontal cell size, so that equal alphas mean equal smoothness in every
direction whatever the shape of the cells. This phi_m is quadratic, and kept as one CSR matrix. A blocky one counts the differences of the
model itself along the axes, :math:`d = L \Delta m`, as

.. math:: 2 t \left(\sqrt{d^2 + t^2} - t\right)

in place of d^2, which large ones it counts by their size alone: sharp interfaces cost no more than gradual ones (Ekblom 1987;
Farquharson & Oldenburg 1998). Its minimiser is that of reweighted least squares.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import scipy.sparse
import tensorflow as tf

from geoinv.operators import checks
from geoinv.operators.differences import gradient
from geoinv.operators.grid import Grid
from geoinv.operators.sparse.csr import CSRMatrix


class Penalty(Protocol):
    """What an inversion needs of phi_m."""

    @property
    def reference(self) -> tf.Tensor:
        """The model [n] from which departures count."""

    def value(self, model: tf.Tensor) -> tf.Tensor:
        """phi_m of a model [n]."""

    def gradient(self, model: tf.Tensor) -> tf.Tensor:
        """Half of its gradient there."""

    def curvature(self, model: tf.Tensor) -> CSRMatrix:
        """The matrix of a quadratic form that has this gradient there and lies nowhere below phi_m."""


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
        return tf.tensordot(model - self.reference, self.gradient(model), 1)

    def gradient(self, model: tf.Tensor) -> tf.Tensor:
        """H (m - reference)."""
        return self.hessian.matvec(model - self.reference)

    def curvature(self, model: tf.Tensor) -> CSRMatrix:
        """H, wherever."""
        return self.hessian

    def extended(self, extra: int) -> "Regularization":
        """The same for a model with `extra` further entries that are left free, such as a trend's coefficients."""
        matrix = scipy.sparse.block_diag([self.hessian.to_scipy(), scipy.sparse.csr_array((extra, extra))], format="csr")
        return Regularization(CSRMatrix.from_scipy(matrix), tf.pad(self.reference, [[0, extra]]))


@final
@dataclass(frozen=True, eq=False)
class Blocky:
    """``sum small (m - reference)^2 + sum faces 2 t (sqrt(d^2 + t^2) - t)`` with ``d = differences m``.

    Args:
        small: [n] float64.
        reference: [n] float64.
        differences: [face, n].
        faces: Their weights [face] float64.
        threshold: t: smaller differences count by their square.
    """

    small: tf.Tensor
    reference: tf.Tensor
    differences: CSRMatrix
    faces: tf.Tensor
    threshold: float

    def value(self, model: tf.Tensor) -> tf.Tensor:
        rough = 2 * self.threshold * (self._size(model) - self.threshold)
        return tf.reduce_sum(self.small * (model - self.reference) ** 2) + tf.reduce_sum(self.faces * rough)

    def gradient(self, model: tf.Tensor) -> tf.Tensor:
        return self.small * (model - self.reference) + self.differences.rmatvec(self._weights(model) * self.differences.matvec(model))

    def curvature(self, model: tf.Tensor) -> CSRMatrix:
        differences = self.differences.to_scipy()
        matrix = differences.T @ scipy.sparse.diags_array(self._weights(model).numpy()) @ differences
        return CSRMatrix.from_scipy(matrix + scipy.sparse.diags_array(self.small.numpy()))

    def _size(self, model: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(self.differences.matvec(model) ** 2 + self.threshold**2)

    def _weights(self, model: tf.Tensor) -> tf.Tensor:
        return self.faces * self.threshold / self._size(model)


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
    square, faces = _weighed(grid, active, smallness, smoothness, weights)
    hessian = smallness * scipy.sparse.diags_array(square, format="csr")
    for difference, weight in faces:
        hessian = hessian + difference.T @ scipy.sparse.diags_array(weight) @ difference
    return Regularization(CSRMatrix.from_scipy(hessian), _spread(reference, square.size))


def small_and_blocky(
    grid: Grid,
    active: np.ndarray,
    *,
    smallness: float = 1.0,
    smoothness: Sequence[float] = (1.0, 1.0, 1.0),
    reference: float | np.ndarray = 0.0,
    weights: np.ndarray | None = None,
    threshold: float,
) -> Blocky:
    """The same with blocks in place of smoothness; only smallness knows of the reference.

    Args:
        grid, active, smallness, smoothness, reference, weights: As of `small_and_smooth`.
        threshold: t, of the model's change over the smallest horizontal cell size.

    Raises:
        ValueError: As `small_and_smooth`, no smoothness at all, or a threshold that is not positive.
    """
    checks.positive("threshold", threshold)
    square, faces = _weighed(grid, active, smallness, smoothness, weights)
    pairs = list(faces)
    if not pairs:
        raise checks.invalid("smoothness", tuple(smoothness), "above zero along an axis of two cells or more")
    differences = scipy.sparse.vstack([difference for difference, _ in pairs], format="csr")
    faces_of_all = tf.constant(np.concatenate([weight for _, weight in pairs]))
    reference = _spread(reference, square.size)
    return Blocky(tf.constant(smallness * square), reference, CSRMatrix.from_scipy(differences), faces_of_all, threshold)


def _spread(reference: float | np.ndarray, size: int) -> tf.Tensor:
    return tf.constant(np.broadcast_to(np.asarray(reference, float), (size,)))


Faces = Iterator[tuple[scipy.sparse.csr_array, np.ndarray]]


def _weighed(
    grid: Grid, active: np.ndarray, smallness: float, smoothness: Sequence[float], weights: np.ndarray | None
) -> tuple[np.ndarray, Faces]:  # fmt: skip
    """V w^2 of active cells, and for each axis that is smoothed the differences over L [face, cell] with their weights."""
    alphas = checks.finite("smoothness", smoothness)
    if smallness < 0 or (alphas < 0).any() or (smallness == 0 and not alphas.any()) or alphas.size != grid.ndim:
        raise checks.invalid("smallness, smoothness", f"{smallness}, {tuple(alphas)}", f"one and {grid.ndim} numbers, 0 or more, not all 0")
    cells = np.flatnonzero(active)
    weights = np.ones(cells.size) if weights is None else checks.shape("weights", weights, cells.shape)
    square = weights**2 * grid.volumes.ravel()[cells] / grid.volumes.ravel()[cells].mean()
    return square, _faces(grid, cells, square, alphas)


def _faces(grid: Grid, cells: np.ndarray, square: np.ndarray, alphas: np.ndarray) -> Faces:
    length = min(widths.min() for widths in grid.widths[1:])
    for axis in (axis for axis, along in enumerate(grid.shape) if along > 1 and alphas[axis] > 0):
        difference = length * gradient(grid, axis=axis).to_scipy()[:, cells].tocsr()
        difference = difference[np.diff(difference.indptr) == 2]  # between two active cells
        yield difference, alphas[axis] * (abs(difference).sign() @ square) / 2  # the mean of both cells
