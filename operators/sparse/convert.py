"""From other forms of a matrix to a pattern and values, sorted and without duplicates, and back.

Patterns are NumPy and must be known; values stay tensors, so that they are differentiable in what they are made of. No step
multiplies rows by columns or allocates by the number of columns: shapes may exceed what 32 or even 64 bits number.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import tensorflow as tf

from .. import checks
from . import product
from .pattern import Pattern, by_place, two_sizes
from .sizes import smallest_integer

if TYPE_CHECKING:
    from .csr import CSRMatrix


def from_coo(rows: Any, columns: Any, values: Any, shape: tuple[int, int]) -> tuple[Pattern, tf.Tensor]:
    """The pattern and values of entries in any order; those at one place are summed, differentiably.

    Args:
        rows: [entries] integers.
        columns: [entries] integers.
        values: [entries] array or tensor, float or complex; integers become float64.
        shape: Numbers of rows and columns.

    Raises:
        ValueError: Indices that are no integers, or out of range; arrays of different lengths; a shape that is not two whole numbers.
    """
    shape = two_sizes(shape)
    rows, columns = (index(name, given, size) for name, given, size in zip(("rows", "columns"), (rows, columns), shape, strict=True))
    values = _floating_tensor(values)
    count = values.shape.num_elements()
    if rows.size != columns.size or count not in (rows.size, None):
        raise checks.invalid("entries", f"of {rows.size} rows, {columns.size} columns, {count} values", "of one length")
    values = tf.reshape(values, [rows.size])
    order = _sorting(rows, columns, shape)
    sorted_rows, sorted_columns = (rows, columns) if order is None else (rows[order], columns[order])
    new = np.ones(rows.size, dtype=bool)
    new[1:] = (np.diff(sorted_rows) != 0) | (np.diff(sorted_columns) != 0)
    counts = np.bincount(sorted_rows[new], minlength=shape[0])
    pattern = Pattern(np.concatenate([[0], np.cumsum(counts)]), sorted_columns[new], shape)
    return pattern, _arranged(values, order, new)


def from_sparse_tensor(sparse: tf.SparseTensor) -> tuple[Pattern, tf.Tensor]:
    """The pattern and values of a `tf.SparseTensor`, as `from_coo`; differentiable in its values.

    Args:
        sparse: Of rank 2. Its indices and shape must be known: eager, or constants of the function being traced.

    Raises:
        ValueError: Indices that are known only when a tf.function runs; another rank; indices out of range.
    """
    indices, shape = tf.get_static_value(sparse.indices), tf.get_static_value(sparse.dense_shape)
    if indices is None or shape is None:
        advice = "Build the matrix outside of the tf.function and pass values to `with_values`."
        raise checks.invalid("sparse", "with indices that are symbolic", "with indices known when the matrix is built", advice)
    if len(shape) != 2:
        raise checks.invalid("sparse", f"of shape {tuple(shape.tolist())}", "of rank 2")
    return from_coo(indices[:, 0], indices[:, 1], sparse.values, (int(shape[0]), int(shape[1])))


def to_sparse_tensor(matrix: "CSRMatrix") -> tf.SparseTensor:
    """The matrix as a `tf.SparseTensor` with the same values, in the canonical order."""
    places = np.stack([matrix.pattern.rows, matrix.pattern.indices], axis=1).astype(np.int64)
    return tf.SparseTensor(places, matrix.values, matrix.shape)


def from_dense(matrix: Any) -> tuple[Pattern, tf.Tensor]:
    """The pattern and values of the nonzero entries of a dense matrix, differentiable in it; integers become float64.

    Entries that are zero are not in the pattern: the derivative with respect to them is zero, whatever depends on the matrix.

    Args:
        matrix: [rows, columns] array, or a tensor whose entries are known.

    Raises:
        ValueError: An array that is not two-dimensional; a symbolic tensor.
    """
    array = _known("matrix", matrix)
    if array.ndim != 2:
        raise checks.invalid("matrix", f"of shape {array.shape}", "two-dimensional")
    rows, columns = np.nonzero(array)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=array.shape[0]))])
    pattern = Pattern(indptr, columns, array.shape)
    if not tf.is_tensor(matrix):
        return pattern, tf.constant(_floating(array[rows, columns]))
    return pattern, product.take(tf.reshape(_floating_tensor(matrix), [-1]), rows * array.shape[1] + columns)


def from_scipy(matrix: Any, *, dtype: tf.DType | None = None) -> tuple[Pattern, tf.Tensor]:
    """The pattern and values of any SciPy sparse matrix or array; duplicates are summed, explicit zeros stay in the pattern.

    Args:
        matrix: The SciPy matrix; it is not changed.
        dtype: Of the values; by default the matrix's own, or float64 for integers.

    Raises:
        ValueError: A sparse array that is not two-dimensional; a complex one for a real dtype.
    """
    csr = scipy.sparse.csr_array(matrix, copy=True)
    if csr.ndim != 2:
        raise checks.invalid("matrix", f"of shape {csr.shape}", "two-dimensional")
    if csr.dtype.kind == "c" and dtype is not None and not tf.as_dtype(dtype).is_complex:
        raise checks.invalid("matrix", f"of dtype {csr.dtype}", f"real, for values of dtype {tf.as_dtype(dtype).name}", "Pass matrix.real.")
    csr.sum_duplicates()
    return Pattern(csr.indptr, csr.indices, csr.shape), tf.constant(_floating(csr.data), dtype)


def index(name: str, given: Any, size: int) -> np.ndarray:
    """A vector of indices from 0 to size - 1, as int64; named where it is not one.

    Args:
        name: Of the argument, for the error.
        given: Integers of any shape.
        size: Of what they number.

    Raises:
        ValueError: Booleans, floats, indices out of range.
    """
    array = _known(name, given).ravel()
    if array.size and array.dtype.kind not in "iu":
        raise checks.invalid(name, f"of dtype {array.dtype}", "integers")
    size = min(size, 2**63)  # beyond, an unsigned index would become a negative one below
    if array.size and not 0 <= array.min() <= array.max() < size:
        raise checks.invalid(name, f"from {array.min()} to {array.max()}", f"from 0 to {size - 1}")
    return array.astype(np.int64)


def _known(name: str, given: Any) -> np.ndarray:
    known = tf.get_static_value(given) if tf.is_tensor(given) else np.asarray(given)
    if known is None:
        raise checks.invalid(name, "as a symbolic tensor", "known when the matrix is built", "Build the matrix outside of the tf.function.")
    return np.asarray(known)


def _floating(values: np.ndarray) -> np.ndarray:
    return values if values.dtype.kind in "fc" else values.astype(np.float64)


def _floating_tensor(values: Any) -> tf.Tensor:
    tensor = tf.convert_to_tensor(values)
    return tf.cast(tensor, tf.float64) if tensor.dtype.is_integer or tensor.dtype.is_bool else tensor


def _sorting(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray | None:
    """The order that sorts places by row, then by column; None where they are in order, as they often are."""
    step = np.diff(rows)
    if np.all((step > 0) | ((step == 0) & (np.diff(columns) >= 0))):
        return None
    return by_place(rows, columns, shape)


def _arranged(values: tf.Tensor, order: np.ndarray | None, new: np.ndarray) -> tf.Tensor:
    """The values in sorted order, summed where no new place begins; scattered only if two places are equal."""
    integer = smallest_integer(new.size)
    if order is None and new.all():
        return values
    ranks = np.arange(new.size, dtype=integer)
    if order is not None:
        ranks[order] = np.arange(new.size)
    if new.all():
        return product.permute(values, order.astype(integer), ranks)  # type: ignore[union-attr]
    return product.put(values, (np.cumsum(new) - 1).astype(integer)[ranks], int(new.sum()))
