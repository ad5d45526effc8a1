"""Gravity of rectangular prisms in closed form: exact and dense, for reference and for small surveys."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import tensorflow as tf

from .. import checks
from ..forward import ForwardOperator, Linearization, linear
from ..grid import Grid
from . import components as fields
from .ground import Setting

#: A dense kernel larger than this is refused: the finite-difference operator needs no kernel at all.
MAX_BYTES = 8 * 2**30


@final
@dataclass(frozen=True, eq=False)
class GravityPrism(ForwardOperator):
    """Gravity at stations of the density of a grid's cells, each a prism (choclo; Nagy et al. 2000, Fukushima 2020).

    The kernel is dense: 8 bytes x stations x components x cells.

    Args:
        grid: Three-dimensional grid; the model is float64 [upward, northing, easting] in kg/m3.
        stations: Coordinates `easting`, `northing`, `upward` in metres: a mapping or an xarray Dataset.
        components: Of gz, gx, gy (m/s2), gzz, gxx, gyy, gxy, gxz, gyz (1/s2); z is down. Data are [station, component].
        active: Mask of the cells that may carry density, shaped as the grid; all by default.

    Raises:
        ValueError: A grid that is not 3-D, stations outside it or more than a cell below the ground, an unknown component, a
            gradient on the edge of a cell, or a kernel larger than 8 GB.
    """

    grid: Grid
    stations: checks.Coordinates
    components: Sequence[str] = ("gz",)
    active: Any | None = None
    _shared: tf.Tensor | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "components", fields.check(self.components))
        self._kernel  # noqa: B018  (built now, so that what is wrong is said now)

    @functools.cached_property
    def _kernel(self) -> tf.Tensor:
        return self._build() if self._shared is None else self._shared

    def _build(self) -> tf.Tensor:
        size = 8 * len(self.setting.points) * len(self.components) * self.grid.size
        if size > MAX_BYTES:
            raise checks.invalid(
                "kernel", f"of {size / 2**30:.1f} GB", f"at most {MAX_BYTES / 2**30:.0f} GB", "Use GravityPoisson, which needs none."
            )
        kernel = np.empty((len(self.setting.points), len(self.components), self.grid.size))
        for s, point in enumerate(self.setting.points):
            for c, component in enumerate(self.components):
                kernel[s, c] = fields.prism_response(component, point, self.grid.edges, self.setting.active).ravel()
        return tf.constant(kernel)

    @functools.cached_property
    def setting(self) -> Setting:
        """Where the stations stand, and how far each was raised."""
        return Setting.of(self.grid, self.stations, self.active)

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.grid.shape, tf.float64, name="density")

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec((len(self.setting.points), len(self.components)), tf.float64, name="gravity")

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return tf.einsum("scm,m->sc", self._kernel, tf.reshape(model, [-1]))

    def linearize(self, model: tf.Tensor) -> Linearization:
        return linear(self, model, lambda w: tf.reshape(tf.einsum("scm,sc->m", self._kernel, w), self.grid.shape))

    def subset(self, units: Any) -> "GravityPrism":
        index = checks.units(units, len(self.setting.points))
        if np.array_equal(index, np.arange(len(self.setting.points))):
            return self  # a kernel is large: not twice
        stations = {dim: np.atleast_1d(self.stations[dim])[index] for dim in self.grid.dims}
        neighbours = np.array_equal(index, np.arange(index[0], index[0] + index.size))
        # A slice of whole rows is the same memory where it begins at a multiple of 64 bytes.
        kernel = self._kernel[index[0] : index[-1] + 1] if neighbours else tf.gather(self._kernel, index)
        return dataclasses.replace(self, stations=stations, _shared=kernel)
