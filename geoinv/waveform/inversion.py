"""Full-waveform inversion band by band, low frequencies first: the loop over bands, and over rounds between fits of the wavelet."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
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
from .objective import Objective, preconditioner

Record = dict[str, Any]
INTERRUPTED = "Interrupted in band {}; this is the best model until then."
FAILED = "Ended after what was done of band {}, whose model this is: {}"


@final
@dataclass(frozen=True, eq=False)
class BandResult:
    """How a band ended.

    Args:
        band: Its number and filter.
        status, reason: As of `descent.Outcome`.
        objective: With the wavelet that was used last.
        guess: The wavelet before it was fitted, [time] or [shot, source, time].
        model: The best one of the last round, [n].
        misfit: Its misfit.
        diagonal: What the preconditioner is made of, [n], or None.
        history: A record an iteration.
    """

    band: Band
    status: str
    reason: str
    objective: Objective
    guess: np.ndarray
    model: np.ndarray
    misfit: float
    diagonal: np.ndarray | None
    history: tuple[Record, ...]


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


@final
@dataclass(frozen=True, eq=False)
class Watch:
    """Who looks on.

    Args:
        record: Called with the record of every iteration.
        say: Called with a line for a person.
    """

    record: Callable[[Record], None] = lambda _: None
    say: Callable[[str], None] = lambda _: None


@final
@dataclass(frozen=True, eq=False)
class _Log:
    """Since when the inversion runs, who looks on, and the warnings so far."""

    began: float
    watch: Watch
    warnings: list[str]

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


def run(config: WaveformConfig, inputs: Inputs, watch: Watch) -> Outcome:
    """Invert all bands; Ctrl-C ends it with the best model so far.

    Raises:
        ValueError: The operator refuses the inputs, or a wavefield is not finite.
        KeyboardInterrupt: Before there is anything to keep; after that neither is raised, and the outcome says why it ended.
    """
    log = _Log(time.perf_counter(), watch, [])
    done: dict[int, BandResult] = {}
    velocity, ending = inputs.velocity, None
    try:
        for band in bands(config, shots.dt(inputs.survey)):
            with log.listening(band):
                objective = Objective.of(config, inputs, band)
            for result in _rounds(objective, velocity, log):
                done[band.number] = result
            velocity = objective.velocity(result.model)
            if result.status == "interrupted":
                break
    except KeyboardInterrupt:
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


def _rounds(objective: Objective, velocity: np.ndarray, log: _Log) -> Iterator[BandResult]:
    """Invert a band; a result after each round of iterations with one wavelet."""
    config, limit, guess = objective.config, objective.band.iterations, objective.wavelet
    every = config.source.estimate_every if config.source.estimate and config.source.estimate_every else limit
    model, diagonal = objective.start(velocity), None
    history: list[Record] = []
    log.watch.say(_describe(objective))
    for first in range(0, limit, every):
        with log.listening(objective.band):
            objective = objective.tuned(model)
            log.watch.say(_tuning(objective, first))
            if not first:
                if config.inversion.preconditioner != "none":
                    diagonal = objective.diagonal(model, config.inversion.preconditioner, config.seed)
                objective = _with_roughness(objective, model)
        follow = _Follow(objective.band, history, first, log)
        window = 3 if config.inversion.optimiser == "lbfgs" else 10
        count, tolerance = min(every, limit - first), config.inversion.tolerance
        with warnings.catch_warnings():  # the model that the round ends with is looked at below
            warnings.simplefilter("ignore", UserWarning)
            iterates = _iterates(objective, model, diagonal)  # computes the first one
            outcome = descent.minimise(iterates, max_iterations=count, tolerance=tolerance, window=window, report=follow)
        model = follow.best.model
        if model.min() < (lowest := objective.wave.velocity_limits[0]):
            log.warn(objective.band, f"velocities below the start model's lowest, {lowest:g} m/s: cells may be too large for their waves")
        yield BandResult(objective.band, outcome.status, outcome.reason, objective, guess, model, follow.best.value, diagonal, tuple(history))
        if outcome.status != "iteration-limit":
            return


def _with_roughness(objective: Objective, model: np.ndarray) -> Objective:
    weight = objective.config.inversion.regularization
    return objective if not weight else dataclasses.replace(objective, roughness=weight * objective.value(model))


def _iterates(objective: Objective, model: np.ndarray, diagonal: np.ndarray | None) -> Iterator[Any]:
    options, free, inputs = objective.config.inversion, objective.inputs.free, objective.inputs
    box = {"lower": inputs.lower[free], "upper": inputs.upper[free]}
    metric = preconditioner(objective, np.ones(model.size) if diagonal is None else diagonal)
    if options.optimiser == "lbfgs":
        return descent.lbfgs(
            objective.value_and_gradient, model, **box, memory=options.memory, precondition=metric,
            first_step=options.step, max_step=options.max_step or np.inf,
        )  # fmt: skip

    def smoothed(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective.value_and_gradient(x)
        return value, metric(gradient)

    return descent.adam(smoothed, model, **box, step=options.step)


class _Follow:
    """Keeps the best iterate and the history, and reports."""

    def __init__(self, band: Band, history: list[Record], first: int, log: _Log) -> None:
        self._band, self._history, self._first, self._log = band, history, first, log
        self._before = history[-1]["evaluations"] if history else 0
        self.best: Any = None

    def __call__(self, iterate: Any) -> None:
        if not iterate.iteration and iterate.value > 0 and not iterate.gradient.any():
            advice = "Do waves reach the cells that may change, and are the sizes of data and wavelet comparable?"
            raise checks.invalid("gradient", f"zero everywhere in band {self._band.number}", "other than zero somewhere", advice)
        if self.best is None or iterate.value < self.best.value:
            self.best = iterate
        if self._first and not iterate.iteration:
            return  # the model of the round before, with another wavelet
        start = self._history[0]["misfit"] if self._history else iterate.value
        record = {
            "band": self._band.number,
            "frequency": self._band.top,
            "iteration": self._first + iterate.iteration,
            "misfit": iterate.value,
            "relative": iterate.value / start if start else 1.0,
            "evaluations": self._before + iterate.evaluations,
            "seconds": time.perf_counter() - self._log.began,
        }
        self._history.append(record)
        self._log.watch.record(record)


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


def history(results: Sequence[BandResult]) -> list[Record]:
    """The records of all bands."""
    return [record for result in results for record in result.history]
