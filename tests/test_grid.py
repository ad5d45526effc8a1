"""Grids from arrays that xarray has turned, cut and moved: the attributes stay as they were."""

import numpy as np
import pytest

from geoinv.datasets import netcdf
from geoinv.operators import Grid
from geoinv.operators.grid import layer_count, layers

EDGES = (np.cumsum([0.0, 40.0, 20.0, 10.0, 10.0, 20.0]), 500.0 + np.cumsum([0.0, 30.0, 15.0, 15.0, 15.0, 15.0, 30.0]))
PADDING = ((2, 0), (1, 1))


@pytest.fixture
def array(tmp_path):
    netcdf.write(tmp_path / "model.nc", Grid(EDGES, PADDING).to_xarray(np.arange(30.0).reshape(5, 6), name="model"))
    return netcdf.read(tmp_path / "model.nc")["model"]


def test_an_array_gives_its_grid_back(array):
    grid = Grid.from_xarray(array)
    assert grid.padding == PADDING
    for found, edges in zip(grid.edges, EDGES, strict=True):
        np.testing.assert_array_equal(found, edges)


def test_of_a_part_the_edges_and_padding_are_those_of_its_cells(array):
    grid = Grid.from_xarray(array.isel(upward=slice(1, None), easting=slice(0, 4)))
    np.testing.assert_array_equal(grid.edges[0], EDGES[0][1:])
    np.testing.assert_array_equal(grid.edges[1], EDGES[1][:5])
    assert grid.padding == ((1, 0), (1, 0))
    one = Grid.from_xarray(array.isel(upward=[2], easting=slice(1, 5)))
    np.testing.assert_array_equal(one.edges[0], EDGES[0][2:4])


def test_moved_even_cells_stand_where_their_coordinates_say(array):
    even = array.isel(easting=slice(1, 5))
    grid = Grid.from_xarray(even.assign_coords(easting=even.easting + 1000.0))
    np.testing.assert_allclose(grid.edges[1], EDGES[1][1:6] + 1000.0, rtol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda array: array.isel(upward=slice(None, None, -1)), "'upward' .*strictly increasing. Sort it: data.sortby"),
        (lambda array: array.sortby("easting", ascending=False), "'easting' .*strictly increasing"),
        (lambda array: array.assign_coords(easting=array.easting + 1.0), "'easting' with uneven spacing: .*'edges'"),
        (lambda array: array.isel(easting=[0, 2, 3]), "'easting' with uneven spacing"),
        (lambda array: array.isel(upward=[0]).assign_coords(upward=[7.0]), "'upward' with one cell"),
    ],
)
def test_coordinates_that_edges_do_not_fit_are_refused(array, change, message):
    with pytest.raises(ValueError, match=message):
        Grid.from_xarray(change(array))


def test_coordinates_in_single_precision_are_even_to_their_rounding():
    """Eastings of a UTM zone are known to 0.03 m in float32: cells of 25 m made from them are still of one size."""
    exact = Grid.uniform((20, 80), (25.0, 25.0), (-500.0, 455012.5))
    rough = exact.to_xarray(np.zeros(exact.shape), name="model")
    rough = rough.assign_coords({dim: rough[dim].astype(np.float32).drop_attrs() for dim in rough.dims})
    grid = Grid.from_xarray(rough)
    for found, edges in zip(grid.edges, exact.edges, strict=True):
        np.testing.assert_allclose(found, edges, atol=0.05)
        np.testing.assert_allclose(np.diff(found), 25.0, rtol=1e-4)
    with pytest.raises(ValueError, match="uneven spacing"):
        Grid.from_xarray(rough.assign_coords(easting=rough.easting + 0.2 * (np.arange(80) % 2)))


@pytest.mark.parametrize(("growth", "uniform"), [(1.0, 0.0), (1.3, 0.0), (1.05, 40.0), (1.000001, 12.0), (1.5, 500.0)])
def test_layers_are_counted_without_making_them(growth: float, uniform: float) -> None:
    edges = layers(10.0, 10.0 - uniform, -90.0, 2.5, growth)
    assert edges[-1] == 10.0 and edges[0] <= -90.0 < edges[1] + 1e-6
    assert layer_count(10.0, 10.0 - uniform, -90.0, 2.5, growth) == pytest.approx(edges.size - 1, abs=1.1)
    widths = np.diff(edges)[::-1]
    np.testing.assert_allclose(widths[: int(min(uniform, 100.0) / 2.5)], 2.5)
    np.testing.assert_allclose((widths[1:] / widths[:-1])[int(uniform / 2.5) :], growth)


def test_grids_are_alike_to_a_thousandth_of_a_cell() -> None:
    grid = Grid((np.array([0.0, 1.0, 3.0]), np.array([0.0, 4.0, 8.0, 12.0])))
    assert grid.like(Grid((grid.edges[0] + 9e-4, grid.edges[1] - 3e-3)))
    assert not grid.like(Grid((grid.edges[0] + 2e-3, grid.edges[1])))
    assert not grid.like(Grid((grid.edges[0], grid.edges[1][:-1]))) and not grid.like(Grid((*grid.edges, grid.edges[1])))
