"""The linearized problem of a kind of inversion, as its module `<kind>.sensitivity` gives it to the job."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import scipy.sparse

from geoinv.operators import checks
from geoinv.operators.forward import Linearization, Nest
from geoinv.operators.grid import Grid
from geoinv.operators.sensitivity import Prior

if TYPE_CHECKING:
    from ..config import PriorSensitivity
    from ..rundir import Run


@final
@dataclass(frozen=True, eq=False)
class Target:
    """What data of known uncertainty and a prior say about the cells of a grid.

    Args:
        grid: The cells.
        active: Which of them are unknown, a mask on the grid.
        at: Of the data with respect to a vector: the active cells, and further unknowns such as a trend's behind them.
        weights: 1 / uncertainty^2, structured as the data.
        prior: Over that vector.
        model: At which it is linearized, on the grid, NaN where there is none.
        quantity: Its name.
        unit: Of it.
        notes: What to know about how this was made, a line each.
        place: Attributes that say where the grid lies: its crs, and the line that eastings are along.
    """

    grid: Grid
    active: np.ndarray
    at: Linearization
    weights: Nest
    prior: Prior
    model: np.ndarray
    quantity: str
    unit: str
    notes: tuple[str, ...]
    place: Mapping[str, Any]

    def on_grid(self, values: np.ndarray) -> np.ndarray:
        """Values of the unknowns [size] or [size, k] as fields, [grid] or [k, grid]; NaN in cells that are none."""
        field = np.full((*self.grid.shape, *values.shape[1:]), np.nan)
        field[self.active] = values[: int(self.active.sum())]
        return field if values.ndim == 1 else np.moveaxis(field, -1, 0)


def lines(precision: scipy.sparse.csr_array, active: np.ndarray) -> np.ndarray:
    """An order for `Prior`: the unknowns line by line, along the axis in which neighbours are tied most; those that are no cells come last.

    Args:
        precision: Of the active cells, and of further unknowns behind them.
        active: Mask on the grid.
    """
    numbers, scale = np.where(active, np.cumsum(active).reshape(active.shape) - 1, -1), precision.diagonal() ** -0.5
    others = np.arange(int(active.sum()), precision.shape[0])
    orders = [np.moveaxis(numbers, axis, -1).ravel() for axis in range(active.ndim)]
    orders = [np.concatenate([order[order >= 0], others]) for order in orders]
    return max(orders, key=lambda order: -np.sum(precision[order[:-1], order[1:]] * scale[order[:-1]] * scale[order[1:]]))


def prior_weight(options: "PriorSensitivity", smallness: float, run: "Run | None", quantity: str) -> float:
    """The trade-off parameter with which the model term of an inversion is the prior: that of the options, or of a run's last iteration.

    Args:
        options: The config's [sensitivity].
        smallness: Weight of smallness in the model term.
        run: A finished inversion.
        quantity: What the model is, for messages.

    Raises:
        ValueError: No trade-off parameter, or no smallness.
    """
    trade_off = options.trade_off
    if trade_off is None and run is not None:
        trade_off = next((record["trade_off"] for record in reversed(run.history) if record["trade_off"] > 0), None)
    if trade_off is None:
        advice = "Run 'geoinv invert' first (and give its directory with --model), or set it."
        raise checks.invalid("sensitivity.trade_off", "off", "known: how much the prior weighs against the data", advice)
    if not smallness:
        advice = f"Without it a constant {quantity} is free, and no deviation finite."
        raise checks.invalid("regularization.smallness", 0, "above zero for 'geoinv sensitivity'", advice)
    return trade_off


def model_of(run: "Run", name: str, grid: Grid) -> np.ndarray:
    """The model that an inversion found, [grid].

    Raises:
        ValueError: It is on other cells than those of the config.
    """
    own = Grid.from_xarray(run.model[name])
    if own.shape != grid.shape:
        raise checks.invalid("model", f"of {_times(own.shape)} cells", f"of {_times(grid.shape)}, as the config's")
    for dim, edges, expected, widths in zip(grid.dims, own.edges, grid.edges, grid.widths, strict=True):
        if np.abs(edges - expected).max() > 1e-3 * widths.min():
            ends = f"{expected[0]:g} to {expected[-1]:g} m"
            raise checks.invalid("model", f"on cells from {edges[0]:g} to {edges[-1]:g} m along {dim}", f"on the config's, from {ends}")
    return np.asarray(run.model[name].values)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
