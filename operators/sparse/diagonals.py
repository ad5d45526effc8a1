"""Diagonals: the layout of grid stencils."""

import functools
from dataclasses import dataclass
from typing import final

import numpy as np
import tensorflow as tf

from .layout import Indices, Layout, Plan, Slots

#: More diagonals than this are no stencil: each is an operation of the compiled program.
MOST = 64


@final
@dataclass(frozen=True, eq=False)
class Diagonals(Layout):
    """Slots [diagonal, row]: the entry of row i in column i + offset.

    Fast because nothing but values and vectors is read: a product with one column is a sum of shifted slices of x, which the
    compiler vectorises; with more columns whole rows of x are gathered, one diagonal after the other, at computed places.

    Args:
        shape: Numbers of rows and columns.
        offsets: Column minus row of each diagonal.
        places: [diagonals * rows].
    """

    shape: tuple[int, int]
    offsets: tuple[int, ...]
    places: np.ndarray

    @property
    def indices(self) -> tuple[()]:
        return ()

    def run(self, indices: Indices, slots: Slots, x: tf.Tensor) -> tf.Tensor:
        rows = self.shape[0]
        terms = []
        for k, part in enumerate(self._shifted(x)):
            diagonal = tf.reshape(slots(k * rows, (1, rows)), [rows, *[1] * (len(x.shape) - 1)])
            # A diagonal has holes, at the grid's edges say: what x holds there is none of the row's.
            terms.append(tf.where(diagonal == 0, tf.zeros([], x.dtype), diagonal * part))
        return functools.reduce(tf.add, terms)

    def _shifted(self, x: tf.Tensor) -> list[tf.Tensor]:
        """x[i + offset] for each row i and diagonal; anything where that is outside, since the diagonal is zero there."""
        rows, columns = self.shape
        if len(x.shape) == 2:
            # Copying x with a margin, as below, would cost as much as the whole product.
            return [tf.gather(x, tf.clip_by_value(tf.range(rows) + offset, 0, columns - 1)) for offset in self.offsets]
        before, after = max(0, -min(self.offsets)), max(0, rows + max(self.offsets) - columns)
        padded = tf.pad(x, [[before, after]])
        return [padded[before + offset : before + offset + rows] for offset in self.offsets]


def plan(indices: np.ndarray, rows: np.ndarray, shape: tuple[int, int]) -> Plan | None:
    """The plan for a pattern, or None where it has no diagonals to speak of.

    Args:
        indices, rows: [nnz] column and row of each entry.
        shape: Numbers of rows and columns.
    """
    if not indices.size or sum(shape) > 4 * indices.size + 1024:  # the count below would cost more than the matrix
        return None
    counts = np.bincount(indices - rows + (shape[0] - 1), minlength=sum(shape) - 1)
    found = np.flatnonzero(counts)
    slots = found.size * shape[0]
    if found.size > MOST or slots > 4 * indices.size:
        return None

    def build() -> Diagonals:
        places = np.full(slots, -1, np.int32 if slots < 2**31 else np.int64)
        order = np.empty(counts.size, np.int32)
        order[found] = np.arange(found.size)
        places[order[indices - rows + (shape[0] - 1)].astype(np.int64) * shape[0] + rows] = np.arange(indices.size)
        return Diagonals(shape, tuple(int(offset) - (shape[0] - 1) for offset in found), places)

    return Plan("diagonals", slots, 0, 0, build)
