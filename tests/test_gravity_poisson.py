"""Gravity by finite differences: physics, subsets, the ground, and what is refused. Its accuracy: test_gravity_accuracy.py."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators.constants import GRAVITATIONAL_CONSTANT as G
from geoinv.operators.gravity import poisson
from geoinv.operators.gravity.poisson import GravityPoisson
from geoinv.operators.gravity.prism import GravityPrism
from geoinv.operators.grid import Grid
from geoinv.operators.testing import batch_test

GRID = Grid.uniform((6, 8, 8), (50.0, 100.0, 100.0), (-300.0, -400.0, -400.0))
RNG = np.random.default_rng(1)
HERE = {"upward": RNG.uniform(1, 150, 10), "northing": RNG.uniform(-390, 390, 10), "easting": RNG.uniform(-390, 390, 10)}
ALL = ("gz", "gx", "gy", "gzz", "gxx", "gyy", "gxy", "gxz", "gyz")
ACTIVE = np.ones(GRID.shape, dtype=bool)
ACTIVE[-1, :, 4:] = ACTIVE[-2, 2:5, 5:] = ACTIVE[1, 1, 1] = False


def at(upward: object, northing: object, easting: object) -> dict[str, np.ndarray]:
    """Stations from broadcastable coordinates."""
    return dict(zip(("upward", "northing", "easting"), map(np.ravel, np.broadcast_arrays(upward, northing, easting)), strict=True))


def density(seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=GRID.shape)


@functools.cache
def everything() -> GravityPoisson:
    return GravityPoisson(GRID, HERE, ALL)


@functools.cache
def vertical() -> GravityPoisson:
    return GravityPoisson(GRID, HERE, active=ACTIVE)


def traces() -> list[int]:
    return [function.experimental_get_tracing_count() for function in (poisson.apply, poisson.apply_adjoint)]


def test_subset_is_rows_of_the_whole_without_retracing() -> None:
    assert batch_test(everything(), (7, 0, 3), compiled=[poisson.apply, poisson.apply_adjoint]) <= 1e-13


def test_subsets_of_one_size_share_a_program_whatever_their_near_fields() -> None:
    # Along a line across the rim the windows, and with them the correction's entries, differ from station to station.
    line = GravityPoisson(GRID, at(10.0, 5.0, np.linspace(-399, 399, 24)))
    part = [line.subset(np.arange(start, start + 8)) for start in (0, 4, 8)]
    assert len({piece.near_field.nnz for piece in part}) == 3
    counts = []
    for piece in part:
        piece.linearize(density()).vjp(piece(density()))
        counts.append(traces())
    assert counts[1:] == counts[:-1]


def test_subset_of_a_subset_and_its_specs() -> None:
    part = everything().subset([5, 2, 9]).subset([2, 0])
    np.testing.assert_array_equal(part.setting.points, everything().setting.points[[9, 5]])
    assert part.data_spec.shape == (2, 9)
    np.testing.assert_allclose(part(density()), np.asarray(everything()(density()))[[9, 5]], rtol=1e-10)


def test_station_order_does_not_matter_and_duplicates_are_equal() -> None:
    order = np.array([4, 9, 0, 0, 7, 4, 1, 2, 3, 5, 6, 8])
    found = np.asarray(GravityPoisson(GRID, {dim: x[order] for dim, x in HERE.items()}, active=ACTIVE)(density()))
    np.testing.assert_allclose(found, np.asarray(vertical()(density()))[order], rtol=0, atol=1e-12 * np.abs(found).max())
    np.testing.assert_array_equal(found[2], found[3])


def test_component_order_is_that_asked_for() -> None:
    found = np.asarray(GravityPoisson(GRID, HERE, ("gyz", "gz", "gxx"))(density()))
    expected = np.asarray(everything()(density()))[:, [8, 0, 4]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    single = GravityPoisson(GRID, HERE, "gy")
    assert single.components == ("gy",)
    assert single.data_spec.shape == (10, 1)


def test_one_cell_is_a_point_mass_far_away() -> None:
    stations = at([600.0, 900.0], [10.0, 150.0], [-30.0, 200.0])
    operator = GravityPoisson(GRID, stations, ("gz", "gx", "gy"))
    rho = np.zeros(GRID.shape)
    rho[2, 3, 5] = 2000.0
    away = operator.setting.points - [centers[i] for centers, i in zip(GRID.centers, (2, 3, 5), strict=True)]
    pull = G * 2000.0 * 50 * 100 * 100 / np.sum(away**2, axis=1) ** 1.5
    expected = pull[:, None] * np.stack([away[:, 0], -away[:, 2], -away[:, 1]], axis=1)
    # The prism's own quadrupole: (a^2 - c^2) / r^2 / 8 of the pull.
    np.testing.assert_allclose(operator(rho), expected, rtol=0, atol=4e-3 * pull.max() * np.abs(away).max())


def test_flux_through_a_plane_is_half_of_gauss() -> None:
    # A third of the mass near the middle; the plane is finite: at height h over radius a it misses about h / a of the flux.
    half, n = 4000.0, 20
    grid = Grid.uniform((4, n, n), (100.0, 2 * half / n, 2 * half / n), (-400.0, -half, -half))
    edges = grid.centers[1]
    operator = GravityPoisson(grid, at(100.0, *np.meshgrid(edges, edges, indexing="ij")))
    rho = np.zeros(grid.shape)
    rho[1:3, n // 2 - 1 : n // 2 + 1, n // 2 - 1 : n // 2 + 1] = 500.0
    mass = 500.0 * 8 * grid.volumes[0, 0, 0]
    flux = np.sum(operator(rho)) * (2 * half / n) ** 2
    # The solid angle of the square of half-width a seen from a depth h below its centre.
    angle = 4 * np.arcsin(half**2 / (half**2 + 300.0**2))
    assert flux == pytest.approx(G * mass * angle, rel=1e-2)
    assert flux == pytest.approx(2 * np.pi * G * mass, rel=0.15)


def test_an_infinite_slab_gives_bouguers_value() -> None:
    grid = Grid.uniform((4, 24, 24), (50.0, 1000.0, 1000.0), (-200.0, -12000.0, -12000.0))
    found = np.asarray(GravityPoisson(grid, at([0.0, 5.0, 100.0], [0.0, 140.0, 20.0], [0.0, -300.0, 700.0]))(np.full(grid.shape, 2670.0)))
    # A slab of 200 m, missing what lies beyond 12 km: about t / (pi a) * 2 sqrt(2) / ... of it, below 1 %.
    np.testing.assert_allclose(found, 2 * np.pi * G * 2670.0 * 200.0, rtol=2e-2)


def test_linear_in_the_density() -> None:
    a, b = density(1), density(2)
    operator = vertical()
    expected = 3.0 * np.asarray(operator(a)) - 0.5 * np.asarray(operator(b))
    np.testing.assert_allclose(operator(3.0 * a - 0.5 * b), expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    assert not np.any(operator(np.zeros(GRID.shape)))


def test_gradients_have_no_trace_outside_the_mass() -> None:
    found = np.asarray(everything()(density()))
    trace = found[:, 3:6].sum(axis=1)
    np.testing.assert_allclose(trace, 0.0, atol=2e-2 * np.abs(found[:, 3:6]).max())


def test_signs_and_symmetries_of_a_centred_block() -> None:
    a = 130.0
    north, east = np.array([0, a, -a, 0, 0]), np.array([0, 0, 0, a, -a])
    block = np.zeros(GRID.shape)
    block[2:5, 2:6, 2:6] = 300.0
    found = dict(zip(ALL, np.asarray(GravityPoisson(GRID, at(60.0, north, east), ALL)(block)).T, strict=True))
    assert (found["gz"] > 0).all()
    assert found["gz"].argmax() == 0
    assert found["gx"][4] > 0 > found["gx"][3]  # a station in the west is pulled to the east
    assert found["gy"][2] > 0 > found["gy"][1]
    assert found["gzz"][0] > 0 > found["gxx"][0]
    assert found["gxz"][4] > 0 > found["gxz"][3]  # gx grows downwards, towards the mass
    for name, values in found.items():
        scale = np.abs(values).max() if name not in ("gxy",) else np.abs(found["gxx"]).max()
        swap = {"x": "y", "y": "x"}
        mirrored = found.get("".join(swap.get(c, c) for c in name), found["gxy"])[[0, 3, 4, 1, 2]]
        np.testing.assert_allclose(values, mirrored, rtol=0, atol=1e-9 * scale, err_msg=name)
        odd = name.count("x") % 2
        np.testing.assert_allclose(values[3], (-1) ** odd * values[4], rtol=0, atol=1e-9 * scale, err_msg=name)


def test_inactive_cells_carry_no_density() -> None:
    operator, changed = vertical(), density()
    changed[~ACTIVE] += 1e4
    np.testing.assert_array_equal(operator(changed), operator(density()))
    adjoint = np.asarray(operator.linearize(density()).vjp(np.ones((10, 1))))
    assert not adjoint[~ACTIVE].any()
    assert (adjoint[ACTIVE] > 0).all()
    prisms = GravityPrism(GRID, HERE, active=ACTIVE)
    np.testing.assert_allclose(operator(density()), prisms(density()), rtol=0, atol=1e-2 * np.abs(prisms(density())).max())
    assert not (operator.near_field.to_scipy()[:, np.flatnonzero(~ACTIVE)] != 0).nnz


def test_a_grid_with_padding_of_its_own_is_its_cells() -> None:
    padded = Grid.uniform((4, 4, 4), (50.0, 100.0, 100.0), (-200.0, -200.0, -200.0)).pad(2)
    stations = at(padded.edges[0][-1] + 20.0, [0.0, 130.0], [10.0, -90.0])
    rho = np.random.default_rng(0).normal(size=padded.shape)
    np.testing.assert_array_equal(GravityPoisson(padded, stations)(rho), GravityPoisson(Grid(padded.edges), stations)(rho))


def test_a_station_inside_the_staircase_is_raised_and_recorded() -> None:
    upward = np.array([-20.0, 0.0, -99.0, 3.0])
    operator = GravityPoisson(GRID, at(upward, -350.0, [-350.0, -350.0, 350.0, 350.0]), active=ACTIVE)
    np.testing.assert_allclose(operator.setting.raised, [20.0, 0.0, 49.0, 0.0])
    np.testing.assert_allclose(operator.setting.points[:, 0], [0.0, 0.0, -50.0, 3.0])
    found = np.asarray(operator(density()))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)
    np.testing.assert_allclose(operator.subset([2]).setting.raised, [49.0])


def test_poisson_matrix() -> None:
    operator = everything()
    matrix = operator.to_csr().to_scipy()
    unknowns = np.prod(operator.solver.shape)
    assert matrix.shape == (unknowns, unknowns)
    assert np.diff(matrix.indptr).max() <= 27
    assert abs(matrix - matrix.T).max() <= 1e-14 * abs(matrix).max()
    b = np.random.default_rng(0).normal(size=unknowns)
    found = matrix @ np.ravel(operator.solver.solve(tf.reshape(tf.constant(b), operator.solver.shape)))
    assert np.linalg.norm(found - b) <= 1e-10 * np.linalg.norm(b)


def test_a_smaller_tolerance_takes_a_larger_near_field_and_is_closer() -> None:
    exact = np.asarray(GravityPrism(GRID, HERE)(density()))
    coarse, fine = (GravityPoisson(GRID, HERE, tolerance=tolerance) for tolerance in (1e-1, 2e-3))
    assert fine.near_field.nnz > 2 * coarse.near_field.nnz
    assert np.abs(fine(density()) - exact).max() < np.abs(coarse(density()) - exact).max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": Grid.uniform((4, 4), (1.0, 1.0))}, "'grid' with 2 axes: must be three-dimensional"),
        ({"tolerance": 1e-4}, r"'tolerance' 0\.0001: must be from 1e-3 to 0\.1 of the peak"),
        ({"tolerance": 0.2}, "'tolerance'"),
        ({"tolerance": np.nan}, "'tolerance'"),
        ({"components": ("gz", "gq")}, "'components' 'gq': must be one of 'gz'"),
        ({"components": ("gz", "gz")}, "'components' .* one or more different components"),
        ({"components": ()}, "'components'"),
        ({"stations": at([1.0, 1.0], [0.0, 401.0], 0.0)}, r"'stations' with 1 outside the grid, the first \(index 1\)"),
        ({"stations": at(-51.0, 10.0, 20.0)}, "'stations' with 1 more than a cell below the ground"),
        ({"stations": at([1.0, np.nan], 10.0, 20.0)}, "'stations upward' nan at index 1: must be finite"),
        ({"stations": {"upward": [1.0], "easting": [1.0]}}, "'stations' without northing"),
        (
            {"stations": at(0.0, 0.0, 50.0), "components": ("gyz",)},
            "'stations' .* on the edge of a cell: must be off the edges, where 'gyz' is infinite",
        ),
        ({"active": np.ones((2, 2, 2), bool)}, "'active' of shape"),
    ],
)
def test_bad_input(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GravityPoisson(**({"grid": GRID, "stations": HERE} | change))


def test_a_gradient_above_ground_needs_no_more_than_air() -> None:
    # Inactive cells have no edges: a station on their corner, above lower ground, is as good as any.
    active = np.ones(GRID.shape, bool)
    active[-2:] = False
    operator = GravityPoisson(GRID, at(-50.0, 0.0, 0.0), ("gzz",), active=active)
    exact = GravityPrism(GRID, at(-50.0, 1e-3, 1e-3), ("gzz",), active=active)
    assert float(operator(density())[0, 0]) == pytest.approx(float(exact(density())[0, 0]), rel=2e-2)
