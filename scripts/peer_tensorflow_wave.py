"""Stock TensorFlow on the cases `wave-memory` and `wave-tangent` of benchmark.py.

The gradient is a GradientTape through tf.while_loop, compiled by XLA. A ForwardAccumulator does not go through a loop in a function
(TensorFlow 2.21 raises), nor through one that XLA has compiled, nor through compiled steps; what runs are steps that are functions called from a
Python loop, and a tf.while_loop within one function, which keeps so much that only 50 steps of it are taken here.

The 500 steps are those of `wave-400`, of which the peers' own script takes 100. Nothing absorbs here: this is the least that a
user writes. The peak of the memory counts from after the import of TensorFlow on.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

#: As many cells around the model as this project's layer has.
SIDE, WIDTH, SAMPLES, SHOTS = 400, 5, 500, 4
#: (v dt / h)^2 of 1500 m/s, 1 ms and 5 m.
COURANT = 0.09
WEIGHTS = (-1 / 12, 4 / 3, -5 / 2, 4 / 3, -1 / 12)
SIZE, ROW = SIDE + 2 * WIDTH, WIDTH + 2
#: Of the loop whose tangent keeps a few GB already.
FEW = 50


def memory() -> None:
    """The case `wave-memory`."""
    stiffness = tf.Variable(tf.fill([SIZE, SIZE], COURANT))
    _measure("wave-memory", "gradient", lambda: gradient(stiffness, wavelet()), SAMPLES)


def tangent() -> None:
    """The case `wave-tangent`: the one that takes little memory first, for peaks only rise."""
    _measure("wave-tangent", "tangent", lambda: by_steps(wavelet()), SAMPLES)
    _measure("wave-tangent", "tangent-loop", lambda: by_loop(wavelet()[:FEW]), FEW)


def wavelet() -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).standard_normal(SAMPLES), tf.float32)


def laplacian(field: tf.Tensor) -> tf.Tensor:
    wide = tf.pad(field, [[0, 0], [2, 2], [2, 2]])
    down = (weight * wide[:, shift : shift + SIZE, 2:-2] for shift, weight in enumerate(WEIGHTS))
    along = (weight * wide[:, 2:-2, shift : shift + SIZE] for shift, weight in enumerate(WEIGHTS))
    return tf.add_n([*down, *along])


def step(stiffness: tf.Tensor, older: tf.Tensor, old: tf.Tensor, force: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The next two fields and what a row of receivers records."""
    columns = np.linspace(WIDTH + 10, WIDTH + SIDE - 10, SHOTS).astype(int)
    sources = tf.constant(np.stack([np.arange(SHOTS), np.full(SHOTS, ROW), columns], axis=1), tf.int32)
    new = 2.0 * old - older + stiffness * laplacian(old)
    new = tf.tensor_scatter_nd_add(new, sources, tf.fill([SHOTS], force))
    return old, new, new[:, ROW, WIDTH:-WIDTH]


@tf.function(jit_compile=True)
def gradient(stiffness: tf.Variable, forces: tf.Tensor) -> tf.Tensor:
    """Of the sum of squares of the record."""

    def body(count: tf.Tensor, older: tf.Tensor, old: tf.Tensor, energy: tf.Tensor) -> tuple[tf.Tensor, ...]:
        older, old, record = step(stiffness, older, old, forces[count])
        return count + 1, older, old, energy + tf.reduce_sum(record**2)

    with tf.GradientTape() as tape:
        rest = tf.zeros([SHOTS, SIZE, SIZE])
        start = (tf.constant(0), rest, rest, tf.constant(0.0))
        energy = tf.while_loop(lambda count, *_: count < SAMPLES, body, start, maximum_iterations=SAMPLES)[-1]
    return tape.gradient(energy, stiffness)


one_step = tf.function(step)


def by_steps(forces: tf.Tensor) -> tf.Tensor:
    """The change of the record for a change of the stiffness, by steps called from Python."""
    stiffness, change = _stiffness_and_change()
    with tf.autodiff.ForwardAccumulator(stiffness, change) as accumulator:
        older = old = tf.zeros([SHOTS, SIZE, SIZE])
        records = []
        for force in forces:
            older, old, record = one_step(stiffness, older, old, force)
            records.append(record)
        data = tf.stack(records)
    return accumulator.jvp(data)


@tf.function
def loop(stiffness: tf.Tensor, forces: tf.Tensor) -> tf.Tensor:
    def body(count: tf.Tensor, older: tf.Tensor, old: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, ...]:
        older, old, record = step(stiffness, older, old, forces[count])
        return count + 1, older, old, tf.tensor_scatter_nd_update(data, [[count]], record[tf.newaxis])

    rest, count = tf.zeros([SHOTS, SIZE, SIZE]), len(forces)
    start = (tf.constant(0), rest, rest, tf.zeros([count, SHOTS, SIDE]))
    return tf.while_loop(lambda i, *_: i < count, body, start, maximum_iterations=count)[-1]


def by_loop(forces: tf.Tensor) -> tf.Tensor:
    """The same by a loop within one function."""
    stiffness, change = _stiffness_and_change()
    with tf.autodiff.ForwardAccumulator(stiffness, change) as accumulator:
        data = loop(stiffness, forces)
    return accumulator.jvp(data)


def _stiffness_and_change() -> tuple[tf.Tensor, tf.Tensor]:
    return tf.fill([SIZE, SIZE], COURANT), 1e-3 * tf.random.stateless_normal([SIZE, SIZE], (0, 1))


def _measure(case: str, metric: str, call: Callable[[], tf.Tensor], samples: int) -> None:
    before, seconds = _peak(), []
    for _ in range(3):
        began = time.perf_counter()
        call().numpy()
        seconds.append(time.perf_counter() - began)
    _say(case, metric, SIDE**2 * samples * SHOTS / min(seconds) / 1e6, "Mpt/s")
    _say(case, f"{metric}-memory", _peak() - before, "GB")


def _peak() -> float:
    """Of the resident memory, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _say(case: str, metric: str, value: float, unit: str) -> None:
    print(json.dumps({"case": case, "system": "tensorflow", "metric": metric, "value": round(value, 4), "unit": unit}), flush=True)


if __name__ == "__main__":
    {"memory": memory, "tangent": tangent}[sys.argv[1]]()
