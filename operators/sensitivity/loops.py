"""Loops over a step, forward and back, as graphs of a fixed largest length."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import tensorflow as tf

from ..autodiff import pulled, standing_in
from ..graphs import compiled, traced
from .tracing import Traced, floating

Tensors = list[tf.Tensor]
#: Of the floating leaves, and of what the step reads from outside.
Cotangents = tuple[Tensors, Tensors]


@final
@dataclass(frozen=True, eq=False)
class Loops:
    """What a scan runs. One graph serves all numbers of steps up to `most`.

    Args:
        step, inverse: From and to lists of leaves.
        most: Of the steps whose states are kept at once.
        jit_compile: Whether XLA compiles the loops.
        scoped: Tensors of a graph that they read from outside, for which all runs are given others: in the gradient of that graph, say.
    """

    step: Traced
    inverse: Traced | None
    most: int
    jit_compile: bool
    scoped: tuple[tf.Tensor, ...]

    def forward(self, count: int, leaves: Tensors, scoped: Tensors) -> Tensors:
        """The leaves after `count` steps."""
        return list(self._forward(tf.constant(count), scoped, leaves))

    def record(self, count: int, leaves: Tensors, scoped: Tensors) -> tuple[Tensors, Tensors]:
        """The same, and the leaves before each step, [most, ...]."""
        end, stacks = self._record(tf.constant(count), scoped, leaves)
        return list(end), list(stacks)

    def back(self, count: int, stacks: Tensors, later: Cotangents, scoped: Tensors) -> Cotangents:
        """The cotangents before the steps from those after them."""
        w, outside = self._back(tf.constant(count), scoped, stacks, *later)
        return list(w), list(outside)

    def unwind(self, count: int, leaves: Tensors, later: Cotangents, scoped: Tensors) -> Cotangents:
        """The same from the leaves after the steps, which the inverse undoes."""
        w, outside = self._unwind(tf.constant(count), scoped, leaves, *later)
        return list(w), list(outside)

    # ----------------------------------------------------------------------------------------------------------- graphs

    @functools.cached_property
    def _forward(self) -> Any:
        def loop(count: tf.Tensor, leaves: Tensors) -> Tensors:
            return tf.while_loop(lambda i, _: i < count, lambda i, now: (i + 1, self.step.function(now)), (0, leaves))[1]

        return self._graph(loop, self.step.spec)

    @functools.cached_property
    def _record(self) -> Any:
        def loop(count: tf.Tensor, leaves: Tensors) -> tuple[Tensors, Tensors]:
            arrays = [tf.TensorArray(leaf.dtype, self.most, element_shape=leaf.shape) for leaf in leaves]

            def one(i: tf.Tensor, now: Tensors, arrays: list[tf.TensorArray]) -> tuple[tf.Tensor, Tensors, list[tf.TensorArray]]:
                return i + 1, self.step.function(now), [array.write(i, leaf) for array, leaf in zip(arrays, now, strict=True)]

            _, end, arrays = tf.while_loop(lambda i, *_: i < count, one, (0, leaves, arrays))
            return end, [array.stack() for array in arrays]

        return self._graph(loop, self.step.spec)

    @functools.cached_property
    def _back(self) -> Any:
        def loop(count: tf.Tensor, stacks: Tensors, w: Tensors, outside: Tensors) -> Cotangents:
            def one(i: tf.Tensor, w: Tensors, outside: Tensors) -> tuple[tf.Tensor, Tensors, Tensors]:
                return i + 1, *self._pulled([tf.gather(stack, count - 1 - i) for stack in stacks], w, outside)

            return tf.while_loop(lambda i, *_: i < count, one, (0, w, outside))[1:]

        stacks = [tf.TensorSpec([self.most, *leaf.shape], leaf.dtype) for leaf in self.step.spec]
        return self._graph(loop, stacks, *self._cotangents)

    @functools.cached_property
    def _unwind(self) -> Any:
        def loop(count: tf.Tensor, leaves: Tensors, w: Tensors, outside: Tensors) -> Cotangents:
            def one(i: tf.Tensor, later: Tensors, w: Tensors, outside: Tensors) -> tuple[tf.Tensor, Tensors, Tensors, Tensors]:
                now = self.inverse.function(later)  # type: ignore[union-attr]
                return i + 1, now, *self._pulled(now, w, outside)

            return tf.while_loop(lambda i, *_: i < count, one, (0, leaves, w, outside))[2:]

        return self._graph(loop, self.step.spec, *self._cotangents)

    def _pulled(self, leaves: Tensors, w: Tensors, outside: Tensors) -> Cotangents:
        """One step back."""
        floats = [leaf for leaf in leaves if floating(leaf)]
        found = pulled(lambda: [leaf for leaf in self.step.function(leaves) if floating(leaf)], [*floats, *self.step.outside], w)
        return found[: len(floats)], [a + b for a, b in zip(outside, found[len(floats) :], strict=True)]

    @property
    def _cotangents(self) -> tuple[list[tf.TensorSpec], list[tf.TensorSpec]]:
        """Specs of those of the leaves and of what is outside."""
        return [leaf for leaf in self.step.spec if floating(leaf)], [tf.TensorSpec(each.shape, each.dtype) for each in self.step.outside]

    def _graph(self, loop: Callable[..., Any], *specs: Any) -> Any:
        """A loop as a graph whose second argument is what the steps read from the graph around them, wherever it is called."""

        def scoped_loop(count: tf.Tensor, scoped: Tensors, *given: Any) -> Any:
            with standing_in(self.scoped, scoped):
                return loop(count, *given)

        scoped = [tf.TensorSpec(each.shape, each.dtype) for each in self.scoped]
        return (compiled if self.jit_compile else traced)(scoped_loop).get_concrete_function(tf.TensorSpec([], tf.int32), scoped, *specs)
