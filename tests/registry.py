"""The operators that must pass the whole battery (`test_battery.py`): one line each, (name, factory)."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import scipy.sparse
import tensorflow as tf

from geoinv.maps import ActiveCells, WithTrend
from geoinv.maps import Exponential as Positive
from geoinv.operators import checks
from geoinv.operators.forward import Chain, ForwardOperator, Linearization, Stack, Sum
from geoinv.operators.gravity.poisson import GravityPoisson
from geoinv.operators.gravity.prism import GravityPrism
from geoinv.operators.grid import Grid
from geoinv.operators.seismic import Absorbing, AcousticWave, Acquisition, Eikonal, StraightRay, wavelets
from geoinv.operators.sparse import CSRMatrix, SparseOperator


class Entry(NamedTuple):
    """One operator of the battery.

    Args:
        name: Shown by pytest.
        make: Builds it.
        units: A subset to compare with the whole, structured as `subset` wants it; None where there is none.
        tolerance: Of the comparisons that are equal to rounding.
    """

    name: str
    make: Callable[[], ForwardOperator]
    units: Any = (3, 0, 2)
    tolerance: float = 1e-12


@final
@dataclass(frozen=True, eq=False)
class Exponential(ForwardOperator):
    """``exp(m)``, elementwise: the smallest nonlinear map."""

    size: int
    dtype: tf.DType = tf.float64
    twice_differentiable: bool = True

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([self.size], self.dtype)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return self.model_spec

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return tf.exp(model)

    def linearize(self, model: tf.Tensor) -> Linearization:
        data = tf.exp(model)
        slope = tf.math.conj(data) if self.dtype.is_complex else data
        return Linearization(
            self.model_spec, self.data_spec, data,
            lambda v: data * v,
            lambda w: slope * w,
            (lambda v, w: slope * (tf.math.conj(v) if self.dtype.is_complex else v) * w) if self.twice_differentiable else None,
        )  # fmt: skip

    def subset(self, units: Any) -> ForwardOperator:
        return Chain(of_dense(np.eye(self.size), self.dtype).subset(units), self)


@final
@dataclass(frozen=True, eq=False)
class Product(ForwardOperator):
    """``velocity * density`` from a dict, with a complex factor each: a nested model whose second derivative mixes the leaves."""

    size: int

    @property
    def model_spec(self) -> dict[str, tf.TensorSpec]:
        return {name: tf.TensorSpec([self.size], tf.complex128) for name in ("density", "velocity")}

    @property
    def data_spec(self) -> dict[str, tf.TensorSpec]:
        return {"impedance": tf.TensorSpec([self.size], tf.complex128)}

    def forward(self, model: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"impedance": model["density"] * model["velocity"]}

    def linearize(self, model: dict[str, tf.Tensor]) -> Linearization:
        density, velocity = model["density"], model["velocity"]

        def adjoint(density: tf.Tensor, velocity: tf.Tensor, w: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {"density": tf.math.conj(velocity) * w["impedance"], "velocity": tf.math.conj(density) * w["impedance"]}

        return Linearization(
            self.model_spec, self.data_spec, self.forward(model),
            lambda v: {"impedance": v["density"] * velocity + density * v["velocity"]},
            lambda w: adjoint(density, velocity, w),
            lambda v, w: adjoint(v["density"], v["velocity"], w),
        )  # fmt: skip

    def subset(self, units: Any) -> ForwardOperator:
        raise checks.invalid("subset", "of a model map", "taken of the physics")


def of_dense(matrix: np.ndarray, dtype: tf.DType) -> SparseOperator:
    return SparseOperator(CSRMatrix.from_scipy(scipy.sparse.csr_array(matrix), dtype=dtype))


@functools.cache
def sparse(rows: int, columns: int, *, seed: int = 0, dtype: tf.DType = tf.float64) -> SparseOperator:
    """A random sparse operator, built once, with the programs it compiles: operators never change."""
    rng = np.random.default_rng(seed)
    matrix = scipy.sparse.random_array((rows, columns), density=0.5, rng=rng).toarray()
    if dtype.is_complex:
        matrix = matrix * np.exp(1j * rng.uniform(0, 6, matrix.shape))
    return of_dense(matrix, dtype)


@final
@dataclass(frozen=True, eq=False)
class Flatten(ForwardOperator):
    """The real and imaginary parts of an impedance, exponentiated: complex in, real out."""

    size: int

    @property
    def model_spec(self) -> dict[str, tf.TensorSpec]:
        return {"impedance": tf.TensorSpec([self.size], tf.complex128)}

    @property
    def data_spec(self) -> tuple[tf.TensorSpec, tf.TensorSpec]:
        return (tf.TensorSpec([self.size], tf.float64),) * 2

    def forward(self, model: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.exp(tf.math.real(model["impedance"])), tf.exp(tf.math.imag(model["impedance"]))

    def linearize(self, model: dict[str, tf.Tensor]) -> Linearization:
        real, imag = self.forward(model)
        return Linearization(
            self.model_spec, self.data_spec, (real, imag),
            lambda v: (real * tf.math.real(v["impedance"]), imag * tf.math.imag(v["impedance"])),
            lambda w: {"impedance": tf.complex(real * w[0], imag * w[1])},
            lambda v, w: {"impedance": tf.complex(real * tf.math.real(v["impedance"]) * w[0], imag * tf.math.imag(v["impedance"]) * w[1])},
        )  # fmt: skip

    def subset(self, units: Any) -> ForwardOperator:
        raise checks.invalid("subset", "of a model map", "taken of the physics")


GRID = Grid.uniform((6, 8, 8), (50.0, 100.0, 100.0))
ACTIVE = np.arange(6)[:, None, None] < np.random.default_rng(2).integers(5, 7, (8, 8))


@functools.cache
def gravity(kind: Callable[..., ForwardOperator]) -> ForwardOperator:
    """Gravity at ten stations of a small grid, built once likewise."""
    rng = np.random.default_rng(8)
    stations = {"upward": rng.uniform(300, 400, 10), "northing": rng.uniform(0, 800, 10), "easting": rng.uniform(0, 800, 10)}
    return kind(GRID, stations, ("gz", "gxx"), active=ACTIVE)


def with_trend() -> WithTrend:
    """Gravity of the active cells, and a trend of three terms of about its size."""
    trend = 1e-8 * np.random.default_rng(9).normal(size=(10, 2, 3))
    return WithTrend(gravity(GravityPoisson) @ ActiveCells(ACTIVE), trend)


@final
@dataclass(frozen=True, eq=False)
class Velocity(ForwardOperator):
    """``2000 + 100 m``, m/s, as a wave takes it: normal numbers are no velocities."""

    shape: tuple[int, ...]

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.shape, tf.float64)

    @property
    def data_spec(self) -> dict[str, tf.TensorSpec]:
        return {"velocity": self.model_spec}

    def forward(self, model: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"velocity": 2000.0 + 100.0 * model}

    def linearize(self, model: tf.Tensor) -> Linearization:
        return Linearization(self.model_spec, self.data_spec, self.forward(model), lambda v: {"velocity": 100.0 * v}, lambda w: 100.0 * w["velocity"])

    def subset(self, units: Any) -> ForwardOperator:
        raise checks.invalid("subset", "of a model map", "taken of the physics")


@functools.cache
def wave() -> ForwardOperator:
    """Three shots on a small plane, above one absorbing layer."""
    shape, places = (10, 11), np.array([[45.0, 52.0], [56.0, 48.0], [52.0, 61.0]])
    signal = wavelets.ricker(20.0, 18, 1e-3, delay=8e-3)
    options = {"velocity_limits": (1200.0, 2800.0), "order": 2, "boundary": Absorbing(((2, 0), (0, 0))), "dtype": tf.float64}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few points per wavelength
        return AcousticWave(Grid.uniform(shape, (10.0, 10.0)), Acquisition(places, places[:2] - 3), signal, dt=1e-3, **options) @ Velocity(shape)


@final
@dataclass(frozen=True, eq=False)
class Slowness(ForwardOperator):
    """``exp(sum_k m_k b_k / 10) / 2000``, s/m, of smooth b: travel times have kinks where waves of two ways meet, and rough models many."""

    shape: tuple[int, int]

    @property
    def model_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([6], tf.float64)

    @property
    def data_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.shape, tf.float64)

    @functools.cached_property
    def basis(self) -> np.ndarray:
        upward, easting = (np.cos(np.outer(range(3), np.linspace(0, 2, n))) for n in self.shape)
        return np.stack([np.outer(upward[i], easting[j]) for i in range(2) for j in range(3)], axis=-1) / 10

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return tf.exp(tf.linalg.matvec(self.basis, model)) / 2000

    def linearize(self, model: tf.Tensor) -> Linearization:
        data = self.forward(model)
        return Linearization(
            self.model_spec, self.data_spec, data,
            lambda v: data * tf.linalg.matvec(self.basis, v),
            lambda w: tf.einsum("ijk,ij->k", self.basis, data * w),
            lambda v, w: tf.einsum("ijk,ij->k", self.basis, data * w * tf.linalg.matvec(self.basis, v)),
        )  # fmt: skip

    def subset(self, units: Any) -> ForwardOperator:
        raise checks.invalid("subset", "of a model map", "taken of the physics")


def travel_times() -> ForwardOperator:
    """Four shots with a pick each, under a slope."""
    grid = Grid.uniform((12, 20), (5.0, 5.0), (-60.0, 0.0))
    active = np.add.outer(np.arange(12), np.arange(20)) < 24
    sources, receivers = [[-3.0, 7.0], [-40.0, 81.0], [-22.0, 40.0], [-55.0, 0.0]], [[-31.0, 79.0], [-10.0, 2.0], [-41.0, 99.0], [-4.0, 33.0]]
    return Eikonal(grid, np.array(sources), np.array(receivers), np.arange(4), active=active) @ Slowness(grid.shape)


@functools.cache
def straight_rays() -> ForwardOperator:
    """Six rays through a box."""
    grid, rng = Grid.uniform((3, 4, 5), (5.0, 5.0, 5.0)), np.random.default_rng(3)
    return StraightRay(grid, *(rng.uniform(0, 15, (6, 3)) for _ in range(2)))


OPERATORS = [
    Entry("sparse", lambda: sparse(6, 5)),
    Entry("sparse complex", lambda: sparse(6, 5, dtype=tf.complex128)),
    Entry("exponential", lambda: Exponential(5)),
    Entry("exponential complex", lambda: Exponential(5, tf.complex128)),
    Entry("exponential once", lambda: Exponential(5, twice_differentiable=False)),
    Entry("chain", lambda: sparse(6, 5) @ Exponential(5)),
    Entry("chain twice nonlinear", lambda: Exponential(6) @ sparse(6, 5) @ Exponential(5)),
    Entry("stack", lambda: Stack((sparse(6, 5), sparse(4, 5, seed=1) @ Exponential(5))), units=((3, 0, 2), (1, 2))),
    Entry("sum", lambda: Sum((sparse(6, 5), sparse(6, 5, seed=1) @ Exponential(5)))),
    Entry("product of a dict", lambda: Product(4), units=None),
    Entry("chain of a dict", lambda: Flatten(4) @ Product(4), units=None),
    Entry("gravity poisson", lambda: gravity(GravityPoisson)),
    Entry("gravity prism", lambda: gravity(GravityPrism)),
    Entry("gravity of active cells", lambda: gravity(GravityPoisson) @ ActiveCells(ACTIVE)),
    Entry("gravity with a trend", with_trend),
    Entry("gravity of an exponential", lambda: gravity(GravityPoisson) @ Positive(GRID.shape)),
    Entry("acoustic wave", wave, units=(2, 0)),
    Entry("travel times", travel_times),
    Entry("straight rays", straight_rays),
]
