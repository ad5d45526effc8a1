"""Model maps: values and derivatives against their formulas, adjoints by the dot test, and what they refuse."""

import numpy as np
import pytest
import tensorflow as tf

from geoinv.maps import ActiveCells, Bounded, Exponential, Reciprocal, Weighted, WithTrend
from geoinv.operators.forward import ForwardOperator
from geoinv.operators.gravity.prism import GravityPrism
from geoinv.operators.grid import Grid
from geoinv.operators.testing import dot_test, jvp_vjp_check, taylor_test

ACTIVE = np.array([[[True, False, True], [True, True, True]], [[False, False, True], [True, False, False]]])
GRID = Grid.uniform((2, 2, 3), (10.0, 10.0, 10.0), origin=(-20.0, 0.0, 0.0))
STATIONS = {"upward": np.array([1.0, 2.0, 3.0]), "northing": np.array([4.0, 13.0, 9.0]), "easting": np.array([3.0, 12.0, 25.0])}
TERMS = np.array([[1.0, -0.5], [1.0, 0.0], [1.0, 2.0]])[:, None, :]


def physics() -> ForwardOperator:
    return GravityPrism(GRID, STATIONS) @ ActiveCells(ACTIVE)


MAPS = {
    "active": lambda: ActiveCells(ACTIVE),
    "exponential": lambda: Exponential((5,)),
    "reciprocal": lambda: Reciprocal((5,)) @ Exponential((5,)),
    "bounded": lambda: Bounded(-1.0, np.linspace(2.0, 5.0, 5), (5,)),
    "weighted": lambda: Exponential((5,)) @ Weighted(np.linspace(-1.0, 1.0, 5), np.array([0.0, 1.0, 0.5, 0.0, 2.0])),
    "trend": lambda: WithTrend(GravityPrism(GRID, STATIONS) @ ActiveCells(ACTIVE), TERMS * 1e-8),
    "trend of a nonlinear operator": lambda: WithTrend(physics() @ Exponential((7,)), TERMS * 1e-8),
}


@pytest.mark.parametrize("name", MAPS)
def test_derivatives(name: str) -> None:
    operator = MAPS[name]()
    assert dot_test(operator) < 1e-12
    assert jvp_vjp_check(operator) < 1e-12
    assert taylor_test(operator) == pytest.approx(2.0, abs=0.05)


def test_active_cells_place_a_vector_as_a_mask_does() -> None:
    values = np.arange(1.0, 8.0)
    expected = np.zeros(ACTIVE.shape)
    expected[ACTIVE] = values
    np.testing.assert_array_equal(ActiveCells(ACTIVE)(values), expected)


def test_active_cells_pull_back_only_what_is_active() -> None:
    cotangent = np.random.default_rng(0).normal(size=ACTIVE.shape)
    at = ActiveCells(ACTIVE).linearize(tf.zeros(7, tf.float64))
    np.testing.assert_array_equal(at.vjp(cotangent), cotangent[ACTIVE])


def test_exponential_and_its_curvature() -> None:
    model, v, w = np.random.default_rng(1).normal(size=(3, 5))
    at = Exponential((5,)).linearize(tf.constant(model))
    np.testing.assert_allclose(at.data, np.exp(model), rtol=1e-15)
    np.testing.assert_allclose(at.jvp(v), np.exp(model) * v, rtol=1e-15)
    np.testing.assert_allclose(at.hessian_product(v, w), np.exp(model) * v * w, rtol=1e-15)


def test_reciprocal_and_its_curvature() -> None:
    model, v, w = np.array([0.5, -2.0, 0.0, 4.0]), np.arange(1.0, 5.0), np.array([1.0, 2.0, 3.0, -1.0])
    at = Reciprocal((4,)).linearize(tf.constant(model))
    np.testing.assert_allclose(at.data, [2.0, -0.5, 0.0, 0.25])
    np.testing.assert_allclose(at.jvp(v), [-4.0, -0.5, 0.0, -0.25])
    np.testing.assert_allclose(at.hessian_product(v, w), 2 * np.array([8.0, -0.125, 0.0, 1 / 64]) * v * w)


def test_bounded_values_and_their_inverse() -> None:
    """tanh in other words: l + (u - l) (1 + tanh(m / 2)) / 2."""
    lower, upper = np.array([-1.0, 0.0, 1400.0]), np.array([3.0, 1e-3, 6000.0])
    bounded, model = Bounded(lower, upper, (3,)), np.array([-2.0, 0.3, 5.0])
    np.testing.assert_allclose(bounded(model), lower + (upper - lower) * (1 + np.tanh(model / 2)) / 2, rtol=1e-14)
    np.testing.assert_allclose(bounded.inverse(bounded(model)), model, rtol=1e-12)
    np.testing.assert_allclose(bounded([-1e3, 1e3, 0.0]), [-1.0, 1e-3, 3700.0])
    v, w = np.random.default_rng(4).normal(size=(2, 3))
    step = 1e-3
    differences = (bounded(model + step * v) - 2 * bounded(model) + bounded(model - step * v)) / step**2
    np.testing.assert_allclose(bounded.linearize(tf.constant(model)).hessian_product(v, w) * v, differences * w, rtol=1e-4)
    single = Bounded(1.0, 2.0, (2,), tf.float32)
    assert single([0.0, 1.0]).dtype == tf.float32
    with pytest.raises(ValueError, match=r"'values' with 1 at the bounds or beyond"):
        bounded.inverse([-1.0, 5e-4, 2000.0])
    with pytest.raises(ValueError, match=r"'bounds' crossed"):
        Bounded(1.0, 0.0, (2,))


def test_weights_of_zero_hold_the_reference() -> None:
    reference, weights = np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.5])
    weighted = Weighted(reference, weights)
    np.testing.assert_array_equal(weighted([9.0, -1.0, 4.0]), [1.0, 1.0, 5.0])
    np.testing.assert_array_equal(weighted.linearize(tf.zeros(3, tf.float64)).vjp([1.0, 1.0, 1.0]), weights)
    with pytest.raises(ValueError, match="'weights' of shape"):
        Weighted(reference, weights[:2])


def test_trend_is_added_to_the_physics() -> None:
    model = np.array([*np.linspace(-300.0, 300.0, 7), 2.0, 3.0])
    expected = physics()(model[:7]).numpy()[:, 0] + 2.0 + 3.0 * np.array([-0.5, 0.0, 2.0])
    np.testing.assert_allclose(WithTrend(physics(), TERMS)(model)[:, 0], expected, rtol=1e-14)


def test_subset_of_a_trend_takes_the_rows_of_its_stations() -> None:
    whole, model = WithTrend(physics(), TERMS), np.linspace(-1.0, 1.0, 9)
    np.testing.assert_allclose(whole.subset([2, 0])(model), tf.gather(whole(model), [2, 0]), rtol=1e-14)


def test_curvature_of_a_trend_is_that_of_its_physics() -> None:
    v, w = np.random.default_rng(2).normal(size=9), np.random.default_rng(3).normal(size=(3, 1))
    inner = physics() @ Exponential((7,))
    model = tf.constant(np.linspace(0.0, 1.0, 9))
    expected = np.pad(inner.linearize(model[:7]).hessian_product(v[:7], w), (0, 2))
    np.testing.assert_allclose(WithTrend(inner, TERMS).linearize(model).hessian_product(v, w), expected, rtol=1e-14)
    assert np.abs(expected).max() > 0


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="'active' without any active cell"):
        ActiveCells(np.zeros((2, 2, 2), bool))
    with pytest.raises(ValueError, match="'trend' of shape"):
        WithTrend(physics(), TERMS[:2])
    for operator in (ActiveCells(ACTIVE), Exponential((5,))):
        with pytest.raises(ValueError, match="A map has no units"):
            operator.subset([0])
