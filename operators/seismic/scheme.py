"""The steps of one physics on one lattice, as graphs that are traced once each, and the fields that gradients are made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import tensorflow as tf

from ..graphs import traced
from .boxes import Box
from .density import Physics
from .lattice import Lattice, cut
from .stepping import Material, Point, Profiles, Slot, State, Sweep, empty, step, step_with_rate


@final
@dataclass(frozen=True)
class Scheme:
    """What is stepped, and where.

    Args:
        lattice: Where.
        physics: What.
    """

    lattice: Lattice
    physics: Physics

    def rest(self, dtype: Any) -> State:
        """A medium at rest."""
        slot = empty(self.lattice, dtype, fluxes=self.physics.fluxes)
        return State(tf.identity(slot.field), slot)

    def ring(self, state: State, slots: int) -> tuple[Slot, ...]:
        """So many slots, the next one to be written first, the two of a state last."""
        blank = [empty(self.lattice, state.older.dtype, fluxes=self.physics.fluxes) for _ in range(slots - 1)]
        return (*blank[1:], blank[0]._replace(field=state.older), state.old)

    def stepper(self, sweep: Sweep, sources: Box) -> Callable[..., Slot]:
        """One step as a graph of its own: traced once, not once for each of the steps in a round."""

        def one(older: tf.Tensor, old: Slot, new: Slot, material: Material, profiles: Profiles, values: tf.Tensor, *scattered: Any) -> Slot:
            return step(self.lattice, sweep, older, old, new, material, profiles, Point(sources, values), *scattered)

        return traced(one)

    def stepper_with_rate(self, sources: Box) -> Callable[..., tuple[Slot, tf.Tensor]]:
        """One forward step that gives its rate too."""

        def one(
            older: tf.Tensor, old: Slot, new: Slot, material: Material, profiles: Profiles, values: tf.Tensor, scratch: tf.Tensor
        ) -> tuple[Slot, tf.Tensor]:
            point = Point(sources, values)
            return step_with_rate(self.lattice, self.physics.forward, older, old, new, material, profiles, point, scratch)

        return traced(one)

    @property
    def slot_size(self) -> int:
        """Numbers in one slot."""
        fluxes = sum(self.lattice.haloed_faces(axis).size for axis in range(len(self.images) - 1))
        return self.lattice.haloed.size + 2 * sum(strip.memory.size for strip in self.lattice.strips) + fluxes

    @property
    def state_size(self) -> int:
        """Numbers in a state."""
        return self.slot_size + self.lattice.haloed.size

    # ---------------------------------------------------------------------------------------------------------- images

    @property
    def images(self) -> tuple[Box, ...]:
        """What of a step the gradient needs: the rate r + s in the cells, and the fluxes on the faces of each axis."""
        axes = range(len(self.lattice.shape)) if self.physics.fluxes else ()
        return (self.lattice.whole, *(self.lattice.faces(axis) for axis in axes))

    def cut(self, field: tf.Tensor, fluxes: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """A field and fluxes without their margins: shaped as `images`."""
        covers = (self.lattice.haloed, *(self.lattice.haloed_faces(axis) for axis in range(len(fluxes))))
        return tuple(cut(part, cover, box) for part, cover, box in zip((field, *fluxes), covers, self.images, strict=True))

    def gradient(self, material: Material, sums: Sequence[tf.Tensor]) -> Material:
        """With respect to the material, from sums over time of products of the images with the adjoint field and its fluxes."""
        stiffness, *fluxes = sums
        if fluxes and self.lattice.free_surface:
            # The flux through a free surface is its own mirror image: the two halves of the sum are one.
            fluxes[0] = tf.concat([fluxes[0][:-1], fluxes[0][-1:] / 2], axis=0)
        return Material(stiffness / material.stiffness, tuple(-part / whole**2 for part, whole in zip(fluxes, material.buoyancy, strict=True)))
