"""geoinv: geophysical inversion with sparse operators that TensorFlow differentiates."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .accumulator import GradientAccumulator as GradientAccumulator
    from .gradients import Window as Window
    from .trainer import Trainer as Trainer
    from .training.loss import Fit as Fit
    from .training.methods import LBFGS as LBFGS
    from .training.methods import GaussNewton as GaussNewton
    from .training.methods import Keras as Keras

__version__ = "0.1.0"

#: Found when they are asked for: TensorFlow takes seconds to import.
_HOMES = {
    "GradientAccumulator": "accumulator",
    "Window": "gradients",
    "Trainer": "trainer",
    "Fit": "training.loss",
    "LBFGS": "training.methods",
    "GaussNewton": "training.methods",
    "Keras": "training.methods",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'geoinv' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
