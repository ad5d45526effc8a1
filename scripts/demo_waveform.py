"""Invert synthetic shots over a fast and a slow lens, and say where the results are: what `make demo-waveform` runs."""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console

from geoinv import cli, config
from geoinv.datasets import netcdf, synthetic
from geoinv.datasets.atomic import atomic_path
from geoinv.operators.grid import Grid
from geoinv.waveform import job

OPTIONS = """\
# The demo: two lenses in a velocity that grows with depth, seen by shots and receivers along the surface. The data were modelled
# on finer cells, with a wavelet that is not the one below and with noise of 5 %.
kind = "waveform"

[data]
file = "survey.nc"

[model]
file = "start.nc"

[source]
frequency = 8.0

[bands]
lowpass = [4.0, 7.0]
iterations = [10, 6]

[misfit]
nearest_offset = 100.0

[inversion]
smoothing = 0.15

[bounds]
lower = 1400.0
upper = 4000.0
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output", "waveform"), help="directory to write (default: demo-output/waveform)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default: 0)")
    arguments = parser.parse_args()
    print(run(arguments.output, arguments.seed))


def run(output: Path, seed: int = 0) -> str:
    """Make the survey, invert it, and return what to read next."""
    print("modelling the survey ...")
    example = synthetic.waveform(seed=seed)
    inputs, results = output / "inputs", output / "results"
    inputs.mkdir(parents=True, exist_ok=True)
    netcdf.write(inputs / "survey.nc", example.survey)
    netcdf.write(inputs / "start.nc", example.start)
    with atomic_path(inputs / "demo.toml") as temporary:
        temporary.write_text(OPTIONS, encoding="utf-8")
    truth = (Grid.from_xarray(example.velocity), np.asarray(example.velocity))
    summary = job.invert(config.load(inputs / "demo.toml"), results, overwrite=True, console=Console(), true_velocity=truth)
    before, after = summary["model_rms_error_start"], summary["model_rms_error"]
    return "\n".join(
        [
            "",
            f"The model's rms error fell from {before:.1f} to {after:.1f} m/s, to {100 * after / before:.0f} % of the start's.",
            f"report   {results / 'report.html'}",
            f"figures  {results / 'figures'}",
            f"model    {results / 'model.nc'} (netCDF), {results / 'model.vtr'} (ParaView)",
            f"config   {inputs / 'demo.toml'}",
        ]
    )


if __name__ == "__main__":
    cli.guarded(main)
