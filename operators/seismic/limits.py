r"""How large a time step may be, and how short a wave: stability and dispersion of the scheme (Fornberg weights, leapfrog in time).

A plane wave of wave number k along an axis of spacing h sees the second derivative :math:`-q(k h)/h^2` with
:math:`q(x) = -w_0 - 2 \sum_j w_j \cos(j x)`. The leapfrog scheme is stable while :math:`(v \Delta t)^2 \sum_{axes} q(\pi) / h^2 \le 4`
(von Neumann), and a wave of k travels at :math:`2 \arcsin(v \Delta t \sqrt{q(k h)} / 2 h) / (k \Delta t)`.

Where the density varies, the 4 bounds the largest eigenvalue of :math:`M = C D B (-G)` (see `density`), which jumps of density raise:
fluxes across wide stencils accelerate light cells by the pressure of heavy ones. With :math:`|M|`, the same of absolute values, any
positive x bounds it, :math:`\lambda \le \max_i (|M| x)_i / x_i` (Collatz 1942), and powers of :math:`|M|` bring that bound down to
the eigenvalue of :math:`|M|`, which is that of M where the weights alternate in sign, as they do. Nothing here needs TensorFlow.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import checks, stencils

#: The share of the von Neumann limit that is used: the absorbing layers lower it a little.
SAFETY = 0.95
#: The largest eigenvalue of a step that is taken where the density varies; 4 is unstable.
LARGEST = 3.9
#: Error of the phase velocity that is warned of.
DISPERSION = 0.01
#: What of a wavelet's root-mean-square amplitude may lie above the frequency that this is judged at.
VISIBLE = 0.03


def _symbol(order: int, x: np.ndarray | float) -> np.ndarray:
    weights = stencils.central(2, order)
    shifts = np.arange(len(weights)) - order // 2
    return -np.cos(np.multiply.outer(x, shifts)) @ weights


def stable_step(spacing: Sequence[float], velocity: float, order: int) -> float:
    """The largest stable time step, s, for a highest velocity in m/s on cells of the given spacing in m."""
    steepest = sum(float(_symbol(order, math.pi)) / each**2 for each in spacing)
    return SAFETY * 2 / (velocity * math.sqrt(steepest))


def steepest(
    velocity: np.ndarray | float, density: np.ndarray, widths: Sequence[Sequence[int]], spacing: Sequence[float], order: int, *,
    mirrored: bool, enough: float,
) -> float:  # fmt: skip
    """A bound on the largest eigenvalue of M over the square of the time step, 1/s2.

    Args:
        velocity: On the grid, or one for all of it, m/s.
        density: On the grid, kg/m3.
        widths: (lower, upper) layers along each axis, in cells.
        spacing: Of the cells, m.
        order: Of the scheme in space.
        mirrored: Whether the top is a free surface.
        enough: A bound that need not be lowered any further, 1/s2.
    """
    velocity = np.pad(np.broadcast_to(np.asarray(velocity, np.float32), density.shape), widths, "edge")
    density = np.pad(np.asarray(density, np.float32), widths, "edge")
    weights, stiffness = np.abs(stencils.staggered(1, order)), np.square(velocity) * density
    field, bound = np.ones_like(density), math.inf
    for _ in range(40):  # jumps of 1000 : 1 are within 1 % by then; rocks need two or three
        swept = np.zeros_like(density)
        for axis, size in enumerate(spacing):
            free = mirrored and axis == 0
            both = _summed(np.pad(density, _ends(density.ndim, axis, (1, 1)), "edge"), np.ones(2), axis, 0, None)
            flux = 2 / both * _summed(field, weights, axis, order // 2, "symmetric" if free else None)
            swept += _summed(flux, weights, axis, order // 2 - 1, "reflect" if free else None) / size**2
        swept *= stiffness
        bound = min(bound, float(np.max(swept / field)))
        if bound <= enough:
            break
        field = swept / swept.max()
    return bound


def _summed(field: np.ndarray, weights: np.ndarray, axis: int, margin: int, above: Any) -> np.ndarray:
    """Sums of weighted neighbours along an axis; the field ends with zeros, or above with its mirror image as `np.pad` calls it."""
    if above:
        field = np.pad(field, _ends(field.ndim, axis, (0, margin)), above)
    field = np.pad(field, _ends(field.ndim, axis, (margin, 0 if above else margin)))
    lines = np.moveaxis(field, axis, 0)
    count = len(lines) - len(weights) + 1
    total = sum(np.float32(weight) * lines[first : first + count] for first, weight in enumerate(weights))
    return np.moveaxis(np.asarray(total), 0, axis)


def _ends(ndim: int, axis: int, widths: tuple[int, int]) -> list[tuple[int, int]]:
    """Margins along one axis only, as `np.pad` takes them."""
    return [widths if each == axis else (0, 0) for each in range(ndim)]


def substeps(dt: float, time_step: float | None, largest: float, setting: str) -> int:
    """How many internal steps make one sample of the data.

    Args:
        dt: Sampling interval, s.
        time_step: That was asked for, s, or None.
        largest: That is stable, s.
        setting: What decides on that, in words.

    Raises:
        ValueError: A given time step that is unstable, or that does not divide the sampling interval.
    """
    if time_step is None:
        return max(1, math.ceil(dt / largest * (1 - 1e-12)))
    count = round(dt / checks.positive("time_step", time_step).item())
    if count < 1 or abs(count * time_step - dt) > 1e-6 * dt:
        raise checks.invalid("time_step", f"{time_step:g} s", f"a whole fraction of the sampling interval dt = {dt:g} s")
    if time_step > largest * (1 + 1e-12):
        raise checks.invalid(
            "time_step", f"{time_step:g} s", f"at most {largest:.4g} s to be stable ({setting})", "Without it a stable one is chosen."
        )
    return count


def snapshot_interval(source: float, residual: float, time_step: float) -> int:
    """The most steps k from one snapshot to the next: k dt < 1 / (f_source + f_residual) (see `wavelets.band`).

    Args:
        source, residual: The highest frequency of either wavefield, Hz.
        time_step: s.
    """
    total = source + residual
    return max(1, math.ceil(1 / (total * time_step)) - 1) if total else sys.maxsize


def phase_velocity(order: int, points: float, courant: float) -> float:
    """The velocity at which a wave along an axis travels on the grid, over the true one.

    Args:
        order: Of the scheme in space.
        points: Cells per wavelength.
        courant: v dt / h.
    """
    x = 2 * math.pi / points
    return 2 * math.asin(min(1.0, courant * math.sqrt(float(_symbol(order, x))) / 2)) / (x * courant)


def warn_of_dispersion(order: int, spacing: Sequence[float], velocity: float, frequency: float, time_step: float) -> None:
    """Warn where the shortest wave travels at a wrong velocity on the grid.

    Args:
        order: Of the scheme in space.
        spacing: Of the cells, m.
        velocity: The lowest one, m/s.
        frequency: The highest one that matters, Hz.
        time_step: s.
    """
    widest = max(spacing)
    points = velocity / (frequency * widest)
    error = abs(phase_velocity(order, max(points, 2.0), velocity * time_step / widest) - 1)
    if points >= 2 and error <= DISPERSION:
        return
    fine = next(each for each in np.arange(2.0, 40.0, 0.5) if abs(phase_velocity(order, each, velocity * time_step / widest) - 1) <= DISPERSION)
    checks.warn(
        f"too few points per wavelength: {points:.1f} at {frequency:.3g} Hz and {velocity:g} m/s; waves travel {100 * error:.1f} % too fast or slow. "
        f"Order {order} wants {fine:.1f}: cells of {velocity / (frequency * fine):.3g} m, a lower frequency, or a higher order."
    )
