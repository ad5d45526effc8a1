"""Interpolation from cell centres: polynomials, observed orders, SciPy, and refusal outside the grid."""

import itertools

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from geoinv.operators.grid import Grid
from geoinv.operators.interpolation import axis_weights, interpolate
from geoinv.operators.testing import order_test


def uneven(seed: int = 0, start: float = 0.0) -> Grid:
    rng = np.random.default_rng(seed)
    return Grid(tuple(start + np.cumsum(np.r_[0.0, rng.uniform(0.5, 1.5, n)]) for n in (7, 8, 9)))


def points_in(grid: Grid, count: int, seed: int = 1) -> np.ndarray:
    low, high = (np.array([edges[end] for edges in grid.edges]) for end in (0, -1))
    return low + (high - low) * np.random.default_rng(seed).uniform(size=(count, grid.ndim))


@pytest.mark.parametrize("degree", [1, 3, 5])
@pytest.mark.parametrize("derivative", [(0, 0, 0), (1, 0, 0), (0, 1, 1), (0, 0, 2)])
def test_exact_for_polynomials_of_the_degree_up_to_the_faces(degree: int, derivative: tuple[int, ...]) -> None:
    if max(derivative) > degree:
        pytest.skip("refused")
    grid = uneven(start=1e5)
    points = points_in(grid, 40)
    polynomials = [np.poly1d(np.random.default_rng(axis).normal(size=degree + 1)) for axis in range(3)]
    scaled = [(center - 1e5) / 4 - 1 for center in grid.centers]
    values = np.einsum("i,j,k", *(p(t) for p, t in zip(polynomials, scaled, strict=True)))
    derived = [np.polyder(p, d) / 4**d for p, d in zip(polynomials, derivative, strict=True)]
    expected = np.prod([p((x - 1e5) / 4 - 1) for p, x in zip(derived, points.T, strict=True)], axis=0)
    found = interpolate(grid, points, derivative=derivative, degree=degree).to_scipy() @ values.ravel()
    np.testing.assert_allclose(found, expected, atol=1e-8 * np.abs(values).max())


@pytest.mark.parametrize(("degree", "derivative"), [(d, k) for d, k in itertools.product([1, 3, 5], [0, 1, 2]) if k <= d])
def test_observed_order(degree: int, derivative: int) -> None:
    points = np.random.default_rng(0).uniform(0, 1, (400, 2))
    counts = (16, 24, 36) if degree < 5 else (12, 16, 24)

    def error(n: int) -> float:
        edges = np.linspace(0, 1, n + 1)
        grid = Grid((edges + 0.1 * edges**2 / 1.1, edges))
        values = np.sin(3 * np.add.outer(*grid.centers))
        found = interpolate(grid, points, derivative=(0, derivative), degree=degree).to_scipy() @ values.ravel()
        return float(np.max(np.abs(found - 3**derivative * np.sin(3 * points.sum(axis=1) + derivative * np.pi / 2))))

    order = order_test([error(n) for n in counts], [1 / n for n in counts])
    assert order == pytest.approx(degree + 1 - derivative, abs=0.6)


def test_linear_equals_scipy() -> None:
    grid = uneven()
    values = np.random.default_rng(2).normal(size=grid.shape)
    points = points_in(grid, 50)
    expected = RegularGridInterpolator(grid.centers, values, bounds_error=False, fill_value=None)(points)
    np.testing.assert_allclose(interpolate(grid, points) @ values.ravel(), expected, atol=1e-12)


def test_a_centre_interpolates_to_itself() -> None:
    first, weights = axis_weights(np.arange(8.0), np.array([0.0, 3.0, 7.0]), degree=5)
    np.testing.assert_array_equal(first, [0, 1, 2])
    np.testing.assert_allclose(weights[np.arange(3), [0, 2, 5]], 1)


def test_bad_input_is_named() -> None:
    grid = uneven()
    with pytest.raises(ValueError, match=r"Invalid 'points' .* at index 0: must be inside the grid"):
        interpolate(grid, [[-1.0, 1, 1]])
    with pytest.raises(ValueError, match="Invalid 'derivative' 2: must be from 0 to the degree, 1"):
        interpolate(grid, [[1.0, 1, 1]], derivative=(0, 0, 2))
    with pytest.raises(ValueError, match="Invalid 'degree' 5: must be below the number of cells along the axis, 4"):
        axis_weights(np.arange(4.0), np.array([1.0]), degree=5)
