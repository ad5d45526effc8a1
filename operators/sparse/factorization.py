"""Direct sparse solves on the host: SuperLU with factors that are kept, and substitution for triangular matrices.

All functions here take NumPy arrays and know nothing of derivatives (see `solve`). A(values) has a static pattern; `transposed`
asks for A^T x = b, never conjugated.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, final

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg
import tensorflow as tf

from .. import checks
from .memory import kept, recent
from .pattern import Pattern

#: A matrix is refused when its reciprocal condition is below this many times the rounding unit of its dtype.
SINGULAR = 4

T = TypeVar("T")
Solve = Callable[[np.ndarray, np.ndarray], np.ndarray]


@kept
def symmetric(pattern: Pattern) -> bool:
    """Whether (j, i) is an entry wherever (i, j) is."""
    other = pattern.transpose
    return np.array_equal(pattern.indptr, other.indptr) and np.array_equal(pattern.indices, other.indices)


@kept
def _triangles(pattern: Pattern) -> tuple[bool, bool]:
    return bool(np.all(pattern.indices >= pattern.rows)), bool(np.all(pattern.indices <= pattern.rows))


def is_triangular(pattern: Pattern, lower: bool) -> bool:
    """Whether all entries are on and below the diagonal, or on and above it."""
    return _triangles(pattern)[lower]


@kept
def missing_diagonal(pattern: Pattern) -> np.ndarray:
    """The rows of a square pattern that have no entry on the diagonal."""
    present = np.zeros(pattern.shape[0], dtype=bool)
    present[pattern.indices[pattern.rows == pattern.indices]] = True
    return np.flatnonzero(~present)


def on_host(name: str, function: Solve, values: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """``function(values, b)`` in NumPy: at once in eager, else as a host operation, whose name is in XLA's refusal of it."""
    if tf.executing_eagerly():
        return tf.constant(function(values.numpy(), b.numpy()))
    return tf.ensure_shape(tf.numpy_function(function, [values, b], b.dtype, name=f"{name}_runs_on_the_host_and_not_in_XLA"), b.shape)


def unconjugated(solve: Solve) -> Solve:
    """The same solve, but the values and their conjugate reach it as one of the two: a matrix and its adjoint share a factor."""

    def solved(values: np.ndarray, b: np.ndarray) -> np.ndarray:
        imaginary = values.imag[values.imag != 0][:1]
        return solve(values.conj(), b.conj()).conj() if np.any(imaginary < 0) else solve(values, b)

    return solved


def finite_entries(values: np.ndarray, b: np.ndarray) -> None:
    """Refuse NaN and infinite entries of a matrix or a right-hand side, naming the first."""
    checks.finite("values", values, dtype=values.dtype)
    checks.finite("b", b, dtype=b.dtype)


@final
@dataclass(frozen=True, eq=False)
class Factor:
    """A factorised matrix, scaled first so that its largest entries are about 1 whatever the units of its rows and columns.

    Args:
        lu: SuperLU of ``R A C``.
        rows: [n, 1] powers of two, the diagonal of R.
        columns: [n, 1] powers of two, the diagonal of C.
    """

    lu: Any
    rows: np.ndarray
    columns: np.ndarray

    def solve(self, b: np.ndarray, transposed: bool) -> np.ndarray:
        """x of ``A x = b``, or of ``A^T x = b``, for b [n, k]."""
        left, right = (self.columns, self.rows) if transposed else (self.rows, self.columns)
        return right * self.lu.solve(left * b, "T" if transposed else "N")


def lu_solve(pattern: Pattern, transposed: bool, values: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x of ``A x = b`` for b [n, k], by sparse LU with a kept factor (X. Li, 2005, "An overview of SuperLU", ACM TOMS 31).

    Raises:
        ValueError: Values or b not finite; a singular matrix, to rounding; not enough memory for the factors.
    """

    def solve(values: np.ndarray, b: np.ndarray) -> np.ndarray:
        return recent("lu", pattern, values, lambda: factorize(pattern, values)).solve(b, transposed)

    if b.size == 0:
        return b
    checks.finite("b", b, dtype=b.dtype)
    return _without_overflow(unconjugated(solve)(values, b))


def factorize(pattern: Pattern, values: np.ndarray) -> Factor:
    """Scale and factorise a square matrix; refuse one that is singular to rounding."""
    checks.finite("values", values, dtype=values.dtype)
    scaled, rows, columns = _scaled(pattern, values)
    lu = host_factors(pattern, lambda: scipy.sparse.linalg.splu(compressed_columns(pattern, scaled), **ordering(pattern)))
    _regular(_reciprocal_condition(pattern, scaled, lu.solve), values.dtype)
    return Factor(lu, rows, columns)


def _regular(condition: float, dtype: np.dtype) -> None:
    """Refuse a matrix of this reciprocal condition if it is singular to rounding."""
    limit = SINGULAR * np.finfo(dtype).eps
    if not condition >= limit:
        given = f"singular to rounding, with a reciprocal condition of about {condition:.1e}"
        raise checks.invalid("matrix", given, f"above {limit:.1e} for {dtype}", _REGULAR)


def ordering(pattern: Pattern) -> dict[str, Any]:
    """Options of SuperLU: a symmetric pattern fills in least in an order of its own, with pivots on the diagonal where they are not small."""
    return {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.1} if symmetric(pattern) else {}


_REGULAR = "Fix one unknown, add boundary conditions or a damping term, or solve the least-squares problem."


def host_factors(pattern: Pattern, make: Callable[[], T]) -> T:
    """What SuperLU's `make` gives, its failures said in terms of the matrix."""
    try:
        return make()
    except RuntimeError as failure:
        rank = scipy.sparse.csgraph.structural_rank(
            scipy.sparse.csr_array((np.ones(pattern.nnz), pattern.indices, pattern.indptr), shape=pattern.shape)
        )
        given = "exactly singular" if rank == pattern.shape[0] else f"structurally singular (rank {rank} of {pattern.shape[0]} whatever its values)"
        raise checks.invalid("matrix", given, "invertible", _REGULAR) from failure
    except MemoryError as failure:
        advice = "Use method='cg' (Hermitian positive definite matrices) or 'bicgstab', which need no factors."
        raise checks.invalid("matrix", f"of {pattern.nnz} entries", "small enough for its factors to fit in memory", advice) from failure


def compressed_columns(pattern: Pattern, values: np.ndarray) -> scipy.sparse.csc_array:
    """The matrix as SuperLU wants it."""
    if pattern.nnz > np.iinfo(np.intc).max:
        raise checks.invalid("matrix", f"of {pattern.nnz} entries", "of fewer than 2^31 entries for SuperLU", "Use method='cg' or 'bicgstab'.")
    columns = pattern.transpose
    return scipy.sparse.csc_array((values[pattern.permutation], columns.indices, columns.indptr), shape=pattern.shape)


def _scaled(pattern: Pattern, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values of ``R A C``, and R and C: powers of two, hence without rounding."""
    rows, columns = _exponents(pattern, np.abs(values))
    limit = np.finfo(values.dtype).maxexp - 2
    powers = np.ldexp(values.real.dtype.type(1), np.clip(rows[pattern.rows] + columns[pattern.indices], -limit, limit))
    outer = (np.ldexp(values.real.dtype.type(1), np.clip(part, -limit, limit))[:, None] for part in (rows, columns))
    return values * powers, *outer


def _exponents(pattern: Pattern, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scaling that brings all nonzero entries closest to 1 in their logarithms, which undoes whatever units rows and columns have.

    Source: Curtis & Reid (1972), "On the automatic scaling of matrices for Gaussian elimination", by a few alternating sweeps.
    """
    present = size > 0
    i, j, logarithm = pattern.rows[present], pattern.indices[present], np.log2(size[present].astype(np.float64))
    columns = np.zeros(pattern.shape[1])
    for _ in range(10):
        rows = -_means(logarithm + columns[j], i, pattern.shape[0])
        columns = -_means(logarithm + rows[i], j, pattern.shape[1])
    return np.rint(rows).astype(int), np.rint(columns).astype(int)


def _means(values: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(groups, values, count) / np.maximum(np.bincount(groups, minlength=count), 1)


def _reciprocal_condition(pattern: Pattern, values: np.ndarray, solve: Callable[[np.ndarray, str], np.ndarray]) -> float:
    """1 / (|A| |A^-1|) in the 1-norm, |A^-1| estimated from below by a few solves with A ("N") and its adjoint ("H").

    Source: Higham (1988), "FORTRAN codes for estimating the one-norm of a real or complex matrix", ACM TOMS 14, with its
    alternating vector. Unlike SciPy's block version it draws no random numbers.
    """
    n, largest = pattern.shape[0], 0.0
    x = np.full(n, 1 / n, dtype=values.dtype)
    for _ in range(5):
        y = solve(x, "N")
        size = np.abs(y)
        largest = max(largest, float(size.sum())) if np.all(np.isfinite(size)) else np.inf
        if not np.isfinite(largest):
            return 0.0
        z = solve(np.divide(y, size, out=np.ones_like(y), where=size > 0), "H")
        place = int(np.argmax(np.abs(z)))
        if np.abs(z[place]) <= np.real(np.vdot(z, x)):
            break
        x = np.zeros(n, dtype=values.dtype)
        x[place] = 1
    alternating = ((-1.0) ** np.arange(n) * (1 + np.arange(n) / max(n - 1, 1))).astype(values.dtype)
    largest = max(largest, 2 * float(np.abs(solve(alternating, "N")).sum()) / (3 * n))
    return 1 / (largest * float(np.bincount(pattern.indices, np.abs(values)).max()))


def triangular_solve(pattern: Pattern, lower: bool, transposed: bool, values: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x of ``A x = b`` for a lower or upper triangular A and b [n, k], by substitution.

    Raises:
        ValueError: A zero or missing diagonal entry; a matrix that is singular to rounding, as for `lu_solve`; values or b not finite;
            a result that overflows.
    """
    finite_entries(values, b)
    missing = missing_diagonal(pattern)
    if missing.size:
        raise checks.invalid("matrix", f"without a diagonal entry in row {missing[0]}", "with a full diagonal for a triangular solve")
    zero = np.flatnonzero(values[pattern.rows == pattern.indices] == 0)
    if zero.size:
        raise checks.invalid("matrix", f"with a zero on the diagonal in row {zero[0]}", "without one for a triangular solve: it is singular")

    def solve(values: np.ndarray, b: np.ndarray) -> np.ndarray:
        # A full diagonal says little: that of eye(60) - 2 triu(ones, 1) is one, and its inverse has entries of 3^58.
        _regular(recent("triangle", pattern, values, lambda: _condition_of_triangle(pattern, lower, values)), values.dtype)
        return _substituted(pattern, lower, transposed, values, b)

    return _without_overflow(unconjugated(solve)(values, b)) if b.size else b


def _condition_of_triangle(pattern: Pattern, lower: bool, values: np.ndarray) -> float:
    scaled, _, _ = _scaled(pattern, values)

    def solve(b: np.ndarray, kind: str) -> np.ndarray:
        factor = scaled if kind == "N" else scaled.conj()
        return _substituted(pattern, lower, kind != "N", factor, b[:, None])[:, 0]

    return _reciprocal_condition(pattern, scaled, solve)


def _substituted(pattern: Pattern, lower: bool, transposed: bool, values: np.ndarray, b: np.ndarray) -> np.ndarray:
    x = np.array(b, order="C")
    gather, scatter = _substitutions()
    # By columns of the transpose, which are the rows at hand, the sweep runs the other way.
    (scatter if transposed else gather)(pattern.indptr, pattern.indices, np.array(values), x, lower != transposed)
    return x


def _without_overflow(x: np.ndarray) -> np.ndarray:
    if not np.all(np.isfinite(x)):
        raise checks.invalid("matrix", f"with a solution beyond the range of {x.dtype}", "better scaled", "Scale its rows, or use a wider dtype.")
    return x


@functools.cache
def _substitutions() -> tuple[Callable[..., None], Callable[..., None]]:
    import numba  # takes most of a second

    compiled = numba.njit(cache=True, nogil=True)
    return compiled(_substitute), compiled(_substitute_transposed)


def _substitute(indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, x: np.ndarray, forward: bool) -> None:
    """Solve in place, row by row."""
    rows, columns = x.shape
    for step in range(rows):
        i = step if forward else rows - 1 - step
        pivot = values[indptr[i]]
        for place in range(indptr[i], indptr[i + 1]):
            j = indices[place]
            if j == i:
                pivot = values[place]
                continue
            for c in range(columns):
                x[i, c] -= values[place] * x[j, c]
        for c in range(columns):
            x[i, c] /= pivot


def _substitute_transposed(indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, x: np.ndarray, forward: bool) -> None:
    """Solve with the transpose in place, column of the transpose by column."""
    rows, columns = x.shape
    for step in range(rows):
        i = step if forward else rows - 1 - step
        for place in range(indptr[i], indptr[i + 1]):
            if indices[place] == i:
                for c in range(columns):
                    x[i, c] /= values[place]
        for place in range(indptr[i], indptr[i + 1]):
            j = indices[place]
            if j != i:
                for c in range(columns):
                    x[j, c] -= values[place] * x[i, c]
