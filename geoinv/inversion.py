r"""Regularised inversion by projected Gauss-Newton.

.. math:: \min_{l \le m \le u} \; \phi_d(m) + \beta \, \phi_m(m)

for a trade-off parameter beta that starts large and cools until the data are fitted to their uncertainties; a step that fits them better
than that is taken again with a warmer one. One iteration
linearises the operator, solves the normal equations on the cells that are free to move by preconditioned conjugate gradients,
with products of J and its transpose only, and projects the step onto the bounds (Nocedal & Wright 2006, sections 7.1 and 16.7).

`iterate` is a generator of iterates, each a pure function of those before; `run` owns counting, stopping and interruption, and goes on from
a checkpoint.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np
import tensorflow as tf

from geoinv.operators import checks
from geoinv.operators.forward import ForwardOperator, Linearization

from .misfit import L2, Misfit
from .optimize import conjugate_gradients, free_cells, largest_eigenvalue
from .regularization import Penalty

if TYPE_CHECKING:
    from .config import GaussNewton


#: Misfit over its target below which a step went beyond it, how often a warmer one is tried then, and how much warmer if there was none before.
BEYOND, LANDINGS, WARMER = 0.9, 3, 30.0


@final
@dataclass(frozen=True, eq=False)
class Problem:
    """What is inverted.

    Args:
        operator: Maps a float64 vector [n] to data.
        observed, uncertainty: As the operator's data (one tensor), in its units; uncertainties positive.
        regularization: phi_m of a vector [n], quadratic or blocky.
        misfit: phi_d of residuals over uncertainties.
        lower, upper: Bounds [n], or numbers.
        start: First model [n]; the reference by default, moved inside the bounds.
        preconditioner: An estimate of diag(J^T W J), W the inverse variances, [n]; without it only phi_m preconditions.

    Raises:
        ValueError: Shapes that do not fit, uncertainties not positive, bounds crossed.
    """

    operator: ForwardOperator
    observed: tf.Tensor
    uncertainty: tf.Tensor
    regularization: Penalty
    misfit: Misfit = dataclasses.field(default_factory=L2)
    lower: np.ndarray | float = -math.inf
    upper: np.ndarray | float = math.inf
    start: np.ndarray | None = None
    preconditioner: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape, size = self.operator.data_spec.shape, self.operator.model_spec.shape[0]
        checks.positive("uncertainty", checks.shape("uncertainty", self.uncertainty, shape))
        checks.finite("observed", checks.shape("observed", self.observed, shape))
        checks.shape("regularization", self.regularization.reference, (size,))
        for name in ("start", "preconditioner"):
            if getattr(self, name) is not None:
                checks.finite(name, checks.shape(name, getattr(self, name), (size,)))
        for name in ("lower", "upper"):
            if np.ndim(getattr(self, name)):
                checks.shape(name, getattr(self, name), (size,))
        lower, upper = (np.broadcast_to(np.asarray(bound, float), (size,)) for bound in (self.lower, self.upper))
        crossed = np.flatnonzero(~(lower < upper))
        if crossed.size:
            at = int(crossed[0])
            raise checks.invalid("bounds", f"lower {lower[at]:g}, upper {upper[at]:g} at cell {at}", "crossed nowhere: lower < upper")
        object.__setattr__(self, "lower", tf.constant(lower))
        object.__setattr__(self, "upper", tf.constant(upper))

    @property
    def first(self) -> tf.Tensor:
        """The first model, inside the bounds."""
        start = self.regularization.reference if self.start is None else tf.convert_to_tensor(self.start, tf.float64)
        return tf.clip_by_value(start, self.lower, self.upper)

    def residual(self, predicted: tf.Tensor) -> tf.Tensor:
        """(predicted - observed) / uncertainty."""
        return (predicted - self.observed) / self.uncertainty


@final
@dataclass(frozen=True)
class Settings:
    """How the model is sought and when the search stops; the config's [inversion] says what each means."""

    target_chi2: float = 1.0
    max_iterations: int = 20
    trade_off_ratio: float = 10.0
    cooling_factor: float = 3.0
    cooling_every: int = 1
    cg_iterations: int = 30
    cg_tolerance: float = 1e-2
    stagnation: float = 1e-3
    seed: int = 0

    @classmethod
    def of(cls, options: "GaussNewton", seed: int) -> "Settings":
        """Those of a config."""
        names = [each.name for each in dataclasses.fields(cls) if each.name != "seed"]
        return cls(**{name: getattr(options, name) for name in names}, seed=seed)


@final
@dataclass(frozen=True, eq=False)
class Iterate:
    """One model of the sequence, and how it came about. phi_d and chi2 are of this model; chi2 is never reweighted.

    Those before a checkpoint that a run goes on from have no model and no data any more.
    """

    iteration: int
    model: tf.Tensor
    predicted: tf.Tensor
    phi_d: float
    chi2: float
    phi_m: float
    trade_off: float
    cg_iterations: int
    seconds: float
    n_data: int

    @property
    def per_datum(self) -> float:
        """phi_d over the number of data, which is held against the target: chi2 for least squares, less with outliers for a robust misfit."""
        return self.phi_d / self.n_data

    def record(self) -> dict[str, float]:
        """The numbers of a row of the history."""
        return {name: getattr(self, name) for name in _RECORD}


_RECORD = ("iteration", "phi_d", "chi2", "phi_m", "trade_off", "cg_iterations", "seconds")


def taken_up(records: Sequence[Mapping[str, float]], model: np.ndarray, predicted: np.ndarray) -> list[Iterate]:
    """The iterates of a run from their records, the last one with its model and data: what `run` goes on from."""
    nothing, size = tf.zeros([0], tf.float64), int(np.size(predicted))
    past = [Iterate(model=nothing, predicted=nothing, n_data=size, **{name: each[name] for name in _RECORD}) for each in records]  # type: ignore[arg-type]
    return [*past[:-1], dataclasses.replace(past[-1], model=tf.constant(model), predicted=tf.constant(predicted))]


@final
@dataclass(frozen=True, eq=False)
class Outcome:
    """Where the search ended and why: status is 'converged', 'stagnated', 'iteration-limit' or 'interrupted'."""

    status: str
    reason: str
    iterates: tuple[Iterate, ...]

    @property
    def last(self) -> Iterate:
        """The model that is kept."""
        return self.iterates[-1]


def run(
    problem: Problem, settings: Settings | None = None, report: Callable[[Iterate], None] = lambda _: None, past: Sequence[Iterate] = ()
) -> Outcome:  # fmt: skip
    """Invert until the target, stagnation, the iteration limit, or an interruption from the keyboard.

    Args:
        problem: What is inverted.
        settings: How.
        report: Called with each iterate.
        past: Iterates to go on from (see `taken_up`); the report is not called with these.

    Raises:
        ValueError: The operator gave data that are not finite.
    """
    settings = settings or Settings()
    history: list[Iterate] = list(past)
    try:
        if history and (ended := _ended(history, settings, problem)):
            return Outcome(*ended, tuple(history))
        for iterate_ in iterate(problem, settings, past):
            history.append(iterate_)
            report(iterate_)
            ended = _ended(history, settings, problem)
            if ended:
                return Outcome(*ended, tuple(history))
    except KeyboardInterrupt:
        if not history:
            raise
        return Outcome("interrupted", f"Interrupted after iteration {history[-1].iteration}; this is the model of that iteration.", tuple(history))
    raise AssertionError("iterate never ends by itself")


def iterate(problem: Problem, settings: Settings, past: Sequence[Iterate] = ()) -> Iterator[Iterate]:
    """The endless sequence of iterates, from the start model on, or from those that were past already."""
    began, history = time.perf_counter(), list(past)
    if not history:
        history = [_evaluated(problem, _tried(problem, problem.first), 0, 0.0, 0, began)]
        yield history[-1]
    trade_off = history[-1].trade_off or _first_trade_off(problem, settings)
    while True:
        began = time.perf_counter()
        last = history[-1]
        if len(history) > 1:
            trade_off = cooled(trade_off, history, settings)
        at = problem.operator.linearize(last.model)
        tried, trade_off, cg_iterations = _landed(problem, last, at, trade_off, settings)
        history.append(_evaluated(problem, tried, last.iteration + 1, trade_off, cg_iterations, began))
        yield history[-1]


def cooled(trade_off: float, history: Sequence[Iterate], settings: Settings) -> float:
    """The next trade-off parameter: divided by the cooling factor, or by less where that would overshoot the target misfit.

    How log phi_d answers to log beta is read off the last two iterates with different ones; the target is then approached along
    that line.
    """
    last = history[-1]
    if last.iteration % settings.cooling_every:
        return trade_off
    step = math.log(settings.cooling_factor)
    warmer = next((each for each in reversed(history) if each.trade_off > last.trade_off), None)
    if warmer is not None and warmer.phi_d > last.phi_d:
        slope = math.log(warmer.phi_d / last.phi_d) / math.log(warmer.trade_off / last.trade_off)
        # Two per cent beyond the target, so that the last step does not fall just short of it.
        wanted = math.log(1.02 * last.per_datum / settings.target_chi2) / slope
        step = min(step, max(math.log(1.05), wanted)) if slope > 0.05 else step
    return trade_off / math.exp(step)


def _ended(history: Sequence[Iterate], settings: Settings, problem: Problem) -> tuple[str, str] | None:
    last, target = history[-1], settings.target_chi2
    if last.per_datum <= target:
        name = "chi2" if isinstance(problem.misfit, L2) else "the robust misfit per datum"
        return "converged", f"Reached the target: {name} {last.per_datum:.3g} <= {target:g}."
    if last.iteration >= settings.max_iterations:
        advice = "A larger inversion.max_iterations allows more."
        return "iteration-limit", f"{settings.max_iterations} iterations were allowed and chi2 is {last.chi2:.3g}. {advice}"
    if _stagnated(history, settings.stagnation):
        advice = "Are the uncertainties too small, the cells too large, or the bounds too tight?"
        return "stagnated", f"The misfit no longer falls, at chi2 {last.chi2:.3g}. {advice}"
    return None


def _stagnated(history: Sequence[Iterate], tolerance: float) -> bool:
    """Whether three iterations with a cooler trade-off parameter have each lowered the misfit by less than the tolerance, on average."""
    if len(history) < 5 or not history[-1].trade_off < history[-4].trade_off:
        return False
    return history[-4].phi_d - history[-1].phi_d < 3 * tolerance * history[-4].phi_d


class _Tried(NamedTuple):
    """A model, its data, and both terms of its objective."""

    model: tf.Tensor
    predicted: tf.Tensor
    phi_d: float
    phi_m: float

    def objective(self, trade_off: float) -> float:
        return self.phi_d + trade_off * self.phi_m


def _tried(problem: Problem, model: tf.Tensor) -> _Tried:
    predicted = problem.operator.forward(model)
    return _Tried(model, predicted, float(problem.misfit.value(problem.residual(predicted))), float(problem.regularization.value(model)))


def _evaluated(problem: Problem, tried: _Tried, iteration: int, trade_off: float, cg_iterations: int, began: float) -> Iterate:
    chi2 = float(tf.reduce_mean(problem.residual(tried.predicted) ** 2))
    if not (math.isfinite(tried.phi_d) and math.isfinite(chi2)):
        raise checks.invalid("predicted data", f"{chi2} (chi2) at iteration {iteration}", "finite", "Check the bounds and the uncertainties.")
    seconds = time.perf_counter() - began
    return Iterate(
        iteration, tried.model, tried.predicted, tried.phi_d, chi2, tried.phi_m, trade_off, cg_iterations, seconds, int(tf.size(tried.predicted))
    )


def _landed(problem: Problem, last: Iterate, at: Linearization, trade_off: float, settings: Settings) -> tuple[_Tried, float, int]:
    """The next model, its trade-off parameter, and the conjugate-gradient steps: a warmer one where the first goes well beyond the target."""
    tried, steps = _step(problem, last, at, trade_off, settings)
    goal, warmer = settings.target_chi2 * int(tf.size(tried.predicted)), last.trade_off or WARMER * trade_off
    for _ in range(LANDINGS):
        if tried.phi_d >= BEYOND * goal or last.phi_d <= goal or warmer < 1.05 * trade_off:
            break
        middle = math.sqrt(trade_off * warmer)
        found, more = _step(problem, last, at, middle, settings)
        steps += more
        tried, trade_off, warmer = (found, middle, warmer) if found.phi_d <= goal else (tried, trade_off, middle)
    return tried, trade_off, steps


def _normal_product(problem: Problem, at: Linearization, weights: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """v -> J^T W J v, W the misfit's weights over the variances."""
    scaled = weights / problem.uncertainty**2
    return lambda v: at.pullback(scaled * at.pushforward(v))


def _first_trade_off(problem: Problem, settings: Settings) -> float:
    """The given ratio times the largest eigenvalue of the data term over that of the model term."""
    at = problem.operator.linearize(problem.first)
    random = tf.constant(np.random.default_rng(settings.seed).normal(size=problem.first.shape))
    data_term, curvature = _normal_product(problem, at, tf.ones_like(problem.uncertainty)), problem.regularization.curvature(problem.first)
    penalised = tf.cast(curvature.diagonal() > 0, tf.float64)  # a trend's coefficients are not
    data = largest_eigenvalue(lambda v: penalised * data_term(penalised * v), random)
    model = largest_eigenvalue(curvature.matvec, random)
    if data == 0:
        raise checks.invalid("operator", "with J = 0", "sensitive to the model", "Do the stations see the active cells?")
    return settings.trade_off_ratio * data / model


def _step(problem: Problem, last: Iterate, at: Linearization, trade_off: float, settings: Settings) -> tuple[_Tried, int]:
    """The next model and the number of conjugate-gradient steps that led there."""
    curvature = problem.regularization.curvature(last.model)
    residual = problem.residual(at.data)
    weights = problem.misfit.weights(residual)
    gradient = at.pullback(weights * residual / problem.uncertainty) + trade_off * problem.regularization.gradient(last.model)
    free = free_cells(last.model, gradient, problem.lower, problem.upper)
    data_term = _normal_product(problem, at, weights)
    diagonal = trade_off * curvature.diagonal()
    if problem.preconditioner is not None:
        diagonal += tf.constant(problem.preconditioner)
    inverse = free / tf.where(diagonal > 0, diagonal, tf.ones_like(diagonal))  # a trend's coefficients have no model term
    solution = conjugate_gradients(
        lambda v: free * (data_term(v) + trade_off * curvature.matvec(v)),
        -free * gradient,
        lambda r: inverse * r,
        tolerance=settings.cg_tolerance,
        max_iterations=settings.cg_iterations,
    )
    start = _Tried(last.model, last.predicted, last.phi_d, last.phi_m)
    return _search(problem, start, solution.x, gradient, trade_off), solution.iterations


def _search(problem: Problem, start: _Tried, step: tf.Tensor, gradient: tf.Tensor, trade_off: float) -> _Tried:
    """The projected step, halved until the objective decreases enough (Armijo along the projection arc)."""
    before, length = start.objective(trade_off), 1.0
    for _ in range(12):
        tried = _tried(problem, tf.clip_by_value(start.model + length * step, problem.lower, problem.upper))
        # The objective has no factor 1/2: its slope is twice the gradient.
        if tried.objective(trade_off) <= before + 1e-4 * 2 * float(tf.tensordot(gradient, tried.model - start.model, 1)):
            return tried
        length /= 2
    return start
