"""Sizes rounded up to a few, so that compiled programs are reused; columns taken block by block; integers that are wide enough."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

#: Columns that a sum over columns takes at once: XLA would put the terms of a longer sum in memory, entries x columns of them.
BLOCK = 32


def bucket(size: int) -> int:
    """The size that `size` is padded to: eight buckets to every doubling, so that at most an eighth is wasted."""
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step


def pad_columns(x: tf.Tensor) -> tf.Tensor:
    """[n, k] with zero columns up to the bucket of k, whether k is known while tracing or not."""
    if x.shape[1] is not None:
        extra = bucket(x.shape[1]) - x.shape[1]
        return tf.pad(x, [[0, 0], [0, extra]]) if extra else x
    size = tf.shape(x)[1]
    length = tf.reduce_sum(tf.cast(size >= 2 ** tf.range(31), tf.int32))  # the number of bits
    step = tf.bitwise.left_shift(1, tf.maximum(length - 4, 0))
    return tf.pad(x, [[0, 0], [0, -size % step]])


def by_blocks(term: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], y: tf.Tensor, x: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """``start`` and the sum of ``term(y_block, x_block)`` over blocks of `BLOCK` columns of y and x [n, k], for any k."""
    y, x = (tf.reshape(tf.pad(part, [[0, 0], [0, -tf.shape(part)[1] % BLOCK]]), [part.shape[0], -1, BLOCK]) for part in (y, x))

    def step(k: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return k + 1, total + term(tf.gather(y, k, axis=1), tf.gather(x, k, axis=1))

    blocks = tf.shape(y)[1]
    return tf.while_loop(lambda k, _: k < blocks, step, (tf.constant(0), start))[1]


def smallest_integer(size: int) -> type[np.signedinteger]:
    """int32 for numbers up to `size` that fit, else int64."""
    return np.int32 if size <= np.iinfo(np.int32).max else np.int64
