"""How sharp waveforms see: the highest frequency of a band against the width of the images of points.

    python scripts/sensitivity_waveform.py                           # two minutes; writes sensitivity-waveform/

One line of shots over a velocity that grows with depth is looked at up to several frequencies, on the same cells and with the same
prior: changes of velocity of 50 m/s that are alike over 30 m, less than any of these waves resolves, so that it is they who decide
on the width. Widths are those at half maximum, along easting and along the vertical, of the image of a change in one cell; they are
held against the wavelength there, velocity over highest frequency. The filter falls to zero at 1.5 times that frequency, and
what scatters a wave back is resolved to half of its length: to a third of that wavelength at best.

    table.csv         one line for each band and depth        summary.png    the same against wavelength and frequency
    images.png        images in the lowest and in the highest band
    inputs/           survey, start model and configs: 'geoinv sensitivity inputs/to-5Hz.toml' makes any of them anew
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sensitivity_studies import Case, arguments, case, curve, finish, panels, pictures, rows, write_config, write_table

from geoinv import cli
from geoinv.datasets import netcdf, synthetic
from geoinv.report import save

#: Cells along (upward, easting), their size, m, the shots, and the length of their records, s.
SURVEY: dict[str, Any] = {"shape": (28, 80), "spacing": 25.0, "shot_count": 5, "receiver_count": 39, "length": 1.6, "noise": 0.3}
#: Highest frequencies, Hz.
TOPS = (4.0, 5.0, 6.5, 8.0)
#: Depths of the cells whose images are measured, m, and where they lie along the line, parts of its length.
DEPTHS, ALONG = (137.5, 237.5, 337.5, 437.5), (0.5, 0.35, 0.42, 0.58, 0.65)
#: Standard deviation of the velocity before the data, m/s, and the distance over which it varies, m.
DEVIATION, LENGTH = 50.0, 30.0


def main() -> None:
    given = arguments(__doc__, "sensitivity-waveform")
    print(run(given.output, given.seed))


def run(
    output: Path, seed: int = 0, *, survey: Mapping[str, Any] = SURVEY, tops: Sequence[float] = TOPS, depths: Sequence[float] = DEPTHS
) -> str:  # fmt: skip
    """Work out all bands, write the table and the figures, and return what to read."""
    inputs = output / "inputs"
    example = synthetic.waveform(seed=seed, **survey)
    inputs.mkdir(parents=True, exist_ok=True)
    netcdf.write(inputs / "survey.nc", example.survey)
    netcdf.write(inputs / "start.nc", example.start)
    cells = [[-depth, float(f"{part * example.grid.edges[1][-1]:.1f}")] for depth in depths for part in ALONG]
    made = {top: case(write_config(inputs / f"to-{top:g}Hz.toml", options(top, cells, seed))) for top in tops}
    velocity = {depth: float(np.interp(-depth, example.grid.centers[0], example.start.values[:, 0])) for depth in depths}
    lines = []
    for top, found in made.items():
        wavelengths = [velocity[depth] / top for depth in found.depths]
        lines += [{"top_Hz": f"{top:g}", "wavelength_m": f"{each:.6g}"} | line for each, line in zip(wavelengths, rows({}, found), strict=True)]
    write_table(output / "table.csv", lines)
    save(summary(made, velocity), output / "summary.png")
    save(pictures({f"up to {top:g} Hz": made[top] for top in (min(made), max(made))}), output / "images.png")
    parts = [float(line["width_across_m"]) / float(line["wavelength_m"]) for line in lines]
    low, high = (made[top].numbers["degrees_of_freedom"] for top in (min(made), max(made)))
    return "\n".join(
        [
            f"From {min(made):g} to {max(made):g} Hz the degrees of freedom grow from {low:.0f} to {high:.0f}; images are {min(parts):.2f} to "
            f"{max(parts):.2f} wavelengths wide.",
            *(f"{name:12s} {output / name}" for name in ("table.csv", "summary.png", "images.png")),
        ]
    )


def options(top: float, cells: Sequence[Sequence[float]], seed: int) -> dict[str, Any]:
    """The config of a band."""
    return {
        "kind": "waveform",
        "seed": seed,
        "data": {"file": "survey.nc"},
        "model": {"file": "start.nc"},
        "source": {"frequency": 7.0},
        "bands": {"lowpass": [top]},
        "bounds": {"lower": 1400.0, "upper": 3600.0},
        "sensitivity": {"deviation": DEVIATION, "length": LENGTH, "enough": 0.5, "products": 400, "cells": [list(cell) for cell in cells]},
    }


def summary(made: Mapping[float, Case], velocity: Mapping[float, float]) -> Figure:
    """Widths against wavelength, a curve for each depth, and numbers against frequency."""
    tops = list(made)
    figure, (across, down, freedom, depth) = panels(4)
    for number, below in enumerate(sorted(velocity)):
        wavelengths = [velocity[below] / top for top in tops]
        for ax, name in ((across, "across"), (down, "down")):
            curve(ax, number, wavelengths, [getattr(found.images[number], name) for found in made.values()], f"{below:.0f} m")
    for ax, side in ((across, "easting"), (down, "depth")):
        longest = max(velocity.values()) / min(tops)
        for part, style, name in ((2, "--", "half a wavelength"), (3, ":", "a third: half of the shortest")):
            ax.plot([0, longest], [0, longest / part], color="0.4", linestyle=style, linewidth=1, label=name)
        finish(ax, "wavelength of the highest frequency (m)", f"width of the image along {side} (m)", legend="depth of the cell")
    for ax, key, name in (
        (freedom, "degrees_of_freedom", "degrees of freedom"),
        (depth, "depth_of_investigation_m", "depth of investigation (m)"),
    ):
        curve(ax, 0, tops, [found.numbers[key] for found in made.values()], "")
        ax.set_ylim(bottom=0)
        finish(ax, "highest frequency (Hz)", name, ticks=tops)
    return figure


if __name__ == "__main__":
    cli.guarded(main)
