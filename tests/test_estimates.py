"""Diagonals, traces, singular values, resolution and posterior covariance from products, against dense matrices."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators.forward import Linearization
from geoinv.operators.sensitivity import Estimate, Posterior, condition, diagonal, gauss_newton_diagonal, linearization, svd, trace

DATA, MODEL = 50, 40
WEIGHTS = np.random.default_rng(0).uniform(0.5, 4.0, DATA)


def falling(size: int, other: int, rate: float) -> np.ndarray:
    """A matrix whose singular values fall geometrically."""
    random = np.random.default_rng(0)  # its own: what a test draws does not depend on which ran before it
    left, right = (np.linalg.qr(random.normal(size=(n, min(size, other))))[0] for n in (size, other))
    return left * rate ** np.arange(min(size, other)) @ right.T


JACOBIAN = falling(DATA, MODEL, 0.8)


@pytest.fixture(scope="module")
def at() -> Linearization:
    return linearization(lambda m: tf.linalg.matvec(JACOBIAN, m), tf.zeros(MODEL, tf.float64))


def within(found: Estimate, exact: np.ndarray) -> None:
    """Errors are as large as they are said to be: their squares over the stated ones are 1 in the mean, give or take that there are few."""
    ratio = (found.value - exact) / found.error
    assert 0.6 < np.sqrt(np.mean(ratio**2)) < 1.6
    assert np.abs(ratio).max() < 5


@pytest.mark.parametrize("method", ["hutch++", "hutchinson"])
def test_diagonals_are_right_within_their_error_bars(method: Any) -> None:
    matrix = falling(200, 200, 0.9)
    matrix = matrix @ matrix.T
    found = diagonal(lambda v: matrix @ v, 200, products=60, method=method)
    assert found.products == 60
    within(found, np.diag(matrix))
    traces = [trace(lambda v: matrix @ v, 200, products=30, method=method, seed=seed) for seed in range(40)]
    within(Estimate(*(np.array([getattr(each, name) for each in traces]) for name in ("value", "error")), 30), np.full(40, np.trace(matrix)))


def test_hutch_plus_plus_beats_hutchinson_at_equal_products() -> None:
    matrix = falling(200, 200, 0.9)
    matrix = matrix @ matrix.T
    calls = []

    def product(v: np.ndarray) -> np.ndarray:
        calls.append(v)
        return matrix @ v

    def error(estimate: Any, exact: Any, method: str) -> float:
        calls.clear()
        off = [np.linalg.norm(estimate(product, 200, products=60, method=method, seed=seed).value - exact) for seed in range(40)]
        assert len(calls) == 2400
        return float(np.mean(off))

    for estimate, exact, better in ((diagonal, np.diag(matrix), 4), (trace, np.trace(matrix), 10)):
        assert error(estimate, exact, "hutch++") < error(estimate, exact, "hutchinson") / better


def test_as_many_products_as_unknowns_are_exact() -> None:
    matrix = falling(20, 20, 0.9)
    matrix = matrix + matrix.T
    found = diagonal(lambda v: matrix @ v, 20, products=20)
    np.testing.assert_allclose(found.value, np.diag(matrix), atol=1e-14)
    assert not found.error.any()


def test_diagonal_of_the_gauss_newton_matrix(at: Linearization) -> None:
    found = gauss_newton_diagonal(at, WEIGHTS, products=150)
    within(found, np.diag(JACOBIAN.T * WEIGHTS @ JACOBIAN))
    assert np.all(found.value >= 0)
    # Gaussian samples squared would have a relative error of sqrt(2 / n); signs are better, never worse.
    assert np.all(found.error < 1.3 * np.sqrt(2 / 150) * found.value)


def test_singular_values_and_vectors(at: Linearization) -> None:
    scale = np.random.default_rng(1).uniform(0.5, 2.0, MODEL)
    white = np.sqrt(WEIGHTS)[:, None] * JACOBIAN * scale
    u, s, v = np.linalg.svd(white)
    found = svd(at, 12, uncertainty=1 / np.sqrt(WEIGHTS), scale=scale)
    np.testing.assert_allclose(found.s, s[:12], rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(found.u * u[:, :12], axis=0)), 1, atol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(found.v * v[:12].T, axis=0)), 1, atol=1e-5)
    left = np.linalg.norm(white - found.u * found.s @ found.v.T, 2)
    assert s[12] * (1 - 1e-6) <= left <= found.error < 20 * left
    rough = svd(at, 12, uncertainty=1 / np.sqrt(WEIGHTS), scale=scale, extra=2, powers=0)
    assert np.abs(rough.s - s[:12]).max() > 10 * np.abs(found.s - s[:12]).max(), "what powers and extra vectors are for"
    assert np.linalg.norm(white - rough.u * rough.s @ rough.v.T, 2) <= rough.error


@pytest.mark.parametrize("transposed", [False, True])
def test_condition(transposed: bool) -> None:
    matrix = JACOBIAN.T if transposed else JACOBIAN
    at = linearization(lambda m: tf.linalg.matvec(matrix, m), tf.zeros(matrix.shape[1], tf.float64))
    random = np.random.default_rng(1)
    scale, uncertainty = random.uniform(0.5, 2.0, matrix.shape[1]), random.uniform(0.5, 2.0, matrix.shape[0])
    values = np.linalg.svd(matrix * scale / uncertainty[:, np.newaxis], compute_uv=False)
    exact = condition(at, scale=scale, uncertainty=uncertainty)
    np.testing.assert_allclose([exact.largest, exact.smallest], values[[0, -1]], rtol=1e-9)
    assert exact.number == pytest.approx(values[0] / values[-1], rel=1e-9)
    some = condition(at, scale=scale, uncertainty=uncertainty, steps=8)
    for found, error, true in zip(some[:2], some.errors, values[[0, -1]], strict=True):
        assert np.abs(values - found).min() <= error + 1e-12, "an error bar holds a singular value"
        assert np.sign(found - true) == (-1 if true == values[0] else 1), "and none lies beyond the largest and the smallest"
    assert some.largest == pytest.approx(values[0], rel=1e-2)


def test_condition_of_a_singular_matrix() -> None:
    at = linearization(lambda m: tf.stack([m[0] + m[1], m[0] + m[1], m[2]]), tf.zeros(3, tf.float64))
    found = condition(at)
    assert found.smallest == pytest.approx(0.0, abs=1e-12) and found.largest == pytest.approx(2.0) and found.number > 1e12


@pytest.fixture(scope="module")
def posterior(at: Linearization) -> tuple[Posterior, np.ndarray, np.ndarray]:
    rough = np.diff(np.eye(MODEL), axis=0)
    prior = 0.05 * rough.T @ rough + 0.02 * np.eye(MODEL)
    information = JACOBIAN.T * WEIGHTS @ JACOBIAN
    return Posterior(at, WEIGHTS, lambda m: prior @ m, tolerance=1e-12), information, np.linalg.inv(information + prior)


def test_resolution_and_covariance(posterior: tuple[Posterior, np.ndarray, np.ndarray]) -> None:
    problem, information, covariance = posterior
    resolution = covariance @ information
    np.testing.assert_allclose(problem.point_spread([3, 20]), resolution[:, [3, 20]], atol=1e-9)
    np.testing.assert_allclose(problem.averaging([3, 20]), resolution[[3, 20]], atol=1e-9)
    within(problem.variance(products=30), np.diag(covariance))
    np.testing.assert_allclose(problem.variance(products=MODEL).value, np.diag(covariance), rtol=1e-8)
    found = problem.degrees_of_freedom(products=30)
    assert abs(found.value - np.trace(resolution)) < 4 * found.error < 0.2 * np.trace(resolution)
    assert problem.degrees_of_freedom(products=MODEL).value == pytest.approx(np.trace(resolution), rel=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda at: diagonal(lambda v: v, 9, products=5), "'products' 5: must be a whole number, 6 or more"),
        (lambda at: trace(lambda v: v, 9, method="best"), "'method' 'best'"),  # type: ignore[arg-type]
        (lambda at: svd(at, 41), "'rank' 41: must be a whole number from 1 to 40"),
        (lambda at: condition(at, steps=0), "'steps' 0: must be a whole number, 1 or more"),
        (lambda at: svd(at, 3, scale=-np.ones(MODEL)), "'scale'"),
        (lambda at: gauss_newton_diagonal(at, np.ones(3)), r"'weights' of shape \(3,\): must be of shape \(50,\)"),
        (lambda at: Posterior(at, np.ones(3), lambda v: v), "'weights' of shape"),
        (lambda at: Posterior(at, WEIGHTS, lambda v: 1e-9 * v, max_iterations=3).covariance(np.ones(MODEL)), "'covariance' with a residual of"),
    ],
)
def test_bad_input(at: Linearization, call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(at)


@pytest.mark.parametrize("products", [6, 9, 12])
def test_errors_of_few_samples_are_large_enough(products: int) -> None:
    """Two thirds of true values lie within one error, and 95 % within two, for either method."""
    matrix = falling(200, 200, 0.9)
    matrix = matrix @ matrix.T
    for method in ("hutch++", "hutchinson"):
        found = [diagonal(lambda v: matrix @ v, 200, products=products, method=method, seed=seed) for seed in range(40)]
        off = np.array([np.abs(each.value - np.diag(matrix)) / each.error for each in found])
        assert 0.6 < np.mean(off < 1) < 0.8
        assert np.mean(off < 2) > 0.9


def test_complex_data_have_real_uncertainties() -> None:
    """One for both parts of a number."""
    real, imaginary = falling(DATA, 5, 0.5), falling(DATA, 5, 0.3)
    at = linearization(lambda m: tf.complex(tf.linalg.matvec(real, m), tf.linalg.matvec(imaginary, m)), tf.zeros(5, tf.float64))
    uncertainty = np.linspace(0.5, 2, DATA)
    whitened = np.vstack([real, imaginary]) / np.tile(uncertainty, 2)[:, None]
    expected = np.linalg.svd(whitened, compute_uv=False)
    np.testing.assert_allclose(svd(at, 5, uncertainty=uncertainty).s, expected, rtol=1e-12)
    found = condition(at, uncertainty=uncertainty)
    np.testing.assert_allclose(found.number, expected[0] / expected[-1], rtol=1e-9)
    with pytest.raises(ValueError, match="'uncertainty' with imaginary parts: must be real"):
        svd(at, 5, uncertainty=uncertainty * (1 + 1j))


@pytest.mark.parametrize("smallest", [0.0, 1e-10, 1e-3])
def test_the_condition_in_single_precision_says_what_rounding_hides(smallest: float) -> None:
    random = np.random.default_rng(1)
    left, right = (np.linalg.qr(random.normal(size=(n, 20)))[0] for n in (30, 20))
    values = np.r_[np.geomspace(1, 1e-2, 19), smallest]
    matrix = tf.constant(left * values @ right.T, tf.float32)
    found = condition(linearization(lambda m: tf.linalg.matvec(matrix, m), tf.zeros(20)))
    assert abs(found.largest - 1) <= found.errors[0] and abs(found.smallest - smallest) <= found.errors[1] < 1e-5
    assert (found.smallest > 10 * found.errors[1]) == (smallest == 1e-3)


@pytest.mark.parametrize(("call", "says"), [
    (lambda at: svd(at, 2, extra=-20), "'extra' -20: must be a whole number, 0 or more"),
    (lambda at: svd(at, "a"), "'rank' 'a': must be a whole number from 1 to 40"),
    (lambda at: svd(nothing(), 1), "'products' nan at index 0: must be finite"),
    (lambda at: condition(nothing()), "'products' nan at index 0"),
    (lambda at: gauss_newton_diagonal(at, -WEIGHTS), "'weights' -.* at index .*: must be zero or more"),
    (lambda at: Posterior(at, -WEIGHTS, lambda v: v), "'weights' -.* at index .*: must be zero or more"),
    (lambda at: Posterior(at, WEIGHTS, lambda v: v, max_iterations=0), "'max_iterations' 0: must be a whole number, 1 or more"),
    (lambda at: diagonal(lambda v: v, 0), "'size' 0: must be a whole number, 1 or more"),
])  # fmt: skip
def test_bad_arguments_are_named(at: Linearization, call: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call(at)


def nothing() -> Linearization:
    return linearization(lambda m: m * np.nan, tf.ones(3, tf.float64))
