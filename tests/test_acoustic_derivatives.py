"""The table of combinations: differentiation x order x boundary x dimension x precision x parameters x steps to a sample.

A wrong gradient in one combination is the commonest silent bug of the field. The quick suite takes the cases of `COVER`, in which every
pair of levels of two factors occurs; the slow one takes them all.
"""

import dataclasses
import functools
import itertools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import waves
from waves import Case

from geoinv.operators import AcousticWave, Acquisition, Grid, testing
from geoinv.operators.forward import Linearization, Nest
from geoinv.operators.seismic import Absorbing, wavelets
from geoinv.operators.seismic.runs import spots
from geoinv.operators.sensitivity import Boundary, Checkpointed, Every, StoreAll

VELOCITY, START, DENSITY = waves.FACTORS["parameters"]
DOUBLE, SINGLE = tf.float64, tf.float32
ALL = list(waves.everything())
#: Found by a search for the cheapest to compile; 16 pairs of an order and a strategy are the least that any cover needs.
COVER = [
    Case(2, "layers", 3, DOUBLE, VELOCITY, 2, Every(4)),
    Case(2, "one side", 2, SINGLE, DENSITY, 2, Checkpointed(2)),
    Case(2, "free surface", 3, SINGLE, VELOCITY, 1, StoreAll()),
    Case(2, "free surface", 3, SINGLE, START, 2, StoreAll()),
    Case(2, "free surface", 3, SINGLE, VELOCITY, 1, Boundary()),
    Case(4, "layers", 2, SINGLE, DENSITY, 1, StoreAll()),
    Case(4, "one side", 2, DOUBLE, START, 1, Every(4)),
    Case(4, "one side", 2, DOUBLE, VELOCITY, 2, Boundary()),
    Case(4, "free surface", 3, DOUBLE, START, 1, Checkpointed(2)),
    Case(6, "layers", 2, DOUBLE, START, 2, Boundary()),
    Case(6, "one side", 2, SINGLE, START, 1, StoreAll()),
    Case(6, "one side", 2, SINGLE, VELOCITY, 1, Checkpointed(2)),
    Case(6, "free surface", 3, DOUBLE, DENSITY, 1, Every(4)),
    Case(8, "layers", 2, DOUBLE, VELOCITY, 2, Checkpointed(2)),
    Case(8, "one side", 3, SINGLE, START, 1, Every(4)),
    Case(8, "free surface", 2, DOUBLE, DENSITY, 1, StoreAll()),
    Case(8, "free surface", 2, DOUBLE, DENSITY, 2, Boundary()),
]
#: Of <J v, w> - <v, J* w> over |J v| |w|: rounding, and what the strategies state (`sensitivity`).
EXACT = {DOUBLE: 1e-12, SINGLE: 1e-5}
STATED = {Every: 1e-3, Boundary: 1e-9}


def tolerance(case: Case) -> float:
    stated = 1e-3 if case.dtype == SINGLE and isinstance(case.strategy, Boundary) else STATED.get(type(case.strategy), 0.0)
    return max(stated, EXACT[case.dtype])


@functools.cache
def linearized(case: Case, *, rest: bool = False) -> Linearization:
    wave = waves.small(case)
    return wave.linearize(waves.model_of(wave, rest=rest))


def cotangent_of(case: Case, at: Linearization) -> tf.Tensor:
    """Random, and band-limited where snapshots are some steps apart: the data with shots and traces in reverse, faded in and out."""
    if not isinstance(case.strategy, Every):
        return testing.random(at.data_spec, seed=2)
    return tf.reverse(at.data, [0, 1]) * tf.constant(np.hanning(at.data.shape[2]), at.data.dtype)


def mismatch(at: Linearization, v: Nest, w: tf.Tensor) -> dict[str, float]:
    """Of the adjoint in each part of the model; see EXACT."""
    gradient, found = at.vjp(w), {}
    for name in v:
        change = at.jvp({each: part if each == name else tf.zeros_like(part) for each, part in v.items()})
        found[name] = abs(testing.inner(change, w) - testing.inner(v[name], gradient[name])) / (testing.norm(change) * testing.norm(w))
    return found


def taylor(case: Case) -> tuple[float, float]:
    """The order of the remainder of the data after J v, and the error of J v against central differences (float64)."""
    wave, at = waves.small(case), linearized(case)
    model, v = waves.model_of(wave), waves.direction_of(wave)
    change = at.jvp(v).numpy()

    def data(step: float) -> np.ndarray:
        moved = {name: part + tf.cast(step, part.dtype) * v[name] for name, part in model.items()}
        if isinstance(case.strategy, Every):
            return wave.forward(moved).numpy()  # snapshots are refused with an initial field
        return wave.linearize(moved).data.numpy()  # its program is there; that of forward() would be another one to compile

    sizes = [0.4, 0.2, 0.1]
    remainders = [np.linalg.norm(data(size) - at.data.numpy() - size * change) for size in sizes]
    return testing.order_test(remainders, sizes), testing.relative_difference((data(1e-4) - data(-1e-4)) / 2e-4, change)


def alone(case: Case, w: tf.Tensor) -> None:
    """Each shot by itself gives the same bits as in the batch, and the gradients of the shots add up to that of the batch."""
    wave, whole = waves.small(case), linearized(case)
    model, batch, total = waves.model_of(wave), linearized(case).vjp(w), dict[str, np.ndarray]()
    for shot in range(2):
        own = {name: part[shot : shot + 1] if name in ("wavelet", "initial") else part for name, part in model.items()}
        at = wave.subset([shot]).linearize(own)
        np.testing.assert_array_equal(at.data, whole.data[shot : shot + 1])
        for name, part in at.vjp(w[shot : shot + 1]).items():
            if name in ("wavelet", "initial"):
                np.testing.assert_array_equal(part, batch[name][shot : shot + 1])
            else:
                total[name] = total.get(name, 0.0) + part.numpy()
    for name, part in total.items():
        assert testing.relative_difference(part, batch[name]) <= (1e-14 if case.dtype == DOUBLE else 1e-6), (case, name)


def check(case: Case) -> None:
    """The adjoint is that of J, and in double precision J is the derivative: what is computed is the same in single precision."""
    at = linearized(case)
    if not isinstance(case.strategy, Every):  # whose snapshots are judged by each cotangent
        alone(case, testing.random(at.data_spec, seed=6))
    for name, error in mismatch(at, waves.direction_of(waves.small(case)), cotangent_of(case, at)).items():
        assert error <= tolerance(case), (case, name)
    if case.dtype == DOUBLE:
        rate, error = taylor(case)
        assert rate == pytest.approx(2, abs=0.15) and error <= 1e-6, case


@pytest.mark.parametrize("case", COVER, ids=str)
def test_derivatives(case: Case) -> None:
    check(case)


@pytest.mark.parametrize(("count", "within"), [(12, 1), (6, 2)])
def test_spreads_along_a_line_of_the_grid(count: int, within: int) -> None:
    """Their matrices are factored, and the last factor is applied to whole records, or not."""
    shape, samples = (16, 34), 37
    line = np.stack([np.full(count, 83.0), np.linspace(52.0, 281.0, count)], axis=1)
    sources = np.stack([np.add(line, [-31.0, 3.3]), np.add(line, [-14.0, -2.1])])
    acquisition = Acquisition(sources, np.stack([line, np.add(line, [21.0, 4.4])]))
    options = {"parameters": ("velocity", "wavelet", "initial"), "velocity_limits": (1400.0, 2300.0), "dtype": DOUBLE, "boundary": Absorbing(3)}
    signal = wavelets.ricker(30.0, samples, 2e-3, delay=0.035)
    wave = AcousticWave(Grid.uniform(shape, (10.0, 10.0)), acquisition, signal, dt=2e-3, time_step=1e-3, **options)
    for points in (wave.placement.sources, wave.placement.spreads[0]):
        assert len(points.factors) == 2 and spots(points, 0, DOUBLE)._within == within
    model, v = waves.model_of(wave), waves.direction_of(wave)
    at = wave.linearize(model)
    for name, error in mismatch(at, v, testing.random(at.data_spec, seed=2)).items():
        assert error <= 1e-12, name
    data = [wave.linearize({name: part + step * v[name] for name, part in model.items()}).data.numpy() for step in (1e-4, -1e-4)]
    assert testing.relative_difference((data[0] - data[1]) / 2e-4, at.jvp(v)) <= 1e-6
    matrix = wave.placement.spreads[0].matrix(0, wave.lattice.whole)
    field = np.random.default_rng(0).normal(size=matrix.shape[1])
    box = wave.placement.spreads[0].box
    inside = tf.constant(field.reshape(wave.lattice.shape)[box.slices(wave.lattice.whole)].reshape(-1, 1))
    sampled = spots(wave.placement.spreads[0], 0, DOUBLE)
    np.testing.assert_allclose(sampled.interpolated(sampled.picked(inside))[:, 0], matrix @ field, rtol=0, atol=1e-12)


def same_gradients(first: Case, second: Case) -> None:
    expected, found = linearized(first, rest=isinstance(second.strategy, Every)), linearized(second)
    w = cotangent_of(second, expected)
    one, other = expected.vjp(w), found.vjp(w)
    for name, leaf in one.items():
        assert testing.relative_difference(other[name], leaf) <= tolerance(second), (second, name)


@pytest.mark.parametrize("strategy", [Every(4), Boundary()], ids=str)
def test_gradients_agree_with_those_of_storing_everything(strategy: object) -> None:
    stored = COVER[6]._replace(strategy=StoreAll())
    same_gradients(stored, stored._replace(strategy=strategy))


@pytest.mark.parametrize("case", [COVER[5], *(pytest.param(COVER[number], marks=pytest.mark.slow) for number in (0, 9, 13))], ids=str)
def test_windows_around_the_shots_are_differentiated_alike(case: Case) -> None:
    wave = dataclasses.replace(waves.small(case), aperture=20.0 if case.order < 8 else 30.0)  # as few cells as the order allows
    assert wave.lattice.shape[-1] < waves.small(case).lattice.shape[-1]
    at = wave.linearize(waves.model_of(wave))
    for name, error in mismatch(at, waves.direction_of(wave), cotangent_of(case, at)).items():
        assert error <= tolerance(case), name


def test_cover_is_pairwise() -> None:
    for i, j in itertools.combinations(range(len(Case._fields)), 2):
        assert {(repr(case[i]), repr(case[j])) for case in COVER} == {(repr(case[i]), repr(case[j])) for case in ALL}


# ---------------------------------------------------------------------------------------------------- the full product


GROUPS = [
    (order, boundary, ndim, dtype, parameters)
    for order, boundary, ndim, dtype, parameters in itertools.product(*(waves.FACTORS[name] for name in Case._fields[:5]))
    if parameters != START  # runs the programs of VELOCITY, in one test with it
]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """A process that is replaced after a few groups: TensorFlow never gives back what XLA compiled, 0.4 GB a group."""
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=8) as pool:
        patch.syspath_prepend(str(Path(__file__).parent.parent))  # handed on: there this module is looked for as tests.test_acoustic_derivatives
        yield pool


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", range(len(GROUPS)), ids=lambda number: str(Case(*GROUPS[number], 1, StoreAll())).removeprefix("StoreAll-").removesuffix("-1")
)
def test_full_product(number: int, elsewhere: ProcessPoolExecutor) -> None:
    elsewhere.submit(check_group, number).result()


def check_group(number: int) -> None:
    """All strategies and steps of one kind of program, which they share."""
    *scheme, dtype, parameters = GROUPS[number]
    for parts, substeps in itertools.product((VELOCITY, START) if parameters == VELOCITY else (DENSITY,), (1, 2)):
        cases = [case for case in ALL if case[:-1] == (*scheme, dtype, parts, substeps)]
        stored = next(case for case in cases if isinstance(case.strategy, StoreAll))
        for case in cases:
            check(case)
            if case is not stored:
                same_gradients(stored, case)
    linearized.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [Checkpointed(2), Every(2), Boundary()], ids=str)
def test_executions_agree(strategy: object) -> None:
    """GradientTape in eager mode, under tf.function and under jit_compile; the registry has this for StoreAll."""
    wave: AcousticWave = waves.small(COVER[1]._replace(dtype=DOUBLE, substeps=1, strategy=StoreAll(), parameters=VELOCITY))
    wave = dataclasses.replace(wave, differentiation=strategy)
    model: Nest = waves.model_of(wave)
    w = wave.linearize(model).data

    def evaluate(model: Nest) -> tuple[tf.Tensor, Nest]:
        with tf.GradientTape() as tape:
            tape.watch(model)
            data = wave(model)
        return data, tape.gradient(data, model, output_gradients=w)

    eager = evaluate(model)
    for run in (tf.function(evaluate), tf.function(evaluate, jit_compile=True)):
        for found, expected in zip(run(model), eager, strict=True):
            assert testing.relative_difference(found, expected) <= 1e-12
