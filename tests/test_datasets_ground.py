"""The surface above a section, against brute force and by hand."""

import numpy as np
import pytest

from geoinv.datasets.ground import Ground
from geoinv.operators.grid import Grid

RANDOM = np.random.default_rng(0)
ROUGH = Ground.through(RANDOM.uniform(0, 50, 60), RANDOM.normal(0, 2, 60))


def test_of_points_at_one_place_the_highest_is_ground() -> None:
    found = Ground.through(np.array([2.0, 0.0, 2.0, 1.0]), np.array([-1.0, 3.0, 4.0, 5.0]))
    np.testing.assert_array_equal(found.easting, [0, 1, 2])
    np.testing.assert_array_equal(found.upward, [3, 5, 4])
    np.testing.assert_allclose(found.at(np.array([-9.0, 0.5, 9.0])), [3, 4, 4])


def test_a_part_of_it_ends_where_it_is_cut() -> None:
    part = ROUGH.between(10.2, 31.7)
    assert part.easting[0] == 10.2 and part.easting[-1] == 31.7
    inside = np.linspace(10.2, 31.7, 999)
    np.testing.assert_allclose(part.at(inside), ROUGH.at(inside), atol=1e-12)
    np.testing.assert_array_equal(Ground(np.array([5.0]), np.array([1.0])).between(-1.0, 2.0).upward, [1, 1])


@pytest.mark.parametrize("parts", [1, 3])
def test_active_are_cells_and_parts_with_any_ground(parts: int) -> None:
    grid = Grid((np.cumsum(RANDOM.uniform(0.3, 1.0, 25)) - 9, np.cumsum(RANDOM.uniform(0.5, 2.0, 40)) - 3))
    found = ROUGH.active(grid, parts)
    assert found.shape == (24 * parts, 39 * parts)
    upward, sides = (np.interp(np.arange((axis.size - 1) * parts + 1) / parts, np.arange(axis.size), axis) for axis in grid.edges)
    for row in range(0, found.shape[0], 5):
        for column in range(0, found.shape[1], 3):
            left, right = sides[column : column + 2]
            knots = ROUGH.easting[(ROUGH.easting > left) & (ROUGH.easting < right)]
            assert found[row, column] == bool(np.any(ROUGH.at(np.concatenate([[left, right], knots])) > upward[row]))


def test_holes_and_slanting_boreholes_are_no_ground_and_slopes_are() -> None:
    """Shot holes of 2 m between geophones, and a string of sensors 3 degrees off the vertical; a slope of 45 degrees stays."""
    x = np.arange(12.0)
    holes = Ground.through(np.concatenate([x, [3.5, 8.5]]), np.concatenate([0.1 * x, [-1.7, -1.2]]))
    np.testing.assert_array_equal(holes.without_drops(np.sqrt(3)).easting, x)
    depth = np.arange(0.0, 20.0)
    slanting = Ground.through(np.concatenate([np.tan(np.radians(3)) * depth, [10.0]]), np.concatenate([-depth, [0.0]]))
    np.testing.assert_array_equal(slanting.without_drops(np.sqrt(3)).easting, [0, 10])
    slope = Ground.through(x, x)
    assert slope.without_drops(np.sqrt(3)).easting.size == 12
