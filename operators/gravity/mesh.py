r"""The grid on which the potential is computed, and how the model's cells feed it.

The model's cells say where density is; they need not be where the potential is computed. The computational grid has cubic cells of
the model's resolution around the stations, where accuracy is decided, and cells that grow smoothly away from them, whatever the
model's own cells do. A model cell acts on it through its moments: along each axis the cell's integral of the Lagrange
polynomials L of the nodes around it,

.. math:: A_{jc} = \int_{cell\ c} L_j(x) \, dx ,

is the adjoint of the interpolation with which stations see the potential. It gives every cell, and every sum of cells, its exact
mass, centre and moments up to degree 5, so that feeding adds no error below 6th order to the solver's own.
"""

import numpy as np

from ..grid import Grid
from ..interpolation import axis_weights
from .sampling import DEGREE

#: Uniform cells around the stations before the cells grow.
MARGIN = 6
#: Growth of the cells away from the stations, and how far the grid reaches beyond model and stations, in units of
#: their largest half-width.
GROWTH, REACH = 1.1, 0.75


def resolution(model: Grid) -> float:
    """Size of the computational cells: what the model resolves along its coarsest axis, in metres."""
    return float(max(widths.min() for widths in model.widths))


def computational_grid(model: Grid, points: np.ndarray) -> Grid:
    """The computational grid for a model's grid and stations [point, axis], in metres; its outermost cells carry boundary values."""
    size = resolution(model)
    spans = [(min(edges[0], column.min()), max(edges[-1], column.max())) for edges, column in zip(model.edges, points.T, strict=True)]
    reach = REACH * max(high - low for low, high in spans) / 2
    return Grid(tuple(_axis(size, column, low - reach, high + reach) for column, (low, high) in zip(points.T, spans, strict=True)))


def _axis(size: float, stations: np.ndarray, low: float, high: float) -> np.ndarray:
    count = int(np.ceil(np.ptp(stations) / size)) + 2 * MARGIN
    start = (stations.min() + stations.max() - count * size) / 2
    uniform = start + size * np.arange(count + 1)
    below = uniform[0] - _growing(size, uniform[0] - low)[::-1]
    return np.concatenate([below, uniform, uniform[-1] + _growing(size, high - uniform[-1])])


def _growing(size: float, reach: float) -> np.ndarray:
    """Distances to the edges of cells that grow from `size` until they span `reach`, and of the boundary cell beyond."""
    count = max(2, int(np.ceil(np.log1p(max(reach, 0.0) / size * (GROWTH - 1) / GROWTH) / np.log(GROWTH)))) + 1
    return np.cumsum(size * GROWTH ** np.arange(1, count + 1))


def feed(edges: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The matrix A [node, cell] of one axis, in metres.

    Args:
        edges: Of the model's cells.
        centers: Nodes of the computational grid that carry unknowns.
    """
    # Between two nodes L is one polynomial: cells are cut at the nodes, and three Gauss points integrate its degree exactly.
    cuts = np.union1d(edges, centers[(centers > edges[0]) & (centers < edges[-1])])
    abscissae, weights = np.polynomial.legendre.leggauss(DEGREE // 2 + 1)
    half = np.diff(cuts)[:, None] / 2
    samples = (cuts[:-1, None] + half + half * abscissae).ravel()
    cells = np.searchsorted(edges, samples) - 1
    first, lagrange = axis_weights(centers, samples, degree=DEGREE)
    matrix = np.zeros((centers.size, edges.size - 1))
    np.add.at(matrix, (first[:, None] + np.arange(DEGREE + 1), cells[:, None]), lagrange * (half * weights).reshape(-1, 1))
    return matrix
