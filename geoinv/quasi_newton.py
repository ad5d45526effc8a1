r"""The parts of a projected quasi-Newton step: the limited-memory inverse Hessian, its step inside a box, the line search.

The inverse Hessian H is the two-loop recursion (Nocedal & Wright 2006, algorithm 7.4) from an initial ``gamma M``, M the
preconditioner. The step to x + d minimises the quadratic model with Hessian 1 / H over the box,

.. math:: d = -H (g - \lambda)

with multipliers that are zero inside, positive at a lower bound and negative at an upper one, by a primal-dual active set
(Hintermuller, Ito & Kunisch 2002): the multipliers of the variables held at bounds solve
:math:`H_{AA} \lambda_A = d_A + (H g)_A` by conjugate gradients, which products with H suffice for. Nothing here evaluates the
objective but the line search: cubic interpolation for the strong Wolfe conditions (Nocedal & Wright 2006, algorithms 3.5, 3.6).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, final

import numpy as np

Product = Callable[[np.ndarray], np.ndarray]
#: A pair whose curvature is below this fraction of |s| |y| says nothing about the Hessian.
FLAT = 1e-8
#: Changes of the active set in one step; after that the step is clipped.
PASSES = 10


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """The inner product, summed in double precision."""
    return float(a @ b) if a.dtype == np.float64 else float(np.einsum("i,i->", a, b, dtype=np.float64))


def has_curvature(step: np.ndarray, change: np.ndarray) -> bool:
    """Whether a pair may enter the inverse Hessian: s^T y clearly positive."""
    return dot(step, change) > FLAT * math.sqrt(dot(step, step) * dot(change, change))


@final
@dataclass(frozen=True, eq=False)
class InverseHessian:
    """r -> H r, symmetric positive definite.

    Args:
        steps, changes: Pairs of changes of the model and of the gradient [n], oldest first, each with curvature.
        precondition: r -> M r.
        scale: gamma where there are no pairs; s^T y / y^T M y of the last one otherwise.
    """

    steps: Sequence[np.ndarray]
    changes: Sequence[np.ndarray]
    precondition: Product
    scale: float = 1.0

    def __call__(self, r: np.ndarray) -> np.ndarray:
        number = r.dtype.type
        factors = []
        for s, y, product in reversed(self._pairs):
            factors.append(dot(s, r) / product)
            r = r - number(factors[-1]) * y
        r = number(self._gamma) * self.precondition(r)
        for (s, y, product), factor in zip(self._pairs, reversed(factors), strict=True):
            r = r + number(factor - dot(y, r) / product) * s
        return r

    @cached_property
    def _pairs(self) -> list[tuple[np.ndarray, np.ndarray, float]]:
        return [(s, y, dot(s, y)) for s, y in zip(self.steps, self.changes, strict=True)]

    @cached_property
    def _gamma(self) -> float:
        if not self._pairs:
            return self.scale
        _, y, product = self._pairs[-1]
        return product / dot(y, self.precondition(y))


def step_in_box(
    inverse: InverseHessian, model: np.ndarray, gradient: np.ndarray, lower: np.ndarray, upper: np.ndarray, diagonal: np.ndarray | float
) -> np.ndarray:
    """The step d [n] to the minimum of the quadratic model over the box, or close to it.

    Args:
        inverse: H.
        model, gradient: x inside the box, and g, [n].
        lower, upper: Bounds [n].
        diagonal: Of M, [n] or a number: preconditions the multipliers' equations.
    """
    low = (model <= lower) & (gradient > 0)
    high = (model >= upper) & (gradient < 0)
    newton = inverse(gradient)
    multipliers = np.zeros_like(gradient)
    for _ in range(PASSES):
        held = low | high
        target = np.where(low, lower - model, upper - model)[held]
        multipliers = _multipliers(inverse, held, target + newton[held], multipliers, diagonal)
        step = inverse(multipliers) - newton if held.any() else -newton
        step[held] = target
        was = low, high
        low = np.where(held, low & (multipliers > 0), model + step < lower)
        high = np.where(held, high & (multipliers < 0), model + step > upper)
        if np.array_equal(was, (low, high)):
            break
    return np.clip(model + step, lower, upper) - model


def _multipliers(inverse: InverseHessian, held: np.ndarray, right_side: np.ndarray, start: np.ndarray, diagonal: np.ndarray | float) -> np.ndarray:
    """lambda [n], zero but where held, with (H lambda) there equal to the right-hand side."""
    x = np.where(held, start, 0)
    if not held.any():
        return x
    weight = np.where(held, 1 / np.broadcast_to(np.asarray(diagonal, x.dtype), x.shape), 0)
    b = np.zeros_like(x)
    b[held] = right_side
    r = np.where(held, b - inverse(x), 0)
    enough = 1e-4**2 * dot(b, weight * b)
    z = weight * r
    p, rz = z, dot(r, z)
    for _ in range(2 * len(inverse.steps) + 10):  # M's part is one eigenvalue where it is diagonal, each pair adds two
        if rz <= enough:
            break
        hp = np.where(held, inverse(p), 0)
        length = x.dtype.type(rz / dot(p, hp))
        x, r = x + length * p, r - length * hp
        z = weight * r
        rz, previous = dot(r, z), rz
        p = z + x.dtype.type(rz / previous) * p
    return x


class Trial(NamedTuple):
    """A point of the line, at a multiple of the direction, and the slope there."""

    length: float
    model: np.ndarray
    value: float
    gradient: np.ndarray
    slope: float


def line_search(
    evaluate: Callable[[float], Trial], start: Trial, longest: float, *, curvature: float, budget: int, sufficient: float = 1e-4
) -> tuple[Trial | None, int]:
    """A point that satisfies the strong Wolfe conditions, or the best that decreases f enough; and the evaluations spent.

    Args:
        evaluate: The point at a length. A value that is not finite counts as a step that was too long.
        start: The point at length 0, with a negative slope.
        longest: Largest length; 1 is tried first.
        curvature, sufficient: The Wolfe constants c2 and c1.
        budget: Limit of evaluations.

    Returns:
        None instead of a point where none was found that decreases f enough.
    """
    left, right, best = start, None, None
    length = min(1.0, longest)
    for count in range(1, budget + 1):
        trial = evaluate(length)
        decreases = trial.value < start.value and trial.value <= start.value + sufficient * length * start.slope
        if decreases and (best is None or trial.value < best.value):
            best = trial
        if decreases and (abs(trial.slope) <= curvature * abs(start.slope) or (length >= longest and trial.slope < 0)):
            return trial, count
        if decreases and trial.slope < 0 and trial.value <= left.value:
            left = trial
        else:
            right = trial
        if right is not None and right.length - left.length <= 1e-12 * right.length:
            break
        length = min(_next_length(left, right, start), longest)
    return best, count


def _next_length(left: Trial, right: Trial | None, start: Trial) -> float:
    """Where the cubic through two points is least, kept well inside the bracket or, without one, at most four times as far."""
    if right is None:
        return min(max(_cubic(start, left), 1.5 * left.length), 4 * left.length)
    width = right.length - left.length
    if not math.isfinite(right.value):
        return left.length + 0.25 * width
    return min(max(_cubic(left, right), left.length + 0.05 * width), right.length - 0.05 * width)


def _cubic(a: Trial, b: Trial) -> float:
    """The minimum of the cubic with the values and slopes of two points; infinity where it has none (Nocedal & Wright 2006, equation 3.59)."""
    width = b.length - a.length
    sum_ = a.slope + b.slope - 3 * (b.value - a.value) / width
    square = sum_**2 - a.slope * b.slope
    if square < 0:
        return math.inf
    below = b.slope - a.slope + 2 * math.sqrt(square)
    return b.length - width * (b.slope + math.sqrt(square) - sum_) / below if below > 0 else math.inf
