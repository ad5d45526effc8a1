"""The cluster's case of benchmark.py: the gradient of a waveform survey by one process on one core, and by two workers."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

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


def waveform_workers(scale: float, repeats: int) -> Figures:
    """Bits are compared, too."""
    shape = max(20, round(100 * scale)), max(60, round(300 * scale))
    with tempfile.TemporaryDirectory() as folder:
        made = synthetic.waveform(shape=shape, spacing=20.0, shot_count=SHOTS, receiver_count=60, frequency=8.0, length=2.0, noise=0.05)
        netcdf.write(Path(folder) / "shots.nc", made.survey)
        netcdf.write(Path(folder) / "start.nc", made.start)
        options = {"data": {"file": "shots.nc"}, "model": {"file": "start.nc"}, "source": {"frequency": 8.0}, "bands": {"lowpass": [10.0]}}
        config = parse({"kind": "waveform", **options}, folder=Path(folder))
        read = inputs.load(config)  # type: ignore[arg-type]
        (band,) = bands(config, shots.dt(read.survey))  # type: ignore[arg-type]
        everywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(everywhere)})
        alone = Objective.of(config, read, band)  # type: ignore[arg-type]
        model = alone.start(read.velocity)
        alone = alone.tuned(model)
        one = timed({"gradient": lambda: alone.value_and_gradient(model)}, repeats)["gradient"]
        found = alone.value_and_gradient(model)
        os.sched_setaffinity(0, everywhere)
        with connected(2) as cluster:
            assert cluster is not None
            spread = Objective.of(config, read, band, OnCluster(cluster)).taken_up(alone.wavelet, 0.0)  # type: ignore[arg-type]
            spread.value_and_gradient(model)  # workers read the survey and compile
            two = timed({"gradient": lambda: spread.value_and_gradient(model)}, repeats)["gradient"]
            same = all(np.array_equal(a, b) for a, b in zip(found, spread.value_and_gradient(model), strict=True))
    yield "geoinv", "gradient (one core)", one, "s"
    yield "geoinv", "gradient (two workers)", two, "s"
    yield "geoinv", "gain", one / two, "times faster than one core"
    yield "geoinv", "same bits", float(same), "of 1"
