"""What the report of a travel-time inversion shows: its figures, its key numbers, and the result beside the truth."""

import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import page, rundir
from ..figures import CONVERGENCE, convergence
from . import figures
from .coverage import errors

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

CAPTIONS = {
    "section": "Velocity below the ground; triangles are sensors, stars shots. Pale cells are those that hardly a wave passes through: what is there "
    "comes from the start model. First arrivals see no slow layer below a faster one.",
    "rays": "The ways of first arrivals through the result, and how much of them lies in each cell: the derivative of all times by its slowness, "
    "which beside a way may be a little below zero. A refractor shows as a bundle of ways along it.",
    "curves": "Times along the line for each shot. Slopes are slownesses: a break in slope is a faster layer reached. Residuals should scatter "
    "about zero without pattern along the line.",
    "residuals": "Residuals in uncertainties for each pair of shot and receiver. A single dark pick is an outlier, a row or a column one shot or one "
    "receiver that is misplaced or mistimed. The curve is what noise of the given uncertainties would give.",
    "convergence": CONVERGENCE,
}


def draw(run: rundir.Run) -> dict[str, "Figure"]:
    """The figures, by name."""
    target = tomllib.loads(run.config).get("inversion", {}).get("target_chi2", 1.0)
    return {
        "section": figures.section(run.model, run.predicted),
        "rays": figures.rays(run.model, run.predicted, run.extra.get("rays")),
        "curves": figures.curves(run.predicted),
        "residuals": figures.residuals(run.predicted),
        "convergence": convergence(run.history, target),
    }


def key_numbers(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of what to read first."""
    rows = [
        ("Picks fitted", f"{summary['n_data']:,}"),
        ("Model cells", f"{summary['n_model']:,}"),
        ("chi2, mean of (residual / uncertainty)^2", page.number(summary["chi2"])),
        ("Residual rms", f"{page.number(summary['rms'])} ms"),
        ("Residual, median of its size", f"{page.number(summary['median_residual'])} ms"),
        ("Residual rms, held-out picks", f"{page.number(summary['holdout_rms'])} ms"),
        ("Iterations", str(summary["iterations"])),
        ("Time", f"{summary['seconds']:.1f} s"),
        ("Peak memory", f"{summary['peak_memory_bytes'] / 1e9:.2f} GB"),
    ]
    return [(name, value) for name, value in rows if not value.startswith("none")]


def truth_sections(model: "xarray.Dataset") -> list[str]:
    """The error where waves pass, where the truth is known."""
    found = errors(model)
    if not found:
        return []
    row = ("rms error of velocity where waves pass", *(f"{100 * found[name]:.1f} %" for name in ("velocity_error_start", "velocity_error")))
    return ["<h2>Recovered against truth</h2>" + page.numbers(("", "start", "result"), [row])]
