"""Rectilinear grids: the cells on which models live and fields are computed.

Axes are ordered ``[upward, northing, easting]`` in 3-D and ``[upward, easting]`` in 2-D, `upward` positive up. A grid is
given by the edges of its cells; a uniform core may be surrounded by padding cells that grow outwards.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from . import checks

if TYPE_CHECKING:
    import xarray

DIMS = {2: ("upward", "easting"), 3: ("upward", "northing", "easting")}


@final
@dataclass(frozen=True, eq=False)
class Grid:
    """A rectilinear grid of cells.

    Args:
        edges: Cell edges along each axis, in metres, strictly increasing; 3 arrays (upward, northing, easting) or 2
            (upward, easting). An axis of n cells has n + 1 edges.
        padding: How many of the cells at the (lower, upper) end of each axis are padding around the core.

    Raises:
        ValueError: Edges not strictly increasing, not 2 or 3 axes, or more padding than cells.
    """

    edges: tuple[np.ndarray, ...]
    padding: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if len(self.edges) not in DIMS:
            raise checks.invalid("edges", f"with {len(self.edges)} axes", "2 axes (upward, easting) or 3 (upward, northing, easting)")
        names = DIMS[len(self.edges)]
        edges = tuple(checks.increasing(f"{dim} edges", axis) for dim, axis in zip(names, self.edges, strict=True))
        padding = self.padding or ((0, 0),) * len(edges)
        for dim, axis, (lower, upper) in zip(names, edges, padding, strict=True):
            if min(lower, upper) < 0 or lower + upper >= axis.size - 1:
                raise checks.invalid("padding", f"{(lower, upper)} along {dim}", f"smaller than its {axis.size - 1} cells")
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "padding", padding)

    @classmethod
    def uniform(cls, shape: Sequence[int], spacing: Sequence[float], origin: Sequence[float] | None = None) -> "Grid":
        """Cells of one size.

        Args:
            shape: Number of cells along each axis.
            spacing: Cell size along each axis, in metres.
            origin: The lowest, southernmost, westernmost corner, in metres; zeros by default.
        """
        origin = [0.0] * len(shape) if origin is None else origin
        sizes = checks.positive("spacing", spacing)
        counts = checks.positive("shape", shape).astype(int)
        if np.any(counts != np.asarray(shape)):
            raise checks.invalid("shape", tuple(shape), "whole numbers of cells")
        if not len(counts) == len(sizes) == len(origin):
            raise checks.invalid("shape, spacing, origin", f"of lengths {len(counts)}, {len(sizes)}, {len(origin)}", "of one length")
        return cls(tuple(start + size * np.arange(n + 1) for n, size, start in zip(counts, sizes, origin, strict=True)))

    @property
    def ndim(self) -> int:
        """Number of axes, 2 or 3."""
        return len(self.edges)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes."""
        return DIMS[self.ndim]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of cells along each axis."""
        return tuple(axis.size - 1 for axis in self.edges)

    @property
    def size(self) -> int:
        """Number of cells."""
        return int(np.prod(self.shape))

    @functools.cached_property
    def widths(self) -> tuple[np.ndarray, ...]:
        """Cell sizes along each axis, in metres."""
        return tuple(np.diff(axis) for axis in self.edges)

    @functools.cached_property
    def centers(self) -> tuple[np.ndarray, ...]:
        """Cell centres along each axis, in metres."""
        return tuple((axis[1:] + axis[:-1]) / 2 for axis in self.edges)

    @functools.cached_property
    def volumes(self) -> np.ndarray:
        """Cell volumes (areas in 2-D), in m3 (m2), shaped as the grid."""
        return functools.reduce(np.multiply.outer, self.widths)

    @property
    def core(self) -> tuple[slice, ...]:
        """Slices of the cells that are not padding."""
        return tuple(slice(lower, n - upper) for n, (lower, upper) in zip(self.shape, self.padding, strict=True))

    def core_grid(self) -> "Grid":
        """The grid without its padding."""
        return Grid(tuple(axis[part.start : part.stop + 1] for axis, part in zip(self.edges, self.core, strict=True)))

    def like(self, other: "Grid") -> bool:
        """Whether another grid has these cells, to a thousandth of the smallest."""
        pairs = zip(self.edges, other.edges, self.widths, strict=False)
        return self.shape == other.shape and all(float(np.abs(a - b).max()) <= 1e-3 * float(widths.min()) for a, b, widths in pairs)

    def pad(self, cells: int | Sequence[tuple[int, int]], *, ratio: float = 1.4) -> "Grid":
        """The same grid surrounded by cells that grow outwards by `ratio`, each starting from the outermost cell's size.

        Args:
            cells: Number of padding cells on every side, or (lower, upper) for each axis.
            ratio: Growth from one padding cell to the next.
        """
        if ratio < 1:
            raise checks.invalid("ratio", ratio, "1 or more")
        counts = ((cells, cells),) * self.ndim if isinstance(cells, int) else tuple(cells)
        edges = []
        for axis, widths, (lower, upper) in zip(self.edges, self.widths, counts, strict=True):
            below = axis[0] - np.cumsum(widths[0] * ratio ** np.arange(1, lower + 1))[::-1]
            above = axis[-1] + np.cumsum(widths[-1] * ratio ** np.arange(1, upper + 1))
            edges.append(np.concatenate([below, axis, above]))
        padding = tuple((a + c, b + d) for (a, b), (c, d) in zip(self.padding, counts, strict=True))
        return Grid(tuple(edges), padding)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Whether each point [point, axis], in metres, lies in the grid (its faces included)."""
        low, high = (np.array([axis[end] for axis in self.edges]) for end in (0, -1))
        return np.all((points >= low) & (points <= high), axis=1)

    def positions(self, name: str, given: Any) -> np.ndarray:
        """Points in the grid [point, axis], m, in the order of its axes.

        Raises:
            ValueError: Values that are not finite, another shape, or points outside of the grid; names the first.
        """
        points = np.atleast_2d(checks.finite(name, given))
        if points.ndim != 2 or points.shape[1] != self.ndim:
            raise checks.invalid(name, f"of shape {points.shape}", f"of shape (points, {self.ndim}): {', '.join(self.dims)}")
        outside = np.flatnonzero(~self.contains(points))
        if outside.size:
            given = f"{points[outside[0]]} at index {outside[0]}"
            raise checks.invalid(name, given, "inside the grid", f"{outside.size} of {len(points)} are not.")
        return points

    def cell_index(self, points: np.ndarray) -> np.ndarray:
        """The index [point, axis] of the cell that holds each point; one on a face belongs to the upper cell, the last face to the last cell."""
        columns = [np.searchsorted(axis, column, side="right") - 1 for axis, column in zip(self.edges, points.T, strict=True)]
        return np.clip(np.stack(columns, axis=1), 0, np.array(self.shape) - 1)

    def to_xarray(self, values: Any, *, name: str | None = None, units: str = "") -> "xarray.DataArray":
        """Values on the grid's cells as a DataArray on cell centres; the edges travel in the coordinates' attributes."""
        import xarray

        array = checks.shape(name or "values", values, self.shape)
        coords = {
            dim: (dim, centers, {"units": "m", "edges": edges}) for dim, centers, edges in zip(self.dims, self.centers, self.edges, strict=True)
        }
        attrs = {"units": units, "padding": np.array(self.padding, dtype=np.int32).ravel()}
        return xarray.DataArray(array, coords=coords, dims=self.dims, name=name, attrs=attrs)

    @classmethod
    def from_xarray(cls, data: "xarray.DataArray | xarray.Dataset") -> "Grid":
        """The grid of a DataArray or Dataset.

        Stored edges and padding serve also where cells were cut off at the ends; where the edges do not fit the coordinates (moved
        ones, say), these must be evenly spaced.

        Raises:
            ValueError: Other dimensions, coordinates that do not increase or are not in metres, or uneven ones without edges that fit.
        """
        dims = next((names for names in DIMS.values() if set(names) == set(data.dims)), None)
        if dims is None:
            raise checks.invalid("data", f"with dimensions {tuple(data.dims)}", "on (upward, northing, easting) or (upward, easting)")
        stored = np.asarray(data.attrs.get("padding", np.zeros(2 * len(dims))), dtype=int).reshape(-1, 2)
        axes = [_axis(dim, np.asarray(data[dim]), data[dim].attrs, ends) for dim, ends in zip(dims, stored, strict=True)]
        return cls(tuple(edges for edges, _ in axes), tuple(ends for _, ends in axes))


def _axis(dim: str, centers: np.ndarray, attrs: Mapping[str, Any], padding: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Edges and (lower, upper) padding of one axis. Attributes stay as they were where an array is cut or moved: they serve where they fit."""
    checks.in_unit(dim, attrs, "m")
    if centers.dtype.kind not in "fiu":
        raise checks.invalid(dim, f"of type {centers.dtype}", "numbers, in metres")
    rounding = float(np.spacing(np.abs(centers).max(initial=0))) if centers.dtype.kind == "f" else 0.0
    centers = checks.finite(dim, centers)
    falling = np.flatnonzero(np.diff(centers) <= 0)
    if falling.size:
        given = f"{centers[falling[0]]:g}, {centers[falling[0] + 1]:g} at index {falling[0]}"
        raise checks.invalid(dim, given, "strictly increasing", f"Sort it: data.sortby('{dim}').")
    n, lower, upper = centers.size, int(padding[0]), int(padding[1])
    if "edges" in attrs:
        stored = checks.increasing(f"{dim} edges", np.atleast_1d(attrs["edges"]))
        middles, narrowest = (stored[1:] + stored[:-1]) / 2, np.diff(stored).min()
        near = min(max(1e-3 * narrowest, rounding), 0.1 * narrowest)
        first = int(np.searchsorted(middles, centers[0] - near))
        part = stored[first : first + n + 1]
        if part.size == n + 1 and np.abs((part[1:] + part[:-1]) / 2 - centers).max() <= near:
            return part, (max(0, lower - first), max(0, upper - (middles.size - first - n)))
    step = (centers[-1] - centers[0]) / max(1, n - 1)
    stray = np.abs(centers - centers[0] - step * np.arange(n)).max()
    if n < 2 or stray > min(1e-6 * step + rounding, 0.1 * step):
        given = "with one cell" if n < 2 else "with uneven spacing"
        raise checks.invalid(dim, given, "evenly spaced, or to carry the attribute 'edges' with the n + 1 edges around its n centres")
    return centers[0] + step * (np.arange(n + 1) - 0.5), (lower, upper)


def layers(top: float, uniform_to: float, bottom: float, thickness: float, growth: float = 1.0) -> np.ndarray:
    """Edges, upwards, of layers of one thickness down to `uniform_to` and growing ones below, to `bottom` or just beyond; all in metres."""
    edges = [top]
    while edges[-1] > bottom + 1e-9 * thickness:
        if edges[-1] < uniform_to + 1e-9 * thickness:
            thickness *= growth
        edges.append(edges[-1] - thickness)
    return np.array(edges[::-1])


def layer_count(top: float, uniform_to: float, bottom: float, thickness: float, growth: float = 1.0) -> float:
    """About how many `layers` there would be, without making them."""
    if growth == 1:
        return (top - bottom) / thickness
    uniform = max(0.0, top - max(uniform_to, bottom))
    return uniform / thickness + float(np.log1p((top - bottom - uniform) * (growth - 1) / (thickness * growth)) / np.log(growth))
