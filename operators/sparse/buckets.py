"""Subsets of a matrix: rows, touched columns, and padding to sizes that reuse one compiled program."""

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from .convert import index
from .entries import Entries
from .layout import on_device
from .memory import kept
from .pattern import Pattern
from .sizes import bucket

if TYPE_CHECKING:
    from .csr import CSRMatrix


def select_rows(matrix: "CSRMatrix", rows: Any) -> "CSRMatrix":
    """Some rows of a matrix, in the order given; its values stay differentiable.

    The gradient with respect to the whole's values is a `tf.IndexedSlices` of the entries of these rows: nothing of the whole's
    size is formed.

    Args:
        matrix: The whole.
        rows: [n] integer row numbers; one may appear more than once.

    Raises:
        ValueError: A number that is not a row's.
    """
    rows = index("rows", rows, matrix.shape[0])
    counts = matrix.pattern.counts[rows]
    indptr = np.concatenate([[0], np.cumsum(counts)])
    places = np.arange(indptr[-1]) + np.repeat(matrix.pattern.indptr[rows] - indptr[:-1], counts)
    pattern = Pattern(indptr, matrix.pattern.indices[places], (rows.size, matrix.shape[1]))
    return type(matrix)(pattern, tf.gather(matrix.values, on_device(places)))


def compressed(matrix: "CSRMatrix") -> tuple[np.ndarray, "CSRMatrix"]:
    """A matrix without its empty columns, and the numbers of those it keeps: ``A x = small @ tf.gather(x, columns)``.

    With the gather, the gradient with respect to x is a `tf.IndexedSlices` of the touched columns only.

    Args:
        matrix: [rows, columns]; columns may be many more than would fit in memory.

    Returns:
        [touched] increasing column numbers, and the matrix [rows, touched] with the same values.
    """
    columns, pattern = _compressed(matrix.pattern)
    return columns, type(matrix)(pattern, matrix.values)


@kept
def _compressed(pattern: Pattern) -> tuple[np.ndarray, Pattern]:
    columns, numbers = np.unique(pattern.indices, return_inverse=True)
    return columns, Pattern(pattern.indptr, numbers, (pattern.shape[0], columns.size))


def padded(matrix: "CSRMatrix", rows: int, entries: int = 0) -> tuple[Entries, tf.Tensor]:
    """The entries and values of a matrix, its entries padded with zeros at (0, 0) to the bucket of `entries` if that is more, its rows to `rows`."""
    extra = bucket(max(entries, matrix.nnz)) - matrix.nnz
    of_rows, of_columns = (on_device(np.pad(part, (0, extra))) for part in (matrix.pattern.rows, matrix.pattern.indices))
    return Entries(of_rows, of_columns, (rows, matrix.shape[1])), tf.pad(matrix.values, [[0, extra]])
