"""Where waves pass, and how good a model is there."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray

#: Coverage, over its largest, below which hardly a wave passes through a cell.
PALE = 0.01


def seen(model: "xarray.Dataset") -> np.ndarray:
    """The cells that waves pass through [grid]: those of a hundredth of the largest coverage or more."""
    coverage = np.nan_to_num(model["coverage"].values)
    return np.asarray(coverage > PALE * coverage.max())


def errors(model: "xarray.Dataset") -> dict[str, float]:
    """Relative rms errors of the velocity where waves pass, at the start and in the result, if the truth is known."""
    if "true_velocity" not in model:
        return {}
    truth, cells = model["true_velocity"].values, seen(model)
    named = {"velocity_error_start": "start_velocity", "velocity_error": "velocity"}
    return {key: float(np.sqrt(np.mean((model[name].values[cells] / truth[cells] - 1) ** 2))) for key, name in named.items()}
