r"""One time step of the acoustic wave equation, forward and adjoint.

With a stiffness C (of constant density: (velocity dt)^2), the spatial operator L and the source s, a step is

.. math:: u^{n+1} = 2 u^n - u^{n-1} + C (r^n + s^n), \qquad r = L u + \text{what the absorbing layers add}.

`density` has L, the layers' memories and their transposes: run backwards with :math:`\mu = C \lambda` for the adjoint field lambda, the
transpose of the step has the same form, so that one code runs both, and the gradient with respect to C is the sum of
:math:`\mu^{n+1} (r^n + s^n) / C`.

A state keeps its fields in a ring of slots. Each step writes a slot that nothing reads any more: the loop copies nothing, and as no
expression reads what it writes XLA vectorises it. One shot is one program on one core; shots run side by side (`parallel.each`). That
is faster than XLA's own threads, which never split a loop that writes in place, and one shot's fields stay in the cache.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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
    """A wavefield at one time, with the memories of the layers, and the fluxes that changed it last, where density varies."""

    field: tf.Tensor
    memories: tuple[Memory, ...]
    fluxes: tuple[tf.Tensor, ...] = ()


class State(NamedTuple):
    """Two wavefields, one step apart, the later one with its memories."""

    older: tf.Tensor
    old: Slot


class Material(NamedTuple):
    """What a wave propagates in.

    Args:
        stiffness: C of every cell: (velocity dt)^2, m2; times the density where that varies.
        buoyancy: 1 / density on the faces of each axis; none where density is constant.
    """

    stiffness: tf.Tensor
    buoyancy: tuple[tf.Tensor, ...] = ()


class Point(NamedTuple):
    """What is added to the equation in a box: values [cells of the box]."""

    box: Box
    values: tf.Tensor


class Scattered(NamedTuple):
    """What a change of the material adds to a step (Born): to the field in every cell, and to the fluxes on the faces of each axis."""

    field: tf.Tensor
    fluxes: tuple[tf.Tensor, ...] = ()


class Sweep(abc.ABC):
    """The spatial part of a step, or of its transpose."""

    @abc.abstractmethod
    def prepare(
        self, lattice: Lattice, old: Slot, new: Slot, material: Material, profiles: Profiles, scattered: Scattered | None
    ) -> tuple[tuple[Memory, ...], tuple[tf.Tensor, ...]]:
        """The memories after this step, and the fluxes, written into those of `new`."""

    @abc.abstractmethod
    def rate(self, lattice: Lattice, field: tf.Tensor, fluxes: Sequence[tf.Tensor], box: Box) -> tf.Tensor:
        """L u in a box of cells."""

    @abc.abstractmethod
    def correction(self, lattice: Lattice, strip: Strip, memory: Memory, box: Box) -> tf.Tensor:
        """What a layer adds to it in a box of the cells that it touches."""


def empty(lattice: Lattice, dtype: Any, *, fluxes: bool) -> Slot:
    """A slot of zeros."""
    memories = tuple(Memory(zeros(strip.memory, dtype), zeros(strip.memory, dtype)) for strip in lattice.strips)
    axes = range(len(lattice.shape)) if fluxes else ()
    return Slot(zeros(lattice.haloed, dtype), memories, tuple(zeros(lattice.haloed_faces(axis), dtype) for axis in axes))


def step(
    lattice: Lattice, sweep: Sweep, older: tf.Tensor, old: Slot, new: Slot, material: Material, profiles: Profiles, source: Point,
    scattered: Scattered | None = None,
) -> Slot:  # fmt: skip
    """The next wavefield, written into the slot `new`.

    Args:
        lattice, sweep: Where and what.
        older, old: The field one step before, and the state now.
        material, profiles: Of the cells, and of the layers.
        source: s, in a box.
        scattered: What a change of the material adds.
    """
    memories, fluxes = sweep.prepare(lattice, old, new, material, profiles, scattered)

    def value(box: Box, rate: tf.Tensor) -> tf.Tensor:
        moved = _coasting(lattice, older, old.field, box) + cut(material.stiffness, lattice.whole, box) * rate
        return moved if scattered is None else moved + cut(scattered.field, lattice.whole, box)

    def more(box: Box, rate: tf.Tensor) -> tf.Tensor:
        return cut(material.stiffness, lattice.whole, box) * rate

    field = _assembled(lattice, sweep, Slot(old.field, memories, fluxes), source, new.field, value, more)
    return Slot(lattice.mirrored(field), memories, fluxes)


def step_with_rate(
    lattice: Lattice, sweep: Sweep, older: tf.Tensor, old: Slot, new: Slot, material: Material, profiles: Profiles, source: Point, scratch: tf.Tensor
) -> tuple[Slot, tf.Tensor]:
    """The same, and r + s (`lattice.haloed`), which the gradient needs, written into `scratch` first."""
    memories, fluxes = sweep.prepare(lattice, old, new, material, profiles, None)
    rate = _assembled(lattice, sweep, Slot(old.field, memories, fluxes), source, scratch, lambda _, rate: rate, lambda _, rate: rate)
    whole = lattice.whole
    field = _coasting(lattice, older, old.field, whole) + material.stiffness * cut(rate, lattice.haloed, whole)
    return Slot(lattice.mirrored(put(new.field, lattice.haloed, field, whole)), memories, fluxes), rate


def _coasting(lattice: Lattice, older: tf.Tensor, old: tf.Tensor, box: Box) -> tf.Tensor:
    return 2.0 * cut(old, lattice.haloed, box) - cut(older, lattice.haloed, box)


def _assembled(
    lattice: Lattice, sweep: Sweep, state: Slot, source: Point, target: tf.Tensor,
    value: Callable[[Box, tf.Tensor], tf.Tensor], more: Callable[[Box, tf.Tensor], tf.Tensor],
) -> tf.Tensor:  # fmt: skip
    """`target` with ``value(box, r)`` written box by box, each cell once; where layers overlap, and at the source, ``more(box, r)`` is added."""
    covers = lattice.haloed
    inner, layers = lattice.parts
    target = put(target, covers, value(inner, sweep.rate(lattice, state.field, state.fluxes, inner)), inner)
    additions = []
    for strip, memory, (own, overlaps) in zip(lattice.strips, state.memories, layers, strict=True):
        rate = sweep.rate(lattice, state.field, state.fluxes, own) + sweep.correction(lattice, strip, memory, own)
        target = put(target, covers, value(own, rate), own)
        additions += [(box, sweep.correction(lattice, strip, memory, box)) for box in overlaps]
    for box, rate in [*additions, (source.box, tf.reshape(source.values, source.box.shape))]:
        target = put(target, covers, cut(target, covers, box) + more(box, rate), box)
    return target
