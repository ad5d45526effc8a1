"""The sparse correction that makes the finite-difference gravity right where real stations stand.

Near a station the grid sees density only to a few cells' accuracy. For the cells of a window around each station the grid's
own response is therefore replaced by the analytic prism's: a CSR matrix of (prism minus grid), a row for each
station and component. Beyond the
window the grid's error falls fast with distance, so the window follows from the tolerance (`radius`). The grid's own
response to the cells of a window is a sum over the modes of the separable solver,

    response[k, j, i] = sum_abc  Z[k, a] z[a]  Y[j, b] y[b]  X[i, c] x[c]  /  lambda[a, b, c],

where x, y, z are the modes as the station samples them and X, Y, Z as the cells feed them. Contracted axis by axis, one large
axis as a blocked matrix product for many stations at once, this costs milliseconds a station on any rectilinear grid and is
exact, so that nothing depends on the cells being uniform.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ..grid import Grid

#: Stations whose first contraction is one matrix product: enough for BLAS to be busy, small enough for the cache.
BLOCK = 16


def radius(tolerance: float, order: int = 1) -> float:
    """Half-width of the window, in the largest cell size around the station, for an error of `tolerance` of the peak.

    The worst case is a single cell just outside: measured against prisms on cubic cells (tests/test_gravity_accuracy.py) its
    error falls with the power 4.3 of the distance, and is larger for gradients.

    Args:
        tolerance: Fraction of the peak.
        order: Of the derivative of the potential: 1 for gz, gx, gy, 2 for gradients, which are held to twice the tolerance.
    """
    return (4.5 if order == 1 else 6.0) * (1e-2 / tolerance) ** 0.23


def windows(model: Grid, computational: Grid, points: np.ndarray, cells: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each axis the (first, past-the-last) index of the model's cells in every point's window.

    Args:
        model: The model's grid.
        computational: The grid on which the potential is computed.
        points: [point, axis], in metres.
        cells: Half-width of the window, in computational cells: of the station or, where they are larger, of the model's cell.
    """
    here = computational.cell_index(points)
    local = np.max([widths[here[:, axis]] for axis, widths in enumerate(computational.widths)], axis=0)
    index = model.cell_index(points)
    ranges = []
    for axis, (centers, widths) in enumerate(zip(model.centers, model.widths, strict=True)):
        size = np.interp(centers, computational.centers[axis], computational.widths[axis])
        # Measured to the near end of a cell that is larger than the computational ones.
        distance = np.abs(centers - points[:, axis, None]) - np.maximum(widths - size, 0) / 2
        inside = distance <= cells * np.maximum(local[:, None], size)
        inside[np.arange(len(points)), index[:, axis]] = True
        ranges.append((inside.argmax(axis=1), inside.shape[1] - inside[:, ::-1].argmax(axis=1)))
    return ranges


def grid_responses(
    inverse: np.ndarray, samples: Sequence[np.ndarray], feeds: Sequence[np.ndarray], ranges: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Iterator[np.ndarray]:
    """The response of the grid at each station to the cells of its window, one array [up, north, east] a station.

    Args:
        inverse: Inverse eigenvalues [a, b, c].
        samples: For each axis the modes as the stations sample them, [station, mode].
        feeds: For each axis the modes as the cells feed them, [cell, mode].
        ranges: From `windows`.
    """
    stations = len(samples[0])
    flat = inverse.reshape(-1, inverse.shape[2])
    for start in range(0, stations, BLOCK):
        block = range(start, min(start + BLOCK, stations))
        local = [[feed[low[s] : high[s]] * sample[s] for feed, sample, (low, high) in zip(feeds, samples, ranges, strict=True)] for s in block]
        easting = flat @ np.concatenate([axes[2] for axes in local]).T
        column = 0
        for up, north, east in local:
            part = easting[:, column : column + len(east)].reshape(*inverse.shape[:2], len(east))
            column += len(east)
            yield np.tensordot(up, north @ part, axes=1)
