"""How stations see a field on a grid: 6-point Lagrange interpolation of its values and derivatives, axis by axis."""

from collections.abc import Sequence

import numpy as np

from .. import checks
from ..interpolation import axis_weights
from ..sparse.csr import CSRMatrix
from ..sparse.separable import SeparablePoisson
from .components import COMPONENTS

#: Nodes of the interpolation along each axis, less one.
DEGREE = 5

#: For each axis, for derivatives 0, 1, 2: (first node [point], weights [point, node]).
Stencils = list[list[tuple[np.ndarray, np.ndarray]]]


def stencils(solver: SeparablePoisson, points: np.ndarray) -> Stencils:
    """The stencils with which points [point, axis], in metres, see the solver's unknowns."""
    inner = [centers[1:-1] for centers in solver.grid.centers]
    low, high = (np.array([centers[end] for centers in inner]) for end in (0, -1))
    if np.any((points < low) | (points > high)):
        raise checks.invalid("stations", "outside the computational grid", "inside it")
    return [[axis_weights(centers, x, derivative=d, degree=DEGREE) for d in range(3)] for centers, x in zip(inner, points.T, strict=True)]


def box(seen: Stencils) -> list[slice]:
    """The smallest block of unknowns that holds all stencils."""
    return [slice(int(first.min()), int(first.max()) + DEGREE + 1) for ((first, _), *_) in seen]


def matrix(components: Sequence[str], seen: Stencils, block: Sequence[slice]) -> CSRMatrix:
    """The CSR matrix [station x component, node of the block] of interpolated derivatives of the potential."""
    shape = [part.stop - part.start for part in block]
    nodes = [first[:, None] + np.arange(DEGREE + 1) - part.start for ((first, _), *_), part in zip(seen, block, strict=True)]
    columns = (nodes[0][:, :, None, None] * shape[1] + nodes[1][:, None, :, None]) * shape[2] + nodes[2][:, None, None, :]
    values = []
    for name in components:
        up, north, east = (axis[d][1] for axis, d in zip(seen, COMPONENTS[name].derivative, strict=True))
        values.append(COMPONENTS[name].sign * np.einsum("sk,sj,si->skji", up, north, east))
    count = len(columns)
    columns = np.broadcast_to(columns[:, None], (count, len(components), *columns.shape[1:])).ravel()
    indptr = np.arange(count * len(components) + 1) * (DEGREE + 1) ** 3
    return CSRMatrix.from_arrays(indptr, columns, np.stack(values, axis=1).ravel(), (len(indptr) - 1, int(np.prod(shape))))


def modes(modes_of_axis: np.ndarray, first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The modes of an axis [node, mode] as each point sees them, [point, mode]."""
    return np.einsum("sk,skm->sm", weights, modes_of_axis[first[:, None] + np.arange(weights.shape[1])])
