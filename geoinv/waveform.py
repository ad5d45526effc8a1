"""Full-waveform inversion band by band, low frequencies first: the loop over bands, and over rounds between fits of the wavelet."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from geoinv.datasets import shots

from . import descent
from .waveform_bands import Band, bands
from .waveform_config import WaveformConfig
from .waveform_inputs import Inputs
from .waveform_objective import Objective, preconditioner

Record = dict[str, Any]
INTERRUPTED = "Interrupted in band {}; this is the best model until then."


@final
@dataclass(frozen=True, eq=False)
class BandResult:
    """How a band ended.

    Args:
        band: Its number and filter.
        status, reason: As of `descent.Outcome`.
        objective: With the wavelet that was used last.
        guess: The wavelet before it was fitted, [time] or [shot, source, time].
        model: The best one, [n].
        diagonal: What the preconditioner is made of, [n], or None.
        history: A record an iteration.
    """

    band: Band
    status: str
    reason: str
    objective: Objective
    guess: np.ndarray
    model: np.ndarray
    diagonal: np.ndarray | None
    history: tuple[Record, ...]


@final
@dataclass(frozen=True, eq=False)
class Outcome:
    """How the inversion ended: status is 'converged', 'stagnated', 'iteration-limit' or 'interrupted'."""

    status: str
    reason: str
    bands: tuple[BandResult, ...]
    warnings: tuple[str, ...]

    @property
    def last(self) -> BandResult:
        """The last band that was begun."""
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


def run(config: WaveformConfig, inputs: Inputs, watch: Watch) -> Outcome:
    """Invert all bands; Ctrl-C ends it with the best model so far.

    Raises:
        ValueError: The operator refuses the inputs, or a wavefield is not finite.
        KeyboardInterrupt: Before there is anything to keep.
    """
    began = time.perf_counter()
    done: dict[int, BandResult] = {}
    said: list[str] = []
    velocity, dt = inputs.velocity, shots.dt(inputs.survey)
    ending = None
    try:
        for band in bands(config, dt):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                objective = Objective.of(config, inputs, band, dt)
            for each in caught:
                said.append(f"band {band.number}: {each.message}")
                watch.say(f"warning: {said[-1]}")
            for result in _rounds(objective, velocity, began, watch):
                done[band.number] = result
            velocity = objective.velocity(result.model)
            if result.status == "interrupted":
                break
    except KeyboardInterrupt:
        if not done:
            raise
        ending = ("interrupted", INTERRUPTED.format(max(done)))
    last = done[max(done)]
    status, reason = ending or (last.status, last.reason)
    return Outcome(status, reason, tuple(done.values()), tuple(said))


def _rounds(objective: Objective, velocity: np.ndarray, began: float, watch: Watch) -> Iterator[BandResult]:
    """Invert a band; a result after each round of iterations with one wavelet."""
    config, limit, guess = objective.config, objective.band.iterations, objective.wavelet
    every = config.source.estimate_every if config.source.estimate and config.source.estimate_every else limit
    model, diagonal = objective.start(velocity), None
    history: list[Record] = []
    for first in range(0, limit, every):
        objective = objective.tuned(model)
        if not first:
            watch.say(_describe(objective))
            if config.inversion.preconditioner != "none":
                diagonal = objective.diagonal(model, config.inversion.preconditioner, config.seed)
            objective = _with_roughness(objective, model)
        follow = _Follow(objective, history, first, began, watch)
        iterates = _iterates(objective, model, diagonal)
        outcome = descent.minimise(iterates, max_iterations=min(every, limit - first), tolerance=config.inversion.tolerance, report=follow)
        model = follow.best.model
        yield BandResult(objective.band, outcome.status, outcome.reason, objective, guess, model, diagonal, tuple(history))
        if outcome.status != "iteration-limit":
            return


def _with_roughness(objective: Objective, model: np.ndarray) -> Objective:
    weight = objective.config.inversion.regularization
    return objective if not weight else dataclasses.replace(objective, roughness=weight * objective.value_and_gradient(model)[0])


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

    def __init__(self, objective: Objective, history: list[Record], first: int, began: float, watch: Watch) -> None:
        self._band, self._history, self._first, self._began, self._watch = objective.band, history, first, began, watch
        self._before = history[-1]["evaluations"] if history else 0
        self.best: Any = None

    def __call__(self, iterate: Any) -> None:
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
            "seconds": time.perf_counter() - self._began,
        }
        self._history.append(record)
        self._watch.record(record)


def _describe(objective: Objective) -> str:
    """A band's setting, in a line."""
    band, wave = objective.band, objective.wave
    frequencies = "all frequencies" if band.corners is None else f"{band.corners[0] or band.corners[1]:g} to {band.corners[2]:g} Hz"
    cells = f"{' x '.join(map(str, wave.grid.shape))} cells of {' x '.join(f'{each:.4g}' for each in wave.spacing)} m"
    steps = f"{wave.wavelet.shape[-1] * wave.substeps} steps of {1e3 * wave.internal_step:.3g} ms"
    return f"band {band.number}: {frequencies}, {cells}, {steps}, {wave.differentiation}"


def history(results: Sequence[BandResult]) -> list[Record]:
    """The records of all bands."""
    return [record for result in results for record in result.history]
