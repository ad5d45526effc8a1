r"""A step of one's own, taken many times and differentiated as a strategy says.

With the state :math:`x_{k+1} = f(x_k, \theta)`, theta being all that the step reads from outside of it, the adjoint of the loop is

.. math:: \lambda_k = \left(\partial f / \partial x_k\right)^* \lambda_{k+1}, \qquad
          g_\theta = \sum_k \left(\partial f / \partial \theta\right)_k^* \lambda_{k+1},

one step back at a time, from states that were kept or are computed again; only states are kept, never what happens inside of a step.
The tangent of the loop is a loop again, of the step that takes (x, dx) to (f(x), f'(x) dx). So derivatives of derivatives are made
of the same two rules.

Known to be WRONG without a word: forward mode and second derivatives where the step holds `tf.custom_gradient`, `CSRMatrix.solve` or an
accumulator of its own; gradients of steps that draw random numbers or assign variables. Scans within scans do not return.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import tensorflow as tf

from .. import checks
from ..autodiff import apart, differentiable, here, pushed, pushed_again, recording
from ..forward import conform
from .loops import Cotangents, Loops
from .reversal import run_back, run_kept
from .strategy import Boundary, Every, Plan, StoreAll, Strategy
from .tracing import Traced, floating

Nest = Any  # a tensor, or a tuple / dict / nest of tensors
Tensors = list[tf.Tensor]
Step = Callable[[Nest], Nest]
Kept = list[Any]
STORE_ALL = StoreAll()


@tf.autograph.experimental.do_not_convert
def checkpointed_scan(
    step: Step, state: Nest, n: int, *, strategy: Strategy = STORE_ALL, inverse: Step | None = None, jit_compile: bool = False
) -> Nest:
    """The state after n steps, ``step(step(... step(state)))``, differentiable with respect to it and to all that the step reads.

    Gradients pass in eager mode, in `tf.function` and under XLA, though not within loops and branches of a graph; forward mode and
    derivatives of derivatives too, for steps of plain TensorFlow operations without rules of their own (see the module for what is
    wrong). The step must be pure, and `inverse` is not checked. In eager mode the step is traced at each call: where the loop is
    called again and again, put it in a `tf.function`.

    Args:
        step: From a state to the next one, in TensorFlow, with the same structure, shapes and dtypes. It may read tensors and variables
            from outside; integers, such as a counter of steps, may be part of the state and carry no derivative.
        state: At the start.
        n: Number of steps, 0 or more.
        strategy: What is kept for the derivative: `StoreAll`, `Checkpointed`, or `Boundary` for a step that can be undone.
        inverse: From a state to the one before it, for `Boundary`.
        jit_compile: Compile the loops with XLA: faster, where it takes the step's operations.

    Returns:
        The last state.

    Raises:
        ValueError: A step that changes the state's structure or leaves TensorFlow, or a strategy that does not suit it.
    """
    if not isinstance(n, int) or n < 0:
        raise checks.invalid("n", n, "a whole number, 0 or more")
    if isinstance(strategy, Every):
        raise checks.invalid("strategy", strategy, "StoreAll(), Checkpointed(n) or Boundary()", "Steps of one's own are not left out.")
    if isinstance(strategy, Boundary) != (inverse is not None):
        raise checks.invalid("inverse", "not given" if inverse is None else "given", "given if and only if the strategy is Boundary()")
    state = tf.nest.map_structure(tf.convert_to_tensor, state)
    leaves = tf.nest.flatten(state)
    if n == 0:
        return state
    undo = None if inverse is None else _flat("inverse", inverse, state)
    scan = _Scan.of(_flat("step", step, state), undo, n, strategy, jit_compile, {})
    return tf.nest.pack_sequence_as(state, scan.result(leaves))


def _flat(name: str, step: Step, state: Nest) -> Traced:
    """A step from and to a list of leaves."""
    spec = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), state)

    def flat(leaves: Tensors) -> Tensors:
        return tf.nest.flatten(conform(f"state after the {name}", step(tf.nest.pack_sequence_as(state, leaves)), spec))

    return apart(lambda: Traced.of(name, flat, tf.nest.flatten(state)))


@final
@dataclass(frozen=True, eq=False)
class _Scan:
    """The loop over a step of lists of leaves, and its derivatives.

    In these, `at` are what derivatives are taken with respect to: the floating leaves of the start, and what the step reads from outside.
    Rules may run in other graphs than the one that the step's tensors belong to: there `given` stand for these.

    Args:
        step: From and to a list of leaves.
        inverse: Of it, for `Boundary`.
        n: Number of steps, 1 or more.
        plan: What is kept.
        strategy: That it is of.
        loops: Over the step.
        given: For the tensors of `loops.scoped`, by their identity.
        again, inverse_again: For a step with its change: the same, made such that it can be moved once more.
    """

    step: Traced
    inverse: Traced | None
    n: int
    plan: Plan
    strategy: Strategy
    loops: Loops
    given: dict[int, tf.Tensor]
    again: Step | None = None
    inverse_again: Step | None = None

    @classmethod
    def of(cls, step: Traced, inverse: Traced | None, n: int, strategy: Strategy, jit_compile: bool, given: dict[int, tf.Tensor]) -> "_Scan":
        """That of a step; its tensors stand for themselves where nothing else is given for them."""
        scoped = {id(each): each for each in (*step.scoped, *(inverse.scoped if inverse else ()))}
        plan = strategy.plan(n, 1.0, sum(leaf.shape.num_elements() * leaf.dtype.size for leaf in step.spec))
        loops = Loops(step, inverse, min(n, plan.segment), jit_compile, tuple(scoped.values()))
        return cls(step, inverse, n, plan, strategy, loops, scoped | {key: value for key, value in given.items() if key in scoped})

    def result(self, leaves: Tensors) -> Tensors:
        """The leaves after all steps."""
        if not recording():
            return self.loops.forward(self.n, leaves, self._scoped)
        return self._values(leaves, *apart(lambda: self._run(leaves)))

    # ------------------------------------------------------------------------------------------------------ derivatives

    def _values(self, leaves: Tensors, end: Tensors, kept: Kept) -> Tensors:
        at = self._at(leaves)
        if not at:
            return end

        def pullback(at: Tensors, _: Tensors, w: Tensors) -> Tensors:
            scan, now = self._placed(leaves, at)
            return scan._adjoint(now, here(kept), w)

        def pushforward(at: Tensors, _: Tensors, v: Tensors) -> Tensors:
            scan, now = self._placed(leaves, at)
            moved, both = scan._moved(now, v)
            return _floats(moved.result(both)[len(leaves) :])

        return _with(end, differentiable(lambda *_: _floats(end), pullback, pushforward, *at))

    def _adjoint(self, leaves: Tensors, kept: Kept, w: Tensors) -> Tensors:
        at = self._at(leaves)
        n = len(at)

        def value(*given: tf.Tensor) -> Tensors:
            return apart(lambda: self._run_back(kept, given[n:]))

        def pullback(at: Tensors, _: Tensors, u: Tensors) -> Tensors:
            scan, now = self._placed(leaves, at[:n])
            bent, changed = scan._bent(now, u, at[n:])
            return [*bent, *changed]

        def pushforward(at: Tensors, _: Tensors, d: Tensors) -> Tensors:
            scan, now = self._placed(leaves, at[:n])
            bent, _ = scan._bent(now, d[:n], at[n:])
            return [a + b for a, b in zip(bent, scan._adjoint(now, here(kept), d[n:]), strict=True)]

        return differentiable(value, pullback, pushforward, *at, *w)

    def _bent(self, leaves: Tensors, v: Tensors, w: Tensors) -> tuple[Tensors, Tensors]:
        """The gradient of <w, J(m) v> with respect to m, and J v: both from the loop over the moved step."""
        moved, both = self._moved(leaves, v)
        end, kept = apart(lambda: moved._run(both))
        nothing = [tf.zeros_like(leaf) for leaf in _floats(leaves)]
        found = moved._adjoint(both, kept, [*nothing, *w])
        outside = dict(zip(map(id, moved.step.outside), found[2 * len(nothing) :], strict=True))
        of_outside = [outside[id(each)] if id(each) in outside else tf.zeros(each.shape, each.dtype) for each in self.step.outside]
        return [*found[: len(nothing)], *of_outside], moved._values(both, end, kept)[len(leaves) :]

    def _moved(self, leaves: Tensors, v: Sequence[tf.Tensor]) -> tuple["_Scan", Tensors]:
        """The loop over (leaves, their change), where what is outside changes too, and its start."""
        count = len(_floats(leaves))
        both, changes = [*leaves, *v[:count]], dict(zip(map(id, self.step.outside), v[count:], strict=True))
        step = _flat("step", _with_change(self.step, self.again, changes), both)
        inverse = None if self.inverse is None else _flat("inverse", _with_change(self.inverse, self.inverse_again, changes), both)
        scan = _Scan.of(step, inverse, self.n, self.strategy, self.loops.jit_compile, self.given)
        again = _with_change(self.step, self.again or self.step.function, changes)
        inverse_again = None if self.inverse is None else _with_change(self.inverse, self.inverse_again or self.inverse.function, changes)
        return dataclasses.replace(scan, again=again, inverse_again=inverse_again), both

    # ------------------------------------------------------------------------------------------------------------- runs

    def _run(self, leaves: Tensors) -> tuple[Tensors, Kept]:
        """The leaves at the end, and what is kept for `_run_back`."""
        if self.plan.boundary:
            end = self.loops.forward(self.n, leaves, self._scoped)
            return end, [end]
        if self.plan.segment >= self.n:
            end, stacks = self.loops.record(self.n, leaves, self._scoped)
            return end, [stacks]
        return run_kept(self._segments, self.plan.checkpoints, leaves, self._ahead)

    def _run_back(self, kept: Kept, w: Sequence[tf.Tensor]) -> Tensors:
        """The cotangents of what `_at` holds."""
        later = (list(w), [tf.zeros(each.shape, each.dtype) for each in self.step.outside])
        if self.plan.boundary:
            first, outside = self.loops.unwind(self.n, kept[0], later, self._scoped)
        elif self.plan.segment >= self.n:
            first, outside = self.loops.back(self.n, kept[0], later, self._scoped)
        else:
            first, outside = run_back(self._segments, self.plan.checkpoints, list(kept), self._ahead, self._behind, later)
        return [*first, *outside]

    def _ahead(self, state: Tensors, segments: range) -> Tensors:
        return self.loops.forward(self._steps(segments), state, self._scoped)

    def _behind(self, state: Tensors, segment: int, later: Cotangents) -> Cotangents:
        count = self._steps(range(segment, segment + 1))
        return self.loops.back(count, self.loops.record(count, state, self._scoped)[1], later, self._scoped)

    def _steps(self, segments: range) -> int:
        return min(self.n, segments.stop * self.plan.segment) - segments.start * self.plan.segment

    @property
    def _segments(self) -> int:
        return -(-self.n // self.plan.segment)

    # ----------------------------------------------------------------------------------------------------------- leaves

    def _at(self, leaves: Tensors) -> Tensors:
        return [*_floats(leaves), *(tf.convert_to_tensor(self.given.get(id(each), each)) for each in self.step.outside)]

    def _placed(self, leaves: Tensors, at: Sequence[tf.Tensor]) -> tuple["_Scan", Tensors]:
        """The scan and the leaves in the graph that is being built, with what `at` holds there."""
        count, at = len(_floats(leaves)), here(list(at))
        outside = dict(zip(map(id, self.step.outside), at[count:], strict=True))
        given = {key: outside[key] if key in outside else here(value) for key, value in self.given.items()}
        return dataclasses.replace(self, given=given), _with(here(leaves), at[:count])

    @property
    def _scoped(self) -> Tensors:
        return [self.given[id(each)] for each in self.loops.scoped]


def _floats(leaves: Sequence[tf.Tensor]) -> Tensors:
    return [leaf for leaf in leaves if floating(leaf)]


def _with(leaves: Tensors, floats: Sequence[tf.Tensor]) -> Tensors:
    """The leaves with other floating ones."""
    rest = iter(floats)
    return [next(rest) if floating(leaf) else leaf for leaf in leaves]


def _with_change(step: Traced, again: Step | None, changes: dict[int, tf.Tensor]) -> Step:
    """The step from leaves and the change of the floating ones to the same after it, what is outside changing too.

    Args:
        step: With its leaves, and what it reads.
        again: The same step, if it is one with a change already, or if the one that is made is to be moved again.
        changes: Of what is outside, by identity.
    """
    size, function, push = len(step.spec), again or step.function, pushed_again if again else pushed
    moving = [each for each in step.outside if id(each) in changes]

    def moved(both: Tensors) -> Tensors:
        after: Tensors = []

        def floats() -> Tensors:
            after.extend(function(both[:size]))
            return _floats(after)

        changed = push(floats, [*_floats(both[:size]), *moving], [*both[size:], *(changes[id(each)] for each in moving)])[1]
        return [*after, *changed]

    return moved
