"""The ways in which a fixed point can be differentiated: at the point (`Implicit`), or along the way to it, as a loop is."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import tensorflow as tf

from .. import checks
from ..autodiff import apart, pulled
from ..forward import Nest, conform
from .binding import bound
from .equilibrium import IMPLICIT, fixed_point, iterations
from .looped import Loop
from .strategy import Strategy
from .timing import measured
from .tracing import Traced
from .ways import Way

#: Relative difference of gradients up to which those along the way are offered.
SAME = 1e-3


@final
@dataclass(frozen=True, eq=False)
class FixedPoint:
    """What a step of one's own leaves as it is: arguments as of `fixed_point`, for `plan(FixedPoint(...), "gradient")`.

    The gradient is that of ``<w, point>`` with respect to what the step reads: a list of the tensors and then the variables, each in the
    order in which it does.
    """

    step: Callable[[Nest], Nest]
    state: Nest
    tolerance: float = dataclasses.field(kw_only=True, default=1e-6)
    max_iterations: int = dataclasses.field(kw_only=True, default=1000)
    jit_compile: bool = dataclasses.field(kw_only=True, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", bound(self.step))

    def run(self, strategy: Strategy = IMPLICIT) -> Nest:
        """The fixed point, differentiable as a strategy says."""
        options = {"tolerance": self.tolerance, "max_iterations": self.max_iterations, "jit_compile": self.jit_compile}
        return fixed_point(self.step, self.state, strategy=strategy, **options)

    def looped(self, model: Nest | None) -> "Settled":
        """What it is to the planner."""
        if model is not None:
            raise checks.invalid("model", "given", "left out: the fixed point has its state")
        state = tf.nest.map_structure(tf.convert_to_tensor, self.state)
        count = iterations(self.step, state, tolerance=self.tolerance, max_iterations=self.max_iterations, jit_compile=self.jit_compile)
        return Settled(self, count, apart(lambda: Traced.of("step", self.step, state)))


@final
@dataclass(frozen=True, eq=False)
class Settled:
    """A fixed point with what is known of it once it was sought.

    Args:
        of: The fixed point.
        steps: How many led there.
        seen: The step as it was traced.
    """

    of: FixedPoint
    steps: int
    seen: Traced

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"gradient of a fixed point that {self.steps} steps lead to"

    def ways(self, budget: float) -> Iterator[Way]:
        """At the point, and along the way with each strategy of a loop of as many steps, if that comes to the same.

        It does not from a good first guess: a state that is near the point after few steps has hardly any derivative yet.
        """
        ones = tf.nest.map_structure(tf.ones_like, self.of.state)
        yield Way(str(IMPLICIT), measured(lambda: self._at_the_point(ones)).seconds, self._memory, lambda: self._at_the_point, IMPLICIT)
        along = list(Loop(self.of.step, self.of.state, self.steps, jit_compile=self.of.jit_compile).looped(None).ways(budget))
        least = min(along, key=lambda way: way.memory)
        for own, exact in zip(self._along(least)(ones), self._at_the_point(ones), strict=True):
            if tf.norm(own - exact) > max(SAME, self.of.tolerance) * tf.norm(exact):
                return
        for way in along:
            yield dataclasses.replace(way, make=functools.partial(self._along, way))

    @functools.cached_property
    def _at_the_point(self) -> Callable[..., Any]:
        def back(w: Nest) -> list[tf.Tensor]:
            given = tf.nest.flatten(conform("cotangent", w, self.seen.spec))
            return pulled(lambda: tf.nest.flatten(self.of.run()), list(self.seen.outside), given)

        return tf.function(back, autograph=False)

    def _along(self, way: Way) -> Callable[..., Any]:
        back, states = way.make(), len(tf.nest.flatten(self.seen.spec))
        return lambda w: back(w)[states:]  # the first guess is none of what the point depends on

    @property
    def _memory(self) -> float:
        """Bytes: states and cotangents at either end of a step, of which nothing is kept, and gradients."""
        size, outside = (
            sum(each.shape.num_elements() * each.dtype.size for each in leaves) for leaves in (tf.nest.flatten(self.seen.spec), self.seen.outside)
        )
        return float(8 * size + 2 * outside)
