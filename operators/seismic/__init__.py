"""Seismic waves and first arrivals by finite differences. Operators are imported on first use: wavelets and boundaries do without TensorFlow."""

import importlib
from typing import Any

_HOMES = {"AcousticWave": "acoustic", "Acquisition": "acquisition", "Absorbing": "boundaries", "Eikonal": "eikonal", "StraightRay": "rays"}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'geoinv.operators.seismic' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
