"""What a march through a model leaves for its derivative: the fronts of all sources, and products with their triangles."""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import scipy.sparse

from ..parallel import cores
from . import marching, paths
from .marching import Front, Rows, Shot
from .nodes import Medium

#: Bytes that assembled triangles may take; larger ones are assembled again for each tangent.
ASSEMBLED = 2e9


class Ways(NamedTuple):
    """From a source to its picks.

    Args:
        at: [axis] its position, m.
        corners, shares: The nodes around it, and their weights at its place.
        zone, blend: The nodes that take a share of the straight way from it, and that share.
        picks: [pick] their numbers among all.
        nodes, weights: [pick, corner] the nodes around receivers, and their weights there times the distance from the source, m.
    """

    at: np.ndarray
    corners: np.ndarray
    shares: np.ndarray
    zone: np.ndarray
    blend: np.ndarray
    picks: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray

    def shot(self, slowness: np.ndarray) -> Shot:
        """The source in a medium of such slowness [node]."""
        return Shot(self.at, float(self.shares @ slowness[self.corners]), self.zone, self.blend)


class Triangle(NamedTuple):
    """The system of a source, assembled, and where its picks stand in it [pick, corner]."""

    rows: Rows
    seats: np.ndarray


@final
@dataclass(frozen=True, eq=False)
class Fronts:
    """Those of all sources at a model.

    Args:
        medium: The nodes.
        ways: Of the sources.
        picks: How many there are.
        slowness: Of nodes, s/m.
        fronts: One for each of the ways.
        assembled: Bytes that triangles may take.
    """

    medium: Medium
    ways: Sequence[Ways]
    picks: int
    slowness: np.ndarray
    fronts: Sequence[Front]
    assembled: float = ASSEMBLED

    @classmethod
    def marched(
        cls, medium: Medium, ways: Sequence[Ways], picks: int, slowness: np.ndarray, *, second: bool, assembled: float = ASSEMBLED
    ) -> "Fronts":
        """Times from all sources, on as many threads as there are cores."""

        def one(of: Ways) -> Front:
            tau, order, code = np.empty(medium.size), np.empty(medium.size, np.int32), np.zeros(medium.size, np.uint8)
            shot = of.shot(slowness)
            reached = marching.march(slowness, medium.outside, medium.links, medium.mesh, shot, second, tau, order, code)
            return Front(tau, order[:reached], code)

        return cls(medium, ways, picks, slowness, list(_side_by_side(one, ways)), assembled)

    @property
    def times(self) -> np.ndarray:
        """[pick], s; infinite where no way leads."""
        found = np.empty(self.picks)
        for of, front in zip(self.ways, self.fronts, strict=True):
            found[of.picks] = np.sum(of.weights * front.tau[of.nodes], axis=1)
        return found

    def tangent(self, change: np.ndarray) -> np.ndarray:
        """The change of times [pick] for one of the slowness [node]."""
        out = np.empty(self.picks)

        def one(number: int) -> None:
            of, (rows, seats) = self.ways[number], self.triangle(number)
            moved = marching.forward(rows, change, of.shares @ change[of.corners])
            out[of.picks] = np.sum(of.weights * moved[seats], axis=1)

        list(_side_by_side(one, range(len(self.ways))))
        return out

    def cotangent(self, w: np.ndarray) -> np.ndarray:
        """The gradient by the slowness [node] from that by times [pick]; the same before and after a tangent was asked for."""

        def one(number: int) -> np.ndarray:
            of, front = self.ways[number], self.fronts[number]
            weights = (of.weights * w[of.picks][:, np.newaxis]).ravel()
            if number in self._triangles:
                rows, seats = self._triangles[number]
                found, of_source = marching.backward(rows, np.bincount(seats.ravel(), weights, rows.order.size), self.medium.size)
            else:  # of the nodes on the ways alone: less than to assemble them all
                g = np.bincount(of.nodes.ravel(), weights, self.medium.size)
                found, of_source = marching.cotangent(g, self.slowness, self.medium.mesh, of.shot(self.slowness), front)
            np.add.at(found, of.corners, of.shares * of_source)
            return found

        total = np.zeros(self.medium.size)
        for found in _side_by_side(one, range(len(self.ways))):  # in the order of sources: the same sum each time
            total += found
        return total

    def jacobian(self) -> scipy.sparse.csr_array:
        """The derivative of times [pick, node] by the slowness of nodes: a substitution backward for each pick."""

        def one(number: int) -> scipy.sparse.csr_array:
            of, (rows, seats) = self.ways[number], self.triangle(number)
            found = [self._of_pick(of, rows, *each) for each in zip(seats, of.weights, strict=True)]
            starts = np.cumsum([0, *(columns.size for columns, _ in found)])
            columns, values = (np.concatenate(part) for part in zip(*found, strict=True))
            return scipy.sparse.csr_array((values, columns, starts), shape=(of.picks.size, self.medium.size))

        stacked = scipy.sparse.vstack(list(_side_by_side(one, range(len(self.ways)))), format="csr")
        return stacked[np.argsort(np.concatenate([of.picks for of in self.ways]))]

    def _of_pick(self, of: Ways, rows: Rows, seats: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gradient, of_source = marching.backward(rows, np.bincount(seats, weights, rows.order.size), self.medium.size)
        np.add.at(gradient, of.corners, of.shares * of_source)
        columns = np.flatnonzero(gradient)
        return columns, gradient[columns]

    def rays(self, receivers: np.ndarray) -> list[np.ndarray]:
        """The ways [point, axis] that first arrivals took, from receivers [pick, axis] to their sources, m."""

        def one(number: int) -> list[np.ndarray]:
            of, front = self.ways[number], self.fronts[number]
            return paths.rays(self.slowness, self.medium.mesh, of.shot(self.slowness), front, receivers[of.picks])

        found: list[Any] = [None] * self.picks
        for of, ways in zip(self.ways, _side_by_side(one, range(len(self.ways))), strict=True):
            for pick, way in zip(of.picks, ways, strict=True):
                found[pick] = way
        return found

    def triangle(self, number: int) -> Triangle:
        """Of a source, kept if all of them may be."""
        if number in self._triangles:
            return self._triangles[number]
        of, front = self.ways[number], self.fronts[number]
        rows, rank = marching.rows(self.slowness, self.medium.mesh, of.shot(self.slowness), front)
        found = Triangle(rows, rank[of.nodes])
        if len(self.ways) * sum(each.nbytes for each in (*rows, found.seats)) <= self.assembled:
            self._triangles[number] = found
        return found

    @functools.cached_property
    def _triangles(self) -> dict[int, Triangle]:
        return {}


def _side_by_side(function: Callable[[Any], Any], items: Any) -> Iterator[Any]:
    """What a function gives of each item, in their order: no more at a time than there are cores, whoever else asks for others."""
    seats = _seats(cores())

    def seated(item: Any) -> Any:
        with seats:
            return function(item)

    if len(items) == 1:
        yield seated(items[0])
        return
    with ThreadPoolExecutor(cores()) as threads:
        yield from threads.map(seated, items)


@functools.lru_cache
def _seats(count: int) -> threading.Semaphore:
    return threading.Semaphore(count)
