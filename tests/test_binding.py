"""Functions whose names come to stand for something else before their derivatives are taken."""

import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators.sensitivity import Boundary, Checkpointed, StoreAll, checkpointed_scan, fixed_point, jacobian, linearization
from geoinv.operators.sensitivity.tracing import Traced

Loop = Callable[[Callable[[Any], Any], Any], Any]
START = tf.constant([0.3, 0.5], tf.float64)
WEIGHTS = [tf.constant(np.random.default_rng(seed).normal(size=(2, 2))) for seed in range(3)]
SCANS: dict[str, Loop] = {
    "all": lambda step, x: checkpointed_scan(step, x, 4),
    "checkpoints": lambda step, x: checkpointed_scan(step, x, 4, strategy=Checkpointed(2)),
    "xla": lambda step, x: checkpointed_scan(step, x, 4, jit_compile=True),
    "fixed point": lambda step, x: fixed_point(step, x, tolerance=1e-13),
}
COUNTS = {"fixed point": 200}
scale = 1.0


def written_out(n: int) -> Loop:
    return lambda step, x: functools.reduce(lambda now, _: step(now), range(n), x)


def layers(loop: Loop) -> list[tf.Tensor]:
    """The gradient of scans in a loop of Python, whose variable every step looks up."""
    with tf.GradientTape() as tape:
        tape.watch([START, *WEIGHTS])
        x = START
        for weight in WEIGHTS:
            x = loop(lambda s: tf.tanh(0.4 * tf.linalg.matvec(weight, s) + weight[0]), x)  # noqa: B023
        value = tf.reduce_sum(x**2)
    return tape.gradient(value, [START, *WEIGHTS], unconnected_gradients=tf.UnconnectedGradients.ZERO)


def renamed(loop: Loop) -> tf.Tensor:
    """That of a result by the name of what the step reads."""
    with tf.GradientTape() as tape:
        tape.watch(START)
        m = tf.sin(START)
        m = loop(lambda s: 0.5 * tf.tanh(s) + m, m)
        value = tf.reduce_sum(m**2)
    return tape.gradient(value, START)


@pytest.mark.parametrize(
    ("derivative", "name"), [(each, name) for each in (layers, renamed) for name in SCANS if each is renamed or name != "fixed point"]
)
def test_steps_keep_to_what_their_names_stood_for(derivative: Callable[[Loop], Any], name: str) -> None:
    expected = derivative(written_out(COUNTS.get(name, 4)))
    for found in (derivative(SCANS[name]), tf.function(derivative)(SCANS[name])):
        tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, expected)


def test_functions_linearized_in_a_loop_keep_their_own() -> None:
    made = [linearization(lambda m: m * factor, START) for factor in (1.0, 2.0, 3.0)]  # noqa: B023
    np.testing.assert_allclose([jacobian(each).diagonal() for each in made], [[1, 1], [2, 2], [3, 3]])


def scaled(m: tf.Tensor) -> tf.Tensor:
    return scale * tf.sin(m)


def test_globals_are_held_and_those_of_other_functions_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "scale", 2.0)
    held, told = linearization(functools.partial(lambda shift, m: scale * tf.sin(m + shift), 1.0), START), linearization(lambda m: scaled(m), START)
    monkeypatch.setitem(globals(), "scale", 5.0)
    np.testing.assert_allclose(jacobian(held).diagonal(), 2 * np.cos(START + 1), rtol=1e-12)
    with pytest.raises(ValueError, match="that has changed before its derivative"):
        told.vjp(START)


TABLE = {scaled: 3.0}


def test_functions_stay_what_they_are_and_write_what_they_write() -> None:
    """Those that choose by a function, and those that count their runs."""
    count, chosen = 0, scaled

    def counted(m: tf.Tensor) -> tf.Tensor:
        nonlocal count
        count += 1
        return m * TABLE[chosen] * (1.0 if chosen is scaled else 7.0)

    np.testing.assert_allclose(jacobian(linearization(counted, START)).diagonal(), 3)
    assert count > 1


def test_variables_that_a_graph_assigns_before_a_product_are_told() -> None:
    factor = tf.Variable(2.0, dtype=tf.float64)

    @tf.function
    def product(value: tf.Tensor) -> tf.Tensor:
        at = linearization(lambda m: factor * m**2, START)
        factor.assign(value)
        return at.vjp(tf.ones_like(START))

    np.testing.assert_allclose(product(tf.constant(2.0, tf.float64)), 4 * START)
    with pytest.raises(tf.errors.OpError, match=r"reading the variable .* assigned before the product"):
        product(tf.constant(9.0, tf.float64))


def test_constants_that_are_no_numbers_are_no_change() -> None:
    mask = np.full(200, np.nan)
    at = linearization(lambda m: tf.where(tf.math.is_nan(tf.constant(mask)), m[0], 0.0), START)
    np.testing.assert_allclose(at.vjp(tf.ones(200, tf.float64)), [200, 0])


def test_linearized_functions_keep_the_values_of_variables() -> None:
    factor = tf.Variable([2.0, 3.0], dtype=tf.float64)
    at = linearization(lambda m: factor * m**2, START)
    factor.assign([9.0, 9.0])
    np.testing.assert_allclose(jacobian(at).diagonal(), [2 * 2 * 0.3, 2 * 3 * 0.5])
    np.testing.assert_allclose(at.hessian_product(tf.ones_like(START), tf.ones_like(START)), [4, 6])
    np.testing.assert_allclose(at.data, [2 * 0.09, 3 * 0.25])


class Holder:
    factor = 0.5
    shift: np.ndarray


def test_variables_are_the_same_in_any_order_and_others_in_each_others_place() -> None:
    # TensorFlow gives the variables of functions within functions in the order of a set.
    holder = types.SimpleNamespace(parts=[tf.Variable(each * START) for each in range(1, 9)])

    @tf.function
    def inner(s: tf.Tensor) -> tf.Tensor:
        return s * functools.reduce(lambda found, each: 0.5 * found + each, holder.parts)

    for _ in range(10):
        traced = Traced.of("step", lambda s: tf.sin(inner(s)), START)
        traced.check_same()
    outright = linearization(lambda s: s * functools.reduce(lambda found, each: 0.5 * found + each, holder.parts), START)
    holder.parts[:2] = holder.parts[1::-1]
    with pytest.raises(ValueError, match="that has changed before its derivative"):
        outright.vjp(START)


@pytest.mark.parametrize("change", ["attribute", "array", "list"])
@pytest.mark.parametrize("loop", ["scan", "undone", "fixed point", "linearization"])
def test_what_has_changed_inside_is_refused(change: str, loop: str) -> None:
    holder, some = Holder(), [1.0]
    holder.shift = np.array([0.1, 0.2])

    def step(s: tf.Tensor) -> tf.Tensor:
        return holder.factor * s + holder.shift * some[0]

    def change_it() -> None:
        if change == "attribute":
            holder.factor = 0.25
        elif change == "array":
            holder.shift[:] = 7
        else:
            some[0] = 2.0

    undone = functools.partial(checkpointed_scan, n=3, strategy=Boundary(), inverse=lambda s: (s - holder.shift * some[0]) / holder.factor)
    loops = {"scan": lambda x: checkpointed_scan(step, x, 3, strategy=StoreAll()), "undone": functools.partial(undone, step)}
    with pytest.raises(ValueError, match=r"that has changed before its derivative was taken: .*value = holder\.value"):
        if loop == "linearization":
            at = linearization(step, START)
            change_it()
            at.vjp(START)
        else:
            with tf.GradientTape() as tape:
                tape.watch(START)
                value = loops[loop](START) if loop in loops else fixed_point(lambda s: step(s) + START, START)
            change_it()
            tape.gradient(value, START)


def test_rules_of_the_users_may_call_python() -> None:
    @tf.custom_gradient
    def sine(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.ensure_shape(tf.numpy_function(np.sin, [x], x.dtype), x.shape), lambda w: w * tf.cos(x)

    def bare(x: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(np.sin, [x], x.dtype), x.shape)

    at = linearization(sine, START)
    for mode in ("forward", "reverse"):
        np.testing.assert_allclose(jacobian(at, mode=mode).diagonal(), np.cos(START), rtol=1e-14)
    with tf.GradientTape() as tape:
        tape.watch(START)
        end = checkpointed_scan(sine, START, 2)
    np.testing.assert_allclose(tape.gradient(end, START), np.cos(START) * np.cos(np.sin(START)), rtol=1e-14)
    for cut in (lambda x: sine(bare(x)), lambda x: bare(sine(x)), lambda x: sine(x) + bare(x)):
        with pytest.raises(ValueError, match=r"Invalid 'function' that calls Python \(operation 'PyFunc.*test_binding.py"):
            linearization(cut, START)


@pytest.mark.parametrize(("function", "says"), [
    (lambda m: None, "that gives None: .*Does it lack a return"),
    (lambda m: tf.cast(m, tf.int32), "dtype int32"),
])  # fmt: skip
def test_functions_without_data_are_refused(function: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        linearization(function, START)


def test_data_may_be_as_many_as_there_are_at_the_model() -> None:
    at = linearization(lambda m: tf.boolean_mask(m**2, m > 0.4), START)
    np.testing.assert_array_equal(jacobian(at), [[0, 1]])
    with pytest.raises(ValueError, match=r"'data' with a leaf of shape \(None,\): .*tf.ensure_shape"):
        tf.function(lambda x: linearization(lambda m: tf.boolean_mask(m**2, m > 0.4), x).data)(START)


def test_numbers_are_data() -> None:
    at = linearization(lambda m: (np.ones(3), 2.0 * m), START)
    np.testing.assert_array_equal(jacobian(at), [[0, 0], [0, 0], [0, 0], [2, 0], [0, 2]])
