"""Map projections, normal gravity and the Bouguer slab."""

from typing import TYPE_CHECKING, Any

import numpy as np

from geoinv.operators import checks, constants

if TYPE_CHECKING:
    import pyproj


def project(longitude: Any, latitude: Any, crs: str) -> tuple[np.ndarray, np.ndarray]:
    """Easting and northing, in metres, of WGS84 longitude and latitude.

    Args:
        longitude, latitude: Degrees, of one shape.
        crs: A projected coordinate reference system in metres, such as "EPSG:32610".

    Raises:
        ValueError: An unusable `crs`, coordinates out of range, or points the projection cannot reach (names the first).
    """
    import pyproj

    lon, lat = checks.finite("longitude", longitude), checks.finite("latitude", latitude)
    for name, values, low, high in (("longitude", lon, -180, 360), ("latitude", lat, -90, 90)):
        bad = np.flatnonzero((values < low) | (values > high))
        if bad.size:
            raise checks.invalid(name, f"{values.ravel()[bad[0]]:g} at index {bad[0]}", f"degrees from {low} to {high}", "Are the columns swapped?")
    transformer = pyproj.Transformer.from_crs("EPSG:4326", _projected(crs), always_xy=True)
    easting, northing = transformer.transform(lon, lat)
    return _reached("longitude, latitude", easting, crs), _reached("longitude, latitude", northing, crs)


def unproject(easting: Any, northing: Any, crs: str) -> tuple[np.ndarray, np.ndarray]:
    """WGS84 longitude and latitude, in degrees, of easting and northing in metres; the inverse of `project`.

    Raises:
        ValueError: An unusable `crs`, or points the projection cannot reach.
    """
    import pyproj

    transformer = pyproj.Transformer.from_crs(_projected(crs), "EPSG:4326", always_xy=True)
    lon, lat = transformer.transform(checks.finite("easting", easting), checks.finite("northing", northing))
    return _reached("easting, northing", lon, crs), _reached("easting, northing", lat, crs)


def check_projected(crs: str) -> str:
    """The name itself, if it is a projected coordinate reference system in metres; "" (a local system) passes.

    Raises:
        ValueError: Unknown, geographic, or not in metres.
    """
    if crs:
        _projected(crs)
    return crs


def normal_gravity(latitude: Any, ellipsoidal_height: Any, ellipsoid: str = "WGS84") -> np.ndarray:
    """Normal gravity, in m/s2, at a geodetic latitude (degrees) and a height (m) above the ellipsoid.

    The closed form of Lakshmanan (1991) as corrected by Li & Goetze (2001), through boule: no free-air correction is needed.
    """
    import boule

    reference = getattr(boule, checks.choice("ellipsoid", ellipsoid, ("WGS84", "GRS80")))
    lat, height = checks.finite("latitude", latitude), checks.finite("ellipsoidal_height", ellipsoidal_height)
    bad = np.flatnonzero(np.abs(lat) > 90)
    if bad.size:
        raise checks.invalid("latitude", f"{lat.ravel()[bad[0]]:g} at index {bad[0]}", "degrees from -90 to 90")
    return np.asarray(reference.normal_gravity((None, lat, height), si_units=True))


def normal_gravity_disturbance(latitude: Any, ellipsoidal_height: Any, absolute_gravity: Any, ellipsoid: str = "WGS84") -> np.ndarray:
    """Gravity disturbance: absolute gravity minus normal gravity at the same point, in m/s2, positive down.

    Args:
        latitude: Geodetic, degrees.
        ellipsoidal_height: Metres above the ellipsoid; with heights above sea level the result is close to the free-air anomaly.
        absolute_gravity: In m/s2 (1 mGal = 1e-5 m/s2).
        ellipsoid: "WGS84" or "GRS80".
    """
    return checks.finite("absolute_gravity", absolute_gravity) - normal_gravity(latitude, ellipsoidal_height, ellipsoid)


def bouguer_slab(height: Any, density: float = 2670.0) -> np.ndarray:
    """Attraction of an infinite slab, 2 pi G rho h, in m/s2; subtract it from a disturbance for the simple Bouguer one.

    Args:
        height: Thickness in metres; negative for missing rock.
        density: In kg/m3; for water over the sea floor give the contrast to rock.
    """
    return 2 * np.pi * constants.GRAVITATIONAL_CONSTANT * density * checks.finite("height", height)


def _projected(crs: str) -> "pyproj.CRS":
    import pyproj

    advice = "Give a projected system, such as a UTM zone ('EPSG:32610')."
    if not crs:
        raise checks.invalid("crs", "''", "a projected coordinate reference system for longitude and latitude", advice)
    try:
        system = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise checks.invalid("crs", f"'{crs}'", "a coordinate reference system that PROJ knows", advice) from error
    if not system.is_projected:
        raise checks.invalid("crs", f"'{crs}' ({system.name})", "projected, in metres", advice)
    if any(axis.unit_conversion_factor != 1 for axis in system.axis_info[:2]):
        raise checks.invalid("crs", f"'{crs}' in {system.axis_info[0].unit_name}", "in metres", advice)
    return system


def _reached(name: str, values: np.ndarray, crs: str) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise checks.invalid(name, f"at index {bad[0]}", f"inside the area of use of '{crs}'", f"{bad.size} points are not.")
    return np.asarray(values)
