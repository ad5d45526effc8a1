"""Full-waveform inversion band by band, low frequencies first: the loop over bands, and over rounds between fits of the wavelet."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from geoinv.datasets import shots
from geoinv.operators import checks

from .. import descent
from .bands import Band, bands
from .config import WaveformConfig
from .inputs import Inputs
from .objective import Objective, Spread, preconditioner
from .state import BandResult, Record, Round, State, advanced

INTERRUPTED = "Interrupted in band {}; this is the best model until then."
FAILED = "Ended after what was done of band {}, whose model this is: {}"


@final
@dataclass(frozen=True, eq=False)
class Outcome:
    """How the inversion ended: status is 'converged', 'stagnated', 'iteration-limit', 'interrupted' or 'failed'."""

    status: str
    reason: str
    bands: tuple[BandResult, ...]
    warnings: tuple[str, ...]

    @property
    def last(self) -> BandResult:
        """The last band that is kept."""
        return self.bands[-1]

    @property
    def records(self) -> list[Record]:
        """Of all iterations of all bands."""
        return [record for result in self.bands for record in result.round.history]


@final
@dataclass(frozen=True, eq=False)
class Watch:
    """Who looks on.

    Args:
        record: Called with the record of every iteration.
        say: Called with a line for a person.
        keep: Called with the state after every iteration, which `run` goes on from.
    """

    record: Callable[[Record], None] = lambda _: None
    say: Callable[[str], None] = lambda _: None
    keep: Callable[[State], None] = lambda _: None


@final
@dataclass(frozen=True, eq=False)
class _Log:
    """Since when the inversion runs, who looks on, and the warnings and the last result of each band so far."""

    began: float
    watch: Watch
    warnings: list[str]
    done: dict[int, BandResult]

    @classmethod
    def of(cls, watch: Watch, past: State | None) -> "_Log":
        """That of an inversion which begins, or goes on."""
        now = time.perf_counter()
        if past is None:
            return cls(now, watch, [], {})
        return cls(now - past.records[-1]["seconds"], watch, list(past.warnings), {each.band.number: each for each in past.done})

    @contextmanager
    def listening(self, band: Band) -> Iterator[None]:
        """Keep and show the warnings of what is done for a band."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                yield
            finally:
                for each in caught:
                    self.warn(band, str(each.message))

    def warn(self, band: Band, text: str) -> None:
        """Keep and show a warning, once."""
        if (line := f"band {band.number}: {text}") not in self.warnings:
            self.warnings.append(line)
            self.watch.say(f"warning: {line}")

    def keep(self, round_: Round) -> None:
        """Pass the state on."""
        self.watch.keep(State(tuple(self.done.values()), round_, tuple(self.warnings)))


def run(
    config: WaveformConfig, inputs: Inputs, watch: Watch, past: State | None = None, spread: Spread | None = None
) -> Outcome:  # fmt: skip
    """Invert all bands; Ctrl-C ends it with the best model so far.

    Args:
        config, inputs: Of the job.
        watch: Who looks on.
        past: To go on from, to the same bits as if it had not been left.
        spread: Computes the parts of the shots elsewhere.

    Raises:
        ValueError: The operator refuses the inputs, or a wavefield is not finite.
        KeyboardInterrupt: Before there is anything to keep; after that neither is raised, and the outcome says why it ended.
    """
    log, left = _Log.of(watch, past), None if past is None else past.round
    done, velocity, ending = log.done, inputs.velocity, None
    try:
        for band in bands(config, shots.dt(inputs.survey)):
            if past is None:
                rounds = _band(config, inputs, band, velocity, spread, log)
            elif band.number == past.round.objective.band.number:
                rounds, past = _rounds(past.round, log), None
            else:
                continue  # ended before
            for result in rounds:
                done[band.number], left = result, None
            velocity = result.objective.velocity(result.model)
            if result.status == "interrupted":
                break
    except KeyboardInterrupt:
        if left is not None:  # what it went on with is the best that there is
            done[left.objective.band.number] = BandResult("interrupted", "", dataclasses.replace(left, start=left.best[1]))
        if not done:
            raise
        ending = ("interrupted", INTERRUPTED.format(max(done)))
    except ValueError as error:  # such as options that do not suit a later band: what was found until then is not thrown away
        if not done:
            raise
        ending = ("failed", FAILED.format(max(done), error))
    last = done[max(done)]
    status, reason = ending or (last.status, last.reason)
    return Outcome(status, reason, tuple(done.values()), tuple(log.warnings))


def _band(
    config: WaveformConfig, inputs: Inputs, band: Band, velocity: np.ndarray, spread: Spread | None, log: _Log
) -> Iterator[BandResult]:  # fmt: skip
    """Invert a band from a velocity [grid] on."""
    with log.listening(band):
        objective = Objective.of(config, inputs, band, spread)
    log.watch.say(_describe(objective))
    model = objective.start(velocity)
    yield from _rounds(_tuned(Round(objective, objective.wavelet, model, (np.inf, model)), model, log), log)


def _rounds(round_: Round, log: _Log) -> Iterator[BandResult]:
    """Invert a band, from a round on; a result after each."""
    source, limit = round_.objective.config.source, round_.objective.band.iterations
    every = source.estimate_every if source.estimate and source.estimate_every else limit
    while True:
        result = _followed(round_, min(every, limit - round_.first), log)
        yield result
        following = round_.first + every
        if result.status != "iteration-limit" or following >= limit:
            return
        evaluated = result.round.history[-1]["evaluations"]
        begun = dataclasses.replace(result.round, first=following, evaluated=evaluated, values=())
        round_ = _tuned(begun, result.model, log)


def _tuned(round_: Round, model: np.ndarray, log: _Log) -> Round:
    """A round that begins at a model [n], with the wavelet fitted there; a band's first one also weighs the terms there."""
    objective, diagonal = round_.objective, round_.diagonal
    options, seed = objective.config.inversion, objective.config.seed
    with log.listening(objective.band):
        objective = objective.tuned(model)
        log.watch.say(_tuning(objective, round_.first))
        if not round_.first:
            if options.preconditioner != "none":
                diagonal = objective.diagonal(model, options.preconditioner, seed)
            objective = _with_roughness(objective, model)
    return dataclasses.replace(round_, objective=objective, diagonal=diagonal)


def _with_roughness(objective: Objective, model: np.ndarray) -> Objective:
    weight = objective.config.inversion.regularization
    return objective if not weight else dataclasses.replace(objective, roughness=weight * objective.value(model))


def _followed(round_: Round, count: int, log: _Log) -> BandResult:
    """A round to its end."""
    objective = round_.objective
    follow, options = _Follow(round_, log), objective.config.inversion
    window = 3 if options.optimiser == "lbfgs" else 10
    with warnings.catch_warnings():  # the model that the round ends with is looked at below
        warnings.simplefilter("ignore", UserWarning)
        iterates = _iterates(objective, round_.start, round_.diagonal)  # computes the first one
        outcome = descent.minimise(
            iterates, max_iterations=count, tolerance=options.tolerance, window=window, report=follow, past=round_.values
        )  # fmt: skip
    ended = dataclasses.replace(follow.round, start=follow.round.best[1])  # what the optimiser keeps is not needed any more
    result = BandResult(outcome.status, outcome.reason, ended)
    if result.model.min() < (lowest := objective.wave.velocity_limits[0]):
        log.warn(objective.band, f"velocities below the start model's lowest, {lowest:g} m/s: cells may be too large for their waves")
    return result


def _iterates(objective: Objective, start: Any, diagonal: np.ndarray | None) -> Iterator[Any]:
    options, free, inputs = objective.config.inversion, objective.inputs.free, objective.inputs
    box = {"lower": inputs.lower[free], "upper": inputs.upper[free]}
    metric = preconditioner(objective, np.ones(np.count_nonzero(free)) if diagonal is None else diagonal)
    if options.optimiser == "lbfgs":
        return descent.lbfgs(
            objective.value_and_gradient, start, **box, memory=options.memory, precondition=metric,
            first_step=options.step, max_step=options.max_step or np.inf,
        )  # fmt: skip

    def smoothed(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective.value_and_gradient(x)
        return value, metric(gradient)

    return descent.adam(smoothed, start, **box, step=options.step)


class _Follow:
    """Takes a round from iterate to iterate, and reports."""

    def __init__(self, round_: Round, log: _Log) -> None:
        self.round, self._log = round_, log

    def __call__(self, iterate: Any) -> None:
        band = self.round.objective.band
        if not iterate.iteration and iterate.value > 0 and not iterate.gradient.any():
            advice = "Do waves reach the cells that may change, and are the sizes of data and wavelet comparable?"
            raise checks.invalid("gradient", f"zero everywhere in band {band.number}", "other than zero somewhere", advice)
        # The first model of a later round is that of the round before, with another wavelet: its record is there already.
        record = None if self.round.first and not iterate.iteration else self._record(iterate)
        self.round = advanced(self.round, iterate, record)
        if record is not None:
            self._log.watch.record(record)
        self._log.keep(self.round)

    def _record(self, iterate: Any) -> Record:
        band, history = self.round.objective.band, self.round.history
        start = history[0]["misfit"] if history else iterate.value
        return {
            "band": band.number,
            "frequency": band.top,
            "iteration": self.round.first + iterate.iteration,
            "misfit": iterate.value,
            "relative": iterate.value / start if start else 1.0,
            "evaluations": self.round.evaluated + iterate.evaluations,
            "seconds": time.perf_counter() - self._log.began,
        }


def _describe(objective: Objective) -> str:
    """What a band computes, in a line: shown while TensorFlow compiles it, which takes longer than many an iteration."""
    band, wave = objective.band, objective.wave
    frequencies = "all frequencies" if band.corners is None else f"{band.corners[1]:g} to {band.corners[2]:g} Hz"
    cells = f"{' x '.join(map(str, wave.grid.shape))} cells of {' x '.join(f'{each:.4g}' for each in wave.spacing)} m"
    steps = f"{wave.wavelet.shape[-1] * wave.substeps} steps of {1e3 * wave.internal_step:.3g} ms"
    return f"band {band.number}: {frequencies}, {cells}, {steps}; compiling ..."


def _tuning(objective: Objective, first: int) -> str:
    """What was fitted and chosen before a round of iterations, in a line."""
    fitted = "wavelet fitted" + (" again" if first else "") if objective.config.source.estimate else "wavelet as given"
    return f"band {objective.band.number}: {fitted}, gradients with {objective.wave.differentiation}" + ("" if first else "; compiling ...")
