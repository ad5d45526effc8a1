"""The components of gravity: how each follows from the potential, and its analytic value for a prism.

x is easting, y is northing and z is *down*: gz is positive above an excess of mass, and gxz is d(gx)/dz.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from .. import checks


@final
@dataclass(frozen=True)
class Component:
    """One component as a derivative of the potential (m2/s2) along (upward, northing, easting), times a sign."""

    derivative: tuple[int, int, int]
    sign: float
    kernel: str
    unit: str


COMPONENTS = {
    "gz": Component((1, 0, 0), -1.0, "gravity_u", "m/s2"),
    "gx": Component((0, 0, 1), 1.0, "gravity_e", "m/s2"),
    "gy": Component((0, 1, 0), 1.0, "gravity_n", "m/s2"),
    "gzz": Component((2, 0, 0), 1.0, "gravity_uu", "1/s2"),
    "gxx": Component((0, 0, 2), 1.0, "gravity_ee", "1/s2"),
    "gyy": Component((0, 2, 0), 1.0, "gravity_nn", "1/s2"),
    "gxy": Component((0, 1, 1), 1.0, "gravity_en", "1/s2"),
    "gxz": Component((1, 0, 1), -1.0, "gravity_eu", "1/s2"),
    "gyz": Component((1, 1, 0), -1.0, "gravity_nu", "1/s2"),
}


def check(components: Sequence[str]) -> tuple[str, ...]:
    """The components as a tuple; raises ValueError for an unknown, a repeated, or no component."""
    names = (components,) if isinstance(components, str) else tuple(components)
    for name in names:
        checks.choice("components", name, tuple(COMPONENTS))
    if not names or len(set(names)) != len(names):
        raise checks.invalid("components", names, "one or more different components")
    return names


@functools.cache
def prism_kernel(component: str) -> Callable[..., None]:
    """A compiled ``kernel(point, up_edges, north_edges, east_edges, out)`` that fills out[k, j, i] with the component at
    `point` (upward, northing, easting; metres) of each prism of a small grid of 1 kg/m3 (choclo: Nagy et al. 2000, Fukushima 2020)."""
    import choclo
    import numba

    formula = getattr(choclo.prism, COMPONENTS[component].kernel)
    # choclo's g_u and g_eu, g_nu count upward positive: the same signs as those of the potential's derivatives.
    sign = COMPONENTS[component].sign

    @numba.njit(nogil=True)
    def kernel(point, up, north, east, out):  # type: ignore[no-untyped-def]
        for k in range(up.size - 1):
            for j in range(north.size - 1):
                for i in range(east.size - 1):
                    out[k, j, i] = sign * formula(
                        point[2], point[1], point[0],
                        east[i], east[i + 1], north[j], north[j + 1], up[k], up[k + 1], 1.0,
                    )  # fmt: skip

    return kernel


def prism_response(component: str, point: np.ndarray, edges: Sequence[np.ndarray]) -> np.ndarray:
    """The analytic response (component per kg/m3) at one point of every cell between `edges`, [upward, northing, easting].

    Raises:
        ValueError: A gradient is asked for on the edge of a cell, where it is infinite.
    """
    out = np.empty([edge.size - 1 for edge in edges])
    prism_kernel(component)(point, *edges, out)
    if not np.isfinite(out).all():
        where = ", ".join(f"{value:g}" for value in point)
        given = f"with one at (upward, northing, easting) = ({where}) m, on the edge of a cell"
        raise checks.invalid("stations", given, f"off the edges, where '{component}' is infinite", "Raise it or shift the grid a little.")
    return out
