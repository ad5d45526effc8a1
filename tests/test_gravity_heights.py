"""Finite-difference gravity at the smallest tolerance, and far above the ground, against analytic prisms."""

import numpy as np
import pytest

from geoinv.operators import GravityPoisson
from geoinv.operators.gravity.components import prism_field
from geoinv.operators.grid import Grid

GRID = Grid.uniform((8, 16, 16), (100.0, 100.0, 100.0), (-800.0, 0.0, 0.0))
RANDOM = np.random.default_rng(3)
BLOCK = np.zeros(GRID.shape)
BLOCK[2:5, 6:10, 6:10] = 300.0
MODELS = {"slab": np.full(GRID.shape, 200.0), "block": BLOCK, "random": RANDOM.normal(size=GRID.shape)}


def worst(cells: float, tolerance: float) -> float:
    """Largest error over the peak of each model's field, over the models, at 30 stations at one height above the ground."""
    points = np.column_stack([np.full(30, 100.0 * cells), RANDOM.uniform(0, 1600, (30, 2))])
    operator = GravityPoisson(GRID, dict(zip(GRID.dims, points.T, strict=True)), tolerance=tolerance)
    errors = []
    for density in MODELS.values():
        exact = prism_field("gz", points, GRID, density)
        errors.append(np.abs(operator.forward(density).numpy()[:, 0] - exact).max() / np.abs(exact).max())
    return max(errors)


@pytest.mark.parametrize("cells", [0.0, pytest.param(0.3, marks=pytest.mark.slow), 2.0])
def test_on_the_ground_a_thousandth_is_reached_when_asked_for(cells: float) -> None:
    assert worst(cells, 1e-3) <= 1e-3


@pytest.mark.parametrize("cells", [50.0, pytest.param(150.0, marks=pytest.mark.slow), 5000.0])
def test_a_flight_or_a_satellite_sees_the_same_field(cells: float) -> None:
    assert worst(cells, 1e-2) <= 1e-2
