"""The cluster's case of benchmark.py: the gradient of a waveform survey by one process on one core, and by two workers."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_cases import timed

from geoinv.cluster import connected
from geoinv.config import parse
from geoinv.datasets import netcdf, shots, synthetic
from geoinv.waveform import inputs
from geoinv.waveform.bands import bands
from geoinv.waveform.objective import Objective
from geoinv.waveform.spread import OnCluster

Figures = Iterator[tuple[str, str, float, str]]
SHOTS = 16


#: Of the records, s: calls cost 10 ms a shot, in the process that asks for the most part, whatever the shot takes.
LENGTHS = (2.0, 6.0)


def waveform_workers(scale: float, repeats: int) -> Figures:
    """Bits are compared, too."""
    with connected(2) as cluster:
        for length in LENGTHS:
            with tempfile.TemporaryDirectory() as folder:
                yield from _compared(_config(Path(folder), scale, length), f" ({length:g} s records)", repeats, cluster)


def _config(folder: Path, scale: float, length: float) -> Any:
    shape = max(20, round(100 * scale)), max(60, round(300 * scale))
    made = synthetic.waveform(shape=shape, spacing=20.0, shot_count=SHOTS, receiver_count=60, frequency=8.0, length=length, noise=0.05)
    netcdf.write(folder / "shots.nc", made.survey)
    netcdf.write(folder / "start.nc", made.start)
    options = {"data": {"file": "shots.nc"}, "model": {"file": "start.nc"}, "source": {"frequency": 8.0}, "bands": {"lowpass": [10.0]}}
    return parse({"kind": "waveform", **options}, folder=folder)


def _compared(config: Any, variant: str, repeats: int, cluster: Any) -> Figures:
    read = inputs.load(config)
    (band,) = bands(config, shots.dt(read.survey))
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everywhere)})
    alone = Objective.of(config, read, band)
    model = alone.start(read.velocity)
    alone = alone.tuned(model)
    one = timed({"gradient": lambda: alone.value_and_gradient(model)}, repeats)["gradient"]
    found = alone.value_and_gradient(model)
    os.sched_setaffinity(0, everywhere)
    spread = Objective.of(config, read, band, OnCluster(cluster, {})).taken_up(alone.wavelet, 0.0)
    spread.value_and_gradient(model)  # workers read the survey and compile
    two = timed({"gradient": lambda: spread.value_and_gradient(model)}, repeats)["gradient"]
    same = all(np.array_equal(a, b) for a, b in zip(found, spread.value_and_gradient(model), strict=True))
    yield "geoinv", f"one-core{variant}", one, "s"
    yield "geoinv", f"two-workers{variant}", two, "s"
    yield "geoinv", f"gain{variant}", one / two, "times faster than one core"
    yield "geoinv", f"same-bits{variant}", float(same), "of 1"
