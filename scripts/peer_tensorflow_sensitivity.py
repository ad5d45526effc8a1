"""Stock TensorFlow on the cases `jacobian` and `scan` of benchmark.py: tape.jacobian, GradientTape through tf.while_loop, tf.recompute_grad."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

SIDE, STEPS, COURANT = 400, 2000, 0.25
#: Steps that are computed again at a time: about the square root of all of them.
SEGMENT = 50


def jacobian() -> None:
    """10 unknowns and 100 000 data: the time of 100 rows, vectorised, taken 1000 times; all rows at once would take 200 GB."""
    places = tf.constant(np.linspace(0, 1, 100_000), tf.float32)
    unknowns = tf.constant(np.random.default_rng(0).uniform(1, 9, 10), tf.float32)

    @tf.function(jit_compile=True)
    def function(m: tf.Tensor) -> tf.Tensor:
        amplitudes, numbers = tf.split(m, 2)
        return tf.reduce_sum(amplitudes * tf.sin(numbers * places[:, tf.newaxis]), axis=1)

    @tf.function
    def some() -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(unknowns)
            data = function(unknowns)[:100]
        return tape.jacobian(data, unknowns)

    say("jacobian", "jacobian-few-unknowns", 1000 * shortest(some, 2), "s")


def scan() -> None:
    """Segments that are computed again first: peaks only rise."""
    stiffness = tf.Variable(tf.fill([SIDE, SIDE], COURANT))
    start = tf.random.stateless_normal([SIDE, SIDE], (0, 0))

    def step(old: tf.Tensor, now: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        wide = tf.pad(now, [[1, 1], [1, 1]])
        around = wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2]
        return now, 2 * now - old + stiffness * (around - 4 * now)

    def steps(old: tf.Tensor, now: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.while_loop(lambda i, *_: i < count, lambda i, a, b: (i + 1, *step(a, b)), (0, old, now), maximum_iterations=count)[1:]

    def gradient(loop: Callable[[], tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            energy = tf.reduce_sum(loop() ** 2)
        return tape.gradient(energy, stiffness)

    @tf.function
    def recomputed() -> tf.Tensor:
        again = tf.recompute_grad(lambda old, now: steps(old, now, SEGMENT))

        def loop() -> tf.Tensor:
            old, now = start, start
            for _ in range(STEPS // SEGMENT):
                old, now = again(old, now)
            return now

        return gradient(loop)

    @tf.function(jit_compile=True)
    def taped() -> tf.Tensor:
        return gradient(lambda: steps(start, start, STEPS)[1])

    for metric, call in (("gradient-checkpointed", recomputed), ("gradient", taped)):
        before = peak()
        try:
            call().numpy()
        except (ValueError, TypeError, tf.errors.OpError) as error:
            print(f"{metric}: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        say("scan", f"{metric}-memory", peak() - before, "GB")
        say("scan", metric, shortest(lambda call=call: call().numpy(), 2), "s")


def shortest(call: Callable[[], object], count: int) -> float:
    """The shortest time of some calls after the first, s."""
    call()
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def peak() -> float:
    """Of the resident memory, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def say(case: str, metric: str, value: float, unit: str) -> None:
    print(json.dumps({"case": case, "system": "tensorflow", "metric": metric, "value": round(value, 4), "unit": unit}), flush=True)


if __name__ == "__main__":
    {"jacobian": jacobian, "scan": scan}[sys.argv[1]]()
