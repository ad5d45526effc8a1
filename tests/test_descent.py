"""Projected L-BFGS and Adam against SciPy's L-BFGS-B, Keras' Adam, linear algebra, and their own invariances."""

import io
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize

from geoinv.descent import AdamState, LBFGSState, adam, lbfgs, minimise

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


def rosenbrock(x: np.ndarray) -> tuple[float, np.ndarray]:
    return float(scipy.optimize.rosen(x)), scipy.optimize.rosen_der(x)


def quadratic(size: int, condition: float, seed: int = 0) -> tuple[Objective, np.ndarray, np.ndarray]:
    """1/2 x A x - b x with logarithmically spread eigenvalues; A and b."""
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix, b = (vectors * np.logspace(0, np.log10(condition), size)) @ vectors.T, rng.normal(size=size)
    return lambda x: (float(x @ (matrix @ x) / 2 - b @ x), matrix @ x - b), matrix, b


def scipy_minimum(objective: Objective, start: np.ndarray, lower: float, upper: float, memory: int = 10) -> tuple[Any, list[float]]:
    """SciPy's result and the value of each of its evaluations."""
    values = []

    def recorded(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(x)
        values.append(value)
        return value, gradient

    options = {"maxcor": memory, "ftol": 1e-16, "gtol": 1e-8, "maxiter": 2000, "maxfun": 4000}
    bounds = scipy.optimize.Bounds(np.full(start.size, lower), np.full(start.size, upper))
    return scipy.optimize.minimize(recorded, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options), values


CASES = [
    (rosenbrock, 10, -np.inf, np.inf, 0),
    (rosenbrock, 20, -np.inf, np.inf, 0),
    (rosenbrock, 2, -1.5, 0.9, 1),
    (rosenbrock, 10, -1.5, 0.9, 2),
    (rosenbrock, 10, 1.2, 3.0, 8),
    (quadratic(60, 1e2)[0], 60, -np.inf, np.inf, 0),
    (quadratic(60, 1e2)[0], 60, 0.0, 0.05, 20),
    (quadratic(40, 1e3)[0], 40, -0.01, 0.02, 15),
]


@pytest.mark.parametrize(("objective", "size", "lower", "upper", "active"), CASES)
def test_minimum_is_scipys_for_as_few_evaluations(objective: Objective, size: int, lower: float, upper: float, active: int) -> None:
    """In all from three starts: a single path down the curved valley is a matter of luck."""
    ours_in_all = theirs_in_all = 0
    for seed in range(3):
        start = np.random.default_rng(seed).uniform(max(lower, -2), min(upper, 2.5), size)
        best, values = scipy_minimum(objective, start, lower, upper)
        at_bounds = (best.x == lower) | (best.x == upper)
        assert np.count_nonzero(at_bounds) >= active
        target = best.fun + 1e-9 * max(abs(best.fun), 1e-3)
        ours = next(each for each in lbfgs(objective, start, lower=lower, upper=upper, memory=10) if each.value <= target)
        np.testing.assert_allclose(ours.model, best.x, atol=2e-4)
        assert np.array_equal((ours.model == lower) | (ours.model == upper), at_bounds)
        ours_in_all += ours.evaluations
        theirs_in_all += next(count for count, value in enumerate(values, 1) if value <= target)
    assert ours_in_all <= 1.5 * theirs_in_all


def test_every_iterate_is_inside_decreases_and_counts_its_evaluations() -> None:
    calls = []

    def counted(x: np.ndarray) -> tuple[float, np.ndarray]:
        calls.append(x.copy())
        return rosenbrock(x)

    previous = np.inf
    for state in lbfgs(counted, np.array([-1.2, 5.0, 0.3]), lower=[-1.0, -2.0, -0.5], upper=np.array([0.8, 2.0, 0.6])):
        assert state.value < previous
        previous = state.value
        assert state.evaluations == len(calls)
        assert (state.value, *state.gradient) == (rosenbrock(state.model)[0], *rosenbrock(state.model)[1])
    assert np.all([(x >= [-1.0, -2.0, -0.5]) & (x <= [0.8, 2.0, 0.6]) for x in calls])
    # it ended by itself, at a point where only the bounds stop it
    projected = state.model - np.clip(state.model - state.gradient, [-1.0, -2.0, -0.5], [0.8, 2.0, 0.6])
    assert np.abs(projected).max() < 1e-6


@pytest.mark.parametrize("size", [3, 8])
def test_exact_line_searches_solve_a_quadratic_in_n_steps(size: int) -> None:
    """With exact searches and unlimited memory the iterates are those of conjugate gradients (Nocedal & Wright 2006, theorem 6.4)."""
    objective, matrix, b = quadratic(size, 50.0)
    states = list(itertools.islice(lbfgs(objective, np.zeros(size), memory=size, curvature=1e-9, max_evaluations=40), size + 1))
    np.testing.assert_allclose(states[-1].model, np.linalg.solve(matrix, b), rtol=1e-6, atol=1e-8)
    assert np.linalg.norm(states[-2].model - np.linalg.solve(matrix, b)) > 1e-4
    x, r = np.zeros(size), b.copy()
    p = r
    for state in states[1:]:
        length = r @ r / (p @ matrix @ p)
        x, before, r = x + length * p, r, r - length * matrix @ p
        p = r + (r @ r) / (before @ before) * p
        np.testing.assert_allclose(state.model, x, rtol=1e-5, atol=1e-7)


def test_exact_inverse_as_preconditioner_needs_one_step() -> None:
    objective, matrix, b = quadratic(12, 1e5)
    inverse = np.linalg.inv(matrix)
    state = next(itertools.islice(lbfgs(objective, 1e-3 * b, precondition=lambda r: inverse @ r, curvature=1e-6, max_evaluations=40), 1, None))
    np.testing.assert_allclose(state.model, inverse @ b, rtol=1e-6)


def test_preconditioned_iterates_are_those_of_the_scaled_variables() -> None:
    """M = D^2 in x is no preconditioner in z = x / D; also with bounds that become active."""
    scales = np.random.default_rng(1).permutation(np.logspace(-2, 2, 12))
    objective, _, _ = quadratic(12, 30.0)

    def scaled(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(x / scales)
        return value, gradient / scales

    plain = lbfgs(objective, np.zeros(12), lower=-0.1, upper=0.2)
    ours = lbfgs(scaled, np.zeros(12), lower=-0.1 * scales, upper=0.2 * scales, precondition=scales**2)
    for a, b in itertools.islice(zip(ours, plain, strict=False), 7):
        np.testing.assert_allclose(a.model / scales, b.model, rtol=1e-5, atol=1e-8)
        assert a.evaluations == b.evaluations
    assert a.iteration == 6
    assert np.count_nonzero((b.model == -0.1) | (b.model == 0.2)) > 2


def test_iterates_do_not_depend_on_the_unit_of_the_objective() -> None:
    def scaled(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = rosenbrock(x)
        return value * 2.0**-70, gradient * 2.0**-70

    start = np.array([-1.2, 1.0, 0.3])
    pairs = zip(lbfgs(rosenbrock, start, first_step=0.25), lbfgs(scaled, start, first_step=0.25), strict=False)
    for a, b in itertools.islice(pairs, 25):
        np.testing.assert_array_equal(a.model, b.model)
    assert a.iteration == 24


def test_first_step_and_largest_step_are_kept() -> None:
    tried: list[np.ndarray] = []

    def recorded(x: np.ndarray) -> tuple[float, np.ndarray]:
        tried.append(x.copy())
        return rosenbrock(x)

    start = np.array([-1.2, 1.0, 0.3, 2.0])
    states = list(itertools.islice(lbfgs(recorded, start, first_step=0.03, max_step=0.1), 15))
    assert np.abs(tried[1] - start).max() == pytest.approx(0.03)
    moved = [np.abs(b.model - a.model).max() for a, b in itertools.pairwise(states)]
    assert max(moved) == pytest.approx(0.1)


def test_a_value_that_is_not_finite_shortens_the_step() -> None:
    def logarithmic(x: np.ndarray) -> tuple[float, np.ndarray]:
        with np.errstate(invalid="ignore"):
            return float(np.sum(x - 3 * np.log(x))), 1 - 3 / x

    *_, last = lbfgs(logarithmic, np.array([0.5, 9.0]), first_step=50.0)
    np.testing.assert_allclose(last.model, 3.0, rtol=1e-6)


def test_saved_state_goes_on_as_if_nothing_had_happened() -> None:
    start = np.random.default_rng(2).uniform(-2, 2, 20)
    straight = list(itertools.islice(lbfgs(rosenbrock, start, upper=0.95, memory=4), 20))
    file = io.BytesIO()
    np.savez(file, **straight[7].to_arrays())
    file.seek(0)
    with np.load(file) as arrays:
        again = list(itertools.islice(lbfgs(rosenbrock, LBFGSState.from_arrays(arrays), upper=0.95, memory=4), 13))
    for a, b in zip(straight[7:], again, strict=True):
        assert (a.iteration, a.evaluations, a.value) == (b.iteration, b.evaluations, b.value)
        np.testing.assert_array_equal(a.model, b.model)
    assert len(straight[-1].steps) == 4


def test_single_precision_stays_single_and_comes_as_close() -> None:
    def rounded(x: np.ndarray) -> tuple[float, np.ndarray]:
        assert x.dtype == np.float32
        value, gradient = rosenbrock(x.astype(float))
        return value, gradient.astype(np.float32)

    start = np.array([-1.2, 1.0], np.float32)
    *_, last = itertools.islice(lbfgs(rounded, start, upper=0.75, precondition=np.array([1.0, 2.0])), 60)
    assert last.model.dtype == last.steps[0].dtype == np.float32
    np.testing.assert_allclose(last.model, [0.75, 0.75**2], rtol=1e-5)  # for x = 0.75 the best y is x^2


def test_variables_between_equal_bounds_do_not_move() -> None:
    *_, last = itertools.islice(lbfgs(rosenbrock, np.array([-1.0, 0.5, 0.5]), lower=[-2, 0.25, -2], upper=np.array([2, 0.25, 2])), 60)
    assert last.model[1] == 0.25
    # min over x of 100 (0.25 - x^2)^2 + (1 - x)^2, and z = 0.25^2
    best = scipy.optimize.minimize_scalar(lambda x: 100 * (0.25 - x * x) ** 2 + (1 - x) ** 2, bounds=(0, 1), options={"xatol": 1e-10})
    np.testing.assert_allclose(last.model[[0, 2]], [best.x, 0.0625], rtol=1e-6)


def test_adam_by_its_unrolled_means() -> None:
    """v_t = (1 - beta) sum_i beta^(t - i) g_i^2 (Kingma & Ba 2015, equation 1), likewise the mean; both over their weights' sum."""
    states = list(itertools.islice(adam(rosenbrock, np.array([-1.2, 1.0, 0.4]), step=0.02, decay=(0.8, 0.95), floor=1e-12), 40))
    for t in range(1, 40):
        gradients = np.array([rosenbrock(each.model)[1] for each in states[:t]])
        first, second = (np.average(gradients**power, axis=0, weights=beta ** np.arange(t - 1, -1, -1)) for power, beta in ((1, 0.8), (2, 0.95)))
        np.testing.assert_allclose(states[t].model, states[t - 1].model - 0.02 * first / np.sqrt(second), rtol=1e-9)
    assert states[-1].evaluations == 40


def test_adam_with_a_schedule_finds_the_bounded_minimum_and_goes_on_from_a_state() -> None:
    objective, _, _ = quadratic(8, 20.0)
    best, _ = scipy_minimum(objective, np.zeros(8), -0.05, 0.2)

    def schedule(iteration: int) -> float:
        return 0.05 / (1 + iteration / 30)

    states = list(itertools.islice(adam(objective, np.zeros(8), step=schedule, lower=-0.05, upper=0.2), 1500))
    np.testing.assert_allclose(states[-1].model, best.x, atol=1e-4)
    assert all(np.all((each.model >= -0.05) & (each.model <= 0.2)) for each in states)
    again = next(itertools.islice(adam(objective, states[100], step=schedule, lower=-0.05, upper=0.2), 50, None))
    np.testing.assert_array_equal(again.model, states[150].model)


def test_adam_hardly_moves_what_has_no_gradient() -> None:
    """The first step is step / (1 + floor g_max / g): 0.1 / (1 + 1e-2 / 1e-4) for a gradient of 1e-4 of the largest."""

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        gradient = np.array([1.0, 1e-4, 0.0])
        return float(gradient @ x), gradient

    state: AdamState = next(itertools.islice(adam(objective, np.zeros(3), step=0.1, floor=1e-2), 1, None))
    np.testing.assert_allclose(state.model, [-0.1 / 1.01, -0.1 / 101, 0.0], rtol=1e-12)


def test_minimise_says_why_it_stopped() -> None:
    start, seen = np.array([-1.2, 1.0]), []
    limited = minimise(lbfgs(rosenbrock, start), max_iterations=5, report=seen.append)
    assert (limited.status, limited.last.iteration, len(seen)) == ("iteration-limit", 5, 6)
    assert minimise(lbfgs(rosenbrock, start), max_iterations=500).status == "converged"
    objective, _, _ = quadratic(30, 1e6)
    slow = minimise(lbfgs(objective, np.zeros(30)), max_iterations=500, tolerance=1e-2)
    assert slow.status == "stagnated"
    calls = itertools.count()

    def interrupted(x: np.ndarray) -> tuple[float, np.ndarray]:
        if next(calls) == 6:
            raise KeyboardInterrupt
        return rosenbrock(x)

    stopped = minimise(lbfgs(interrupted, start), max_iterations=50)
    assert stopped.status == "interrupted"
    assert 0 < stopped.last.iteration < 6


BAD: list[tuple[dict[str, Any], str]] = [
    ({"start": np.zeros((2, 2))}, "'start' of shape"),
    ({"start": np.array([1, 2])}, "'start'.*float32 or float64"),
    ({"start": np.array([np.nan, 2.0])}, "'start' nan at index 0"),
    ({"lower": 2.0, "upper": 1.0}, "'bounds' lower 2, upper 1 at variable 0"),
    ({"lower": np.zeros(3)}, "'lower' of shape"),
    ({"precondition": np.array([1.0, 0.0])}, "'precondition' 0 at index 1"),
    ({"memory": 0}, "'memory'"),
    ({"first_step": 0.0}, "'first_step'"),
    ({"max_step": -1.0}, "'max_step'"),
    ({"curvature": 1.0}, "'curvature'"),
    ({"value_and_gradient": lambda x: (np.nan, x)}, "'objective' nan at iteration 0"),
    ({"value_and_gradient": lambda x: (1.0, np.append(x, 0))}, "'gradient' of shape"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_misuse_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lbfgs(**({"value_and_gradient": rosenbrock, "start": np.array([0.0, 1.0])} | change))
