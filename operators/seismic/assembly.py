r"""The time step as one sparse matrix: what the propagator does without ever forming it.

The state is the vector of the field one step before, the field now, and for each absorbing layer psi on its faces and zeta in its cells;
one product with the matrix is one step without a source. The matrix is put together from one-dimensional difference matrices,
not from the propagator's code, and the tests hold the two equal to rounding.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse
import tensorflow as tf

from .. import stencils
from ..sparse import CSRMatrix
from .boundaries import Strip
from .boxes import Box
from .lattice import Lattice, cut, put
from .stepping import Material, Memory, Profiles, State, empty


def step_matrix(lattice: Lattice, material: Material, profiles: Profiles) -> CSRMatrix:
    """The matrix of one step.

    Args:
        lattice: Where.
        material, profiles: As the propagator takes them.

    Returns:
        [state, state] float64; `to_vector` gives the order of the state.
    """
    cells = lattice.whole.size
    same, none = scipy.sparse.eye_array(cells), [scipy.sparse.csr_array((cells, _size(strip))) for strip in lattice.strips]
    field = scipy.sparse.hstack([scipy.sparse.csr_array((cells, cells)), same, *none], format="csr")  # picks u of the state
    blocks, kept, start = [], [], 2 * cells
    for strip, profile in zip(lattice.strips, profiles, strict=True):
        a, b, a_faces, b_faces = (np.asarray(part, float) for part in profile)
        psi = _picked(field.shape[1], start, strip.faces.size)
        zeta = _picked(field.shape[1], start + strip.faces.size, strip.cells.size)
        first = _along(lattice, strip.axis, _to_faces) if material.buoyancy else _root(lattice, strip)
        slope = _rows(lattice.faces(strip.axis), strip.faces) @ first @ field
        kept.append((_scaled(b_faces, strip.faces) @ psi + _scaled(a_faces, strip.faces) @ slope, zeta, a, b))
        start += _size(strip)
    rate, bends = (_variable if material.buoyancy else _constant)(lattice, material, field, [psi for psi, *_ in kept])
    for strip, bend, (psi, zeta, a, b) in zip(lattice.strips, bends, kept, strict=True):
        zeta = _scaled(b, strip.cells) @ zeta + _scaled(a, strip.cells) @ bend
        rate = rate + _rows(lattice.whole, strip.cells).T @ zeta
        blocks += [psi, zeta]
    older = scipy.sparse.hstack([same, scipy.sparse.csr_array((cells, field.shape[1] - cells))], format="csr")
    after = 2 * field - older + scipy.sparse.diags_array(np.ravel(material.stiffness).astype(float)) @ rate
    return CSRMatrix.from_scipy(scipy.sparse.csr_array(scipy.sparse.vstack([field, after, *blocks])))


def _constant(
    lattice: Lattice, material: Material, field: scipy.sparse.csr_array, psis: Sequence[scipy.sparse.csr_array]
) -> tuple[scipy.sparse.csr_array, list[scipy.sparse.csr_array]]:
    """(L u + D psi, and for each layer the second derivative + D psi in its cells)."""
    second = [_along(lattice, axis, _second) @ field for axis in range(len(lattice.shape))]
    rate, bends = functools.reduce(lambda total, part: total + part, second), []
    for strip, psi in zip(lattice.strips, psis, strict=True):
        flow = -_root(lattice, strip).T @ (_rows(lattice.faces(strip.axis), strip.faces).T @ psi)
        rate = rate + flow
        bends.append(_rows(lattice.whole, strip.cells) @ (second[strip.axis] + flow))
    return rate, bends


def _variable(
    lattice: Lattice, material: Material, field: scipy.sparse.csr_array, psis: Sequence[scipy.sparse.csr_array]
) -> tuple[scipy.sparse.csr_array, list[scipy.sparse.csr_array]]:
    """(the divergence of the fluxes, and its part across each layer in its cells)."""
    flows = []
    for axis in range(len(lattice.shape)):
        slope = _along(lattice, axis, _to_faces) @ field
        for strip, psi in zip(lattice.strips, psis, strict=True):
            if strip.axis == axis:
                slope = slope + _rows(lattice.faces(axis), strip.faces).T @ psi
        flux = scipy.sparse.diags_array(np.ravel(material.buoyancy[axis]).astype(float)) @ slope
        flows.append(_along(lattice, axis, _to_cells) @ flux)
    rate = functools.reduce(lambda total, part: total + part, flows)
    return rate, [_rows(lattice.whole, strip.cells) @ flows[strip.axis] for strip in lattice.strips]


# ------------------------------------------------------------------------------------------------- one-dimensional parts


def _second(n: int, order: int, spacing: float, mirror: bool) -> scipy.sparse.csr_array:
    return _banded(n, stencils.central(2, order) / spacing**2) @ _continued(n, order // 2, -1.0 if mirror else 0.0, 0)


def _to_faces(n: int, order: int, spacing: float, mirror: bool) -> scipy.sparse.csr_array:
    return _banded(n + 1, stencils.staggered(1, order) / spacing) @ _continued(n, order // 2, -1.0 if mirror else 0.0, 0)


def _to_cells(n: int, order: int, spacing: float, mirror: bool) -> scipy.sparse.csr_array:
    bands = _banded(n, stencils.staggered(1, order) / spacing)  # on the faces from order / 2 - 1 below the first one on
    return bands @ _continued(n + 1, order // 2 - 1, 1.0 if mirror else 0.0, 1)


def _root(lattice: Lattice, strip: Strip) -> scipy.sparse.csr_array:
    """[faces, cells] the first difference whose transpose times it is minus the second one, turned towards the layer."""
    n, weights = lattice.shape[strip.axis], stencils.root(lattice.order) / lattice.spacing[strip.axis]
    shifts, signs = (-np.arange(len(weights)), -1.0) if strip.upper else (np.arange(len(weights)) - 1, 1.0)
    matrix = sum(signs * weight * scipy.sparse.eye_array(n + 1, n, k=shift) for shift, weight in zip(shifts, weights, strict=True))
    return _along(lattice, strip.axis, lambda *_: scipy.sparse.csr_array(matrix))


def _banded(rows: int, weights: np.ndarray) -> scipy.sparse.csr_array:
    constants = [np.full(rows, weight) for weight in weights]
    return scipy.sparse.csr_array(scipy.sparse.diags_array(constants, offsets=range(len(weights)), shape=(rows, rows + len(weights) - 1)))


def _continued(n: int, ghosts: int, sign: float, skip: int) -> scipy.sparse.csr_array:
    """[n + 2 ghosts, n]: values with zeros before them, and behind them their mirror image times `sign`, the last `skip` left out."""
    matrix = scipy.sparse.lil_array((n + 2 * ghosts, n))
    matrix[ghosts + np.arange(n), np.arange(n)] = 1.0
    for ghost in range(ghosts):
        matrix[ghosts + n + ghost, n - 1 - skip - ghost] = sign
    return scipy.sparse.csr_array(matrix)


def _along(lattice: Lattice, axis: int, line: Callable[[int, int, float, bool], scipy.sparse.csr_array]) -> scipy.sparse.csr_array:
    """``I (x) line (x) I``."""
    before, after = int(np.prod(lattice.shape[:axis])), int(np.prod(lattice.shape[axis + 1 :]))
    inner = line(lattice.shape[axis], lattice.order, lattice.spacing[axis], lattice.free_surface and axis == 0)
    return scipy.sparse.csr_array(scipy.sparse.kron(scipy.sparse.eye_array(before), scipy.sparse.kron(inner, scipy.sparse.eye_array(after))))


def _rows(whole: Box, box: Box) -> scipy.sparse.csr_array:
    """Picks the places of a box from those of a larger one."""
    places = np.arange(whole.size).reshape(whole.shape)[box.slices(whole)].ravel()
    return scipy.sparse.csr_array((np.ones(places.size), places, np.arange(places.size + 1)), shape=(places.size, whole.size))


def _picked(columns: int, start: int, size: int) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array((np.ones(size), start + np.arange(size), np.arange(size + 1)), shape=(size, columns))


def _scaled(profile: np.ndarray, box: Box) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(scipy.sparse.diags_array(np.broadcast_to(profile, box.shape).ravel()))


def _size(strip: Strip) -> int:
    return strip.faces.size + strip.cells.size


# ------------------------------------------------------------------------------------------------------- state as vector


def to_vector(lattice: Lattice, state: State) -> np.ndarray:
    """The field before, the field now, and psi and zeta of each layer, as one float64 vector."""
    parts = [cut(field, lattice.haloed, lattice.whole) for field in (state.older, state.old.field)]
    for strip, memory in zip(lattice.strips, state.old.memories, strict=True):
        parts += [cut(memory.faces, strip.memory, strip.faces), cut(memory.cells, strip.memory, strip.cells)]
    return np.concatenate([np.ravel(part).astype(float) for part in parts])


def from_vector(lattice: Lattice, vector: np.ndarray, *, fluxes: bool = False) -> State:
    """The inverse of `to_vector`, float64."""
    blank = empty(lattice, tf.float64, fluxes=fluxes)
    boxes = [lattice.whole, lattice.whole, *(box for strip in lattice.strips for box in (strip.faces, strip.cells))]
    ends = np.cumsum([box.size for box in boxes])[:-1]
    older, field, *rest = (tf.constant(part.reshape(box.shape)) for part, box in zip(np.split(vector, ends), boxes, strict=True))
    fields = [lattice.mirrored(put(blank.field, lattice.haloed, part, lattice.whole)) for part in (older, field)]
    memories = tuple(
        Memory(put(memory.faces, strip.memory, psi, strip.faces), put(memory.cells, strip.memory, zeta, strip.cells))
        for strip, memory, psi, zeta in zip(lattice.strips, blank.memories, rest[::2], rest[1::2], strict=True)
    )
    return State(fields[0], blank._replace(field=fields[1], memories=memories))
