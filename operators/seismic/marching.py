r"""First-arrival times of a point source by factored fast marching, and their derivative: compiled kernels over one source.

With the distance :math:`\tau_0` from the source, times are :math:`T = \tau_0 \tau_1`: what is computed is :math:`\tau_1`, the mean slowness
of a wave's way, which is smooth where T has a kink, at the source (Fomel, Luo & Zhao, J. Comput. Phys. 228, 2009). The eikonal equation
:math:`|\nabla T| = s` is solved node by node in the order of T, each from neighbours that are done (Treister & Haber, J. Comput. Phys.
324, 2016). With the neighbours j, k along an axis on the upwind side, :math:`\sigma = \pm 1` that side and :math:`p = \partial \tau_0`,

.. math:: q_d = \sigma p \tau_1 + \tau_0 (w_0 \tau_1 + w_1 \tau_{1,j} + w_2 \tau_{1,k}) = \alpha_d \tau_1 - \beta_d \geq 0,
          \qquad \sum_d q_d^2 = s^2 ,

w being the weights of a one-sided first derivative, of second order where k is known and earlier than j, else of first order.

What was chosen is kept: the order of nodes, and of each the sides and orders. The derivative of the equations that were solved is then
exact, and a triangular system in that order,

.. math:: \Big(\sum_d q_d \alpha_d\Big) \, d\tau_1 = \sum_d q_d \, d\beta_d + s \, ds ,

solved forward for tangents, and backward for cotangents.

Around the source nodes take, by a share w that falls from one to zero within some cells, the mean of the slownesses at both ends of the
straight way from it: nodes do not become starting values at once when a source moves, and times are continuous in its position.

All arrays are over the nodes of a grid with a margin of one node around it, ravelled: neighbours need no test of bounds.
"""

from typing import Any, NamedTuple

import numba
import numpy as np

#: Of nodes: not seen yet, with a time that may still fall, done, and outside of the medium.
FAR, TRIAL, DONE, OUTSIDE = 0, 1, 2, 3
#: Choices of a node along each axis, digits of this base: none, (side, order) as 1 + side + 2 (order - 1), side 0 being the lower one, or ...
BASE = 6
#: ... the slope of the distance alone, where a source lies between a node and its neighbour: beside a source none of these is upwind. It is
#: the least that q is there, so that times do not jump where a neighbour becomes so.
ABREAST = 5
#: Rows of what an equation is made of, a column for each axis: alpha, beta, the least that q is of tau_1, and the slope of the distance.
ALPHA, BETA, LEAST, SLOPE = 0, 1, 2, 3


class Mesh(NamedTuple):
    """Nodes, with a margin of one around them.

    Args:
        x: [axis, node along it] positions, m; rows as long as the longest axis.
        shape: [axis] numbers of nodes.
        strides: [axis] distances of neighbours in ravelled arrays.
    """

    x: Any
    shape: Any
    strides: Any


class Shot(NamedTuple):
    """A source.

    Args:
        at: [axis] position, m.
        slowness: There, s/m.
        zone: Nodes around it that take a share of the straight way.
        share: w of each.
    """

    at: Any
    slowness: Any
    zone: Any
    share: Any


class Front(NamedTuple):
    """What a march leaves.

    Args:
        tau: [node] tau_1, s/m.
        order: The nodes that were reached, in the order of their times.
        code: [node] what each was made of.
    """

    tau: Any
    order: Any
    code: Any


class Rows(NamedTuple):
    """The triangle as CSR arrays, nodes in their order: ``dtau = L dtau + here ds + there ds_source``.

    Neighbours were done not long before: what a row needs is still in the caches.

    Args:
        starts, indices, entries: L.
        here, there: [node]
        order: Which nodes these are.
    """

    starts: Any
    indices: Any
    entries: Any
    here: Any
    there: Any
    order: Any


_compiled = numba.njit(cache=True, nogil=True)
_within = numba.njit(cache=True, nogil=True, forceinline=True)  # a call costs as much as what these do


@_compiled
def place(node: Any, mesh: Any, at: Any, slopes: Any, index: Any) -> Any:
    """The distance of a node from the source; its slopes, and the node's index along each axis."""
    ndim, rest, square = at.size, node, 0.0
    for d in range(ndim - 1, -1, -1):
        index[d] = rest % mesh.shape[d]
        rest //= mesh.shape[d]
        slopes[d] = mesh.x[d, index[d]] - at[d]
        square += slopes[d] ** 2
    distance = np.sqrt(square)
    for d in range(ndim):
        slopes[d] = slopes[d] / distance if distance > 0 else 0.0
    return distance


@_within
def abreast(x: Any, i: Any, at: Any) -> Any:
    """What part of the distance's slope q is at least: all while a source is nearer than the neighbour on its side, none from that one on."""
    off = abs(at - x[i])
    return min(1.0, max(0.0, 2 - 2 * off / abs(x[i + (1 if at > x[i] else -1)] - x[i])))


@_within
def side(node: Any, d: Any, digit: Any, tau: Any, mesh: Any, i: Any, at: Any, distance: Any, slope: Any) -> Any:
    """(alpha, beta, and what beta takes of the neighbour and of the one behind it) along an axis."""
    if digit == ABREAST:
        return abreast(mesh.x[d], i, at) * abs(slope), 0.0, 0.0, 0.0
    step = -1 if digit % 2 else 1
    sign, near, x = -step * slope, node + step * mesh.strides[d], mesh.x[d]
    h = abs(x[i] - x[i + step])
    if digit < 3:
        return sign + distance / h, distance / h * tau[near], distance / h, 0.0
    k = abs(x[i + step] - x[i + 2 * step])
    one, two = distance * (h + k) / (h * k), -distance * h / (k * (h + k))
    return sign + distance * (2 * h + k) / (h * (h + k)), one * tau[near] + two * tau[near + step * mesh.strides[d]], one, two


@_within
def solved(work: Any, digits: Any, s: Any) -> Any:
    """tau_1 from the equation in which no q is less than it may be: digits of axes that it would fall below become those of that."""
    while True:
        a, b, c, last, worst = 0.0, 0.0, -s * s, -1, -np.inf
        for d in range(digits.size):
            alpha, beta, least = work[ALPHA, d], work[BETA, d], work[LEAST, d]
            a += alpha**2
            b += alpha * beta
            c += beta**2
            if 0 < digits[d] < ABREAST:
                turns = beta / (alpha - least) if alpha > least else np.inf
                if turns > worst:
                    worst, last = turns, d
        if a == 0:
            return np.inf
        under = b * b - a * c
        t = (b + np.sqrt(under)) / a if under >= 0 else -np.inf
        if last < 0 or t >= worst:
            return t
        digits[last], work[ALPHA, last], work[BETA, last] = ABREAST if work[LEAST, last] > 0 else 0, work[LEAST, last], 0.0


@_within
def chosen(
    node: Any, links: Any, mesh: Any, at: Any, order: Any, tau: Any, time: Any, state: Any, distance: Any, work: Any, index: Any, digits: Any
) -> Any:  # fmt: skip
    """Put into `work` and `digits` what the neighbours that are done make of each axis, of an order at most; whether any is of second order."""
    higher = False
    for d in range(at.size):
        digits[d], work[ALPHA, d], work[BETA, d] = 0, 0.0, 0.0
        low, high, i, slope = node - mesh.strides[d], node + mesh.strides[d], index[d], work[SLOPE, d]
        known = (state[low] == DONE and links[low] >> d & 1) + 2 * (state[high] == DONE and links[node] >> d & 1)
        if known:
            upper = known == 2 or (known == 3 and time[high] < time[low])
            near, digit = (high, 2) if upper else (low, 1)
            behind = 2 * near - node
            linked = links[near if upper else behind] >> d & 1
            if order == 2 and state[behind] == DONE and linked and time[behind] <= time[near]:
                digit, higher = digit + 2, True
            work[ALPHA, d], work[BETA, d], _, _ = side(node, d, digit, tau, mesh, i, at[d], distance, slope)
            digits[d] = digit
        work[LEAST, d] = abreast(mesh.x[d], i, at[d]) * abs(slope)
        if work[LEAST, d] > 0 and not known:
            digits[d], work[ALPHA, d] = ABREAST, work[LEAST, d]
    return higher


@_compiled
def updated(
    node: Any, s: Any, links: Any, mesh: Any, at: Any, second: Any, tau: Any, time: Any, state: Any, work: Any, index: Any, digits: Any
) -> Any:  # fmt: skip
    """(tau_1 from the neighbours that are done, distance, choices)."""
    distance = place(node, mesh, at, work[SLOPE], index)
    for order in range(2 if second else 1, 0, -1):
        higher = chosen(node, links, mesh, at, order, tau, time, state, distance, work, index, digits)
        t = solved(work, digits, s[node])
        latest, code = 0.0, 0
        for d in range(at.size - 1, -1, -1):
            code = code * BASE + digits[d]
            if 0 < digits[d] < ABREAST:
                latest = max(latest, time[node + (-1 if digits[d] % 2 else 1) * mesh.strides[d]])
        if not higher or (np.isfinite(t) and t * distance >= latest):
            break  # else of first order: what is extrapolated may come before what it is made of
    return t, distance, code


@_compiled
def moved(heap: Any, slot: Any, size: Any, at: Any, time: Any) -> None:
    """Move a node of a heap of so many to where its time belongs."""
    node = heap[at]
    while at > 0:
        above = (at - 1) // 2
        if time[heap[above]] <= time[node]:
            break
        heap[at] = heap[above]
        slot[heap[at]] = at
        at = above
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and time[heap[below + 1]] < time[heap[below]]:
            below += 1
        if time[node] <= time[heap[below]]:
            break
        heap[at] = heap[below]
        slot[heap[at]] = at
        at = below
    heap[at] = node
    slot[node] = at


@_compiled
def march(s: Any, outside: Any, links: Any, mesh: Any, shot: Any, second: Any, tau: Any, order: Any, code: Any) -> Any:
    """tau_1, the order of nodes and their choices, for a `Front`; returns how many were reached."""
    ndim, size = shot.at.size, s.size
    state, blend = outside.copy(), np.zeros(size)
    time, heap, slot = np.full(size, np.inf), np.empty(size, np.int32), np.empty(size, np.int32)
    work, index, digits = np.empty((4, ndim)), np.empty(ndim, np.int64), np.zeros(ndim, np.int64)
    waiting, reached = 0, 0
    tau[:] = np.inf
    for k in range(shot.zone.size):
        node = shot.zone[k]
        blend[node] = shot.share[k]
        if blend[node] == 1.0:
            tau[node] = (shot.slowness + s[node]) / 2
            time[node] = tau[node] * place(node, mesh, shot.at, work[SLOPE], index)
            state[node], code[node], heap[waiting] = TRIAL, 0, node
            waiting += 1
            moved(heap, slot, waiting, waiting - 1, time)
    while waiting:
        node, waiting = heap[0], waiting - 1
        heap[0] = heap[waiting]
        moved(heap, slot, waiting, 0, time)
        state[node], order[reached] = DONE, node
        reached += 1
        for k in range(2 * ndim):
            near = node + (mesh.strides[k // 2] if k % 2 else -mesh.strides[k // 2])
            if state[near] >= DONE or blend[near] == 1.0:
                continue
            t, distance, choices = updated(near, s, links, mesh, shot.at, second, tau, time, state, work, index, digits)
            if blend[near] > 0:
                t = blend[near] * (shot.slowness + s[near]) / 2 + (1 - blend[near]) * t
            if np.isfinite(t):  # of more neighbours than before, so better even where it is later
                tau[near], code[near], time[near] = t, choices, t * distance
                if state[near] == FAR:
                    state[near], heap[waiting], slot[near] = TRIAL, near, waiting
                    waiting += 1
                moved(heap, slot, waiting, slot[near], time)
    return reached


@_compiled
def equation(node: Any, s: Any, blend: Any, mesh: Any, shot: Any, front: Any, work: Any, index: Any, columns: Any, values: Any) -> Any:
    """(how many neighbours, d tau_1 / ds here, d tau_1 / ds at the source): columns and values hold what tau_1 takes of its neighbours."""
    rest, count, total, tau = front.code[node], 0, 0.0, front.tau
    own = (tau[node] - blend * (shot.slowness + s[node]) / 2) / (1 - blend) if blend < 1 else 0.0
    distance = place(node, mesh, shot.at, work, index)
    for d in range(shot.at.size):
        digit = rest % BASE
        rest //= BASE
        if digit:
            alpha, beta, one, two = side(node, d, digit, tau, mesh, index[d], shot.at[d], distance, work[d])
            q, step = alpha * own - beta, (-mesh.strides[d] if digit % 2 else mesh.strides[d])
            total += q * alpha
            if digit < ABREAST:
                columns[count], values[count] = node + step, q * one
                count += 1
            if 2 < digit < ABREAST:
                columns[count], values[count] = node + 2 * step, q * two
                count += 1
    for k in range(count):
        values[k] *= (1 - blend) / total
    return count, ((1 - blend) * s[node] / total if total > 0 else 0.0) + blend / 2, blend / 2


@_compiled
def space(s: Any, shot: Any) -> Any:
    """Shares of all nodes, and room for an equation."""
    ndim, blend = shot.at.size, np.zeros(s.size)
    blend[shot.zone] = shot.share
    return blend, np.empty(ndim), np.empty(ndim, np.int64), np.empty(2 * ndim, np.int64), np.empty(2 * ndim)


@_compiled
def cotangent(g: Any, s: Any, mesh: Any, shot: Any, front: Any) -> Any:
    """The gradients by s [node] and by that at the source from that by tau_1, which is used up: backward through the triangle."""
    blend, work, index, columns, values = space(s, shot)
    out, of_source = np.zeros(s.size), 0.0
    for node in front.order[::-1]:
        if g[node] != 0.0:
            count, here, there = equation(node, s, blend[node], mesh, shot, front, work, index, columns, values)
            out[node] = here * g[node]
            of_source += there * g[node]
            for k in range(count):
                g[columns[k]] += values[k] * g[node]
    return out, of_source


@_compiled
def rows(s: Any, mesh: Any, shot: Any, front: Any) -> Any:
    """The triangle, and the place of each node in it."""
    blend, work, index, columns, values = space(s, shot)
    reached, rank = front.order.size, np.full(s.size, -1, np.int32)
    starts, indices, entries = np.zeros(reached + 1, np.int64), np.empty(values.size * reached, np.int32), np.empty(values.size * reached)
    here, there = np.empty(reached), np.empty(reached)
    for k in range(reached):
        node = front.order[k]
        rank[node] = k
        count, here[k], there[k] = equation(node, s, blend[node], mesh, shot, front, work, index, columns, values)
        for j in range(count):
            indices[starts[k] + j], entries[starts[k] + j] = rank[columns[j]], values[j]
        starts[k + 1] = starts[k] + count
    size = starts[reached]
    return Rows(starts, indices[:size].copy(), entries[:size].copy(), here, there, front.order), rank


@_compiled
def forward(rows: Any, ds: Any, d_source: Any) -> Any:
    """dtau, nodes in their order, from ds [node] and that at the source."""
    out = np.empty(rows.order.size)
    for k in range(out.size):
        total = rows.here[k] * ds[rows.order[k]] + rows.there[k] * d_source
        for j in range(rows.starts[k], rows.starts[k + 1]):
            total += rows.entries[j] * out[rows.indices[j]]
        out[k] = total
    return out


@_compiled
def backward(rows: Any, g: Any, size: Any) -> Any:
    """The gradients by s [node], of so many nodes, and by that at the source from that by tau, nodes in their order, which is used up."""
    out, of_source = np.zeros(size), 0.0
    for k in range(g.size - 1, -1, -1):
        if g[k] != 0.0:
            out[rows.order[k]] = rows.here[k] * g[k]
            of_source += rows.there[k] * g[k]
            for j in range(rows.starts[k], rows.starts[k + 1]):
                g[rows.indices[j]] += rows.entries[j] * g[k]
    return out, of_source
