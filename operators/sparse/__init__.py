"""Sparse matrices with a static pattern and differentiable values."""

from .csr import CSRMatrix, Pattern
from .operator import SparseOperator

__all__ = ["CSRMatrix", "Pattern", "SparseOperator"]
