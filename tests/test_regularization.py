"""The model norm against a dense matrix summed face by face, and against integrals worked out by hand."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators.grid import Grid
from geoinv.regularization import Regularization, small_and_blocky, small_and_smooth

UNEVEN = Grid((np.array([-90.0, -40.0, -15.0, 0.0]), np.array([0.0, 20.0, 50.0, 65.0]), np.array([100.0, 112.0, 150.0, 170.0, 200.0])))
ACTIVE = np.random.default_rng(5).random(UNEVEN.shape) < 0.7
EVERYWHERE = np.ones(UNEVEN.shape, bool)


def dense(grid: Grid, active: np.ndarray, smallness: float, smoothness: Any, weights: np.ndarray) -> np.ndarray:
    """H, term by term from the definition in the module's docstring, over all cells; rows of inactive cells removed."""
    widths = [np.diff(edges) for edges in grid.edges]
    volume = np.einsum("i,j,k->ijk", *widths)
    volume = volume / volume[active].mean()
    square = np.zeros(grid.shape)
    square[active] = weights**2
    length = min(widths[1].min(), widths[2].min())
    number = np.arange(grid.size).reshape(grid.shape)
    hessian = np.diag((smallness * square * volume).ravel())
    for cell in np.argwhere(active):
        for axis in range(3):
            other = cell + np.eye(3, dtype=int)[axis]
            if other[axis] == grid.shape[axis] or not active[tuple(other)]:
                continue
            a, b = tuple(cell), tuple(other)
            distance = (widths[axis][cell[axis]] + widths[axis][other[axis]]) / 2
            row = np.zeros(grid.size)
            row[number[a]], row[number[b]] = -1 / distance, 1 / distance
            face = (square[a] * volume[a] + square[b] * volume[b]) / 2
            hessian += smoothness[axis] * length**2 * face * np.outer(row, row)
    return hessian[np.ix_(active.ravel(), active.ravel())]


@pytest.mark.parametrize("active", [EVERYWHERE, ACTIVE], ids=["all", "some"])
def test_hessian_is_the_sum_over_cells_and_faces(active: np.ndarray) -> None:
    weights = np.random.default_rng(1).uniform(0.1, 2.0, active.sum())
    made = small_and_smooth(UNEVEN, active, smallness=0.7, smoothness=(2.0, 0.5, 1.5), weights=weights)
    np.testing.assert_allclose(made.hessian.to_scipy().toarray(), dense(UNEVEN, active, 0.7, (2.0, 0.5, 1.5), weights), rtol=1e-12, atol=1e-14)


def test_gradients_and_values_are_those_of_the_matrix() -> None:
    model, reference, v = np.random.default_rng(2).normal(size=(3, int(ACTIVE.sum())))
    made = small_and_smooth(UNEVEN, ACTIVE, smallness=1.0, smoothness=(1.0, 1.0, 1.0), reference=reference)
    matrix = dense(UNEVEN, ACTIVE, 1.0, (1.0, 1.0, 1.0), np.ones(ACTIVE.sum()))
    np.testing.assert_allclose(made.gradient(made.reference + v), matrix @ v, rtol=1e-12, atol=1e-13)
    departure = model - reference
    assert float(made.value(tf.constant(model))) == pytest.approx(departure @ matrix @ departure, rel=1e-12)


def test_a_constant_model_is_smooth() -> None:
    made = small_and_smooth(UNEVEN, ACTIVE, smallness=0.0)
    assert float(made.value(tf.fill([int(ACTIVE.sum())], tf.constant(300.0, tf.float64)))) == pytest.approx(0.0, abs=1e-8)


def test_the_reference_costs_nothing_and_sets_the_zero() -> None:
    reference = np.random.default_rng(3).normal(size=int(ACTIVE.sum()))
    assert float(small_and_smooth(UNEVEN, ACTIVE, reference=reference).value(tf.constant(reference))) == 0.0
    number = small_and_smooth(UNEVEN, ACTIVE, reference=200.0)
    np.testing.assert_array_equal(number.reference, np.full(ACTIVE.sum(), 200.0))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_linear_model_gives_the_integral_of_its_squared_slope(axis: int) -> None:
    """Between the outermost centres: L^2 slope^2 x section x distance / mean cell volume."""
    slope, alphas = 3.0, [0.0, 0.0, 0.0]
    alphas[axis] = 2.0
    centers = (UNEVEN.edges[axis][1:] + UNEVEN.edges[axis][:-1]) / 2
    model = np.broadcast_to(slope * centers.reshape([-1 if each == axis else 1 for each in range(3)]), UNEVEN.shape)
    extents = [np.ptp(edges) for edges in UNEVEN.edges]
    section = np.prod(extents) / extents[axis]
    length, mean_volume = 12.0, np.prod(extents) / UNEVEN.size  # the narrowest horizontal width is that from 100 to 112 m
    expected = 2.0 * length**2 * slope**2 * section * np.ptp(centers) / mean_volume
    made = small_and_smooth(UNEVEN, EVERYWHERE, smallness=0.0, smoothness=alphas)
    assert float(made.value(tf.constant(model.ravel()))) == pytest.approx(expected, rel=1e-12)


def test_smallness_is_the_volume_average() -> None:
    made = small_and_smooth(UNEVEN, EVERYWHERE, smallness=2.0, smoothness=(0.0, 0.0, 0.0))
    model = np.random.default_rng(4).normal(size=UNEVEN.shape)
    volume = np.einsum("i,j,k->ijk", *(np.diff(edges) for edges in UNEVEN.edges))
    assert float(made.value(tf.constant(model.ravel()))) == pytest.approx(2.0 * UNEVEN.size * (model**2 * volume).sum() / volume.sum(), rel=1e-12)


def test_extra_entries_are_free() -> None:
    small = small_and_smooth(UNEVEN, ACTIVE, reference=5.0)
    wide = small.extended(2)
    matrix = wide.hessian.to_scipy().toarray()
    np.testing.assert_array_equal(matrix[:-2, :-2], small.hessian.to_scipy().toarray())
    assert not matrix[-2:].any()
    assert not matrix[:, -2:].any()
    np.testing.assert_array_equal(wide.reference, [*small.reference, 0.0, 0.0])
    model = np.random.default_rng(6).normal(size=int(ACTIVE.sum()))
    assert float(wide.value(tf.constant([*model, 1e3, -1e3]))) == pytest.approx(float(small.value(tf.constant(model))), rel=1e-14)
    assert isinstance(wide, Regularization)


@pytest.mark.parametrize(
    "options",
    [
        {"smallness": -1.0},
        {"smoothness": (1.0, -1.0, 1.0)},
        {"smoothness": (1.0, 1.0)},
        {"smallness": 0.0, "smoothness": (0.0, 0.0, 0.0)},
        {"smoothness": (1.0, np.nan, 1.0)},
        {"weights": np.ones(3)},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Invalid '(smallness, )?(smoothness|weights)'"):
        small_and_smooth(UNEVEN, ACTIVE, **options)


# ----------------------------------------------------------------------------------------------------------------- blocky


def blocky(threshold: float, **options: Any) -> Any:
    return small_and_blocky(UNEVEN, ACTIVE, **{"smoothness": (2.0, 0.5, 1.5), "reference": 0.3, "threshold": threshold, **options})


def test_small_differences_count_by_their_square_and_large_ones_by_their_size() -> None:
    model = tf.constant(np.random.default_rng(3).normal(size=int(ACTIVE.sum())))
    smooth = small_and_smooth(UNEVEN, ACTIVE, smallness=0.0, smoothness=(2.0, 0.5, 1.5))
    assert float(blocky(1e4, smallness=0.0).value(model)) == pytest.approx(float(smooth.value(model)), rel=1e-6)
    small = blocky(1e-8, smallness=0.0)
    by_size = 2e-8 * tf.reduce_sum(small.faces * tf.abs(small.differences.matvec(model)))
    assert float(small.value(model)) == pytest.approx(float(by_size), rel=1e-5)


@pytest.mark.parametrize("threshold", [0.01, 0.5])
def test_blocky_gradients_and_a_form_above_it(threshold: float) -> None:
    made, random = blocky(threshold, smallness=0.7), np.random.default_rng(4)
    model, v = (tf.constant(random.normal(size=int(ACTIVE.sum()))) for _ in range(2))
    step = 1e-6
    slope = (made.value(model + step * v) - made.value(model - step * v)) / (2 * step)
    gradient, curvature = made.gradient(model), made.curvature(model)
    assert float(slope) == pytest.approx(2 * float(tf.tensordot(gradient, v, 1)), rel=1e-6)
    for length in (0.1, 1.0, 10.0):
        form = made.value(model) + 2 * length * tf.tensordot(gradient, v, 1) + length**2 * tf.tensordot(v, curvature.matvec(v), 1)
        assert float(made.value(model + length * v)) <= float(form)


def test_blocky_models_keep_an_edge_and_its_place() -> None:
    """Total-variation denoising of a step: either side moves by t beta / cells towards the other (Strong & Chan 2003), the edge stays."""
    grid, threshold, beta = Grid.uniform((1, 64), (1.0, 1.0)), 1e-6, 2e6
    truth, cells = np.where(np.arange(64) < 24, 1.0, 2.0), np.ones((1, 64), bool)
    penalty = small_and_blocky(grid, cells, smallness=0.0, smoothness=(0.0, 1.0), threshold=threshold)
    model = tf.constant(np.linspace(1.0, 2.0, 64))
    for _ in range(200):  # reweighted least squares
        matrix = np.eye(64) + beta * penalty.curvature(model).to_scipy().toarray()
        model = tf.constant(np.linalg.solve(matrix, truth))
    expected = np.where(np.arange(64) < 24, 1.0 + threshold * beta / 24, 2.0 - threshold * beta / 40)
    np.testing.assert_allclose(model, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "says"), [({"threshold": 0.0}, "Invalid 'threshold'"), ({"smoothness": (0.0, 0.0, 0.0)}, "Invalid 'smoothness'")]
)
def test_blocky_needs_a_threshold_and_some_smoothness(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        blocky(**{"threshold": 0.1, **options})
