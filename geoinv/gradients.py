"""Gradients as batches give them: of all of a variable, of some of its rows, or of a window; and whether they fit it."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from geoinv.operators import checks

Gradient = Any  # a tensor, tf.IndexedSlices or a Window


class Window(NamedTuple):
    """The gradient of a block of a variable, zero elsewhere.

    Args:
        values: Of the block, as many axes as the variable.
        start: Index of its first entry along each axis.
    """

    values: Any
    start: Any


class NotFiniteError(ValueError):
    """A sum, a gradient or a value is not finite: a step may have been too long."""


def fitting(name: str, gradient: Gradient, shape: tuple[int, ...], dtype: tf.DType) -> Gradient:
    """A gradient as tensors.

    Args:
        name: In messages.
        gradient: A tensor, tf.IndexedSlices or a `Window`.
        shape, dtype: Of the variable; a scalar one has windows and slices of one axis of length 1.

    Raises:
        ValueError: None, another shape or dtype, or what is not inside the variable, as far as that is known before a graph runs.
    """
    if gradient is None:
        raise checks.invalid(name, None, "a tensor", "Does the loss depend on this variable?")
    part = isinstance(gradient, tf.IndexedSlices | Window)
    values, around = tf.convert_to_tensor(gradient.values if part else gradient), shape or (1,)
    if isinstance(gradient, Window):
        start = tf.get_static_value(gradient.start) if tf.is_tensor(gradient.start) else np.asarray(gradient.start)
        _check_window(name, values.shape, start, around)
        gradient = Window(values, tf.cast(gradient.start if start is None else start, tf.int64))
    elif isinstance(gradient, tf.IndexedSlices):
        _check_slices(name, values.shape, gradient.indices, around)
        gradient = tf.IndexedSlices(values, tf.convert_to_tensor(gradient.indices))
    else:
        gradient = values
        if tuple(values.shape) != shape:
            raise checks.invalid(name, f"of shape {tuple(values.shape)}", f"of {shape}")
    if values.dtype != dtype:
        raise checks.invalid(name, f"of type {values.dtype.name}", dtype.name)
    return gradient


def finite(values: tf.Tensor) -> tf.Tensor:
    """Whether all of them are, a scalar."""
    return tf.reduce_all(tf.math.is_finite(values))


def _check_slices(name: str, block: Any, indices: Any, shape: tuple[int, ...]) -> None:
    if tuple(block[1:]) != shape[1:]:
        raise checks.invalid(name, f"slices of shape {tuple(block[1:])}", f"of {shape[1:]}")
    known = tf.get_static_value(tf.convert_to_tensor(indices))
    if known is not None and (np.shape(known) != tuple(block[:1]) or np.any((known < 0) | (known >= shape[0]))):
        raise checks.invalid(name, f"slices at {np.asarray(known).tolist()}", f"one for each of them, from 0 to {shape[0] - 1}")


def _check_window(name: str, block: Any, known: np.ndarray | None, shape: tuple[int, ...]) -> None:
    if len(block) != len(shape) or None in tuple(block):
        raise checks.invalid(name, f"a window of shape {tuple(block)}", f"of {len(shape)} axes of known length")
    if known is not None and (
        known.dtype.kind not in "iu" or np.shape(known) != (len(shape),) or np.any(known < 0) or np.any(np.asarray(known) + list(block) > shape)
    ):
        raise checks.invalid(name, f"a window of {tuple(block)} from {np.asarray(known).tolist()} on", f"inside of {shape}")
