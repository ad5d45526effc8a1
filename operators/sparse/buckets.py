"""Subsets of a matrix that reuse one compiled program: sizes are padded to buckets and passed as arguments."""

import numpy as np
import tensorflow as tf

from .csr import CSRMatrix
from .entries import Entries
from .pattern import Pattern
from .product import take


def bucket(size: int) -> int:
    """The size that `size` is padded to: eight buckets to every doubling, so that at most an eighth is wasted."""
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step


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


def padded(matrix: CSRMatrix, rows: int, entries: int = 0) -> tuple[Entries, tf.Tensor]:
    """The entries and values of a matrix, its entries padded with zeros at (0, 0) to the bucket of `entries` if that is more, its rows to `rows`."""
    extra = bucket(max(entries, matrix.nnz)) - matrix.nnz
    with tf.init_scope():
        of_rows, of_columns = (tf.constant(np.pad(part, (0, extra))) for part in (matrix.pattern.rows, matrix.indices))
    return Entries(of_rows, of_columns, (rows, matrix.shape[1])), tf.pad(matrix.values, [[0, extra]])
