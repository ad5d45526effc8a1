r"""Fields on other cells: interpolated, sampled, or averaged as waves average them.

Over cells much smaller than a wavelength a wave feels, without contrasts of density, the mean of the squared slowness, for that is
what multiplies the pressure's second derivative in time. Averaged over larger cells with the shares W of the smaller ones in each,

.. math:: \bar v = (W v^{-2})^{-1/2}, \qquad \partial \bar v_i / \partial v_j = W_{ij} \bar v_i^3 / v_j^3.

Nothing here needs TensorFlow.
"""

import functools
import math
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.interpolate import RegularGridInterpolator

from geoinv.operators.grid import Grid


def interpolated(values: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """A field [source.shape] at the centres of another grid's cells: linear between its own centres, constant outside of them."""
    at = [np.clip(centers, own[0], own[-1]) for centers, own in zip(target.centers, source.centers, strict=True)]
    return RegularGridInterpolator(source.centers, values)(tuple(np.meshgrid(*at, indexing="ij")))


def sampled(values: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """A field [source.shape] at the centres of another grid's cells: that of the cell which holds each, or of the nearest one."""
    at = [np.clip(np.searchsorted(edges, own, side="right") - 1, 0, edges.size - 2) for edges, own in zip(source.edges, target.centers, strict=True)]
    return values[np.ix_(*at)]


def coarsened(grid: Grid, spacing: float) -> Grid:
    """The grid of the fewest cells, of one size along each axis and at most `spacing` m, that fill the same space; never finer than it was."""
    counts = [min(n, max(1, math.ceil(np.ptp(edges) / spacing * (1 - 1e-9)))) for n, edges in zip(grid.shape, grid.edges, strict=True)]
    return Grid(tuple(np.linspace(edges[0], edges[-1], n + 1) for n, edges in zip(counts, grid.edges, strict=True)))


@final
@dataclass(frozen=True, eq=False)
class Averaging:
    """From velocities on fine cells to velocities on coarse cells of the same extent.

    Args:
        fine, coarse: The cells.
    """

    fine: Grid
    coarse: Grid

    @functools.cached_property
    def shares(self) -> tuple[np.ndarray, ...]:
        """[coarse, fine] of each axis: the part of a coarse cell that each fine cell fills."""
        return tuple(_overlaps(few, many) / np.diff(few)[:, None] for few, many in zip(self.coarse.edges, self.fine.edges, strict=True))

    def __call__(self, velocity: np.ndarray) -> np.ndarray:
        """Velocity [coarse.shape] of one on the fine cells."""
        return _along_axes(self.shares, velocity**-2.0) ** -0.5

    def transposed(self, velocity: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """The gradient [fine.shape] with respect to a velocity on the fine cells, from that with respect to its average."""
        back = [matrix.T for matrix in self.shares]
        return _along_axes(back, gradient * self(velocity) ** 3) * velocity**-3.0


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Lengths [interval, interval] that the intervals between edges have in common."""
    return np.clip(np.minimum(first[1:, None], second[1:]) - np.maximum(first[:-1, None], second[:-1]), 0.0, None)


def _along_axes(matrices: tuple[np.ndarray, ...] | list[np.ndarray], field: np.ndarray) -> np.ndarray:
    for axis, matrix in enumerate(matrices):
        field = np.moveaxis(np.tensordot(matrix, field, (1, axis)), 0, axis)
    return field
