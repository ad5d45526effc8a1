"""The grid on which the potential is computed: the model's cells, split where they are coarse, in air.

The scheme is of 4th order on uniform cells and of 2nd where sizes change, so large cells of a stretched model grid are split
before they are solved on. How far depends on where the stations are: the error of a cell seen from afar goes with the square of its
size over its distance, so cells may grow by `GRADING` of their distance from the stations along each axis.
"""

from dataclasses import dataclass
from typing import final

import numpy as np

from ..grid import Grid

#: Uniform cells around the model before the padding grows, so that stations and their stencils see a uniform grid.
UNIFORM = 4
#: Growth of the padding cells, and how far they reach in units of the model's largest half-width.
GROWTH, REACH = 1.15, 0.75
#: Size of a cell over its distance from the stations along an axis, at most; and that of the cells among the stations over the resolution.
GRADING, SLACK = 0.1, 1.3


@final
@dataclass(frozen=True, eq=False)
class Mesh:
    """The cells of a model split for the solver.

    Args:
        grid: The computational grid: padding, and as its core the split cells of the model.
        parts: For each axis the number of cells that each of the model's is split into.
    """

    grid: Grid
    parts: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, model: Grid, points: np.ndarray) -> "Mesh":
        """The mesh for a model's grid and stations [point, axis], in metres."""
        parts = tuple(_parts(edges, column, _resolution(model)) for edges, column in zip(model.edges, points.T, strict=True))
        edges = tuple(_split(axis, counts) for axis, counts in zip(model.edges, parts, strict=True))
        return cls(_in_air(Grid(edges), points[:, 0].max()), parts)

    def gather(self, axis: int, rows: np.ndarray) -> np.ndarray:
        """Rows over the split cells of an axis summed over the parts of each of the model's cells."""
        return np.add.reduceat(rows, np.concatenate([[0], np.cumsum(self.parts[axis])[:-1]]), axis=0)


def _resolution(model: Grid) -> float:
    """What the model resolves: along its coarsest axis, its smallest cells."""
    return float(max(widths.min() for widths in model.widths))


def _parts(edges: np.ndarray, stations: np.ndarray, resolution: float) -> np.ndarray:
    distance = np.maximum(np.maximum(stations.min() - edges[1:], edges[:-1] - stations.max()), 0.0)
    return np.ceil(np.diff(edges) / np.maximum(SLACK * resolution, GRADING * distance)).astype(int)


def _split(edges: np.ndarray, parts: np.ndarray) -> np.ndarray:
    inside = [np.linspace(low, high, count, endpoint=False) for low, high, count in zip(edges[:-1], edges[1:], parts, strict=True)]
    return np.concatenate([*inside, edges[-1:]])


def _in_air(grid: Grid, highest: float) -> Grid:
    """The grid with uniform cells around it (above, up to the highest station), growing ones, and the ring of boundary cells."""
    above = int(np.clip(np.ceil((highest - grid.edges[0][-1]) / grid.widths[0][-1]), 0, 40))
    uniform = [(UNIFORM, UNIFORM + above), (UNIFORM, UNIFORM), (UNIFORM, UNIFORM)]
    reach = REACH * max(np.ptp(edges) for edges in grid.edges) / 2
    higher = max(reach, highest - grid.edges[0][-1])
    growing = [(_cells_to(reach, widths[0]), _cells_to(higher if axis == 0 else reach, widths[-1])) for axis, widths in enumerate(grid.widths)]
    return grid.pad(uniform, ratio=1.0).pad(growing, ratio=GROWTH)


def _cells_to(reach: float, width: float) -> int:
    """How many cells growing from `width` span `reach`; the last is the ring."""
    return max(3, int(np.ceil(np.log1p(reach / width * (GROWTH - 1) / GROWTH) / np.log(GROWTH))))
