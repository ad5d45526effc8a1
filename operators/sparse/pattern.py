"""Where a sparse matrix has entries: validated once, shared by all matrices that differ in their values only."""

import dataclasses
import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import tensorflow as tf

from .. import checks
from ..autodiff import in_graph
from ..graphs import compiled
from . import diagonals, rows
from .entries import Entries
from .layout import Choice, Layout
from .sizes import BLOCK, by_blocks, pad_columns, smallest_integer


@final
@dataclass(frozen=True, eq=False, repr=False)
class Pattern:
    """A static pattern in compressed sparse row form.

    Args:
        indptr: [rows + 1] integers, start of each row in `indices`. Kept as int32 where they fit, else int64.
        indices: [nnz] integer columns, strictly increasing within each row. Kept likewise.
        shape: Numbers of rows and columns.
        layout_name: Of the layout that products use, where the choice by bytes is not wanted (see `layout.Choice`).

    Raises:
        ValueError: Arrays that do not describe such a matrix.
    """

    indptr: np.ndarray
    indices: np.ndarray
    shape: tuple[int, int]
    layout_name: str = ""

    def __post_init__(self) -> None:
        rows, columns = two_sizes(self.shape)
        object.__setattr__(self, "shape", (rows, columns))
        for name in ("indptr", "indices"):
            object.__setattr__(self, name, _compact(name, getattr(self, name)))
        indptr, indices = self.indptr, self.indices
        if indptr.size != rows + 1:
            raise checks.invalid("indptr", f"of length {indptr.size}", f"of length {rows + 1}, the rows and one more")
        if indptr[0] != 0 or indptr[-1] != indices.size:
            raise checks.invalid("indptr", f"from {indptr[0]} to {indptr[-1]}", f"non-decreasing from 0 to {indices.size}, the number of indices")
        falls = np.flatnonzero(indptr[1:] < indptr[:-1])
        if falls.size:
            raise checks.invalid("indptr", f"{indptr[falls[0]]}, {indptr[falls[0] + 1]} at index {falls[0]}", "non-decreasing")
        bad = np.flatnonzero((indices < 0) | (indices >= columns))
        if bad.size:
            raise checks.invalid("indices", f"{indices[bad[0]]} at position {bad[0]}", f"from 0 to {columns - 1}")
        unsorted = np.flatnonzero((np.diff(indices) <= 0) & (np.diff(self.rows) == 0))
        if unsorted.size:
            given = f"{indices[unsorted[0]]}, {indices[unsorted[0] + 1]} in row {self.rows[unsorted[0]]}"
            raise checks.invalid("indices", given, "strictly increasing in each row", "CSRMatrix.from_coo sorts and sums.")

    def __repr__(self) -> str:
        return f"Pattern({self.shape[0]} x {self.shape[1]}, {self.nnz} entries)"

    def __reduce__(self) -> tuple[Any, ...]:
        return Pattern, (self.indptr, self.indices, self.shape, self.layout_name)  # without what is made from them when needed

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return int(self.indices.size)

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """[rows] number of entries of each row."""
        return np.diff(self.indptr)

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """[nnz] row of each entry."""
        return np.repeat(np.arange(self.shape[0], dtype=smallest_integer(self.shape[0])), np.diff(self.indptr))

    @functools.cached_property
    def entries(self) -> Entries:
        """The pattern as tensors; eager ones always, so that a tf.function receives them as inputs and not as constants."""
        with tf.init_scope():
            return Entries(tf.constant(self.rows), tf.constant(self.indices), self.shape)

    @functools.cached_property
    def permutation(self) -> np.ndarray:
        """[nnz]: entry k of the transpose is entry ``permutation[k]`` here."""
        return np.argsort(self.indices, kind="stable").astype(smallest_integer(self.nnz))

    @functools.cached_property
    def inverse_permutation(self) -> np.ndarray:
        """[nnz]: entry k here is entry ``inverse_permutation[k]`` of the transpose."""
        inverse = np.empty_like(self.permutation)
        inverse[self.permutation] = np.arange(self.nnz)
        return inverse

    @functools.cached_property
    def transpose(self) -> "Pattern":
        """The pattern of the transpose (the compressed sparse column form of this one)."""
        indptr = np.concatenate([[0], np.cumsum(np.bincount(self.indices, minlength=self.shape[1]))])
        return Pattern(indptr, self.rows[self.permutation], self.shape[::-1])

    @functools.cached_property
    def choice(self) -> Choice:
        """The layouts that fit, and the one that products with this pattern use."""
        stencil = diagonals.plan(self.indices, self.rows, self.shape)
        return Choice(self.shape, self.nnz, (*([stencil] if stencil else []), *rows.plans(self.indptr, self.indices, self.shape)), self.layout_name)

    @functools.cached_property
    def transposed_layout(self) -> Layout:
        """The layout of the transpose; its slots hold this pattern's entries, so that both read the same values."""
        layout = self.transpose.choice.layout
        places = np.where(layout.places < 0, -1, self.permutation[np.maximum(layout.places, 0)])
        return dataclasses.replace(layout, places=places.astype(layout.places.dtype))  # type: ignore[type-var]

    def multiply(self, values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """A(values) x, for `product`."""
        return self.choice.layout.multiply(values, x)

    def multiply_transposed(self, values: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """A(values)^T y, for `product`."""
        return self.transposed_layout.multiply(values, y)

    def sample(self, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """``y x^T`` at the entries, for `product`."""
        if len(y.shape) == 2:
            y, x = pad_columns(y), pad_columns(x)
        return self._sample(in_graph(self.entries.rows), in_graph(self.entries.columns), y, x)

    @functools.cached_property
    def _sample(self) -> Callable[..., tf.Tensor]:
        """A fused loop over the entries for each block of columns, with nothing of size entries x columns in memory."""

        def run(rows: tf.Tensor, columns: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
            if len(y.shape) == 1:
                return tf.gather(y, rows) * tf.gather(x, columns)
            if y.shape[1] is not None and y.shape[1] <= BLOCK:
                return tf.reduce_sum(tf.gather(y, rows) * tf.gather(x, columns), axis=1)
            return by_blocks(functools.partial(run, rows, columns), y, x, tf.zeros([self.nnz], y.dtype))

        return compiled(run)


def by_place(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The stable order of places by row, then by column."""
    if shape[0] * shape[1] > np.iinfo(np.int64).max:
        return np.lexsort((columns, rows))
    # One key sorts three times as fast as two, and places that are nearly in order faster still.
    return np.argsort(rows.astype(np.int64) * shape[1] + columns, kind="stable")


def two_sizes(given: Any) -> tuple[int, int]:
    """The shape of a matrix; named where it is not one."""
    try:
        shape = tuple(operator.index(size) for size in given)
    except TypeError:
        shape = ()
    if len(shape) != 2 or min(shape) < 0:
        raise checks.invalid("shape", repr(given), "two whole numbers, 0 or more")
    return shape


def _compact(name: str, index: np.ndarray) -> np.ndarray:
    array = np.asarray(index)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise checks.invalid(name, f"of shape {array.shape} and dtype {array.dtype}", "one-dimensional integers")
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if high > np.iinfo(np.int64).max:  # unsigned: as int64 it would be another number
        raise checks.invalid(name, f"{high} at index {array.argmax()}", "below 2^63")
    copy = array.astype(smallest_integer(max(high, -low)))
    copy.setflags(write=False)  # validated once, and many things are derived from it
    return copy
