"""The linearized problem of a kind of inversion, as its module `<kind>.sensitivity` gives it to the job."""

from dataclasses import dataclass
from typing import final

import numpy as np

from geoinv.operators.forward import Linearization, Nest
from geoinv.operators.grid import Grid
from geoinv.operators.sensitivity import Prior


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

    def on_grid(self, values: np.ndarray) -> np.ndarray:
        """Values of the unknowns [size] or [size, k] as fields, [grid] or [k, grid]; NaN in cells that are none."""
        field = np.full((*self.grid.shape, *values.shape[1:]), np.nan)
        field[self.active] = values[: int(self.active.sum())]
        return field if values.ndim == 1 else np.moveaxis(field, -1, 0)
