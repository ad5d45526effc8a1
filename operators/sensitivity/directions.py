r"""The posterior of a linearized problem by the few directions that the data inform: resolution, deviations, depth of investigation.

For data of weights W and a prior of precision R (the inverse of its covariance), the generalised eigenvalues

.. math:: J^* W J \, v = \lambda R \, v, \qquad v_i^T R \, v_j = \delta_{ij}

say how much more the data tell about a direction than the prior: of :math:`\lambda > 1` more. They fall fast, and all that one asks of
a posterior is made of the first of them (Spantini et al., SIAM J. Sci. Comput. 37, 2015; Bui-Thanh et al., ibid. 35, 2013):

.. math:: C = R^{-1} - \sum_i \frac{\lambda_i}{1 + \lambda_i} v_i v_i^T, \qquad
          \mathcal{R} = C J^* W J = \sum_i \frac{\lambda_i}{1 + \lambda_i} v_i (R v_i)^T .

They are found by Lanczos iterations in the inner product of R, one product with :math:`J^* W J` each, all vectors kept orthogonal.

A change x of the reference model changes the answer of the inversion by :math:`(1 - \mathcal{R}) x`. How much of it is left tells the
depth of investigation (Oldenburg & Li, Geophysics 64, 1999); they take a constant for x, which gravity data see at any depth, here it is
drawn from the prior: no second inversion is needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import scipy.sparse

from .. import checks
from ..forward import Linearization, Nest, conform, ravel, unravel
from ..sparse import CSRMatrix
from .estimates import Estimate
from .progress import tracked

#: Unknowns up to which the precision is factorised; beyond, an algebraic multigrid solves, for the factors of three dimensions fill up.
FACTORISED = 30_000
#: Residual of an eigenvalue, relative to it, at which it counts as found.
FOUND = 0.05


@final
@dataclass(frozen=True, eq=False)
class Prior:
    """What is assumed of a model besides the data: Gaussian, around the model at which the problem is linearized.

    Args:
        precision: R, [model, model] SciPy sparse: symmetric, with entries beside the diagonal that are not positive and rows whose sum is
            not negative, such as smallness and first differences make.

    Raises:
        ValueError: Not such a matrix, or one that leaves a constant free.
    """

    precision: Any

    def __post_init__(self) -> None:
        if not scipy.sparse.issparse(self.precision) or self.precision.shape[0] != self.precision.shape[1]:
            raise checks.invalid("precision", f"a {type(self.precision).__name__}", "a square SciPy sparse matrix")
        matrix = scipy.sparse.csr_array(self.precision, dtype=np.float64)
        beside, size = matrix - scipy.sparse.diags_array(matrix.diagonal(), format="csr"), abs(matrix).max()
        if abs(matrix - matrix.T).max() > 1e-10 * size or beside.max() > 1e-10 * size or np.min(self._sums(matrix)) < -1e-8 * size:
            raise checks.invalid("precision", "of other form", "symmetric and made of smallness and first differences")
        if not np.max(self._sums(matrix)) > 1e-12 * size:
            raise checks.invalid("precision", "that leaves a constant free", "one with some smallness", "Otherwise no variance is finite.")
        object.__setattr__(self, "precision", matrix)
        object.__setattr__(self, "_matrix", CSRMatrix.from_scipy(matrix))

    @staticmethod
    def _sums(matrix: scipy.sparse.csr_array) -> np.ndarray:
        return np.asarray(matrix.sum(axis=1)).ravel()

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return int(self.precision.shape[0])

    def solve(self, b: np.ndarray) -> np.ndarray:
        """``R^-1 b``: the covariance times a vector [model] or some [model, k]."""
        matrix: CSRMatrix = self._matrix  # type: ignore[attr-defined]
        if self.size <= FACTORISED:
            return np.asarray(matrix.solve(b, method="lu"))
        return np.asarray(matrix.solve(b, method="cg", preconditioner="amg", tolerance=1e-8))

    def samples(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Models drawn from it, [model, count]: noise on the smallness of each cell and on each difference, carried back by R."""
        upper = scipy.sparse.triu(self.precision, 1).tocoo()
        small = np.sqrt(np.clip(self._sums(self.precision), 0, None))
        drive = small[:, np.newaxis] * random.standard_normal((self.size, count))
        noise = np.sqrt(np.clip(-upper.data, 0, None))[:, np.newaxis] * random.standard_normal((upper.data.size, count))
        ends = np.ones(upper.data.size)
        for place, sign in ((upper.coords[0], 1.0), (upper.coords[1], -1.0)):
            drive += sign * scipy.sparse.csr_array((ends, (place, np.arange(ends.size))), shape=(self.size, ends.size)) @ noise
        return self.solve(drive)


class Spread(NamedTuple):
    """What is left open.

    Args:
        prior, posterior: Standard deviations [model] before the data and after them, right to ``sqrt(1 / (2 samples))`` of themselves.
        kept: Part of a change of the reference model that the answer keeps [model], the index of the depth of investigation: 0 where data
            decide, 1 where the reference does.
    """

    prior: Estimate
    posterior: Estimate
    kept: np.ndarray


@final
@dataclass(frozen=True, eq=False)
class Informed:
    """The posterior, over ravelled real unknowns [model].

    Args:
        prior: What was assumed.
        values: lambda, largest first.
        vectors: v [model, k].
        errors: Of the values.
    """

    prior: Prior
    values: np.ndarray
    vectors: np.ndarray
    errors: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        """lambda / (1 + lambda): what part of a direction comes from the data."""
        return self.values / (1 + self.values)

    @property
    def degrees_of_freedom(self) -> float:
        """How many numbers the data tell: the trace of the resolution matrix."""
        return float(self.gains.sum())

    def covariance(self, v: np.ndarray) -> np.ndarray:
        """``C v``."""
        return self.prior.solve(v) - self.vectors @ (self.gains * (self.vectors.T @ v))

    def resolved(self, m: np.ndarray) -> np.ndarray:
        """The image of a change m of the model: the resolution matrix times it."""
        return self.vectors @ (self.gains * (self.vectors.T @ (self.prior.precision @ m)))

    def point_spread(self, cells: Sequence[int] | np.ndarray) -> np.ndarray:
        """Columns of the resolution matrix, [model, cell]: images of points."""
        chosen = checks.units(cells, self.prior.size)
        return self.vectors @ (self.gains[:, np.newaxis] * (self.prior.precision[chosen] @ self.vectors).T)

    def averaging(self, cells: Sequence[int] | np.ndarray) -> np.ndarray:
        """Rows of the resolution matrix, [cell, model]: what is seen in place of a point's value."""
        chosen = checks.units(cells, self.prior.size)
        return (self.vectors[chosen] * self.gains) @ (self.prior.precision @ self.vectors).T

    @property
    def resolution(self) -> np.ndarray:
        """The diagonal of the resolution matrix: 1 where a cell is seen by itself, 0 where it is assumed."""
        return np.sum(self.gains * self.vectors * (self.prior.precision @ self.vectors), axis=1)

    @property
    def coverage(self) -> np.ndarray:
        """The square root of the diagonal of ``J* W J``: the signal-to-noise ratio of a unit change of each unknown, as far as it is known."""
        across = self.prior.precision @ self.vectors
        return np.sqrt(np.sum(self.values * across**2, axis=1))

    def spread(self, *, samples: int = 400, seed: int = 0) -> Spread:
        """Deviations and the index of the depth of investigation, from models drawn from the prior.

        Args:
            samples: How many; each takes a solve with R, and no product with J.
            seed: Of the draws.
        """
        if samples != int(samples) or samples < 2:
            raise checks.invalid("samples", samples, "a whole number, 2 or more")
        random, squares = np.random.default_rng(seed), np.zeros((3, self.prior.size))
        across = self.prior.precision @ self.vectors
        counts = [min(50, samples - first) for first in range(0, samples, 50)]
        for count in tracked(counts, "samples"):
            drawn = self.prior.samples(count, random)
            along = across.T @ drawn
            # Shrunk along the directions a model drawn from the prior is one drawn from the posterior.
            known, left = (drawn - self.vectors @ (part[:, np.newaxis] * along) for part in (1 - 1 / np.sqrt(1 + self.values), self.gains))
            squares += np.stack([np.sum(each**2, axis=1) for each in (drawn, known, left)])
        prior, posterior, kept = np.sqrt(squares / samples)
        error = 1 / np.sqrt(2 * samples)
        return Spread(Estimate(prior, error * prior, samples), Estimate(posterior, error * posterior, samples), kept / prior)


def informed(
    at: Linearization, weights: Nest, prior: Prior, *, enough: float = 0.1, products: int = 200, seed: int = 0,
    each: Callable[[int, float], None] | None = None,
) -> Informed:  # fmt: skip
    """The posterior of a linearized problem.

    Args:
        at: The linearization, its model of real leaves.
        weights: The diagonal of W, structured as the data: 1 / uncertainty^2.
        prior: Over the ravelled model.
        enough: Eigenvalues down to this one are sought: directions of smaller ones keep 1 / (1 + enough) of the prior's variance or more.
        products: At most, with ``J* W J``.
        seed: Of the vector that the iterations start with.
        each: Called with the number of products and the smallest eigenvalue that is found so far.

    Returns:
        All positive values of the iterations, which lie below the eigenvalues, with their errors. Of a repeated eigenvalue, such as those of
        a symmetric survey over symmetric cells, one direction only is found: what data tell is then understated.

    Raises:
        ValueError: Weights or a prior that do not fit.
    """
    weights = conform("weights", weights, at.data_spec)
    if prior.size != at.shape[1]:
        raise checks.invalid("prior", f"over {prior.size} unknowns", f"over {at.shape[1]}, as the model")
    checks.positive("enough", enough)
    if products != int(products) or products < 2:
        raise checks.invalid("products", products, "a whole number, 2 or more")

    def information(v: np.ndarray) -> np.ndarray:
        return np.asarray(ravel(at.gauss_newton_product(unravel(v, at.model_spec), weights)), np.float64)

    basis, images, last = np.zeros((prior.size, 0)), np.zeros((prior.size, 0)), 0.0
    vector = prior.solve(information(np.random.default_rng(seed).standard_normal(prior.size)))
    values, vectors, errors = np.zeros(0), basis, np.zeros(0)
    for number in tracked(range(1, min(int(products), prior.size + 1)), "directions that data inform"):
        vector, last = _orthogonal(vector, basis, prior)
        if last <= 1e-12 * max(1.0, values.max(initial=0)):
            break  # the data inform no other direction
        basis = np.column_stack([basis, vector])
        images = np.column_stack([images, information(vector)])
        small = basis.T @ images
        values, turns = np.linalg.eigh((small + small.T) / 2)
        vector = prior.solve(images[:, -1])
        following = np.sqrt(max(0.0, _left(vector, basis, prior)))
        errors = following * np.abs(turns[-1])
        found = (values > 0) & (errors <= FOUND * np.abs(values))
        if each is not None:
            each(number + 1, float(values[found].min(initial=np.inf)))
        if np.any(found & (values < enough)) and not np.any(~found & (values >= enough)):
            break
    keep = np.flatnonzero(values > 0)[::-1] if values.size else np.zeros(0, int)
    vectors = basis @ turns if values.size else basis
    return Informed(prior, values[keep], vectors[:, keep], errors[keep])


def _orthogonal(vector: np.ndarray, basis: np.ndarray, prior: Prior) -> tuple[np.ndarray, float]:
    """What of a vector is orthogonal to a basis in the inner product of R, of length 1, and its length; twice is enough."""
    for _ in range(2):
        vector = vector - basis @ (basis.T @ (prior.precision @ vector))
    length = float(np.sqrt(vector @ (prior.precision @ vector)))
    return vector / length if length else vector, length


def _left(vector: np.ndarray, basis: np.ndarray, prior: Prior) -> float:
    """The squared length of what of a vector is orthogonal to a basis."""
    rest = vector - basis @ (basis.T @ (prior.precision @ vector))
    return float(rest @ (prior.precision @ rest))
