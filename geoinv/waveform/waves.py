"""The wave operator of a band, and what it keeps for gradients."""

import dataclasses
import warnings
from typing import Any

import numpy as np

from geoinv.datasets import shots
from geoinv.operators import checks
from geoinv.operators.grid import Grid
from geoinv.operators.parallel import cores
from geoinv.operators.seismic import Absorbing, AcousticWave, Acquisition
from geoinv.operators.sensitivity.strategy import Checkpointed, Every, Strategy

from .bands import check_snapshots, fastest, snapshot_interval
from .cells import interpolated
from .config import WaveformConfig
from .inputs import Inputs

#: What of the amplitude of adjoint sources may lie above the frequency that snapshots are chosen for: they end with the record.
LEVEL = 5e-3
#: The share of the largest interval between snapshots that is used.
MARGIN = 0.8
#: Steps between snapshots to choose from. The loop is unrolled over an interval, and over several of those that 3, 4 and 5 do not divide.
INTERVALS = (12, 10, 9, 8, 6, 5, 4, 3, 2)


def build_operator(config: WaveformConfig, inputs: Inputs, grid: Grid, wavelet: np.ndarray, dt: float) -> AcousticWave:
    """The wave operator of a band, which keeps no snapshots yet.

    Args:
        config, inputs: Of the job.
        grid: The band's cells.
        wavelet: [time] or [shot, source, time] at the band's samples.
        dt: Between these, s.
    """
    options = config.propagator
    return AcousticWave(
        grid,
        Acquisition(*shots.acquisition_arrays(inputs.survey, grid.dims)),
        wavelet,
        dt=dt,
        velocity_limits=(float(inputs.velocity.min()), fastest(inputs)),
        order=options.order,
        boundary=Absorbing(options.absorbing_cells, free_surface=options.free_surface),
        density=None if inputs.density is None else interpolated(inputs.density, inputs.grid, grid),
        aperture=options.aperture,
    )


def changed(wave: AcousticWave, **options: Any) -> AcousticWave:
    """An operator with other options, made without the warnings that were given when the first one of the band was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return dataclasses.replace(wave, **options)


def snapshots(config: WaveformConfig, wave: AcousticWave, highest: float) -> Strategy:
    """What the operator keeps for gradients: as few snapshots as the bands of wavelet and adjoint sources allow, or checkpoints.

    Args:
        config: Of the job.
        wave: With the band's wavelet.
        highest: Frequency of the adjoint sources, Hz.

    Raises:
        ValueError: The config's interval between snapshots is too long.

    Warns:
        UserWarning: Not even the fewest checkpoints fit in snapshot_memory.
    """
    options = config.propagator
    largest = snapshot_interval(wave.wavelet, wave.dt, highest, wave.internal_step)
    check_snapshots(options.snapshot_every, largest)
    every = options.snapshot_every or next((every for every in INTERVALS if every <= MARGIN * largest), 1)
    running = min(cores(), wave.acquisition.shots)
    plans: list[Strategy] = [Every(every, level=LEVEL), *(Checkpointed(states) for states in (64, 32, 16, 8, 4, 2))]
    for plan in plans:
        size = changed(wave, differentiation=plan).memory_estimate(running)
        if (gigabytes := (size.kept + size.running) / 1e9) <= options.snapshot_memory:
            return plan
    text = f"gradients take {gigabytes:.2g} GB with {plan}, more than snapshot_memory = {options.snapshot_memory:g} GB"
    checks.warn(f"{text}; larger cells, an aperture, or fewer shots_at_a_time would save some")
    return plan
