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

from ..grid import Grid


def centers(grid: Grid, points: Sequence[int]) -> tuple[np.ndarray, ...]:
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
