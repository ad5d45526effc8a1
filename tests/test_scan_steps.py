"""Steps that hold rules of their own, operators and scans, or stand in loops and branches: derivatives against those written out."""

import faulthandler
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from registry import Exponential

from geoinv.operators.forward import ForwardOperator
from geoinv.operators.sensitivity import Boundary, Checkpointed, StoreAll, Strategy, checkpointed_scan
from geoinv.operators.sparse import CSRMatrix

SIZE, STEPS = 3, 4
RANDOM = np.random.default_rng(0)
START, RATE, WEIGHTS = (tf.constant(RANDOM.uniform(0.3, 1.0, SIZE)) for _ in range(3))
DAMPING = tf.Variable(RANDOM.normal(size=SIZE) * 0.1)
DIRECTIONS = [tf.constant(RANDOM.normal(size=SIZE)) for _ in range(3)]
MATRIX = CSRMatrix.from_scipy(scipy.sparse.diags([-1.0, 4.0, -1.0], [-1, 0, 1], shape=(SIZE, SIZE)).tocsr())
DENSE = tf.constant(MATRIX.to_scipy().toarray())

RUNS: dict[str, Any] = {"eager": lambda f: f, "graph": tf.function, "xla": lambda f: tf.function(f, jit_compile=True)}

Step = Callable[[Any], Any]
Loop = Callable[[tf.Tensor], tf.Tensor]


@pytest.fixture(autouse=True)
def _watchdog() -> Iterator[None]:
    """Threads that wait for one another would hold up the whole session: this ends it, and says where they are."""
    faulthandler.dump_traceback_later(240, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def written_out(step: Step, n: int = STEPS) -> Loop:
    def loop(x: tf.Tensor) -> tf.Tensor:
        for _ in range(n):
            x = step(x)
        return x

    return loop


def scanned(step: Step, n: int = STEPS, strategy: Strategy = StoreAll()) -> Loop:  # noqa: B008
    return lambda x: checkpointed_scan(step, x, n, strategy=strategy)


def gradient(loop: Loop) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch([START, RATE])
        value = tf.reduce_sum(WEIGHTS * loop(START) ** 2)
    return tape.gradient(value, [START, RATE, DAMPING])  # type: ignore[no-any-return]


def tangent(loop: Loop) -> list[tf.Tensor]:
    with tf.autodiff.ForwardAccumulator([START, RATE, DAMPING], DIRECTIONS) as forward:
        value = loop(START)
    return [forward.jvp(value)]


def forward_over_reverse(loop: Loop) -> list[tf.Tensor]:
    with tf.autodiff.ForwardAccumulator([START, RATE, DAMPING], DIRECTIONS) as forward:
        found = gradient(loop)
    return [forward.jvp(part) for part in found]


def reverse_over_reverse(loop: Loop) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch([START, RATE])
        along = tf.add_n([tf.tensordot(part, v, 1) for part, v in zip(gradient(loop), DIRECTIONS, strict=True)])
    return tape.gradient(along, [START, RATE, DAMPING])  # type: ignore[no-any-return]


def agree(found: list[tf.Tensor], expected: list[tf.Tensor], rtol: float = 1e-11) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=rtol * np.linalg.norm(other), rtol=0)


ALL = [gradient, tangent, forward_over_reverse, reverse_over_reverse]


def plain(x: tf.Tensor) -> tf.Tensor:
    return tf.sin(RATE * x) + DAMPING


@tf.custom_gradient
def softplus(x: tf.Tensor) -> Any:
    """log(1 + exp(x)) as Kahan writes it, hidden from automatic differentiation, with the derivative that does not overflow."""
    return tf.stop_gradient(tf.math.log1p(tf.exp(-tf.abs(x))) + tf.nn.relu(x)), lambda g: g * tf.sigmoid(x)


def with_rule(x: tf.Tensor) -> tf.Tensor:
    return softplus(RATE * x) + DAMPING * x


def without_rule(x: tf.Tensor) -> tf.Tensor:
    return tf.math.log(1 + tf.exp(RATE * x)) + DAMPING * x


def accumulated(x: tf.Tensor) -> tf.Tensor:
    with tf.autodiff.ForwardAccumulator(x, RATE) as forward:
        y = tf.sin(x) * DAMPING
    return x + 0.1 * forward.jvp(y)


def derived(x: tf.Tensor) -> tf.Tensor:
    return x + 0.1 * tf.cos(x) * RATE * DAMPING


def solved(method: str) -> Step:
    options = {} if method == "lu" else {"tolerance": 1e-14}
    rows, columns = MATRIX.to_scipy().nonzero()

    def step(x: tf.Tensor) -> tf.Tensor:
        values = MATRIX.values * (1 + 0.1 * tf.gather(RATE, rows) * tf.gather(RATE, columns))
        return MATRIX.with_values(values).solve(x, method=method, **options) + DAMPING * tf.sin(x)

    return step


def solved_densely(x: tf.Tensor) -> tf.Tensor:
    matrix = DENSE * (1 + 0.1 * RATE * RATE[:, tf.newaxis])
    return tf.linalg.solve(matrix, x[:, tf.newaxis])[:, 0] + DAMPING * tf.sin(x)


def looping(x: tf.Tensor) -> tf.Tensor:
    return tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, plain(y)), (0, x))[1]


def branching(x: tf.Tensor) -> tf.Tensor:
    return tf.cond(x[0] > 0.5, lambda: plain(x), lambda: tf.cos(x * DAMPING) + RATE)


def exponential(twice_differentiable: bool) -> Step:
    operator: ForwardOperator = Exponential(SIZE, twice_differentiable=twice_differentiable)
    return lambda x: tf.sin(operator(0.3 * RATE * x)) + DAMPING


def exponential_of_tensorflow(x: tf.Tensor) -> tf.Tensor:
    return tf.sin(tf.exp(0.3 * RATE * x)) + DAMPING


def descending(x: tf.Tensor) -> tf.Tensor:
    """A step against the gradient of a function that holds an operator: its tangent needs the operator's second derivative."""
    operator = Exponential(SIZE)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(RATE * operator(0.3 * x) ** 2)
    return x - 0.1 * tape.gradient(value, x) * DAMPING


def descended(x: tf.Tensor) -> tf.Tensor:
    return x - 0.1 * DAMPING * RATE * 0.6 * tf.exp(0.6 * x)


def nested(x: tf.Tensor) -> tf.Tensor:
    return checkpointed_scan(plain, x, 2, strategy=Checkpointed(1))


STEPS_AND_THE_SAME: dict[str, tuple[Step, Step]] = {
    "custom gradient": (with_rule, without_rule),
    "accumulator": (accumulated, derived),
    "lu": (solved("lu"), solved_densely),
    "cg": (solved("cg"), solved_densely),
    "bicgstab": (solved("bicgstab"), solved_densely),
    "loop": (looping, looping),
    "branch": (branching, branching),
    "operator": (exponential(True), exponential_of_tensorflow),
    "scan": (nested, written_out(plain, 2)),
}


# In graphs all of them, where more goes wrong; CG is as BiCGSTAB.
EAGER = [("eager", name) for name in ("custom gradient", "accumulator", "lu", "operator")]
GRAPH = [("graph", name) for name in STEPS_AND_THE_SAME if name != "cg"]


@pytest.mark.parametrize(("run", "name"), [*EAGER, *GRAPH])
def test_derivatives_of_all_modes_for_steps_with_rules_of_their_own(run: str, name: str) -> None:
    step, same = STEPS_AND_THE_SAME[name]
    found = RUNS[run](lambda: [derivative(scanned(step)) for derivative in ALL])()
    for one, derivative in zip(found, ALL, strict=True):
        agree(one, derivative(written_out(same)))


@pytest.mark.parametrize("name", ["custom gradient", "cg", "operator", "scan"])
def test_forward_mode_of_such_steps_under_xla(name: str) -> None:
    step, same = STEPS_AND_THE_SAME[name]
    agree(tf.function(lambda: tangent(scanned(step)), jit_compile=True)(), tangent(written_out(same)))


def test_scans_within_scans_with_checkpoints() -> None:
    for derivative in (gradient, forward_over_reverse):
        agree(derivative(scanned(nested, 3, Checkpointed(2))), derivative(written_out(plain, 6)))


@pytest.mark.parametrize("run", RUNS)
def test_steps_with_a_tape_of_their_own_in_forward_mode(run: str) -> None:
    for derivative in (gradient, tangent):
        agree(RUNS[run](lambda f=derivative: f(scanned(descending)))(), derivative(written_out(descended)))


@pytest.mark.parametrize("run", RUNS)
def test_operators_that_are_once_differentiable_pass_forward_mode_and_refuse_more(run: str) -> None:
    mode, once = RUNS[run], exponential(False)
    for loop in (scanned(once), lambda x: checkpointed_scan(scanned(once, 2), x, 2)):
        for derivative in (gradient, tangent):
            agree(mode(lambda f=derivative, over=loop: f(over))(), derivative(written_out(exponential_of_tensorflow)))
    for derivative in (forward_over_reverse, reverse_over_reverse):
        with pytest.raises(ValueError, match="not twice differentiable"):
            mode(lambda f=derivative: f(scanned(once)))()


def test_complex_steps_in_forward_mode() -> None:
    """The step is no holomorphic function: its derivative is a real-linear map."""
    z, v = tf.complex(START, RATE), tf.complex(DIRECTIONS[0], DIRECTIONS[1])
    loop = scanned(lambda z: tf.exp(0.3j * z) * tf.math.conj(z) + tf.cast(tf.abs(z), z.dtype), 3, Checkpointed(2))
    with tf.autodiff.ForwardAccumulator(z, v) as forward:
        value = loop(z)
    h = 1e-5
    np.testing.assert_allclose(forward.jvp(value), (loop(z + h * v) - loop(z - h * v)) / (2 * h), rtol=1e-8)


CONTROL: dict[str, Callable[[Loop], Loop]] = {
    "map": lambda loop: lambda x: tf.reduce_sum(tf.map_fn(loop, tf.stack([x, 2 * x])), 0),
    "loop": lambda loop: lambda x: tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, loop(y)), (0, x), maximum_iterations=2)[1],
    "branch": lambda loop: lambda x: tf.cond(x[0] > -9.0, lambda: loop(x), lambda: x),
    "function": lambda loop: tf.function(loop),
}


@pytest.mark.parametrize("name", CONTROL)
def test_scans_within_loops_and_branches_of_a_graph(name: str) -> None:
    control = CONTROL[name]
    for derivative in (gradient, reverse_over_reverse):  # TensorFlow's accumulators do not pass loops that are in a graph
        agree(tf.function(lambda f=derivative: f(control(scanned(plain, 3, Checkpointed(2)))))(), derivative(control(written_out(plain, 3))))


def test_variables_count_with_their_values_at_the_start() -> None:
    """One that is assigned after the scan and before its derivatives changes nothing, as in TensorFlow's own loops."""
    counter, scale = tf.Variable(2), tf.Variable([2.0, 3.0], dtype=tf.float64)
    start, v = tf.constant([0.5, 0.7], tf.float64), tf.constant([1.0, -1.0], tf.float64)

    def step(x: tf.Tensor) -> tf.Tensor:
        return tf.sin(x * scale) * tf.cast(counter, tf.float64)

    def derivatives(loop: Loop) -> list[tf.Tensor]:
        counter.assign(2)
        scale.assign([2.0, 3.0])
        with tf.GradientTape() as outer:
            outer.watch(start)
            with tf.GradientTape() as tape:
                tape.watch(start)
                value = tf.reduce_sum(loop(start) ** 2)
            counter.assign(5)
            scale.assign([7.0, 8.0])
            first = tape.gradient(value, [start, scale])
            along = tf.add_n([tf.tensordot(part, v, 1) for part in first])
        scale.assign([0.0, 0.0])
        return [*first, *outer.gradient(along, [start, scale])]

    for strategy in (StoreAll(), Checkpointed(2)):
        agree(derivatives(scanned(step, 3, strategy)), derivatives(written_out(step, 3)))


def test_a_graph_that_assigns_a_variable_before_the_gradient_says_so() -> None:
    scale, start = tf.Variable(2.0), tf.constant([0.5, 0.7])

    def assigned(value: float) -> tf.Tensor:
        scale.assign(2.0)
        with tf.GradientTape() as tape:
            tape.watch(start)
            total = tf.reduce_sum(checkpointed_scan(lambda x: x * scale, start, 3))
        scale.assign(value)
        return tape.gradient(total, start)

    np.testing.assert_allclose(tf.function(assigned)(2.0), [8.0, 8.0])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"reading the variable .*Variable:0.*, which is assigned before the gradient"):
        tf.function(assigned)(3.0)
    assert np.all(np.isnan(tf.function(assigned, jit_compile=True)(3.0)))


DROPOUT = tf.keras.layers.Dropout(0.5, seed=0, dtype="float64")
GENERATOR = tf.random.Generator.from_seed(0)


@pytest.mark.parametrize(
    ("step", "what"),
    [
        (lambda x: x * tf.random.normal([SIZE], dtype=tf.float64), "draws random numbers"),
        (lambda x: tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, y * tf.random.uniform([], dtype=y.dtype)), (0, x))[1], "draws random"),
        (lambda x: tf.function(lambda y: tf.random.shuffle(y))(x), "draws random numbers"),
        (lambda x: x * GENERATOR.normal([SIZE], dtype=tf.float64), "changes a variable or a generator"),
        (lambda x: DROPOUT(x, training=True), "changes a variable or a generator"),
        (lambda x: DAMPING.assign_add(x) * x, "changes a variable"),
        (lambda x: tf.function(lambda y: y * DAMPING.assign(y))(x), "changes a variable"),
    ],
)
def test_steps_that_do_something_else_each_time_are_named(step: Step, what: str) -> None:
    with pytest.raises(ValueError, match=rf"'step' that {what}.* \(operation '.*', test_scan_steps.py:\d+\): must be the same each time"):
        checkpointed_scan(step, START, 3)


def test_stateless_random_numbers_are_the_same_each_time() -> None:
    def step(state: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        x, seed = state
        return tf.sin(RATE * x) * tf.random.stateless_normal([SIZE], seed, dtype=tf.float64), seed + 1

    seed = tf.constant([0, 1])
    loops = [lambda x: checkpointed_scan(step, (x, seed), STEPS, strategy=Checkpointed(2))[0], lambda x: written_out(step)((x, seed))[0]]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(START)
        found, expected = (loop(START) for loop in loops)
    agree([tape.gradient(found, START)], [tape.gradient(expected, START)])


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32])
def test_an_inverse_that_is_none_is_found_out(dtype: tf.DType) -> None:
    start = tf.cast(START, dtype)

    def step(pair: Any) -> Any:
        old, now = pair
        return now, 2 * now - old - 0.1 * now**3

    def undo(push: float) -> Step:
        return lambda pair: (2 * pair[0] - pair[1] - push * pair[0] ** 3, pair[0])

    def derivative(push: float) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(start)
            total = tf.reduce_sum(checkpointed_scan(step, (start, start), 100, strategy=Boundary(), inverse=undo(push))[1])
        return tape.gradient(total, start)

    derivative(0.1)
    tf.function(derivative)(0.1)
    with pytest.raises(ValueError, match="'inverse' that does not come back to the start: must be one that undoes the step"):
        derivative(0.11)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"inverse.* that does not come back to the start"):
        tf.function(lambda: derivative(0.11))()
    assert np.all(np.isnan(tf.function(lambda: derivative(0.11), jit_compile=True)()))


@pytest.mark.parametrize("given", [np.int64(5), np.int32(5)])
def test_whole_numbers_of_numpy_count_steps(given: Any) -> None:
    np.testing.assert_array_equal(checkpointed_scan(lambda x: x + 1, tf.zeros(2), given), [5.0, 5.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": True}, "'n' True: must be a whole number, 0 or more"),
        ({"n": 2.0}, "'n' 2.0: must be a whole number"),
        ({"strategy": StoreAll}, r"'strategy' <class .*StoreAll'>: must be StoreAll\(\), Checkpointed\(n\) or Boundary\(\)"),
        ({"strategy": 4}, r"'strategy' 4: must be StoreAll\(\)"),
    ],
)
def test_bad_input_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checkpointed_scan(plain, START, **({"n": 3} | options))


@pytest.mark.parametrize(("error", "message"), [(TypeError, "two of them"), (AttributeError, "no such layer"), (KeyError, "density")])
def test_errors_of_the_step_come_through_as_they_are(error: type[Exception], message: str) -> None:
    def step(x: tf.Tensor) -> tf.Tensor:
        raise error(message)

    with pytest.raises(error, match=message) as raised:
        checkpointed_scan(step, START, 3)
    assert type(raised.value) is error


def test_many_segments_are_traced_as_one_loop() -> None:
    """A thousand steps with two checkpoints: some five hundred segments, whose runs are not written out in the graph."""

    @tf.function
    def derivative(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(checkpointed_scan(lambda y: y + 1e-3 * tf.sin(y), x, 1000, strategy=Checkpointed(2)))
        return tape.gradient(total, x)

    assert len(derivative.get_concrete_function(START).graph.get_operations()) < 100
    x, slope = START.numpy(), np.ones(SIZE)
    for _ in range(1000):
        slope, x = slope * (1 + 1e-3 * np.cos(x)), x + 1e-3 * np.sin(x)
    np.testing.assert_allclose(derivative(START), slope, rtol=1e-12)
