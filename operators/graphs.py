"""Functions as TensorFlow graphs: compiled by XLA, or traced once to be called from others; and what fails in one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf


def compiled(body: Callable[..., Any]) -> Any:
    """A function compiled by XLA, once for each structure, shape and dtype of its arguments."""
    return _quiet(tf.function(body, jit_compile=True, autograph=False))


def traced(body: Callable[..., Any]) -> Any:
    """A function traced once for all calls from another graph that repeats it."""
    return _quiet(tf.function(body, autograph=False))


def guarded(x: tf.Tensor, right: tf.Tensor, message: str, *details: tf.Tensor) -> tf.Tensor:
    """x while tracing, with an error unless every column is `right`; XLA drops the error, so there the wrong columns are NaN."""
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(right), [message, *details])]):
        nan = tf.cast(tf.constant(np.nan, x.dtype.real_dtype), x.dtype)
        return tf.where(right, x, nan)


def _quiet(function: Any) -> Any:
    # TensorFlow counts traces by line of code: several objects in use, each with graphs of its own, would look like retracing.
    function._omit_frequent_tracing_warning = True
    return function
