"""Weights: the probed diagonal against the exact one, within its statistical error; depth weights by hand."""

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators.grid import Grid
from geoinv.weighting import depth_weights, probed_diagonal, sensitivity_weights

JACOBIAN = np.random.default_rng(0).normal(size=(30, 12)) * np.logspace(0, -2, 12)


def probed(jacobian: np.ndarray, probes: int, seed: int = 0) -> np.ndarray:
    return probed_diagonal(lambda w: tf.linalg.matvec(tf.constant(jacobian.T), tf.reshape(w, [-1])), (len(jacobian), 1), probes=probes, seed=seed)


def test_probed_diagonal_is_unbiased_within_its_error() -> None:
    """For random signs, Var (J^T z)_j^2 = 2 ((sum_i J_ij^2)^2 - sum_i J_ij^4)."""
    probes = 2000
    exact = (JACOBIAN**2).sum(axis=0)
    error = np.sqrt(2 * (exact**2 - (JACOBIAN**4).sum(axis=0)) / probes)
    off = (probed(JACOBIAN, probes) - exact) / error
    assert np.abs(off).max() < 4
    assert 0.2 < np.sqrt(np.mean(off**2)) < 2  # and not suspiciously right


def test_one_datum_a_cell_is_exact_with_one_probe() -> None:
    jacobian = np.diag([3.0, -2.0, 0.5])
    np.testing.assert_allclose(probed(jacobian, 1), [9.0, 4.0, 0.25], rtol=1e-15)


def test_probes_follow_the_seed() -> None:
    np.testing.assert_array_equal(probed(JACOBIAN, 3, seed=4), probed(JACOBIAN, 3, seed=4))
    assert np.any(probed(JACOBIAN, 3, seed=4) != probed(JACOBIAN, 3, seed=5))


def test_sensitivity_weights_are_roots_of_sensitivities_per_volume() -> None:
    # Roots of sqrt(diagonal) / volume = 4 / 2, 6 / 6, 1 / 8, and a cell that nobody sees
    weights = sensitivity_weights(np.array([16.0, 36.0, 1.0, 0.0]), np.array([2.0, 6.0, 8.0, 1.0]))
    np.testing.assert_allclose(weights[:3], np.sqrt([1.0, 0.5, 0.0625]), rtol=1e-15)
    assert 0 < weights[3] < 0.01


def test_sensitivities_that_vanish_are_refused() -> None:
    with pytest.raises(ValueError, match="'sensitivities' zero everywhere"):
        sensitivity_weights(np.zeros(3), np.ones(3))


def test_depth_weights_by_hand() -> None:
    """Layers of 10 m: depths 5, 15, 25, 35 m over z0 = 5 m; one column has its top cell in the air."""
    grid = Grid.uniform((4, 1, 2), (10.0, 20.0, 20.0))
    active = np.ones(grid.shape, bool)
    active[-1, 0, 1] = False
    weights = np.full(grid.shape, np.nan)
    weights[active] = depth_weights(grid, active, exponent=2.0)
    np.testing.assert_allclose(weights[:, 0, 0], [1 / 8, 1 / 6, 1 / 4, 1 / 2], rtol=1e-14)
    np.testing.assert_allclose(weights[:3, 0, 1], [1 / 6, 1 / 4, 1 / 2], rtol=1e-14)
    np.testing.assert_allclose(depth_weights(grid, active, exponent=3.0), weights[active] ** 1.5, rtol=1e-14)


def test_depth_weights_of_growing_layers_are_scaled_by_the_top_one() -> None:
    """Layers of 40, 20 and 10 m from the bottom up: depths 50, 20, 5 m over z0 = 5 m, half the top cell."""
    grid = Grid((np.array([-70.0, -30.0, -10.0, 0.0]), np.array([0.0, 1.0]), np.array([0.0, 1.0])))
    np.testing.assert_allclose(depth_weights(grid, np.ones(grid.shape, bool), exponent=2.0), [1 / 11, 1 / 5, 1 / 2], rtol=1e-14)
