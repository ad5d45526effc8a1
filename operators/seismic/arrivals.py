"""The two halves of `Eikonal`: what the slowness of cells makes of nodes, and the times that it makes of that of nodes, shot by shot."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import tensorflow as tf

from .. import checks
from ..forward import ForwardOperator, Linearization
from .fronts import ASSEMBLED, Fronts, Ways
from .marching import Front
from .nodes import Medium, Nodes


@final
@dataclass(frozen=True, eq=False)
class NodeSlowness(ForwardOperator):
    """The slowness of nodes [node], s/m, zero outside of the medium, from that of cells [grid.shape]; see `nodes`."""

    nodes: Nodes

    xla = False
    twice_differentiable = False

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.nodes.grid.shape, tf.float64)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.nodes.size], tf.float64)

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return on_host(lambda m: [self.of(m)], [model], [self.data_spec])[0]

    def linearize(self, model: tf.Tensor) -> Linearization:
        data = self.forward(model)
        return Linearization(
            self.model_spec,
            self.data_spec,
            data,
            lambda v: on_host(lambda v, s, m: [self.nodes.change(s, m, v)], [v, data, model], [self.data_spec])[0],
            lambda w: on_host(lambda w, s, m: [self.nodes.gradient(s, m, w)], [w, data, model], [self.model_spec])[0],
        )

    def subset(self, units: Any) -> "NodeSlowness":
        """Of all nodes: there is nothing to choose."""
        if not np.array_equal(checks.units(units, self.nodes.size), np.arange(self.nodes.size)):
            raise checks.invalid("units", "some nodes", "all of them", "Shots are chosen of the times.")
        return self

    def of(self, model: np.ndarray) -> np.ndarray:
        """`forward` of an array.

        Raises:
            ValueError: A slowness that is not positive in a cell of the medium.
        """
        checks.positive("slowness", model[self.nodes.cells])
        return self.nodes.slowness(model)


@final
@dataclass(frozen=True, eq=False)
class Arrivals(ForwardOperator):
    """First-arrival times [pick], s, of the slowness of nodes [node], s/m; its units are shots with picks.

    Args:
        medium: The nodes.
        ways: Of each shot.
        count: Of picks.
        second: Whether differences are of second order where they can be.
        assembled: Bytes that the triangles for products may take; beyond that they are assembled again for each.
    """

    medium: Medium
    ways: Sequence[Ways]
    count: int
    second: bool = True
    assembled: float = ASSEMBLED

    xla = False
    twice_differentiable = False

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.medium.size], tf.float64)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.count], tf.float64)

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return on_host(lambda s: [self._reached(self.marched(s))], [model], [self.data_spec])[0]

    def linearize(self, model: tf.Tensor) -> Linearization:
        if tf.executing_eagerly():
            fronts = self.marched(model.numpy())
            data, held = tf.convert_to_tensor(self._reached(fronts)), []
        else:
            sizes = (len(self.ways), self.medium.size)
            specs = [*(tf.TensorSpec(sizes, dtype) for dtype in (tf.float64, tf.int32, tf.uint8)), tf.TensorSpec(sizes[:1], tf.int64)]
            fronts, (data, *held) = None, on_host(self._stacked, [model], [self.data_spec, *specs])

        def at(given: Sequence[np.ndarray]) -> Fronts:
            return fronts or self._held(*given)

        return Linearization(
            self.model_spec,
            self.data_spec,
            data,
            lambda v: on_host(lambda v, *given: [at(given).tangent(v)], [v, model, *held], [self.data_spec])[0],
            lambda w: on_host(lambda w, *given: [at(given).cotangent(w)], [w, model, *held], [self.model_spec])[0],
        )

    def subset(self, units: Any) -> "Arrivals":
        """The times of some shots, in the order given: their picks, shot after shot."""
        chosen = [self.ways[shot] for shot in checks.units(units, len(self.ways))]
        ends = np.cumsum([each.picks.size for each in chosen])
        ways = [each._replace(picks=np.arange(end - each.picks.size, end)) for each, end in zip(chosen, ends, strict=True)]
        return dataclasses.replace(self, ways=ways, count=int(ends[-1]))

    def marched(self, slowness: np.ndarray) -> Fronts:
        """What marches leave."""
        return Fronts.marched(self.medium, self.ways, self.count, slowness, second=self.second, assembled=self.assembled)

    def _reached(self, fronts: Fronts) -> np.ndarray:
        times = fronts.times
        lost = np.flatnonzero(~np.isfinite(times))
        if lost.size:
            raise checks.invalid("active", f"cells without a way to pick {lost[0]}", "connected", f"{lost.size} of {times.size} are not reached.")
        return times

    def _stacked(self, slowness: np.ndarray) -> list[np.ndarray]:
        """The times, and the fronts as arrays that a graph can hold."""
        fronts = self.marched(slowness)
        order = np.zeros((len(self.ways), self.medium.size), np.int32)
        for row, front in zip(order, fronts.fronts, strict=True):
            row[: front.order.size] = front.order
        counts = np.array([front.order.size for front in fronts.fronts])
        tau, code = (np.stack([each[part] for each in fronts.fronts]) for part in (0, 2))
        return [self._reached(fronts), tau, order, code, counts]

    def _held(self, slowness: np.ndarray, *arrays: np.ndarray) -> Fronts:
        fronts = [Front(tau, order[:count], code) for tau, order, code, count in zip(*arrays, strict=True)]
        return Fronts(self.medium, self.ways, self.count, slowness, fronts, self.assembled)


def on_host(function: Callable[..., list[np.ndarray]], inputs: list[tf.Tensor], specs: list[tf.TensorSpec]) -> list[tf.Tensor]:
    """What a function of arrays gives, also in a graph."""
    if tf.executing_eagerly():
        return [tf.convert_to_tensor(each) for each in function(*(each.numpy() for each in inputs))]
    found = tf.numpy_function(function, inputs, [spec.dtype for spec in specs], name="Eikonal_runs_on_the_host_and_not_in_XLA")
    return [tf.ensure_shape(each, spec.shape) for each, spec in zip(found, specs, strict=True)]
