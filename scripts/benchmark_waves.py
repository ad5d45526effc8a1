"""The waveform cases of benchmark.py: throughput counts the cells of the model, not those of the absorbing layers."""

import functools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from benchmark_cases import memory_growth, timed

from geoinv.operators import AcousticWave, Acquisition, Grid
from geoinv.operators.seismic import Absorbing, wavelets
from geoinv.operators.sensitivity import Every, StoreAll, Strategy

Figures = Iterator[tuple[str, str, float, str]]
SPACING, DT, FREQUENCY = 5.0, 1e-3, 25.0
LAYER = Absorbing(20)
#: What the peers call the same; Devito keeps every step, and so does the gradient it is held against.
ALIASES = {"forward": ("forward-order-4",), "gradient": ("gradient-every-1", "gradient-order-4")}


def survey(side: int, samples: int, shots: int, differentiation: Strategy) -> tuple[AcousticWave, dict[str, tf.Tensor]]:
    """Two layers, 1500 over 2000 m/s, with a receiver in every cell of a row near the top and the shots along it."""
    grid = Grid.uniform((side, side), (SPACING, SPACING))
    upward, easting = grid.centers
    receivers = np.stack([np.full(side, upward[-3]), easting], axis=1)
    columns = np.linspace(min(10, side // 4), side - min(10, side // 4), shots).astype(int)
    sources = np.stack([np.full(shots, upward[-3]), easting[columns]], axis=1)
    wavelet = wavelets.ricker(FREQUENCY, samples, DT, delay=0.06)
    velocity = np.where(np.arange(side)[:, np.newaxis] < side // 2, 2000.0, 1500.0) * np.ones(side)
    wave = AcousticWave(
        grid, Acquisition(sources, receivers), wavelet, dt=DT, velocity_limits=(1500.0, 2000.0), boundary=LAYER, differentiation=differentiation
    )
    return wave, {"velocity": tf.constant(velocity, tf.float32)}


def wave(side: int, samples: int, shots: int, scale: float, repeats: int) -> Figures:
    """Forward, and the gradient of the sum of squares: forward run, residual, adjoint run and velocity gradient."""
    side, samples = max(40, round(side * scale)), max(20, round(samples * scale))
    points = side**2 * samples * shots / 1e6
    operator, model = survey(side, samples, shots, Every(4))
    exact = survey(side, samples, shots, StoreAll())[0]

    def gradient(which: AcousticWave) -> np.ndarray:
        at = which.linearize(model)
        return np.asarray(at.vjp(2 * at.data)["velocity"])

    at = operator.linearize(model)
    few, _ = survey(side, max(20, round(100 * scale)), shots, StoreAll())
    yield "geoinv", "gradient-memory-100-steps", memory_growth(lambda: gradient(few)), "GB"
    calls = {
        "forward": lambda: np.asarray(operator.forward(model)),
        "gradient-every-4": lambda: gradient(operator),
        "gradient": lambda: gradient(exact),
        "jvp": lambda: np.asarray(at.jvp(model)),
    }
    for metric, call in calls.items():
        call()
        seconds = timed({metric: call}, repeats)[metric]
        for name in (metric, *ALIASES.get(metric, ())):
            yield "geoinv", name, points / seconds, "Mpt/s"
    yield "geoinv", "reflection", reflection(LAYER), "dB"


def reflection(layer: Absorbing) -> float:
    """What a layer sends back at normal incidence, over what a rigid end does, dB: differences to a grid that no echo crosses in time."""
    samples, width, inner = 400, 30, 200
    wavelet = wavelets.ricker(FREQUENCY, samples, DT, delay=0.06)

    def trace(beyond: int, boundary: Absorbing) -> np.ndarray:
        grid = Grid.uniform((2 * inner, inner + beyond), (SPACING, SPACING))
        points = np.array([[grid.centers[0][inner], grid.centers[1][inner]]])
        options = {"dt": DT, "velocity_limits": (1500.0, 2000.0), "boundary": boundary, "dtype": tf.float64}
        operator = AcousticWave(grid, Acquisition(points[np.newaxis], points), wavelet, **options)
        return np.asarray(operator.forward({"velocity": tf.fill(grid.shape, tf.constant(1500.0, tf.float64))}))

    endless = trace(inner, Absorbing(0))
    absorbed, reflected = (np.abs(trace(width, boundary) - endless).max() for boundary in (layer, Absorbing(0)))
    return float(20 * np.log10(absorbed / reflected))


wave_400 = functools.partial(wave, 400, 500, 4)
wave_1000 = functools.partial(wave, 1000, 200, 2)
