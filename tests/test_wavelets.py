"""Wavelets: spectra from theory, files of every form, lengths, and the band that makes a sum over every k-th step accurate."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.special import gammainc, gammaincc

from geoinv.operators.seismic import wavelets

DT, N = 0.002, 1000


def amplitude(wavelet: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    return np.fft.rfftfreq(8 * wavelet.size, dt), dt * np.abs(np.fft.rfft(wavelet, 8 * wavelet.size))


@pytest.mark.parametrize("frequency", [4.0, 25.0])
def test_ricker_spectrum(frequency: float) -> None:
    frequencies, spectrum = amplitude(wavelets.ricker(frequency, N, DT), DT)
    # Ricker (1953): 2 / sqrt(pi) f^2 / f_p^3 exp(-(f / f_p)^2)
    expected = 2 / np.sqrt(np.pi) * frequencies**2 / frequency**3 * np.exp(-((frequencies / frequency) ** 2))
    np.testing.assert_allclose(spectrum, expected, atol=1e-7 * expected.max())
    assert frequencies[np.argmax(spectrum)] == pytest.approx(frequency, abs=frequencies[1])


def test_ricker_peak_delay_and_start() -> None:
    late = wavelets.ricker(25.0, N, DT, delay=0.3)
    assert np.argmax(late) == 150 and late.max() == 1.0
    usual = wavelets.ricker(25.0, N, DT)
    assert np.argmax(usual) == 30 and abs(usual[0]) < 2e-8


def test_ormsby_is_a_trapezoid_in_frequency() -> None:
    corners = (3.0, 8.0, 40.0, 60.0)
    wavelet = wavelets.ormsby(corners, 2048, DT)
    frequencies, spectrum = amplitude(wavelet, DT)
    # A peak of 1 is the area under the spectrum, both signs of frequency counted: height 1 / (f4 + f3 - f2 - f1).
    relative = spectrum * (60 + 40 - 8 - 3)
    inside = (frequencies > 9) & (frequencies < 39)
    assert np.abs(relative[inside] - 1).max() < 0.01
    assert relative[(frequencies > 62) | (frequencies < 2)].max() < 0.01
    np.testing.assert_allclose(np.interp([5.5, 50.0], frequencies, relative), 0.5, atol=0.01)


@pytest.mark.parametrize("corners", [(3.0, 8.0, 40.0, 60.0), (0.0, 5.0, 5.0, 20.0)])
def test_ormsby_starts_below_a_thousandth(corners: tuple[float, ...]) -> None:
    wavelet = wavelets.ormsby(corners, 2048, DT)
    assert 1e-5 < np.abs(wavelet[:20]).max() < 1e-3
    assert 0.97 < wavelet.max() <= 1  # the peak is between two samples
    assert wavelets.ormsby(corners, 501, DT, delay=0.5).argmax() == 250


def write(path: Path, *columns: np.ndarray, separator: str = " ") -> Path:
    path.write_text("# a wavelet\n\n" + "\n".join(separator.join(f"{value:.9g}" for value in row) for row in zip(*columns, strict=True)) + "\n")
    return path


def test_one_column_is_read_as_it_is(tmp_path: Path) -> None:
    wavelet = wavelets.ricker(15.0, 300, DT)
    np.save(tmp_path / "w.npy", wavelet)
    np.testing.assert_array_equal(wavelets.read(tmp_path / "w.npy", dt=DT, n=300), wavelet)
    np.testing.assert_allclose(wavelets.read(write(tmp_path / "w.txt", wavelet), dt=DT, n=300), wavelet, rtol=1e-8)


@pytest.mark.parametrize(("own", "start"), [(0.002, 0.0), (0.0005, 0.0), (0.003, 0.0), (0.001, 0.05), (1 / 750, 0.0)])
def test_two_columns_are_brought_to_the_interval(tmp_path: Path, own: float, start: float) -> None:
    times = start + own * np.arange(round(0.9 / own))
    values = np.array([wavelets.ricker(15.0, times.size, own, delay=0.2 - start)])[0]
    file = write(tmp_path / "w.csv", times.round(6), values, separator=",")
    with pytest.warns(UserWarning, match="wavelet shorter than the record"):
        found = wavelets.read(file, dt=DT, n=600)
    np.testing.assert_allclose(found, wavelets.ricker(15.0, 600, DT, delay=0.2), atol=1e-4)
    np.save(tmp_path / "w.npy", np.stack([times, values], axis=1))
    np.testing.assert_allclose(wavelets.read(tmp_path / "w.npy", dt=DT, n=400), found[:400], atol=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.0\nabc\n", r"line 2, 'abc': must be one or two numbers"),
        ("0 1\n0.002\n", r"line 2, '0.002': must be one or two numbers, as many on every line"),
        ("1.0\nnan\n", r"nan at index 1: must be finite"),
        ("", r"of shape \(0,\): must be one column"),
        ("0 1 2\n1 2 3\n", r"of shape \(2, 3\): must be one column"),
        ("0 1\n0.002 2\n0.005 3\n", "must be evenly spaced"),
        ("0 1\n", "with one time"),
        ("-0.1 0\n0 1\n0.1 0\n", r"Delay it by adding 0\.1 s to its times"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"Invalid 'wavelet.*bad\.txt.*{message}"):
        wavelets.read(file, dt=DT, n=10)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Invalid 'wavelet' '.*none\.txt': must be a readable text or \.npy file.*No such file"):
        wavelets.read(tmp_path / "none.txt", dt=DT, n=10)
    for name in ("not.npy", "binary.txt"):
        (tmp_path / name).write_bytes(b"\xff\x00\x81 words")
        with pytest.raises(ValueError, match="must be a readable text or"):
            wavelets.read(tmp_path / name, dt=DT, n=10)
    np.save(tmp_path / "c.npy", np.array(["a", "b"]))
    with pytest.raises(ValueError, match="of real numbers"):
        wavelets.read(tmp_path / "c.npy", dt=DT, n=10)


def test_short_wavelets_are_padded_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="wavelet shorter than the record: 3 samples are padded with zeros to 5"):
        found = wavelets.fit_length(np.ones((2, 3)), 5)
    np.testing.assert_array_equal(found, [[1, 1, 1, 0, 0]] * 2)


def test_only_a_negligible_end_is_cut() -> None:
    wavelet = wavelets.ricker(25.0, 200, DT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(wavelets.fit_length(wavelet, 80), wavelet[:80])
        np.testing.assert_array_equal(wavelets.fit_length(wavelet, 200), wavelet)
    # (1 - 2 a) exp(-a) at 20 ms past the peak, a = (pi / 2)^2, is -0.334
    with pytest.raises(ValueError, match=r"Invalid 'wavelet' of 200 samples, 40 in the record.*It reaches 0\.33 of it there"):
        wavelets.fit_length(wavelet, 40)


def test_band_of_a_ricker_is_that_of_its_spectrum() -> None:
    # Its energy above f is Q(5 / 2, 2 (f / f_p)^2), the regularised incomplete gamma function: f^4 exp(-2 (f / f_p)^2) integrated.
    wavelet = wavelets.ricker(20.0, N, DT)
    for level in (1e-1, 1e-2, 5e-4):
        lowest, highest = wavelets.band(wavelet, DT, level=level)
        assert gammaincc(2.5, 2 * (highest / 20) ** 2) == pytest.approx(level**2, rel=0.2)
        before, after = (gammainc(2.5, 2 * ((lowest + step) / 20) ** 2) for step in (-0.25, 0.25))  # the frequency grid's step
        assert before < level**2 < after
    assert 60 < highest < 65  # three peak frequencies


def test_band_counts_traces_together_and_scales_with_nothing() -> None:
    low, high = (wavelets.ricker(f, N, DT) for f in (10.0, 30.0))
    assert wavelets.band([[low, 0 * low], [1e-6 * high, low]], DT) == wavelets.band(1e7 * low, DT)
    assert wavelets.band([low, high], DT)[1] == pytest.approx(wavelets.band(high, DT)[1], rel=0.05)
    assert wavelets.band(np.zeros((3, 50)), DT) == (0.0, 0.0)


def test_band_of_noise_is_the_whole_axis_and_a_cut_record_does_not_make_it_so() -> None:
    noise = np.random.default_rng(0).normal(size=N)
    assert wavelets.band(noise, DT)[1] > 0.999 * 0.5 / DT
    ends = wavelets.ricker(10.0, N, DT, delay=N * DT - 0.03)
    assert wavelets.band(ends, DT)[1] < 60


@pytest.mark.parametrize("seed", range(5))
def test_a_sum_over_every_kth_sample_within_the_band_is_accurate(seed: int) -> None:
    # The use the level is made for: k dt just below 1 / (f_1 + f_2), the first of the k samples anywhere.
    rng = np.random.default_rng(seed)
    dt = 1e-4
    fields = [wavelets.ricker(f, 6000, dt, delay=rng.uniform(0.25, 0.26)) for f in rng.uniform(15, 40, 2)]
    highest = [wavelets.band(field, dt)[1] for field in fields]
    k = int(np.ceil(1 / (sum(highest) * dt)) - 1)
    product, scale = fields[0] * fields[1], np.linalg.norm(fields[0]) * np.linalg.norm(fields[1])
    errors = [abs(k * product[first::k].sum() - product.sum()) / scale for first in range(k)]
    assert max(errors) < 1e-3
    # The rule is needed: half as often again it fails by far more.
    coarse = [abs(2 * k * product[first :: 2 * k].sum() - product.sum()) / scale for first in range(2 * k)]
    assert max(coarse) > 1e-2


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"Invalid 'frequency' 125 Hz: must be below half the Nyquist frequency, 125 Hz, at dt = 0\.002 s"):
        wavelets.ricker(125.0, N, DT)
    with pytest.raises(ValueError, match="Invalid 'frequency' -5"):
        wavelets.ricker(-5.0, N, DT)
    with pytest.raises(ValueError, match="Invalid 'dt'"):
        wavelets.ricker(5.0, N, 0.0)
    with pytest.raises(ValueError, match="Invalid 'n' 0"):
        wavelets.ricker(5.0, 0, DT)
    for corners in ((3, 2, 5, 8), (1, 2, 3), (1, 2, 3, 300)):
        with pytest.raises(ValueError, match=r"Invalid 'corners' .* must be four frequencies 0 <= f1 < f2 <= f3 < f4 <= 250 Hz"):
            wavelets.ormsby(corners, N, DT)
    with pytest.raises(ValueError, match="Invalid 'signal' inf"):
        wavelets.band([1.0, np.inf], DT)
    with pytest.raises(ValueError, match="Invalid 'wavelet' nan"):
        wavelets.fit_length([np.nan], 3)
