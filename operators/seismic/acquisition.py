"""Where sources and receivers are, and the sparse matrices that take them to the cells and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.sparse

from .. import checks
from ..grid import Grid
from . import sinc
from .boxes import Box, around


@final
@dataclass(frozen=True, eq=False)
class Acquisition:
    """The sources and receivers of a survey's shots.

    Args:
        sources: [shot, source, axis] or [shot, axis] positions, m, in the order of the grid's axes.
        receivers: [shot, receiver, axis], or [receiver, axis] for one spread that serves every shot.
        live: [shot, receiver] whether there is such a receiver; spreads of different lengths are padded with others. All by default.
        live_sources: [shot, source] the same for sources.

    Raises:
        ValueError: Shapes that do not fit, positions of live points that are not finite, a shot without a live source.
    """

    sources: np.ndarray
    receivers: np.ndarray
    live: np.ndarray | None = None
    live_sources: np.ndarray | None = None

    def __post_init__(self) -> None:
        sources, receivers = np.array(self.sources, float), np.array(self.receivers, float)
        sources = sources[:, np.newaxis] if sources.ndim == 2 else sources
        receivers = np.tile(receivers, (len(sources), 1, 1)) if receivers.ndim == 2 else receivers
        if sources.ndim != 3 or receivers.ndim != 3 or receivers.shape[::2] != sources.shape[::2] or sources.shape[2] not in (2, 3):
            raise checks.invalid(
                "acquisition",
                f"with sources {sources.shape}, receivers {receivers.shape}",
                "[shot, source, axis] and [shot, receiver, axis] of 2 or 3 axes",
            )
        for name, points in (("sources", sources), ("receivers", receivers)):
            if not points.size:
                raise checks.invalid(name, f"of shape {points.shape}", "at least one for each shot")
            live = self._live("live" if name == "receivers" else "live_sources", points.shape[:2])
            bad = np.argwhere(live & ~np.isfinite(points).all(axis=2))
            if bad.size:
                raise checks.invalid(name, f"{points[tuple(bad[0])]} of shot {bad[0, 0]}, number {bad[0, 1]}", "finite where live")
            # Padding stands where the shot's first live point does: a place like any other, with weight zero.
            points[~live] = np.repeat(points[np.arange(len(points)), np.argmax(live, axis=1)], (~live).sum(axis=1), axis=0)
            object.__setattr__(self, name, points)
        if not self.live_sources.any(axis=1).all():  # type: ignore[union-attr]
            raise checks.invalid("sources", "none live in a shot", "at least one for each shot")

    def _live(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        given = getattr(self, name)
        live = np.ones(shape, bool) if given is None else checks.shape(name, np.asarray(given, bool), shape)
        object.__setattr__(self, name, live)
        return live

    @property
    def shots(self) -> int:
        """Number of shots."""
        return len(self.sources)

    def subset(self, shots: np.ndarray) -> "Acquisition":
        """Some of the shots, by their numbers."""
        return Acquisition(*(part[shots] for part in (self.sources, self.receivers, self.live, self.live_sources)))  # type: ignore[index]


@final
@dataclass(frozen=True, eq=False)
class Points:
    """Sources or receivers of every shot between the cells of one box: padded rows of a sparse matrix and of its transpose.

    Args:
        box: The cells, those of all shots together.
        columns, weights: [shot, point, tap] cells of the box, and sinc weights, that sample at the points.
        widest: The most points that share a cell.
    """

    box: Box
    columns: np.ndarray
    weights: np.ndarray
    widest: int

    @classmethod
    def on(
        cls, name: str, grid: Grid, positions: np.ndarray, live: np.ndarray, windows: Sequence[Box], layers: Sequence[Sequence[int]], mirror_top: bool
    ) -> "Points":
        """The points of positions [shot, point, axis], in each shot's window of a grid, with the layers around it.

        Raises:
            ValueError: A live point outside of the grid, on a free surface, or too near a side that reflects (names it).
        """
        shots, count, _ = positions.shape
        flat = positions.reshape(-1, grid.ndim)

        def refuse(wrong: np.ndarray, where: str, expected: str) -> None:
            numbers = np.flatnonzero(live.ravel() & wrong)
            if numbers.size:
                place = ", ".join(f"{value:.10g}" for value in flat[numbers[0]])
                given = f"({place}) m (shot {numbers[0] // count}, number {numbers[0] % count}){where}"
                raise checks.invalid(name, given, expected, f"{numbers.size} {'is' if numbers.size == 1 else 'are'} not.")

        limits = ", ".join(f"{dim} {edges[0]:g} to {edges[-1]:g} m" for dim, edges in zip(grid.dims, grid.edges, strict=True))
        refuse(~grid.contains(flat), "", f"inside the grid ({limits})")
        shape = tuple(n + lower + upper for n, (lower, upper) in zip(windows[0].shape, layers, strict=True))
        origin = np.repeat([[first - lower for first, (lower, _) in zip(window.start, layers, strict=True)] for window in windows], count, axis=0)
        first, size = (np.array([each[0] for each in parts]) for parts in (grid.centers, grid.widths))
        index = np.where(live.reshape(-1, 1), (flat - first) / size - origin, 0.0)
        room = f"{sinc.HALF_WIDTH} cells or more from it, or on a cell's centre"
        refuse(sinc.crowded(index, shape, mirror_top=mirror_top), ", too near a side that reflects", room)
        cells, weights = sinc.collapse(*sinc.points(index, shape, mirror_top=mirror_top))
        weights = weights * live.reshape(-1, 1)
        refuse(~weights.any(axis=1), ", on the free surface", "below it, where the pressure is not zero")
        box = around(cells[weights != 0], shape)
        columns = _ravelled(cells, weights, shape, box)
        columns = columns.reshape(shots, count, -1).astype(np.int32)
        weights = weights.reshape(shots, count, -1)
        widest = max(int(np.bincount(each[weight != 0]).max(initial=1)) for each, weight in zip(columns, weights, strict=True))
        return cls(box, columns, weights, widest)

    def subset(self, shots: np.ndarray) -> "Points":
        """Those of some shots, in the same box and of the same widths."""
        return Points(self.box, self.columns[shots], self.weights[shots], self.widest)

    def transposed(self, shot: int) -> tuple[np.ndarray, np.ndarray]:
        """[cell of the box, tap] points, and weights, that spread from one shot's points."""
        point, tap = np.nonzero(self.weights[shot])
        cell = self.columns[shot, point, tap]
        order = np.argsort(cell, kind="stable")
        cell, point, tap = cell[order], point[order], tap[order]
        count = np.bincount(cell, minlength=self.box.size)
        place = np.arange(cell.size) - np.repeat(np.cumsum(count) - count, count)
        rows, values = np.zeros((self.box.size, self.widest), np.int32), np.zeros((self.box.size, self.widest))
        rows[cell, place], values[cell, place] = point, self.weights[shot, point, tap]
        return rows, values

    def matrix(self, shot: int, whole: Box) -> scipy.sparse.csr_array:
        """[points, cells] of one shot's sampling, over all cells of a lattice."""
        points, taps = self.columns.shape[1:]
        cells = np.arange(whole.size).reshape(whole.shape)[self.box.slices(whole)].ravel()[self.columns[shot]]
        matrix = scipy.sparse.csr_array((self.weights[shot].ravel(), cells.ravel(), np.arange(points + 1) * taps), shape=(points, whole.size))
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        return matrix


def _ravelled(cells: np.ndarray, weights: np.ndarray, shape: tuple[int, ...], box: Box) -> np.ndarray:
    """Cells of the grid as cells of the box; those of weight zero become its first one."""
    columns = [column - first for column, first in zip(np.unravel_index(cells, shape), box.start, strict=True)]
    inside = np.where(weights != 0, np.array(columns), 0)
    return np.ravel_multi_index(tuple(inside), box.shape)


@final
@dataclass(frozen=True, eq=False)
class Placement:
    """Where every shot propagates, and its points there.

    Args:
        sources, receivers: Between the cells of the windows.
        windows: Of each shot, in cells of the grid; all of one shape.
        numbers: Of the shots, in the survey that they are of.
    """

    sources: Points
    receivers: Points
    windows: tuple[Box, ...]
    numbers: tuple[int, ...]

    @classmethod
    def on(
        cls, grid: Grid, survey: Acquisition, layers: Sequence[Sequence[int]], mirror_top: bool, aperture: Sequence[float] | float | None
    ) -> "Placement":
        """That of a survey on a grid; each window reaches `aperture` metres beyond the shot's points along the horizontal axes."""
        windows = (Box((0,) * grid.ndim, grid.shape),) * survey.shots if aperture is None else _windows(grid, survey, aperture)
        sources = Points.on("sources", grid, survey.sources, np.asarray(survey.live_sources), windows, layers, mirror_top)
        receivers = Points.on("receivers", grid, survey.receivers, np.asarray(survey.live), windows, layers, mirror_top)
        return cls(sources, receivers, windows, tuple(range(survey.shots)))

    def subset(self, shots: np.ndarray) -> "Placement":
        """That of some shots: the same boxes and sizes, so that nothing is compiled anew."""
        windows, numbers = (tuple(part[shot] for shot in shots) for part in (self.windows, self.numbers))
        return Placement(self.sources.subset(shots), self.receivers.subset(shots), windows, numbers)


def _windows(grid: Grid, survey: Acquisition, aperture: Sequence[float] | float) -> tuple[Box, ...]:
    """Windows as large as the largest that any shot needs, moved inside the grid; over all of its depth."""
    margins = checks.finite("aperture", np.broadcast_to(aperture, grid.ndim - 1))
    if margins.min() < 0:
        raise checks.invalid("aperture", aperture, "0 m or more along each horizontal axis")
    starts, shape = [np.zeros(survey.shots, int)], [grid.shape[0]]
    for axis, margin in enumerate(margins, start=1):
        points = np.concatenate([survey.sources[..., axis], survey.receivers[..., axis]], axis=1)
        size, first, n = grid.widths[axis][0], grid.edges[axis][0], grid.shape[axis]
        low = np.floor((points.min(axis=1) - margin - first) / size).astype(int)
        count = min(n, int(np.max(np.ceil((points.max(axis=1) + margin - first) / size) - low)))
        starts.append(np.clip(low, 0, n - count))
        shape.append(count)
    return tuple(Box(tuple(map(int, start)), tuple(shape)) for start in zip(*starts, strict=True))
