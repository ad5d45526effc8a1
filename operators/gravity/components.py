"""The components of gravity: how each follows from the potential, and its analytic value for a prism.

x is easting, y is northing and z is *down*: gz is positive above an excess of mass, and gxz is d(gx)/dz.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from .. import checks
from ..constants import GRAVITATIONAL_CONSTANT
from ..grid import Grid


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


def prism_response(component: str, point: np.ndarray, edges: Sequence[np.ndarray], active: np.ndarray) -> np.ndarray:
    """The analytic response (component per kg/m3) at one point of every cell between `edges`, [upward, northing, easting]; zero where not `active`.

    Raises:
        ValueError: A gradient is asked for on the edge of an active cell, where it is infinite.
    """
    out = np.empty([edge.size - 1 for edge in edges])
    prism_kernel(component)(point, *edges, out)
    out[~active] = 0.0
    if not np.isfinite(out).all():
        where = ", ".join(f"{value:g}" for value in point)
        given = f"with one at (upward, northing, easting) = ({where}) m, on the edge of a cell"
        raise checks.invalid("stations", given, f"off the edges, where '{component}' is infinite", "Raise it or shift the grid a little.")
    return out


def prism_field(component: str, points: np.ndarray, grid: Grid, density: Any) -> np.ndarray:
    """The exact field at points of the cells of a grid, without a stored kernel: for checks and examples of any size.

    Args:
        component: One of COMPONENTS.
        points: [point, (upward, northing, easting)], in metres.
        grid: The cells.
        density: kg/m3, shaped as the grid; for gz, gx and gy cells of zero density cost nothing.

    Returns:
        [point], in m/s2 or 1/s2.

    Raises:
        ValueError: An unknown component, a density of another shape or not finite, or a gradient on the edge of a cell.
    """
    checks.choice("component", component, tuple(COMPONENTS))
    values = checks.shape("density", checks.finite("density", density), grid.shape)
    points = np.ascontiguousarray(points, dtype=np.float64)
    if COMPONENTS[component].unit == "1/s2":
        used = tuple(slice(cells.min(), cells.max() + 1) if cells.size else slice(0, 1) for cells in np.nonzero(values))
        edges = [axis[part.start : part.stop + 1] for axis, part in zip(grid.edges, used, strict=True)]
        return np.array([np.vdot(prism_response(component, point, edges, values[used] != 0), values[used]) for point in points])
    corners = _corner_sums(values)
    at = np.nonzero(corners)
    nodes = np.stack([axis[index] for axis, index in zip(grid.edges, at, strict=True)], axis=1)
    return COMPONENTS[component].sign * GRAVITATIONAL_CONSTANT * _corner_kernel(component)(points, nodes, corners[at])


def _corner_sums(density: np.ndarray) -> np.ndarray:
    """At each corner of the cells the sum of the densities around it with the signs of the closed form's limits.

    Neighbouring prisms share corners, and the closed form of a prism is a signed sum over its eight corners: summed corner by
    corner, the field costs one evaluation a corner instead of eight a cell, and none inside a uniform body.
    """
    for axis in range(3):
        padding = [(1, 1) if other == axis else (0, 0) for other in range(3)]
        density = -np.diff(np.pad(density, padding), axis=axis)
    return density


@functools.cache
def _corner_kernel(component: str) -> Callable[..., np.ndarray]:
    import choclo
    import numba

    formula = getattr(choclo.prism, COMPONENTS[component].kernel.replace("gravity", "kernel"))

    @numba.njit(parallel=True)
    def total(points, nodes, weights):  # type: ignore[no-untyped-def]
        out = np.zeros(len(points))
        for s in numba.prange(len(points)):
            for n in range(len(nodes)):
                up, north, east = nodes[n, 0] - points[s, 0], nodes[n, 1] - points[s, 1], nodes[n, 2] - points[s, 2]
                out[s] += weights[n] * formula(east, north, up, np.sqrt(east**2 + north**2 + up**2))
        return out

    return total
