"""Loops over a step, forward and back, as graphs of a fixed largest length."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import tensorflow as tf

from ..autodiff import pulled, standing_in
from ..graphs import compiled, traced
from .tracing import Traced, floats, rounding

Tensors = list[tf.Tensor]
Arrays = list[tf.TensorArray]
#: Steps that TensorFlow may have in work at a time: two hide what lies between them, and ten, its default, take the memory of ten.
AT_ONCE = 2


class Undone(NamedTuple):
    """Leaves that an inverse comes to.

    Args:
        leaves: These.
        largest: Number of each floating leaf on the way.
        apart: How far from the leaves that were undone the step leads again, of each of them at most.
    """

    leaves: Tensors
    largest: tf.Tensor
    apart: tf.Tensor


class Cotangents(NamedTuple):
    """Of the floating leaves, and of what the step reads from outside."""

    leaves: Tensors
    outside: Tensors


@final
@dataclass(frozen=True, eq=False)
class Loops:
    """What a scan runs, each in one graph.

    Args:
        step, inverse: From and to lists of leaves.
        most: Of the steps whose states are kept at once.
        slots: For states of the way forward.
        jit_compile: Whether XLA compiles the loops.
        scoped: Tensors that they read from outside, for which all runs are given others: in the gradient of a graph, say.
        graphs: Those made so far, each when it is first run. Not cached properties: those hold one lock for all instances while they are
            made, and the step of one loop may run another one, in another thread.
    """

    step: Traced
    inverse: Traced | None
    most: int
    slots: int
    jit_compile: bool
    scoped: tuple[tf.Tensor, ...]
    graphs: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def forward(self, count: int, leaves: Tensors, scoped: Tensors) -> Tensors:
        """The leaves after `count` steps."""
        return self._graph(self._forward, scoped, tf.constant(count), leaves)

    def record(self, count: int, leaves: Tensors, scoped: Tensors) -> tuple[Tensors, Tensors]:
        """The same, and the leaves before each step, for `back`."""
        return self._graph(self._record, scoped, tf.constant(count), leaves)

    def back(self, count: int, kept: Tensors, later: Cotangents, scoped: Tensors) -> Cotangents:
        """The cotangents before the steps from those after them."""
        return self._graph(self._back, scoped, tf.constant(count), kept, later)

    def unwind(self, count: int, leaves: Tensors, later: Cotangents, scoped: Tensors) -> tuple[Undone, Cotangents]:
        """The same from the leaves after the steps, which the inverse undoes."""
        return self._graph(self._unwind, scoped, tf.constant(count), leaves, later)

    def keep(self, counts: list[int], leaves: Tensors, scoped: Tensors) -> tuple[Tensors, Tensors]:
        """The leaves after so many steps and so many more, and those before each of these runs, in the first slots, for `reverse`."""
        return self._graph(self._keep, scoped, tf.constant(counts), leaves)

    def reverse(self, moves: list[tuple[int, int, int]], kept: Tensors, later: Cotangents, scoped: Tensors) -> Cotangents:
        """The cotangents before all steps from the states that are kept.

        Args:
            moves: (slot, steps ahead, steps back) in turn: from the state in a slot on to the next slot, or back from the slot.
            kept: By `keep`.
            later, scoped: As of the others.
        """
        return self._graph(self._reverse, scoped, tf.constant(moves), kept, later)

    def settle(self, tolerance: float, most: int, leaves: Tensors, scoped: Tensors) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
        """How many steps until the leaves are as close as a part of them to where steps lead, whether that has failed, and the leaves then."""
        return self._graph(self._settle, scoped, tf.constant(tolerance, tf.float64), tf.constant(most), leaves)

    # ------------------------------------------------------------------------------------------------------------ loops

    def _forward(self, count: tf.Tensor, leaves: Tensors) -> Tensors:
        return _loop(count, lambda i, now: [self.step.function(now)], leaves)[0]

    def _record(self, count: tf.Tensor, leaves: Tensors) -> tuple[Tensors, Tensors]:
        end, arrays = self._recorded(count, leaves)
        return end, self._kept(arrays)

    def _recorded(self, count: tf.Tensor, leaves: Tensors) -> tuple[Tensors, Arrays]:
        def one(i: tf.Tensor, now: Tensors, arrays: Arrays) -> tuple[Tensors, Arrays]:
            return self.step.function(now), _written(arrays, i, now)

        return _loop(count, one, leaves, self._arrays(self.most))

    def _settle(self, tolerance: tf.Tensor, most: tf.Tensor, leaves: Tensors) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
        def one(count: tf.Tensor, _: tf.Tensor, before: tf.Tensor, now: Tensors) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, Tensors]:
            after = self.step.function(now)
            change = magnitudes([a - b for a, b in zip(after, now, strict=True)])
            return count + 1, (count == 0) & tf.reduce_any(change > 0) | _far(change, before, after, tolerance), change, after

        start = (0, tf.constant(True), tf.zeros([len(leaves)], tf.float64), leaves)
        count, moving, _, end = tf.while_loop(lambda count, moving, *_: moving & (count < most), one, start)
        finite = [tf.reduce_all(tf.math.is_finite(tf.abs(leaf))) for leaf in end]
        return count, moving | ~tf.reduce_all(finite), end

    def _back(self, count: tf.Tensor, kept: Tensors, later: Cotangents) -> Cotangents:
        return self._pulled_back(count, self._read_again(kept), later)

    def _pulled_back(self, count: tf.Tensor, arrays: Arrays, later: Cotangents) -> Cotangents:
        return _loop(count, lambda i, later: [self._pulled(self._leaves(arrays, count - 1 - i), later)[1]], later)[0]

    def _unwind(self, count: tf.Tensor, leaves: Tensors, later: Cotangents) -> tuple[Undone, Cotangents]:
        def one(_: tf.Tensor, after: Undone, later: Cotangents) -> tuple[Undone, Cotangents]:
            now = self.inverse.function(after.leaves)  # type: ignore[union-attr]
            again, later = self._pulled(now, later)
            apart = magnitudes([a - b for a, b in zip(again, floats(after.leaves), strict=True)])
            return Undone(now, tf.maximum(after.largest, magnitudes(floats(now))), tf.maximum(after.apart, apart)), later

        sizes = magnitudes(floats(leaves))
        return _loop(count, one, Undone(leaves, sizes, tf.zeros_like(sizes)), later)

    def _keep(self, counts: tf.Tensor, leaves: Tensors) -> tuple[Tensors, Tensors]:
        def one(i: tf.Tensor, now: Tensors, arrays: Arrays) -> tuple[Tensors, Arrays]:
            return self._forward(counts[i], now), _written(arrays, i, now)

        end, arrays = _loop(counts.shape[0], one, leaves, self._arrays(self.slots))
        return end, self._kept(arrays)

    def _reverse(self, moves: tf.Tensor, kept: Tensors, later: Cotangents) -> Cotangents:
        def one(i: tf.Tensor, arrays: Arrays, later: Cotangents) -> tuple[Arrays, Cotangents]:
            slot, ahead, behind = tf.unstack(moves[i])
            now = self._leaves(arrays, slot)
            then = self._forward(ahead, now)
            later = self._pulled_back(behind, self._recorded(behind, now)[1], later)
            return _written(arrays, slot + tf.cast(ahead > 0, tf.int32), then), later

        return _loop(moves.shape[0], one, self._read_again(kept), later)[1]

    def _pulled(self, leaves: Tensors, later: Cotangents) -> tuple[Tensors, Cotangents]:
        """One step back, with the floating leaves after it."""
        after: Tensors = []

        def step() -> Tensors:
            after.extend(floats(self.step.function(leaves)))
            return after

        at = floats(leaves)
        found = pulled(step, [*at, *self.step.outside], later.leaves)
        return after, Cotangents(found[: len(at)], [a + b for a, b in zip(later.outside, found[len(at) :], strict=True)])

    # ------------------------------------------------------------------------------------------------- what is kept

    def _arrays(self, size: int) -> Arrays:
        return [tf.TensorArray(leaf.dtype, size, element_shape=leaf.shape, clear_after_read=False) for leaf in self.step.spec]

    def _kept(self, arrays: Arrays) -> Tensors:
        """Arrays as they leave a graph: as they are, for stacks of them would be copies; but XLA has stacks only, and gives these away."""
        return [array.stack() if self.jit_compile else array.flow for array in arrays]

    def _read_again(self, kept: Tensors) -> Arrays:
        if self.jit_compile:
            return [array.unstack(stack) for array, stack in zip(self._arrays(kept[0].shape[0]), kept, strict=True)]
        return [tf.TensorArray(leaf.dtype, flow=flow, clear_after_read=False) for leaf, flow in zip(self.step.spec, kept, strict=True)]

    def _leaves(self, arrays: Arrays, i: tf.Tensor) -> Tensors:
        return [tf.ensure_shape(array.read(i), leaf.shape) for array, leaf in zip(arrays, self.step.spec, strict=True)]

    def _graph(self, loop: Callable[..., Any], scoped: Tensors, *given: Any) -> Any:
        """What a loop gives, run as a graph that is told what the steps read from outside, wherever it is called."""

        def scoped_loop(scoped: Tensors, *given: Any) -> Any:
            with standing_in(self.scoped, scoped):
                return loop(*given)

        if loop.__name__ not in self.graphs:
            specs = tf.nest.map_structure(lambda each: tf.TensorSpec(each.shape, each.dtype), ([*self.scoped], *given))
            self.graphs[loop.__name__] = (compiled if self.jit_compile else traced)(scoped_loop).get_concrete_function(*specs)
        return self.graphs[loop.__name__](scoped, *given)


def _loop(count: tf.Tensor | int, body: Callable[..., Any], *state: Any) -> Any:
    """The state after so many runs of a body, from the run's number and the state to the state."""
    loop = tf.while_loop(lambda i, *_: i < count, lambda i, *now: (i + 1, *body(i, *now)), (0, *state), parallel_iterations=AT_ONCE)
    return loop[1:]


def _written(arrays: Arrays, i: tf.Tensor, leaves: Tensors) -> Arrays:
    return [array.write(i, leaf) for array, leaf in zip(arrays, leaves, strict=True)]


def magnitudes(leaves: Tensors) -> tf.Tensor:
    """The largest number of each leaf, [leaf] float64; numbers that are none count as XLA likes, which leaves them out."""
    return tf.stack([tf.maximum(tf.cast(tf.reduce_max(tf.abs(leaf)), tf.float64), 0.0) for leaf in leaves])


def _far(change: tf.Tensor, before: tf.Tensor, leaves: Tensors, tolerance: tf.Tensor) -> tf.Tensor:
    """Whether leaves are still further than a part of them from where steps lead.

    With r = change / change before, all steps to come change a leaf by change r / (1 - r). Each leaf counts by itself, but for what rounding
    of the largest one may make of it: changes that small which no longer fall, and leaves that are nothing beside it, such as those that
    go to zero.

    Args:
        change, before: The magnitudes of the last two changes, [leaf]; the first of all has none before it.
        leaves: After them.
        tolerance: The part.
    """
    sizes, rate = magnitudes(leaves), tf.math.divide_no_nan(change, before)
    still = (change > tolerance * sizes) | (change * rate > tolerance * sizes * (1 - rate))
    own = 4 * tf.constant([rounding(leaf) for leaf in leaves], tf.float64)
    unit, largest = tf.reduce_max(own), tf.reduce_max(sizes)
    still &= (change > own * sizes) & ((change > unit * largest) | (rate < 1)) & (sizes > unit**2 * largest)
    return tf.reduce_any(still)  # not a number is not larger: it ends the loop
