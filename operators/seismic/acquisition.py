"""Where sources and receivers are, and where every shot propagates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from .. import checks
from ..grid import Grid
from .boxes import Box
from .points import Points, located, spreads


@final
@dataclass(frozen=True, eq=False)
class Acquisition:
    """The sources and receivers of a survey's shots.

    Args:
        sources: [shot, source, axis] or [shot, axis] positions, m, in the order of the grid's axes.
        receivers: [shot, receiver, axis], or [receiver, axis] for one spread that serves every shot.
        live: [shot, receiver] whether there is such a receiver; spreads of different lengths are padded with others, at their ends. All by default.
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
        for name, alive in (("sources", self.live_sources), ("receivers", self.live)):
            silent = np.flatnonzero(~np.any(np.asarray(alive), axis=1))
            if silent.size:
                raise checks.invalid(name, f"none live in shot {silent[0]}", "at least one for each shot", f"{silent.size} shots have none.")

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
class Placement:
    """Where every shot propagates, and its points there.

    Args:
        sources: Between the cells of the windows.
        spreads: Receivers, of shots that have about as many (see `points.spreads`).
        seats: Of each shot, its spread and its place among the shots that share it.
        windows: Of each shot, in cells of the grid; all of one shape.
        numbers: Of the shots, in the survey that they are of.
    """

    sources: Points
    spreads: tuple[Points, ...]
    seats: tuple[tuple[int, int], ...]
    windows: tuple[Box, ...]
    numbers: tuple[int, ...]

    @classmethod
    def on(
        cls, grid: Grid, survey: Acquisition, layers: Sequence[Sequence[int]], mirror_top: bool, aperture: Sequence[float] | float | None
    ) -> "Placement":
        """That of a survey on a grid; each window reaches `aperture` metres beyond the shot's points along the horizontal axes.

        Raises:
            ValueError: A point that cannot be placed, or windows whose ends would reflect.
        """
        if aperture is not None and not all(lower and upper for lower, upper in layers[1:]):
            given = f"{aperture} m with layers of {', '.join(f'{lower} and {upper}' for lower, upper in layers[1:])} cells along the horizontal axes"
            raise checks.invalid("aperture", given, "given with layers on all sides there", "The ends of the windows would reflect.")
        windows = (Box((0,) * grid.ndim, grid.shape),) * survey.shots if aperture is None else _windows(grid, survey, aperture)
        live, live_sources = np.asarray(survey.live), np.asarray(survey.live_sources)
        sources = Points.between(located("sources", grid, survey.sources, live_sources, windows, layers, mirror_top), live_sources)
        cells = math.prod(n + lower + upper for n, (lower, upper) in zip(windows[0].shape, layers, strict=True))
        found = spreads(located("receivers", grid, survey.receivers, live, windows, layers, mirror_top), live, cells)
        seats = {int(shot): (number, place) for number, (shots, _) in enumerate(found) for place, shot in enumerate(shots)}
        numbers = tuple(range(survey.shots))
        return cls(sources, tuple(points for _, points in found), tuple(seats[shot] for shot in numbers), windows, numbers)

    def receivers(self, shot: int) -> tuple[Points, int]:
        """Those of the shots that share a spread, and a shot's place among them."""
        spread, place = self.seats[shot]
        return self.spreads[spread], place

    def subset(self, shots: np.ndarray) -> "Placement":
        """That of some shots: the same boxes and sizes, so that nothing is compiled anew."""
        seats, windows = tuple(self.seats[shot] for shot in shots), tuple(self.windows[shot] for shot in shots)
        return Placement(self.sources.subset(shots), self.spreads, seats, windows, tuple(self.numbers[shot] for shot in shots))


def _windows(grid: Grid, survey: Acquisition, aperture: Sequence[float] | float) -> tuple[Box, ...]:
    """Windows as large as the largest that any shot needs, moved inside the grid; over all of its depth."""
    margins = checks.finite("aperture", aperture)
    if margins.shape not in ((), (grid.ndim - 1,)) or margins.min() < 0:
        raise checks.invalid("aperture", aperture, "0 m or more, one number or one for each horizontal axis")
    margins = np.broadcast_to(margins, grid.ndim - 1)
    starts, shape = [np.zeros(survey.shots, int)], [grid.shape[0]]
    for axis, margin in enumerate(margins, start=1):
        points = np.concatenate([survey.sources[..., axis], survey.receivers[..., axis]], axis=1)
        size, first, n = grid.widths[axis][0], grid.edges[axis][0], grid.shape[axis]
        low = np.floor((points.min(axis=1) - margin - first) / size).astype(int)
        count = min(n, int(np.max(np.ceil((points.max(axis=1) + margin - first) / size) - low)))
        starts.append(np.clip(low, 0, n - count))
        shape.append(count)
    return tuple(Box(tuple(map(int, start)), tuple(shape)) for start in zip(*starts, strict=True))
