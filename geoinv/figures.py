"""What the figures of all kinds of inversion share: colours, bars, ticks, units, and convergence.

Matplotlib's object interface is used throughout, so that drawing leaves no global state behind. The colour maps are safe
for colour-blind readers: viridis for fields, and a diverging map centred on zero for residuals and contrasts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

FIELD, DIVERGING = "viridis", "RdBu_r"
#: What `convergence` shows.
CONVERGENCE = (
    "Misfit and trade-off parameter. chi2 should come down to its target and stop there: far above it the data are not fitted or "
    "the uncertainties are too small; far below it noise has been fitted."
)


def colourbar(figure: Figure, drawn: Any, axes: list[Axes], values: np.ndarray, label: str) -> None:
    """A bar beside some axes, pointed where values lie beyond its ends."""
    below, above = bool(np.nanmin(values) < drawn.norm.vmin), bool(np.nanmax(values) > drawn.norm.vmax)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]
    bar = figure.colorbar(drawn, ax=axes, extend=extend, shrink=0.9, aspect=32, pad=0.02)
    bar.set_label(label, fontsize=8)
    if hasattr(bar.formatter, "set_useOffset"):
        bar.formatter.set_useOffset(False)
    bar.ax.tick_params(labelsize=7.5)


def thin_ticks(ax: Axes) -> None:
    """A few round numbers along each axis, written out."""
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]
        axis.get_major_formatter().set_scientific(False)  # type: ignore[attr-defined]
    ax.tick_params(labelsize=7.5)


def length_unit(extent: float) -> tuple[str, float]:
    """The unit of the axes for an extent in metres, and its length in metres."""
    return ("km", 1e3) if extent >= 5e3 else ("m", 1.0)


def convergence(history: Sequence[Mapping[str, float]], target: float = 1.0) -> Figure:
    """chi2 with its target, and the trade-off parameter, for each iteration.

    Args:
        history: Records with `iteration`, `chi2` and `trade_off`.
        target: The chi2 to reach.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, 1])
    iterations = [record["iteration"] for record in history]
    fits = [record["chi2"] for record in history]
    top.set_yscale("log" if min(fits) > 0 else "linear")
    top.plot(iterations, fits, "o-", color="#0072B2", markersize=4, label="chi2")
    top.axhline(target, color="#D55E00", linestyle="--", linewidth=1.2, label=f"target {target:g}")
    top.set_ylabel("chi2", fontsize=9)
    top.legend(fontsize=8, frameon=False)
    used = [record for record in history if record["trade_off"] > 0]  # the first model has none
    bottom.set_yscale("log" if used else "linear")
    bottom.plot([record["iteration"] for record in used], [record["trade_off"] for record in used], "s-", color="#009E73", markersize=4)
    bottom.set_ylabel("trade-off\nparameter", fontsize=9)
    bottom.set_xlabel("iteration", fontsize=9)
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in (top, bottom):
        ax.grid(True, which="major", color="0.9")
        ax.spines[["top", "right"]].set_visible(False)
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.tick_params(labelsize=8)
    return figure
