"""A sparse matrix as a linear forward operator, and its subsets, which reuse one compiled program."""

from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import tensorflow as tf

from .. import checks
from ..forward import ForwardOperator, Linearization, linear
from .buckets import padded, select_rows
from .csr import CSRMatrix
from .entries import Entries
from .product import conj, product, transposed_product
from .sizes import bucket


@tf.function(jit_compile=True)
def apply(entries: Entries, values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """``A x`` for vectors; the matrix is an argument, so that all subsets within a bucket of sizes run one program."""
    return product(entries, values, x[:, tf.newaxis])[:, 0]


@tf.function(jit_compile=True)
def apply_transposed(entries: Entries, values: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """``A^T y`` for vectors."""
    return transposed_product(entries, values, y[:, tf.newaxis])[:, 0]


@final
@dataclass(frozen=True, eq=False)
class SparseOperator(ForwardOperator):
    """``d = A m`` for a sparse matrix; its units are rows.

    Args:
        matrix: [rows, columns]. The data [rows] and the model [columns] have its dtype. Its values count as constants: to
            differentiate with respect to them, use ``matrix.with_values(...) @ model``.
    """

    matrix: CSRMatrix

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.matrix.shape[1]], self.matrix.dtype)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.matrix.shape[0]], self.matrix.dtype)

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return self.matrix.matvec(model)

    def linearize(self, model: tf.Tensor) -> Linearization:
        return linear(self, model, self.matrix.rmatvec)

    def subset(self, units: Any) -> "SparseRows":
        """The operator of some rows, in the order given.

        Args:
            units: Row numbers, a slice, or a mask.

        Raises:
            ValueError: An index that is not a row.
        """
        return SparseRows(self.matrix, checks.units(units, self.matrix.shape[0]))


@final
@dataclass(frozen=True, eq=False)
class SparseRows(ForwardOperator):
    """``d = A[rows] m``: slower for each entry than the whole, but a new choice of rows compiles nothing (see `entries`).

    Args:
        whole: A.
        rows: [n] row numbers.
    """

    whole: CSRMatrix
    rows: np.ndarray
    _padded: tuple[Entries, tf.Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Padded here and not on first use: that might be inside a tf.function, whose tensors must not be kept.
        entries, values = padded(select_rows(self.whole, self.rows), bucket(self.rows.size))
        object.__setattr__(self, "_padded", (entries, tf.stop_gradient(values)))

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.whole.shape[1]], self.whole.dtype)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.rows.size], self.whole.dtype)

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return apply(*self._padded, model)[: self.rows.size]

    def linearize(self, model: tf.Tensor) -> Linearization:
        return linear(self, model, self._adjoint)

    def subset(self, units: Any) -> "SparseRows":
        """Some of these rows, in the order given; see `SparseOperator.subset`."""
        return SparseRows(self.whole, self.rows[checks.units(units, self.rows.size)])

    def _adjoint(self, cotangent: tf.Tensor) -> tf.Tensor:
        entries, values = self._padded
        return apply_transposed(entries, conj(values), tf.pad(cotangent, [[0, entries.shape[0] - self.rows.size]]))
