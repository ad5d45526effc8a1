r"""Singular values and vectors of a Jacobian, and its condition, from products.

Randomised (Halko, Martinsson & Tropp, SIAM Review 53, 2011, algorithms 4.4 and 5.1): the range of :math:`(A A^*)^q A` on random vectors,
an orthonormal basis Q of it, and the exact decomposition of the small matrix :math:`Q^* A`. A is the whitened Jacobian,
:math:`C_d^{-1/2} J C_m^{1/2}`: data in units of their uncertainty, unknowns in those of what they are expected to vary by. Its singular
values are signal-to-noise ratios: directions above 1 are known from the data, those below from what was assumed.
"""

from typing import NamedTuple

import numpy as np

from .. import checks
from ..forward import Linearization, Nest, conform, ravel, unravel
from .progress import tracked

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
        ValueError: A rank beyond the Jacobian's, or scales that are not positive.
    """
    small = min(at.shape)
    if rank != int(rank) or not 1 <= rank <= small:
        raise checks.invalid("rank", rank, f"a whole number from 1 to {small}")
    count = min(small, rank + extra)
    data, model = (
        np.ones(size) if given is None else checks.positive(name, ravel(conform(name, given, spec)))
        for name, given, spec, size in (("uncertainty", uncertainty, at.data_spec, at.shape[0]), ("scale", scale, at.model_spec, at.shape[1]))
    )

    def forward(vectors: np.ndarray) -> np.ndarray:
        return np.stack([ravel(at.jvp(unravel(model * v, at.model_spec))) / data for v in tracked(vectors.T, "forward products")], axis=1)

    def back(vectors: np.ndarray) -> np.ndarray:
        return np.stack([model * ravel(at.vjp(unravel(w / data, at.data_spec))) for w in tracked(vectors.T, "reverse products")], axis=1)

    random = np.random.default_rng(seed)
    basis = np.linalg.qr(forward(random.standard_normal((at.shape[1], count))))[0]
    for _ in range(powers):
        basis = np.linalg.qr(forward(np.linalg.qr(back(basis))[0]))[0]
    left, values, right = np.linalg.svd(back(basis).T, full_matrices=False)
    trial = forward(random.standard_normal((at.shape[1], _TRIALS)))
    beyond = np.linalg.norm(trial - basis @ (basis.T @ trial), axis=0).max()
    kept = values[rank] if rank < count else 0.0
    return Decomposition((basis @ left)[:, :rank], values[:rank], right[:rank].T, float(kept + 10 * np.sqrt(2 / np.pi) * beyond))
