"""Sparse solves and their derivatives against dense linear algebra, and how often they factorise and compile."""

import functools
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sparse_product import MODES, RUNS, assert_close, every_mode, random

from geoinv.operators.grid import Grid
from geoinv.operators.sparse import CSRMatrix, krylov
from geoinv.operators.sparse.separable import SeparablePoisson
from geoinv.operators.sparse.solve import LU, Iterative, Method, Separable, Triangular, adjoint_solve, solve

SIZE, WIDTH = 6, 2
DTYPES = {"float32": 1e-4, "float64": 1e-9, "complex64": 1e-4, "complex128": 1e-9}
TIGHT = 1e-14  # so that derivatives can be held to 1e-10

#: A way to solve, and the kind of matrix it is for.
METHODS: dict[str, tuple[str | Method, str]] = {
    "auto": ("auto", "general"),
    "lu": (LU(), "general"),
    "lower": (Triangular(lower=True), "lower"),
    "upper": (Triangular(lower=False), "upper"),
    "auto triangular": ("auto", "upper"),
    "cg": ("cg", "definite"),
    "cg plain": (Iterative("cg", preconditioner=None), "definite"),
    "cg ilu": (Iterative("cg", preconditioner="ilu"), "definite"),
    "cg amg": (Iterative("cg", preconditioner="amg"), "definite"),
    "bicgstab": ("bicgstab", "general"),
    "bicgstab plain": (Iterative("bicgstab", preconditioner=None), "general"),
    "bicgstab ilu": (Iterative("bicgstab", preconditioner="ilu"), "general"),
    "bicgstab amg": (Iterative("bicgstab", preconditioner="amg"), "general"),
}


def dense(kind: str, dtype: str) -> np.ndarray:
    """Random matrices with holes: diagonally dominant with a nonsymmetric pattern, its triangles, or Hermitian positive definite."""
    rng = np.random.default_rng(0)
    full = random(1, (SIZE, SIZE), dtype).numpy() * (rng.uniform(size=(SIZE, SIZE)) < 0.4)
    general = full + np.diag([4, -5, 6, 4, -5, 6])
    matrix = {
        "general": general,
        "lower": np.tril(general),
        "upper": np.triu(general),
        "definite": full @ full.conj().T + 2 * np.eye(SIZE),
    }[kind]
    return matrix.astype(dtype)


@functools.cache
def example(kind: str, dtype: str) -> CSRMatrix:
    """One matrix for all tests, so that its programs are compiled once, in the layout that compiles fastest."""
    return CSRMatrix.from_dense(dense(kind, dtype)).with_layout("padded rows")


def laplacian(n: int, dtype: type = np.float64) -> CSRMatrix:
    """The 5-point operator on n x n points with zero boundary values."""
    line = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    return CSRMatrix.from_scipy(scipy.sparse.kronsum(line, line, format="csr").astype(dtype)).with_layout("padded rows")


SPACED = laplacian(4)  # shared likewise


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), *list(DTYPES)[1:]])
def test_every_method_equals_dense(dtype: str) -> None:
    b = random(3, (SIZE, WIDTH), dtype)
    for name, (method, kind) in METHODS.items():
        matrix, full = example(kind, dtype), dense(kind, dtype)
        double = dtype in ("float64", "complex128")  # the adjoint's programs are not compiled for all four
        for function, twin in ((solve, full), (adjoint_solve, full.conj().T))[: 1 + double]:
            np.testing.assert_allclose(function(matrix, b, method=method), np.linalg.solve(twin, b), atol=DTYPES[dtype], err_msg=name)


@pytest.mark.parametrize("method", ["lu", "cg"])
def test_vectors_equal_columns(method: str) -> None:
    matrix, b = example("definite", "float64"), random(3, (SIZE, 1), "float64")
    np.testing.assert_array_equal(solve(matrix, b[:, 0], method=method), solve(matrix, b, method=method)[:, 0])
    np.testing.assert_array_equal(solve(matrix, b[:, 0].numpy().tolist(), method=method), solve(matrix, b, method=method)[:, 0])


# ---- derivatives -------------------------------------------------------------------------------------------------------


def twins(method: Method, matrix: CSRMatrix) -> tuple[Callable[..., tf.Tensor], Callable[..., tf.Tensor], list[tf.Tensor]]:
    """A solve, the same in dense TensorFlow, and their arguments."""
    places = np.stack([matrix.pattern.rows, matrix.indices], axis=1)
    arguments = [matrix.values, random(3, (matrix.shape[0], WIDTH), matrix.dtype.name)]
    return (
        lambda v, b: solve(matrix.with_values(v), b, method=method),
        lambda v, b: tf.linalg.solve(tf.scatter_nd(places, v, matrix.shape), b),
        arguments,
    )


#: In complex numbers, where a conjugate that is missing shows.
DIFFERENTIATED: dict[str, tuple[Method, str]] = {
    "lu": (LU(), "general"),
    "lower": (Triangular(lower=True), "lower"),
    "upper": (Triangular(lower=False), "upper"),
    "cg": (Iterative("cg", tolerance=TIGHT), "definite"),
    "cg ilu": (Iterative("cg", tolerance=TIGHT, preconditioner="ilu"), "definite"),
    "cg amg": (Iterative("cg", tolerance=TIGHT, preconditioner="amg"), "definite"),
    "bicgstab": (Iterative("bicgstab", tolerance=TIGHT), "general"),
    "bicgstab ilu": (Iterative("bicgstab", tolerance=TIGHT, preconditioner="ilu"), "general"),
    "bicgstab amg": (Iterative("bicgstab", tolerance=TIGHT, preconditioner="amg"), "general"),
}


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_every_mode_equals_dense(name: str) -> None:
    method, kind = DIFFERENTIATED[name]
    function, twin, arguments = twins(method, example(kind, "complex128"))
    assert_close(every_mode(function, arguments), every_mode(twin, arguments), 1e-10)


# In the quick suite each method stands once inside a function of either kind, and both kinds hold one that iterates.
@pytest.mark.parametrize("name", ["lu", pytest.param("cg", marks=pytest.mark.slow), "bicgstab"])
def test_every_mode_inside_a_function(name: str) -> None:
    method, kind = DIFFERENTIATED[name]
    function, twin, arguments = twins(method, example(kind, "complex128"))
    found = tf.function(lambda *args: every_mode(function, list(args)))(*arguments)
    assert_close(found, every_mode(twin, arguments), 1e-10)


@pytest.mark.parametrize(("name", "dtype"), [("cg", "complex128"), pytest.param("bicgstab", "float64", marks=pytest.mark.slow)])
def test_every_mode_inside_xla(name: str, dtype: str) -> None:
    method, kind = DIFFERENTIATED[name]
    assert method.xla
    function, twin, arguments = twins(method, example(kind, dtype))
    found = RUNS["xla"](lambda *args: every_mode(function, list(args)))(*arguments)
    assert_close(found, every_mode(twin, arguments), 1e-10)


def test_reverse_from_outside_a_function_equals_dense() -> None:
    for name in ("lu", "bicgstab"):
        method, kind = DIFFERENTIATED[name]
        function, twin, arguments = twins(method, example(kind, "complex128"))
        assert_close(MODES[0](tf.function(function), arguments), MODES[0](twin, arguments), 1e-10)


def test_adjoint_solve_is_the_adjoint() -> None:
    matrix = example("general", "complex128")
    b, c = random(3, (SIZE,), "complex128"), random(4, (SIZE,), "complex128")
    left, right = np.vdot(c, solve(matrix, b)), np.vdot(adjoint_solve(matrix, c), b)
    assert abs(left - right) <= 1e-12 * abs(left)


def test_gradient_of_values_has_the_size_of_the_pattern() -> None:
    matrix = laplacian(20)
    with tf.GradientTape() as tape:
        tape.watch(matrix.values)
        x = solve(matrix, np.ones((400, 3)))
        total = tf.reduce_sum(x)
    gradient = tape.gradient(total, matrix.values)
    assert gradient.shape == (matrix.nnz,)
    # The adjoint of a sum is the solution itself here.
    expected = -3 * x[:, 0].numpy()[matrix.pattern.rows] * x[:, 0].numpy()[matrix.indices]
    np.testing.assert_allclose(gradient, expected, rtol=1e-10)


# ---- separable ---------------------------------------------------------------------------------------------------------


def poisson() -> SeparablePoisson:
    return SeparablePoisson(Grid((np.array([0.0, 1, 2, 4, 7, 9]), np.array([0.0, 2, 3, 4, 6, 7, 9]))))


@pytest.mark.parametrize("run", ["eager", "xla"])
def test_separable_equals_lu_in_every_mode(run: str) -> None:
    separable = Separable(poisson())
    function, twin, arguments = twins(separable, separable.matrix)
    found = RUNS[run](lambda *args: every_mode(function, list(args)))(*arguments)
    assert_close(found, every_mode(twin, arguments), 1e-10)
    matrix = poisson().to_csr()
    np.testing.assert_allclose(solve(matrix, arguments[1], method=separable), solve(matrix, arguments[1], method="lu"), rtol=1e-10)


# ---- factors, programs, iterations -------------------------------------------------------------------------------------


@pytest.fixture
def factorised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the matrices that SuperLU was given."""
    sizes: list[int] = []
    original = scipy.sparse.linalg.splu

    def counted(matrix: Any, **options: Any) -> Any:
        sizes.append(matrix.shape[0])
        return original(matrix, **options)

    monkeypatch.setattr(scipy.sparse.linalg, "splu", counted)
    return sizes


def test_one_factorisation_serves_columns_gradient_adjoint_and_calls(factorised: list[int]) -> None:
    matrix = CSRMatrix.from_dense(dense("general", "complex128"))
    for _ in range(2):
        with tf.GradientTape() as tape:
            tape.watch(matrix.values)
            total = tf.reduce_sum(tf.abs(solve(matrix, random(3, (SIZE, 5), "complex128"))) ** 2)
        assert tape.gradient(total, matrix.values) is not None
    adjoint_solve(matrix, np.ones(SIZE))
    tf.function(lambda v: solve(matrix.with_values(v), np.ones(SIZE)))(matrix.values)
    assert len(factorised) == 1


def test_few_factors_are_kept(factorised: list[int]) -> None:
    matrix = laplacian(3)
    for factor in (1, 2, 1, 3, 1, 2):  # 3 displaces 2, which was used least recently: a factor may take gigabytes
        solve(matrix.with_values(factor * matrix.values), np.ones(9))
    assert len(factorised) == 4


def test_threads_share_one_factorisation(factorised: list[int]) -> None:
    matrix, found = laplacian(30), []
    threads = [threading.Thread(target=lambda: found.append(solve(matrix, np.ones(900)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(factorised) == 1
    for x in found:
        np.testing.assert_array_equal(x, found[0])


def test_iterations_compile_once_for_new_numbers_and_one_bucket_of_columns() -> None:
    matrix = laplacian(4)
    for factor, columns in ((1.0, 17), (2.0, 18), (0.5, 17)):
        b = random(columns, (16, columns), "float64")
        x = solve(matrix.with_values(factor * matrix.values), b, method="cg", tolerance=1e-9 * factor, max_iterations=100 + columns)
        np.testing.assert_allclose(factor * (matrix @ x), b, atol=1e-7)
    assert krylov._programs(matrix.pattern)["cg", False].experimental_get_tracing_count() == 1


def test_programs_go_with_their_pattern() -> None:
    watched: list[Any] = []
    for n in (1, 2, 3):
        matrix = CSRMatrix.from_dense(np.eye(n))
        problem = krylov.Problem("cg", matrix.pattern, False, 1e-10, 10, "jacobi")
        outer = tf.function(lambda v, problem=problem: krylov.iterate(problem, v, v[:, tf.newaxis]).x)
        traced = outer.get_concrete_function(matrix.values)  # nothing is compiled
        program = krylov._programs(matrix.pattern)["cg", False]
        assert program.experimental_get_tracing_count() == 1
        assert program._omit_frequent_tracing_warning  # or TensorFlow takes several patterns for retracing
        watched += [weakref.ref(each) for each in (program, *program._list_all_concrete_functions(), matrix.pattern)]
    del matrix, problem, outer, traced, program
    gc.collect()
    assert [each() for each in watched] == [None] * 9


@pytest.mark.parametrize("method", ["lu", "cg"])
def test_shapes_known_when_a_function_runs(method: str) -> None:
    matrix, b = SPACED, random(2, (16, 1), "float64")

    def traced(*shape: int | None) -> Callable[[tf.Tensor], tf.Tensor]:
        return tf.function(lambda b: solve(matrix, b, method=method), input_signature=[tf.TensorSpec(shape, tf.float64)])

    expected = solve(matrix, b, method=method)
    np.testing.assert_array_equal(traced(None, None)(b), expected)
    vectors = traced(None)
    np.testing.assert_array_equal(vectors(b[:, 0]), expected[:, 0])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[5\] is not compatible with expected shape \[16\]"):
        vectors(b[:5, 0])


@pytest.mark.parametrize("method", ["lu", "cg"])
def test_a_variable_as_right_side(method: str) -> None:
    matrix, b = SPACED, tf.Variable(random(2, (16,), "float64"))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(solve(matrix, b, method=method))
    np.testing.assert_allclose(tape.gradient(total, b), np.linalg.solve(matrix.to_scipy().toarray(), np.ones(16)), rtol=1e-8)


@pytest.mark.parametrize("kind", ["cg", "bicgstab"])
def test_stronger_preconditioners_need_fewer_iterations(kind: str) -> None:
    matrix, b = laplacian(40), random(5, (1600, 1), "float64")

    def problem(preconditioner: str) -> krylov.Problem:
        return krylov.Problem(kind, matrix.pattern, False, 1e-10, 1000, preconditioner)

    jacobi = krylov.iterate(problem("jacobi"), matrix.values, b)
    for preconditioner in ("ilu", "amg"):
        outcome = krylov.iterate_on_host(problem(preconditioner), matrix.values.numpy(), b.numpy())
        np.testing.assert_array_less(np.linalg.norm(matrix @ outcome.x - b), 1.01e-10 * np.linalg.norm(b))
        assert outcome.iterations < int(jacobi.iterations) / 4


def test_results_do_not_depend_on_numpys_random_numbers() -> None:
    b, found = np.ones(400), []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002
        found.append(solve(laplacian(20), b, method="cg", preconditioner="amg"))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("method", ["cg", "bicgstab"])
def test_columns_have_their_own_residuals(method: str) -> None:
    # Of very different size and difficulty, one of them zero: each reaches the tolerance of its own norm.
    matrix, rng = laplacian(12), np.random.default_rng(0)
    easy = np.sin(np.pi * np.arange(1, 13) / 13)
    b = np.stack([rng.normal(size=144), 1e-30 * rng.normal(size=144), np.zeros(144), 1e9 * np.outer(easy, easy).ravel()], axis=1)
    x = solve(matrix, b, method=method).numpy()
    residual = np.linalg.norm(matrix.to_scipy() @ x - b, axis=0)
    assert np.all(residual <= 1.1e-10 * np.linalg.norm(b, axis=0))
    np.testing.assert_array_equal(x[:, 2], 0)


def test_small_numbers_do_not_underflow_in_single_precision() -> None:
    matrix, b = laplacian(4, np.float32), (1e-25 * np.arange(1, 17)).astype(np.float32)
    for method in ("lu", "cg", "bicgstab"):
        np.testing.assert_allclose(matrix.to_scipy() @ solve(matrix, b, method=method).numpy(), b, atol=1e-29)


def test_units_of_rows_and_columns_do_not_make_a_matrix_singular() -> None:
    full = dense("general", "float64")
    units = 10.0 ** np.array([-20, 3, 0, 12, -7, 20])
    matrix = CSRMatrix.from_dense(units[:, None] * full * units[::-1])
    expected = np.linalg.solve(full, np.ones(SIZE)) / units[::-1]
    np.testing.assert_allclose(solve(matrix, units, method="lu"), expected, rtol=1e-12)


def test_empty_problems() -> None:
    for method in ("lu", "cg", "triangular"):
        assert solve(CSRMatrix.from_dense(np.zeros((0, 0))), np.zeros(0), method=method).shape == (0,)
        assert solve(CSRMatrix.from_dense(np.eye(2)), np.zeros((2, 0)), method=method).shape == (2, 0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.floats(0, 0.9), st.sampled_from(["lu", "triangular", "auto"]), st.integers(0, 10**6))
def test_diagonally_dominant_matrices(size: int, density: float, method: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    full = rng.normal(size=(size, size)) * (rng.uniform(size=(size, size)) < density)
    full = np.tril(full) if method == "triangular" else full
    np.fill_diagonal(full, rng.choice([-1, 1], size) * (1 + np.abs(full).sum(axis=1)))
    b = rng.normal(size=(size, 2))
    matrix = CSRMatrix.from_dense(full)
    np.testing.assert_allclose(solve(matrix, b, method=method), np.linalg.solve(full, b), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(adjoint_solve(matrix, b, method=method), np.linalg.solve(full.T, b), rtol=1e-10, atol=1e-12)
