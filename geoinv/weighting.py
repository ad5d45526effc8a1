"""Weights that balance shallow against deep cells: without them a potential field's model clings to the surface."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from geoinv.operators import checks
from geoinv.operators.gravity.ground import tops
from geoinv.operators.grid import Grid

#: The smallest weight, relative to the largest: cells that no datum sees stay tied to the reference.
FLOOR = 1e-3


def probed_diagonal(adjoint: Callable[[tf.Tensor], tf.Tensor], shape: tuple[int, ...], *, probes: int = 48, seed: int = 0) -> np.ndarray:
    """An estimate of diag(J^T J) from adjoint products alone, one value for each model entry.

    For signs z drawn at random, the mean of (J^T z)^2 is the diagonal (Hutchinson 1990; Bekas et al. 2007), to
    about sqrt(2 / probes).

    Args:
        adjoint: w -> J^T w, w float64 of the given shape.
        shape: Of the data.
        probes: Number of products.
        seed: Of the random signs.
    """
    random = np.random.default_rng(seed)
    total = 0.0
    for _ in range(probes):
        total = total + adjoint(tf.constant(random.choice([-1.0, 1.0], size=shape))) ** 2
    return np.asarray(total / probes)


def sensitivity_weights(diagonal: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Square root of the root-sum-square sensitivity per volume of each cell, relative to its largest (Li & Oldenburg 2000).

    The penalty on a cell is then proportional to how well the data see it. A steeper power pushes bodies to depth and
    carves holes around stations: of those tried on blocks at five depths, this one with equal smallness and smoothness placed
    them best.

    Args:
        diagonal: diag(J^T J) for each active cell.
        volumes: Of each active cell, m3.
    """
    seen = np.sqrt(diagonal) / volumes
    if not seen.max() > 0:
        raise checks.invalid("sensitivities", "zero everywhere", "above zero somewhere", "Do the stations see the grid?")
    return np.maximum(np.sqrt(seen / seen.max()), FLOOR)


def depth_weights(grid: Grid, active: np.ndarray, *, exponent: float = 1.5) -> np.ndarray:
    """``(1 + depth / z0)^(-exponent / 2)`` of each active cell, z0 being half the thickness of the topmost active layer (Li & Oldenburg 1998).

    Args:
        grid: The model's grid.
        active: Mask, shaped as the grid.
        exponent: Decay of the kernel with distance: 2 for gz at one station, less for stations spread over the ground.
    """
    depth = np.where(active, tops(grid, active) - grid.centers[0].reshape(-1, *[1] * (grid.ndim - 1)), 0.0)[active]
    layer = int(np.flatnonzero(active.any(axis=tuple(range(1, grid.ndim))))[-1])
    scale = grid.widths[0][layer] / 2
    return np.maximum((1 + depth / scale) ** (-exponent / 2), FLOOR)
