r"""Boundary values of the potential by equivalent sources at fixed centres.

Outside the source region the potential is smooth in the source's position, so it is interpolated there: with Lagrange
polynomials L_q on Chebyshev points x_q of the source box,

.. math:: U(x) = G \int \frac{\rho(s)}{|x - s|} ds \approx \sum_q \frac{G \, m_q}{|x - x_q|}, \qquad m_q = \int \rho(s) L_q(s) \, ds .

This is a multipole expansion about fixed centres that needs no special functions (the black-box fast multipole method of Fong
& Darve 2009). The moments m_q separate over the axes, are linear in the density and conserve its mass, dipole and higher moments; the
error falls geometrically with the number of points, for a compact body and for one that fills the box alike.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ..constants import GRAVITATIONAL_CONSTANT
from ..grid import Grid
from ..sparse.separable import SeparablePoisson
from . import sampling

#: Equivalent sources along each axis (upward, northing, easting): boundary values good to about 1e-4.
SOURCES = (5, 6, 6)
#: Cells along each axis on which the smooth field of the boundary values is solved.
SMOOTH = 32


def centers(grid: Grid, points: Sequence[int] = SOURCES) -> tuple[np.ndarray, ...]:
    """Chebyshev points of the grid's box along each axis, in metres."""
    return tuple(
        (edges[0] + edges[-1]) / 2 + (edges[-1] - edges[0]) / 2 * np.cos(np.pi * (np.arange(n) + 0.5) / n)
        for edges, n in zip(grid.edges, points, strict=True)
    )


def moments(grid: Grid, nodes: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """For each axis the matrix [point, cell] of integrals of the Lagrange polynomials over the cells, in metres."""
    return tuple(_axis_moments(edges, points) for edges, points in zip(grid.edges, nodes, strict=True))


def _axis_moments(edges: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    abscissae, weights = np.polynomial.legendre.leggauss(nodes.size // 2 + 1)  # exact for these degrees
    widths = np.diff(edges)
    samples = (edges[1:] + edges[:-1])[:, None] / 2 + widths[:, None] / 2 * abscissae
    rows = []
    for node in nodes:
        others = nodes[nodes != node]
        polynomial = np.prod((samples[..., None] - others) / (node - others), axis=-1)
        rows.append(widths / 2 * (polynomial @ weights))
    return np.array(rows)


def responses(box: Grid, nodes: Sequence[np.ndarray], components: Sequence[str], points: np.ndarray) -> np.ndarray:
    """What stations see of the boundary values that each unit equivalent source makes, [station x component, source].

    These fields are harmonic and smooth over the whole box, whatever the model's cells: `SMOOTH` uniform cells an axis between
    the same boundary planes resolve them, at a small fraction of the cost of the computational grid.

    Args:
        box: The computational grid, whose outermost cells' centres are the boundary planes.
        nodes: From `centers`.
        components: What is measured.
        points: Stations [station, axis], in metres.
    """
    ends = [(axis[0], axis[-1]) for axis in box.centers]
    steps = [(high - low) / (SMOOTH + 1) for low, high in ends]
    coarse = SeparablePoisson(Grid(tuple(low + step * (np.arange(SMOOTH + 3) - 0.5) for (low, _), step in zip(ends, steps, strict=True))))

    def boundary_values(source: np.ndarray) -> np.ndarray:
        return coarse.boundary_source(
            lambda z, y, x: GRAVITATIONAL_CONSTANT / np.sqrt((z - source[0]) ** 2 + (y - source[1]) ** 2 + (x - source[2]) ** 2)
        )

    sources = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1).reshape(-1, 3)
    harmonic = coarse.solve(tf.constant(np.stack([boundary_values(source) for source in sources])))
    seen = sampling.matrix(components, sampling.stencils(coarse, points), [slice(0, n) for n in coarse.shape])
    return seen.matmat(tf.transpose(tf.reshape(harmonic, [len(sources), -1]))).numpy()
