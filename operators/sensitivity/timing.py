"""What a call costs on this machine: measured, because no count of operations says."""

import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

#: Seconds that are spent on timing a call again, once it is warm.
_WORTH = 0.1
#: How many times at most.
_MOST = 5


class Cost(NamedTuple):
    """Of a call that has been made before: the first one compiles.

    Args:
        seconds: The shortest of a few.
        memory: Bytes of TensorFlow's that it took at a time, beyond what was there before it; 0 where its allocator does not count them.
    """

    seconds: float
    memory: float


def measured(call: Callable[[], object]) -> Cost:
    """The cost of a call, which is made a few times."""
    call()
    memory, times = peak(call), list[float]()
    while len(times) < _MOST and sum(times) < _WORTH:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return Cost(min(times), memory)


def peak(call: Callable[[], object]) -> float:
    """Bytes of TensorFlow's that a call takes at a time, beyond what is there before it."""
    device = "GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0"
    with contextlib.suppress(ValueError, tf.errors.OpError):  # allocators that do not count
        tf.config.experimental.reset_memory_stats(device)
        before = tf.config.experimental.get_memory_info(device)["current"]
        call()
        return float(tf.config.experimental.get_memory_info(device)["peak"] - before)
    call()
    return 0.0
