"""Surveys along a line, for two dimensions: horizontal positions become one coordinate."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray

from geoinv.operators import checks
from geoinv.operators.grid import DIMS

from . import shots
from .survey import add_history

#: The attributes of what lies along a line.
PLACE = ("line_origin", "line_azimuth")


class Line(NamedTuple):
    """A straight line on the map.

    Args:
        origin: (easting, northing) of its zero, m.
        direction: Unit vector along it.
    """

    origin: np.ndarray
    direction: np.ndarray

    @classmethod
    def through(cls, points: np.ndarray, *, azimuth: float | None = None, origin: tuple[float, float] | None = None) -> "Line":
        """The least-squares line through points [point, (easting, northing)], each counted once, from the first one on, or one of that azimuth."""
        points = np.unique(points, axis=0)
        center = points.mean(axis=0) if origin is None else np.asarray(origin, dtype=np.float64)
        along = _best_direction(points) if azimuth is None else np.array([np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth))])
        return cls(center + ((points - center) @ along).min() * along if origin is None else center, along)

    def along(self, points: np.ndarray) -> np.ndarray:
        """Distances [...] along it, m, of points [..., (easting, northing)]."""
        return np.asarray((points - self.origin) @ self.direction)

    def across(self, points: np.ndarray) -> np.ndarray:
        """Distances from it, to the right."""
        return np.asarray((points - self.origin) @ np.array([self.direction[1], -self.direction[0]]))

    @property
    def place(self) -> dict[str, Any]:
        """The attributes of what lies along it."""
        azimuth = float(np.degrees(np.arctan2(self.direction[0], self.direction[1])) % 360)
        return {"line_origin": [float(value) for value in self.origin], "line_azimuth": azimuth}

    def name(self, survey: xarray.Dataset) -> str:
        """It in words, for the history of what was projected on it."""
        crs = survey.attrs.get("crs", "")
        return f"line through ({self.origin[0]:.3f}, {self.origin[1]:.3f}), crs '{crs}', with azimuth {self.place['line_azimuth']:.4f} degrees"


def project(survey: xarray.Dataset, *, azimuth: float | None = None, origin: tuple[float, float] | None = None) -> xarray.Dataset:
    """A two-dimensional survey: `easting` becomes the distance along a straight line.

    Args:
        survey: A waveform survey with northings.
        azimuth: Of the line, in degrees clockwise from north; by default that of the least-squares line through all sources and
            live receivers (each position once), pointing east.
        origin: Easting and northing, in metres, of the line's zero; by default the line passes through the mean position and starts
            at its first source or receiver.

    Returns:
        A survey without northings and without crs; its attributes `line_origin` and `line_azimuth` place it, its history gives the
        largest distance from the line and the largest change of an offset.

    Raises:
        ValueError: A survey without northings, or without extent.

    Warns:
        UserWarning: A source or receiver lies farther from the line than the (median) receiver spacing.
    """
    if shots.axes_of(survey) != DIMS[3]:
        raise checks.invalid("survey", "without northings", "three-dimensional", "It is on a line already.")
    live = survey["live"].values
    plane = {k: np.stack([survey[f"{k}_{axis}"].values for axis in ("easting", "northing")], axis=-1) for k in ("source", "receiver")}
    points = np.concatenate([plane["source"].reshape(-1, 2), plane["receiver"][live]])
    straight = Line.through(points, azimuth=azimuth, origin=origin)
    departure = np.abs(straight.across(points)).max()
    flat = survey.drop_vars(["source_northing", "receiver_northing"])
    for kind, position in plane.items():
        name = f"{kind}_easting"
        flat = flat.assign_coords({name: (survey[name].dims, straight.along(position), {"units": "m"})})
    changed = np.abs(shots.offsets(flat) - shots.offsets(survey))[live].max()
    spacing = _receiver_spacing(flat)
    if departure > spacing:
        advice = f"receivers are {spacing:.4g} m apart, offsets change by up to {changed:.4g} m"
        checks.warn(f"Sources or receivers lie up to {departure:.4g} m from the line; {advice}.")
    moved = f"largest departure {departure:.4g} m, largest change of an offset {changed:.4g} m"
    return add_history(flat, f"projected on the {straight.name(survey)}: {moved}").assign_attrs(crs="", **straight.place)


def northing_spread(survey: xarray.Dataset) -> float:
    """How far apart the northings of sources and live receivers lie, m."""
    northings = np.append(survey["source_northing"].values, survey["receiver_northing"].values[survey["live"].values])
    return float(np.ptp(northings))


def drop_northings(survey: xarray.Dataset) -> xarray.Dataset:
    """A two-dimensional survey whose eastings are as they were, for one whose northings are as good as all the same; the history says so."""
    line = (
        f"runs along easting: northings, {float(survey['source_northing'].values.flat[0]):.10g} m to within {northing_spread(survey):.2g} m, left out"
    )
    flat = add_history(survey.drop_vars(["source_northing", "receiver_northing"]), line)
    for name in PLACE:
        flat.attrs.pop(name, None)
    return flat


def place(survey: xarray.Dataset) -> dict[str, Any]:
    """Attributes that say where a survey, and models on its eastings, lie: its crs, and its line if it is along one."""
    return {"crs": survey.attrs.get("crs", ""), **{name: survey.attrs[name] for name in PLACE if name in survey.attrs}}


def same_place(first: Mapping[Any, Any], second: Mapping[Any, Any]) -> bool:
    """Whether attributes place two data on one line, within a metre and a hundredth of a degree, or both on none."""
    origins, azimuths = ([data.get(name) for data in (first, second)] for name in PLACE)
    missing = [each is None for each in (*origins, *azimuths)]
    if any(missing):
        return all(missing)
    apart = np.hypot(*(np.asarray(origins[0], float) - np.asarray(origins[1], float)))
    first_azimuth, second_azimuth = np.asarray(azimuths, float)
    turned = (first_azimuth - second_azimuth + 180) % 360 - 180
    return bool(apart <= 1 and abs(turned) <= 0.01)


def _best_direction(points: np.ndarray) -> np.ndarray:
    """The unit vector of the total-least-squares line through points [point, (easting, northing)], pointing east (or due north)."""
    _, extent, directions = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    if not extent[0] > 0:
        raise checks.invalid("survey", "with every source and receiver at one place", "spread along a line", "Give an azimuth.")
    east, north = directions[0]
    backwards = north < 0 if abs(east) < 1e-9 else east < 0
    return -directions[0] if backwards else directions[0]


def _receiver_spacing(survey: xarray.Dataset) -> float:
    """The median step between neighbouring live receivers of a shot, in metres; infinite where no shot has two."""
    pairs = zip(survey["receiver_easting"].values, survey["live"].values, strict=True)
    steps = np.concatenate([np.diff(np.sort(easting[live])) for easting, live in pairs])
    return float(np.median(steps[steps > 0])) if np.any(steps > 0) else np.inf
