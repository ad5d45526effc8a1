r"""A step of one's own, taken many times and differentiated as a strategy says.

With the state :math:`x_{k+1} = f(x_k, \theta)`, theta being all that the step reads from outside of it, the adjoint of the loop is

.. math:: \lambda_k = \left(\partial f / \partial x_k\right)^* \lambda_{k+1}, \qquad
          g_\theta = \sum_k \left(\partial f / \partial \theta\right)_k^* \lambda_{k+1},

one step back at a time, from states that were kept or are computed again; only states are kept, never what happens inside of a step.
The tangent of the loop is a loop again, of the step that takes (x, dx) to (f(x), f'(x) dx). So derivatives of derivatives are made
of the same two rules, and the step may hold rules of its own, operators, and scans.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import tensorflow as tf

from .. import checks
from ..autodiff import apart, differentiable, ensure_shape, here, in_graph, postponed, pushed, recording
from ..forward import conform
from ..graphs import guarded
from .binding import bound
from .loops import Cotangents, Loops, Undone, magnitudes
from .reversal import moves
from .strategy import Boundary, Checkpointed, Every, Implicit, Plan, StoreAll, Strategy, kept_on_the_way
from .tracing import Traced, floating, floats, rounding

Nest = Any  # a tensor, or a tuple / dict / nest of tensors
Tensors = list[tf.Tensor]
Step = Callable[[Nest], Nest]
Kept = list[Any]
STORE_ALL = StoreAll()
_READ = "Read it before the scan, value = tf.identity(variable), and use the value in the step."


@tf.autograph.experimental.do_not_convert
def checkpointed_scan(
    step: Step, state: Nest, n: int, *, strategy: Strategy = STORE_ALL, inverse: Step | None = None, jit_compile: bool = False
) -> Nest:
    """The state after n steps, ``step(step(... step(state)))``, differentiable with respect to it and to all that the step reads.

    Derivatives of every order and mode pass in eager mode, in `tf.function` and under XLA; within loops and branches of a graph by tapes,
    for TensorFlow's accumulators do not pass these. The step may hold whatever a tape sees through: `tf.custom_gradient`, whose rule also
    gives the forward mode; solves, the direct ones but not under XLA; scans; and operators. Those that are not twice differentiable refuse
    second derivatives, and all of them raise in forward mode where they stand in a `tf.function` or loop within the step. Variables count
    with their values at the start. In eager mode the step is traced at each call: where the loop is called again and again, put it in a
    `tf.function`.

    Args:
        step: From a state to the next one, in TensorFlow, with the same structure, shapes and dtypes. It is to do the same each time it is
            run: no random numbers but stateless ones, no assignments. It may read tensors and variables from outside; integers, such as a
            counter of steps, may be part of the state and carry no derivative.
        state: At the start.
        n: Number of steps, 0 or more.
        strategy: What is kept for the derivative: `StoreAll`, `Checkpointed`, or `Boundary` for a step that can be undone.
        inverse: From a state to the one before it, for `Boundary`. A gradient says so if it does not lead back to the start.
        jit_compile: Compile the loops with XLA: faster, where it takes the step's operations.

    Returns:
        The last state.

    Raises:
        ValueError: A step that changes the state's structure, leaves TensorFlow or is not pure, or a strategy that does not suit it. Of a
            gradient: an inverse that is none. In a graph, `tf.errors.OpError` with the same message, and that for a variable that is
            assigned before the gradient is taken; under `jit_compile`, where nothing can be raised, such gradients are NaN.
    """
    n = checks.count("n", n, 0)
    if not isinstance(strategy, Strategy) or isinstance(strategy, Every | Implicit):
        about = {Every: "Steps of one's own are not left out.", Implicit: "Implicit() is for fixed_point."}
        raise checks.invalid("strategy", strategy, "StoreAll(), Checkpointed(n) or Boundary()", about.get(type(strategy), ""))
    if isinstance(strategy, Boundary) != (inverse is not None):
        raise checks.invalid("inverse", "not given" if inverse is None else "given", "given if and only if the strategy is Boundary()")
    state = tf.nest.map_structure(tf.convert_to_tensor, state)
    leaves = tf.nest.flatten(state)
    if any(leaf.shape.rank is None for leaf in leaves):
        raise checks.invalid("state", "of unknown rank", "of a number of axes known when the function is traced", "Use tf.ensure_shape.")
    if n == 0:
        return state
    undo = None if inverse is None else flattened("inverse", bound(inverse), state)
    scan = Scan.of(flattened("step", bound(step), state), undo, n, strategy, jit_compile, {}).checked()
    return tf.nest.pack_sequence_as(state, scan.result(leaves))


def flattened(name: str, step: Step, state: Nest) -> Traced:
    """A step from and to a list of leaves."""
    spec = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), state)

    def flat(leaves: Tensors) -> Tensors:
        after = tf.nest.flatten(conform(f"state after the {name}", step(tf.nest.pack_sequence_as(state, leaves)), spec))
        return [ensure_shape(leaf, expected.shape) if floating(leaf) else leaf for leaf, expected in zip(after, tf.nest.flatten(spec), strict=True)]

    return apart(lambda: Traced.of(name, flat, tf.nest.flatten(state)))


@final
@dataclass(frozen=True, eq=False)
class Scan:
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
        given: For the tensors of `loops.scoped`, what is outside and all variables: their values at the start, by their identity.
        held: Variables that hold the values that others had at the start.
        origin: What users gave, which is to be the same whenever derivatives call it again.
    """

    step: Traced
    inverse: Traced | None
    n: int
    plan: Plan
    strategy: Strategy
    loops: Loops
    given: dict[int, tf.Tensor]
    held: tuple[tf.Variable, ...] = ()
    origin: tuple[Traced, ...] = ()

    @classmethod
    def of(cls, step: Traced, inverse: Traced | None, n: int, strategy: Strategy, jit_compile: bool, given: dict[int, tf.Tensor]) -> "Scan":
        """That of a step; its tensors stand for themselves where nothing else is given for them."""
        read = {id(each): each for each in (*step.scoped, *(inverse.scoped if inverse else ()))}
        plan = strategy.plan(n, 1.0, _size(step.spec, strategy))
        # One slot more than checkpoints: for the state that the next segment is run back from.
        slots = min(plan.checkpoints, -(-n // plan.segment)) + 1
        loops = Loops(step, inverse, min(n, plan.segment), slots, jit_compile, tuple(read.values()))
        read |= {id(each): each for each in (*step.outside, *_variables(step, inverse))}
        # What is given is not even mentioned again: a graph keeps whatever it has once captured.
        start = {key: given[key] if key in given else in_graph(tf.convert_to_tensor(each)) for key, each in read.items()}
        return cls(step, inverse, n, plan, strategy, loops, start)

    def checked(self) -> "Scan":
        """The same, of steps of the user's."""
        return dataclasses.replace(self, origin=(self.step, *([self.inverse] if self.inverse else ())))

    def result(self, leaves: Tensors) -> Tensors:
        """The leaves after all steps."""
        if not recording():
            return self.loops.forward(self.n, leaves, self.scoped)
        return self._values(leaves, *apart(lambda: self.run(leaves)))

    # ------------------------------------------------------------------------------------------------------ derivatives

    def _values(self, leaves: Tensors, end: Tensors, kept: Kept) -> Tensors:
        at = self.at(leaves)
        if not at:
            return end

        def pullback(at: Tensors, _: Tensors, w: Tensors) -> Tensors:
            scan, now = self.placed(leaves, at)
            return scan.adjoint(now, here(kept), w)

        def pushforward(at: Tensors, _: Tensors, v: Tensors) -> Tensors:
            scan, now = self.placed(leaves, at)
            moved, both = scan.moved(now, v)
            return floats(moved.result(both)[len(leaves) :])

        return _with(end, differentiable(lambda *_: floats(end), pullback, pushforward, *at))

    def adjoint(self, leaves: Tensors, kept: Kept, w: Tensors) -> Tensors:
        at = self.at(leaves)
        n = len(at)

        def value(*given: tf.Tensor) -> Tensors:
            return apart(lambda: self._run_back(_with(leaves, given), kept, given[n:]))

        def pullback(at: Tensors, _: Tensors, u: Tensors) -> Tensors:
            scan, now = self.placed(leaves, at[:n])
            moved, both = scan.moved(now, u)
            end, kept = apart(lambda: moved.run(both))
            return [*postponed(lambda: scan._bent(moved, both, kept, at[n:]), n), *moved._values(both, end, kept)[len(leaves) :]]

        def pushforward(at: Tensors, _: Tensors, d: Tensors) -> Tensors:
            scan, now = self.placed(leaves, at[:n])
            moved, both = scan.moved(now, d[:n])
            bent = scan._bent(moved, both, apart(lambda: moved.run(both))[1], at[n:])
            return [a + b for a, b in zip(bent, scan.adjoint(now, here(kept), d[n:]), strict=True)]

        return differentiable(value, pullback, pushforward, *at, *w)

    def _bent(self, moved: "Scan", both: Tensors, kept: Kept, w: Sequence[tf.Tensor]) -> Tensors:
        """The gradient of <w, J(m) v> with respect to m, from the loop over the moved step."""
        nothing = [tf.zeros_like(leaf) for leaf in floats(both)[: len(floats(both)) // 2]]
        found = moved.adjoint(both, kept, [*nothing, *w])
        outside = dict(zip(map(id, moved.step.outside), found[2 * len(nothing) :], strict=True))
        of_outside = [outside[id(each)] if id(each) in outside else tf.zeros_like(self.given[id(each)]) for each in self.step.outside]
        return [*found[: len(nothing)], *of_outside]

    def moved(self, leaves: Tensors, v: Sequence[tf.Tensor]) -> tuple["Scan", Tensors]:
        """The loop over (leaves, their change), where what is outside changes too, and its start."""
        count, v = len(floats(leaves)), self._unless_changed(v)
        both, changes = [*leaves, *v[:count]], dict(zip(map(id, self.step.outside), v[count:], strict=True))
        step = flattened("step", _with_change(self.step, changes), both)
        inverse = None if self.inverse is None else flattened("inverse", _with_change(self.inverse, changes), both)
        scan = Scan.of(step, inverse, self.n, self.strategy, self.loops.jit_compile, self.given)
        return dataclasses.replace(scan, held=self.held, origin=self.origin), both

    # ------------------------------------------------------------------------------------------------------------- runs

    def run(self, leaves: Tensors) -> tuple[Tensors, Kept]:
        """The leaves at the end, and what is kept for `_run_back`."""
        if self.plan.boundary:
            end = self.loops.forward(self.n, leaves, self.scoped)
            return end, [end]
        if self.plan.segment >= self.n:
            end, states = self.loops.record(self.n, leaves, self.scoped)
            return end, [states]
        places = list(kept_on_the_way(self._segments, self.plan.checkpoints))
        counts = [self._steps(range(first, stop)) for first, stop in zip(places, [*places[1:], self._segments], strict=True)]
        end, states = self.loops.keep(counts, leaves, self.scoped)
        return end, [states]

    def _run_back(self, leaves: Tensors, kept: Kept, w: Sequence[tf.Tensor]) -> Tensors:
        """The cotangents of what `_at` holds."""
        later = Cotangents(self._unless_changed(w), [tf.zeros_like(self.given[id(each)]) for each in self.step.outside])
        if self.plan.boundary:
            undone, (first, outside) = self.loops.unwind(self.n, kept[0], later, self.scoped)
            first = self._unless_missed(undone, leaves, first)
        elif self.plan.segment >= self.n:
            first, outside = self.loops.back(self.n, kept[0], later, self.scoped)
        else:
            first, outside = self.loops.reverse(self._moves(), kept[0], later, self.scoped)
        return [*first, *outside]

    def _moves(self) -> list[tuple[int, int, int]]:
        """(slot, steps ahead, steps back) of the way back."""
        found, top = [], len(list(kept_on_the_way(self._segments, self.plan.checkpoints))) - 1
        for move in moves(self._segments, self.plan.checkpoints):
            steps = self._steps(move.segments)
            found.append((top, 0, steps) if move.back else (top, steps, 0))
            top += -1 if move.back else 1
        return found

    def _steps(self, segments: range) -> int:
        return min(self.n, segments.stop * self.plan.segment) - segments.start * self.plan.segment

    @property
    def _segments(self) -> int:
        return -(-self.n // self.plan.segment)

    # ----------------------------------------------------------------------------------------------------------- leaves

    def at(self, leaves: Tensors) -> Tensors:
        return [*floats(leaves), *(self.given[id(each)] for each in self.step.outside)]

    def placed(self, leaves: Tensors, at: Sequence[tf.Tensor]) -> tuple["Scan", Tensors]:
        """The scan and the leaves in the graph that is being built, with what `at` holds there."""
        for each in self.origin:
            each.check_same()
        count, at = len(floats(leaves)), here(list(at))
        outside = dict(zip(map(id, self.step.outside), at[count:], strict=True))
        given = {key: value if key in outside else here(value) for key, value in self.given.items()} | outside
        # In eager mode the steps read the values at the start, whatever has become of the variables.
        variables = _variables(self.step, self.inverse) if tf.executing_eagerly() else []
        held = tuple(tf.Variable(given[id(each)], trainable=False) for each in variables)
        given |= {id(each.handle): other.handle for each, other in zip(variables, held, strict=True)}
        return dataclasses.replace(self, given=given, held=held), _with(here(leaves), at[:count])

    def _unless_changed(self, values: Sequence[tf.Tensor]) -> Tensors:
        """The values, with an error if variables are no longer what they were at the start, in a graph."""
        if tf.executing_eagerly():
            return list(values)
        for each in _variables(self.step, self.inverse):
            # Where the step itself was traced within a graph, its handle is one of that graph.
            handle = self.given.get(id(each.handle), each.handle)
            then, now = self.given[id(each)], tf.raw_ops.ReadVariableOp(resource=handle, dtype=each.dtype)
            same = tf.reduce_all((then == now) | ((then != then) & (now != now)))
            error = checks.invalid("step", f"reading the variable '{each.name}', which is assigned before the gradient", "of unchanged ones", _READ)
            values = [guarded(value, same, str(error)) for value in values]
        return list(values)

    def _unless_missed(self, undone: Undone, leaves: Tensors, values: Tensors) -> Tensors:
        """The values, with an error if the inverse has not undone each step, or has come back to other leaves than those at the start."""
        start = magnitudes([a - b for a, b in zip(floats(undone.leaves), floats(leaves), strict=True)])
        off = ((undone.apart, 1), (start, self.n))
        # NaN passes: it is in the values too.
        # A leaf may be made of larger ones that cancel: of these rounding alone counts.
        unit, largest = 10 * max(map(rounding, floats(leaves))), tf.reduce_max(undone.largest)
        right = ~tf.reduce_any([tf.reduce_any(far > _rounding(n, floats(leaves)) * undone.largest + unit * n**1.5 * largest) for far, n in off])
        error = checks.invalid(
            "inverse", "that does not come back to the start", "one that undoes the step, but for rounding", "Use Checkpointed(n) otherwise."
        )
        if tf.executing_eagerly() and not bool(right):
            raise error
        return values if tf.executing_eagerly() else [guarded(value, right, str(error)) for value in values]

    @property
    def scoped(self) -> Tensors:
        return [self.given[id(each)] for each in self.loops.scoped]


def _size(spec: Sequence[tf.TensorSpec], strategy: Strategy) -> int:
    """Bytes of a state; where its shape is not known, they are counted by nobody."""
    if all(leaf.shape.is_fully_defined() for leaf in spec):
        return sum(leaf.shape.num_elements() * leaf.dtype.size for leaf in spec)
    if isinstance(strategy, Checkpointed) and strategy.memory is not None:
        raise checks.invalid("strategy", strategy, "Checkpointed(n) for a state of unknown shape", "Or set the shape with tf.ensure_shape.")
    return 1


def _rounding(n: int, leaves: Tensors) -> float:
    """What n steps of a leapfrog and their inverses may lose, of the largest number on the way.

    Rounding errors of both fields add up as n^1.5; steps that lose more than a hundredth do so exponentially, and so does their gradient.
    """
    unit = max(map(rounding, leaves))
    return float(min(1e-2, max(unit**0.5, 10 * unit * n**1.5)))


def _variables(step: Traced, inverse: Traced | None) -> list[tf.Variable]:
    """Those that are read, each once."""
    return list({id(each): each for each in (*step.variables, *(inverse.variables if inverse else ()))}.values())


def _with(leaves: Tensors, others: Sequence[tf.Tensor]) -> Tensors:
    """The leaves with other floating ones."""
    rest = iter(others)
    return [next(rest) if floating(leaf) else leaf for leaf in leaves]


def _with_change(step: Traced, changes: dict[int, tf.Tensor]) -> Step:
    """The step from leaves and the change of the floating ones to the same after it, what is outside changing too.

    Args:
        step: With its leaves, and what it reads.
        changes: Of what is outside, by identity.
    """
    size = len(step.spec)
    moving = [each for each in step.outside if id(each) in changes]

    def moved(both: Tensors) -> Tensors:
        after: Tensors = []

        def moving_leaves() -> Tensors:
            after.extend(step.function(both[:size]))
            return floats(after)

        changed = pushed(moving_leaves, [*floats(both[:size]), *moving], [*both[size:], *(changes[id(each)] for each in moving)])[1]
        return [*after, *changed]

    return moved
