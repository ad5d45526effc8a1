"""Inversion of small problems: the models against closed forms and SciPy's solvers, the endings, and what is refused."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, final

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import tensorflow as tf

from geoinv.inversion import BEYOND, WARMER, Iterate, Outcome, Problem, Settings, cooled, iterate, run
from geoinv.maps import ActiveCells, Exponential, WithTrend
from geoinv.misfit import Huber
from geoinv.operators.forward import ForwardOperator, Linearization, linear
from geoinv.operators.gravity.prism import GravityPrism
from geoinv.operators.grid import Grid
from geoinv.operators.sparse import CSRMatrix
from geoinv.regularization import Regularization, small_and_smooth

#: Exact inner solves, at one trade-off parameter.
FIXED = Settings(target_chi2=1e-30, cooling_every=10**6, cg_iterations=80, cg_tolerance=1e-10, stagnation=0.0)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Dense(ForwardOperator):
    """``A m`` for a matrix [data, model], and how often it was applied."""

    matrix: np.ndarray
    on_forward: Callable[[], None] = lambda: None

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec((self.matrix.shape[1],), tf.float64)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec((self.matrix.shape[0], 1), tf.float64)

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        self.on_forward()
        return tf.linalg.matvec(self.matrix, model)[:, None]

    def linearize(self, model: tf.Tensor) -> Linearization:
        return linear(self, model, lambda w: tf.linalg.matvec(self.matrix, w[:, 0], transpose_a=True))

    def subset(self, units: Any) -> "Dense":
        return Dense(self.matrix[np.asarray(units)])


def norm(hessian: np.ndarray) -> Regularization:
    """``m^T H m`` of a dense matrix."""
    return Regularization(CSRMatrix.from_scipy(scipy.sparse.csr_array(hessian)), tf.zeros(len(hessian), tf.float64))


H = 0.1 * np.eye(12) + np.diff(np.eye(12), axis=0).T @ np.diff(np.eye(12), axis=0)
SMOOTH = norm(H)
#: Smoothing kernels of three widths: ill-conditioned, as a potential field's.
KERNEL = np.exp(-((np.linspace(0, 11, 20)[:, None] - np.arange(12)) ** 2) / np.repeat([2.0, 6.0, 1.0, 4.0], 5)[:, None])
TRUTH = np.array([0, 0, 0, 1, 1, 1, 0, 0, -0.5, -0.5, 0, 0.0])
UNCERTAINTY = np.linspace(0.01, 0.03, 20)[:, None]
OBSERVED = (KERNEL @ TRUTH)[:, None] + UNCERTAINTY * np.random.default_rng(7).normal(size=(20, 1))


def problem(operator: ForwardOperator | None = None, **changes: Any) -> Problem:
    options: dict[str, Any] = {"observed": tf.constant(OBSERVED), "uncertainty": tf.constant(UNCERTAINTY), "regularization": SMOOTH}
    return Problem(operator or Dense(KERNEL), **(options | changes))


def after(given: Problem, count: int, settings: Settings = FIXED) -> Iterate:
    """The iterate after `count` iterations."""
    return next(itertools.islice(iterate(given, settings), count, None))


def gradient(model: np.ndarray, trade_off: float) -> np.ndarray:
    """Half the gradient of |(A m - d) / s|^2 + beta m^T H m."""
    return KERNEL.T @ ((KERNEL @ model - OBSERVED[:, 0]) / UNCERTAINTY[:, 0] ** 2) + trade_off * H @ model


# Against closed forms and SciPy


def test_one_iteration_solves_a_linear_problem() -> None:
    """(J^T W J + beta H) m = J^T W d + beta H m_ref."""
    reference = np.linspace(-1, 1, 12)
    found = after(problem(regularization=Regularization(SMOOTH.hessian, tf.constant(reference))), 1)
    weights = 1 / UNCERTAINTY[:, 0] ** 2
    normal = (KERNEL.T * weights) @ KERNEL + found.trade_off * H
    expected = np.linalg.solve(normal, (KERNEL.T * weights) @ OBSERVED[:, 0] + found.trade_off * H @ reference)
    np.testing.assert_allclose(found.model, expected, rtol=1e-8, atol=1e-9)


def test_numbers_of_an_iterate_are_those_of_its_model() -> None:
    found = after(problem(), 2, Settings())
    residual = (KERNEL @ found.model.numpy() - OBSERVED[:, 0]) / UNCERTAINTY[:, 0]
    assert found.phi_d == pytest.approx((residual**2).sum(), rel=1e-10)
    assert found.chi2 == pytest.approx((residual**2).mean(), rel=1e-10)
    assert found.phi_m == pytest.approx(found.model.numpy() @ H @ found.model.numpy(), rel=1e-10)
    np.testing.assert_allclose(found.predicted[:, 0], KERNEL @ found.model.numpy(), rtol=1e-12)
    assert set(found.record()) == {"iteration", "phi_d", "chi2", "phi_m", "trade_off", "cg_iterations", "seconds"}


def test_gravity_of_a_grid_without_bounds() -> None:
    """The same closed form for prisms on 6 x 8 x 8 cells, the kernel read off the operator's own products."""
    grid = Grid.uniform((6, 8, 8), (50.0, 100.0, 100.0), origin=(-300.0, 0.0, 0.0))
    north, east = (axis.ravel() for axis in np.meshgrid(np.linspace(60, 740, 5), np.linspace(40, 770, 5)))
    stations = {"upward": np.full(25, 5.0), "northing": north, "easting": east}
    active = np.ones(grid.shape, bool)
    active[-1, :2] = False
    physics = GravityPrism(grid, stations, active=active) @ ActiveCells(active)
    jacobian = physics.linearize(tf.zeros(active.sum(), tf.float64)).to_scipy() @ np.eye(active.sum())
    observed = jacobian @ (300.0 * (np.arange(active.sum()) % 7 == 0)) + 1e-7 * np.random.default_rng(0).normal(size=25)
    smooth = small_and_smooth(grid, active)
    given = Problem(physics, tf.constant(observed[:, None]), tf.fill([25, 1], tf.constant(1e-7, tf.float64)), smooth)
    found = after(given, 1)
    normal = jacobian.T @ jacobian / 1e-14 + found.trade_off * smooth.hessian.to_scipy().toarray()
    expected = np.linalg.solve(normal, jacobian.T @ observed / 1e-14)
    np.testing.assert_allclose(found.model, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("upper", [0.6, np.linspace(0.2, 0.8, 12)], ids=["number", "per cell"])
def test_bounded_model_is_the_constrained_optimum(upper: Any) -> None:
    settings = dataclasses.replace(FIXED, trade_off_ratio=1e-4)
    found = after(problem(lower=-0.1, upper=upper), 15, settings)
    root = np.linalg.cholesky(found.trade_off * H).T
    augmented = np.vstack([KERNEL / UNCERTAINTY, root])
    right = np.concatenate([(OBSERVED / UNCERTAINTY)[:, 0], np.zeros(12)])
    expected = scipy.optimize.lsq_linear(augmented, right, bounds=(np.full(12, -0.1), np.broadcast_to(upper, 12)), method="bvls", tol=1e-14).x
    assert np.any(expected == -0.1)
    assert np.any(expected == upper)
    np.testing.assert_allclose(found.model, expected, atol=1e-6)


def test_bounded_model_satisfies_the_optimality_conditions() -> None:
    """No descent on free cells; at a bound the descent points outwards (Nocedal & Wright 2006, section 16.7)."""
    found = after(problem(lower=-0.1, upper=0.6), 15, dataclasses.replace(FIXED, trade_off_ratio=1e-4))
    model, slope = found.model.numpy(), gradient(found.model.numpy(), found.trade_off)
    size = np.abs(gradient(np.zeros(12), found.trade_off)).max()
    at_lower, at_upper = model == -0.1, model == 0.6
    assert at_lower.any()
    assert at_upper.any()
    assert np.abs(slope[~(at_lower | at_upper)]).max() < 1e-6 * size
    assert slope[at_lower].min() > -1e-6 * size
    assert slope[at_upper].max() < 1e-6 * size


def test_bounds_hold_in_every_iterate() -> None:
    for each in run(problem(lower=-0.2, upper=np.linspace(0.3, 0.7, 12))).iterates:
        assert np.all(each.model >= -0.2)
        assert np.all(each.model <= np.linspace(0.3, 0.7, 12))


def test_objective_never_rises_at_one_trade_off() -> None:
    history = list(itertools.islice(iterate(problem(lower=-0.1, upper=0.6), dataclasses.replace(FIXED, trade_off_ratio=1e-4)), 1, 10))
    objective = [each.phi_d + each.trade_off * each.phi_m for each in history]
    assert np.all(np.diff(objective) <= 1e-9 * np.array(objective[:-1]))


def test_robust_model_is_the_minimum_of_its_objective() -> None:
    observed = OBSERVED.copy()
    observed[[3, 11], 0] += [2.0, -3.0]
    found = after(problem(observed=tf.constant(observed), misfit=Huber(1.5)), 25, dataclasses.replace(FIXED, trade_off_ratio=1e-4))

    def objective(model: np.ndarray) -> float:
        size = np.abs(KERNEL @ model - observed[:, 0]) / UNCERTAINTY[:, 0]
        return float(np.where(size <= 1.5, size**2, 3.0 * size - 2.25).sum() + found.trade_off * model @ H @ model)

    expected = scipy.optimize.minimize(objective, TRUTH, method="BFGS", options={"gtol": 1e-3})
    assert objective(found.model.numpy()) <= expected.fun * (1 + 1e-4)  # reweighting converges linearly
    np.testing.assert_allclose(found.model, expected.x, atol=0.03)
    assert objective(after(problem(observed=tf.constant(observed)), 1).model.numpy()) > 1.1 * expected.fun


def test_nonlinear_model_is_the_minimum_of_its_objective() -> None:
    truth = 1.0 + TRUTH
    observed = (KERNEL @ truth)[:, None] + UNCERTAINTY * np.random.default_rng(9).normal(size=(20, 1))
    given = problem(Dense(KERNEL) @ Exponential((12,)), observed=tf.constant(observed))
    found = after(given, 15, dataclasses.replace(FIXED, trade_off_ratio=1e-3))
    root = np.linalg.cholesky(found.trade_off * H).T

    def residuals(model: np.ndarray) -> np.ndarray:
        return np.concatenate([(KERNEL @ np.exp(model) - observed[:, 0]) / UNCERTAINTY[:, 0], root @ model])

    expected = scipy.optimize.least_squares(residuals, np.zeros(12), xtol=1e-14, ftol=1e-14, gtol=1e-14).x
    np.testing.assert_allclose(found.model, expected, atol=1e-5)
    assert run(given, Settings(max_iterations=40)).status == "converged"


def test_overshooting_step_is_shortened() -> None:
    """From exp(-6) the full Gauss-Newton step towards 1 is 400 times too long and overflows nothing only if cut."""
    given = Problem(
        Dense(np.eye(2)) @ Exponential((2,)),
        observed=tf.ones([2, 1], tf.float64),
        uncertainty=tf.fill([2, 1], tf.constant(0.01, tf.float64)),
        regularization=norm(1e-6 * np.eye(2)),
        start=np.full(2, -6.0),
    )
    outcome = run(given, Settings(max_iterations=60, trade_off_ratio=1e-3, stagnation=0.0))
    assert outcome.status == "converged"
    np.testing.assert_allclose(np.exp(outcome.last.model), 1.0, atol=0.02)


def test_trend_is_solved_for_without_being_penalised() -> None:
    """With beta very large the model stays at its reference and the trend alone is fitted: weighted least squares."""
    terms = np.stack([np.ones(20), np.linspace(-1, 1, 20)], axis=1)
    observed = terms @ [40.0, -7.0] + UNCERTAINTY[:, 0] * np.random.default_rng(3).normal(size=20)
    given = problem(WithTrend(Dense(KERNEL), terms[:, None, :]), observed=tf.constant(observed[:, None]), regularization=SMOOTH.extended(2))
    found = after(given, 2, dataclasses.replace(FIXED, trade_off_ratio=1e9))
    expected = np.linalg.lstsq(terms / UNCERTAINTY, observed / UNCERTAINTY[:, 0], rcond=None)[0]
    np.testing.assert_allclose(found.model[-2:], expected, atol=1e-5)
    np.testing.assert_allclose(found.model[:-2], 0, atol=1e-5)


def test_preconditioner_changes_the_path_and_not_the_answer() -> None:
    diagonal = ((KERNEL / UNCERTAINTY) ** 2).sum(axis=0)
    plain, preconditioned = after(problem(), 1), after(problem(preconditioner=diagonal), 1)
    np.testing.assert_allclose(preconditioned.model, plain.model, atol=1e-8)


# How it starts and cools


def test_first_trade_off_balances_the_largest_eigenvalues() -> None:
    found = after(problem(), 1, dataclasses.replace(FIXED, trade_off_ratio=7.0))
    data = np.linalg.eigvalsh((KERNEL / UNCERTAINTY).T @ (KERNEL / UNCERTAINTY)).max()
    assert found.trade_off == pytest.approx(7.0 * data / np.linalg.eigvalsh(H).max(), rel=0.3)


def test_start_is_the_reference_moved_inside_the_bounds() -> None:
    np.testing.assert_array_equal(problem(lower=0.25, upper=1.0).first, np.full(12, 0.25))
    np.testing.assert_array_equal(problem(start=np.linspace(-2, 2, 12), lower=-1.0, upper=1.0).first, np.clip(np.linspace(-2, 2, 12), -1, 1))


def history_of(chi2: Callable[[float], float], trade_offs: list[float]) -> list[Iterate]:
    """A history whose misfit answers to the trade-off parameter by a law; iterate 0 is the start model."""
    nothing, data = tf.zeros(0, tf.float64), tf.zeros([20, 1], tf.float64)
    laws = [(0, 0.0, 1e4), *((i + 1, beta, chi2(beta)) for i, beta in enumerate(trade_offs))]
    return [Iterate(i, nothing, data, 20 * value, value, 0.0, beta, 1, 0.0, 20) for i, beta, value in laws]


def test_cooling_divides_by_the_factor_far_from_the_target() -> None:
    assert cooled(9.0, history_of(lambda beta: 100 * beta, [27.0, 9.0]), Settings(cooling_factor=3.0)) == pytest.approx(3.0)


@pytest.mark.parametrize("power", [0.3, 0.8, 1.5])
def test_cooling_aims_at_the_target_along_a_power_law(power: float) -> None:
    def chi2(beta: float) -> float:
        return float(beta**power)

    settings = Settings(cooling_factor=100.0)
    trade_off = cooled(4.0, history_of(chi2, [6.0, 4.0]), settings)
    assert 0.9 < chi2(trade_off) <= 1.0


@pytest.mark.parametrize("every", [1, 2, 3])
def test_cooling_waits_its_turn(every: int) -> None:
    found = list(itertools.islice(iterate(problem(), Settings(cooling_every=every, cooling_factor=2.0, target_chi2=1e-9)), 1, 8))
    changes = [i for i, (a, b) in enumerate(itertools.pairwise(found), start=1) if b.trade_off < a.trade_off]
    assert changes == [i for i in range(1, 7) if i % every == 0]


@pytest.mark.parametrize("every", [1, 2])
def test_search_lands_near_the_target(every: int) -> None:
    outcome = run(problem(), Settings(cooling_factor=10.0, cooling_every=every, max_iterations=60, cg_tolerance=1e-6))
    assert outcome.status == "converged"
    assert 0.85 < outcome.last.chi2 <= 1.0


# How it ends


def test_target_reached_is_converged() -> None:
    outcome = run(problem(), Settings(max_iterations=40))
    assert outcome.status == "converged"
    assert outcome.last.chi2 <= 1.0 < outcome.iterates[-2].chi2
    assert "<= 1" in outcome.reason


def test_start_that_fits_needs_no_iteration() -> None:
    outcome = run(problem(start=TRUTH), Settings(target_chi2=3.0))
    assert (outcome.status, outcome.last.iteration) == ("converged", 0)
    np.testing.assert_array_equal(outcome.last.model, TRUTH)


def test_iteration_limit() -> None:
    seen: list[int] = []
    outcome = run(problem(), Settings(max_iterations=2, target_chi2=1e-6), lambda each: seen.append(each.iteration))
    assert outcome.status == "iteration-limit"
    assert [each.iteration for each in outcome.iterates] == seen == [0, 1, 2]
    assert "max_iterations" in outcome.reason


def test_data_that_contradict_each_other_stagnate() -> None:
    """Twice the same kernel, data two apart: chi2 is (1 / 0.1)^2 at best."""
    twice = np.vstack([KERNEL, KERNEL])
    observed = np.concatenate([KERNEL @ TRUTH + 1, KERNEL @ TRUTH - 1])[:, None]
    given = problem(Dense(twice), observed=tf.constant(observed), uncertainty=tf.fill([40, 1], tf.constant(0.1, tf.float64)))
    outcome = run(given, Settings(max_iterations=200))
    assert outcome.status == "stagnated"
    assert outcome.last.chi2 == pytest.approx(100.0, rel=0.01)
    assert outcome.last.iteration < 60


def outcome_interrupted_in(iteration: int, where: str) -> Outcome:
    """A run in which the keyboard interrupts the report or the operator of one iteration."""
    at = -1

    def interrupt_operator() -> None:
        if where == "operator" and at == iteration - 1:
            raise KeyboardInterrupt

    def report(each: Iterate) -> None:
        nonlocal at
        at = each.iteration
        if where == "report" and at == iteration:
            raise KeyboardInterrupt

    return run(problem(Dense(KERNEL, interrupt_operator)), Settings(target_chi2=1e-6), report)


@pytest.mark.parametrize(("where", "kept"), [("report", 3), ("operator", 2)])
def test_interruption_keeps_the_last_complete_model(where: str, kept: int) -> None:
    outcome = outcome_interrupted_in(3, where)
    assert (outcome.status, outcome.last.iteration) == ("interrupted", kept)
    np.testing.assert_array_equal(outcome.last.model, after(problem(), kept, Settings(target_chi2=1e-6)).model)


def test_interruption_before_the_first_model_is_passed_on() -> None:
    with pytest.raises(KeyboardInterrupt):
        outcome_interrupted_in(0, "operator")


def test_robust_misfit_recovers_where_least_squares_does_not() -> None:
    random = np.random.default_rng(2)
    matrix = random.normal(size=(120, 12))
    observed = (matrix @ TRUTH)[:, None] + 0.05 * random.normal(size=(120, 1))
    observed[::10] += 5.0
    plain = problem(Dense(matrix), observed=tf.constant(observed), uncertainty=tf.fill([120, 1], tf.constant(0.05, tf.float64)))
    settings = Settings(target_chi2=0.1, max_iterations=40)
    errors = [np.abs(run(dataclasses.replace(plain, misfit=misfit), settings).last.model - TRUTH).max() for misfit in (plain.misfit, Huber())]
    # A parameter's error from 108 clean data is 0.05 / sqrt(108) = 0.005; from 12 outliers of 5 it is 5 sqrt(12) / 120 = 0.14.
    assert errors[1] < 0.03
    assert errors[0] > 0.14


def test_same_seed_same_bits() -> None:
    first, second = (run(problem(lower=-0.2, upper=0.7), Settings(seed=4)) for _ in range(2))
    np.testing.assert_array_equal(first.last.model, second.last.model)
    assert [{**a.record(), "seconds": 0} for a in first.iterates] == [{**b.record(), "seconds": 0} for b in second.iterates]


# What is refused


def test_prediction_that_is_not_finite() -> None:
    with pytest.raises(ValueError, match=r"'predicted data' .* at iteration 0: must be finite"):
        run(problem(Dense(KERNEL) @ Exponential((12,)), start=np.full(12, 1e4)))


def test_operator_that_sees_nothing() -> None:
    with pytest.raises(ValueError, match="'operator' with J = 0"):
        run(problem(Dense(0 * KERNEL)))


BAD: list[tuple[str, dict[str, Any]]] = [
    ("uncertainty", {"uncertainty": tf.zeros([20, 1], tf.float64)}),
    ("uncertainty", {"uncertainty": tf.constant(-UNCERTAINTY)}),
    ("uncertainty", {"uncertainty": tf.ones([20], tf.float64)}),
    ("observed", {"observed": tf.fill([20, 1], tf.constant(math.nan, tf.float64))}),
    ("observed", {"observed": tf.zeros([19, 1], tf.float64)}),
    ("bounds", {"lower": 1.0, "upper": 1.0}),
    ("bounds", {"lower": np.linspace(-1, 1, 12), "upper": 0.5}),
    ("bounds", {"lower": math.nan}),
    ("lower", {"lower": np.zeros(11)}),
    ("start", {"start": np.zeros(11)}),
    ("start", {"start": np.full(12, math.nan)}),
    ("preconditioner", {"preconditioner": np.ones(11)}),
    ("regularization", {"regularization": SMOOTH.extended(1)}),
]


@pytest.mark.parametrize(("name", "changes"), BAD, ids=[f"{name}-{i}" for i, (name, _) in enumerate(BAD)])
def test_bad_arguments_are_refused_at_construction(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"Invalid '.*{name}"):
        problem(**changes)


def test_a_step_well_beyond_the_target_is_taken_again_with_a_warmer_trade_off() -> None:
    """It is then the minimiser of the warmer objective, from its closed form."""
    settings = Settings(target_chi2=0.7, trade_off_ratio=1e-4, cg_iterations=200, cg_tolerance=1e-10)
    free = after(problem(), 1, dataclasses.replace(settings, target_chi2=1e-30))
    landed = after(problem(), 1, settings)
    assert free.chi2 < 0.5 * BEYOND * 0.7 and landed.chi2 <= 0.7 and landed.chi2 > 1.5 * free.chi2
    assert free.trade_off < landed.trade_off <= WARMER * free.trade_off
    np.testing.assert_allclose(gradient(landed.model.numpy(), landed.trade_off), 0, atol=1e-6 * np.abs(gradient(np.zeros(12), 0.0)).max())
