"""Regional trends: a polynomial of the horizontal coordinates fitted to the data and taken off before an inversion, or solved for with it.

With x and y the easting and northing scaled to [-1, 1] over a region, the trend is the sum of c_ij x^i y^j over i + j <= degree.
Scaled coordinates keep the least-squares problem well conditioned where raw UTM coordinates would not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray

from geoinv.operators import checks

from .survey import COMPONENTS, add_history


def trend_matrix(easting: Any, northing: Any, degree: int, *, region: Sequence[float] | None = None) -> np.ndarray:
    """The terms of the trend at each station.

    Args:
        easting, northing: Metres [station].
        degree: 0 (a constant), 1 (a plane), 2, ...
        region: West, east, south and north, in metres, scaled to [-1, 1]; by default the stations' own. Give the region
            of a fitted trend to evaluate it at other stations.

    Returns:
        [station, term], terms ordered 1, x, y, x2, xy, y2, ...

    Raises:
        ValueError: A degree that is not a whole number from 0, or coordinates that are not finite.
    """
    degree = checks.count("degree", degree, 0)
    points = checks.points("stations", {"easting": easting, "northing": northing}, ("easting", "northing"))
    west, east, south, north = region_of(*points.T) if region is None else region
    x, y = _scaled(points[:, 0], west, east), _scaled(points[:, 1], south, north)
    return np.stack([x ** (total - j) * y**j for total in range(degree + 1) for j in range(total + 1)], axis=1)


def check_determined(matrix: np.ndarray, degree: int) -> np.ndarray:
    """The matrix itself, [station, term], if the stations determine every term.

    Raises:
        ValueError: Too few stations, or on a line.
    """
    rank = int(np.linalg.matrix_rank(matrix))
    if rank < matrix.shape[1]:
        given = f"{degree} ({matrix.shape[1]} terms) for {matrix.shape[0]} stations that determine {rank}"
        raise checks.invalid("degree", given, "low enough for the stations", "Lower the degree.")
    return matrix


def region_of(easting: Any, northing: Any) -> tuple[float, float, float, float]:
    """West, east, south and north of the stations, in metres."""
    return float(np.min(easting)), float(np.max(easting)), float(np.min(northing)), float(np.max(northing))


def remove_trend(
    survey: xarray.Dataset, degree: int, component: str = "gz", *, stations: np.ndarray | None = None
) -> tuple[xarray.Dataset, np.ndarray]:
    """Fit a trend to one component by ordinary least squares and take it off.

    Args:
        survey: A survey.
        degree: Of the polynomial.
        component: Which data; the others stay as they are.
        stations: Indices of those that the trend is fitted to, so that others test what follows; all by default.

    Returns:
        The survey without the trend, its attributes `trend_degree`, `trend_component`, `trend_region` (metres),
        `trend_coefficients` and history saying what was done, and the coefficients [term], in the component's unit.

    Raises:
        ValueError: No such component, a survey whose trend was removed before, or stations that do not determine every
            term (too few, or on a line).
    """
    names = [str(name) for name in survey["component"].values]
    at = names.index(checks.choice("component", component, names))
    if survey.attrs.get("trend_was") == "removed from":
        raise checks.invalid("survey", f"without its trend of degree {survey.attrs['trend_degree']}", "one whose trend is still there")
    easting, northing = survey["easting"].values, survey["northing"].values
    matrix = trend_matrix(easting, northing, degree)
    part = slice(None) if stations is None else stations
    coefficients = np.linalg.lstsq(check_determined(matrix[part], degree), survey["observed"].values[part, at], rcond=None)[0]
    observed = survey["observed"].copy(deep=True)
    observed[:, at] = observed[:, at] - matrix @ coefficients
    region = region_of(easting, northing)
    return record_trend(survey.assign(observed=observed), degree, component, coefficients, region, "removed from"), coefficients


def record_trend(survey: xarray.Dataset, degree: int, component: str, coefficients: np.ndarray, region: Sequence[float], how: str) -> xarray.Dataset:
    """The survey with a trend on record: attributes and a line of history that says how it was dealt with.

    Args:
        survey: A survey.
        degree, component, coefficients, region: Of the trend; coefficients [term] in the component's unit.
        how: "removed from" or "solved for in".
    """
    listed = ", ".join(f"{value:.6g}" for value in coefficients)
    line = f"trend of degree {degree} {how} {component}; coefficients in {COMPONENTS[component]}: {listed}"
    attrs = {
        "trend_was": how,
        "trend_degree": int(degree),
        "trend_component": component,
        "trend_region": np.array(region),
        "trend_coefficients": np.asarray(coefficients),
    }
    return add_history(survey.assign_attrs(attrs), line)


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values mapped from [low, high] to [-1, 1]; stations at one coordinate map to 0."""
    half = (high - low) / 2
    return (values - (low + high) / 2) / (half if half > 0 else 1.0)
