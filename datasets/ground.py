"""The surface above a vertical section: straight lines between points."""

from typing import NamedTuple

import numpy as np

from geoinv.operators.grid import Grid


class Ground(NamedTuple):
    """The surface, level beyond its first and last point.

    Args:
        easting: Of the points, ascending, m.
        upward: Of them, m.
    """

    easting: np.ndarray
    upward: np.ndarray

    @classmethod
    def through(cls, easting: np.ndarray, upward: np.ndarray) -> "Ground":
        """That through points in any order, the highest ones where several lie at one place."""
        places, number = np.unique(easting, return_inverse=True)
        highest = np.full(places.size, -np.inf)
        np.maximum.at(highest, number, upward)
        return cls(places, highest)

    def at(self, easting: np.ndarray) -> np.ndarray:
        """Its height, m."""
        return np.interp(easting, self.easting, self.upward)

    def between(self, left: float, right: float) -> "Ground":
        """The part of it between two eastings, with points at both."""
        places = np.concatenate([[left], self.easting[(self.easting > left) & (self.easting < right)], [right]])
        return Ground(places, self.at(places))

    def without_drops(self, steepest: float) -> "Ground":
        """The same without points at the lower end of lines steeper than that, over and over."""
        x, z = self
        while x.size > 1:
            rise = np.diff(z)
            steep = np.abs(rise) > steepest * np.diff(x)
            low = np.zeros(x.size, bool)
            low[:-1] |= steep & (rise > 0)
            low[1:] |= steep & (rise < 0)
            if not low.any():
                break
            x, z = x[~low], z[~low]
        return Ground(x, z)

    def highest(self, edges: np.ndarray) -> np.ndarray:
        """The highest point between neighbouring edges, m."""
        found = np.maximum(self.at(edges[:-1]), self.at(edges[1:]))
        cells = np.clip(np.searchsorted(edges, self.easting) - 1, 0, found.size - 1)
        inside = (self.easting >= edges[0]) & (self.easting <= edges[-1])
        np.maximum.at(found, cells[inside], self.upward[inside])
        return found

    def active(self, grid: Grid, parts: int = 1) -> np.ndarray:
        """The cells (upward, easting) with any ground, or of their parts along each axis those with any."""
        upward, easting = (np.interp(np.arange((axis.size - 1) * parts + 1) / parts, np.arange(axis.size), axis) for axis in grid.edges)
        return np.asarray(upward[:-1, np.newaxis] < self.highest(easting))
