"""Figures of what data resolve: fields through the middle of the cells that are shown, images of points, the spectrum."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from geoinv.operators.grid import Grid

from ..figures import DIVERGING, FIELD, colourbar, length_unit, thin_ticks

if TYPE_CHECKING:
    import xarray

#: Index up to which the reference model hardly shows, and beyond which it decides.
LEVELS = (0.3, 0.5, 0.7, 0.9)
#: The smallest coverage that is drawn, over the largest.
FAINTEST = 1e-3


class Sections(NamedTuple):
    """A vertical section along easting through the cells of point-spread functions, and in three dimensions a horizontal one.

    Args:
        grid: The cells.
        cell: Index of the cell that the sections pass through.
        unit: Of the axes.
        factor: Its length in m.
    """

    grid: Grid
    cell: tuple[int, ...]
    unit: str
    factor: float

    @classmethod
    def of(cls, data: "xarray.Dataset", number: int = 0) -> "Sections":
        """Those through one of the cells."""
        grid = Grid.from_xarray(data["model"])
        place = np.array([[float(data[f"cell_{dim}"][number]) for dim in grid.dims]])
        unit, factor = length_unit(float(np.ptp(grid.edges[-1])))
        return cls(grid, tuple(int(i) for i in grid.cell_index(place)[0]), unit, factor)

    @property
    def panels(self) -> int:
        """Panels a field takes."""
        return self.grid.ndim - 1

    @property
    def shapes(self) -> list[float]:
        """Height over width of each panel."""
        lengths = [float(np.ptp(edges)) for edges in self.grid.edges]
        return [lengths[0] / lengths[-1], *([lengths[1] / lengths[2]] if self.grid.ndim == 3 else [])]

    def draw(self, axes: list[Axes], field: np.ndarray, colours: str, norm: Normalize) -> Any:
        """A field in its panels."""
        edges = [each / self.factor for each in self.grid.edges]
        parts = [(field, edges[-1], edges[0], "elevation")]
        if self.grid.ndim == 3:
            parts = [(field[:, self.cell[1]], edges[2], edges[0], "elevation"), (field[self.cell[0]], edges[2], edges[1], "northing")]
        for ax, (values, x, y, name) in zip(axes, parts, strict=True):
            drawn = ax.pcolormesh(x, y, values, cmap=colours, norm=norm, rasterized=True)
            ax.set_facecolor("0.93")
            ax.set_aspect("equal")
            ax.set_ylabel(f"{name} ({self.unit})", fontsize=8)
            thin_ticks(ax)
        axes[-1].set_xlabel(f"easting ({self.unit})", fontsize=8)
        return drawn

    def contour(self, ax: Axes, field: np.ndarray, levels: tuple[float, ...]) -> None:
        """Lines of equal value in the vertical section."""
        section = field if self.grid.ndim == 2 else field[:, self.cell[1]]
        x, y = (self.grid.centers[axis] / self.factor for axis in (-1, 0))
        if np.nanmin(section) < max(levels) and np.nanmax(section) > min(levels):
            lines = ax.contour(x, y, section, levels=levels, colors="black", linewidths=0.8)
            ax.clabel(lines, fontsize=7)

    def mark(self, axes: list[Axes]) -> None:
        """The cell itself."""
        at = [centers[i] / self.factor for centers, i in zip(self.grid.centers, self.cell, strict=True)]
        for ax, y in zip(axes, at[:-1], strict=True):
            ax.plot(at[-1], y, "o", markersize=7, markerfacecolor="none", markeredgecolor="black", markeredgewidth=1.0)

    def describe(self) -> str:
        """Where the cell is."""
        at = [centers[i] / self.factor for centers, i in zip(self.grid.centers, self.cell, strict=True)]
        digits = 2 if self.factor > 1 else 0
        words = [f"{dim} {each:.{digits}f}" for dim, each in zip(self.grid.dims, at, strict=True)]
        return f"{words[0]} {self.unit}\n{', '.join(words[1:])} {self.unit}"


def _panels(sections: Sections, columns: int, rows: int) -> tuple[Figure, list[list[list[Axes]]]]:
    """A figure of rows x columns fields, each of a vertical and maybe a horizontal panel below: [row][column] to its axes."""
    width = 10.0 / columns - 1.5  # beside the bar and its label
    heights = [float(np.clip(width * shape, 1.0 if sections.grid.ndim == 2 else 0.7, 4.5)) for shape in sections.shapes]
    figure = Figure(figsize=(10.0, rows * (sum(heights) + 0.4 * len(heights) + 0.5)), layout="compressed")
    grid = figure.subplots(rows * sections.panels, columns, squeeze=False, height_ratios=heights * rows)
    return figure, [
        [[grid[row * sections.panels + part, column] for part in range(sections.panels)] for column in range(columns)] for row in range(rows)
    ]


def fields(data: "xarray.Dataset") -> Figure:
    """Coverage, depth of investigation, resolution, and deviations relative to the prior's."""
    sections, unit = Sections.of(data), str(data.attrs["unit"])
    coverage, resolution = (np.asarray(data[name]) for name in ("coverage", "resolution"))
    most = float(np.nanmax(coverage))
    shown = [
        (
            np.maximum(coverage, FAINTEST * most),
            FIELD,
            LogNorm(FAINTEST * most, most),
            "coverage",
            f"signal to noise of 1 {unit}" if unit != "1" else "signal to noise of 1",
        ),
        (np.asarray(data["index"]), "cividis_r", Normalize(0, 1), "depth of investigation", "reference that shows"),
        (resolution, FIELD, Normalize(0, max(1e-6, float(np.nanmax(resolution)))), "resolution", "diagonal of the matrix"),
        (np.asarray(data["deviation"] / data["prior_deviation"]), "cividis", Normalize(0, 1), "deviation", "after the data over before"),
    ]
    figure, panels = _panels(sections, 2, 2)
    for axes, (field, colours, norm, title, label) in zip([each for row in panels for each in row], shown, strict=True):
        drawn = sections.draw(axes, field, colours, norm)
        if title == "depth of investigation":
            sections.contour(axes[0], field, LEVELS)
        axes[0].set_title(title, fontsize=9)
        colourbar(figure, drawn, axes, field, label)
    return figure


def point_spread(data: "xarray.Dataset") -> Figure:
    """Images of unit changes in single cells, each on its own scale."""
    count = data.sizes["cell"]
    figure, panels = _panels(Sections.of(data), 1 if count == 1 else min(count, 3), -(-count // 3))
    places = [each for row in panels for each in row]
    for number, axes in enumerate(places):
        if number >= count:
            for ax in axes:
                ax.remove()
            continue
        sections, field = Sections.of(data, number), np.asarray(data["point_spread"][number])
        limit = float(np.nanmax(np.abs(field))) or 1.0
        drawn = sections.draw(axes, field, DIVERGING, Normalize(-limit, limit))
        sections.mark(axes)
        axes[0].set_title(sections.describe(), fontsize=8.5)
        colourbar(figure, drawn, axes, field, "")
    figure.suptitle("images of a change of 1 in the circled cell", fontsize=9)  # beside each bar it would be longer than the bar
    return figure


def spectrum(data: "xarray.Dataset") -> Figure:
    """What the data tell over what was assumed, direction by direction."""
    values, errors = np.asarray(data["eigenvalue"]), np.asarray(data["eigenvalue_error"])
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    ax = figure.subplots()
    number = np.arange(1, values.size + 1)
    ax.set_yscale("log")
    ax.fill_between(number, np.maximum(values - errors, values * 1e-2), values + errors, color="#0072B2", alpha=0.25, linewidth=0)
    ax.plot(number, values, ".-", color="#0072B2", markersize=4, linewidth=1)
    ax.axhline(1.0, color="#D55E00", linestyle="--", linewidth=1.2)
    ax.annotate("as much from data as assumed", (0.99, 1.0), xycoords=("axes fraction", "data"), va="bottom", ha="right", fontsize=8, color="#D55E00")
    ax.set_xlabel("direction", fontsize=9)
    ax.set_ylabel("eigenvalue", fontsize=9)
    ax.grid(True, which="major", color="0.9")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    return figure
