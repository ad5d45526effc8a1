"""The inner solvers against NumPy's dense ones."""

import numpy as np
import pytest
import tensorflow as tf

from geoinv.optimize import Product, Solution, conjugate_gradients, free_cells, largest_eigenvalue


def definite(size: int, condition: float, seed: int = 0) -> np.ndarray:
    """A symmetric positive definite matrix with logarithmically spread eigenvalues."""
    vectors, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    return (vectors * np.logspace(0, np.log10(condition), size)) @ vectors.T


def product(matrix: np.ndarray) -> Product:
    constant = tf.constant(matrix)
    return lambda v: tf.linalg.matvec(constant, v)


def identity(r: tf.Tensor) -> tf.Tensor:
    return r


B = np.random.default_rng(1).normal(size=20)


def test_solution_is_that_of_the_dense_solver() -> None:
    matrix = definite(20, 100.0)
    found = conjugate_gradients(product(matrix), tf.constant(B), identity, tolerance=1e-12, max_iterations=60)
    np.testing.assert_allclose(found.x, np.linalg.solve(matrix, B), rtol=1e-9, atol=1e-11)
    assert found.residual <= 1e-12


def test_as_many_steps_as_distinct_eigenvalues() -> None:
    vectors, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(20, 20)))
    matrix = (vectors * np.repeat([1.0, 5.0, 20.0, 70.0], 5)) @ vectors.T
    found = conjugate_gradients(product(matrix), tf.constant(B), identity, tolerance=1e-10, max_iterations=60)
    assert found.iterations == 4
    np.testing.assert_allclose(found.x, np.linalg.solve(matrix, B), rtol=1e-9)


def test_residual_is_the_one_of_the_answer() -> None:
    matrix = definite(20, 1e3)
    found = conjugate_gradients(product(matrix), tf.constant(B), identity, tolerance=1e-30, max_iterations=6)
    assert found.iterations == 6
    assert found.residual == pytest.approx(np.linalg.norm(B - matrix @ found.x.numpy()) / np.linalg.norm(B), rel=1e-9)


def test_stops_at_the_first_step_below_the_tolerance() -> None:
    matrix = definite(20, 1e3)

    def solve(tolerance: float, limit: int) -> Solution:
        return conjugate_gradients(product(matrix), tf.constant(B), identity, tolerance=tolerance, max_iterations=limit)

    found = solve(1e-2, 100)
    assert found.residual <= 1e-2 < solve(1e-30, found.iterations - 1).residual


def test_preconditioner_does_not_change_the_answer_and_saves_steps() -> None:
    scales = np.logspace(-3, 3, 20)
    matrix = scales[:, None] * definite(20, 4.0) * scales
    expected = np.linalg.solve(matrix, scales * B)
    inverse = tf.constant(1 / np.diag(matrix))
    found = conjugate_gradients(product(matrix), tf.constant(scales * B), lambda r: inverse * r, tolerance=1e-12, max_iterations=60)
    np.testing.assert_allclose(found.x, expected, rtol=1e-9)
    plain = conjugate_gradients(product(matrix), tf.constant(scales * B), identity, tolerance=1e-12, max_iterations=60)
    assert found.iterations < 25 < plain.iterations


def test_exact_preconditioner_needs_one_step() -> None:
    matrix = definite(20, 1e4)
    found = conjugate_gradients(product(matrix), tf.constant(B), product(np.linalg.inv(matrix)), tolerance=1e-8, max_iterations=60)
    assert found.iterations == 1


def test_semidefinite_gives_the_smallest_solution_of_a_consistent_system() -> None:
    factor = np.random.default_rng(4).normal(size=(6, 20))
    matrix = factor.T @ factor
    right = matrix @ B
    found = conjugate_gradients(product(matrix), tf.constant(right), identity, tolerance=1e-11, max_iterations=60)
    np.testing.assert_allclose(found.x, np.linalg.pinv(matrix) @ right, atol=1e-8)
    assert found.iterations <= 8


def test_direction_nobody_sees_ends_the_search() -> None:
    found = conjugate_gradients(product(np.zeros((20, 20))), tf.constant(B), identity, tolerance=1e-6, max_iterations=60)
    np.testing.assert_array_equal(found.x, np.zeros(20))
    assert found.iterations == 0


def test_zero_right_side_needs_no_step() -> None:
    found = conjugate_gradients(product(definite(20, 10.0)), tf.zeros(20, tf.float64), identity, tolerance=1e-6, max_iterations=60)
    np.testing.assert_array_equal(found.x, np.zeros(20))
    assert (found.iterations, found.residual) == (0, 0.0)


def test_cells_held_at_a_bound_are_those_pushed_through_it() -> None:
    model = tf.constant([0.0, 0.0, 0.5, 1.0, 1.0, 0.0, 1.0], tf.float64)
    gradient = tf.constant([1.0, -1.0, 1.0, 1.0, -1.0, 0.0, 0.0], tf.float64)  # the descent goes against it
    np.testing.assert_array_equal(free_cells(model, gradient, tf.zeros(7, tf.float64), tf.ones(7, tf.float64)), [0, 1, 1, 1, 0, 1, 1])


def test_largest_eigenvalue_approaches_from_below() -> None:
    matrix = definite(20, 50.0)
    exact = np.linalg.eigvalsh(matrix).max()
    start = tf.constant(np.random.default_rng(5).normal(size=20))
    few, many = (largest_eigenvalue(product(matrix), start, iterations=n) for n in (6, 200))
    assert 0.5 * exact < few <= exact * (1 + 1e-12)
    assert many == pytest.approx(exact, rel=1e-6)
    assert largest_eigenvalue(product(0 * matrix), start) == 0.0
