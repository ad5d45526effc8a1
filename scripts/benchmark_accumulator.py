"""The accumulator's case of benchmark.py: gradients of many batches of a large model, and of windows of a larger one."""

import time
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from benchmark_cases import peak_memory, timed

from geoinv.accumulator import GradientAccumulator
from geoinv.gradients import Window

Figures = Iterator[tuple[str, str, float, str]]
MICRO_BATCHES = 8


def accumulate_50m(scale: float, repeats: int) -> Figures:
    """The peer's loss: eight gradients added where they are computed, and applied."""
    size = max(1000, round(50_000_000 * scale))
    model = tf.Variable(tf.zeros([size]))
    before = peak_memory()
    made, optimizer = GradientAccumulator([model]), keras.optimizers.SGD(1e-3)

    def loss(k: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(tf.sin(model) * tf.cast(k, tf.float32))
        return tape.gradient(value, [model]), k

    add, numbers, seconds = made.fused(loss), [tf.constant(k) for k in range(MICRO_BATCHES)], []
    for _ in range(4):
        began = time.perf_counter()
        for k in numbers:
            add(k)
        made.apply(optimizer)
        model[0].numpy()
        seconds.append(time.perf_counter() - began)
    yield "geoinv", "step", min(seconds[1:]), "s"
    yield "geoinv", "extra-memory", (peak_memory() - before) / (4 * size / 1e6 / 1e3), "model sizes"


def accumulate_windows(scale: float, repeats: int) -> Figures:
    """Gradients of 64 x 64 x 64 cells of 512 x 512 x 512, and of 32 x 32 x 32, beside dense ones."""
    side = max(96, round(512 * scale))
    made = GradientAccumulator([tf.Variable(tf.zeros([side] * 3))])
    random = np.random.default_rng(0)
    dense = tf.constant(random.normal(size=(side,) * 3), tf.float32)
    blocks = {width: tf.constant(random.normal(size=(width,) * 3), tf.float32) for width in (32, 64)}
    calls = {"add-dense": lambda: made.add([dense])}
    calls |= {f"add-window-{width}": lambda block=block: made.add([Window(block, (11, 13, 17))]) for width, block in blocks.items()}
    for call in calls.values():
        call()
    seconds = timed(calls, repeats)
    for metric, value in seconds.items():
        yield "geoinv", metric, value, "s"
    yield "geoinv", "window-gain", seconds["add-dense"] / seconds["add-window-64"], "times faster than dense"
