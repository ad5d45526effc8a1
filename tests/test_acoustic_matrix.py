"""The propagator equals its assembled sparse matrix, for every order, boundary, dimension and kind of density; and no state of it grows."""

import warnings

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators import AcousticWave, Acquisition, Grid
from geoinv.operators.seismic import Absorbing, assembly, limits

CASES = [
    (2, (9, 10), Absorbing(3), False),
    (4, (12, 11), Absorbing(((3, 0), (4, 2)), free_surface=True), True),
    (6, (12, 14), Absorbing(((0, 5), (0, 0))), True),
    (8, (13, 12), Absorbing(((4, 0), (5, 5)), free_surface=True), False),
    (4, (7, 8, 9), Absorbing(((2, 0), (2, 3), (0, 2)), free_surface=True), True),
]
MORE = [
    (order, shape, boundary, variable)
    for order in (2, 4, 6, 8)
    for shape in ((17, 18), (17, 18, 17))
    for boundary in (Absorbing(3), Absorbing(3, free_surface=True), Absorbing(0), Absorbing(0, free_surface=True))
    for variable in (False, True)
]


@pytest.mark.parametrize(("order", "shape", "boundary", "variable"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)])
def test_three_steps_are_three_products(order: int, shape: tuple[int, ...], boundary: Absorbing, variable: bool) -> None:
    rng, grid = np.random.default_rng(order), Grid.uniform(shape, (10.0, 12.0, 11.0)[: len(shape)])
    middle = np.array([centers[len(centers) // 2] for centers in grid.centers])[np.newaxis]
    density = rng.uniform(1500, 2500, shape) if variable else None
    options = {"dt": 1e-3, "velocity_limits": (1400.0, 2300.0), "order": order, "boundary": boundary, "density": density, "dtype": tf.float64}
    wave = AcousticWave(grid, Acquisition(middle[np.newaxis], middle), np.zeros(3), **options)
    model = {"velocity": tf.constant(rng.uniform(1500, 2200, shape))}
    matrix = wave.step_matrix(model)
    start = rng.normal(size=matrix.shape[1])
    run = wave._run(model)
    shot = run.shot(0)._replace(start=assembly.from_vector(wave.lattice, start, fluxes=variable))
    found = assembly.to_vector(wave.lattice, wave._loop.forward(run.medium(0), shot)[1])
    expected = start
    for _ in range(3):
        expected = matrix.to_scipy() @ expected
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


#: One layer along each axis in the quick suite, all sides in the slow one: eigenvalues of a thousand states take seconds.
FEW = [(2, (6, 7), ((4, 0), (5, 0)), False, True), (4, (6, 7), ((4, 0), (0, 5)), True, False), (6, (6, 7), ((0, 4), (5, 0)), False, False)]
FEW += [(8, (6, 7), ((5, 0), (0, 4)), True, True)]
SIDES = [
    (order, (max(6, order + 1), max(7, order + 2)), ((4, 0 if free else 4), (5, 4)), free, variable)
    for order in (2, 4, 6, 8)
    for free in (False, True)
    for variable in (False, True)
]


@pytest.mark.parametrize(("order", "shape", "widths", "free", "variable"), [*FEW, *(pytest.param(*case, marks=pytest.mark.slow) for case in SIDES)])
def test_nothing_can_grow_at_the_largest_stable_step(
    order: int, shape: tuple[int, int], widths: tuple[tuple[int, int], ...], free: bool, variable: bool
) -> None:
    """The spectral radius of the step of a rough medium; a static state may stay."""
    rng, spacing = np.random.default_rng(order), (10.0, 12.0)
    grid = Grid.uniform(shape, spacing)
    middle = np.array([[centers[len(centers) // 2] for centers in grid.centers]])
    wave = AcousticWave(
        grid, Acquisition(middle[np.newaxis], middle), np.zeros(6), dt=limits.stable_step(spacing, 2500.0, order), velocity_limits=(1000.0, 2500.0),
        order=order, density=rng.uniform(1000, 3000, shape) if variable else None, dtype=tf.float64,
        boundary=Absorbing(widths, free_surface=free, frequency=25.0),
    )  # fmt: skip
    assert wave.substeps == 1
    velocity = rng.uniform(1000, 2500, shape)
    velocity[0, 0] = velocity[-1, 2] = 2500.0
    matrix = wave.step_matrix({"velocity": tf.constant(velocity)}).to_scipy().toarray()
    assert np.abs(np.linalg.eigvals(matrix)).max() <= 1 + 1e-9


CONTRASTS = [(2, 1000.0, False), (4, 300.0, True), (8, 1000.0, False)]


@pytest.mark.parametrize(("order", "contrast", "free"), CONTRASTS)
def test_jumps_of_density_do_not_make_steps_grow(order: int, contrast: float, free: bool) -> None:
    """Light and heavy cells at random, the velocity at its limit: wide stencils need a shorter step than a uniform density."""
    rng, grid = np.random.default_rng(order), Grid.uniform((10, 11), (10.0, 10.0))
    middle = np.array([[55.0, 52.0]])
    density = np.where(rng.random(grid.shape) < 0.5, 1.0, contrast)
    wave = AcousticWave(
        grid, Acquisition(middle[np.newaxis], middle), np.zeros(6), dt=limits.stable_step((10.0, 10.0), 2500.0, order), order=order,
        velocity_limits=(1000.0, 2500.0), density=density, dtype=tf.float64, boundary=Absorbing(0, free_surface=free, frequency=25.0),
    )  # fmt: skip
    assert wave.substeps == (1 if order == 2 else 2)
    matrix = wave.step_matrix({"velocity": tf.fill(grid.shape, tf.constant(2500.0, tf.float64))}).to_scipy().toarray()
    assert np.abs(np.linalg.eigvals(matrix)).max() <= 1 + 1e-7, "two values of 1 make a block that rounding splits"
    # The step's eigenvalues mu are those of M by mu + 1 / mu = 2 - lambda: the bound is as good as it is said to be.
    steepest = (2 - np.real(np.linalg.eigvals(matrix) + 1 / np.linalg.eigvals(matrix))).max() / wave.internal_step**2
    bound = limits.steepest(2500.0, density, wave.layers, wave.spacing, order, mirrored=free, enough=0.0)
    assert steepest * (1 - 1e-6) <= bound <= 1.03 * steepest


@pytest.mark.parametrize("order", [2, 4, 8])
def test_rocks_are_stepped_as_fast_as_without_density(order: int) -> None:
    rng = np.random.default_rng(order)
    density = np.where(np.arange(40)[:, np.newaxis] > 30, 1000.0, rng.uniform(1800.0, 2800.0, (40, 30)))
    widths, spacing = ((20, 0), (20, 20)), (10.0, 10.0)
    enough = limits.LARGEST / limits.stable_step(spacing, 4500.0, order) ** 2
    assert limits.steepest(4500.0, density, widths, spacing, order, mirrored=True, enough=enough) <= enough


def test_a_density_that_makes_fields_grow_in_a_narrow_layer_is_warned_of() -> None:
    """Both ways out that are advised keep them from growing, and are not warned of."""
    rng, grid = np.random.default_rng(2), Grid.uniform((30, 40), (10.0, 10.0))
    density, velocity = 10 ** rng.uniform(1.25, 4.75, grid.shape), rng.uniform(1500, 4500, grid.shape)
    even = np.full(grid.shape, 1000.0)
    even[1:-1, 1:-1] = density[1:-1, 1:-1]
    middle = np.array([[155.0, 205.0]])

    def grown(density: np.ndarray, cells: int) -> float:
        """Of the fields' second differences in time, without what stays or drifts, between two thousand steps and six."""
        wave = AcousticWave(
            grid, Acquisition(middle[np.newaxis], middle), np.zeros(6), dt=1e-3, velocity_limits=(velocity.min(), velocity.max()),
            density=density, dtype=tf.float64, boundary=Absorbing(cells, frequency=5.0),
        )  # fmt: skip
        matrix, now = wave.step_matrix({"velocity": tf.constant(velocity)}).to_scipy().tocsr(), slice(wave.lattice.whole.size)
        state, sizes = rng.normal(size=matrix.shape[0]), []
        for step in range(6001):
            if step in (2000, 6000):
                after = matrix @ state
                sizes.append(np.linalg.norm((state - 2 * after + matrix @ after)[now]))
            state = matrix @ state
        return float(sizes[1] / sizes[0])

    with pytest.warns(
        UserWarning, match=r"density differs by .* along the .* where the absorbing layer has 4 cells: .* Take 12 cells or more, or even"
    ):
        assert grown(density, 4) > 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert grown(even, 4) < 1
        assert grown(density, 12) < 1
