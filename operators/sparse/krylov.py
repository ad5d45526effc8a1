"""Iterative sparse solves: conjugate gradients and BiCGSTAB.

In pure TensorFlow, one compiled loop advances all right-hand sides, each with scalars of its own; those that have converged
rest. With a preconditioner that lives on the host (incomplete LU, algebraic multigrid) SciPy's loops run there instead. In
both, when the recurrence says that it has converged the true residual is computed, and if it is not small enough a new cycle
starts from it: what is answered has the residual that was asked for. Nothing here knows of derivatives (see `solve`).
"""

import functools
import itertools
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import tensorflow as tf

from .. import checks
from ..autodiff import in_graph
from ..graphs import compiled, guarded
from .factorization import compressed_columns, finite_entries, host_factors, on_host, ordering, symmetric, unconjugated
from .layout import on_device
from .memory import kept, recent
from .pattern import Pattern
from .product import conj
from .sizes import pad_columns

#: How often a loop may start again from the true residual.
CYCLES = 10
#: The most iterations by default, where ten times the unknowns is more.
MOST_ITERATIONS = 10_000

#: How much entries (i, j) and (j, i) of a Hermitian matrix may differ, in rounding units of its largest entry.
_ASYMMETRY = 100

ON_HOST = ("ilu", "amg")
PRECONDITIONERS = (None, "jacobi", *ON_HOST)

Linear = Callable[[tf.Tensor], tf.Tensor]


class Problem(NamedTuple):
    """What is iterated, and how far.

    Args:
        kind: 'cg' or 'bicgstab'.
        pattern: Of the matrix A.
        transposed: Whether A^T x = b is meant.
        tolerance: Of each column, |b - A x| / |b|.
        most: Iterations of each column.
        preconditioner: One of `PRECONDITIONERS`.
    """

    kind: str
    pattern: Pattern
    transposed: bool
    tolerance: float
    most: int
    preconditioner: str | None


class Outcome(NamedTuple):
    """How an iteration ended.

    Args:
        x: [n, k].
        residual: [k] true relative residuals.
        definite: [k] whether no sign of a matrix that is not Hermitian positive definite was met (CG).
        iterations: The most that a column took.
    """

    x: Any
    residual: Any
    definite: Any
    iterations: Any


def default_tolerance(dtype: tf.DType) -> float:
    """1e-10 in double precision, 1e-5 in single."""
    return 1e-10 if dtype.real_dtype == tf.float64 else 1e-5


def solve(problem: Problem, values: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """x of ``A x = b`` for b [n, k].

    Raises:
        ValueError: Not converged, not positive definite (CG), NaN. In a tf.function, an error of TensorFlow with the same words; under
            `jit_compile`, where nothing can be raised, the columns concerned are NaN.
    """
    if problem.kind == "cg" and not symmetric(problem.pattern):
        raise _not_positive("whose pattern is not symmetric")
    if problem.kind == "cg" and problem.transposed:
        # The transpose is the conjugate: one program and one preconditioner serve both. That it is Hermitian is checked.
        problem, values = problem._replace(transposed=False), conj(values)
    if problem.preconditioner in ON_HOST:
        return on_host(f"{problem.kind}_with_{problem.preconditioner}", lambda v, b: _solve_on_host(problem, v, b), values, b)
    outcome = iterate(problem, values, b)
    converged = outcome.definite & (outcome.residual <= problem.tolerance)
    if tf.executing_eagerly():
        if not bool(tf.reduce_all(converged)):
            raise _failure(problem, values.numpy(), b.numpy(), outcome)
        return outcome.x
    doubt = "not positive definite" if problem.kind == "cg" else "singular"
    message = f"Invalid 'solve' by {problem.kind}: not converged to {problem.tolerance:g}, or the matrix is {doubt}. {_ADVICE} Relative residuals:"
    return guarded(outcome.x, converged, message, outcome.residual)


# ---- in TensorFlow -----------------------------------------------------------------------------------------------------


def iterate(problem: Problem, values: tf.Tensor, b: tf.Tensor) -> Outcome:
    """Run the compiled loop; it is compiled once for each pattern, dtype and bucket of column numbers, whatever the numbers are."""
    kind, pattern, transposed, tolerance, most, preconditioner = problem
    tolerance = tf.constant(tolerance, b.dtype.real_dtype)
    columns = tf.shape(b)[1] if b.shape[1] is None else b.shape[1]
    inverse = _inverse_diagonal(pattern, values) if preconditioner == "jacobi" else tf.ones([pattern.shape[0], 1], b.dtype)
    x, residual, definite, count = _programs(pattern)[kind, transposed](
        _tensors(problem), values, inverse, pad_columns(b), tolerance, tf.constant(most)
    )
    return Outcome(tf.ensure_shape(x[:, :columns], b.shape), residual[:columns], definite[:columns], count)


@kept
def _programs(pattern: Pattern) -> dict[tuple[str, bool], Any]:
    """The compiled loops of one pattern, by kind and transposition. They go with it: their bodies hold it weakly."""
    of = weakref.ref(pattern)
    kinds = itertools.product(("cg", "bicgstab"), (False, True))
    return {key: compiled(functools.partial(_iterate, of, *key)) for key in kinds}


def _tensors(problem: Problem) -> Any:
    """What a loop reads of its pattern: the layout's tensors and, for CG, where each entry's mirror image is."""
    pattern = problem.pattern
    layout = pattern.transposed_layout if problem.transposed else pattern.choice.layout
    return in_graph((layout.tensors, (on_device(pattern.permutation),) if problem.kind == "cg" else ()))


def _iterate(
    of: weakref.ref[Pattern],
    kind: str,
    transposed: bool,
    tensors: Any,
    values: tf.Tensor,
    inverse: tf.Tensor,
    b: tf.Tensor,
    tolerance: tf.Tensor,
    most: tf.Tensor,
) -> Outcome:
    pattern = of()
    assert pattern is not None  # it is the caller's
    cycle = {"cg": _conjugate_gradients, "bicgstab": _stabilized}[kind]
    layout = pattern.transposed_layout if transposed else pattern.choice.layout
    (places, indices), mirrored = tensors
    arranged = layout.run_arrange(places, values)  # once, not in every iteration
    possible = _hermitian_tensor(mirrored[0], values) if kind == "cg" else tf.reduce_all(tf.abs(values) < np.inf)
    # Squares of small numbers must not underflow: a right-hand side in SI units may well be 1e-25.
    size = _nonzero(tf.reduce_max(tf.abs(b), axis=0))
    scale = size * _nonzero(_norm(b / tf.cast(size, b.dtype)))
    b = b / tf.cast(scale, b.dtype)

    def multiply(v: tf.Tensor) -> tf.Tensor:
        return layout.run_arranged(indices, arranged, v)

    def unfinished(count: tf.Tensor, cycles: tf.Tensor, x: tf.Tensor, r: tf.Tensor, definite: tf.Tensor) -> tf.Tensor:
        return (count < most) & (cycles < CYCLES) & tf.reduce_any(definite & (_norm(r) > tolerance))

    def advance(count: tf.Tensor, cycles: tf.Tensor, x: tf.Tensor, r: tf.Tensor, definite: tf.Tensor) -> tuple[tf.Tensor, ...]:
        count, x, sound = cycle(multiply, lambda v: inverse * v, x, r, tolerance, count, most)
        return count, cycles + 1, x, b - multiply(x), definite & sound

    start = tf.zeros_like(most), tf.zeros_like(most), tf.zeros_like(b), b, tf.fill(tf.shape(scale), possible)
    count, _, x, r, definite = tf.while_loop(unfinished, advance, start)
    return Outcome(x * tf.cast(scale, b.dtype), _norm(r), definite, count)


def _conjugate_gradients(
    multiply: Linear, precondition: Linear, x: tf.Tensor, r: tf.Tensor, target: tf.Tensor, count: tf.Tensor, most: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """One cycle of preconditioned CG (Saad 2003, "Iterative methods for sparse linear systems", algorithm 9.1); a column a system."""

    def step(
        count: tf.Tensor, x: tf.Tensor, r: tf.Tensor, p: tf.Tensor, rz: tf.Tensor, active: tf.Tensor, definite: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        q = multiply(p)
        curvature = tf.math.real(_dot(p, q))
        positive = (curvature > 0) & (rz > 0)
        definite &= positive | ~active
        active &= positive
        alpha = tf.cast(_ratio(rz, curvature, active), x.dtype)
        x, r = x + alpha * p, r - alpha * q
        z = precondition(r)
        new = tf.math.real(_dot(r, z))
        p = z + tf.cast(_ratio(new, rz, active), x.dtype) * p
        return count + 1, x, r, p, new, active & (_norm(r) > target), definite

    z, active = precondition(r), _norm(r) > target
    start = count, x, r, z, tf.math.real(_dot(r, z)), active, tf.ones_like(active)
    end = tf.while_loop(lambda count, x, r, p, rz, active, definite: (count < most) & tf.reduce_any(active), step, start)
    return end[0], end[1], end[-1]


def _stabilized(
    multiply: Linear, precondition: Linear, x: tf.Tensor, r: tf.Tensor, target: tf.Tensor, count: tf.Tensor, most: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """One cycle of BiCGSTAB, preconditioned from the right (van der Vorst 1992, SIAM J. Sci. Stat. Comput. 13); ends at a breakdown."""
    shadow, weight = r, _norm(r)

    def step(
        count: tf.Tensor, x: tf.Tensor, r: tf.Tensor, p: tf.Tensor, v: tf.Tensor, last: tuple[tf.Tensor, ...], active: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        rho, alpha, omega = last
        new = _dot(shadow, r)
        active &= tf.abs(new) > _epsilon(r.dtype) * weight * _norm(r)
        p = r + _ratio(new * alpha, rho * omega, active) * (p - omega * v)
        y = precondition(p)
        v = multiply(y)
        alpha = _ratio(new, _dot(shadow, v), active)
        s = r - alpha * v
        z = precondition(s)
        t = multiply(z)
        omega = _ratio(_dot(t, s), _dot(t, t), active)
        x, r = x + alpha * y + omega * z, s - omega * t
        active &= (_norm(r) > target) & (alpha != 0) & (omega != 0)
        return count + 1, x, r, p, v, (new, alpha, omega), active

    one, zero, active = tf.ones_like(_dot(r, r)), tf.zeros_like(r), weight > target
    start = count, x, r, zero, zero, (one, one, one), active
    end = tf.while_loop(lambda count, x, r, p, v, last, active: (count < most) & tf.reduce_any(active), step, start)
    return end[0], end[1], tf.ones_like(active)


def _inverse_diagonal(pattern: Pattern, values: tf.Tensor) -> tf.Tensor:
    """[n, 1] reciprocal diagonal, 1 where it is zero or missing."""
    rows, columns, _ = in_graph(pattern.entries)
    on = tf.where(rows == tf.cast(columns, rows.dtype), values, tf.zeros_like(values))
    diagonal = tf.math.unsorted_segment_sum(on, rows, pattern.shape[0])
    return tf.where(diagonal == 0, tf.ones_like(diagonal), 1 / diagonal)[:, tf.newaxis]


def _hermitian_tensor(mirrored: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    difference = tf.abs(values - conj(tf.gather(values, mirrored)))
    return tf.reduce_all(difference <= _ASYMMETRY * _epsilon(values.dtype) * tf.reduce_max(tf.abs(values)))


def _epsilon(dtype: tf.DType) -> float:
    return float(np.finfo(dtype.as_numpy_dtype).eps)


def _dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.math.conj(a) * b, axis=0)


def _norm(a: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(tf.math.real(_dot(a, a)))


def _nonzero(a: tf.Tensor) -> tf.Tensor:
    return tf.where(a == 0, tf.ones_like(a), a)


def _ratio(a: tf.Tensor, b: tf.Tensor, active: tf.Tensor) -> tf.Tensor:
    """a / b in active columns, 0 elsewhere and where b is 0."""
    fine = active & (b != 0)
    return tf.where(fine, a, 0) / tf.where(fine, b, 1)


# ---- on the host -------------------------------------------------------------------------------------------------------


def iterate_on_host(problem: Problem, values: np.ndarray, b: np.ndarray) -> Outcome:
    """Run SciPy's loop, column by column."""
    matrix, apply = _operators(problem, values)
    precondition = scipy.sparse.linalg.LinearOperator(matrix.shape, apply, dtype=values.dtype)
    x, residual, count = np.zeros_like(b), np.zeros(b.shape[1], dtype=b.real.dtype), 0
    for column in np.flatnonzero(np.any(b != 0, axis=0)):
        scale = np.abs(b[:, column]).max()
        scale *= np.linalg.norm(b[:, column] / scale)
        found, residual[column], steps = _cycles_on_host(problem, matrix, precondition, b[:, column] / scale)
        x[:, column], count = found * scale, max(count, steps)
    return Outcome(x, residual, np.ones(b.shape[1], dtype=bool), count)


def _cycles_on_host(problem: Problem, matrix: Any, precondition: Any, b: np.ndarray) -> tuple[np.ndarray, float, int]:
    """One unit right-hand side: its x, true residual and number of iterations."""
    loop = {"cg": scipy.sparse.linalg.cg, "bicgstab": scipy.sparse.linalg.bicgstab}[problem.kind]
    operator = _watched(matrix) if problem.kind == "cg" else matrix
    x, residual, steps = np.zeros_like(b), 1.0, list[int]()
    for _ in range(CYCLES):
        left = problem.most - len(steps)
        x, _ = loop(operator, b, x, rtol=problem.tolerance, atol=0.0, maxiter=left, M=precondition, callback=lambda _: steps.append(1))
        residual = float(np.linalg.norm(b - matrix @ x))
        if not residual > problem.tolerance or len(steps) >= problem.most:
            break
    return x, residual, len(steps)


def _watched(matrix: Any) -> Any:
    """The matrix as an operator that raises where it is met with a negative curvature."""

    def multiply(p: np.ndarray) -> np.ndarray:
        q = matrix @ p
        if np.any(p) and not np.vdot(p, q).real > 0:
            raise _not_positive("with a direction of zero or negative curvature")
        return q

    return scipy.sparse.linalg.LinearOperator(matrix.shape, multiply, dtype=matrix.dtype)


def _operators(problem: Problem, values: np.ndarray) -> tuple[Any, Callable[[np.ndarray], np.ndarray]]:
    """The matrix and what its preconditioner does to a vector."""
    kind, pattern, transposed, *_, preconditioner = problem
    if kind == "cg" and not _hermitian(pattern, values):
        raise _not_positive("that is not Hermitian")
    matrix = scipy.sparse.csr_array((values, pattern.indices, pattern.indptr), shape=pattern.shape)
    if preconditioner == "ilu":
        incomplete = recent("ilu", pattern, values, lambda: _incomplete(pattern, values))
        if kind == "cg":  # whose preconditioner must be Hermitian: that part of it
            return matrix, lambda r: (incomplete.solve(r) + incomplete.solve(r, "H")) / 2
        return matrix.T if transposed else matrix, lambda r: incomplete.solve(r, "T" if transposed else "N")
    matrix = matrix.T.tocsr() if transposed else matrix
    levels = recent(f"amg {kind} {transposed}", pattern, values, lambda: _multigrid(matrix, "hermitian" if kind == "cg" else "nonsymmetric"))
    return matrix, levels.aspreconditioner().matvec


def _incomplete(pattern: Pattern, values: np.ndarray) -> Any:
    """Incomplete LU with SuperLU's own drop tolerance (Li & Shao 2011, ACM TOMS 37)."""
    return host_factors(pattern, lambda: scipy.sparse.linalg.spilu(compressed_columns(pattern, values), **ordering(pattern)))


def _multigrid(matrix: scipy.sparse.csr_array, symmetry: str) -> Any:
    """Smoothed aggregation (Vanek, Mandel & Brezina 1996; Bell, Olson & Schroder 2022, "PyAMG", JOSS 7)."""
    import pyamg

    # Local weights: the default ones estimate a spectral radius from random vectors, and results would differ from run to run.
    return pyamg.smoothed_aggregation_solver(scipy.sparse.csr_matrix(matrix), symmetry=symmetry, smooth=("jacobi", {"weighting": "local"}))


def _solve_on_host(problem: Problem, values: np.ndarray, b: np.ndarray) -> np.ndarray:
    finite_entries(values, b)

    def solve(values: np.ndarray, b: np.ndarray) -> np.ndarray:
        outcome = iterate_on_host(problem, values, b)
        if not np.all(outcome.residual <= problem.tolerance):
            raise _failure(problem, values, b, outcome)
        return outcome.x

    return unconjugated(solve)(values, b)


# ---- what went wrong ---------------------------------------------------------------------------------------------------

_ADVICE = "Try another preconditioner ('jacobi', 'ilu', 'amg'), more iterations (max_iterations), a larger tolerance, or method='lu'."


def _failure(problem: Problem, values: np.ndarray, b: np.ndarray, outcome: Outcome) -> ValueError:
    """Why an iteration did not converge, the likeliest reason first; NaN is raised at once."""
    finite_entries(values, b)
    if problem.kind == "cg" and not _hermitian(problem.pattern, values):
        return _not_positive("that is not Hermitian")
    empty = _without_entries(problem.pattern, values)
    if empty.size:
        return checks.invalid("matrix", f"with nothing but zeros in row {empty[0]}, its diagonal zero or missing", "invertible")
    if not np.all(outcome.definite):
        return _not_positive("with a direction of zero or negative curvature")
    residual = np.asarray(outcome.residual)
    worst = float(residual.max()) if np.all(np.isfinite(residual)) else np.inf
    given = (
        f"by {problem.kind} with preconditioner {problem.preconditioner!r}: relative residual {worst:.1e} after {int(outcome.iterations)} iterations"
    )
    return checks.invalid("solve", given, f"converged to {problem.tolerance:.1e} within {problem.most} iterations", _ADVICE)


def _not_positive(what: str) -> ValueError:
    return checks.invalid("matrix", what, "Hermitian positive definite for method='cg'", "Use method='bicgstab' or 'lu'.")


def _without_entries(pattern: Pattern, values: np.ndarray) -> np.ndarray:
    """The rows that hold no nonzero entry."""
    return np.flatnonzero(np.bincount(pattern.rows[values != 0], minlength=pattern.shape[0]) == 0)


def _hermitian(pattern: Pattern, values: np.ndarray) -> bool:
    """Whether a matrix with a symmetric pattern equals its adjoint, to rounding."""
    difference = np.abs(values - values[pattern.permutation].conj())
    return bool(np.all(difference <= _ASYMMETRY * np.finfo(values.dtype).eps * np.abs(values).max(initial=0)))
