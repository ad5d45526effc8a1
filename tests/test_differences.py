"""Differences on a grid: observed orders of accuracy, conservation, symmetry, and uneven spacing.

Most go through SciPy, which compiles nothing for a new grid; that the layouts of stencils multiply as it does: test_sparse_layout.py.
"""

from collections.abc import Callable

import numpy as np
import pytest

from geoinv.operators import differences
from geoinv.operators.grid import Grid
from geoinv.operators.testing import order_test

ORDERS = {2: (24, 32, 48), 4: (24, 32, 48), 6: (28, 36, 48), 8: (24, 30, 36)}
MIRRORED = (10, 14, 18)  # centred stencils up to the faces reach their order, and rounding, sooner
WAVE = np.array([np.pi, 2 * np.pi])  # of a field that is odd about all faces of the unit square


def square(n: int) -> Grid:
    return Grid.uniform((n, 2 * n), (1 / n, 0.5 / n))


def stretched(n: int) -> Grid:
    t = np.linspace(0, 1, n + 1)
    return Grid((t + 0.1 * np.sin(np.pi * t), t + 0.15 * t**2))


def field(grid: Grid, phase: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    z, x = np.meshgrid(*grid.centers, indexing="ij")
    return np.sin(WAVE[0] * z + phase), np.sin(WAVE[1] * x + phase)


def observed(error: Callable[[int], float], counts: tuple[int, ...]) -> float:
    return order_test([error(n) for n in counts], [1 / n for n in counts])


@pytest.mark.parametrize("derivative", [1, 2, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_order_of_derivatives_up_to_the_ends(order: int, derivative: int) -> None:
    def error(n: int) -> float:
        grid = square(n)
        a, b = field(grid)
        z = grid.centers[0][:, np.newaxis]
        exact = WAVE[0] ** derivative * np.sin(WAVE[0] * z + 0.3 + derivative * np.pi / 2) * b
        found = differences.derivative(grid, axis=0, derivative=derivative, order=order).to_scipy() @ (a * b).ravel()
        return float(np.max(np.abs(found - exact.ravel())))

    assert observed(error, ORDERS[order]) == pytest.approx(order, abs=0.6)


@pytest.mark.parametrize("boundary", ["dirichlet", "neumann", "open"])
@pytest.mark.parametrize("order", ORDERS)
def test_order_of_the_laplacian(order: int, boundary: str) -> None:
    phase = {"dirichlet": 0.0, "neumann": np.pi / 2, "open": 0.4}[boundary]

    def error(n: int) -> float:
        grid = square(n)
        u = np.multiply(*field(grid, phase)).ravel()
        found = differences.laplacian(grid, order, boundary).to_scipy() @ u
        return float(np.max(np.abs(found + np.sum(WAVE**2) * u)))

    counts, tolerance = (ORDERS[order], 0.6) if boundary == "open" else (MIRRORED, 0.15)
    assert observed(error, counts) == pytest.approx(order, abs=tolerance)


@pytest.mark.parametrize("order", [2, 4, 6])
def test_order_of_gradient_and_divergence(order: int) -> None:
    def gradient_error(n: int) -> float:
        grid = square(n)
        a, b = field(grid)
        faces = WAVE[1] * np.cos(WAVE[1] * grid.edges[1][1:-1] + 0.3)
        found = differences.gradient(grid, axis=-1, order=order).to_scipy() @ (a * b).ravel()
        return float(np.max(np.abs(found.reshape(n, 2 * n - 1) - a[:, :1] * faces)))

    def divergence_error(n: int) -> float:
        grid = square(n)  # fluxes that vanish on the outer faces
        (z, x), (fz, fx) = grid.centers, (edges[1:-1] for edges in grid.edges)
        fluxes = np.concatenate([np.outer(np.sin(np.pi * fz), np.ones(x.size)).ravel(), np.outer(np.ones(z.size), np.sin(2 * np.pi * fx)).ravel()])
        exact = np.add.outer(np.pi * np.cos(np.pi * z), 2 * np.pi * np.cos(2 * np.pi * x)).ravel()
        return float(np.max(np.abs(differences.divergence(grid, order).to_scipy() @ fluxes - exact)))

    assert observed(gradient_error, ORDERS[order]) == pytest.approx(order, abs=0.6)
    assert observed(divergence_error, ORDERS[order]) == pytest.approx(order, abs=0.6)


def test_second_order_on_a_smoothly_stretched_grid() -> None:
    def error(n: int) -> float:
        grid = stretched(n)
        a, b = field(grid)
        found = differences.gradient(grid, axis=0) @ (a * b).ravel()
        exact = WAVE[0] * np.cos(WAVE[0] * grid.edges[0][1:-1] + 0.3)[:, np.newaxis] * b[:1]
        return float(np.max(np.abs(found.numpy() - exact.ravel())))

    assert observed(error, (16, 32, 64)) == pytest.approx(2, abs=0.1)


def test_neumann_laplacian_is_the_divergence_of_the_gradient_and_conserves() -> None:
    grid = Grid((np.array([0.0, 1, 3, 4]), np.array([0.0, 2, 3, 7, 8]), np.array([0.0, 1, 1.5])))
    gradients = [differences.gradient(grid, axis=axis).to_scipy() for axis in range(3)]
    fluxes = np.concatenate([part.toarray() for part in gradients])
    laplacian = differences.laplacian(grid, boundary="neumann").to_scipy().toarray()
    np.testing.assert_allclose(differences.divergence(grid).to_scipy() @ fluxes, laplacian, atol=1e-12)
    np.testing.assert_allclose(grid.volumes.ravel() @ laplacian, 0, atol=1e-12)


@pytest.mark.parametrize("order", [2, 4, 8])
@pytest.mark.parametrize("boundary", ["dirichlet", "neumann"])
def test_laplacian_is_symmetric_and_negative(boundary: str, order: int) -> None:
    matrix = differences.laplacian(Grid.uniform((6, 5, 7), (1.0, 2.0, 0.5)), order, boundary).to_scipy().toarray()
    np.testing.assert_array_equal(matrix, matrix.T)
    largest = np.linalg.eigvalsh(matrix)[-1]
    assert largest < 0 if boundary == "dirichlet" else abs(largest) < 1e-10


def test_second_order_dirichlet_solves_to_second_order_on_uneven_cells() -> None:
    def error(n: int) -> float:
        grid = stretched(n)
        lengths = [edges[-1] for edges in grid.edges]
        u = np.multiply.outer(*(np.sin(np.pi * c / size) for c, size in zip(grid.centers, lengths, strict=True))).ravel()
        eigenvalue = sum((np.pi / size) ** 2 for size in lengths)
        return float(np.max(np.abs(np.linalg.solve(differences.laplacian(grid).to_scipy().toarray(), -eigenvalue * u) - u)))

    assert observed(error, (8, 16, 24)) == pytest.approx(2, abs=0.2)


def test_bad_input_is_named() -> None:
    grid = Grid.uniform((4, 5), (1.0, 1.0))
    with pytest.raises(ValueError, match="Invalid 'axis' 2"):
        differences.gradient(grid, axis=2)
    with pytest.raises(ValueError, match="needs 9 nodes along each axis, not 4"):
        differences.derivative(grid, axis=0, order=8)
    with pytest.raises(ValueError, match="where cells differ in size, as along upward"):
        differences.laplacian(stretched(8), 4)
