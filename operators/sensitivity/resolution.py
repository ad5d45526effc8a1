r"""What a linearized inversion resolves: point-spread functions, averaging kernels, and the posterior's covariance.

For data of weights W and a quadratic model term with the matrix R, around the model at which J is taken,

.. math:: C = (J^* W J + R)^{-1}, \qquad \hat m - m_0 = \mathcal{R} (m - m_0) + \ldots, \quad \mathcal{R} = C J^* W J.

A column of the resolution matrix is the image of a point (point-spread function), a row the average that is seen in place of a
point's value (averaging kernel); where W and R are inverse covariances of data and prior, C is that of the posterior (Tarantola 2005, ch. 3).
Every product with C is a solve by conjugate gradients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

from .. import checks
from ..forward import Linearization, Nest, conform, ravel, ravel_weights, unravel
from .estimates import Estimate, Method, diagonal, trace
from .progress import tracked


@final
@dataclass(frozen=True, eq=False)
class Posterior:
    """The linearized problem at a model, over its ravelled, real unknowns.

    Args:
        at: The linearization.
        weights: The diagonal of W, structured as the data: 1 / uncertainty^2.
        prior: What R makes of a ravelled model [model].
        tolerance: Relative residual of the solves.
        max_iterations: Of each of them.
        preconditioner: What something close to C makes of a vector [model], for faster solves.
    """

    at: Linearization
    weights: Nest
    prior: Callable[[np.ndarray], np.ndarray]
    tolerance: float = 1e-6
    max_iterations: int = 1000
    preconditioner: Callable[[np.ndarray], np.ndarray] | None = None

    def __post_init__(self) -> None:
        ravel_weights(self.weights, self.at.data_spec)  # negative ones are refused
        object.__setattr__(self, "weights", conform("weights", self.weights, self.at.data_spec))
        checks.positive("tolerance", self.tolerance)
        checks.count("max_iterations", self.max_iterations)

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return self.at.shape[1]

    def information(self, v: np.ndarray) -> np.ndarray:
        """``J* W J v`` [model]."""
        return ravel(self.at.gauss_newton_product(unravel(v, self.at.model_spec), self.weights))

    def covariance(self, v: np.ndarray) -> np.ndarray:
        """``C v`` [model].

        Raises:
            ValueError: The solve has not converged.
        """
        v, shape = np.asarray(v, np.float64), (self.size, self.size)
        inverse = LinearOperator(shape, lambda x: self.information(x) + self.prior(x), dtype=np.float64)
        close = None if self.preconditioner is None else LinearOperator(shape, self.preconditioner, dtype=np.float64)
        found, failed = cg(inverse, v, rtol=self.tolerance, maxiter=self.max_iterations, M=close)
        if failed:
            left = np.linalg.norm(inverse @ found - v) / np.linalg.norm(v)
            advice = "Raise max_iterations, give a preconditioner, or more weight to the prior."
            raise checks.invalid("covariance", f"with a residual of {left:.2g} after {failed} iterations", f"{self.tolerance:g} or less", advice)
        return found

    def point_spread(self, cells: Sequence[int] | np.ndarray) -> np.ndarray:
        """Columns of the resolution matrix, [model, cell]."""
        return np.stack([self.covariance(self.information(unit)) for unit in tracked(self._units(cells), "point spread")], axis=1)

    def averaging(self, cells: Sequence[int] | np.ndarray) -> np.ndarray:
        """Rows of the resolution matrix, [cell, model]."""
        return np.stack([self.information(self.covariance(unit)) for unit in tracked(self._units(cells), "averaging kernels")])

    def variance(self, *, products: int = 90, method: Method = "hutch++", seed: int = 0) -> Estimate:
        """The diagonal of C, [model]: squares of standard deviations; a solve for each product."""
        return diagonal(self.covariance, self.size, products=products, method=method, seed=seed)

    def degrees_of_freedom(self, *, products: int = 90, seed: int = 0) -> Estimate:
        """The trace of the resolution matrix: how many numbers the data tell, of as many as there are unknowns; two solves a product.

        It is that of the matrix's symmetric part, which has few large eigenvalues where data tell little: 'hutch++' suits it.
        """
        found = trace(
            lambda v: (self.covariance(self.information(v)) + self.information(self.covariance(v))) / 2, self.size, products=products, seed=seed
        )
        return found._replace(products=2 * products)

    def _units(self, cells: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        return [np.where(np.arange(self.size) == cell, 1.0, 0.0) for cell in checks.units(cells, self.size)]
