"""VTK files, parsed back as XML: extents, axes, types and the order of cells."""

import base64
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from geoinv.datasets import vtk
from geoinv.operators.grid import Grid

NUMPY_TYPES = {"Float64": "<f8", "Float32": "<f4", "Int64": "<i8", "UInt8": "u1"}


def decode(element):
    data = base64.b64decode(element.text, validate=True)
    assert int.from_bytes(data[:8], "little") == len(data) - 8
    return np.frombuffer(data[8:], NUMPY_TYPES[element.get("type")])


def test_cells_and_axes_come_back(tmp_path):
    grid = Grid((np.array([-30.0, -10.0, 0.0]), np.array([0.0, 5.0, 6.0, 9.0]), np.array([100.0, 101.0, 103.0, 107.0, 110.0])))
    density = np.random.default_rng(0).normal(size=grid.shape)
    density[1, 0, 0] = np.nan
    fields = {"density": density, "a < b": density.astype(np.float32), "active": density > 0, "id": np.arange(grid.size).reshape(grid.shape)}
    vtk.write_vtr(tmp_path / "model.vtr", grid, fields)
    root = ElementTree.parse(tmp_path / "model.vtr").getroot()
    assert root.attrib == {"type": "RectilinearGrid", "version": "1.0", "byte_order": "LittleEndian", "header_type": "UInt64"}
    assert root.find("RectilinearGrid").get("WholeExtent") == root.find(".//Piece").get("Extent") == "0 4 0 3 0 2"
    x, y, z = (decode(element) for element in root.find(".//Coordinates"))
    for got, expected in zip((z, y, x), grid.edges, strict=True):
        np.testing.assert_array_equal(got, expected)
    cells = {element.get("Name"): element for element in root.find(".//CellData")}
    assert list(cells) == list(fields)
    flat = decode(cells["density"])
    for k, j, i in ((0, 0, 1), (0, 2, 3), (1, 1, 2)):  # VTK: cell i + nx (j + ny k), i along x
        assert flat[i + 4 * (j + 3 * k)] == density[k, j, i]
    np.testing.assert_array_equal(flat, density.ravel())
    assert cells["a < b"].get("type") == "Float32"
    np.testing.assert_array_equal(decode(cells["active"]), (density > 0).ravel())
    np.testing.assert_array_equal(decode(cells["id"]), np.arange(grid.size))


def test_a_field_transposed_in_memory_is_still_written_in_order(tmp_path):
    grid = Grid.uniform((2, 3), (1.0, 1.0))
    vtk.write_vtr(tmp_path / "plane.vtr", grid, {"v": np.arange(6.0).reshape(3, 2).T})
    root = ElementTree.parse(tmp_path / "plane.vtr").getroot()
    assert root.find(".//Piece").get("Extent") == "0 3 0 0 0 2"
    np.testing.assert_array_equal(decode(root.find(".//CellData")[0]), [0, 2, 4, 1, 3, 5])


def test_bad_fields_leave_no_file(tmp_path):
    grid = Grid.uniform((2, 2, 2), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"'density' of shape \(2, 2\)"):
        vtk.write_vtr(tmp_path / "bad.vtr", grid, {"density": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="'dtype of density' 'c16'"):
        vtk.write_vtr(tmp_path / "bad.vtr", grid, {"density": np.zeros(grid.shape, complex)})
    assert not list(tmp_path.iterdir())
