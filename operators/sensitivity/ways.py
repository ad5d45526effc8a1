r"""The ways in which a derivative that is known by its products can be computed, each with what it is expected to cost.

With t_f and t_r the times of a forward and of a reverse product, n data and m unknowns, a Jacobian takes :math:`m t_f` by columns,
:math:`n t_r` by rows and as many products as there are colours where its pattern is known. What asks for many products at one model may
do better with the Jacobian at hand, whose products take the time that its bytes take to pass. The truth is in the two times.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from ..forward import Linearization, Nest, conform, ravel, unravel
from . import probes
from .colors import Coloring, Mode
from .estimates import gauss_newton_diagonal
from .timing import seconds


@final
@dataclass(frozen=True)
class Way:
    """One way.

    Args:
        name: In a word or two.
        seconds: That it is expected to take, for as many products as were asked for.
        memory: Bytes that it is expected to take: results, and what is kept for products.
        run: Does it.
        choice: What a user hands on to do it elsewhere, such as a strategy.
    """

    name: str
    seconds: float
    memory: float
    run: Callable[..., Any] = field(repr=False)
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
        dense = float(self._itemsize) * n * m
        yield Way("forward", m * self._time("forward"), dense, lambda: probes.jacobian(self.at, mode="forward", memory=np.inf), "forward")
        yield Way("reverse", n * self._time("reverse"), dense, lambda: probes.jacobian(self.at, mode="reverse", memory=np.inf), "reverse")
        if self.coloring is not None:
            cost, found = self.coloring.count * self._time(self.coloring.mode), self.coloring
            # Values and indices, the indices of both orders that products are read off with, and the colouring's own.
            memory = found.pattern.nnz * (self._itemsize + 4 * found.pattern.indices.itemsize)
            yield Way(f"coloured ({found.count})", cost, memory, lambda: probes.sparse_jacobian(self.at, found, seed=self.seed), found)

    def gradient(self) -> Iterator[Way]:
        """``J* w``."""
        m = self.at.shape[1]
        yield Way("reverse", self.count * self._time("reverse"), self._vectors, self.at.vjp, "reverse")
        yield Way("forward", self.count * m * self._time("forward"), self._vectors, self._gradient_forward, "forward")
        yield from self._with_matrix(1, lambda matrix, w: unravel(matrix().T @ ravel(conform("cotangent", w, self.at.data_spec)), self.at.model_spec))

    def gauss_newton_product(self) -> Iterator[Way]:
        """``J* J v``, or with weights between."""
        both = self._time("forward") + self._time("reverse")
        yield Way("products", self.count * both, 2 * self._vectors, self.at.gauss_newton_product, "products")

        def made(matrix: Callable[[], Any], v: Nest, weights: Nest | None = None) -> Nest:
            change = matrix() @ ravel(conform("tangent", v, self.at.model_spec))
            scaled = change if weights is None else change * ravel(conform("weights", weights, self.at.data_spec))
            return unravel(matrix().T @ scaled, self.at.model_spec)

        yield from self._with_matrix(2, made)

    def hessian_product(self) -> Iterator[Way]:
        """The second derivative of ``<w, F>`` along v."""
        m = self.at.shape[1]
        once = seconds(lambda: self._bent(np.ones(m)))
        yield Way("products", self.count * once, 2 * self._vectors, self.at.hessian_product, "products")
        if self.count > 1:
            matrices: dict[bytes, np.ndarray] = {}

            def made(v: Nest, w: Nest) -> Nest:
                key = ravel(w).tobytes()
                if key not in matrices:
                    matrices.clear()
                    matrices[key] = np.stack([ravel(self.at.hessian_product(unravel(unit, self.at.model_spec), w)) for unit in np.eye(m)], axis=1)
                return unravel(matrices[key] @ ravel(conform("tangent", v, self.at.model_spec)), self.at.model_spec)

            memory = float(self._itemsize) * m**2
            yield Way("matrix, of one cotangent", m * once + self.count * memory / _bytes_a_second(), memory, made, "matrix")

    def diagonal(self) -> Iterator[Way]:
        """The diagonal of ``J* W J``, weights being optional; structured as the model."""
        n, m = self.at.shape

        def scale(weights: Nest | None) -> np.ndarray:
            return np.ones(n) if weights is None else ravel(conform("weights", weights, self.at.data_spec))

        def by_columns(weights: Nest | None = None) -> Nest:
            found = [scale(weights) @ np.square(probes.columns(self.at, [each])[:, 0]) for each in range(m)]
            return unravel(np.array(found), self.at.model_spec)

        def by_rows(weights: Nest | None = None) -> Nest:
            total, factors = np.zeros(m), scale(weights)
            for each in range(n):
                total += factors[each] * np.square(probes.rows(self.at, [each])[0])
            return unravel(total, self.at.model_spec)

        yield Way("columns", m * self._time("forward"), self._vectors, by_columns, "forward")
        yield Way("rows", n * self._time("reverse"), self._vectors, by_rows, "reverse")
        if self.coloring is not None:
            *_, way = self.jacobian()

            def coloured(weights: Nest | None = None) -> Nest:
                return unravel(way.run().power(2).T @ scale(weights), self.at.model_spec)

            yield Way(way.name, way.seconds, way.memory, coloured, self.coloring)
        if self.accuracy:
            probed = max(6, int(np.ceil(2 / self.accuracy**2)))

            def estimated(weights: Nest | None = None) -> Nest:
                return gauss_newton_diagonal(self.at, weights, products=probed, seed=self.seed).value

            # The samples are kept for the error of their mean.
            memory = float(self._itemsize) * m * probed
            yield Way(f"random ({probed})", probed * self._time("reverse"), memory, estimated, probed)

    # ------------------------------------------------------------------------------------------------------------ costs

    def _with_matrix(self, passes: int, product: Callable[..., Nest]) -> Iterator[Way]:
        """What many products take with the Jacobian at hand, for each way to it."""
        if self.count == 1:
            return
        for way in self.jacobian():
            matrix = functools.cache(way.run)
            cost = way.seconds + self.count * passes * way.memory / _bytes_a_second()
            yield Way(f"matrix, {way.name}", cost, way.memory, functools.partial(product, matrix), way.choice)

    def _time(self, mode: Mode | None) -> float:
        return self._forward if mode == "forward" else self._reverse

    @functools.cached_property
    def _forward(self) -> float:
        vector = np.ones(self.at.shape[1])
        return seconds(lambda: ravel(self.at.jvp(unravel(vector, self.at.model_spec))))

    @functools.cached_property
    def _reverse(self) -> float:
        vector = np.ones(self.at.shape[0])
        return seconds(lambda: ravel(self.at.vjp(unravel(vector, self.at.data_spec))))

    def _bent(self, v: np.ndarray) -> np.ndarray:
        return ravel(self.at.hessian_product(unravel(v, self.at.model_spec), unravel(np.ones(self.at.shape[0]), self.at.data_spec)))

    def _gradient_forward(self, w: Nest) -> Nest:
        cotangent = ravel(conform("cotangent", w, self.at.data_spec))
        found = [cotangent @ probes.columns(self.at, [each])[:, 0] for each in range(self.at.shape[1])]
        return unravel(np.array(found), self.at.model_spec)

    @functools.cached_property
    def _itemsize(self) -> int:
        return ravel(self.at.data).dtype.itemsize

    @property
    def _vectors(self) -> float:
        return float(self._itemsize) * sum(self.at.shape)


@functools.cache
def _bytes_a_second() -> float:
    """How fast a dense matrix passes through a product with a vector on this machine."""
    matrix, vector = np.ones((2000, 2000)), np.ones(2000)
    return matrix.nbytes / seconds(lambda: matrix @ vector)
