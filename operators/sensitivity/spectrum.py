r"""Singular values and vectors of a Jacobian, and its condition, from products.

Randomised (Halko, Martinsson & Tropp, SIAM Review 53, 2011, algorithms 4.4 and 5.1): the range of :math:`(A A^*)^q A` on random vectors,
an orthonormal basis Q of it, and the exact decomposition of the small matrix :math:`Q^* A`. A is the whitened Jacobian,
:math:`C_d^{-1/2} J C_m^{1/2}`: data in units of their uncertainty, unknowns in those of what they are expected to vary by. Its singular
values are signal-to-noise ratios: directions above 1 are known from the data, those below from what was assumed.

The condition, the largest over the smallest, is read off the bidiagonal matrix B of Golub & Kahan (SIAM J. Numer. Anal. 2, 1965): after
k steps :math:`A V_k = U_k B_k`, and a singular value theta of B with the left vector p is one of A to :math:`\beta_k |p_k|`.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from .. import checks
from ..forward import Linearization, Nest, ravel, ravel_weights, unravel
from .estimates import Product
from .progress import tracked
from .tracing import rounding as unit_of

#: Random vectors that the error is estimated with: the bound holds but for one time in 10^6.
_TRIALS = 6


class Decomposition(NamedTuple):
    """``A = U diag(s) V*`` of the largest singular values.

    Args:
        u: [data, k], of ravelled, whitened data.
        s: [k], largest first.
        v: [model, k], of ravelled, whitened models.
        error: A bound of the norm of A minus that, with probability 1 - 1e-6 (Halko et al., eq. 4.3).
    """

    u: np.ndarray
    s: np.ndarray
    v: np.ndarray
    error: float


def svd(
    at: Linearization, rank: int, *, uncertainty: Nest | None = None, scale: Nest | None = None, extra: int = 10, powers: int = 2, seed: int = 0
) -> Decomposition:
    """The largest singular values of the whitened Jacobian.

    Args:
        at: The linearization.
        rank: How many.
        uncertainty: Standard deviation of the data, structured as these; ones by default.
        scale: Standard deviation that the unknowns are expected to have, structured as the model; ones by default.
        extra: Random vectors more than that.
        powers: q; each costs 2 (rank + extra) products and makes slowly falling singular values better.
        seed: Of the random vectors.

    Raises:
        ValueError: A rank beyond the Jacobian's, scales that are not positive, or products that are not finite.
    """
    rank = checks.count("rank", rank, 1, min(at.shape))
    extra, powers = checks.count("extra", extra, 0), checks.count("powers", powers, 0)
    count, (push, pull) = min(*at.shape, rank + extra), _whitened(at, uncertainty, scale)

    def forward(vectors: np.ndarray) -> np.ndarray:
        return np.stack([push(v) for v in tracked(vectors.T, "forward products")], axis=1)

    def back(vectors: np.ndarray) -> np.ndarray:
        return np.stack([pull(w) for w in tracked(vectors.T, "reverse products")], axis=1)

    random = np.random.default_rng(seed)
    basis = np.linalg.qr(forward(random.standard_normal((at.shape[1], count))))[0]
    for _ in range(powers):
        basis = np.linalg.qr(forward(np.linalg.qr(back(basis))[0]))[0]
    left, values, right = np.linalg.svd(back(basis).T, full_matrices=False)
    trial = forward(random.standard_normal((at.shape[1], _TRIALS)))
    beyond = np.linalg.norm(trial - basis @ (basis.T @ trial), axis=0).max()
    kept = values[rank] if rank < count else 0.0
    return Decomposition((basis @ left)[:, :rank], values[:rank], right[:rank].T, float(kept + 10 * np.sqrt(2 / np.pi) * beyond))


class Condition(NamedTuple):
    """Of a matrix.

    Args:
        largest, smallest: Singular values; the true ones are at least, and at most, these, but for the errors.
        errors: How far off either may be. That of the smallest is no less than what the products' rounding makes of the largest: a smallest
            value below its error is zero as far as they tell.
    """

    largest: float
    smallest: float
    errors: tuple[float, float]

    @property
    def number(self) -> float:
        """The largest over the smallest: in truth at least as large, but for the errors."""
        return self.largest / self.smallest if self.smallest else np.inf


def condition(at: Linearization, *, uncertainty: Nest | None = None, scale: Nest | None = None, steps: int = 60, seed: int = 0) -> Condition:
    """The condition of the whitened Jacobian, as far as some products tell; exactly with as many steps as the smaller of its sides.

    Args:
        at: The linearization.
        uncertainty, scale: As of `svd`.
        steps: Of the bidiagonalisation: a forward and a reverse product each. The largest value is found in a few, the smallest late.
        seed: Of the vector it begins with.

    Raises:
        ValueError: No step, an empty Jacobian, scales that are not positive, or products that are not finite.
    """
    checks.count("the Jacobian's smaller side", min(at.shape))
    steps = checks.count("steps", steps)
    push, pull = _whitened(at, uncertainty, scale)
    tall, count, unit = at.shape[0] >= at.shape[1], min(steps, *at.shape), rounding(at)
    ahead, back = (push, pull) if tall else (pull, push)  # A of full column rank, where J has full rank
    start = np.random.default_rng(seed).standard_normal(min(at.shape))
    alphas, betas, blind = _bidiagonalised(ahead, back, start, count, unit)
    beyond = betas.pop() if len(betas) == len(alphas) else 0.0  # what leads on from the last step
    left, values, _ = np.linalg.svd(np.diag(alphas) + np.diag(betas, 1))
    errors = beyond * np.abs(left[-1]) + unit * values[0]
    return Condition(float(values[0]), 0.0 if blind else float(values[-1]), (float(errors[0]), float(errors[-1])))


def _bidiagonalised(ahead: Product, back: Product, start: np.ndarray, count: int, unit: float) -> tuple[list[float], list[float], bool]:
    """Golub & Kahan's bidiagonal matrix of so many steps: its diagonal, what is beside it, and whether A does not see a direction.

    It ends before where rounding, of `unit` relative to the largest number, leaves nothing more to find.
    """
    right, left = [start / np.linalg.norm(start)], list[np.ndarray]()
    alphas, betas = list[float](), list[float]()
    for _ in tracked(range(count), "bidiagonalisation"):
        u = _orthogonal(ahead(right[-1]), left)
        alphas.append(float(np.linalg.norm(u)))
        if alphas[-1] <= unit * max(alphas):
            return alphas, betas, True
        left.append(u / alphas[-1])
        v = _orthogonal(back(left[-1]), right)
        beta = float(np.linalg.norm(v))
        if beta <= unit * max(alphas):
            break
        betas.append(beta)
        right.append(v / beta)
    return alphas, betas, False


def rounding(at: Linearization) -> float:
    """What rounding may make of products with a Jacobian, relative to its largest singular value: sums of as many numbers as it has."""
    leaves = tf.nest.flatten((at.model_spec, at.data_spec))
    return float(max(map(unit_of, leaves)) * np.sqrt(max(at.shape)))


def _orthogonal(vector: np.ndarray, basis: list[np.ndarray]) -> np.ndarray:
    """What of a vector is orthogonal to a basis; twice is enough (Kahan and Parlett)."""
    for _ in range(2 if basis else 0):
        known = np.stack(basis)
        vector = vector - known.T @ (known @ vector)
    return vector


def _whitened(at: Linearization, uncertainty: Nest | None, scale: Nest | None) -> tuple[Product, Product]:
    """Products with the whitened Jacobian, and with its transpose."""
    data, model = (
        np.ones(size) if given is None else checks.positive(name, ravel_weights(given, spec, name))
        for name, given, spec, size in (("uncertainty", uncertainty, at.data_spec, at.shape[0]), ("scale", scale, at.model_spec, at.shape[1]))
    )
    return (
        lambda v: checks.finite("products", ravel(at.jvp(unravel(model * v, at.model_spec))) / data),
        lambda w: checks.finite("products", model * ravel(at.vjp(unravel(w / data, at.data_spec)))),
    )
