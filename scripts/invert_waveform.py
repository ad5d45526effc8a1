"""Full-waveform inversion from Python: the Overthrust section, from its own smooth start, or a survey of your own.

    python scripts/invert_waveform.py overthrust FOLDER              # FOLDER holds overthrust2d-model/overthrust_model.h5
    python scripts/invert_waveform.py survey shots.segy --start start.nc --spacing 20 --bands 3 5 8

The first models its own data: differences of order 6 on cells of 12.5 m and their own time step, a wavelet that the inversion does not
know and that has nothing below 3 Hz, and noise of 5 % of each shot. It inverts them as scripts/configs/overthrust.toml says, on
larger cells with larger steps, and states by how much the model's error and the misfit fell.
"""

import argparse
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray
from rich.console import Console

from geoinv import cli, config, rundir
from geoinv.datasets import files, netcdf, synthetic
from geoinv.operators import checks
from geoinv.operators.grid import Grid
from geoinv.waveform import job

MODEL = Path("overthrust2d-model", "overthrust_model.h5")
OVERTHRUST = Path(__file__).resolve().parent / "configs" / "overthrust.toml"
SPACING = 25.0  # of the model's cells, m
DEPTH = -30.0  # of sources and receivers, m


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    section = kinds.add_parser("overthrust", help="model and invert the Overthrust section")
    section.add_argument("folder", type=Path, help="folder of data sets, with overthrust2d-model in it")
    section.add_argument("--shots", type=int, default=40, help="number of shots (default: 40)")
    section.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    section.add_argument("--set", action="append", default=[], metavar="SECTION.OPTION=VALUE", help="replace an option of overthrust.toml")
    section.set_defaults(run=overthrust)
    survey = kinds.add_parser("survey", help="invert a file of shot gathers")
    survey.add_argument("file", type=Path, help="SEG-Y or netCDF file of shots")
    survey.add_argument("--start", type=Path, required=True, help="netCDF, HDF5 or .npy file of the start velocity, m/s")
    survey.add_argument("--spacing", type=float, required=True, help="cell size, m")
    survey.add_argument("--bands", type=float, nargs="+", required=True, help="highest frequency of each band, Hz")
    survey.add_argument("--bounds", type=float, nargs=2, default=(1400.0, 6000.0), help="lowest and highest velocity, m/s")
    survey.add_argument("--frequency", type=float, default=10.0, help="peak of the Ricker wavelet that the fitted one starts from, Hz")
    survey.set_defaults(run=invert)
    for each in (section, survey):
        each.add_argument("--output", type=Path, default=Path("waveform-output"), help="directory to write (default: waveform-output)")
    arguments = parser.parse_args()
    print(arguments.run(arguments))


def invert(arguments: argparse.Namespace) -> str:
    """Invert a survey with the options given as a mapping instead of a TOML file."""
    options = config.parse(
        {
            "kind": "waveform",
            "data": {"file": str(arguments.file.resolve())},
            "grid": {"spacing": arguments.spacing},
            "model": {"file": str(arguments.start.resolve())},
            "source": {"frequency": arguments.frequency},
            "bands": {"lowpass": arguments.bands},
            "bounds": dict(zip(("lower", "upper"), arguments.bounds, strict=True)),
        }
    )
    summary = job.invert(options, arguments.output, console=Console())
    return f"{rundir.sentence(summary)} See {arguments.output / 'report.html'}."


def overthrust(arguments: argparse.Namespace) -> str:
    """Model the section's data, invert them, and say what came of it."""
    grid, velocity = section(arguments.folder)
    survey = record(grid, velocity, arguments.shots, arguments.seed)
    inputs = arguments.output / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    netcdf.write(inputs / "survey.nc", survey)
    overrides = [f"data.file='{(inputs / 'survey.nc').resolve()}'", f"model.file='{(arguments.folder / MODEL).resolve()}'", *arguments.set]
    options = config.load(OVERTHRUST, overrides)
    results = arguments.output / "results"
    summary = job.invert(options, results, overwrite=True, console=Console(), true_velocity=(grid, velocity))
    return outcome(summary, results)


def outcome(summary: dict[str, Any], results: Path) -> str:
    """The numbers that the experiment is for."""
    before, after = summary["model_rms_error_start"], summary["model_rms_error"]
    if summary["status"] == "failed":
        raise ValueError(summary["reason"])
    last = summary["bands"][-1]
    fall, within = (100 * (1 - last["misfit"] / last[name]) for name in ("misfit_start_model", "misfit_start"))
    return "\n".join(
        [
            f"The model's rms error fell from {before:.0f} to {after:.0f} m/s, to {100 * after / before:.0f} % of the start's, in "
            f"{summary['seconds'] / 60:.1f} minutes.",
            f"The misfit of the last band fell by {fall:.1f} % from the start model's, by {within:.1f} % within the band.",
            f"report   {results / 'report.html'}",
        ]
    )


def section(folder: Path) -> tuple[Grid, np.ndarray]:
    """The cells of the Overthrust section, 25 m wide, and its true velocity, m/s: its file holds squared slowness in s2/km2, depth first."""
    with h5py.File(files.existing(folder / MODEL)) as file:
        if "m" not in file:
            raise checks.invalid("folder", f"with a model file of {', '.join(file) or 'nothing'}", "of the Overthrust section, with 'm'")
        velocity = 1e3 / np.sqrt(checks.positive("m", file["m"])[::-1])
    return Grid.uniform(velocity.shape, (SPACING, SPACING), origin=(-SPACING * len(velocity), 0.0)), velocity


def record(grid: Grid, velocity: np.ndarray, shot_count: int, seed: int) -> xarray.Dataset:
    """Shots along the whole section into receivers every 25 m."""
    if shot_count < 1:
        raise checks.invalid("--shots", shot_count, "1 or more")
    end, dt, length = grid.edges[1][-1], 0.004, 4.8
    sources = np.stack([np.full(shot_count, DEPTH), np.linspace(60.0, end - 60.0, shot_count)], axis=1)
    eastings = np.arange(40.0, end - 20.0, 25.0)
    receivers = np.stack([np.full(eastings.size, DEPTH), eastings], axis=1)
    wavelet = synthetic.turned_ricker(7.0, round(length / dt), dt, corners=(3.0, 4.0), phase=60.0)
    return synthetic.record(grid, velocity, sources, receivers, wavelet, dt=dt, refine=2, order=6, noise=0.05, seed=seed)


if __name__ == "__main__":
    cli.guarded(main)
