"""The convention of travel-time surveys: first arrivals picked between sensors.

A survey of picks is an `xarray.Dataset` over the dimensions `sensor` and `pick`:

- coordinates `easting`, `northing`, `upward` (sensor), in metres, `upward` positive up; a line has northings of zero;
- variables `shot` and `receiver` (pick): the numbers, from 0, of the sensors where a wave sets out and where it arrives;
- variables `observed` and `uncertainty` (pick), in seconds: the first arrival's time since the shot, and its standard deviation;
- attributes `crs`, `source`, `sha256` and `history` as in `survey`.

An uncertainty of zero means "not given": readers write it where a file has none, and `assign_uncertainty` replaces it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray

from geoinv.operators import checks

from .line import Line
from .survey import COORDINATES, add_history, holdout

#: Standard deviations by which a pick and the one of its reciprocal may differ, before that is told.
RECIPROCAL = 5.0
#: Relative change of an offset on a line, beyond which the sensors are on none.
BENT = 0.1
#: How many pairs are named.
NAMED = 3


def make(
    easting: Any, upward: Any, shot: Any, receiver: Any, observed: Any, uncertainty: Any = 0.0, *, northing: Any = 0.0, crs: str = "",
    source: str = "", sha256: str = "", history: Sequence[str] = (),
) -> xarray.Dataset:  # fmt: skip
    """A survey from arrays.

    Args:
        easting, upward: Of the sensors [sensor], m.
        shot, receiver: Numbers of sensors [pick], from 0.
        observed: Times [pick], s.
        uncertainty: Standard deviations [pick], s, or one number; zero or NaN means "not given".
        northing: Of the sensors, m, or one number.
        crs, source, sha256, history: See `survey`.

    Raises:
        ValueError: No sensors or picks, unequal lengths, numbers of sensors that there are not, a shot that is its own receiver, times that
            are not positive, or a value that is not finite; names the first pick.
    """
    places = {"easting": easting, "northing": northing, "upward": upward}
    count = np.atleast_1d(np.asarray(easting)).size
    sensors = {name: _column(name, values, count) for name, values in places.items()}
    picks = np.atleast_1d(np.asarray(observed)).size
    deviations = np.nan_to_num(_column("uncertainty", uncertainty, picks), nan=0.0, posinf=np.inf, neginf=-np.inf)
    survey = xarray.Dataset(
        {
            "shot": ("pick", _numbers("shot", shot, picks)),
            "receiver": ("pick", _numbers("receiver", receiver, picks)),
            "observed": ("pick", _column("observed", observed, picks), {"units": "s"}),
            "uncertainty": ("pick", deviations, {"units": "s"}),
        },
        coords={name: ("sensor", values, {"units": "m"}) for name, values in sensors.items()},
        attrs={"crs": crs, "source": source, "sha256": sha256, "history": "\n".join(history)},
    )
    check_values(survey)
    return survey


def check_values(survey: xarray.Dataset) -> None:
    """Raise a ValueError for what no survey of picks may hold; names the first sensor or pick."""
    for dim in ("sensor", "pick"):
        if survey.sizes[dim] == 0:
            raise checks.invalid("survey", f"with 0 {dim}s", f"of at least one {dim}")
    for name in COORDINATES:
        _refuse(name, survey[name].values, ~np.isfinite(survey[name].values), "sensor", "finite")
    last = survey.sizes["sensor"] - 1
    for name in ("shot", "receiver"):
        values = survey[name].values
        _refuse(name, values, (values < 0) | (values > last), "pick", f"the number of a sensor, 0 to {last}")
    times, deviations = survey["observed"].values, survey["uncertainty"].values
    _refuse("observed", times, ~((times > 0) & np.isfinite(times)), "pick", "a positive time, s")
    _refuse("uncertainty", deviations, ~((deviations >= 0) & np.isfinite(deviations)), "pick", "finite and not negative")
    same = survey["shot"].values == survey["receiver"].values
    _refuse("receiver", survey["receiver"].values, same, "pick", "another sensor than the shot's")
    place = _places(survey)
    together = place[survey["shot"].values] == place[survey["receiver"].values]
    _refuse("receiver", survey["receiver"].values, together, "pick", "at another place than the shot")


def check_layout(survey: xarray.Dataset) -> xarray.Dataset:
    """The survey itself, after checking its variables, their dimensions, types and units."""
    missing = [name for name in (*COORDINATES, "shot", "receiver", "observed", "uncertainty") if name not in survey.variables]
    if missing:
        raise checks.invalid("survey", f"without {', '.join(missing)}", "a Dataset as geoinv.datasets.picks.make returns")
    for name in (*COORDINATES, "shot", "receiver", "observed", "uncertainty"):
        dim = "sensor" if name in COORDINATES else "pick"
        if survey[name].dims != (dim,):
            raise checks.invalid(name, f"over {survey[name].dims}", f"over ('{dim}',)")
        if survey[name].dtype.kind not in ("iu" if name in ("shot", "receiver") else "fiu"):
            raise checks.invalid(name, f"of type {survey[name].dtype}", "whole numbers" if name in ("shot", "receiver") else "numbers")
        if name not in ("shot", "receiver"):
            checks.in_unit(name, survey[name].attrs, "m" if name in COORDINATES else "s")
    return survey


def validate(survey: xarray.Dataset) -> xarray.Dataset:
    """The survey itself, after checking that it follows the convention and is ready to be inverted.

    Raises:
        ValueError: Missing variables, other dimensions or units, values that no survey may hold, or uncertainties at some picks only.

    Warns:
        UserWarning: Picks that differ from those of the way back by more than their uncertainty explains; the worst pairs are named.
    """
    check_layout(survey)
    check_values(survey)
    zero = np.flatnonzero(survey["uncertainty"].values == 0)
    if 0 < zero.size < survey.sizes["pick"]:
        given = f"0 at pick {zero[0]} ({zero.size} of {survey.sizes['pick']} picks)"
        raise checks.invalid("uncertainty", given, "positive where others are given", "Give one to all: assign_uncertainty(absolute=...).")
    _warn_of_reciprocals(survey)
    return survey


def _places(survey: xarray.Dataset) -> np.ndarray:
    """The number of each sensor's place [sensor]: of those at one place the same."""
    points = np.stack([survey[name].values for name in COORDINATES], axis=1)
    return np.unique(points, axis=0, return_inverse=True)[1].reshape(-1)


def assign_uncertainty(survey: xarray.Dataset, *, absolute: float = 0.0, relative: float = 0.0) -> xarray.Dataset:
    """The survey with uncertainty = absolute + relative times observed where the file gave none, and `absolute` at least.

    Args:
        survey: A survey.
        absolute: s.
        relative: A fraction of the time.

    Raises:
        ValueError: Negative numbers, or nothing given and uncertainties missing.
    """
    for name, value in (("absolute", absolute), ("relative", relative)):
        if checks.finite(name, value) < 0:
            raise checks.invalid(name, value, "zero or more")
    given, times = survey["uncertainty"].values, survey["observed"].values
    values = np.where(given > 0, np.maximum(given, absolute), absolute + relative * times)
    if not np.all(values > 0):
        raise checks.invalid("uncertainty", f"not given for pick {np.argmin(values)}", "positive", "Give a part of the time, such as relative=0.03.")
    if np.array_equal(values, given):
        return survey
    kept = int(np.count_nonzero(given))
    line = f"uncertainty set to {absolute:g} s + {relative:g} of the time" + (
        f"; {kept} given values kept where above {absolute:g} s" if kept else ""
    )
    return add_history(survey.assign(uncertainty=("pick", values, {"units": "s"})), line)


def split_holdout(survey: xarray.Dataset, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of picks to invert and of picks to hold back, as `survey.split_holdout` of stations."""
    return holdout(survey.sizes["pick"], fraction, seed, "pick")


def project(survey: xarray.Dataset) -> xarray.Dataset:
    """A survey along a line: `easting` becomes the distance along the straight line through the sensors, from the first one on, northings zero.

    Eastings stay as they are where all northings are the same to a millimetre.

    Warns:
        UserWarning: A sensor lies farther from the line than the (median) sensor spacing, or offsets change by more than `BENT`.
    """
    points = np.stack([survey["easting"].values, survey["northing"].values], axis=1)
    if np.ptp(points[:, 1]) <= 1e-3:
        return survey
    straight = Line.through(points)
    along, steps = straight.along(points), np.diff(np.unique(straight.along(points).round(6)))
    departure = float(np.abs(straight.across(points)).max())
    if departure > np.median(steps):
        checks.warn(f"Sensors lie up to {departure:.4g} m from the line; they are {np.median(steps):.4g} m apart.")
    shot, receiver = (survey[name].values for name in ("shot", "receiver"))
    offsets = np.linalg.norm(points[shot] - points[receiver], axis=1)
    changes = np.abs(np.abs(along[shot] - along[receiver]) - offsets)
    bent = np.flatnonzero((changes > BENT * offsets) & (changes > 1e-3))
    if bent.size:
        worst = bent[np.argmax(changes[bent])]
        checks.warn(f"The line is bent: {bent.size} offsets change by more than {100 * BENT:g} %, that of pick {worst} by {changes[worst]:.4g} m.")
    coordinates = {"easting": ("sensor", along, {"units": "m"}), "northing": ("sensor", np.zeros(along.size), {"units": "m"})}
    flat = add_history(
        survey.assign_coords(coordinates),
        f"projected on the {straight.name(survey)}: largest departure {departure:.4g} m, largest change of an offset {changes.max():.4g} m",
    )
    return flat.assign_attrs(crs="", **straight.place)


def reciprocal(survey: xarray.Dataset) -> np.ndarray:
    """Pairs of picks [pair, 2] of the same way there and back, by the places of sensors."""
    ways: dict[tuple[int, int], int] = {}
    found, place = [], _places(survey)
    ends = (place[survey[name].values].tolist() for name in ("shot", "receiver"))
    for pick, (shot, receiver) in enumerate(zip(*ends, strict=True)):
        if (receiver, shot) in ways:
            found.append((ways[receiver, shot], pick))
        ways[shot, receiver] = pick
    return np.array(found, np.int64).reshape(-1, 2)


def _warn_of_reciprocals(survey: xarray.Dataset) -> None:
    pairs = reciprocal(survey)
    there, back = survey["observed"].values[pairs.T]
    sigma = np.hypot(*survey["uncertainty"].values[pairs.T])
    far = np.flatnonzero((np.abs(there - back) > RECIPROCAL * sigma) & (sigma > 0))
    if far.size:
        worst = far[np.argsort(-(np.abs(there - back) / sigma)[far], kind="stable")][:NAMED]
        named = ", ".join(f"{pairs[k, 0]} and {pairs[k, 1]} ({1e3 * there[k]:.4g} and {1e3 * back[k]:.4g} ms)" for k in worst)
        checks.warn(f"{far.size} of {len(pairs)} picks differ from those of the way back by more than {RECIPROCAL:g} deviations: {named}.")


def _refuse(name: str, values: np.ndarray, bad: np.ndarray, dim: str, expected: str) -> None:
    first = np.flatnonzero(bad)
    if first.size:
        raise checks.invalid(name, f"{values[first[0]]:g} at {dim} {first[0]}", expected, f"{first.size} of {values.size} {dim}s are not.")


def _column(name: str, values: Any, n: int) -> np.ndarray:
    """Values as float64; a single number stands for all northings and uncertainties."""
    array = np.asarray(values, dtype=np.float64)
    return np.full(n, array) if array.ndim == 0 and (n == 1 or name in ("northing", "uncertainty")) else checks.shape(name, array, (n,))


def _numbers(name: str, values: Any, n: int) -> np.ndarray:
    array = checks.shape(name, np.atleast_1d(np.asarray(values)), (n,))
    if array.dtype.kind not in "iu":
        raise checks.invalid(name, f"of type {array.dtype}", "whole numbers, of sensors from 0")
    return array.astype(np.int64)
