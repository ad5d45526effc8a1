"""The analytic pressures the propagator is tested against, tested against each other and against closed forms."""

import green
import numpy as np
import pytest
from scipy.integrate import quad

SPEED, DT = 2000.0, 0.001
TIMES = DT * np.arange(1000)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("distance", [5.0, 300.0, 1500.0])
def test_time_and_frequency_agree(ndim: int, distance: float) -> None:
    signal = green.ricker(20.0)
    in_time = green.pressure(signal, distance, SPEED, TIMES, ndim=ndim)
    in_frequency = green.pressure_of_samples(signal(TIMES), DT, distance, SPEED, ndim=ndim)
    assert np.abs(in_time - in_frequency).max() < 1e-6 * np.abs(in_time).max()


def test_two_dimensions_against_the_closed_form_of_a_ramp() -> None:
    distance = 250.0
    arrival = distance / SPEED
    late = np.maximum(TIMES / arrival, 1.0)
    expected = arrival * (late * np.arccosh(late) - np.sqrt(late**2 - 1)) / (2 * np.pi)
    found = green.pressure(lambda times: np.maximum(times, 0.0), distance, SPEED, TIMES, ndim=2)
    np.testing.assert_allclose(found, expected, atol=1e-10 * expected.max())


def test_two_dimensions_are_a_line_of_sources_in_three() -> None:
    signal, distance, time = green.ricker(15.0), 200.0, 0.25
    farthest = np.sqrt((SPEED * time) ** 2 - distance**2)

    def at(z: float) -> float:
        return float(green.pressure(signal, float(np.hypot(distance, z)), SPEED, np.array([time]), ndim=3)[0])

    line = 2 * quad(at, 0, farthest, epsabs=1e-14, epsrel=1e-10, limit=200)[0]
    assert green.pressure(signal, distance, SPEED, np.array([time]), ndim=2)[0] == pytest.approx(line, rel=1e-7)


def test_quadrature_has_converged() -> None:
    signal = green.ricker(40.0)
    found, finer = (green.pressure(signal, 20.0, SPEED, TIMES, ndim=2, nodes=nodes) for nodes in (0, 700))
    assert np.abs(found - finer).max() < 1e-9 * np.abs(finer).max()


@pytest.mark.parametrize("axes", [2, 3])
def test_half_space_vanishes_at_the_plane_and_its_echo_is_negative(axes: int) -> None:
    signal = green.ricker(20.0, delay=0.1)
    source, receiver = np.full(axes, -200.0), np.full(axes, -200.0)
    receiver[-1] = 300.0
    deep = green.half_space(signal, source, receiver, 50.0, SPEED, TIMES)
    at_plane = np.r_[50.0, receiver[1:]]
    assert np.abs(green.half_space(signal, source, at_plane, 50.0, SPEED, TIMES)).max() < 1e-15 * np.abs(deep).max()
    whole = green.pressure(signal, float(np.linalg.norm(receiver - source)), SPEED, TIMES, ndim=axes)
    echo = deep - whole
    path = np.hypot(500.0, np.linalg.norm((receiver - source)[1:]))  # to the image, 250 m above the plane
    peak = np.argmax(np.abs(echo))
    assert echo[peak] < 0 and TIMES[peak] == pytest.approx(0.1 + path / SPEED, abs=0.008 if axes == 2 else DT)
    np.testing.assert_allclose(echo, -green.pressure(signal, path, SPEED, TIMES, ndim=axes), atol=1e-12 * np.abs(echo).max())
