"""Minimisers that need the objective and its gradient only: projected L-BFGS and projected Adam.

Both minimise f over the box ``lower <= x <= upper`` and are generators of iterates: each iterate is an explicit state, a pure
function of the one before, from which the sequence can be taken up again. `minimise` owns counting, stopping and interruption.
The vectors are NumPy's, in the precision of the start; inner products are summed in double precision.

L-BFGS steps to the minimum over the box of its quadratic model (`quasi_newton`), and along that line as the Wolfe conditions ask;
one evaluation a step is the rule once the pairs have settled the scale. Adam is Kingma & Ba's, projected.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, final

import numpy as np

from geoinv.operators import checks

from .quasi_newton import InverseHessian, Product, Trial, dot, has_curvature, line_search, step_in_box

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]
Bound = float | np.ndarray


@final
@dataclass(frozen=True, eq=False)
class LBFGSState:
    """An iterate of L-BFGS and everything that the next one depends on.

    Args:
        iteration, evaluations: Steps taken and values of the objective computed so far.
        value, model, gradient: f, x and its gradient [n].
        steps, changes: Up to `memory` pairs of changes of the model and of the gradient [n], oldest first.
    """

    iteration: int
    evaluations: int
    value: float
    model: np.ndarray
    gradient: np.ndarray
    steps: tuple[np.ndarray, ...] = ()
    changes: tuple[np.ndarray, ...] = ()

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state as arrays, which `numpy.savez` writes and `from_arrays` takes back."""
        fields = {name: np.asarray(getattr(self, name)) for name in ("iteration", "evaluations", "value", "model", "gradient")}
        pairs = {name: np.array(getattr(self, name), self.model.dtype).reshape(-1, self.model.size) for name in ("steps", "changes")}
        return fields | pairs

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "LBFGSState":
        """The state that `to_arrays` gave."""
        numbers = int(arrays["iteration"]), int(arrays["evaluations"]), float(arrays["value"])
        return LBFGSState(*numbers, arrays["model"], arrays["gradient"], tuple(arrays["steps"]), tuple(arrays["changes"]))


@final
@dataclass(frozen=True, eq=False)
class AdamState:
    """An iterate of Adam: f, x and its gradient [n], and the running means [n] of the gradient and of its square."""

    iteration: int
    evaluations: int
    value: float
    model: np.ndarray
    gradient: np.ndarray
    mean: np.ndarray
    square: np.ndarray

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state as arrays, which `numpy.savez` writes and `from_arrays` takes back."""
        return {each.name: np.asarray(getattr(self, each.name)) for each in dataclasses.fields(self)}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "AdamState":
        """The state that `to_arrays` gave."""
        numbers = int(arrays["iteration"]), int(arrays["evaluations"]), float(arrays["value"])
        return AdamState(*numbers, *(arrays[name] for name in ("model", "gradient", "mean", "square")))


@final
@dataclass(frozen=True, eq=False)
class _Metric:
    """The preconditioner: r -> M r, and its diagonal where known."""

    product: Product
    diagonal: np.ndarray | float = 1.0


@final
@dataclass(frozen=True)
class _Search:
    """How the line search goes: see `lbfgs`."""

    memory: int
    first_step: float | None
    max_step: float
    curvature: float
    budget: int


def lbfgs(
    value_and_gradient: Objective,
    start: np.ndarray | LBFGSState,
    *,
    lower: Bound = -math.inf,
    upper: Bound = math.inf,
    memory: int = 7,
    precondition: np.ndarray | Product | None = None,
    first_step: float | None = None,
    max_step: float = math.inf,
    curvature: float = 0.9,
    max_evaluations: int = 12,
) -> Iterator[LBFGSState]:
    """The iterates of projected L-BFGS, the start first; they end where no step decreases the objective any more.

    Args:
        value_and_gradient: x [n] -> (f, gradient [n]). A value that is not finite counts as a step that was too long.
        start: First model [n], float32 or float64, or the state to go on from.
        lower, upper: Bounds, numbers or [n].
        memory: Pairs to keep.
        precondition: M, close to the inverse of the Hessian up to a factor: its positive diagonal [n], or r -> M r, symmetric positive definite.
        first_step: Largest change of a variable, in its own unit, that the first trial step makes; 1 / sqrt(g M g) or less if None.
        max_step: Largest change of a variable in any one step.
        curvature: What the slope along the step must fall to, as a fraction; close to 0 for an exact line search.
        max_evaluations: Limit of evaluations in one line search, after which the best of its points that decreases f enough is taken.

    Raises:
        ValueError: A start, bound or diagonal that does not fit, or an objective that is not finite at the start.
    """
    checks.positive("memory", memory)
    for name, step in (("first_step", first_step), ("max_step", max_step)):
        if step is not None and not step > 0:
            raise checks.invalid(name, step, "positive")
    if not 0 < curvature < 1:
        raise checks.invalid("curvature", curvature, "between 0 and 1")
    settings = _Search(memory, first_step, max_step, curvature, max_evaluations)
    first = start.model if isinstance(start, LBFGSState) else start
    lower, upper = _bounds(first, lower, upper)
    metric = _metric(precondition, first)
    state = start if isinstance(start, LBFGSState) else LBFGSState(0, 1, *_begin(value_and_gradient, start, lower, upper))
    return _lbfgs(value_and_gradient, state, lower, upper, metric, settings)


def _lbfgs(
    value_and_gradient: Objective, state: LBFGSState, lower: np.ndarray, upper: np.ndarray, metric: _Metric, settings: _Search
) -> Iterator[LBFGSState]:
    yield state
    while True:
        following = _advance(value_and_gradient, state, lower, upper, metric, settings)
        if following.iteration > state.iteration:
            yield following
        elif not state.steps:
            return  # not even along the preconditioned gradient
        state = following


def _advance(
    value_and_gradient: Objective, state: LBFGSState, lower: np.ndarray, upper: np.ndarray, metric: _Metric, settings: _Search
) -> LBFGSState:
    """The next state; where the search finds nothing the same model without its pairs."""
    direction = _direction(state, lower, upper, metric, settings)
    start = Trial(0.0, state.model, state.value, state.gradient, dot(state.gradient, direction))
    if not start.slope < 0:
        return dataclasses.replace(state, steps=(), changes=())

    def evaluate(length: float) -> Trial:
        model = np.clip(state.model + state.model.dtype.type(length) * direction, lower, upper)  # clipped against rounding
        value, gradient = _evaluate(value_and_gradient, model)
        return Trial(length, model, value, gradient, dot(gradient, direction))

    longest = min(_room(state.model, direction, lower, upper), settings.max_step / float(np.max(np.abs(direction))))
    found, evaluations = line_search(evaluate, start, longest, curvature=settings.curvature, budget=settings.budget)
    if found is None:
        return dataclasses.replace(state, evaluations=state.evaluations + evaluations, steps=(), changes=())
    step, change = found.model - state.model, found.gradient - state.gradient
    steps, changes = state.steps, state.changes
    if has_curvature(step, change):
        steps, changes = (*steps, step)[-settings.memory :], (*changes, change)[-settings.memory :]
    return LBFGSState(state.iteration + 1, state.evaluations + evaluations, found.value, found.model, found.gradient, steps, changes)


def _direction(state: LBFGSState, lower: np.ndarray, upper: np.ndarray, metric: _Metric, settings: _Search) -> np.ndarray:
    """From the model to a point of the box in a direction of descent, [n]; zero at a stationary point."""
    scale = 1.0 if state.steps else _first_scale(state, lower, upper, metric, settings)
    inverse = InverseHessian(state.steps, state.changes, metric.product, scale)
    direction = step_in_box(inverse, state.model, state.gradient, lower, upper, metric.diagonal)
    if dot(state.gradient, direction) < 0 or state.steps:
        return direction
    return np.clip(state.model - state.gradient * state.gradient.dtype.type(scale), lower, upper) - state.model


def _first_scale(state: LBFGSState, lower: np.ndarray, upper: np.ndarray, metric: _Metric, settings: _Search) -> float:
    """gamma of the first step: what the preconditioned gradient is multiplied by."""
    held = ((state.model <= lower) & (state.gradient > 0)) | ((state.model >= upper) & (state.gradient < 0))
    free = np.where(held, 0, state.gradient)
    step = np.where(held, 0, metric.product(free))
    largest = float(np.max(np.abs(step), initial=0.0))
    if largest == 0:
        return 1.0
    return min(1.0, 1 / math.sqrt(dot(free, step))) if settings.first_step is None else settings.first_step / largest


def _room(model: np.ndarray, direction: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """How many times the direction may be followed before a variable leaves the box: 1 or more, for one step stays inside."""
    room = np.where(direction > 0, upper - model, model - lower)
    moves = direction != 0
    return max(1.0, float(np.min(room[moves] / np.abs(direction[moves]), initial=math.inf)))


def adam(
    value_and_gradient: Objective,
    start: np.ndarray | AdamState,
    *,
    step: float | Callable[[int], float],
    lower: Bound = -math.inf,
    upper: Bound = math.inf,
    decay: tuple[float, float] = (0.9, 0.999),
    floor: float = 1e-8,
) -> Iterator[AdamState]:
    """The endless iterates of projected Adam (Kingma & Ba 2015), the start first; each costs one evaluation.

    Args:
        value_and_gradient: x [n] -> (f, gradient [n]); may use other shots each time.
        start: First model [n], float32 or float64, or the state to go on from.
        step: About the largest change of a variable in one step, in its own unit; or a schedule of it, iteration -> step.
        lower, upper: Bounds, numbers or [n].
        decay: Of the running means of the gradient and of its square.
        floor: Added to the root of the mean square, as a fraction of its largest entry: variables of smaller gradient hardly move.

    Raises:
        ValueError: A start or bound that does not fit, or an objective that is not finite.
    """
    first = start.model if isinstance(start, AdamState) else start
    lower, upper = _bounds(first, lower, upper)
    if isinstance(start, AdamState):
        state = start
    else:
        value, model, gradient = _begin(value_and_gradient, start, lower, upper)
        state = AdamState(0, 1, value, model, gradient, np.zeros_like(model), np.zeros_like(model))
    schedule = step if callable(step) else partial(_constant, float(checks.positive("step", step)))
    return _adam(value_and_gradient, state, lower, upper, schedule, decay, floor)


def _constant(value: float, _: int) -> float:
    return value


def _adam(
    value_and_gradient: Objective,
    state: AdamState,
    lower: np.ndarray,
    upper: np.ndarray,
    schedule: Callable[[int], float],
    decay: tuple[float, float],
    floor: float,
) -> Iterator[AdamState]:
    while True:
        yield state
        iteration, number = state.iteration + 1, state.model.dtype.type
        mean = number(decay[0]) * state.mean + number(1 - decay[0]) * state.gradient
        square = number(decay[1]) * state.square + number(1 - decay[1]) * state.gradient**2
        root = np.sqrt(square / number(1 - decay[1] ** iteration))
        below = root + number(floor) * root.max()
        change = np.divide(mean / number(1 - decay[0] ** iteration), below, out=np.zeros_like(mean), where=below > 0)
        model = np.clip(state.model - number(schedule(iteration)) * change, lower, upper)
        value, gradient = _finite(*_evaluate(value_and_gradient, model), iteration)
        state = AdamState(iteration, state.evaluations + 1, value, model, gradient, mean, square)


class Iterate(Protocol):
    """What `minimise` needs of an iterate."""

    @property
    def iteration(self) -> int: ...

    @property
    def value(self) -> float: ...


AnyIterate = TypeVar("AnyIterate", bound=Iterate)


@final
@dataclass(frozen=True, eq=False)
class Outcome(Generic[AnyIterate]):
    """Where the search ended and why: status is 'converged', 'stagnated', 'iteration-limit' or 'interrupted'."""

    status: str
    reason: str
    last: AnyIterate


def minimise(
    iterates: Iterator[AnyIterate],
    *,
    max_iterations: int,
    tolerance: float = 0.0,
    window: int = 3,
    report: Callable[[AnyIterate], None] = lambda _: None,
    past: Sequence[float] = (),
) -> Outcome[AnyIterate]:
    """Follow a sequence of iterates until it ends or stagnates, the iteration limit, or an interruption from the keyboard.

    Args:
        iterates: From `lbfgs` or `adam`; their own numbers count, also of a sequence that was taken up again.
        max_iterations: The number of the last iterate.
        tolerance: Stop when the lowest f so far has fallen by less than this fraction an iteration, on average over a window.
        window: Its iterations; more where f does not fall in each of them, as with `adam`.
        report: Called with each iterate.
        past: Values of the iterates so far of a sequence that is taken up again, the one it is taken up at last: that is not reported again.
    """
    values, known = list(itertools.accumulate(past, min)), bool(past)
    try:
        for last in iterates:
            if not known:
                values.append(min(last.value, values[-1]) if values else last.value)
                report(last)
            known = False
            if last.iteration >= max_iterations:
                return Outcome("iteration-limit", f"{max_iterations} iterations were allowed.", last)
            if len(values) > window and values[-1 - window] - values[-1] < window * tolerance * abs(values[-1 - window]):
                return Outcome("stagnated", f"The objective falls by less than {tolerance:g} of itself an iteration.", last)
    except KeyboardInterrupt:
        if known or not values:
            raise
        return Outcome("interrupted", f"Interrupted after iteration {last.iteration}; this is the model of that iteration.", last)
    return Outcome("converged", "No step decreases the objective any more.", last)


def _begin(value_and_gradient: Objective, start: Any, lower: np.ndarray, upper: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    model = np.clip(np.asarray(start), lower, upper)
    value, gradient = _finite(*_evaluate(value_and_gradient, model), 0)
    return value, model, gradient


def _evaluate(value_and_gradient: Objective, model: np.ndarray) -> tuple[float, np.ndarray]:
    value, gradient = value_and_gradient(model)
    return float(value), checks.shape("gradient", gradient, model.shape).astype(model.dtype, copy=False)


def _finite(value: float, gradient: np.ndarray, iteration: int) -> tuple[float, np.ndarray]:
    if not math.isfinite(value):
        raise checks.invalid("objective", f"{value} at iteration {iteration}", "finite", "Check the bounds and the step.")
    return value, checks.finite("gradient", gradient, dtype=gradient.dtype)


def _bounds(start: Any, lower: Bound, upper: Bound) -> tuple[np.ndarray, np.ndarray]:
    """The bounds in the start's shape and precision."""
    start = np.asarray(start)
    if start.ndim != 1 or start.dtype not in (np.float32, np.float64):
        raise checks.invalid("start", f"of shape {start.shape} and type {start.dtype}", "a vector of float32 or float64")
    checks.finite("start", start)
    shaped = [checks.shape(name, bound, start.shape) if np.ndim(bound) else bound for name, bound in (("lower", lower), ("upper", upper))]
    low, high = (np.broadcast_to(np.asarray(bound, start.dtype), start.shape) for bound in shaped)
    crossed = np.flatnonzero(~(low <= high))
    if crossed.size:
        at = int(crossed[0])
        raise checks.invalid("bounds", f"lower {low[at]:g}, upper {high[at]:g} at variable {at}", "crossed nowhere: lower <= upper")
    return low, high


def _metric(given: np.ndarray | Product | None, start: np.ndarray) -> _Metric:
    if given is None:
        return _Metric(lambda r: r)
    if callable(given):
        return _Metric(lambda r: np.asarray(given(r), r.dtype))
    diagonal = checks.positive("precondition", checks.shape("precondition", given, np.shape(start))).astype(np.asarray(start).dtype)
    return _Metric(lambda r: diagonal * r, diagonal)
