"""Filters against exact spectra and SciPy's, mutes and weights by hand; under tf.function, XLA and GradientTape."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

from geoinv.waveform import gathers, traces

DT = 0.004
T = np.arange(500) * DT


def ricker(peak: float, at: float) -> np.ndarray:
    square = (np.pi * peak * (T - at)) ** 2
    return (1 - 2 * square) * np.exp(-square)


def test_filter_multiplies_the_spectrum_of_an_infinite_record() -> None:
    """The transform of a Ricker wavelet is known; its filtered form follows by quadrature, without any Fourier transform."""
    corners = (3.0, 6.0, 14.0, 22.0)
    frequencies = np.linspace(3.0, 22.0, 4001)
    spectrum = 2 * frequencies**2 / (np.sqrt(np.pi) * 10.0**3) * np.exp(-((frequencies / 10.0) ** 2))
    rise, fall = np.clip((frequencies - 3) / 3, 0, 1), np.clip((22 - frequencies) / 8, 0, 1)
    amplitudes = spectrum * np.sin(np.pi / 2 * rise) ** 2 * np.sin(np.pi / 2 * fall) ** 2
    expected = 2 * np.trapezoid(amplitudes * np.cos(2 * np.pi * frequencies * (T[:, None] - 0.9)), frequencies, axis=1)
    found = traces.bandpass(tf.constant(ricker(10.0, 0.9)), DT, corners).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_phase_and_amplitude_are_those_of_a_forward_backward_butterworth_inside_the_band() -> None:
    band = ricker(10.0, 1.0) - ricker(6.0, 1.1)
    sections = scipy.signal.butter(6, [0.5, 40.0], "bandpass", fs=1 / DT, output="sos")
    expected = scipy.signal.sosfiltfilt(sections, band)
    found = traces.bandpass(tf.constant(band), DT, (0.1, 0.6, 35.0, 45.0)).numpy()
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(band).max())


@pytest.mark.parametrize("frequency", [2.0, 8.0, 11.0, 14.0])
def test_gain_of_a_sinusoid(frequency: float) -> None:
    """1, 1, 1/2 at the middle of the taper, 0: away from the ends of the record."""
    wave = np.sin(2 * np.pi * frequency * T)
    found = traces.bandpass(tf.constant(wave), DT, (0.0, 0.0, 8.5, 13.5)).numpy()
    gain = {2.0: 1.0, 8.0: 1.0, 11.0: 0.5, 14.0: 0.0}[frequency]
    np.testing.assert_allclose(found[200:300], gain * wave[200:300], atol=0.01)


def test_nothing_wraps_around() -> None:
    """Energy at the end of the record does not come back at its start: the same as with a long silence on both sides."""
    trace = np.zeros((2, 500))
    trace[:, -3:] = [[1.0, -2.0, 4.0], [1.0, 1.0, 1.0]]
    silent = np.pad(trace, [(0, 0), (4000, 4000)])
    for filtered in (lambda x: traces.bandpass(x, DT, (1.0, 4.0, 10.0, 20.0)), lambda x: traces.bandpass(x, DT, (0.0, 0.0, 10.0, 30.0))):
        short, long = filtered(tf.constant(trace)).numpy(), filtered(tf.constant(silent)).numpy()
        np.testing.assert_allclose(short, long[:, 4000:4500], atol=1e-4 * np.abs(long).max())


def test_filter_is_its_own_adjoint() -> None:
    rng = np.random.default_rng(0)
    a, b = (tf.constant(rng.normal(size=(2, 3, 101))) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(a)
        inner = tf.reduce_sum(b * traces.bandpass(a, DT, (2.0, 5.0, 30.0, 60.0)))
    np.testing.assert_allclose(tape.gradient(inner, a), traces.bandpass(b, DT, (2.0, 5.0, 30.0, 60.0)), atol=1e-13)


def test_mutes_by_hand() -> None:
    offsets, times = np.array([[0.0, -1000.0], [2000.0, 500.0]]), T
    top = gathers.mute(offsets, times, velocity=2000.0, delay=0.1, taper=0.2, side="top")
    bottom = gathers.mute(offsets, times, velocity=2000.0, delay=0.1, taper=0.2, side="bottom")
    assert top.shape == bottom.shape == (2, 2, 500)
    # at 1000 m the line is at 0.6 s, sample 150
    assert np.all(top[0, 1, :151] == 0)
    assert top[0, 1, 175] == pytest.approx(0.5)
    np.testing.assert_allclose(top[0, 1, 200:], 1, rtol=1e-12)
    np.testing.assert_allclose(bottom[0, 1, :101], 1, rtol=1e-12)
    assert bottom[0, 1, 125] == pytest.approx(0.5)
    assert np.all(bottom[0, 1, 151:] == 0)
    assert np.argmax(top[1, 0] > 0) == 276  # just after 1.1 s
    assert np.all(np.diff(top, axis=-1) >= 0) and np.all(np.diff(bottom, axis=-1) <= 0)
    sharp = gathers.mute(offsets, times, velocity=np.inf, delay=1.0, taper=0.0, side="top")
    np.testing.assert_array_equal(sharp, np.broadcast_to(T > 1.0, (2, 2, 500)))


def test_offset_weights_by_hand() -> None:
    offsets = np.array([50.0, -100.0, 150.0, 200.0, -999.0, 1100.0])
    found = gathers.offset_weights(offsets, nearest=100.0, farthest=1000.0, taper=100.0)
    np.testing.assert_allclose(found, [0, 0, 0.5, 1, np.sin(np.pi / 200) ** 2, 0], atol=1e-12)
    np.testing.assert_array_equal(gathers.offset_weights(offsets, farthest=150.0), [1, 1, 1, 0, 0, 0])


def test_normalised_traces_have_unit_power_whatever_their_size() -> None:
    x = np.random.default_rng(1).normal(size=(2, 3, 64)).astype(np.float32) * np.array([[[1e-25], [1.0], [1e18]]], np.float32)
    x[1, 1] = 0
    found = traces.normalised(tf.constant(x), tf.ones(x.shape, bool)).numpy()
    expected = x.astype(float) / np.where(x.any(-1, keepdims=True), np.sqrt(np.mean(x.astype(float) ** 2, -1, keepdims=True)), 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_muted_samples_do_not_set_the_scale() -> None:
    x, counted = np.array([[4.0, -4.0, 1e9], [3.0, 1.0, 1.0], [0.0, 0.0, 2.0]]), np.array([[1, 1, 0], [0, 1, 1], [1, 1, 0]], bool)
    np.testing.assert_allclose(traces.normalised(tf.constant(x), tf.constant(counted)), [[1, -1, 2.5e8], [3, 1, 1], [0, 0, 0]])


def test_gradient_of_normalisation_is_that_of_finite_differences_and_zero_for_dead_traces() -> None:
    rng = np.random.default_rng(2)
    x, b = rng.normal(size=(3, 8)), rng.normal(size=(3, 8))
    x[1] = 0
    counted = tf.constant(np.arange(8) != 7) & tf.ones((3, 8), bool)

    def inner(values: np.ndarray) -> float:
        return float(tf.reduce_sum(b * traces.normalised(tf.constant(values), counted)))

    variable = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        value = tf.reduce_sum(b * traces.normalised(variable, counted))
    found = tape.gradient(value, variable).numpy()
    assert np.all(found[1] == 0)
    for index in ((0, 3), (2, 7)):
        change = np.zeros_like(x)
        change[index] = 1e-6
        assert found[index] == pytest.approx((inner(x + change) - inner(x - change)) / 2e-6, rel=1e-6)


PROCESSES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "bandpass": lambda x: traces.bandpass(x, DT, (2.0, 5.0, 30.0, 60.0)),
    "lowpass": lambda x: traces.bandpass(x, DT, (0.0, 0.0, 10.0, 20.0)),
    "normalised": lambda x: traces.normalised(x, x > -1.0),
}


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_traced_and_compiled_give_the_eager_values_and_gradients(name: str, dtype: tf.DType) -> None:
    x = tf.constant(np.random.default_rng(3).normal(size=(2, 3, 101)), dtype)

    def both(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = PROCESSES[name](x)
        return y, tape.gradient(y, x, output_gradients=tf.sin(y))

    expected = both(x)
    assert expected[0].dtype == dtype
    for compiled in (False, True):
        for a, b in zip(tf.function(both, jit_compile=compiled)(x), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 if dtype == tf.float32 else 1e-12)


@pytest.mark.parametrize(
    ("process", "message"),
    [
        (lambda x: traces.bandpass(x, DT, (2.0, 1.0, 10.0, 20.0)), "'corners'.*increasing"),
        (lambda x: traces.bandpass(x, DT, (1.0, 2.0, 10.0)), "'corners'.*four"),
        (lambda x: traces.bandpass(x, DT, (1.0, 1.0, 10.0, 20.0)), "'corners'.*four"),
        (lambda x: traces.bandpass(x, DT, (0.0, 0.0, 100.0, 130.0)), "'corners'.*Nyquist frequency 125 Hz"),
        (lambda x: traces.bandpass(x, 0.0, (0.0, 0.0, 1.0, 2.0)), "'dt'"),
        (lambda x: gathers.mute(x, x, velocity=2000.0, taper=0.1, side="left"), "'side' 'left'"),
        (lambda x: gathers.mute(x, x, velocity=0.0, taper=0.1, side="top"), "'velocity'"),
        (lambda x: gathers.mute(x, x, velocity=1.0, taper=-0.1, side="top"), "'taper'"),
        (lambda x: gathers.offset_weights(x, nearest=5.0, farthest=5.0), "'offset range'"),
    ],
)
def test_misuse_is_refused(process: Callable[[tf.Tensor], tf.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        process(tf.ones([10]))
