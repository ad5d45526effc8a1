"""Sums over the units of a survey: the same bits however they are split, and of what operators and misfits say they are of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import xarray

from geoinv.accumulator import GradientAccumulator, Precision
from geoinv.datasets import netcdf
from geoinv.datasets.batches import Blocks
from geoinv.datasets.units import Arrays, SurveyFile
from geoinv.maps import Bounded
from geoinv.operators.grid import Grid
from geoinv.operators.seismic import AcousticWave, Acquisition, Eikonal, wavelets
from geoinv.trainer import Trainer
from geoinv.training.loss import Fit, Loss, Mapped, Penalty, UnitLoss
from geoinv.training.passes import Passes

from registry import OPERATORS, Entry  # isort: skip
from rows import DATA, MATRIX, RANDOM, ROWS, SIZE, SURVEY, UNITS, Rows, gradient, squares  # isort: skip

# ------------------------------------------------------------------------------------------- sums whatever the batches

CHOSEN = ("gravity poisson", "gravity prism", "gravity with a trend", "acoustic wave", "travel times")
#: By the number of blocks.
SPLITS = {2: ((1, 1),), 3: ((1, 2), (2, 1), (1, 1, 1)), 4: ((3, 1), (1, 3), (2, 2), (1, 1, 1, 1))}


def sums(loss: UnitLoss, model: Any, source: Arrays, size: int, split: Sequence[int], precision: Precision) -> tuple[list[np.ndarray], float]:
    """The gradient of all units, accumulated over batches of so many blocks."""
    accumulator = GradientAccumulator([tf.Variable(leaf) for leaf in tf.nest.flatten(model)], precision=precision)
    passes = Passes(loss, Penalty(), source, Blocks(source.count, size), accumulator, model, lambda: None)
    ends, value = np.cumsum(split), 0.0
    for end, count in zip(ends, split, strict=True):
        value += passes.gradient(tf.nest.flatten(model), np.arange(end - count, end), lambda: iter(()))
    return [each.numpy() for each in accumulator.sum()], value


@pytest.mark.parametrize("precision", ["same", "float64", "kahan"])
@pytest.mark.parametrize("entry", [entry for entry in OPERATORS if entry.name in CHOSEN], ids=lambda entry: entry.name)
def test_sums_have_the_same_bits_however_they_are_split(entry: Entry, precision: Precision) -> None:
    """The table of split, operator and precision; blocks of other sizes agree to rounding."""
    operator, random = entry.make(), np.random.default_rng(2)
    model = tf.nest.map_structure(lambda leaf: tf.constant(random.normal(size=leaf.shape), leaf.dtype), operator.model_spec)
    units = min(operator.data_spec.shape[0], 4)
    shape = (units, *operator.data_spec.shape[1:])
    source = Arrays({"observed": random.normal(size=shape), "uncertainty": random.uniform(1, 2, shape)})
    loss = Fit(operator)
    whole, _ = sums(loss, model, source, 1, (units,), precision)
    for split in SPLITS[units]:
        for one, other in zip(whole, sums(loss, model, source, 1, split, precision)[0], strict=True):
            np.testing.assert_array_equal(one, other)
    together, _ = sums(loss, model, source, units, (1,), precision)
    for one, other in zip(whole, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(one).max())


@pytest.mark.parametrize("precision", ["same", "float64", "kahan"])
def test_sums_of_compiled_losses_have_the_same_bits_too(precision: Precision) -> None:
    model = tf.constant(np.random.default_rng(1).normal(size=SIZE), tf.float32)
    source = Arrays({name: array.astype(np.float32) for name, array in SURVEY.items()})
    whole, value = sums(Loss(squares), model, source, 3, (4,), precision)
    for split in SPLITS[4]:
        np.testing.assert_array_equal(whole, sums(Loss(squares), model, source, 3, split, precision)[0])
    expected = UNITS * gradient(model.numpy().astype(float))
    np.testing.assert_allclose(whole[0], expected, rtol=1e-5, atol=1e-4)
    assert value == pytest.approx(float(np.sum((MATRIX @ model.numpy() - DATA) ** 2)) / UNITS, rel=1e-5)


# ---------------------------------------------------------------------------------------------------------- physics


@pytest.mark.filterwarnings("ignore:too few points per wavelength")
def test_waves_of_spreads_of_different_length(tmp_path: Path) -> None:
    """The loss is that of what is live; batches are cut behind the last such receiver, and an epoch compiles nothing."""
    shape, random = (14, 16), np.random.default_rng(0)
    grid = Grid.uniform(shape, (10.0, 10.0), origin=(-140.0, 0.0))
    places = np.stack([np.full((3, 6), -20.0), np.broadcast_to(np.linspace(20.0, 140.0, 6), (3, 6))], axis=-1)
    live = np.arange(6) < np.array([[2], [6], [4]])
    wave = AcousticWave(
        grid, Acquisition(places[:, :1] - 3, places, live), wavelets.ricker(25.0, 80, 1e-3), dt=1e-3, velocity_limits=(1800.0, 2300.0)
    )  # fmt: skip
    velocity = tf.constant(2000 + 50 * random.normal(size=shape), tf.float32)
    data = wave({"velocity": velocity}).numpy() + 0.1 * random.normal(size=wave.data_spec.shape).astype(np.float32)
    uncertainty = random.uniform(0.5, 2.0, live.shape)
    spread = ("shot", "receiver")
    variables = {"observed": ((*spread, "time"), data), "uncertainty": (spread, uncertainty), "live": (spread, live)}
    netcdf.write(tmp_path / "s.nc", xarray.Dataset(variables))
    loss, source = Fit(wave), SurveyFile(tmp_path / "s.nc")
    model = {"velocity": tf.constant(np.full(shape, 2000.0), tf.float32)}
    residual = np.where(live[..., None], wave(model).numpy() - data, 0) / uncertainty[..., None]
    for unit in range(3):
        batch = {name: tf.constant(array) for name, array in source.read(np.array([unit])).items()}
        assert float(loss.value(model, batch)) == pytest.approx(np.sum(residual[unit] ** 2), rel=1e-5)
    made = Trainer(loss, model, source, batch=2, optimizer=tf.keras.optimizers.Adam(5.0))
    outcome = made.fit(4)
    whole = wave.linearize(model).vjp((2 * residual / uncertainty[..., None]).astype(np.float32))["velocity"].numpy()
    first = sum(loss.gradient(model, {n: tf.constant(a) for n, a in source.read(np.array([u])).items()})[1]["velocity"].numpy() for u in range(3))
    np.testing.assert_allclose(first, whole, atol=2e-5 * np.abs(whole).max())
    assert np.isfinite(outcome.model["velocity"]).all()


def test_picks_of_shots_of_different_number() -> None:
    grid = Grid.uniform((8, 12), (5.0, 5.0), origin=(-40.0, 0.0))
    sources, receivers = np.array([[-2.0, 3.0], [-2.0, 30.0]]), np.array([[-2.0, x] for x in (20.0, 40.0, 55.0, 10.0, 50.0)])
    operator = Eikonal(grid, sources, receivers, np.array([0, 0, 0, 1, 1]))
    live = np.array([[True, True, True], [True, True, False]])
    slowness, observed = np.full(grid.shape, 1 / 2000), np.full((2, 3), 0.01)
    times = operator(slowness).numpy()
    batch = {"unit": np.array([1, 0]), "live": live[[1, 0]], "observed": observed}
    expected = np.sum((times - 0.01) ** 2)
    assert float(Fit(operator).value(tf.constant(slowness), batch)) == pytest.approx(expected, rel=1e-12)


def test_products_of_a_fit_are_those_of_the_hessian() -> None:
    """Of a linear operator and a quadratic misfit: twice J^T W J, through a nonlinear map its slope on both sides."""
    operator, weights = Rows(MATRIX), RANDOM.uniform(0.5, 2, (UNITS, ROWS))
    batch = {"unit": np.arange(UNITS), "observed": tf.constant(DATA), "uncertainty": tf.constant(1 / weights)}
    v, x = RANDOM.normal(size=SIZE), RANDOM.normal(size=SIZE)
    expected = 2 * np.einsum("uri,ur->i", MATRIX, weights**2 * (MATRIX @ v))
    np.testing.assert_allclose(Fit(operator).product(tf.constant(x), batch, tf.constant(v)), expected, rtol=1e-10)
    bounds = Bounded(-3.0, 3.0, (SIZE,))
    at = bounds.linearize(tf.constant(x))
    pushed = at.jvp(v).numpy()
    for given in (bounds, lambda model: -3.0 + 6.0 * tf.sigmoid(model)):
        mapped = Mapped(Fit(operator), given).product(tf.constant(x), batch, tf.constant(v))
        np.testing.assert_allclose(mapped, at.vjp(2 * np.einsum("uri,ur->i", MATRIX, weights**2 * (MATRIX @ pushed))), rtol=1e-10)
