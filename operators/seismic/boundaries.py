r"""Where a wave leaves the grid: absorbing layers (CPML) on chosen sides, or a pressure-free surface on top.

A convolutional perfectly matched layer (Roden & Gedney, Microwave Opt. Tech. Lett. 27, 2000, 334-339; for the wave equation of
second order Pasalic & McGarry, SEG 2010, 2925-2929) stretches the coordinate x of each side of the grid by
``s = 1 + sigma / (alpha + i w)``. In time every derivative along x gets a memory,

.. math:: \partial_x \to \partial_x + \psi, \qquad \psi^n = b \psi^{n-1} + a (\partial_x u)^n, \qquad
          b = e^{-(\sigma + \alpha) \Delta t}, \quad a = \frac{\sigma}{\sigma + \alpha} (b - 1),

with sigma growing as the square of the depth in the layer, so that a wave that enters at normal incidence and returns from the
outer face has lost all but the stated `reflection` (Collino & Tsogka, Geophysics 66, 2001, eq. 17), and alpha falling
linearly from pi times the frequency to zero (Komatitsch & Martin, Geophysics 72, 2007). Velocity and density of the outermost cells go on
into the layer. A wave that is trapped between light and heavy cells at its edge reaches into it with an evanescent tail only, which the
stretching turns instead of damping it: a layer so narrow that the tail comes back from its outer face may feed that wave, whatever the time
step. With density and velocity drawn at random from cell to cell fields were seen to grow by a factor of e in 300 to 10 000 steps: over 1.5
decades of density in layers of 2 cells, over 2.5 in 4, and over 3.5, in one of twenty draws, in 6 and 8. None did in 12 cells (32 draws), nor with
one density in the outermost cells, nor with rocks. Nothing here needs TensorFlow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from .. import checks
from .boxes import Box

FREE_SURFACE = "free-surface"


@final
@dataclass(frozen=True)
class Absorbing:
    """The layers around a grid: cells that are added to it, outside of the model.

    Args:
        cells: Width of the layer, in cells: one number for every side, or (lower, upper) for each axis, in the grid's order. A side of
            width 0 reflects: the pressure is zero just beyond it. Densities that jump by orders of magnitude at the edge need 12 or more.
        free_surface: The top face of the grid is a pressure-free surface, without a layer.
        frequency: At which the layer works best, Hz; the peak frequency of the source is right. By default that of the wavelet.
        reflection: What the profile is designed for at normal incidence; the discrete layer reflects somewhat more.

    Raises:
        ValueError: A negative width, a layer asked for above a free surface, a reflection not between 0 and 1.
    """

    cells: int | Sequence[Sequence[int]] = 20
    free_surface: bool = False
    frequency: float | None = None
    reflection: float = 1e-4

    def __post_init__(self) -> None:
        widths = np.asarray(self.cells)
        if widths.dtype.kind not in "iu" or widths.size == 0 or widths.min() < 0 or widths.shape not in ((), (2, 2), (3, 2)):
            raise checks.invalid("cells", self.cells, "a number of cells, 0 or more, or (lower, upper) numbers for each axis")
        if self.free_surface and widths.ndim and widths[0, 1]:
            raise checks.invalid("cells", self.cells, "0 at the top, where there is a free surface")
        if not 0 < checks.finite("reflection", self.reflection) < 1:
            raise checks.invalid("reflection", self.reflection, "between 0 and 1")
        if self.frequency is not None:
            checks.positive("frequency", self.frequency)

    def widths(self, ndim: int) -> tuple[tuple[int, int], ...]:
        """(lower, upper) width along each axis, in cells."""
        given = np.asarray(self.cells)
        if given.ndim and len(given) != ndim:
            raise checks.invalid("cells", self.cells, f"(lower, upper) for each of {ndim} axes")
        pairs = [[int(lower), int(upper)] for lower, upper in np.broadcast_to(given, (ndim, 2))]
        if self.free_surface:
            pairs[0][1] = 0
        return tuple((lower, upper) for lower, upper in pairs)


@final
@dataclass(frozen=True)
class Strip:
    """One absorbing layer: where its memories live on the grid with its layers.

    Face f lies between the cells f - 1 and f. Memories are zero outside of `cells` and `faces`, where they are kept with a margin,
    so that stencils may reach over.

    Args:
        shape: Cells of the grid with its layers.
        axis: Across which the layer lies.
        upper: Whether at the upper end of the axis.
        width: Cells of the layer.
        reach: Half width of the stencils.
    """

    shape: tuple[int, ...]
    axis: int
    upper: bool
    width: int
    reach: int

    def _slab(self, start: int, size: int) -> Box:
        """Cells (or faces) from `start` cells inside the outermost one, counted inwards, across the whole grid."""
        first = self.shape[self.axis] - start - size if self.upper else start
        return Box(
            tuple(first if axis == self.axis else 0 for axis in range(len(self.shape))),
            tuple(size if axis == self.axis else n for axis, n in enumerate(self.shape)),
        )

    @property
    def cells(self) -> Box:
        """The cells of the layer."""
        return self._slab(0, self.width)

    @property
    def faces(self) -> Box:
        """Its faces with damping: the outermost one, and those between its cells."""
        return self._slab(0, self.width).moved(self.axis, int(self.upper))

    @property
    def touched_faces(self) -> Box:
        """The faces whose flux feels the layer."""
        return self._slab(0, self.width + self.reach).moved(self.axis, int(self.upper))

    @property
    def memory(self) -> Box:
        """Where both memories are kept, margins included."""
        return self._slab(-self.reach - 1, self.width + 3 * self.reach + 2)

    @property
    def touched(self) -> Box:
        """The cells whose change in time feels the layer."""
        return self._slab(0, self.width + self.reach)

    def profiles(self, spacing: float, dt: float, velocity: float, frequency: float, reflection: float, aside: float = 0.0) -> tuple[np.ndarray, ...]:
        """(a, b) on the cells and (a, b) on the faces, each broadcastable over the layer.

        Args:
            spacing: Across the layer, m.
            dt: Time step, s.
            velocity: The highest one, m/s.
            frequency: At which the layer works best, Hz.
            reflection: At normal incidence.
            aside: How far inside of the faces their first difference stands, in cells.
        """
        inner = self.shape[self.axis] - self.width if self.upper else self.width  # the face where the damping begins
        shape = [1] * len(self.shape)
        shape[self.axis] = -1
        found = []
        for box, offset in ((self.cells, 0.5), (self.faces, -aside if self.upper else aside)):
            at = box.start[self.axis] + offset + np.arange(box.shape[self.axis])
            depth = np.clip((at - inner if self.upper else inner - at) / self.width, 0, 1)
            sigma = -3 * velocity * np.log(reflection) / (2 * self.width * spacing) * depth**2
            alpha = np.pi * frequency * (1 - depth)
            b = np.exp(-(sigma + alpha) * dt)
            a = np.divide(sigma * (b - 1), sigma + alpha, out=np.zeros_like(sigma), where=sigma > 0)
            found += [a.reshape(shape), b.reshape(shape)]
        return tuple(found)
