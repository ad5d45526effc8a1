"""Loops over a step, forward and back, as graphs of a fixed largest length."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import tensorflow as tf

from ..autodiff import pulled, standing_in
from ..graphs import compiled, traced
from .tracing import Traced, floating

Tensors = list[tf.Tensor]


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
        jit_compile: Whether XLA compiles the loops.
        scoped: Tensors that they read from outside, for which all runs are given others: in the gradient of a graph, say.
        graphs: Those made so far, each when it is first run. Not cached properties: those hold one lock for all instances while they are
            made, and the step of one loop may run another one, in another thread.
    """

    step: Traced
    inverse: Traced | None
    most: int
    jit_compile: bool
    scoped: tuple[tf.Tensor, ...]
    graphs: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def forward(self, count: int, leaves: Tensors, scoped: Tensors) -> Tensors:
        """The leaves after `count` steps."""
        return self._graph(self._forward, scoped, tf.constant(count), leaves)

    def record(self, count: int, leaves: Tensors, scoped: Tensors) -> tuple[Tensors, Tensors]:
        """The same, and the leaves before each step, [most, ...]."""
        return self._graph(self._record, scoped, tf.constant(count), leaves)

    def back(self, count: int, stacks: Tensors, later: Cotangents, scoped: Tensors) -> Cotangents:
        """The cotangents before the steps from those after them."""
        return self._graph(self._back, scoped, tf.constant(count), stacks, later)

    def unwind(self, count: int, leaves: Tensors, later: Cotangents, scoped: Tensors) -> tuple[Tensors, tf.Tensor, Cotangents]:
        """The same from the leaves after the steps, which the inverse undoes; with the leaves that it comes to, and their largest on the way."""
        return self._graph(self._unwind, scoped, tf.constant(count), leaves, later)

    def keep(self, counts: list[int], slots: int, leaves: Tensors, scoped: Tensors) -> tuple[Tensors, Tensors]:
        """The leaves after so many steps and so many more, and those before each of these runs, in the first of the slots [slots, ...]."""
        kept = [tf.zeros([slots, *leaf.shape], leaf.dtype) for leaf in self.step.spec]
        return self._graph(self._keep, scoped, tf.constant(counts), leaves, kept)

    def reverse(self, moves: list[tuple[int, int, int]], kept: Tensors, later: Cotangents, scoped: Tensors) -> Cotangents:
        """The cotangents before all steps from the states that are kept.

        Args:
            moves: (slot, steps ahead, steps back) in turn: from the state in a slot on to the next slot, or back from the slot.
            kept: By `keep`.
            later, scoped: As of the others.
        """
        return self._graph(self._reverse, scoped, tf.constant(moves), kept, later)

    def settle(self, tolerance: float, most: int, leaves: Tensors, scoped: Tensors) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
        """How many steps until one changes the leaves by less than a part of them, whether that has failed, and the leaves then."""
        return self._graph(self._settle, scoped, tf.constant(tolerance, tf.float64), tf.constant(most), leaves)

    # ------------------------------------------------------------------------------------------------------------ loops

    def _forward(self, count: tf.Tensor, leaves: Tensors) -> Tensors:
        return tf.while_loop(lambda i, _: i < count, lambda i, now: (i + 1, self.step.function(now)), (0, leaves))[1]

    def _record(self, count: tf.Tensor, leaves: Tensors) -> tuple[Tensors, Tensors]:
        def one(i: tf.Tensor, now: Tensors, arrays: list[tf.TensorArray]) -> tuple[tf.Tensor, Tensors, list[tf.TensorArray]]:
            return i + 1, self.step.function(now), _written(arrays, i, now)

        arrays = [tf.TensorArray(leaf.dtype, self.most, element_shape=leaf.shape) for leaf in leaves]
        _, end, arrays = tf.while_loop(lambda i, *_: i < count, one, (0, leaves, arrays))
        return end, [array.stack() for array in arrays]

    def _settle(self, tolerance: tf.Tensor, most: tf.Tensor, leaves: Tensors) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
        def one(count: tf.Tensor, _: tf.Tensor, now: Tensors) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
            after = self.step.function(now)
            change = _length([a - b for a, b in zip(after, now, strict=True)])
            return count + 1, change > tolerance * _length(after), after  # not a number is not larger: it ends the loop

        count, moving, end = tf.while_loop(lambda count, moving, _: moving & (count < most), one, (0, tf.constant(True), leaves))
        return count, moving | ~tf.math.is_finite(_length(end)), end

    def _back(self, count: tf.Tensor, stacks: Tensors, later: Cotangents) -> Cotangents:
        def one(i: tf.Tensor, later: Cotangents) -> tuple[tf.Tensor, Cotangents]:
            return i + 1, self._pulled([tf.gather(stack, count - 1 - i) for stack in stacks], later)

        return tf.while_loop(lambda i, _: i < count, one, (0, later))[1]

    def _unwind(self, count: tf.Tensor, leaves: Tensors, later: Cotangents) -> tuple[Tensors, tf.Tensor, Cotangents]:
        def one(i: tf.Tensor, after: Tensors, largest: tf.Tensor, later: Cotangents) -> tuple[tf.Tensor, Tensors, tf.Tensor, Cotangents]:
            now = self.inverse.function(after)  # type: ignore[union-attr]
            return i + 1, now, tf.maximum(largest, magnitude(now)), self._pulled(now, later)

        return tf.while_loop(lambda i, *_: i < count, one, (0, leaves, magnitude(leaves), later))[1:]

    def _keep(self, counts: tf.Tensor, leaves: Tensors, kept: Tensors) -> tuple[Tensors, Tensors]:
        def one(i: tf.Tensor, now: Tensors, arrays: list[tf.TensorArray]) -> tuple[tf.Tensor, Tensors, list[tf.TensorArray]]:
            return i + 1, self._forward(counts[i], now), _written(arrays, i, now)

        _, end, arrays = tf.while_loop(lambda i, *_: i < counts.shape[0], one, (0, leaves, _arrays(kept)))
        return end, [array.stack() for array in arrays]

    def _reverse(self, moves: tf.Tensor, kept: Tensors, later: Cotangents) -> Cotangents:
        def one(i: tf.Tensor, arrays: list[tf.TensorArray], later: Cotangents) -> tuple[tf.Tensor, list[tf.TensorArray], Cotangents]:
            slot, ahead, behind = tf.unstack(moves[i])
            now = [array.read(slot) for array in arrays]
            then = self._forward(ahead, now)
            later = tf.cond(behind > 0, lambda: self._back(behind, self._record(behind, now)[1], later), lambda: later)
            return i + 1, _written(arrays, slot + tf.cast(ahead > 0, tf.int32), then), later

        return tf.while_loop(lambda i, *_: i < moves.shape[0], one, (0, _arrays(kept), later))[2]

    def _pulled(self, leaves: Tensors, later: Cotangents) -> Cotangents:
        """One step back."""
        floats = [leaf for leaf in leaves if floating(leaf)]
        found = pulled(
            lambda: [leaf for leaf in self.step.function(leaves) if floating(leaf)], [*floats, *self.step.outside], later.leaves
        )  # fmt: skip
        return Cotangents(found[: len(floats)], [a + b for a, b in zip(later.outside, found[len(floats) :], strict=True)])

    def _graph(self, loop: Callable[..., Any], scoped: Tensors, *given: Any) -> Any:
        """What a loop gives, run as a graph that is told what the steps read from outside, wherever it is called."""

        def scoped_loop(scoped: Tensors, *given: Any) -> Any:
            with standing_in(self.scoped, scoped):
                return loop(*given)

        if loop.__name__ not in self.graphs:
            specs = tf.nest.map_structure(lambda each: tf.TensorSpec(each.shape, each.dtype), ([*self.scoped], *given))
            self.graphs[loop.__name__] = (compiled if self.jit_compile else traced)(scoped_loop).get_concrete_function(*specs)
        return self.graphs[loop.__name__](scoped, *given)


def _arrays(stacks: Tensors) -> list[tf.TensorArray]:
    return [tf.TensorArray(stack.dtype, stack.shape[0], element_shape=stack.shape[1:], clear_after_read=False).unstack(stack) for stack in stacks]


def _written(arrays: list[tf.TensorArray], i: tf.Tensor, leaves: Tensors) -> list[tf.TensorArray]:
    return [array.write(i, leaf) for array, leaf in zip(arrays, leaves, strict=True)]


def magnitude(leaves: Tensors) -> tf.Tensor:
    """The largest number among those with derivatives."""
    sizes = [tf.cast(tf.reduce_max(tf.abs(leaf)), tf.float64) for leaf in leaves if floating(leaf) and leaf.shape.num_elements()]
    return tf.reduce_max([tf.zeros([], tf.float64), *sizes])


def _length(leaves: Tensors) -> tf.Tensor:
    """Root of the sum of squares; in double precision before they are squared, for those of small cotangents are zero in single."""
    return tf.sqrt(tf.add_n([tf.reduce_sum(tf.cast(tf.abs(leaf), tf.float64) ** 2) for leaf in leaves]))
