"""Kaiser-windowed sinc weights: Hicks' published errors, plane waves, folding at a pressure-free plane, matrices."""

import numpy as np
import pytest

from geoinv.operators.seismic import sinc

# Hicks (2002), table 1: largest error of the spectrum up to half the Nyquist wavenumber. (He computed r = 9 and 10 in single precision.)
PUBLISHED = {1: 1.72e-1, 2: 2.32e-2, 3: 4.79e-3, 4: 1.34e-3, 5: 2.43e-4, 6: 4.88e-5, 7: 9.79e-6, 8: 2.19e-6, 9: 8.23e-7, 10: 7.99e-7}
OFFSETS = np.linspace(0, 1, 101)


def spectral_error(half_width: int, shape: float, wavenumbers: np.ndarray) -> float:
    x = OFFSETS[:, np.newaxis] - np.arange(1 - half_width, half_width + 1)
    spectrum = np.einsum("pi,pik->pk", sinc.kernel(x, half_width, shape), np.exp(-1j * x[:, :, np.newaxis] * wavenumbers))
    return float(np.abs(spectrum - 1).max())


def sampling(positions: np.ndarray, shape: tuple[int, ...], **options: object) -> np.ndarray:
    """[point, cell]: the products of the weights along the axes."""
    matrix = np.ones((len(positions), 1))
    for size, (nodes, weights) in zip(shape, sinc.points(positions, shape, **options), strict=True):  # type: ignore[arg-type]
        along = np.zeros((len(positions), size))
        np.add.at(along, (np.arange(len(positions))[:, np.newaxis], nodes), weights)
        matrix = (matrix[:, :, np.newaxis] * along[:, np.newaxis]).reshape(len(positions), -1)
    return matrix


@pytest.mark.parametrize("half_width", PUBLISHED)
def test_published_error_up_to_half_the_nyquist(half_width: int) -> None:
    error = spectral_error(half_width, sinc.HICKS[half_width], np.linspace(0, np.pi / 2, 101))
    if half_width <= 8:
        assert error == pytest.approx(PUBLISHED[half_width], rel=0.04)
    else:
        assert error < PUBLISHED[half_width]


@pytest.mark.parametrize("half_width", [2, 4, 6, 8])
def test_published_shape_parameter_is_the_best(half_width: int) -> None:
    wavenumbers = np.linspace(0, np.pi / 2, 51)
    best = spectral_error(half_width, sinc.HICKS[half_width], wavenumbers)
    for factor in (0.95, 1.05):
        assert spectral_error(half_width, factor * sinc.HICKS[half_width], wavenumbers) > best


def test_error_grows_past_the_band_the_weights_are_made_for() -> None:
    # Hicks' limit is four cells per wavelength; at three the weights of r = 4 are off by several per cent, at 2.2 useless.
    at_three, at_two = (spectral_error(4, sinc.HICKS[4], np.array([2 * np.pi / cells])) for cells in (3.0, 2.2))
    assert 0.02 < at_three < 0.1 < at_two


def test_window_is_numpys_kaiser() -> None:
    x = np.linspace(-3, 3, 61)
    np.testing.assert_allclose(sinc.kernel(x, 3, 4.53), np.sinc(x) * np.kaiser(61, 4.53), atol=2e-16)


@pytest.mark.parametrize("shape", [(20,), (18, 20), (16, 14, 15)])
def test_plane_waves_and_constants_in_every_dimension(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(shape))
    positions = 4 + rng.uniform(size=(30, len(shape))) * (np.array(shape) - 9)
    direction = rng.normal(size=len(shape))
    direction *= 2 * np.pi / 5 / np.linalg.norm(direction)  # five cells per wavelength
    phase = sum(d * i for d, i in zip(direction, np.indices(shape), strict=True))
    matrix = sampling(positions, shape)
    bound = (1 + PUBLISHED[4]) ** len(shape) - 1 + 1e-5
    assert np.abs(matrix @ np.exp(1j * phase).ravel() - np.exp(1j * positions @ direction)).max() < bound
    assert np.abs(matrix.sum(axis=1) - 1).max() < bound
    assert np.count_nonzero(matrix, axis=1).max() == 8 ** len(shape)


def test_weights_follow_the_array_order_of_the_axes() -> None:
    one = [sampling(np.array([[x]]), (n,))[0] for x, n in ((5.3, 12), (4.8, 10), (6.1, 14))]
    np.testing.assert_allclose(sampling(np.array([[5.3, 4.8, 6.1]]), (12, 10, 14))[0], np.einsum("i,j,k", *one).ravel(), atol=1e-16)


def test_a_centre_has_one_weight_also_at_the_edge() -> None:
    # Metres over a spacing of 0.1 m leave rounding errors of some 1e-12 cells.
    positions = np.array([[0.0, 3.0], [0.1 * 3 / 0.1, 7.0 - 4e-10], [9.0, 5.5]])
    matrix = sampling(positions, (10, 12))
    np.testing.assert_array_equal(np.count_nonzero(matrix, axis=1), [1, 1, 8])
    assert matrix[0, 3] == matrix[1, 3 * 12 + 7] == 1.0


@pytest.mark.parametrize("below", [0.0, 0.25, 0.5, 1.2, 2.0, 3.4, 3.9, 7.7])
def test_folding_equals_interpolating_the_antisymmetric_continuation(below: float) -> None:
    n, m = 16, 12
    continued = np.random.default_rng(0).normal(size=(n, m))
    continued = np.concatenate([continued, -continued[::-1]])
    positions = np.array([[n - 0.5 - below, 5.37]])
    folded = sampling(positions, (n, m), mirror_top=True) @ continued[:n].ravel()
    np.testing.assert_allclose(folded, sampling(positions, (2 * n, m)) @ continued.ravel(), atol=1e-14)


def test_folded_points_sample_a_field_that_vanishes_at_the_face_as_well_as_others() -> None:
    n, below = 20, np.linspace(0, 5, 21)
    wavenumber = 2 * np.pi / 5
    field = np.sin(wavenumber * (n - 0.5 - np.arange(n)))
    error = np.abs(sampling(n - 0.5 - below[:, np.newaxis], (n,), mirror_top=True) @ field - np.sin(wavenumber * below))
    assert error.max() < PUBLISHED[4]
    assert error[0] == 0


def test_injection_is_that_of_the_source_and_its_negative_image() -> None:
    n = 12
    folded = sampling(np.array([[n - 1.7]]), (n,), mirror_top=True)[0]
    both = sampling(np.array([[n - 1.7], [n + 0.7]]), (2 * n,))
    np.testing.assert_allclose(folded, (both[0] - both[1])[:n], atol=1e-16)


@pytest.mark.parametrize("mirror_top", [False, True])
def test_no_more_weights_than_needed_and_no_node_comes_twice(mirror_top: bool) -> None:
    positions = np.array([[4.0, 5.0], [14.0, 6.0], [13.2 if mirror_top else 9.2, 4.0]])
    (nodes, weights), (others, ones) = sinc.points(positions, (15, 16), mirror_top=mirror_top)
    assert nodes.dtype == np.int32 and weights.dtype == np.float64
    # Beyond the plane at 14.5 are 15, 16 and 17 of the last point's nodes: they fold back to 14, 13 and 12, which it has already.
    assert nodes.shape == weights.shape == (3, 5 if mirror_top else 8)
    np.testing.assert_array_equal(np.count_nonzero(weights, axis=1), [1, 1, 5 if mirror_top else 8])
    assert len(set(nodes[2])) == nodes.shape[1]
    np.testing.assert_array_equal(others, [[5], [6], [4]])
    np.testing.assert_array_equal(ones, np.ones((3, 1)))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"Invalid 'positions' \[5\. +2\.5\] at index 1: must be such that the 4 cells on either side along axis 1"):
        sinc.points([[5.0, 6.0], [5.0, 2.5]], (12, 12))
    for outside in (-1.0, 12.0, 10.9):
        with pytest.raises(ValueError, match="along axis 0"):
            sinc.points([[outside, 6.0]], (12, 12))
    with pytest.raises(ValueError, match="along axis 0"):
        sinc.points([[11.6, 6.0]], (12, 12), mirror_top=True)
    with pytest.raises(ValueError, match="along axis 0"):
        sinc.points([[2.6, 6.0]], (12, 12), mirror_top=True)
    with pytest.raises(ValueError, match=r"Invalid 'positions' of shape \(1, 2\): must be of shape \(points, 3\)"):
        sinc.points([[5.0, 6.0]], (12, 12, 12))
    with pytest.raises(ValueError, match="Invalid 'half_width' 11"):
        sinc.points([[5.0]], (40,), half_width=11)
    with pytest.raises(ValueError, match="Invalid 'positions' nan at index 0"):
        sinc.points([[np.nan]], (40,))
