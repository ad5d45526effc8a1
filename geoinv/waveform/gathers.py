"""The observed traces of a band and how they count: mutes, tapers of offset and time, uncertainties. Nothing here imports TensorFlow."""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from geoinv.datasets import shots
from geoinv.operators import checks

from .config import Misfit
from .filters import Filter, taper
from .inputs import Inputs

if TYPE_CHECKING:
    from .misfit import WaveformMisfit


def mute(offsets: np.ndarray, times: np.ndarray, *, velocity: float, delay: float = 0.0, taper: float, side: str) -> np.ndarray:
    """Weights of a mute along the straight line t = delay + |offset| / velocity.

    Args:
        offsets: Distances from source to receiver, m [...], usually [shot, receiver].
        times: Times of the samples, s [time].
        velocity: Of the line, m/s; infinite for a mute at one time.
        delay: Time of the line at zero offset, s.
        taper: Length of the cosine taper inside the part that is kept, s; 0 for a sharp mute.
        side: What is muted: 'top' (before the line) or 'bottom' (after it).

    Returns:
        Weights between 0 and 1, [..., time]: 0 on the muted side up to the line itself, 1 from `taper` beyond it.

    Raises:
        ValueError: An unknown side, a velocity that is not positive, or a negative taper.
    """
    checks.choice("side", side, ("top", "bottom"))
    if not velocity > 0:
        raise checks.invalid("velocity", velocity, "positive")
    line = delay + np.abs(offsets)[..., np.newaxis] / velocity
    return _ramp(times - line if side == "top" else line - times, taper)


def offset_weights(offsets: np.ndarray, *, nearest: float = 0.0, farthest: float = math.inf, taper: float = 0.0) -> np.ndarray:
    """Weights of traces by offset: 1 from `nearest` to `farthest` m, cosine tapers of `taper` m inside these; of the offsets' shape."""
    if not 0 <= nearest < farthest:
        raise checks.invalid("offset range", f"from {nearest} to {farthest}", "increasing, from zero or more")
    distance = np.abs(offsets)
    weights = ((distance >= nearest) & (distance <= farthest)).astype(float)
    return weights * _ramp(distance - (nearest or -math.inf), taper) * _ramp(farthest - distance, taper) if taper else weights


def _ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """0 up to zero distance, 1 from `width` on, a cosine taper between."""
    if not 0 <= width < math.inf:
        raise checks.invalid("taper", width, "zero or more")
    return taper(distance, width) if width else np.where(distance > 0, 1.0, 0.0)


@final
@dataclass(frozen=True, eq=False)
class Weights:
    """How the samples of a band count; called with some shots it gives theirs [shot, receiver, time], float32.

    Args:
        of_traces: [shot, receiver]: zero where dead.
        offsets: [shot, receiver], m.
        times: Of the samples, s, zero where the source starts [time].
        first_time: Before which there are no data, s.
        ringing: How long before the records' end, and after their beginning where that is late, the filter misses what was not recorded, s.
        options: Mutes and tapers.
        time_power: Of time, that weighs samples.
    """

    of_traces: np.ndarray
    offsets: np.ndarray
    times: np.ndarray
    first_time: float
    ringing: float
    options: Misfit
    time_power: float

    @classmethod
    def of(cls, inputs: Inputs, chosen: Filter, options: Misfit, time_power: float) -> "Weights":
        """Those of the inputs through a filter, for data in `inputs.unit`.

        Raises:
            ValueError: Offsets and mutes leave nothing.
        """
        survey = inputs.survey
        live, uncertainty = survey["live"].values, survey["uncertainty"].values
        known = live & (uncertainty > 0)
        each = live.astype(float) if options.normalise else np.divide(inputs.unit, uncertainty, out=np.zeros(live.shape), where=known)
        offsets = shots.offsets(survey)
        farthest = math.inf if options.farthest_offset is None else options.farthest_offset
        tapers = offset_weights(offsets, nearest=options.nearest_offset, farthest=farthest, taper=options.offset_taper)
        times = chosen.times(survey.sizes["time"])
        made = cls(each * tapers, offsets, times, inputs.first_time, chosen.lead * chosen.interval, options, time_power)
        if not any(np.any(made(shot)[..., times > 0]) for shot in np.arange(len(live))[:, np.newaxis]):
            raise checks.invalid("misfit", "with offsets and mutes that leave no sample", "such that some data count", "Widen them.")
        return made

    def at(self, times: np.ndarray) -> "Weights":
        """The same at other times, s [time]."""
        return dataclasses.replace(self, times=times)

    def __call__(self, chosen: np.ndarray) -> np.ndarray:
        options = self.options
        found = self.of_traces[chosen][..., np.newaxis] * self._of_time
        for side, velocity, delay in (
            ("top", options.top_mute_velocity, options.top_mute_delay),
            ("bottom", options.bottom_mute_velocity, options.bottom_mute_delay),
        ):
            if velocity is not None:
                found *= mute(self.offsets[chosen], self.times, velocity=velocity, delay=delay, taper=options.mute_taper, side=side)
        return found.astype(np.float32)

    @functools.cached_property
    def _of_time(self) -> np.ndarray:
        """A gain of root mean square 1, zero where nothing was recorded [time]."""
        gain = np.where(self.times < -1e-9, 0.0, np.clip(self.times / self.times[-1], 0.0, None) ** self.time_power)
        gain = gain / np.sqrt(np.mean(gain**2)) * taper(self.times[-1] - self.times, self.ringing)
        if self.first_time:  # the filter misses what was before that, too
            gain = gain * (self.times >= self.first_time - 1e-9) * taper(self.times - self.first_time, self.ringing)
        return gain


@final
@dataclass(frozen=True, eq=False)
class Gathers:
    """The observed traces of a band, [shot, receiver, time] in `Inputs.unit`, and how they count."""

    observed: np.ndarray
    weights: Weights

    @classmethod
    def of(cls, inputs: Inputs, chosen: Filter, weights: Weights) -> "Gathers":
        """Those of the inputs through a filter."""
        return cls(np.stack([chosen(gather / inputs.unit) for gather in inputs.survey["observed"].values]), weights)

    def count(self, misfit: "WaveformMisfit") -> float:
        """Terms of a misfit of all shots."""
        if misfit not in self._counts:
            each = (float(misfit.count(self.observed[shot], self.weights(shot))) for shot in np.arange(len(self.observed))[:, np.newaxis])
            self._counts[misfit] = max(1.0, sum(each))
        return self._counts[misfit]

    @functools.cached_property
    def _counts(self) -> dict["WaveformMisfit", float]:
        return {}
