"""First-arrival travel times on a grid by factored fast marching, with the exact derivative of what is computed."""

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import numpy as np
import scipy.sparse
import tensorflow as tf

from .. import checks
from ..forward import ForwardOperator, Linearization
from ..grid import Grid
from ..sparse import CSRMatrix
from .arrivals import Arrivals, NodeSlowness
from .fronts import Ways
from .nodes import Nodes


class System(NamedTuple):
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
        active: Cells of the ground, bool [grid.shape], all by default, or of their parts [refinement * grid.shape]. Of those that the
            surface cuts the ones with any ground: points on it lie in active ones then, and waves pass above it by less than a part.
        refinement: Into how many parts cells are cut along each axis for the times: what errs falls with it, the time of computation grows.
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
    #: Of the slowness of nodes (`of_nodes`), its units the shots that have picks.
    arrivals: Arrivals = field(init=False, repr=False)
    _nodes: Nodes = field(init=False, repr=False)

    xla = False
    twice_differentiable = False

    def __post_init__(self) -> None:
        set_field = functools.partial(object.__setattr__, self)
        for name in ("sources", "receivers"):
            points = self.grid.positions(name, getattr(self, name))
            if not len(points):
                raise checks.invalid(name, "of none", "one or more")
            set_field(name, points)
        shots = np.asarray(self.shots)
        if shots.shape != (len(self.receivers),) or shots.dtype.kind not in "iu":
            raise checks.invalid("shots", f"of shape {shots.shape} and type {shots.dtype}", f"{len(self.receivers)} whole numbers, one for each pick")
        wrong = np.flatnonzero((shots < 0) | (shots >= len(self.sources)))
        if wrong.size:
            raise checks.invalid("shots", f"{shots[wrong[0]]} at index {wrong[0]}", f"from 0 to {len(self.sources) - 1}")
        checks.count("refinement", self.refinement)
        active = np.ones(self.grid.shape, bool) if self.active is None else np.asarray(self.active)
        if active.shape != tuple(self.refinement * n for n in self.grid.shape):
            checks.shape("active", active, self.grid.shape)
        if active.dtype != bool:
            raise checks.invalid("active", f"of type {active.dtype}", "true or false for each cell")
        checks.choice("order", self.order, (1, 2))
        set_field("shots", shots.astype(np.int64))
        set_field("active", active)
        set_field("_nodes", Nodes(self.grid, active, self.refinement))
        set_field("arrivals", Arrivals(self._nodes.medium, tuple(self._all_ways()), len(shots), self.order == 2))

    def _all_ways(self) -> Iterator[Ways]:
        corners, shares = self._nodes.corners("sources", self.sources)
        nodes, weights = self._nodes.corners("receivers", self.receivers)
        weights = weights * np.linalg.norm(self.receivers - self.sources[self.shots], axis=1)[:, np.newaxis]
        order = np.argsort(self.shots, kind="stable")
        starts = np.searchsorted(self.shots[order], np.arange(len(self.sources) + 1))
        for shot, at in enumerate(self.sources):
            picks = order[starts[shot] : starts[shot + 1]]
            if picks.size:  # a source without picks costs nothing
                zone = self._nodes.zone(at, corners[shot])
                yield Ways(np.ascontiguousarray(at), corners[shot], shares[shot], *zone, picks, nodes[picks], weights[picks])

    # --------------------------------------------------------------------------------------------------------- contract

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.grid.shape, tf.float64)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([len(self.shots)], tf.float64)

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return self._chain.forward(model)

    def linearize(self, model: tf.Tensor) -> Linearization:
        return self._chain.linearize(model)

    @functools.cached_property
    def of_nodes(self) -> NodeSlowness:
        """The slowness of nodes: what `arrivals` are the times of."""
        return NodeSlowness(self._nodes)

    @property
    def _chain(self) -> ForwardOperator:
        return self.arrivals @ self.of_nodes

    def subset(self, units: Any) -> "Eikonal":
        """The times of some shots, in the order given: their picks, shot after shot.

        Args:
            units: Numbers of shots, a slice, or a mask.
        """
        chosen = checks.units(units, len(self.sources))
        places = {int(self.shots[each.picks[0]]): place for place, each in enumerate(self.arrivals.ways)}
        kept = [(number, places[shot]) for number, shot in enumerate(chosen.tolist()) if shot in places]
        if not kept:
            raise checks.invalid("units", chosen.tolist(), "shots with picks")
        picks = np.concatenate([self.arrivals.ways[place].picks for _, place in kept])
        part = copy.copy(self)  # of the same nodes
        for name, value in (
            ("sources", self.sources[chosen]),
            ("receivers", self.receivers[picks]),
            ("shots", np.repeat([number for number, _ in kept], [self.arrivals.ways[place].picks.size for _, place in kept])),
            ("arrivals", self.arrivals.subset([place for _, place in kept])),
        ):
            object.__setattr__(part, name, value)
        return part

    # ----------------------------------------------------------------------------------------------------------- matrices

    def triangle(self, model: Any, shot: int) -> System:
        """The system that a shot's tangent and cotangent solve, assembled.

        Args:
            model: The slowness [grid.shape].
            shot: Number of a source that has picks.
        """
        number = sorted(set(self.shots.tolist())).index(checks.choice("shot", shot, sorted(set(self.shots.tolist()))))
        given = np.asarray(model, np.float64)
        fronts = self.arrivals.subset([number]).marched(self.of_nodes.of(given))
        (ways,), (rows, seats), changes = fronts.ways, fronts.triangle(0), self._nodes.changes(fronts.slowness, given)
        size = rows.order.size
        left = scipy.sparse.csr_array((rows.entries, rows.indices, rows.starts), shape=(size, size))
        at_source = scipy.sparse.csr_array(ways.shares[np.newaxis]) @ changes[ways.corners]
        right = scipy.sparse.diags_array(rows.here) @ changes[rows.order] + scipy.sparse.csr_array(rows.there[:, np.newaxis]) @ at_source
        starts = np.arange(ways.picks.size + 1) * seats.shape[1]
        picks = scipy.sparse.csr_array((ways.weights.ravel(), seats.ravel(), starts), shape=(ways.picks.size, size))
        return System(scipy.sparse.eye_array(size, format="csr") - left, scipy.sparse.csr_array(right), picks)

    def triangular_matrix(self, model: Any, shot: int) -> CSRMatrix:
        """The matrix of `triangle`, [node, node] in the order of times: forward mode substitutes forward, reverse mode backward."""
        return CSRMatrix.from_scipy(self.triangle(model, shot).matrix)

    def jacobian(self, model: Any) -> CSRMatrix:
        """The derivative of times by slowness, [pick, cell] in the ravelled grid, m: about as long as a product for each pick.

        A row spreads over the cells beside a way, some thousand of them: 100 picks take 1 MB or more.

        Args:
            model: The slowness [grid.shape].
        """
        given = np.asarray(model, np.float64)
        fronts = self.arrivals.marched(self.of_nodes.of(given))
        return CSRMatrix.from_scipy(fronts.jacobian() @ self._nodes.changes(fronts.slowness, given))

    def rays(self, model: Any) -> list[np.ndarray]:
        """The ways [point, axis] of all picks, from the receiver to the source, m, in steps of half of the smallest cell.

        Against the slope of times, as the matrix of `triangle` has it. Diffracted arrivals, and those behind obstacles, have ways too; around
        a corner of what is not active they cut off up to a cell.

        Args:
            model: The slowness [grid.shape].
        """
        return self.arrivals.marched(self.of_nodes.of(np.asarray(model, np.float64))).rays(self.receivers)
