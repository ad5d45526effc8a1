r"""The fixed point of a step, differentiated at the point and not along the way to it.

Where :math:`x = f(x, \theta)`, the implicit function theorem gives with :math:`A = \partial f / \partial x`

.. math:: dx = A \, dx + \frac{\partial f}{\partial \theta} d\theta, \qquad \lambda = A^* \lambda + w, \quad
          g_\theta = \left(\frac{\partial f}{\partial \theta}\right)^* \lambda

for tangents and cotangents: fixed points again, of steps that converge as fast as f does (Christianson, Optim. Methods Softw. 3, 1994).
Their derivatives are found in the same way, so second derivatives need no rule of their own. Nothing of the way is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import tensorflow as tf

from .. import checks
from ..autodiff import apart, differentiable
from ..graphs import guarded
from .binding import bound
from .scan import Scan, Tensors, checkpointed_scan, flattened
from .strategy import Boundary, Checkpointed, Implicit, StoreAll, Strategy
from .tracing import Traced, floating

Nest = Any  # a tensor, or a tuple / dict / nest of tensors
Step = Callable[[Nest], Nest]
IMPLICIT = Implicit()


@tf.autograph.experimental.do_not_convert
def fixed_point(
    step: Step, state: Nest, *, tolerance: float = 1e-6, max_iterations: int = 1000, strategy: Strategy = IMPLICIT, jit_compile: bool = False
) -> Nest:
    """The state that a step leaves as it is, differentiable with respect to all that the step reads.

    Args:
        step: From a state to a better one, in TensorFlow, with the same structure, shapes and dtypes; a contraction near the fixed point.
            It may read tensors and variables from outside.
        state: A first guess, of floating or complex leaves. The fixed point does not depend on it, and neither do derivatives.
        tolerance: Error of each leaf relative to its largest number, as the last two steps let it expect; of derivatives too.
        max_iterations: Of each fixed point.
        strategy: `Implicit`; or `StoreAll` or `Checkpointed` to differentiate the steps that were taken, in eager mode.
        jit_compile: Compile the loop with XLA.

    Returns:
        The fixed point; under `jit_compile`, where nothing can be raised, NaN if it is not found.

    Raises:
        ValueError: Not converged (in a graph `tf.errors.OpError`), or a step that changes the state's structure, leaves TensorFlow or
            is not pure.
    """
    checks.positive("tolerance", tolerance)
    checks.count("max_iterations", max_iterations)
    state = tf.nest.map_structure(tf.convert_to_tensor, state)
    if not all(floating(leaf) for leaf in tf.nest.flatten(state)) or not tf.nest.flatten(state):
        raise checks.invalid("state", "with integers" if tf.nest.flatten(state) else "without leaves", "of floating or complex leaves")
    step = bound(step)
    traced_step, leaves = flattened("step", step, state), tf.nest.flatten(state)
    search = _Search(tolerance, max_iterations, jit_compile)
    if isinstance(strategy, Implicit):
        found = search.result(traced_step, leaves, {})
    elif isinstance(strategy, StoreAll | Checkpointed) and tf.executing_eagerly():
        count = search.count(traced_step, leaves)
        found = tf.nest.flatten(checkpointed_scan(step, state, count, strategy=strategy, jit_compile=jit_compile))
    else:
        expected = "Implicit(), or in eager mode StoreAll() or Checkpointed(n)"
        raise checks.invalid("strategy", strategy, expected, "Boundary() is for loops." if isinstance(strategy, Boundary) else "")
    return tf.nest.pack_sequence_as(state, found)


def iterations(step: Step, state: Nest, *, tolerance: float, max_iterations: int, jit_compile: bool) -> int:
    """How many steps lead to the fixed point; arguments as of `fixed_point`, in eager mode."""
    return _Search(tolerance, max_iterations, jit_compile).count(flattened("step", step, state), tf.nest.flatten(state))


@final
@dataclass(frozen=True)
class _Search:
    """How fixed points are sought: of the step, and of those that its derivatives are."""

    tolerance: float
    most: int
    jit_compile: bool

    def once(self, step: Traced, given: dict[int, tf.Tensor]) -> Scan:
        """The step as a loop that is run once: its derivatives, to any order and in any graph, are those of `scan`."""
        return Scan.of(step, None, 1, StoreAll(), self.jit_compile, given)

    def count(self, step: Traced, start: Tensors) -> int:
        """How many steps lead to the fixed point, in eager mode."""
        return apart(lambda: self.iterated(self.once(step, {}), start))[1]

    def result(self, step: Traced, start: Tensors, given: dict[int, tf.Tensor]) -> Tensors:
        """The fixed point."""
        once = self.once(step, given).checked()
        end, _ = apart(lambda: self.iterated(once, start))
        size, outside = len(end), once.at(end)[len(end) :]

        def pullback(at: Tensors, point: Tensors, w: Tensors) -> Tensors:
            scan, here = once.placed(list(point), [*point, *at])
            kept = apart(lambda: scan.run(here))[1]

            def back(later: Tensors) -> Tensors:
                return [a + b for a, b in zip(w, scan.adjoint(here, kept, later)[:size], strict=True)]

            later = self.result(flattened("step", back, list(w)), list(w), scan.given)
            return scan.adjoint(here, kept, later)[size:]

        def pushforward(at: Tensors, point: Tensors, v: Tensors) -> Tensors:
            scan, here = once.placed(list(point), [*point, *at])

            def change(of_state: Tensors, of_outside: Tensors) -> Tensors:
                moved, both = scan.moved(here, [*of_state, *of_outside])
                return moved.result(both)[size:]

            own = change([tf.zeros_like(leaf) for leaf in here], list(v))
            still = [tf.zeros_like(part) for part in v]

            def ahead(dx: Tensors) -> Tensors:
                return [a + b for a, b in zip(own, change(dx, still), strict=True)]

            return self.result(flattened("step", ahead, own), own, scan.given)

        return differentiable(lambda *_: end, pullback, pushforward, *outside) if outside else end

    def iterated(self, once: Scan, start: Tensors) -> tuple[Tensors, int]:
        """The state after steps until it is as close as the tolerance to where they lead, and in eager mode how many that took."""
        count, bad, end = once.loops.settle(self.tolerance, self.most, start, once.scoped)
        expected = f"a contraction: steps to lead to within {self.tolerance:g} of a state"
        advice = "Raise max_iterations or tolerance, start closer, or damp the step."
        if not tf.executing_eagerly():
            error = checks.invalid("step", f"that did not converge in {self.most} iterations", expected, advice)
            return [guarded(leaf, ~bad, str(error)) for leaf in end], 0
        if bad:
            raise checks.invalid("step", f"that did not converge in {int(count)} iterations", expected, advice)
        return end, int(count)
