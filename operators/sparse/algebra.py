"""Sums, products and scalings of sparse matrices: the pattern of a result is found once, its values are differentiable.

The symbolic part of an operation depends on patterns only. It is NumPy, runs once for each pair of patterns, and is kept for as
long as both live. The numeric part is made of the maps of `product`, so that derivatives of all orders and modes, in eager,
tf.function and XLA, need no rule of their own:

    sum         c = P_a [a; 0] + P_b [b; 0]        P permutes: entries that a matrix lacks are taken from its padding of zeros
    product     c = S(a[left]) b                   S [nnz(C), nnz(B)] has an entry for each scalar multiplication
    scaling     c = a * sampled(d, 1)              a row's factor at each of its entries
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from .. import checks
from ..autodiff import ensure_shape
from . import product
from .layout import on_device
from .memory import kept
from .pattern import Pattern, by_place
from .sizes import smallest_integer

if TYPE_CHECKING:
    from .csr import CSRMatrix


def add(a: "CSRMatrix", b: "CSRMatrix") -> "CSRMatrix":
    """``A + B`` on the union of both patterns; entries that cancel stay in it as zeros.

    Args:
        a, b: Of one shape and dtype; the sum is differentiable in the values of both.

    Raises:
        ValueError: Matrices of different shapes or dtypes.
    """
    _same_kind(a, b)
    if a.shape != b.shape:
        raise checks.invalid("b", f"of shape {b.shape}", f"of the shape of the matrix it is added to, {a.shape}")
    if a.pattern is b.pattern:
        return a.with_values(a.values + b.values)
    union = _union(a.pattern, b.pattern)
    return type(a)(union.pattern, _spread(a.values, union.left) + _spread(b.values, union.right))


def multiply(a: "CSRMatrix", b: "CSRMatrix") -> "CSRMatrix":
    """``A B`` as a sparse matrix; entries whose terms cancel stay in its pattern as zeros.

    Every scalar multiplication a_ik b_kj is a term. Their number, the sum over A's entries of the length of B's row k, sets
    the memory: two integers a term are kept with the patterns, and a value a term passes through every evaluation (for A of 9
    and B of 9 entries a row, 81 terms a row). Where only ``A (B x)`` is needed, two products are cheaper.

    Args:
        a: [rows, inner].
        b: [inner, columns], of the same dtype; the product is differentiable in the values of both.

    Raises:
        ValueError: Matrices whose inner sizes or dtypes differ.
    """
    _same_kind(a, b)
    if a.shape[1] != b.shape[0]:
        raise checks.invalid("b", f"of shape {b.shape}", f"of {a.shape[1]} rows, the columns of the matrix on its left")
    terms = _terms(a.pattern, b.pattern)
    return type(a)(terms.pattern, product.product(terms.sums, product.take(a.values, terms.left), b.values))


def scale(a: "CSRMatrix", factor: Any) -> "CSRMatrix":
    """``factor A``.

    Args:
        a: The matrix.
        factor: A number, or a scalar tensor of the matrix's dtype; differentiable.

    Raises:
        ValueError: A factor that is no scalar, or of another dtype.
    """
    return a.with_values(a.values * _operand(a, "factor", factor, ()))


def scale_rows(a: "CSRMatrix", d: Any) -> "CSRMatrix":
    """``diag(d) A``; a vector of the columns' number is formed, so one with far more columns than entries is best `compressed` first.

    Args:
        a: The matrix.
        d: [rows], of the matrix's dtype; differentiable.

    Raises:
        ValueError: Factors of another length or dtype.
    """
    factors = _operand(a, "d", d, (a.shape[0],))
    return a.with_values(a.values * product.sampled_product(a.pattern, factors, tf.ones([a.shape[1]], a.dtype)))


def scale_columns(a: "CSRMatrix", d: Any) -> "CSRMatrix":
    """``A diag(d)``.

    Args:
        a: The matrix.
        d: [columns], of the matrix's dtype; differentiable.

    Raises:
        ValueError: Factors of another length or dtype.
    """
    factors = _operand(a, "d", d, (a.shape[1],))
    return a.with_values(a.values * product.sampled_product(a.pattern, tf.ones([a.shape[0]], a.dtype), factors))


class Spread(NamedTuple):
    """The permutation of values, padded with zeros, that puts them at their places among more entries, and its inverse."""

    order: tf.Tensor
    inverse: tf.Tensor


class Union(NamedTuple):
    """A sum's pattern, and where the values of both matrices stand in it."""

    pattern: Pattern
    left: Spread
    right: Spread


class Terms(NamedTuple):
    """A product's pattern, and its scalar multiplications: `sums` [entries of C, entries of B], and the entry of A of each."""

    pattern: Pattern
    sums: Pattern
    left: tf.Tensor


@kept
def _union(a: Pattern, b: Pattern) -> Union:
    rows, columns = np.concatenate([a.rows, b.rows]), np.concatenate([a.indices, b.indices])
    order = by_place(rows, columns, a.shape)
    pattern, number = _distinct(rows[order], columns[order], a.shape)
    slots = np.empty(order.size, number.dtype)
    slots[order] = number
    return Union(pattern, _spreading(slots[: a.nnz], pattern.nnz), _spreading(slots[a.nnz :], pattern.nnz))


@kept
def _terms(a: Pattern, b: Pattern) -> Terms:
    counts = b.counts[a.indices]
    left = np.repeat(np.arange(a.nnz, dtype=smallest_integer(a.nnz)), counts)
    starts = b.indptr[a.indices] - (np.cumsum(counts) - counts)
    right = np.arange(left.size) + np.repeat(starts, counts)
    rows, columns = a.rows[left], b.indices[right]
    # Stable: the terms of one entry of C stay in the order of k, which is that of B's entries.
    order = by_place(rows, columns, (a.shape[0], b.shape[1]))
    pattern, number = _distinct(rows[order], columns[order], (a.shape[0], b.shape[1]))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(number, minlength=pattern.nnz))])
    sums = Pattern(indptr, right[order], (pattern.nnz, b.nnz))
    return Terms(pattern, sums, on_device(left[order]))


def _distinct(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> tuple[Pattern, np.ndarray]:
    """The pattern of sorted places that may repeat, and the number of the entry at each."""
    new = np.ones(rows.size, dtype=bool)
    new[1:] = (np.diff(rows) != 0) | (np.diff(columns) != 0)
    counts = np.bincount(rows[new], minlength=shape[0])
    return Pattern(np.concatenate([[0], np.cumsum(counts)]), columns[new], shape), np.cumsum(new) - 1


def _spreading(slots: np.ndarray, size: int) -> Spread:
    integer = smallest_integer(size)
    inverse = np.concatenate([slots, np.setdiff1d(np.arange(size), slots, assume_unique=True)]).astype(integer)
    order = np.empty(size, integer)
    order[inverse] = np.arange(size)
    return Spread(on_device(order), on_device(inverse))


def _spread(values: tf.Tensor, places: Spread) -> tf.Tensor:
    padded = tf.pad(values, [[0, places.order.shape[0] - values.shape[0]]])
    return product.permute(padded, places.order, places.inverse)


def _same_kind(a: "CSRMatrix", b: "CSRMatrix") -> None:
    if not isinstance(b, type(a)):
        raise checks.invalid("b", f"of type {type(b).__name__}", f"a {type(a).__name__}")
    if a.dtype != b.dtype:
        raise checks.invalid("b", f"of dtype {b.dtype.name}", f"of the other matrix's dtype {a.dtype.name}", "Cast its values with tf.cast.")


def of_dtype(name: str, given: Any, dtype: tf.DType) -> tf.Tensor:
    """What a user gives where a matrix's operand is meant, as a tensor of the matrix's dtype; the one rule of what is converted.

    Args:
        name: Of the operand, for the messages.
        given: A tensor or a `tf.Variable`, which must have the dtype; or an array, a number, a list, which are converted to it.
        dtype: Of the matrix.

    Raises:
        ValueError: A tensor of another dtype; complex numbers for a real matrix; what is no number.
    """
    if not any(tf.is_tensor(part) for part in tf.nest.flatten(given)):
        array = np.asarray(given)
        if array.dtype.kind not in "biufc" or (array.dtype.kind == "c" and not dtype.is_complex):
            raise checks.invalid(name, f"of dtype {array.dtype}", f"of the matrix's dtype {dtype.name}")
        return tf.constant(array.astype(dtype.as_numpy_dtype))
    if isinstance(given, tf.SparseTensor | tf.RaggedTensor):
        raise checks.invalid(name, f"of type {type(given).__name__}", "a dense tensor or an array")
    tensor = tf.convert_to_tensor(given)  # reads a variable, under a tape too
    if tensor.dtype != dtype:
        raise checks.invalid(name, f"of dtype {tensor.dtype.name}", f"of the matrix's dtype {dtype.name}", "Cast it with tf.cast.")
    return tensor


def _operand(a: "CSRMatrix", name: str, given: Any, shape: tuple[int, ...]) -> tf.Tensor:
    tensor = of_dtype(name, given, a.dtype)
    if not tensor.shape.is_compatible_with(shape):
        raise checks.invalid(name, f"of shape {tuple(tensor.shape)}", f"of shape {shape}")
    return ensure_shape(tensor, shape)
