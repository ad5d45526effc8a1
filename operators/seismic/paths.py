"""The ways that first arrivals took: down the slope of the times, as the equations that were solved have it."""

from typing import Any

import numba
import numpy as np

from .marching import ABREAST, BASE, Front, Mesh, Shot, place, side

#: Length of a step, over the smallest spacing of nodes.
STEP = 0.5
#: Steps to a ray, over those of a straight way across all of the nodes.
LONGEST = 4


@numba.njit(cache=True, nogil=True)
def downhill(s: Any, mesh: Any, shot: Any, front: Any) -> Any:
    """[axis, node] unit vectors against the slope of times, zero at nodes that were not reached and at the source."""
    ndim = shot.at.size
    out, work, index = np.zeros((ndim, s.size)), np.empty(ndim), np.empty(ndim, np.int64)
    for node in front.order:
        rest, square = front.code[node], 0.0
        distance = place(node, mesh, shot.at, work, index)
        for d in range(ndim):
            digit = rest % BASE
            rest //= BASE
            if digit:
                alpha, beta, _, _ = side(node, d, digit, front.tau, mesh, index[d], shot.at[d], distance, work[d])
                q = alpha * front.tau[node] - beta
                rises = work[d] > 0 if digit == ABREAST else digit % 2 == 1  # upwind is the lower neighbour
                out[d, node] = -q if rises else q
                square += q * q
        for d in range(ndim):
            out[d, node] = out[d, node] / np.sqrt(square) if square > 0 else -work[d]  # beside the source the straight way
    return out


@numba.njit(cache=True, nogil=True)
def traced(start: Any, slopes: Any, mesh: Any, at: Any, step: Any, room: Any) -> Any:
    """Fill `room` [point, axis] with a way from a receiver to a source; returns its number of points.

    Directions are those of the nodes around, each by its share. Where a node is nearer to the source than two steps of the nodes, or no
    direction is left, the rest of the way is straight.
    """
    ndim, count = at.size, 0
    x, index, part, way = start.copy(), np.empty(ndim, np.int64), np.empty(ndim), np.empty(ndim)
    while True:
        room[count] = x
        count += 1
        away = np.sqrt(np.sum((x - at) ** 2))
        if away <= 4 * step or count >= room.shape[0] - 1:
            break
        for d in range(ndim):
            row = mesh.x[d, 1 : mesh.shape[d] - 1]
            index[d] = min(max(np.searchsorted(row, x[d], side="right") - 1, 0), row.size - 2)
            part[d] = min(max((x[d] - row[index[d]]) / (row[index[d] + 1] - row[index[d]]), 0.0), 1.0)
        way[:] = 0.0
        for corner in range(2**ndim):
            node, share = 0, 1.0
            for d in range(ndim):
                upper = corner >> d & 1
                node += (index[d] + 1 + upper) * mesh.strides[d]
                share *= part[d] if upper else 1 - part[d]
            for d in range(ndim):
                way[d] += share * slopes[d, node]
        size = np.sqrt(np.sum(way**2))
        if size < 1e-3:
            break
        x = x + min(step, away) * way / size
    room[count] = at
    return count + 1


def rays(s: np.ndarray, mesh: Mesh, shot: Shot, front: Front, receivers: np.ndarray) -> list[np.ndarray]:
    """The ways [point, axis] from receivers [receiver, axis] to a source, m.

    Args:
        s: Slowness of nodes.
        mesh: Of the nodes.
        shot: The source.
        front: Its times.
        receivers: Where ways begin.
    """
    spans = [row[1 : n - 1] for row, n in zip(mesh.x, mesh.shape, strict=True)]
    step = STEP * min(float(np.diff(span).min()) for span in spans)
    room = np.empty((int(LONGEST * sum(np.ptp(span) for span in spans) / step) + 8, len(spans)))
    slopes = downhill(s, mesh, shot, front)
    return [room[: traced(receiver, slopes, mesh, shot.at, step, room)].copy() for receiver in np.ascontiguousarray(receivers)]
