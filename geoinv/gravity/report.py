"""What the report of a gravity inversion shows: its figures, its key numbers, and recovered beside true bodies."""

import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from geoinv.operators.grid import Grid

from .. import page, rundir
from ..figures import CONVERGENCE, convergence
from . import figures

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

CAPTIONS = {
    "survey": "Observed and predicted data on one scale, and their difference in uncertainties. Look for residuals without pattern: patches of "
    "one colour are structure the model has not explained, or a regional trend; single dark points are outliers.",
    "model": "Three sections through the strongest anomaly; dashed lines show where they cut one another. Gravity alone does not fix depth: "
    "trust the position and the total mass of an anomaly more than its thickness or its peak density.",
    "convergence": CONVERGENCE,
}


def draw(run: rundir.Run) -> dict[str, "Figure"]:
    """The figures, by name."""
    target = tomllib.loads(run.config).get("inversion", {}).get("target_chi2", 1.0)
    return {
        "survey": figures.survey_maps(run.predicted),
        "model": figures.model_sections(run.model),
        "convergence": convergence(run.history, target),
    }


def key_numbers(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of what to read first."""
    unit = summary["rms_unit"]
    rows = [
        ("Data fitted", f"{summary['n_data']:,}"),
        ("Model cells", f"{summary['n_model']:,}"),
        ("chi2, mean of (residual / uncertainty)^2", page.number(summary["chi2"])),
        ("Residual rms", f"{page.number(summary['rms'])} {unit}"),
        ("Residual rms, held-out stations", f"{page.number(summary['holdout_rms'])} {unit}"),
        ("Robust residual scatter, held-out stations (1.4826 MAD)", f"{page.number(summary['holdout_mad'])} {unit}"),
        ("Iterations", str(summary["iterations"])),
        ("Time", f"{summary['seconds']:.1f} s"),
        ("Peak memory", f"{summary['peak_memory_bytes'] / 1e9:.2f} GB"),
    ]
    return [(name, value) for name, value in rows if not value.startswith("none")]


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


def truth_sections(model: "xarray.Dataset") -> list[str]:
    """A section for each body, where the truth is known."""
    if "true_density" not in model:
        return []
    heading = ("", "true", "recovered", "offset (cells)")
    return [
        f"<h2>Recovered against truth: {page.text(each['body'])}</h2>" + page.numbers(heading, _truth_rows(each))
        for each in compare_with_truth(model)
    ]


def _truth_rows(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    axes = zip(("upward", "northing", "easting"), record["true_center"], record["center"], record["offset_cells"], strict=True)
    return [
        *((f"centre, {name} (m)", f"{true:,.0f}", f"{found:,.0f}", f"{offset:.2f}") for name, true, found, offset in axes),
        ("peak density (kg/m³)", f"{record['true_peak']:.0f}", f"{record['peak']:.0f}", ""),
        ("anomalous mass (kg)", f"{record['true_mass']:.3g}", f"{record['mass']:.3g}", ""),
    ]
