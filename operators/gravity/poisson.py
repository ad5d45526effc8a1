r"""Gravity by finite differences: the potential of a density, from Poisson's equation, sampled at stations.

.. math:: -\nabla^2 U = 4 \pi G \rho, \qquad g_z = -\partial U / \partial z_{up}, \; \ldots

The model's cells feed a computational grid that is uniform around the stations and grows away from them (`mesh`). On it the
compact scheme of `sparse.separable` is solved exactly, with boundary values from equivalent sources (`boundary`); a CSR matrix of
6-point Lagrange derivatives samples the potential at the stations (`sampling`), and a CSR correction (`near_field`) replaces the
grid's response by the analytic one close to each station. Everything is linear in the density:

    data = sampling @ box(P D (B^T rho))  +  near @ rho  +  far @ moments(rho)

with B^T the modes as the cells feed them, D the inverse eigenvalues, P the modes at the cells around stations, `far` the
response at the stations to the boundary values of each equivalent source. Cost and memory of a product do not grow with stations x cells:
a few dense products with the small mode matrices of each axis, all under XLA.
"""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import tensorflow as tf

from .. import checks
from ..constants import GRAVITATIONAL_CONSTANT
from ..forward import ForwardOperator, Linearization, linear
from ..grid import Grid
from ..sparse.buckets import padded, select_rows
from ..sparse.csr import CSRMatrix
from ..sparse.entries import Entries
from ..sparse.product import product, transposed_product
from ..sparse.separable import SeparablePoisson, transform
from ..sparse.sizes import bucket
from . import boundary, mesh, near_field, sampling
from . import components as fields
from .ground import Setting


class Field(NamedTuple):
    """What the grid contributes to every product: arguments of the compiled functions."""

    mask: tf.Tensor  # [up, north, east]: 1 where cells are active
    feeds: tuple[tf.Tensor, ...]  # per axis [mode, cell]
    inverse: tf.Tensor  # [mode, mode, mode]: 4 pi G / eigenvalue
    modes: tuple[tf.Tensor, ...]  # per axis [node of the box, mode]
    moments: tuple[tf.Tensor, ...]  # per axis [source, cell]


class Rows(NamedTuple):
    """What the stations contribute, padded to a bucket of sizes; a row is a (station, component)."""

    sampling: tuple[Entries, tf.Tensor]
    near: tuple[Entries, tf.Tensor]
    far: tf.Tensor  # [row, source]


@tf.function(jit_compile=True)
def apply(field: Field, rows: Rows, density: tf.Tensor) -> tf.Tensor:
    """Data [row] of a density [up, north, east]."""
    density = density * field.mask
    potential = transform(transform(density, field.feeds) * field.inverse, field.modes)
    data = _times(rows.sampling, potential) + _times(rows.near, density)
    return data + tf.linalg.matvec(rows.far, tf.reshape(transform(density, field.moments), [-1]))


@tf.function(jit_compile=True)
def apply_adjoint(field: Field, rows: Rows, data: tf.Tensor) -> tf.Tensor:
    """The adjoint of `apply`, factor by factor: [up, north, east] of data [row]."""
    box = [matrix.shape[0] for matrix in field.modes]
    sources = [matrix.shape[0] for matrix in field.moments]
    potential = tf.reshape(_times_transposed(rows.sampling, data), box)
    spectrum = transform(potential, [tf.transpose(matrix) for matrix in field.modes]) * field.inverse
    density = transform(spectrum, [tf.transpose(matrix) for matrix in field.feeds])
    density += tf.reshape(_times_transposed(rows.near, data), density.shape)
    far = tf.reshape(tf.linalg.matvec(rows.far, data, transpose_a=True), sources)
    return (density + transform(far, [tf.transpose(matrix) for matrix in field.moments])) * field.mask


def _times(matrix: tuple[Entries, tf.Tensor], vector: tf.Tensor) -> tf.Tensor:
    return product(*matrix, tf.reshape(vector, [-1, 1]))[:, 0]


def _times_transposed(matrix: tuple[Entries, tf.Tensor], vector: tf.Tensor) -> tf.Tensor:
    return transposed_product(*matrix, vector[:, tf.newaxis])[:, 0]


@final
@dataclass(frozen=True, eq=False)
class GravityPoisson(ForwardOperator):
    """Gravity at stations of the density of a grid's cells, by finite differences; right to `tolerance` on the ground.

    Args:
        grid: Three-dimensional grid; the model is float64 [upward, northing, easting] in kg/m3.
        stations: Coordinates `easting`, `northing`, `upward` in metres: a mapping or an xarray Dataset. One that falls inside
            the staircase of active cells is raised to its top (see `setting.raised`).
        components: Of gz, gx, gy (m/s2), gzz, gxx, gyy, gxy, gxz, gyz (1/s2); z is down. Data are [station, component].
        tolerance: Error asked for, as a fraction of the peak, from 1e-3 to 0.1. A smaller one costs a larger near field.
        active: Mask of the cells that may carry density, shaped as the grid; all by default.

    Raises:
        ValueError: A grid that is not 3-D, stations outside it or more than a cell below the ground, an unknown component, a
            gradient on the edge of a cell, or a tolerance out of range.
    """

    grid: Grid
    stations: checks.Coordinates
    components: Sequence[str] = ("gz",)
    tolerance: float = 1e-2
    active: Any | None = None
    _shared: "_Parts | None" = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 1e-3 <= self.tolerance <= 0.1:
            raise checks.invalid("tolerance", self.tolerance, "from 1e-3 to 0.1 of the peak", "GravityPrism is exact.")
        object.__setattr__(self, "components", fields.check(self.components))
        self._parts  # noqa: B018  (built now, so that what is wrong is said now)

    @functools.cached_property
    def _parts(self) -> "_Parts":
        return _build(self) if self._shared is None else self._shared

    @functools.cached_property
    def setting(self) -> Setting:
        """Where the stations stand, and how far each was raised."""
        return Setting.of(self.grid, self.stations, self.active)

    @property
    def solver(self) -> SeparablePoisson:
        """The Poisson solver on the computational grid."""
        return self._parts.solver

    @property
    def near_field(self) -> CSRMatrix:
        """The near-field correction [station x component, cell]."""
        return self._parts.near

    def to_csr(self) -> CSRMatrix:
        """The Poisson matrix of the computational grid's unknowns."""
        return self.solver.to_csr()

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.grid.shape, tf.float64, name="density")

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec((len(self.setting.points), len(self.components)), tf.float64, name="gravity")

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        data = apply(self._parts.field, self._parts.rows, model)
        return tf.reshape(data[: self._size], self.data_spec.shape)

    def linearize(self, model: tf.Tensor) -> Linearization:
        return linear(self, model, self._adjoint)

    def subset(self, units: Any) -> "GravityPoisson":
        index = checks.units(units, len(self.setting.points))
        rows = (index[:, None] * len(self.components) + np.arange(len(self.components))).ravel()
        stations = {dim: np.atleast_1d(self.stations[dim])[index] for dim in self.grid.dims}
        return dataclasses.replace(self, stations=stations, _shared=self._parts.subset(rows))

    def _adjoint(self, data: tf.Tensor) -> tf.Tensor:
        extra = self._parts.rows.far.shape[0] - self._size
        return apply_adjoint(self._parts.field, self._parts.rows, tf.pad(tf.reshape(data, [-1]), [[0, extra]]))

    @property
    def _size(self) -> int:
        return len(self.setting.points) * len(self.components)


@final
@dataclass(frozen=True, eq=False)
class _Parts:
    """What is computed once for a grid and its stations."""

    solver: SeparablePoisson
    field: Field
    sampling: CSRMatrix
    near: CSRMatrix
    far: np.ndarray
    #: In a subset, the near field's longest row in the whole: padded to it, all subsets of one size have one number of entries.
    longest: int = 0

    @functools.cached_property
    def rows(self) -> Rows:
        size = bucket(len(self.far))
        far = np.pad(self.far, ((0, size - len(self.far)), (0, 0)))
        with tf.init_scope():
            return Rows(padded(self.sampling, size), padded(self.near, size, size * self.longest), tf.constant(far))

    def subset(self, rows: np.ndarray) -> "_Parts":
        longest = self.longest or int(np.diff(self.near.indptr).max())
        sampled, near = (select_rows(matrix, rows) for matrix in (self.sampling, self.near))
        return dataclasses.replace(self, sampling=sampled, near=near, far=self.far[rows], longest=longest)


def _build(operator: GravityPoisson) -> _Parts:
    grid, points = operator.grid, operator.setting.points
    solver = SeparablePoisson(mesh.computational_grid(grid, points))
    seen = sampling.stencils(solver, points)
    block = sampling.box(seen)
    feeds = [
        mesh.feed(edges, centers[1:-1]).T @ axis.point_source
        for edges, centers, axis in zip(grid.edges, solver.grid.centers, solver.axes, strict=True)
    ]
    nodes = boundary.centers(grid)
    field = Field(
        mask=tf.constant(operator.setting.active, tf.float64),
        feeds=tuple(tf.constant(feed.T) for feed in feeds),
        inverse=tf.constant(4 * np.pi * GRAVITATIONAL_CONSTANT / solver.eigenvalues),
        modes=tuple(tf.constant(axis.modes[part]) for axis, part in zip(solver.axes, block, strict=True)),
        moments=tuple(tf.constant(matrix) for matrix in boundary.moments(grid, nodes)),
    )
    far = boundary.responses(solver.grid, nodes, operator.components, points)
    near = _near(operator, solver, seen, feeds, field, far)
    return _Parts(solver, field, sampling.matrix(operator.components, seen, block), near, far)


def _near(
    operator: GravityPoisson, solver: SeparablePoisson, seen: sampling.Stencils, feeds: list[np.ndarray], field: Field, far: np.ndarray
) -> CSRMatrix:
    """The CSR matrix [station x component, cell] of analytic prism minus what the grid gives, over each station's window."""
    grid, points, names = operator.grid, operator.setting.points, operator.components
    moments = [matrix.numpy() for matrix in field.moments]
    sources = far.reshape(len(points), len(names), *(len(matrix) for matrix in moments))
    rows: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in points]
    for c, name in enumerate(names):
        component = fields.COMPONENTS[name]
        ranges = near_field.windows(grid, solver.grid, points, near_field.radius(operator.tolerance, sum(component.derivative)))
        samples = [sampling.modes(axis.modes, *stencil[d]) for axis, stencil, d in zip(solver.axes, seen, component.derivative, strict=True)]
        for s, response in enumerate(near_field.grid_responses(field.inverse.numpy(), samples, feeds, ranges)):
            window = tuple(slice(low[s], high[s]) for low, high in ranges)
            edges = [axis[part.start : part.stop + 1] for axis, part in zip(grid.edges, window, strict=True)]
            of_window = [matrix[:, part] for matrix, part in zip(moments, window, strict=True)]
            on_boundary = np.einsum("cba,ck,bj,ai->kji", sources[s, c], *of_window, optimize=True)
            inside = operator.setting.active[window]
            correction = fields.prism_response(name, points[s], edges, inside) - component.sign * response - on_boundary
            cells = tuple(axis + part.start for axis, part in zip(np.nonzero(inside), window, strict=True))
            rows[s].append((np.ravel_multi_index(cells, grid.shape), correction[inside]))
    return _stacked([row for station in rows for row in station], grid.size)


def _stacked(rows: list[tuple[np.ndarray, np.ndarray]], columns: int) -> CSRMatrix:
    """The matrix of rows given by their columns and values."""
    indptr = np.cumsum([0, *(values.size for _, values in rows)])
    indices, values = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    return CSRMatrix.from_arrays(indptr, indices, values, (len(rows), columns))
