"""The sparse matrix of this project: a static pattern in compressed sparse row form, and values that TensorFlow differentiates.

Row i holds the columns ``indices[indptr[i] : indptr[i + 1]]``, strictly increasing, and the values at the same places. The
pattern is NumPy and never changes; the values are one tensor, so that ``matrix.with_values(f(model)) @ x`` is differentiable in the
model and in x. The derivatives of products live in `product`, that of a solve in `solve`, and how products run in `layout`.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import scipy.sparse
import tensorflow as tf

from .. import checks
from ..autodiff import ensure_shape
from . import algebra, buckets, convert, product
from . import solve as solving
from .layout import Arranged, Choice
from .pattern import Pattern

DTYPES = (tf.float32, tf.float64, tf.complex64, tf.complex128)


@final
@dataclass(frozen=True, eq=False, repr=False)
class CSRMatrix:
    """A sparse matrix with a static pattern and differentiable values.

    Args:
        pattern: Where the entries are.
        values: [nnz] tensor, float or complex.

    Raises:
        ValueError: Values of another length or kind.
    """

    pattern: Pattern
    values: tf.Tensor

    __array_ufunc__ = None  # NumPy numbers leave ``number * matrix`` to the matrix

    def __post_init__(self) -> None:
        values = tf.convert_to_tensor(self.values)
        if values.dtype not in DTYPES:
            raise checks.invalid("values", f"of dtype {values.dtype.name}", "of dtype " + ", ".join(dtype.name for dtype in DTYPES))
        if not values.shape.is_compatible_with([self.pattern.nnz]):
            raise checks.invalid("values", f"of shape {tuple(values.shape)}", f"of shape {(self.pattern.nnz,)}, one for each entry")
        object.__setattr__(self, "values", ensure_shape(values, [self.pattern.nnz]))

    def __repr__(self) -> str:
        return f"CSRMatrix({self.shape[0]} x {self.shape[1]}, {self.nnz} entries, {self.dtype.name})"

    def __reduce__(self) -> tuple[Any, ...]:
        return CSRMatrix, (self.pattern, np.array(self.values))

    @classmethod
    def from_arrays(cls, indptr: np.ndarray, indices: np.ndarray, values: Any, shape: tuple[int, int]) -> "CSRMatrix":
        """A matrix from the three arrays of its compressed sparse row form (see the module's docstring)."""
        return cls(Pattern(indptr, indices, shape), values)

    @classmethod
    def from_scipy(cls, matrix: Any, *, dtype: tf.DType | None = None) -> "CSRMatrix":
        """A matrix from any SciPy sparse matrix or array; see `convert.from_scipy`."""
        return cls(*convert.from_scipy(matrix, dtype=dtype))

    @classmethod
    def from_coo(cls, rows: Any, columns: Any, values: Any, shape: tuple[int, int]) -> "CSRMatrix":
        """A matrix from entries in any order; those at one place are summed, differentiably. See `convert.from_coo`."""
        return cls(*convert.from_coo(rows, columns, values, shape))

    @classmethod
    def from_dense(cls, matrix: Any) -> "CSRMatrix":
        """A matrix from the nonzero entries of a dense array or tensor; see `convert.from_dense`."""
        return cls(*convert.from_dense(matrix))

    @classmethod
    def from_sparse_tensor(cls, sparse: tf.SparseTensor) -> "CSRMatrix":
        """A matrix from a `tf.SparseTensor`, differentiable in its values; see `convert.from_sparse_tensor`."""
        return cls(*convert.from_sparse_tensor(sparse))

    @property
    def indptr(self) -> np.ndarray:
        """[rows + 1] start of each row."""
        return self.pattern.indptr

    @property
    def indices(self) -> np.ndarray:
        """[nnz] columns."""
        return self.pattern.indices

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self.pattern.shape

    @property
    def nnz(self) -> int:
        """Number of entries, explicit zeros included."""
        return self.pattern.nnz

    @property
    def dtype(self) -> tf.DType:
        """Of the values."""
        return self.values.dtype

    @property
    def layout(self) -> Choice:
        """The layouts that fit the pattern and the one in use: ``print(matrix.layout.explain())``."""
        return dataclasses.replace(self.pattern.choice, itemsize=self.dtype.size)

    def with_layout(self, name: str) -> "CSRMatrix":
        """The same matrix, its products run in the layout named; the transpose chooses for itself (``A.T.to_csr().with_layout(name)``).

        Args:
            name: One of those that `layout.explain` lists.

        Raises:
            ValueError: A layout that does not fit this pattern.
        """
        pattern = dataclasses.replace(self.pattern, layout_name=name)
        _ = pattern.choice  # chosen now, so that an unknown name is refused here
        return CSRMatrix(pattern, self.values)

    def with_values(self, values: Any) -> "CSRMatrix":
        """The same pattern with other values [nnz]; costs nothing.

        A `tf.Variable` is read here, once: give it anew within each tape, or each call of a layer.
        """
        return CSRMatrix(self.pattern, values)

    def to_scipy(self) -> scipy.sparse.csr_array:
        """A SciPy csr_array with a copy of the current values."""
        return scipy.sparse.csr_array((np.array(self.values), self.indices.copy(), self.indptr.copy()), shape=self.shape)

    def to_sparse_tensor(self) -> tf.SparseTensor:
        """A `tf.SparseTensor` with the same values."""
        return convert.to_sparse_tensor(self)

    @functools.cached_property
    def T(self) -> "Transpose":
        """The transpose (not conjugated): a view that shares the values and has a layout of its own."""
        return Transpose(self)

    def matvec(self, x: Any) -> tf.Tensor:
        """``A x`` for x [columns]."""
        return product.product(self.pattern, self.values, _operand(self, "x", x, 1, 1), self._loop)

    def rmatvec(self, y: Any) -> tf.Tensor:
        """The adjoint product, conj(A)^T y, for y [rows]."""
        return product.conj(self.T.matvec(_conjugate(y)))

    def matmat(self, x: Any) -> tf.Tensor:
        """``A X`` for X [..., columns, k], matrix by matrix."""
        return _columnwise(lambda x: product.product(self.pattern, self.values, x, self._loop), _operand(self, "x", x, 1))

    def rmatmat(self, y: Any) -> tf.Tensor:
        """The adjoint product, conj(A)^T Y, for Y [..., rows, k]."""
        return product.conj(self.T.matmat(_conjugate(y)))

    def jvp(self, x: Any, x_tangent: Any, values_tangent: Any) -> tf.Tensor:
        """``A dx + dA x``: the change of ``A x`` for changes of x, shaped as x, and of the values [nnz]."""
        return self @ x_tangent + self.with_values(_operand(self, "values_tangent", values_tangent, None, 1)) @ x

    def __matmul__(self, other: Any) -> Any:
        """``A x`` for x [columns] or [..., columns, k]; for another matrix, the sparse ``A B``."""
        return _times(self, other)

    def __add__(self, other: "CSRMatrix | Transpose") -> "CSRMatrix":
        return algebra.add(self, _as_csr(other))

    def __sub__(self, other: "CSRMatrix | Transpose") -> "CSRMatrix":
        return algebra.add(self, -_as_csr(other))

    def __neg__(self) -> "CSRMatrix":
        return self.with_values(-self.values)

    def __mul__(self, factor: Any) -> "CSRMatrix":
        """``factor A`` for a number or a scalar tensor."""
        return algebra.scale(self, factor)

    __rmul__ = __mul__

    def scale_rows(self, factors: Any) -> "CSRMatrix":
        """``diag(d) A`` for d [rows]."""
        return algebra.scale_rows(self, factors)

    def scale_columns(self, factors: Any) -> "CSRMatrix":
        """``A diag(d)`` for d [columns]."""
        return algebra.scale_columns(self, factors)

    def select_rows(self, rows: Any) -> "CSRMatrix":
        """Some rows, in the order given; the gradient with respect to the values is IndexedSlices. See `buckets.select_rows`."""
        return buckets.select_rows(self, rows)

    def compressed(self) -> tuple[np.ndarray, "CSRMatrix"]:
        """The columns that hold entries, and the matrix of these only; see `buckets.compressed`."""
        return buckets.compressed(self)

    def sampled_product(self, y: Any, x: Any) -> tf.Tensor:
        """``y x^T`` (not conjugated) at this matrix's entries, [nnz]: the derivative of ``y^T A x`` with respect to the values.

        Args:
            y: [rows] or [rows, k].
            x: [columns] or [columns, k]; products are summed over k.
        """
        rank = len(_known_rank("x", x if tf.is_tensor(x) else np.asarray(x)))
        return product.sampled_product(self.pattern, _operand(self, "y", y, 0, rank), _operand(self, "x", x, 1, rank))

    def diagonal(self) -> tf.Tensor:
        """[min(rows, columns)] entries of the main diagonal, zero where the pattern has none."""
        places = np.flatnonzero(self.pattern.rows == self.indices)
        return product.put(product.take(self.values, places), self.indices[places], min(self.shape))

    def solve(
        self, b: Any, *, method: str | solving.Method = "auto", tolerance: float | None = None,
        max_iterations: int | None = None, preconditioner: str | None = "jacobi",
    ) -> tf.Tensor:  # fmt: skip
        """The x of ``A x = b`` for b [rows] or [rows, k], differentiable in the values and in b. See `solve.solve`."""
        return solving.solve(self, b, method=method, tolerance=tolerance, max_iterations=max_iterations, preconditioner=preconditioner)

    def rsolve(
        self, b: Any, *, method: str | solving.Method = "auto", tolerance: float | None = None,
        max_iterations: int | None = None, preconditioner: str | None = "jacobi",
    ) -> tf.Tensor:  # fmt: skip
        """The x of ``conj(A)^T x = b``, with the factors of `solve`. See `solve.adjoint_solve`."""
        return solving.adjoint_solve(self, b, method=method, tolerance=tolerance, max_iterations=max_iterations, preconditioner=preconditioner)

    @functools.cached_property
    def _loop(self) -> product.Loop | None:
        return None if tf.is_symbolic_tensor(self.values) else Arranged(self.pattern.choice.layout, self.values).multiply


@final
@dataclass(frozen=True, eq=False)
class Transpose:
    """A^T without conjugation, as a view: products with it run in its own layout and read the values of A.

    Args:
        matrix: A.
    """

    matrix: CSRMatrix

    __array_ufunc__ = None

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self.matrix.shape[::-1]

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return self.matrix.nnz

    @property
    def dtype(self) -> tf.DType:
        """Of the values."""
        return self.matrix.dtype

    @property
    def T(self) -> CSRMatrix:
        """A."""
        return self.matrix

    @property
    def layout(self) -> Choice:
        """The layouts that fit the transpose and the one in use."""
        return dataclasses.replace(self.matrix.pattern.transpose.choice, itemsize=self.dtype.size)

    def to_csr(self) -> CSRMatrix:
        """The transpose as a matrix in its own right, its values a permutation of A's, differentiably."""
        pattern = self.matrix.pattern
        return CSRMatrix(pattern.transpose, product.permute(self.matrix.values, pattern.permutation, pattern.inverse_permutation))

    def to_scipy(self) -> scipy.sparse.csr_array:
        """A SciPy csr_array with a copy of the current values."""
        return self.matrix.to_scipy().T.tocsr()

    def matvec(self, y: Any) -> tf.Tensor:
        """``A^T y`` for y [rows of A]."""
        return product.transposed_product(self.matrix.pattern, self.matrix.values, _operand(self, "y", y, 1, 1), self._loop)

    def matmat(self, y: Any) -> tf.Tensor:
        """``A^T Y`` for Y [..., rows of A, k], matrix by matrix."""

        def times(y: tf.Tensor) -> tf.Tensor:
            return product.transposed_product(self.matrix.pattern, self.matrix.values, y, self._loop)

        return _columnwise(times, _operand(self, "y", y, 1))

    def __matmul__(self, other: Any) -> Any:
        """``A^T y`` for y [rows of A] or [..., rows of A, k]; for a matrix, the sparse ``A^T B``."""
        return _times(self, other)

    @functools.cached_property
    def _loop(self) -> product.Loop | None:
        values = self.matrix.values
        return None if tf.is_symbolic_tensor(values) else Arranged(self.matrix.pattern.transposed_layout, values).multiply


def _times(matrix: CSRMatrix | Transpose, other: Any) -> Any:
    if isinstance(other, CSRMatrix | Transpose):
        return algebra.multiply(_as_csr(matrix), _as_csr(other))
    if scipy.sparse.issparse(other):
        raise checks.invalid("x", "that is a SciPy sparse matrix", "an array, a tensor or a CSRMatrix", "Convert it with CSRMatrix.from_scipy.")
    x = other if tf.is_tensor(other) or isinstance(other, tf.Variable) else np.asarray(other)
    return matrix.matvec(x) if len(_known_rank("x", x)) == 1 else matrix.matmat(x)


def _as_csr(matrix: Any) -> Any:
    return matrix.to_csr() if isinstance(matrix, Transpose) else matrix


def _known_rank(name: str, x: Any) -> Any:
    """The shape of what has a known number of axes."""
    if tf.is_tensor(x) and x.shape.rank is None:
        raise checks.invalid(name, "of unknown rank", "of known rank while a function is traced", "Give its shape with tf.ensure_shape.")
    return x.shape


def _operand(matrix: CSRMatrix | Transpose, name: str, operand: Any, axis: int | None, rank: int | None = None) -> tf.Tensor:
    """A tensor of the matrix's dtype with as many entries along its row axis as the matrix along `axis`, or as it has values."""
    tensor = algebra.of_dtype(name, operand, matrix.dtype)
    rank = rank or max(len(_known_rank(name, tensor)), 2)
    size = matrix.nnz if axis is None else matrix.shape[axis]
    expected = (size,) if rank == 1 else (*["any"] * (rank - 2), size, "any")
    shape = [length if isinstance(length, int) else None for length in expected]
    if not tensor.shape.is_compatible_with(shape):
        raise checks.invalid(name, f"of shape {tuple(tensor.shape)}", f"of shape {expected}")
    return ensure_shape(tensor, shape)


def _columnwise(times: Any, x: tf.Tensor) -> tf.Tensor:
    """A product with [n, k], for [..., n, k]: batch axes are columns too."""
    if len(x.shape) == 2:
        return times(x)
    axes = [*range(len(x.shape))]
    first = tf.transpose(x, [axes[-2], *axes[:-2], axes[-1]])
    result = times(tf.reshape(first, [x.shape[-2], -1]))
    apart = tf.reshape(result, tf.concat([[result.shape[0]], tf.shape(first)[1:]], axis=0))
    return tf.transpose(apart, [*axes[1:-1], 0, axes[-1]])


def _conjugate(y: Any) -> Any:
    return product.conj(y) if tf.is_tensor(y) else np.conj(y)
