"""What the figures of all kinds of inversion share: colours, bars, ticks and units.

Matplotlib's object interface is used throughout, so that drawing leaves no global state behind. The colour maps are safe
for colour-blind readers: viridis for fields, and a diverging map centred on zero for residuals and contrasts.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

FIELD, DIVERGING = "viridis", "RdBu_r"


def colourbar(figure: Figure, drawn: Any, axes: list[Axes], values: np.ndarray, label: str) -> None:
    """A bar beside some axes, pointed where values lie beyond its ends."""
    below, above = bool(np.nanmin(values) < drawn.norm.vmin), bool(np.nanmax(values) > drawn.norm.vmax)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]
    bar = figure.colorbar(drawn, ax=axes, extend=extend, shrink=0.9, aspect=32, pad=0.02)
    bar.set_label(label, fontsize=8)
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
