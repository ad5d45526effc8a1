"""The time loops of one shot, each compiled once: forward, adjoint and Born."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import tensorflow as tf

from .boxes import Box
from .density import Physics
from .lattice import Lattice, cut, put, zeros
from .stepping import Material, Point, Profiles, Scattered, Slot, Sweep, empty, step, step_with_rate

#: Slots of the ring: at least the three that a step needs.
RINGS = (3, 4, 5)


class Taps(NamedTuple):
    """A sparse matrix as padded rows: ``(A x)_i = sum_k weights[i, k] x[columns[i, k]]``."""

    columns: tf.Tensor
    weights: tf.Tensor

    def times(self, values: tf.Tensor) -> tf.Tensor:
        """A x for values [column, time]; the times of one column are neighbours, so that each gather reads a vector."""
        return tf.reduce_sum(self.weights[..., tf.newaxis] * tf.gather(values, self.columns), axis=1)


class Spots(NamedTuple):
    """Points between the cells of a box: to the points from the cells, and back (the transpose)."""

    sample: Taps
    inject: Taps


class State(NamedTuple):
    """Two wavefields, one step apart, the later one with its memories."""

    older: tf.Tensor
    old: Slot


@final
@dataclass(frozen=True)
class Program:
    """The loops over the time steps of one shot on one lattice.

    Args:
        lattice: Where.
        physics: What is stepped.
        steps: How many.
        every: Steps between the rates that are kept for the gradient; 0 keeps none. Divides `steps`, rounded up to whole rounds.
        sources, receivers: Boxes that hold the cells of every shot's sources and receivers.
    """

    lattice: Lattice
    physics: Physics
    steps: int
    every: int
    sources: Box
    receivers: Box

    @functools.cached_property
    def ring(self) -> int:
        """Slots of the ring: divides the steps unrolled in a round, so that each round ends with the slots where it began."""
        return next((ring for ring in RINGS if not self.every % ring), 3) if self.every else 3

    @functools.cached_property
    def unrolled(self) -> int:
        """Steps in a round of the loop: a multiple of the ring and of the interval of snapshots."""
        return self.ring * max(self.every, 1) // (self.ring if self.every and not self.every % self.ring else 1)

    @property
    def rounds(self) -> int:
        """Rounds of the loop."""
        return -(-self.steps // self.unrolled)

    @property
    def padded_steps(self) -> int:
        """Steps that are run: whole rounds."""
        return self.rounds * self.unrolled

    def keeps(self, at: int) -> bool:
        """Whether the rate of this step of a round is kept."""
        return bool(self.every) and at % self.every == self.every // 2

    # -------------------------------------------------------------------------------------------------------- loops

    @functools.cached_property
    def forward(self) -> Callable[..., Any]:
        """(material, profiles, state, sources, wavelet, receivers) to (data [receiver, step], state, what was kept)."""
        return tf.function(self._forward, jit_compile=True, autograph=False)

    @functools.cached_property
    def adjoint(self) -> Callable[..., Any]:
        """(material, profiles, state, sources, residual, receivers, what was kept) to (gradient of material, of wavelet, state)."""
        return tf.function(self._adjoint, jit_compile=True, autograph=False)

    @functools.cached_property
    def recorded(self) -> Callable[..., Any]:
        """As `forward`, but what is kept is that of the layers at every step."""
        return tf.function(self._recorded, jit_compile=True, autograph=False)

    @functools.cached_property
    def unwound(self) -> Callable[..., Any]:
        """As `adjoint`, from the wavefield at the end and what `recorded` kept, running the field backwards."""
        return tf.function(self._unwound, jit_compile=True, autograph=False)

    @functools.cached_property
    def born(self) -> Callable[..., Any]:
        """(material, its change, profiles, state, its change, sources, wavelet, its change, receivers) to the change of the data."""
        return tf.function(self._born, jit_compile=True, autograph=False)

    def _forward(self, material: Material, profiles: Profiles, state: State, sources: Spots, wavelet: tf.Tensor, receivers: Spots) -> Any:
        lattice, dtype = self.lattice, wavelet.dtype
        signal = self._by_round(wavelet)
        data = tf.TensorArray(dtype, self.rounds, element_shape=[receivers.sample.columns.shape[0], self.unrolled])
        kept = self.unrolled // self.every if self.every else 0
        images = tuple(tf.TensorArray(dtype, self.rounds * kept, element_shape=box.shape) for box in self.images)
        advance, advance_with_rate = self._step(self.physics.forward, self.sources), self._step_with_rate()

        def body(count: tf.Tensor, ring: Any, scratch: tf.Tensor, data: tf.TensorArray, images: Any) -> Any:
            ring, seen = list(ring), []
            source = sources.inject.times(tf.gather(signal, count))
            for at in range(self.unrolled):
                older, old, new = (ring[(at + back) % self.ring] for back in (-2, -1, 0))
                seen.append(tf.reshape(cut(old.field, lattice.haloed, self.receivers), [-1]))
                if self.keeps(at):
                    new, scratch = advance_with_rate(older.field, old, new, material, profiles, source[:, at], scratch)
                    place = count * kept + at // self.every
                    images = tuple(image.write(place, field) for image, field in zip(images, self._cut(scratch, new.fluxes), strict=True))
                else:
                    new = advance(older.field, old, new, material, profiles, source[:, at])
                ring[at % self.ring] = new
            data = data.write(count, receivers.sample.times(tf.stack(seen, axis=1)))
            return count + 1, tuple(ring), scratch, data, images

        ring, _, data, images = self._loop(body, self._ring(state, dtype), zeros(lattice.haloed, dtype), data, images)
        return self._by_time(data.stack()), State(ring[-2].field, ring[-1]), tuple(image.stack() for image in images) if kept else ()

    def _adjoint(
        self, material: Material, profiles: Profiles, state: State, sources: Spots, residual: tf.Tensor, receivers: Spots, images: Any
    ) -> Any:  # fmt: skip
        lattice, dtype = self.lattice, residual.dtype
        signal = self._by_round(residual)
        felt = tf.TensorArray(dtype, self.rounds, element_shape=[sources.sample.columns.shape[0], self.unrolled])
        kept = self.unrolled // self.every
        retreat = self._step(self.physics.adjoint, self.receivers)

        def body(count: tf.Tensor, ring: Any, sums: Any, felt: tf.TensorArray) -> Any:
            ring, seen, now = list(ring), [], self.rounds - 1 - count
            source = receivers.inject.times(tf.gather(signal, now))
            for back in range(self.unrolled):
                at = self.unrolled - 1 - back
                older, old, new = (ring[(back + shift) % self.ring] for shift in (-2, -1, 0))
                seen.append(tf.reshape(cut(old.field, lattice.haloed, self.sources), [-1]))
                new = retreat(older.field, old, new, material, profiles, source[:, at])
                if self.keeps(at):
                    fields = self._cut(old.field, new.fluxes)
                    place = now * kept + at // self.every
                    sums = tuple(part + field * tf.gather(image, place) for part, field, image in zip(sums, fields, images, strict=True))
                ring[back % self.ring] = new
            felt = felt.write(now, sources.sample.times(tf.stack(seen[::-1], axis=1)))
            return count + 1, tuple(ring), sums, felt

        zero = tuple(zeros(box, dtype) for box in self.images)
        ring, sums, felt = self._loop(body, self._ring(state, dtype), zero, felt)
        return self._gradient(material, sums), self._by_time(felt.stack()), State(ring[-2].field, ring[-1])

    def _recorded(self, material: Material, profiles: Profiles, state: State, sources: Spots, wavelet: tf.Tensor, receivers: Spots) -> Any:
        lattice, dtype = self.lattice, wavelet.dtype
        signal = self._by_round(wavelet)
        data = tf.TensorArray(dtype, self.rounds, element_shape=[receivers.sample.columns.shape[0], self.unrolled])
        layers = tuple(tf.TensorArray(dtype, self.padded_steps, element_shape=box.shape) for _, _, box in self._damped())
        advance = self._step_with_rate()

        def body(count: tf.Tensor, ring: Any, scratch: tf.Tensor, data: tf.TensorArray, layers: Any) -> Any:
            ring, seen = list(ring), []
            source = sources.inject.times(tf.gather(signal, count))
            for at in range(self.unrolled):
                older, old, new = (ring[(at + back) % self.ring] for back in (-2, -1, 0))
                seen.append(tf.reshape(cut(old.field, lattice.haloed, self.receivers), [-1]))
                new, scratch = advance(older.field, old, new, material, profiles, source[:, at], scratch)
                fields, place = (scratch, *new.fluxes), count * self.unrolled + at
                damped = zip(layers, self._damped(), strict=True)
                layers = tuple(kept.write(place, cut(fields[which], covers, box)) for kept, (which, covers, box) in damped)
                ring[at % self.ring] = new
            data = data.write(count, receivers.sample.times(tf.stack(seen, axis=1)))
            return count + 1, tuple(ring), scratch, data, layers

        ring, _, data, layers = self._loop(body, self._ring(state, dtype), zeros(lattice.haloed, dtype), data, layers)
        return self._by_time(data.stack()), State(ring[-2].field, ring[-1]), tuple(kept.stack() for kept in layers)

    def _unwound(
        self, material: Material, profiles: Profiles, state: State, end: State, sources: Spots, wavelet: tf.Tensor, residual: tf.Tensor,
        receivers: Spots, layers: Any,
    ) -> Any:  # fmt: skip
        lattice, dtype = self.lattice, residual.dtype
        signals = self._by_round(residual), self._by_round(wavelet)
        felt = tf.TensorArray(dtype, self.rounds, element_shape=[sources.sample.columns.shape[0], self.unrolled])
        retreat, unwind = self._step(self.physics.adjoint, self.receivers), self._unwinding()

        def body(count: tf.Tensor, ring: Any, fields: Any, scratch: tf.Tensor, sums: Any, felt: tf.TensorArray) -> Any:
            ring, fields, seen, now = list(ring), list(fields), [], self.rounds - 1 - count
            source = receivers.inject.times(tf.gather(signals[0], now))
            forcing = sources.inject.times(tf.gather(signals[1], now))
            for back in range(self.unrolled):
                at = self.unrolled - 1 - back
                later, current, earlier = (fields[(back + shift) % self.ring] for shift in (-2, -1, 0))
                older, old, new = (ring[(back + shift) % self.ring] for shift in (-2, -1, 0))
                kept = [tf.gather(layer, now * self.unrolled + at) for layer in layers]
                earlier, scratch, images = unwind(later.field, current.field, earlier, material, forcing[:, at], scratch, kept)
                seen.append(tf.reshape(cut(old.field, lattice.haloed, self.sources), [-1]))
                new = retreat(older.field, old, new, material, profiles, source[:, at])
                products = zip(sums, self._cut(old.field, new.fluxes), images, strict=True)
                sums = tuple(part + field * image for part, field, image in products)
                ring[back % self.ring], fields[back % self.ring] = new, earlier
            felt = felt.write(now, sources.sample.times(tf.stack(seen[::-1], axis=1)))
            return count + 1, tuple(ring), tuple(fields), scratch, sums, felt

        zero = tuple(zeros(box, dtype) for box in self.images)
        rings = self._ring(state, dtype), self._ring(State(end.old.field, end.old._replace(field=end.older)), dtype)
        ring, _, _, sums, felt = self._loop(body, *rings, zeros(lattice.haloed, dtype), zero, felt)
        return self._gradient(material, sums), self._by_time(felt.stack()), State(ring[-2].field, ring[-1])

    def _unwinding(self) -> Callable[..., Any]:
        """One step backwards: from two fields, and what was kept of the layers, to the one before them; with the images of the step."""
        plain = dataclasses.replace(self.lattice, widths=((0, 0),) * len(self.lattice.shape))
        lattice, sweep, covers = self.lattice, self.physics.forward, self.lattice.haloed

        def one(later: tf.Tensor, now: tf.Tensor, earlier: Slot, material: Material, values: tf.Tensor, scratch: tf.Tensor, kept: Any) -> Any:
            inner, box = lattice.parts[0], self.sources
            fluxes = sweep.prepare(plain, Slot(now, (), earlier.fluxes), Slot(now, (), earlier.fluxes), material, (), None)[1]
            rate = put(scratch, covers, sweep.rate(lattice, now, fluxes, inner), inner)
            rate = put(rate, covers, cut(rate, covers, box) + tf.reshape(values, box.shape), box)
            images = [rate, *fluxes]
            for (which, cover, layer), part in zip(self._damped(), kept, strict=True):
                images[which] = put(images[which], cover, part, layer)
            whole = lattice.whole
            field = 2.0 * cut(now, covers, whole) - cut(later, covers, whole) + material.stiffness * cut(images[0], covers, whole)
            field = lattice.mirrored(put(earlier.field, covers, field, whole))
            return earlier._replace(field=field, fluxes=tuple(fluxes)), images[0], self._cut(images[0], images[1:])

        return tf.function(one, autograph=False)

    def _damped(self) -> list[tuple[int, Box, Box]]:
        """What `_recorded` keeps: number of the image, what it covers, and the box in which a step backwards cannot know it."""
        lattice, found = self.lattice, []
        for strip, (own, _) in zip(lattice.strips, lattice.parts[1], strict=True):
            found.append((0, lattice.haloed, own))
            if self.physics.fluxes:
                found.append((1 + strip.axis, lattice.haloed_faces(strip.axis), strip.faces))
        return found

    def _born(
        self, material: Material, change: Material, profiles: Profiles, state: State, state_change: State,
        sources: Spots, wavelet: tf.Tensor, wavelet_change: tf.Tensor, receivers: Spots,
    ) -> Any:  # fmt: skip
        lattice, dtype = self.lattice, wavelet.dtype
        advance = self._step(self.physics.forward, self.sources)
        signals = tf.stack([self._by_round(wavelet), self._by_round(wavelet_change)], axis=1)
        data = tf.TensorArray(dtype, self.rounds, element_shape=[receivers.sample.columns.shape[0], self.unrolled])
        stiffer = change.stiffness / material.stiffness
        relative = tuple(part / whole for part, whole in zip(change.buoyancy, material.buoyancy, strict=True))

        def body(count: tf.Tensor, ring: Any, changes: Any, data: tf.TensorArray) -> Any:
            ring, changes, seen = list(ring), list(changes), []
            now = tf.gather(signals, count)
            source, source_change = sources.inject.times(now[0]), sources.inject.times(now[1])
            for at in range(self.unrolled):
                older, old, new = (ring[(at + back) % self.ring] for back in (-2, -1, 0))
                older_change, old_change, new_change = (changes[(at + back) % self.ring] for back in (-2, -1, 0))
                seen.append(tf.reshape(cut(old_change.field, lattice.haloed, self.receivers), [-1]))
                new = advance(older.field, old, new, material, profiles, source[:, at])
                # C (r + s) as the second difference in time: three fields that are at hand, instead of a field of rates written and read.
                bent, *fluxes = self._cut(new.field - 2.0 * old.field + older.field, new.fluxes)
                scattered = Scattered(stiffer * bent, tuple(part * flux for part, flux in zip(relative, fluxes, strict=True)))
                ring[at % self.ring] = new
                changes[at % self.ring] = advance(older_change.field, old_change, new_change, material, profiles, source_change[:, at], scattered)
            data = data.write(count, receivers.sample.times(tf.stack(seen, axis=1)))
            return count + 1, tuple(ring), tuple(changes), data

        rings = self._ring(state, dtype), self._ring(state_change, dtype)
        return self._by_time(self._loop(body, *rings, data)[-1].stack())

    # ------------------------------------------------------------------------------------------------------- pieces

    @property
    def images(self) -> tuple[Box, ...]:
        """Where the fields that the gradient needs are kept: the rate in the cells, and the fluxes on the faces of each axis."""
        lattice = self.lattice
        axes = range(len(lattice.shape)) if self.physics.fluxes else ()
        return (lattice.whole, *(lattice.faces(axis) for axis in axes))

    def _cut(self, field: tf.Tensor, fluxes: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        covers = (self.lattice.haloed, *(self.lattice.haloed_faces(axis) for axis in range(len(fluxes))))
        return tuple(cut(part, cover, box) for part, cover, box in zip((field, *fluxes), covers, self.images, strict=True))

    def _gradient(self, material: Material, sums: Sequence[tf.Tensor]) -> Material:
        """With respect to the material, from sums over time of products of the two wavefields."""
        stiffness, *fluxes = (float(self.every) * part for part in sums)
        if fluxes and self.lattice.free_surface:
            # The flux through a free surface is its own mirror image: the two halves of the sum are one.
            fluxes[0] = tf.concat([fluxes[0][:-1], fluxes[0][-1:] / 2], axis=0)
        return Material(stiffness / material.stiffness, tuple(-part / whole**2 for part, whole in zip(fluxes, material.buoyancy, strict=True)))

    def _step(self, sweep: Sweep, sources: Box) -> Callable[..., Slot]:
        """One step as a graph of its own: traced once, not once for each of the steps in a round."""

        def one(older: tf.Tensor, old: Slot, new: Slot, material: Material, profiles: Profiles, values: tf.Tensor, *scattered: Any) -> Slot:
            return step(self.lattice, sweep, older, old, new, material, profiles, Point(sources, values), *scattered)

        return tf.function(one, autograph=False)

    def _step_with_rate(self) -> Callable[..., tuple[Slot, tf.Tensor]]:
        def one(
            older: tf.Tensor, old: Slot, new: Slot, material: Material, profiles: Profiles, values: tf.Tensor, scratch: tf.Tensor
        ) -> tuple[Slot, tf.Tensor]:
            point = Point(self.sources, values)
            return step_with_rate(self.lattice, self.physics.forward, older, old, new, material, profiles, point, scratch)

        return tf.function(one, autograph=False)

    def _loop(self, body: Callable[..., Any], *carried: Any) -> Any:
        return tf.while_loop(lambda count, *_: count < self.rounds, body, (tf.constant(0), *carried), maximum_iterations=self.rounds)[1:]

    def _ring(self, state: State, dtype: Any) -> tuple[Slot, ...]:
        blank = [empty(self.lattice, dtype, fluxes=self.physics.fluxes) for _ in range(self.ring - 1)]
        return (*blank[1:], blank[0]._replace(field=state.older), state.old)

    def _by_round(self, signal: tf.Tensor) -> tf.Tensor:
        """[point, step] as [round, point, step of the round], with zeros at the end."""
        padded = tf.pad(signal, [[0, 0], [0, self.padded_steps - self.steps]])
        return tf.transpose(tf.reshape(padded, [-1, self.rounds, self.unrolled]), [1, 0, 2])

    def _by_time(self, rounds: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.transpose(rounds, [1, 0, 2]), [-1, self.padded_steps])[:, : self.steps]


def rest(lattice: Lattice, physics: Physics, dtype: Any) -> State:
    """A medium at rest."""
    slot = empty(lattice, dtype, fluxes=physics.fluxes)
    return State(tf.identity(slot.field), slot)
