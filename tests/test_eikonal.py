"""First-arrival times against analytic ones, and their derivative against the system that is solved."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from scipy.sparse.linalg import spsolve_triangular

from geoinv.datasets.ground import Ground
from geoinv.operators import Eikonal, Grid

RANDOM = np.random.default_rng(0)


def times(grid: Grid, slowness: np.ndarray, source: Any, receivers: np.ndarray, **options: Any) -> np.ndarray:
    return Eikonal(grid, np.atleast_2d(source), receivers, np.zeros(len(receivers), int), **options)(slowness).numpy()


def anywhere(grid: Grid, count: int) -> np.ndarray:
    return np.stack([RANDOM.uniform(axis[0], axis[-1], count) for axis in grid.edges], axis=1)


def uneven(*shape: int) -> Grid:
    return Grid(tuple(np.cumsum(RANDOM.uniform(0.5, 1.5, n + 1)) for n in shape))


def smooth(grid: Grid) -> np.ndarray:
    """Slowness that falls with depth and varies along it."""
    upward, *_, easting = np.meshgrid(*grid.centers, indexing="ij")
    return 1 / (800 - 20 * upward + 100 * np.sin(easting / 20) * np.cos(upward / 15))


@pytest.mark.parametrize("grid", [Grid.uniform((20, 30), (2.0, 3.0)), uneven(20, 30), Grid.uniform((9, 10, 11), (2.0, 2.0, 3.0)), uneven(9, 10, 11)])
@pytest.mark.parametrize("order", [1, 2])
def test_homogeneous_times_are_exact(grid: Grid, order: int) -> None:
    """For sources and receivers anywhere: on a node, an edge, a face, and at one place."""
    node = [axis[3] for axis in grid.edges]
    receivers = np.concatenate([anywhere(grid, 20), [node], [[*node[:-1], node[-1] + 0.3]]])
    for source in (node, [*node[:-1], node[-1] + 0.2], np.add(node, 0.3), [axis[0] for axis in grid.edges], receivers[0]):
        expected = np.linalg.norm(receivers - source, axis=1) / 1234
        np.testing.assert_allclose(times(grid, np.full(grid.shape, 1 / 1234), source, receivers, order=order), expected, rtol=1e-11)


@pytest.mark.parametrize(("ndim", "cells"), [(2, (40, 80, 160)), (3, (20, 40))])
@pytest.mark.parametrize("order", [1, 2])
def test_order_of_accuracy_where_velocity_is_linear_in_depth(ndim: int, cells: tuple[int, ...], order: int) -> None:
    """Rays are arcs: cosh(g T) = 1 + (g d)^2 / (2 v_source v_receiver) (Slotnick, Geophysics 1, 1936)."""
    errors, gradient = [], -10.0
    source, along = np.full(ndim, 11.7), np.linspace(1, 99, 37)
    source[0] = -3.3
    receivers = np.stack([np.full(37, -1.3), *[along] * (ndim - 1)], axis=1)
    for n in cells:
        grid = Grid.uniform((n // 2, *[n] * (ndim - 1)), (100 / n,) * ndim, (-50.0, *[0.0] * (ndim - 1)))
        velocity = 1000 + gradient * grid.centers[0]
        model = np.broadcast_to(np.reshape(1 / velocity, (-1, *[1] * (ndim - 1))), grid.shape)
        square = np.sum((receivers - source) ** 2, axis=1)
        expected = np.arccosh(1 + gradient**2 * square / 2 / (1000 + gradient * source[0]) / (1000 + gradient * receivers[:, 0])) / abs(gradient)
        errors.append(np.linalg.norm(times(grid, model, source, receivers, order=order) - expected) / np.linalg.norm(expected))
    assert np.log2(errors[-2] / errors[-1]) > order - 0.2
    assert errors[-1] < {1: 1e-2, 2: 2e-3}[order]


@pytest.mark.parametrize("contrast", [1.8, 4.0])
def test_head_waves_along_an_interface(contrast: float) -> None:
    """Direct and head wave of two layers; the interface is where cells meet, and errors fall as their size."""
    upper, lower, errors = 500.0, 500.0 * contrast, []
    along = np.linspace(2, 119, 60)
    for size in (2.0, 1.0, 0.5):
        grid = Grid.uniform((int(40 / size), int(120 / size)), (size, size), (-40.0, 0.0))
        model = np.where(grid.centers[0][:, np.newaxis] > -10, 1 / upper, 1 / lower) * np.ones(grid.shape)
        found = times(grid, model, [-0.3, 1.3], np.stack([np.full(60, -0.3), along], axis=1))
        far = along - 1.3
        head = far / lower + 2 * 9.7 * np.sqrt(1 / upper**2 - 1 / lower**2)
        errors.append(np.abs(found - np.minimum(far / upper, head)).max() / found.max())
    assert errors[0] < 0.02 and errors[-1] < 0.004 and errors[-1] < 0.4 * errors[0]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("rough", [False, True])
def test_times_are_continuous_in_places(ndim: int, rough: bool) -> None:
    """Of a source and of receivers that cross nodes, edges and faces."""
    grid = Grid.uniform((10, 12, 14)[:ndim], (2.0,) * ndim)
    model, receivers = (1 / RANDOM.uniform(500, 3000, grid.shape) if rough else smooth(grid)), anywhere(grid, 40)
    for place in ([6.0] * ndim, [6.0, 7.3, 6.0][:ndim], [7.1, 7.1, 8.0][-ndim:]):
        for step in RANDOM.normal(size=(4, ndim)) * 1e-7:
            moved = times(grid, model, np.add(place, step), receivers) - times(grid, model, place, receivers)
            assert np.abs(moved).max() <= model.max() * np.linalg.norm(step) * 2, "a wave to the new place takes no longer than that"
            moved = times(grid, model, receivers[0], np.array([place]) + step) - times(grid, model, receivers[0], np.array([place]))
            assert np.abs(moved).max() <= model.max() * np.linalg.norm(step) * 2


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("refinement", [1, 2])
def test_the_derivative_is_that_of_what_was_solved(order: int, refinement: int) -> None:
    """By the assembled system, by finite differences of smooth changes, and by Euler: times are homogeneous in the slowness."""
    grid = Grid.uniform((20, 30), (2.0, 3.0), (-40.0, 0.0))
    sources, receivers = np.array([[-1.0, 1.0], [-19.7, 45.2], [-0.4, 88.0]]), anywhere(grid, 60)
    operator = Eikonal(grid, sources, receivers, RANDOM.integers(0, 3, 60), order=order, refinement=refinement)
    model, v = smooth(grid), smooth(grid)[::-1, ::-1]
    at = operator.linearize(tf.constant(model))
    np.testing.assert_allclose(at.jvp(model), at.data, rtol=1e-11)
    for shot in range(3):
        matrix, right, picks = operator.triangle(model, shot)
        assert scipy.sparse.triu(matrix, 1).nnz == 0 and np.all(matrix.diagonal() == 1)
        assert abs(operator.triangular_matrix(model, shot).to_scipy() - matrix).max() == 0
        of_shot = operator.shots == shot
        np.testing.assert_allclose((picks @ spsolve_triangular(matrix, right @ v.ravel()))[...], at.jvp(v).numpy()[of_shot], rtol=1e-10)
        w = np.where(of_shot, RANDOM.normal(size=60), 0)
        adjoint = right.T @ spsolve_triangular(matrix.T.tocsr(), picks.T @ w[of_shot], lower=False)
        np.testing.assert_allclose(at.vjp(w).numpy().ravel(), adjoint, atol=1e-11 * np.abs(adjoint).max())
    steps = 1e-3 * 0.5 ** np.arange(4)
    left = [np.abs(operator(model + step * v).numpy() - at.data - step * at.jvp(v).numpy()) for step in steps]
    rates = np.log2(np.array(left[:-1]) / np.array(left[1:]))
    assert np.abs(np.median(rates, axis=1) - 2).max() < 0.1


def test_times_are_made_of_slowness_in_the_roughest_model() -> None:
    """Of contrasts of a thousand, where some nodes have the source beside them and no neighbour upwind."""
    grid = Grid.uniform((14, 14), (1.0, 1.0))
    model = 10 ** RANDOM.uniform(-4, -1, grid.shape)
    nodes = np.stack(np.meshgrid(*grid.edges, indexing="ij"), axis=-1).reshape(-1, 2)
    for source in anywhere(grid, 20):
        at = Eikonal(grid, source[np.newaxis], nodes, np.zeros(len(nodes), int)).linearize(tf.constant(model))
        np.testing.assert_allclose(at.jvp(model), at.data, rtol=1e-9)


def ground(grid: Grid, surface: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Cells with any ground below a surface."""
    edges = grid.edges[1]
    top = np.max([surface(edges[:-1] + share * np.diff(edges)) for share in np.linspace(0, 1, 9)], axis=0)
    return grid.edges[0][:-1, np.newaxis] < top


@pytest.mark.parametrize("shape", ["slope", "hill", "valley"])
def test_waves_follow_the_ground(shape: str) -> None:
    """Straight through a slope and a hill, and around the bottom of a valley, in which there is no staircase of cells."""
    surface: Callable[[np.ndarray], np.ndarray] = {
        "slope": lambda x: 0.4 * x - 20, "hill": lambda x: 10 - 0.3 * np.abs(x - 50), "valley": lambda x: 0.5 * np.abs(x - 50) - 20,
    }[shape]  # fmt: skip
    along, errors = np.linspace(1, 99, 45), []
    receivers, source = np.stack([surface(along), along], axis=1), np.array([surface(np.array(7.3)), 7.3])
    bottom = np.array([-20.0, 50.0])
    direct, around = np.linalg.norm(receivers - source, axis=1), np.linalg.norm(bottom - source) + np.linalg.norm(receivers - bottom, axis=1)
    expected = np.where((along > 50) & (shape == "valley"), around, direct) / 1000
    for size in (2.0, 0.5):
        grid = Grid.uniform((int(60 / size), int(100 / size)), (size, size), (-40.0, 0.0))
        active = ground(grid, surface)
        model = np.where(active, 1e-3, np.nan)
        operator = Eikonal(grid, source[np.newaxis], receivers, np.zeros(45, int), active=active)
        errors.append(np.abs(operator(model) - expected).max() / expected.max())
        gradient = operator.linearize(tf.constant(model)).vjp(tf.ones(45, tf.float64)).numpy()
        assert np.all(gradient[~active] == 0) and np.all(np.isfinite(gradient))
    assert errors[0] < 6e-3 and errors[1] < 1.5e-3


@pytest.mark.parametrize("shape", [(14, 18), (6, 7, 8)])
def test_the_assembled_jacobian_is_that_of_products(shape: tuple[int, ...]) -> None:
    grid = uneven(*shape)
    shots = np.array([2, 0, 2, 1, 0, 2, 0])
    operator = Eikonal(grid, anywhere(grid, 3), anywhere(grid, 7), shots)
    model = 1 / RANDOM.uniform(500, 3000, shape)
    at, matrix = operator.linearize(tf.constant(model)), operator.jacobian(model).to_scipy()
    for row in range(len(shots)):
        np.testing.assert_allclose(matrix[[row]].toarray().reshape(shape), at.vjp(tf.one_hot(row, len(shots), dtype=tf.float64)), atol=1e-12)
    np.testing.assert_allclose(matrix @ model.ravel(), at.data, rtol=1e-11, err_msg="times are made of slowness")


@pytest.mark.parametrize("ndim", [2, 3])
def test_rays_are_straight_where_velocity_is_constant(ndim: int) -> None:
    grid = Grid.uniform((20,) * ndim, (2.0,) * ndim)
    sources, receivers, shots = anywhere(grid, 2), anywhere(grid, 12), np.repeat([0, 1], 6)
    ways = Eikonal(grid, sources, receivers, shots).rays(np.full(grid.shape, 1e-3))
    for way, receiver, source in zip(ways, receivers, sources[shots], strict=True):
        np.testing.assert_array_equal(way[[0, -1]], [receiver, source])
        along = (source - receiver) / np.linalg.norm(source - receiver)
        off = (way - receiver) - np.outer((way - receiver) @ along, along)
        # Unit vectors between nodes are linear in place, and not those of places: of second order, near the source.
        assert np.abs(off).max() < 0.02 and np.all(np.diff((way - receiver) @ along) > 0)


def test_rays_are_arcs_where_velocity_is_linear_in_depth() -> None:
    """Circles around a point above the ground by v / g (Slotnick 1936); their radius follows from where they begin and end."""
    errors, velocity, gradient = [], 600.0, 40.0
    for cell in (2.0, 1.0):
        grid = Grid.uniform((round(50 / cell), round(120 / cell)), (cell, cell), (-50.0, -10.0))
        model = np.broadcast_to(1 / (velocity - gradient * grid.centers[0][:, None]), grid.shape)
        receivers = np.stack([np.zeros(3), [35.0, 60.0, 95.0]], axis=1)
        ways = Eikonal(grid, np.zeros((1, 2)), receivers, np.zeros(3, int)).rays(model)
        worst = 0.0
        for way, (_, offset) in zip(ways, receivers, strict=True):
            radius = np.hypot(offset / 2, velocity / gradient)
            worst = max(worst, float(np.abs(np.hypot(way[:, 0] - velocity / gradient, way[:, 1] - offset / 2) - radius).max()))
        errors.append(worst)
    assert errors[1] < 0.5 and errors[1] < 0.8 * errors[0]


def test_rays_run_along_the_top_of_a_fast_layer() -> None:
    """Down and up at the critical angle, whose sine is the ratio of velocities, and level between."""
    grid = Grid.uniform((80, 240), (0.5, 0.5), (-40.0, 0.0))
    model = np.broadcast_to(np.where(grid.centers[0] > -10, 1 / 1000, 1 / 4000)[:, None], grid.shape)
    way = Eikonal(grid, [[0.0, 10.0]], [[0.0, 110.0]], [0]).rays(model)[0]
    level = np.abs(way[:, 0] + 10) < 1.0
    assert np.abs(way[:, 0]).max() < 11.0
    run = 10 * np.tan(np.arcsin(1000 / 4000))
    assert np.ptp(way[level, 1]) == pytest.approx(100 - 2 * run, abs=2.0)
    np.testing.assert_allclose(way[~level & (way[:, 1] > 60)][0], [0.0, 110.0])


def test_refinement_resolves_the_ground_below_the_cells() -> None:
    """Along a valley in a constant medium waves take the shortest way below it: over its convex hull, from exact geometry."""
    x = 2.0 * np.arange(40)
    z = -8 * np.exp(-(((x - 39) / 9) ** 2))
    ground = Ground(x, z)
    grid = Grid.uniform((30, 84), (1.0, 1.0), (-30.0, -3.0))
    points, errors = np.stack([z, x], axis=1), []
    exact = np.array([hull(points[: k + 1]) for k in range(1, 40)]) / 500
    for parts in (1, 2, 4):
        operator = Eikonal(grid, points[:1], points[1:], np.zeros(39, int), active=ground.active(grid, parts), refinement=parts)
        errors.append(float(np.sqrt(np.mean((operator(np.full(grid.shape, 1 / 500)) - exact) ** 2))))
    assert errors[1] < 0.5 * errors[0] and errors[2] < 0.7 * errors[1] and errors[2] < 1e-4


def hull(points: np.ndarray) -> float:
    """The length of the shortest way below points (upward, easting), from the first to the last."""
    kept: list[Any] = []
    for point in points:
        while len(kept) > 1 and np.linalg.det([kept[-1] - kept[-2], point - kept[-2]]) >= 0:
            kept.pop()
        kept.append(point)
    return float(np.sum(np.linalg.norm(np.diff(kept, axis=0), axis=1)))


def test_parts_of_cells_may_be_of_the_medium() -> None:
    grid, fine = Grid.uniform((4, 5), (2.0, 2.0)), RANDOM.random((8, 10)) < 0.9
    fine[:, :2] = True
    points = np.array([[1.0, 0.5], [7.0, 1.5]])
    parts = Eikonal(grid, points[:1], points[1:], [0], active=fine, refinement=2)
    finer = Eikonal(Grid.uniform((8, 10), (1.0, 1.0)), points[:1], points[1:], [0], active=fine)
    model = RANDOM.uniform(1, 2, grid.shape)
    np.testing.assert_allclose(parts(model), finer(np.kron(model, np.ones((2, 2)))), rtol=1e-13)
    with pytest.raises(ValueError, match="Invalid 'active'"):
        Eikonal(grid, points[:1], points[1:], [0], active=fine, refinement=3)


def test_subsets_are_of_shots_in_the_order_given() -> None:
    grid = Grid.uniform((8, 10), (2.0, 2.0))
    receivers, shots = anywhere(grid, 12), np.array([2, 0, 1, 1, 0, 2, 2, 0, 1, 0, 2, 1])
    operator, model = Eikonal(grid, anywhere(grid, 4), receivers, shots), smooth(grid)
    whole = operator(model).numpy()
    np.testing.assert_array_equal(operator.subset([2, 0])(model), np.concatenate([whole[shots == 2], whole[shots == 0]]))
    np.testing.assert_array_equal(operator(model), whole, "the same bits each time, on however many threads")
    np.testing.assert_array_equal(operator.subset([2, 0]).subset([1])(model), whole[shots == 0])
    with pytest.raises(ValueError, match=r"'units' \[3\]: must be shots with picks"):
        operator.subset([3])
    assert operator.subset([3, 1])(model).shape == (4,), "a shot without picks adds nothing"
    at, again = operator.linearize(tf.constant(model)), operator.linearize(tf.constant(model))
    np.testing.assert_array_equal(at.vjp(whole), again.vjp(whole))


def test_products_of_a_linearization_may_stand_in_a_graph() -> None:
    grid = Grid.uniform((8, 10), (2.0, 2.0))
    at = Eikonal(grid, anywhere(grid, 1), anywhere(grid, 5), np.zeros(5, int)).linearize(tf.constant(smooth(grid)))
    v = tf.constant(smooth(grid)[::-1])
    np.testing.assert_array_equal(tf.function(at.gauss_newton_product)(v), at.gauss_newton_product(v))


def test_waves_go_around_a_gap_of_one_cell() -> None:
    """A slot in the ground, and a wall in three dimensions with a hole in it."""
    grid = Grid.uniform((20, 21), (1.0, 1.0))
    active = np.ones(grid.shape, bool)
    active[5:, 10] = False
    receiver, source, tips = np.array([[20.0, 15.0]]), np.array([20.0, 5.0]), np.array([[5.0, 10.0], [5.0, 11.0]])
    around = np.linalg.norm(tips[0] - source) + 1 + np.linalg.norm(receiver[0] - tips[1])
    np.testing.assert_allclose(times(grid, np.where(active, 1.0, np.nan), source, receiver, active=active), around, rtol=0.02)
    beside = np.array([20.0, 9.5]), np.array([[20.0, 11.5]])  # the straight way across the slot is shorter than the nodes around a source reach
    around = np.linalg.norm(tips[0] - beside[0]) + 1 + np.linalg.norm(beside[1][0] - tips[1])
    np.testing.assert_allclose(times(grid, np.where(active, 1.0, np.nan), *beside, active=active), around, rtol=0.02)
    box = Grid.uniform((11, 11, 11), (1.0, 1.0, 1.0))
    active = np.ones(box.shape, bool)
    active[:, :, 5] = False
    active[0, 0, 5] = True
    far = 2 * np.sqrt(10**2 + 9.5**2 + 4.5**2)
    found = times(box, np.where(active, 1.0, 0.0), [10.5, 10.0, 1.0], np.array([[10.5, 10.0, 10.0]]), active=active)
    np.testing.assert_allclose(found, far, rtol=0.04)


GRID = Grid.uniform((4, 5), (1.0, 1.0))
GIVEN: dict[str, Any] = {"sources": [[1.0, 1.0]], "receivers": [[2.0, 2.0], [3.5, 4.5]], "shots": [0, 0]}
SPLIT = np.ones((4, 5), bool)
SPLIT[:, 2] = False


@pytest.mark.parametrize(("changed", "says"), [
    ({"sources": [[1.0, 5.1]]}, r"'sources' \[1.  5.1\] at index 0: must be inside the grid. 1 of 1 are not"),
    ({"receivers": [[2.0, 2.0], [np.nan, 1.0]]}, "'receivers' nan"),
    ({"receivers": [[2.0, 2.0], [3.5, 2.5]], "active": SPLIT}, r"'receivers' \[3.5, 2.5\] at index 1: must be in an active cell. 1 of 2 are not"),
    ({"sources": [[1.0, 1.0, 1.0]]}, r"'sources' of shape \(1, 3\): must be of shape \(points, 2\): upward, easting"),
    ({"shots": [0, 1]}, "'shots' 1 at index 1: must be from 0 to 0"),
    ({"shots": [0]}, r"'shots' of shape \(1,\) and type int64: must be 2 whole numbers, one for each pick"),
    ({"shots": [0.0, 0.0]}, "and type float64: must be 2 whole numbers"),
    ({"order": 3}, "'order' 3"),
    ({"refinement": 0}, "'refinement' 0: must be a whole number, 1 or more"),
    ({"active": SPLIT[1:]}, r"'active' of shape \(3, 5\): must be of shape \(4, 5\)"),
    ({"active": SPLIT}, "'active' cells without a way to pick 1: must be connected. 1 of 2 are not reached"),
    ({"active": np.full((4, 5), np.nan)}, "'active' of type float64: must be true or false for each cell"),
    ({"model": np.zeros((4, 5))}, "'slowness' 0 at index 0: must be positive"),
    ({"model": np.full((4, 5), np.nan)}, "'slowness' nan"),
])  # fmt: skip
def test_bad_input_is_named(changed: dict[str, Any], says: str) -> None:
    given = GIVEN | changed
    model = given.pop("model", np.ones((4, 5)))
    with pytest.raises(ValueError, match=says):
        Eikonal(GRID, **{name: np.array(value) if isinstance(value, list) else value for name, value in given.items()})(model)
