"""How data answer to the model: what is kept for a derivative, and Jacobians from products. Importing this package does not import TensorFlow."""

import importlib
from typing import Any

from .strategy import Boundary, Checkpointed, Every, Implicit, StoreAll, Strategy

_HOMES = {
    "checkpointed_scan": "scan",
    "fixed_point": "equilibrium",
    "linearization": "functions",
    "columns": "probes",
    "rows": "probes",
    "jacobian": "probes",
    "write_jacobian": "probes",
    "sparse_jacobian": "probes",
    "detect_pattern": "patterns",
    "Coloring": "colors",
    "coloring": "colors",
    "Estimate": "estimates",
    "diagonal": "estimates",
    "trace": "estimates",
    "gauss_newton_diagonal": "estimates",
    "svd": "spectrum",
    "condition": "spectrum",
    "Posterior": "resolution",
    "Prior": "prior",
    "Informed": "directions",
    "informed": "directions",
    "plan": "planner",
    "Loop": "looped",
    "FixedPoint": "settled",
}
__all__ = ["Boundary", "Checkpointed", "Every", "Implicit", "StoreAll", "Strategy", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
