"""Sparse products as users of TensorFlow write them: any number of columns, unknown sizes, loops, layers, tapes of all kinds."""

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from geoinv.operators.sparse import CSRMatrix, SparseOperator

RUNS = {"eager": lambda f: f, "graph": tf.function, "xla": lambda f: tf.function(f, jit_compile=True)}
MATRIX = CSRMatrix.from_scipy(scipy.sparse.random_array((7, 5), density=0.5, rng=np.random.default_rng(0)))
SQUARE = CSRMatrix.from_dense(np.diag([2.0, -1.0, 0.5]) + np.diag([0.3, 0.4], 1))
DENSE, DENSE_SQUARE = MATRIX.to_scipy().toarray(), SQUARE.to_scipy().toarray()
AT = MATRIX.pattern.rows, MATRIX.indices
RNG = np.random.default_rng(1)


def of_values(values: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """The gradient of <y, A X> with respect to the values: sampled over all columns."""
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = tf.reduce_sum(y * (MATRIX.with_values(values) @ x))
    return tape.gradient(total, values)


@pytest.mark.parametrize("run", RUNS)
def test_gradient_of_values_for_any_number_of_columns(run: str) -> None:
    function = RUNS[run](of_values)
    for k in (0, 1, 31, 32, 33, 65, 100):
        x, y = RNG.normal(size=(5, k)), RNG.normal(size=(7, k))
        np.testing.assert_allclose(function(MATRIX.values, tf.constant(x), tf.constant(y)), (y @ x.T)[AT], atol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
def test_gradient_of_values_for_a_number_of_columns_that_is_not_known(compiled: bool) -> None:
    signature = [tf.TensorSpec([None], tf.float64), tf.TensorSpec([None, None], tf.float64), tf.TensorSpec([None, None], tf.float64)]
    function = tf.function(of_values, jit_compile=compiled, input_signature=signature)
    for k in (1, 5, 33, 100):
        x, y = RNG.normal(size=(5, k)), RNG.normal(size=(7, k))
        np.testing.assert_allclose(function(MATRIX.values, tf.constant(x), tf.constant(y)), (y @ x.T)[AT], atol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("shape", [(4,), (9,), (4, 2), (9, 2)])
def test_a_length_that_is_known_only_at_run_time_is_checked(shape: tuple[int, ...], compiled: bool) -> None:
    function = tf.function(lambda x: MATRIX @ x, jit_compile=compiled, input_signature=[tf.TensorSpec([None] * len(shape), tf.float64)])
    np.testing.assert_allclose(function(tf.ones([5, *shape[1:]], tf.float64)), DENSE @ np.ones([5, *shape[1:]]))
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        function(tf.ones(shape, tf.float64))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_number_of_values_that_is_known_only_at_run_time_is_checked(compiled: bool) -> None:
    function = tf.function(lambda v: MATRIX.with_values(v) @ np.ones(5), jit_compile=compiled, input_signature=[tf.TensorSpec([None], tf.float64)])
    np.testing.assert_allclose(function(MATRIX.values), DENSE @ np.ones(5))
    for size in (MATRIX.nnz - 1, MATRIX.nnz + 2):
        with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
            function(tf.ones([size], tf.float64))


def test_unknown_rank_is_named() -> None:
    with pytest.raises(ValueError, match="Invalid 'x' of unknown rank: must be of known rank"):
        tf.function(lambda x: MATRIX @ x, input_signature=[tf.TensorSpec(None, tf.float64)]).get_concrete_function()


def test_batches_of_unknown_size() -> None:
    function = tf.function(lambda x: MATRIX @ x, input_signature=[tf.TensorSpec([None, None, None], tf.float64)])
    x = RNG.normal(size=(3, 5, 2))
    np.testing.assert_allclose(function(tf.constant(x)), DENSE @ x, atol=1e-13)


def test_complex_numbers_are_not_cut_to_their_real_parts() -> None:
    for product in (lambda x: MATRIX @ x, lambda x: SQUARE.solve(x[:3]), MATRIX.matvec):
        with pytest.raises(ValueError, match="of dtype complex128"):
            product(np.ones(5) * (1 + 1j))


@pytest.mark.parametrize("run", RUNS)
def test_variables_as_operands(run: str) -> None:
    for shape, product, twin in (
        ((5,), lambda v: MATRIX @ v, DENSE), ((5, 2), lambda v: MATRIX @ v, DENSE), ((7,), MATRIX.rmatvec, DENSE.T),
        ((3, 2), SQUARE.solve, np.linalg.inv(DENSE_SQUARE)),
    ):  # fmt: skip
        if run == "xla" and product == SQUARE.solve:
            continue  # runs on the host
        variable = tf.Variable(RNG.normal(size=shape))

        def gradient(product: Callable[[Any], tf.Tensor] = product, variable: tf.Variable = variable) -> tf.Tensor:
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(product(variable) ** 2)
            return tape.gradient(total, variable)

        np.testing.assert_allclose(RUNS[run](gradient)(), 2 * twin.T @ twin @ variable.numpy(), atol=1e-12)


CUBES: dict[str, tuple[Callable[[tf.Tensor], tf.Tensor], np.ndarray]] = {
    "product": (lambda z: tf.reduce_sum((SQUARE @ z) ** 3), DENSE_SQUARE),
    "transpose": (lambda z: tf.reduce_sum((SQUARE.T @ z) ** 3), DENSE_SQUARE.T),
    "matrix product": (lambda z: tf.reduce_sum(((SQUARE @ SQUARE) @ z) ** 3), DENSE_SQUARE @ DENSE_SQUARE),
    "solve": (lambda z: tf.reduce_sum(SQUARE.solve(z) ** 3), np.linalg.inv(DENSE_SQUARE)),
    "operator": (lambda z: tf.reduce_sum(SparseOperator(SQUARE)(z) ** 3), DENSE_SQUARE),
}


@pytest.mark.parametrize("name", CUBES)
def test_two_tapes_outside_a_function(name: str) -> None:
    function, dense = CUBES[name]
    z, traced = tf.constant([0.5, -1.0, 2.0], tf.float64), tf.function(function)
    with tf.GradientTape() as outer:
        outer.watch(z)
        with tf.GradientTape() as inner:
            inner.watch(z)
            value = traced(z)
        first = inner.gradient(value, z)
    expected = 6 * dense.T @ ((dense @ z.numpy()) * (dense @ np.ones(3)))
    np.testing.assert_allclose(outer.gradient(first, z), expected, rtol=1e-10)


def looped(z: tf.Tensor) -> tf.Tensor:
    return tf.while_loop(lambda i, _: i < 3, lambda i, u: (i + 1, SQUARE @ u), (0, z), maximum_iterations=3)[1]


def by_autograph(z: tf.Tensor) -> tf.Tensor:
    for _ in tf.range(3):
        z = SQUARE @ z
    return z


def mapped(z: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.map_fn(lambda u: SQUARE @ (SQUARE @ (SQUARE @ u)), tf.stack([z, 0 * z])), axis=0)


def branched(z: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.reduce_sum(z) > 0, lambda: SQUARE @ (SQUARE @ (SQUARE @ z)), lambda: 0 * z)


def solved_in_a_loop(z: tf.Tensor) -> tf.Tensor:
    back = tf.while_loop(lambda i, _: i < 2, lambda i, u: (i + 1, SQUARE.solve(u, method="bicgstab")), (0, z), maximum_iterations=2)[1]
    return SQUARE @ (SQUARE @ (SQUARE @ (SQUARE @ (SQUARE @ back))))


FUNCTIONS = (looped, by_autograph, mapped, branched, solved_in_a_loop)


def control_flow() -> list:
    """Every (function, execution); in the quick suite the graph that XLA compiles runs uncompiled for one that loops and one that solves."""
    found = []
    for function, run in itertools.product(FUNCTIONS, RUNS):
        slow = (run == "graph" and function not in (by_autograph, solved_in_a_loop)) or (run == "eager" and function is solved_in_a_loop)
        found.append(pytest.param(function, run, marks=[pytest.mark.slow] * slow))
    return found


@pytest.mark.parametrize(("function", "run"), control_flow())
def test_gradients_through_control_flow(function: Callable[[tf.Tensor], tf.Tensor], run: str) -> None:
    def gradient(z: tf.Tensor, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([z, values])
            total = tf.reduce_sum(function(z) ** 2) + tf.reduce_sum(values)
        return tape.gradient(total, [z, values])

    cube, z = np.linalg.matrix_power(DENSE_SQUARE, 3), np.array([0.5, -0.3, 2.0])
    found, _ = RUNS[run](gradient)(tf.constant(z), SQUARE.values)
    np.testing.assert_allclose(found, 2 * cube.T @ cube @ z, rtol=1e-8)


LARGE = CSRMatrix.from_scipy(0.3 * scipy.sparse.random_array((200, 200), density=0.02, rng=np.random.default_rng(4)))
assert LARGE.nnz > 128  # up to so many numbers TensorFlow copies an index array into each graph; a larger one must be handed in


def values_in_a_loop(values: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    step = lambda i, u: (i + 1, LARGE.with_values(values) @ (LARGE.T @ u))  # noqa: E731
    return tf.while_loop(lambda i, _: i < 2, step, (0, z), maximum_iterations=2)[1]


def values_in_a_branch(values: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.reduce_sum(z) > -1e9, lambda: LARGE.with_values(values) @ (LARGE.T @ z), lambda: z)


def values_in_a_map(values: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(lambda u: LARGE.with_values(values) @ u, tf.stack([z, 2 * z]))


def densely(function: Callable[..., tf.Tensor], values: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """The same with dense TensorFlow."""
    matrix = tf.scatter_nd(np.stack([LARGE.pattern.rows, LARGE.indices], axis=1), values, LARGE.shape)
    fixed = LARGE.to_scipy().toarray().T
    if function is values_in_a_map:
        return tf.stack([z, 2 * z]) @ tf.transpose(matrix)
    for _ in range(2 if function is values_in_a_loop else 1):
        z = tf.linalg.matvec(matrix, tf.linalg.matvec(fixed, z))
    return z


IN_LARGE = (values_in_a_loop, values_in_a_branch, values_in_a_map)


@pytest.mark.parametrize(
    ("function", "run"),
    [*((f, "xla") for f in IN_LARGE), *(pytest.param(f, "graph", marks=[pytest.mark.slow] * (f is not values_in_a_loop)) for f in IN_LARGE)],
)
def test_first_and_second_derivatives_through_control_flow(function: Callable[..., tf.Tensor], run: str) -> None:
    def derivatives(of: Callable[..., tf.Tensor], values: tf.Tensor, z: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as outer:
            outer.watch([values, z])
            with tf.GradientTape() as inner:
                inner.watch([values, z])
                total = tf.reduce_sum(of(values, z) ** 3)
            first = inner.gradient(total, [values, z])
            again = tf.add_n([tf.reduce_sum(part**2) for part in first])
        return [*first, *outer.gradient(again, [values, z])]

    # A copy: the values of the matrix itself also stand in its transpose, which is held fixed.
    values, z = tf.identity(LARGE.values) + 0.0, tf.constant(np.random.default_rng(5).normal(size=200))
    found = RUNS[run](lambda v, z: derivatives(function, v, z))(values, z)
    expected = derivatives(lambda v, z: densely(function, v, z), values, z)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10 * np.abs(b).max())


@pytest.mark.parametrize("run", ["eager", "graph", "xla"])
def test_jacobians_and_vectorized_maps(run: str) -> None:
    def jacobian(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = MATRIX @ x
        return tape.jacobian(y, x, experimental_use_pfor=run != "xla")

    np.testing.assert_allclose(RUNS[run](jacobian)(tf.ones(5, tf.float64)), DENSE, atol=1e-13)
    values = tf.stack([MATRIX.values, 2 * MATRIX.values])
    found = tf.vectorized_map(lambda v: MATRIX.with_values(v) @ np.ones(5), values)
    np.testing.assert_allclose(found, np.outer([1, 2], DENSE.sum(axis=1)), atol=1e-13)


def test_functions_run_eagerly() -> None:
    fresh, x = CSRMatrix.from_dense(DENSE), RNG.normal(size=(5, 3))
    tf.config.run_functions_eagerly(True)
    try:
        np.testing.assert_allclose(fresh @ x, DENSE @ x, atol=1e-13)
        np.testing.assert_allclose(fresh.T @ (fresh @ x[:, 0]), DENSE.T @ DENSE @ x[:, 0], atol=1e-13)
    finally:
        tf.config.run_functions_eagerly(False)


@keras.saving.register_keras_serializable()
class SparseLayer(keras.layers.Layer):
    """``x A(weights)^T`` for a batch of unknown size."""

    def build(self, _: Any) -> None:
        self.weight = self.add_weight(shape=(MATRIX.nnz,), initializer="zeros", name="weight", dtype="float64")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.transpose(MATRIX.with_values(tf.convert_to_tensor(self.weight)) @ tf.transpose(x))


def test_a_layer_learns_a_matrix() -> None:
    x = np.random.default_rng(3).normal(size=(50, 5))
    layer = SparseLayer(dtype="float64")
    model = keras.Sequential([keras.Input((5,), dtype="float64"), layer])
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss="mse")
    losses = model.fit(x, x @ DENSE.T, epochs=40, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 1e-3 * losses[0]
    np.testing.assert_allclose(layer.weight.numpy(), MATRIX.values, atol=0.05)


def test_copies_and_pickles() -> None:
    matrix = CSRMatrix.from_dense(DENSE)
    matrix @ np.ones(5)
    for twin in (copy.deepcopy(matrix), pickle.loads(pickle.dumps(matrix))):
        np.testing.assert_array_equal(twin.to_scipy().toarray(), DENSE)
        np.testing.assert_allclose(twin @ np.ones(5), DENSE @ np.ones(5))


def test_shown_in_a_line() -> None:
    assert repr(MATRIX) == f"CSRMatrix(7 x 5, {MATRIX.nnz} entries, float64)"


def test_other_operands() -> None:
    np.testing.assert_allclose((SQUARE + SQUARE.T).to_scipy().toarray(), DENSE_SQUARE + DENSE_SQUARE.T)
    np.testing.assert_allclose((SQUARE - SQUARE.T).to_scipy().toarray(), DENSE_SQUARE - DENSE_SQUARE.T)
    with pytest.raises(ValueError, match="SciPy sparse matrix: must be an array, a tensor or a CSRMatrix"):
        SQUARE @ SQUARE.to_scipy()
    with pytest.raises(ValueError, match="Invalid 'x'"):
        SQUARE @ ["a", "b", "c"]
