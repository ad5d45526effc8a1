"""Where stations stand on the staircase of active cells."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from geoinv.operators.gravity.ground import active_cells, depths, raise_stations, tops
from geoinv.operators.grid import Grid

# Four levels of 10 m (the lowest 20 m) over 3 x 4 columns; the air begins above these elevations.
GRID = Grid((np.array([-50.0, -30.0, -20.0, -10.0, 0.0]), np.array([0.0, 100.0, 150.0, 300.0]), np.array([0.0, 40.0, 80.0, 120.0, 200.0])))
TOPS = np.array([[0.0, -10.0, -10.0, -30.0], [-10.0, -20.0, 0.0, 0.0], [-20.0, -20.0, -20.0, -20.0]])
ACTIVE = GRID.edges[0][1:, None, None] <= TOPS


def depth(*point: float) -> float:
    return float(depths(GRID, ACTIVE, np.array([point]))[0])


def test_active_cells() -> None:
    assert active_cells(GRID, None).shape == GRID.shape
    assert active_cells(GRID, None).all()
    mask = active_cells(GRID, ACTIVE.astype(int))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, ACTIVE)
    with pytest.raises(ValueError, match=r"'active' of shape \(3, 4\): must be of shape \(4, 3, 4\)"):
        active_cells(GRID, TOPS)
    with pytest.raises(ValueError, match="'active' without any active cell"):
        active_cells(GRID, np.zeros(GRID.shape))


def test_tops() -> None:
    np.testing.assert_array_equal(tops(GRID, ACTIVE), TOPS)
    hollow = ACTIVE.copy()
    hollow[1, 0, 0] = False  # a cave does not lower the ground
    hollow[:, 2, 3] = False  # and a column may be empty
    expected = TOPS.copy()
    expected[2, 3] = -np.inf
    np.testing.assert_array_equal(tops(GRID, hollow), expected)


def test_tops_in_two_dimensions() -> None:
    grid = Grid.uniform((2, 3), (5.0, 10.0))
    np.testing.assert_array_equal(tops(grid, np.array([[1, 1, 0], [0, 1, 0]], bool)), [5.0, 10.0, -np.inf])
    np.testing.assert_array_equal(
        depths(grid, np.array([[1, 1, 1], [0, 1, 0]], bool), np.array([[4.0, 15.0], [4.0, 10.0], [7.0, 30.0]])), [6.0, 1.0, -2.0]
    )


def test_depth_inside_a_column() -> None:
    assert depth(-4.0, 50.0, 20.0) == 4.0
    assert depth(3.0, 50.0, 20.0) == -3.0
    assert depth(-25.0, 125.0, 60.0) == 5.0


@pytest.mark.parametrize(
    ("north", "east", "ground"),
    [
        (50.0, 40.0, -10.0),  # a face between columns of 0 and -10 m: on the wall, not inside
        (50.0, 120.0, -30.0),
        (100.0, 20.0, -10.0),
        (100.0, 40.0, -20.0),  # where four columns meet
        (125.0, 80.0, -20.0),  # the lower column on the other side
        (100.0, 180.0, -30.0),
        (100.0, 120.0, -30.0),
        (150.0, 120.0, -20.0),
        (0.0, 0.0, 0.0),  # the grid's own corners and sides
        (300.0, 200.0, -20.0),
        (0.0, 60.0, -10.0),
        (125.0, 200.0, 0.0),
    ],
)
def test_depth_between_columns_is_below_the_lowest(north: float, east: float, ground: float) -> None:
    assert depth(-7.0, north, east) == ground + 7.0


@given(st.floats(0, 300) | st.sampled_from(GRID.edges[1]), st.floats(0, 200) | st.sampled_from(GRID.edges[2]), st.floats(-50, 20))
@settings(max_examples=200, deadline=None)
def test_depth_is_that_of_the_lowest_column_that_touches(north: float, east: float, upward: float) -> None:
    touching = [
        TOPS[j, i]
        for j, i in np.ndindex(TOPS.shape)
        if GRID.edges[1][j] <= north <= GRID.edges[1][j + 1] and GRID.edges[2][i] <= east <= GRID.edges[2][i + 1]
    ]
    assert depth(upward, north, east) == min(touching) - upward


@given(st.floats(0, 300), st.floats(0, 200), st.floats(-9.9, 30))
@settings(max_examples=100, deadline=None)
def test_raised_stations_stand_on_the_ground_and_others_stay(north: float, east: float, above: float) -> None:
    ground = depth(0.0, north, east)
    point = np.array([[ground + above, north, east]])
    lifted, raised = raise_stations(GRID, ACTIVE, point)
    assert raised[0] == pytest.approx(max(-above, 0.0), abs=1e-9)
    assert lifted[0, 0] == pytest.approx(max(ground + above, ground), abs=1e-9)
    np.testing.assert_array_equal(lifted[:, 1:], point[:, 1:])
    again = raise_stations(GRID, ACTIVE, lifted)
    np.testing.assert_allclose(again[0], lifted, atol=1e-9)


def test_input_is_not_changed() -> None:
    points = np.array([[-4.0, 50.0, 20.0], [5.0, 50.0, 20.0]])
    lifted, raised = raise_stations(GRID, ACTIVE, points)
    np.testing.assert_array_equal(points, [[-4.0, 50.0, 20.0], [5.0, 50.0, 20.0]])
    np.testing.assert_array_equal(lifted, [[0.0, 50.0, 20.0], [5.0, 50.0, 20.0]])
    np.testing.assert_array_equal(raised, [4.0, 0.0])


def test_at_most_one_cell_below_the_ground() -> None:
    lifted, _ = raise_stations(GRID, ACTIVE, np.array([[-20.0, 50.0, 60.0], [-49.9, 50.0, 150.0]]))  # cells of 10 m and, at depth, 20 m
    np.testing.assert_array_equal(lifted[:, 0], [-10.0, -30.0])
    deep = np.array([[5.0, 50.0, 20.0], [-21.0, 50.0, 60.0], [-10.5, 50.0, 20.0]])
    with pytest.raises(ValueError, match=r"'stations' with 2 more than a cell below the ground, the deepest \(index 1\) by 11 m") as error:
        raise_stations(GRID, ACTIVE, deep)
    assert "at most one cell (10 m) below the top of the active cells" in str(error.value)


@pytest.mark.parametrize("point", [(0.0, -1.0, 20.0), (0.0, 301.0, 20.0), (0.0, 50.0, -0.1), (0.0, 50.0, 200.1), (-51.0, 50.0, 20.0)])
def test_outside_the_grid(point: tuple[float, float, float]) -> None:
    with pytest.raises(
        ValueError, match=r"'stations' with 1 outside the grid, the first \(index 1\) at .* must be within the grid \(upward -50 to 0 m"
    ):
        raise_stations(GRID, ACTIVE, np.array([(10.0, 50.0, 20.0), point]))


def test_far_above_the_grid_is_inside() -> None:
    _, raised = raise_stations(GRID, ACTIVE, np.array([[5000.0, 0.0, 200.0]]))
    assert raised[0] == 0.0


def test_over_a_column_without_ground_stations_stay() -> None:
    active = ACTIVE.copy()
    active[:, 2, 3] = False
    lifted, raised = raise_stations(GRID, active, np.array([[-45.0, 200.0, 150.0]]))
    assert lifted[0, 0] == -45.0
    assert raised[0] == 0.0
