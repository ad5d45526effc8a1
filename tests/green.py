"""Pressure of a point source in a homogeneous medium, by formulas that share nothing with the propagator.

The equation is ``(1 / c^2) p_tt - laplace p = s(t) delta(x - x_s)``, at rest before time zero. With r the distance
(Aki & Richards, Quantitative Seismology, 2nd ed., 2002, section 4.1; Morse & Ingard, Theoretical Acoustics, 1968, section 7.3),

    3-D:    p(t) = s(t - r / c) / (4 pi r)
    2-D:    p(t) = 1 / (2 pi) integral of s(t - q) / sqrt(q^2 - (r / c)^2) over q > r / c
                 = 1 / (2 pi) integral of s(t - (r / c) cosh u) du over u from 0, which has no singularity;
            P(w) = S(w) (-i / 4) H0^(2)(w r / c) for the time dependence exp(i w t).

With variable density the right side is s(t) delta too, and the pressure that of constant density times the density.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import hankel2

Signal = Callable[[np.ndarray], np.ndarray]
_quadrature = functools.cache(np.polynomial.legendre.leggauss)  # an eigenvalue problem


def ricker(frequency: float, delay: float | None = None) -> Signal:
    """The Ricker wavelet as a function of time; the delay is 1.5 / frequency by default, and it is zero before time zero."""
    peak = 1.5 / frequency if delay is None else delay

    def signal(times: np.ndarray) -> np.ndarray:
        a = (np.pi * frequency * (times - peak)) ** 2
        return np.where(times < 0, 0.0, (1 - 2 * a) * np.exp(-a))

    return signal


def pressure(signal: Signal, distance: float, speed: float, times: Any, *, ndim: int, nodes: int = 0) -> np.ndarray:
    """The pressure at a distance, from the formulas in time.

    Args:
        signal: s as a function of an array of times in s; zero before time zero.
        distance: r, in m, above zero.
        speed: c, in m/s.
        times: [time] in s.
        ndim: 2 or 3.
        nodes: Of the Gauss-Legendre quadrature in 2-D; by default 400 to every second of the longest time, and no fewer than 400.

    Returns:
        [time] float64, in the unit of s over metres (3-D), or in that of s (2-D).
    """
    times = np.asarray(times, dtype=np.float64)
    if ndim == 3:
        return signal(times - distance / speed) / (4 * np.pi * distance)
    arrival = distance / speed
    last = np.arccosh(np.maximum(times / arrival, 1.0))
    roots, weights = _quadrature(nodes or int(400 * max(1.0, np.ceil(times.max(initial=0.0)))))
    result = np.zeros_like(times)
    for root, weight in zip(roots, weights, strict=True):
        result += weight * signal(times - arrival * np.cosh(last * (1 + root) / 2))
    return result * last / (4 * np.pi)


def pressure_of_samples(samples: Any, dt: float, distance: float, speed: float, *, ndim: int) -> np.ndarray:
    """The pressure at a distance, from the formulas in frequency, for a sampled and band-limited source.

    Frequencies have a small negative imaginary part, ``w - i d``, which is a factor exp(-d t) on all signals: the logarithm of the 2-D
    response at zero frequency is avoided, and what wraps around in time is damped by 1e-10.

    Args:
        samples: [..., time], s at 0, dt, ...
        dt: In s.
        distance, speed, ndim: As for `pressure`.

    Returns:
        [..., time] at the same times.
    """
    samples = np.asarray(samples, dtype=np.float64)
    n = samples.shape[-1]
    padded = 4 * n
    damping = np.log(1e10) / (padded * dt)
    decay = np.exp(-damping * dt * np.arange(n))
    omega = 2 * np.pi * np.fft.rfftfreq(padded, dt) - 1j * damping
    delay = omega * distance / speed
    response = np.exp(-1j * delay) / (4 * np.pi * distance) if ndim == 3 else -0.25j * hankel2(0, delay)
    return np.fft.irfft(np.fft.rfft(samples * decay, padded) * response, padded)[..., :n] / decay


def half_space(signal: Signal, source: Any, receiver: Any, surface: float, speed: float, times: Any) -> np.ndarray:
    """The pressure below a pressure-free plane: that of the source minus that of its mirror image.

    Args:
        signal, speed, times: As for `pressure`.
        source, receiver: [axis] positions in m, `upward` first; two or three axes.
        surface: `upward` of the plane, in m, above both.

    Returns:
        [time] float64.
    """
    source, receiver = np.asarray(source, dtype=np.float64), np.asarray(receiver, dtype=np.float64)
    image = np.r_[2 * surface - source[0], source[1:]]
    direct, reflected = (float(np.linalg.norm(receiver - start)) for start in (source, image))
    ndim = source.size
    return pressure(signal, direct, speed, times, ndim=ndim) - pressure(signal, reflected, speed, times, ndim=ndim)
