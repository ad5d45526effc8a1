"""Sums, products, scalings, selections and conversions of sparse matrices: derivatives in every mode, work done once, errors."""

import functools
import gc
import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from test_sparse_product import DTYPES, assert_close, every_mode, random

from geoinv.operators.sparse import CSRMatrix, Pattern, algebra, buckets, convert, memory

Function = Callable[..., tf.Tensor]
HUGE = 2**40
RUNS = {
    "eager": lambda f: f,
    "graph": lambda f: tf.function(f, autograph=False),
    "xla": lambda f: tf.function(f, autograph=False, jit_compile=True),
}


def matrix(seed: int, shape: tuple[int, int], dtype: str = "float64") -> CSRMatrix:
    """A random matrix with an empty row and an empty column."""
    present = np.random.default_rng(seed).uniform(size=shape) < 0.5
    present[2], present[:, 1] = False, False
    return CSRMatrix.from_dense(present.astype(float)).with_values(random(seed + 1, (int(present.sum()),), dtype))


def dense(a: CSRMatrix, values: tf.Tensor) -> tf.Tensor:
    return tf.scatter_nd(np.stack([a.pattern.rows, a.indices], axis=1), values, a.shape)


def at_entries(result: CSRMatrix, full: tf.Tensor) -> tf.Tensor:
    return tf.gather_nd(full, np.stack([result.pattern.rows, result.indices], axis=1))


def made_dense(x: tf.Tensor) -> tf.Tensor:
    """x, with a gradient that is no IndexedSlices, of which `ForwardAccumulator.jvp` takes none."""
    return tf.reshape(x, x.shape)


@functools.cache
def cases(dtype: str) -> dict[str, tuple[Function, Function, list[tf.Tensor]]]:
    """Each operation on values, its dense twin, and arguments."""
    a, b, c = matrix(0, (5, 4), dtype), matrix(1, (5, 4), dtype), matrix(2, (4, 6), dtype)
    summed, multiplied = algebra.add(a, b), algebra.multiply(a, c)
    by_row, by_column, factor = random(7, (5,), dtype), random(8, (4,), dtype), random(9, (), dtype)
    rows, duplicates = [4, 0, 0, 2], (np.array([3, 0, 3, 1, 3]), np.array([1, 2, 1, 0, 0]))
    chosen = buckets.select_rows(a, rows)
    columns, small = buckets.compressed(a)
    gathered = convert.from_coo(*duplicates, np.ones(5), (5, 4))[0]

    return {
        "add": (
            lambda v, w: algebra.add(a.with_values(v), b.with_values(w)).values,
            lambda v, w: at_entries(summed, dense(a, v) + dense(b, w)),
            [a.values, b.values],
        ),
        "add to itself": (
            lambda v, w: algebra.add(a.with_values(v), a.with_values(w)).values,
            lambda v, w: v + w,
            [a.values, random(6, (a.nnz,), dtype)],
        ),
        "multiply": (
            lambda v, w: algebra.multiply(a.with_values(v), c.with_values(w)).values,
            lambda v, w: at_entries(multiplied, dense(a, v) @ dense(c, w)),
            [a.values, c.values],
        ),
        "scale": (
            lambda v, s: algebra.scale(a.with_values(v), s).values,
            lambda v, s: v * s,
            [a.values, factor],
        ),
        "scale_rows": (
            lambda v, d: algebra.scale_rows(a.with_values(v), d).values,
            lambda v, d: at_entries(a, d[:, tf.newaxis] * dense(a, v)),
            [a.values, by_row],
        ),
        "scale_columns": (
            lambda v, d: algebra.scale_columns(a.with_values(v), d).values,
            lambda v, d: at_entries(a, dense(a, v) * d),
            [a.values, by_column],
        ),
        "select_rows": (
            lambda v: buckets.select_rows(a.with_values(made_dense(v)), rows).values,
            lambda v: at_entries(chosen, tf.gather(dense(a, v), rows)),
            [a.values],
        ),
        "compressed": (
            lambda v, x: small.with_values(v) @ tf.gather(made_dense(x), columns),
            lambda v, x: tf.linalg.matvec(dense(a, v), x),
            [a.values, by_column],
        ),
        "from_coo": (
            lambda v: convert.from_coo(*duplicates, v, (5, 4))[1],
            lambda v: tf.gather_nd(tf.scatter_nd(np.stack(duplicates, axis=1), v, (5, 4)), np.stack([gathered.rows, gathered.indices], axis=1)),
            [random(3, (5,), dtype)],
        ),
        "from_coo without duplicates": (
            lambda v: convert.from_coo([3, 0, 1, 3], [2, 0, 3, 1], v, (5, 4))[1],
            lambda v: tf.linalg.matvec(tf.cast(np.eye(4)[[1, 2, 3, 0]], v.dtype), v),
            [random(4, (4,), dtype)],
        ),
    }  # fmt: skip


@functools.cache
def expected(name: str, dtype: str) -> list[tf.Tensor]:
    _, twin, arguments = cases(dtype)[name]
    return every_mode(twin, arguments)


def executions() -> list:
    """Every (operation, execution); in the quick suite the graph that XLA compiles runs uncompiled for the sum and the product."""
    pairs = itertools.product(cases("float64"), RUNS)
    return [pytest.param(*pair, marks=[pytest.mark.slow] * (pair[1] == "graph" and pair[0] not in ("add", "multiply"))) for pair in pairs]


@pytest.mark.parametrize(("name", "run"), executions())
def test_every_mode_and_execution_equals_dense(name: str, run: str) -> None:
    function, _, arguments = cases("float64")[name]
    found = RUNS[run](lambda *args: every_mode(function, list(args)))(*arguments)
    assert_close(found, expected(name, "float64"), DTYPES["float64"])


@pytest.mark.parametrize("name", ["add", "multiply", "scale_rows", "select_rows"])
def test_every_mode_in_complex(name: str) -> None:
    function, _, arguments = cases("complex128")[name]
    assert_close(every_mode(function, arguments), expected(name, "complex128"), DTYPES["complex128"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_equal_scipy(dtype: str) -> None:
    a, b, c = matrix(0, (5, 4), dtype), matrix(1, (5, 4), dtype), matrix(2, (4, 6), dtype)
    of_a, of_b, of_c = (each.to_scipy() for each in (a, b, c))
    by_row, by_column = random(3, (5,), dtype), random(4, (4,), dtype)
    pairs = [
        (algebra.add(a, b), of_a + of_b),
        (algebra.multiply(a, c), of_a @ of_c),
        (algebra.scale(a, -3), -3 * of_a),
        (algebra.scale_rows(a, by_row), scipy.sparse.diags_array(by_row.numpy()) @ of_a),
        (algebra.scale_columns(a, by_column), of_a @ scipy.sparse.diags_array(by_column.numpy())),
        (buckets.select_rows(a, [3, 3, 2]), of_a[[3, 3, 2]]),
    ]
    for found, other in pairs:
        assert found.dtype.name == dtype
        np.testing.assert_allclose(found.to_scipy().toarray(), other.toarray(), rtol=DTYPES[dtype], atol=DTYPES[dtype])


def test_cancelled_entries_stay_in_the_pattern() -> None:
    a = matrix(0, (5, 4))
    zero = algebra.add(a, algebra.scale(a, -1))
    assert zero.pattern is a.pattern
    np.testing.assert_array_equal(zero.values, np.zeros(a.nnz))


def test_the_result_of_the_same_patterns_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = matrix(0, (5, 4)), matrix(1, (5, 4)), matrix(2, (4, 6))
    made: list[Any] = []
    monkeypatch.setattr(algebra, "Pattern", lambda *args: made.append(args) or Pattern(*args))
    first = algebra.add(a, b), algebra.multiply(a, c)
    assert len(made) == 3  # the sum's, the product's, and that of its terms
    traced = tf.function(lambda v: algebra.add(a.with_values(v), b).values)
    again = algebra.add(a.with_values(2 * a.values), b), algebra.multiply(a.with_values(2 * a.values), c)
    np.testing.assert_array_equal(traced(2 * a.values), again[0].values)
    assert len(made) == 3
    assert all(one.pattern is other.pattern for one, other in zip(first, again, strict=True))


def test_threads_find_a_result_once(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = matrix(0, (5, 4)), matrix(1, (5, 4))
    made: list[Any] = []
    monkeypatch.setattr(algebra, "Pattern", lambda *args: made.append(args) or Pattern(*args))
    start = threading.Barrier(4)
    threads = [threading.Thread(target=lambda: (start.wait(), algebra.add(a, b))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_kept_results_go_with_their_patterns() -> None:
    a, b, c = matrix(0, (5, 4)), matrix(1, (5, 4)), matrix(2, (4, 6))
    results = [algebra.add(a, b).pattern, algebra.multiply(a, c).pattern, buckets.compressed(a)[1].pattern]
    watched = [weakref.ref(each) for each in (a.pattern, *results)]
    del a, results
    gc.collect()
    assert [each() for each in watched] == [None] * 4


def test_what_is_kept_is_made_without_holding_up_other_patterns() -> None:
    a, b = matrix(0, (5, 4)).pattern, matrix(1, (5, 4)).pattern
    inside, other_done, calls = threading.Event(), threading.Event(), []

    @memory.kept
    def slow(pattern: Pattern) -> bool:
        calls.append(pattern)
        if pattern is b:
            return True
        inside.set()
        return other_done.wait(10)

    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(slow(a))) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    assert slow(b)
    other_done.set()
    for thread in threads:
        thread.join()
    assert found == [True, True] and len(calls) == 2


def test_what_failed_is_tried_again() -> None:
    pattern, tries = matrix(0, (5, 4)).pattern, []

    def fails_once() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError
        return 7

    with pytest.raises(ValueError):
        memory.recent("test", pattern, np.ones(2), fails_once)
    assert [memory.recent("test", pattern, np.ones(2), fails_once) for _ in range(2)] == [7, 7]
    assert len(tries) == 2


@pytest.mark.parametrize(
    "given",
    [True, 2, [1, 2], np.float32(1.5), np.arange(3, dtype=np.uint8), [tf.constant(1.0, tf.float64), 2.0], tf.Variable([1.0], dtype=tf.float64)],
)
def test_operands_become_tensors_of_the_dtype(given: Any) -> None:
    tensor = algebra.of_dtype("x", given, tf.float64)
    assert tf.is_tensor(tensor) and not isinstance(tensor, tf.Variable) and tensor.dtype == tf.float64
    np.testing.assert_array_equal(tensor, np.asarray(given, float))
    assert tf.is_tensor(given) or algebra.of_dtype("x", np.asarray(given), tf.complex64).dtype == tf.complex64


@pytest.mark.parametrize("run", ["eager", "graph"])
def test_the_gradient_of_selected_rows_is_indexed_slices(run: str) -> None:
    a, rows = matrix(0, (5, 4)), [4, 0, 0]
    values, tangent, x = tf.Variable(a.values), random(5, (a.nnz,), "float64"), np.arange(1.0, 5.0)

    def gradient_and_tangent() -> tuple[tf.IndexedSlices, tf.Tensor]:
        with tf.autodiff.ForwardAccumulator(values, tangent) as accumulator:
            with tf.GradientTape() as tape:
                total = tf.reduce_sum((buckets.select_rows(a.with_values(values), rows) @ x) ** 2)
            gradient = tape.gradient(total, values)
        return gradient, accumulator.jvp(gradient.values)

    gradient, along = RUNS[run](gradient_and_tangent)()
    assert isinstance(gradient, tf.IndexedSlices)
    places = np.concatenate([np.arange(a.indptr[row], a.indptr[row + 1]) for row in rows])
    np.testing.assert_array_equal(gradient.indices, places)
    np.testing.assert_allclose(along, (2 * (dense(a, tangent).numpy() @ x)[a.pattern.rows] * x[a.indices])[places], rtol=1e-13)
    weight = np.array([2, 0, 0, 0, 1])[a.pattern.rows]  # how often each row is selected
    np.testing.assert_allclose(tf.convert_to_tensor(gradient), 2 * weight * (a.to_scipy() @ x)[a.pattern.rows] * x[a.indices], rtol=1e-13)


def test_the_gradient_of_touched_columns_is_indexed_slices() -> None:
    a = CSRMatrix.from_coo([0, 1, 1], [7, 2, 7], np.array([1.0, 2.0, 3.0]), (2, 1000))
    columns, small = buckets.compressed(a)
    variable = tf.Variable(np.linspace(0, 1, 1000))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum((small @ tf.gather(variable, columns)) ** 2)
    gradient = tape.gradient(total, variable)
    assert isinstance(gradient, tf.IndexedSlices)
    np.testing.assert_array_equal(gradient.indices, [2, 7])
    np.testing.assert_allclose(tf.convert_to_tensor(gradient), 2 * a.to_scipy().T @ (a.to_scipy() @ variable.numpy()), atol=1e-13)


def test_compressed_is_one_pattern_with_the_same_values() -> None:
    a = matrix(0, (5, 4))
    columns, small = buckets.compressed(a)
    assert 1 not in columns
    np.testing.assert_array_equal(small.to_scipy().toarray(), a.to_scipy().toarray()[:, columns])
    assert small.values is a.values
    assert buckets.compressed(a)[1].pattern is small.pattern


def test_more_columns_than_32_bits_number() -> None:
    rows, columns, values = [2, 0, 2, 2], [HUGE - 1, 5, 3, HUGE - 1], tf.constant([1.0, 2.0, 3.0, 4.0])
    a = CSRMatrix(*convert.from_coo(rows, columns, values, (3, HUGE)))
    np.testing.assert_array_equal(a.indices, [5, 3, HUGE - 1])
    np.testing.assert_array_equal(a.values, [2, 3, 5])
    again = CSRMatrix(*convert.from_sparse_tensor(convert.to_sparse_tensor(a)))
    np.testing.assert_array_equal(CSRMatrix(*convert.from_scipy(again.to_scipy())).indices, a.indices)
    touched, small = buckets.compressed(buckets.select_rows(algebra.add(a, algebra.scale(again, 2)), [2, 1]))
    np.testing.assert_array_equal(touched, [3, HUGE - 1])
    np.testing.assert_array_equal(small @ tf.constant([1.0, 10.0]), [9 + 150, 0])
    wide = algebra.multiply(CSRMatrix.from_dense(np.ones((1, 3), np.float32)), a)
    assert wide.shape == (1, HUGE)
    np.testing.assert_array_equal(wide.indices, [3, 5, HUGE - 1])
    np.testing.assert_array_equal(wide.values, [3, 2, 5])


def test_rows_times_columns_may_exceed_64_bits() -> None:
    rows = 2**12
    pattern, values = convert.from_coo([rows - 1, 0, rows - 1], [2**62, 2**62, 1], [1.0, 2.0, 3.0], (rows, 2**62 + 1))
    np.testing.assert_array_equal(pattern.rows, [0, rows - 1, rows - 1])
    np.testing.assert_array_equal(pattern.indices, [2**62, 1, 2**62])
    np.testing.assert_array_equal(values, [2, 3, 1])


def test_sorted_entries_pass_as_they_are() -> None:
    values = tf.constant([1.0, 2.0, 3.0])
    graph = tf.function(lambda v: convert.from_coo([0, 0, 1], [0, 2, 1], v, (2, 3))[1]).get_concrete_function(values).graph
    unsorted = tf.function(lambda v: convert.from_coo([1, 0, 0], [1, 0, 2], v, (2, 3))[1]).get_concrete_function(values).graph
    kinds, other = ({operation.type for operation in each.get_operations()} for each in (graph, unsorted))
    assert not kinds & {"GatherV2", "UnsortedSegmentSum"}
    assert "GatherV2" in other and "UnsortedSegmentSum" not in other


def test_conversions_are_differentiable_in_the_values() -> None:
    values, indices = tf.constant([1.0, 2.0, 3.0]), np.array([[1, 0], [0, 1], [1, 0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(values)
        pattern, summed = convert.from_sparse_tensor(tf.SparseTensor(indices, values, (2, 2)))
        back = convert.to_sparse_tensor(CSRMatrix(pattern, summed)).values
        total = tf.reduce_sum(back**2)
    np.testing.assert_array_equal(summed, [2, 4])
    np.testing.assert_array_equal(tape.gradient(total, values), [8, 4, 8])
    full = tf.constant([[0.0, 2.0], [3.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(full)
        total = tf.reduce_sum(convert.from_dense(full)[1] ** 3)
    np.testing.assert_array_equal(tape.gradient(total, full), [[0, 12], [27, 0]])


def test_a_sparse_tensor_of_known_indices_converts_inside_a_function() -> None:
    values = tf.constant([1.0, 2.0])

    @tf.function
    def known(values: tf.Tensor) -> tf.Tensor:
        return convert.from_sparse_tensor(tf.SparseTensor(np.array([[1, 0], [0, 1]]), values, (2, 2)))[1]

    np.testing.assert_array_equal(known(values), [2, 1])
    unknown = tf.function(lambda sparse: convert.from_sparse_tensor(sparse)[1])
    with pytest.raises(ValueError, match="Invalid 'sparse' with indices that are symbolic"):
        unknown(tf.SparseTensor([[1, 0]], [1.0], (2, 2)))


def test_integers_become_float64() -> None:
    full = np.array([[0, 2], [3, 0]])
    for found in (convert.from_dense(full), convert.from_scipy(scipy.sparse.coo_array(full)), convert.from_dense(full > 0)):
        assert found[1].dtype == tf.float64


A, B, C = matrix(0, (5, 4)), matrix(1, (5, 4), "float32"), matrix(2, (4, 6))


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda: algebra.add(A, B), "Invalid 'b' of dtype float32: must be of the other matrix's dtype float64"),
        (lambda: algebra.add(A, C), r"Invalid 'b' of shape \(4, 6\): must be of the shape of the matrix it is added to, \(5, 4\)"),
        (lambda: algebra.add(A, A.to_scipy()), "Invalid 'b' of type csr_array: must be a CSRMatrix"),
        (lambda: algebra.multiply(A, A), r"Invalid 'b' of shape \(5, 4\): must be of 4 rows"),
        (lambda: algebra.multiply(B, C), "Invalid 'b' of dtype float64"),
        (lambda: algebra.scale(A, tf.constant(2.0)), "Invalid 'factor' of dtype float32: must be of the matrix's dtype float64"),
        (lambda: algebra.scale(A, 2j), "Invalid 'factor' of dtype complex128"),
        (lambda: algebra.scale(A, tf.Variable(2.0)), "Invalid 'factor' of dtype float32"),
        (lambda: algebra.scale(A, tf.sparse.eye(2)), "Invalid 'factor' of type SparseTensor: must be a dense tensor"),
        (lambda: algebra.scale(A, "2"), "Invalid 'factor' of dtype <U1"),
        (lambda: algebra.scale(A, [1.0, 2.0]), r"Invalid 'factor' of shape \(2,\): must be of shape \(\)"),
        (lambda: algebra.scale_rows(A, np.ones(4)), r"Invalid 'd' of shape \(4,\): must be of shape \(5,\)"),
        (lambda: algebra.scale_columns(A, np.ones(5)), r"Invalid 'd' of shape \(5,\): must be of shape \(4,\)"),
        (lambda: algebra.scale_columns(A, np.ones((4, 1))), r"Invalid 'd' of shape \(4, 1\)"),
        (lambda: buckets.select_rows(A, [0, 5]), "Invalid 'rows' from 0 to 5: must be from 0 to 4"),
        (lambda: buckets.select_rows(A, [-1]), "Invalid 'rows' from -1 to -1"),
        (lambda: buckets.select_rows(A, np.ones(5, bool)), "Invalid 'rows' of dtype bool: must be integers"),
        (lambda: convert.from_coo([0.0], [0], [1.0], (1, 1)), "Invalid 'rows' of dtype float64: must be integers"),
        (lambda: convert.from_coo([0], [True], [1.0], (1, 1)), "Invalid 'columns' of dtype bool: must be integers"),
        (lambda: convert.from_coo([0], [2], [1.0], (1, 2)), "Invalid 'columns' from 2 to 2: must be from 0 to 1"),
        (lambda: convert.from_coo([0], np.array([2**64 - 1], np.uint64), [1.0], (1, 2)), "Invalid 'columns' from 18446744073709551615"),
        (lambda: convert.from_coo([0, 0], [0], [1.0], (1, 1)), "Invalid 'entries' of 2 rows, 1 columns, 1 values: must be of one length"),
        (lambda: convert.from_coo([0], [0], [1.0, 2.0], (1, 1)), "Invalid 'entries' of 1 rows, 1 columns, 2 values"),
        (lambda: convert.from_coo([], [], np.zeros(0), (-1, 1)), r"Invalid 'shape' \(-1, 1\)"),
        (lambda: convert.from_sparse_tensor(tf.SparseTensor([[0, 0, 0]], [1.0], (1, 1, 1))), r"Invalid 'sparse' of shape \(1, 1, 1\)"),
        (lambda: convert.from_sparse_tensor(tf.SparseTensor([[0, 1]], [1.0], (1, 1))), "Invalid 'columns' from 1 to 1"),
        (lambda: convert.from_dense(np.ones(3)), r"Invalid 'matrix' of shape \(3,\): must be two-dimensional"),
        (lambda: tf.function(lambda x: convert.from_dense(x)[1])(tf.ones([2, 2])), "Invalid 'matrix' as a symbolic tensor"),
        (lambda: convert.from_scipy(scipy.sparse.coo_array(np.ones(3))), r"Invalid 'matrix' of shape \(3,\): must be two-dimensional"),
    ],
)
def test_misuse_is_named(misuse: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        misuse()
