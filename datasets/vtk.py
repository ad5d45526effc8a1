"""Models for ParaView: VTK XML rectilinear grids (.vtr) with cell data, written with the standard library.

Arrays are inline binary: base64 of an eight-byte count of bytes followed by the bytes, little-endian. VTK counts x fastest, then
y, then z; with x = easting, y = northing, z = upward that is the C order of a field [upward, northing, easting].

Format: VTK File Formats, "XML File Formats", https://docs.vtk.org/en/latest/design_documents/VTKFileFormats.html
"""

import base64
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from geoinv.operators import checks
from geoinv.operators.grid import Grid

from .atomic import atomic_path

_TYPES = {"b1": "UInt8", "u1": "UInt8", "i4": "Int32", "i8": "Int64", "f4": "Float32", "f8": "Float64"}


def write_vtr(path: str | os.PathLike[str], grid: Grid, fields: Mapping[str, Any]) -> None:
    """Write fields on the cells of a grid as a VTK rectilinear grid.

    Args:
        path: The file, by custom with the suffix .vtr.
        grid: The cells; a 2-D grid becomes a plane at northing 0.
        fields: Arrays shaped as the grid, by name: bool, int32, int64, float32 or float64. NaN is allowed (air).

    Raises:
        ValueError: A field of another shape or type.
    """
    arrays = {name: _cell_array(name, values, grid) for name, values in fields.items()}
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii", newline="\n", errors="xmlcharrefreplace") as file:
        file.writelines(f"{line}\n" for line in _document(grid, arrays))


def _cell_array(name: str, values: Any, grid: Grid) -> np.ndarray:
    array = checks.shape(name, values, grid.shape)
    checks.choice(f"dtype of {name}", array.dtype.str[1:], tuple(_TYPES))
    return array


def _document(grid: Grid, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    easting, upward = grid.edges[-1], grid.edges[0]
    northing = grid.edges[1] if grid.ndim == 3 else np.zeros(1)
    extent = " ".join(f"0 {axis.size - 1}" for axis in (easting, northing, upward))
    yield '<?xml version="1.0"?>'
    yield '<VTKFile type="RectilinearGrid" version="1.0" byte_order="LittleEndian" header_type="UInt64">'
    yield f'<RectilinearGrid WholeExtent="{extent}">'
    yield f'<Piece Extent="{extent}">'
    yield "<CellData>"
    for name, array in arrays.items():
        yield _data_array(name, array)
    yield "</CellData>"
    yield "<Coordinates>"
    for name, axis in (("easting", easting), ("northing", northing), ("upward", upward)):
        yield _data_array(name, axis)
    yield "</Coordinates>"
    yield "</Piece>"
    yield "</RectilinearGrid>"
    yield "</VTKFile>"


def _data_array(name: str, array: np.ndarray) -> str:
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()  # in C order, whatever the layout in memory
    text = base64.b64encode(struct.pack("<Q", len(data)) + data).decode("ascii")
    return f'<DataArray type="{_TYPES[array.dtype.str[1:]]}" Name={quoteattr(name)} format="binary">{text}</DataArray>'
