"""Gravity of density on a grid: by finite differences (`poisson`) and by analytic prisms (`prism`).

The operators are imported on first use: `ground` and `components` serve code that must not import TensorFlow.
"""

from typing import Any

__all__ = ["GravityPoisson", "GravityPrism"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'geoinv.operators.gravity' has no attribute '{name}'")
    from geoinv import operators

    return getattr(operators, name)
