"""How deep gravity stations see: station spacing and noise against depth of investigation and resolution.

    python scripts/sensitivity_gravity.py                            # about a minute and a half; writes sensitivity-gravity/

The same cells are seen by regular arrays of stations of several spacings, with several levels of noise. Gravity is linear in density,
so no inversion is needed: the prior alone says what would be assumed. It is the same for all surveys: densities that are alike over
200 m and, as inversions of gravity assume (weighting = 'depth'), vary more at depth than near the ground, with a standard deviation of
200 kg/m3 in the root mean square over the cells. The trade-off parameter of the configs is the one that gives that deviation; it
is found from models drawn from the prior.

    table.csv         one line for each survey and cell: degrees of freedom, depth of investigation (mean over the columns of cells),
                      and width and depth bias of the image of a change in the cell
    summary.png       these against spacing and depth; an image that is as high as all cells (dashed) tells no depth, and its bias is
                      then only how far the middle of the cells is
    images.png        the images themselves, of the best and the worst survey
    inputs/           mesh, surveys and configs: 'geoinv sensitivity inputs/spacing-270m-noise-0.03mGal.toml' makes any of them anew
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sensitivity_studies import Case, arguments, case, curve, finish, panels, pictures, rows, weight_of, write_config, write_table

from geoinv import cli
from geoinv.datasets import netcdf, synthetic, ubc
from geoinv.operators.grid import Grid
from geoinv.regularization import small_and_smooth
from geoinv.report import save
from geoinv.weighting import depth_weights

#: Cells along (upward, northing, easting), and their size, m.
SHAPE, CELL = (12, 24, 36), 100.0
#: Distances between stations, over the inner nine tenths of either side, m; noise, mGal.
SPACINGS, NOISE = (180.0, 270.0, 540.0, 1080.0), (0.01, 0.03, 0.1)
#: Depths of the cells whose images are measured, m, and how many there are at each: in the middle half of the survey, for some lie
#: below a station and some between.
DEPTHS, PLACES = (150.0, 350.0, 550.0, 750.0), 12
#: Standard deviation of densities before the data, kg/m3, and the length over which they are alike, m.
DEVIATION, LENGTH = 200.0, 200.0
#: What is drawn of images against depth.
MEASURES = {
    "resolution": "resolution of one cell",
    "across": "width of its image across (m)",
    "down": "width of its image along depth (m)",
    "bias": "image lies deeper by (m)",
}


def main() -> None:
    given = arguments(__doc__, "sensitivity-gravity")
    print(run(given.output, given.seed))


def run(
    output: Path,
    seed: int = 0,
    *,
    shape: Sequence[int] = SHAPE,
    spacings: Sequence[float] = SPACINGS,
    noise: Sequence[float] = NOISE,
    depths: Sequence[float] = DEPTHS,
) -> str:
    """Work out all surveys, write the table and the figures, and return what to read."""
    inputs = output / "inputs"
    made: dict[tuple[float, float], Case] = {}
    lines: list[dict[str, str]] = []
    for spacing in spacings:
        stations = [round(0.9 * cells * CELL / spacing) + 1 for cells in shape[1:]]
        for level in noise:
            name = f"spacing-{spacing:.0f}m-noise-{level:g}mGal"
            example = synthetic.gravity(seed=seed, shape=shape, spacing=(CELL,) * 3, stations=stations, height=(1.0, 1.0), noise=level * 1e-5)
            inputs.mkdir(parents=True, exist_ok=True)
            netcdf.write(inputs / f"{name}.nc", example.survey)
            ubc.write_mesh(inputs / "mesh.msh", example.grid)
            made[spacing, level] = case(write_config(inputs / f"{name}.toml", options(example.grid, f"{name}.nc", depths, seed)))
            lines += rows({"spacing_m": spacing, "noise_mGal": level}, made[spacing, level])
    compared = {f"stations every {key[0]:.0f} m, noise {key[1]:g} mGal": made[key] for key in (min(made), max(made))}
    write_table(output / "table.csv", lines)
    save(summary(made), output / "summary.png")
    save(pictures(compared), output / "images.png")
    best, worst = made[min(made)].numbers, made[max(made)].numbers
    return "\n".join(
        [
            f"From {best['n_data']} stations to {worst['n_data']} with more noise, the degrees of freedom fall from {best['degrees_of_freedom']:.0f} "
            f"to {worst['degrees_of_freedom']:.0f}, the depth of investigation from {best['depth_of_investigation_m']:.0f} "
            f"to {worst['depth_of_investigation_m']:.0f} m.",
            *(f"{name:8s} {output / name}" for name in ("table.csv", "summary.png", "images.png")),
        ]
    )


def options(grid: Grid, file: str, depths: Sequence[float], seed: int) -> dict[str, Any]:
    """The config of a survey."""
    smooth = (LENGTH / CELL) ** 2
    random = np.random.default_rng(seed)
    cells = [[-depth, *place] for depth in depths for place in places(grid, random)]
    return {
        "seed": seed,
        "data": {"file": file},
        "grid": {"file": "mesh.msh"},
        "topography": {"source": "flat"},
        "operator": {"kind": "prism"},
        "regularization": {"smoothness": [smooth] * 3, "weighting": "depth"},  # those of the sensitivities would differ from survey to survey
        "sensitivity": {"trade_off": trade_off(grid, smooth), "products": 600, "cells": cells},
    }


def places(grid: Grid, random: np.random.Generator) -> list[list[float]]:
    """Positions in the middle half of the grid, the middle itself first."""
    middle, half = (np.array([part * (edges[0] + edges[-1]) for edges in grid.edges[1:]]) for part in (0.5, 0.25))
    drawn = middle + half * random.uniform(-1, 1, (PLACES - 1, 2))
    return [[float(f"{each:.1f}") for each in place] for place in [middle, *drawn]]


def trade_off(grid: Grid, smooth: float) -> float:
    """The weight of the model term at which the densities that it expects have the deviation, to four digits."""
    everywhere = np.ones(grid.shape, bool)
    unit = small_and_smooth(grid, everywhere, smoothness=(smooth,) * 3, weights=depth_weights(grid, everywhere)).hessian.to_scipy()
    return weight_of(unit, DEVIATION)


def summary(made: Mapping[tuple[float, float], Case]) -> Figure:
    """Numbers against spacing for every noise, and against depth for every spacing at a middle one."""
    spacings, levels = (sorted({key[part] for key in made}) for part in (0, 1))
    figure, (freedom, depth, *parts) = panels(6)
    for ax, key, name in ((freedom, "degrees_of_freedom", "degrees of freedom"), (depth, "depth_of_investigation_m", "depth of investigation (m)")):
        for number, level in enumerate(levels):
            curve(ax, number, spacings, [made[spacing, level].numbers[key] for spacing in spacings], f"{level:g} mGal")
        finish(ax, "station spacing (m)", name, legend="noise", ticks=spacings)
    freedom.set_yscale("log")
    middle = levels[len(levels) // 2]
    for ax, (key, name) in zip(parts, MEASURES.items(), strict=True):
        for number, spacing in enumerate(spacings):
            found = made[spacing, middle]
            curve(ax, number, found.depths, [getattr(image, key) for image in found.images], f"{spacing:.0f} m")
        finish(ax, "depth of the cell (m)", name, legend=f"spacing, noise {middle:g} mGal")
    parts[0].set_yscale("log")
    parts[2].axhline(np.ptp(next(iter(made.values())).grid.edges[0]), color="0.4", linestyle="--", linewidth=1)
    parts[3].axhline(0.0, color="0.4", linestyle="--", linewidth=1)
    return figure


if __name__ == "__main__":
    cli.guarded(main)
