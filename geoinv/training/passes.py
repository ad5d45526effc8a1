"""Sums over blocks of units at one model, each block's part added in the order of the blocks.

A block is the unit of what is computed: one program, or one part of an operator, for each; so a sum is the same to the bit whatever batches its
blocks come in, in one process or several, and from wherever a killed run goes on.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import tensorflow as tf

from geoinv.datasets.batches import Blocks, Cursor, Reader
from geoinv.datasets.units import Units
from geoinv.operators import checks
from geoinv.operators.forward import Nest
from geoinv.operators.parallel import in_turn

from ..accumulator import GradientAccumulator
from ..cluster import Cluster
from ..gradients import NotFiniteError
from .loss import Penalty, UnitLoss


@final
@dataclass(frozen=True)
class Partial:
    """How far a pass has come: blocks that are in the sums, and their value."""

    done: int = 0
    value: float = 0.0


@final
class Passes:
    """Over the blocks of a survey.

    Args:
        loss, penalty: What is summed, and added to the mean.
        source: The survey.
        blocks: Its partition.
        accumulator: Of gradients with respect to `variables`, or of something else of their shapes.
        structure: The nest of which the accumulator's variables are the leaves.
        keep: Called after each block.
        cluster: Whose workers compute the blocks of losses that are not compiled here.
    """

    def __init__(
        self, loss: UnitLoss, penalty: Penalty, source: Units, blocks: Blocks, accumulator: GradientAccumulator, structure: Nest,
        keep: Callable[[], None], cluster: Cluster | None = None,
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._loss, self._penalty, self._source, self._blocks = loss, penalty, source, blocks
        self._accumulator, self._structure, self._keep = accumulator, structure, keep
        self._reader = Reader(source, blocks)
        self._programs: dict[Any, Callable[..., tf.Tensor]] = {}
        self.partial = Partial()

    @property
    def programs(self) -> int:
        """How many have been compiled: one for each shape of a block."""
        return len(self._programs)

    def _program(self, batch: Any) -> Callable[..., tf.Tensor]:
        """What adds the gradient of blocks of this shape."""

        def traced(leaves: list[tf.Tensor], batch: Any) -> tuple[list[tf.Tensor], tf.Tensor]:
            value, gradient = self._loss.gradient(self._packed(leaves), batch)
            return tf.nest.flatten(gradient), value

        shape = tuple((name, tuple(array.shape)) for name, array in batch.items())
        if shape not in self._programs:
            self._programs[shape] = self._accumulator.fused(traced)
        return self._programs[shape]

    def _packed(self, leaves: Sequence[tf.Tensor]) -> Nest:
        return tf.nest.pack_sequence_as(self._structure, list(leaves))

    def gradient(self, leaves: Sequence[tf.Tensor], chosen: np.ndarray, following: Callable[[], Iterator[int]]) -> float:
        """Sum the gradients of some blocks, and the penalty's, in the accumulator; the value per unit.

        Args:
            leaves: Of the model.
            chosen: Blocks.
            following: Blocks that are expected after these, to read them ahead.

        Raises:
            ValueError: A gradient or value that is not finite; the block is named.
        """
        leaves, rest = list(leaves), chosen[self.partial.done :]
        parts = self._compiled(leaves, rest, following) if self._loss.traceable else self._side_by_side(leaves, rest)
        try:
            for block, value in parts:
                _check_value(value, f"in {self._named(block)}")
                self.partial = Partial(self.partial.done + 1, self.partial.value + value)
                self._keep()
            units, total = self._blocks.size_of(chosen), self.partial.value
            if self._penalty.function is not None:
                value, gradient = self._penalty.gradient(self._packed(leaves))
                _check_value(value, "of the penalty")
                self._accumulator.add([units * each for each in tf.nest.flatten(gradient)], batch="penalty")
                total += units * value
        except BaseException:  # what is left of the step is of no use: it begins anew
            self._accumulator.reset()
            raise
        finally:
            self.partial = Partial()
        return total / units

    def begin(self) -> None:
        """Begin with no sums, but for those of a pass that is taken up."""
        if not self.partial.done:
            self._accumulator.reset()

    def close(self) -> None:
        """Read nothing ahead any more."""
        self._reader.close()

    def _compiled(self, leaves: list[tf.Tensor], chosen: np.ndarray, following: Callable[[], Iterator[int]]) -> Iterator[tuple[int, float]]:
        for place, block in enumerate(chosen.tolist()):
            batch = self._reader.read(block, lambda place=place: _chained(chosen[place + 1 :], following))  # type: ignore[misc]
            yield block, float(self._program(batch)(leaves, batch, batch=self._named(block)))

    def _side_by_side(self, leaves: list[tf.Tensor], chosen: np.ndarray) -> Iterator[tuple[int, float]]:
        for block, (value, gradient) in zip(chosen.tolist(), self._parts("gradient", self._packed(leaves), chosen), strict=True):
            self._accumulator.add(gradient, batch=self._named(block))
            yield block, value

    def _parts(self, kind: str, model: Nest, chosen: np.ndarray, tangent: Nest = None) -> Iterator[Any]:
        """What `_of_block` gives for some blocks, in turn: on the cores of this machine, or the workers of a cluster."""
        units = [self._blocks[int(block)] for block in chosen]
        if self._cluster is None:
            return in_turn(lambda n: _of_block(self._loss, self._source, kind, model, tangent, units[n]), len(units))
        given = (tf.nest.map_structure(np.asarray, each) for each in (model, tangent))
        return self._cluster.in_turn(_of_block, (self._loss, self._source, kind, *given), units)

    def value(self, model: Nest, chosen: np.ndarray) -> float:
        """The value per unit of some blocks, with the penalty."""
        return sum(self._parts("value", model, chosen)) / self._blocks.size_of(chosen) + self._penalty.value(model)

    def product(self, model: Nest, chosen: np.ndarray, tangent: Nest) -> list[tf.Tensor]:
        """The Gauss-Newton Hessian of that, times a change of the model; its leaves."""
        self._accumulator.reset()
        try:
            for block, each in zip(chosen.tolist(), self._parts("product", model, chosen, tangent), strict=True):
                self._accumulator.add(each, batch=self._named(block))
            units, sums = self._blocks.size_of(chosen), self._accumulator.sum()
        finally:
            self._accumulator.reset()
        whole = [each / tf.cast(units, each.dtype) for each in sums]
        if self._penalty.function is None:
            return whole
        bent = tf.nest.flatten(self._penalty.product(model, tangent))
        return [a + tf.cast(b, a.dtype) for a, b in zip(whole, bent, strict=True)]

    def _named(self, block: int) -> str:
        units = self._blocks[block]
        return f"unit {units[0]}" if len(units) == 1 else f"units {units[0]} to {units[-1]}"

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The sums of a pass under way, and how far it has come."""
        return self._accumulator.to_arrays(), dataclasses.asdict(self.partial)

    def from_arrays(self, arrays: dict[str, np.ndarray], partial: dict[str, Any]) -> None:
        """Go on from there."""
        self._accumulator.from_arrays(arrays)
        self.partial = Partial(**partial)


def _of_block(loss: UnitLoss, source: Units, kind: str, model: Nest, tangent: Nest, units: np.ndarray) -> Any:
    """The value of a block, that and the leaves of its gradient, or those of its product with a change of the model."""
    batch = {name: tf.constant(array) if name != "unit" else array for name, array in source.read(units).items()}
    model = tf.nest.map_structure(tf.convert_to_tensor, model)
    if kind == "value":
        return float(loss.value(model, batch))
    if kind == "product":
        return [_plain(each) for each in tf.nest.flatten(loss.product(model, batch, tf.nest.map_structure(tf.convert_to_tensor, tangent)))]
    value, gradient = loss.gradient(model, batch)
    return float(value), [_plain(each) for each in tf.nest.flatten(gradient)]


def _plain(gradient: Any) -> Any:
    """As an array, which processes send each other; of some rows as it is."""
    return gradient if isinstance(gradient, tf.IndexedSlices) else gradient.numpy()


def _check_value(value: float, where: str) -> None:
    if not np.isfinite(value):
        advice = "The model is as it was. Are these data, or is the step too long?"
        raise NotFiniteError(str(checks.invalid("loss", f"{value} {where}", "finite", advice)))


def _chained(first: np.ndarray, following: Callable[[], Iterator[int]]) -> Iterator[int]:
    yield from first.tolist()
    yield from following()


def expected(blocks: Blocks, cursor: Cursor, count: int, passes: int) -> Iterator[int]:
    """The blocks from a cursor on, endless, where every batch has so many, and is gone through so many times."""
    while True:
        chosen, cursor = blocks.take(cursor, count)
        for _ in range(passes):
            yield from chosen.tolist()
