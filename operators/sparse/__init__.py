"""Sparse matrices with a static pattern and differentiable values."""

from .csr import CSRMatrix
from .operator import SparseOperator
from .pattern import Pattern

__all__ = ["CSRMatrix", "Pattern", "SparseOperator"]
