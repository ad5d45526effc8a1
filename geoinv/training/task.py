"""What an optimiser sees of a training run: the model, the batches, and sums over them. Keeps what a run that is killed goes on from."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf

from geoinv.datasets.batches import Blocks, Cursor
from geoinv.datasets.units import Units
from geoinv.operators import checks
from geoinv.operators.forward import Nest, ravel, unravel

from ..accumulator import GradientAccumulator, Precision, Transform
from ..cluster import Cluster
from ..gradients import NotFiniteError
from .interrupts import Interrupts
from .loss import Penalty, UnitLoss
from .passes import Passes, expected

Record = dict[str, Any]
#: Units in a batch: a number, a function of (iteration, history), or None for all.
Size = int | Callable[[int, Sequence[Record]], int] | None


@final
class Task:
    """A model that is being fitted.

    Args:
        loss, penalty, source, blocks: See `Passes`.
        start: First model: a nest of float arrays.
        batch: Units in a batch.
        precision: Of the sums.
        transform: Of mean gradients, a list of tensors each.
        keep, cluster: See `Passes`.

    Attributes:
        variables: The model's leaves.
        iteration, history: Of steps so far.
        cursor: Where the data stood when the step under way began.
    """

    def __init__(
        self, loss: UnitLoss, penalty: Penalty, source: Units, blocks: Blocks, start: Nest, batch: Size, precision: Precision,
        transform: Transform | None, keep: Callable[[], None], cluster: Cluster | None,
    ) -> None:  # fmt: skip
        leaves = tf.nest.map_structure(tf.convert_to_tensor, start)
        self.spec = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), leaves)
        for leaf in tf.nest.flatten(leaves):
            if not leaf.dtype.is_floating:
                raise checks.invalid("start", f"with an array of {leaf.dtype.name}", "of float32 or float64 arrays")
            checks.finite("start", leaf.numpy(), dtype=leaf.numpy().dtype)
        self.variables = [tf.Variable(leaf, name=f"model{number}") for number, leaf in enumerate(tf.nest.flatten(leaves))]
        self.blocks, self._batch, self._transform = blocks, batch, transform
        self._accumulator = GradientAccumulator(self.variables, precision=precision)
        self.passes = Passes(loss, penalty, source, blocks, self._accumulator, self.spec, keep, cluster)
        self.interrupts = Interrupts()
        self.iteration, self.cursor, self._after = 0, Cursor(), Cursor()
        self._size, self._passes, self._drawn = blocks.count, 1, np.arange(blocks.count)
        self.history: list[Record] = []
        self.found: list[tuple[float, np.ndarray]] = []
        self._next = 0

    # ---------------------------------------------------------------------------------------------------------- model

    @property
    def leaves(self) -> list[tf.Tensor]:
        """Of the model."""
        return [variable.value() for variable in self.variables]

    @property
    def model(self) -> Nest:
        """As it is now."""
        return tf.nest.pack_sequence_as(self.spec, self.leaves)

    @property
    def vector(self) -> np.ndarray:
        """That as one vector [n]."""
        return ravel(self.leaves)

    def set(self, vector: np.ndarray) -> None:
        """Take another model, [n]; the step is to end then."""
        self.interrupts.hold()
        for variable, leaf in zip(self.variables, tf.nest.flatten(unravel(vector, self.spec)), strict=True):
            variable.assign(leaf)

    # --------------------------------------------------------------------------------------------------------- batches

    @property
    def whole(self) -> bool:
        """Whether a batch is all of the data."""
        return self._batch is None or (isinstance(self._batch, int) and self._batch >= self.blocks.units)

    def _count(self) -> int:
        """Blocks in the next batch."""
        if self._batch is None:
            return self.blocks.count
        units = self._batch(self.iteration, self.history) if callable(self._batch) else self._batch
        return -(-checks.count("batch", units) // self.blocks.size)

    def begin(self) -> None:
        """Begin a step anew that was not ended: what was found in it so far is found again."""
        self._next = 0
        self.interrupts.restore()
        self.passes.begin()

    def draw(self, passes: int = 1) -> np.ndarray:
        """The blocks of the step's batch, which it goes through so many times."""
        self._size, self._passes = self._count(), passes
        self._drawn, self._after = self.blocks.take(self.cursor, self._size)
        return self._drawn

    def _following(self) -> Iterator[int]:
        again = self._drawn.tolist() * (self._passes - 1)
        return itertools.chain(again, expected(self.blocks, self._after, self._size, self._passes))

    def stepped(self, record: Record) -> Record:
        """End a step: the full record of it."""
        units = self.blocks.size_of(self._drawn)
        record = {"iteration": self.iteration + 1, "epoch": self.cursor.epoch, "units": units, **record, "programs": self.passes.programs}
        self.iteration, self.cursor = self.iteration + 1, self._after
        self.found.clear()
        self._next = 0
        return record

    # ------------------------------------------------------------------------------------------------------------ sums

    def sum_gradients(self, leaves: Sequence[tf.Tensor], batch: np.ndarray) -> float:
        """The value per unit of a batch at a model; the gradients' sum is left where `apply` finds it."""
        return self.passes.gradient(leaves, batch, self._following)

    def apply(self, optimizer: Any, batch: np.ndarray) -> None:
        """Let an optimiser of Keras change the model by the mean gradient of a batch; the step is to end then."""
        self.interrupts.hold()
        self._accumulator.apply(optimizer, divisor=self.blocks.size_of(batch), transform=self._transform)

    def value_and_gradient(self, vector: np.ndarray, batch: np.ndarray, *, trial: bool = False) -> tuple[float, np.ndarray]:
        """Per unit of a batch at a model [n]; what was found in a step before it was killed is not computed again.

        At a model that is tried what is not finite is infinite.
        """
        self._next += 1
        if self._next <= len(self.found):
            return self.found[self._next - 1]
        try:
            self.found.append(self._computed(vector, batch))
        except NotFiniteError:
            if not trial:
                raise
            self.found.append((np.inf, np.zeros_like(vector)))
        return self.found[-1]

    def _computed(self, vector: np.ndarray, batch: np.ndarray) -> tuple[float, np.ndarray]:
        leaves = tf.nest.flatten(unravel(vector, self.spec))
        value = self.passes.gradient(leaves, batch, self._following)
        units, sums = self.blocks.size_of(batch), self._accumulator.sum()
        self._accumulator.reset()
        means = [tf.cast(each / tf.cast(units, each.dtype), leaf.dtype) for each, leaf in zip(sums, leaves, strict=True)]
        found = ravel(self._transform(means) if self._transform else means).astype(vector.dtype, copy=False)
        if not np.isfinite(found).all():
            raise NotFiniteError(str(checks.invalid("smoothing", "of a finite gradient to another", "finite", "The model is as it was.")))
        return value, found

    def value(self, vector: np.ndarray, batch: np.ndarray) -> float:
        """Per unit of a batch at a model [n]."""
        return self.passes.value(unravel(vector, self.spec), batch)

    def hessian(self, vector: np.ndarray, batch: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
        """v [n] to the Gauss-Newton Hessian times v, per unit of a batch."""
        model = unravel(vector, self.spec)

        def product(v: tf.Tensor) -> tf.Tensor:
            tangent = unravel(v.numpy(), self.spec)
            return tf.constant(ravel(self.passes.product(model, batch, tangent)).astype(vector.dtype, copy=False))

        return product

    # ------------------------------------------------------------------------------------------------------ checkpoints

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All that the rest of the run depends on, but the optimiser's own."""
        sums, partial = self.passes.to_arrays()
        arrays = {f"sum.{name}": array for name, array in sums.items()}
        arrays |= {f"model.{number}": variable.numpy() for number, variable in enumerate(self.variables)}
        arrays |= {f"found.{number}": gradient for number, (_, gradient) in enumerate(self.found)}
        numbers = {"iteration": self.iteration, "cursor": list(self.cursor), "partial": partial}
        return arrays, {**numbers, "found": [value for value, _ in self.found], "history": self.history}

    def from_arrays(self, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
        """Go on from there."""
        for number, variable in enumerate(self.variables):
            variable.assign(arrays[f"model.{number}"])
        sums = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith("sum.")}
        self.passes.from_arrays(sums, about["partial"])
        self.iteration, self.history = about["iteration"], list(about["history"])
        self.cursor = self._after = Cursor(*about["cursor"])
        self.found, self._next = [(value, arrays[f"found.{number}"]) for number, value in enumerate(about["found"])], 0
