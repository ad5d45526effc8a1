"""The cells on which a wavefield is stepped: the grid with its absorbing layers and a halo, and the stencils over boxes of them.

Fields cover `Lattice.haloed`: the cells and, around them, a halo of zeros that stencils may reach into (its rows above a free
surface hold the mirror image). Every function computes a box of cells, or of faces, as one expression that XLA turns into one
loop; `put` writes it in place. Face f along an axis lies between the cells f - 1 and f.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import tensorflow as tf

from .. import stencils
from .boundaries import Strip
from .boxes import Box, partition

Parts = tuple[Box, tuple[tuple[Box, tuple[Box, ...]], ...]]


@final
@dataclass(frozen=True)
class Lattice:
    """Cells, layers and stencils; hashable, for programs are compiled for one lattice.

    Args:
        shape: Cells along each axis, layers included.
        spacing: Along each axis, m.
        order: Order of accuracy in space: 2, 4, 6 or 8.
        widths: (lower, upper) width of the absorbing layers along each axis, in cells.
        free_surface: Whether the top face is free of pressure.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    order: int
    widths: tuple[tuple[int, int], ...]
    free_surface: bool

    @property
    def reach(self) -> int:
        """Half width of the stencils, in cells."""
        return self.order // 2

    @property
    def whole(self) -> Box:
        """All cells."""
        return Box((0,) * len(self.shape), self.shape)

    @property
    def haloed(self) -> Box:
        """What a field covers."""
        return self.whole.grown(self.reach)

    def faces(self, axis: int) -> Box:
        """All faces across an axis, the outer ones included."""
        return Box(self.whole.start, tuple(n + (each == axis) for each, n in enumerate(self.shape)))

    def haloed_faces(self, axis: int) -> Box:
        """What a flux along an axis covers."""
        return self.faces(axis).grown(self.reach)

    @functools.cached_property
    def strips(self) -> tuple[Strip, ...]:
        """The absorbing layers, axis by axis."""
        return tuple(
            Strip(self.shape, axis, upper, width, self.reach)
            for axis, pair in enumerate(self.widths)
            for upper, width in zip((False, True), pair, strict=True)
            if width
        )

    @property
    def parts(self) -> Parts:
        """The cells, cut as `boxes.partition` does: an interior, and what each layer touches."""
        return partition(self.whole, tuple((strip.axis, strip.touched) for strip in self.strips))

    def second(self, field: tf.Tensor, covers: Box, box: Box, axis: int) -> tf.Tensor:
        """Second derivative along an axis in a box of cells, 1/m2 times the field."""
        return sum(weight * cut(field, covers, box.moved(axis, shift)) for shift, weight in _central(self.order, self.spacing[axis]))

    def laplacian(self, field: tf.Tensor, covers: Box, box: Box) -> tf.Tensor:
        """Sum of the second derivatives in a box of cells."""
        taps = [(axis, shift, weight) for axis, spacing in enumerate(self.spacing) for shift, weight in _central(self.order, spacing)]
        total = sum(weight for _, shift, weight in taps if not shift) * cut(field, covers, box)
        for axis, shift, weight in taps:
            if shift:
                total += weight * cut(field, covers, box.moved(axis, shift))
        return total

    def to_faces(self, field: tf.Tensor, covers: Box, box: Box, axis: int) -> tf.Tensor:
        """First derivative along an axis on a box of faces, from values at the cells."""
        return sum(weight * cut(field, covers, box.moved(axis, shift)) for shift, weight in _staggered(self.order, self.spacing[axis], -self.reach))

    def to_cells(self, flux: tf.Tensor, covers: Box, box: Box, axis: int) -> tf.Tensor:
        """First derivative along an axis in a box of cells, from values on the faces; minus the transpose of `to_faces`."""
        return sum(weight * cut(flux, covers, box.moved(axis, shift)) for shift, weight in _staggered(self.order, self.spacing[axis], 1 - self.reach))

    def slope(self, field: tf.Tensor, covers: Box, box: Box, strip: Strip) -> tf.Tensor:
        """First derivative across a layer on a box of faces, from values at the cells, with `stencils.root`.

        Minus its transpose times it is `second`, exactly. With any other first difference the layer would amplify the longest waves.
        """
        return sum(weight * cut(field, covers, box.moved(strip.axis, shift)) for shift, weight in self._root(strip))

    def rise(self, flux: tf.Tensor, covers: Box, box: Box, strip: Strip) -> tf.Tensor:
        """First derivative across a layer in a box of cells, from values on the faces: minus the transpose of `slope`."""
        return sum(-weight * cut(flux, covers, box.moved(strip.axis, -shift)) for shift, weight in self._root(strip))

    def _root(self, strip: Strip) -> list[tuple[int, float]]:
        """(cell counted from the face, weight): those of an upper layer are the mirror image of those of a lower one."""
        weights = stencils.root(self.order) / self.spacing[strip.axis]
        return [(-node, -float(weight)) if strip.upper else (node - 1, float(weight)) for node, weight in enumerate(weights)]

    def divergence(self, fluxes: Sequence[tf.Tensor], box: Box) -> tf.Tensor:
        """Sum over the axes of `to_cells` in a box of cells."""
        return sum(self.to_cells(flux, self.haloed_faces(axis), box, axis) for axis, flux in enumerate(fluxes))

    def mirrored_flux(self, flux: tf.Tensor) -> tf.Tensor:
        """The upward flux with its halo above a free surface: the mirror image of the flux below, with the same sign."""
        if not self.free_surface or self.reach == 1:
            return flux
        covers, top = self.haloed_faces(0), self.shape[0]
        rows = Box((top - self.reach + 1, *covers.start[1:]), (self.reach - 1, *covers.shape[1:]))
        return put(flux, covers, tf.reverse(cut(flux, covers, rows), [0]), rows.moved(0, self.reach))

    def mirrored(self, field: tf.Tensor) -> tf.Tensor:
        """The field with its halo above a free surface: the mirror image of the cells below, with the opposite sign."""
        if not self.free_surface:
            return field
        top = self.shape[0]
        rows = Box((top - self.reach, *self.haloed.start[1:]), (self.reach, *self.haloed.shape[1:]))
        return put(field, self.haloed, -tf.reverse(cut(field, self.haloed, rows), [0]), rows.moved(0, self.reach))


def cut(field: tf.Tensor, covers: Box, box: Box) -> tf.Tensor:
    """The values in a box of a field that covers another one; an axis of length 1 is left for broadcasting."""
    begin = [0 if n == 1 else first - origin for n, first, origin in zip(field.shape, box.start, covers.start, strict=True)]
    size = [1 if n == 1 else count for n, count in zip(field.shape, box.shape, strict=True)]
    return tf.slice(field, begin, size)


def put(field: tf.Tensor, covers: Box, values: tf.Tensor, box: Box) -> tf.Tensor:
    """A field with new values in a box, written in place under XLA where nothing else needs the old ones.

    XLA compiles an expression that ends here to one loop that writes the box and nothing else. Where `values` do not read `field`
    the loop is vectorised, twice to three times as fast; where the box is the whole field the update is no longer one in place, and
    XLA would compute `values` again in whatever uses them: keep a margin.
    """
    slices = box.slices(covers)
    return tf.raw_ops.TensorStridedSliceUpdate(
        input=field, begin=[part.start for part in slices], end=[part.stop for part in slices], strides=[1] * len(slices), value=values
    )


@functools.cache
def _central(order: int, spacing: float) -> tuple[tuple[int, float], ...]:
    weights = stencils.central(2, order) / spacing**2
    return tuple((shift - order // 2, float(weight)) for shift, weight in enumerate(weights))


@functools.cache
def _staggered(order: int, spacing: float, first: int) -> tuple[tuple[int, float], ...]:
    return tuple((first + shift, float(weight)) for shift, weight in enumerate(stencils.staggered(1, order) / spacing))


def zeros(box: Box, dtype: Any) -> tf.Tensor:
    """A field of zeros over a box."""
    return tf.zeros(box.shape, dtype)
