"""Properties of sparse matrices over random patterns, against SciPy and dense formulas."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geoinv.operators.sparse import CSRMatrix, algebra, buckets, convert

TOLERANCES = {"float32": 1e-5, "float64": 1e-13, "complex64": 1e-5, "complex128": 1e-13}


@dataclass(frozen=True)
class Triplets:
    """Entries in any order; those at one place add up."""

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def at(cls, rows: Any, columns: Any, shape: tuple[int, int], *, dtype: str = "float64", integer: str = "int64") -> "Triplets":
        """Random values at given places, in random order."""
        rng = np.random.default_rng([*shape, len(rows)])
        order = rng.permutation(len(rows))
        return cls(np.array(rows, integer)[order], np.array(columns, integer)[order], numbers(rng, (len(rows),), dtype), shape)

    @property
    def matrix(self) -> CSRMatrix:
        return CSRMatrix(*convert.from_coo(self.rows, self.columns, self.values, self.shape))

    @property
    def dense(self) -> np.ndarray:
        full = np.zeros(self.shape, self.values.dtype)
        np.add.at(full, (self.rows, self.columns), self.values)
        return full

    def random(self, seed: int, *shape: int) -> np.ndarray:
        return numbers(np.random.default_rng(seed), shape, self.values.dtype.name)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    values = rng.normal(size=shape)
    return (values + 1j * rng.normal(size=shape) if dtype.startswith("complex") else values).astype(dtype)


@st.composite
def triplets(draw: st.DrawFn) -> Triplets:
    """Up to 9 x 9: small enough for places to repeat, and for rows and columns to be empty or full."""
    shape = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    place = st.tuples(*(st.integers(0, max(size - 1, 0)) for size in shape))
    places = np.array(draw(st.lists(place, max_size=30 if all(shape) else 0)), int).reshape(-1, 2)
    dtype = draw(st.sampled_from(["float64", "float64", "float64", *TOLERANCES]))
    return Triplets.at(*places.T, shape, dtype=dtype, integer=draw(st.sampled_from(["int32", "int64", "uint8"])))


def long_tailed() -> Triplets:
    """Row lengths from 200 down to 0."""
    rng = np.random.default_rng(0)
    lengths = [3, 0, 200, 1, 1, 40, 2, 0, 9, 1, 1, 1]
    return Triplets.at(np.repeat(np.arange(12), lengths), np.concatenate([rng.permutation(300)[:n] for n in lengths]), (12, 300))


def banded() -> Triplets:
    return Triplets.at(*scipy.sparse.diags_array(np.ones(5), offsets=[-4, -1, 0, 1, 4], shape=(16, 16)).tocoo().coords, (16, 16))


ADVERSARIAL = {
    "one dense row among empty ones": Triplets.at([3] * 20, range(20), (6, 20)),
    "one dense column": Triplets.at(range(20), [2] * 20, (20, 4)),
    "long-tailed": long_tailed(),
    "banded": banded(),
    "rows of equal length": Triplets.at(np.repeat(np.arange(7), 3), (np.arange(21) * 5) % 11, (7, 11)),
    "1 x 1": Triplets.at([0, 0], [0, 0], (1, 1)),
    "no entries": Triplets.at([], [], (3, 4)),
    "no rows": Triplets.at([], [], (0, 4)),
    "no columns": Triplets.at([], [], (4, 0)),
    "int32": Triplets.at([1, 1, 0], [0, 0, 2], (2, 3), dtype="complex64", integer="int32"),
}


def over_patterns(count: int, **others: st.SearchStrategy) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The property holds for the adversarial patterns, and for `count` random ones."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        test = settings(max_examples=count, deadline=None, derandomize=True, database=None)(given(case=triplets(), **others)(test))
        for case in ADVERSARIAL.values():
            test = example(case=case, **dict.fromkeys(others, 1))(test)
        return test

    return decorate


def assert_close(found: Any, expected: Any, scale: Any = None) -> None:
    """Equal to the rounding of sums of terms as large as `scale`."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    tolerance = TOLERANCES[expected.dtype.name]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.max(np.abs(expected if scale is None else scale), initial=1))


def assert_same(matrix: CSRMatrix, expected: np.ndarray) -> None:
    """The dense form is the one expected, and rows are sorted and without duplicates."""
    assert matrix.shape == expected.shape
    order = np.lexsort((matrix.indices, matrix.pattern.rows))
    np.testing.assert_array_equal(order, np.arange(matrix.nnz))
    assert len({*zip(matrix.pattern.rows, matrix.indices, strict=True)}) == matrix.nnz
    assert_close(matrix.to_scipy().toarray(), expected)


@over_patterns(40)
def test_construction_and_conversions(case: Triplets) -> None:
    matrix, full = case.matrix, case.dense
    assert_same(matrix, full)
    assert matrix.nnz == len({*zip(case.rows.tolist(), case.columns.tolist(), strict=True)})
    coo = scipy.sparse.coo_array((case.values, (case.rows, case.columns)), shape=case.shape)
    assert_same(CSRMatrix(*convert.from_scipy(coo)), full)
    assert_same(CSRMatrix(*convert.from_scipy(matrix.to_scipy().tocsc())), full)
    assert_same(CSRMatrix(*convert.from_dense(full)), full)
    sparse = convert.to_sparse_tensor(matrix)
    assert_close(tf.sparse.to_dense(sparse), full)
    again = CSRMatrix(*convert.from_sparse_tensor(sparse))
    assert again.values is sparse.values or np.array_equal(again.values, sparse.values)
    assert_same(again, full)
    assert_same(matrix.T.to_csr(), full.T)
    np.testing.assert_array_equal(matrix.diagonal(), matrix.to_scipy().toarray().diagonal())


def products(case: Triplets) -> None:
    matrix, full = case.matrix, case.dense
    x, y = case.random(1, case.shape[1], 3), case.random(2, case.shape[0], 3)
    scale = np.abs(full).sum() * 3
    assert_close(matrix.matmat(x), full @ x, scale)
    assert_close(matrix.matvec(x[:, 0]), full @ x[:, 0], scale)
    assert_close(matrix.rmatmat(y), full.conj().T @ y, scale)
    assert_close(matrix.rmatvec(y[:, 0]), full.conj().T @ y[:, 0], scale)
    assert_close(matrix.T @ y, full.T @ y, scale)
    places = matrix.pattern.rows, matrix.indices
    assert_close(matrix.sampled_product(y, x), (y @ x.T)[places], 30)
    assert_close(matrix.sampled_product(y[:, 0], x[:, 0]), np.outer(y[:, 0], x[:, 0])[places], 30)


def gradients_of_a_squared_product(case: Triplets) -> None:
    matrix, full = case.matrix, case.dense
    values, x = tf.constant(matrix.values), tf.constant(case.random(1, case.shape[1]))
    with tf.GradientTape() as tape:
        tape.watch([values, x])
        total = tf.reduce_sum(tf.abs(matrix.with_values(values) @ x) ** 2)
    by_values, by_x = tape.gradient(total, [values, x])
    residual = full @ x.numpy()
    scale = 30 * (1 + np.abs(full).sum()) ** 2
    assert_close(by_values, 2 * np.outer(residual, x.numpy().conj())[matrix.pattern.rows, matrix.indices], scale)
    assert_close(by_x, 2 * full.conj().T @ residual, scale)


# Each pattern compiles programs of its own: few in the quick suite, many in the slow one.
test_products, test_products_of_many = over_patterns(4)(products), pytest.mark.slow(over_patterns(40)(products))
test_gradients = over_patterns(4)(gradients_of_a_squared_product)
test_gradients_of_many = pytest.mark.slow(over_patterns(40)(gradients_of_a_squared_product))


@over_patterns(40, seed=st.integers(0, 2**32 - 1))
def test_sums_and_scalings(case: Triplets, seed: int) -> None:
    matrix, full = case.matrix, case.dense
    other = sparse(seed, case.shape, case.values.dtype)
    assert_same(algebra.add(matrix, CSRMatrix(*convert.from_dense(other))), full + other)
    assert_same(algebra.scale(matrix, 1.5), full * full.dtype.type(1.5))


@over_patterns(10, seed=st.integers(0, 2**32 - 1))
def test_products_of_matrices_and_diagonals(case: Triplets, seed: int) -> None:
    matrix, full = case.matrix, case.dense
    other = sparse(seed, (case.shape[1], 4), case.values.dtype)
    result = algebra.multiply(matrix, CSRMatrix(*convert.from_dense(other)))
    present = ((full != 0).astype(int) @ (other != 0).astype(int)) > 0
    np.testing.assert_array_equal(np.stack([result.pattern.rows, result.indices]), np.nonzero(present))
    assert_same(result, full @ other)
    by_row, by_column = case.random(1, case.shape[0]), case.random(2, case.shape[1])
    assert_same(algebra.scale_rows(matrix, by_row), by_row[:, None] * full)
    assert_same(algebra.scale_columns(matrix, by_column), full * by_column)


@over_patterns(40, seed=st.integers(0, 2**32 - 1))
def test_rows_and_columns(case: Triplets, seed: int) -> None:
    matrix, full = case.matrix, case.dense
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, max(case.shape[0], 1), size=rng.integers(0, 6) if case.shape[0] else 0)
    assert_same(buckets.select_rows(matrix, rows), full[rows])
    columns, small = buckets.compressed(matrix)
    np.testing.assert_array_equal(columns, np.unique(case.columns))
    assert_same(small, full[:, columns])


def sparse(seed: int, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """A dense array, about two thirds zeros."""
    rng = np.random.default_rng(seed)
    return np.where(rng.uniform(size=shape) < 0.35, numbers(rng, shape, dtype.name), 0).astype(dtype)
