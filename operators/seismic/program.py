"""The time loops of one shot, each compiled once: forward, adjoint and Born."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import tensorflow as tf

from ..graphs import compiled
from .boxes import Box
from .keeping import Images, Keeping
from .lattice import cut, zeros
from .scheme import Scheme
from .stepping import Material, Profiles, Scattered, Slot, State

#: How many times more rows than points may be left of a box by what the loops apply.
FEW = 4
#: Slots of the ring: at least the three that a step needs.
RINGS = (3, 4, 5)

Ring = tuple[Slot, ...]
#: (what is carried on, count of the round, step in it, source in the cells) to (images of that step, what is carried on)
Follow = Callable[[Any, tf.Tensor, int, tf.Tensor], tuple[Images, Any]]


class Taps(NamedTuple):
    """A sparse matrix as padded rows: ``(A x)_i = sum_k weights[i, k] x[columns[i, k]]``."""

    columns: tf.Tensor
    weights: tf.Tensor

    def times(self, values: tf.Tensor) -> tf.Tensor:
        """A x for values [column, time]; the times of one column are neighbours, so that each gather reads a vector."""
        return tf.reduce_sum(self.weights[..., tf.newaxis] * tf.gather(values, self.columns), axis=1)


class Spots(NamedTuple):
    """Points between the cells of a box: matrices whose product samples at the points, and those of its transpose; the first is applied first.

    The loops apply those that leave little of the box, such as the line of cells that a spread of receivers is on. What is left, from
    there to the points, is applied to the whole record at once: vectorised over time it takes a tenth of the time or less.
    """

    sample: tuple[Taps, ...]
    inject: tuple[Taps, ...]

    @property
    def _within(self) -> int:
        """How many of the first sampling matrices are applied in the loops."""
        few = FEW * self.sample[-1].columns.shape[0]
        return next(count for count, taps in enumerate(self.sample, start=1) if taps.columns.shape[0] <= few)

    @property
    def rows(self) -> int:
        """Of what the loops record and inject."""
        return int(self.sample[self._within - 1].columns.shape[0])

    def picked(self, values: tf.Tensor) -> tf.Tensor:
        """[row, time] from [cell, time]."""
        return _applied(self.sample[: self._within], values)

    def interpolated(self, record: tf.Tensor) -> tf.Tensor:
        """[point, time] from [row, time]."""
        return _applied(self.sample[self._within :], record)

    def spread(self, signal: tf.Tensor) -> tf.Tensor:
        """[row, time] from [point, time]: the transpose of `interpolated`."""
        return _applied(self.inject[: len(self.sample) - self._within], signal)

    def injected(self, values: tf.Tensor) -> tf.Tensor:
        """[cell, time] from [row, time]: the transpose of `picked`."""
        return _applied(self.inject[len(self.sample) - self._within :], values)


def _applied(matrices: Sequence[Taps], values: tf.Tensor) -> tf.Tensor:
    return functools.reduce(lambda found, taps: taps.times(found), matrices, values)


@final
@dataclass(frozen=True)
class Program:
    """The loops over the time steps of one shot.

    Args:
        scheme: What is stepped, and where.
        steps: How many; the loops run whole rounds.
        keeping: What a forward run keeps.
        sources, receivers: Boxes that hold the cells of every shot's sources and receivers.
    """

    scheme: Scheme
    steps: int
    keeping: Keeping
    sources: Box
    receivers: Box

    @functools.cached_property
    def ring(self) -> int:
        """Slots of the ring: divides the steps unrolled in a round, so that each round ends with the slots where it began."""
        every = self.keeping.every
        return next((ring for ring in RINGS if not every % ring), 3) if every else 3

    @functools.cached_property
    def unrolled(self) -> int:
        """Steps in a round of the loop: a multiple of the ring and of the interval of snapshots."""
        every = self.keeping.every
        return self.ring * max(every, 1) // (self.ring if every and not every % self.ring else 1)

    @property
    def rounds(self) -> int:
        """Rounds of the loop."""
        return -(-self.steps // self.unrolled)

    @property
    def padded_steps(self) -> int:
        """Steps that are run: whole rounds."""
        return self.rounds * self.unrolled

    @property
    def kept_size(self) -> int:
        """Numbers that a forward run keeps, the wavefield at its end not counted."""
        every = self.keeping.every
        return self.padded_steps // every * sum(box.size for box in self.keeping.boxes(self.scheme)) if every else 0

    # -------------------------------------------------------------------------------------------------------- loops

    @functools.cached_property
    def forward(self) -> Callable[..., Any]:
        """(material, profiles, state, sources, wavelet, receivers) to (data [receiver, step], state, what was kept)."""
        return compiled(self._forward)

    @functools.cached_property
    def adjoint(self) -> Callable[..., Any]:
        """(material, profiles, state, sources, wavelet, residual, receivers, what was kept) to (gradient of material, of wavelet, state)."""
        return compiled(self._adjoint)

    @functools.cached_property
    def born(self) -> Callable[..., Any]:
        """(material, its change, profiles, state, its change, sources, wavelet, its change, receivers, what was kept) to the change of the data.

        Where the images of all steps were kept they are not computed again: this takes as long as one run then, and as two without them.
        """
        return compiled(self._born)

    def _forward(self, material: Material, profiles: Profiles, state: State, sources: Spots, wavelet: tf.Tensor, receivers: Spots) -> Any:
        scheme, dtype = self.scheme, wavelet.dtype
        signal = self._by_round(sources.spread(wavelet))
        advance, advance_with_rate = scheme.stepper(scheme.physics.forward, self.sources), scheme.stepper_with_rate(self.sources)

        def body(count: tf.Tensor, ring: Ring, scratch: tf.Tensor, data: tf.TensorArray, arrays: Any) -> Any:
            source, seen = sources.injected(tf.gather(signal, count)), []
            for at in range(self.unrolled):
                target, older, old = ring[0], ring[-2], ring[-1]
                seen.append(self._seen(old.field, self.receivers))
                if self.keeping.keeps(at):
                    new, scratch = advance_with_rate(older.field, old, target, material, profiles, source[:, at], scratch)
                    arrays = self.keeping.store(scheme, arrays, self._place(count, at), scratch, new.fluxes)
                else:
                    new = advance(older.field, old, target, material, profiles, source[:, at])
                ring = (*ring[1:], new)
            return count + 1, ring, scratch, data.write(count, receivers.picked(tf.stack(seen, axis=1))), arrays

        arrays = self.keeping.arrays(scheme, self.padded_steps, dtype)
        scratch, ring = zeros(scheme.lattice.haloed, dtype), scheme.ring(state, self.ring)
        ring, _, data, arrays = self._loop(body, ring, scratch, self._traces(receivers, dtype), arrays)
        end = _state(ring)
        return receivers.interpolated(self._by_time(data.stack())), end, self.keeping.kept(arrays, end)

    def _adjoint(
        self, material: Material, profiles: Profiles, state: State, sources: Spots, wavelet: tf.Tensor, residual: tf.Tensor, receivers: Spots,
        kept: Any,
    ) -> Any:  # fmt: skip
        scheme, dtype = self.scheme, residual.dtype
        forces, signal = self._by_round(sources.spread(wavelet)), self._by_round(receivers.spread(residual))
        retreat, recall = scheme.stepper(scheme.physics.adjoint, self.receivers), self.keeping.recall(scheme, self.sources)

        def body(count: tf.Tensor, ring: Ring, carried: Any, sums: Images, felt: tf.TensorArray) -> Any:
            now, seen = self.rounds - 1 - count, []
            source, force = receivers.injected(tf.gather(signal, now)), sources.injected(tf.gather(forces, now))
            for at in reversed(range(self.unrolled)):
                target, older, old = ring[0], ring[-2], ring[-1]
                seen.append(self._seen(old.field, self.sources))
                new = retreat(older.field, old, target, material, profiles, source[:, at])
                if self.keeping.keeps(at):
                    images, carried = recall(carried, kept, self._place(now, at), material, force[:, at])
                    products = zip(sums, scheme.cut(old.field, new.fluxes), images, strict=True)
                    sums = tuple(part + field * image for part, field, image in products)
                ring = (*ring[1:], new)
            return count + 1, ring, carried, sums, felt.write(now, sources.picked(tf.stack(seen[::-1], axis=1)))

        zero, carried = tuple(zeros(box, dtype) for box in scheme.images), self.keeping.begin(scheme, kept, self.ring)
        ring, _, sums, felt = self._loop(body, scheme.ring(state, self.ring), carried, zero, self._traces(sources, dtype))
        sums = [float(self.keeping.every) * part for part in sums]
        return scheme.gradient(material, sums), sources.interpolated(self._by_time(felt.stack())), _state(ring)

    def _born(
        self, material: Material, change: Material, profiles: Profiles, state: State, state_change: State,
        sources: Spots, wavelet: tf.Tensor, wavelet_change: tf.Tensor, receivers: Spots, kept: Any,
    ) -> Any:  # fmt: skip
        scheme = self.scheme
        forces, signal = (self._by_round(sources.spread(part)) for part in (wavelet, wavelet_change))
        advance = scheme.stepper(scheme.physics.forward, self.sources)
        carried, follow, stiffer = (
            self._recalled(material, change, kept) if self.keeping.every else self._alongside(material, change, profiles, state)
        )
        relative = tuple(part / whole for part, whole in zip(change.buoyancy, material.buoyancy, strict=True))

        def body(count: tf.Tensor, ring: Ring, carried: Any, data: tf.TensorArray) -> Any:
            source, force = (sources.injected(tf.gather(part, count)) for part in (signal, forces))
            seen = []
            for at in range(self.unrolled):
                target, older, old = ring[0], ring[-2], ring[-1]
                seen.append(self._seen(old.field, self.receivers))
                (bent, *fluxes), carried = follow(carried, count, at, force[:, at])
                scattered = Scattered(stiffer * bent, tuple(part * flux for part, flux in zip(relative, fluxes, strict=True)))
                ring = (*ring[1:], advance(older.field, old, target, material, profiles, source[:, at], scattered))
            return count + 1, ring, carried, data.write(count, receivers.picked(tf.stack(seen, axis=1)))

        ring = scheme.ring(state_change, self.ring)
        return receivers.interpolated(self._by_time(self._loop(body, ring, carried, self._traces(receivers, wavelet.dtype))[-1].stack()))

    def _recalled(self, material: Material, change: Material, kept: Any) -> tuple[Any, Follow, tf.Tensor]:
        """The images of every step as they were kept, and what the first of them is to be multiplied by."""
        recall = self.keeping.recall(self.scheme, self.sources)
        return (), lambda carried, count, at, force: recall(carried, kept, self._place(count, at), material, force), change.stiffness

    def _alongside(self, material: Material, change: Material, profiles: Profiles, state: State) -> tuple[Any, Follow, tf.Tensor]:
        """The images of every step of a field that is stepped alongside, and what the first of them is to be multiplied by."""
        scheme = self.scheme
        advance = scheme.stepper(scheme.physics.forward, self.sources)

        def follow(ring: Ring, count: tf.Tensor, at: int, force: tf.Tensor) -> tuple[Images, Ring]:
            target, older, old = ring[0], ring[-2], ring[-1]
            new = advance(older.field, old, target, material, profiles, force)
            # C (r + s) as the second difference in time: three fields that are at hand, instead of a field of rates written and read.
            return scheme.cut(new.field - 2.0 * old.field + older.field, new.fluxes), (*ring[1:], new)

        return scheme.ring(state, self.ring), follow, change.stiffness / material.stiffness

    # ------------------------------------------------------------------------------------------------------- pieces

    def _seen(self, field: tf.Tensor, box: Box) -> tf.Tensor:
        return tf.reshape(cut(field, self.scheme.lattice.haloed, box), [-1])

    def _place(self, count: tf.Tensor, at: int) -> tf.Tensor:
        """Where a step that is kept has its place."""
        return count * (self.unrolled // self.keeping.every) + at // self.keeping.every

    def _traces(self, spots: Spots, dtype: Any) -> tf.TensorArray:
        return tf.TensorArray(dtype, self.rounds, element_shape=[spots.rows, self.unrolled])

    def _loop(self, body: Callable[..., Any], *carried: Any) -> Any:
        return tf.while_loop(lambda count, *_: count < self.rounds, body, (tf.constant(0), *carried), maximum_iterations=self.rounds)[1:]

    def _by_round(self, signal: tf.Tensor) -> tf.Tensor:
        """[point, step] as [round, point, step of the round], with zeros at the end."""
        padded = tf.pad(signal, [[0, 0], [0, self.padded_steps - self.steps]])
        return tf.transpose(tf.reshape(padded, [-1, self.rounds, self.unrolled]), [1, 0, 2])

    def _by_time(self, rounds: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.transpose(rounds, [1, 0, 2]), [-1, self.padded_steps])[:, : self.steps]


def _state(ring: Ring) -> State:
    return State(ring[-2].field, ring[-1])
