"""Interpolation of values at cell centres to any points, and its derivatives, as sparse matrices.

Along each axis a point uses the degree + 1 centres around it (fewer on one side near the ends of the axis) and the weights of
the Lagrange polynomial through them, or of its derivatives (`stencils.weights`). Over several axes the weights multiply. On
smooth fields the value is accurate to order degree + 1 in the spacing, the d-th derivative to order degree + 1 - d.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse

from . import checks, stencils
from .grid import Grid
from .sparse import CSRMatrix

DEGREES = (1, 3, 5)


def interpolate(grid: Grid, points: Any, *, derivative: Sequence[int] | None = None, degree: int = 1) -> CSRMatrix:
    """The matrix that takes values at cell centres to points.

    Args:
        grid: Where the values are; ravelled in C order they are what the matrix multiplies.
        points: [point, axis] positions in metres, in the order of the grid's axes. Between the outermost centres and the
            grid's faces the end polynomials extrapolate.
        derivative: Which derivative along each axis; zeros by default, which interpolate.
        degree: Of the polynomials: 1, 3 or 5.

    Returns:
        [points, cells] float64, in 1 / m**sum(derivative).

    Raises:
        ValueError: Points outside the grid, a derivative above the degree, an axis with fewer than degree + 1 cells.
    """
    points = grid.positions("points", points)
    orders = (0,) * grid.ndim if derivative is None else tuple(derivative)
    if len(orders) != grid.ndim:
        raise checks.invalid("derivative", orders, f"one number for each of {', '.join(grid.dims)}")
    columns = np.zeros((len(points), 1), dtype=np.int64)
    values = np.ones((len(points), 1))
    for axis, (centers, order) in enumerate(zip(grid.centers, orders, strict=True)):
        first, weights = axis_weights(centers, points[:, axis], derivative=order, degree=degree)
        nodes = first[:, np.newaxis] + np.arange(degree + 1)
        columns = (columns[:, :, np.newaxis] * centers.size + nodes[:, np.newaxis]).reshape(len(points), -1)
        values = (values[:, :, np.newaxis] * weights[:, np.newaxis]).reshape(len(points), -1)
    indptr = np.arange(len(points) + 1) * columns.shape[1]
    return CSRMatrix.from_scipy(scipy.sparse.csr_array((values.ravel(), columns.ravel(), indptr), shape=(len(points), grid.size)))


def axis_weights(centers: np.ndarray, x: np.ndarray, *, derivative: int = 0, degree: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The nodes and weights of interpolation along one axis; NumPy only.

    Args:
        centers: [n] strictly increasing positions, in metres.
        x: [points] positions, in metres; outside the centres the end polynomials extrapolate.
        derivative: Which derivative; 0 interpolates.
        degree: Of the polynomials: 1, 3 or 5.

    Returns:
        first: [points] int64, index of the first of the degree + 1 consecutive nodes.
        weights: [points, degree + 1], in 1 / m**derivative.

    Raises:
        ValueError: A derivative above the degree, or fewer than degree + 1 centres.
    """
    checks.choice("degree", degree, DEGREES)
    centers, x = np.asarray(centers, dtype=np.float64), np.asarray(x, dtype=np.float64)
    if not 0 <= derivative <= degree:
        raise checks.invalid("derivative", derivative, f"from 0 to the degree, {degree}")
    if centers.size <= degree:
        raise checks.invalid("degree", degree, f"below the number of cells along the axis, {centers.size}")
    first = np.clip(np.searchsorted(centers, x, side="right") - (degree + 1) // 2, 0, centers.size - degree - 1)
    return first, stencils.weights(centers[first[:, np.newaxis] + np.arange(degree + 1)], x, derivative=derivative)
