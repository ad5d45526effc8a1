"""The sparse matrix against SciPy, and what it refuses."""

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from geoinv.operators.sparse import CSRMatrix, SparseOperator
from geoinv.operators.sparse.operator import apply
from geoinv.operators.sparse.sizes import bucket


def dense(dtype: str = "float64") -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 5)) * (rng.uniform(size=(6, 5)) < 0.5)
    values[1, 1] = 2.0
    return (values * (1 + 2j) if dtype.startswith("complex") else values).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_products_equal_dense(dtype: str) -> None:
    full = dense(dtype)
    matrix = CSRMatrix.from_dense(full)
    x, y = (np.random.default_rng(n).normal(size=(n, 3)).astype(dtype) for n in (5, 6))
    tolerance = 1e-5 if dtype in ("float32", "complex64") else 1e-13
    np.testing.assert_allclose(matrix @ x, full @ x, atol=tolerance)
    np.testing.assert_allclose(matrix @ x[:, 0], full @ x[:, 0], atol=tolerance)
    np.testing.assert_allclose(matrix.rmatvec(y[:, 0]), full.conj().T @ y[:, 0], atol=tolerance)
    np.testing.assert_allclose(matrix.rmatmat(y), full.conj().T @ y, atol=tolerance)
    np.testing.assert_allclose(matrix.T @ y, full.T @ y, atol=tolerance)
    places = matrix.pattern.rows, matrix.indices
    np.testing.assert_allclose(matrix.sampled_product(y, x), (y @ x.T)[places], atol=tolerance)
    np.testing.assert_allclose(matrix.sampled_product(y[:, 0], x[:, 0]), np.outer(y[:, 0], x[:, 0])[places], atol=tolerance)
    np.testing.assert_array_equal(matrix.diagonal(), full.diagonal())
    assert matrix.dtype.name == dtype


def test_conversions() -> None:
    full = dense()
    matrix = CSRMatrix.from_scipy(scipy.sparse.coo_matrix(full))
    np.testing.assert_array_equal(matrix.to_scipy().toarray(), full)
    np.testing.assert_array_equal(matrix.T.to_scipy().toarray(), full.T)
    np.testing.assert_array_equal(matrix.T.to_csr().to_scipy().toarray(), full.T)
    assert matrix.T.T is matrix
    np.testing.assert_array_equal(matrix.with_values(2 * matrix.values).to_scipy().toarray(), 2 * full)
    assert matrix.with_values(matrix.values).pattern is matrix.pattern


def test_duplicates_are_summed_differentiably() -> None:
    values = tf.constant([1.0, 2.0, 3.0, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(values)
        matrix = CSRMatrix.from_coo([1, 0, 1, 1], [0, 2, 0, 1], values, (2, 3))
        total = tf.reduce_sum(matrix.values**2)
    np.testing.assert_array_equal(matrix.to_scipy().toarray(), [[0, 0, 2], [4, 4, 0]])
    np.testing.assert_array_equal(tape.gradient(total, values), [8, 4, 8, 8])


def test_transpose_shares_values_under_the_tape() -> None:
    matrix = CSRMatrix.from_dense(dense())
    y = np.arange(6.0)
    with tf.GradientTape() as tape:
        tape.watch(matrix.values)
        total = tf.reduce_sum(matrix.with_values(matrix.values).T @ y)
    np.testing.assert_allclose(tape.gradient(total, matrix.values), y[matrix.pattern.rows])


def test_empty_matrix() -> None:
    matrix = CSRMatrix.from_coo([], [], np.zeros(0), (3, 2))
    np.testing.assert_array_equal(matrix @ np.ones(2), np.zeros(3))
    np.testing.assert_array_equal(SparseOperator(matrix)(np.ones(2)), np.zeros(3))


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0, 1], [0], "Invalid 'indptr' of length 2: must be of length 3"),
        ([0, 2, 1], [0], "Invalid .indptr. 2, 1 at index 1: must be non-decreasing"),
        ([0, 1, 2], [0, 2], "Invalid 'indices' 2 at position 1: must be from 0 to 1"),
        ([0, 2, 2], [1, 0], "Invalid 'indices' 1, 0 in row 0: must be strictly increasing"),
    ],
)
def test_bad_patterns_are_named(indptr: list[int], indices: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CSRMatrix.from_arrays(np.array(indptr), np.array(indices), np.ones(len(indices)), (2, 2))


def test_explicit_jvp_equals_the_accumulator() -> None:
    matrix, rng = CSRMatrix.from_dense(dense()), np.random.default_rng(5)
    x, dx, dv = (tf.constant(rng.normal(size=size)) for size in (5, 5, matrix.nnz))
    with tf.autodiff.ForwardAccumulator([matrix.values, x], [dv, dx]) as accumulator:
        result = matrix @ x
    np.testing.assert_allclose(matrix.jvp(x, dx, dv), accumulator.jvp(result), atol=1e-14)
    np.testing.assert_allclose(matrix.jvp(x, dx, dv), matrix.to_scipy() @ dx + matrix.with_values(dv).to_scipy() @ x, atol=1e-14)
    with pytest.raises(ValueError, match=r"Invalid 'values_tangent' of shape \(5,\)"):
        matrix.jvp(x, dx, dx)


def test_operators_of_matrices() -> None:
    matrix = CSRMatrix.from_dense(dense())
    full, other = dense(), CSRMatrix.from_dense(np.eye(6, 5))
    np.testing.assert_allclose((matrix + other).to_scipy().toarray(), full + np.eye(6, 5))
    np.testing.assert_allclose((matrix - other).to_scipy().toarray(), full - np.eye(6, 5))
    np.testing.assert_allclose((np.float64(2.0) * matrix).to_scipy().toarray(), 2 * full)
    np.testing.assert_allclose((-matrix * 3).to_scipy().toarray(), -3 * full)
    np.testing.assert_allclose((matrix.T @ other).to_scipy().toarray(), full.T @ np.eye(6, 5))
    np.testing.assert_allclose((other @ matrix.T).to_scipy().toarray(), np.eye(6, 5) @ full.T)
    np.testing.assert_allclose(CSRMatrix.from_sparse_tensor(matrix.to_sparse_tensor()).to_scipy().toarray(), full)
    np.testing.assert_allclose(
        matrix.scale_rows(np.arange(6.0)).scale_columns(np.arange(5.0)).to_scipy().toarray(), np.outer(range(6), range(5)) * full
    )
    columns, small = CSRMatrix.from_dense(full[:2]).compressed()
    np.testing.assert_allclose(small.to_scipy().toarray(), full[:2][:, columns])
    square = CSRMatrix.from_dense(full[:5] + 9 * np.eye(5))
    np.testing.assert_allclose(square @ square.solve(np.ones(5)), np.ones(5))
    np.testing.assert_allclose(square.rmatvec(square.rsolve(np.ones(5))), np.ones(5))


def test_bad_operands_are_named() -> None:
    matrix = CSRMatrix.from_dense(dense())
    with pytest.raises(ValueError, match=r"Invalid 'x' of shape \(6,\): must be of shape \(5,\)"):
        matrix @ np.ones(6)
    with pytest.raises(ValueError, match="Invalid 'x' of dtype float32: must be of the matrix's dtype float64"):
        matrix @ tf.ones(5)
    with pytest.raises(ValueError, match=r"Invalid 'values' of shape \(3,\)"):
        matrix.with_values(np.ones(3))
    with pytest.raises(ValueError, match="of dtype int64"):
        matrix.with_values(np.ones(matrix.nnz, dtype=int))


def test_subsets_within_a_bucket_trace_once() -> None:
    matrix = CSRMatrix.from_scipy(scipy.sparse.random_array((40, 11), density=0.3, rng=np.random.default_rng(0)))
    operator, model = SparseOperator(matrix), np.random.default_rng(1).normal(size=11)
    rng = np.random.default_rng(2)
    before, buckets = apply.experimental_get_tracing_count(), set()
    for size in (*range(1, 17), *range(16, 0, -1)):
        rows = rng.permutation(40)[:size]
        part = operator.subset(rows)
        np.testing.assert_allclose(part(model), matrix.to_scipy()[rows] @ model, atol=1e-12)
        buckets.add((bucket(size), bucket(int(np.diff(matrix.indptr)[rows].sum()))))
    assert apply.experimental_get_tracing_count() - before <= len(buckets)


def test_rows_that_do_not_exist_are_named() -> None:
    with pytest.raises(ValueError, match=r"Invalid 'units' \[6\]: must be some of the numbers from 0 to 5"):
        SparseOperator(CSRMatrix.from_dense(dense())).subset([6])
