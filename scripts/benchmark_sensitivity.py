"""The sensitivity cases of benchmark.py: Jacobians from products, and loops over a step of one's own."""

import functools
from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse
import tensorflow as tf
from benchmark_cases import memory_growth, timed

from geoinv.operators.sensitivity import (
    Checkpointed,
    Coloring,
    StoreAll,
    Strategy,
    checkpointed_scan,
    columns,
    jacobian,
    linearization,
    sparse_jacobian,
)

Figures = Iterator[tuple[str, str, float, str]]
#: (v dt / h)^2 of the wave step.
COURANT = 0.25


def few_unknowns(m: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """A sum of 5 waves, of unknown amplitudes and wavenumbers, at many places."""
    amplitudes, numbers = m[:5], m[5:]
    return tf.reduce_sum(amplitudes * tf.sin(numbers * at[:, tf.newaxis]), axis=1)


def banded(m: tf.Tensor) -> tf.Tensor:
    """A nonlinear function of each unknown and its two neighbours on either side."""
    wide = tf.pad(m, [[2, 2]])
    return tf.sin(m) * wide[:-4] + wide[1:-3] * wide[3:-1] + m**2 * wide[4:]


def jacobians(scale: float, repeats: int) -> Figures:
    """10 unknowns with 100 000 data, and a band of five diagonals in 100 000 rows."""
    random, size = np.random.default_rng(0), max(1000, round(100_000 * scale))
    places = tf.constant(np.linspace(0, 1, size), tf.float32)
    unknowns = tf.constant(random.uniform(1, 9, 10), tf.float32)
    call = functools.partial(jacobian, linearization(lambda m: few_unknowns(m, places), unknowns, jit_compile=True))
    call()
    yield "geoinv", "jacobian-few-unknowns", timed({"jacobian": call}, repeats)["jacobian"], "s"
    at = linearization(banded, tf.constant(random.normal(size=size), tf.float32), jit_compile=True)
    colors = Coloring(scipy.sparse.diags_array(np.ones(5), offsets=range(-2, 3), shape=(size, size)))
    vector = tf.constant(random.normal(size=size), tf.float32)
    calls: dict[str, Callable[[], object]] = {
        "jacobian-banded": functools.partial(sparse_jacobian, at, colors),
        "product": functools.partial(at.jvp, vector),
        "some-columns": functools.partial(columns, at, range(0, size, size // 20)),
    }
    for call in calls.values():
        call()
    seconds = timed(calls, repeats)
    yield "geoinv", "jacobian-banded", seconds["jacobian-banded"], "s"
    yield "geoinv", "jacobian-banded-cost", seconds["jacobian-banded"] / seconds["product"] / colors.count, "products a colour"
    yield "geoinv", "jacobian-banded-columns", seconds["some-columns"] / 20 * size / seconds["jacobian-banded"], "times faster than by columns"


def scan(scale: float, repeats: int) -> Figures:
    """The gradient of 2000 wave steps on 400 x 400 cells with respect to the velocity in each; little memory first of all in its process."""
    side, steps = max(40, round(400 * scale)), max(100, round(2000 * scale))
    stiffness = tf.Variable(tf.fill([side, side], COURANT))
    for metric, strategy in (("gradient-checkpointed", Checkpointed(30)), ("gradient", StoreAll())):
        call = scan_gradient(stiffness, steps, strategy)
        yield "geoinv", f"{metric}-memory", memory_growth(call), "GB"
        yield "geoinv", metric, timed({metric: call}, min(repeats, 2))[metric], "s"


def scan_gradient(stiffness: tf.Variable, steps: int, strategy: Strategy) -> Callable[[], np.ndarray]:
    start = tf.random.stateless_normal(stiffness.shape, (0, 0))

    def step(state: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        old, now = state
        wide = tf.pad(now, [[1, 1], [1, 1]])
        around = wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2]
        return now, 2 * now - old + stiffness * (around - 4 * now)

    @tf.function
    def gradient() -> tf.Tensor:
        with tf.GradientTape() as tape:
            last = checkpointed_scan(step, (start, start), steps, strategy=strategy, jit_compile=True)[1]
            energy = tf.reduce_sum(last**2)
        return tape.gradient(energy, stiffness)

    return lambda: gradient().numpy()
