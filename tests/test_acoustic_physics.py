"""What the wave operator computes: Green's functions, orders of accuracy, reciprocity, absorption, the free surface, resampling."""

import functools
from collections.abc import Sequence

import green
import numpy as np
import pytest
import tensorflow as tf
import waves
from scipy.special import j0

from geoinv.operators import AcousticWave, Acquisition, Grid, testing
from geoinv.operators.seismic import Absorbing, wavelets

SPACING, SPEED, FREQUENCY = 10.0, 2000.0, 12.0
REFLECTING = Absorbing(0)  # in grids so large that nothing returns from their sides: such programs compile fastest


def operator(shape: Sequence[int], sources: np.ndarray, receivers: np.ndarray, signal: np.ndarray, dt: float, **options: object) -> AcousticWave:
    """On cells of 10 m, with positions in cells from the first centre."""
    given = {"order": 8, "boundary": REFLECTING, "velocity_limits": (SPEED, SPEED), "dtype": tf.float64, **options}
    sources, receivers = ((np.asarray(places, float) + 0.5) * SPACING for places in (sources, receivers))
    return AcousticWave(Grid.uniform(shape, (SPACING,) * len(shape)), Acquisition(sources, receivers), signal, dt=dt, **given)  # type: ignore[arg-type]


def homogeneous(wave: AcousticWave, speed: float = SPEED) -> dict[str, tf.Tensor]:
    return {"velocity": tf.fill(wave.grid.shape, tf.constant(speed, wave.dtype))}


# ------------------------------------------------------------------------------------------------------- Green's functions


SOURCES = np.array([[60.0, 60.0], [60.37, 59.55]])
RECEIVERS = np.array([[60.0, 70.0], [77.0, 43.0], [66.4, 68.7], [41.2, 55.5], [71.3, 60.0]])
FINE = 352  # samples at 1 ms: as many as 33 samples at 8 ms take in steps of 1 ms, so that both share one program


@functools.cache
def in_two_dimensions() -> AcousticWave:
    return operator((121, 121), SOURCES, RECEIVERS, wavelets.ricker(FREQUENCY, FINE, 1e-3), 1e-3)


def errors_of(wave: AcousticWave, sources: np.ndarray, receivers: np.ndarray) -> list[float]:
    """Of every trace against the Green's function, relative to its root-mean-square."""
    data = wave.forward(homogeneous(wave)).numpy()
    times, errors = wave.dt * np.arange(data.shape[2]), []
    for source, traces in zip(sources, data, strict=True):
        for receiver, trace in zip(receivers, traces, strict=True):
            distance = SPACING * np.linalg.norm(source - receiver)
            expected = green.pressure(green.ricker(FREQUENCY), distance, SPEED, times, ndim=source.size)
            errors.append(testing.relative_difference(trace, expected))
    return errors


def test_pressure_of_a_point_source_in_two_dimensions() -> None:
    assert max(errors_of(in_two_dimensions(), SOURCES, RECEIVERS)) <= 0.01


def test_pressure_of_a_point_source_in_three_dimensions() -> None:
    sources, receivers = np.array([[30.0, 30.0, 30.0], [30.3, 29.6, 30.45]]), np.array([[30.0, 30.0, 42.0], [37.3, 22.6, 33.8]])
    wave = operator((61, 61, 61), sources, receivers, wavelets.ricker(FREQUENCY, 220, 1e-3), 1e-3, dtype=tf.float32)
    assert max(errors_of(wave, sources, receivers)) <= 0.01


def test_coarser_samples_than_steps() -> None:
    """The record of a run at 8 ms with eight steps each is that of a run at 1 ms, to the tolerance of the resampling (4e-5, twice)."""
    fine = in_two_dimensions()
    coarse = operator((121, 121), SOURCES, RECEIVERS, wavelets.ricker(FREQUENCY, 33, 8e-3), 8e-3, time_step=1e-3)
    assert coarse.substeps == 8 and fine.substeps == 1
    expected = fine.forward(homogeneous(fine)).numpy()[..., : 8 * 33 : 8]
    found = coarse.forward(homogeneous(coarse)).numpy()
    # The end of the record is resampled with zeros behind the wavelet's end; nothing is sent there.
    assert np.abs(found - expected).max() <= 2 * 4e-5 * np.abs(expected).max()


# ----------------------------------------------------------------------------------------------------------------- orders


def spreading(width: float, cells: np.ndarray, steps: int, courant: float, *, continuous: bool) -> np.ndarray:
    """``exp(-r^2 / 2 width^2)``, let go at rest in a homogeneous plane, after so many steps: an integral over wavenumbers k of J0(k r).

    Between steps a wave of k turns by ``courant k`` (in cells), or on a grid in time by ``2 arcsin(courant k / 2)``: with the latter what is
    left is the error in space alone.
    """
    roots, weights = np.polynomial.legendre.leggauss(200)
    k = (1 + roots) * 4.5 / width
    turn = courant * k if continuous else 2 * np.arcsin(courant * k / 2)
    spectrum = weights * 4.5 / width * k * width**2 * np.exp(-((k * width) ** 2) / 2)
    return np.asarray(j0(np.multiply.outer(np.abs(cells), k)) @ (spectrum * np.cos(steps * turn)))


@functools.cache
def let_go(order: int, courant: float, density: float | None) -> AcousticWave:
    """Receivers on the cells of a line through the middle; no source. Cells, steps and points are those of every other one of the order."""
    places = np.stack([np.full(41, 60.0), np.arange(40.0, 81.0)], axis=1)
    given = {} if density is None else {"density": np.full((121, 121), density)}
    return operator(
        (121, 121), [[60, 60]], places, np.zeros(34), courant * SPACING / SPEED, order=order, parameters=("velocity", "initial"), **given
    )  # fmt: skip


def error_after(order: int, width: float, steps: int, courant: float, *, continuous: bool, density: float | None = None) -> float:
    wave = let_go(order, courant, density)
    radius = np.hypot(*np.meshgrid(np.arange(-60, 61), np.arange(-60, 61)))
    unique, place = np.unique(np.round(radius, 9), return_inverse=True)
    start = [spreading(width, unique, step, courant, continuous=continuous)[place].reshape(121, 121) for step in (-1, 0)]
    data = wave.forward({**homogeneous(wave), "initial": tf.constant([start])}).numpy()[0, :, steps]
    expected = spreading(width, np.arange(-20, 21), steps, courant, continuous=continuous)
    return testing.relative_difference(data, expected)


@pytest.mark.parametrize(
    ("order", "density"), [(2, None), (4, None), (6, None), (8, None), (4, 2000.0), pytest.param(8, 2000.0, marks=pytest.mark.slow)]
)
def test_order_in_space(order: int, density: float | None) -> None:
    """A field twice as wide, after twice the time, is the same field on cells of half the size."""
    errors = [error_after(order, width, steps, 0.4, continuous=False, density=density) for width, steps in ((4.0, 15), (8.0, 30))]
    assert testing.order_test(errors, [2.0, 1.0]) == pytest.approx(order, abs=0.35)


def test_order_in_time() -> None:
    errors = [error_after(8, 8.0, steps, courant, continuous=True) for steps, courant in ((16, 0.5), (32, 0.25))]
    assert testing.order_test(errors, [2.0, 1.0]) == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("free", [False, True])
def test_where_the_pressure_is_zero(free: bool) -> None:
    """A standing wave of order 2 is exact to rounding: zero at the centres of the cells beyond the grid, and on the top face if that is free."""
    shape, steps, courant = (12, 15), 24, 0.5
    tops = (shape[0] + (0.5 if free else 1.0), shape[1] + 1.0)
    k = [np.pi * number / size for number, size in zip((2, 3), tops, strict=True)]
    mode = np.multiply.outer(*(np.sin(wavenumber * np.arange(1, n + 1)) for wavenumber, n in zip(k, shape, strict=True)))
    turn = 2 * np.arcsin(courant * np.sqrt(sum(np.sin(np.array(k) / 2) ** 2)))
    places = np.argwhere(np.ones(shape))
    wave = operator(
        shape, [[6, 7]], places, np.zeros(steps), courant * SPACING / SPEED, order=2, boundary=Absorbing(0, free_surface=free),
        parameters=("velocity", "initial"),
    )  # fmt: skip
    start = tf.constant([[mode * np.cos(turn), mode]])
    data = wave.forward({**homogeneous(wave), "initial": start}).numpy()[0].T.reshape(steps, *shape)
    expected = np.multiply.outer(np.cos(turn * np.arange(steps)), mode)
    assert np.abs(data - expected).max() <= 1e-12


def test_an_initial_field_is_seen_alike_in_steps_as_long_as_the_samples_and_in_finer_ones() -> None:
    """At its start too, where a filter in time would see half of it."""
    shape, samples, dt = (60, 60), 40, 2e-3
    up, east = np.mgrid[: shape[0], : shape[1]]
    pulse = np.exp(-((up - 30) ** 2 + (east - 30) ** 2) / 32.0)
    found = []
    for step in (dt, dt / 4):
        options = {"parameters": ("velocity", "initial"), "time_step": step}
        wave = operator(shape, [[30, 30]], [[30, 30], [30, 41]], np.zeros(samples), dt, **options)
        found.append(wave.forward({**homogeneous(wave), "initial": tf.constant([[pulse, pulse]])}).numpy()[0])
    assert found[0][0, 0] == found[1][0, 0] == pulse[30, 30]
    # At rest one step before the start: half a step of one scheme's time apart from half a step of the other's.
    assert testing.relative_difference(found[1], found[0]) <= 0.1


# ------------------------------------------------------------------------------------------- reciprocity, the free surface


@pytest.mark.parametrize("boundary", ["one side", "free surface"])
def test_reciprocity(boundary: str) -> None:
    """Source and receiver of the two shots change places, between the cells of a rough medium with layers that absorb."""
    wave = waves.small(waves.Case(4, boundary, 2, tf.float64, ("velocity", "wavelet", "initial"), 1, waves.StoreAll()))
    signals = wave.wavelet.copy()
    signals[:, 1] = 0
    data = wave.linearize({**waves.model_of(wave, rest=True), "wavelet": tf.constant(signals)}).data.numpy()
    assert np.abs(data[0, 0]).max() > 0
    assert testing.relative_difference(data[1, 0], data[0, 0]) <= 1e-12


def test_free_surface_is_an_image_of_opposite_sign() -> None:
    source, receivers = np.array([95.3, 80.0]), np.array([[93.0, 95.0], [97.6, 68.4], [85.0, 80.0], [98.0, 80.3]])
    signal = wavelets.ricker(FREQUENCY, 330, 1e-3)
    wave = operator((100, 161), source[np.newaxis], receivers, signal, 1e-3, boundary=Absorbing(0, free_surface=True))
    data, times = wave.forward(homogeneous(wave)).numpy()[0], 1e-3 * np.arange(330)
    for receiver, trace in zip(receivers, data, strict=True):
        metres = [(place + 0.5) * SPACING for place in (source, receiver)]
        expected = green.half_space(green.ricker(FREQUENCY), *metres, 100 * SPACING, SPEED, times)
        assert testing.relative_difference(trace, expected) <= 0.015


def test_uniform_density_only_scales_the_pressure() -> None:
    """Below a free surface: s is an acceleration of volume, so that the pressure is the density times what it is without."""
    points, signal = np.array([[31.4, 25.0]]), wavelets.ricker(FREQUENCY, 150, 1e-3, delay=0.06)
    data = []
    for given in ({}, {"density": np.full((36, 50), 2200.0)}):
        wave = operator((36, 50), points, [[25.2, 35.7], [33.0, 14.0]], signal, 1e-3, boundary=Absorbing(0, free_surface=True), **given)
        data.append(wave.forward(homogeneous(wave)).numpy())
    assert testing.relative_difference(data[1] / 2200.0, data[0]) <= 2e-3


def test_a_contrast_of_density_alone_reflects_alike_at_all_angles() -> None:
    """With one velocity the coefficient is (rho_2 - rho_1) / (rho_2 + rho_1) at every angle: what returns is that share of the image's wave."""
    shape, source, receivers = (200, 240), np.array([140.0, 80.0]), np.array([[140.0, 80.0], [135.0, 130.0], [140.0, 160.0]])
    signal, face = wavelets.ricker(FREQUENCY, 520, 1e-3), 100  # between the cells 99 and 100
    records = []
    for below in (3000.0, 1000.0):
        density = np.full(shape, 1000.0)
        density[:face] = below
        wave = operator(shape, source[np.newaxis], receivers, signal, 1e-3, boundary=Absorbing(((20, 20), (20, 20))), density=density)
        records.append(wave.forward(homogeneous(wave)).numpy()[0])
    image = np.array([2 * face - 1 - source[0], source[1]])
    for receiver, returned in zip(receivers, records[0] - records[1], strict=True):
        expected = 1000.0 * green.pressure(green.ricker(FREQUENCY), SPACING * np.linalg.norm(receiver - image), SPEED, 1e-3 * np.arange(520), ndim=2)
        assert testing.relative_difference(returned, 0.5 * expected) <= 0.02


# -------------------------------------------------------------------------------------------------------- absorbing layers


def reflection(
    cells: int, offsets: Sequence[float], *, frequency: float = 25.0, order: int = 4, density: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude that returns from a layer, over that of the wave from the source's mirror image in the layer's inner face.

    What returns is the record less that of a grid that goes on where the layer is. All other sides are the same in both, and far.

    Args:
        cells: Width of the layer; there are 8 points per wavelength at the peak frequency.
        offsets: Of the receivers along the layer, in cells; source and receivers are 30 cells from it.
        frequency, order: Of the wavelet, Hz, and of the scheme.
        density: kg/m3, everywhere, or None to leave it out.

    Returns:
        Ratios of largest amplitudes, and largest ratios of the spectra where the source has half its largest amplitude or more.
    """
    depth, half, before, samples, dt = 30, int(max(offsets)) + 75, 70, 260 + 2 * int(max(offsets)), 2e-3
    signal = wavelets.ricker(frequency, samples, dt)
    sources = np.array([[half, before + 0.0]])
    receivers = np.array([[half + offset, before] for offset in offsets])
    records = []
    for boundary, more in ((Absorbing(((0, 0), (0, cells))), 0), (REFLECTING, 160)):
        shape = (2 * half, before + depth + more)
        given = {} if density is None else {"density": np.full(shape, density)}
        wave = operator(shape, sources, receivers, signal, dt, order=order, boundary=boundary, **given)
        records.append(wave.forward(homogeneous(wave)).numpy()[0] / (density or 1.0))
    peaks, spectra = [], []
    source = np.abs(np.fft.rfft(signal))
    band = source >= 0.5 * source.max()
    for offset, returned in zip(offsets, records[0] - records[1], strict=True):
        image = green.pressure(green.ricker(frequency), SPACING * np.hypot(2 * depth - 1, offset), SPEED, dt * np.arange(samples), ndim=2)
        peaks.append(np.abs(returned).max() / np.abs(image).max())
        spectra.append((np.abs(np.fft.rfft(returned)) / np.abs(np.fft.rfft(image)))[band].max())
    return 20 * np.log10(peaks), 20 * np.log10(spectra)


@pytest.mark.parametrize(("order", "density"), [(4, None), pytest.param(2, None, marks=pytest.mark.slow), (8, 1000.0)])
def test_twenty_cells_return_a_thousandth_at_normal_incidence(order: int, density: float | None) -> None:
    peaks, spectra = reflection(20, [0.0], order=order, density=density)
    assert peaks[0] <= -60 and spectra[0] <= -60


@functools.cache
def enclosed() -> np.ndarray:
    """Pressure in every cell [time, upward, easting] for 8 s in a rough medium, single precision, at the largest stable step."""
    shape = (32, 36)
    velocity = np.random.default_rng(3).uniform(1500, 2500, shape)
    signal = wavelets.ricker(25.0, 100, 2e-3)
    with pytest.warns(UserWarning, match="padded"):
        wave = operator(
            shape, [[15.2, 17.6]], np.argwhere(np.ones(shape)), signal, 2.4e-3, order=4, boundary=Absorbing(20), samples=4000,
            velocity_limits=(1500.0, 2500.0), dtype=tf.float32,
        )  # fmt: skip
    return wave.forward({"velocity": tf.constant(velocity, tf.float32)}).numpy()[0].T.reshape(-1, *shape)


def test_nothing_grows_in_thousands_of_steps() -> None:
    field = np.abs(enclosed()).reshape(-1, 32 * 36).max(axis=1)
    assert field[-1000:].max() <= 1e-5 * field.max()  # rounding, in single precision
    assert field[-1000:].max() <= 2 * field[1000:2000].max()


def test_energy_falls_once_the_source_is_silent() -> None:
    field = enclosed()[:700].astype(float)
    kinetic = np.sum(np.gradient(field, 2.4e-3, axis=0) ** 2, axis=(1, 2)) / SPEED**2
    strain = sum(np.sum(np.gradient(field, SPACING, axis=axis) ** 2, axis=(1, 2)) for axis in (1, 2))
    energy = (kinetic + strain)[60::20]  # from 0.144 s on; the wavelet ends at 0.12 s
    assert np.all(np.diff(energy) < 0)
    assert energy[-1] < 1e-6 * energy[0]


@pytest.mark.slow
@pytest.mark.parametrize("cells", [10, 20, 40])
def test_reflection_of_slanted_waves(cells: int) -> None:
    """Measured and printed: the ratio at the angle of incidence in degrees. Wider layers return less at every angle."""
    offsets = [0.0, 20.0, 35.0, 60.0, 104.0, 165.0, 340.0]
    peaks, spectra = reflection(cells, offsets)
    angles = np.degrees(np.arctan2(offsets, 59))
    print(
        f"\n{cells} cells:",
        ", ".join(f"{angle:.0f} deg {peak:.0f} dB ({spectrum:.0f})" for angle, peak, spectrum in zip(angles, peaks, spectra, strict=True)),
    )
    assert peaks[0] <= {10: -40, 20: -60, 40: -60}[cells]
    assert np.all(peaks[:4] <= -35)
