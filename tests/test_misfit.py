"""Misfits: values by hand, the weights as the gradient they stand for, by finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from geoinv.misfit import L2, Huber, Misfit

RESIDUALS = tf.constant([[-9.0, -1.5, -1.0], [0.0, 0.3, 40.0]], tf.float64)
MISFITS = [L2(), Huber(), Huber(0.5)]


def gradient(misfit: Misfit, r: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """By central differences, entry by entry."""
    result = np.zeros(r.shape)
    for index in np.ndindex(r.shape):
        change = np.zeros(r.shape)
        change[index] = step
        result[index] = (float(misfit.value(tf.constant(r + change))) - float(misfit.value(tf.constant(r - change)))) / (2 * step)
    return result


@pytest.mark.parametrize("misfit", MISFITS, ids=str)
def test_gradient_is_twice_the_weighted_residual(misfit: Misfit) -> None:
    expected = 2 * misfit.weights(RESIDUALS) * RESIDUALS
    np.testing.assert_allclose(gradient(misfit, RESIDUALS.numpy()), expected, rtol=1e-8, atol=1e-8)


def test_huber_by_hand() -> None:
    # k = 2: 1.5^2 = 2.25; 2 * 2 * 5 - 2^2 = 16; at the threshold itself both branches give 4
    assert float(Huber(2.0).value(tf.constant([1.5, -5.0, 2.0], tf.float64))) == pytest.approx(22.25, rel=1e-15)
    np.testing.assert_allclose(Huber(2.0).weights(tf.constant([1.5, -5.0, 2.0, 0.0], tf.float64)), [1.0, 0.4, 1.0, 1.0], rtol=1e-15)


def test_l2_by_hand() -> None:
    assert float(L2().value(tf.constant([[3.0], [-4.0]], tf.float64))) == 25.0
    np.testing.assert_array_equal(L2().weights(RESIDUALS), np.ones((2, 3)))


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_huber_and_its_slope_are_continuous_at_the_threshold(sign: float) -> None:
    k, small = 1.345, 1e-9
    below, above = (tf.constant([sign * (k + side * small)], tf.float64) for side in (-1, 1))
    misfit = Huber(k)
    assert float(misfit.value(above) - misfit.value(below)) == pytest.approx(4 * k * small, rel=1e-5)
    np.testing.assert_allclose(misfit.weights(above) * above, misfit.weights(below) * below, rtol=1e-8)


def test_huber_agrees_with_l2_below_the_threshold() -> None:
    small = tf.constant(np.linspace(-1.3, 1.3, 27))
    assert float(Huber().value(small)) == float(L2().value(small))


def test_expected_value_on_gaussian_noise() -> None:
    """E[r^2] = 1; for Huber the integral of the definition against the normal density."""
    r = np.linspace(-12.0, 12.0, 240_001)
    density = np.exp(-(r**2) / 2) / np.sqrt(2 * np.pi)
    huber = np.where(abs(r) <= 1.345, r**2, 2 * 1.345 * abs(r) - 1.345**2)
    noise = tf.constant(np.random.default_rng(0).normal(size=200_000))
    assert float(L2().value(noise)) / 200_000 == pytest.approx(1.0, abs=0.01)
    assert float(Huber().value(noise)) / 200_000 == pytest.approx(float(np.trapezoid(huber * density, r)), abs=0.01)


@pytest.mark.parametrize("threshold", [0.0, -1.0, np.nan])
def test_threshold_must_be_positive(threshold: float) -> None:
    with pytest.raises(ValueError, match="Invalid 'threshold'"):
        Huber(threshold)
