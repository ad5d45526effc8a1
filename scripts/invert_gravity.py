"""Invert a CSV of gravity stations from Python, without a config: read, build the problem, run, save.

python scripts/invert_gravity.py stations.csv --columns easting=X northing=Y upward=Z gz=ISO --uncertainty 0.25 --spacing 250 500 500
"""

import argparse
from pathlib import Path

from rich.console import Console

from geoinv import cli, config
from geoinv.gravity import job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stations", type=Path, help="CSV file of stations")
    parser.add_argument("--columns", nargs="+", default=[], metavar="NAME=COLUMN", help="the file's columns for easting, northing, upward, gz")
    parser.add_argument("--uncertainty", type=float, required=True, help="standard deviation of the data, mGal")
    parser.add_argument("--spacing", type=float, nargs=3, required=True, help="cell size (vertical, northing, easting), m")
    parser.add_argument("--bounds", type=float, nargs=2, default=(-1000.0, 1000.0), help="lowest and highest density, kg/m3")
    parser.add_argument("--output", type=Path, default=Path("gravity-output"), help="directory to write")
    arguments = parser.parse_args()
    summary = invert(arguments)
    print(f"{summary['reason']} Residual rms {summary['rms']:.3g} {summary['rms_unit']}. See {arguments.output / 'report.html'}.")


def invert(arguments: argparse.Namespace) -> dict:
    """Run the job with the options given as a mapping instead of a TOML file."""
    lower, upper = arguments.bounds
    options = config.parse(
        {
            "data": {
                "file": str(arguments.stations.resolve()),
                "columns": dict(pair.split("=", 1) for pair in arguments.columns),
                "uncertainty_floor": arguments.uncertainty,
            },
            "grid": {"spacing": tuple(arguments.spacing)},
            "bounds": {"lower": lower, "upper": upper},
        }
    )
    return job.invert(options, arguments.output, console=Console())


if __name__ == "__main__":
    cli.guarded(main)
