"""Where a full-waveform inversion stands, as explicit states, and as the arrays and numbers of a checkpoint."""

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from geoinv.datasets import shots

from ..checkpoints import Checkpoint
from ..descent import AdamState, LBFGSState
from .bands import Band, bands
from .config import WaveformConfig
from .inputs import Inputs
from .objective import Objective, Spread

Record = dict[str, Any]
Iterate = LBFGSState | AdamState


@final
@dataclass(frozen=True, eq=False)
class Round:
    """Iterations of a band with one wavelet.

    Args:
        objective: With that.
        guess: The wavelet before it was fitted, [time] or [shot, source, time].
        start: First model [n], or the iterate that the round has come to.
        best: Misfit and model [n] of the best iterate so far.
        first, evaluated: Iterations and evaluations of the band before these.
        diagonal: What the preconditioner is made of, [n], or None.
        values: Misfits of the iterates so far.
        history: The band's records so far, one an iteration.
    """

    objective: Objective
    guess: np.ndarray
    start: np.ndarray | Iterate
    best: tuple[float, np.ndarray]
    first: int = 0
    evaluated: int = 0
    diagonal: np.ndarray | None = None
    values: tuple[float, ...] = ()
    history: tuple[Record, ...] = ()


@final
@dataclass(frozen=True, eq=False)
class BandResult:
    """How a band ended: status and reason as of `descent.Outcome`, after its last round."""

    status: str
    reason: str
    round: Round

    @property
    def objective(self) -> Objective:
        """With the wavelet that was used last."""
        return self.round.objective

    @property
    def band(self) -> Band:
        """Its number and filter."""
        return self.objective.band

    @property
    def misfit(self) -> float:
        """Of the best model of the last round."""
        return self.round.best[0]

    @property
    def model(self) -> np.ndarray:
        """The best one of the last round, [n]."""
        return self.round.best[1]


@final
@dataclass(frozen=True, eq=False)
class State:
    """All that the next iterate depends on.

    Args:
        done: Bands that have ended, and the last round before this one of its band.
        round: Under way.
        warnings: So far.
    """

    done: tuple[BandResult, ...]
    round: Round
    warnings: tuple[str, ...]

    @property
    def records(self) -> list[Record]:
        """Of all iterations so far."""
        before = [record for result in self.done if result.band.number < self.round.objective.band.number for record in result.round.history]
        return [*before, *self.round.history]

    def to_checkpoint(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """As arrays by name, and what JSON can hold."""
        rounds = [*(each.round for each in self.done), self.round]
        arrays = {f"{number}.{name}": array for number, each in enumerate(rounds) for name, array in _arrays(each).items()}
        ends = [{"status": each.status, "reason": each.reason} for each in self.done]
        return arrays, {"rounds": [_about(each) for each in rounds], "ends": ends, "warnings": list(self.warnings)}

    @classmethod
    def of(cls, checkpoint: Checkpoint, config: WaveformConfig, inputs: Inputs, spread: Spread | None = None) -> "State":
        """That of a checkpoint, with the operators and data made anew."""
        about, found = checkpoint.about, []
        choices = {band.number: band for band in bands(config, shots.dt(inputs.survey))}
        for number, each in enumerate(about["rounds"]):
            mine = {name.partition(".")[2]: array for name, array in checkpoint.arrays.items() if name.startswith(f"{number}.")}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # given already
                found.append(_round(Objective.of(config, inputs, choices[each["band"]], spread), mine, each))
        done = tuple(BandResult(end["status"], end["reason"], each) for end, each in zip(about["ends"], found[:-1], strict=True))
        return cls(done, found[-1], tuple(about["warnings"]))


def _arrays(one: Round) -> dict[str, np.ndarray]:
    iterate = {"start": one.start} if isinstance(one.start, np.ndarray) else {f"start.{name}": each for name, each in one.start.to_arrays().items()}
    diagonal = {} if one.diagonal is None else {"diagonal": one.diagonal}
    return {"wavelet": one.objective.wavelet, "best": one.best[1], **diagonal, **iterate}


def _about(one: Round) -> dict[str, Any]:
    of = {"band": one.objective.band.number, "roughness": one.objective.roughness, "best": one.best[0]}
    return of | {name: getattr(one, name) for name in ("first", "evaluated", "values", "history")}


def _round(objective: Objective, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Round:
    iterate = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith("start.")}
    state = LBFGSState if objective.config.inversion.optimiser == "lbfgs" else AdamState
    return Round(
        objective.taken_up(arrays["wavelet"], about["roughness"]),
        guess=objective.wavelet,
        start=state.from_arrays(iterate) if iterate else arrays["start"],
        best=(about["best"], arrays["best"]),
        first=about["first"],
        evaluated=about["evaluated"],
        diagonal=arrays.get("diagonal"),
        values=tuple(about["values"]),
        history=tuple(about["history"]),
    )


def advanced(one: Round, iterate: Iterate, record: Record | None) -> Round:
    """A round that has come to one more iterate."""
    best = (iterate.value, iterate.model) if not one.values or iterate.value < one.best[0] else one.best
    history = one.history if record is None else (*one.history, record)
    return dataclasses.replace(one, start=iterate, best=best, values=(*one.values, iterate.value), history=history)
