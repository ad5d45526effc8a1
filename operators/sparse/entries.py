"""Entries in any order, padded to any number: the structure whose compiled program serves every matrix of its size.

Slower than a layout made for one pattern (`layout`), because sums are scattered; it is for the subsets of a matrix, which must
not compile anew (`buckets`).
"""

from typing import NamedTuple

import tensorflow as tf

#: Memory for the intermediate of size entries x columns of one block, in bytes; one column is always taken.
BLOCK_BYTES = 64 * 2**20


class Entries(NamedTuple):
    """The places of a matrix's entries as tensors: an argument of compiled functions, never a captured constant.

    Args:
        rows: [nnz] integer row of each entry. Padding entries may point anywhere if their values are zero.
        columns: [nnz] integer column of each entry.
        shape: Numbers of rows and columns.
    """

    rows: tf.Tensor
    columns: tf.Tensor
    shape: tuple[int, int]

    def multiply(self, values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """A(values) x for [columns, k]."""
        return _scatter(self.rows, self.columns, self.shape[0], values, x)

    def multiply_transposed(self, values: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """A(values)^T y for [rows, k]."""
        return _scatter(self.columns, self.rows, self.shape[1], values, y)

    def sample(self, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """``y x^T`` at the entries, block of columns by block of columns."""

        def block(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(tf.gather(left, self.rows) * tf.gather(right, self.columns), axis=1)

        width = _block_width(self.rows.shape[0], x.dtype)
        if x.shape[1] is not None and x.shape[1] <= width:
            return block(y, x)
        start = tf.zeros(tf.shape(self.rows), x.dtype)
        return tf.foldl(lambda total, parts: total + block(*parts), (_split(y, width), _split(x, width)), initializer=start)


def _scatter(targets: tf.Tensor, sources: tf.Tensor, size: int, values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """``out[targets_k] += values_k x[sources_k]``, block of columns by block of columns."""

    def block(part: tf.Tensor) -> tf.Tensor:
        return tf.math.unsorted_segment_sum(values[:, tf.newaxis] * tf.gather(part, sources), targets, size)

    width = _block_width(values.shape[0], values.dtype)
    columns = x.shape[1]
    if columns is not None and columns <= width:
        return block(x)
    results = tf.map_fn(block, _split(x, width), fn_output_signature=tf.TensorSpec([size, width], x.dtype))
    return tf.reshape(tf.transpose(results, [1, 0, 2]), [size, -1])[:, : columns if columns is not None else tf.shape(x)[1]]


def _block_width(count: int | None, dtype: tf.DType) -> int:
    """How many columns fit the memory budget."""
    return max(1, BLOCK_BYTES // (max(count or 1, 1) * dtype.size))


def _split(x: tf.Tensor, width: int) -> tf.Tensor:
    """[n, k] as blocks [blocks, n, width] of columns, the last padded with zeros."""
    columns = x.shape[1] if x.shape[1] is not None else tf.shape(x)[1]
    padded = tf.pad(x, [[0, 0], [0, -columns % width]])
    return tf.transpose(tf.reshape(padded, [x.shape[0], -1, width]), [1, 0, 2])
