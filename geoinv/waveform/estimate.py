"""What a full-waveform inversion will take, band by band: memory from its plan, time from short runs of as many shots as run side by side."""

import warnings
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from geoinv.datasets import shots
from geoinv.operators.parallel import at_most, cores
from geoinv.operators.seismic import AcousticWave
from geoinv.operators.sensitivity.timing import measured

from .. import estimate
from .bands import Band, Setup, adjoint_top, bands
from .config import WaveformConfig
from .inputs import Inputs, load
from .waves import build_operator, changed, snapshots

#: Samples of the short runs.
SHORT = (40, 120)
#: Vectors of the model beside the optimiser's pairs.
VECTORS = 12


def estimates(config: WaveformConfig, budget: float | None) -> list[estimate.Estimate]:
    """One for each band.

    Args:
        config: The job's.
        budget: Bytes that may be taken, or None: then the config's propagator.snapshot_memory decides.

    Raises:
        ValueError: Anything wrong with the config or its data.
    """
    inputs = load(config)
    with warnings.catch_warnings(), at_most(config.propagator.shots_at_a_time):
        warnings.simplefilter("ignore", UserWarning)
        return list(_estimates(config, inputs, budget))


def _estimates(config: WaveformConfig, inputs: Inputs, budget: float | None) -> Iterator[estimate.Estimate]:
    gathers = 0.0
    for band in bands(config, shots.dt(inputs.survey)):
        setup = Setup.of(config, inputs, band)
        wave = build_operator(config, inputs, setup.averaging.coarse, setup.wavelet, setup.filter.interval)
        gathers += 4.0 * np.prod(wave.data_spec.shape)  # those of bands that have ended are kept
        optimiser = 2 * config.inversion.memory if config.inversion.optimiser == "lbfgs" else 2
        yield _of_band(config, band, wave, gathers, 8.0 * (optimiser + VECTORS) * inputs.free.sum(), budget)


def _of_band(
    config: WaveformConfig, band: Band, wave: AcousticWave, gathers: float, vectors: float, budget: float | None
) -> estimate.Estimate:  # fmt: skip
    chosen, options = _chosen(config, band, wave), dict[str, float]()
    running = min(cores(), wave.acquisition.shots)
    seconds = _round(chosen, running)
    # Programs that were compiled for the short runs are as large as those of the long ones, and stay.
    memory = {"process, programs and data": estimate.resident(), "filtered data": gathers, "model vectors": vectors}
    allowed = float("inf") if budget is None else max(0.01, round((budget - sum(memory.values())) / 1e9 - 0.005, 2))
    if allowed < config.propagator.snapshot_memory or _taken(chosen, running) > 1e9 * allowed:
        chosen, running, options = _fitting(config, band, wave, min(allowed, config.propagator.snapshot_memory))
        with at_most(running):
            seconds = _round(chosen, running)
    duration = -(-wave.acquisition.shots // running) * seconds
    taken = chosen.memory_estimate(running)
    memory |= {"snapshots": float(taken.kept), "wavefields": float(taken.running)}
    frequencies = "all frequencies" if band.top is None else f"up to {band.top:g} Hz"
    cells = " x ".join(map(str, wave.grid.shape))
    note = f"{wave.acquisition.shots} shots, {running} at a time, {cells} cells, gradients with {chosen.differentiation}"
    return estimate.Estimate(f"band {band.number} ({frequencies})", memory, duration, [note], options)


def _fitting(config: WaveformConfig, band: Band, wave: AcousticWave, allowed: float) -> tuple[AcousticWave, int, dict[str, float]]:
    """What fits in so many GB, or comes nearest: checkpoints for as many shots as run side by side, else fewer shots; and how to ask for it."""
    propagator = config.propagator.model_copy(update={"snapshot_memory": allowed})
    given, most = config.model_copy(update={"propagator": propagator}), min(cores(), wave.acquisition.shots)
    for running in range(most, 0, -1):
        with at_most(running):
            chosen = _chosen(given, band, wave)
        if _taken(chosen, running) <= 1e9 * allowed:
            break
    fewer = {"propagator.shots_at_a_time": running} if running < most else {}
    return chosen, running, {"propagator.snapshot_memory": allowed, **fewer}


def _taken(wave: AcousticWave, running: int) -> float:
    """Bytes."""
    taken = wave.memory_estimate(running)
    return float(taken.kept + taken.running)


def _chosen(config: WaveformConfig, band: Band, wave: AcousticWave) -> AcousticWave:
    """With what it will keep for gradients."""
    return changed(wave, differentiation=snapshots(config, wave, adjoint_top(band.corners, wave.wavelet, wave.dt)))


def _round(wave: AcousticWave, running: int) -> float:
    """Seconds of the gradients of the shots that run side by side: two short records without a signal, and the line through them."""
    total = wave.wavelet.shape[-1]
    lengths = sorted({min(each, total) for each in SHORT})
    return estimate.carried_on(lengths, [_short(wave, running, length) for length in lengths], total)


def _short(wave: AcousticWave, running: int, samples: int) -> float:
    short = changed(wave, wavelet=np.zeros((*wave.wavelet.shape[:-1], samples)), samples=samples).subset(np.arange(running))
    model = {"velocity": tf.fill(wave.grid.shape, tf.constant(np.mean(wave.velocity_limits), wave.dtype))}

    def gradients() -> None:
        for _ in short.shot_gradients(model, lambda _, data: tf.zeros_like(data)):
            pass

    return measured(gradients).seconds
