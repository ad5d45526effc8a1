r"""The ways in which a derivative that is known by its products can be computed, each with what it is expected to cost.

With t_f and t_r the times of a forward and of a reverse product, n data and m unknowns, a Jacobian takes :math:`m t_f` by columns,
:math:`n t_r` by rows and as many products as there are colours where its pattern is known. What asks for many products at one model may
do better with the Jacobian at hand, whose products take the time that its bytes take to pass. The truth is in the two times.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from ..forward import Linearization, Nest, conform, ravel, ravel_weights, unravel
from . import probes
from .colors import Coloring
from .estimates import gauss_newton_diagonal
from .timing import Cost, measured


@final
@dataclass(frozen=True)
class Way:
    """One way.

    Args:
        name: In a word or two.
        seconds: That it is expected to take, for as many products as were asked for.
        memory: Bytes that it is expected to take: results, and what is kept for products.
        make: Gives what computes it; that may keep a matrix from its first call on.
        choice: What a user hands on to do it elsewhere, such as a strategy.
    """

    name: str
    seconds: float
    memory: float
    make: Callable[[], Callable[..., Any]] = field(repr=False)
    choice: Any = None


@final
@dataclass(frozen=True, eq=False)
class Products:
    """A linearization with what its products cost.

    Args:
        at: The linearization.
        coloring: Of its pattern, where that is known.
        count: How many gradients or products are to be computed at this model.
        accuracy: Relative error that each entry of a diagonal may have; 0 for exact ones.
        seed: Of random vectors.
    """

    at: Linearization
    coloring: Coloring | None = None
    count: int = 1
    accuracy: float = 0.0
    seed: int = 0

    # ------------------------------------------------------------------------------------------------------------ tasks

    def jacobian(self) -> Iterator[Way]:
        """The Jacobian, dense, or sparse where its pattern is known."""
        n, m = self.at.shape
        dense = self._itemsize * n * m
        whole = functools.partial(functools.partial, probes.jacobian, self.at, memory=np.inf)
        yield self._way("forward", m, self._forward, dense, functools.partial(whole, mode="forward"), "forward")
        yield self._way("reverse", n, self._reverse, dense, functools.partial(whole, mode="reverse"), "reverse")
        if self.coloring is not None:
            found, cost = self.coloring, self._forward if self.coloring.mode == "forward" else self._reverse
            # Values and indices, the indices of both orders that products are read off with, and the colouring's own.
            entries = found.pattern.nnz * (self._itemsize + 4 * found.pattern.indices.itemsize)
            sparse = functools.partial(functools.partial, probes.sparse_jacobian, self.at, found, seed=self.seed)
            yield self._way(f"coloured ({found.count})", found.count, cost, entries, sparse, found)

    def gradient(self) -> Iterator[Way]:
        """``J* w``."""

        def by_columns(w: Nest) -> Nest:
            cotangent = ravel(conform("cotangent", w, self.at.data_spec))
            return self._unknowns(np.array([cotangent @ column for column in self._columns()]))

        yield self._way("reverse", self.count, self._reverse, 0, lambda: self.at.vjp, "reverse")
        yield self._way("forward", self.count * self.at.shape[1], self._forward, 0, lambda: by_columns, "forward")
        yield from self._with_matrix(1, lambda matrix, w: self._unknowns(matrix().T @ ravel(conform("cotangent", w, self.at.data_spec))))

    def gauss_newton_product(self) -> Iterator[Way]:
        """``J* W J v``, weights being optional."""
        both = Cost(self._forward.seconds + self._reverse.seconds, max(self._forward.memory, self._reverse.memory))
        yield self._way("products", self.count, both, 0, lambda: self.at.gauss_newton_product, "products")

        def product(matrix: Callable[[], Any], v: Nest, weights: Nest | None = None) -> Nest:
            change = matrix() @ ravel(conform("tangent", v, self.at.model_spec))
            return self._unknowns(matrix().T @ (self._weights(weights) * change))

        yield from self._with_matrix(2, product)

    def hessian_product(self) -> Iterator[Way]:
        """The second derivative of ``<w, F>`` along v."""
        m, (v, w) = self.at.shape[1], self._ones
        once = measured(lambda: ravel(self.at.hessian_product(v, w)))
        yield self._way("products", self.count, once, 0, lambda: self.at.hessian_product, "products")
        if self.count > 1:
            way = self._way("matrix, of one cotangent", m, once, self._itemsize * m**2, self._hessian, "matrix")
            yield dataclasses.replace(way, seconds=way.seconds + self.count * self._itemsize * m**2 / _bytes_a_second())

    def diagonal(self) -> Iterator[Way]:
        """The diagonal of ``J* W J``, weights being optional; structured as the model."""

        def by_columns(weights: Nest | None = None) -> Nest:
            scale = self._weights(weights)
            return self._unknowns(np.array([scale @ np.square(column) for column in self._columns()]))

        def by_rows(weights: Nest | None = None) -> Nest:
            total = np.zeros(self.at.shape[1])
            for number, scale in enumerate(self._weights(weights)):
                total += scale * np.square(probes.rows(self.at, [number])[0])
            return self._unknowns(total)

        yield self._way("columns", self.at.shape[1], self._forward, 0, lambda: by_columns, "forward")
        yield self._way("rows", self.at.shape[0], self._reverse, 0, lambda: by_rows, "reverse")
        if self.coloring is not None:
            *_, way = self.jacobian()

            def coloured(weights: Nest | None = None) -> Nest:
                return self._unknowns(way.make()().power(2).T @ self._weights(weights))

            yield dataclasses.replace(way, make=lambda: coloured)
        if self.accuracy:
            probed = max(6, math.ceil(2 / self.accuracy**2))

            def estimated(weights: Nest | None = None) -> Nest:
                return gauss_newton_diagonal(self.at, weights, products=probed, seed=self.seed).value

            samples = 8 * self.at.shape[1] * probed  # kept for the error of their mean
            yield self._way(f"random ({probed})", probed, self._reverse, samples, lambda: estimated, probed)

    # ------------------------------------------------------------------------------------------------------------ costs

    def _way(self, name: str, products: int, cost: Cost, result: int, make: Callable[[], Callable[..., Any]], choice: Any) -> Way:
        """One of so many products, one at a time, and of a result of so many bytes."""
        return Way(name, products * cost.seconds, result + cost.memory + self._itemsize * sum(self.at.shape), make, choice)

    def _with_matrix(self, passes: int, product: Callable[..., Nest]) -> Iterator[Way]:
        """What many products take with the Jacobian at hand, for each way to it."""
        if self.count == 1:
            return
        for way in self.jacobian():

            def make(way: Way = way) -> Callable[..., Any]:
                return functools.partial(product, functools.cache(way.make()))

            cost = way.seconds + self.count * passes * way.memory / _bytes_a_second()
            yield Way(f"matrix, {way.name}", cost, way.memory, make, way.choice)

    def _hessian(self) -> Callable[..., Any]:
        """Products with the matrix of second derivatives, made again where the cotangent is another one."""
        kept: dict[bytes, np.ndarray] = {}

        def product(v: Nest, w: Nest) -> Nest:
            vector, key = ravel(conform("tangent", v, self.at.model_spec)), ravel(w).tobytes()
            if key not in kept:
                kept.clear()
                kept[key] = np.stack([ravel(self.at.hessian_product(self._unknowns(unit), w)) for unit in np.eye(vector.size)], axis=1)
            return self._unknowns(kept[key] @ vector)

        return product

    @functools.cached_property
    def _forward(self) -> Cost:
        return measured(lambda: ravel(self.at.jvp(self._ones[0])))

    @functools.cached_property
    def _reverse(self) -> Cost:
        return measured(lambda: ravel(self.at.vjp(self._ones[1])))

    @functools.cached_property
    def _ones(self) -> tuple[Nest, Nest]:
        """A model and data to time products with."""
        n, m = self.at.shape
        return self._unknowns(np.ones(m)), unravel(np.ones(n), self.at.data_spec)

    @functools.cached_property
    def _itemsize(self) -> int:
        return int(ravel(self.at.data).dtype.itemsize)

    def _columns(self) -> Iterator[np.ndarray]:
        return (probes.columns(self.at, [each])[:, 0] for each in range(self.at.shape[1]))

    def _weights(self, given: Nest | None) -> np.ndarray:
        return np.ones(self.at.shape[0]) if given is None else ravel_weights(given, self.at.data_spec)

    def _unknowns(self, vector: np.ndarray) -> Nest:
        return unravel(vector, self.at.model_spec)


@functools.cache
def _bytes_a_second() -> float:
    """How fast a dense matrix passes through a product with a vector on this machine."""
    matrix, vector = np.ones((2000, 2000)), np.ones(2000)
    return float(matrix.nbytes / measured(lambda: matrix @ vector).seconds)
