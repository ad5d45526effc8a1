r"""One time step of the acoustic wave equation, forward and adjoint.

With C = (velocity dt)^2, the Laplacian L and the source s, a step is

.. math:: u^{n+1} = 2 u^n - u^{n-1} + C (r^n + s^n), \qquad r = L u + \sum_{layers} (D \psi + \zeta),

where D and its transpose are staggered first differences and each layer carries two memories, updated first
(`boundaries` has the coefficients),

.. math:: \psi \leftarrow b \psi + a \, (-D^T) u, \qquad \zeta \leftarrow b \zeta + a \, (\partial^2 u + D \psi).

The transpose of that step, run backwards with :math:`\mu = C \lambda` for the adjoint field lambda, has the same form,

.. math:: \xi \leftarrow b \xi + a \mu, \quad \eta \leftarrow b \eta - a (-D^T) (\mu + \xi), \quad
          r = L \mu + \sum_{layers} (\partial^2 \xi - D \eta),

so that one code runs both, and the gradient with respect to C is the sum of :math:`\mu^{n+1} (r^n + s^n) / C`.

A state keeps its fields in a ring of slots. Each step writes a slot that nothing reads any more: the loop copies nothing, and as no
expression reads what it writes XLA vectorises it. One shot is one program on one core; shots run side by side (`shots.each`). That
is faster than XLA's own threads, which never split a loop that writes in place, and one shot's fields stay in the cache.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import tensorflow as tf

from .boundaries import Strip
from .boxes import Box
from .lattice import Lattice, cut, put, zeros

Profiles = Sequence[Sequence[tf.Tensor]]  # of each layer: (a, b) in its cells, (a, b) on its faces


class Memory(NamedTuple):
    """What a layer remembers, over `Strip.memory`."""

    faces: tf.Tensor
    cells: tf.Tensor


class Slot(NamedTuple):
    """A wavefield at one time, with the memories of the layers."""

    field: tf.Tensor
    memories: tuple[Memory, ...]


class Point(NamedTuple):
    """What is added to the equation in a box: values [cells of the box]."""

    box: Box
    values: tf.Tensor


def empty(lattice: Lattice, dtype: Any) -> Slot:
    """A slot of zeros."""
    return Slot(zeros(lattice.haloed, dtype), tuple(Memory(zeros(strip.memory, dtype), zeros(strip.memory, dtype)) for strip in lattice.strips))


class Sweep(abc.ABC):
    """What differs between the forward step and its transpose."""

    @abc.abstractmethod
    def remember(self, lattice: Lattice, strip: Strip, field: tf.Tensor, old: Memory, new: Memory, profiles: Sequence[tf.Tensor]) -> Memory:
        """What a layer remembers after this step, written into `new`."""

    @abc.abstractmethod
    def correction(self, lattice: Lattice, strip: Strip, memory: Memory, box: Box) -> tf.Tensor:
        """What a layer adds to the Laplacian in a box of the cells that it touches."""


@final
class Forward(Sweep):
    """The step itself: psi on the faces and zeta in the cells."""

    def remember(self, lattice: Lattice, strip: Strip, field: tf.Tensor, old: Memory, new: Memory, profiles: Sequence[tf.Tensor]) -> Memory:
        axis, covers = strip.axis, strip.memory
        a, b, a_faces, b_faces = profiles
        slope = lattice.to_faces(field, lattice.haloed, strip.faces, axis)
        psi = put(new.faces, covers, b_faces * cut(old.faces, covers, strip.faces) + a_faces * slope, strip.faces)
        bend = lattice.second(field, lattice.haloed, strip.cells, axis) + lattice.to_cells(psi, covers, strip.cells, axis)
        zeta = put(new.cells, covers, b * cut(old.cells, covers, strip.cells) + a * bend, strip.cells)
        return Memory(psi, zeta)

    def correction(self, lattice: Lattice, strip: Strip, memory: Memory, box: Box) -> tf.Tensor:
        return lattice.to_cells(memory.faces, strip.memory, box, strip.axis) + cut(memory.cells, strip.memory, box)


@final
class Adjoint(Sweep):
    """Its transpose: eta on the faces and xi in the cells."""

    def remember(self, lattice: Lattice, strip: Strip, field: tf.Tensor, old: Memory, new: Memory, profiles: Sequence[tf.Tensor]) -> Memory:
        axis, covers = strip.axis, strip.memory
        a, b, a_faces, b_faces = profiles
        xi = put(new.cells, covers, b * cut(old.cells, covers, strip.cells) + a * cut(field, lattice.haloed, strip.cells), strip.cells)
        slope = lattice.to_faces(field, lattice.haloed, strip.faces, axis) + lattice.to_faces(xi, covers, strip.faces, axis)
        eta = put(new.faces, covers, b_faces * cut(old.faces, covers, strip.faces) - a_faces * slope, strip.faces)
        return Memory(eta, xi)

    def correction(self, lattice: Lattice, strip: Strip, memory: Memory, box: Box) -> tf.Tensor:
        return lattice.second(memory.cells, strip.memory, box, strip.axis) - lattice.to_cells(memory.faces, strip.memory, box, strip.axis)


FORWARD, ADJOINT = Forward(), Adjoint()


def step(
    lattice: Lattice, sweep: Sweep, older: tf.Tensor, old: Slot, new: Slot, speed: tf.Tensor, profiles: Profiles, source: Point,
    scattered: tuple[tf.Tensor, tf.Tensor] | None = None,
) -> Slot:  # fmt: skip
    """The next wavefield, written into the slot `new`.

    Args:
        lattice, sweep: Where and what.
        older, old: The field one step before, and the state now.
        speed: C = (velocity dt)^2 of every cell, m2.
        profiles: Of the layers.
        source: s, in a box.
        scattered: A change of C, and r + s of the field that it scatters (`step_with_rate`): their product is added (Born).
    """
    memories = _remember(lattice, sweep, old, new, profiles)

    def value(box: Box, rate: tf.Tensor) -> tf.Tensor:
        moved = _coasting(lattice, older, old.field, box) + cut(speed, lattice.whole, box) * rate
        if scattered is None:
            return moved
        return moved + cut(scattered[0], lattice.whole, box) * cut(scattered[1], lattice.haloed, box)

    def more(box: Box, rate: tf.Tensor) -> tf.Tensor:
        return cut(speed, lattice.whole, box) * rate

    field = _assembled(lattice, sweep, old.field, memories, source, new.field, value, more)
    return Slot(lattice.mirrored(field), memories)


def step_with_rate(
    lattice: Lattice, sweep: Sweep, older: tf.Tensor, old: Slot, new: Slot, speed: tf.Tensor, profiles: Profiles, source: Point, scratch: tf.Tensor
) -> tuple[Slot, tf.Tensor]:
    """The same, and r + s (`lattice.haloed`), which the gradient needs, written into `scratch` first."""
    memories = _remember(lattice, sweep, old, new, profiles)
    rate = _assembled(lattice, sweep, old.field, memories, source, scratch, lambda _, rate: rate, lambda _, rate: rate)
    whole = lattice.whole
    field = _coasting(lattice, older, old.field, whole) + speed * cut(rate, lattice.haloed, whole)
    return Slot(lattice.mirrored(put(new.field, lattice.haloed, field, whole)), memories), rate


def _remember(lattice: Lattice, sweep: Sweep, old: Slot, new: Slot, profiles: Profiles) -> tuple[Memory, ...]:
    layers = zip(lattice.strips, old.memories, new.memories, profiles, strict=True)
    return tuple(sweep.remember(lattice, strip, old.field, before, after, profile) for strip, before, after, profile in layers)


def _coasting(lattice: Lattice, older: tf.Tensor, old: tf.Tensor, box: Box) -> tf.Tensor:
    return 2.0 * cut(old, lattice.haloed, box) - cut(older, lattice.haloed, box)


def _assembled(
    lattice: Lattice, sweep: Sweep, field: tf.Tensor, memories: Sequence[Memory], source: Point, target: tf.Tensor,
    value: Callable[[Box, tf.Tensor], tf.Tensor], more: Callable[[Box, tf.Tensor], tf.Tensor],
) -> tf.Tensor:  # fmt: skip
    """`target` with ``value(box, r)`` written box by box, each cell once; where layers overlap, and at the source, ``more(box, r)`` is added."""
    covers = lattice.haloed
    inner, layers = lattice.parts
    target = put(target, covers, value(inner, lattice.laplacian(field, covers, inner)), inner)
    additions = []
    for strip, memory, (own, overlaps) in zip(lattice.strips, memories, layers, strict=True):
        rate = lattice.laplacian(field, covers, own) + sweep.correction(lattice, strip, memory, own)
        target = put(target, covers, value(own, rate), own)
        additions += [(box, sweep.correction(lattice, strip, memory, box)) for box in overlaps]
    for box, rate in [*additions, (source.box, tf.reshape(source.values, source.box.shape))]:
        target = put(target, covers, cut(target, covers, box) + more(box, rate), box)
    return target
