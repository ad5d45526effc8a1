"""Matrices from other forms: what they become, and that what cannot be one is named as it was given."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from geoinv.operators.sparse import CSRMatrix, convert
from geoinv.operators.sparse.pattern import Pattern

NO_SHAPES = [None, (1.7, 1.2), (2.0, 3.0), (2, 3, 4), (2,), "23", ("2", "3"), 6, (-1, 3), (2, None)]


def pattern(indptr: Any, indices: Any, shape: Any) -> Pattern:
    return Pattern(np.asarray(indptr), np.asarray(indices), shape)


@pytest.mark.parametrize("shape", NO_SHAPES)
def test_what_is_no_shape_is_named(shape: Any) -> None:
    for misuse in (lambda: convert.from_coo([0], [0], [1.0], shape), lambda: pattern([0, 0, 0], np.zeros(0, int), shape)):
        with pytest.raises(ValueError, match=r"Invalid 'shape' .*: must be two whole numbers, 0 or more") as error:
            misuse()
        assert repr(shape) in str(error.value)


@pytest.mark.parametrize("shape", [(2, 3), [2, 3], np.array([2, 3]), tf.TensorShape([2, 3]), (np.int64(2), np.int32(3)), tf.constant([2, 3])])
def test_shapes_in_any_whole_numbers(shape: Any) -> None:
    matrix = CSRMatrix.from_coo([1], [2], [1.0], shape)
    assert matrix.shape == (2, 3) and all(type(size) is int for size in matrix.shape)


def test_an_empty_shape_is_one() -> None:
    assert CSRMatrix.from_coo([], [], np.zeros(0), (0, 0)).shape == (0, 0)


@pytest.mark.parametrize(
    "values", [[1, 2, 4], np.array([1, 2, 4]), np.array([1, 2, 4], np.uint8), tf.constant([1, 2, 4], tf.int64), np.array([True, True, True])]
)
def test_whole_values_become_float64(values: Any) -> None:
    matrix = CSRMatrix.from_coo([1, 0, 1], [0, 1, 0], values, (2, 2))
    assert matrix.dtype == tf.float64
    given = np.asarray(values).astype(float)
    np.testing.assert_array_equal(matrix.to_scipy().toarray(), [[0, given[1]], [given[0] + given[2], 0]])
    assert CSRMatrix.from_dense(tf.constant([[0, 2], [3, 0]])).dtype == tf.float64


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_other_values_keep_their_dtype(dtype: str) -> None:
    assert CSRMatrix.from_coo([0], [0], np.ones(1, dtype), (1, 1)).dtype.name == dtype


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda: convert.from_coo([0], np.array([2**63], np.uint64), [1.0], (1, 2)), "Invalid 'columns' from 9223372036854775808 to"),
        (lambda: convert.from_coo([0], np.array([2**63], np.uint64), [1.0], (1, 2**64)), "Invalid 'columns' from 9223372036854775808 to"),
        (lambda: pattern([0, 1], np.array([2**63], np.uint64), (1, 2)), "Invalid 'indices' 9223372036854775808 at index 0"),
        (lambda: pattern(np.array([0, 2**63], np.uint64), [0], (1, 2)), "Invalid 'indptr' 9223372036854775808 at index 1"),
        (lambda: pattern([0, 2, 1, 2], [0, 1], (3, 2)), "Invalid 'indptr' 2, 1 at index 1: must be non-decreasing"),
        (lambda: pattern([1, 2], [0, 1], (1, 2)), "Invalid 'indptr' from 1 to 2: must be non-decreasing from 0 to 2, the number of indices"),
        (lambda: pattern([0, 1], [0, 1], (1, 2)), "Invalid 'indptr' from 0 to 1"),
    ],
)
def test_numbers_are_named_as_they_were_given(misuse: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        misuse()


def test_falling_starts_are_found_whatever_their_type() -> None:
    """A difference of unsigned numbers never falls, and one of the largest int32 wraps around."""
    for dtype in (np.uint8, np.int32, np.uint64):
        with pytest.raises(ValueError, match="Invalid 'indptr' 2, 1 at index 1"):
            Pattern(np.array([0, 2, 1, 2], dtype), np.array([0, 1], dtype), (3, 2))


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_an_imaginary_part_is_not_dropped(dtype: tf.DType) -> None:
    matrix = scipy.sparse.csr_array(np.array([[0, 1 + 2j]]))
    with pytest.raises(ValueError, match=f"Invalid 'matrix' of dtype complex128: must be real, for values of dtype {dtype.name}"):
        CSRMatrix.from_scipy(matrix, dtype=dtype)
    np.testing.assert_array_equal(CSRMatrix.from_scipy(matrix, dtype=tf.complex64).values, [1 + 2j])
    np.testing.assert_array_equal(CSRMatrix.from_scipy(matrix.real, dtype=tf.complex128).values, [1])


def test_the_derivative_with_respect_to_a_zero_entry_is_zero() -> None:
    dense, x = tf.constant([[0.0, 2.0], [3.0, 0.0]]), tf.constant([5.0, 7.0])
    with tf.GradientTape() as tape:
        tape.watch(dense)
        total = tf.reduce_sum(CSRMatrix.from_dense(dense) @ x)
    np.testing.assert_array_equal(tape.gradient(total, dense), [[0, 7], [5, 0]])
    assert "derivative with respect to them is zero" in (convert.from_dense.__doc__ or "")


# What is validated stays as it is


def test_a_pattern_cannot_be_written_and_the_arrays_it_was_made_of_can() -> None:
    indptr, indices = np.array([0, 2, 3], np.int32), np.array([0, 2, 1], np.int32)
    made = Pattern(indptr, indices, (2, 3))
    for kept, given in ((made.indptr, indptr), (made.indices, indices)):
        with pytest.raises(ValueError, match="read-only"):
            kept[0] = 1
        given[0] = 1
        assert kept[0] == 0
    matrix = scipy.sparse.csr_array((np.ones(3), [0, 2, 1], [0, 2, 3]), shape=(2, 3))
    assert CSRMatrix.from_scipy(matrix).nnz == 3
    assert matrix.indices.flags.writeable and matrix.indptr.flags.writeable


def test_the_scipy_matrix_of_a_pattern_can_be_written() -> None:
    matrix = CSRMatrix(pattern([0, 2, 3], [0, 2, 1], (2, 3)), tf.range(3.0))
    copy = matrix.to_scipy()
    copy.indices[0], copy.indptr[1] = 1, 1
    np.testing.assert_array_equal(matrix.indices, [0, 2, 1])
    np.testing.assert_array_equal(matrix.indptr, [0, 2, 3])


def test_what_reads_a_pattern_does_not_write_it() -> None:
    """Compiled code of others, SuperLU, Numba, PyAMG and SciPy's graphs, takes read-only arrays."""
    size = 20
    steps = scipy.sparse.diags_array([-np.ones(size - 1), np.full(size, 2.5), -np.ones(size - 1)], offsets=[-1, 0, 1], format="csr")
    matrix, b = CSRMatrix.from_scipy(steps), np.random.default_rng(0).normal(size=size)
    for method, preconditioner in (("lu", "jacobi"), ("cg", "ilu"), ("cg", "amg")):
        np.testing.assert_allclose(steps @ np.asarray(matrix.solve(b, method=method, preconditioner=preconditioner)), b, atol=1e-7)
    lower = scipy.sparse.tril(steps, format="csr")
    np.testing.assert_allclose(lower @ np.asarray(CSRMatrix.from_scipy(lower).solve(b)), b, atol=1e-12)
    singular = CSRMatrix.from_coo([0, 1, 2, 2], [0, 0, 1, 2], np.ones(4), (3, 3))
    with pytest.raises(ValueError, match="singular"):
        singular.solve(np.ones(3), method="lu")
    np.testing.assert_allclose((matrix @ matrix + matrix.T.to_csr()).to_scipy().toarray(), (steps @ steps + steps.T).toarray())
