"""Layouts: right for every kind of pattern, chosen by their traffic, compiled once, and never forming entries x columns."""

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from geoinv.operators.sparse import CSRMatrix
from geoinv.operators.sparse import rows as sliced
from geoinv.operators.sparse.sizes import bucket, pad_columns

RNG = np.random.default_rng(0)


def laplacian(n: int) -> scipy.sparse.csr_array:
    """4th order on n x n cells: nine diagonals with holes at the grid's edges."""
    second = scipy.sparse.diags_array([-1 / 12, 4 / 3, -5 / 2, 4 / 3, -1 / 12], offsets=range(-2, 3), shape=(n, n))
    eye = scipy.sparse.eye_array(n)
    return (scipy.sparse.kron(second, eye) + scipy.sparse.kron(eye, second)).tocsr()


def with_lengths(lengths: np.ndarray, columns: int) -> scipy.sparse.csr_array:
    """Rows of given lengths at random columns."""
    rng = np.random.default_rng(1)
    indices = np.concatenate([np.sort(rng.choice(columns, n, replace=False)) for n in lengths])
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return scipy.sparse.csr_array((rng.normal(size=indices.size), indices, indptr), shape=(lengths.size, columns))


PATTERNS = {
    "stencil": laplacian(12),
    "wide stencil": scipy.sparse.diags_array([1.0, 2.0, 3.0], offsets=[-2, 0, 15], shape=(50, 60)).tocsr(),
    "tall stencil": scipy.sparse.diags_array([1.0, 2.0, 3.0], offsets=[-12, 0, 4], shape=(60, 50)).tocsr(),
    "sampling": with_lengths(np.full(300, 6), 2000),
    "rays": with_lengths(RNG.integers(1, 92, 400), 300),
    "long rows": with_lengths(np.array([*RNG.integers(0, 5, 100), 1500, 33, 64, 65, 0, 2000]), 2000),
    "long equal rows": with_lengths(np.full(150, 40), 100),
    "one dense row": scipy.sparse.csr_array(np.ones((1, 3000))),
    "one dense column": scipy.sparse.csr_array(np.ones((3000, 1))),
    "empty": scipy.sparse.csr_array((3, 4)),
}
CHOSEN = {
    "stencil": "diagonals", "wide stencil": "diagonals", "tall stencil": "diagonals", "sampling": "padded rows", "rays": "sliced rows",
    "long rows": "sliced rows", "long equal rows": "sliced rows", "one dense row": "sliced rows", "one dense column": "padded rows",
    "empty": "sliced rows",
}  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
def test_every_layout_that_fits_equals_scipy(name: str) -> None:
    expected = PATTERNS[name]
    matrix = CSRMatrix.from_scipy(expected)
    assert matrix.layout.chosen == CHOSEN[name]
    x, y = RNG.normal(size=(expected.shape[1], 3)), RNG.normal(size=(expected.shape[0], 3))
    for plan in matrix.layout.plans:
        same = matrix.with_layout(plan.name)
        assert same.layout.chosen == plan.name
        for _ in range(2):  # the second product finds the values arranged
            np.testing.assert_allclose(same @ x[:, 0], expected @ x[:, 0], atol=1e-12)
            np.testing.assert_allclose(same @ x, expected @ x, atol=1e-12)
    for _ in range(2):
        np.testing.assert_allclose(matrix.T @ y[:, 0], expected.T @ y[:, 0], atol=1e-12)
        np.testing.assert_allclose(matrix.T @ y, expected.T @ y, atol=1e-12)
    at = matrix.pattern.rows, matrix.indices
    np.testing.assert_allclose(matrix.sampled_product(y, x), np.sum(y[at[0]] * x[at[1]], axis=1), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128"])
@pytest.mark.parametrize("name", ["stencil", "sampling", "long rows"])
def test_other_dtypes(name: str, dtype: str) -> None:
    expected = PATTERNS[name].astype(dtype) * (1 + 2j if dtype.startswith("complex") else 1)
    expected = expected.astype(dtype)
    matrix = CSRMatrix.from_scipy(expected)
    x = RNG.normal(size=expected.shape[1]).astype(dtype)
    rtol = 1e-12 if dtype == "complex128" else 1e-4
    np.testing.assert_allclose(matrix @ x, expected @ x, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(matrix.rmatvec(matrix @ x), expected.conj().T @ (expected @ x), rtol=rtol, atol=10 * rtol)


def test_explain_shows_the_choice_and_its_traffic() -> None:
    matrix = CSRMatrix.from_scipy(PATTERNS["stencil"].astype(np.float32))
    lines = matrix.layout.explain().splitlines()
    assert len(lines) == 4 and lines[1].endswith("<- used")
    assert lines[1].split()[0] == "diagonals"
    slots = 9 * 144  # a value each, beside x and the result; the others read a column number of two bytes too
    assert lines[1].split()[1] == str(slots)
    assert f"{(4 * slots + 2 * 4 * 144) / 1e6:.3f} MB" in lines[1]
    assert f"{(6 * slots + 2 * 4 * 144) / 1e6:.3f} MB" in lines[2]
    in_double = CSRMatrix.from_scipy(PATTERNS["stencil"]).layout.explain()
    assert f"{(8 * slots + 2 * 8 * 144) / 1e6:.3f} MB" in in_double


def test_the_layout_of_a_transpose_can_be_chosen_too() -> None:
    matrix = CSRMatrix.from_scipy(PATTERNS["stencil"])
    chosen = matrix.T.to_csr().with_layout("sliced rows")
    assert matrix.T.layout.chosen == "diagonals" and chosen.layout.chosen == "sliced rows"
    y = RNG.normal(size=144)
    np.testing.assert_allclose(chosen @ y, PATTERNS["stencil"].T @ y, atol=1e-12)


def test_unknown_layout_is_named() -> None:
    with pytest.raises(ValueError, match="Invalid 'layout' 'diagonals': must be one that fits this pattern: padded rows, sliced rows"):
        CSRMatrix.from_scipy(PATTERNS["sampling"]).with_layout("diagonals")


@pytest.mark.parametrize("name", ["stencil", "sampling", "long rows"])
def test_an_infinite_entry_reaches_only_the_rows_that_hold_it(name: str) -> None:
    expected = PATTERNS[name]
    matrix = CSRMatrix.from_scipy(expected)
    for column in (0, int(matrix.indices[0]), expected.shape[1] - 1):
        x = np.ones((expected.shape[1], 2))
        x[column] = np.inf
        held = np.diff(expected[:, [column]].tocsr().indptr) > 0
        for plan in matrix.layout.plans:
            found = np.asarray(matrix.with_layout(plan.name) @ x)
            assert np.isfinite(found[~held]).all() and not np.isfinite(found[held]).any()


def test_slices_cost_the_least_slots_and_starts() -> None:
    rng = np.random.default_rng(2)
    lengths = np.array([0, *rng.integers(0, 3 * sliced.START // 8, 7)])

    def cost(groups: list[tuple[int, int]]) -> int:
        return sum(int(lengths[low : high + 1].sum()) * high + sliced.START for low, high in groups if lengths[low : high + 1].any())

    every_cut = [[0, *cut, 7] for n in range(7) for cut in itertools.combinations(range(1, 7), n)]
    best = min(cost([(low + 1, high) for low, high in itertools.pairwise(cut)]) for cut in every_cut)
    assert cost(sliced._group(lengths)) == best
    assert 1 < len(sliced._group(lengths)) < 7


def test_a_plan_counts_the_slots_that_are_built() -> None:
    for expected in PATTERNS.values():
        for plan in CSRMatrix.from_scipy(expected).layout.plans:
            assert plan.build().places.size == plan.slots


def largest_intermediate(function: Callable[..., tf.Tensor], *arguments: Any) -> int:
    """Entries of the largest array that the compiled program makes, in its loops too; what stays within a fused loop is never made."""
    program = function.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo")
    parts = [part for part in program.split("\n\n") if re.match(r"\s*(ENTRY |%)", part) and not re.match(r"\s*%(fused|wrapped|region)", part)]
    made = [shape for part in parts for shape, kind in re.findall(r"= \(?[a-z]+\d*\[([\d,]*)\]\S* (\S+?)\(", part) if kind != "parameter"]
    return max(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in made)


@pytest.mark.parametrize("name", ["stencil", "sampling", "rays", "long rows"])
def test_nothing_of_size_entries_times_columns_is_formed(name: str) -> None:
    expected, k = PATTERNS[name], 64
    matrix = CSRMatrix.from_scipy(expected)
    pattern, layout = matrix.pattern, matrix.pattern.choice.layout
    x, y = tf.ones([expected.shape[1], k], tf.float64), tf.ones([expected.shape[0], k], tf.float64)
    arranged = layout.arrange(matrix.values)
    bound = max(4 * (k * (expected.shape[0] + pattern.nnz // sliced.WIDTH)), 2 * pattern.nnz)
    assert bound < k * pattern.nnz
    assert largest_intermediate(layout._compiled.multiply_arranged, layout.tensors[1], arranged, x) <= bound
    assert largest_intermediate(pattern._sample, pattern.entries.rows, pattern.entries.columns, y, x) <= max(pattern.nnz, k * max(expected.shape))


def test_values_and_columns_change_without_compiling_more_than_once_per_bucket() -> None:
    matrix = CSRMatrix.from_scipy(PATTERNS["sampling"])
    layout = matrix.pattern.choice.layout
    for seed in range(5):
        values = np.random.default_rng(seed).normal(size=matrix.nnz)
        x = np.random.default_rng(seed).normal(size=matrix.shape[1])
        expected = matrix.with_values(values).to_scipy()
        np.testing.assert_allclose(matrix.with_values(values) @ x, expected @ x, atol=1e-12)
    assert layout.compiled_programs() == 1
    before, sizes = layout.compiled_programs(), range(1, 41)
    for k in sizes:
        matrix @ np.ones((matrix.shape[1], k))
    # One for each bucket; one column more may find the values not yet arranged.
    assert layout.compiled_programs() - before <= len({bucket(k) for k in sizes}) + 1 < len(sizes)


def test_a_traced_function_takes_any_number_of_columns() -> None:
    matrix = CSRMatrix.from_scipy(PATTERNS["rays"])
    traced = tf.function(matrix.matmat, input_signature=[tf.TensorSpec([matrix.shape[1], None], tf.float64)])
    for k in (1, 3, 17, 18):
        x = RNG.normal(size=(matrix.shape[1], k))
        np.testing.assert_allclose(traced(tf.constant(x)), matrix.to_scipy() @ x, atol=1e-12)
    assert traced.experimental_get_tracing_count() == 1


def test_buckets_are_the_same_for_known_and_unknown_sizes() -> None:
    traced = tf.function(pad_columns, input_signature=[tf.TensorSpec([2, None])])
    for k in (*range(1, 70), 1000, 1025):
        assert traced(tf.ones([2, k])).shape[1] == pad_columns(tf.ones([2, k])).shape[1] == bucket(k) <= max(k * 9 / 8, k)


def test_batches_of_right_hand_sides() -> None:
    matrix = CSRMatrix.from_scipy(PATTERNS["rays"])
    x = RNG.normal(size=(2, 3, matrix.shape[1], 4))
    np.testing.assert_allclose(matrix @ x, matrix.to_scipy().toarray() @ x, atol=1e-12)
    y = RNG.normal(size=(2, matrix.shape[0], 1))
    np.testing.assert_allclose(matrix.rmatmat(y), matrix.to_scipy().toarray().T @ y, atol=1e-12)


def test_arranged_values_are_those_of_the_matrix_in_every_mode() -> None:
    """Values kept in slots serve the product only; its derivatives follow the values given."""
    matrix = CSRMatrix.from_scipy(PATTERNS["rays"])
    x = tf.constant(RNG.normal(size=matrix.shape[1]))
    dense = matrix.to_scipy().toarray()
    for _ in range(3):
        with tf.GradientTape() as tape:
            tape.watch([matrix.values, x])
            loss = tf.reduce_sum((matrix @ x) ** 2)
        of_values, of_x = tape.gradient(loss, [matrix.values, x])
        residual = 2 * dense @ x.numpy()
        np.testing.assert_allclose(of_x, dense.T @ residual, rtol=1e-10, atol=1e-9)
        np.testing.assert_allclose(of_values, residual[matrix.pattern.rows] * x.numpy()[matrix.indices], rtol=1e-10, atol=1e-9)


def test_transpose_is_a_view_that_is_kept() -> None:
    matrix = CSRMatrix.from_scipy(PATTERNS["rays"])
    assert matrix.T is matrix.T and matrix.T.T is matrix
    assert matrix.T.shape == matrix.shape[::-1] and matrix.T.nnz == matrix.nnz and matrix.T.dtype == matrix.dtype
    np.testing.assert_array_equal(matrix.T.to_csr().to_scipy().toarray(), matrix.to_scipy().toarray().T)
    assert matrix.T.layout.chosen in [plan.name for plan in matrix.T.layout.plans]
