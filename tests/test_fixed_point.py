"""Fixed points: values and derivatives against those of the solved equation, and against the steps written out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators.sensitivity import Boundary, Checkpointed, Implicit, StoreAll, checkpointed_scan, fixed_point

SIZE = 8
RANDOM = np.random.default_rng(0)
MATRIX = tf.constant(0.5 * np.linalg.qr(RANDOM.normal(size=(SIZE, SIZE)))[0])
SOURCE, WEIGHTS, START = (tf.constant(RANDOM.normal(size=SIZE)) for _ in range(3))
GAIN = tf.Variable(RANDOM.uniform(0.5, 1.0, SIZE))


def bend(state: tf.Tensor) -> tf.Tensor:
    """A nonlinear contraction that reads two tensors and a variable."""
    return tf.tanh(tf.linalg.matvec(MATRIX, state)) * GAIN + SOURCE


def implicit(start: tf.Tensor) -> tf.Tensor:
    return fixed_point(bend, start, tolerance=1e-14)


def written_out(start: tf.Tensor) -> tf.Tensor:
    state = start
    for _ in range(70):
        state = bend(state)
    return state


def gradient(solve: Callable[[tf.Tensor], tf.Tensor]) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch([SOURCE, MATRIX])
        value = tf.reduce_sum(WEIGHTS * solve(START) ** 2)
    return tape.gradient(value, [SOURCE, MATRIX, GAIN])  # type: ignore[no-any-return]


def agree(found: list[tf.Tensor], expected: list[tf.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-11 * np.linalg.norm(other), rtol=0)


@pytest.mark.parametrize("run", [lambda f: f, tf.function, lambda f: tf.function(f, jit_compile=True)], ids=["eager", "graph", "xla"])
def test_gradients_are_those_of_the_steps_written_out(run: Callable[[Any], Any]) -> None:
    agree(run(lambda: gradient(implicit))(), gradient(written_out))
    np.testing.assert_allclose(run(lambda: implicit(START))(), written_out(START), rtol=1e-12)


def test_linear_fixed_points_are_solves() -> None:
    """x = M x + s, whose answer and adjoint NumPy solves."""
    with tf.GradientTape() as tape:
        tape.watch(SOURCE)
        value = tf.reduce_sum(WEIGHTS * fixed_point(lambda x: tf.linalg.matvec(MATRIX, x) + SOURCE, START, tolerance=1e-14, jit_compile=True))
    system = np.eye(SIZE) - MATRIX.numpy()
    assert float(value) == pytest.approx(WEIGHTS.numpy() @ np.linalg.solve(system, SOURCE.numpy()), rel=1e-12)
    np.testing.assert_allclose(tape.gradient(value, SOURCE), np.linalg.solve(system.T, WEIGHTS.numpy()), rtol=1e-11)


@pytest.mark.parametrize("run", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_forward_mode_and_second_derivatives(run: Callable[[Any], Any]) -> None:
    directions = [tf.constant(np.random.default_rng(i).normal(size=each.shape)) for i, each in enumerate((SOURCE, MATRIX, GAIN))]

    def both(solve: Callable[[tf.Tensor], tf.Tensor]) -> list[tf.Tensor]:
        with tf.autodiff.ForwardAccumulator([SOURCE, MATRIX, GAIN], directions) as forward:
            value = solve(START)
        with tf.GradientTape() as tape:
            tape.watch([SOURCE, MATRIX])
            first = gradient(solve)
            along = tf.add_n([tf.reduce_sum(part * v) for part, v in zip(first, directions, strict=True)])
        return [forward.jvp(value), *tape.gradient(along, [SOURCE, MATRIX, GAIN])]

    agree(run(lambda: both(implicit))(), both(written_out))


def test_a_point_sought_within_a_loop() -> None:
    """A source that feeds on the point of the last time: an implicit time step, kept by a few states."""

    def step(state: tf.Tensor) -> tf.Tensor:
        return fixed_point(lambda x: state + 0.3 * tf.sin(tf.linalg.matvec(MATRIX, x)), state, tolerance=1e-14)

    def written(state: tf.Tensor) -> tf.Tensor:
        for _ in range(4):
            x = state
            for _ in range(40):
                x = state + 0.3 * tf.sin(tf.linalg.matvec(MATRIX, x))
            state = x
        return state

    def slope(function: Callable[[tf.Tensor], tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([START, MATRIX])
            value = tf.reduce_sum(WEIGHTS * function(START))
        return tape.gradient(value, [START, MATRIX])  # type: ignore[no-any-return]

    agree(slope(lambda state: checkpointed_scan(step, state, 4, strategy=Checkpointed(2))), slope(written))


@pytest.mark.parametrize("strategy", [StoreAll(), Checkpointed(3)], ids=str)
def test_the_way_may_be_differentiated_instead(strategy: Any) -> None:
    agree(gradient(lambda start: fixed_point(bend, start, tolerance=1e-14, strategy=strategy)), gradient(written_out))


def test_nests_and_single_precision() -> None:
    found = fixed_point(lambda s: {"x": tf.cos(s["x"]), "y": (s["x"] + s["y"]) / 2}, {"x": tf.constant(1.0), "y": tf.constant(0.0)})
    assert float(found["x"]) == pytest.approx(0.7390851, abs=1e-6) and float(found["y"]) == pytest.approx(0.7390851, abs=1e-6)


def test_a_step_that_does_not_converge() -> None:
    def away(x: tf.Tensor) -> tf.Tensor:
        return 1.5 * x + SOURCE

    with pytest.raises(ValueError, match=r"'step' that did not converge in 50 iterations: must be a contraction: steps to lead to within 1e-06"):
        fixed_point(away, START, max_iterations=50)
    with pytest.raises(ValueError, match="did not converge"):
        fixed_point(lambda x: tf.math.log(-tf.abs(x)), START)
    with pytest.raises(tf.errors.InvalidArgumentError, match="did not converge in 50 iterations"):
        tf.function(lambda: fixed_point(away, START, max_iterations=50))()
    compiled = tf.function(lambda: fixed_point(away, START, max_iterations=50), jit_compile=True)
    assert np.isnan(compiled()).all(), "nothing can be raised there"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fixed_point(bend, START, strategy=Boundary()), r"'strategy' Boundary\(\): must be Implicit\(\), or in eager mode StoreAll\(\)"),
        (lambda: tf.function(lambda: fixed_point(bend, START, strategy=StoreAll()))(), r"'strategy' StoreAll\(\): must be Implicit\(\)"),
        (lambda: fixed_point(bend, START, tolerance=-1.0), "'tolerance'"),
        (lambda: fixed_point(lambda x: x[1:], START), r"'state after the step' of shape \(7,\)"),
        (lambda: fixed_point(lambda i: i, tf.constant(1)), "'state' with integers"),
        (
            lambda: fixed_point(lambda x: tf.numpy_function(np.cos, [x], tf.float64), START),
            r"'step' that calls Python \(operation 'PyFunc', test_fixed",
        ),
        (lambda: checkpointed_scan(bend, START, 3, strategy=Implicit()), r"'strategy' Implicit\(\): must be StoreAll\(\)"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("scale", [1e-10, 1e-20, 1e-30])
def test_small_cotangents_are_not_settled_too_early(scale: float) -> None:
    """Their squares are zero in single precision; the gradient is linear in them."""
    source, matrix = tf.cast(SOURCE, tf.float32), tf.cast(MATRIX, tf.float32)

    def gradient_of(weight: float) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(source)
            point = fixed_point(lambda x: tf.tanh(tf.linalg.matvec(matrix, x)) + source, tf.zeros(SIZE), tolerance=1e-6)
            value = weight * tf.reduce_sum(point)
        return tape.gradient(value, source)

    np.testing.assert_allclose(gradient_of(scale) / scale, gradient_of(1.0), rtol=1e-5)


def test_leaves_settle_each_by_itself() -> None:
    """A small leaf that is slow beside a large one that is there at once; one that goes to zero; and tiny cotangents."""
    factor = tf.constant(1.0, tf.float64)

    def step(x: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"large": 0.1 * x["large"] + 9e3, "small": 0.9 * x["small"] + 1e-4 * factor, "zero": 0.5 * x["zero"]}

    with tf.GradientTape() as tape:
        tape.watch(factor)
        end = fixed_point(step, {"large": tf.zeros([], tf.float64), "small": tf.zeros([], tf.float64), "zero": tf.ones([], tf.float64)})
    np.testing.assert_allclose([end["large"], end["small"]], [1e4, 1e-3], rtol=2e-6)
    np.testing.assert_allclose(tape.gradient(end["small"], factor, output_gradients=tf.constant(1e-200, tf.float64)), 1e-203, rtol=2e-6)
    assert abs(float(end["zero"])) < 1e-8


@pytest.mark.parametrize("rate", [0.3, 0.9, 0.99])
def test_the_tolerance_is_of_the_error_however_slow_the_steps_are(rate: float) -> None:
    end = fixed_point(lambda x: rate * x + (1 - rate), tf.zeros([2], tf.float64), max_iterations=5000)
    np.testing.assert_allclose(end, 1, rtol=1.01e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_numbers_that_are_none_are_no_fixed_point(jit_compile: bool) -> None:
    def step(x: tf.Tensor) -> tf.Tensor:
        return 0.5 * x + tf.math.log(tf.constant([-1.0, 1.0], tf.float64))

    with pytest.raises(ValueError, match="did not converge"):
        fixed_point(step, tf.ones(2, tf.float64), jit_compile=jit_compile)


@pytest.mark.parametrize(("state", "options", "says"), [
    ((), {}, "'state' without leaves"),
    (tf.constant([1.0]), {"max_iterations": 0}, "'max_iterations' 0: must be a whole number, 1 or more"),
    (tf.constant([1.0]), {"max_iterations": 2.5}, "'max_iterations' 2.5: must be a whole number"),
])  # fmt: skip
def test_bad_options_are_named(state: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fixed_point(lambda x: x, state, **options)


@pytest.mark.parametrize("large", [0.0, 1e7])
@pytest.mark.parametrize(("first", "second", "small"), [("float32", "float32", 0.5), ("float64", "float64", 1e-14), ("float32", "float64", 0.5)])
def test_small_leaves_beside_very_large_ones(first: str, second: str, small: float, large: float) -> None:
    """Of one precision and of two: rounding of the large leaf, there or not yet, is no reason to stop where leaves are on their own."""

    def step(x: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return 0.1 * x[0] + tf.constant(9e6, first), 0.8 * x[1] + tf.constant(0.2 * small, second)

    end = fixed_point(step, (tf.constant(large, first), tf.constant(10 * small, second)), tolerance=1e-5)
    np.testing.assert_allclose([float(each) for each in end], [1e7, small], rtol=1.1e-5)
