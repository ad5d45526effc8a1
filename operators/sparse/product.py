"""Products with a sparse matrix, and the one home of their derivatives.

A matrix A(v) has a static pattern of entries (i_k, j_k) and values v_k. Three bilinear maps are closed under
differentiation (g is the cotangent of the result; a bar is the complex conjugate, as in TensorFlow's convention, which
is the adjoint in ``<a, b> = Re sum(conj(a) b)``):

    product             Y = A(v) X                      dv = sampled(g, X_bar)    dX = transposed(v_bar, g)
    transposed product  X = A(v)^T Y                    dv = sampled(Y_bar, g)    dY = product(v_bar, g)
    sampled product     v_k = sum_c Y[i_k, c] X[j_k, c] dY = product(g, X_bar)    dX = transposed(g, Y_bar)

Each gradient is written with the other two, and each tangent, by the product rule, with the map itself; so derivatives of
every order and in every mode are exact, and TensorFlow never differentiates the loops inside. Columns are taken in blocks, so
that nothing of size entries x columns is formed beyond `BLOCK_BYTES`.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ..autodiff import differentiable

#: Memory for the intermediate of size entries x columns of one block, in bytes; one column is always taken.
BLOCK_BYTES = 64 * 2**20


class Entries(NamedTuple):
    """The pattern of a matrix as tensors: an argument of compiled functions, never a captured constant.

    Args:
        rows: [nnz] int32 row of each entry. Padding entries may point anywhere if their values are zero.
        columns: [nnz] int32 column of each entry.
        shape: Numbers of rows and columns.
    """

    rows: tf.Tensor
    columns: tf.Tensor
    shape: tuple[int, int]


def product(entries: Entries, values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """A(values) x: [columns, k] to [rows, k], differentiable in `values` [nnz] and `x`, of one dtype."""
    return differentiable(
        lambda v, x: [_scatter(entries.rows, entries.columns, entries.shape[0], v, x)],
        lambda at, g: [sampled_product(entries, g[0], _conj(at[1])), transposed_product(entries, _conj(at[0]), g[0])],
        lambda at, d: [product(entries, d[0], at[1]) + product(entries, at[0], d[1])],
        values, x,
    )[0]  # fmt: skip


def transposed_product(entries: Entries, values: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """A(values)^T y, without conjugation: [rows, k] to [columns, k], differentiable in `values` [nnz] and `y`."""
    return differentiable(
        lambda v, y: [_scatter(entries.columns, entries.rows, entries.shape[1], v, y)],
        lambda at, g: [sampled_product(entries, _conj(at[1]), g[0]), product(entries, _conj(at[0]), g[0])],
        lambda at, d: [transposed_product(entries, d[0], at[1]) + transposed_product(entries, at[0], d[1])],
        values, y,
    )[0]  # fmt: skip


def sampled_product(entries: Entries, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """``y x^T`` at the entries of the pattern, without conjugation: [rows, k] and [columns, k] to [nnz]; differentiable in both."""
    return differentiable(
        lambda y, x: [_sample(entries, y, x)],
        lambda at, g: [product(entries, g[0], _conj(at[1])), transposed_product(entries, g[0], _conj(at[0]))],
        lambda at, d: [sampled_product(entries, d[0], at[1]) + sampled_product(entries, at[0], d[1])],
        y, x,
    )[0]  # fmt: skip


def take(values: tf.Tensor, places: np.ndarray) -> tf.Tensor:
    """``values[places]`` for vectors, with a dense derivative (`tf.gather` has IndexedSlices, which reach the user)."""
    size = values.shape[0]
    return differentiable(
        lambda v: [tf.gather(v, places)],
        lambda _, g: [put(g[0], places, size)],
        lambda _, d: [take(d[0], places)],
        values,
    )[0]


def put(values: tf.Tensor, places: np.ndarray, size: int) -> tf.Tensor:
    """The vector ``out[places] += values`` of a given size: the adjoint of `take`."""
    return differentiable(
        lambda v: [tf.math.unsorted_segment_sum(v, places, size)],
        lambda _, g: [take(g[0], places)],
        lambda _, d: [put(d[0], places, size)],
        values,
    )[0]


def _conj(tensor: tf.Tensor) -> tf.Tensor:
    return tf.math.conj(tensor) if tensor.dtype.is_complex else tensor


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


def _sample(entries: Entries, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """``sum_c y[rows_k, c] x[columns_k, c]``, block of columns by block of columns."""

    def block(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.gather(left, entries.rows) * tf.gather(right, entries.columns), axis=1)

    width = _block_width(entries.rows.shape[0], x.dtype)
    if x.shape[1] is not None and x.shape[1] <= width:
        return block(y, x)
    start = tf.zeros(tf.shape(entries.rows), x.dtype)
    return tf.foldl(lambda total, parts: total + block(*parts), (_split(y, width), _split(x, width)), initializer=start)


def _block_width(count: int | None, dtype: tf.DType) -> int:
    """How many columns fit the memory budget."""
    return max(1, BLOCK_BYTES // (max(count or 1, 1) * dtype.size))


def _split(x: tf.Tensor, width: int) -> tf.Tensor:
    """[n, k] as blocks [blocks, n, width] of columns, the last padded with zeros."""
    columns = x.shape[1] if x.shape[1] is not None else tf.shape(x)[1]
    padded = tf.pad(x, [[0, 0], [0, -columns % width]])
    return tf.transpose(tf.reshape(padded, [x.shape[0], -1, width]), [1, 0, 2])
