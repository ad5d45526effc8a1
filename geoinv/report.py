"""The report of an inversion: its figures and one self-contained HTML page, from the files of an output directory alone."""

import base64
import html
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoinv import figures, rundir
from geoinv.datasets.atomic import atomic_path
from geoinv.operators.grid import Grid

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

DPI = 150

CAPTIONS = {
    "survey": "Observed and predicted data on one scale, and their difference in uncertainties. Look for residuals without pattern: patches of "
    "one colour are structure the model has not explained, or a regional trend; single dark points are outliers.",
    "model": "Three sections through the strongest anomaly; dashed lines show where they cut one another. Gravity alone does not fix depth: "
    "trust the position and the total mass of an anomaly more than its thickness or its peak density.",
    "convergence": "Misfit and trade-off parameter. chi2 should come down to its target and stop there: far above it the data are not fitted or "
    "the uncertainties are too small; far below it noise has been fitted.",
}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; }
.status { font-size: 1.1rem; border-left: .3rem solid #0072b2; padding-left: .8rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding: .2rem .9rem .2rem 0; text-align: left; }
tr { border-bottom: 1px solid #e4e4e4; } .numbers :is(td, th):not(:first-child) { text-align: right; } th { font-weight: 600; }
figure { margin: 1.2rem 0 2rem; } img { max-width: 100%; } img[alt=convergence] { max-width: 34rem; } figcaption { color: #444; font-size: .92rem; }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: .85rem; } code { overflow-wrap: anywhere; }
"""


def write(directory: str | Path) -> Path:
    """Draw figures/*.png and write report.html from the files of an output directory.

    Returns:
        The path of report.html.

    Raises:
        ValueError: The directory does not hold a complete run.
    """
    directory = Path(directory)
    run = rundir.read(directory)
    images = {name: _save(figure, directory / "figures" / f"{name}.png") for name, figure in _draw(run).items()}
    page = directory / "report.html"
    rundir.write_text(page, render(run, images))
    return page


def _draw(run: rundir.Run) -> dict[str, "Figure"]:
    target = tomllib.loads(run.config).get("inversion", {}).get("target_chi2", 1.0)
    return {
        "survey": figures.survey_maps(run.predicted),
        "model": figures.model_sections(run.model),
        "convergence": figures.convergence(run.history, target),
    }


def _save(figure: "Figure", path: Path) -> bytes:
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
    return path.read_bytes()


def render(run: rundir.Run, images: Mapping[str, bytes]) -> str:
    """The page as one HTML text without links, scripts or other files."""
    summary = run.summary
    title = f"Gravity inversion: {Path(tomllib.loads(run.config)['data']['file']).name}"
    warnings = [f"<h2>Warnings</h2><ul>{''.join(f'<li>{_text(each)}</li>' for each in summary['warnings'])}</ul>"] if summary["warnings"] else []
    body = [
        f'<h1>{_text(title)}</h1><p class="status">{_text(rundir.sentence(summary))}</p>',
        *warnings,
        "<h2>Key numbers</h2>" + _table(_key_numbers(summary)),
        *_truth_section(run.model),
        "<h2>Figures</h2>" + "".join(_figure(name, image) for name, image in images.items()),
        "<h2>Iterations</h2>" + _iterations(run.history),
        f"<h2>Configuration</h2><pre>{_text(run.config)}</pre>",
        "<h2>Provenance</h2>" + _table(_provenance(summary)),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{_text(title)}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _key_numbers(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    unit = summary["rms_unit"]
    rows = [
        ("Data fitted", f"{summary['n_data']:,}"),
        ("Model cells", f"{summary['n_model']:,}"),
        ("chi2, mean of (residual / uncertainty)^2", _number(summary["chi2"])),
        ("Residual rms", f"{_number(summary['rms'])} {unit}"),
        ("Residual rms, held-out stations", f"{_number(summary['holdout_rms'])} {unit}"),
        ("Robust residual scatter, held-out stations (1.4826 MAD)", f"{_number(summary['holdout_mad'])} {unit}"),
        ("Iterations", str(summary["iterations"])),
        ("Time", f"{summary['seconds']:.1f} s"),
        ("Peak memory", f"{summary['peak_memory_bytes'] / 1e9:.2f} GB"),
    ]
    return [(name, value) for name, value in rows if not value.startswith("none")]


def _provenance(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return [("Versions", versions), *_pairs("Seed", summary["seeds"]), *_pairs("SHA-256", summary["sha256"])]


def _pairs(label: str, values: Any) -> list[tuple[str, str]]:
    if isinstance(values, Mapping):
        return [(f"{label}, {name}", str(value)) for name, value in values.items()]
    return [(label, str(values))]


# ----------------------------------------------------------------------------------------------------------------- truth


def compare_with_truth(model: "xarray.Dataset") -> list[dict[str, Any]]:
    """Recovered against true bodies: one record for the excess of mass and one for the deficit, where the truth has them.

    A body is the cells above half of the largest anomaly of its sign; its centre is weighted by anomaly and volume.

    Args:
        model: `density` and `true_density` on the grid, kg/m3.

    Returns:
        Records with `body`, `true_center` and `center` (upward, northing, easting; m), `offset_cells` (distance along each
        axis, in cells there), `true_peak` and `peak` (kg/m3), and `true_mass` and `mass` of all anomalies of that sign (kg).
    """
    grid = Grid.from_xarray(model["density"])
    truth, found = (np.nan_to_num(np.asarray(model[name])) for name in ("true_density", "density"))
    signs = [(name, sign) for name, sign in (("excess of mass", 1.0), ("deficit of mass", -1.0)) if (sign * truth).max() > 0]
    return [{"body": name, **_compare(grid, np.clip(sign * truth, 0, None), np.clip(sign * found, 0, None), sign)} for name, sign in signs]


def _compare(grid: Grid, truth: np.ndarray, found: np.ndarray, sign: float) -> dict[str, Any]:
    true_center, center = _center(grid, truth), _center(grid, found)
    cell = grid.cell_index(true_center[None])[0]
    sizes = np.array([widths[i] for widths, i in zip(grid.widths, cell, strict=True)])
    return {
        "true_center": true_center,
        "center": center,
        "offset_cells": np.abs(center - true_center) / sizes,
        "true_peak": sign * truth.max(),
        "peak": sign * found.max(),
        "true_mass": sign * np.sum(truth * grid.volumes),
        "mass": sign * np.sum(found * grid.volumes),
    }


def _center(grid: Grid, anomaly: np.ndarray) -> np.ndarray:
    weights = np.where(anomaly >= anomaly.max() / 2, anomaly, 0.0) * grid.volumes
    if not weights.any():
        return np.full(grid.ndim, np.nan)
    other = [tuple(axis for axis in range(grid.ndim) if axis != kept) for kept in range(grid.ndim)]
    return np.array([np.average(centers, weights=weights.sum(axis=axes)) for centers, axes in zip(grid.centers, other, strict=True)])


def _truth_section(model: "xarray.Dataset") -> list[str]:
    if "true_density" not in model:
        return []
    heading = ("", "true", "recovered", "offset (cells)")
    return [f"<h2>Recovered against truth: {_text(each['body'])}</h2>" + _numbers(heading, _truth_rows(each)) for each in compare_with_truth(model)]


def _truth_rows(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    axes = zip(("upward", "northing", "easting"), record["true_center"], record["center"], record["offset_cells"], strict=True)
    return [
        *((f"centre, {name} (m)", f"{true:,.0f}", f"{found:,.0f}", f"{offset:.2f}") for name, true, found, offset in axes),
        ("peak density (kg/m³)", f"{record['true_peak']:.0f}", f"{record['peak']:.0f}", ""),
        ("anomalous mass (kg)", f"{record['true_mass']:.3g}", f"{record['mass']:.3g}", ""),
    ]


# ------------------------------------------------------------------------------------------------------------------ HTML


def _text(value: object) -> str:
    return html.escape(str(value))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _figure(name: str, image: bytes) -> str:
    data = base64.b64encode(image).decode()
    return f'<figure><img alt="{name}" src="data:image/png;base64,{data}"><figcaption>{_text(CAPTIONS[name])}</figcaption></figure>'


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "<table>" + "".join(f"<tr><th>{_text(name)}</th><td><code>{_text(value)}</code></td></tr>" for name, value in rows) + "</table>"


def _numbers(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [("th", heading), *(("td", row) for row in rows)]
    cells = ("".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in row) for tag, row in lines)
    return '<table class="numbers">' + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


def _iterations(history: Sequence[Mapping[str, float]]) -> str:
    from geoinv.console import COLUMNS

    rows = [[_cell(record[key], form) for _, key, form in COLUMNS] for record in history]
    return _numbers([heading for heading, _, _ in COLUMNS], rows)


def _cell(value: float, form: str) -> str:
    if np.isnan(value):
        return ""
    return format(round(value) if form == "d" else value, form)
