"""The figures of a gravity inversion: maps of the data and their fit, and sections through the model."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from geoinv.operators.constants import UNITS
from geoinv.operators.grid import Grid

from ..figures import DIVERGING, FIELD, colourbar, length_unit, thin_ticks

if TYPE_CHECKING:
    import xarray


def shown_unit(component: str) -> str:
    """The unit in which a component is shown: mGal for accelerations, eotvos for gradients."""
    return "mGal" if len(component) == 2 else "eotvos"


# ---------------------------------------------------------------------------------------------------------------- survey


def survey_maps(predicted: "xarray.Dataset") -> Figure:
    """Maps of observed and predicted data on one scale, and of the residual in uncertainties; one row a component.

    Args:
        predicted: A survey with `observed`, `uncertainty`, `predicted` in SI and `holdout` (station, 0 or 1).
    """
    stations = Stations.of(predicted)
    components = [str(name) for name in predicted["component"].values]
    aspect = np.clip(stations.aspect, 0.4, 2.5)
    width, height = 3.3 * np.sqrt(aspect), 3.3 / np.sqrt(aspect)  # one area for every shape
    figure = Figure(figsize=(3 * width + 2.2, len(components) * (height + 0.9)), layout="compressed")
    rows = figure.subplots(len(components), 3, squeeze=False, sharex=True, sharey=True)
    for axes, component in zip(rows, components, strict=True):
        _survey_row(figure, list(axes), stations, predicted.sel(component=component), component)
    return figure


def _survey_row(figure: Figure, axes: list[Axes], stations: "Stations", data: "xarray.Dataset", component: str) -> None:
    unit = shown_unit(component)
    observed, computed = (np.asarray(data[name]) / UNITS[unit] for name in ("observed", "predicted"))
    residual = np.asarray((data["observed"] - data["predicted"]) / data["uncertainty"])
    low, high = np.percentile(observed, [0.5, 99.5])
    scale = Normalize(low, high if high > low else low + 1)
    limit = max(3.0, np.ceil(np.percentile(np.abs(residual), 98)))
    drawn = [
        stations.draw(axes[0], observed, FIELD, scale),
        stations.draw(axes[1], computed, FIELD, scale),
        stations.draw(axes[2], residual, DIVERGING, Normalize(-limit, limit)),
    ]
    for ax, title in zip(axes, (f"observed {component}", f"predicted {component}", "normalised residual"), strict=True):
        _map_axes(ax, stations.unit, title)
        ax.label_outer()
    colourbar(figure, drawn[0], axes[:2], np.concatenate([observed, computed]), f"{component} ({unit})")
    colourbar(figure, drawn[2], axes[2:], residual, "(observed - predicted) / uncertainty")
    held_out = np.asarray(data["holdout"], dtype=bool) if "holdout" in data else np.zeros(residual.size, dtype=bool)
    if held_out.any():
        _mark_held_out(axes[2], stations, held_out)


def _mark_held_out(ax: Axes, stations: "Stations", held_out: np.ndarray) -> None:
    size = np.clip(stations.marker_area, 7, 14)
    ax.scatter(stations.x[held_out], stations.y[held_out], s=size, facecolors="none", edgecolors="black", linewidths=0.5)
    ax.set_title(f"normalised residual (circles: {held_out.sum()} held out)", fontsize=9)


class Stations(NamedTuple):
    """Where data were measured, in the unit of the maps; stations on a full grid of points are drawn as its cells."""

    x: np.ndarray
    y: np.ndarray
    unit: str

    @classmethod
    def of(cls, survey: "xarray.Dataset") -> "Stations":
        x, y = np.asarray(survey["easting"]), np.asarray(survey["northing"])
        unit, factor = length_unit(max(np.ptp(x), np.ptp(y)))
        return cls(x / factor, y / factor, unit)

    @property
    def aspect(self) -> float:
        """Width over height of the area."""
        return float(max(np.ptp(self.x), 1e-3) / max(np.ptp(self.y), 1e-3)) if self.x.size > 1 else 1.0

    @property
    def marker_area(self) -> float:
        """Marker area, in square points, at which the stations together cover about the whole panel."""
        return float(np.clip(55e3 / self.x.size, 3.0, 60.0))

    def draw(self, ax: Axes, values: np.ndarray, colours: str, norm: Normalize) -> Any:
        columns, rows = np.unique(self.x), np.unique(self.y)
        if columns.size * rows.size == self.x.size and min(columns.size, rows.size) > 1:
            table = np.full((rows.size, columns.size), np.nan)
            table[np.searchsorted(rows, self.y), np.searchsorted(columns, self.x)] = values
            return ax.pcolormesh(columns, rows, table, cmap=colours, norm=norm, shading="nearest", rasterized=True)
        order = np.argsort(np.abs(values - np.median(values)))  # the unusual on top
        return ax.scatter(self.x[order], self.y[order], c=values[order], s=self.marker_area, cmap=colours, norm=norm, linewidths=0, rasterized=True)


def _map_axes(ax: Axes, unit: str, title: str) -> None:
    ax.set_aspect("equal")
    ax.set_facecolor("0.93")
    ax.set_title(title, fontsize=9)
    ax.set_xlabel(f"easting ({unit})", fontsize=8)
    ax.set_ylabel(f"northing ({unit})", fontsize=8)
    thin_ticks(ax)


# ----------------------------------------------------------------------------------------------------------------- model


def model_sections(model: "xarray.Dataset") -> Figure:
    """A horizontal, a west-east and a south-north section through the strongest anomaly of a model.

    Args:
        model: `density` on (upward, northing, easting), kg/m3, NaN above the ground; `true_density`, where there, is outlined.
    """
    block = _Block.of(model)
    centre = block.strongest_cell()
    width, depth = np.ptp(block.edges[2]), np.ptp(block.edges[0])
    height = np.ptp(block.edges[1])
    exaggeration = next(factor for factor in (1, 2, 3, 5, 10, 20, 50, 100) if factor * depth >= 0.28 * min(width, height) or factor == 100)
    panels = 4.2 * exaggeration * depth * np.array([1 / width, 1 / height])
    tall = float(np.clip(panels.sum() + 1.4, 3.6, 6.5))
    wide = float(np.clip((tall - 0.6) * width / height, 2.4, 5.0))
    figure = Figure(figsize=(wide + 6.0, tall), layout="constrained")
    parts = figure.add_gridspec(2, 2, width_ratios=[wide, 4.2], height_ratios=np.clip(panels, 0.7, None))
    figure.get_layout_engine().set(hspace=0.06)  # type: ignore[union-attr,call-arg]
    axes = [figure.add_subplot(parts[:, 0]), figure.add_subplot(parts[0, 1]), figure.add_subplot(parts[1, 1])]
    colours, norm = _density_scale(block.density)
    for axis, ax in enumerate(axes):
        drawn = block.draw(ax, axis, centre, colours, norm)
        ax.set_aspect("equal" if axis == 0 else exaggeration)
    colourbar(figure, drawn, axes, block.density, "density (kg/m$^3$)")
    note = f", vertical exaggeration {exaggeration}" if exaggeration > 1 else ""
    northing, easting = block.position(1, centre), block.position(2, centre)
    _map_axes(axes[0], block.unit, f"horizontal at elevation {block.position(0, centre)}")
    _section_axes(axes[1], f"easting ({block.unit})", block.unit, f"west-east at northing {northing}{note}", "WE")
    _section_axes(axes[2], f"northing ({block.unit})", block.unit, f"south-north at easting {easting}{note}", "SN")
    _section_legend(axes[0], block.truth is not None)
    return figure


class _Block(NamedTuple):
    """The core of a model, without its padding, in the unit of the axes."""

    density: np.ndarray
    truth: np.ndarray | None
    edges: tuple[np.ndarray, ...]
    unit: str

    @classmethod
    def of(cls, model: "xarray.Dataset") -> "_Block":
        grid = Grid.from_xarray(model["density"])
        truth = np.asarray(model["true_density"])[grid.core] if "true_density" in model else None
        edges = grid.core_grid().edges
        unit, factor = length_unit(max(np.ptp(axis) for axis in edges[1:]))
        return cls(np.asarray(model["density"])[grid.core], truth, tuple(axis / factor for axis in edges), unit)

    def strongest_cell(self) -> tuple[int, ...]:
        """The layer with the largest sum of squared anomalies, a body's middle rather than its sharpest corner, and its strongest cell."""
        anomaly = np.nan_to_num(np.abs(self.density - np.nanmedian(self.density)))
        layer = int(np.argmax(np.sum(anomaly**2, axis=(1, 2))))
        return (layer, *(int(i) for i in np.unravel_index(np.argmax(anomaly[layer]), anomaly[layer].shape)))

    def center(self, axis: int, cell: tuple[int, ...]) -> float:
        return float(self.edges[axis][cell[axis] : cell[axis] + 2].mean())

    def position(self, axis: int, cell: tuple[int, ...]) -> str:
        return f"{self.center(axis, cell):.{2 if self.unit == 'km' else 0}f} {self.unit}"

    def draw(self, ax: Axes, axis: int, cell: tuple[int, ...], colours: str, norm: Normalize) -> Any:
        """One section across `axis` at a cell, with the ground, the other sections' traces and the true blocks."""
        vertical, horizontal = (other for other in range(3) if other != axis)
        values = np.take(self.density, cell[axis], axis)
        x, y = self.edges[horizontal], self.edges[vertical]
        drawn = ax.pcolormesh(x, y, values, cmap=colours, norm=norm, rasterized=True)
        trace: dict[str, Any] = {"color": "0.35", "linewidth": 0.8, "linestyle": (0, (6, 4))}
        ax.axhline(self.center(vertical, cell), **trace)
        ax.axvline(self.center(horizontal, cell), **trace)
        if axis:
            active = np.isfinite(values)
            ground = y[np.where(active.any(axis=0), len(active) - np.argmax(active[::-1], axis=0), 0)]
            ax.stairs(ground, x, baseline=None, color="black", linewidth=1.1)
        if self.truth is not None:
            anomaly = np.nan_to_num(np.abs(self.truth))
            mask = np.take(anomaly > anomaly.max() / 2, cell[axis], axis)
            ax.add_collection(LineCollection(outline(mask, x, y), colors="black", linewidths=1.6), autolim=False)
        return drawn


def outline(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """The line segments around the True cells of a mask [y, x] on a grid of edges."""
    padded = np.pad(mask, 1)
    across = [np.array([(x[i], y[j]), (x[i + 1], y[j])]) for j, i in zip(*np.nonzero(np.diff(padded, axis=0)[:, 1:-1]), strict=True)]
    along = [np.array([(x[i], y[j]), (x[i], y[j + 1])]) for j, i in zip(*np.nonzero(np.diff(padded, axis=1)[1:-1]), strict=True)]
    return across + along


def _density_scale(density: np.ndarray) -> tuple[str, Normalize]:
    """Contrasts of both signs on a diverging scale about zero; densities of one sign on a sequential one."""
    low, high = float(np.nanmin(density)), float(np.nanmax(density))
    limit = max(abs(low), abs(high)) or 1.0
    if min(-low, high) > 0.02 * limit or low * high <= 0:
        return DIVERGING, Normalize(-limit, limit)
    return FIELD, Normalize(low, high)


def _section_axes(ax: Axes, label: str, unit: str, title: str, ends: str) -> None:
    ax.set_facecolor("0.93")
    ax.set_title(title, fontsize=9)
    ax.set_xlabel(label, fontsize=8)
    ax.set_ylabel(f"elevation ({unit})", fontsize=8)
    thin_ticks(ax)
    for end, x, shift in zip(ends, (0, 1), (7, -7), strict=True):
        ax.annotate(end, (x, 0), xycoords="axes fraction", xytext=(shift, 5), textcoords="offset points", ha="center", fontsize=9, weight="bold")


def _section_legend(ax: Axes, with_truth: bool) -> None:
    handles = [Line2D([], [], color="0.35", linewidth=0.8, linestyle=(0, (6, 4)), label="other sections")]
    if with_truth:
        handles.append(Line2D([], [], color="black", linewidth=1.6, label="true body"))
    ax.legend(handles=handles, loc="lower left", fontsize=7, framealpha=0.9)
