"""Straight rays: lengths against geometry, and times against those of the eikonal equation."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from geoinv.operators import Eikonal, Grid, StraightRay
from geoinv.operators.seismic.rays import path_lengths

RANDOM = np.random.default_rng(0)


def anywhere(grid: Grid, count: int) -> np.ndarray:
    return np.stack([RANDOM.uniform(axis[0], axis[-1], count) for axis in grid.edges], axis=1)


@pytest.mark.parametrize("shape", [(7, 9), (5, 6, 7)])
def test_lengths_add_up_to_integrals(shape: tuple[int, ...]) -> None:
    """Of one and of the coordinates, which are exact for rays through cells of any size: each piece has its middle in its cell."""
    grid = Grid(tuple(np.cumsum(RANDOM.uniform(0.5, 1.5, n + 1)) for n in shape))
    first, last = anywhere(grid, 300), anywhere(grid, 300)
    found = path_lengths(grid, first, last).to_scipy()
    np.testing.assert_allclose(found.sum(axis=1), np.linalg.norm(last - first, axis=1), rtol=1e-12)
    assert found.data.min() > 0
    # In cells of their own, by fine sampling: a hundredth of a cell's width.
    share = (np.arange(20_000) + 0.5) / 20_000
    for ray in range(5):
        points = first[ray] + share[:, np.newaxis] * (last[ray] - first[ray])
        cells = np.ravel_multi_index(tuple(grid.cell_index(points).T), grid.shape)
        sampled = np.bincount(cells, minlength=grid.size) / share.size * np.linalg.norm(last[ray] - first[ray])
        np.testing.assert_allclose(found[[ray]].toarray()[0], sampled, atol=1e-3)


def test_rays_along_axes_faces_and_through_corners() -> None:
    grid = Grid.uniform((3, 4), (1.0, 2.0))
    rays: list[tuple[Any, Any, dict[tuple[int, int], float]]] = [
        ([0.5, 0.0], [0.5, 8.0], {(0, k): 2.0 for k in range(4)}),
        ([0.0, 3.0], [3.0, 3.0], {(k, 1): 1.0 for k in range(3)}),
        ([1.0, 0.0], [1.0, 8.0], {(1, k): 2.0 for k in range(4)}),  # along a face: the cells above
        ([3.0, 0.0], [3.0, 4.0], {(2, 0): 2.0, (2, 1): 2.0}),  # along the last face
        ([0.0, 0.0], [3.0, 6.0], {(k, k): np.sqrt(5) for k in range(3)}),  # from corner to corner
        ([1.5, 3.5], [1.5, 3.5], {}),
    ]
    found = path_lengths(grid, [a for a, _, _ in rays], [b for _, b, _ in rays]).to_scipy().toarray().reshape(-1, 3, 4)
    for image, (*_, expected) in zip(found, rays, strict=True):
        wanted = np.zeros((3, 4))
        for cell, length in expected.items():
            wanted[cell] = length
        np.testing.assert_allclose(image, wanted, atol=1e-14)


def test_another_ray_has_another_matrix() -> None:
    operator = StraightRay(Grid.uniform((3, 4), (1.0, 2.0)), [[0.5, 0.0]], [[0.5, 4.0]])
    moved = dataclasses.replace(operator, receivers=[[0.5, 1.0]])
    np.testing.assert_allclose([operator(np.ones((3, 4)))[0], moved(np.ones((3, 4)))[0]], [4, 1])
    np.testing.assert_array_equal(operator.subset([0]).matrix.to_scipy().toarray(), operator.matrix.to_scipy().toarray())


def test_many_rays_are_cut_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid.uniform((6, 8), (1.0, 1.0))
    first, last = anywhere(grid, 50), anywhere(grid, 50)
    whole = path_lengths(grid, first, last).to_scipy()
    monkeypatch.setattr("geoinv.operators.seismic.rays.AT_ONCE", 100)
    assert (path_lengths(grid, first, last).to_scipy() != whole).nnz == 0


def test_times_are_those_of_first_arrivals_where_velocity_varies_little() -> None:
    """Fermat: a ray's way matters to the second order of the contrast, 2 % here."""
    grid = Grid.uniform((20, 20), (1.0, 1.0))
    upward, easting = np.meshgrid(*grid.centers, indexing="ij")
    model = (1 + 0.02 * np.sin(easting / 3) * np.cos(upward / 4)) / 1000
    wells = (
        np.stack([np.tile(np.arange(1.0, 20, 3), 7), np.full(49, 0.5)], axis=1),
        np.stack([np.repeat(np.arange(1.0, 20, 3), 7), np.full(49, 19.5)], axis=1),
    )
    straight = StraightRay(grid, *wells)(model).numpy()
    sources, shots = np.unique(wells[0], axis=0, return_inverse=True)
    bent = Eikonal(grid, sources, wells[1], shots.ravel(), refinement=2)(model).numpy()
    np.testing.assert_allclose(bent, straight, rtol=2e-3)


GRID = Grid.uniform((3, 4), (1.0, 2.0))


@pytest.mark.parametrize(("sources", "receivers", "says"), [
    ([[0.5, 9.0]], [[0.5, 1.0]], r"'sources' \[0.5 9. \] at index 0: must be inside the grid. 1 of 1 are not"),
    ([[0.5, 1.0]], [[0.5, np.nan]], "'receivers' nan at index 1: must be finite"),
    ([[0.5, 1.0]], [[0.5, 1.0], [1.0, 1.0]], r"'receivers' of shape \(2, 2\): must be of shape \(1, 2\), as the sources"),
    ([[0.5, 1.0, 1.0]], [[0.5, 1.0]], r"'sources' of shape \(1, 3\): must be of shape \(points, 2\): upward, easting"),
])  # fmt: skip
def test_bad_input_is_named(sources: Any, receivers: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        StraightRay(GRID, sources, receivers)
