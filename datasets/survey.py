"""The survey convention: what every reader returns and every inversion takes.

A gravity survey is an `xarray.Dataset` over the dimensions `station` and `component`:

- coordinates `easting`, `northing`, `upward` (station), in metres, `upward` positive up;
- coordinates `component` ("gz", "gxx", ...) and `unit` (component), "m/s2" or "1/s2";
- variables `observed` and `uncertainty` (station, component), in SI. The z axis of a component points DOWN: gz is positive
  over excess mass, gxz and gyz follow, gzz does not depend on the choice. x is easting, y is northing;
- optionally `station_id` (station), text;
- attributes `crs` ("EPSG:32610", or "" when local), `source` (path), `sha256` (of that file) and `history` (one line for
  each thing converted, removed or shifted).

An uncertainty of zero means "not given": readers write it where a file has none, and `assign_uncertainty` replaces it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray

from geoinv.operators import checks
from geoinv.operators.gravity import components

COORDINATES = ("easting", "northing", "upward")
#: The SI unit of each component.
COMPONENTS = {name: component.unit for name, component in components.COMPONENTS.items()}


def make(
    easting: Any,
    northing: Any,
    upward: Any,
    observed: Mapping[str, Any],
    uncertainty: Mapping[str, Any] | None = None,
    *,
    station_id: Sequence[str] | None = None,
    crs: str = "",
    source: str = "",
    sha256: str = "",
    history: Sequence[str] = (),
) -> xarray.Dataset:
    """A survey from arrays in SI.

    Args:
        easting, northing, upward: Station coordinates [station], in metres.
        observed: Data [station] of each component, in m/s2 or 1/s2, z down.
        uncertainty: One standard deviation [station] of each component, or one number; zero, NaN or an absent component
            means "not given".
        station_id: Names [station].
        crs, source, sha256, history: See the module's docstring.

    Raises:
        ValueError: No stations, no or unknown components, unequal lengths, or a value that is not finite (names the station).
    """
    if not observed:
        raise checks.invalid("observed", "without components", f"a mapping with some of {', '.join(COMPONENTS)}")
    for name in (*observed, *(uncertainty or {})):
        checks.choice("component", name, tuple(COMPONENTS))
    n = np.atleast_1d(np.asarray(easting)).size
    coordinates = {name: _column(name, values, n) for name, values in zip(COORDINATES, (easting, northing, upward), strict=True)}
    data = {name: _column(name, values, n) for name, values in observed.items()}
    deviations = {name: np.nan_to_num(_column(f"uncertainty {name}", v, n), posinf=np.inf, neginf=-np.inf) for name, v in (uncertainty or {}).items()}
    survey = xarray.Dataset(
        {
            "observed": (("station", "component"), np.stack(list(data.values()), axis=1)),
            "uncertainty": (("station", "component"), np.stack([deviations.get(name, np.zeros(n)) for name in data], axis=1)),
        },
        coords={
            **{name: ("station", values, {"units": "m"}) for name, values in coordinates.items()},
            "component": list(data),
            "unit": ("component", [COMPONENTS[name] for name in data]),
        },
        attrs={"crs": crs, "source": source, "sha256": sha256, "history": "\n".join(history)},
    )
    if station_id is not None:
        survey["station_id"] = ("station", checks.shape("station_id", np.asarray(station_id, dtype=str), (n,)))
    check_values(survey)
    return survey


def check_layout(survey: xarray.Dataset) -> xarray.Dataset:
    """The survey itself, after checking that its variables are those of the convention, whatever their values.

    Raises:
        ValueError: Missing variables, other dimensions, values that are not numbers, an unknown component, or a unit that is not SI.
    """
    missing = [name for name in (*COORDINATES, "component", "observed", "uncertainty") if name not in survey.variables]
    if missing:
        raise checks.invalid("survey", f"without {', '.join(missing)}", "a Dataset as geoinv.datasets.survey.make returns")
    expected = dict.fromkeys(COORDINATES, ("station",)) | dict.fromkeys(("observed", "uncertainty"), ("station", "component"))
    for name, dims in expected.items():
        if survey[name].dims != dims:
            raise checks.invalid(name, f"over {survey[name].dims}", f"over {dims}")
        if survey[name].dtype.kind not in "fiu":
            raise checks.invalid(name, f"of type {survey[name].dtype}", "numbers")
    for name in COORDINATES:
        checks.in_unit(name, survey[name].attrs, "m")
    for name in survey["component"].values:
        checks.choice("component", str(name), tuple(COMPONENTS))
    si = [COMPONENTS[str(name)] for name in survey["component"].values]
    if "unit" in survey.variables and [str(unit) for unit in survey["unit"].values] != si:
        raise checks.invalid("unit", f"{', '.join(map(str, survey['unit'].values))}", f"{', '.join(si)}", "Surveys in netCDF are in SI.")
    return survey


def validate(survey: xarray.Dataset) -> xarray.Dataset:
    """The survey itself, after checking that it follows the convention and is ready to be inverted.

    Raises:
        ValueError: Missing variables, no stations, a coordinate, observation or uncertainty that is not finite, a negative
            uncertainty, or a component with uncertainties at some stations and none (zero) at others.

    Warns:
        UserWarning: Stations at exactly the same position.
    """
    check_layout(survey)
    check_values(survey)
    for name, column in _columns(survey, "uncertainty"):
        zero = np.flatnonzero(column == 0)
        if 0 < zero.size < column.size:
            given = f"0 at station {zero[0]} ({zero.size} of {column.size} stations)"
            raise checks.invalid(f"uncertainty {name}", given, "positive where others are given", "Give a floor: assign_uncertainty(floor=...).")
    _warn_of_duplicates(survey)
    return survey


def assign_uncertainty(survey: xarray.Dataset, *, floor: float | Mapping[str, float] | None = None, relative: float | None = None) -> xarray.Dataset:
    """The survey with uncertainty = floor + relative |observed| where the file gave none, and the floor at least; the history says so.

    Args:
        survey: A survey.
        floor: In m/s2 or 1/s2: one number, or one for each component.
        relative: A fraction of |observed|.

    Returns:
        A new survey; the same one when both are None and the file gave every uncertainty.

    Raises:
        ValueError: Negative numbers, a result that is zero somewhere, or nothing given and uncertainties missing.
    """
    if floor is None and relative is None:
        if np.all(survey["uncertainty"].values > 0):
            return survey
        raise checks.invalid("uncertainty", "not given for every station", "positive", "Give a floor, such as 0.1 mGal = 1e-6 m/s2.")
    names = [str(name) for name in survey["component"].values]
    floors = floor if isinstance(floor, Mapping) else dict.fromkeys(names, floor or 0.0)
    for name in names:
        if name not in floors or not 0 <= floors[name] < np.inf:
            raise checks.invalid("floor", floors.get(name, f"without {name}"), f"zero or more for each of {', '.join(names)}")
    if relative is not None and not 0 <= relative < np.inf:
        raise checks.invalid("relative", relative, "zero or more")
    given, lowest = survey["uncertainty"].values, np.array([floors[name] for name in names])
    values = np.where(given > 0, np.maximum(given, lowest), lowest + (relative or 0.0) * np.abs(survey["observed"].values))
    if not np.all(values > 0):
        at = int(np.argwhere(values <= 0)[0, 0])
        raise checks.invalid("uncertainty", f"0 at station {at} (floor {floor}, relative {relative})", "positive", "Give a floor above zero.")
    kept = int(np.count_nonzero(given))
    numbers = ", ".join(f"{name} {floors[name]:.6g} + {relative or 0:g} |observed|" for name in names)
    line = f"uncertainty (SI) set to {numbers}" + (f"; {kept} given values kept where above the floor" if kept else "")
    return add_history(survey.assign(uncertainty=(("station", "component"), values)), line)


def split_holdout(survey: xarray.Dataset, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of stations to invert and of stations to hold back, both sorted; the same seed gives the same split.

    Args:
        survey: A survey.
        fraction: Share of the stations to hold back, at least 0 and below 1; rounded to whole stations, at least one if above 0.
        seed: Of NumPy's default generator.

    Raises:
        ValueError: The fraction is out of range or leaves no station to invert.
    """
    return holdout(survey.sizes["station"], fraction, seed, "station")


def holdout(n: int, fraction: float, seed: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """`split_holdout` of n things."""
    if not 0 <= fraction < 1:
        raise checks.invalid("fraction", fraction, "at least 0 and below 1")
    held = 0 if fraction == 0 else max(1, round(fraction * n))
    if held >= n:
        raise checks.invalid("fraction", f"{fraction} of {n} {what}s", f"small enough to leave a {what} to invert")
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[held:]), np.sort(order[:held])


def add_history(survey: xarray.Dataset, line: str) -> xarray.Dataset:
    """The survey with one more line of history."""
    return survey.assign_attrs(history="\n".join(filter(None, [survey.attrs.get("history", ""), line])))


def file_factor(component: str, unit: str, positive: str) -> float:
    """The factor from a file's values to SI with z down.

    Args:
        component: Such as "gz".
        unit: The file's unit, such as "mGal" or "eotvos".
        positive: Where the file's z axis points, "down" or "up"; it turns the sign of the components with one z.

    Raises:
        ValueError: Unknown component, unit or direction.
    """
    quantity = "acceleration" if COMPONENTS[checks.choice("component", component, tuple(COMPONENTS))] == "m/s2" else "gradient"
    flipped = checks.choice("positive", positive, ("down", "up")) == "up" and component.count("z") == 1
    return checks.unit_factor(f"units of {component}", unit, quantity) * (-1 if flipped else 1)


def _column(name: str, values: Any, n: int) -> np.ndarray:
    """Values [station] as float64; a single number stands for every station of an uncertainty."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 and (n == 1 or name.startswith("uncertainty")):
        return np.full(n, array)
    return checks.shape(name, array, (n,))


def _columns(survey: xarray.Dataset, variable: str) -> list[tuple[str, np.ndarray]]:
    return [(str(name), survey[variable].values[:, i]) for i, name in enumerate(survey["component"].values)]


def check_values(survey: xarray.Dataset) -> None:
    """Raise a ValueError for a survey without stations, or with a value that is not finite or an uncertainty below zero; names the first."""
    if survey.sizes["station"] == 0:
        raise checks.invalid("survey", "with 0 stations", "of at least one station")
    named = [(name, survey[name].values) for name in COORDINATES]
    named += [(f"{variable} {name}", column) for variable in ("observed", "uncertainty") for name, column in _columns(survey, variable)]
    for name, column in named:
        bad = np.flatnonzero(~np.isfinite(column) | (column < 0) & name.startswith("uncertainty"))
        if bad.size:
            expected = "finite and not negative" if name.startswith("uncertainty") else "finite"
            raise checks.invalid(name, f"{column[bad[0]]:g} at station {bad[0]}", expected, f"{bad.size} of {column.size} stations are not.")


def _warn_of_duplicates(survey: xarray.Dataset) -> None:
    positions = np.stack([survey[name].values for name in COORDINATES], axis=1)
    _, first, inverse = np.unique(positions, axis=0, return_index=True, return_inverse=True)
    earliest = first[inverse.ravel()]
    repeats = np.flatnonzero(earliest != np.arange(len(positions)))
    if repeats.size:
        pair = f"stations {earliest[repeats[0]]} and {repeats[0]}"
        checks.warn(f"{repeats.size} stations repeat the exact position of another; the first pair is {pair}.")
