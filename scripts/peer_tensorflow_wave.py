"""Stock TensorFlow on the case `wave-memory` of benchmark.py: GradientTape through tf.while_loop, compiled by XLA.

It takes the 500 steps of `wave-400`, of which the peers' own script takes 100. Nothing absorbs here: this is the least that a
user writes. The peak of the memory counts from after the import of TensorFlow on.
"""

import json
import os
import resource
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

#: As many cells around the model as this project's layer has.
SIDE, WIDTH, SAMPLES, SHOTS = 400, 5, 500, 4
#: (v dt / h)^2 of 1500 m/s, 1 ms and 5 m.
COURANT = 0.09
WEIGHTS = (-1 / 12, 4 / 3, -5 / 2, 4 / 3, -1 / 12)


def main() -> None:
    stiffness = tf.Variable(tf.fill([SIDE + 2 * WIDTH] * 2, COURANT))
    wavelet = tf.constant(np.random.default_rng(0).standard_normal(SAMPLES), tf.float32)
    before, seconds = _peak(), []
    for _ in range(3):
        began = time.perf_counter()
        gradient(stiffness, wavelet).numpy()
        seconds.append(time.perf_counter() - began)
    _say("gradient", SIDE**2 * SAMPLES * SHOTS / min(seconds) / 1e6, "Mpt/s")
    _say("gradient-memory", _peak() - before, "GB")


@tf.function(jit_compile=True)
def gradient(stiffness: tf.Variable, wavelet: tf.Tensor) -> tf.Tensor:
    """Of the sum of squares of what a row of receivers records."""
    size, row = SIDE + 2 * WIDTH, WIDTH + 2
    columns = np.linspace(WIDTH + 10, WIDTH + SIDE - 10, SHOTS).astype(int)
    sources = tf.constant(np.stack([np.arange(SHOTS), np.full(SHOTS, row), columns], axis=1), tf.int32)

    def laplacian(field: tf.Tensor) -> tf.Tensor:
        wide = tf.pad(field, [[0, 0], [2, 2], [2, 2]])
        down = (weight * wide[:, shift : shift + size, 2:-2] for shift, weight in enumerate(WEIGHTS))
        along = (weight * wide[:, 2:-2, shift : shift + size] for shift, weight in enumerate(WEIGHTS))
        return tf.add_n([*down, *along])

    def step(count: tf.Tensor, older: tf.Tensor, old: tf.Tensor, energy: tf.Tensor) -> tuple[tf.Tensor, ...]:
        new = 2.0 * old - older + stiffness * laplacian(old)
        new = tf.tensor_scatter_nd_add(new, sources, tf.fill([SHOTS], wavelet[count]))
        return count + 1, old, new, energy + tf.reduce_sum(new[:, row, WIDTH:-WIDTH] ** 2)

    with tf.GradientTape() as tape:
        rest = tf.zeros([SHOTS, size, size])
        start = (tf.constant(0), rest, rest, tf.constant(0.0))
        energy = tf.while_loop(lambda count, *_: count < SAMPLES, step, start, maximum_iterations=SAMPLES)[-1]
    return tape.gradient(energy, stiffness)


def _peak() -> float:
    """Of the resident memory, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _say(metric: str, value: float, unit: str) -> None:
    print(json.dumps({"case": "wave-memory", "system": "tensorflow-xla", "metric": metric, "value": round(value, 4), "unit": unit}), flush=True)


if __name__ == "__main__":
    main()
