"""The ground surface, active cells and the staircase that honours the stations."""

import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from geoinv.datasets import topography
from geoinv.operators.grid import Grid

GRID = Grid((np.array([-40.0, -15.0, 0.0, 10.0, 30.0]), np.arange(4) * 10.0, np.array([0.0, 10.0, 30.0, 40.0])))


def plane(easting, northing):
    return 3.0 + 0.2 * np.asarray(easting) - 0.1 * np.asarray(northing)


def test_points_interpolate_a_plane_exactly_and_extend_by_the_nearest():
    random = np.random.default_rng(0)
    easting = np.append(random.uniform(0, 100, 40), [0, 100, 0, 100]) + 5e5
    northing = np.append(random.uniform(0, 100, 40), [0, 0, 100, 100]) + 7e6
    ground = topography.from_points(easting, northing, plane(easting - 5e5, northing - 7e6))
    inside = random.uniform(0, 100, (2, 30))
    np.testing.assert_allclose(ground.elevation(inside[0] + 5e5, inside[1] + 7e6), plane(*inside), atol=1e-6)
    assert ground.elevation(5e5 - 50, 7e6 - 50) == pytest.approx(plane(0, 0))


def test_stations_on_a_line_give_the_nearest_elevation():
    line = topography.from_points([0.0, 10.0, 20.0], [5.0, 5.0, 5.0], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(line.elevation([1.0, 11.0, 99.0], [0.0, 9.0, 5.0]), [1.0, 2.0, 3.0])
    single = topography.from_points([0.0], [0.0], [7.0])
    assert single.elevation(3.0, 4.0) == 7.0


@pytest.mark.parametrize("flip", [slice(None), slice(None, None, -1)])
def test_grids_interpolate_linearly_in_either_direction(flip):
    x, y = np.linspace(0, 100, 6), np.linspace(0, 50, 4)[flip]
    ground = topography.from_grid(x, y, plane(x, y[:, None]))
    assert ground.elevation(33.0, 21.0) == pytest.approx(plane(33.0, 21.0))
    assert ground.elevation(-9.0, 70.0) == pytest.approx(plane(0.0, 50.0))  # the edge holds outside
    columns = ground.on_columns(GRID)
    assert columns.shape == (3, 3)
    assert columns[2, 1] == pytest.approx(plane(20.0, 25.0))


@pytest.mark.parametrize("turn", [0, 360])
def test_a_geographic_grid_is_asked_in_projected_metres(tmp_path, turn):
    longitude, latitude = np.linspace(-124, -122, 21) + turn, np.linspace(-0.5, 0.5, 11)
    heights = 100 + 50 * (longitude - turn + 123) + 0 * latitude[:, None]
    data = xarray.Dataset({"bedrock": (("latitude", "longitude"), heights)}, coords={"longitude": longitude, "latitude": latitude})
    data.to_netcdf(tmp_path / "ground.nc", engine="h5netcdf")
    ground = topography.read_grid(tmp_path / "ground.nc", crs="EPSG:32610")
    # At the equator on the central meridian of UTM 10N (123 W): 1 degree of longitude is 111319.49 m, times 0.9996.
    assert ground.elevation(500000.0, 0.0) == pytest.approx(100.0, abs=1e-6)
    assert ground.elevation(500000.0 + 0.9996 * 11131.949, 0.0) == pytest.approx(105.0, abs=1e-3)
    assert ground.elevation(0.0, 0.0) == pytest.approx(50.0)  # west of the grid: its western edge
    with pytest.raises(ValueError, match="'crs' ''"):
        topography.read_grid(tmp_path / "ground.nc")
    with pytest.raises(ValueError, match=r"'variable' 'rock'.*'bedrock'"):
        topography.read_grid(tmp_path / "ground.nc", variable="rock", crs="EPSG:32610")


@pytest.mark.parametrize("text", ["x,y,z\n0,0,1\n10,0,2\n0,10,3\n10,10,4\n", "0 0 1\n10   0 2\n0 10 3\n10 10 4\n"])
def test_point_files_with_and_without_header(tmp_path, text):
    (tmp_path / "ground.xyz").write_text(text)
    assert topography.read_points(tmp_path / "ground.xyz").elevation(5.0, 0.0) == pytest.approx(1.5)
    with pytest.raises(ValueError, match=r"'4' of|'up' of"):
        topography.read_points(tmp_path / "ground.xyz", columns={"easting": "x" if "x" in text else "1", "northing": "up", "upward": "4"})
    (tmp_path / "bad.xyz").write_text(text.replace("4", "deep"))
    with pytest.raises(ValueError, match=r"bad\.xyz, line [45]' 'deep'"):
        topography.read_points(tmp_path / "bad.xyz")


def test_geographic_points_are_projected(tmp_path):
    (tmp_path / "ground.csv").write_text("lon,lat,h\n-123.1,-0.1,1\n-122.9,-0.1,1\n-123.0,0.1,1\n-123.0,0.0,9\n")
    names = {"longitude": "lon", "latitude": "lat", "upward": "h"}
    assert topography.read_points(tmp_path / "ground.csv", columns=names, crs="EPSG:32610").elevation(500000.0, 0.0) == pytest.approx(9.0)
    with pytest.raises(ValueError, match="'crs' ''"):
        topography.read_points(tmp_path / "ground.csv", columns=names)


def test_cells_below_the_ground_are_active():
    # Centres at -27.5, -7.5, 5 and 20 m.
    elevation = np.array([[-30.0, -27.0, -7.5], [-7.4, 4.9, 5.1], [19.0, 20.1, 100.0]])
    active = topography.active_cells(GRID, elevation)
    np.testing.assert_array_equal(active.sum(axis=0), [[0, 1, 1], [2, 2, 3], [3, 4, 4]])
    assert not np.any(active[1:] & ~active[:-1]), "nothing is active above an inactive cell"


def test_a_plane_grid_of_two_axes_works_too():
    grid = Grid.uniform((4, 3), (10.0, 10.0), origin=(-40.0, 0.0))
    active = topography.active_cells(grid, [0.0, -12.0, -40.0], {"upward": [-25.0], "easting": [5.0]})
    np.testing.assert_array_equal(active.sum(axis=0), [2, 3, 0])


def test_stations_lower_the_staircase_no_more_than_needed():
    full = np.full((3, 3), 30.0)
    one = topography.active_cells(GRID, full, {"easting": [15.0], "northing": [5.0], "upward": [-3.0]})
    counts = np.full((3, 3), 4)
    counts[0, 1] = 2  # the top comes down to 0 m, 3 m above the station, in the cell that holds it
    np.testing.assert_array_equal(one.sum(axis=0), counts)
    # Exactly on the bottom of the top cell is exactly one cell below: allowed. Outside the grid: nothing to honour.
    for easting, upward in ((15.0, 10.0), (-1.0, -3.0)):
        kept = topography.active_cells(GRID, full, {"easting": [easting], "northing": [5.0], "upward": [upward]})
        assert kept.all()
    with pytest.raises(ValueError, match=r"'stations' at -41 m \(station 1\)"):
        topography.active_cells(GRID, full, {"easting": [5.0, 5.0], "northing": [5.0, 5.0], "upward": [0.0, -41.0]})


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12))
def test_staircase_properties(seed, n):
    random = np.random.default_rng(seed)
    elevation = random.uniform(-50, 40, (3, 3))
    points = random.uniform([-40, 0, 0], [40, 30, 40], (n, 3))
    named = dict(zip(GRID.dims, points.T, strict=True))
    plain, honoured = topography.active_cells(GRID, elevation), topography.active_cells(GRID, elevation, named)
    assert not np.any(honoured & ~plain), "stations only ever take cells away"
    count = honoured.sum(axis=0)
    row, column = GRID.cell_index(points)[:, 1:].T
    depth = GRID.edges[0][count[row, column]] - points[:, 0]
    top_width = GRID.widths[0][np.maximum(count - 1, 0)]
    assert np.all(depth <= top_width[row, column] + 1e-9)
    # Putting the removed top cell back into any lowered column would bury one of its stations by more than a cell.
    for i, j in np.argwhere(count < plain.sum(axis=0)):
        here = points[(row == i) & (column == j), 0]
        assert GRID.edges[0][count[i, j] + 1] - here.min() > GRID.widths[0][count[i, j]]


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"'elevation_on_columns' of shape \(2, 3\)"):
        topography.active_cells(GRID, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="nan at index 0"):
        topography.active_cells(GRID, np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="without upward"):
        topography.active_cells(GRID, np.zeros((3, 3)), {"easting": [1.0], "northing": [1.0]})
