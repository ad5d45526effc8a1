"""The ground surface, and which cells of a grid lie below it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from geoinv.operators import checks
from geoinv.operators.grid import Grid

from . import projection
from .table import read_table

if TYPE_CHECKING:
    pass

_EASTING_NAMES = ("easting", "x", "longitude", "lon")
_NORTHING_NAMES = ("northing", "y", "latitude", "lat")


@final
@dataclass(frozen=True, eq=False)
class Topography:
    """A ground surface: linear between known elevations, the nearest known one outside them.

    Build it with `from_points`, `from_grid`, `read_points` or `read_grid`.

    Args:
        interpolate: Elevation, in metres, at points [point, (x, y)].
        geographic_crs: Where x and y are longitude and latitude, the projected system of the eastings and northings asked for.
    """

    interpolate: Callable[[np.ndarray], np.ndarray]
    geographic_crs: str = ""

    def elevation(self, easting: Any, northing: Any) -> np.ndarray:
        """Elevation of the ground, in metres, at eastings and northings (metres) that broadcast together."""
        x, y = np.broadcast_arrays(checks.finite("easting", easting), checks.finite("northing", northing))
        if self.geographic_crs:
            x, y = projection.unproject(x, y, self.geographic_crs)
        return self.interpolate(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape)

    def on_columns(self, grid: Grid) -> np.ndarray:
        """Elevation, in metres, at the centre of every column [northing, easting] of a 3-D grid."""
        return self.elevation(grid.centers[2], grid.centers[1][:, None])


def from_points(easting: Any, northing: Any, upward: Any) -> Topography:
    """The surface through scattered points [point], in metres: linear on the Delaunay triangles.

    Points on one line span no triangles; then the nearest point's elevation holds everywhere.

    Raises:
        ValueError: No points, unequal lengths or values that are not finite.
    """
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
    from scipy.spatial import QhullError

    points = checks.points("topography", {"easting": easting, "northing": northing, "upward": upward}, ("easting", "northing", "upward"))
    origin = points[:, :2].mean(axis=0)  # Qhull's geometry loses digits on UTM coordinates far from zero
    nearest = NearestNDInterpolator(points[:, :2] - origin, points[:, 2])
    try:
        linear = LinearNDInterpolator(points[:, :2] - origin, points[:, 2])
    except (QhullError, ValueError):
        return Topography(lambda xy: nearest(xy - origin))

    def interpolate(xy: np.ndarray) -> np.ndarray:
        inside = linear(xy - origin)
        outside = np.isnan(inside)
        inside[outside] = nearest(xy[outside] - origin)
        return inside

    return Topography(interpolate)


def from_grid(x: Any, y: Any, elevation: Any, *, geographic_crs: str = "") -> Topography:
    """The surface through a regular grid of elevations.

    Args:
        x: Easting in metres, or longitude in degrees, strictly monotonic.
        y: Northing or latitude, likewise.
        elevation: Metres [y, x].
        geographic_crs: Give the projected system when x and y are longitude and latitude.

    Raises:
        ValueError: Axes not monotonic, another shape, or elevations that are not finite.
    """
    from scipy.interpolate import RegularGridInterpolator

    columns, rows = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    heights = checks.shape("elevation", checks.finite("elevation", elevation), (rows.size, columns.size))
    if columns[0] > columns[-1]:
        columns, heights = columns[::-1], heights[:, ::-1]
    if rows[0] > rows[-1]:  # images count rows from the north
        rows, heights = rows[::-1], heights[::-1]
    axes = (checks.increasing("y", rows), checks.increasing("x", columns))
    linear = RegularGridInterpolator(axes, heights)
    low, high = (np.array([axis[end] for axis in axes]) for end in (0, -1))
    projection.check_projected(geographic_crs)
    middle = (columns[0] + columns[-1]) / 2

    def interpolate(xy: np.ndarray) -> np.ndarray:
        x, y = xy.T
        if geographic_crs:  # the grid may count longitude from 0 to 360
            x = middle + (x - middle + 180) % 360 - 180
        return linear(np.clip(np.stack([y, x], axis=1), low, high))

    return Topography(interpolate, geographic_crs)


def read_points(path: str | os.PathLike[str], *, columns: Mapping[str, str] | None = None, crs: str = "", length_units: str = "m") -> Topography:
    """Read scattered elevations from a text table, with or without a header.

    Args:
        path: CSV or white-space separated, possibly compressed.
        columns: The file's name of `easting` and `northing`, or `longitude` and `latitude`, and `upward`; without it the
            first three columns are easting, northing and upward. Columns of a file without a header are "1", "2", ...
        crs: The projected system to project longitude and latitude to.
        length_units: Of easting, northing and upward.

    Raises:
        ValueError: No such file or column, an unreadable number (names the line), or an unusable `crs`.
    """
    metres = checks.unit_factor("length_units", length_units, "length")
    table = read_table(path)
    if columns is None:
        if len(table.columns) < 3:
            raise checks.invalid("path", f"'{path}' with {len(table.columns)} columns", "a table of easting, northing and upward")
        columns = dict(zip(("easting", "northing", "upward"), table.columns[:3], strict=True))
    horizontal = ("longitude", "latitude") if "longitude" in columns else ("easting", "northing")
    missing = [name for name in (*horizontal, "upward") if name not in columns]
    if missing:
        raise checks.invalid("columns", f"without {', '.join(missing)}", "naming two horizontal coordinates and upward")
    x, y, upward = (table.numbers(columns[name]) for name in (*horizontal, "upward"))
    easting, northing = projection.project(x, y, crs) if horizontal[0] == "longitude" else (metres * x, metres * y)
    return from_points(easting, northing, metres * upward)


def read_grid(path: str | os.PathLike[str], *, variable: str | None = None, crs: str = "") -> Topography:
    """Read a grid of elevations, in metres, from netCDF.

    Args:
        path: A netCDF-4 file whose axes are called easting/northing, x/y, longitude/latitude or lon/lat.
        variable: The elevation; may be left out when the file has one two-dimensional variable.
        crs: The projected system of the survey; needed when the axes are longitude and latitude.

    Raises:
        ValueError: No such file or variable, unknown axes, or a missing `crs`.
    """
    from . import netcdf

    data = netcdf.read(path)
    candidates = [str(name) for name in data.data_vars if data[name].ndim == 2]
    if variable is None and len(candidates) != 1:
        raise checks.invalid("variable", "None", f"one of {', '.join(candidates)}", f"'{path}' has {len(candidates)} grids.")
    elevation = data[checks.choice("variable", variable or candidates[0], candidates)]
    x = next((name for name in _EASTING_NAMES if name in elevation.dims), "")
    y = next((name for name in _NORTHING_NAMES if name in elevation.dims), "")
    if not x or not y:
        raise checks.invalid("axes", f"{elevation.dims} of '{path}'", f"one of {', '.join(_EASTING_NAMES)} and one of {', '.join(_NORTHING_NAMES)}")
    geographic = x.startswith("lon")
    if geographic and not crs:
        raise checks.invalid("crs", "''", "the projected system of the survey, for a grid of longitude and latitude")
    return from_grid(data[x].values, data[y].values, elevation.transpose(y, x).values, geographic_crs=crs if geographic else "")


def active_cells(grid: Grid, elevation_on_columns: Any, stations: checks.Coordinates | None = None) -> np.ndarray:
    """Which cells lie below the ground, as a staircase that honours the stations.

    A cell is active when its centre is below the ground at its column's centre. In a column that holds stations the
    staircase is lowered, no more than needed, until none of them lies more than one cell below its top: a forward
    operator can raise such a station to the top, while a deeper one would sit inside the rock.

    Args:
        grid: The cells.
        elevation_on_columns: Metres, at the column centres [northing, easting] ([easting] in 2-D).
        stations: Coordinates in metres, a mapping or a survey; those outside the grid horizontally have no column.

    Returns:
        bool, shaped as the grid.

    Raises:
        ValueError: Elevations of another shape or not finite, or a station below the grid.
    """
    elevation = checks.shape("elevation_on_columns", checks.finite("elevation_on_columns", elevation_on_columns), grid.shape[1:])
    top = np.searchsorted(grid.centers[0], elevation, side="left")  # number of active cells of each column
    if stations is not None:
        points = checks.points("stations", stations, grid.dims)
        bottom = grid.edges[0][0]
        if points[:, 0].min() < bottom:
            given = f"at {points[:, 0].min():g} m (station {points[:, 0].argmin()})"
            raise checks.invalid("stations", given, f"above the grid's bottom, {bottom:g} m", "Extend the grid down.")
        points = points[_inside_horizontally(grid, points)]
        index = grid.cell_index(points)
        np.minimum.at(top, tuple(index[:, 1:].T), index[:, 0] + 1)
    return np.arange(grid.shape[0]).reshape(-1, *[1] * (grid.ndim - 1)) < top


def _inside_horizontally(grid: Grid, points: np.ndarray) -> np.ndarray:
    return np.all([(axis[0] <= column) & (column <= axis[-1]) for axis, column in zip(grid.edges[1:], points.T[1:], strict=True)], axis=0)
