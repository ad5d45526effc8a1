"""Products with a sparse matrix, and the one home of their derivatives.

A matrix A(v) has a static structure of entries (i_k, j_k) and values v_k. Three bilinear maps are closed under
differentiation (g is the cotangent of the result; a bar is the complex conjugate, as in TensorFlow's convention, which
is the adjoint in ``<a, b> = Re sum(conj(a) b)``):

    product             Y = A(v) X                      dv = sampled(g, X_bar)    dX = transposed(v_bar, g)
    transposed product  X = A(v)^T Y                    dv = sampled(Y_bar, g)    dY = product(v_bar, g)
    sampled product     v_k = sum_c Y[i_k, c] X[j_k, c] dY = product(g, X_bar)    dX = transposed(g, Y_bar)

Each gradient is written with the other two, and each tangent, by the product rule, with the map itself; so derivatives of
every order and in every mode are exact, TensorFlow never differentiates the loops inside, and every gradient has the size of
the values or of the vectors. How the loops run is the structure's business.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import tensorflow as tf

from ..autodiff import differentiable, in_graph


class Structure(Protocol):
    """Where a matrix has its entries, and the three loops over them; none conjugates, and none is differentiated.

    Vectors may come without their axis k where a structure says so.
    """

    def multiply(self, values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """A(values) x: [columns, k] to [rows, k]."""

    def multiply_transposed(self, values: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """A(values)^T y: [rows, k] to [columns, k]."""

    def sample(self, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """``y x^T`` at the entries: [rows, k] and [columns, k] to [nnz]."""


Loop = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def product(structure: Structure, values: tf.Tensor, x: tf.Tensor, loop: Loop | None = None) -> tf.Tensor:
    """A(values) x: [columns, k] to [rows, k], differentiable in `values` [nnz] and `x`, of one dtype.

    Args:
        structure: Of the matrix.
        values: [nnz].
        x: [columns, k].
        loop: Another way to the same numbers at these very values, such as one that holds them rearranged.
    """
    return differentiable(
        lambda v, x: [(loop or structure.multiply)(v, x)],
        lambda at, _, g: [sampled_product(structure, g[0], conj(at[1])), transposed_product(structure, conj(at[0]), g[0])],
        lambda at, _, d: [product(structure, d[0], at[1]) + product(structure, at[0], d[1])],
        values, x,
    )[0]  # fmt: skip


def transposed_product(structure: Structure, values: tf.Tensor, y: tf.Tensor, loop: Loop | None = None) -> tf.Tensor:
    """A(values)^T y, without conjugation: [rows, k] to [columns, k], differentiable in `values` [nnz] and `y`; see `product`."""
    return differentiable(
        lambda v, y: [(loop or structure.multiply_transposed)(v, y)],
        lambda at, _, g: [sampled_product(structure, conj(at[1]), g[0]), product(structure, conj(at[0]), g[0])],
        lambda at, _, d: [transposed_product(structure, d[0], at[1]) + transposed_product(structure, at[0], d[1])],
        values, y,
    )[0]  # fmt: skip


def sampled_product(structure: Structure, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """``y x^T`` at the entries, without conjugation: [rows, k] and [columns, k] to [nnz]; differentiable in both."""
    return differentiable(
        lambda y, x: [structure.sample(y, x)],
        lambda at, _, g: [product(structure, g[0], conj(at[1])), transposed_product(structure, g[0], conj(at[0]))],
        lambda at, _, d: [sampled_product(structure, d[0], at[1]) + sampled_product(structure, at[0], d[1])],
        y, x,
    )[0]  # fmt: skip


def take(values: tf.Tensor, places: np.ndarray) -> tf.Tensor:
    """``values[places]`` for vectors, with a dense derivative (that of `tf.gather` is IndexedSlices)."""
    size = values.shape[0]
    return differentiable(
        lambda v: [tf.gather(v, in_graph(places))],
        lambda _, __, g: [put(g[0], places, size)],
        lambda _, __, d: [take(d[0], places)],
        values,
    )[0]


def put(values: tf.Tensor, places: np.ndarray, size: int) -> tf.Tensor:
    """The vector ``out[places] += values`` of a given size: the adjoint of `take`."""
    return differentiable(
        lambda v: [tf.math.unsorted_segment_sum(v, in_graph(places), size)],
        lambda _, __, g: [take(g[0], places)],
        lambda _, __, d: [put(d[0], places, size)],
        values,
    )[0]


def permute(values: tf.Tensor, order: np.ndarray, inverse: np.ndarray) -> tf.Tensor:
    """``values[order]`` for a permutation and its inverse: gathers in both directions, never a scatter."""
    return differentiable(
        lambda v: [tf.gather(v, in_graph(order))],
        lambda _, __, g: [permute(g[0], inverse, order)],
        lambda _, __, d: [permute(d[0], order, inverse)],
        values,
    )[0]


def conj(tensor: tf.Tensor) -> tf.Tensor:
    """The complex conjugate; a real tensor is given back as it is."""
    return tf.math.conj(tensor) if tensor.dtype.is_complex else tensor
