"""The shots of a survey: each one program on one core, side by side; its time loop cut into segments where there are checkpoints."""

import threading
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import tensorflow as tf

from ..parallel import cores
from ..sensitivity.reversal import run_back, run_kept
from ..sensitivity.strategy import Plan
from .boxes import Box
from .keeping import Backwards, Keeping, Nothing, Snapshots
from .program import Program, Spots
from .scheme import Scheme
from .stepping import Material, Profiles, State

#: What XLA takes to compile one program, bytes; measured, and much the same for all of them.
COMPILING = 110_000_000
#: And the programs of every further spread (see `points.spreads`); forward and adjoint together.
ANOTHER = 70_000_000
#: Programs that are kept compiled, the last ones that were asked for: an inversion band by band needs new ones in each.
MOST_PROGRAMS = 64
#: Steps of a run that looks for the one that failed.
_FEW = 3


class Medium(NamedTuple):
    """What a shot propagates in."""

    material: Material
    profiles: Profiles


class Shot(NamedTuple):
    """One shot: points, wavelet [source, step], and the wavefield at the start."""

    sources: Spots
    receivers: Spots
    wavelet: tf.Tensor
    start: State


class Memory(NamedTuple):
    """What a gradient takes, bytes: kept from the forward run for the adjoint one, used by the shots that run, and for compilation."""

    kept: int
    running: int
    compiling: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


class Gradient(NamedTuple):
    """Of one shot, with respect to the material, its wavelet [source, step], and the adjoint state at the start."""

    material: Material
    wavelet: tf.Tensor
    start: State


@final
@dataclass(frozen=True)
class Loop:
    """The time loop of every shot.

    Args:
        scheme: What is stepped, and where.
        steps: How many.
        plan: What is kept.
        sources, receivers: Boxes of every shot's points.
    """

    scheme: Scheme
    steps: int
    plan: Plan
    sources: Box
    receivers: Box

    @property
    def keeping(self) -> Keeping:
        """What a segment keeps for its adjoint."""
        return Backwards() if self.plan.boundary else Snapshots(self.plan.every)

    @property
    def _complete(self) -> bool:
        """Whether what is kept holds the images of every step."""
        return self.segments == 1 and self.keeping == Snapshots(1)

    def program(self, keeping: Keeping) -> Program:
        """That of a segment."""
        return _program(self.scheme, self.plan.segment, keeping, self.sources, self.receivers)

    @property
    def segments(self) -> int:
        """How many segments the loop is cut into."""
        return -(-self.steps // self.plan.segment)

    def forward(self, medium: Medium, shot: Shot) -> tuple[tf.Tensor, State]:
        """Data [receiver, step] and the wavefield at the end."""
        data, state, _ = self._run(medium, shot, shot.start, range(self.segments), Nothing())
        return data, state

    def failure(self, medium: Medium, shot: Shot) -> int:
        """A step, counted from 0, at which a wavefield is not finite, or was not the step before: the shot is run again, a few at a time."""
        program, state = _program(self.scheme, _FEW, Nothing(), self.sources, self.receivers), shot.start
        for first in range(0, self.steps, _FEW):
            wavelet = tf.pad(shot.wavelet[:, first : first + _FEW], [[0, 0], [0, max(0, first + _FEW - self.steps)]])
            _, state, _ = program.forward(*medium, state, shot.sources, wavelet, shot.receivers)
            for step, field in ((first + _FEW - 1, state.older), (first + _FEW, state.old.field)):
                if not tf.reduce_all(tf.math.is_finite(field)):
                    return step
        return self.steps

    def born(self, medium: Medium, shot: Shot, record: Any, material: Material, change: Shot) -> tf.Tensor:
        """The change of the data [receiver, step] for a change of the material, and of the wavelet and the start (those of `change`)."""
        keeping, kept = (self.keeping, record) if self._complete else (Nothing(), ())
        program = _program(self.scheme, self.steps, keeping, self.sources, self.receivers)
        return program.born(
            medium.material, material, medium.profiles, shot.start, change.start, shot.sources, shot.wavelet, change.wavelet, shot.receivers, kept
        )

    def record(self, medium: Medium, shot: Shot) -> tuple[tf.Tensor, State, Any]:
        """The same as `forward`, and what `adjoint` needs: what one segment kept, or states at the start of some segments."""
        if self.segments == 1:
            return self._run(medium, shot, shot.start, range(1), self.keeping)
        data = []

        def run(state: State, segments: range) -> State:
            part, state, _ = self._run(medium, shot, state, segments, Nothing())
            data.append(part)
            return state

        end, kept = run_kept(self.segments, self.plan.checkpoints, shot.start, run)
        return tf.concat(data, axis=1), end, kept

    def adjoint(self, medium: Medium, shot: Shot, record: Any, residual: tf.Tensor) -> Gradient:
        """The gradient of ``sum(residual * data)``. Of a record with states of several segments none is left: each is let go once it has served."""
        nothing = tf.nest.map_structure(tf.zeros_like, medium.material)
        later = Gradient(nothing, shot.wavelet[:, :0], self.scheme.rest(residual.dtype))
        if self.segments == 1:
            return self._back(medium, shot, 0, record, residual, later)

        def run(state: State, segments: range) -> State:
            return self._run(medium, shot, state, segments, Nothing())[1]

        def back(state: State, segment: int, later: Gradient) -> Gradient:
            images = self._run(medium, shot, state, range(segment, segment + 1), self.keeping)[2]
            return self._back(medium, shot, segment, images, residual, later)

        return run_back(self.segments, self.plan.checkpoints, record, run, back, later)

    def illumination(self, medium: Medium, shot: Shot) -> tf.Tensor:
        """Sum over the kept steps of (r + s)^2 in every cell, times their interval."""
        total, state, every = tf.zeros_like(medium.material.stiffness), shot.start, self.plan.every
        for segment in range(self.segments):
            _, state, images = self._run(medium, shot, state, range(segment, segment + 1), Snapshots(every))
            # Of each interval the middle step is kept, and a program may run on beyond the record.
            inside = -(-(self.steps - segment * self.plan.segment - every // 2) // every)
            total += every * tf.reduce_sum(tf.square(images[0][: max(inside, 0)]), axis=0)
        return total

    def memory(self, shots: int, itemsize: int, *, held: bool, spreads: int) -> Memory:
        """What the gradient of so many shots takes, bytes; where records are held they stay until all shots went back."""
        others = (spreads - 1) * ANOTHER
        program, running, slot = self.program(self.keeping), min(shots, cores()), self.scheme.slot_size
        fields_of_rock = sum(box.size for box in self.scheme.images)
        rings = (2 if self.plan.boundary else 1) * running * (program.ring * slot + 2 * fields_of_rock)
        rings += 2 * slot + running * fields_of_rock  # a state at rest, and the rock
        if self.segments == 1:
            return Memory(itemsize * shots * program.kept_size, itemsize * rings, 2 * COMPILING + others)
        kept = min(self.plan.checkpoints, self.segments)
        # Those of the way forward, and where they stay those of the way back beside them.
        states = self.scheme.state_size * (shots * kept + (running * (kept - 1) if held else 0))
        return Memory(itemsize * states, itemsize * (rings + running * program.kept_size), 3 * COMPILING + others)

    def _run(self, medium: Medium, shot: Shot, state: State, segments: range, keeping: Keeping) -> tuple[tf.Tensor, State, Any]:
        parts = []
        for segment in segments:
            wavelet = self._part(shot.wavelet, segment)
            data, state, images = self.program(keeping).forward(*medium, state, shot.sources, wavelet, shot.receivers)
            parts.append(data)
        start = segments.start * self.plan.segment
        return tf.concat(parts, axis=1)[:, : self.steps - start], state, images

    def _back(self, medium: Medium, shot: Shot, segment: int, images: Any, residual: tf.Tensor, later: Gradient) -> Gradient:
        program, (force, part) = self.program(self.keeping), (self._part(signal, segment) for signal in (shot.wavelet, residual))
        material, wavelet, state = program.adjoint(*medium, later.start, shot.sources, force, part, shot.receivers, images)
        known = wavelet[:, : self.steps - segment * self.plan.segment]
        material = tf.nest.map_structure(tf.add, later.material, material)
        return Gradient(material, tf.concat([known, later.wavelet], axis=1), state)

    def _part(self, signal: tf.Tensor, segment: int) -> tf.Tensor:
        """A segment of a signal [point, step], with zeros where it has ended."""
        size = self.plan.segment
        part = signal[:, segment * size : (segment + 1) * size]
        return tf.pad(part, [[0, 0], [0, size - part.shape[1]]])


_PROGRAMS: dict[Any, Program] = {}
_LOCK = threading.Lock()


def _program(*definition: Any) -> Program:
    """One program for each definition: operators that differ in their data only, such as subsets, share what is compiled."""
    with _LOCK:
        program = _PROGRAMS.pop(definition, None) or Program(*definition)
        _PROGRAMS[definition] = program  # behind those that were not asked for since
        if len(_PROGRAMS) > MOST_PROGRAMS:
            del _PROGRAMS[next(iter(_PROGRAMS))]
    return program
