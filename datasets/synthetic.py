"""Synthetic surveys whose exact data are known: analytic prisms, seeded noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import xarray

from geoinv.operators import checks
from geoinv.operators.gravity.components import prism_field
from geoinv.operators.grid import Grid

from . import survey, topography


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

    random = np.random.default_rng(seed)
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
