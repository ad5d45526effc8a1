"""How the products of one pattern run: layouts chosen by the bytes that a product moves.

A sparse product does two operations for every entry that it reads, so memory decides its speed. Row by row through `indptr`, as
on a CPU core, is no loop that XLA can vectorise; a layout rearranges the entries into dense slots, some of them padding, that one
fused loop runs through without a branch and without an intermediate of size entries x columns:

    diagonals     [diagonal, row]; a product is a sum of shifted vectors and reads no column index (grid stencils)
    padded rows   [row, width]; a gather, a product and a sum over short rows, which the compiler unrolls
    sliced rows   rows grouped by length, long ones cut into pieces of `rows.WIDTH` whose sums are summed in turn (ray paths)

Padding never lets an infinite x into a row that does not hold it; in a row that does, it may come out as NaN, and stored zeros may
count as holes. Values come in the order of the entries, and a product with one
column reads them through the places of its slots; those that are used again are rearranged once (`arrange`), which makes it two
to three times faster.
"""

import abc
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import tensorflow as tf

from .. import checks
from ..autodiff import in_graph
from ..graphs import compiled
from .sizes import pad_columns

#: Gives the values in slots [start, start + size of shape), shaped.
Slots = Callable[[int, tuple[int, int]], tf.Tensor]
#: A nest of integer arrays or tensors.
Indices = Any


class Layout(abc.ABC):
    """The slots of one pattern, and the compiled products that run through them."""

    #: Numbers of rows and columns of the matrix.
    shape: tuple[int, int]
    #: [slots] the entry in each slot, -1 for padding.
    places: np.ndarray

    @property
    @abc.abstractmethod
    def indices(self) -> Indices:
        """Nest of the integer arrays that `run` reads beside the slots."""

    @abc.abstractmethod
    def run(self, indices: Indices, slots: Slots, x: tf.Tensor) -> tf.Tensor:
        """A x for x [columns] or [columns, k > 1], in plain TensorFlow to be compiled; `indices` are tensors."""

    def run_arrange(self, places: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """`arrange`, for a program that is being compiled and has `places` among its arguments."""
        return _from_entries(places, values)(0, (1, self.places.size))[0]

    def run_arranged(self, indices: Indices, arranged: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """`multiply_arranged`, likewise."""
        return self._run_columns(indices, _from_slots(arranged), x)

    def multiply(self, values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """A(values) x for values [nnz] in the order of the entries, and x [columns] or [columns, k]."""
        if len(x.shape) == 1 or x.shape[1] == 1:
            return _by_bucket(self._compiled.multiply, in_graph(self.tensors), values, x)
        return self.multiply_arranged(self.arrange(values), x)  # else each column would search for its values

    def multiply_arranged(self, arranged: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """The same for values that `arrange` gave."""
        return _by_bucket(self._compiled.multiply_arranged, in_graph(self.tensors[1]), arranged, x)

    def arrange(self, values: tf.Tensor) -> tf.Tensor:
        """The values [slots], zero in padding."""
        return self._compiled.arrange(in_graph(self.tensors[0]), values)

    def compiled_programs(self) -> int:
        """How often the products were traced, for the tests that count."""
        return sum(function.experimental_get_tracing_count() for function in self._compiled[:2])

    @functools.cached_property
    def tensors(self) -> tuple[tf.Tensor, Indices]:
        """Places and indices as eager tensors: arguments of the compiled programs, never constants of them."""
        return on_device(self.places), tf.nest.map_structure(on_device, self.indices)

    @functools.cached_property
    def _compiled(self) -> "Programs":
        # Made for each layout, and released with it.
        return Programs(
            compiled(lambda tensors, values, x: self._run_columns(tensors[1], _from_entries(tensors[0], values), x)),
            compiled(self.run_arranged),
            compiled(self.run_arrange),
        )

    def _run_columns(self, indices: Indices, slots: Slots, x: tf.Tensor) -> tf.Tensor:
        if len(x.shape) == 2 and x.shape[1] == 1:
            return self.run(indices, slots, x[:, 0])[:, tf.newaxis]
        return self.run(indices, slots, x)


class Programs(NamedTuple):
    """The compiled functions of a layout: of (tensors, values, x), (indices, arranged, x) and (places, values)."""

    multiply: Any
    multiply_arranged: Any
    arrange: Any


def _from_entries(places: tf.Tensor, values: tf.Tensor) -> Slots:
    def read(start: int, shape: tuple[int, int]) -> tf.Tensor:
        place = tf.reshape(places[start : start + math.prod(shape)], shape)
        return tf.where(place < 0, tf.zeros([], values.dtype), tf.gather(values, tf.maximum(place, 0)))

    return read


def _from_slots(arranged: tf.Tensor) -> Slots:
    return lambda start, shape: tf.reshape(arranged[start : start + math.prod(shape)], shape)


def _by_bucket(function: Callable[..., tf.Tensor], tensors: Indices, values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Columns are padded to a bucket of sizes, so that a program is compiled once for each bucket."""
    if len(x.shape) == 1:
        return function(tensors, values, x)
    padded = pad_columns(x)
    result = function(tensors, values, padded)
    return result if padded is x else result[:, : tf.shape(x)[1]]


def on_device(index: np.ndarray) -> tf.Tensor:
    """An index array as an eager tensor, also while a tf.function is traced."""
    with tf.init_scope():
        return tf.constant(index)


@final
@dataclass(frozen=True)
class Plan:
    """What a layout would cost; `build` makes it.

    Args:
        name: Of the layout.
        slots: Number of slots, padding included.
        index_bytes: Read for each slot beside its value.
        extra_bytes: Read for each product beside slots and vectors.
        build: Makes the layout.
    """

    name: str
    slots: int
    index_bytes: int
    extra_bytes: int
    build: Callable[[], Layout]

    def bytes_per_product(self, shape: tuple[int, int], itemsize: int) -> int:
        """Expected traffic of a product with one column whose values are arranged: every array read or written once."""
        return self.slots * (itemsize + self.index_bytes) + self.extra_bytes + sum(shape) * itemsize


@final
@dataclass(frozen=True, eq=False)
class Choice:
    """The layouts that fit a pattern, and the one that its products use.

    Args:
        shape, nnz: Of the matrix.
        plans: The candidates, each with another name.
        chosen: Name of one of them; by default the one that moves the fewest bytes in single precision.
        itemsize: Bytes of a value that `explain` counts with.
    """

    shape: tuple[int, int]
    nnz: int
    plans: tuple[Plan, ...]
    chosen: str = ""
    itemsize: int = 4

    def __post_init__(self) -> None:
        names = [plan.name for plan in self.plans]
        if not self.chosen:
            best = min(self.plans, key=lambda plan: plan.bytes_per_product(self.shape, 4))
            object.__setattr__(self, "chosen", best.name)
        elif self.chosen not in names:
            raise checks.invalid("layout", repr(self.chosen), "one that fits this pattern: " + ", ".join(names))

    @functools.cached_property
    def layout(self) -> Layout:
        """The layout in use, built when it is first needed."""
        return next(plan for plan in self.plans if plan.name == self.chosen).build()

    def explain(self) -> str:
        """A table of the layouts that fit, with what a product with one column moves in each."""
        lines = [f"{self.shape[0]} x {self.shape[1]}, {self.nnz} entries; traffic of a product with one column, values of {self.itemsize} bytes:"]
        for plan in self.plans:
            padding = (plan.slots - self.nnz) / max(self.nnz, 1)
            traffic = plan.bytes_per_product(self.shape, self.itemsize) / 1e6
            mark = "  <- used" if plan.name == self.chosen else ""
            lines.append(f"  {plan.name:<12} {plan.slots:>12} slots, {padding:>7.1%} padding, {traffic:>10.3f} MB{mark}")
        return "\n".join(lines)


@final
class Arranged:
    """Values that are kept in the slots of a layout from their second product on.

    Arranging costs as much as several products: too much for values that change at each step, little for those of a matrix that
    stays. A tf.function that is being traced will run often, so it finds them arranged at once.

    Args:
        layout: Of the matrix, or of its transpose.
        values: [nnz] eager tensor.
    """

    def __init__(self, layout: Layout, values: tf.Tensor) -> None:
        self._layout, self._values = layout, values
        self._arranged: tf.Tensor | None = None
        self._used = False

    def multiply(self, values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """A x; `values` are those given at construction."""
        if self._arranged is None:
            if tf.executing_eagerly() and not self._used:
                self._used = True
                return self._layout.multiply(values, x)
            with tf.init_scope():
                self._arranged = self._layout.arrange(self._values)
        return self._layout.multiply_arranged(self._arranged, x)
