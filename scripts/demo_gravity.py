"""Invert a synthetic gravity survey over a buried block, and say where the results are: what `make demo` runs."""

import argparse
from pathlib import Path

from rich.console import Console

from geoinv import cli, config
from geoinv.datasets import netcdf, synthetic, ubc
from geoinv.datasets.atomic import atomic_path
from geoinv.gravity import job
from geoinv.gravity.report import compare_with_truth

OPTIONS = """\
# The demo: a block of 400 kg/m3 under a hill, seen by 400 stations with noise of 0.02 mGal.
[data]
file = "survey.nc"

[grid]
file = "mesh.msh"

[topography]
source = "stations"

[bounds]
lower = 0.0
upper = 500.0
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="directory to write (default: demo-output)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise and the station heights (default: 0)")
    arguments = parser.parse_args()
    print(run(arguments.output, arguments.seed))


def run(output: Path, seed: int = 0) -> str:
    """Make the survey, invert it, and return what to read next."""
    example = synthetic.gravity(seed=seed, relief=100.0)
    inputs = output / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    netcdf.write(inputs / "survey.nc", example.survey)
    ubc.write_mesh(inputs / "mesh.msh", example.grid)
    with atomic_path(inputs / "demo.toml") as temporary:
        temporary.write_text(OPTIONS, encoding="utf-8")
    results = output / "results"
    summary = job.invert(config.load(inputs / "demo.toml"), results, overwrite=True, console=Console(), true_density=example.density.values)
    block = compare_with_truth(netcdf.read(results / "model.nc"))[0]
    offset = max(block["offset_cells"])
    return "\n".join(
        [
            "",
            f"The block's centre was found within {offset:.2f} cells of the truth along every axis, with chi2 {summary['chi2']:.2f}.",
            f"report   {results / 'report.html'}",
            f"figures  {results / 'figures'}",
            f"model    {results / 'model.nc'} (netCDF), {results / 'model.vtr'} (ParaView)",
            f"config   {inputs / 'demo.toml'}",
        ]
    )


if __name__ == "__main__":
    cli.guarded(main)
