"""The inner solvers: conjugate gradients and a projected Gauss-Newton step, as pure functions of their arguments."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

Product = Callable[[tf.Tensor], tf.Tensor]


class Solution(NamedTuple):
    """What `conjugate_gradients` found."""

    x: tf.Tensor
    iterations: int
    residual: float  # relative to the right-hand side, in the preconditioner's norm


def conjugate_gradients(product: Product, right_side: tf.Tensor, precondition: Product, *, tolerance: float, max_iterations: int) -> Solution:
    """Solve A x = b for a symmetric positive (semi)definite A given by its product (Hestenes & Stiefel 1952).

    Args:
        product: v -> A v.
        right_side: b, [n].
        precondition: r -> M r, M symmetric positive definite and close to the inverse of A.
        tolerance: Stop when the residual has fallen by this factor, in the norm of M.
        max_iterations: Or after this many products.
    """
    x, r = tf.zeros_like(right_side), right_side
    z = precondition(r)
    p, rz = z, _dot(r, z)
    first = float(rz)
    steps = 0
    while steps < max_iterations and float(rz) > tolerance**2 * first and first > 0:
        ap = product(p)
        curvature = _dot(p, ap)
        if float(curvature) <= 0:  # nothing left but rounding, or a direction neither data nor model terms see
            break
        step = rz / curvature
        x, r = x + step * p, r - step * ap
        z = precondition(r)
        rz, previous = _dot(r, z), rz
        p = z + rz / previous * p
        steps += 1
    return Solution(x, steps, float((rz / first) ** 0.5) if first > 0 else 0.0)


def _dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(a * b)  # a fifth of the time of tf.tensordot, which is mostly the reshaping before its product


def free_cells(model: tf.Tensor, gradient: tf.Tensor, lower: tf.Tensor, upper: tf.Tensor) -> tf.Tensor:
    """1 where a cell may move, 0 where it sits at a bound that the descent direction would push it through (Bertsekas 1982)."""
    held = ((model <= lower) & (gradient > 0)) | ((model >= upper) & (gradient < 0))
    return tf.cast(~held, model.dtype)


def largest_eigenvalue(product: Product, start: tf.Tensor, *, iterations: int = 6) -> float:
    """An estimate, from below, of the largest eigenvalue of a symmetric positive semidefinite matrix by power iterations."""
    vector, value = start / tf.norm(start), 0.0
    for _ in range(iterations):
        image = product(vector)
        value = float(tf.norm(image))
        if value == 0:
            break
        vector = image / value
    return value
