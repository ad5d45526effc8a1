"""The computational grid and how the model's cells feed it."""

import numpy as np
import pytest

from geoinv.operators.gravity import mesh
from geoinv.operators.grid import Grid
from geoinv.operators.interpolation import axis_weights

EDGES = np.array([-300.0, -170.0, -100.0, -65.0, -64.0, 0.0, 31.0])


@pytest.mark.parametrize("power", range(6))
def test_every_cell_keeps_its_moments_to_degree_five(power: int) -> None:
    centers = np.cumsum(12.0 * 1.07 ** np.arange(30)) - 500.0
    matrix = mesh.feed(EDGES, centers)
    expected = np.diff(EDGES ** (power + 1)) / (power + 1)
    np.testing.assert_allclose(matrix.T @ centers**power, expected, rtol=1e-9, atol=1e-9 * 300.0 ** (power + 1))


def test_feeding_is_the_adjoint_of_interpolation() -> None:
    """A field interpolated by the stations' own weights and integrated over a cell by a fine rule."""
    centers = 20.0 * np.arange(40) - 500.0
    field = np.random.default_rng(0).normal(size=centers.size)
    x = np.linspace(EDGES[1], EDGES[2], 70001)
    first, weights = axis_weights(centers, x, degree=5)
    values = np.sum(weights * field[first[:, None] + np.arange(6)], axis=1)
    assert (mesh.feed(EDGES, centers).T @ field)[1] == pytest.approx(np.trapezoid(values, x), rel=1e-7)


def test_the_grid_is_uniform_around_the_stations_and_reaches_beyond_the_model() -> None:
    model = Grid((np.array([-2000.0, -500, -200, -100, -50, 0]), *[np.array([0.0, 500, 700, 800, 900, 1000, 1200, 3000])] * 2))
    points = np.array([[5.0, 720.0, 1010.0], [150.0, 950.0, 700.0]])
    assert mesh.resolution(model) == 100.0
    grid = mesh.computational_grid(model, points)
    for edges, cells, column in zip(model.edges, grid.edges, points.T, strict=True):
        near = (cells >= column.min() - 500) & (cells <= column.max() + 500)
        np.testing.assert_allclose(np.diff(cells[near]), 100.0)
        ratios = np.diff(cells)[1:] / np.diff(cells)[:-1]
        assert ratios.min() > 1 / 1.1001 and ratios.max() < 1.1001
        # Half the model's largest width is 1500 m; the outermost cells carry the boundary values.
        assert cells[1] <= edges[0] - 0.75 * 1500 and cells[-2] >= edges[-1] + 0.75 * 1500
