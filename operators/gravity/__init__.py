"""Gravity of density on a grid: by finite differences (`poisson`) and by analytic prisms (`prism`).

The operators are imported on first use: `ground` and `components` serve code that must not import TensorFlow.
"""

import importlib
from typing import Any

_HOMES = {"GravityPoisson": "poisson", "GravityPrism": "prism"}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'geoinv.operators.gravity' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
