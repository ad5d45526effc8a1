"""A sparse matrix as a linear forward operator whose subsets reuse one compiled program."""

import functools
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import tensorflow as tf

from .. import checks
from ..forward import ForwardOperator, Linearization, linear
from .csr import CSRMatrix, Pattern
from .product import Entries, product, take, transposed_product


@tf.function(jit_compile=True)
def apply(entries: Entries, values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """``A x`` for vectors; the matrix is an argument, so that all subsets within a bucket of sizes run one program."""
    return product(entries, values, x[:, tf.newaxis])[:, 0]


@tf.function(jit_compile=True)
def apply_transposed(entries: Entries, values: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """``A^T y`` for vectors."""
    return transposed_product(entries, values, y[:, tf.newaxis])[:, 0]


def bucket(size: int) -> int:
    """The power of two that a size is padded to."""
    return 1 << max(size - 1, 0).bit_length()


@final
@dataclass(frozen=True, eq=False)
class SparseOperator(ForwardOperator):
    """``d = A m`` for a sparse matrix; its units are rows.

    Args:
        matrix: [rows, columns]. The data [rows] and the model [columns] have its dtype. Its values count as constants: to
            differentiate with respect to them, use ``matrix.with_values(...).matvec``.
    """

    matrix: CSRMatrix
    _values: tf.Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Padded here and not on first use: that might be inside a tf.function, whose tensors must not be kept.
        extra = bucket(self.matrix.nnz) - self.matrix.nnz
        object.__setattr__(self, "_values", tf.stop_gradient(tf.pad(self.matrix.values, [[0, extra]])))

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.matrix.shape[1]], self.matrix.dtype)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.matrix.shape[0]], self.matrix.dtype)

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return apply(self._entries, self._values, model)[: self.matrix.shape[0]]

    def linearize(self, model: tf.Tensor) -> Linearization:
        return linear(self, model, self._adjoint)

    def subset(self, units: Any) -> "SparseOperator":
        """The operator of some rows, in the order given.

        Args:
            units: Integer indices of the rows; a slice selects a range.

        Raises:
            ValueError: An index that is not a row.
        """
        rows = np.arange(self.matrix.shape[0])[units] if isinstance(units, slice) else np.atleast_1d(np.asarray(units))
        if rows.ndim != 1 or rows.size == 0 or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= self.matrix.shape[0]:
            raise checks.invalid("units", units, f"row numbers from 0 to {self.matrix.shape[0] - 1}")
        return SparseOperator(select_rows(self.matrix, rows))

    def _adjoint(self, cotangent: tf.Tensor) -> tf.Tensor:
        values = tf.math.conj(self._values) if self._values.dtype.is_complex else self._values
        padded = tf.pad(cotangent, [[0, self._entries.shape[0] - self.matrix.shape[0]]])
        return apply_transposed(self._entries, values, padded)

    @functools.cached_property
    def _entries(self) -> Entries:
        """The pattern with rows and entries padded to a bucket: empty rows, and entries at (0, 0) whose values are zero."""
        pattern = self.matrix.pattern
        extra = bucket(pattern.nnz) - pattern.nnz
        with tf.init_scope():
            rows, columns = (tf.constant(np.pad(index, (0, extra))) for index in (pattern.rows, pattern.indices))
        return Entries(rows, columns, (bucket(pattern.shape[0]), pattern.shape[1]))


def select_rows(matrix: CSRMatrix, rows: np.ndarray) -> CSRMatrix:
    """Some rows of a matrix, in the order given; its values stay differentiable.

    Args:
        matrix: The whole.
        rows: [n] integer row numbers; one may appear more than once.
    """
    counts = np.diff(matrix.indptr)[rows]
    indptr = np.concatenate([[0], np.cumsum(counts)])
    places = np.arange(indptr[-1]) + np.repeat(matrix.indptr[rows] - indptr[:-1], counts)
    pattern = Pattern(indptr, matrix.indices[places], (len(rows), matrix.shape[1]))
    return CSRMatrix(pattern, take(matrix.values, places))
