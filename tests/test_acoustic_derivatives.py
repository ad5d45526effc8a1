"""The table of combinations: differentiation x order x boundary x dimension x precision x parameters x steps to a sample.

A wrong gradient in one combination is the commonest silent bug of the field. The quick suite takes the cases of `COVER`, in which every
level occurs, with the others that its code meets; the slow one takes them all.
"""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
import waves
from waves import Case

from geoinv.operators import AcousticWave, testing
from geoinv.operators.forward import Linearization, Nest
from geoinv.operators.sensitivity import Boundary, Checkpointed, Every, StoreAll

VELOCITY, START, DENSITY = waves.FACTORS["parameters"]
DOUBLE, SINGLE = tf.float64, tf.float32
COVER = [
    Case(2, "some sides", 3, DOUBLE, VELOCITY, 1, StoreAll()),
    Case(4, "free surface", 2, DOUBLE, START, 2, StoreAll()),
    Case(4, "free surface", 2, DOUBLE, START, 1, Checkpointed(2)),
    Case(6, "free surface", 2, SINGLE, DENSITY, 2, StoreAll()),
    Case(8, "free surface", 2, SINGLE, VELOCITY, 1, Every(2)),
    Case(2, "layers", 2, DOUBLE, VELOCITY, 1, Boundary()),
]
#: Of <J v, w> - <v, J* w> over |J v| |w|: rounding, and what the strategies state (`sensitivity`).
EXACT = {DOUBLE: 1e-12, SINGLE: 1e-5}
STATED = {Every: 1e-3, Boundary: 1e-9}


def tolerance(case: Case) -> float:
    stated = 1e-3 if case.dtype == SINGLE and isinstance(case.strategy, Boundary) else STATED.get(type(case.strategy), 0.0)
    return max(stated, EXACT[case.dtype])


@functools.cache
def linearized(case: Case) -> Linearization:
    wave = waves.small(case)
    return wave.linearize(waves.model_of(wave))


def cotangent_of(case: Case, at: Linearization) -> tf.Tensor:
    """Random, and band-limited where snapshots are some steps apart: the data with shots and traces in reverse, faded in and out."""
    if not isinstance(case.strategy, Every):
        return testing.random(at.data_spec, seed=2)
    return tf.reverse(at.data, [0, 1]) * tf.constant(np.hanning(at.data.shape[2]), at.data.dtype)


def mismatch(case: Case) -> float:
    """Of the adjoint; see EXACT."""
    at = linearized(case)
    v, w = waves.direction_of(waves.small(case)), cotangent_of(case, at)
    change = at.jvp(v)
    return abs(testing.inner(change, w) - testing.inner(v, at.vjp(w))) / (testing.norm(change) * testing.norm(w))


def taylor(case: Case) -> tuple[float, float]:
    """The order of the remainder of the data after J v, and the error of J v against central differences (float64)."""
    wave, at = waves.small(case), linearized(case)
    model, v = waves.model_of(wave), waves.direction_of(wave)
    change = at.jvp(v).numpy()

    def data(step: float) -> np.ndarray:
        moved = {name: part + tf.cast(step, part.dtype) * v[name] for name, part in model.items()}
        return wave.linearize(moved).data.numpy()  # its program is there; that of forward() would be another one to compile

    sizes = [0.4, 0.2, 0.1]
    remainders = [np.linalg.norm(data(size) - at.data.numpy() - size * change) for size in sizes]
    return testing.order_test(remainders, sizes), testing.relative_difference((data(1e-4) - data(-1e-4)) / 2e-4, change)


# Layers on all sides take longest to compile; the quick suite has them in test_acoustic_adjoint.py.
@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case.boundary == "layers"), id=str(case)) for case in COVER])
def test_adjoint(case: Case) -> None:
    assert mismatch(case) <= tolerance(case)


@pytest.mark.parametrize("case", [case for case in COVER if case.dtype == DOUBLE and not isinstance(case.strategy, Boundary)], ids=str)
def test_derivative(case: Case) -> None:
    rate, error = taylor(case)
    assert rate == pytest.approx(2, abs=0.15)
    assert error <= 1e-6


def test_every_level_of_every_factor_is_covered() -> None:
    for position, levels in enumerate(waves.FACTORS.values()):
        assert {repr(case[position]) for case in COVER} == {repr(level) for level in levels}


def test_pairwise_cover_is_one() -> None:
    cases = list(waves.everything())
    chosen = waves.pairwise(cases)
    for i, j in itertools.combinations(range(len(Case._fields)), 2):
        assert {(repr(case[i]), repr(case[j])) for case in chosen} == {(repr(case[i]), repr(case[j])) for case in cases}
    assert len(chosen) <= 24  # 16 pairs of levels at the least (4 orders with 4 strategies)


# ------------------------------------------------------------------------------------------------------------- shots


SHOTS = COVER[1]._replace(substeps=1)  # the programs of COVER[1]


def test_subsets_are_the_same_bits_and_their_gradients_add_up() -> None:
    wave, whole = waves.small(SHOTS), linearized(SHOTS)
    model, w = waves.model_of(wave), testing.random(wave.data_spec, seed=4)
    gradient = whole.vjp(w)
    totals = {name: np.zeros_like(part) for name, part in gradient.items()}
    for shot in (1, 0):
        part = wave.subset([shot])
        own = {name: leaf[shot : shot + 1] if name in ("wavelet", "initial") else leaf for name, leaf in model.items()}
        at = part.linearize(own)
        np.testing.assert_array_equal(at.data, whole.data[shot : shot + 1])
        for name, leaf in at.vjp(w[shot : shot + 1]).items():
            totals[name][... if name == "velocity" else slice(shot, shot + 1)] += leaf
    for name, leaf in gradient.items():
        assert testing.relative_difference(totals[name], leaf) <= 1e-14


def test_receivers_that_are_not_live_are_silent() -> None:
    wave, at = waves.small(SHOTS), linearized(SHOTS)
    assert not np.any(at.data[1, 2]) and np.all(np.any(at.data.numpy()[wave.acquisition.live], axis=1))
    w = np.zeros(wave.data_spec.shape)
    w[1, 2] = 1.0
    assert all(not np.any(leaf) for leaf in at.vjp(tf.constant(w)).values())


def test_scipy_operator_is_the_derivative() -> None:
    at = linearized(SHOTS)
    matrix, v, w = at.to_scipy(), waves.direction_of(waves.small(SHOTS)), testing.random(at.data_spec, seed=6)
    ravelled = [np.concatenate([np.ravel(part[name]) for name in sorted(part)]) for part in (v, at.vjp(w))]  # as TensorFlow flattens a dict
    assert matrix.shape == (at.data.numpy().size, ravelled[0].size)
    np.testing.assert_array_equal(matrix @ ravelled[0], np.ravel(at.jvp(v)))
    np.testing.assert_array_equal(matrix.rmatvec(np.ravel(w)), ravelled[1])


def test_checkpoints_give_the_gradient_that_storing_gives() -> None:
    stored, checkpointed = linearized(SHOTS), linearized(COVER[2])
    assert waves.small(COVER[2])._loop.segments > 1
    w = testing.random(stored.data_spec, seed=5)
    assert testing.relative_difference(checkpointed.data, stored.data) <= 1e-13
    found, expected = checkpointed.vjp(w), stored.vjp(w)
    for name, leaf in expected.items():
        assert testing.relative_difference(found[name], leaf) <= 1e-13


def test_residuals_too_rough_for_the_snapshots_are_refused() -> None:
    at = linearized(COVER[4])
    with pytest.raises(
        ValueError, match=r"Every\(steps=2\) of 0\.001 s for frequencies up to .* Hz \(source\) and 500 Hz \(cotangent\): must be Every\(1\)"
    ):
        at.vjp(testing.random(at.data_spec, seed=2))


def test_a_field_that_is_not_finite_is_refused_with_its_shot() -> None:
    wave = waves.small(SHOTS)
    model = waves.model_of(wave)
    signals = model["wavelet"].numpy()
    signals[1, 0, 5] = np.inf
    with pytest.raises(ValueError, match="'wavefield' not finite in shot 1"):
        wave.linearize({**model, "wavelet": tf.constant(signals)})


# ---------------------------------------------------------------------------------------------------- the full product


GROUPS = [
    (order, boundary, ndim, dtype, parameters)
    for order, boundary, ndim, dtype, parameters in itertools.product(*(waves.FACTORS[name] for name in Case._fields[:5]))
    if parameters != START  # runs the programs of VELOCITY, in one test with it
]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: str(Case(*group, 1, StoreAll())).removeprefix("StoreAll-").removesuffix("-1"))
def test_full_product(group: tuple[int, str, int, tf.DType, tuple[str, ...]]) -> None:
    """All strategies and steps of one kind of program, which they share."""
    scheme, dtype, parameters = group[:3], group[3], group[4]
    for parts, substeps in itertools.product((VELOCITY, START) if parameters == VELOCITY else (DENSITY,), (1, 2)):
        cases = {type(strategy): Case(*scheme, dtype, parts, substeps, strategy) for strategy in waves.FACTORS["strategy"]}
        for case in cases.values():
            assert mismatch(case) <= tolerance(case), case
        if dtype == DOUBLE:
            rate, error = taylor(cases[StoreAll])
            assert rate == pytest.approx(2, abs=0.15) and error <= 1e-6
        same_gradients(cases[StoreAll], cases[Checkpointed], EXACT[dtype])
    linearized.cache_clear()


def same_gradients(first: Case, second: Case, limit: float) -> None:
    expected, found = linearized(first), linearized(second)
    w = testing.random(expected.data_spec, seed=5)
    one, other = expected.vjp(w), found.vjp(w)
    for name, leaf in one.items():
        assert testing.relative_difference(other[name], leaf) <= limit, (second, name)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [Checkpointed(2), Every(2), Boundary()], ids=str)
def test_executions_agree(strategy: object) -> None:
    """GradientTape in eager mode, under tf.function and under jit_compile; the registry has this for StoreAll."""
    wave: AcousticWave = waves.small(COVER[1]._replace(substeps=1, strategy=StoreAll(), parameters=VELOCITY))
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
