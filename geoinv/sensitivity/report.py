"""The report of a sensitivity job, from the files of its directory alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoinv import page, rundir
from geoinv.datasets import netcdf
from geoinv.operators import checks

from ..report import document, figure, save
from . import figures

CAPTIONS = {
    "fields": "Coverage: the signal-to-noise ratio of a unit change of one cell. Depth of investigation: what a change of the reference model, drawn "
    "from the prior and smoothed over its lengths, leaves in the answer (after Oldenburg & Li 1999), 0 where data decide and 1 where the reference "
    "does. Resolution: 1 where a cell is seen by itself. Deviation: the standard deviation after the data over that before. Vertical sections, and "
    "in three dimensions horizontal ones, through the first of the cells below.",
    "point-spread": "What the inversion makes of a change in one cell, circled: point-spread functions, columns of the resolution matrix.",
    "spectrum": "Eigenvalues of what the data tell against what was assumed. Directions above 1 are known from the data; shaded: how far the "
    "last ones may be off.",
}


def write(directory: str | Path) -> Path:
    """Draw figures/*.png and write report.html from the files of a directory of `geoinv sensitivity`.

    Returns:
        The path of report.html.

    Raises:
        ValueError: The directory does not hold a complete run.
    """
    directory = Path(directory)
    for name in ("config.toml", "sensitivity.nc", "summary.json"):
        if not (directory / name).is_file():
            raise checks.invalid("directory", f"'{directory}'", "the output of 'geoinv sensitivity'", f"There is no {name}.")
    data, summary = netcdf.read(directory / "sensitivity.nc"), json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    drawn = {"fields": figures.fields(data), "point-spread": figures.point_spread(data), "spectrum": figures.spectrum(data)}
    images = {name: save(each, directory / "figures" / f"{name}.png") for name, each in drawn.items()}
    title = f"What the data resolve: {summary['kind']}"
    body = [
        f'<h1>{page.text(title)}</h1><p class="status">{page.text(sentence(summary))}</p>',
        *([f"<h2>Warnings</h2><ul>{''.join(f'<li>{page.text(line)}</li>' for line in summary['warnings'])}</ul>"] if summary["warnings"] else []),
        "<h2>Key numbers</h2>" + page.table(_key_numbers(summary)),
        "<h2>Figures</h2>" + "".join(figure(name, image, CAPTIONS[name]) for name, image in images.items()),
        f"<h2>How it was made</h2><ul>{''.join(f'<li>{page.text(note)}</li>' for note in summary['notes'])}</ul>",
        f"<h2>Configuration</h2><pre>{page.text((directory / 'config.toml').read_text(encoding='utf-8'))}</pre>",
        "<h2>Provenance</h2>" + page.table([("Versions", ", ".join(f"{name} {each}" for name, each in summary["versions"].items()))]),
    ]
    path = directory / "report.html"
    rundir.write_text(path, document(title, body))
    return path


def sentence(summary: Mapping[str, Any]) -> str:
    """What came of it, in one sentence."""
    more = "" if summary["complete"] else f" (there are more: not all below {summary['smallest_eigenvalue']:.3g} are found)"
    return (
        f"{summary['n_data']} data tell {_freedom(summary)} numbers about {summary['n_model']} cells; "
        f"{summary['directions_above_noise']} directions are known better from the data than assumed{more}; "
        f"depth of investigation {_depth(summary)} in the median."
    )


def _depth(summary: Mapping[str, Any]) -> str:
    bottom = ", the bottom of the grid," if summary.get("depth_of_investigation_is_the_bottom") else ""
    return f"{summary['depth_of_investigation_m']:.4g} m{bottom}"


def _freedom(summary: Mapping[str, Any]) -> str:
    """With its error, where that shows."""
    value, error = summary["degrees_of_freedom"], summary["degrees_of_freedom_error"]
    return f"{value:.3g}" if error < 0.005 * value else f"{value:.3g} +- {error:.1g}"


def _key_numbers(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Degrees of freedom", _freedom(summary)),
        ("Directions better known than assumed", str(summary["directions_above_noise"])),
        ("Largest resolution of a cell", page.number(summary["largest_resolution"])),
        ("Smallest deviation over the prior's", page.number(summary["least_deviation_ratio"])),
        ("Depth of investigation (median)", _depth(summary)),
        ("Data, cells", f"{summary['n_data']}, {summary['n_model']}"),
        ("Linearized at", str(summary["linearized_at"])),
        ("Seconds, memory", f"{summary['seconds']:.1f} s, {summary['peak_memory_bytes'] / 1e9:.2f} GB"),
    ]
