"""Spreads of different lengths: each is computed in a bucket of its own length, and is what it would be as a survey of its own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators import AcousticWave, Acquisition, Grid, testing
from geoinv.operators.seismic import Absorbing, points, shots, wavelets
from geoinv.operators.sensitivity import Checkpointed, Every, StoreAll, Strategy

GRID = Grid.uniform((14, 60), (10.0, 10.0), (-140.0, 0.0))
#: Of the shots' spreads: there are two buckets, of 15 receivers and of half of them or less.
LENGTHS = (4, 15, 5)
LONGEST = max(LENGTHS)
pytestmark = pytest.mark.filterwarnings("ignore:too few points per wavelength")


@pytest.fixture(autouse=True)
def buckets_that_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "WORTH", 1e-3)


def survey(lengths: tuple[int, ...] = LENGTHS) -> Acquisition:
    """Receivers with relief; the padding stands at NaN, and a trace in the middle of the longest spread is dead."""
    eastings = 50.0 + 20.0 * np.arange(LONGEST)
    receivers = np.full((len(lengths), LONGEST, 2), np.nan)
    live = np.arange(LONGEST) < np.array(lengths)[:, None]
    receivers[live] = np.broadcast_to(np.stack([-33.0 + 8 * np.sin(eastings / 40), eastings], axis=1), receivers.shape)[live]
    if LONGEST in lengths:
        live[lengths.index(LONGEST), 7] = False
    sources = np.stack([np.full(len(lengths), -42.0), 60.0 + 80 * np.arange(len(lengths))], axis=1)
    return Acquisition(sources, receivers, live)


def wave(acquisition: Acquisition, **options: Any) -> AcousticWave:
    signal = wavelets.ricker(30.0, 60, 2e-3, delay=0.035)
    defaults = {"velocity_limits": (1400.0, 2300.0), "dtype": tf.float64, "boundary": Absorbing(6), "dt": 2e-3, "time_step": 1e-3}
    return AcousticWave(GRID, acquisition, signal, **(defaults | options))


def model() -> dict[str, tf.Tensor]:
    return {"velocity": tf.constant(np.random.default_rng(0).uniform(1500, 2200, GRID.shape))}


SLOW = pytest.mark.slow


@pytest.mark.parametrize("strategy", [StoreAll(), pytest.param(Every(2, level=0.05), marks=SLOW), pytest.param(Checkpointed(3), marks=SLOW)])
def test_each_shot_is_what_it_is_alone(strategy: Strategy) -> None:
    everything = survey()
    at = wave(everything, differentiation=strategy).linearize(model())
    v = testing.random(at.model_spec, seed=1)
    jvp, gradient, total = at.jvp(v), at.vjp(at.data)["velocity"], np.zeros(GRID.shape)
    for shot, length in enumerate(LENGTHS):
        part = slice(shot, shot + 1), slice(length)
        own = wave(Acquisition(everything.sources[part[0]], everything.receivers[part], everything.live[part]), differentiation=strategy)
        alone = own.linearize(model())
        for found, expected in ((at.data, alone.data), (jvp, alone.jvp(v))):
            assert testing.relative_difference(found[shot, :length], expected[0]) <= 1e-12
            np.testing.assert_array_equal(found[shot, length:], 0)
        total += alone.vjp(alone.data)["velocity"]
    assert testing.relative_difference(total, gradient) <= 1e-12


def test_windows_of_shots_with_spreads_of_different_lengths() -> None:
    whole = wave(survey(), aperture=60.0)
    at, v = whole.linearize(model()), testing.random(whole.model_spec, seed=1)
    jvp, gradient = at.jvp(v), at.vjp(at.data)["velocity"]
    assert float(tf.reduce_sum(jvp * at.data)) == pytest.approx(float(tf.reduce_sum(v["velocity"] * gradient)), rel=1e-11)
    total = np.zeros(GRID.shape)
    for part in whole.shot_gradients(model(), lambda _, data: data):
        total[part.window] += part.values["velocity"]
    assert testing.relative_difference(total, gradient) <= 1e-12


def test_one_program_for_each_bucket_and_none_for_a_second_call() -> None:
    shots._PROGRAMS.clear()
    whole = wave(survey())
    assert [each.count for each in whole.placement.spreads] == [15, 5]
    assert [whole.placement.receivers(shot)[0].count for shot in range(3)] == [5, 15, 5]

    def work(operator: AcousticWave) -> None:
        at = operator.linearize(model())
        at.vjp(at.data)
        list(operator.shot_gradients(model(), lambda _, data: data))
        operator.forward(model())

    work(whole)
    made = dict(shots._PROGRAMS)
    programs = [program for program in made.values() if "adjoint" in vars(program)]
    assert len(programs) == 2, "one for each bucket keeps fields for an adjoint"
    counts = traced(made)
    for operator in (whole, whole.subset([0, 1]), whole.subset([2])):
        work(operator)
    assert made.keys() == shots._PROGRAMS.keys() and traced(shots._PROGRAMS) == counts


def traced(programs: dict[Any, Any]) -> list[int]:
    return [program.forward.experimental_get_tracing_count() for program in programs.values()]


def test_spreads_of_one_length_or_of_little_work_share_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(wave(survey((15, 15))).placement.spreads) == 1
    assert len(wave(survey((9, 15))).placement.spreads) == 1, "within a factor of two"
    monkeypatch.setattr(points, "WORTH", 1.0)
    assert len(wave(survey()).placement.spreads) == 1


@pytest.mark.parametrize("run", [pytest.param(tf.function, marks=SLOW), lambda f: tf.function(f, jit_compile=True)])
def test_buckets_within_functions(run: Callable[..., Any]) -> None:
    operator = wave(survey())

    def gradient(velocity: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(velocity)
            data = operator({"velocity": velocity})
            energy = tf.reduce_sum(data**2)
        return data, tape.gradient(energy, velocity)

    at = operator.linearize(model())
    for found, expected in zip(run(gradient)(model()["velocity"]), (at.data, at.vjp(2 * at.data)["velocity"]), strict=True):
        assert testing.relative_difference(found, expected) <= 1e-12


def test_a_receiver_outside_is_named_by_its_own_shot() -> None:
    acquisition = survey()
    receivers = acquisition.receivers.copy()
    receivers[2, 4] = [-33.0, 700.0]
    with pytest.raises(ValueError, match=r"'receivers' \(-33, 700\) m \(shot 2, number 4\)"):
        wave(Acquisition(acquisition.sources, receivers, acquisition.live))


def test_a_field_that_is_not_finite_is_refused_with_its_shot() -> None:
    signal = np.tile(wavelets.ricker(30.0, 60, 2e-3, delay=0.035), (3, 1, 1))
    signal[1] *= 1e300
    operator = AcousticWave(
        GRID, survey(), signal, dt=2e-3, time_step=1e-3, velocity_limits=(1400.0, 2300.0), dtype=tf.float32, boundary=Absorbing(6)
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"'wavefield' not finite in shot 1 by step"):
        operator.forward({"velocity": tf.fill(GRID.shape, 2000.0)})
