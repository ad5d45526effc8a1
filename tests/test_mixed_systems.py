"""Operators among Keras layers, maps and control flow: derivatives of both modes and orders with respect to a network's weights.

Every number is held against finite differences in double precision, or against the same by another mode.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from geoinv.operators import AcousticWave, Acquisition, GravityPoisson, Grid
from geoinv.operators.seismic import Absorbing, wavelets
from geoinv.operators.sensitivity import Checkpointed, StoreAll, checkpointed_scan, linearization
from geoinv.operators.sparse import CSRMatrix

RUNS = {"eager": lambda f: f, "graph": tf.function, "xla": lambda f: tf.function(f, jit_compile=True)}
GRID = Grid.uniform((8, 12), (20.0, 20.0), (-160.0, 0.0))
SIDE = 9
SYSTEM = CSRMatrix.from_scipy(scipy.sparse.diags_array([-1.0, 2.5, -1.2], offsets=(-1, 0, 1), shape=(SIDE, SIDE)).tocsr())
Misfit = Callable[[], tf.Tensor]


def network(outputs: int, inputs: int = 3) -> keras.Model:
    """From a few latent numbers to a model, in double precision."""
    rng = np.random.default_rng(0)
    made = keras.Sequential(
        [keras.Input((inputs,), dtype="float64"), keras.layers.Dense(5, "tanh", dtype="float64"), keras.layers.Dense(outputs, dtype="float64")]
    )
    for each in made.weights:
        each.assign(0.5 * rng.standard_normal(each.shape))
    return made


def variables(net: keras.Model) -> list[tf.Variable]:
    return [each.value for each in net.trainable_variables]


def direction(weights: Sequence[tf.Variable]) -> list[tf.Tensor]:
    rng = np.random.default_rng(1)
    return [tf.constant(rng.standard_normal(each.shape)) for each in weights]


def gradient(misfit: Misfit, weights: Sequence[tf.Variable]) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        value = misfit()
    return tape.gradient(value, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def slope(misfit: Misfit, weights: Sequence[tf.Variable], v: Sequence[tf.Tensor]) -> tf.Tensor:
    with tf.autodiff.ForwardAccumulator(list(weights), list(v)) as accumulator:
        value = misfit()
    return accumulator.jvp(value, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def inner(a: Sequence[tf.Tensor], b: Sequence[tf.Tensor]) -> float:
    return float(sum(tf.reduce_sum(x * y) for x, y in zip(a, b, strict=True)))


def moved(misfit: Callable[[], Any], weights: Sequence[tf.Variable], v: Sequence[tf.Tensor], step: float) -> Any:
    """What a function of the weights is after a step along v; they are put back."""
    kept = [tf.identity(each) for each in weights]
    for each, change in zip(weights, v, strict=True):
        each.assign_add(step * change)
    try:
        return misfit()
    finally:
        for each, old in zip(weights, kept, strict=True):
            each.assign(old)


def central(function: Callable[[], Any], weights: Sequence[tf.Variable], v: Sequence[tf.Tensor], step: float = 1e-4) -> Any:
    """A central difference of the fourth order."""
    at = {k: tf.nest.flatten(moved(function, weights, v, k * step)) for k in (-2, -1, 1, 2)}
    return [(a - 8 * b + 8 * c - d) / (12 * step) for a, b, c, d in zip(*(at[k] for k in (-2, -1, 1, 2)), strict=True)]


def second(how: str, misfit: Misfit, weights: Sequence[tf.Variable], v: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The Hessian of the misfit times v."""
    if how == "forward over reverse":
        with tf.autodiff.ForwardAccumulator(list(weights), list(v)) as accumulator:
            found = gradient(misfit, weights)
        return [accumulator.jvp(each) for each in found]
    with tf.GradientTape() as tape:
        if how == "reverse over forward":
            value = slope(misfit, weights, v)
        else:
            value = tf.add_n([tf.reduce_sum(a * b) for a, b in zip(gradient(misfit, weights), v, strict=True)])
    return tape.gradient(value, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def gravity_system() -> tuple[Misfit, list[tf.Variable]]:
    """Latent numbers -> network -> bounded densities -> gravity -> misfit."""
    stations = {"easting": np.linspace(30, 210, 6), "northing": np.linspace(50, 70, 6), "upward": np.full(6, 15.0)}
    grid = Grid.uniform((5, 6, 12), (20.0, 20.0, 20.0), (-100.0, 0.0, 0.0))
    operator = GravityPoisson(grid, stations)
    net, latent = network(grid.size), tf.constant([[0.3, -0.2, 0.9]], tf.float64)
    observed = 1e-5 * tf.constant(np.random.default_rng(2).standard_normal((6, 1)))

    def misfit() -> tf.Tensor:
        density = 300 * tf.tanh(tf.reshape(net(latent), grid.shape))
        return tf.reduce_sum(((operator(density) - observed) / 1e-5) ** 2)

    return misfit, variables(net)


def solve_system() -> tuple[Misfit, list[tf.Variable]]:
    """A network whose outputs are added to the diagonal of a sparse system, and its right side; solved, and bent.

    The diagonal is placed by a product: through the gradient of a scatter, slices, TensorFlow's accumulators raise (2.21).
    """
    net, latent = network(2 * SIDE), tf.constant([[0.1, 0.5, -0.4]], tf.float64)
    rows, columns = np.asarray(SYSTEM.pattern.rows), np.asarray(SYSTEM.indices)
    placed = tf.constant((rows[:, None] == np.arange(SIDE)) & (rows == columns)[:, None], tf.float64)

    def misfit() -> tf.Tensor:
        diagonal, right = tf.split(net(latent)[0], 2)
        values = SYSTEM.values + tf.linalg.matvec(placed, tf.nn.softplus(diagonal))
        field = SYSTEM.with_values(values).solve(right)
        return tf.reduce_sum(tf.sin(field) ** 2)

    return misfit, variables(net)


def wave_system() -> tuple[Misfit, list[tf.Variable]]:
    """Latent numbers -> network -> bounded velocities -> waves -> misfit."""
    acquisition = Acquisition(np.array([[-30.0, 50.0], [-30.0, 170.0]]), np.stack([np.full(5, -20.0), np.linspace(30, 210, 5)], axis=1))
    wave = AcousticWave(
        GRID, acquisition, wavelets.ricker(15.0, 40, 0.004), dt=0.004, velocity_limits=(1500.0, 2500.0), boundary=Absorbing(6), dtype=tf.float64
    )
    net, latent = network(GRID.size), tf.constant([[0.3, -0.2, 0.9]], tf.float64)

    def misfit() -> tf.Tensor:
        velocity = 2000 + 400 * tf.tanh(tf.reshape(net(latent), GRID.shape))
        return tf.reduce_sum(wave({"velocity": velocity}) ** 2)

    return misfit, variables(net)


SYSTEMS = {"gravity": gravity_system, "solve": solve_system, "wave": wave_system}
TWICE = ("gravity", "solve")


@pytest.mark.filterwarnings("ignore:too few points per wavelength")
@pytest.mark.parametrize(
    ("name", "run"),
    [  # a sparse LU does not run in XLA
        *(("gravity", run) for run in RUNS), ("solve", "eager"), ("solve", "graph"),
        ("wave", "eager"), pytest.param("wave", "graph", marks=pytest.mark.slow), ("wave", "xla"),
    ],
)  # fmt: skip
def test_gradients_of_weights_behind_an_operator(name: str, run: str) -> None:
    misfit, weights = SYSTEMS[name]()
    v = direction(weights)
    (expected,) = central(misfit, weights, v)
    reverse = RUNS[run](lambda: gradient(misfit, weights))()
    assert inner(reverse, v) == pytest.approx(float(expected), rel=1e-8)
    forward = RUNS[run](lambda: slope(misfit, weights, v))()
    assert float(forward) == pytest.approx(inner(reverse, v), rel=1e-11)


@pytest.mark.parametrize("run", ["eager", "graph"])
@pytest.mark.parametrize("how", ["forward over reverse", "reverse over forward", "reverse over reverse"])
@pytest.mark.parametrize("name", TWICE)
def test_mixed_second_derivatives_of_weights(name: str, how: str, run: str) -> None:
    misfit, weights = SYSTEMS[name]()
    v = direction(weights)
    expected = central(lambda: gradient(misfit, weights), weights, v)
    found = RUNS[run](lambda: second(how, misfit, weights, v))()
    scale = max(float(tf.reduce_max(tf.abs(each))) for each in expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8 * scale)


@pytest.mark.filterwarnings("ignore:too few points per wavelength")
def test_second_derivatives_through_waves_are_refused() -> None:
    misfit, weights = wave_system()
    with pytest.raises(ValueError, match="not twice differentiable"):
        second("reverse over reverse", misfit, weights, direction(weights))


@pytest.mark.parametrize("run", ["eager", "graph"])
@pytest.mark.parametrize("method", ["lu", "triangular", "cg", "bicgstab"])
def test_the_tangent_of_a_solution_answers_to_the_matrix_and_the_right_side(method: str, run: str) -> None:
    """Of x = r / a the change is dr / a - r da / a^2, whose own derivatives by a and r are known: the second term's pass through x."""
    one = CSRMatrix.from_dense(np.eye(1))
    a, r, da, dr = (tf.constant([each], tf.float64) for each in (2.0, 3.0, 0.5, 0.7))

    def change() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([a, r])
            with tf.autodiff.ForwardAccumulator([a, r], [da, dr]) as accumulator:
                x = one.with_values(a).solve(r, method=method)
            value = accumulator.jvp(x)
        return [value, *tape.gradient(value, [a, r])]

    expected = 0.7 / 2 - 3 * 0.5 / 4, -0.7 / 4 + 2 * 3 * 0.5 / 8, -0.5 / 4
    np.testing.assert_allclose(tf.concat(RUNS[run](change)(), 0), expected, rtol=1e-12)


def test_products_of_segment_sums_are_tensors() -> None:
    groups = tf.constant([0, 0, 1, 2, 2, 2])
    at = linearization(lambda m: tf.math.segment_sum(m**2, groups), tf.range(1.0, 7.0))
    expected = np.add.reduceat(2 * np.arange(1.0, 7.0), [0, 2, 3])
    np.testing.assert_allclose(at.jvp(tf.ones(6)), expected)
    np.testing.assert_allclose(at.hessian_product(tf.ones(6), tf.ones(3)), 2.0)


# ------------------------------------------------------------------------------------------------------------ control flow


def branching(x: tf.Tensor, solved: tf.Tensor) -> tf.Tensor:
    """A product or a solve, as a tensor says, some times over."""
    field = tf.cond(solved, lambda: SYSTEM.solve(tf.tanh(x)), lambda: SYSTEM @ tf.sin(x))
    return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y - 0.1 * (SYSTEM @ y)), (0, field), maximum_iterations=3)[1]


@pytest.mark.parametrize("solved", [True, False])
def test_branches_and_loops_around_operators(solved: bool) -> None:
    x, v = (tf.constant(np.random.default_rng(i).standard_normal(SIDE)) for i in (3, 4))

    @tf.function
    def both(x: tf.Tensor, v: tf.Tensor, flag: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            with tf.GradientTape() as inner_tape:
                inner_tape.watch(x)
                value = tf.reduce_sum(branching(x, flag) ** 2)
            first = inner_tape.gradient(value, x)
            total = tf.reduce_sum(first * v)
        return first, tape.gradient(total, x)

    dense = SYSTEM.to_scipy().toarray()
    smooth = np.linalg.matrix_power(np.eye(SIDE) - 0.1 * dense, 3)
    matrix = smooth @ (np.linalg.inv(dense) if solved else dense)
    at = x.numpy()
    inside, slope_of, bend = (np.tanh(at), 1 - np.tanh(at) ** 2, -2 * np.tanh(at) * (1 - np.tanh(at) ** 2)) if solved else (
        np.sin(at), np.cos(at), -np.sin(at),
    )  # fmt: skip
    normal = 2 * matrix.T @ matrix
    first, hessian_product = both(x, v, tf.constant(solved))
    np.testing.assert_allclose(first, slope_of * (normal @ inside), rtol=1e-11)
    expected = slope_of * (normal @ (slope_of * v.numpy())) + bend * (normal @ inside) * v.numpy()
    np.testing.assert_allclose(hessian_product, expected, rtol=1e-10, atol=1e-12)


# --------------------------------------------------------------------------------------------- batches of other shapes


@pytest.mark.parametrize("jit_compile", [False, True])
def test_batches_of_any_size_are_traced_once(jit_compile: bool) -> None:
    """A layer, a sparse product and another layer for batches of 1 to 7: the gradients are those of each alone, summed."""
    net, traces = network(SIDE), []
    weights = variables(net)

    def total(latent: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.sin(SYSTEM @ tf.transpose(net(latent))) ** 2)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float64)], jit_compile=jit_compile)
    def of_batch(latent: tf.Tensor) -> list[tf.Tensor]:
        traces.append(1)
        return gradient(lambda: total(latent), weights)

    rng = np.random.default_rng(6)
    for count in (1, 4, 2, 7):
        latent = tf.constant(rng.standard_normal((count, 3)))
        alone = [gradient(lambda one=one: total(one), weights) for one in tf.split(latent, count)]
        for found, *parts in zip(of_batch(latent), *alone, strict=True):
            np.testing.assert_allclose(found, np.sum(parts, axis=0), rtol=1e-10, atol=1e-12)
    assert len(traces) == 1
    v = direction(weights)
    expected = central(lambda: total(latent), weights, v)
    assert inner(of_batch(latent), v) == pytest.approx(float(expected[0]), rel=1e-8)


def test_keras_trains_through_an_operator_on_uneven_batches() -> None:
    """model.fit with a loss that contains an operator, on batches of 4, 4 and 2: the loss of a linear problem falls to nothing."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(7)
    x, truth = rng.standard_normal((10, 3)), rng.standard_normal((3, SIDE))
    dense = SYSTEM.to_scipy().toarray()
    net = keras.Sequential([keras.Input((3,), dtype="float64"), keras.layers.Dense(SIDE, use_bias=False, dtype="float64")])

    def loss(observed: tf.Tensor, models: tf.Tensor) -> tf.Tensor:
        observed, models = (tf.cast(each, tf.float64) for each in (observed, models))  # Keras hands on its own default precision
        return tf.reduce_mean((observed - tf.transpose(SYSTEM @ tf.transpose(models))) ** 2)

    net.compile(optimizer=keras.optimizers.Adam(0.05), loss=loss)
    losses = net.fit(x, x @ truth @ dense.T, epochs=200, batch_size=4, verbose=0).history["loss"]
    assert losses[-1] < 1e-4 * losses[0]
    np.testing.assert_allclose(net.weights[0].numpy(), truth, atol=0.1)


class Recurrent(keras.layers.Layer):
    """A layer that is a loop: written out, scanned, or with checkpoints."""

    def __init__(self, loop: str, **options: Any) -> None:
        super().__init__(**options)
        self.loop = loop

    def build(self, shape: Sequence[int]) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), initializer=keras.initializers.RandomNormal(stddev=0.3, seed=1))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        def step(state: tf.Tensor) -> tf.Tensor:
            return tf.tanh(tf.matmul(state, self.kernel)) + 0.1 * x

        if self.loop == "written out":
            return functools.reduce(lambda state, _: step(state), range(5), x)
        return checkpointed_scan(step, x, 5, strategy=StoreAll() if self.loop == "all" else Checkpointed(2))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("loop", ["all", "checkpoints"])
def test_layers_that_scan_train_under_mixed_precision(policy: str, loop: str) -> None:
    """As those written out do, on batches of any size: variables are cast as they are in the layer, by derivatives too."""
    data, weights = np.random.default_rng(0).normal(size=(2, 10, 3)).astype("float32"), []
    for each in ("written out", loop):
        keras.utils.set_random_seed(0)
        network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, dtype=policy), Recurrent(each, dtype=policy)])
        network.compile("sgd", "mse", jit_compile=False)
        network.fit(*data, batch_size=4, epochs=2, verbose=0, shuffle=False)
        weights.append(network.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6 if policy == "float32" else 2e-3)
