"""Finite-difference derivatives on a grid as sparse matrices.

Values are at cell centres, ravelled in C order of [upward, northing, easting]; fluxes are at the interior faces along an axis,
ravelled in the same way (one fewer along that axis). A derivative along one axis is a one-dimensional matrix D between
identities, ``I (x) D (x) I``; the Laplacian is the sum of these over the axes. The weights are Fornberg's (`stencils`) on the
actual positions: centred inside, one-sided and of the same order near the ends. On an axis of uneven spacing a centred
stencil keeps its order where the spacing varies smoothly, and may lose one order where it jumps.
"""

import functools

import numpy as np
import scipy.sparse

from . import checks, stencils
from .grid import Grid
from .sparse import CSRMatrix

BOUNDARIES = {"dirichlet": -1.0, "neumann": 1.0}  # the sign of a field's mirror image behind the outer faces


def gradient(grid: Grid, *, axis: int, order: int = 2) -> CSRMatrix:
    """First derivative at the interior faces from values at the cell centres.

    Args:
        grid: Any rectilinear grid; order 2 is the plain difference of neighbours over the distance of their centres.
        axis: Along which axis.
        order: Order of accuracy, even.

    Returns:
        [faces, cells] float64, in 1/m.
    """
    axis = _axis(grid, axis)
    return _assemble(grid.shape, axis, _one_axis(grid.centers[axis], grid.edges[axis][1:-1], 1, order, len(stencils.staggered(1, order))))


def derivative(grid: Grid, *, axis: int, derivative: int = 1, order: int = 2) -> CSRMatrix:
    """A derivative at the cell centres from values there.

    Args:
        grid: Any rectilinear grid.
        axis: Along which axis.
        derivative: Which derivative, 1 or higher.
        order: Order of accuracy, even.

    Returns:
        [cells, cells] float64, in 1 / m**derivative.
    """
    axis = _axis(grid, axis)
    centers = grid.centers[axis]
    return _assemble(grid.shape, axis, _one_axis(centers, centers, derivative, order, len(stencils.central(derivative, order))))


def divergence(grid: Grid, order: int = 2) -> CSRMatrix:
    """Divergence at the cell centres from fluxes at the interior faces; the flux through the outer faces is zero.

    Args:
        grid: Any rectilinear grid; order 2 is the finite-volume balance of each cell.
        order: Order of accuracy, even.

    Returns:
        [cells, faces] float64, in 1/m; the faces of the axes one after the other, as `gradient` gives them.
    """
    width = len(stencils.staggered(1, order))
    parts = []
    for axis, (edges, centers) in enumerate(zip(grid.edges, grid.centers, strict=True)):
        balance = _one_axis(edges, centers, 1, order, width)[:, 1:-1]
        parts.append(_kronecker(grid.shape, axis, balance))
    return CSRMatrix.from_scipy(scipy.sparse.hstack(parts))


def laplacian(grid: Grid, order: int = 2, boundary: str = "dirichlet") -> CSRMatrix:
    """Sum of the second derivatives at the cell centres.

    Args:
        grid: Any rectilinear grid for order 2 and for the boundary 'open'; uniform axes otherwise.
        order: Order of accuracy, even. Order 2 is the divergence of the fluxes through the faces.
        boundary: 'dirichlet': the field is zero on the outer faces and continues behind them with the opposite sign.
            'neumann': its normal derivative is zero there and it continues as its mirror image. Both give symmetric
            matrices on uniform axes. 'open': no condition, one-sided weights near the ends.

    Returns:
        [cells, cells] float64, in 1/m2.

    Raises:
        ValueError: A higher order on axes of uneven spacing, or too few cells.
    """
    checks.choice("boundary", boundary, (*BOUNDARIES, "open"))
    if boundary == "open":
        width = len(stencils.central(2, order))
        lines = [_one_axis(centers, centers, 2, order, width) for centers in grid.centers]
    elif order == 2:
        lines = [_finite_volume(edges, BOUNDARIES[boundary]) for edges in grid.edges]
    else:
        lines = [_mirrored(dim, edges, order, BOUNDARIES[boundary]) for dim, edges in zip(grid.dims, grid.edges, strict=True)]
    parts = [_kronecker(grid.shape, axis, line) for axis, line in enumerate(lines)]
    return CSRMatrix.from_scipy(functools.reduce(lambda total, part: total + part, parts))


def _one_axis(nodes: np.ndarray, at: np.ndarray, derivative: int, order: int, width: int) -> scipy.sparse.csr_array:
    """The derivative at points from values at nodes: `width` nodes where they fit centred, else one-sided ones of the same order."""
    wide = derivative + order  # nodes of a one-sided stencil
    needed = max(wide if at.size > nodes.size - width + 1 else 0, width)
    if nodes.size < needed:
        raise checks.invalid("order", order, f"lower: derivative {derivative} of this order needs {needed} nodes along each axis, not {nodes.size}")
    # A point on a node counts from the node, one between two nodes from the gap.
    start = np.searchsorted(nodes, at, side="right") - (width + 1) // 2
    inside = (start >= 0) & (start + width <= nodes.size)
    matrix = scipy.sparse.csr_array((at.size, nodes.size))
    for part, count, first in ((inside, width, start), (~inside, wide, start - (wide - width) // 2)):
        columns = np.clip(first[part], 0, nodes.size - count)[:, np.newaxis] + np.arange(count)
        values = stencils.weights(nodes[columns], at[part], derivative=derivative)
        rows = np.repeat(np.flatnonzero(part), count)
        matrix = matrix + scipy.sparse.csr_array((values.ravel(), (rows, columns.ravel())), shape=matrix.shape)
    return matrix


def _finite_volume(edges: np.ndarray, sign: float) -> scipy.sparse.csr_array:
    """Balance of the fluxes of one axis; the outer faces' flux is that of the field's mirror image times `sign`."""
    widths = np.diff(edges)
    ghosts = np.concatenate([[-widths[0]], widths, [-widths[-1]]])  # only their magnitudes matter: mirrored cells
    distances = (np.abs(ghosts[1:]) + np.abs(ghosts[:-1])) / 2
    flux = scipy.sparse.diags_array([-1 / distances, 1 / distances], offsets=[0, 1], shape=(widths.size + 1, widths.size + 2))
    balance = scipy.sparse.diags_array([-1 / widths, 1 / widths], offsets=[0, 1], shape=(widths.size, widths.size + 1))
    return scipy.sparse.csr_array(balance @ flux @ _mirror(widths.size, 1, sign))


def _mirrored(dim: str, edges: np.ndarray, order: int, sign: float) -> scipy.sparse.csr_array:
    """Centred second derivative of one uniform axis, the field continued by its mirror image times `sign`."""
    widths = np.diff(edges)
    if not np.allclose(widths, widths[0], rtol=1e-6, atol=0):
        raise checks.invalid("order", order, f"2 where cells differ in size, as along {dim}", "Or take boundary='open'.")
    weights = stencils.central(2, order) / widths.mean() ** 2
    half = len(weights) // 2
    if widths.size < half:
        raise checks.invalid("order", order, f"at most {2 * widths.size} on {widths.size} cells along {dim}")
    constants = [np.full(widths.size, weight) for weight in weights]
    bands = scipy.sparse.diags_array(constants, offsets=range(len(weights)), shape=(widths.size, widths.size + 2 * half))
    return scipy.sparse.csr_array(bands @ _mirror(widths.size, half, sign))


def _mirror(count: int, ghosts: int, sign: float) -> scipy.sparse.csr_array:
    """[count + 2 ghosts, count]: a field continued behind both ends by its mirror image times `sign`."""
    cells = np.pad(np.arange(count), ghosts, mode="symmetric")
    signs = np.pad(np.ones(count), ghosts, constant_values=sign)
    return scipy.sparse.csr_array((signs, cells, np.arange(cells.size + 1)), shape=(cells.size, count))


def _kronecker(shape: tuple[int, ...], axis: int, line: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """``I (x) line (x) I`` for a grid of the given shape."""
    before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    inner = scipy.sparse.kron(line, scipy.sparse.eye_array(after), format="csr")
    return scipy.sparse.csr_array(scipy.sparse.kron(scipy.sparse.eye_array(before), inner, format="csr"))


def _assemble(shape: tuple[int, ...], axis: int, line: scipy.sparse.csr_array) -> CSRMatrix:
    return CSRMatrix.from_scipy(_kronecker(shape, axis, line))


def _axis(grid: Grid, axis: int) -> int:
    if not -grid.ndim <= axis < grid.ndim:
        raise checks.invalid("axis", axis, f"from 0 to {grid.ndim - 1}: {', '.join(grid.dims)}")
    return axis % grid.ndim
