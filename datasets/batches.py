"""Blocks of units in the order of an epoch, and a reader that is ahead of whoever asks for them."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from geoinv.operators import checks

from .units import Units

#: Blocks that are read before they are asked for.
AHEAD = 2


class Cursor(NamedTuple):
    """Where the data stand: the epoch, and how many of its blocks have been used."""

    epoch: int = 0
    used: int = 0


@final
@dataclass(frozen=True)
class Blocks:
    """A partition of units into blocks of neighbours that stays as it is, whatever batches they are put together to.

    Args:
        units: How many.
        size: Of a block; the last may be smaller.
        seed: Of the order, which is another one in each epoch; that of the survey if None.
    """

    units: int
    size: int = 1
    seed: int | None = None

    def __post_init__(self) -> None:
        checks.count("units", self.units)
        checks.count("block", self.size)

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return -(-self.units // self.size)

    def __getitem__(self, block: int) -> np.ndarray:
        """The units of one."""
        return np.arange(block * self.size, min((block + 1) * self.size, self.units))

    def order(self, epoch: int) -> np.ndarray:
        """The blocks as an epoch goes through them."""
        return np.arange(self.count) if self.seed is None else np.random.default_rng([self.seed, epoch]).permutation(self.count)

    def take(self, cursor: Cursor, count: int) -> tuple[np.ndarray, Cursor]:
        """The next blocks, in their own order, and where the data stand after them; an epoch ends with what is left of it."""
        chosen = np.sort(self.order(cursor.epoch)[cursor.used : cursor.used + count])
        used = cursor.used + len(chosen)
        return chosen, Cursor(cursor.epoch + 1, 0) if used >= self.count else Cursor(cursor.epoch, used)

    def size_of(self, blocks: Sequence[int] | np.ndarray) -> int:
        """How many units some blocks have."""
        return sum(len(self[int(block)]) for block in blocks)


@final
class Reader:
    """Reads blocks in the background, with `tf.data`, in the order in which they are expected to be asked for.

    What is expected is a guess only: another block than that is read when it is asked for, and what comes after it is guessed anew.

    Args:
        source: What is read.
        blocks: Its partition.
    """

    def __init__(self, source: Units, blocks: Blocks) -> None:
        self._source, self._blocks = source, blocks
        self._coming: Iterator[Any] = iter(())

    def read(self, block: int, following: Callable[[], Iterator[int]]) -> dict[str, Any]:
        """One block, as tensors.

        Args:
            block: Its number.
            following: Those that are expected after it, where that is not known yet.

        Raises:
            ValueError: Reading failed.
        """
        number, batch = next(self._coming, (-1, {}))
        if int(number) != block:
            self._coming = self._stream(itertools.chain([block], following()))
            _, batch = next(self._coming)
        return batch

    def close(self) -> None:
        """Read nothing ahead any more."""
        self._coming = iter(())

    def _stream(self, numbers: Iterator[int]) -> Iterator[Any]:
        import tensorflow as tf

        first = next(numbers)
        batch = self._source.read(self._blocks[first])

        def parts() -> Iterator[Any]:
            yield first, batch
            try:
                for number in numbers:
                    yield number, self._source.read(self._blocks[number])
            except ValueError:
                return  # it is read again, and told, when its turn has come: TensorFlow would wrap it in a page of its own

        signature = {name: tf.TensorSpec([None] * array.ndim, array.dtype) for name, array in batch.items()}
        data = tf.data.Dataset.from_generator(parts, output_signature=(tf.TensorSpec([], tf.int64), signature))
        return iter(data.prefetch(AHEAD))
