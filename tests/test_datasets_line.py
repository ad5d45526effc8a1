"""Surveys along a line: projected ones, and those whose northings say nothing."""

import warnings

import numpy as np
import pytest
import xarray

from geoinv.datasets import line, netcdf, shots

TIME = 0.004 * np.arange(50)
ORIGIN = {"upward": 0.0, "northing": 0.0, "easting": 0.0}


def on_a_line(azimuth, across=0.0):
    """Receivers every 10 m, the first at (1000, 2000), moved to alternating sides of a line; sources at its ends."""
    along = np.array([np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth))])
    side = across * (-1.0) ** np.arange(20)
    receivers = np.array([1000.0, 2000.0]) + 10 * np.arange(20)[:, None] * along + side[:, None] * [along[1], -along[0]]
    sources = np.array([1000.0, 2000.0]) + np.array([[0.0], [190.0]]) * along
    return shots.make(
        np.ones((2, 20, 50)),
        TIME,
        {"upward": 0.0, "easting": sources[:, 0], "northing": sources[:, 1]},
        {"upward": 0.0, "easting": receivers[:, 0], "northing": receivers[:, 1]},
        live=np.arange(20) != 7,
        crs="EPSG:32610",
    )


@pytest.mark.parametrize("azimuth", [30.0, 90.0, 135.0, 0.0])
def test_a_straight_line_is_unrolled_exactly(azimuth):
    flat = shots.validate(line.project(on_a_line(azimuth)))
    assert shots.axes_of(flat) == ("upward", "easting")
    np.testing.assert_allclose(flat["receiver_easting"].values[1], 10.0 * np.arange(20), atol=1e-9)
    np.testing.assert_allclose(flat["source_easting"], [0, 190], atol=1e-9)
    assert flat.attrs["line_azimuth"] == pytest.approx(azimuth, abs=1e-9) and flat.attrs["crs"] == ""
    assert flat.attrs["line_origin"] == pytest.approx([1000, 2000], abs=1e-9)
    assert "EPSG:32610" in flat.attrs["history"]


def test_the_line_is_that_of_total_least_squares():
    rng = np.random.default_rng(2)
    east, north = rng.uniform(0, 1000, (2, 30)) * np.array([[1.0], [0.3]])
    receivers = {"upward": 0.0, "easting": east, "northing": north + 0.4 * east}
    made = shots.make(np.ones((1, 30, 50)), TIME, {"upward": 0.0, "easting": 500.0, "northing": 300.0}, receivers)
    with pytest.warns(UserWarning, match="from the line"):
        flat = line.project(made)
    covariance = np.cov(np.append(receivers["easting"], 500.0), np.append(receivers["northing"], 300.0))
    angle = 0.5 * np.arctan2(2 * covariance[0, 1], covariance[0, 0] - covariance[1, 1])  # of the major axis, from east
    assert flat.attrs["line_azimuth"] == pytest.approx(90 - np.degrees(angle), abs=1e-8)


def test_the_departure_from_the_line_is_recorded_and_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        near = line.project(on_a_line(60.0, across=2.0), azimuth=60.0, origin=(1000.0, 2000.0))
    np.testing.assert_allclose(near["receiver_easting"].values[0], 10.0 * np.arange(20), atol=1e-9)
    # The largest change of an offset is at the receiver beside a source: 2 m against 0.
    assert "largest departure 2 m, largest change of an offset 2 m" in near.attrs["history"]
    with pytest.warns(UserWarning, match=r"up to 15 m from the line; receivers are 10 m apart"):
        line.project(on_a_line(60.0, across=15.0), azimuth=60.0, origin=(1000.0, 2000.0))


def test_lines_that_cannot_be():
    with pytest.raises(ValueError, match="on a line already"):
        line.project(shots.make(np.ones((1, 2, 50)), TIME, {"upward": 0.0, "easting": 0.0}, {"upward": 0.0, "easting": [0.0, 10.0]}))
    with pytest.raises(ValueError, match="at one place"):
        line.project(shots.make(np.ones((1, 2, 50)), TIME, ORIGIN, ORIGIN))


def test_a_projected_survey_survives_netcdf(tmp_path):
    flat = line.project(on_a_line(30.0))
    netcdf.write(tmp_path / "line.nc", flat)
    read = netcdf.read(tmp_path / "line.nc")
    xarray.testing.assert_equal(read, flat)
    assert list(read.attrs["line_origin"]) == list(flat.attrs["line_origin"]) and read.attrs["line_azimuth"] == flat.attrs["line_azimuth"]


def test_a_place_is_the_crs_and_the_line() -> None:
    flat = line.project(on_a_line(30.0))
    assert line.place(flat) == {"crs": "", "line_origin": flat.attrs["line_origin"], "line_azimuth": flat.attrs["line_azimuth"]}
    assert line.same_place(line.place(flat), {"line_origin": np.array(flat.attrs["line_origin"]) + 0.5, "line_azimuth": 390.0 - 360.0})
    assert not line.same_place(line.place(flat), {"line_origin": flat.attrs["line_origin"], "line_azimuth": 210.0})
    assert not line.same_place(line.place(flat), {}) and line.same_place({"crs": "a"}, {"crs": "b"})


def test_northings_left_out_leave_no_line_behind() -> None:
    survey = on_a_line(90.0).assign_attrs(line_origin=[1.0, 2.0], line_azimuth=3.0)
    assert line.northing_spread(survey) < 1e-9
    flat = shots.validate(line.drop_northings(survey))
    assert line.place(flat) == {"crs": "EPSG:32610"} and survey.attrs["line_azimuth"] == 3.0
    np.testing.assert_array_equal(flat["receiver_easting"], survey["receiver_easting"])
    assert "northings, 2000 m to within" in flat.attrs["history"]
