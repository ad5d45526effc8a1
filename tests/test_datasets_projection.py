"""Projection and normal gravity against published numbers."""

import numpy as np
import pytest

from geoinv.datasets import projection


def test_utm_by_its_definition():
    # EPSG guidance note 7-2: false easting 500 km on the central meridian, scale 0.9996 along it; the WGS84 meridian
    # arc from the equator to 1 degree north is 110574.3886 m.
    easting, northing = projection.project([-123.0, -123.0], [0.0, 1.0], "EPSG:32610")
    np.testing.assert_allclose(easting, 500000.0, atol=1e-6)
    np.testing.assert_allclose(northing, [0.0, 0.9996 * 110574.3886], atol=1e-3)


def test_unproject_inverts_project():
    longitude, latitude = np.random.default_rng(0).uniform([[-125], [30]], [[-121], [45]], (2, 20))
    back = projection.unproject(*projection.project(longitude, latitude, "EPSG:32610"), "EPSG:32610")
    np.testing.assert_allclose(back, [longitude, latitude], atol=1e-9)


@pytest.mark.parametrize(
    ("longitude", "latitude", "crs", "message"),
    [
        ([0.0], [0.0], "", "must be a projected"),
        ([0.0], [0.0], "EPSG:4326", r"\(WGS 84\): must be projected"),
        ([0.0], [0.0], "EPSG:2225", "must be in metres"),
        ([0.0], [0.0], "EPSG:999999", "PROJ knows"),
        ([0.0, 0.0], [0.0, 91.0], "EPSG:32610", r"'latitude' 91 at index 1.*swapped"),
        ([np.nan], [0.0], "EPSG:32610", "'longitude' nan"),
        ([-123.0, -33.0], [0.0, 0.0], "EPSG:32610", r"at index 1.*area of use"),
    ],
)
def test_bad_coordinates_and_systems(longitude, latitude, crs, message):
    with pytest.raises(ValueError, match=message):
        projection.project(longitude, latitude, crs)


@pytest.mark.parametrize(
    ("ellipsoid", "equator", "pole"),
    [("WGS84", 9.7803253359, 9.8321849378), ("GRS80", 9.7803267715, 9.8321863685)],  # NIMA TR8350.2; Moritz (2000)
)
def test_normal_gravity_at_equator_and_pole(ellipsoid, equator, pole):
    np.testing.assert_allclose(projection.normal_gravity([0.0, 90.0, -90.0], 0.0, ellipsoid), [equator, pole, pole], atol=2e-10)


def test_disturbance_follows_the_free_air_gradient():
    # 0.3086 mGal/m at 45 degrees; the second-order term over 1000 m is 0.072 mGal.
    disturbance = projection.normal_gravity_disturbance([45.0, 45.0], [0.0, 1000.0], [9.81, 9.81])
    assert np.diff(disturbance)[0] == pytest.approx(308.55e-5 - 0.07e-5, abs=0.05e-5)
    assert disturbance[0] == pytest.approx(9.81 - projection.normal_gravity(45.0, 0.0), abs=1e-12)
    with pytest.raises(ValueError, match="'ellipsoid' 'Moon'"):
        projection.normal_gravity_disturbance(0.0, 0.0, 9.8, "Moon")
    with pytest.raises(ValueError, match="'latitude' 95"):
        projection.normal_gravity(95.0, 0.0)


def test_bouguer_slab():
    # 0.04193 mGal per metre and g/cm3 (any textbook): 1000 m of 2.67 g/cm3 is 111.97 mGal.
    assert projection.bouguer_slab(1000.0) == pytest.approx(111.97e-5, abs=0.01e-5)
    np.testing.assert_allclose(projection.bouguer_slab([-10.0, 0.0], 1000.0), [-0.4193e-5, 0.0], atol=1e-9)
