"""The waveform cases of benchmark.py: throughput counts the cells of the model, not those of the absorbing layers."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from benchmark_cases import memory_growth, timed

from geoinv.operators import AcousticWave, Acquisition, Grid
from geoinv.operators.forward import Linearization, Nest
from geoinv.operators.seismic import Absorbing, wavelets
from geoinv.operators.sensitivity import Boundary, Every, StoreAll, Strategy

Figures = Iterator[tuple[str, str, float, str]]
SPACING, DT, FREQUENCY = 5.0, 1e-3, 25.0
#: Both return less than a thousandth at normal incidence: the metrics `reflection`, measured. Slanting waves find the wide one better.
LAYERS = {"": Absorbing(20), " (5 cells)": Absorbing(5, reflection=1e-3)}
#: What the peers call the same; Devito keeps every step, and so does the gradient it is held against.
ALIASES = {"forward": ("forward-order-4",), "gradient": ("gradient-every-1", "gradient-order-4")}


def survey(shape: Sequence[int], samples: int, shots: int, differentiation: Strategy, layer: Absorbing) -> tuple[AcousticWave, dict[str, tf.Tensor]]:
    """Two layers, 1500 over 2000 m/s, with a receiver in every cell of a row near the top and the shots along it."""
    grid = Grid.uniform(shape, (SPACING,) * len(shape))
    n, eastings = shape[-1], grid.centers[-1]
    row = [centers[-3] if axis == 0 else centers[len(centers) // 2] for axis, centers in enumerate(grid.centers)]
    receivers = np.tile(row, (n, 1))
    receivers[:, -1] = eastings
    sources = receivers[np.linspace(min(10, n // 4), n - min(10, n // 4), shots).astype(int)]
    wavelet = wavelets.ricker(FREQUENCY, samples, DT, delay=0.06)
    lower = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) < shape[0] // 2
    wave = AcousticWave(
        grid, Acquisition(sources, receivers), wavelet, dt=DT, velocity_limits=(1500.0, 2000.0), boundary=layer, differentiation=differentiation
    )
    return wave, {"velocity": tf.constant(np.broadcast_to(np.where(lower, 2000.0, 1500.0), shape), tf.float32)}


def wave(side: int, samples: int, shots: int, scale: float, repeats: int) -> Figures:
    """Forward, and the gradient of the sum of squares: forward run, residual, adjoint run and velocity gradient."""
    side, samples = max(40, round(side * scale)), max(20, round(samples * scale))
    points = side**2 * samples * shots / 1e6
    few, model = survey((side, side), max(20, round(100 * scale)), shots, StoreAll(), LAYERS[""])
    yield "geoinv", "gradient-memory-100-steps", memory_growth(lambda: _gradient(few, model)), "GB"
    for suffix, layer in LAYERS.items():
        operator, exact = (survey((side, side), samples, shots, strategy, layer)[0] for strategy in (Every(4), StoreAll()))
        at, sparsely = exact.linearize(model), operator.linearize(model)
        calls = {
            "forward": functools.partial(_forward, operator, model),
            "gradient-every-4": functools.partial(_gradient, operator, model),
            "gradient": functools.partial(_gradient, exact, model),
            "jvp": functools.partial(_jvp, at, model),
            "jvp-every-4": functools.partial(_jvp, sparsely, model),
        }
        seconds = {}
        for metric, call in calls.items():
            call()
            seconds |= timed({metric: call}, repeats)
            for name in (metric, *ALIASES.get(metric, ())):
                yield "geoinv", name + suffix, points / seconds[metric], "Mpt/s"
        for metric in ("jvp", "jvp-every-4"):  # where the images of every step were kept, and where the field is computed again
            yield "geoinv", f"{metric}-cost{suffix}", seconds[metric] / seconds["forward"], "forward runs"
        yield "geoinv", "reflection" + suffix, reflection(layer), "dB"


def wave_memory(scale: float, repeats: int) -> Figures:
    """The gradient of all shots in little memory: each forward and back before its core takes the next one. First of all in its process."""
    side, samples, shots = max(40, round(400 * scale)), max(20, round(500 * scale)), 4
    operator, model = survey((side, side), samples, shots, Boundary(), LAYERS[" (5 cells)"])
    call = functools.partial(_by_shot, operator, model)
    yield "geoinv", "gradient-memory", memory_growth(call), "GB"
    yield "geoinv", "gradient", side**2 * samples * shots / 1e6 / timed({"gradient": call}, repeats)["gradient"], "Mpt/s"


def wave_tangent(scale: float, repeats: int) -> Figures:
    """The change of the data of all shots for a change of the velocity, the run at the velocity itself included.

    It is held against both that TensorFlow can do; the loop in one function takes a tenth of the steps there, for it keeps them.
    """
    side, samples, shots = max(40, round(400 * scale)), max(20, round(500 * scale)), 4
    operator, model = survey((side, side), samples, shots, Boundary(), LAYERS[" (5 cells)"])
    call = functools.partial(_tangent, operator, model)
    growth = memory_growth(call)
    speed = side**2 * samples * shots / 1e6 / timed({"tangent": call}, repeats)["tangent"]
    for metric in ("tangent", "tangent-loop"):
        yield "geoinv", f"{metric}-memory", growth, "GB"
        yield "geoinv", metric, speed, "Mpt/s"


def wave_3d(scale: float, repeats: int) -> Figures:
    """Forward and gradient in a cube, with layers of 10 cells."""
    side, samples, shots = max(24, round(150 * scale)), max(160, round(300 * scale)), 2
    points = side**3 * samples * shots / 1e6
    operator, model = survey((side,) * 3, samples, shots, Every(4), Absorbing(10, reflection=1e-3))
    for metric, call in (("forward", _forward), ("gradient-every-4", _gradient)):
        work = functools.partial(call, operator, model)
        work()
        yield "geoinv", metric, points / timed({metric: work}, min(repeats, 2))[metric], "Mpt/s"
    yield "geoinv", "reflection", reflection(operator.boundary), "dB"


def _forward(wave: AcousticWave, model: Nest) -> np.ndarray:
    return np.asarray(wave.forward(model))


def _gradient(wave: AcousticWave, model: Nest) -> np.ndarray:
    at = wave.linearize(model)
    return np.asarray(at.vjp(2 * at.data)["velocity"])


def _by_shot(wave: AcousticWave, model: Nest) -> np.ndarray:
    return np.sum([part.values["velocity"] for part in wave.shot_gradients(model, lambda shot, data: 2 * data)], axis=0)


def _jvp(at: Linearization, model: Nest) -> np.ndarray:
    return np.asarray(at.jvp(model))


def _tangent(wave: AcousticWave, model: Nest) -> np.ndarray:
    return _jvp(wave.linearize(model), model)


def reflection(layer: Absorbing) -> float:
    """What a layer sends back at normal incidence, over what a pressure-free end does, dB: differences to a grid that no echo crosses in time."""
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
