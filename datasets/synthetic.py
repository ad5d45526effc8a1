"""Synthetic surveys over known models, with seeded noise: gravity of analytic prisms, waves by finite differences on finer cells."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import xarray

from geoinv.operators import checks
from geoinv.operators.gravity.components import prism_field
from geoinv.operators.grid import Grid
from geoinv.operators.seismic import limits, resampling, wavelets

from . import shots, survey, topography


@final
@dataclass(frozen=True, eq=False)
class GravityExample:
    """A gravity survey over a known model.

    Args:
        survey: What was measured (see `geoinv.datasets.survey`).
        grid: The cells of the model.
        density: The true contrast on the cells, in kg/m3.
        active: Cells below the ground, bool, shaped as the grid.
        block_center: Upward, northing, easting of the block's centre, in metres.
    """

    survey: xarray.Dataset
    grid: Grid
    density: xarray.DataArray
    active: np.ndarray
    block_center: tuple[float, ...]


def gravity(
    *,
    seed: int = 0,
    shape: Sequence[int] = (12, 24, 24),
    spacing: Sequence[float] = (50.0, 100.0, 100.0),
    stations: Sequence[int] = (20, 20),
    height: tuple[float, float] = (1.0, 10.0),
    contrast: float = 400.0,
    relief: float = 0.0,
    components: Sequence[str] = ("gz",),
    noise: float = 2e-7,
    gradient_noise: float = 1e-9,
) -> GravityExample:
    """A buried dense block in the middle of a grid, seen by a regular array of stations just above the ground.

    The block fills the cells from 1/3 to 2/3 of the depth and from 3/8 to 5/8 of either side. The ground lies at
    upward 0, or, with relief, in a plain at -relief from which a hill rises to 0 in the middle.

    Args:
        seed: Of NumPy's default generator, which draws station heights and noise; the same seed gives the same survey.
        shape: Cells along (upward, northing, easting), at least 3 each.
        spacing: Cell sizes along the same axes, in metres.
        stations: Stations along (northing, easting), over the inner nine tenths of the grid.
        height: Lowest and highest station above the ground, in metres.
        contrast: Density of the block, in kg/m3.
        relief: Height of the hill, in metres; less than the block's depth.
        components: Which data, such as ("gz", "gzz").
        noise: Standard deviation of Gaussian noise on gz, gx, gy, in m/s2; 2e-7 is 0.02 mGal. Zero leaves the uncertainty "not given".
        gradient_noise: The same for the gradients, in 1/s2; 1e-9 is 1 eotvos.

    Raises:
        ValueError: Too few cells, an unknown component, a relief that exposes the block, or heights or noise out of range.
    """
    depth, *sides = (int(n) for n in checks.shape("shape", shape, (3,)))
    if min(depth, *sides) < 3:
        raise checks.invalid("shape", tuple(shape), "3 cells or more along each axis")
    if not 0 <= height[0] <= height[1]:
        raise checks.invalid("height", tuple(height), "(lowest, highest), not negative")
    if noise < 0 or gradient_noise < 0:
        raise checks.invalid("noise", f"{noise:g}, {gradient_noise:g}", "zero or more")
    grid = Grid.uniform(shape, spacing, origin=(-depth * spacing[0], 0.0, 0.0))
    block = (slice(depth // 3, math.ceil(depth * 2 / 3)), *(slice(n * 3 // 8, math.ceil(n * 5 / 8)) for n in sides))
    if not 0 <= relief < -grid.edges[0][block[0].stop]:
        raise checks.invalid("relief", relief, f"at least 0 and below the block's depth, {-grid.edges[0][block[0].stop]:g} m")
    density = np.zeros(grid.shape)
    density[block] = contrast

    random = _generator(seed)
    points = _station_points(grid, stations, height, relief, random)
    upward, northing, easting = points.T
    deviation = {name: noise if survey.COMPONENTS.get(name) == "m/s2" else gradient_noise for name in components}
    observed = {name: prism_field(name, points, grid, density) + random.normal(0.0, deviation[name], len(points)) for name in components}
    ground = _ground(grid, relief, grid.centers[1][:, None], grid.centers[2])
    active = topography.active_cells(grid, ground, dict(zip(grid.dims, points.T, strict=True)))
    return GravityExample(
        survey=survey.make(easting, northing, upward, observed, deviation, history=[f"synthetic block, seed {seed}, contrast {contrast:g} kg/m3"]),
        grid=grid,
        density=grid.to_xarray(density, name="density", units="kg/m3"),
        active=active,
        block_center=tuple(float(axis[part].mean()) for axis, part in zip(grid.centers, block, strict=True)),
    )


def _ground(grid: Grid, relief: float, northing: np.ndarray, easting: np.ndarray) -> np.ndarray:
    """Elevation of the ground: a Gaussian hill, its width a sixth of the grid, on a plain at -relief."""
    distance = [(x - edges.mean()) / (np.ptp(edges) / 6) for x, edges in ((northing, grid.edges[1]), (easting, grid.edges[2]))]
    return relief * (np.exp(-(distance[0] ** 2 + distance[1] ** 2) / 2) - 1)


def _station_points(grid: Grid, counts: Sequence[int], height: tuple[float, float], relief: float, random: np.random.Generator) -> np.ndarray:
    """Stations [station, (upward, northing, easting)] on a regular array, each at a random height above the ground."""
    lines = [edges[0] + np.ptp(edges) * np.linspace(0.05, 0.95, n) for edges, n in zip(grid.edges[1:], counts, strict=True)]
    northing, easting = (axis.ravel() for axis in np.meshgrid(*lines, indexing="ij"))
    upward = _ground(grid, relief, northing, easting) + random.uniform(*height, northing.size)
    return np.stack([upward, northing, easting], axis=1)


# ----------------------------------------------------------------------------------------------------------------- waves


@final
@dataclass(frozen=True, eq=False)
class WaveformExample:
    """A line of shots over a known model.

    Args:
        survey: What was recorded (see `geoinv.datasets.shots`).
        grid: The cells of the model, (upward, easting).
        velocity: The true one on the cells, in m/s.
        start: A smooth one to start from, in m/s.
    """

    survey: xarray.Dataset
    grid: Grid
    velocity: xarray.DataArray
    start: xarray.DataArray


def waveform(
    *,
    seed: int = 0,
    shape: tuple[int, int] = (60, 200),
    spacing: float = 20.0,
    shot_count: int = 16,
    receiver_count: int = 67,
    contrast: float = 0.12,
    frequency: float = 7.0,
    length: float = 3.0,
    noise: float = 0.05,
) -> WaveformExample:
    """A fast and a slow lens in a velocity that grows with depth, seen by sources and receivers along the surface.

    Velocity is 1600 m/s at the top and doubles down to the bottom, so that rays turn and come back up from where the lenses lie: at a
    third of the depth, one and two thirds along the line. It is modelled with differences of order 8 on cells of half the size.

    Args:
        seed: Of NumPy's default generator, which draws the noise.
        shape: Cells along (upward, easting), at least 10 each.
        spacing: Cell size, in metres.
        shot_count, receiver_count: Along the line, one and a half cells deep.
        contrast: Of the lenses, a fraction of the velocity around them.
        frequency: Peak of the Ricker wavelet in Hz; its phase is turned by 60 degrees, and it has nothing below a third of that.
        length: Of the records, in seconds.
        noise: White, as a fraction of the root mean square of each shot. Zero leaves the uncertainty "not given".

    Raises:
        ValueError: Too few cells, or numbers out of range.
    """
    depth, width = (int(n) for n in checks.shape("shape", shape, (2,)))
    if min(depth, width) < 10:
        raise checks.invalid("shape", tuple(shape), "10 cells or more along each axis")
    grid = Grid.uniform((depth, width), (spacing, spacing), origin=(-depth * spacing, 0.0))
    down = -grid.centers[0][:, None] / (depth * spacing)
    start = np.broadcast_to(1600.0 * (1 + down), grid.shape)
    lenses = sum(
        sign * np.exp(-(((down - 0.33) / 0.11) ** 2) - ((grid.centers[1] / (width * spacing) - at) / 0.08) ** 2)
        for sign, at in ((1.0, 0.36), (-1.0, 0.64))
    )
    velocity = start * (1 + contrast * lenses)
    surface = -1.5 * spacing
    sources = np.stack([np.full(shot_count, surface), np.linspace(0.04, 0.96, shot_count) * width * spacing], axis=1)
    receivers = np.stack([np.full(receiver_count, surface), np.linspace(0.02, 0.98, receiver_count) * width * spacing], axis=1)
    dt = 0.004
    wavelet = turned_ricker(frequency, math.ceil(length / dt), dt, corners=(frequency / 3, frequency / 2), phase=60.0)
    data = record(grid, velocity, sources, receivers, wavelet, dt=dt, refine=2, noise=noise, seed=seed)
    return WaveformExample(
        survey=data,
        grid=grid,
        velocity=grid.to_xarray(velocity, name="velocity", units="m/s"),
        start=grid.to_xarray(np.array(start), name="velocity", units="m/s"),
    )


def turned_ricker(frequency: float, n: int, dt: float, *, corners: tuple[float, float], phase: float) -> np.ndarray:
    """A Ricker wavelet [n] without its low frequencies, its phase turned: what an inversion that expects a Ricker wavelet has to find out.

    Args:
        frequency: Of the Ricker wavelet, Hz.
        n, dt: Number of samples, and their interval in seconds.
        corners: Below the first of these frequencies, Hz, there is nothing; from the second on all of it.
        phase: By which all frequencies are turned, degrees.
    """
    delay = 1.2 / corners[0]  # the filter spreads the wavelet to both sides
    spectrum = np.fft.rfft(wavelets.ricker(frequency, 2 * n, dt, delay=delay))
    rise = np.clip((np.fft.rfftfreq(2 * n, dt) - corners[0]) / (corners[1] - corners[0]), 0, 1)
    return np.fft.irfft(spectrum * np.sin(np.pi / 2 * rise) ** 2 * np.exp(1j * np.radians(phase)), 2 * n)[:n]


def record(
    grid: Grid,
    velocity: np.ndarray,
    sources: np.ndarray,
    receivers: np.ndarray,
    wavelet: np.ndarray,
    *,
    dt: float,
    refine: int = 2,
    order: int = 8,
    free_surface: bool = False,
    noise: float = 0.05,
    seed: int = 0,
) -> xarray.Dataset:
    """A waveform survey over a velocity model by finite differences, with noise.

    Args:
        grid: The model's cells.
        velocity: Shaped as the grid, in m/s.
        sources: [shot, axis], in metres, in the order of the grid's axes.
        receivers: [receiver, axis], in metres: one spread for all shots.
        wavelet: [time].
        dt: Of wavelet and records, in seconds.
        refine: Into how many each cell is cut along every axis.
        order: Of the differences in space.
        free_surface: Whether the top reflects.
        noise: White and Gaussian, as a fraction of the root mean square of each shot's traces.
        seed: Of NumPy's default generator, which draws it.
    """
    random = _generator(seed)  # refuses before the modelling, not after it
    import tensorflow as tf

    from geoinv.operators.seismic import Absorbing, AcousticWave, Acquisition

    fine = Grid.uniform([n * refine for n in grid.shape], [widths[0] / refine for widths in grid.widths], [edges[0] for edges in grid.edges])
    values = np.kron(velocity, np.ones((refine,) * grid.ndim))
    finer = math.ceil(dt / limits.stable_step([widths[0] for widths in fine.widths], values.max(), order))
    wave = AcousticWave(
        fine, Acquisition(sources, receivers), resampling.resample(wavelet, dt, dt / finer, wavelet.size * finer),
        dt=dt / finer, velocity_limits=(values.min(), values.max()), order=order, boundary=Absorbing(20, free_surface=free_surface),
    )  # fmt: skip
    few = np.array_split(np.arange(len(sources)), math.ceil(len(sources) / 4))
    model = {"velocity": tf.constant(values, tf.float32)}
    gathers = (wave.subset(some).forward(model).numpy() for some in few)
    clean = np.concatenate([resampling.resample(gather, dt / finer, dt, wavelet.size) for gather in gathers])
    deviation = noise * np.sqrt(np.mean(clean**2, axis=(1, 2)))
    noisy = clean + deviation[:, None, None] * random.standard_normal(clean.shape)
    cell, made = " x ".join(f"{each:g}" for each in wave.spacing), f"order {order}, steps of {1e3 * wave.internal_step:.3g} ms"
    return shots.make(
        noisy,
        dt * np.arange(wavelet.size),
        dict(zip(grid.dims, np.asarray(sources).T, strict=True)),
        dict(zip(grid.dims, np.asarray(receivers).T, strict=True)),
        uncertainty=np.broadcast_to(deviation[:, None], noisy.shape[:2]),
        history=[f"modelled on cells of {cell} m, {made}; noise of {100 * noise:g} % of each shot's rms, seed {seed}"],
    )


def _generator(seed: int) -> np.random.Generator:
    if seed < 0:
        raise checks.invalid("seed", seed, "0 or more")
    return np.random.default_rng(seed)
