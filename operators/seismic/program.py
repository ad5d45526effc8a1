"""The time loops of one shot, each compiled once: forward, adjoint and Born."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import tensorflow as tf

from .boxes import Box
from .lattice import Lattice, cut, zeros
from .stepping import ADJOINT, FORWARD, Point, Profiles, Slot, Sweep, empty, step, step_with_rate

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
        steps: How many.
        every: Steps between the rates that are kept for the gradient; 0 keeps none. Divides `steps`, rounded up to whole rounds.
        sources, receivers: Boxes that hold the cells of every shot's sources and receivers.
    """

    lattice: Lattice
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
        """(speed, profiles, state, sources, wavelet, receivers) to (data [receiver, step], state, rates)."""
        return tf.function(self._forward, jit_compile=True, autograph=False)

    @functools.cached_property
    def adjoint(self) -> Callable[..., Any]:
        """(speed, profiles, state, sources, residual, receivers, rates) to (gradient of speed, gradient of wavelet, state)."""
        return tf.function(self._adjoint, jit_compile=True, autograph=False)

    @functools.cached_property
    def born(self) -> Callable[..., Any]:
        """(speed, its change, profiles, state, its change, sources, wavelet, its change, receivers) to the change of the data."""
        return tf.function(self._born, jit_compile=True, autograph=False)

    def _forward(self, speed: tf.Tensor, profiles: Profiles, state: State, sources: Spots, wavelet: tf.Tensor, receivers: Spots) -> Any:
        lattice, dtype = self.lattice, speed.dtype
        signal = self._by_round(wavelet)
        data = tf.TensorArray(dtype, self.rounds, element_shape=[receivers.sample.columns.shape[0], self.unrolled])
        kept = self.unrolled // self.every if self.every else 0
        advance, advance_with_rate = self._step(FORWARD, self.sources), self._step_with_rate()
        rates = tf.TensorArray(dtype, self.rounds * kept, element_shape=lattice.shape)

        def body(count: tf.Tensor, ring: Any, scratch: tf.Tensor, data: tf.TensorArray, rates: tf.TensorArray) -> Any:
            ring, seen = list(ring), []
            source = sources.inject.times(tf.gather(signal, count))
            for at in range(self.unrolled):
                older, old, new = (ring[(at + back) % self.ring] for back in (-2, -1, 0))
                seen.append(tf.reshape(cut(old.field, lattice.haloed, self.receivers), [-1]))
                if self.keeps(at):
                    new, scratch = advance_with_rate(older.field, old, new, speed, profiles, source[:, at], scratch)
                    rates = rates.write(count * kept + at // self.every, cut(scratch, lattice.haloed, lattice.whole))
                else:
                    new = advance(older.field, old, new, speed, profiles, source[:, at])
                ring[at % self.ring] = new
            data = data.write(count, receivers.sample.times(tf.stack(seen, axis=1)))
            return count + 1, tuple(ring), scratch, data, rates

        ring, _, data, rates = self._loop(body, self._ring(state, dtype), zeros(lattice.haloed, dtype), data, rates)
        return self._by_time(data.stack()), State(ring[-2].field, ring[-1]), rates.stack() if kept else tf.zeros([0, *lattice.shape], dtype)

    def _adjoint(
        self, speed: tf.Tensor, profiles: Profiles, state: State, sources: Spots, residual: tf.Tensor, receivers: Spots, rates: tf.Tensor
    ) -> Any:
        lattice, dtype = self.lattice, speed.dtype
        signal = self._by_round(residual)
        felt = tf.TensorArray(dtype, self.rounds, element_shape=[sources.sample.columns.shape[0], self.unrolled])
        kept = self.unrolled // self.every
        retreat = self._step(ADJOINT, self.receivers)

        def body(count: tf.Tensor, ring: Any, gradient: tf.Tensor, felt: tf.TensorArray) -> Any:
            ring, seen, now = list(ring), [], self.rounds - 1 - count
            source = receivers.inject.times(tf.gather(signal, now))
            for back in range(self.unrolled):
                at = self.unrolled - 1 - back
                older, old, new = (ring[(back + shift) % self.ring] for shift in (-2, -1, 0))
                seen.append(tf.reshape(cut(old.field, lattice.haloed, self.sources), [-1]))
                if self.keeps(at):
                    rate = tf.gather(rates, now * kept + at // self.every)
                    gradient = gradient + cut(old.field, lattice.haloed, lattice.whole) * rate
                ring[back % self.ring] = retreat(older.field, old, new, speed, profiles, source[:, at])
            felt = felt.write(now, sources.sample.times(tf.stack(seen[::-1], axis=1)))
            return count + 1, tuple(ring), gradient, felt

        ring, gradient, felt = self._loop(body, self._ring(state, dtype), tf.zeros_like(speed), felt)
        return float(self.every) * gradient / speed, self._by_time(felt.stack()), State(ring[-2].field, ring[-1])

    def _born(
        self, speed: tf.Tensor, change: tf.Tensor, profiles: Profiles, state: State, state_change: State,
        sources: Spots, wavelet: tf.Tensor, wavelet_change: tf.Tensor, receivers: Spots,
    ) -> Any:  # fmt: skip
        lattice, dtype = self.lattice, speed.dtype
        advance, advance_with_rate = self._step(FORWARD, self.sources), self._step_with_rate()
        signals = tf.stack([self._by_round(wavelet), self._by_round(wavelet_change)], axis=1)
        data = tf.TensorArray(dtype, self.rounds, element_shape=[receivers.sample.columns.shape[0], self.unrolled])

        def body(count: tf.Tensor, ring: Any, changes: Any, scratch: tf.Tensor, data: tf.TensorArray) -> Any:
            ring, changes, seen = list(ring), list(changes), []
            now = tf.gather(signals, count)
            source, source_change = sources.inject.times(now[0]), sources.inject.times(now[1])
            for at in range(self.unrolled):
                older, old, new = (ring[(at + back) % self.ring] for back in (-2, -1, 0))
                older_change, old_change, new_change = (changes[(at + back) % self.ring] for back in (-2, -1, 0))
                seen.append(tf.reshape(cut(old_change.field, lattice.haloed, self.receivers), [-1]))
                new, scratch = advance_with_rate(older.field, old, new, speed, profiles, source[:, at], scratch)
                ring[at % self.ring] = new
                changes[at % self.ring] = advance(
                    older_change.field, old_change, new_change, speed, profiles, source_change[:, at], (change, scratch)
                )
            data = data.write(count, receivers.sample.times(tf.stack(seen, axis=1)))
            return count + 1, tuple(ring), tuple(changes), scratch, data

        rings = self._ring(state, dtype), self._ring(state_change, dtype)
        return self._by_time(self._loop(body, *rings, zeros(lattice.haloed, dtype), data)[-1].stack())

    def _step(self, sweep: Sweep, sources: Box) -> Callable[..., Slot]:
        """One step as a graph of its own: traced once, not once for each of the steps in a round."""

        def one(older: tf.Tensor, old: Slot, new: Slot, speed: tf.Tensor, profiles: Profiles, values: tf.Tensor, *scattered: Any) -> Slot:
            return step(self.lattice, sweep, older, old, new, speed, profiles, Point(sources, values), *scattered)

        return tf.function(one, autograph=False)

    def _step_with_rate(self) -> Callable[..., tuple[Slot, tf.Tensor]]:
        def one(
            older: tf.Tensor, old: Slot, new: Slot, speed: tf.Tensor, profiles: Profiles, values: tf.Tensor, scratch: tf.Tensor
        ) -> tuple[Slot, tf.Tensor]:
            return step_with_rate(self.lattice, FORWARD, older, old, new, speed, profiles, Point(self.sources, values), scratch)

        return tf.function(one, autograph=False)

    def _loop(self, body: Callable[..., Any], *carried: Any) -> Any:
        return tf.while_loop(lambda count, *_: count < self.rounds, body, (tf.constant(0), *carried), maximum_iterations=self.rounds)[1:]

    def _ring(self, state: State, dtype: Any) -> tuple[Slot, ...]:
        blank = [empty(self.lattice, dtype) for _ in range(self.ring - 1)]
        return (*blank[1:], Slot(state.older, blank[0].memories), state.old)

    def _by_round(self, signal: tf.Tensor) -> tf.Tensor:
        """[point, step] as [round, point, step of the round], with zeros at the end."""
        padded = tf.pad(signal, [[0, 0], [0, self.padded_steps - self.steps]])
        return tf.transpose(tf.reshape(padded, [-1, self.rounds, self.unrolled]), [1, 0, 2])

    def _by_time(self, rounds: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.transpose(rounds, [1, 0, 2]), [-1, self.padded_steps])[:, : self.steps]


def rest(lattice: Lattice, dtype: Any) -> State:
    """A medium at rest."""
    slot = empty(lattice, dtype)
    return State(tf.identity(slot.field), slot)
