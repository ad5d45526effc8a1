"""First-arrival tomography from Python: a synthetic refraction line, or a file of picks of your own.

    python scripts/invert_traveltime.py synthetic                       # ten seconds; writes traveltime-output/
    python scripts/invert_traveltime.py survey picks.sgt                # .sgt, .csv or .nc
    python scripts/invert_traveltime.py survey crosshole.csv --spacing 0.5 0.5 --flat --start 2000 2000

The first makes its own data: a weathered layer of changing thickness over rock below a hill, 9 shots into 48 receivers, noise of 0.3 ms and
1 % of the time. It holds back a tenth of the picks, inverts the others, and states how well the velocity is found where waves pass.
"""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from geoinv import cli, config, rundir
from geoinv.datasets import netcdf, pick_table, synthetic_picks
from geoinv.traveltime import inputs, job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    line = kinds.add_parser("synthetic", help="model and invert a refraction line")
    line.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    line.set_defaults(run=synthetic)
    survey = kinds.add_parser("survey", help="invert a file of picks")
    survey.add_argument("file", type=Path, help="file of picks: .sgt, .csv or .nc")
    survey.add_argument("--spacing", type=float, nargs=2, help="cell size (vertical, easting), m")
    survey.add_argument("--depth", type=float, help="of the grid, m")
    survey.add_argument("--start", type=float, nargs=2, default=(500.0, 5000.0), help="velocity at top and bottom of the first model, m/s")
    survey.add_argument("--flat", action="store_true", help="the ground is level at the highest sensor, as above boreholes")
    survey.add_argument("--blocky", action="store_true", help="few sharp interfaces in place of smooth changes")
    survey.set_defaults(run=invert)
    for each in (line, survey):
        each.add_argument("--output", type=Path, default=Path("traveltime-output"), help="directory to write (default: traveltime-output)")
        each.add_argument("--set", action="append", default=[], metavar="SECTION.OPTION=VALUE", help="replace an option of the config")
    arguments = parser.parse_args()
    print(arguments.run(arguments))


def invert(arguments: argparse.Namespace) -> str:
    """Invert a survey with the options given as a mapping instead of a TOML file."""
    options: dict[str, Any] = {
        "kind": "traveltime",
        "data": {"file": str(arguments.file.resolve())},
        "grid": {name: getattr(arguments, name) for name in ("spacing", "depth") if getattr(arguments, name) is not None},
        "start": dict(zip(("top", "bottom"), arguments.start, strict=True)),
        "topography": {"source": "flat" if arguments.flat else "sensors"},
        "regularization": {"shape": "blocky" if arguments.blocky else "smooth"},
    }
    summary = job.invert(config.overridden(options, arguments.set), arguments.output, console=Console())
    return f"{rundir.sentence(summary)} See {arguments.output / 'report.html'}."


def synthetic(arguments: argparse.Namespace) -> str:
    """Model the data, invert them, and say what came of it."""
    example = synthetic_picks.refraction(seed=arguments.seed)
    folder, results = arguments.output / "inputs", arguments.output / "results"
    folder.mkdir(parents=True, exist_ok=True)
    netcdf.write(folder / "picks.nc", example.survey)
    pick_table.write_csv(folder / "picks.csv", example.survey)
    options = {"kind": "traveltime", "data": {"file": str((folder / "picks.nc").resolve())}, "inversion": {"holdout": 0.1}}
    chosen = config.overridden(options, arguments.set)
    grid = inputs.load(chosen).grid
    truth = example.velocity(grid.centers[0][:, None], grid.centers[1])
    summary = job.invert(chosen, results, overwrite=True, console=Console(), true_velocity=truth)
    before, after = summary["velocity_error_start"], summary["velocity_error"]
    return "\n".join(
        [
            rundir.sentence(summary),
            f"Where waves pass, the velocity's rms error fell from {100 * before:.0f} to {100 * after:.0f} %.",
            f"report   {results / 'report.html'}",
        ]
    )


if __name__ == "__main__":
    cli.guarded(main)
