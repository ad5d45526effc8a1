"""Absorbing layers: their widths, their profiles against the published formulas, and the stability of the step that they make."""

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators import AcousticWave, Acquisition, Grid
from geoinv.operators.seismic import Absorbing, limits
from geoinv.operators.seismic.boundaries import Strip


def test_widths() -> None:
    assert Absorbing(7).widths(2) == ((7, 7), (7, 7))
    assert Absorbing(7, free_surface=True).widths(3) == ((7, 0), (7, 7), (7, 7))
    assert Absorbing(((3, 0), (0, 4)), free_surface=True).widths(2) == ((3, 0), (0, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": -1}, "0 or more"),
        ({"cells": 2.5}, "number of cells"),
        ({"cells": ((1, 2), (3, -4))}, "0 or more"),
        ({"cells": (1, 2)}, "for each axis"),
        ({"cells": ((1, 2), (3, 4)), "free_surface": True}, "0 at the top"),
        ({"reflection": 0.0}, "between 0 and 1"),
        ({"reflection": 1.0}, "between 0 and 1"),
        ({"frequency": 0.0}, "positive"),
        ({"frequency": np.nan}, "finite"),
    ],
)
def test_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Absorbing(**options)


def test_widths_of_another_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match="each of 3 axes"):
        Absorbing(((1, 2), (3, 4))).widths(3)


def test_profiles_absorb_what_they_are_designed_for() -> None:
    """There and back through the faces' damping, ``exp(-2 integral of sigma / v)``, is the stated reflection (Collino & Tsogka, eq. 17)."""
    strip, spacing, dt, velocity, reflection = Strip((60, 50), 1, False, 20, 2), 10.0, 1e-3, 2000.0, 1e-4
    a, b, _, b_faces = (np.ravel(part) for part in strip.profiles(spacing, dt, velocity, 1e-9, reflection))  # no frequency: alpha is zero
    sigma = -np.log(b) / dt
    integral = spacing * sigma.sum()
    assert np.exp(-2 * integral / velocity) == pytest.approx(reflection, rel=0.02)
    np.testing.assert_allclose(a, b - 1, rtol=1e-4)  # sigma / (sigma + alpha) = 1
    # Quadratic: nothing at the inner face, which is not among the damped ones, and a quarter of the outermost value half way.
    sigma_faces = -np.log(b_faces) / dt
    assert sigma_faces[0] == pytest.approx(4 * sigma_faces[10], rel=1e-6)
    assert np.all(np.diff(sigma_faces) < 0) and len(sigma_faces) == 20 and sigma_faces[-1] > 0


def test_frequency_shift_falls_from_the_inner_face_to_the_outer() -> None:
    """Komatitsch & Martin (2007): alpha = pi f where the layer begins, zero at its end; a is sigma / (sigma + alpha) (b - 1)."""
    strip, dt, frequency = Strip((60, 50), 0, True, 10, 2), 1e-3, 25.0
    _, _, a, b = (np.ravel(part) for part in strip.profiles(10.0, dt, 2000.0, frequency, 1e-4))
    total = -np.log(b) / dt
    sigma = total * a / (b - 1)
    np.testing.assert_allclose(total - sigma, np.pi * frequency * (1 - np.arange(1, 11) / 10), atol=1e-9)


def test_opposite_layers_are_mirror_images() -> None:
    shape = (40, 50)
    lower, upper = (Strip(shape, 1, side, 8, 3) for side in (False, True))
    for one, other in zip(lower.profiles(10.0, 1e-3, 2000.0, 25.0, 1e-4), upper.profiles(10.0, 1e-3, 2000.0, 25.0, 1e-4), strict=True):
        np.testing.assert_allclose(one, other[:, ::-1], rtol=1e-12)
    assert lower.cells.stop[1] == 8 and upper.cells.start[1] == 42
    assert lower.faces.start[1] == 0 and upper.faces.stop[1] == 51  # the outermost face of each is damped


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_no_state_grows(order: int, variable: bool) -> None:
    """No eigenvalue of the step's matrix lies outside the unit circle, at the highest velocity and the largest stable step.

    Where the damping is strong a layer takes the second difference away again through two first ones. What they take must not exceed
    what is there at any wavenumber, or short waves of frequency zero grow, if slowly: by 0.3 % a step. Cells are so long along the layer that
    nothing there holds them back.
    """
    grid, middle = Grid.uniform((2 * order, 2), (10.0, 1e5)), np.array([[10.0 * order + 5, 5e4]])
    density = np.random.default_rng(0).uniform(1500, 2500, grid.shape) if variable else None
    wave = AcousticWave(
        grid, Acquisition(middle[np.newaxis], middle), np.zeros(40), dt=limits.stable_step((10.0, 1e5), 2000.0, order),
        velocity_limits=(2000.0, 2000.0), order=order, density=density, boundary=Absorbing(((20, 0), (0, 0)), frequency=25.0), dtype=tf.float64,
    )  # fmt: skip
    assert wave.substeps == 1
    matrix = wave.step_matrix({"velocity": tf.fill(grid.shape, tf.constant(2000.0, tf.float64))})
    assert np.abs(np.linalg.eigvals(matrix.to_scipy().toarray())).max() <= 1 + 1e-7
