"""The cluster's cases of benchmark.py: waveforms and travel times by one process on one core, and by two workers."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from benchmark_cases import timed

from geoinv.cluster import connected
from geoinv.config import parse
from geoinv.datasets import netcdf, shots, synthetic
from geoinv.operators import Grid
from geoinv.operators.seismic import Eikonal
from geoinv.traveltime.job import in_blocks
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


def traveltime_workers(scale: float, repeats: int) -> Figures:
    """100 shots into as many receivers along a line, 60 000 nodes: the times with their derivative, and a product with J and its transpose."""
    count = max(10, round(100 * scale))
    line = np.linspace(0, 2000, count)
    places = np.stack([np.zeros(count), line], axis=1)
    grid = Grid.uniform((150, 400), (4.0, 5.0), (-600.0, 0.0))
    depth, along = -grid.centers[0][:, np.newaxis], grid.centers[1]
    whole = Eikonal(grid, places, np.tile(places, (count, 1)), np.repeat(np.arange(count), count))
    model = whole.of_nodes.forward(tf.constant(1 / (800 + 3 * depth + 100 * np.sin(along / 90))))
    everywhere, found, seconds = os.sched_getaffinity(0), [], []
    with connected(2) as cluster:
        for where, cores in ((None, {min(everywhere)}), (cluster, everywhere)):
            operator = in_blocks(whole.arrivals, where)
            at = operator.linearize(model)
            found.append((at.data, at.pullback(at.pushforward(model))))
            os.sched_setaffinity(0, cores)
            calls = {"linearize": lambda o=operator: o.linearize(model), "product": lambda at=at: at.pullback(at.pushforward(model))}
            seconds.append(timed(calls, repeats))
            os.sched_setaffinity(0, everywhere)
    for metric, one in seconds[0].items():
        yield "geoinv", f"{metric}, one core", one, "s"
        yield "geoinv", f"{metric}, two workers", seconds[1][metric], "s"
        yield "geoinv", f"{metric}, gain", one / seconds[1][metric], "times faster than one core"
    yield "geoinv", "same-bits", float(all(np.array_equal(a, b) for a, b in zip(*found, strict=True))), "of 1"
