r"""Diagonals and traces of matrices that are known by their products only, with error bars.

Hutchinson (Commun. Stat. Simul. 19, 1990): with random signs z, the mean of :math:`z \circ A z` is the diagonal of A and that of
:math:`z^T A z` its trace. Its variance is made of the entries beside the diagonal. Hutch++ (Meyer, Musco, Musco & Woodruff, SOSA 2021;
for the diagonal Baston & Nakatsukasa, arXiv:2201.10684) takes out the part on a subspace Q of the largest eigenvalues first,

.. math:: A = (Q B^T + B Q^T - Q Q^T B Q^T) + P A P, \qquad B = A Q, \quad P = I - Q Q^T,

whose diagonal is exact, and estimates what is left. A third of the products each goes into finding Q, into B and into what is left, but
at least six into what is left, where errors come from.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.special

from .. import checks
from ..forward import Linearization, Nest, ravel, ravel_weights, unravel
from .progress import tracked

Product = Callable[[np.ndarray], np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]
Method = Literal["hutch++", "hutchinson"]
#: Samples that an error is estimated from.
LEAST = 6


class Estimate(NamedTuple):
    """A random estimate.

    Args:
        value: Its mean.
        error: Standard error of that, of the same shape; of few samples so much larger (Student, Biometrika 6, 1908) that two thirds of true
            values lie within it.
        products: How many were asked for; as many as the matrix is large are enough for an exact one.
    """

    value: Any
    error: Any
    products: int


def diagonal(product: Product, size: int, *, products: int = 90, method: Method = "hutch++", seed: int = 0) -> Estimate:
    """The diagonal of a symmetric matrix, [size].

    Args:
        product: What it makes of a vector [size].
        size: Of the matrix.
        products: How many may be taken; one of `size` or more is exact with 'hutch++'.
        method: 'hutch++', or 'hutchinson', which is as good where all eigenvalues are alike.
        seed: Of the random signs.
    """
    basis, image, samples = _parts(product, size, products, method, seed)
    known = 2 * np.sum(basis * image, axis=1) - np.sum((basis @ (basis.T @ image)) * basis, axis=1)
    return _mean(known, (sign * left for sign, left in samples), products)


def trace(product: Product, size: int, *, products: int = 90, method: Method = "hutch++", seed: int = 0) -> Estimate:
    """The trace of a symmetric matrix; arguments as of `diagonal`."""
    basis, image, samples = _parts(product, size, products, method, seed)
    return _mean(np.sum(basis * image), (sign @ left for sign, left in samples), products)


def gauss_newton_diagonal(at: Linearization, weights: Nest | None = None, *, products: int = 100, seed: int = 0) -> Estimate:
    r"""The diagonal of ``J* W J``, structured as the model: how much all data together say about each unknown.

    The mean of :math:`(J^* W^{1/2} z)^2` over random signs z in the data is that diagonal; it takes one reverse product for each, where
    products with ``J* W J`` take two, and is never negative.

    Args:
        at: The linearization, its model of real leaves.
        weights: The diagonal of W, structured as the data, such as 1 / uncertainty^2; ones by default.
        products: Reverse products: each entry is right to about ``sqrt(2 / products)`` of itself.
        seed: Of the random signs.
    """
    random = np.random.default_rng(seed)
    scale = np.ones(at.shape[0]) if weights is None else np.sqrt(ravel_weights(weights, at.data_spec))
    samples = (
        ravel(at.vjp(unravel(scale * random.choice([-1.0, 1.0], at.shape[0]), at.data_spec))) ** 2
        for _ in tracked(range(_enough(products)), "diagonal of J*WJ")
    )
    value, error, _ = _mean(np.zeros(at.shape[1]), samples, products)
    return Estimate(unravel(value, at.model_spec), unravel(error, at.model_spec), products)


def _parts(product: Product, size: int, products: int, method: str, seed: int) -> tuple[np.ndarray, np.ndarray, Iterator[Pair]]:
    """Q, A Q, and (z, P A P z) of random signs z, as they are asked for."""
    checks.choice("method", method, ("hutch++", "hutchinson"))
    random, count, size = np.random.default_rng(seed), _enough(products), checks.count("size", size)
    rank = min(size, count // 3, (count - LEAST) // 2) if method == "hutch++" else 0
    if method == "hutch++" and count >= size:
        return np.eye(size), np.stack([product(unit) for unit in tracked(np.eye(size), "products")], axis=1), iter(())
    sketch = [product(random.choice([-1.0, 1.0], size)) for _ in tracked(range(rank), "sketch")]
    basis = np.linalg.qr(np.stack(sketch, axis=1))[0] if rank else np.zeros((size, 0))
    image = np.stack([product(vector) for vector in tracked(basis.T, "products")], axis=1) if rank else basis

    def samples() -> Iterator[Pair]:
        for _ in tracked(range(count - 2 * rank), "probes"):
            sign = random.choice([-1.0, 1.0], size)
            left = product(sign - basis @ (basis.T @ sign))
            yield sign, left - basis @ (basis.T @ left)

    return basis, image, samples()


def _mean(known: Any, samples: Iterable[Any], products: int) -> Estimate:
    """Of samples that are not kept (Welford, Technometrics 4, 1962)."""
    count, mean, squares = 0, np.zeros_like(known), np.zeros_like(known)
    for count, sample in enumerate(samples, 1):
        off = sample - mean
        mean = mean + off / count
        squares = squares + off * (sample - mean)
    if not count:
        return Estimate(known, np.zeros_like(known), products)
    # Two thirds of normal values lie within one standard deviation; of few samples' mean within so many standard errors.
    few = scipy.special.stdtrit(count - 1, scipy.special.ndtr(1.0))
    return Estimate(known + mean, few * np.sqrt(squares / (count - 1) / count), products)


def _enough(products: int) -> int:
    return checks.count("products", products, LEAST, advice="Errors need a few samples.")
