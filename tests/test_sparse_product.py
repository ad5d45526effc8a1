"""The derivatives of sparse products, in every mode and execution, against dense TensorFlow."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators.sparse import CSRMatrix
from geoinv.operators.sparse import entries as sparse_entries
from geoinv.operators.sparse import product as sparse_product

Function = Callable[..., tf.Tensor]
DTYPES = {"float32": 2e-5, "float64": 1e-12, "complex128": 1e-12, "complex64": 2e-5}
#: Without AutoGraph, which would convert the tests too; with it: test_sparse_in_tensorflow.py.
RUNS = {
    "eager": lambda f: f,
    "graph": lambda f: tf.function(f, autograph=False),
    "xla": lambda f: tf.function(f, autograph=False, jit_compile=True),
}
ROWS, COLUMNS, WIDTH = 5, 4, 3


def random(seed: int, shape: tuple[int, ...], dtype: str) -> tf.Tensor:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    return tf.constant(values + 1j * rng.normal(size=shape) if dtype.startswith("complex") else values, dtype)


def pattern() -> CSRMatrix:
    dense = np.random.default_rng(0).uniform(size=(ROWS, COLUMNS)) < 0.5
    dense[2] = False  # an empty row
    return CSRMatrix.from_dense(dense.astype(float))


def cases(dtype: str) -> dict[str, tuple[Function, Function, list[tf.Tensor]]]:
    """Each primitive, its dense twin, and arguments."""
    matrix = pattern()
    entries, places = matrix.pattern.entries, np.stack([matrix.pattern.rows, matrix.indices], axis=1)
    values, x, y = random(1, (matrix.nnz,), dtype), random(2, (COLUMNS, WIDTH), dtype), random(3, (ROWS, WIDTH), dtype)

    def dense(v: tf.Tensor) -> tf.Tensor:
        return tf.scatter_nd(places, v, [ROWS, COLUMNS])

    return {
        "product": (lambda v, b: sparse_product.product(entries, v, b), lambda v, b: dense(v) @ b, [values, x]),
        "transposed": (lambda v, b: sparse_product.transposed_product(entries, v, b), lambda v, b: tf.transpose(dense(v)) @ b, [values, y]),
        "sampled": (lambda a, b: sparse_product.sampled_product(entries, a, b), lambda a, b: tf.gather_nd(a @ tf.transpose(b), places), [y, x]),
    }


def gradients(function: Function, arguments: list[tf.Tensor]) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        result = function(*arguments)
        # Nonlinear in the result, so that second derivatives exercise every term.
        total = tf.reduce_sum(tf.abs(result) ** 2) + tf.math.real(tf.reduce_sum(result**3))
    return tape.gradient(total, arguments)


def tangents(arguments: list[tf.Tensor]) -> list[tf.Tensor]:
    return [random(10 + i, tuple(argument.shape), argument.dtype.name) for i, argument in enumerate(arguments)]


def reverse(function: Function, arguments: list[tf.Tensor]) -> list[tf.Tensor]:
    return gradients(function, arguments)


def forward(function: Function, arguments: list[tf.Tensor]) -> list[tf.Tensor]:
    with tf.autodiff.ForwardAccumulator(arguments, tangents(arguments)) as accumulator:
        result = function(*arguments)
    return [accumulator.jvp(result)]


def forward_over_reverse(function: Function, arguments: list[tf.Tensor]) -> list[tf.Tensor]:
    with tf.autodiff.ForwardAccumulator(arguments, tangents(arguments)) as accumulator:
        result = gradients(function, arguments)
    return [accumulator.jvp(part) for part in result]


def reverse_over_reverse(function: Function, arguments: list[tf.Tensor]) -> list[tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        parts = gradients(function, arguments)
        total = tf.add_n([tf.math.real(tf.reduce_sum(tf.math.conj(part) * v)) for part, v in zip(parts, tangents(arguments), strict=True)])
    return tape.gradient(total, arguments)


MODES = (reverse, forward, forward_over_reverse, reverse_over_reverse)


def every_mode(function: Function, arguments: list[tf.Tensor]) -> list[tf.Tensor]:
    return [part for mode in MODES for part in mode(function, arguments)]


def assert_close(found: list[tf.Tensor], expected: list[tf.Tensor], tolerance: float) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a is not None
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


def pairs() -> list:
    """Every (dtype, name, execution); the quick half of them holds every pair of two."""
    names, dtypes = ("product", "transposed", "sampled"), ("float64", "complex128")
    return [
        pytest.param(dtype, name, run, marks=[pytest.mark.slow] * ((i + j + k) % 2))
        for (i, dtype), (j, name), (k, run) in itertools.product(enumerate(dtypes), enumerate(names), enumerate(RUNS))
    ]


@pytest.mark.parametrize(("dtype", "name", "run"), pairs())
def test_every_mode_and_execution_equals_dense(dtype: str, name: str, run: str) -> None:
    function, twin, arguments = cases(dtype)[name]
    found = RUNS[run](lambda *args: every_mode(function, list(args)))(*arguments)
    assert_close(found, every_mode(twin, arguments), DTYPES[dtype])


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "complex64"])
def test_single_precision(dtype: str) -> None:
    for function, twin, arguments in cases(dtype).values():
        assert_close(every_mode(function, arguments), every_mode(twin, arguments), DTYPES[dtype])


@pytest.mark.parametrize("run", RUNS)
def test_blocks_of_columns_change_nothing(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_entries, "BLOCK_BYTES", 2 * 8 * pattern().nnz)  # two of the three columns at once
    all_cases = cases("float64").values()
    found = RUNS[run](lambda *args: [part for (f, _, _), each in zip(all_cases, args, strict=True) for part in forward_over_reverse(f, each)])
    expected = [part for _, twin, each in all_cases for part in forward_over_reverse(twin, each)]
    assert_close(found(*[each for _, _, each in all_cases]), expected, 1e-12)


def test_reverse_from_outside_a_compiled_function_with_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_entries, "BLOCK_BYTES", 1)
    for function, twin, arguments in cases("float64").values():
        assert_close(reverse(tf.function(function, jit_compile=True), arguments), reverse(twin, arguments), 1e-12)


@pytest.mark.parametrize("run", ["graph", "xla"])
def test_forward_mode_from_outside_a_function(run: str) -> None:
    for function, twin, arguments in cases("float64").values():
        assert_close(forward(RUNS[run](function), arguments), forward(twin, arguments), 1e-12)


@pytest.mark.parametrize("run", RUNS)
def test_a_gradient_that_arrives_for_some_rows_only(run: str) -> None:
    """What is gathered from a result comes back as IndexedSlices."""
    matrix, x = pattern(), random(2, (COLUMNS, WIDTH), "float64")
    some = tf.constant([3, 0, 3])

    def gradient(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(tf.gather(matrix @ x, some))
        return tape.gradient(total, x)

    expected = matrix.to_scipy()[[3, 0, 3]].sum(axis=0)
    np.testing.assert_allclose(RUNS[run](gradient)(x), np.tile(expected[:, np.newaxis], WIDTH), atol=1e-14)


def test_unknown_number_of_columns() -> None:
    matrix = pattern()
    traced = tf.function(matrix.matmat, input_signature=[tf.TensorSpec([COLUMNS, None], tf.float64)])
    x = random(2, (COLUMNS, 7), "float64")
    np.testing.assert_allclose(traced(x), matrix.to_scipy() @ x.numpy())
