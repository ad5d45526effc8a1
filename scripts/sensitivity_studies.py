"""What the sensitivity studies share: how an image of a point is measured, how a case is worked out, tables, and the look of curves."""

import argparse
import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from rich.console import Console

from geoinv import config
from geoinv.datasets.atomic import atomic_path
from geoinv.figures import DIVERGING, thin_ticks
from geoinv.operators.grid import Grid
from geoinv.operators.sensitivity import Prior
from geoinv.sensitivity import job

#: Colours that readers of any colour vision tell apart (Okabe & Ito 2008), and markers for those who print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
#: Models drawn to give a prior its deviation.
DRAWS = 200


def arguments(about: str | None, output: str) -> argparse.Namespace:
    """The options that every study has."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(output), help=f"directory to write (default: {output})")
    parser.add_argument("--seed", type=int, default=0, help="of the noise and of the models drawn for deviations (default: 0)")
    return parser.parse_args()


class Image(NamedTuple):
    """How a change in one cell looks in the answer: the half-maximum widths of the lobe of its point-spread function that holds the cell.

    Another lobe may be larger, where little is resolved: waves put some of a weak deep cell right below the sources.

    Args:
        peak: The value at the top of the lobe.
        across: Width along the horizontal axes (their geometric mean in three dimensions), m.
        down: Width along the vertical, m.
        bias: By how much the middle of the vertical width lies below the cell, m.
        resolution: Value of the function in the cell itself: 1 for a perfect image.
    """

    peak: float
    across: float
    down: float
    bias: float
    resolution: float

    @classmethod
    def of(cls, grid: Grid, image: np.ndarray, cell: tuple[int, ...]) -> "Image":
        """That of a function [grid] of a cell."""
        image = np.nan_to_num(image)
        top = summit(image, cell)
        lines = [image[tuple(slice(None) if axis == along else at for axis, at in enumerate(top))] for along in range(grid.ndim)]
        ends = [half_maximum(*each) for each in zip(grid.edges, lines, top, strict=True)]
        down, *across = (upper - lower for lower, upper in ends)
        bias = grid.centers[0][cell[0]] - sum(ends[0]) / 2
        return cls(float(image[top]), float(np.prod(across) ** (1 / len(across))), float(down), float(bias), float(image[cell]))


def summit(image: np.ndarray, cell: tuple[int, ...]) -> tuple[int, ...]:
    """The cell at the end of the steepest way up from one, each step to a neighbour along an axis."""
    steps = [*np.eye(image.ndim, dtype=int), *-np.eye(image.ndim, dtype=int)]
    while True:
        around = [tuple(int(i) for i in place) for place in np.clip(np.array(cell) + steps, 0, np.array(image.shape) - 1)]
        best = max(around, key=lambda place: image[place])
        if not image[best] > image[cell]:
            return cell
        cell = best


def half_maximum(edges: np.ndarray, values: np.ndarray, top: int) -> tuple[float, float]:
    """Where values [cell] fall to half of that in the cell `top`, on either side: linear between centres, the last edge if they do not."""
    centers, half = (edges[1:] + edges[:-1]) / 2, values[top] / 2
    found = []
    for step, last in ((-1, edges[0]), (1, edges[-1])):
        at = top
        while 0 <= at + step < values.size and values[at + step] > half:
            at += step
        if 0 <= at + step < values.size:
            share = (values[at] - half) / (values[at] - values[at + step])
            found.append(float(centers[at] + share * (centers[at + step] - centers[at])))
        else:
            found.append(float(last))
    return found[0], found[1]


class Case(NamedTuple):
    """A case of a study.

    Args:
        numbers: Those of a summary.json, but the depth of investigation the mean over the columns of cells.
        data: What was found on the grid.
        grid: Its cells.
        cells: Index of one cell at each depth whose image was made.
        images: Measures at each depth, means over the cells whose images were made there.
        depths: Of these cells below the top of the grid, m.
        shown: Image of each of the cells [depth, grid].
    """

    numbers: dict[str, Any]
    grid: Grid
    cells: list[tuple[int, ...]]
    images: list[Image]
    depths: list[float]
    shown: np.ndarray


def case(file: Path) -> Case:
    """What the data of a config resolve; `sensitivity.cells` of the config are some at one depth, as many at the next, and so on."""
    began, chosen = time.perf_counter(), config.load(file)
    resolved = job.resolve(chosen, Console(quiet=True))  # type: ignore[arg-type]
    data, grid = resolved.data, resolved.target.grid
    places = np.stack([data[f"cell_{dim}"].values for dim in grid.dims], axis=1)
    cells = [tuple(int(i) for i in index) for index in grid.cell_index(places)]
    measured = np.array([Image.of(grid, image, cell) for image, cell in zip(data["point_spread"].values, cells, strict=True)])
    elevations, first, depth = np.unique(-places[:, 0], return_index=True, return_inverse=True)
    images = [Image(*(float(each) for each in measured[depth == number].mean(axis=0))) for number in range(len(first))]
    # A depth is a whole number of cells: the mean over the columns tells surveys apart that have the median in common.
    numbers = job.numbers(chosen, resolved) | {"depth_of_investigation_m": float(np.nanmean(data["depth_of_investigation"]))}
    print(f"{file.stem}: {numbers['degrees_of_freedom']:.1f} degrees of freedom, {time.perf_counter() - began:.0f} s", flush=True)
    below = [float(grid.edges[0][-1] + each) for each in elevations]
    return Case(numbers, grid, [cells[number] for number in first], images, below, data["point_spread"].values[first])


def weight_of(unit: Any, deviation: float) -> float:
    """The weight, to four digits, of a model term at which the models that it expects have a deviation, in the root mean square over cells.

    Args:
        unit: Its matrix [cell, cell] for a weight of one, SciPy sparse.
        deviation: Of them.
    """
    drawn = Prior(unit).samples(DRAWS, np.random.default_rng(0))
    return float(f"{np.mean(drawn**2) / deviation**2:.4g}")


def write_config(path: Path, options: Mapping[str, Any]) -> Path:
    """A config with all its options as resolved, its files beside it."""
    with atomic_path(path) as temporary:
        temporary.write_text(config.dump_toml(config.parse(options)), encoding="utf-8")
    return path


def rows(known: Mapping[str, float], made: Case) -> list[dict[str, str]]:
    """The lines of a table, one for each cell whose image was made."""
    shared = {
        **known,
        "n_data": made.numbers["n_data"],
        "degrees_of_freedom": made.numbers["degrees_of_freedom"],
        "depth_of_investigation_m": made.numbers["depth_of_investigation_m"],
        "complete": made.numbers["complete"],
    }
    each = [
        {"cell_depth_m": depth, "resolution": image.resolution, "peak": image.peak}
        | {"width_across_m": image.across, "width_down_m": image.down, "depth_bias_m": image.bias}
        for depth, image in zip(made.depths, made.images, strict=True)
    ]
    return [{name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in {**shared, **one}.items()} for one in each]


def write_table(path: Path, lines: Sequence[Mapping[str, str]]) -> None:
    """A CSV file, whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure of panels side by side, two in a row."""
    height = -(-count // 2)
    figure = Figure(figsize=(9.6, 3.6 * height), layout="constrained")
    return figure, list(np.ravel(figure.subplots(height, 2)))


def curve(ax: Axes, number: int, x: Sequence[float], y: Sequence[float], label: str) -> None:
    """One line of several."""
    ax.plot(x, y, color=COLOURS[number], marker=MARKERS[number], markersize=5, linewidth=1.4, label=label)


def finish(ax: Axes, x: str, y: str, *, legend: str = "", ticks: Sequence[float] = ()) -> None:
    """Name the axes, and the lines by what tells them apart; values of x that are ratios of one another on a logarithmic axis."""
    if ticks:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(list(ticks)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(True, color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(title=legend, fontsize=8, title_fontsize=8, frameon=False)


def pictures(cases: Mapping[str, Case]) -> Figure:
    """Vertical sections along easting through the images of cells, a column for each case, each image on its own scale."""
    first = next(iter(cases.values()))
    shape = float(np.ptp(first.grid.edges[0]) / np.ptp(first.grid.edges[-1]))
    width = 11.0 / len(cases)
    figure = Figure(figsize=(11.0, (shape * (width - 1.1) + 0.45) * len(first.cells) + 0.5), layout="constrained")
    axes = figure.subplots(len(first.cells), len(cases), squeeze=False, sharex=True, sharey=True)
    for column, (title, made) in enumerate(cases.items()):
        for row in range(len(made.cells)):
            _picture(figure, axes[row, column], made, row)
        axes[0, column].set_title(title, fontsize=9)
        axes[-1, column].set_xlabel("easting (m)", fontsize=8)
    for ax in axes[:, 0]:
        ax.set_ylabel("elevation (m)", fontsize=8)
    figure.suptitle("images of a change of 1 in the circled cell", fontsize=9)
    return figure


def _picture(figure: Figure, ax: Axes, made: Case, number: int) -> None:
    cell, image = made.cells[number], made.shown[number]
    section = image if image.ndim == 2 else image[:, cell[1]]
    limit = float(np.nanmax(np.abs(section)))
    drawn = ax.pcolormesh(made.grid.edges[-1], made.grid.edges[0], section, cmap=DIVERGING, vmin=-limit, vmax=limit, rasterized=True)
    ax.plot(made.grid.centers[-1][cell[-1]], made.grid.centers[0][cell[0]], "o", markersize=7, markerfacecolor="none", markeredgecolor="black")
    ax.set_aspect("equal")
    ax.set_facecolor("0.85")
    thin_ticks(ax)
    bar = figure.colorbar(drawn, ax=ax, aspect=14, pad=0.02)
    bar.set_ticks([-limit, 0.0, limit], labels=[f"{-limit:.1g}", "0", f"{limit:.1g}"])
    bar.ax.tick_params(labelsize=7)
