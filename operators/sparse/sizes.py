"""Sizes rounded up to a few, so that compiled programs are reused."""

import tensorflow as tf


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
