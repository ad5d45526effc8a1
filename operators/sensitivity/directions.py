r"""The posterior of a linearized problem by the few directions that the data inform: resolution, deviations, depth of investigation.

For data of weights W and a prior of precision R (the inverse of its covariance), the generalised eigenvalues

.. math:: J^* W J \, v = \lambda R \, v, \qquad v_i^T R \, v_j = \delta_{ij}

say how much more the data tell about a direction than the prior: of :math:`\lambda > 1` more. They fall fast, and all that one asks of
a posterior is made of the first of them (Spantini et al., SIAM J. Sci. Comput. 37, 2015; Bui-Thanh et al., ibid. 35, 2013):

.. math:: C = R^{-1} - \sum_i \frac{\lambda_i}{1 + \lambda_i} v_i v_i^T, \qquad
          \mathcal{R} = C J^* W J = \sum_i \frac{\lambda_i}{1 + \lambda_i} v_i (R v_i)^T .

They are found by Lanczos iterations in the inner product of R, a product with :math:`J^* W J` for each (see `lanczos`). What the others add
to the degrees of freedom, the trace of the resolution matrix, is estimated from models drawn from the prior.

A change x of the reference model changes the answer of the inversion by :math:`(1 - \mathcal{R}) x`. How much of it is left tells the
depth of investigation (Oldenburg & Li, Geophysics 64, 1999); no second inversion is needed. They take a constant for x. Data that see a
constant but not where it is, such as gravity, put it where the prior varies most, and answer to a change everywhere by one there. Models
drawn from the prior are no better, for they are rough in each cell and no data see that. Here x is drawn from the prior and averaged over
its lengths once more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from .. import checks
from ..forward import Linearization, Nest, conform, ravel, unravel
from .estimates import Estimate
from .lanczos import Space, quadrature, search
from .prior import Prior
from .progress import tracked

#: Models drawn to learn what the directions that are not found tell, and products with each of them at most.
PROBES, STEPS = 5, 8
#: Numbers of the models that are drawn at a time.
DRAWN = 10_000_000


class Spread(NamedTuple):
    """What is left open.

    Args:
        prior, posterior: Standard deviations [model] before the data and after them, right to ``sqrt(1 / (2 samples))`` of themselves.
        kept: Part of a smooth change of the reference model that the answer keeps [model], the index of the depth of investigation: 0 where
            data decide, 1 where the reference does.
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
        rest: Degrees of freedom of all other directions together.
        complete: Whether all directions were found that were sought.
        interrupted: Whether Ctrl-C cut the search short.
    """

    prior: Prior
    values: np.ndarray
    vectors: np.ndarray
    errors: np.ndarray
    rest: Estimate
    complete: bool
    interrupted: bool = False

    @property
    def gains(self) -> np.ndarray:
        """lambda / (1 + lambda): what part of a direction comes from the data."""
        return self.values / (1 + self.values)

    @property
    def degrees_of_freedom(self) -> Estimate:
        """How many numbers the data tell: the trace of the resolution matrix, with its standard error."""
        return self.rest._replace(value=float(self.gains.sum()) + self.rest.value)

    def covariance(self, v: np.ndarray) -> np.ndarray:
        """``C v`` of a vector [model] or some [model, k]."""
        return self.prior.solve(v) - self.vectors @ (self.gains * (self.vectors.T @ v).T).T

    def resolved(self, m: np.ndarray) -> np.ndarray:
        """The image of a change m of the model [model], or of some [model, k]: the resolution matrix times it."""
        return self.vectors @ (self.gains * (self.vectors.T @ (self.prior.precision @ m)).T).T

    def point_spread(self, cells: Sequence[int] | np.ndarray) -> np.ndarray:
        """Columns of the resolution matrix, [model, cell]: images of points.

        Without directions of eigenvalues below l the image is off by a part l / (1 + l) of the point at most, in the norm of R. Where little
        is resolved that is much of an image: `Posterior` with `covariance` as its preconditioner makes it exact, in a few products.
        """
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

    def spread(self, *, samples: int = 400, seed: int = 0, each: Callable[[int], None] | None = None) -> Spread:
        """Deviations and the index of the depth of investigation, from models drawn from the prior.

        Args:
            samples: How many; each takes two solves with R, and no product with J. An interruption (Ctrl-C) leaves those that are done.
            seed: Of the draws.
            each: Called with the number of samples that are done, in place of a bar of progress.

        Raises:
            KeyboardInterrupt: Before the first of them are done.
        """
        samples = checks.count("samples", samples, 2)
        random, squares, done = np.random.default_rng(seed), np.zeros((4, self.prior.size)), 0
        across = self.prior.precision @ self.vectors
        some = int(np.clip(DRAWN // self.prior.size, 2, 50))
        firsts = range(0, samples, some)
        try:
            for first in firsts if each else tracked(firsts, "samples"):
                drawn = self.prior.samples(min(some, samples - first), random)
                squares, done = squares + self._squares(drawn, across), first + drawn.shape[1]
                if each is not None:
                    each(done)
        except KeyboardInterrupt:
            if not done:
                raise
        prior, posterior, change, left = np.sqrt(squares / done)
        error = 1 / np.sqrt(2 * done)
        return Spread(Estimate(prior, error * prior, done), Estimate(posterior, error * posterior, done), left / change)

    def _squares(self, drawn: np.ndarray, across: np.ndarray) -> np.ndarray:
        """Sums of the squares [4, model] of models drawn from the prior and the posterior, of smooth changes and what the answer keeps of them."""
        # Shrunk along the directions a model drawn from the prior is one drawn from the posterior.
        shrunk = drawn - self.vectors @ ((1 - 1 / np.sqrt(1 + self.values)) * (across.T @ drawn).T).T
        smooth = self.prior.smoothed(drawn)
        left = smooth - self.vectors @ (self.gains * (across.T @ smooth).T).T
        return np.stack([np.sum(each**2, axis=1) for each in (drawn, shrunk, smooth, left)])


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
        products: At most, with ``J* W J``, each of which leaves a vector [model] in memory; up to 40 more estimate what is not found.
        seed: Of the random vectors that the iterations start with.
        each: Called with the number of products and the smallest eigenvalue that is found so far, in place of a bar of progress.

    Returns:
        All positive values of the iterations, with their errors, and what the other directions tell together. Values above `enough` that
        are repeated, as those of a symmetric survey over symmetric cells, are found as often. An interruption (Ctrl-C) returns what is
        found so far.

    Raises:
        ValueError: Weights or a prior that do not fit.
        KeyboardInterrupt: Before there is anything to keep.
    """
    weights = conform("weights", weights, at.data_spec)
    if prior.size != at.shape[1]:
        raise checks.invalid("prior", f"over {prior.size} unknowns", f"over {at.shape[1]}, as the model")
    checks.positive("enough", enough)
    products = checks.count("products", products, 2)

    def information(v: np.ndarray) -> np.ndarray:
        return np.asarray(ravel(at.gauss_newton_product(unravel(v, at.model_spec), weights)), np.float64)

    random, most, interrupted = np.random.default_rng(seed), min(products, prior.size), False
    space = Space(information, prior, most, spare=STEPS)
    try:
        steps = search(space, enough, random)
        for smallest in steps if each else tracked(steps, "directions that data inform", most):
            if each is not None:
                each(space.count, smallest)
    except KeyboardInterrupt:
        if not space.count:
            raise
        interrupted = True
    rest = _rest(space, 2 if interrupted else PROBES, enough / (1 + enough) if space.complete else 1.0, int(np.count_nonzero(ravel(weights))), random)
    values, vectors, errors = space.eigenvectors()
    return Informed(prior, values, vectors, errors, rest, space.complete, interrupted)


def _rest(space: Space, probes: int, largest: float, data: int, random: np.random.Generator) -> Estimate:
    """Degrees of freedom outside of a space, from models drawn from the prior there, where no direction tells more than `largest` of one.

    The variance of a quadratic form of white noise is twice the sum of the squares of its eigenvalues: of these, no more than `largest` times
    their sum. The error is its root and half the distance of the bounds. All together there are no more than data.
    """
    least, most, products = np.array([quadrature(space, STEPS, random) for _ in range(probes)]).mean(axis=0)
    values = np.clip(space.ritz().values, 0, None)
    most = min(most, data - float(np.sum(values / (1 + values))))
    middle = (min(least, most) + most) / 2
    return Estimate(middle, float(most - middle + np.sqrt(2 * largest * middle / probes)), round(products * probes))
