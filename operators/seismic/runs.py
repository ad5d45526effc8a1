"""One model of the wave operator on its lattice: between models and data as users have them, and what the programs take."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import numpy as np
import tensorflow as tf

from ..forward import Nest
from ..sparse import CSRMatrix
from . import resampling
from .acquisition import Placement
from .boxes import Box
from .lattice import Lattice, cut
from .materials import Rock, material, pulled, pushed
from .points import Points
from .program import Spots, Taps
from .scheme import Scheme
from .shots import Gradient, Medium, Shot
from .stepping import Material, State


def _resampler(kind: Callable[..., Any], samples: int, substeps: int, dtype: tf.DType, *, transposed: bool = False) -> CSRMatrix:
    """A matrix of `resampling` or its transpose: asked for by every shot, so laid out once.

    In a graph it is made of the graph's own constants: the gradient of a loop or a branch takes no eager tensor from outside.
    """
    return (_kept if tf.executing_eagerly() else _laid_out)(kind, samples, substeps, dtype, transposed)


def _laid_out(kind: Callable[..., Any], samples: int, substeps: int, dtype: tf.DType, transposed: bool) -> CSRMatrix:
    matrix = kind(samples, substeps)
    return CSRMatrix.from_scipy(matrix.T.tocsr() if transposed else matrix, dtype=dtype)


_kept = functools.lru_cache(16)(_laid_out)


class Change(NamedTuple):
    """A change of the model, as the programs take it: shot to the change of its material, and to a shot with changes of wavelet and start."""

    material: Callable[[int], Material]
    shot: Callable[[int], Shot]


@final
class Run:
    """A model, ready to be propagated. What a shot's window needs is made when the shot runs: many shots hold little.

    Args:
        scheme: What is stepped, and where.
        time_step: s.
        substeps: Steps to a sample of the data.
        placement: Sources, receivers and windows.
        profiles: Of the layers.
        rock: Velocity and density on the grid.
        wavelet: [shot, source, time].
        initial: [shot, 2, *grid]: the pressure one step before the start and at it, or None.
    """

    def __init__(
        self, scheme: Scheme, time_step: float, substeps: int, placement: Placement, profiles: Sequence[Sequence[np.ndarray]],
        rock: Rock, wavelet: tf.Tensor, initial: tf.Tensor | None,
    ) -> None:  # fmt: skip
        self._scheme, self.time_step, self._substeps, self._place = scheme, time_step, substeps, placement
        self._rock, self._samples, self._whole = rock, wavelet.shape[-1], Box((0,) * len(rock.velocity.shape), tuple(rock.velocity.shape))
        self._profiles = [[tf.constant(part, wavelet.dtype) for part in strip] for strip in profiles]
        self._rest = scheme.rest(wavelet.dtype)
        self.wavelet, self.initial, self.numbers = wavelet, initial, placement.numbers
        self._shared = self._made(0) if len(set(placement.windows)) == 1 else None
        self.count, self.shot = len(placement.windows), self._shots(wavelet, initial)

    @property
    def _lattice(self) -> Lattice:
        return self._scheme.lattice

    def medium(self, number: int) -> Medium:
        """What a shot propagates in."""
        return self._shared or self._made(number)

    def _made(self, number: int) -> Medium:
        return Medium(material(self._rock_of(number), self._lattice.widths, self.time_step), self._profiles)

    def _rock_of(self, number: int) -> Rock:
        return _cut_rock(self._rock, self._whole, self._place.windows[number])

    def changed(self, tangent: Nest) -> Change:
        """A change of the model."""
        density = None if self._rock.density is None else tangent.get("density", tf.zeros_like(self._rock.density))
        change, widths = Rock(tangent["velocity"], density), self._lattice.widths

        def changed(number: int) -> Material:
            return pushed(self._rock_of(number), _cut_rock(change, self._whole, self._place.windows[number]), widths, self.time_step)

        still = tf.zeros([self.count, self._place.sources.count, self._samples], self._rock.velocity.dtype)
        return Change(changed, self._shots(tangent.get("wavelet", still), tangent.get("initial")))

    def gathered(self, parts: Sequence[tf.Tensor], count: int) -> tf.Tensor:
        """[shot, receiver, step], with so many receivers, from what was computed of each shot, which is less where its spread is shorter."""
        return tf.stack([tf.pad(part, [[0, count - part.shape[0]], [0, 0]]) for part in parts])

    def computed(self, number: int, data: tf.Tensor) -> tf.Tensor:
        """The part of a shot's data [receiver, step] that is computed."""
        return data[: self._place.receivers(number)[0].count]

    def sampled(self, data: tf.Tensor) -> tf.Tensor:
        """[shot, receiver, step] at the samples of the data: low-passed, or where there is an initial field, whose past is not known, picked."""
        if self._substeps == 1:
            return data
        if self.initial is not None:
            return data[..., : self._samples * self._substeps : self._substeps]
        return _along_time(_resampler(resampling.decimation, self._samples, self._substeps, data.dtype), data)

    def unsampled(self, cotangent: tf.Tensor) -> tf.Tensor:
        """The transpose of `sampled`."""
        if self._substeps == 1:
            return cotangent
        if self.initial is not None:
            spread = tf.reshape(tf.pad(cotangent[..., tf.newaxis], [[0, 0]] * 3 + [[0, self._substeps - 1]]), [*cotangent.shape[:-1], -1])
            return tf.pad(spread, [[0, 0]] * 2 + [[0, resampling.fine_length(self._samples, self._substeps) - spread.shape[-1]]])
        return _along_time(_resampler(resampling.decimation, self._samples, self._substeps, cotangent.dtype, transposed=True), cotangent)

    def collected(self, name: str, gradients: Sequence[Gradient]) -> tf.Tensor:
        """The gradient with respect to one part of the model, from those of the shots, added in their order."""
        if name in Rock._fields:
            return tf.add_n([self._spread(window, getattr(part, name)) for window, part in self.windowed(gradients).items()])
        if name == "wavelet":
            fine = tf.stack([gradient.wavelet for gradient in gradients]) / math.prod(self._lattice.spacing)
            if self._substeps == 1:
                return fine
            return _along_time(_resampler(resampling.interpolation, self._samples, self._substeps, fine.dtype, transposed=True), fine)
        return tf.stack([self._of_the_start(number, gradient.start) for number, gradient in enumerate(gradients)])

    def windowed(self, gradients: Sequence[Gradient]) -> dict[Box, Rock]:
        """The gradient with respect to velocity and density in every window, from those of the shots, added in their order."""
        found: dict[Box, Rock] = {}
        for window, number in {window: number for number, window in enumerate(self._place.windows)}.items():
            own = [gradient.material for gradient, place in zip(gradients, self._place.windows, strict=True) if place == window]
            total = tf.nest.map_structure(lambda *parts: tf.add_n(parts), *own)
            found[window] = pulled(self._rock_of(number), total, self._lattice.widths, self.time_step)
        return found

    def alone(self, number: int, gradient: Gradient) -> Rock:
        """The gradient with respect to velocity and density of one shot, in its window."""
        return pulled(self._rock_of(number), gradient.material, self._lattice.widths, self.time_step)

    def illuminated(self, fields: Sequence[tf.Tensor]) -> tf.Tensor:
        """The sum over shots of the squares of d2p/dt2 / v^2, from those of the rates on their lattices: on the grid, without the layers."""
        found = []
        for window, field in zip(self._place.windows, fields, strict=True):
            density = None if self._rock.density is None else cut(self._rock.density, self._whole, window)
            found.append(self._spread(window, self._inside(field) * (1.0 if density is None else tf.square(density))))
        return tf.add_n(found)

    def _inside(self, field: tf.Tensor) -> tf.Tensor:
        return cut(field, self._lattice.whole, _inner(self._lattice))

    def _spread(self, window: Box, values: tf.Tensor) -> tf.Tensor:
        """Values of a window on the whole grid, zero elsewhere."""
        return tf.pad(values, [[first, n - stop] for first, stop, n in zip(window.start, window.stop, self._whole.shape, strict=True)])

    def _of_the_start(self, number: int, adjoint: State) -> tf.Tensor:
        """lambda at the start is the gradient with respect to the field there; with respect to the one before it is -lambda one step later."""
        inner, window = _inner(self._lattice), self._place.windows[number]
        stiffness = self._inside(self.medium(number).material.stiffness)
        later, first = (cut(field, self._lattice.haloed, inner) / stiffness for field in (adjoint.older, adjoint.old.field))
        return tf.stack([self._spread(window, -later), self._spread(window, first)])

    def _shots(self, wavelet: tf.Tensor, initial: tf.Tensor | None) -> Callable[[int], Shot]:
        """What makes a shot, when it runs."""
        fine = wavelet
        if self._substeps > 1:
            fine = _along_time(_resampler(resampling.interpolation, self._samples, self._substeps, wavelet.dtype), wavelet)

        def shot(number: int) -> Shot:
            start = None if initial is None else self._started(initial[number], self._place.windows[number])
            return self._shot(number, fine[number], start)

        return shot

    def _shot(self, number: int, wavelet: tf.Tensor, start: State | None) -> Shot:
        lattice, dtype = self._lattice, wavelet.dtype
        start = start or self._rest
        density = 1 / math.prod(lattice.spacing)  # of a unit source in one cell: a delta function
        sources, receivers = spots(self._place.sources, number, dtype), spots(*self._place.receivers(number), dtype)
        return Shot(sources, receivers, density * wavelet, start)

    def _started(self, initial: tf.Tensor, window: Box) -> State:
        lattice, blank = self._lattice, self._rest
        pads = [[part.start, n - part.stop] for part, n in zip(_inner(lattice).slices(lattice.haloed), lattice.haloed.shape, strict=True)]
        older, old = (lattice.mirrored(tf.pad(cut(part, self._whole, window), pads)) for part in tf.unstack(initial))
        return State(older, blank.old._replace(field=old))


def _cut_rock(rock: Rock, whole: Box, window: Box) -> Rock:
    return Rock(*(None if part is None else cut(part, whole, window) for part in rock))


def spots(points: Points, shot: int, dtype: tf.DType) -> Spots:
    """One shot's points as the programs take them."""
    sample = [Taps(tf.constant(factor.columns[shot]), tf.constant(factor.weights[shot], dtype)) for factor in points.factors]
    transposed = [factor.transposed(shot) for factor in reversed(points.factors)]
    return Spots(tuple(sample), tuple(Taps(tf.constant(rows), tf.constant(values, dtype)) for rows, values in transposed))


def _inner(lattice: Lattice) -> Box:
    """The cells of the grid, without the layers."""
    shape = tuple(n - lower - upper for n, (lower, upper) in zip(lattice.shape, lattice.widths, strict=True))
    return Box(tuple(lower for lower, _ in lattice.widths), shape)


def _along_time(matrix: CSRMatrix, signals: tf.Tensor) -> tf.Tensor:
    """A matrix times every trace of signals [..., time]."""
    product = matrix.matmat(tf.transpose(tf.reshape(signals, [-1, signals.shape[-1]])))
    return tf.reshape(tf.transpose(product), [*signals.shape[:-1], -1])
