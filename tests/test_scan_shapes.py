"""Loops and fixed points of states whose sizes a graph does not know, and what their gradients take of memory."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators.sensitivity import Boundary, Checkpointed, StoreAll, Strategy, checkpointed_scan, fixed_point
from geoinv.operators.sensitivity.timing import peak


@pytest.mark.parametrize("loop", ["all", "checkpoints", "undone", "xla", "fixed point"])
def test_states_and_constants_of_any_number_of_rows(loop: str) -> None:
    """Traced once for batches of all sizes, the last of which is often smaller."""

    def step(x: tf.Tensor, factor: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return 0.5 * factor * x + tf.reduce_mean(tf.gather(factor, rows), axis=0)

    def back(x: tf.Tensor, factor: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return (x - tf.reduce_mean(tf.gather(factor, rows), axis=0)) / (0.5 * factor)

    def end(x: tf.Tensor, factor: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        one = lambda x: step(x, factor, rows)  # noqa: E731
        if loop == "fixed point":
            return fixed_point(one, x, tolerance=1e-13)
        options: dict[str, Any] = {"checkpoints": {"strategy": Checkpointed(2)}, "xla": {"jit_compile": True}}.get(loop, {})
        undone = {"strategy": Boundary(), "inverse": lambda x: back(x, factor, rows)} if loop == "undone" else {}
        return checkpointed_scan(one, x, 4, **options, **undone)

    def gradient_and_change(end: Callable[..., tf.Tensor], x: tf.Tensor, factor: tf.Tensor, rows: tf.Tensor) -> list[tf.Tensor]:
        with tf.autodiff.ForwardAccumulator(factor, tf.cos(factor)) as forward:
            change = forward.jvp(end(x, factor, rows))
        with tf.GradientTape() as tape:
            tape.watch(factor)
            value = tf.reduce_sum(end(x, factor, rows) ** 2)
        return [tape.gradient(value, factor), change]

    signature = [tf.TensorSpec([None, 3], tf.float64)] * 2 + [tf.TensorSpec([None], tf.int32)]
    run = tf.function(lambda *given: gradient_and_change(end, *given), input_signature=signature)
    for count in (1, 4, 2):
        given = (tf.ones([count, 3], tf.float64), tf.constant(np.random.default_rng(count).uniform(0.5, 1, (count, 3))), tf.range(count) // 2)
        steps = 60 if loop == "fixed point" else 4
        expected = gradient_and_change(lambda x, *rest, n=steps: functools.reduce(lambda x, _: step(x, *rest), range(n), x), *given)
        for one, other in zip(run(*given), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    assert run.experimental_get_tracing_count() == 1


def test_states_of_unknown_shape_have_no_budget_in_bytes() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64)])
    def run(x: tf.Tensor) -> tf.Tensor:
        return checkpointed_scan(lambda y: 2 * y, x, 3, strategy=Checkpointed(memory=1e6))

    with pytest.raises(ValueError, match=r"'strategy' Checkpointed\(memory=1e\+06\): must be Checkpointed\(n\) for a state of unknown shape"):
        run(tf.ones(3, tf.float64))


@pytest.mark.parametrize(("strategy", "kept"), [(StoreAll(), 200), (Checkpointed(8), 9 + 8), (Checkpointed(memory=40 * 400e3), 40)])
def test_gradients_take_what_their_strategies_say(strategy: Strategy, kept: int) -> None:
    """As TensorFlow's allocator counts: so many states, and some that a step and its cotangents work on."""
    start, state = tf.constant(np.linspace(0, 1, 50_000)), 400e3

    @tf.function(autograph=False)
    def gradient() -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(start)
            value = tf.reduce_sum(checkpointed_scan(lambda x: x + 0.01 * tf.sin(x), start, 200, strategy=strategy))
        return tape.gradient(value, start)

    gradient()
    taken = peak(lambda: gradient()) / state
    assert kept - 10 <= taken <= kept + 15
