r"""The ways in which a derivative that is known by its products can be computed, each with what it is expected to cost.

With t_f and t_r the times of a forward and of a reverse product, n data and m unknowns, a Jacobian takes :math:`m t_f` by columns,
:math:`n t_r` by rows and as many products as there are colours where its pattern is known. What asks for many products at one model may
do better with the Jacobian at hand, whose products are timed on a matrix like it. The truth is in the two times.
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

#: Entries of a matrix that products with one are timed on: more than caches hold.
SAMPLE = 4_000_000


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
        refused: Why there are no products of a kind, by kind, where there are none: ways that need them are left out.
    """

    at: Linearization
    coloring: Coloring | None = None
    count: int = 1
    accuracy: float = 0.0
    seed: int = 0
    refused: dict[str, Exception] = field(default_factory=dict, init=False, repr=False)
    _costs: dict[str, Cost] = field(default_factory=dict, init=False, repr=False)

    # ------------------------------------------------------------------------------------------------------------ tasks

    def jacobian(self) -> Iterator[Way]:
        """The Jacobian, dense, or sparse where its pattern is known."""
        n, m = self.at.shape
        dense = self._itemsize * n * m
        whole = functools.partial(functools.partial, probes.jacobian, self.at, memory=np.inf)
        yield from self._way("forward", m, "forward", dense, functools.partial(whole, mode="forward"), "forward")
        yield from self._way("reverse", n, "reverse", dense, functools.partial(whole, mode="reverse"), "reverse")
        if self.coloring is not None:
            found = self.coloring
            # Values and indices, the indices of both orders that products are read off with, and the colouring's own.
            entries = found.pattern.nnz * (self._itemsize + 4 * found.pattern.indices.itemsize)
            sparse = functools.partial(functools.partial, probes.sparse_jacobian, self.at, found, seed=self.seed)
            yield from self._way(f"coloured ({found.count})", found.count, found.mode or "forward", entries, sparse, found)

    def gradient(self) -> Iterator[Way]:
        """``J* w``."""

        def by_columns(w: Nest) -> Nest:
            cotangent = ravel(conform("cotangent", w, self.at.data_spec))
            return self._unknowns(np.array([cotangent @ column for column in self._columns()]))

        yield from self._way("reverse", self.count, "reverse", 0, lambda: self.at.vjp, "reverse")
        yield from self._way("forward", self.count * self.at.shape[1], "forward", 0, lambda: by_columns, "forward")
        yield from self._with_matrix(1, lambda matrix, w: self._unknowns(matrix().T @ ravel(conform("cotangent", w, self.at.data_spec))))

    def gauss_newton_product(self) -> Iterator[Way]:
        """``J* W J v``, weights being optional."""
        yield from self._way("products", self.count, "gauss_newton", 0, lambda: self.at.gauss_newton_product, "products")

        def product(matrix: Callable[[], Any], v: Nest, weights: Nest | None = None) -> Nest:
            change = matrix() @ ravel(conform("tangent", v, self.at.model_spec))
            return self._unknowns(matrix().T @ (self._weights(weights) * change))

        yield from self._with_matrix(2, product)

    def hessian_product(self) -> Iterator[Way]:
        """The second derivative of ``<w, F>`` along v."""
        m = self.at.shape[1]
        yield from self._way("products", self.count, "hessian", 0, lambda: self.at.hessian_product, "products")
        if self.count > 1:
            for way in self._way("matrix, of one cotangent", m, "hessian", self._itemsize * m**2, self._hessian, "matrix"):
                yield dataclasses.replace(way, seconds=way.seconds + self.count * self._pass((m, m)))

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

        def by_colors(way: Way) -> Callable[..., Nest]:
            return lambda weights=None: self._unknowns(way.make()().power(2).T @ self._weights(weights))

        yield from self._way("columns", self.at.shape[1], "forward", 0, lambda: by_columns, "forward")
        yield from self._way("rows", self.at.shape[0], "reverse", 0, lambda: by_rows, "reverse")
        if self.coloring is not None:
            for way in self.jacobian():
                if way.choice is self.coloring:
                    yield dataclasses.replace(way, make=functools.partial(by_colors, way))
        if self.accuracy:
            probed = max(6, math.ceil(2 / max(self.accuracy, 1e-9) ** 2))

            def estimated(weights: Nest | None = None) -> Nest:
                return gauss_newton_diagonal(self.at, weights, products=probed, seed=self.seed).value

            yield from self._way(f"random ({probed})", probed, "reverse", 3 * 8 * self.at.shape[1], lambda: estimated, probed)

    # ------------------------------------------------------------------------------------------------------------ costs

    def _way(self, name: str, products: int, kind: str, result: int, make: Callable[[], Callable[..., Any]], choice: Any) -> Iterator[Way]:
        """One of so many products, one at a time, and of a result of so many bytes; none where there are no products of that kind."""
        try:
            cost = self._cost(kind)
        except (LookupError, NotImplementedError, ValueError) as error:  # TensorFlow's, of rules that are missing; and operators' own
            self.refused[kind] = error
            return
        yield Way(name, products * cost.seconds, result + cost.memory + self._itemsize * sum(self.at.shape), make, choice)

    def _with_matrix(self, passes: int, product: Callable[..., Nest]) -> Iterator[Way]:
        """What many products take with the Jacobian at hand, for each way to it."""
        if self.count == 1:
            return
        for way in self.jacobian():

            def make(way: Way = way) -> Callable[..., Any]:
                return functools.partial(product, functools.cache(way.make()))

            matrix = self.coloring.pattern if self.coloring is not None and way.choice is self.coloring else self.at.shape
            yield Way(f"matrix, {way.name}", way.seconds + self.count * passes * self._pass(matrix), way.memory, make, way.choice)

    def _pass(self, matrix: Any) -> float:
        """Seconds that a product with a matrix, a sparse one or a dense one of such a shape, and with its tensors as vectors takes."""
        if isinstance(matrix, tuple):
            rows, columns = matrix
            some = max(1, min(rows, SAMPLE // max(1, columns)))
            matrix, times = np.ones((some, columns)), rows / some
        else:
            matrix, times = matrix.astype(float), 1.0
        vectors = np.ones(matrix.shape[1]), np.ones(matrix.shape[0])
        both = measured(lambda: (matrix @ vectors[0], matrix.T @ vectors[1])).seconds / 2
        return times * both + measured(lambda: ravel(conform("tangent", self._unknowns(np.ones(self.at.shape[1])), self.at.model_spec))).seconds

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

    def _cost(self, kind: str) -> Cost:
        """Of one product of a kind."""
        if kind not in self._costs:
            v, w = self._ones
            calls = {
                "forward": lambda: ravel(self.at.jvp(v)),
                "reverse": lambda: ravel(self.at.vjp(w)),
                "gauss_newton": lambda: ravel(self.at.gauss_newton_product(v)),
                "hessian": lambda: ravel(self.at.hessian_product(v, w)),
            }
            self._costs[kind] = measured(calls[kind])
        return self._costs[kind]

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
