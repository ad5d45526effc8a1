"""Regional trends."""

import numpy as np
import pytest

from geoinv.datasets import netcdf, survey, trend

RANDOM = np.random.default_rng(0)
EASTING, NORTHING = 5e5 + RANDOM.uniform(0, 4e4, 60), 4.2e6 + RANDOM.uniform(0, 9e4, 60)


def make(gz):
    return survey.make(EASTING, NORTHING, np.zeros(60), {"gx": np.ones(60), "gz": gz})


def test_terms_in_order_on_scaled_coordinates():
    matrix = trend.trend_matrix([0.0, 10.0, 20.0], [0.0, 40.0, 10.0], 2)
    np.testing.assert_allclose(matrix[2], [1, 1, -0.5, 1, -0.5, 0.25])
    np.testing.assert_allclose(matrix[0], [1, -1, -1, 1, 1, 1])
    assert [trend.trend_matrix(EASTING, NORTHING, degree).shape[1] for degree in range(4)] == [1, 3, 6, 10]
    np.testing.assert_allclose(trend.trend_matrix([20.0], [10.0], 2, region=(0, 20, 0, 40)), matrix[2:])


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_polynomial_is_removed_to_rounding(degree):
    x, y = (EASTING - 5.2e5) / 1e4, (NORTHING - 4.25e6) / 1e4
    gz = 1e-5 * (3 + (degree >= 1) * (x - 2 * y) + (degree >= 2) * x * y + (degree >= 3) * 0.1 * y**3)
    detrended, _ = trend.remove_trend(make(gz), degree)
    np.testing.assert_allclose(detrended["observed"].sel(component="gz"), 0, atol=1e-12 * np.abs(gz).max())
    if degree:
        rest, _ = trend.remove_trend(make(gz), degree - 1)
        assert np.abs(rest["observed"].sel(component="gz")).max() > 1e-3 * np.abs(gz).max()


def test_the_residual_is_orthogonal_and_the_rest_untouched(tmp_path):
    made = make(RANDOM.normal(0, 1e-5, 60))
    before = made.copy(deep=True)
    detrended, coefficients = trend.remove_trend(made, 1)
    assert made.identical(before), "the survey passed in must not change"
    residual = detrended["observed"].sel(component="gz").values
    matrix = trend.trend_matrix(EASTING, NORTHING, 1)
    np.testing.assert_allclose(matrix.T @ residual, 0, atol=1e-17)
    np.testing.assert_allclose(residual + matrix @ coefficients, made["observed"].sel(component="gz"), atol=1e-19)
    np.testing.assert_array_equal(detrended["observed"].sel(component="gx"), 1.0)
    assert detrended.attrs["trend_degree"] == 1
    np.testing.assert_array_equal(detrended.attrs["trend_coefficients"], coefficients)
    assert "trend of degree 1 removed from gz" in detrended.attrs["history"]
    netcdf.write(tmp_path / "survey.nc", detrended)
    np.testing.assert_array_equal(netcdf.read(tmp_path / "survey.nc").attrs["trend_coefficients"], coefficients)
    with pytest.raises(ValueError, match="without its trend of degree 1"):
        trend.remove_trend(detrended, 0)


def test_trends_the_stations_do_not_determine_are_refused():
    line = survey.make([0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0] * 3, {"gz": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="3 stations that determine 2"):
        trend.remove_trend(line, 1)
    with pytest.raises(ValueError, match="'component' 'gzz'"):
        trend.remove_trend(line, 0, "gzz")
    for degree in (-1, 1.5):
        with pytest.raises(ValueError, match="'degree'"):
            trend.trend_matrix([0.0, 1.0], [0.0, 1.0], degree)
