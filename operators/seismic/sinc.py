"""Sources and receivers between the cell centres: Kaiser-windowed sinc weights (Hicks, Geophysics 67, 2002, 156-165).

Along each axis the value at a fractional index x comes from the 2 r centres around it,

    f(x) = sum_i w(x - i) f_i,        w(x) = sinc(x) I0(b sqrt(1 - (x / r)^2)) / I0(b)        for |x| < r,

and over several axes the weights multiply. The same weights inject a point source (divide by the volume of a cell to
represent a delta function). Hicks chose b for each half width r so that the largest error of the weights' spectrum is
least up to a wavenumber of half the Nyquist (four cells per wavelength): 1.34e-3 of the amplitude with r = 4 (his table 1).

At a pressure-free plane the field is continued antisymmetrically, so the weight of a centre beyond the plane is
subtracted from that of its mirror image. Positions here are fractional indices: 0.0 is the first centre, and the top
face of an array of n cells along `upward` is n - 0.5. Nothing here needs TensorFlow.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import i0

from .. import checks

#: Hicks (2002), table 1: b of each half width r, for a monopole accurate up to half the Nyquist wavenumber.
HICKS = {1: 1.24, 2: 2.94, 3: 4.53, 4: 6.31, 5: 7.91, 6: 9.42, 7: 10.95, 8: 12.53, 9: 14.09, 10: 14.18}

#: r where nothing else is asked for.
HALF_WIDTH = 4
_ON_CENTRE = 1e-9  # of a cell: positions in metres carry rounding errors


def kernel(x: np.ndarray, half_width: int, shape: float) -> np.ndarray:
    """The Kaiser-windowed sinc at distances in samples; exactly 1 at zero and exactly 0 at the other integers.

    Args:
        x: [...] distances, in samples.
        half_width: Where the window ends, r.
        shape: The Kaiser parameter b.

    Returns:
        [...] weights, zero from |x| = r on.
    """
    window = i0(shape * np.sqrt(np.clip(1 - (x / half_width) ** 2, 0, None))) / i0(shape)
    return np.where(x == np.rint(x), x == 0, np.where(np.abs(x) < half_width, np.sinc(x) * window, 0.0))


def points(positions: Any, shape: Sequence[int], *, half_width: int = HALF_WIDTH, mirror_top: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
    """Nodes and weights along each axis that interpolate an array at points, or inject sources there: over several axes weights multiply.

    A coordinate on a centre (to 1e-9 of a cell) has the single weight 1 along its axis; one on a pressure-free plane, likewise, none.

    Args:
        positions: [point, axis] fractional indices into the array.
        shape: Of the array.
        half_width: r, from 1 to 10 cells.
        mirror_top: The top face of axis 0, at index ``shape[0] - 0.5``, is a pressure-free plane: centres beyond it fold back with
            the opposite sign. A point on the plane itself has only zero weights: the pressure is zero there.

    Returns:
        Of each axis, (nodes, weights): [point, up to 2 r] int32 indices along it, and float64. As many as the point with the most
        nonzero weights has; these come first, in their order, and where a weight is zero the node is any of the axis. No two
        nonzero weights of a point share a node.

    Raises:
        ValueError: A half width out of range, or a point whose centres are not all in the array.
    """
    checks.choice("half_width", half_width, tuple(HICKS))
    positions = checks.finite("positions", positions)
    if positions.ndim != 2 or positions.shape[1] != len(shape):
        raise checks.invalid("positions", f"of shape {positions.shape}", f"of shape (points, {len(shape)})")
    found = []
    for axis, size in enumerate(shape):
        nodes, weights, bad = _axis(positions, axis, size, half_width, mirror_top and axis == 0)
        if bad.any():
            expected = f"such that the {half_width} cells on either side along axis {axis} are among its {size} (or on a cell's centre)"
            given = f"{positions[bad.argmax()]} at index {bad.argmax()}"
            raise checks.invalid("positions", given, expected, f"{bad.sum()} of {len(bad)} points are not.")
        found.append(_collapsed(nodes, weights))
    return found


def crowded(positions: np.ndarray, shape: Sequence[int], *, half_width: int = HALF_WIDTH, mirror_top: bool = False) -> np.ndarray:
    """[point] whether `points` refuses a point because its centres are not all in the array."""
    axes = (_axis(positions, axis, size, half_width, mirror_top and axis == 0)[2] for axis, size in enumerate(shape))
    return np.any(list(axes), axis=0)


def _axis(positions: np.ndarray, axis: int, size: int, half_width: int, mirror: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes (int32, inside the axis) and weights along one axis, each [point, 2 r], and whether nodes beyond it would count [point]."""
    x = positions[:, axis]
    x = np.where(np.abs(x - np.rint(x)) < _ON_CENTRE, np.rint(x), x)
    x = np.where(mirror & (np.abs(x - (size - 0.5)) < _ON_CENTRE), size - 0.5, x)
    first = np.floor(x) - half_width + 1
    nodes = first[:, np.newaxis] + np.arange(2 * half_width)
    weights = kernel(x[:, np.newaxis] - nodes, half_width, HICKS[half_width])
    outside = (weights != 0) & ((nodes < 0) | (nodes >= size))
    if mirror:
        # The image of node i is 2 size - 1 - i; for a point below the plane it is always one of the point's own nodes.
        beyond = (nodes >= size) & (x <= size - 0.5)[:, np.newaxis]
        point, slot = np.nonzero(beyond)
        np.subtract.at(weights, (point, (2 * size - 1 - nodes[beyond] - first[point]).astype(np.intp)), weights[point, slot])
        weights[beyond], outside[beyond] = 0.0, False
    return np.clip(nodes, 0, size - 1).astype(np.int32), weights, outside.any(axis=1)


def _collapsed(nodes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same with as few entries as the point with the most nonzero weights has (one at least)."""
    width = max(1, int(np.count_nonzero(weights, axis=1).max(initial=0)))
    order = np.argsort(weights == 0, axis=1, kind="stable")[:, :width]
    return np.take_along_axis(nodes, order, axis=1), np.take_along_axis(weights, order, axis=1)
