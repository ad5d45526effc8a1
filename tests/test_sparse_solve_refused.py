"""What sparse solves refuse, and what they say."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import tensorflow as tf
from test_sparse_product import random
from test_sparse_solve import SPACED, laplacian, poisson

from geoinv.operators.sparse import CSRMatrix, factorization, krylov
from geoinv.operators.sparse.solve import LU, Iterative, Separable, Triangular, adjoint_solve, solve


def neumann(n: int) -> CSRMatrix:
    """A chain of random conductances without a fixed potential: constants are in its null space."""
    conductance = np.random.default_rng(0).uniform(0.5, 2, n - 1)
    difference = scipy.sparse.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(n - 1, n))
    return CSRMatrix.from_scipy(difference.T @ scipy.sparse.diags_array(conductance) @ difference)


SQUARE = [[2.0, 1.0], [1.0, 2.0]]
POSITIVE = "must be Hermitian positive definite for method='cg'. Use method='bicgstab' or 'lu'.$"
ZERO_ROW = ([0, 1, 2], [0, 1], [1.0, 0], (2, 2))
NOTHING = ([0, 0], np.zeros(0, int), np.zeros(0), (1, 1))
REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "not square": (np.ones((2, 3)), {}, r"Invalid 'matrix' of shape \(2, 3\): must be square"),
    "structurally singular": ([[1.0, 1, 0], [1, 1, 0], [1, 1, 0]], {}, r"structurally singular \(rank 2 of 3 whatever its values\)"),
    "exactly singular": ([[1.0, 2], [2, 4]], {}, "Invalid 'matrix' exactly singular: must be invertible. Fix one unknown"),
    "zero on the diagonal": (([0, 1, 3], [0, 0, 1], [1.0, 1, 0], (2, 2)), {}, "with a zero on the diagonal in row 1"),
    "missing diagonal": (([0, 1, 2], [0, 0], [1.0, 1], (2, 2)), {"method": "triangular"}, "without a diagonal entry in row 1"),
    "not triangular": (SQUARE, {"method": "triangular"}, "must be triangular. Use method='lu'"),
    "wrong triangle": ([[1.0, 1], [0, 1]], {"method": Triangular(lower=True)}, "must be triangular. Use method='lu'"),
    "overflow": ([[1e-300, 0], [1, 1e-300]], {}, "with a solution beyond the range of float64"),
    "negative definite": ([[-2.0, 1], [1, -2]], {"method": "cg"}, f"zero or negative curvature: {POSITIVE}"),
    "indefinite": ([[1.0, 2], [2, 1]], {"method": "cg"}, POSITIVE),
    "negative on the host": ([[-2.0, 1], [1, -2]], {"method": "cg", "preconditioner": "ilu"}, POSITIVE),
    "pattern not symmetric": ([[2.0, 1], [0, 2]], {"method": "cg"}, f"whose pattern is not symmetric: {POSITIVE}"),
    "zeros in a row, cg": (ZERO_ROW, {"method": "cg"}, "with nothing but zeros in row 1, its diagonal zero or missing: must be invertible"),
    "zeros in a row, bicgstab": (ZERO_ROW, {"method": "bicgstab"}, "with nothing but zeros in row 1, its diagonal zero or missing"),
    "no entries, cg": (NOTHING, {"method": "cg"}, "with nothing but zeros in row 0"),
    "no entries, bicgstab": (NOTHING, {"method": "bicgstab"}, "with nothing but zeros in row 0"),
    "no entries, amg": (NOTHING, {"method": "bicgstab", "preconditioner": "amg"}, "Invalid 'matrix'"),
    "triangle": (np.eye(60) + np.triu(-2 * np.ones((60, 60)), 1), {}, r"singular to rounding, with a reciprocal condition of about 2\.\de-30"),
    "lower triangle": (np.eye(60) + np.tril(-2 * np.ones((60, 60)), -1), {"method": "triangular"}, "singular to rounding"),
    "not Hermitian": ([[2.0, 1], [0.5, 2]], {"method": "cg"}, "Invalid 'matrix' that is not Hermitian"),
    "not Hermitian on the host": ([[2.0, 1], [0.5, 2]], {"method": "cg", "preconditioner": "amg"}, "Invalid 'matrix' that is not Hermitian"),
    "breakdown": ([[0.0, 1], [-1, 0]], {"method": "bicgstab"}, "Invalid 'solve' by bicgstab .* Try another preconditioner"),
    "method": (SQUARE, {"method": "qr"}, "Invalid 'method' 'qr': must be one of 'auto', 'lu'"),
    "option of another method": (SQUARE, {"method": "lu", "tolerance": 0.1}, "'cg' or 'bicgstab' where a tolerance"),
    "preconditioner": (SQUARE, {"method": "cg", "preconditioner": "ssor"}, "Invalid 'preconditioner' 'ssor': must be one of None, 'jacobi'"),
    "tolerance": (SQUARE, {"method": "cg", "tolerance": 0.0}, "Invalid 'tolerance' 0.0: must be a number between 0 and 1"),
    "tolerance below rounding": (SQUARE, {"method": "cg", "tolerance": 1e-20}, "above the rounding unit of float64"),
    "tolerance as a word": (SQUARE, {"method": "cg", "tolerance": "a"}, "Invalid 'tolerance' 'a': must be a number between 0 and 1"),
    "iterations nan": (SQUARE, {"method": "cg", "max_iterations": np.nan}, "Invalid 'max_iterations' nan: must be a whole number"),
    "iterations without end": (SQUARE, {"method": "cg", "max_iterations": np.inf}, "Invalid 'max_iterations' inf: must be a whole number"),
    "no iterations": (SQUARE, {"method": "cg", "max_iterations": 0}, "Invalid 'max_iterations' 0: must be a whole number, 1 or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named(case: str) -> None:
    given_matrix, options, message = REFUSED[case]
    matrix = CSRMatrix.from_arrays(*map(np.asarray, given_matrix[:3]), given_matrix[3]) if isinstance(given_matrix, tuple) else None
    with pytest.raises(ValueError, match=message):
        matrix = matrix or CSRMatrix.from_dense(given_matrix)
        solve(matrix, np.arange(1.0, matrix.shape[0] + 1), **options)


@pytest.mark.parametrize("n", [7, 40, 1000])
def test_pure_neumann_problems_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=r"Invalid 'matrix' (exactly singular|singular to rounding, with a reciprocal condition of about \d)"):
        solve(neumann(n), np.arange(float(n)), method="lu")


def test_nearly_singular_matrices_are_refused_with_their_condition() -> None:
    hilbert = CSRMatrix.from_dense(1 / (1 + np.add.outer(np.arange(14), np.arange(14))))
    with pytest.raises(
        ValueError, match=r"singular to rounding, with a reciprocal condition of about \d\.\de-1[6-9]: must be above 8.9e-16 for float64"
    ):
        solve(hilbert, np.ones(14))
    mild = CSRMatrix.from_dense(1 / (1 + np.add.outer(np.arange(6), np.arange(6))))
    np.testing.assert_allclose(solve(mild, mild @ np.ones(6)), np.ones(6), rtol=1e-8)
    with pytest.raises(ValueError, match="for float32"):
        solve(CSRMatrix.from_dense(np.asarray(mild.to_scipy().toarray(), np.float32)), np.ones(6))


@pytest.mark.parametrize("options", [{"method": "lu"}, {"method": "cg"}, {"method": "bicgstab"}, {"method": "cg", "preconditioner": "ilu"}], ids=str)
def test_nan_is_refused(options: dict[str, Any]) -> None:
    matrix, b = laplacian(2), np.ones(4)
    with pytest.raises(ValueError, match="Invalid 'b' nan at index 1: must be finite"):
        solve(matrix, np.array([1, np.nan, 1, 1]), **options)
    for right_side in (b, 0 * b):
        with pytest.raises(ValueError, match="Invalid 'values' nan at index 0: must be finite"):
            solve(matrix.with_values(matrix.values * np.nan), right_side, **options)


def test_wrong_right_sides_are_named() -> None:
    matrix = laplacian(2)
    for b, message in (
        (np.ones(5), r"Invalid 'b' of shape \(5,\): must be of shape \(4,\) or \(4, 'any'\)"),
        (np.ones((4, 1, 1)), r"Invalid 'b' of shape \(4, 1, 1\)"),
        (tf.ones(4), "Invalid 'b' of dtype float32: must be of the matrix's dtype float64"),
        (tf.Variable(tf.ones(4)), "Invalid 'b' of dtype float32: must be of the matrix's dtype float64"),
        (np.ones(4) + 1j, "Invalid 'b' of dtype complex128: must be of the matrix's dtype float64"),
        ([1j, 1, 1, 1], "Invalid 'b' of dtype complex128"),
        (["a", "b", "c", "d"], "Invalid 'b' of dtype <U1"),
        (tf.sparse.eye(4), "Invalid 'b' of type SparseTensor: must be a dense tensor or an array"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(matrix, b)


@pytest.mark.parametrize("method", ["lu", "cg"])
def test_a_right_side_of_unknown_rank_is_named_when_traced(method: str) -> None:
    traced = tf.function(lambda b: solve(laplacian(2), b, method=method), input_signature=[tf.TensorSpec(None, tf.float64)], autograph=False)
    with pytest.raises(ValueError, match=r"Invalid 'b' of a number of axes unknown .*: must be of shape \(4,\) or \(4, 'any'\). Give it one"):
        traced(tf.ones([4], tf.float64))


def test_the_condition_of_a_triangle_is_estimated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    estimates: list[int] = []
    original = factorization._reciprocal_condition
    monkeypatch.setattr(factorization, "_reciprocal_condition", lambda *args: estimates.append(1) or original(*args))
    matrix = CSRMatrix.from_dense(np.tril(np.arange(1.0, 10).reshape(3, 3)) * (1 + 1j))
    for _ in range(2):
        np.testing.assert_allclose(matrix @ solve(matrix, np.ones(3)), np.ones(3), atol=1e-14)
        adjoint_solve(matrix, np.ones(3))
    assert len(estimates) == 1
    solve(matrix.with_values(2 * matrix.values), np.ones(3))
    assert len(estimates) == 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_triangles_have_the_condition_that_lu_finds(seed: int, dtype: str) -> None:
    full = np.tril(random(seed, (30, 30), dtype).numpy()) + 6 * np.eye(30)
    matrix, found = CSRMatrix.from_dense(full), []
    scaled, rows, columns = factorization._scaled(matrix.pattern, matrix.values.numpy())
    exact = 1 / np.linalg.cond(rows * full * columns.T, 1)
    for lower, each in ((True, matrix), (False, matrix.T.to_csr())):
        found.append(factorization._condition_of_triangle(each.pattern, lower, each.values.numpy()))
    assert exact <= found[0] * (1 + 1e-12) and found[0] < 3 * exact
    np.testing.assert_allclose(scaled, (rows * full * columns.T)[matrix.pattern.rows, matrix.indices])
    infinity = 1 / np.linalg.cond(rows * full * columns.T, np.inf)
    assert infinity / 3 < found[1] < 3 * infinity


def test_small_triangles_of_any_units_are_solved() -> None:
    units = 10.0 ** np.array([-200, 3, 0, 150])
    full = np.tril(np.ones((4, 4))) * units[:, None]
    np.testing.assert_allclose(solve(CSRMatrix.from_dense(full), full @ np.ones(4)), np.ones(4))


def test_iterations_answer_zero_for_zero() -> None:
    for method in ("cg", "bicgstab"):
        np.testing.assert_array_equal(solve(CSRMatrix.from_arrays(*map(np.asarray, ZERO_ROW[:3]), ZERO_ROW[3]), np.zeros(2), method=method), 0)


def test_no_memory_for_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(scipy.sparse.linalg, "splu", full)
    with pytest.raises(ValueError, match=r"small enough for its factors to fit in memory. Use method='cg'"):
        solve(laplacian(2), np.ones(4))


@pytest.mark.parametrize(("preconditioner", "matrix"), [("jacobi", SPACED), ("amg", laplacian(20))])
def test_no_convergence_says_how_far_it_came_and_what_to_try(preconditioner: str, matrix: CSRMatrix) -> None:
    with pytest.raises(
        ValueError, match=r"relative residual \d\.\de[+-]\d\d after 2 iterations: must be converged to 1.0e-10 within 2 .* method='lu'"
    ):
        solve(matrix, np.ones(matrix.shape[0]), method="cg", max_iterations=2, preconditioner=preconditioner)


def test_failures_inside_functions() -> None:
    matrix, b = SPACED, np.stack([np.ones(16), np.zeros(16)], axis=1)

    def run(values: tf.Tensor, **options: Any) -> tf.Tensor:
        return solve(matrix.with_values(values), b, **options)

    with pytest.raises(tf.errors.InvalidArgumentError, match="Invalid 'values' nan"):
        tf.function(lambda v: run(v))(matrix.values * np.nan)
    with pytest.raises(tf.errors.InvalidArgumentError, match="exactly singular"):
        tf.function(lambda v: run(v))(0 * matrix.values)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"not converged to 1e-10, or the matrix is not positive definite. Try another preconditioner"
    ):
        tf.function(lambda v: run(v, method="cg", max_iterations=2))(matrix.values)
    with pytest.raises(tf.errors.InvalidArgumentError, match="sparse_LU_runs_on_the_host_and_not_in_XLA"):
        tf.function(lambda v: run(v, method="lu"), jit_compile=True)(matrix.values)
    # XLA can raise nothing: the column that failed is NaN, the other one is right.
    x = tf.function(lambda v: run(v, method="cg", max_iterations=2), jit_compile=True)(matrix.values)
    np.testing.assert_array_equal(np.isnan(x), [[True, False]] * 16)


def test_methods_declare_whether_they_compile() -> None:
    assert not LU().xla and not Triangular(lower=True).xla
    for kind in ("cg", "bicgstab"):
        assert [Iterative(kind, preconditioner=name).xla for name in krylov.PRECONDITIONERS] == [True, True, False, False]


def test_separable_refuses_other_matrices() -> None:
    separable, matrix = Separable(poisson()), poisson().to_csr()
    b = np.ones(matrix.shape[0])
    for other in (CSRMatrix.from_dense(np.eye(matrix.shape[0])), matrix.with_values(matrix.values * (1 + 1e-9))):
        with pytest.raises(ValueError, match=r"Invalid 'matrix' that differs from the Poisson problem's: must be poisson.to_csr\(\)"):
            solve(other, b, method=separable)
    traced = tf.function(lambda v: solve(matrix.with_values(v), b, method=separable))
    with pytest.raises(tf.errors.InvalidArgumentError, match="differs from the Poisson problem"):
        traced(2 * matrix.values)
