"""What a forward run keeps of its steps for the adjoint run, and how that gets the images of each step back from it."""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import tensorflow as tf

from ..graphs import traced
from .boxes import Box
from .lattice import cut, put, zeros
from .scheme import Scheme
from .stepping import Material, Slot, State

Arrays = tuple[tf.TensorArray, ...]
Images = tuple[tf.Tensor, ...]
#: (what is carried on, what was kept, its place, material, source in the cells) to (images of that step, what is carried on)
Recall = Callable[[Any, Any, tf.Tensor, Material, tf.Tensor], tuple[Images, Any]]


class Keeping(abc.ABC):
    """What is kept. Hashable: programs are compiled for one."""

    @property
    @abc.abstractmethod
    def every(self) -> int:
        """Steps between those of which something is kept; 0 for none."""

    @abc.abstractmethod
    def boxes(self, scheme: Scheme) -> list[Box]:
        """What is kept of one step, as the cells or faces that it covers."""

    @abc.abstractmethod
    def store(self, scheme: Scheme, arrays: Arrays, place: tf.Tensor, rate: tf.Tensor, fluxes: Sequence[tf.Tensor]) -> Arrays:
        """Keep a step: its rate and fluxes, with their margins."""

    @abc.abstractmethod
    def kept(self, arrays: Arrays, end: State) -> Any:
        """What is handed to the adjoint run."""

    @abc.abstractmethod
    def begin(self, scheme: Scheme, kept: Any, ring: int) -> Any:
        """What the adjoint run carries from one recall to the next."""

    @abc.abstractmethod
    def recall(self, scheme: Scheme, sources: Box) -> Recall:
        """How the images of the kept steps are got back, the last step first."""

    def keeps(self, at: int) -> bool:
        """Whether something is kept of this step of a round: the middle one of an interval."""
        return bool(self.every) and at % self.every == self.every // 2

    def arrays(self, scheme: Scheme, steps: int, dtype: Any) -> Arrays:
        """Room for so many steps of a loop."""
        return tuple(tf.TensorArray(dtype, steps // self.every, element_shape=box.shape) for box in self.boxes(scheme))


@final
@dataclass(frozen=True)
class Nothing(Keeping):
    """For runs without a derivative."""

    @property
    def every(self) -> int:
        return 0

    def boxes(self, scheme: Scheme) -> list[Box]:
        return []

    def store(self, scheme: Scheme, arrays: Arrays, place: tf.Tensor, rate: tf.Tensor, fluxes: Sequence[tf.Tensor]) -> Arrays:
        raise NotImplementedError  # no step is kept

    def kept(self, arrays: Arrays, end: State) -> Any:
        return ()

    def begin(self, scheme: Scheme, kept: Any, ring: int) -> Any:
        return ()

    def recall(self, scheme: Scheme, sources: Box) -> Recall:
        raise NotImplementedError


@final
@dataclass(frozen=True)
class Snapshots(Keeping):
    """The images themselves, of every k-th step.

    Args:
        interval: k.
    """

    interval: int

    @property
    def every(self) -> int:
        return self.interval

    def boxes(self, scheme: Scheme) -> list[Box]:
        return list(scheme.images)

    def store(self, scheme: Scheme, arrays: Arrays, place: tf.Tensor, rate: tf.Tensor, fluxes: Sequence[tf.Tensor]) -> Arrays:
        return tuple(array.write(place, part) for array, part in zip(arrays, scheme.cut(rate, fluxes), strict=True))

    def kept(self, arrays: Arrays, end: State) -> Images:
        return tuple(array.stack() for array in arrays)

    def begin(self, scheme: Scheme, kept: Any, ring: int) -> Any:
        return ()

    def recall(self, scheme: Scheme, sources: Box) -> Recall:
        return lambda carried, kept, place, *_: (tuple(tf.gather(part, place) for part in kept), carried)


@final
@dataclass(frozen=True)
class Backwards(Keeping):
    """The images where the layers absorb, of every step, and the wavefield at the end, from which all others are stepped back.

    Without absorption two neighbouring fields give the one before them by the same step.
    """

    @property
    def every(self) -> int:
        return 1

    def boxes(self, scheme: Scheme) -> list[Box]:
        return [box for _, _, box in _absorbed(scheme)]

    def store(self, scheme: Scheme, arrays: Arrays, place: tf.Tensor, rate: tf.Tensor, fluxes: Sequence[tf.Tensor]) -> Arrays:
        fields = (rate, *fluxes)
        return tuple(
            array.write(place, cut(fields[which], covers, box)) for array, (which, covers, box) in zip(arrays, _absorbed(scheme), strict=True)
        )

    def kept(self, arrays: Arrays, end: State) -> tuple[State, Images]:
        return end, tuple(array.stack() for array in arrays)

    def begin(self, scheme: Scheme, kept: Any, ring: int) -> Any:
        end = kept[0]
        backwards = State(end.old.field, end.old._replace(field=end.older))
        return scheme.ring(backwards, ring), zeros(scheme.lattice.haloed, end.older.dtype)

    def recall(self, scheme: Scheme, sources: Box) -> Recall:
        unwind = _unwinding(scheme, sources)

        def one(carried: Any, kept: Any, place: tf.Tensor, material: Material, source: tf.Tensor) -> tuple[Images, Any]:
            ring, scratch = carried
            layers = [tf.gather(layer, place) for layer in kept[1]]
            earlier, scratch, images = unwind(ring[-2].field, ring[-1].field, ring[0], material, source, scratch, layers)
            return images, ((*ring[1:], earlier), scratch)

        return one


def _absorbed(scheme: Scheme) -> list[tuple[int, Box, Box]]:
    """What a step backwards cannot know: number of the image, what it covers with its margin, and the box."""
    lattice, found = scheme.lattice, []
    for strip, (own, _) in zip(lattice.strips, lattice.parts[1], strict=True):
        found.append((0, lattice.haloed, own))
        if scheme.physics.fluxes:
            found.append((1 + strip.axis, lattice.haloed_faces(strip.axis), strip.faces))
    return found


def _unwinding(scheme: Scheme, sources: Box) -> Callable[..., Any]:
    """One step backwards: from two fields, and what was kept of the layers, to the one before them; with the images of the step."""
    lattice, sweep, covers = scheme.lattice, scheme.physics.forward, scheme.lattice.haloed
    plain = dataclasses.replace(lattice, widths=((0, 0),) * len(lattice.shape))

    def one(later: tf.Tensor, now: tf.Tensor, earlier: Slot, material: Material, source: tf.Tensor, scratch: tf.Tensor, layers: Any) -> Any:
        inner = lattice.parts[0]
        fluxes = sweep.prepare(plain, Slot(now, (), earlier.fluxes), Slot(now, (), earlier.fluxes), material, (), None)[1]
        rate = put(scratch, covers, sweep.rate(lattice, now, fluxes, inner), inner)
        rate = put(rate, covers, cut(rate, covers, sources) + tf.reshape(source, sources.shape), sources)
        images = [rate, *fluxes]
        for (which, cover, box), part in zip(_absorbed(scheme), layers, strict=True):
            images[which] = put(images[which], cover, part, box)
        whole = lattice.whole
        field = 2.0 * cut(now, covers, whole) - cut(later, covers, whole) + material.stiffness * cut(images[0], covers, whole)
        field = lattice.mirrored(put(earlier.field, covers, field, whole))
        return earlier._replace(field=field, fluxes=tuple(fluxes)), images[0], scheme.cut(images[0], images[1:])

    return traced(one)
