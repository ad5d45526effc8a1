r"""Gravity by finite differences: the potential of a density, from Poisson's equation, sampled at stations.

.. math:: -\nabla^2 U = 4 \pi G \rho, \qquad g_z = -\partial U / \partial z_{up}, \; \ldots

The model's grid is surrounded by uniform and then growing cells of air. On it the compact scheme of `sparse.separable` is solved
exactly, with boundary values from equivalent sources (`boundary`); a CSR matrix of 6-point Lagrange derivatives samples the
potential at the stations, and a CSR correction (`near_field`) replaces the grid's response by the analytic one close to each
station. Everything is linear in the density:

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
from ..interpolation import axis_weights
from ..sparse.buckets import bucket, padded, select_rows
from ..sparse.csr import CSRMatrix
from ..sparse.product import Entries, product, transposed_product
from ..sparse.separable import SeparablePoisson, transform
from . import boundary, near_field
from . import components as fields
from .ground import active_cells, raise_stations

#: Uniform cells around the model before the padding grows, so that stations and their stencils see a uniform grid.
UNIFORM = 4
#: Growth of the padding cells, and how far they reach in units of the model's largest half-width.
GROWTH, REACH = 1.25, 0.75
#: Equivalent sources along each axis (upward, northing, easting): boundary values good to about 1e-4.
SOURCES = (5, 6, 6)
#: Cells along each axis on which the smooth field of the boundary values is solved.
SMOOTH = 40
#: Nodes of the interpolation along each axis, less one.
DEGREE = 5


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
            the staircase of active cells is raised to its top (see `raised`).
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
        if self.grid.ndim != 3:
            raise checks.invalid("grid", f"with {self.grid.ndim} axes", "three-dimensional")
        if not 1e-3 <= self.tolerance <= 0.1:
            raise checks.invalid("tolerance", self.tolerance, "from 1e-3 to 0.1 of the peak", "GravityPrism is exact.")
        object.__setattr__(self, "components", fields.check(self.components))
        self._parts  # noqa: B018  (built now, so that what is wrong is said now)

    @functools.cached_property
    def _parts(self) -> "_Parts":
        return _build(self) if self._shared is None else self._shared

    @functools.cached_property
    def mask(self) -> np.ndarray:
        """The cells that may carry density, shaped as the grid."""
        return active_cells(self.grid, self.active)

    @functools.cached_property
    def _placed(self) -> tuple[np.ndarray, np.ndarray]:
        return raise_stations(self.grid, self.mask, checks.points("stations", self.stations, self.grid.dims))

    @property
    def points(self) -> np.ndarray:
        """Station positions [station, (upward, northing, easting)] as used, in metres."""
        return self._placed[0]

    @property
    def raised(self) -> np.ndarray:
        """How far each station was raised to the top of the staircase of cells, in metres."""
        return self._placed[1]

    @property
    def solver(self) -> SeparablePoisson:
        """The Poisson solver on the padded grid."""
        return self._parts.solver

    @property
    def near_field(self) -> CSRMatrix:
        """The near-field correction [station x component, cell]."""
        return self._parts.near

    def to_csr(self) -> CSRMatrix:
        """The Poisson matrix of the padded grid's unknowns."""
        return self.solver.to_csr()

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.grid.shape, tf.float64, name="density")

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec((len(self.points), len(self.components)), tf.float64, name="gravity")

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        data = apply(self._parts.field, self._parts.rows, model)
        return tf.reshape(data[: self._size], self.data_spec.shape)

    def linearize(self, model: tf.Tensor) -> Linearization:
        return linear(self, model, self._adjoint)

    def subset(self, units: Any) -> "GravityPoisson":
        index = np.arange(len(self.points))[np.asarray(units)]
        rows = (index[:, None] * len(self.components) + np.arange(len(self.components))).ravel()
        stations = {dim: np.asarray(self.stations[dim])[index] for dim in self.grid.dims}
        return dataclasses.replace(self, stations=stations, _shared=self._parts.subset(rows))

    def _adjoint(self, data: tf.Tensor) -> tf.Tensor:
        extra = self._parts.rows.far.shape[0] - self._size
        return apply_adjoint(self._parts.field, self._parts.rows, tf.pad(tf.reshape(data, [-1]), [[0, extra]]))

    @property
    def _size(self) -> int:
        return len(self.points) * len(self.components)


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
        sampling, near = (select_rows(matrix, rows) for matrix in (self.sampling, self.near))
        return dataclasses.replace(self, sampling=sampling, near=near, far=self.far[rows], longest=longest)


def padded_grid(grid: Grid, highest: float) -> Grid:
    """The grid in air: uniform cells (above, up to the highest station), growing ones, and the ring of boundary cells."""
    above = int(np.clip(np.ceil((highest - grid.edges[0][-1]) / grid.widths[0][-1]), 0, 40))
    uniform = [(UNIFORM, UNIFORM + above), (UNIFORM, UNIFORM), (UNIFORM, UNIFORM)]
    reach = REACH * max(np.ptp(edges) for edges in grid.edges) / 2
    growing = [(_cells_to(reach, widths[0]), _cells_to(reach, widths[-1])) for widths in grid.widths]
    # The core is the model's whole grid, padding cells of its own included.
    return Grid(grid.edges).pad(uniform, ratio=1.0).pad(growing, ratio=GROWTH)


def _cells_to(reach: float, width: float) -> int:
    """How many cells growing from `width` span `reach`; the last is the ring."""
    return max(2, int(np.ceil(np.log1p(reach / width * (GROWTH - 1) / GROWTH) / np.log(GROWTH))))


def _build(operator: GravityPoisson) -> _Parts:
    grid, points = operator.grid, operator.points
    solver = SeparablePoisson(padded_grid(grid, points[:, 0].max()))
    stencils = _stencils(solver, points)
    box = [slice(first.min(), first.max() + DEGREE + 1) for ((first, _), *_) in stencils]
    feeds = [axis.source[core, 1:-1] @ axis.modes for axis, core in zip(solver.axes, solver.grid.core, strict=True)]
    nodes = boundary.centers(grid, SOURCES)
    field = Field(
        mask=tf.constant(operator.mask, tf.float64),
        feeds=tuple(tf.constant(feed.T) for feed in feeds),
        inverse=tf.constant(4 * np.pi * GRAVITATIONAL_CONSTANT / solver.eigenvalues),
        modes=tuple(tf.constant(axis.modes[part]) for axis, part in zip(solver.axes, box, strict=True)),
        moments=tuple(tf.constant(matrix) for matrix in boundary.moments(grid, nodes)),
    )
    sampling = _sampling(operator.components, stencils, box)
    far = _far(solver, nodes, operator.components, points)
    near = _near(operator, solver, stencils, feeds, field, far)
    return _Parts(solver, field, sampling, near, far)


def _stencils(solver: SeparablePoisson, points: np.ndarray) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """For each axis and derivative 0, 1, 2 the (first node, weights) with which each point sees the unknowns."""
    inner = [centers[1:-1] for centers in solver.grid.centers]
    return [[axis_weights(centers, x, derivative=d, degree=DEGREE) for d in range(3)] for centers, x in zip(inner, points.T, strict=True)]


def _sampling(components: Sequence[str], stencils: list, box: list[slice]) -> CSRMatrix:
    """The CSR matrix [station x component, node of the box] of interpolated derivatives of the potential."""
    shape = [part.stop - part.start for part in box]
    nodes = [first[:, None] + np.arange(DEGREE + 1) - part.start for ((first, _), *_), part in zip(stencils, box, strict=True)]
    columns = (nodes[0][:, :, None, None] * shape[1] + nodes[1][:, None, :, None]) * shape[2] + nodes[2][:, None, None, :]
    values = []
    for name in components:
        component = fields.COMPONENTS[name]
        up, north, east = (axis[d][1] for axis, d in zip(stencils, component.derivative, strict=True))
        values.append(component.sign * np.einsum("sk,sj,si->skji", up, north, east))
    count = len(columns)
    columns = np.broadcast_to(columns[:, None], (count, len(components), *columns.shape[1:])).ravel()
    indptr = np.arange(count * len(components) + 1) * (DEGREE + 1) ** 3
    return CSRMatrix.from_arrays(indptr, columns, np.stack(values, axis=1).ravel(), (len(indptr) - 1, int(np.prod(shape))))


def _far(solver: SeparablePoisson, nodes: Sequence[np.ndarray], components: Sequence[str], points: np.ndarray) -> np.ndarray:
    """The response [row, source] at the stations to the boundary values that each unit equivalent source makes.

    These fields are harmonic and smooth over the whole box, whatever the model's cells: `SMOOTH` uniform cells an axis between
    the same boundary planes resolve them, at a small fraction of the cost of the model's own grid.
    """
    ends = [(centers[0], centers[-1]) for centers in solver.grid.centers]
    steps = [(high - low) / (SMOOTH + 1) for low, high in ends]
    coarse = SeparablePoisson(Grid(tuple(low + step * (np.arange(SMOOTH + 3) - 0.5) for (low, _), step in zip(ends, steps, strict=True))))

    def boundary_values(source: np.ndarray) -> np.ndarray:
        return coarse.boundary_source(
            lambda z, y, x: GRAVITATIONAL_CONSTANT / np.sqrt((z - source[0]) ** 2 + (y - source[1]) ** 2 + (x - source[2]) ** 2)
        )

    sources = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1).reshape(-1, 3)
    harmonic = coarse.solve(tf.constant(np.stack([boundary_values(source) for source in sources])))
    sampling = _sampling(components, _stencils(coarse, points), [slice(0, n) for n in coarse.shape])
    return sampling.matmat(tf.transpose(tf.reshape(harmonic, [len(sources), -1]))).numpy()


def _near(operator: GravityPoisson, solver: SeparablePoisson, stencils: list, feeds: list, field: Field, far: np.ndarray) -> CSRMatrix:
    """The CSR matrix [station x component, cell] of analytic prism minus what the grid gives, over each station's window."""
    grid, points = operator.grid, operator.points
    ranges = near_field.windows(grid, points, near_field.radius(operator.tolerance))
    moments = [matrix.numpy() for matrix in field.moments]
    sources = far.reshape(len(points), len(operator.components), *SOURCES)
    corrections: dict[tuple[int, int], np.ndarray] = {}
    columns: list[np.ndarray] = [np.empty(0)] * len(points)
    for c, name in enumerate(operator.components):
        component = fields.COMPONENTS[name]
        samples = [_sampled_modes(axis.modes, *stencil[d]) for axis, stencil, d in zip(solver.axes, stencils, component.derivative, strict=True)]
        responses = near_field.grid_responses(field.inverse.numpy(), samples, feeds, ranges)
        for s, response in enumerate(responses):
            window = [slice(low[s], high[s]) for low, high in ranges]
            edges = [axis[part.start : part.stop + 1] for axis, part in zip(grid.edges, window, strict=True)]
            on_boundary = np.einsum(
                "cba,ck,bj,ai->kji", sources[s, c], *[matrix[:, part] for matrix, part in zip(moments, window, strict=True)], optimize=True
            )
            inside = operator.mask[tuple(window)]
            correction = fields.prism_response(name, points[s], edges, inside) - component.sign * response - on_boundary
            corrections[s, c] = correction[inside]
            columns[s] = np.ravel_multi_index(tuple(axis + part.start for axis, part in zip(np.nonzero(inside), window, strict=True)), grid.shape)
    order = [(s, c) for s in range(len(points)) for c in range(len(operator.components))]
    indptr = np.cumsum([0] + [corrections[key].size for key in order])
    indices, values = (np.concatenate(parts) for parts in ([columns[s] for s, _ in order], [corrections[key] for key in order]))
    return CSRMatrix.from_arrays(indptr, indices.astype(np.int64), values, (len(order), grid.size))


def _sampled_modes(modes: np.ndarray, first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The modes [station, mode] as an interpolating derivative sees them at each station."""
    return np.einsum("sk,skm->sm", weights, modes[first[:, None] + np.arange(weights.shape[1])])
