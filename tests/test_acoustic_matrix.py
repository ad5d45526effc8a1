"""The propagator equals its assembled sparse matrix, for every order, boundary, dimension and kind of density."""

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators import AcousticWave, Acquisition, Grid
from geoinv.operators.seismic import Absorbing, assembly

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
    shot = run.shots[0]._replace(start=assembly.from_vector(wave.lattice, start, fluxes=variable))
    found = assembly.to_vector(wave.lattice, wave._loop.forward(run.media[0], shot)[1])
    expected = start
    for _ in range(3):
        expected = matrix.to_scipy() @ expected
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()
