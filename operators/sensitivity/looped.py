r"""The ways in which a loop can be run back: its strategies, each with the time and the memory that it is expected to take.

A gradient runs every step back once and forward as many times as the strategy says: once where all is kept, twice for `Boundary`, and
for checkpoints as Revolve counts (`strategy.cost`); where segments are calls of their own, as those of waves are, each costs some time
besides. So three times that are measured, of a run ahead and of a gradient with few segments and with many, give all others.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import tensorflow as tf

from .. import checks
from ..autodiff import apart, pulled
from ..forward import Nest, conform
from .binding import bound
from .scan import checkpointed_scan
from .strategy import Boundary, Checkpointed, Plan, StoreAll, Strategy, cost
from .timing import measured
from .tracing import Traced, floating
from .ways import Way

#: Numbers of checkpoints that are considered.
STATES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


@final
@dataclass(frozen=True, eq=False)
class Looped:
    """A loop with a gradient.

    Args:
        steps: How many; those of `plan`.
        plan: What a strategy keeps of it.
        memory: Bytes that its gradient takes with a strategy.
        ahead: Runs a part of it, and keeps nothing.
        back: The gradient of that part with a strategy.
        gradient: The whole gradient with a strategy, as users call it.
        parts: How many times as long the whole takes.
        reversible: Whether it can be run backwards.
    """

    steps: int
    plan: Callable[[Strategy], Plan]
    memory: Callable[[Strategy], float]
    ahead: Callable[[], object]
    back: Callable[[Strategy], object]
    gradient: Callable[[Strategy], Callable[..., Any]]
    parts: float = 1.0
    reversible: bool = False

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"gradient of a loop of {self.steps} steps"

    def ways(self, budget: float) -> Iterator[Way]:
        """One for each strategy."""
        strategies = [StoreAll(), *((Boundary(),) if self.reversible else ()), *map(Checkpointed, STATES)]
        memory, most = {each: self.memory(each) for each in strategies}, self.memory(StoreAll())
        sensible = [each for each in strategies if not isinstance(each, Checkpointed) or memory[each] < most]
        # Of two that run ahead as often the one that keeps less.
        considered = list({self._runs(each): each for each in sorted(sensible, key=lambda each: -memory[each])}.values())
        back, ahead, call = self._timed([each for each in considered if memory[each] <= budget] or considered[-1:])
        for each in considered:
            runs = self._runs(each)
            expected = back + runs * (ahead + call * self._segments(each))
            yield Way(str(each), self.parts * expected, memory[each], functools.partial(self.gradient, each), each)

    def _timed(self, strategies: Sequence[Strategy]) -> tuple[float, float, float]:
        """Seconds of all steps back, of a run ahead, and of a call besides; gradients are timed with some of these strategies."""
        ahead, by_runs = measured(self.ahead).seconds, sorted(strategies, key=self._runs)
        few, many = by_runs[0], by_runs[len(by_runs) // 2]
        found, calls = {}, {}
        for each in {few, many}:
            found[each] = measured(lambda each=each: self.back(each)).seconds - self._runs(each) * ahead  # type: ignore[misc]
            calls[each] = self._runs(each) * self._segments(each)
        more = calls[many] - calls[few]
        call = max(0.0, (found[many] - found[few]) / more) if more > 0 else 0.0
        return max(0.0, found[few] - call * calls[few]), ahead, call

    def _runs(self, strategy: Strategy) -> float:
        """How many times the steps are run ahead."""
        if self.plan(strategy).boundary:
            return 2.0
        # The first run goes on to the end; the last segment is then run again, for what it keeps.
        segments = self._segments(strategy)
        return 1.0 if segments == 1 else (cost(segments, self.plan(strategy).checkpoints - 1)[0] + 1) / segments

    def _segments(self, strategy: Strategy) -> int:
        return -(-self.steps // self.plan(strategy).segment)


@final
@dataclass(frozen=True, eq=False)
class Loop:
    """A step of one's own that is taken n times: arguments as of `checkpointed_scan`, for `plan(Loop(...), "gradient")`."""

    step: Callable[[Nest], Nest]
    state: Nest
    n: int
    inverse: Callable[[Nest], Nest] | None = field(kw_only=True, default=None)
    jit_compile: bool = field(kw_only=True, default=False)

    def __post_init__(self) -> None:
        checks.count("n", self.n)
        object.__setattr__(self, "step", bound(self.step))
        object.__setattr__(self, "inverse", None if self.inverse is None else bound(self.inverse))

    def run(self, strategy: Strategy) -> Nest:
        """The state at the end, differentiable as a strategy says."""
        inverse = self.inverse if isinstance(strategy, Boundary) else None
        return checkpointed_scan(self.step, self.state, self.n, strategy=strategy, inverse=inverse, jit_compile=self.jit_compile)

    def looped(self, model: Nest | None) -> Looped:
        """What it is to the planner."""
        if model is not None:
            raise checks.invalid("model", "given", "left out: the loop has its state")
        state = tf.nest.map_structure(tf.convert_to_tensor, self.state)
        seen = apart(lambda: Traced.of("step", self.step, state))
        leaves = tf.nest.flatten(seen.spec)
        size = sum(leaf.shape.num_elements() * leaf.dtype.size for leaf in leaves)

        def planned(strategy: Strategy) -> Plan:
            return strategy.plan(self.n, 1.0, size)

        def memory(strategy: Strategy) -> float:
            plan = planned(strategy)
            stacked = 0 if plan.boundary else min(self.n, plan.segment)
            segments = -(-self.n // plan.segment)
            kept = 0 if segments == 1 else min(plan.checkpoints, segments)
            outside = sum(each.shape.num_elements() * each.dtype.size for each in seen.outside)
            return float(size * (stacked + kept + 4) + 2 * outside)  # states and cotangents at either end of a step

        @functools.cache
        def gradient(strategy: Strategy) -> Callable[..., Any]:
            starts = [leaf for leaf in tf.nest.flatten(state) if floating(leaf)]

            @tf.function(autograph=False)
            def back(w: Nest) -> Nest:
                given = [leaf for leaf in tf.nest.flatten(conform("cotangent", w, seen.spec)) if floating(leaf)]

                def end() -> list[tf.Tensor]:
                    return [leaf for leaf in tf.nest.flatten(self.run(strategy)) if floating(leaf)]

                return pulled(end, [*starts, *seen.outside], given)

            return back

        ones = tf.nest.map_structure(tf.ones_like, state)
        ahead = tf.function(lambda: self.run(Checkpointed(1)), autograph=False)  # in a graph any other keeps something on the way
        return Looped(self.n, planned, memory, ahead, lambda each: gradient(each)(ones), gradient, reversible=self.inverse is not None)
