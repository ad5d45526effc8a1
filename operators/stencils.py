"""Finite-difference weights of any derivative and order, on any nodes.

The weights w_j of the d-th derivative at z satisfy ``sum_j w_j p(x_j) = p^(d)(z)`` for every polynomial p of degree below
the number of nodes. Fornberg's recursion (Math. Comp. 51, 1988, 699-706, eq. 3.8) adds one node after the other,

    w_j <- ((x_k - z) w_j^(d) - d w_j^(d-1)) / (x_k - x_j)                        for the nodes j < k already there,
    w_k  = (prod / prod') (d w_{k-1}^(d-1) - (x_{k-1} - z) w_{k-1}^(d))          for the new one,

and uses differences of positions only, so that it is stable for large coordinates. With d = 0 it gives the Lagrange
interpolation weights. Nothing here needs TensorFlow.
"""

import numpy as np

from . import checks


def weights(nodes: np.ndarray, at: np.ndarray | float = 0.0, *, derivative: int = 0) -> np.ndarray:
    """Weights of a derivative at a point from values at arbitrary nodes; vectorised over points.

    Args:
        nodes: [..., n] distinct positions, in any unit of length.
        at: [...] where the derivative is wanted, in the same unit.
        derivative: Which derivative; 0 interpolates.

    Returns:
        [..., n] weights, in 1 / length**derivative, exact for polynomials of degree below n.

    Raises:
        ValueError: A negative derivative, or one that needs more nodes.
    """
    nodes = np.asarray(nodes, dtype=np.float64)
    count = nodes.shape[-1]
    if not 0 <= derivative < count:
        raise checks.invalid("derivative", derivative, f"from 0 to {count - 1} on {count} nodes")
    offsets = nodes - np.asarray(at, dtype=np.float64)[..., np.newaxis]
    orders = np.arange(derivative + 1)
    table = np.zeros((*offsets.shape, derivative + 1))  # [..., node, derivative]
    table[..., 0, 0] = 1.0
    scale = np.ones(offsets.shape[:-1])
    for k in range(1, count):
        gaps = offsets[..., k, np.newaxis] - offsets[..., :k]
        product = np.prod(gaps, axis=-1)
        table[..., k, :] = _lowered(table[..., k - 1, :], offsets[..., k - 1, np.newaxis], orders) * (-scale / product)[..., np.newaxis]
        table[..., :k, :] = _lowered(table[..., :k, :], offsets[..., k, np.newaxis, np.newaxis], orders) / gaps[..., np.newaxis]
        scale = product
    return table[..., derivative]


def _lowered(table: np.ndarray, offset: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """``offset w^(d) - d w^(d-1)``: the derivatives at z of (x - z + offset) times a basis polynomial, up to sign."""
    below = np.concatenate([np.zeros_like(table[..., :1]), table[..., :-1]], axis=-1)
    return offset * table - orders * below


def central(derivative: int, order: int) -> np.ndarray:
    """Centred weights on the integers ``-p..p``; divide by spacing**derivative.

    Args:
        derivative: Which derivative, 0 or higher.
        order: Order of accuracy, even.

    Returns:
        [2 p + 1] weights with ``p = (derivative + 1) // 2 - 1 + order / 2``.
    """
    _check(derivative, order)
    half = (derivative + 1) // 2 - 1 + order // 2
    return _symmetric(weights(np.arange(-half, half + 1.0), derivative=derivative), derivative)


def staggered(derivative: int, order: int) -> np.ndarray:
    """Weights on the half-integers ``-p + 1/2 .. p - 1/2`` at 0; divide by spacing**derivative.

    Args:
        derivative: Which derivative; 0 interpolates to the midpoint.
        order: Order of accuracy, even.

    Returns:
        [2 p] weights with ``p = order / 2 + derivative // 2``.
    """
    _check(derivative, order)
    half = order // 2 + derivative // 2
    return _symmetric(weights(np.arange(2 * half) - half + 0.5, derivative=derivative), derivative)


def root(order: int) -> np.ndarray:
    """One-sided first differences g whose correlation with themselves is minus the centred second difference, exactly.

    The second difference of order 2 is minus the plain difference times its transpose; of a higher order it is not that of any centred
    first difference, but its symbol is positive, so that by the theorem of Fejer and Riesz it is still ``-conj(g) g``. The zeros
    of g that may be chosen lie outside of the unit circle, which keeps the weights near its first two nodes.

    Args:
        order: Of the second difference, even.

    Returns:
        [order / 2 + 1] weights on the nodes 0, 1, ...; divide by the spacing. Their derivative is that near the node 1/2.
    """
    rest, _ = np.polydiv(central(2, order), [1.0, -2.0, 1.0])  # without the double zero of a second difference
    zeros = np.roots(rest) if rest.size > 1 else np.zeros(0)
    smooth = np.real(np.poly(zeros[np.abs(zeros) < 1])) if zeros.size else np.ones(1)
    return np.convolve(smooth / smooth.sum(), [-1.0, 1.0])


def _symmetric(values: np.ndarray, derivative: int) -> np.ndarray:
    """The weights with their rounding errors made exactly (anti)symmetric, so that assembled operators are."""
    return (values + (-1) ** derivative * values[::-1]) / 2


def _check(derivative: int, order: int) -> None:
    if derivative < 0:
        raise checks.invalid("derivative", derivative, "0 or higher")
    if order < 2 or order % 2:
        raise checks.invalid("order", order, "an even number, 2 or higher")
