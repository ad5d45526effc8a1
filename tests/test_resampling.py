"""Resampling in time: tones against their exact values, the adjoint, both ways together, the ends of a record, any ratio."""

import numpy as np
import pytest
from green import ricker
from scipy.signal import kaiser_atten, kaiser_beta

from geoinv.operators.seismic.resampling import BAND, decimation, fine_length, interpolation, resample

N, R = 80, 12
TOLERANCE = 5e-5  # the stated error of r = 12


def tones(times: np.ndarray, low: float, high: float, seed: int = 0) -> np.ndarray:
    """[time, tone] of frequencies between two fractions of the Nyquist frequency of unit sampling."""
    rng = np.random.default_rng(seed)
    return np.cos(np.pi * np.multiply.outer(times, np.linspace(low, high, 15)) + rng.uniform(0, 2 * np.pi, 15))


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_interpolation_of_tones(factor: int) -> None:
    fine = interpolation(N, factor) @ tones(np.arange(N), 0, BAND)
    inside = slice(R * factor, (N - R) * factor)
    assert np.abs(fine - tones(np.arange(len(fine)) / factor, 0, BAND))[inside].max() < TOLERANCE
    np.testing.assert_array_equal(fine[: N * factor : factor], tones(np.arange(N), 0, BAND))


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_decimation_passes_the_band_and_stops_its_images(factor: int) -> None:
    times = np.arange(fine_length(N, factor)) / factor
    inside = slice(R, None)  # to the very last sample: the tail of the fine ones is there for that
    passed = decimation(N, factor) @ tones(times, 0, BAND)
    assert np.abs(passed - tones(np.arange(N), 0, BAND))[inside].max() < TOLERANCE
    stopped = decimation(N, factor) @ tones(times, 2 - BAND, factor)
    assert np.abs(stopped)[inside].max() < TOLERANCE


@pytest.mark.parametrize(("half_width", "tolerance"), [(8, 1.3e-3), (12, 5e-5), (16, 2e-6)])
def test_decimation_of_an_interpolation_is_the_identity(half_width: int, tolerance: float) -> None:
    product = decimation(120, 4, half_width=half_width) @ interpolation(120, 4, half_width=half_width)
    error = np.abs(product @ tones(np.arange(120), 0, BAND) - tones(np.arange(120), 0, BAND))
    inside = slice(2 * half_width, 120 - 2 * half_width)
    assert error[inside].max() < 2 * tolerance


def test_the_last_samples_are_right_for_a_signal_that_goes_on() -> None:
    signal = ricker(0.12, delay=N - 2.0)  # its peak two samples before the end
    coarse, fine = (signal(np.arange(count) / factor) for count, factor in ((N, 1), (fine_length(N, 4), 4)))
    assert np.abs(decimation(N, 4) @ fine - coarse).max() < TOLERANCE
    short = np.where(np.arange(fine.size) <= (N - 1) * 4, fine, 0)
    assert np.abs(decimation(N, 4) @ short - coarse)[-1] > 0.1  # and are not without the tail


def test_signals_at_the_start_that_begin_at_rest() -> None:
    signal = ricker(0.12)
    fine = interpolation(N, 4) @ signal(np.arange(N))
    assert np.abs(fine - signal(np.arange(fine.size) / 4)).max() < TOLERANCE


def test_decimation_is_the_transpose_over_the_factor() -> None:
    for factor in (1, 3):
        up, down = interpolation(30, factor), decimation(30, factor)
        assert up.shape == down.shape[::-1] == (fine_length(30, factor), 30)
        np.testing.assert_allclose(up.toarray().T / factor, down.toarray(), rtol=4e-16)
    assert fine_length(30, 3) == 41 * 3 and fine_length(30, 1) == 30 and fine_length(30, 2, half_width=8) == 37 * 2


def test_factor_one_changes_nothing() -> None:
    for matrix in (interpolation(9, 1), decimation(9, 1)):
        np.testing.assert_array_equal(matrix.toarray(), np.eye(9))


@pytest.mark.parametrize("dt", [0.0009, 0.004, 0.0055])
@pytest.mark.parametrize("own", [0.0013, 0.004])
def test_any_ratio_of_intervals(dt: float, own: float) -> None:
    signal = ricker(20.0, delay=0.3)
    given = np.stack([signal(np.arange(0, 0.6, own)), 3 * signal(np.arange(0, 0.6, own))])
    found = resample(given, own, dt, 150)
    expected = signal(np.arange(150) * dt)
    np.testing.assert_allclose(found, [expected, 3 * expected], atol=3 * TOLERANCE)


def test_a_later_start_shifts_and_a_high_tone_is_filtered_out() -> None:
    signal = ricker(20.0, delay=0.2)
    times = 0.1 + 0.002 * np.arange(150)
    np.testing.assert_allclose(resample(signal(times), 0.002, 0.003, 120, start=0.1), signal(0.003 * np.arange(120)), atol=TOLERANCE)
    high = np.cos(2 * np.pi * 200 * 0.001 * np.arange(600))  # the Nyquist of 4 ms is 125 Hz
    assert np.abs(resample(high, 0.001, 0.004, 150))[R:-R].max() < TOLERANCE


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"Invalid 'factor' 2\.5: must be a whole number, 1 or more"):
        interpolation(10, 2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Invalid 'n' 0"):
        decimation(0, 2)
    with pytest.raises(ValueError, match="Invalid 'dt_to'"):
        resample(np.ones(5), 0.004, 0.0, 5)
    with pytest.raises(ValueError, match="Invalid 'signal' nan at index 1"):
        resample([1.0, np.nan], 0.004, 0.002, 5)


@pytest.mark.parametrize("half_width", [1, 2, 4, 8, 12])
def test_the_kernel_is_the_one_kaiser_and_scipy_design(half_width: int) -> None:
    # A transition from BAND to 2 - BAND of the coarse Nyquist over 2 r coarse samples.
    attenuation = kaiser_atten(2 * half_width + 1, 2 * (1 - BAND))
    middle = interpolation(4 * half_width, 2, half_width=half_width).toarray()[4 * half_width + 1]
    x = 2 * half_width + 0.5 - np.arange(4 * half_width)
    window = np.interp(x, np.linspace(-half_width, half_width, 4 * half_width + 1), np.kaiser(4 * half_width + 1, kaiser_beta(attenuation)), 0, 0)
    np.testing.assert_allclose(middle, np.sinc(x) * window, atol=1e-14)
