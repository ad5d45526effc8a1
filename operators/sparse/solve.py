r"""Solves with a sparse matrix, and the one home of their derivatives.

For x of A(v) x = b, g the cotangent of x, a bar the complex conjugate (see `product` for the convention):

.. math:: db = w, \quad dv = -sampled(w, \bar{x}), \quad A(v)^H w = g ; \qquad A(v) \, \dot{x} = \dot{b} - A(\dot{v}) \, x .

The adjoint solve is the same function with the transposed, conjugated matrix, so derivatives of every order and in every mode
are made of solves and products, cost one solve each, and are exact to the residual of the solves: rounding for the direct
methods, the stated tolerance for the iterative ones. How a system is solved is a `Method`, which knows nothing of derivatives.
"""

import abc
import functools
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import tensorflow as tf

from .. import checks
from ..autodiff import differentiable, ensure_shape
from ..graphs import guarded
from . import factorization, krylov
from .algebra import of_dtype
from .pattern import Pattern
from .product import conj, product, sampled_product, transposed_product

if TYPE_CHECKING:  # a matrix offers these solves as methods
    from .csr import CSRMatrix
    from .separable import SeparablePoisson

ITERATIVE = ("cg", "bicgstab")
METHODS = ("auto", "lu", "triangular", *ITERATIVE)


class Method(abc.ABC):
    """A way to solve A(values) x = b for a square matrix; never differentiated itself."""

    @property
    @abc.abstractmethod
    def xla(self) -> bool:
        """Whether it runs inside `jit_compile`; if not, it runs on the host, and XLA refuses to compile it."""

    @abc.abstractmethod
    def solve(self, pattern: Pattern, values: tf.Tensor, b: tf.Tensor, transposed: bool) -> tf.Tensor:
        """x [n, k] of ``A(values) x = b``, or with `transposed` of ``A(values)^T x = b``, without conjugation."""


@final
@dataclass(frozen=True, eq=False)
class LU(Method):
    """Sparse LU by SuperLU on the host; the factors of the last few values of a pattern are kept, and serve the adjoint too."""

    @property
    def xla(self) -> bool:
        return False

    def solve(self, pattern: Pattern, values: tf.Tensor, b: tf.Tensor, transposed: bool) -> tf.Tensor:
        return factorization.on_host("sparse_LU", functools.partial(factorization.lu_solve, pattern, transposed), values, b)


@final
@dataclass(frozen=True, eq=False)
class Triangular(Method):
    """Substitution on the host, for a triangular matrix.

    Args:
        lower: Whether the entries are on and below the diagonal, or on and above it.
    """

    lower: bool

    @property
    def xla(self) -> bool:
        return False

    def solve(self, pattern: Pattern, values: tf.Tensor, b: tf.Tensor, transposed: bool) -> tf.Tensor:
        if not factorization.is_triangular(pattern, self.lower):
            raise checks.invalid("matrix", "with entries on both sides of the diagonal, or on the wrong one", "triangular", "Use method='lu'.")
        substitute = functools.partial(factorization.triangular_solve, pattern, self.lower, transposed)
        return factorization.on_host("triangular_solve", substitute, values, b)


@final
@dataclass(frozen=True, eq=False)
class Iterative(Method):
    """A preconditioned Krylov iteration. Under `jit_compile` nothing can be raised: a column that did not converge is NaN there.

    Args:
        kind: 'cg' for Hermitian positive definite matrices, 'bicgstab' for any invertible one that it converges for.
        tolerance: Relative residual of each column; 1e-10 by default, 1e-5 in single precision.
        max_iterations: Ten times the unknowns by default, at most 10 000.
        preconditioner: None or 'jacobi' (in TensorFlow), 'ilu' or 'amg' (on the host).
    """

    kind: str
    tolerance: float | None = None
    max_iterations: int | None = None
    preconditioner: str | None = "jacobi"

    def __post_init__(self) -> None:
        checks.choice("kind", self.kind, ITERATIVE)
        _check_iteration(self.tolerance, self.max_iterations, self.preconditioner)

    @property
    def xla(self) -> bool:
        return self.preconditioner not in krylov.ON_HOST

    def solve(self, pattern: Pattern, values: tf.Tensor, b: tf.Tensor, transposed: bool) -> tf.Tensor:
        tolerance, most = _limits(self.tolerance, self.max_iterations, b)
        return krylov.solve(krylov.Problem(self.kind, pattern, transposed, tolerance, most, self.preconditioner), values, b)


@final
@dataclass(frozen=True, eq=False)
class Separable(Method):
    """Separation of variables, for the matrix of a Poisson problem on a rectilinear grid: exact, and dense products only.

    A matrix that is not ``poisson.to_csr()`` to rounding is refused; under `jit_compile`, where nothing can be raised, its
    solution is NaN. The values are differentiable all the same.
    """

    poisson: "SeparablePoisson"

    @property
    def xla(self) -> bool:
        return True

    @functools.cached_property
    def matrix(self) -> "CSRMatrix":
        """The only matrix that is accepted."""
        with tf.init_scope():
            return self.poisson.to_csr()

    def solve(self, pattern: Pattern, values: tf.Tensor, b: tf.Tensor, transposed: bool) -> tf.Tensor:
        same_entries = np.array_equal(pattern.indptr, self.matrix.indptr) and np.array_equal(pattern.indices, self.matrix.indices)
        if not same_entries or values.dtype != self.matrix.dtype:
            raise _not_separable()
        error = tf.reduce_max(tf.abs(values - self.matrix.values))
        same = error <= 1e-13 * tf.reduce_max(tf.abs(self.matrix.values))
        if tf.executing_eagerly() and not bool(same):
            raise _not_separable()
        # Real and symmetric: its own transpose.
        solution = self.poisson.solve(tf.reshape(tf.transpose(b), [-1, *self.poisson.shape]))
        x = tf.transpose(tf.reshape(solution, [-1, pattern.shape[0]]))
        return x if tf.executing_eagerly() else guarded(x, same, str(_not_separable()))


def solve(
    matrix: "CSRMatrix", b: Any, *, method: str | Method = "auto", tolerance: float | None = None, max_iterations: int | None = None,
    preconditioner: str | None = "jacobi"
) -> tf.Tensor:  # fmt: skip
    """x of ``A x = b``, differentiable in the values of A and in b, in every mode and to every order.

    Args:
        matrix: Square A [n, n].
        b: [n] or [n, k]; a tensor or variable of the matrix's dtype, or an array, which is converted to it.
        method: 'auto' (triangular if the pattern is, else LU), 'lu', 'triangular', 'cg' (Hermitian positive definite), 'bicgstab', or a
            `Method`, such as ``Separable(poisson)``. Those with ``method.xla`` run inside `jit_compile`; XLA refuses the others.
        tolerance: 'cg' and 'bicgstab' only: relative residual of each column; 1e-10 by default, 1e-5 in single precision.
        max_iterations: 'cg' and 'bicgstab' only: 10 n by default, at most 10 000.
        preconditioner: 'cg' and 'bicgstab' only: 'jacobi' or None (in TensorFlow), 'ilu' or 'amg' (on the host).

    Returns:
        Shaped as b.

    Raises:
        ValueError: A matrix that is not square, singular (to rounding), or not what the method is for; NaN; no convergence. In a
            tf.function, `tf.errors.OpError` with the same message. Under `jit_compile`, iterations that fail give NaN. Only direct
            methods look at the matrix itself: iterations find that it is singular by not converging, and for b = 0 answer 0.
    """
    chosen = _method(matrix, method, tolerance, max_iterations, preconditioner)
    return _solve(chosen, matrix.pattern, matrix.values, _right_side(matrix, b), False)


def adjoint_solve(
    matrix: "CSRMatrix", b: Any, *, method: str | Method = "auto", tolerance: float | None = None, max_iterations: int | None = None,
    preconditioner: str | None = "jacobi"
) -> tf.Tensor:  # fmt: skip
    """x of ``conj(A)^T x = b``, with the same factors as `solve`, whose arguments it takes."""
    chosen = _method(matrix, method, tolerance, max_iterations, preconditioner)
    return _solve(chosen, matrix.pattern, conj(matrix.values), _right_side(matrix, b), True)


def _solve(method: Method, pattern: Pattern, values: tf.Tensor, b: tf.Tensor, transposed: bool) -> tf.Tensor:
    if b.shape.rank == 2:
        return solution(method, pattern, values, b, transposed)
    return solution(method, pattern, values, b[:, tf.newaxis], transposed)[:, 0]


def solution(method: Method, pattern: Pattern, values: tf.Tensor, b: tf.Tensor, transposed: bool) -> tf.Tensor:
    """x [n, k] of ``A(values) x = b`` or ``A(values)^T x = b``, with its derivatives; nothing is checked."""

    def pullback(at: Any, x: Any, g: Any) -> list[tf.Tensor]:
        w = solution(method, pattern, conj(at[0]), g[0], not transposed)
        left, right = (conj(x[0]), w) if transposed else (w, conj(x[0]))
        return [-sampled_product(pattern, left, right), w]

    def pushforward(at: Any, x: Any, d: Any) -> list[tf.Tensor]:
        multiply = transposed_product if transposed else product
        return [solution(method, pattern, at[0], d[1] - multiply(pattern, d[0], x[0]), transposed)]

    def primal(values: tf.Tensor, b: tf.Tensor) -> list[tf.Tensor]:
        return [tf.identity(b) if b.shape.num_elements() == 0 else method.solve(pattern, values, b, transposed)]

    return differentiable(primal, pullback, pushforward, values, b)[0]


def _right_side(matrix: "CSRMatrix", b: Any) -> tf.Tensor:
    """A tensor [n] or [n, k] with n known; a length that is known only when a tf.function runs is checked then."""
    tensor, n = of_dtype("b", b, matrix.dtype), matrix.shape[0]
    if tensor.shape.rank is None:
        advice = f"Give it one with tf.ensure_shape(b, [{n}]), or [{n}, None]."
        raise checks.invalid("b", "of a number of axes unknown when the function is traced", f"of shape ({n},) or ({n}, 'any')", advice)
    if tensor.shape.rank not in (1, 2) or not tensor.shape[:1].is_compatible_with([n]):
        raise checks.invalid("b", f"of shape {tuple(tensor.shape)}", f"of shape ({n},) or ({n}, 'any')")
    return tensor if tensor.shape[0] == n else ensure_shape(tensor, [n, *tensor.shape[1:]])


def _method(matrix: "CSRMatrix", method: str | Method, tolerance: float | None, most: int | None, preconditioner: str | None) -> Method:
    if matrix.shape[0] != matrix.shape[1]:
        raise checks.invalid("matrix", f"of shape {matrix.shape}", "square for a solve", "For a least-squares solution solve A^H A x = A^H b.")
    if method in ITERATIVE:
        return Iterative(str(method), tolerance, most, preconditioner)
    if (tolerance, most, preconditioner) != (None, None, "jacobi"):
        raise checks.invalid("method", repr(method), "'cg' or 'bicgstab' where a tolerance, max_iterations or preconditioner is given")
    return method if isinstance(method, Method) else _direct(matrix.pattern, checks.choice("method", method, METHODS))


def _direct(pattern: Pattern, method: str) -> Method:
    lower, upper = (factorization.is_triangular(pattern, side) for side in (True, False))
    if method == "triangular" or (method == "auto" and (lower or upper) and not factorization.missing_diagonal(pattern).size):
        return Triangular(lower or not upper)
    return LU()


def _check_iteration(tolerance: float | None, most: int | None, preconditioner: str | None) -> None:
    if tolerance is not None and not (isinstance(tolerance, numbers.Real) and 0 < tolerance < 1):
        raise checks.invalid("tolerance", repr(tolerance), "a number between 0 and 1, a relative residual")
    if most is not None and not (isinstance(most, numbers.Real) and 1 <= most < np.inf and int(most) == most):
        raise checks.invalid("max_iterations", repr(most), "a whole number, 1 or more")
    checks.choice("preconditioner", preconditioner, krylov.PRECONDITIONERS)


def _limits(tolerance: float | None, most: int | None, b: tf.Tensor) -> tuple[float, int]:
    if tolerance is not None and tolerance < np.finfo(b.dtype.as_numpy_dtype).eps:
        raise checks.invalid("tolerance", tolerance, f"above the rounding unit of {b.dtype.name}")
    default = min(10 * b.shape[0], krylov.MOST_ITERATIONS)
    return tolerance or krylov.default_tolerance(b.dtype), min(int(most or default), np.iinfo(np.int32).max)


def _not_separable() -> ValueError:
    return checks.invalid("matrix", "that differs from the Poisson problem's", "poisson.to_csr() to rounding for Separable", "Use method='lu'.")
