"""The figures of a travel-time inversion: the section below the ground, the ways of waves, times against distance, and what is left of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.ndimage
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from geoinv.operators.grid import Grid

from ..figures import DIVERGING, FIELD, colourbar, length_unit, thin_ticks
from .coverage import seen

if TYPE_CHECKING:
    import xarray

#: Coverage, over its largest, that is not drawn.
NONE = 1e-3
#: Height over width of sections that stand side by side.
TALL = 0.7
#: Cells over which the border of what waves pass through is smoothed for drawing.
SMOOTHED = 1.5
#: Ways that are drawn at most; more are thinned out evenly.
WAYS = 400


class _Section(NamedTuple):
    """The cells below the ground, in the unit of the axes.

    Args:
        x, y: Their edges.
        ground: [knot, (x, y)] the surface, from side to side.
        unit, factor: Of the axes, and its length in m.
    """

    x: np.ndarray
    y: np.ndarray
    ground: np.ndarray
    unit: str
    factor: float

    @classmethod
    def of(cls, model: "xarray.Dataset") -> "_Section":
        grid = Grid.from_xarray(model["velocity"])
        unit, factor = length_unit(float(np.ptp(grid.edges[1])))
        y, x = (edges / factor for edges in grid.edges)
        knots, heights = (model[f"surface_{name}"].values / factor for name in ("easting", "upward"))
        places = np.unique(np.r_[x[0], knots[(knots > x[0]) & (knots < x[-1])], x[-1]])
        return cls(x, y, np.stack([places, np.interp(places, knots, heights)], axis=1), unit, factor)

    def figure(self, panels: int) -> tuple[Figure, list[Axes]]:
        """One panel below the other, or side by side where they are tall."""
        shape = float(np.ptp(self.y) / np.ptp(self.x))
        if shape > TALL:
            figure = Figure(figsize=(9.6, float(np.clip(8.0 / panels * shape, 3.0, 7.0)) + 0.75), layout="compressed")
            return figure, list(np.ravel(figure.subplots(1, panels, sharex=True, sharey=True)))
        figure = Figure(figsize=(9.6, panels * (max(8.0 * shape, 1.6) + 0.75)), layout="compressed")
        return figure, list(np.ravel(figure.subplots(panels, 1, sharex=True, sharey=True)))

    def draw(self, ax: Axes, values: np.ndarray, colours: str, norm: Normalize, title: str, *, pale: np.ndarray | None = None) -> Any:
        """Cells, cut off along the ground; those in `pale` are washed out."""
        drawn = ax.pcolormesh(self.x, self.y, values, cmap=colours, norm=norm, rasterized=True)
        below = Polygon(np.vstack([[self.x[0], self.y[0]], self.ground, [self.x[-1], self.y[0]]]), transform=ax.transData)
        drawn.set_clip_path(below)
        if pale is not None:
            veil = ax.pcolormesh(self.x, self.y, np.where(pale, 1.0, np.nan), cmap="gray", vmin=0, vmax=1, alpha=0.6, linewidth=0, rasterized=True)
            veil.set_clip_path(below)
        ax.plot(*self.ground.T, color="0.2", linewidth=0.9)
        ax.set_aspect("equal" if np.ptp(self.x) < 8 * np.ptp(self.y) else "auto")
        ax.set_title(title, fontsize=9)
        ax.set_xlabel(f"easting ({self.unit})", fontsize=8)
        ax.set_ylabel(f"elevation ({self.unit})", fontsize=8)
        thin_ticks(ax)
        ax.label_outer()
        return drawn


def section(model: "xarray.Dataset", predicted: "xarray.Dataset") -> Figure:
    """The start model and the result on one scale, the true model where it is known; cells that hardly a wave passes through are pale.

    Args:
        model: `velocity`, `start_velocity`, `coverage`, the surface, and `true_velocity` where known.
        predicted: The picks with their sensors.
    """
    cut = _Section.of(model)
    panels = [("start_velocity", "start"), ("velocity", "result"), *([("true_velocity", "true")] if "true_velocity" in model else [])]
    figure, axes = cut.figure(len(panels))
    values = np.concatenate([model[name].values.ravel() for name, _ in panels])
    norm, unseen = _velocities(model), scipy.ndimage.gaussian_filter(seen(model).astype(float), SMOOTHED) < 0.3
    for ax, (name, title) in zip(axes, panels, strict=True):
        drawn = cut.draw(ax, model[name].values, FIELD, norm, title, pale=unseen if name == "velocity" else None)
    _mark_sensors(axes[1], predicted, cut.factor)
    colourbar(figure, drawn, axes, values, "velocity (m/s)")
    return figure


def _velocities(model: "xarray.Dataset") -> Normalize:
    """The scale of what waves pass through: what lies below or beside is the start model's."""
    return Normalize(*np.percentile(model["velocity"].values[seen(model)], [0.5, 99.5]))


def rays(model: "xarray.Dataset", predicted: "xarray.Dataset", ways: "xarray.Dataset | None") -> Figure:
    """The coverage, and above it the ways of first arrivals.

    Args:
        model: As of `section`.
        predicted: The picks with their sensors.
        ways: `pick`, `upward` and `easting` of their points, or None where they are not known.
    """
    cut = _Section.of(model)
    figure, axes = cut.figure(2)
    velocity, coverage = model["velocity"].values, model["coverage"].values
    top = float(np.nanmax(coverage))
    drawn = cut.draw(axes[0], velocity, FIELD, _velocities(model), "ways of first arrivals")
    if ways is not None:
        starts = np.flatnonzero(np.diff(ways["pick"].values, prepend=-1))
        lines = np.split(np.stack([ways["easting"].values, ways["upward"].values], axis=1) / cut.factor, starts[1:])
        axes[0].add_collection(LineCollection(lines[:: -(-len(lines) // WAYS)], colors="white", linewidths=0.5, alpha=0.7))
    _mark_sensors(axes[0], predicted, cut.factor)
    colourbar(figure, drawn, axes[:1], velocity, "velocity (m/s)")
    drawn_cells = np.where(coverage > NONE * top, coverage, np.nan)
    drawn = cut.draw(axes[1], drawn_cells, "magma", LogNorm(NONE * top, top), "coverage: length of all ways in a cell, over its area")
    colourbar(figure, drawn, axes[1:], drawn_cells, "coverage (1/m)")
    return figure


class _Spread(NamedTuple):
    """Where sensors lie along the coordinate in which they are spread most: easting along the ground, elevation down a hole.

    Args:
        place: Of all sensors, in the unit of the axis.
        name: Of the coordinate.
        unit: Of the axis.
    """

    place: np.ndarray
    name: str
    unit: str

    @classmethod
    def of(cls, predicted: "xarray.Dataset", end: str) -> "_Spread":
        """That of the sensors that are some pick's `end`, "shot" or "receiver"."""
        used = np.unique(predicted[end].values)
        name = max(("easting", "upward"), key=lambda each: float(np.ptp(predicted[each].values[used])))
        unit, factor = length_unit(float(np.ptp(predicted[name].values)))
        return cls(predicted[name].values / factor, {"easting": "easting", "upward": "elevation"}[name], unit)


def curves(predicted: "xarray.Dataset") -> Figure:
    """Times of each shot along the receivers, observed and predicted, and the residuals below.

    Args:
        predicted: `observed`, `predicted`, `uncertainty`, `shot`, `receiver` and `holdout`.
    """
    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    spread, sources = _Spread.of(predicted, "receiver"), _Spread.of(predicted, "shot")
    shots, held, along = predicted["shot"].values, predicted["holdout"].values == 1, spread.place[predicted["receiver"].values]
    observed, computed = 1e3 * predicted["observed"].values, 1e3 * predicted["predicted"].values
    for number, shot in enumerate(np.unique(shots)):
        colour, mine = f"C{number % 10}", np.flatnonzero(shots == shot)
        mine = mine[np.argsort(along[mine], kind="stable")]
        for side in _branches(along[mine], spread.place[shot]) if spread.name == sources.name == "easting" else [slice(None)]:
            top.plot(along[mine][side], computed[mine][side], "-", color=colour, linewidth=1.0)
        top.plot(along[mine], observed[mine], ".", color=colour, markersize=4)
        bottom.plot(along[mine], (computed - observed)[mine], ".", color=colour, markersize=4)
    top.plot(along[held], observed[held], "o", markersize=6, markerfacecolor="none", markeredgecolor="black", markeredgewidth=0.6)
    notes = ["dots: observed", "lines: predicted", *(["circles: held out"] if held.any() else [])]
    if spread.name == sources.name == "easting":
        places = spread.place[np.unique(shots)]
        top.plot(places, np.zeros(places.size), "*", color="black", markersize=8, clip_on=False)
        notes.append("stars: shots")
        top.set_ylim(bottom=0)
    top.set_title(f"times ({', '.join(notes)})", fontsize=9)
    top.set_ylabel("time (ms)", fontsize=8)
    bottom.axhline(0, color="0.3", linewidth=0.8)
    bottom.set_title("predicted - observed", fontsize=9)
    bottom.set_ylabel("residual (ms)", fontsize=8)
    bottom.set_xlabel(f"receiver's {spread.name} ({spread.unit})", fontsize=8)
    for ax in (top, bottom):
        ax.grid(True, color="0.92")
        ax.spines[["top", "right"]].set_visible(False)
        thin_ticks(ax)
    return figure


def _branches(along: np.ndarray, shot: float) -> Sequence[np.ndarray]:
    """The receivers on either side of a shot: no line joins them through it."""
    return [np.flatnonzero(along <= shot), np.flatnonzero(along >= shot)]


def residuals(predicted: "xarray.Dataset") -> Figure:
    """Residuals over uncertainties, each pick at its shot and receiver: bad picks stand alone, a bad sensor makes a row or a column."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    ax, beside = figure.subplots(1, 2, width_ratios=[1.6, 1])
    ends = [_Spread.of(predicted, end) for end in ("receiver", "shot")]
    misfit = ((predicted["predicted"] - predicted["observed"]) / predicted["uncertainty"]).values
    limit = max(3.0, float(np.ceil(np.percentile(np.abs(misfit), 98))))
    order = np.argsort(np.abs(misfit))
    place = [each.place[predicted[name].values][order] for each, name in zip(ends, ("receiver", "shot"), strict=True)]
    size = float(np.clip(9e3 / misfit.size, 3, 25))
    drawn = ax.scatter(*place, c=misfit[order], cmap=DIVERGING, vmin=-limit, vmax=limit, s=size, marker="s", linewidths=0, rasterized=True)
    ax.set_facecolor("0.93")
    ax.set_xlabel(f"receiver's {ends[0].name} ({ends[0].unit})", fontsize=8)
    ax.set_ylabel(f"shot's {ends[1].name} ({ends[1].unit})", fontsize=8)
    thin_ticks(ax)
    colourbar(figure, drawn, [ax], misfit, "(predicted - observed) / uncertainty")
    beside.hist(np.clip(misfit, -2 * limit, 2 * limit), bins=np.linspace(-2 * limit, 2 * limit, 49), density=True, color="0.6")
    x = np.linspace(-2 * limit, 2 * limit, 201)
    beside.plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), color="#D55E00", linewidth=1.2, label="as the uncertainties say")
    beside.set_xlabel("(predicted - observed) / uncertainty", fontsize=8)
    beside.set_yticks([])
    beside.legend(fontsize=7.5, frameon=False)
    beside.spines[["top", "right", "left"]].set_visible(False)
    beside.tick_params(labelsize=7.5)
    return figure


def _mark_sensors(ax: Axes, predicted: "xarray.Dataset", factor: float) -> None:
    x, y = (predicted[name].values / factor for name in ("easting", "upward"))
    ax.plot(x, y, "v", color="black", markersize=3, clip_on=False)
    shots = np.unique(predicted["shot"].values)
    ax.plot(x[shots], y[shots], "*", color="#D55E00", markersize=7, markeredgecolor="white", markeredgewidth=0.4, clip_on=False)
