"""Forward operators and the sparse calculus they are made of. Importing this package imports neither TensorFlow nor xarray."""

import importlib
import os
from typing import Any

if __name__ != "geoinv.operators":
    raise ImportError("Import this package as geoinv.operators: install the project first with 'pip install .' or 'make demo'.")

# TensorFlow's default gives every large result fresh pages from the system, whose first touch costs several times what a sparse
# product does; its best-fit allocator keeps them. Read when the first tensor is made; whoever has set the variable is left alone.
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")

_HOMES = {
    "Grid": "grid",
    "ForwardOperator": "forward",
    "Linearization": "forward",
    "Chain": "forward",
    "Stack": "forward",
    "Sum": "forward",
    "CSRMatrix": "sparse.csr",
    "SparseOperator": "sparse.operator",
    "AcousticWave": "seismic.acoustic",
    "Acquisition": "seismic.acquisition",
    "Eikonal": "seismic.eikonal",
    "StraightRay": "seismic.rays",
    "GravityPoisson": "gravity.poisson",
    "GravityPrism": "gravity.prism",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'geoinv.operators' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
