"""Gravity by finite differences against analytic prisms, as a table (``pytest -s`` shows it), and under refinement.

Errors are relative to the peak of the analytic field over the stations of the same height, for each model by itself.
"""

import functools
import itertools
from typing import NamedTuple, final

import choclo
import numpy as np
import pytest

from geoinv.operators.gravity.poisson import GravityPoisson
from geoinv.operators.gravity.prism import GravityPrism
from geoinv.operators.grid import Grid
from geoinv.operators.testing import order_test

HEIGHTS = (0.0, 0.1, 0.5, 1.0, 2.0, 10.0)  # in cells above the ground
GRADIENTS = ("gx", "gy", "gzz", "gxx", "gyy", "gxy", "gxz", "gyz")
RANDOM = 20
# What is asked of the operator, (components, tolerance, bar), and in which grids it is asked in the quick suite.
ASKED = {"gz": (("gz",), 1e-2, 1e-2), "gz, finer": (("gz",), 3e-3, 3e-3), "gradients": (GRADIENTS, 1e-2, 2e-2)}
QUICK = {("steps", "gz"), ("steps", "gz, finer"), ("steps", "gradients"), ("UBC-like", "gz")}
# Each scope is the models it is about, and the heights.
SCOPES = {"blocks": slice(0, 5), "random": slice(0, 5), "cells": slice(0, 5), "air": slice(5, 6)}


def cases() -> list:
    """Every (grid, what is asked, scope)."""
    found = []
    for name in ("cubic", "flat", "very flat", "UBC-like", "abrupt", "steps"):
        for asked, scope in itertools.product(ASKED, SCOPES):
            marks = [] if (name, asked) in QUICK else [pytest.mark.slow]
            found.append(pytest.param(name, asked, scope, marks=marks))
    return found


@final
class Ground(NamedTuple):
    """A grid and the index of the lowest inactive cell of each column: where the air begins."""

    grid: Grid
    air: np.ndarray

    @property
    def depth(self) -> np.ndarray:
        """How many active cells lie above each cell; negative in the air."""
        return self.air - 1 - np.arange(self.grid.shape[0])[:, None, None]


def staircase(grid: Grid) -> Ground:
    """Terraces of two cells, a trench, and a tower of one column three cells high."""
    levels, rows, columns = grid.shape
    air = np.full((rows, columns), levels - 6)
    air[:, columns // 2 :] += 2
    air[rows // 2 :, columns // 2 + 3 :] += 1
    air[2:4, 1:5] -= 2
    air[rows - 4, 3] += 3
    return Ground(grid, air)


@functools.cache
def ground(name: str) -> Ground:
    """The grids of the table, 9 to 16 cells along each axis."""
    if name == "UBC-like":
        grid = Grid.uniform((8, 10, 10), (25.0, 50.0, 50.0)).pad(((5, 0), (3, 3), (3, 3)), ratio=1.4)
    elif name == "abrupt":
        widths = [np.array([93.0] * 3 + [10.0] * 6), *[np.array([93.0] * 2 + [20.0] * 10 + [93.0] * 2)] * 2]
        grid = Grid(tuple(np.concatenate([[0.0], np.cumsum(axis)]) for axis in widths))
    else:
        spacing = {"cubic": (100.0, 100.0, 100.0), "flat": (50.0, 100.0, 100.0), "very flat": (100.0, 500.0, 500.0), "steps": (50.0, 100.0, 100.0)}
        grid = Grid.uniform((12 if name == "steps" else 10, 14, 14), spacing[name], (-300.0, 2000.0, -1000.0))
    return staircase(grid) if name == "steps" else Ground(grid, np.full(grid.shape[1:], grid.shape[0]))


def models(land: Ground) -> dict[str, np.ndarray]:
    """The densities of the table, in kg/m3; depths in cells below the ground."""
    depth, (_, rows, columns) = land.depth, land.grid.shape
    rng = np.random.default_rng(7)
    found = {f"random {k}": rng.standard_normal(depth.shape) for k in range(RANDOM)}
    smooth = np.sin(2.3 * land.grid.centers[1] / np.ptp(land.grid.edges[1]) * np.pi)[:, None] * np.cos(
        3.1 * land.grid.centers[2] / np.ptp(land.grid.edges[2]) * np.pi
    )

    def box(top: int, height: int, north: slice, east: slice) -> np.ndarray:
        density = np.zeros(depth.shape)
        density[:, north, east] = ((depth >= top) & (depth < top + height))[:, north, east]
        return density

    middle = slice(rows // 2 - 2, rows // 2 + 2), slice(columns // 2 - 2, columns // 2 + 2)
    found |= {f"block at {top}": box(top, 3, *middle) for top in (0, 1, 2, 5)}
    everywhere = slice(None), slice(None)
    found |= {"slab": box(0, depth.shape[0], *everywhere), "deep slab": box(2, 3, *everywhere), "layer": box(0, 1, *everywhere)}
    found |= {"smooth layer": box(0, 1, *everywhere) * smooth, "corner block": box(0, 3, slice(3), slice(3))}
    found |= {f"cell at {top}": box(top, 1, slice(rows // 2, rows // 2 + 1), slice(5, 6)) for top in (0, 1, 3)}
    found |= {"corner cell": box(0, 1, slice(1), slice(1)), "edge cell": box(2, 1, slice(-1, None), slice(6, 7))}
    return {name: np.where(depth >= 0, density, 0.0) for name, density in found.items()}


def places(land: Ground) -> np.ndarray:
    """Stations [station, (northing, easting)] in cells: on nodes, edges and faces, anywhere, and near the grid's rim."""
    _, rows, columns = land.grid.shape
    j, i = rows // 2, columns // 2
    rng = np.random.default_rng(3)
    nodes = [(j, i), (j, 5), (j - 2, i - 2), (2, 3), (rows - 4, 4)]
    edges = [(j + 0.5, i), (j, i + 0.5), (j + 2, 3.5), (j + 0.5, 5), (3.5, 5), (2, 2.5), (rows - 3.5, 4), (rows - 3.5, 3)]
    faces = [(j + 0.5, 5.5), (j + 0.5, i + 0.5), (2.5, 2.5), (rows - 3.5, 3.5), (j - 2.5, i - 1.5)]
    anywhere = rng.uniform((3, 3), (rows - 3, columns - 3), (6, 2))
    rim = [(0.5, 0.5), (0.9, 0.5), (0.5, 0.9), (0.3, i + 0.2), (rows - 0.2, 6.6), (rows - 0.4, columns - 0.3), (j - 0.3, 0.1)]
    single = [(j + 0.9, 5.9), (j + 0.5, 5.1), (j + 0.1, 5.5), (j + 1.5, 5.5), (j + 0.5, 7.5)]  # the single cell's own peaks
    return np.array([*nodes, *edges, *faces, *anywhere, *rim, *single])


@functools.cache
def stations(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Points [station, axis] in metres at every height over every place, and the height of each in cells.

    A place between columns stands once on the lowest of them (at the foot of a wall) and once on the highest (at its edge).
    """
    land = ground(name)
    up, north, east = land.grid.edges
    points, heights = [], []
    for row, column in places(land):
        beside = np.ix_(*[[int(np.ceil(x)) - 1, int(np.floor(x))] for x in (row, column)])
        for air in sorted({int(land.air[beside].min()), int(land.air[beside].max())}):
            for height in HEIGHTS:
                z = up[air] + height * (up[air] - up[air - 1])
                points.append((z, np.interp(row, np.arange(north.size), north), np.interp(column, np.arange(east.size), east)))
                heights.append(height)
    return np.array(points), np.array(heights)


def coordinates(points: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(("upward", "northing", "easting"), points.T, strict=True))


def off_edges(grid: Grid, points: np.ndarray) -> np.ndarray:
    """Where gradients are finite whatever the model: a point on an edge has two coordinates or more on the grid's planes."""
    on_planes = sum(np.isin(points[:, axis], grid.edges[axis]).astype(int) for axis in range(3))
    return (on_planes < 2) | (points[:, 0] > grid.edges[0][-1])


@functools.cache
def errors(name: str, components: tuple[str, ...], tolerance: float) -> dict[str, np.ndarray]:
    """For each model the worst error [height, component], relative to that component's peak at that height."""
    land, (points, heights) = ground(name), stations(name)
    chosen = off_edges(land.grid, points) if components == GRADIENTS else np.full(len(points), True)
    survey, heights, active = coordinates(points[chosen]), heights[chosen], land.depth >= 0
    operator = GravityPoisson(land.grid, survey, components, tolerance=tolerance, active=active)
    exact = GravityPrism(land.grid, survey, components, active=active)
    assert not operator.setting.raised.any()
    rows = [heights == height for height in HEIGHTS]
    table = {}
    for model, density in models(land).items():
        expected = np.asarray(exact(density))
        difference = np.abs(np.asarray(operator(density)) - expected)
        table[model] = np.array([difference[at].max(axis=0) / np.abs(expected[at]).max(axis=0) for at in rows])
    return table


def in_scope(scope: str, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The models of a scope; the random ones as their largest errors."""
    groups: dict[str, np.ndarray] = {}
    for model, found in table.items():
        kind = "random" if model.startswith("random") else "cells" if "cell" in model else "blocks"
        if scope in (kind, "air"):
            group = "random" if kind == "random" else model
            groups[group] = np.maximum(groups.get(group, 0.0), found[SCOPES[scope]])
    return groups


@pytest.mark.parametrize(("name", "asked", "scope"), cases())
def test_errors_are_within_the_tolerance(name: str, asked: str, scope: str) -> None:
    components, tolerance, bar = ASKED[asked]
    groups = in_scope(scope, errors(name, components, tolerance))
    print(f"\n{name}, {asked}, {scope}: bar {bar:g}; more than half of it is marked")
    for model, found in groups.items():
        height, component = np.unravel_index(found.argmax(), found.shape)
        where = f"{components[component]} at {HEIGHTS[SCOPES[scope]][height]:g} cells"
        print(f"    {model:14s} {found.max():9.2e} {'*' if found.max() > bar / 2 else ' '} {where}")
    assert max(found.max() for found in groups.values()) <= bar


def filled(grid: Grid, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The share of each cell that a box takes."""
    shares = [
        np.clip(np.minimum(edges[1:], b) - np.maximum(edges[:-1], a), 0, None) / np.diff(edges)
        for edges, a, b in zip(grid.edges, low, high, strict=True)
    ]
    return np.einsum("i,j,k->ijk", *shares)


def test_refinement_converges_to_the_exact_block() -> None:
    """One block, its stations and extents fixed in metres; cells of 200, 100 and 50 m; averaged over offsets of the block."""
    rng = np.random.default_rng(5)
    survey = {"upward": np.full(20, 1010.0), "northing": rng.uniform(100, 1500, 20), "easting": rng.uniform(100, 1500, 20)}
    offsets = rng.uniform(-100, 100, (8, 3))
    spacings, totals = np.array([200.0, 100.0, 50.0]), []
    for spacing in spacings:
        grid = Grid.uniform(np.round(np.array([1000, 1600, 1600]) / spacing).astype(int), [spacing] * 3)
        operator = GravityPoisson(grid, survey)
        total = 0.0
        for offset in offsets:
            low, high = np.array([300.0, 500.0, 600.0]) + offset, np.array([700.0, 1100.0, 1000.0]) + offset
            exact = [
                -choclo.prism.gravity_u(e, n, u, low[2], high[2], low[1], high[1], low[0], high[0], 1.0)
                for u, n, e in zip(*survey.values(), strict=True)
            ]
            total += np.sum((np.asarray(operator(filled(grid, low, high)))[:, 0] - exact) ** 2) / np.max(exact) ** 2
        totals.append((total / survey["upward"].size / len(offsets)) ** 0.5)
    print(f"\nrefinement, rms error over the peak: {totals}")
    assert order_test(totals, spacings) >= 1.7
    assert totals[-1] < 2e-3
