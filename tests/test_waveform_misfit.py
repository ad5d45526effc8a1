"""Misfits of traces against SciPy, their gradients against finite differences, and what each is insensitive to."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

from geoinv.waveform.misfit import L2, CrossCorrelation, Envelope, WaveformMisfit, envelope, hilbert

MISFITS = [L2(), CrossCorrelation(), Envelope()]
T = np.arange(400) * 0.005


def ricker(at: float, peak: float = 8.0) -> np.ndarray:
    square = (np.pi * peak * (T - at)) ** 2
    return (1 - 2 * square) * np.exp(-square)


def made_up(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted, observed and weights [2 shots, 3 receivers, 40 samples]: one observed, one predicted and one weighted trace are dead."""
    rng = np.random.default_rng(seed)
    p, o, w = rng.normal(size=(2, 3, 40)), rng.normal(size=(2, 3, 40)), rng.uniform(0.2, 3.0, size=(2, 3, 40))
    o[0, 1] = p[1, 0] = w[1, 2] = 0
    w[0, 0, :15] = 0
    return p, o, w


def scipy_envelope(x: np.ndarray) -> np.ndarray:
    return np.abs(scipy.signal.hilbert(x, 2 * x.shape[-1], axis=-1))[..., : x.shape[-1]]


def l2(p: np.ndarray, o: np.ndarray, w: np.ndarray) -> float:
    return 0.5 * np.sum((w * (p - o)) ** 2)


def crosscorrelation(p: np.ndarray, o: np.ndarray, w: np.ndarray) -> float:
    total = 0.0
    for a, b in zip((w * p).reshape(-1, p.shape[-1]), (w * o).reshape(-1, p.shape[-1]), strict=True):
        if b.any():
            total += 1 - (a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) if a.any() else 0)
    return total


def by_envelope(p: np.ndarray, o: np.ndarray, w: np.ndarray) -> float:
    return 0.5 * np.sum((w * (scipy_envelope(p) - scipy_envelope(o))) ** 2)


def value(misfit: WaveformMisfit, *traces: np.ndarray) -> float:
    return float(misfit.value(*(tf.constant(each) for each in traces)))


def adjoint_source(misfit: WaveformMisfit, p: np.ndarray, o: np.ndarray, w: np.ndarray) -> np.ndarray:
    predicted = tf.constant(p)
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        total = misfit.value(predicted, tf.constant(o), tf.constant(w))
    return tape.gradient(total, predicted).numpy()


@pytest.mark.parametrize(
    ("misfit", "expected"), list(zip(MISFITS, (l2, crosscorrelation, by_envelope), strict=True)), ids=["L2", "CrossCorrelation", "Envelope"]
)
def test_values(misfit: WaveformMisfit, expected: Callable[..., float]) -> None:
    p, o, w = made_up()
    assert value(misfit, p, o, w) == pytest.approx(expected(p, o, w), rel=1e-12)
    assert value(misfit, o, o, w) == 0
    assert value(misfit, p, o, w[:, :, :1]) == pytest.approx(expected(p, o, np.broadcast_to(w[:, :, :1], p.shape)), rel=1e-12)


@pytest.mark.parametrize("samples", [40, 41])
def test_hilbert_transform_is_scipys(samples: int) -> None:
    x = np.random.default_rng(1).normal(size=(2, samples))
    np.testing.assert_allclose(envelope(tf.constant(x)), np.abs(scipy.signal.hilbert(x, _length(samples)))[:, :samples], rtol=1e-12)
    np.testing.assert_allclose(hilbert(tf.constant(x)), scipy.signal.hilbert(x, _length(samples)).imag[:, :samples], atol=1e-13)


def _length(samples: int) -> int:
    return {40: 80, 41: 90}[samples]  # the even lengths of small factors from twice the record on


def test_envelope_of_a_burst_is_what_it_is_modulated_with() -> None:
    burst = np.exp(-(((T - 1.0) / 0.2) ** 2))
    np.testing.assert_allclose(envelope(tf.constant(burst * np.cos(2 * np.pi * 20 * T + 0.7))), burst, atol=1e-4)


def test_counts() -> None:
    _, o, w = made_up()
    assert [float(misfit.count(tf.constant(o), tf.constant(w))) for misfit in MISFITS] == [4 * 40 - 15, 4, 4 * 40 - 15]
    assert float(L2().count(tf.constant(o), tf.ones([2, 3, 1], tf.float64))) == 5 * 40


def test_twice_the_mean_l2_is_chi2() -> None:
    rng = np.random.default_rng(3)
    uncertainty = rng.uniform(1e-3, 1e-2, size=(2, 30, 1))
    o = rng.normal(size=(2, 30, 500))
    p = o + uncertainty * rng.normal(size=o.shape)
    count = float(L2().count(tf.constant(o), tf.constant(1 / uncertainty)))
    assert 2 * value(L2(), p, o, 1 / uncertainty) / count == pytest.approx(np.mean(((p - o) / uncertainty) ** 2), rel=1e-12)


@pytest.mark.parametrize("misfit", MISFITS, ids=str)
def test_adjoint_source_is_the_gradient_by_finite_differences(misfit: WaveformMisfit) -> None:
    p, o, w = made_up()
    found = adjoint_source(misfit, p, o, w)
    assert np.all(np.isfinite(found))
    for direction in np.random.default_rng(4).normal(size=(5, *p.shape)):
        direction[1, 0] = 0  # a trace that is predicted to be zero is a kink of two of the misfits
        slope = (value(misfit, p + 1e-5 * direction, o, w) - value(misfit, p - 1e-5 * direction, o, w)) / 2e-5
        assert np.sum(found * direction) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("misfit", MISFITS, ids=str)
def test_nothing_comes_from_dead_traces(misfit: WaveformMisfit) -> None:
    p, o, w = made_up()
    without = adjoint_source(misfit, p, o, w)
    assert np.all(without[1, 2] == 0)
    zero = np.zeros_like(p)
    for some_dead in ((zero, zero, w), (p, o, zero), (zero, o, w), (zero, zero, zero)):
        assert np.isfinite(value(misfit, *some_dead))
        assert np.all(np.isfinite(adjoint_source(misfit, *some_dead)))
    padding = [np.concatenate([each, np.zeros((2, 2, 40))], axis=1) for each in (p, o, w)]
    assert value(misfit, *padding) == pytest.approx(value(misfit, p, o, w), rel=1e-14)
    np.testing.assert_array_equal(adjoint_source(misfit, *padding)[:, 3:], 0)


@pytest.mark.parametrize("misfit", MISFITS, ids=str)
def test_batches_of_shots_add_up(misfit: WaveformMisfit) -> None:
    p, o, w = made_up()
    parts = sum(value(misfit, p[i : i + 1], o[i : i + 1], w[i : i + 1]) for i in range(2))
    assert value(misfit, p, o, w) == pytest.approx(parts, rel=1e-14)


@pytest.mark.parametrize("misfit", MISFITS, ids=str)
def test_single_precision_pressures_of_any_size(misfit: WaveformMisfit) -> None:
    """At 1e-24, where squares underflow, as at 1: the same up to the misfit's own power of the amplitude."""
    p, o, w = made_up()
    w = np.where(w > 0, 1.0, 0.0)
    expected = adjoint_source(misfit, p, o, w)
    size = 1e-24
    weights = w / size if not isinstance(misfit, CrossCorrelation) else w  # residuals over uncertainties
    predicted = tf.constant((p * size).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        total = misfit.value(predicted, tf.constant((o * size).astype(np.float32)), tf.constant(weights.astype(np.float32)))
    assert float(total) == pytest.approx(value(misfit, p, o, w), rel=1e-5)
    found = tape.gradient(total, predicted).numpy() * size
    np.testing.assert_allclose(np.delete(found.reshape(6, -1), 3, 0), np.delete(expected.reshape(6, -1), 3, 0), atol=1e-5 * np.abs(expected).max())


def test_crosscorrelation_does_not_see_amplitudes() -> None:
    p, o, w = made_up()
    scales = np.array([[[2.0], [1e-3], [1.0]], [[1.0], [1e4], [7.0]]])
    expected = value(CrossCorrelation(), p, o, w)
    assert value(CrossCorrelation(), p * scales, o / scales, w * scales) == pytest.approx(expected, rel=1e-12)
    assert value(CrossCorrelation(), 3 * o, o, w) == pytest.approx(0, abs=1e-25)
    assert value(CrossCorrelation(), -o, o, w) == pytest.approx(2 * 4, rel=1e-12)
    # its adjoint source is therefore orthogonal to the predicted trace
    assert np.abs(np.sum(adjoint_source(CrossCorrelation(), p, o, w) * p, axis=-1)).max() < 1e-14


def test_envelope_does_not_see_the_phase() -> None:
    carrier = [np.exp(-(((T - 1.0) / 0.15) ** 2)) * np.cos(2 * np.pi * 20 * T + phase) for phase in (0.0, np.pi / 2, np.pi)]
    worst = value(L2(), carrier[2], carrier[0], np.ones(1))
    assert value(Envelope(), carrier[1], carrier[0], np.ones(1)) < 1e-6 * worst
    assert value(Envelope(), carrier[2], carrier[0], np.ones(1)) < 1e-6 * worst


def test_envelope_grows_with_the_shift_where_least_squares_skips_a_cycle() -> None:
    """A burst of 10 Hz, shifted by up to two periods."""
    shifts = np.linspace(0.0, 0.2, 21)
    o = np.exp(-(((T - 0.8) / 0.15) ** 2)) * np.cos(2 * np.pi * 10 * (T - 0.8))
    shifted = [np.exp(-(((T - 0.8 - tau) / 0.15) ** 2)) * np.cos(2 * np.pi * 10 * (T - 0.8 - tau)) for tau in shifts]
    curves = {type(misfit): np.array([value(misfit, p, o, np.ones(1)) for p in shifted]) for misfit in MISFITS}
    assert np.all(np.diff(curves[Envelope]) > 0)
    for skipping in (L2, CrossCorrelation):
        # up to half a period it grows, then it falls to the next cycle
        assert np.all(np.diff(curves[skipping][:5]) > 0)
        assert curves[skipping][9] < 0.8 * curves[skipping][5]


@pytest.mark.parametrize("misfit", MISFITS, ids=str)
def test_compiled_gives_the_eager_value_and_adjoint_source(misfit: WaveformMisfit) -> None:
    p, o, w = (tf.constant(each) for each in made_up())

    @tf.function(jit_compile=True)
    def both(p: tf.Tensor, o: tf.Tensor, w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(p)
            total = misfit.value(p, o, w)
        return total, tape.gradient(total, p)

    total, source = both(p, o, w)
    assert float(total) == pytest.approx(float(misfit.value(p, o, w)), rel=1e-12)
    np.testing.assert_allclose(source, adjoint_source(misfit, *made_up()), atol=1e-13)
