"""Padded and sliced rows: the layouts of sampling matrices, ray paths, and of everything else."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import tensorflow as tf

from .layout import Indices, Layout, Plan, Slots
from .sizes import smallest_integer

#: Longest piece of a row. Up to here the compiler keeps the terms of a sum in registers; XLA rewrites a longer one on the CPU as a
#: tree whose first level goes through memory, terms x columns of it (14 M entries in pieces of 32 take 9 ms, of 64 36 ms).
WIDTH = 32
#: What a slice costs beside its slots, in slots: starting one more loop takes as long as running through this many.
START = 20_000

Slices = tuple[tuple[int, int], ...]


@final
@dataclass(frozen=True, eq=False)
class Level:
    """Rows cut into pieces, the pieces grouped into slices [pieces, width] of equal width.

    Args:
        slices: (pieces, width) of each.
        places: [slots] what each slot holds, -1 for padding.
        owners: [pieces] the row of each piece.
    """

    slices: Slices
    places: np.ndarray
    owners: np.ndarray


@final
@dataclass(frozen=True, eq=False)
class Rows(Layout):
    """Slots [piece, width], slice after slice; sums of pieces are summed by further levels until each row is one number.

    Fast because every slice is one loop of equal short rows. Pieces of long rows run in the order of their first column, whatever
    row they belong to, so that x is read in one sweep although each row goes through all of it.

    Args:
        shape: Numbers of rows and columns.
        slices: Of the first level.
        places: [slots].
        columns: [slots] column of each slot, in two bytes where they fit; in padding another one of the same row.
        sums: For each further level its slices, and [slots] the piece of the level before, with one past the last for padding.
        order: [rows] the last level's piece that is each row's sum, one past the last for an empty row; None if they are in order.
    """

    shape: tuple[int, int]
    slices: Slices
    places: np.ndarray
    columns: np.ndarray
    sums: tuple[tuple[Slices, np.ndarray], ...] = ()
    order: np.ndarray | None = None

    @property
    def indices(self) -> tuple[np.ndarray, tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        return self.columns, tuple(index for _, index in self.sums), () if self.order is None else (self.order,)

    def run(self, indices: Indices, slots: Slots, x: tf.Tensor) -> tf.Tensor:
        columns, sums, order = indices
        parts = _reduce(self.slices, lambda start, shape: _aligned(slots(start, shape), x) * tf.gather(x, _cut(columns, start, shape)), x)
        for (slices, _), index in zip(self.sums, sums, strict=True):
            parts = _reduce(slices, functools.partial(_gathered, parts, index), x)
        return tf.gather(parts, *order) if order else parts[: self.shape[0]]


def _gathered(parts: tf.Tensor, index: tf.Tensor, start: int, shape: tuple[int, int]) -> tf.Tensor:
    return tf.gather(parts, _cut(index, start, shape))


def _aligned(slots: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(slots, [*slots.shape, *[1] * (len(x.shape) - 1)])


def _cut(index: tf.Tensor, start: int, shape: tuple[int, int]) -> tf.Tensor:
    part = tf.reshape(index[start : start + shape[0] * shape[1]], shape)
    return tf.cast(part, tf.int32) if part.dtype == tf.uint16 else part


def _reduce(slices: Slices, part: Callable[[int, tuple[int, int]], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    """The sums over the pieces of all slices, and a zero."""
    sums, start = [], 0
    for shape in slices:
        sums.append(tf.reduce_sum(part(start, shape), axis=1))
        start += shape[0] * shape[1]
    zero = tf.pad(x[:0], [[0, 1], *[[0, 0]] * (len(x.shape) - 1)])  # of as many columns as x, known or not
    return tf.concat([*sums, zero], axis=0)


def plans(indptr: np.ndarray, indices: np.ndarray, shape: tuple[int, int]) -> list[Plan]:
    """The plans for a pattern: sliced rows always, padded rows where all are short, none empty, and padding does not blow up.

    Args:
        indptr, indices, shape: As those of a `Pattern`.
    """
    counts, indices = np.diff(indptr), _narrow(indices, shape[1])
    found = [_sliced(indptr, indices, shape)]
    widest = int(counts.max(initial=0))
    slots = widest * shape[0]
    if counts.size and counts.min() and widest <= WIDTH and slots <= 8 * indices.size:
        found.insert(0, Plan("padded rows", slots, indices.itemsize, 0, lambda: _padded(counts, indptr, indices, shape)))
    return found


def _padded(counts: np.ndarray, indptr: np.ndarray, indices: np.ndarray, shape: tuple[int, int]) -> Rows:
    width = int(counts.max())
    places = _slots(np.arange(shape[0]), indptr[:-1], counts, width)
    return Rows(shape, ((shape[0], width),), places.ravel(), _columns(places, indices))


def _sliced(indptr: np.ndarray, indices: np.ndarray, shape: tuple[int, int]) -> Plan:
    counts = np.diff(indptr)
    full, rest = np.divmod(counts, WIDTH)
    lengths = np.bincount(rest, minlength=WIDTH + 1)
    lengths[0], lengths[WIDTH] = 0, full.sum()
    slots = sum(lengths[low : high + 1].sum() * high for low, high in _group(lengths))
    pieces = int(lengths.sum())
    again = pieces if (counts > WIDTH).any() else 0  # written and read once more by the next level

    def build() -> Rows:
        first = indices if (counts > WIDTH).any() else None
        level = cut(indptr, first)
        columns = np.concatenate([*(_columns(places, indices) for places in _unravel(level)), indices[:0]])
        sums, owners = [], level.owners
        while np.bincount(owners, minlength=1).max() > 1:
            level_of_sums, index = _sum_level(owners, shape[0])
            sums.append((level_of_sums.slices, index))
            owners = level_of_sums.owners
        order = np.full(shape[0], owners.size, np.int32)
        order[owners] = np.arange(owners.size)
        return Rows(shape, level.slices, level.places, columns, tuple(sums), order)

    return Plan("sliced rows", int(slots), indices.itemsize, 12 * again + 4 * (shape[0] + pieces), build)


def _columns(places: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """[slots] the columns of places [pieces, width]; in padding that of the piece's first entry."""
    return indices[np.where(places < 0, places[:, :1], places)].ravel()


def _narrow(indices: np.ndarray, columns: int) -> np.ndarray:
    """Column numbers are half of what a product reads in single precision: two bytes instead of four save a quarter of it."""
    return indices.astype(np.uint16 if columns <= 2**16 else smallest_integer(columns))


def _unravel(level: Level) -> list[np.ndarray]:
    ends = np.cumsum([pieces * width for pieces, width in level.slices])
    return [part.reshape(shape) for part, shape in zip(np.split(level.places, ends[:-1]), level.slices, strict=True)] if level.slices else []


def cut(indptr: np.ndarray, first: np.ndarray | None = None) -> Level:
    """Rows cut into pieces of at most WIDTH and grouped by length.

    Args:
        indptr: [rows + 1] start of each row.
        first: [nnz] what pieces are sorted by within a slice, at their first entry; by default they stay in the order of the rows.
    """
    counts = np.diff(indptr)
    pieces = -(-counts // WIDTH)
    owners = np.repeat(np.arange(counts.size), pieces)
    number = np.arange(owners.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = indptr[owners].astype(np.int64) + number * WIDTH
    lengths = np.minimum(WIDTH, indptr[owners + 1] - starts)
    slices, places, order = [], [], []
    for low, high in _group(np.bincount(lengths, minlength=WIDTH + 1)):
        chosen = np.flatnonzero((lengths >= low) & (lengths <= high))
        if first is not None:
            chosen = chosen[np.argsort(first[starts[chosen]], kind="stable")]
        slices.append((chosen.size, high))
        places.append(_slots(chosen, starts, lengths, high).ravel())
        order.append(chosen)
    return Level(tuple(slices), np.concatenate([*places, np.zeros(0, np.int32)]), owners[np.concatenate([*order, np.zeros(0, np.int64)])])


def _sum_level(owners: np.ndarray, rows: int) -> tuple[Level, np.ndarray]:
    """The level that sums the pieces which belong to one row, and the piece in each of its slots."""
    by_row = np.argsort(owners, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=rows))])
    level = cut(indptr)
    if len(level.slices) == 1 and level.slices[0][0] > 1:
        # With a single reader the compiler would run the level below inside this one, in this one's order: ten times slower.
        (pieces, width), half = level.slices[0], level.slices[0][0] // 2
        level = Level(((half, width), (pieces - half, width)), level.places, level.owners)
    index = np.where(level.places < 0, owners.size, by_row[np.maximum(level.places, 0)])
    return level, index.astype(np.int32)


def _group(lengths: np.ndarray) -> list[tuple[int, int]]:
    """Ranges (shortest, longest) of lengths that share a slice, with the least sum of slots and starts.

    Args:
        lengths: [WIDTH + 1] number of pieces of each length.
    """
    counts = np.cumsum(lengths)
    # best[high]: the least cost of all pieces up to length `high`, and the shortest length of the last slice.
    best = [(0, 0)]
    for high in range(1, lengths.size):
        if not lengths[high]:
            best.append(best[-1])
            continue
        best.append(min((best[low - 1][0] + int(counts[high] - counts[low - 1]) * high + START, low) for low in range(1, high + 1)))
    groups, high = [], lengths.size - 1
    while high >= 1:
        if not lengths[high]:
            high -= 1
            continue
        groups.append((best[high][1], high))
        high = best[high][1] - 1
    return groups[::-1]


def _slots(pieces: np.ndarray, starts: np.ndarray, lengths: np.ndarray, width: int) -> np.ndarray:
    """[pieces, width] the entries of each piece, -1 beyond its length."""
    column = np.arange(width)
    places = np.where(column < lengths[pieces, np.newaxis], starts[pieces, np.newaxis] + column, -1)
    return places.astype(np.int32 if places.size == 0 or places.max() < 2**31 else np.int64)
