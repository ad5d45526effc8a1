"""Source estimation: known wavelets come back through random Green's functions, with the error that the noise explains."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from geoinv.waveform.source_wavelet import NormalEquations, estimate, filtered_wavelet, normal_equations
from geoinv.waveform.traces import bandpass

DT = 0.004
SAMPLES = 300
T = np.arange(SAMPLES) * DT


def ricker(peak: float, at: float) -> np.ndarray:
    square = (np.pi * peak * (T - at)) ** 2
    return (1 - 2 * square) * np.exp(-square)


#: What is to be found: another frequency, delay, sign and phase than those of the wavelet in use.
TRUE = -3.0 * (ricker(9.0, 0.16) + 0.5 * np.gradient(ricker(11.0, 0.2), DT) / 60)
USED = ricker(14.0, 0.1)


def convolved(wavelet: np.ndarray, greens: np.ndarray) -> np.ndarray:
    """Causal convolution by the definition."""
    columns = [np.pad(wavelet, (shift, 0))[:SAMPLES] for shift in range(SAMPLES)]
    return greens @ np.array(columns)


def greens_functions(shots: int = 3, receivers: int = 12, seed: int = 0) -> np.ndarray:
    """Sparse arrivals that end early enough for the whole wavelet to be recorded."""
    rng = np.random.default_rng(seed)
    greens = rng.normal(size=(shots, receivers, SAMPLES)) * (rng.uniform(size=(shots, receivers, SAMPLES)) < 0.1)
    greens[..., 190:] = 0
    return greens


G = greens_functions()


def error(found: np.ndarray, expected: np.ndarray = TRUE) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_wavelet_is_recovered() -> None:
    found = estimate(convolved(USED, G), convolved(TRUE, G), USED, 1.0, DT, regularization=1e-9)
    assert found.shape == (SAMPLES,)
    assert error(found) < 1e-3
    assert error(USED * (USED @ TRUE) / (USED @ USED)) > 0.9  # what a mere amplitude would leave


def test_wavelet_in_use_stays_when_it_fits() -> None:
    data = convolved(TRUE, G)
    np.testing.assert_allclose(estimate(data, data, TRUE, 1.0, DT, regularization=1e-9), TRUE, atol=1e-4)


def test_error_is_what_the_noise_explains() -> None:
    """The variance of A is that of the noise's spectrum, samples sigma^2, over sum |P|^2 (least squares, at each frequency)."""
    predicted, clean = convolved(USED, G), convolved(TRUE, G)
    deviation = 0.1 * np.sqrt(np.mean(clean**2))
    exact = normal_equations(predicted, clean, 1.0)
    inside = exact.power.sum(axis=0) > 1e-3 * exact.power.sum(axis=0).max()
    ratios = []
    for seed in range(100, 116):
        noisy = clean + deviation * np.random.default_rng(seed).normal(size=clean.shape)
        changes = [each.filter(0.0, one_for_all=True)[0] for each in (normal_equations(predicted, noisy, 1.0), exact)]
        ratios.append(np.abs(changes[0] - changes[1]) ** 2 * exact.power.sum(axis=0) / (SAMPLES * deviation**2))
        assert error(estimate(predicted, noisy, USED, 1.0, DT, regularization=1e-3)) < 0.05
    assert np.mean(np.array(ratios)[:, inside]) == pytest.approx(1, rel=0.15)


def test_regularization_is_wieners() -> None:
    """For a filter of the wavelet in use: |P|^2 / (|P|^2 + eps) times the true one, by hand at every frequency."""
    predicted = convolved(USED, G)
    found = estimate(predicted, 2.0 * predicted, USED, 1.0, DT, regularization=0.1)
    power = np.sum(np.abs(np.fft.rfft(predicted, 600)) ** 2, axis=(0, 1))
    expected = np.fft.irfft(2 * power / (power + 0.1 * power.max()) * np.fft.rfft(USED, 600), 600)[:SAMPLES]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_each_shot_has_its_own_filter() -> None:
    true = np.stack([TRUE, 2 * np.roll(TRUE, 5), -TRUE])[:, np.newaxis]
    used = np.broadcast_to(USED, true.shape).astype(np.float32)
    observed = np.stack([convolved(wavelet[0], greens) for wavelet, greens in zip(true, G, strict=True)])
    found = estimate(convolved(USED, G), observed, used, 1.0, DT, regularization=1e-9)
    assert found.shape == true.shape
    assert found.dtype == np.float32
    assert max(error(a, b) for a, b in zip(found, true, strict=True)) < 5e-3


def test_filter_of_a_shot_turns_all_its_sources() -> None:
    rng = np.random.default_rng(5)
    greens = [greens_functions(1, 12, seed)[0] for seed in (1, 2)]
    predicted = convolved(USED, greens[0]) + convolved(0.5 * USED, greens[1])
    observed = convolved(TRUE, greens[0]) + convolved(0.5 * TRUE, greens[1])
    found = estimate(predicted[None], observed[None], np.stack([USED, 0.5 * USED])[None], rng.uniform(1, 2, (1, 12, 1)), DT, regularization=1e-9)
    assert error(found[0, 0]) < 5e-3
    np.testing.assert_allclose(found[0, 1], 0.5 * found[0, 0], atol=1e-12)


def test_weights_leave_out_what_is_wrong() -> None:
    observed = convolved(TRUE, G)
    observed[:, 4] = 1e3
    observed[1, 7] *= -1
    weights = np.ones((3, 12, 1))
    weights[:, 4] = weights[1, 7] = 0
    assert error(estimate(convolved(USED, G), observed, USED, weights, DT, regularization=1e-9)) < 1e-3
    assert error(estimate(convolved(USED, G), observed, USED, 1.0, DT, regularization=1e-9)) > 0.1


def test_batches_of_shots_join() -> None:
    predicted, observed = convolved(USED, G), convolved(TRUE, G)
    batches = [normal_equations(predicted[part], observed[part], 1.0) for part in (slice(0, 2), slice(2, 3))]
    found = filtered_wavelet(NormalEquations.joined(batches), USED, SAMPLES, DT)
    np.testing.assert_allclose(found, estimate(predicted, observed, USED, 1.0, DT), rtol=1e-12)


def test_window_is_kept() -> None:
    rng = np.random.default_rng(6)
    noisy = convolved(TRUE, G) + 2 * rng.normal(size=G.shape)
    found = estimate(convolved(USED, G), noisy, USED, 1.0, DT, duration=0.5, taper=0.2)
    full = estimate(convolved(USED, G), noisy, USED, 1.0, DT)
    assert np.all(found[T >= 0.5] == 0)
    np.testing.assert_array_equal(found[T <= 0.3], full[T <= 0.3])
    assert found[100] == pytest.approx(full[100] / 2)  # 0.4 s, the middle of the taper


def test_band_is_that_of_a_filter_on_the_wavelet() -> None:
    used, true = np.roll(USED, 90), np.roll(TRUE, 90)  # late enough for all of the filtered wavelet to come after t = 0
    greens = G * (T < 0.4)
    band = (2.0, 5.0, 8.0, 12.0)
    found = estimate(convolved(used, greens), convolved(true, greens), used, 1.0, DT, regularization=1e-9, band=band)
    assert error(found, bandpass(tf.constant(true), DT, band).numpy()) < 5e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observed": np.zeros((3, 12, 299))}, "'observed' of shape"),
        ({"observed": np.full((3, 12, SAMPLES), np.nan)}, "'observed' nan"),
        ({"predicted": np.zeros((3, 12, SAMPLES))}, "'predicted' zero everywhere"),
        ({"predicted": np.zeros((12, SAMPLES))}, r"'predicted' of shape \(12, 300\)"),
        ({"weights": np.ones((3, 5, 1))}, "'weights' of shape"),
        ({"wavelet": np.zeros((2, 1, SAMPLES))}, "'wavelet' of shape"),
        ({"wavelet": np.zeros(SAMPLES + 1)}, "'wavelet' of shape"),
        ({"regularization": -1.0}, "'regularization'"),
        ({"duration": 0.1, "taper": 0.2}, "'taper'"),
        ({"band": (1.0, 2.0, 3.0, 200.0)}, "Nyquist"),
        ({"dt": 0.0}, "'dt'"),
    ],
)
def test_misuse_is_refused(change: dict[str, Any], message: str) -> None:
    good = {"predicted": convolved(USED, G), "observed": convolved(TRUE, G), "wavelet": USED, "weights": 1.0, "dt": DT}
    with pytest.raises(ValueError, match=message):
        estimate(**(good | change))
