"""Sparse matrices with a static pattern and differentiable values, their products, and ways to solve with them."""

from .csr import CSRMatrix, Transpose
from .operator import SparseOperator
from .pattern import Pattern
from .solve import LU, Iterative, Method, Separable, Triangular

__all__ = ["LU", "CSRMatrix", "Iterative", "Method", "Pattern", "Separable", "SparseOperator", "Transpose", "Triangular"]
