"""One model of the wave operator on its lattice: between models and data as users have them, and what the programs take."""

import math
from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import tensorflow as tf

from ..forward import Nest
from ..sparse import CSRMatrix
from . import resampling
from .acquisition import Points
from .boxes import Box
from .lattice import Lattice, cut
from .materials import Rock, material, pulled, pushed
from .program import Spots, State, Taps, rest
from .shots import Gradient, Loop, Medium, Shot
from .stepping import Material


class Change(NamedTuple):
    """A change of the model, as the programs take it: of the material, and the shots with changes in place of their wavelets and starts."""

    material: Material
    shots: Sequence[Shot]


@final
class Run:
    """A model, ready to be propagated.

    Args:
        loop: The time loop, on its lattice.
        time_step: Of the loop, s.
        substeps: Steps to a sample of the data.
        points: Sources and receivers.
        profiles: Of the layers.
        rock: Velocity and density on the grid.
        wavelet: [shot, source, time].
        initial: [shot, 2, *grid]: the pressure one step before the start and at it, or None.
    """

    def __init__(
        self, loop: Loop, time_step: float, substeps: int, points: tuple[Points, Points], profiles: Sequence[Sequence[np.ndarray]],
        rock: Rock, wavelet: tf.Tensor, initial: tf.Tensor | None,
    ) -> None:  # fmt: skip
        self._loop, self._time_step, self._substeps, self._points = loop, time_step, substeps, points
        self._rock, self._samples = rock, wavelet.shape[-1]
        dtype = wavelet.dtype
        constants = [[tf.constant(part, dtype) for part in strip] for strip in profiles]
        self.medium = Medium(material(rock, loop.lattice.widths, time_step), constants)
        self.shots = self._all_shots(wavelet, initial)

    def changed(self, tangent: Nest) -> Change:
        """A change of the model."""
        density = None if self._rock.density is None else tangent.get("density", tf.zeros_like(self._rock.density))
        change = pushed(self._rock, Rock(tangent["velocity"], density), self._loop.lattice.widths, self._time_step)
        still = tf.zeros([len(self.shots), self._points[0].columns.shape[1], self._samples], self._rock.velocity.dtype)
        return Change(change, self._all_shots(tangent.get("wavelet", still), tangent.get("initial")))

    def sampled(self, data: tf.Tensor) -> tf.Tensor:
        """[shot, receiver, step] at the samples of the data."""
        if self._substeps == 1:
            return data
        return _along_time(resampling.decimation(self._samples, self._substeps), data)

    def unsampled(self, cotangent: tf.Tensor) -> tf.Tensor:
        """The transpose of `sampled`."""
        if self._substeps == 1:
            return cotangent
        return _along_time(resampling.decimation(self._samples, self._substeps).T.tocsr(), cotangent)

    def collected(self, name: str, gradients: Sequence[Gradient]) -> tf.Tensor:
        """The gradient with respect to one part of the model, from those of the shots, added in their order."""
        lattice = self._loop.lattice
        if name in Rock._fields:
            total = tf.nest.map_structure(lambda *parts: tf.add_n(parts), *(gradient.material for gradient in gradients))
            return getattr(pulled(self._rock, total, lattice.widths, self._time_step), name)
        if name == "wavelet":
            fine = tf.stack([gradient.wavelet for gradient in gradients]) / math.prod(lattice.spacing)
            return fine if self._substeps == 1 else _along_time(resampling.interpolation(self._samples, self._substeps).T.tocsr(), fine)
        return tf.stack([self._of_the_start(gradient.start) for gradient in gradients])

    def inside(self, field: tf.Tensor) -> tf.Tensor:
        """A field of the lattice without its layers."""
        return cut(field, self._loop.lattice.whole, _inner(self._loop.lattice))

    def _of_the_start(self, adjoint: State) -> tf.Tensor:
        """lambda at the start is the gradient with respect to the field there; with respect to the one before it is -lambda one step later."""
        inner = _inner(self._loop.lattice)
        stiffness = self.inside(self.medium.material.stiffness)
        later, first = (cut(field, self._loop.lattice.haloed, inner) / stiffness for field in (adjoint.older, adjoint.old.field))
        return tf.stack([-later, first])

    def _all_shots(self, wavelet: tf.Tensor, initial: tf.Tensor | None) -> list[Shot]:
        fine = wavelet if self._substeps == 1 else _along_time(resampling.interpolation(self._samples, self._substeps), wavelet)
        return [self._shot(number, fine[number], None if initial is None else initial[number]) for number in range(fine.shape[0])]

    def _shot(self, number: int, wavelet: tf.Tensor, initial: tf.Tensor | None) -> Shot:
        sources, receivers = self._points
        lattice, dtype = self._loop.lattice, wavelet.dtype
        start = rest(lattice, self._loop.physics, dtype) if initial is None else self._started(initial)
        density = 1 / math.prod(lattice.spacing)  # of a unit source in one cell: a delta function
        return Shot(spots(sources, number, dtype), spots(receivers, number, dtype), density * wavelet, start)

    def _started(self, initial: tf.Tensor) -> State:
        lattice, blank = self._loop.lattice, rest(self._loop.lattice, self._loop.physics, initial.dtype)
        pads = [[part.start, n - part.stop] for part, n in zip(_inner(lattice).slices(lattice.haloed), lattice.haloed.shape, strict=True)]
        older, old = (lattice.mirrored(tf.pad(part, pads)) for part in tf.unstack(initial))
        return State(older, blank.old._replace(field=old))


def spots(points: Points, shot: int, dtype: tf.DType) -> Spots:
    """One shot's points as the programs take them."""
    rows, values = points.transposed(shot)
    sample = Taps(tf.constant(points.columns[shot]), tf.constant(points.weights[shot], dtype))
    return Spots(sample, Taps(tf.constant(rows), tf.constant(values, dtype)))


def _inner(lattice: Lattice) -> Box:
    """The cells of the grid, without the layers."""
    shape = tuple(n - lower - upper for n, (lower, upper) in zip(lattice.shape, lattice.widths, strict=True))
    return Box(tuple(lower for lower, _ in lattice.widths), shape)


def _along_time(matrix: object, signals: tf.Tensor) -> tf.Tensor:
    """A matrix times every trace of signals [..., time]."""
    product = CSRMatrix.from_scipy(matrix, dtype=signals.dtype).matmat(tf.transpose(tf.reshape(signals, [-1, signals.shape[-1]])))
    return tf.reshape(tf.transpose(product), [*signals.shape[:-1], -1])
