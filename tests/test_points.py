"""Sources and receivers as sparse matrices: the factored form equals the products of the weights, for every layout of points."""

import numpy as np
import pytest

from geoinv.operators.grid import Grid
from geoinv.operators.seismic import sinc
from geoinv.operators.seismic.boxes import Box
from geoinv.operators.seismic.points import Points, located

GRIDS = {2: Grid.uniform((20, 30), (10.0, 12.0)), 3: Grid.uniform((18, 20, 22), (10.0, 11.0, 12.0))}


def positions(ndim: int, layout: str) -> np.ndarray:
    """[shot, point, axis], m."""
    rng = np.random.default_rng(ndim)
    shape = np.array(GRIDS[ndim].shape)
    index = 4.5 + rng.uniform(size=(2, 12, ndim)) * (shape - 9)
    if layout == "one depth":
        index[..., 0] = 7.3
    if layout == "carpet":
        index[..., 0] = 7.3
        index[..., 1] = np.tile([5.2, 6.9, 9.4], 4)
    if layout == "two depths":
        index[..., 0] = np.tile([7.3, 9.0], 6)
    if layout == "on centres":
        index = np.rint(index)
    return index * [width[0] for width in GRIDS[ndim].widths]


def expected(ndim: int, points: np.ndarray) -> np.ndarray:
    grid = GRIDS[ndim]
    index = points / [width[0] for width in grid.widths] - 0.5
    matrix = np.ones((len(points), 1))
    for axis, size in enumerate(grid.shape):
        away = index[:, axis : axis + 1] - np.arange(size)
        away = np.where(np.abs(away - np.rint(away)) < 1e-9, np.rint(away), away)
        along = sinc.kernel(away, sinc.HALF_WIDTH, sinc.HICKS[sinc.HALF_WIDTH])
        matrix = (matrix[:, :, np.newaxis] * along[:, np.newaxis]).reshape(len(points), -1)
    return matrix


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("layout", ["anywhere", "one depth", "two depths", "carpet", "on centres"])
def test_factors_multiply_to_the_weights_of_every_shot(ndim: int, layout: str) -> None:
    grid, places = GRIDS[ndim], positions(ndim, layout)
    live = np.ones((2, 12), bool)
    live[1, 9:] = False
    places[1, 9:] = places[1, 0]
    window = Box((0,) * ndim, grid.shape)
    points = Points.between(located("receivers", grid, places, live, (window, window), [(0, 0)] * ndim, mirror_top=False), live)
    assert points.count == 12
    if layout != "two depths":  # which pays for some boxes only
        assert len(points.factors) == (ndim if layout in ("one depth", "carpet") else 1)
    for shot in range(2):
        matrix = expected(ndim, places[shot]) * live[shot][:, np.newaxis]
        np.testing.assert_allclose(points.matrix(shot, window).toarray(), matrix, rtol=0, atol=1e-14)
        backwards = np.eye(12)
        for factor in reversed(points.factors):
            rows, weights = factor.transposed(shot)
            backwards = np.einsum("rt,rtp->rp", weights, backwards[rows])
        inside = np.zeros((*grid.shape, 12))
        inside[points.box.slices(window)] = backwards.reshape(*points.box.shape, 12)
        np.testing.assert_allclose(inside.reshape(-1, 12), matrix.T, rtol=0, atol=1e-14)


def test_one_depth_takes_a_fraction_of_the_work() -> None:
    grid = Grid.uniform((40, 400), (10.0, 10.0))
    places = np.stack([np.full(300, 203.0), np.linspace(60.0, 3900.0, 300)], axis=1)[np.newaxis]
    live = np.ones((1, 300), bool)
    points = Points.between(located("receivers", grid, places, live, (Box((0, 0), grid.shape),), [(0, 0)] * 2, mirror_top=False), live)
    assert sum(factor.weights[0].size for factor in points.factors) == 8 * points.box.shape[1] + 8 * 300
