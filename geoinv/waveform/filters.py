r"""Zero-phase filters and tapers in NumPy, and how a band's filter takes the survey's traces to the scheme's time and back.

Such filters spread signals to both sides, so records and wavelet start earlier by a `lead` in a band: zeros before the filter, the
filter's ringing after it. A band is sampled at the largest stable time step on its cells, so that the operator need not resample.

Leapfrog in time makes of a frequency w that the scheme is driven at what the exact derivative makes of :math:`(2 / \Delta t) \sin(w \Delta t / 2)`.
Data and wavelet are taken to the scheme's frequencies on the way into the band, which undoes its error in time altogether (Stork,
EAGE 2013, Tu1106; Wang & Xu, Geophysics 80, 2015, T197-T206): large steps are as good as small ones. Times of a band are the scheme's: a
wave of w arrives early in them by a fraction of about :math:`(w \Delta t)^2 / 8`. What is written is taken back to true time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.fft

from geoinv.operators import checks

from .config import Bands

Corners = tuple[float, float, float, float]
#: What wraps around is what a filter still rings after this many periods of its narrowest taper's width: below 1e-4 of its peak.
RESPONSE_PERIODS = 8.0
#: Where a band's traces end on the way back, over its last corner: what is above comes of the records' cut ends. Below the 4 / pi of the steps.
END = 1.25


def check_corners(corners: Sequence[float], dt: float) -> Corners:
    """The four corners of a band, after checking them against each other and the Nyquist frequency."""
    checks.positive("dt", dt)
    given = tuple(float(corner) for corner in corners)
    if len(given) != 4 or not (0 <= given[0] <= given[1] < given[2] < given[3]) or given[0] == given[1] > 0:
        raise checks.invalid("corners", list(given), "four increasing frequencies in Hz (the first two may be 0, for a low-pass)")
    if given[3] > 0.5 / dt:
        raise checks.invalid("corners", list(given), f"below the Nyquist frequency {0.5 / dt:g} Hz of samples every {dt:g} s")
    return given[0], given[1], given[2], given[3]


def trapezoid(frequencies: np.ndarray, corners: Sequence[float]) -> np.ndarray:
    """Amplitudes of a band between four corners with cosine tapers, at frequencies in Hz."""
    first, second, third, fourth = corners
    return taper(frequencies - first, second - first) * taper(fourth - frequencies, fourth - third)


def taper(distance: np.ndarray, width: float) -> np.ndarray:
    """0 below zero distance, 1 from the width on, a cosine taper between."""
    return np.sin(np.pi / 2 * np.clip(distance / width, 0, 1)) ** 2 if width else np.where(distance >= 0, 1.0, 0.0)


def padded(samples: int, more: int) -> int:
    """An even length of at least `samples + more` whose Fourier transform is fast."""
    return 2 * scipy.fft.next_fast_len((samples + more + 1) // 2, real=True)


def narrowest(corners: Sequence[float]) -> float:
    """The width of the narrowest taper of a filter, Hz; it rings for about one over that."""
    return min(width for width in (corners[1] - corners[0], corners[3] - corners[2]) if width > 0)


def band_corners(options: Bands, nyquist: float) -> list[Corners | None]:
    """The corners of every band's filter, Hz; None where all frequencies pass."""
    low = options.lowcut or (0.0, 0.0)
    if options.lowpass is not None:
        return [(*low, passed, passed * options.rolloff) for passed in options.lowpass]
    return [None if options.lowcut is None else (*low, 0.9 * nyquist, nyquist)]


@final
@dataclass(frozen=True, eq=False)
class Filter:
    """How traces [..., time] at the survey's samples become those of a band.

    Args:
        corners: Hz, or None to keep all frequencies and samples.
        dt: Sampling interval of the survey, s.
        interval: Of the band, s.
        lead: Samples of the band before time zero.
    """

    corners: Corners | None
    dt: float
    interval: float
    lead: int

    @classmethod
    def of(cls, corners: Corners | None, dt: float, stable: float) -> "Filter":
        """That of a band, whose operator is stable up to a given time step, s."""
        if corners is None:
            return cls(None, dt, dt, 0)
        interval = min(stable, 1 / (4 * corners[3]))  # the scheme's own frequencies end at 1 / (pi interval)
        return cls(corners, dt, interval, math.ceil(1 / narrowest(corners) / interval))

    def times(self, samples: int) -> np.ndarray:
        """Of the band's samples, s, zero where the source starts, for so many of the survey's from time zero on."""
        last = samples - 1 if self.corners is None else math.floor((samples - 1) * self.dt / self.interval * (1 + 1e-9))
        return self.interval * np.arange(-self.lead, last + 1)

    def __call__(self, signals: np.ndarray) -> np.ndarray:
        """Filtered, from the lead on, at the band's samples and of the scheme's frequencies; float32."""
        if self.corners is None:
            return np.asarray(signals, np.float32)
        samples = signals.shape[-1]
        count = self.times(samples).size
        angular, length = self._angular(count, self.interval)
        true = 2 / self.interval * np.sin(angular * self.interval / 2)
        gains = trapezoid(true / (2 * np.pi), self.corners) * self.dt / self.interval
        delay = np.exp(-1j * angular * self.lead * self.interval)
        return _mapped(signals, self.dt * np.arange(samples), true, gains * delay, length)[..., :count]

    def undone(self, signals: np.ndarray, samples: int, lead: int = 0) -> np.ndarray:
        """A band's traces [..., time] as its filter alone would have left them, at the survey's samples and in true time; float32.

        Args:
            signals: At the band's samples.
            samples: Of the survey, from time zero on.
            lead: Of the survey, before that.
        """
        if self.corners is None:
            return np.asarray(signals, np.float32)
        true, length = self._angular(lead + samples, self.dt)
        angular = 2 / self.interval * np.arcsin(np.minimum(true * self.interval / 2, 1.0))
        top = self.corners[3]
        gains = taper(END * top - true / (2 * np.pi), (END - 1) * top) * self.interval / self.dt
        times = self.interval * np.arange(-self.lead, signals.shape[-1] - self.lead)
        return _mapped(signals, times, angular, gains * np.exp(-1j * true * lead * self.dt), length)[..., : lead + samples]

    def _angular(self, count: int, interval: float) -> tuple[np.ndarray, int]:
        """Frequencies of a transform long enough that nothing wraps around into `count` samples, 1/s, and its length."""
        assert self.corners is not None
        length = padded(count, math.ceil(RESPONSE_PERIODS / narrowest(self.corners) / interval))
        return 2 * np.pi * np.fft.rfftfreq(length, interval), length

    def eased(self, wavelet: np.ndarray) -> np.ndarray:
        """A wavelet [..., time] that begins without a jump: eased in over half of the lead."""
        return wavelet * taper(np.arange(1, wavelet.shape[-1] + 1) * self.interval, self.lead * self.interval / 2)


def _mapped(signals: np.ndarray, times: np.ndarray, angular: np.ndarray, gains: np.ndarray, length: int) -> np.ndarray:
    """Traces [..., length] whose spectrum at their own frequencies is that of signals [..., time] at others, 1/s, times gains."""
    passed = np.flatnonzero(gains)
    waves = np.exp(-1j * np.outer(times, angular[passed]))
    spectrum = np.zeros((*signals.shape[:-1], gains.size), complex)
    spectrum[..., passed] = signals @ waves * gains[passed]
    return np.fft.irfft(spectrum, length).astype(np.float32)
