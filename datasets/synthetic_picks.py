"""A synthetic refraction line: picks over a known layered model, with seeded noise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import xarray

from geoinv.operators import checks
from geoinv.operators.grid import Grid

from . import picks
from .ground import Ground

#: Velocity right below the ground and at the base of the weathered layer, and below that layer, m/s.
TOP, BASE, ROCK = 400.0, 900.0, 2800.0
#: Thickness of the weathered layer in the mean, and how much it varies, over the length of the line.
THICK, VARIES = 0.06, 0.5


@final
@dataclass(frozen=True, eq=False)
class RefractionExample:
    """A refraction survey over a known model.

    Args:
        survey: The picks (see `geoinv.datasets.picks`).
        velocity: Of points, (upward, easting) in m that broadcast together, m/s.
    """

    survey: xarray.Dataset
    velocity: Callable[[np.ndarray, np.ndarray], np.ndarray]


def refraction(
    *, seed: int = 0, receiver_count: int = 48, spacing: float = 2.0, shot_count: int = 9, relief: float = 0.04, cells: float = 0.125,
    absolute: float = 3e-4, relative: float = 0.01,
) -> RefractionExample:  # fmt: skip
    """Receivers along a hill, with a weathered layer of changing thickness over rock.

    Times are those of `geoinv.operators.Eikonal`, on finer cells than those that they will be inverted on.

    Args:
        seed: Of NumPy's default generator, which draws the noise.
        receiver_count, spacing: Of receivers, and their distance in m.
        shot_count: Between the first and the last receiver, evenly, half a spacing beside receivers.
        relief: Height of the hill over the length of the line.
        cells: Size of the cells of the modelling, over the receivers' spacing.
        absolute, relative: Standard deviation of the noise, s and a fraction of the time; both zero leave the uncertainty "not given".

    Raises:
        ValueError: Too few receivers or shots, or a negative number.
    """
    if seed < 0:
        raise checks.invalid("seed", seed, "0 or more")
    checks.count("receiver_count", receiver_count, 6)
    checks.count("shot_count", shot_count)
    checks.positive("spacing", spacing)
    checks.positive("cells", cells)
    length = spacing * (receiver_count - 1)

    def ground(easting: np.ndarray) -> np.ndarray:
        return relief * length * np.exp(-(((easting / length - 0.6) / 0.25) ** 2))

    def velocity(upward: np.ndarray, easting: np.ndarray) -> np.ndarray:
        thickness = THICK * length * (1 + VARIES * np.sin(2 * np.pi * easting / length))
        share = np.clip((ground(easting) - upward) / thickness, 0, None)
        return np.where(share < 1, TOP + (BASE - TOP) * share, ROCK)

    receivers = spacing * np.arange(receiver_count)
    between = np.linspace(0, receiver_count - 2, shot_count) if shot_count > 1 else np.array([receiver_count / 2 - 1])
    shots = spacing * (np.round(between) + 0.5)
    easting = np.concatenate([receivers, shots])
    upward = ground(easting)
    shot, receiver = (part.ravel() for part in np.meshgrid(np.arange(receiver_count, easting.size), np.arange(receiver_count), indexing="ij"))
    clean = _times(ground, velocity, easting, upward, shot, receiver, cells * spacing)
    deviation = absolute + relative * clean
    noisy = clean + deviation * np.random.default_rng(seed).standard_normal(clean.size)
    made = f"modelled on cells of {cells * spacing:g} m; noise of {absolute:g} s + {relative:g} of the time, seed {seed}"
    return RefractionExample(picks.make(easting, upward, shot, receiver, np.maximum(noisy, 1e-6), deviation, history=[made]), velocity)


def _times(
    ground: Callable[[np.ndarray], np.ndarray],
    velocity: Callable[[np.ndarray, np.ndarray], np.ndarray],
    easting: np.ndarray,
    upward: np.ndarray,
    shot: np.ndarray,
    receiver: np.ndarray,
    cell: float,
) -> np.ndarray:
    import tensorflow as tf

    from geoinv.operators.seismic import Eikonal

    length, top = float(np.ptp(easting)), float(np.ceil(upward.max() / cell) * cell)
    columns, rows = int(np.ceil(1.1 * length / cell)), int(np.ceil((top + 0.3 * length) / cell))
    grid = Grid.uniform((rows, columns), (cell, cell), (top - rows * cell, easting.min() - 0.05 * length))
    places = np.unique(np.concatenate([easting, np.linspace(grid.edges[1][0], grid.edges[1][-1], 8 * columns + 1)]))
    active = Ground(places, ground(places)).active(grid)
    slowness = 1 / velocity(grid.centers[0][:, np.newaxis], grid.centers[1])
    points, (sources, number) = np.stack([upward, easting], axis=1), np.unique(shot, return_inverse=True)
    return np.asarray(Eikonal(grid, points[sources], points[receiver], number, active=active).forward(tf.constant(slowness)))
