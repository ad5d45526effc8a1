"""Where stations stand on the staircase of active cells. Nothing here needs TensorFlow."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from .. import checks
from ..grid import Grid


@final
@dataclass(frozen=True, eq=False)
class Setting:
    """Where density may be, and where the stations stand on it.

    Args:
        active: The cells that may carry density, shaped as the grid.
        points: Station positions [station, (upward, northing, easting)] as used, in metres.
        raised: How far each station was raised to the top of the staircase of cells, in metres.
    """

    active: np.ndarray
    points: np.ndarray
    raised: np.ndarray

    @classmethod
    def of(cls, grid: Grid, stations: checks.Coordinates, active: Any | None) -> "Setting":
        """The setting of a 3-D grid; raises ValueError as `active_cells` and `raise_stations` do."""
        if grid.ndim != 3:
            raise checks.invalid("grid", f"with {grid.ndim} axes", "three-dimensional")
        mask = active_cells(grid, active)
        return cls(mask, *raise_stations(grid, mask, checks.points("stations", stations, grid.dims)))


def active_cells(grid: Grid, active: Any | None) -> np.ndarray:
    """The mask of cells that may carry density, shaped as the grid; all cells by default."""
    if active is None:
        return np.ones(grid.shape, dtype=bool)
    mask = checks.shape("active", active, grid.shape).astype(bool)
    if not mask.any():
        raise checks.invalid("active", "without any active cell", "true for one cell or more")
    return mask


def tops(grid: Grid, active: np.ndarray) -> np.ndarray:
    """Elevation of the top of the highest active cell of each column, in metres; -inf where a column has none."""
    levels = np.where(active, grid.edges[0][1:].reshape(-1, *[1] * (grid.ndim - 1)), -np.inf)
    return levels.max(axis=0)


def depths(grid: Grid, active: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How far each point [point, axis] lies below the staircase, in metres; negative above it.

    A point on the face or edge between columns is measured against the lowest of them: it is not inside the others.
    """
    surface = tops(grid, active)
    height = np.full(len(points), np.inf)
    for side in np.ndindex(*[2] * (grid.ndim - 1)):
        index = []
        for axis, upper in enumerate(side, start=1):
            found = np.searchsorted(grid.edges[axis], points[:, axis], side="right" if upper else "left") - 1
            index.append(np.clip(found, 0, grid.shape[axis] - 1))
        height = np.minimum(height, surface[tuple(index)])
    return height - points[:, 0]


def raise_stations(grid: Grid, active: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points with those inside the staircase raised to its top, and by how much each was raised, in metres.

    Raises:
        ValueError: A point is outside the grid horizontally or below it, or lies more than one cell below the staircase.
    """
    low, high = (np.array([edges[end] for edges in grid.edges]) for end in (0, -1))
    outside = (points < low).any(axis=1) | (points[:, 1:] > high[1:]).any(axis=1)
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        extent = "; ".join(f"{dim} {a:g} to {b:g} m" for dim, a, b in zip(grid.dims, low, high, strict=True))
        given = f"with {outside.sum()} outside the grid, the first (index {at}) at {_where(points[at])}"
        raise checks.invalid("stations", given, f"within the grid ({extent})", "Enlarge the grid or leave them out.")
    depth = depths(grid, active, points)
    cell = grid.widths[0][grid.cell_index(points)[:, 0]]
    # A thousandth of a cell absorbs rounding of coordinates read from text.
    buried = depth > 1.001 * cell
    if buried.any():
        at = int(np.argmax(np.where(buried, depth, -np.inf)))
        raise too_deep(buried, at, depth[at], cell[at], "the top of the active cells")
    raised = np.maximum(depth, 0.0)
    lifted = points.copy()
    lifted[:, 0] += raised
    return lifted, raised


def too_deep(buried: np.ndarray, at: int, depth: float, cell: float, surface: str) -> ValueError:
    """The error for stations more than a cell below the ground, naming the deepest of them."""
    given = f"with {int(buried.sum())} more than a cell below the ground, the deepest (index {at}) by {depth:.4g} m"
    return checks.invalid("stations", given, f"at most one cell ({cell:g} m) below {surface}", "Check the heights, their datum and the topography.")


def _where(point: np.ndarray) -> str:
    return "(upward, northing, easting) = (" + ", ".join(f"{value:.10g}" for value in point) + ") m"
