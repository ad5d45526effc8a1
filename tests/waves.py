"""Small wave operators for the tests: every combination of scheme, boundary, precision, parameters and differentiation."""

import functools
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from scipy.ndimage import gaussian_filter

from geoinv.operators import AcousticWave, Acquisition, Grid
from geoinv.operators.forward import Nest
from geoinv.operators.seismic import Absorbing, wavelets
from geoinv.operators.sensitivity import Boundary, Checkpointed, Every, StoreAll

SPACING = 10.0
STEPS = 96  # one program for records of 96 samples with one step each, and of 37 samples with two: (37 - 1 + 12) * 2
STEP = 1e-3

FACTORS: Mapping[str, Sequence[Any]] = {
    "order": (2, 4, 6, 8),
    "boundary": ("layers", "one side", "free surface"),
    "ndim": (2, 3),
    "dtype": (tf.float64, tf.float32),
    "parameters": (("velocity",), ("velocity", "wavelet", "initial"), ("velocity", "density", "wavelet", "initial")),
    "substeps": (1, 2),
    "strategy": (StoreAll(), Every(4), Checkpointed(2), Boundary()),
}


class Case(NamedTuple):
    """One combination; the fields are the factors."""

    order: int
    boundary: str
    ndim: int
    dtype: tf.DType
    parameters: tuple[str, ...]
    substeps: int
    strategy: Any

    def __str__(self) -> str:
        words = f"{type(self.strategy).__name__}-{self.order}-{self.boundary}-{self.ndim}D-{self.dtype.name}-{'+'.join(self.parameters)}"
        return f"{words}-{self.substeps}".replace(" ", "_")


def everything() -> Iterator[Case]:
    """The full product but for what is refused (snapshots of an initial field in finer steps); cases that share programs are neighbours."""
    cases = (Case(*levels) for levels in itertools.product(*FACTORS.values()))
    return (case for case in cases if not ("initial" in case.parameters and case.substeps > 1 and isinstance(case.strategy, Every)))


def boundary(name: str, ndim: int) -> Absorbing:
    """Narrow layers on all sides, at one end of the last axis, or below a free surface."""
    if name == "layers":
        return Absorbing(2)
    if name == "one side":
        return Absorbing(((0, 0), (0, 0), (0, 3))[-ndim:])
    return Absorbing(((3, 0), (0, 0), (0, 0))[:ndim], free_surface=True)


#: Two shots whose sources and first receivers are swapped, in cells; the second spread is shorter.
PLACES = np.array([[4.0, 5.3, 4.6], [6.3, 5.1, 5.6], [5.4, 4.0, 4.2]])


@functools.cache
def small(case: Case) -> AcousticWave:
    """Two shots of two sources and three receivers on about ten cells a side."""
    axes = [0, 2] if case.ndim == 2 else [0, 1, 2]
    a, b, c = ((places[axes] + 0.5) * SPACING for places in PLACES)
    acquisition = Acquisition(
        [[a, c], [b, c]], [[b, a, c], [a, c, c]], live=[[True, True, True], [True, True, False]], live_sources=[[True, True], [True, False]]
    )
    samples = STEPS if case.substeps == 1 else STEPS // case.substeps - 11
    signal = wavelets.ricker(30.0, samples, case.substeps * STEP, delay=0.035)
    grid = Grid.uniform((11, 12) if case.ndim == 2 else (11, 10, 11), (SPACING,) * case.ndim)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AcousticWave(
            grid, acquisition, signal, dt=case.substeps * STEP, time_step=STEP, velocity_limits=(1400.0, 2300.0), order=case.order,
            boundary=boundary(case.boundary, case.ndim), parameters=case.parameters, differentiation=case.strategy, dtype=case.dtype,
        )  # fmt: skip


def model_of(wave: AcousticWave, seed: int = 0, *, rest: bool = False) -> Nest:
    """A rough medium; the wavelet of the operator, and a start as large as its field (none if at rest, or with snapshots)."""
    rng = np.random.default_rng(seed)
    ranges = {"velocity": (1500.0, 2200.0), "density": (1500.0, 2500.0)}
    model = {name: rng.uniform(*ranges[name], spec.shape) for name, spec in wave.model_spec.items() if name in ranges}
    if "wavelet" in wave.parameters:
        model["wavelet"] = wave.wavelet
    if "initial" in wave.parameters:
        field = rng.normal(size=wave.model_spec["initial"].shape) * (0.0 if rest or isinstance(wave.differentiation, Every) else 0.3)
        model["initial"] = gaussian_filter(field, [0, 0] + [1.0] * (field.ndim - 2))
    return {name: tf.constant(values, wave.dtype) for name, values in model.items()}


def direction_of(wave: AcousticWave, seed: int = 1) -> Nest:
    """A random change of the model, of a size that matters in every part."""
    rng = np.random.default_rng(seed)
    sizes = {"velocity": 100.0, "density": 100.0, "wavelet": 1.0, "initial": 0.1}
    return {name: tf.constant(sizes[name] * rng.normal(size=spec.shape), spec.dtype) for name, spec in wave.model_spec.items()}
