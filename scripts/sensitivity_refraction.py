"""How many shots a refraction line needs: the number of shots against resolution.

    python scripts/sensitivity_refraction.py                         # half a minute; writes sensitivity-refraction/

One line of receivers over a weathered layer of changing thickness is shot at by more and more shots, spread evenly over it. The problem
is linearized at the true model, so that waves take the ways that they take there: through the layer, and along the top of the rock. The
prior is the same for all: logarithms of slowness with a standard deviation of 0.3 that are alike over 6 m. Noise is 0.3 ms and 1 % of
the time.

    table.csv         one line for each number of shots and depth        summary.png    the same against the number of shots
    images.png        images of points with the fewest and with the most shots
    inputs/           model, surveys and configs: 'geoinv sensitivity inputs/shots-5.toml' makes any of them anew
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sensitivity_studies import Case, arguments, case, curve, finish, panels, pictures, rows, weight_of, write_config, write_table

from geoinv import cli
from geoinv.datasets import netcdf, synthetic_picks
from geoinv.operators.grid import Grid, layers
from geoinv.regularization import small_and_smooth
from geoinv.report import save

#: Receivers, and their distance, m.
RECEIVERS, SPACING = 36, 3.0
#: Numbers of shots.
SHOTS = (2, 3, 5, 9, 18)
#: Size of the cells and depth of the grid, m.
CELL, DEPTH = 1.5, 24.0
#: Depths of the cells whose images are measured, m, and where they lie along the line, parts of its length.
DEPTHS, ALONG = (2.25, 5.25, 8.25), (0.5, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8)
#: Standard deviation of the logarithm of slowness before the data, and the length over which it is alike, m.
DEVIATION, LENGTH = 0.3, 6.0
#: What is drawn of images against the number of shots.
MEASURES = {"resolution": "resolution of one cell", "across": "width of its image along easting (m)", "down": "width of its image along depth (m)"}


def main() -> None:
    given = arguments(__doc__, "sensitivity-refraction")
    print(run(given.output, given.seed))


def run(output: Path, seed: int = 0, *, receivers: int = RECEIVERS, shots: Sequence[int] = SHOTS, depths: Sequence[float] = DEPTHS) -> str:
    """Work out all numbers of shots, write the table and the figures, and return what to read."""
    inputs, length = output / "inputs", SPACING * (receivers - 1)
    known: dict[str, Any] = {"receiver_count": receivers, "spacing": SPACING, "relief": 0.0, "seed": seed}
    surveys = {count: synthetic_picks.refraction(shot_count=count, **known) for count in shots}
    inputs.mkdir(parents=True, exist_ok=True)
    grid = cells_of(length)
    truth = surveys[shots[0]].velocity(grid.centers[0][:, None], grid.centers[1])
    netcdf.write(inputs / "model.nc", grid.to_xarray(truth, name="velocity", units="m/s"))
    trade_off = weight_of(small_and_smooth(grid, np.ones(grid.shape, bool), smoothness=((LENGTH / CELL) ** 2,) * 2).hessian.to_scipy(), DEVIATION)
    made = {}
    for count, example in surveys.items():
        netcdf.write(inputs / f"shots-{count}.nc", example.survey)
        cells = [[-depth, float(f"{part * length:.1f}")] for depth in depths for part in ALONG]
        made[count] = case(write_config(inputs / f"shots-{count}.toml", options(f"shots-{count}.nc", cells, trade_off, seed)))
    write_table(output / "table.csv", [line for count, found in made.items() for line in rows({"shots": count}, found)])
    save(summary(made), output / "summary.png")
    save(pictures({f"{count} shots": made[count] for count in (min(made), max(made))}), output / "images.png")
    few, many = (made[count].numbers["degrees_of_freedom"] for count in (min(made), max(made)))
    return "\n".join(
        [
            f"From {min(made)} to {max(made)} shots the degrees of freedom grow from {few:.0f} to {many:.0f}.",
            *(f"{name:12s} {output / name}" for name in ("table.csv", "summary.png", "images.png")),
        ]
    )


def cells_of(length: float) -> Grid:
    """The cells that the configs make below a line."""
    columns = int(np.ceil(length / CELL + 2 * 4))
    left = (length - columns * CELL) / 2
    return Grid((layers(0.0, 0.0, -DEPTH, CELL), left + CELL * np.arange(columns + 1)))


def options(file: str, cells: Sequence[Sequence[float]], trade_off: float, seed: int) -> dict[str, Any]:
    """The config of a number of shots."""
    return {
        "kind": "traveltime",
        "seed": seed,
        "data": {"file": file},
        "grid": {"spacing": [CELL, CELL], "depth": DEPTH, "margin": 4 * CELL},
        "start": {"file": "model.nc"},
        "regularization": {"smallness": 1.0, "smoothness": [(LENGTH / CELL) ** 2] * 2},
        "sensitivity": {"trade_off": trade_off, "products": 1000, "cells": cells},
    }


def summary(made: Mapping[int, Case]) -> Figure:
    """Numbers against the number of shots, a curve for each depth where there are some."""
    counts = list(made)
    figure, (freedom, *parts) = panels(4)
    curve(freedom, 0, counts, [found.numbers["degrees_of_freedom"] for found in made.values()], "")
    freedom.set_ylim(bottom=0)
    finish(freedom, "shots", "degrees of freedom", ticks=counts)
    for ax, (key, name) in zip(parts, MEASURES.items(), strict=True):
        for number, depth in enumerate(made[counts[0]].depths):
            curve(ax, number, counts, [getattr(found.images[number], key) for found in made.values()], f"{depth:.3g} m")
        ax.set_ylim(bottom=0)
        finish(ax, "shots", name, legend="depth of the cell", ticks=counts)
    return figure


if __name__ == "__main__":
    cli.guarded(main)
