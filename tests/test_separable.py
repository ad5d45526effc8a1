"""The separable Poisson solve: against its own matrix, SciPy, manufactured fields, and in every execution mode."""

import functools

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import tensorflow as tf

from geoinv.operators.grid import Grid
from geoinv.operators.sparse.separable import Axis, SeparablePoisson, transform
from geoinv.operators.testing import order_test

JUMP = [93.0] * 3 + [10.0] * 5 + [93.0] * 2
GRIDS = {
    "uniform 2-D": Grid.uniform((9, 13), (40.0, 100.0)),
    "uniform 3-D": Grid.uniform((6, 9, 8), (40.0, 100.0, 70.0)),
    "stretched 2-D": Grid.uniform((6, 8), (40.0, 100.0)).pad(5),
    "stretched 3-D": Grid.uniform((4, 5, 3), (40.0, 100.0, 70.0)).pad(((4, 2), (2, 3), (3, 1))),
    "abrupt 2-D": Grid((np.cumsum([0.0, *JUMP]), np.cumsum([0.0, *JUMP[::-1]]))),
    "abrupt 3-D": Grid((np.cumsum([0.0, *JUMP]), np.cumsum([0.0, *JUMP[:8]]), np.cumsum([0.0, *JUMP[2:]]))),
}
grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def right_side(solver: SeparablePoisson, *batch: int) -> np.ndarray:
    return np.random.default_rng(4).standard_normal((*batch, *solver.shape))


@grids
def test_residual_in_the_csr_matrix(grid: Grid) -> None:
    solver = SeparablePoisson(grid)
    b = right_side(solver)
    found = solver.to_csr().matvec(tf.reshape(solver.solve(b), [-1]))
    assert np.linalg.norm(found - b.ravel()) <= 1e-10 * np.linalg.norm(b)


@grids
def test_solution_is_that_of_scipy(grid: Grid) -> None:
    solver = SeparablePoisson(grid)
    b = right_side(solver)
    expected = scipy.sparse.linalg.spsolve(solver.to_scipy().tocsc(), b.ravel())
    np.testing.assert_allclose(np.ravel(solver.solve(b)), expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@grids
def test_matrix_is_symmetric_and_positive_definite(grid: Grid) -> None:
    matrix = SeparablePoisson(grid).to_scipy()
    assert abs(matrix - matrix.T).max() <= 1e-14 * abs(matrix).max()
    assert np.linalg.eigvalsh(matrix.toarray()).min() > 0


@grids
def test_mass_matrices_are_positive_definite_and_conserve_volume(grid: Grid) -> None:
    for axis, widths in zip(SeparablePoisson(grid).axes, grid.widths, strict=True):
        assert np.linalg.eigvalsh(axis.mass.toarray()).min() > 0
        np.testing.assert_allclose(axis.mass.sum(axis=0), widths, rtol=1e-13)
        np.testing.assert_allclose(axis.stiffness.sum(axis=0), 0, atol=1e-15)


def test_matrix_is_the_compact_stencil_of_the_textbooks() -> None:
    # Collatz: on squares of size h the operator is (20, -4, -1) / (6 h^2), here times the cell's area.
    solver = SeparablePoisson(Grid.uniform((5, 5), (10.0, 10.0)))
    row = solver.to_scipy().toarray()[4].reshape(3, 3)
    np.testing.assert_allclose(6 * row, [[-1, -4, -1], [-4, 20, -4], [-1, -4, -1]], atol=1e-13)


@grids
def test_batch_is_a_loop_and_executions_agree(grid: Grid) -> None:
    solver = SeparablePoisson(grid)
    b = tf.constant(right_side(solver, 2, 3) if grid.ndim == 2 else right_side(solver, 3))
    eager = solver.solve(b)
    flat = tf.reshape(b, [-1, *solver.shape])
    loop = tf.reshape(tf.stack([solver.solve(one) for one in flat]), b.shape)
    scale = np.abs(eager).max()
    for found in (loop, tf.function(solver.solve)(b), tf.function(solver.solve, jit_compile=True)(b)):
        np.testing.assert_allclose(found, eager, rtol=0, atol=1e-12 * scale)


def test_solve_is_its_own_adjoint_and_differentiable() -> None:
    solver = SeparablePoisson(GRIDS["stretched 3-D"])
    v, w = (tf.constant(part) for part in right_side(solver, 2))
    with tf.GradientTape() as tape:
        tape.watch(v)
        objective = tf.reduce_sum(solver.solve(v) * w)
    np.testing.assert_allclose(tape.gradient(objective, v), solver.solve(w), rtol=1e-10, atol=1e-12 * np.abs(solver.solve(w)).max())


@grids
def test_boundary_source_is_the_matrix_of_the_ring(grid: Grid) -> None:
    solver = SeparablePoisson(grid)
    terms = []
    for stiff in range(grid.ndim):
        factors = [axis.stiffness if k == stiff else axis.mass for k, axis in enumerate(solver.axes)]
        matrix = scipy.sparse.coo_array([[1.0]])
        for factor in factors:
            matrix = scipy.sparse.kron(matrix, factor[1:-1])
        terms.append(matrix)
    ring = np.random.default_rng(2).standard_normal(grid.shape)
    ring[(slice(1, -1),) * grid.ndim] = 0.0
    expected = -(sum(terms) @ ring.ravel()).reshape(solver.shape)

    def potential(*mesh: np.ndarray) -> np.ndarray:
        return ring[np.ix_(*[np.searchsorted(c, np.ravel(m)) for c, m in zip(grid.centers, mesh, strict=True)])]

    np.testing.assert_allclose(solver.boundary_source(potential), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


# A manufactured field: u = sin(a z) cos(b y) exp(c x), with -laplacian u = (a^2 + b^2 - c^2) u.
RATES = {2: (2.0, 0.7), 3: (2.0, 1.3, 0.7)}
PROFILES = {2: (np.sin, np.exp), 3: (np.sin, np.cos, np.exp)}


def field(*mesh: np.ndarray) -> np.ndarray:
    factors = [f(k * x) for f, k, x in zip(PROFILES[len(mesh)], RATES[len(mesh)], mesh, strict=True)]
    return functools.reduce(np.multiply, factors)


def strength(ndim: int) -> float:
    return sum(k**2 for k in RATES[ndim][:-1]) - RATES[ndim][-1] ** 2


def largest_error(grid: Grid) -> float:
    """Of the solution for a density sampled at the centres."""
    solver = SeparablePoisson(grid)
    inner = np.ix_(*[centers[1:-1] for centers in grid.centers])
    density = tf.constant(strength(grid.ndim) * field(*np.ix_(*grid.centers)))
    matrices = [tf.constant(axis.mass[1:-1].toarray()) for axis in solver.axes]
    found = solver.solve(transform(density, matrices) + solver.boundary_source(field))
    return float(np.abs(found - field(*inner)).max())


def smooth_axis(cells: int, start: float, bend: float) -> np.ndarray:
    """Edges of [start, start + 1] from a smooth map, so that refining halves every cell."""
    t = np.linspace(0, 1, cells + 1)
    return start + t + bend * np.sin(2 * np.pi * t) / (2 * np.pi)


@pytest.mark.parametrize(("bend", "order"), [(0.0, 4.0), (0.5, 2.0)])
@pytest.mark.parametrize("ndim", [2, 3])
def test_observed_order(ndim: int, bend: float, order: float) -> None:
    counts = np.array([8, 12, 16, 24])
    starts = (0.1, 0.4, -0.3)[:ndim]
    errors = [largest_error(Grid(tuple(smooth_axis(n, start, bend) for start in starts))) for n in counts]
    assert order_test(errors, 1 / counts) == pytest.approx(order, abs=0.3)


def test_spectrum_is_that_of_the_compact_scheme() -> None:
    # K v = L M v with v = sin(pi k j / (n + 1)): L = (4 / h^2) s / (1 - s / 3), s = sin^2(pi k / (2 (n + 1))).
    axis = Axis.from_edges(5.0 * np.arange(12))
    s = np.sin(np.pi * np.arange(1, 10) / 20) ** 2
    np.testing.assert_allclose(axis.eigenvalues, 4 / 25 * s / (1 - s / 3), rtol=1e-11)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="three or more cells"):
        SeparablePoisson(Grid.uniform((2, 5), (1.0, 1.0))).solve(np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"'right_side' of shape \(3, 4\): must be of shape \[..., 3, 3\]"):
        SeparablePoisson(Grid.uniform((5, 5), (1.0, 1.0))).solve(np.zeros((3, 4)))
