r"""From velocity and density on the grid to what a step needs in the cells and on the faces of the lattice, and back.

With the time step dt the stiffness is :math:`C = (v \, dt)^2`, times the density rho where that varies; the buoyancy on a face is
:math:`B = 2 / (\rho_1 + \rho_2)` of the two cells that share it, which keeps the flux through a jump of density right to second order.
Fields continue through the layers with the values of the grid's outermost cells.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from .stepping import Material

Widths = Sequence[Sequence[int]]


class Rock(NamedTuple):
    """Velocity, m/s, and density, kg/m3, or changes of them, on the grid; no density where it is constant."""

    velocity: tf.Tensor
    density: tf.Tensor | None = None


def extended(field: tf.Tensor, widths: Widths) -> tf.Tensor:
    """A field on the grid, continued through the layers with the values of its outermost cells."""
    for axis, (lower, upper) in enumerate(widths):
        n = field.shape[axis]
        field = tf.gather(field, np.clip(np.arange(-lower, n + upper), 0, n - 1), axis=axis)
    return field


def folded(field: tf.Tensor, widths: Widths) -> tf.Tensor:
    """The transpose of `extended`: what lies in the layers is added to the outermost cells."""
    for axis, (lower, upper) in enumerate(widths):
        n = field.shape[axis]
        first, inner, last = tf.split(field, [lower + 1, n - lower - upper - 2, upper + 1], axis=axis)
        ends = [tf.reduce_sum(part, axis=axis, keepdims=True) for part in (first, last)]
        field = tf.concat([ends[0], inner, ends[1]], axis=axis)
    return field


def material(rock: Rock, widths: Widths, dt: float) -> Material:
    """Stiffness and buoyancy."""
    stiffness = tf.square(extended(rock.velocity, widths) * dt)
    if rock.density is None:
        return Material(stiffness)
    density = extended(rock.density, widths)
    return Material(stiffness * density, tuple(2 / _sums(density, axis) for axis in range(len(widths))))


def pushed(rock: Rock, change: Rock, widths: Widths, dt: float) -> Material:
    """The change of the material for a change of the rock."""
    velocity, faster = extended(rock.velocity, widths), extended(change.velocity, widths)
    stiffness = 2 * dt**2 * velocity * faster
    if rock.density is None or change.density is None:
        return Material(stiffness)
    density, denser = extended(rock.density, widths), extended(change.density, widths)
    buoyancy = tuple(-2 * _sums(denser, axis) / _sums(density, axis) ** 2 for axis in range(len(widths)))
    return Material(stiffness * density + tf.square(velocity * dt) * denser, buoyancy)


def pulled(rock: Rock, gradient: Material, widths: Widths, dt: float) -> Rock:
    """The gradient with respect to the rock, from that with respect to the material: the transpose of `pushed`."""
    velocity = extended(rock.velocity, widths)
    slope = 2 * dt**2 * velocity * gradient.stiffness
    if rock.density is None:
        return Rock(folded(slope, widths))
    density = extended(rock.density, widths)
    total = tf.square(velocity * dt) * gradient.stiffness
    for axis, part in enumerate(gradient.buoyancy):
        total += _spread(-2 * part / _sums(density, axis) ** 2, axis)
    return Rock(folded(slope * density, widths), folded(total, widths))


def _sums(field: tf.Tensor, axis: int) -> tf.Tensor:
    """On each face across an axis the sum of the two cells that share it; twice the one of an outermost face."""
    n = field.shape[axis]
    below, above = (np.clip(np.arange(n + 1) - shift, 0, n - 1) for shift in (1, 0))
    return tf.gather(field, below, axis=axis) + tf.gather(field, above, axis=axis)


def _spread(faces: tf.Tensor, axis: int) -> tf.Tensor:
    """The transpose of `_sums`."""
    n = faces.shape[axis] - 1
    first, inner, last = tf.split(faces, [1, n - 1, 1], axis=axis)
    return tf.concat([2 * first, inner], axis=axis) + tf.concat([inner, 2 * last], axis=axis)
