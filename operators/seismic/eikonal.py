"""First-arrival travel times on a grid by factored fast marching, with the exact derivative of what is computed."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import numpy as np
import scipy.sparse
import tensorflow as tf

from .. import checks
from ..forward import ForwardOperator, Linearization
from ..grid import Grid
from .marching import Front, Shot, kernels
from .nodes import Nodes


class _Ways(NamedTuple):
    """A source, and the nodes [pick, corner] and weights that its times are taken from, the distances among these."""

    at: np.ndarray
    corners: np.ndarray
    shares: np.ndarray
    picks: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray


class Triangle(NamedTuple):
    """The derivative of a shot's times T by the slowness m of cells: ``matrix dtau = right dm``, ``dT = picks dtau``.

    Args:
        matrix: [node, node], nodes in the order of their times: lower triangular, with ones on its diagonal.
        right: [node, cell].
        picks: [pick, node].
    """

    matrix: scipy.sparse.csr_array
    right: scipy.sparse.csr_array
    picks: scipy.sparse.csr_array


@final
@dataclass(frozen=True, eq=False)
class Eikonal(ForwardOperator):
    """``T = F(s)``: first-arrival times [pick], s, of slownesses [grid.shape], s/m, float64; its units are shots.

    Times solve the eikonal equation by factored fast marching of second order (see `marching`); the derivative is that of the equations
    that were solved, exact to rounding: one substitution through a triangular system for each source, forward or backward. Homogeneous of
    degree one in the slowness, so ``J s = T``. Sources run side by side on the processor's cores. A kernel of the host: not for XLA, and
    Gauss-Newton products only, no second derivatives. Sources and receivers may be anywhere in active cells.

    Args:
        grid: Of the cells.
        sources: [shot, axis] positions, m, in the order of the grid's axes.
        receivers: [pick, axis] positions, m.
        shots: [pick] which source each pick belongs to.
        active: [grid.shape] bool: cells of the ground, all by default. Of cells that the surface cuts those with any ground: points on it
            lie in active cells then.
        refinement: Into how many parts cells are cut along each axis for the times: error and time of computation fall and grow with it.
        order: 2, or 1 for upwind differences of first order.

    Raises:
        ValueError: Positions outside of the grid or of the active cells, or shots that there are not.
    """

    grid: Grid
    sources: np.ndarray
    receivers: np.ndarray
    shots: np.ndarray
    active: np.ndarray | None = None
    refinement: int = 1
    order: int = 2

    xla = False
    twice_differentiable = False

    def __post_init__(self) -> None:
        set_field = functools.partial(object.__setattr__, self)
        for name in ("sources", "receivers"):
            points = np.atleast_2d(checks.finite(name, getattr(self, name)))
            if points.ndim != 2 or points.shape[1] != self.grid.ndim or not points.size:
                raise checks.invalid(name, f"of shape {points.shape}", f"of shape (points, {self.grid.ndim}): {', '.join(self.grid.dims)}")
            set_field(name, points)
        shots = np.asarray(self.shots)
        if shots.shape != (len(self.receivers),) or shots.dtype.kind not in "iu":
            raise checks.invalid("shots", f"of shape {shots.shape} and type {shots.dtype}", f"{len(self.receivers)} whole numbers, one for each pick")
        wrong = np.flatnonzero((shots < 0) | (shots >= len(self.sources)))
        if wrong.size:
            raise checks.invalid("shots", f"{shots[wrong[0]]} at index {wrong[0]}", f"from 0 to {len(self.sources) - 1}")
        active = np.ones(self.grid.shape, bool) if self.active is None else checks.shape("active", self.active, self.grid.shape).astype(bool)
        checks.count("refinement", self.refinement)
        checks.choice("order", self.order, (1, 2))
        set_field("shots", shots.astype(np.int64))
        set_field("active", active)
        set_field("_nodes", Nodes(self.grid, active, self.refinement))
        set_field("_ways", tuple(self._all_ways()))

    _nodes: Nodes = None  # type: ignore[assignment]
    _ways: tuple[_Ways, ...] = ()

    def _all_ways(self) -> Iterator[_Ways]:
        corners, shares = self._nodes.corners("sources", self.sources)
        nodes, weights = self._nodes.corners("receivers", self.receivers)
        weights = weights * np.linalg.norm(self.receivers - self.sources[self.shots], axis=1)[:, np.newaxis]
        order = np.argsort(self.shots, kind="stable")
        starts = np.searchsorted(self.shots[order], np.arange(len(self.sources) + 1))
        for shot, at in enumerate(self.sources):
            picks = order[starts[shot] : starts[shot + 1]]
            if picks.size:  # a source without picks costs nothing
                yield _Ways(at, corners[shot], shares[shot], picks, nodes[picks], weights[picks])

    # --------------------------------------------------------------------------------------------------------- contract

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.grid.shape, tf.float64)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([len(self.shots)], tf.float64)

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return _on_host(lambda m: self._marched(m, keep=False)[:1], [model], [self.data_spec])[0]

    def linearize(self, model: tf.Tensor) -> Linearization:
        sizes = (len(self._ways), self._nodes.size)
        specs = [self.data_spec, *(tf.TensorSpec(sizes, dtype) for dtype in (tf.float64, tf.int32, tf.uint8)), tf.TensorSpec(sizes[:1], tf.int64)]
        data, *fronts = _on_host(lambda m: self._marched(m, keep=True), [model], specs)
        return Linearization(
            self.model_spec,
            self.data_spec,
            data,
            lambda v: _on_host(self._tangent, [model, v, *fronts], [self.data_spec])[0],
            lambda w: _on_host(self._cotangent, [model, w, *fronts], [self.model_spec])[0],
        )

    def subset(self, units: Any) -> "Eikonal":
        """The times of some shots, in the order given: their picks, shot after shot.

        Args:
            units: Numbers of shots, a slice, or a mask.
        """
        chosen = checks.units(units, len(self.sources))
        picks = [np.flatnonzero(self.shots == shot) for shot in chosen]
        numbers = np.repeat(np.arange(len(chosen)), [each.size for each in picks])
        return replace(self, sources=self.sources[chosen], receivers=self.receivers[np.concatenate(picks)], shots=numbers)

    # ----------------------------------------------------------------------------------------------------------- matrices

    def triangle(self, model: Any, shot: int) -> Triangle:
        """The system that a shot's tangent and cotangent solve, assembled.

        Args:
            model: The slowness [grid.shape].
            shot: Number of a source that has picks.
        """
        ways = {int(self.shots[ways.picks[0]]): ways for ways in self._ways}[checks.choice("shot", shot, sorted(set(self.shots.tolist())))]
        given = checks.shape("slowness", checks.finite("slowness", np.where(self._nodes.active, model, 1.0)), self.grid.shape)
        slowness = self._slowness(given)
        source, front = self._front(slowness, ways)
        starts, columns, values, here, there = kernels()[3](slowness, self._nodes.mesh, source, front)
        size, changes = front.order.size, self._nodes.changes(slowness, given)
        above = scipy.sparse.csr_array((values, columns, starts), shape=(size, size))
        at_source = scipy.sparse.csr_array(ways.shares[np.newaxis]) @ changes[ways.corners]
        right = scipy.sparse.diags_array(here) @ changes[front.order] + scipy.sparse.csr_array(there[:, np.newaxis]) @ at_source
        rank = np.zeros(self._nodes.size, np.int64)
        rank[front.order] = np.arange(size)
        picks = np.arange(ways.picks.size + 1) * ways.nodes.shape[1]
        taken = scipy.sparse.csr_array((ways.weights.ravel(), rank[ways.nodes].ravel(), picks), shape=(ways.picks.size, size))
        return Triangle(scipy.sparse.eye_array(size, format="csr") - above, scipy.sparse.csr_array(right), taken)

    # -------------------------------------------------------------------------------------------------------------- runs

    def _slowness(self, model: np.ndarray) -> np.ndarray:
        """Of nodes."""
        checks.positive("slowness", model[self.active])
        return self._nodes.slowness(model)

    def _front(self, slowness: np.ndarray, ways: _Ways) -> tuple[Shot, Front]:
        nodes = self._nodes
        shot = nodes.shot(ways.at, ways.shares @ slowness[ways.corners])
        tau, order, code = np.empty(nodes.size), np.empty(nodes.size, np.int32), np.zeros(nodes.size, np.uint8)
        reached = kernels()[0](slowness, nodes.outside, nodes.links, nodes.mesh, shot, self.order == 2, tau, order, code)
        return shot, Front(tau, order[:reached], code)

    def _marched(self, model: np.ndarray, *, keep: bool) -> list[np.ndarray]:
        """The times, and the fronts of all sources if they are to be kept."""
        slowness, times = self._slowness(model), np.empty(len(self.shots))
        count, size = (len(self._ways), self._nodes.size) if keep else (0, 0)
        kept = [np.empty((count, size), dtype) for dtype in (np.float64, np.int32, np.uint8)] + [np.empty(count, np.int64)]

        def one(number: int) -> None:
            ways = self._ways[number]
            front = self._front(slowness, ways)[1]
            times[ways.picks] = np.sum(ways.weights * front.tau[ways.nodes], axis=1)
            if keep:
                kept[0][number], kept[2][number], kept[3][number] = front.tau, front.code, front.order.size
                kept[1][number, : front.order.size] = front.order

        list(_side_by_side(one, range(len(self._ways))))
        lost = np.flatnonzero(~np.isfinite(times))
        if lost.size:
            raise checks.invalid("active", f"cells without a way to pick {lost[0]}", "connected", f"{lost.size} of {times.size} are not reached.")
        return [times, *kept]

    def _fronts(self, model: np.ndarray, kept: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, _Ways, Shot, Front]]:
        """What was marched, for each source: (slowness of nodes, ways, shot, front)."""
        slowness = self._nodes.slowness(model)
        for ways, tau, order, code, reached in zip(self._ways, *kept, strict=True):
            shot = self._nodes.shot(ways.at, ways.shares @ slowness[ways.corners])
            yield slowness, ways, shot, Front(tau, order[:reached], code)

    def _tangent(self, model: np.ndarray, v: np.ndarray, *kept: np.ndarray) -> list[np.ndarray]:
        change, out = self._nodes.change(self._nodes.slowness(model), model, v), np.empty(len(self.shots))

        def one(given: tuple[np.ndarray, _Ways, Shot, Front]) -> None:
            slowness, ways, shot, front = given
            moved = kernels()[1](change, ways.shares @ change[ways.corners], slowness, self._nodes.mesh, shot, front)
            out[ways.picks] = np.sum(ways.weights * moved[ways.nodes], axis=1)

        list(_side_by_side(one, self._fronts(model, kept)))
        return [out]

    def _cotangent(self, model: np.ndarray, w: np.ndarray, *kept: np.ndarray) -> list[np.ndarray]:
        def one(given: tuple[np.ndarray, _Ways, Shot, Front]) -> np.ndarray:
            slowness, ways, shot, front = given
            g = np.bincount(ways.nodes.ravel(), (ways.weights * w[ways.picks][:, np.newaxis]).ravel(), self._nodes.size)
            found, of_source = kernels()[2](g, slowness, self._nodes.mesh, shot, front)
            np.add.at(found, ways.corners, ways.shares * of_source)
            return found

        total = np.zeros(self._nodes.size)
        for found in _side_by_side(one, self._fronts(model, kept)):  # in the order of shots: the same sum each time
            total += found
        return [self._nodes.gradient(self._nodes.slowness(model), model, total)]


def _side_by_side(function: Callable[[Any], Any], items: Any) -> Iterator[Any]:
    """What a function gives of each item, in their order, on as many threads as there are cores."""
    kernels()  # compiled by one of them
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from threads.map(function, items)


def _on_host(function: Callable[..., list[np.ndarray]], inputs: list[tf.Tensor], specs: list[tf.TensorSpec]) -> list[tf.Tensor]:
    """What a function of arrays gives, also in a graph."""
    if tf.executing_eagerly():
        return [tf.convert_to_tensor(each) for each in function(*(each.numpy() for each in inputs))]
    found = tf.numpy_function(function, inputs, [spec.dtype for spec in specs], name="Eikonal_runs_on_the_host_and_not_in_XLA")
    return [tf.ensure_shape(each, spec.shape) for each, spec in zip(found, specs, strict=True)]
