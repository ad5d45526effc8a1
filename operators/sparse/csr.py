"""The sparse matrix of this project: a static pattern in compressed sparse row form, and values that TensorFlow differentiates.

Row i holds the columns ``indices[indptr[i] : indptr[i + 1]]``, strictly increasing, and the values at the same places. The
pattern is NumPy and never changes; the values are one tensor, so that ``matrix.with_values(f(model)).matvec(x)`` is
differentiable in the model and in x. The derivatives themselves live in `product`.
"""

import functools
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import scipy.sparse
import tensorflow as tf

from .. import checks
from . import product

DTYPES = (tf.float32, tf.float64, tf.complex64, tf.complex128)


@final
@dataclass(frozen=True, eq=False)
class Pattern:
    """Where a matrix has entries. Matrices that differ in their values only share one.

    Args:
        indptr: [rows + 1] int32, start of each row in `indices`.
        indices: [nnz] int32 columns, strictly increasing within each row.
        shape: Numbers of rows and columns.

    Raises:
        ValueError: Arrays that do not describe such a matrix.
    """

    indptr: np.ndarray
    indices: np.ndarray
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        rows, columns = (int(n) for n in self.shape)
        object.__setattr__(self, "shape", (rows, columns))
        for name in ("indptr", "indices"):
            object.__setattr__(self, name, _as_int32(name, getattr(self, name)))
        indptr, indices = self.indptr, self.indices
        if rows < 0 or columns < 0:
            raise checks.invalid("shape", self.shape, "two numbers, 0 or more")
        if indptr.size != rows + 1:
            raise checks.invalid("indptr", f"of length {indptr.size}", f"of length {rows + 1}, the rows and one more")
        if indptr[0] != 0 or indptr[-1] != indices.size or np.any(np.diff(indptr) < 0):
            raise checks.invalid("indptr", f"from {indptr[0]} to {indptr[-1]}", f"non-decreasing from 0 to {indices.size}, the number of indices")
        bad = np.flatnonzero((indices < 0) | (indices >= columns))
        if bad.size:
            raise checks.invalid("indices", f"{indices[bad[0]]} at position {bad[0]}", f"from 0 to {columns - 1}")
        unsorted = np.flatnonzero((np.diff(indices) <= 0) & (np.diff(self.rows) == 0))
        if unsorted.size:
            given = f"{indices[unsorted[0]]}, {indices[unsorted[0] + 1]} in row {self.rows[unsorted[0]]}"
            raise checks.invalid("indices", given, "strictly increasing in each row", "CSRMatrix.from_coo sorts and sums.")

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return int(self.indices.size)

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """[nnz] int32 row of each entry."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int32), np.diff(self.indptr))

    @functools.cached_property
    def entries(self) -> product.Entries:
        """The pattern as tensors; eager ones always, so that a tf.function receives them as inputs and not as constants."""
        with tf.init_scope():
            return product.Entries(tf.constant(self.rows), tf.constant(self.indices), self.shape)

    @functools.cached_property
    def permutation(self) -> np.ndarray:
        """[nnz] int32: entry k of the transpose is entry ``permutation[k]`` here."""
        return np.argsort(self.indices, kind="stable").astype(np.int32)

    @functools.cached_property
    def transpose(self) -> "Pattern":
        """The pattern of the transpose (the compressed sparse column form of this one)."""
        indptr = np.concatenate([[0], np.cumsum(np.bincount(self.indices, minlength=self.shape[1]))])
        return Pattern(indptr, self.rows[self.permutation], self.shape[::-1])


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
        """[rows + 1] int32, start of each row."""
        return self.pattern.indptr

    @property
    def indices(self) -> np.ndarray:
        """[nnz] int32 columns."""
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
        return product.product(self.pattern.entries, self.values, self._operand("x", x, 1, 2))

    def rmatmat(self, y: Any) -> tf.Tensor:
        """The adjoint product, conj(A)^T Y, for Y [rows, k]."""
        values = tf.math.conj(self.values) if self.dtype.is_complex else self.values
        return product.transposed_product(self.pattern.entries, values, self._operand("y", y, 0, 2))

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
        return product.sampled_product(self.pattern.entries, y, x)

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


def _as_int32(name: str, index: Any) -> np.ndarray:
    array = np.asarray(index)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise checks.invalid(name, f"of shape {array.shape} and dtype {array.dtype}", "one-dimensional integers")
    if array.size and array.max() > np.iinfo(np.int32).max:
        raise checks.invalid(name, f"up to {array.max()}", "below 2**31", "Split the matrix into blocks of rows.")
    return array.astype(np.int32)
