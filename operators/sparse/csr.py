"""The sparse matrix of this project: a static pattern in compressed sparse row form, and values that TensorFlow differentiates.

Row i holds the columns ``indices[indptr[i] : indptr[i + 1]]``, strictly increasing, and the values at the same places. The
pattern is NumPy and never changes; the values are one tensor, so that ``matrix.with_values(f(model)).matvec(x)`` is
differentiable in the model and in x. The derivatives themselves live in `product`.
"""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import scipy.sparse
import tensorflow as tf

from .. import checks
from . import product
from .pattern import Pattern

DTYPES = (tf.float32, tf.float64, tf.complex64, tf.complex128)


@final
@dataclass(frozen=True, eq=False)
class CSRMatrix:
    """A sparse matrix with a static pattern and differentiable values.

    Args:
        pattern: Where the entries are.
        values: [nnz] tensor, float or complex.

    Raises:
        ValueError: Values of another length or kind.
    """

    pattern: Pattern
    values: tf.Tensor

    def __post_init__(self) -> None:
        values = tf.convert_to_tensor(self.values)
        if values.dtype not in DTYPES:
            raise checks.invalid("values", f"of dtype {values.dtype.name}", "of dtype " + ", ".join(dtype.name for dtype in DTYPES))
        if not values.shape.is_compatible_with([self.pattern.nnz]):
            raise checks.invalid("values", f"of shape {tuple(values.shape)}", f"of shape {(self.pattern.nnz,)}, one for each entry")
        object.__setattr__(self, "values", tf.ensure_shape(values, [self.pattern.nnz]))

    @classmethod
    def from_arrays(cls, indptr: np.ndarray, indices: np.ndarray, values: Any, shape: tuple[int, int]) -> "CSRMatrix":
        """A matrix from the three arrays of its compressed sparse row form (see the module's docstring)."""
        return cls(Pattern(indptr, indices, shape), values)

    @classmethod
    def from_scipy(cls, matrix: Any, *, dtype: tf.DType | None = None) -> "CSRMatrix":
        """A matrix from any SciPy sparse matrix or array; duplicates are summed, explicit zeros stay in the pattern.

        Args:
            matrix: The SciPy matrix; it is not changed.
            dtype: Of the values; by default the matrix's own, or float64 for integers.
        """
        csr = scipy.sparse.csr_array(matrix, copy=True)
        csr.sum_duplicates()
        values = csr.data if csr.data.dtype.kind in "fc" else csr.data.astype(np.float64)
        return cls(Pattern(csr.indptr, csr.indices, csr.shape), tf.constant(values, dtype))

    @classmethod
    def from_coo(cls, rows: Any, columns: Any, values: Any, shape: tuple[int, int]) -> "CSRMatrix":
        """A matrix from entries in any order; those at one place are summed, differentiably.

        Args:
            rows: [entries] integers.
            columns: [entries] integers.
            values: [entries] array or tensor.
            shape: Numbers of rows and columns.
        """
        rows, columns = (np.asarray(index, dtype=np.int64).ravel() for index in (rows, columns))
        values = tf.convert_to_tensor(values)
        if not rows.size == columns.size == values.shape.num_elements():
            raise checks.invalid("entries", f"of {rows.size} rows, {columns.size} columns, {values.shape.num_elements()} values", "of one length")
        for name, index, size in (("rows", rows, shape[0]), ("columns", columns, shape[1])):
            if index.size and not 0 <= index.min() <= index.max() < size:
                raise checks.invalid(name, f"from {index.min()} to {index.max()}", f"from 0 to {size - 1}")
        places, slots = np.unique(rows * shape[1] + columns, return_inverse=True)
        indptr = np.searchsorted(places, np.arange(shape[0] + 1) * shape[1])
        pattern = Pattern(indptr, places % max(shape[1], 1), shape)
        return cls(pattern, product.put(tf.reshape(values, [-1]), slots.astype(np.int32), places.size))

    @classmethod
    def from_dense(cls, matrix: Any) -> "CSRMatrix":
        """A matrix from the nonzero entries of a dense NumPy array."""
        return cls.from_scipy(scipy.sparse.csr_array(np.asarray(matrix)))

    @property
    def indptr(self) -> np.ndarray:
        """[rows + 1] start of each row."""
        return self.pattern.indptr

    @property
    def indices(self) -> np.ndarray:
        """[nnz] columns."""
        return self.pattern.indices

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self.pattern.shape

    @property
    def nnz(self) -> int:
        """Number of entries, explicit zeros included."""
        return self.pattern.nnz

    @property
    def dtype(self) -> tf.DType:
        """Of the values."""
        return self.values.dtype

    def to_scipy(self) -> scipy.sparse.csr_array:
        """A SciPy csr_array with a copy of the current values."""
        return scipy.sparse.csr_array((np.array(self.values), self.indices.copy(), self.indptr.copy()), shape=self.shape)

    def with_values(self, values: Any) -> "CSRMatrix":
        """The same pattern with other values [nnz]; costs nothing."""
        return CSRMatrix(self.pattern, values)

    @property
    def T(self) -> "CSRMatrix":
        """The transpose (not conjugated), whose values are these through a permutation."""
        return CSRMatrix(self.pattern.transpose, product.take(self.values, self.pattern.permutation))

    def transpose(self) -> "CSRMatrix":
        """The transpose, as `T`."""
        return self.T

    def matvec(self, x: Any) -> tf.Tensor:
        """``A x`` for x [columns]."""
        return self.matmat(self._operand("x", x, 1, 1)[:, tf.newaxis])[:, 0]

    def rmatvec(self, y: Any) -> tf.Tensor:
        """The adjoint product, conj(A)^T y, for y [rows]."""
        return self.rmatmat(self._operand("y", y, 0, 1)[:, tf.newaxis])[:, 0]

    def matmat(self, x: Any) -> tf.Tensor:
        """``A X`` for X [columns, k]."""
        return product.product(self.pattern, self.values, self._operand("x", x, 1, 2))

    def rmatmat(self, y: Any) -> tf.Tensor:
        """The adjoint product, conj(A)^T Y, for Y [rows, k]."""
        return product.transposed_product(self.pattern, product.conj(self.values), self._operand("y", y, 0, 2))

    def __matmul__(self, x: Any) -> tf.Tensor:
        """``A x`` for x [columns] or [columns, k]."""
        return self.matvec(x) if len(np.shape(x)) == 1 else self.matmat(x)

    def sampled_product(self, y: Any, x: Any) -> tf.Tensor:
        """``y x^T`` (not conjugated) at this matrix's entries, [nnz]: the derivative of ``y^T A x`` with respect to the values.

        Args:
            y: [rows] or [rows, k].
            x: [columns] or [columns, k]; products are summed over k.
        """
        rank = len(np.shape(x))
        y, x = self._operand("y", y, 0, rank), self._operand("x", x, 1, rank)
        if rank == 1:
            y, x = y[:, tf.newaxis], x[:, tf.newaxis]
        return product.sampled_product(self.pattern, y, x)

    def diagonal(self) -> tf.Tensor:
        """[min(rows, columns)] entries of the main diagonal, zero where the pattern has none."""
        places = np.flatnonzero(self.pattern.rows == self.indices)
        return product.put(product.take(self.values, places), self.indices[places], min(self.shape))

    def _operand(self, name: str, operand: Any, axis: int, rank: int) -> tf.Tensor:
        tensor = operand if tf.is_tensor(operand) else tf.convert_to_tensor(operand, self.dtype)
        if tensor.dtype != self.dtype:
            raise checks.invalid(name, f"of dtype {tensor.dtype.name}", f"of the matrix's dtype {self.dtype.name}", "Cast it with tf.cast.")
        if not tensor.shape.is_compatible_with([self.shape[axis], *[None] * (rank - 1)]):
            expected = (self.shape[axis],) if rank == 1 else (self.shape[axis], "any")
            raise checks.invalid(name, f"of shape {tuple(tensor.shape)}", f"of shape {expected}")
        return tensor
