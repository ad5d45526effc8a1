r"""The spatial operator of a step and its transpose, for constant and for variable density.

D is the staggered first difference from faces to cells, and minus its transpose, written G here, that from cells to faces. A layer
keeps a memory on its faces and one in its cells (`boundaries` has the coefficients a and b), updated first. For constant density
the spatial operator is the Laplacian L with central second differences, and D and G are the pair whose product D G is such a second
difference (`Lattice.slope`): the layer is then a stretched Laplacian, which cannot amplify anything,

.. math:: \psi \leftarrow b \psi + a G u, \quad \zeta \leftarrow b \zeta + a (\partial^2 u + D \psi), \quad r = L u + D \psi + \zeta,

and its transpose, for :math:`\mu`,

.. math:: \xi \leftarrow b \xi + a \mu, \quad \eta \leftarrow b \eta - a G (\mu + \xi), \quad r = L \mu + \partial^2 \xi - D \eta.

For a density that varies the fluxes :math:`F = B (G u + \psi)` are written down, B being 1 / density on the faces of each axis,

.. math:: \zeta \leftarrow b \zeta + a D F, \quad r = \sum D F + \zeta,

and in the transpose, with :math:`H = B G (\mu + \xi)`,

.. math:: \eta \leftarrow b \eta + a H, \quad r = \sum D (H + \eta).

The gradient with respect to B is minus the sum over time of :math:`F H / B^2`.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import tensorflow as tf

from .boundaries import Strip
from .boxes import Box
from .lattice import Lattice, cut, put
from .stepping import Material, Memory, Profiles, Scattered, Slot, Sweep

Prepared = tuple[tuple[Memory, ...], tuple[tf.Tensor, ...]]


def _recurred(covers: Box, box: Box, old: tf.Tensor, new: tf.Tensor, a: tf.Tensor, b: tf.Tensor, drive: tf.Tensor) -> tf.Tensor:
    """The recursion of every memory: ``b old + a drive`` in a box, written into `new`."""
    return put(new, covers, b * cut(old, covers, box) + a * drive, box)


@final
@dataclass(frozen=True)
class ConstantForward(Sweep):
    """The Laplacian, with psi on the faces and zeta in the cells of the layers."""

    def prepare(self, lattice: Lattice, old: Slot, new: Slot, material: Material, profiles: Profiles, scattered: Scattered | None) -> Prepared:
        found = []
        for strip, before, after, (a, b, a_faces, b_faces) in zip(lattice.strips, old.memories, new.memories, profiles, strict=True):
            covers, axis = strip.memory, strip.axis
            slope = lattice.slope(old.field, lattice.haloed, strip.faces, strip)
            psi = _recurred(covers, strip.faces, before.faces, after.faces, a_faces, b_faces, slope)
            bend = lattice.second(old.field, lattice.haloed, strip.cells, axis) + lattice.rise(psi, covers, strip.cells, strip)
            found.append(Memory(psi, _recurred(covers, strip.cells, before.cells, after.cells, a, b, bend)))
        return tuple(found), ()

    def rate(self, lattice: Lattice, field: tf.Tensor, fluxes: Sequence[tf.Tensor], box: Box) -> tf.Tensor:
        return lattice.laplacian(field, lattice.haloed, box)

    def correction(self, lattice: Lattice, strip: Strip, memory: Memory, box: Box) -> tf.Tensor:
        return lattice.rise(memory.faces, strip.memory, box, strip) + cut(memory.cells, strip.memory, box)


@final
@dataclass(frozen=True)
class ConstantAdjoint(Sweep):
    """Its transpose, with eta on the faces and xi in the cells."""

    def prepare(self, lattice: Lattice, old: Slot, new: Slot, material: Material, profiles: Profiles, scattered: Scattered | None) -> Prepared:
        found = []
        for strip, before, after, (a, b, a_faces, b_faces) in zip(lattice.strips, old.memories, new.memories, profiles, strict=True):
            covers = strip.memory
            xi = _recurred(covers, strip.cells, before.cells, after.cells, a, b, cut(old.field, lattice.haloed, strip.cells))
            slope = lattice.slope(old.field, lattice.haloed, strip.faces, strip) + lattice.slope(xi, covers, strip.faces, strip)
            found.append(Memory(_recurred(covers, strip.faces, before.faces, after.faces, -a_faces, b_faces, slope), xi))
        return tuple(found), ()

    def rate(self, lattice: Lattice, field: tf.Tensor, fluxes: Sequence[tf.Tensor], box: Box) -> tf.Tensor:
        return lattice.laplacian(field, lattice.haloed, box)

    def correction(self, lattice: Lattice, strip: Strip, memory: Memory, box: Box) -> tf.Tensor:
        return lattice.second(memory.cells, strip.memory, box, strip.axis) - lattice.rise(memory.faces, strip.memory, box, strip)


@final
@dataclass(frozen=True)
class VariableForward(Sweep):
    """Fluxes through the faces and their divergence, with psi on the faces and zeta in the cells of the layers."""

    def prepare(self, lattice: Lattice, old: Slot, new: Slot, material: Material, profiles: Profiles, scattered: Scattered | None) -> Prepared:
        psis = []
        for strip, before, after, (_, _, a, b) in zip(lattice.strips, old.memories, new.memories, profiles, strict=True):
            slope = lattice.to_faces(old.field, lattice.haloed, strip.faces, strip.axis)
            psis.append(_recurred(strip.memory, strip.faces, before.faces, after.faces, a, b, slope))

        def more(number: int, strip: Strip, box: Box) -> tf.Tensor:
            return cut(psis[number], strip.memory, box)

        fluxes = tuple(_flux(lattice, axis, old.field, new.fluxes[axis], material, more, scattered) for axis in range(len(lattice.shape)))
        found = []
        for strip, psi, before, after, (a, b, _, _) in zip(lattice.strips, psis, old.memories, new.memories, profiles, strict=True):
            flow = lattice.to_cells(fluxes[strip.axis], lattice.haloed_faces(strip.axis), strip.cells, strip.axis)
            found.append(Memory(psi, _recurred(strip.memory, strip.cells, before.cells, after.cells, a, b, flow)))
        return tuple(found), fluxes

    def rate(self, lattice: Lattice, field: tf.Tensor, fluxes: Sequence[tf.Tensor], box: Box) -> tf.Tensor:
        return lattice.divergence(fluxes, box)

    def correction(self, lattice: Lattice, strip: Strip, memory: Memory, box: Box) -> tf.Tensor:
        return cut(memory.cells, strip.memory, box)


@final
@dataclass(frozen=True)
class VariableAdjoint(Sweep):
    """Its transpose, with eta on the faces and xi in the cells."""

    def prepare(self, lattice: Lattice, old: Slot, new: Slot, material: Material, profiles: Profiles, scattered: Scattered | None) -> Prepared:
        xis = []
        for strip, before, after, (a, b, _, _) in zip(lattice.strips, old.memories, new.memories, profiles, strict=True):
            xis.append(_recurred(strip.memory, strip.cells, before.cells, after.cells, a, b, cut(old.field, lattice.haloed, strip.cells)))

        def more(number: int, strip: Strip, box: Box) -> tf.Tensor:
            return lattice.to_faces(xis[number], strip.memory, box, strip.axis)

        fluxes = tuple(_flux(lattice, axis, old.field, new.fluxes[axis], material, more, None) for axis in range(len(lattice.shape)))
        found = []
        for strip, xi, before, after, (_, _, a, b) in zip(lattice.strips, xis, old.memories, new.memories, profiles, strict=True):
            flow = cut(fluxes[strip.axis], lattice.haloed_faces(strip.axis), strip.faces)
            found.append(Memory(_recurred(strip.memory, strip.faces, before.faces, after.faces, a, b, flow), xi))
        return tuple(found), fluxes

    def rate(self, lattice: Lattice, field: tf.Tensor, fluxes: Sequence[tf.Tensor], box: Box) -> tf.Tensor:
        return lattice.divergence(fluxes, box)

    def correction(self, lattice: Lattice, strip: Strip, memory: Memory, box: Box) -> tf.Tensor:
        return lattice.to_cells(memory.faces, strip.memory, box, strip.axis)


def _flux(
    lattice: Lattice, axis: int, field: tf.Tensor, target: tf.Tensor, material: Material, more: Callable[[int, Strip, Box], tf.Tensor],
    scattered: Scattered | None,
) -> tf.Tensor:  # fmt: skip
    """B (G field + what the layers across the axis add) + what is scattered, written into `target`."""
    covers, faces = lattice.haloed_faces(axis), lattice.faces(axis)
    layers = {strip.touched_faces: number for number, strip in enumerate(lattice.strips) if strip.axis == axis}
    inner = functools.reduce(lambda box, layer: box.without(layer, axis), layers, faces)
    for box in (inner, *layers):
        slope = lattice.to_faces(field, lattice.haloed, box, axis)
        if box in layers:
            slope += more(layers[box], lattice.strips[layers[box]], box)
        flux = cut(material.buoyancy[axis], faces, box) * slope
        if scattered is not None:
            flux += cut(scattered.fluxes[axis], faces, box)
        target = put(target, covers, flux, box)
    return lattice.mirrored_flux(target) if axis == 0 else target


@final
@dataclass(frozen=True)
class Physics:
    """A sweep and its transpose."""

    forward: Sweep
    adjoint: Sweep
    fluxes: bool


CONSTANT = Physics(ConstantForward(), ConstantAdjoint(), fluxes=False)
VARIABLE = Physics(VariableForward(), VariableAdjoint(), fluxes=True)
