"""Loops over steps of one's own: derivatives of every order against those of the same steps written out, and the errors of use."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from geoinv.operators.sensitivity import Boundary, Checkpointed, Every, StoreAll, Strategy, checkpointed_scan
from geoinv.operators.sparse import CSRMatrix

SIZE, STEPS = 12, 17
LAPLACIAN = CSRMatrix.from_scipy(scipy.sparse.diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(SIZE, SIZE)).tocsr())
RANDOM = np.random.default_rng(0)
START, RATE, WEIGHTS = (tf.constant(RANDOM.normal(size=SIZE)) for _ in range(3))
DAMPING = tf.Variable(RANDOM.normal(size=SIZE) * 0.1)
STRATEGIES = [StoreAll(), Checkpointed(2), Checkpointed(5), Checkpointed(memory=6 * (2 * 8 * SIZE + 4)), Boundary()]
MODES: dict[str, Callable[[Any], Any]] = {
    "eager": lambda f: f,
    "graph": tf.function,
    "xla": lambda f: tf.function(f, jit_compile=True),
}

State = dict[str, tf.Tensor]


def leap(state: State) -> State:
    """A leapfrog step of a string with a spring of strength RATE^2 and a force that grows with its number: reads a tensor and a variable."""
    force = tf.sin(state["now"] * DAMPING) + 0.01 * tf.cast(state["number"], tf.float64)
    new = 2 * state["now"] - state["old"] + 0.1 * (LAPLACIAN.matvec(state["now"]) - RATE**2 * state["now"]) + force
    return {"old": state["now"], "now": new, "number": state["number"] + 1}


def leap_back(state: State) -> State:
    number, now = state["number"] - 1, state["old"]
    force = tf.sin(now * DAMPING) + 0.01 * tf.cast(number, tf.float64)
    older = 2 * now - state["now"] + 0.1 * (LAPLACIAN.matvec(now) - RATE**2 * now) + force
    return {"old": older, "now": now, "number": number}


def at(field: tf.Tensor) -> State:
    return {"old": field, "now": field, "number": tf.constant(0)}


def written_out(field: tf.Tensor) -> tf.Tensor:
    state = at(field)
    for _ in range(STEPS):
        state = leap(state)
    return state["now"]


def scanned(strategy: Strategy, *, jit_compile: bool = False) -> Callable[[tf.Tensor], tf.Tensor]:
    inverse = leap_back if isinstance(strategy, Boundary) else None
    return lambda field: checkpointed_scan(leap, at(field), STEPS, strategy=strategy, inverse=inverse, jit_compile=jit_compile)["now"]


def gradient(loop: Callable[[tf.Tensor], tf.Tensor]) -> list[tf.Tensor]:
    """Of a quadratic function of the last field, with respect to the start, the tensor and the variable."""
    with tf.GradientTape() as tape:
        tape.watch([START, RATE])
        value = tf.reduce_sum(WEIGHTS * loop(START) ** 2)
    return tape.gradient(value, [START, RATE, DAMPING])  # type: ignore[no-any-return]


def agree(found: list[tf.Tensor], expected: list[tf.Tensor], rtol: float = 1e-11) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=rtol * np.linalg.norm(other), rtol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_gradients_are_those_of_the_steps_written_out(strategy: Strategy, mode: str) -> None:
    agree(MODES[mode](lambda: gradient(scanned(strategy)))(), gradient(written_out))


@pytest.mark.parametrize("strategy", [StoreAll(), Checkpointed(3)], ids=str)
def test_compiled_loops(strategy: Strategy) -> None:
    agree(gradient(scanned(strategy, jit_compile=True)), gradient(written_out))


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("strategy", [StoreAll(), Checkpointed(3), Boundary()], ids=str)
def test_forward_mode_is_the_adjoint_of_the_gradient(strategy: Strategy, mode: str) -> None:
    directions = [tf.constant(np.random.default_rng(i).normal(size=SIZE)) for i in range(3)]

    def tangent() -> tf.Tensor:
        with tf.autodiff.ForwardAccumulator([START, RATE, DAMPING], directions) as forward:
            value = tf.reduce_sum(WEIGHTS * scanned(strategy)(START) ** 2)
        return forward.jvp(value)

    expected = sum(float(tf.tensordot(part, v, 1)) for part, v in zip(gradient(written_out), directions, strict=True))
    assert float(MODES[mode](tangent)()) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("strategy", [StoreAll(), Checkpointed(3), Boundary()], ids=str)
def test_hessian_products_forward_over_reverse_and_reverse_over_reverse(strategy: Strategy) -> None:
    directions = [tf.constant(np.random.default_rng(i).normal(size=SIZE)) for i in range(3)]

    def forward_over_reverse(loop: Callable[[tf.Tensor], tf.Tensor]) -> list[tf.Tensor]:
        with tf.autodiff.ForwardAccumulator([START, RATE, DAMPING], directions) as forward:
            found = gradient(loop)
        return [forward.jvp(part) for part in found]

    expected = forward_over_reverse(written_out)
    agree(forward_over_reverse(scanned(strategy)), expected)
    with tf.GradientTape() as tape:
        tape.watch([START, RATE])
        along = tf.add_n([tf.tensordot(part, v, 1) for part, v in zip(gradient(scanned(strategy)), directions, strict=True)])
    agree(tape.gradient(along, [START, RATE, DAMPING]), expected)


def test_third_derivatives() -> None:
    """The tangent of a scan is a scan: there is no order at which the rules end."""
    directions = [tf.constant(np.random.default_rng(i).normal(size=SIZE)) for i in range(2)]

    def thrice(loop: Callable[[tf.Tensor], tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as outer:
            outer.watch([START, RATE])
            with tf.GradientTape() as inner:
                inner.watch([START, RATE])
                once = tf.tensordot(gradient(loop)[1], directions[0], 1)
            twice = tf.tensordot(inner.gradient(once, RATE), directions[1], 1)
        return outer.gradient(twice, [START, RATE, DAMPING])  # type: ignore[no-any-return]

    agree(thrice(scanned(Checkpointed(4))), thrice(written_out), rtol=1e-10)


@pytest.mark.parametrize("strategy", [StoreAll(), Checkpointed(3)], ids=str)
def test_derivatives_through_a_function_whose_tensors_the_step_reads(strategy: Strategy) -> None:
    """The gradient of a graph, and the gradient of that gradient, are graphs of their own: tensors of the first are not in scope there."""

    def steps(rate: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda field: field + 0.1 * tf.sin(rate * field) * DAMPING

    def looped(field: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        twice = 2 * rate
        return checkpointed_scan(steps(twice), field, STEPS, strategy=strategy)

    def out(field: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        for _ in range(STEPS):
            field = steps(2 * rate)(field)
        return field

    def derivatives(loop: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape(persistent=True) as outer:
            outer.watch([START, RATE])
            with tf.GradientTape() as inner:
                inner.watch([START, RATE])
                value = tf.reduce_sum(WEIGHTS * loop(START, RATE) ** 2)
            first = inner.gradient(value, [START, RATE, DAMPING])
            along = tf.add_n([tf.tensordot(part, WEIGHTS, 1) for part in first])
        return [*first, *outer.gradient(along, [START, RATE, DAMPING])]

    agree(derivatives(tf.function(looped)), derivatives(out))


def test_networks_loops_and_gathers_within_a_step() -> None:
    layer = tf.keras.layers.Dense(SIZE, activation="tanh", dtype="float64", kernel_initializer=tf.keras.initializers.GlorotUniform(seed=0))
    layer.build([1, SIZE])
    table = tf.Variable(RANDOM.normal(size=(40, SIZE)) * 0.1)

    @tf.function
    def step(field: tf.Tensor) -> tf.Tensor:
        for _ in tf.range(3):
            field = field + 0.1 * tf.sin(RATE * field)
        return field + 0.1 * layer(field[tf.newaxis])[0] + tf.gather(table, [3, 7])[1]

    def derivative(loop: Callable[[], tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(RATE)
            value = tf.reduce_sum(WEIGHTS * loop())
        return [tf.convert_to_tensor(part) for part in tape.gradient(value, [RATE, table, *layer.trainable_variables])]

    def out() -> tf.Tensor:
        field = START
        for _ in range(5):
            field = step(field)
        return field

    agree(derivative(lambda: checkpointed_scan(step, START, 5, strategy=Checkpointed(2))), derivative(out))


def test_complex_states_and_single_precision() -> None:
    turn = tf.constant(np.exp(1j * np.linspace(0, 1, SIZE)))
    field, weights = tf.cast(START, tf.complex128), tf.complex(WEIGHTS, RATE)

    def derivative(loop: Callable[[tf.Tensor], tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([field, turn])
            value = tf.math.real(tf.reduce_sum(weights * loop(field)))
        return tape.gradient(value, [field, turn])  # type: ignore[no-any-return]

    def out(field: tf.Tensor) -> tf.Tensor:
        for _ in range(6):
            field = turn * field
        return field

    agree(derivative(lambda z: checkpointed_scan(lambda x: turn * x, z, 6, strategy=Checkpointed(2))), derivative(out))
    single = checkpointed_scan(lambda x: x * tf.constant(0.5), tf.ones(3), 4, strategy=Checkpointed(2))
    np.testing.assert_array_equal(single, np.full(3, 0.0625, np.float32))


def test_no_steps_and_states_without_derivatives() -> None:
    assert checkpointed_scan(leap, at(START), 0)["now"] is START
    assert int(checkpointed_scan(lambda i: i + 2, tf.constant(1), 5)) == 11


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda x: tf.numpy_function(np.sin, [x], tf.float64), r"'step' that calls Python \(operation 'PyFunc', test_scan.py:\d+\): must be made of"),
        (lambda x: tf.py_function(tf.sin, [x], tf.float64), r"that calls Python \(operation 'EagerPyFunc', test_scan.py"),
        (lambda x: tf.while_loop(lambda i, _: i < 2, lambda i, v: (i + 1, hidden(v)), (0, x))[1], r"that calls Python \(operation 'while'"),
        (lambda x: tf.map_fn(hidden_one, x), "that calls Python"),
        (lambda x: tf.scan(lambda _, each: hidden_one(each), x), "that calls Python"),
        (lambda x: tf.constant(np.sin(x)), "'step' that cannot be traced: must be made of TensorFlow operations. TensorFlow says: Cannot convert"),
        (lambda x: tf.constant(x.numpy()), "TensorFlow says: 'SymbolicTensor' object has no attribute 'numpy'"),
        (lambda x: x if x[0] > 0 else -x, "TensorFlow says: Using a symbolic `tf.Tensor` as a Python `bool` is not allowed."),
        (lambda x: tf.cast(x, tf.float32), "'state after the step' of dtype float32: must be of dtype float64"),
        (lambda x: (x, x), "'state after the step'"),
        (lambda x: x[1:], r"'state after the step' of shape \(11,\): must be of shape \(12,\)"),
    ],
)
def test_steps_that_no_derivative_passes_are_named(step: Callable[[tf.Tensor], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checkpointed_scan(step, START, 3)


def hidden(x: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.numpy_function(np.sin, [x], tf.float64), [SIZE])


def hidden_one(x: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.numpy_function(np.sin, [x], tf.float64), [])


def test_calls_of_python_beside_the_way_are_allowed() -> None:
    seen = []

    def step(x: tf.Tensor) -> tf.Tensor:
        tf.py_function(lambda v: seen.append(float(v)), [x[0]], [])
        return x / 2

    np.testing.assert_array_equal(checkpointed_scan(step, tf.ones(2), 2), [0.25, 0.25])
    assert seen == [1.0, 0.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": Every(2)}, r"'strategy' Every\(steps=2\): must be StoreAll\(\), Checkpointed\(n\) or Boundary\(\)"),
        ({"strategy": Boundary()}, r"'inverse' not given: must be given if and only if the strategy is Boundary\(\)"),
        ({"inverse": leap_back}, "'inverse' given"),
        ({"strategy": Checkpointed(memory=300)}, "'memory' 300 bytes: must be at least 588 bytes"),
        ({"n": -1}, "'n' -1: must be a whole number, 0 or more"),
    ],
)
def test_strategies_that_do_not_suit_a_step(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checkpointed_scan(leap, at(START), **({"n": 3} | options))


def test_inverses_are_held_to_every_step_and_every_leaf() -> None:
    """The step itself leads back to the start of a cycle; and a small leaf counts beside a large one."""
    turn = tf.constant([[0.0, -1.0], [1.0, 0.0]], tf.float64)

    def turned(x: tf.Tensor) -> tf.Tensor:
        return tf.linalg.matvec(turn, x)

    def smaller(x: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return x[0], 0.5 * x[1]

    start = tf.constant([1.0, 2.0], tf.float64)
    for step, inverse, at in ((turned, turned, start), (smaller, lambda x: x, (1e12 * start, start))):
        with tf.GradientTape() as tape:
            tape.watch(at)
            end = checkpointed_scan(step, at, 4, strategy=Boundary(), inverse=inverse)
        with pytest.raises(ValueError, match="'inverse' that does not come back"):
            tape.gradient(end, at)


def test_inverses_of_leaves_that_are_rounding_of_larger_ones_pass() -> None:
    """A leaf to which a difference of equal sums is added stays zero, but for rounding."""

    def change(p: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(p) - tf.reduce_sum(p[:3]) - tf.reduce_sum(p[3:])

    start = (1e3 * tf.constant(np.random.default_rng(0).normal(size=7)), tf.zeros([], tf.float64))
    with tf.GradientTape() as tape:
        tape.watch(start)
        end = checkpointed_scan(
            lambda x: (0.9 * x[0], x[1] + change(x[0])), start, 20, strategy=Boundary(), inverse=lambda x: (x[0] / 0.9, x[1] - change(x[0] / 0.9))
        )
    np.testing.assert_allclose(tape.gradient(end[0], start[0]), 0.9**20, rtol=1e-10)
