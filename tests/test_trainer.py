"""The trainer: every optimiser against what it should find, data from files, records, and what is refused."""

import csv
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import xarray

import geoinv
from geoinv.datasets import netcdf
from geoinv.datasets.batches import Blocks
from geoinv.datasets.units import SurveyFile, Units
from geoinv.maps import Bounded
from geoinv.misfit import Huber
from geoinv.trainer import Trainer
from geoinv.training.loss import Fit, Loss
from geoinv.training.methods import LBFGS, GaussNewton, Keras

from rows import DATA, MATRIX, RANDOM, SIZE, SOLUTION, SURVEY, UNITS, Rows, gradient, squares  # isort: skip


def trainer(**options: Any) -> Trainer:
    return Trainer(squares, np.zeros(SIZE), SURVEY, **options)


# ------------------------------------------------------------------------------------------------------------ optimisers


def test_steepest_descent_in_batches() -> None:
    """Three steps by hand: the order of units is that of the seed, the last batch of an epoch has what is left."""
    made = trainer(optimizer=tf.keras.optimizers.SGD(0.01), batch=5, seed=4)
    outcome = made.fit(3)
    order, model = Blocks(UNITS, 1, 4).order(0), np.zeros(SIZE)
    for first, record in zip((0, 5, 10), outcome.history, strict=True):
        chosen = order[first : first + 5]
        assert record["loss"] == pytest.approx(np.sum((MATRIX[chosen] @ model - DATA[chosen]) ** 2) / len(chosen))
        model = model - 0.01 * gradient(model, chosen)
    np.testing.assert_allclose(outcome.model, model, rtol=1e-5)  # Keras keeps its learning rate in single precision
    assert [record["units"] for record in outcome.history] == [5, 5, 2] and [record["epoch"] for record in outcome.history] == [0, 0, 0]
    assert made.fit(4).history[-1]["epoch"] == 1


def test_adam_is_that_of_keras() -> None:
    variable, optimizer = tf.Variable(np.zeros(SIZE)), tf.keras.optimizers.Adam(0.1)
    for _ in range(20):
        optimizer.apply_gradients([(tf.constant(gradient(variable.numpy())), variable)])
    outcome = trainer(optimizer=tf.keras.optimizers.Adam(0.1), batch=None, block=5).fit(20)
    np.testing.assert_allclose(outcome.model, variable.numpy(), rtol=1e-7)


@pytest.mark.parametrize(
    ("optimizer", "batch", "iterations"),
    [(LBFGS(), None, 30), (LBFGS(first_step=0.1), 12, 60), (GaussNewton(cg_iterations=50, cg_tolerance=1e-12), None, 1)],
)
def test_least_squares_are_solved(optimizer: Any, batch: int | None, iterations: int) -> None:
    loss = Fit(Rows(MATRIX)) if isinstance(optimizer, GaussNewton) else squares
    outcome = Trainer(loss, np.zeros(SIZE), SURVEY, optimizer=optimizer, batch=batch, block=5).fit(iterations)
    np.testing.assert_allclose(outcome.model, SOLUTION, rtol=1e-6)
    assert outcome.status in ("converged", "iteration-limit") and len(outcome.history) <= iterations


def test_damped_and_penalised_steps_are_ridge_regression() -> None:
    """(J^T J + (a + b / 2) I) m = J^T d, per unit."""
    made = Trainer(
        Fit(Rows(MATRIX)), np.zeros(SIZE), SURVEY, batch=None, penalty=lambda m: 0.3 * tf.reduce_sum(m**2),
        optimizer=GaussNewton(damping=0.4, cg_iterations=50, cg_tolerance=1e-12),
    )  # fmt: skip
    flat = MATRIX.reshape(-1, SIZE)
    expected = np.linalg.solve(flat.T @ flat / UNITS + (0.3 + 0.2) * np.eye(SIZE), flat.T @ DATA.ravel() / UNITS)
    np.testing.assert_allclose(made.fit(1).model, expected, rtol=1e-8)


def test_nonlinear_and_robust_fits_converge() -> None:
    """Gauss-Newton with Huber's weights through a map, from 40 m off, to where the gradient vanishes."""
    operator, bounds = Rows(MATRIX), Bounded(-10.0, 10.0, (SIZE,))
    data = DATA.copy()
    data[3] += 30.0
    loss = Fit(operator, Huber())
    made = Trainer(loss, bounds.inverse(np.full(SIZE, 4.0)), {"observed": data}, map=bounds, batch=None, block=6, optimizer=GaussNewton())
    outcome = made.fit(20)
    np.testing.assert_allclose(outcome.model, made.model)
    weights = Huber().weights(tf.constant(MATRIX @ outcome.model.numpy() - data)).numpy()
    slope = np.einsum("uri,ur->i", MATRIX, weights * (MATRIX @ outcome.model.numpy() - data))
    assert np.abs(slope).max() < 1e-4 * np.abs(np.einsum("uri,ur->i", MATRIX, data)).max()
    assert np.abs(outcome.model - SOLUTION).max() < 0.3, "the unit that is off is held off"


# --------------------------------------------------------------------------------------------- what goes with a loss


def test_schedules_are_functions_of_iteration_and_history() -> None:
    seen: list[float] = []

    def rate(iteration: int, history: Sequence[dict[str, Any]]) -> float:
        assert len(history) == iteration
        return 0.02 / (1 + iteration)

    made = trainer(optimizer=Keras(tf.keras.optimizers.SGD(), rate), batch=lambda iteration, history: 2 * iteration + 1, seed=None)
    outcome = made.fit(3, report=lambda record: seen.append(record["learning_rate"]))
    np.testing.assert_allclose(seen, [0.02, 0.01, 0.02 / 3], rtol=1e-6)
    assert [record["units"] for record in outcome.history] == [1, 3, 5]
    model = np.zeros(SIZE)
    for step, units in enumerate((slice(0, 1), slice(1, 4), slice(4, 9))):
        model = model - 0.02 / (1 + step) * gradient(model, units)
    np.testing.assert_allclose(outcome.model, model, rtol=1e-5)


def test_a_condition_stops_and_says_why() -> None:
    outcome = trainer(optimizer=tf.keras.optimizers.SGD(0.01), batch=None).fit(
        50, stop=lambda history: "low enough" if history[-1]["loss"] < 0.5 * history[0]["loss"] else None
    )
    assert (outcome.status, outcome.reason) == ("stopped", "low enough") and len(outcome.history) < 50
    assert outcome.history[-1]["loss"] < 0.5 * outcome.history[0]["loss"] <= outcome.history[-2]["loss"]


def test_penalties_smoothing_and_maps() -> None:
    """One step by hand: the penalty counts once, whatever the batch; smoothing acts on the mean gradient; the map's slope is in it."""
    bounds = Bounded(-3.0, 3.0, (SIZE,))
    start = np.linspace(-1, 1, SIZE)
    made = Trainer(
        squares, start, SURVEY, optimizer=tf.keras.optimizers.SGD(0.1), batch=4, block=3, seed=None, map=bounds,
        penalty=lambda x: tf.reduce_sum(x**3), smoothing=lambda leaves: [tf.cumsum(each) for each in leaves],
    )  # fmt: skip
    outcome = made.fit(1)
    value, slope = bounds(start).numpy(), bounds.linearize(tf.constant(start)).vjp(np.ones(SIZE)).numpy()
    expected = start - 0.1 * np.cumsum(slope * gradient(value, slice(0, 6)) + 3 * start**2)
    np.testing.assert_allclose(made.parameters, expected, rtol=1e-6)
    np.testing.assert_allclose(outcome.model, bounds(expected), rtol=1e-6)
    assert outcome.history[0]["units"] == 6, "whole blocks"


def test_models_are_nests_of_arrays() -> None:
    def loss(model: dict[str, tf.Tensor], batch: Any) -> tf.Tensor:
        return squares(model["m"], batch)

    for optimizer in (tf.keras.optimizers.Adam(0.1), LBFGS()):
        outcome = Trainer(loss, {"m": np.zeros(SIZE), "unused": np.ones(2)}, SURVEY, batch=None, optimizer=optimizer).fit(5)
        np.testing.assert_array_equal(outcome.model["unused"], np.ones(2))
        assert outcome.history[-1]["loss"] < outcome.history[0]["loss"]


# ------------------------------------------------------------------------------------------------------ files and records


def written(path: Path, units: int = UNITS) -> Path:
    made = xarray.Dataset({"matrix": (("unit", "row", "column"), MATRIX[:units]), "observed": (("unit", "row"), DATA[:units])})
    netcdf.write(path, made)
    return path


def test_a_file_gives_what_memory_gives(tmp_path: Path) -> None:
    source = SurveyFile(written(tmp_path / "survey.nc"), unit="unit")
    options = {"optimizer": tf.keras.optimizers.SGD(0.01), "batch": 5, "block": 2}
    first = Trainer(squares, np.zeros(SIZE), source, **options).fit(9)
    options["optimizer"] = tf.keras.optimizers.SGD(0.01)
    np.testing.assert_array_equal(first.model, trainer(**options).fit(9).model)


def test_a_program_for_each_length_and_not_for_each_batch() -> None:
    live = np.arange(10) < RANDOM.integers(1, 11, (40, 1))
    lengths = {int(np.flatnonzero(row)[-1]) + 1 for row in live}

    class Ragged(Units):
        @property
        def count(self) -> int:
            return 40

        def read(self, units: np.ndarray) -> dict[str, np.ndarray]:
            return {"a": np.ones((1, int(live[units[0]].sum()))), "unit": units}

        def describe(self) -> dict[str, Any]:
            return {}

    outcome = Trainer(lambda m, batch: tf.reduce_sum(batch["a"]) * tf.reduce_sum(m**2), np.ones(3), Ragged(), batch=4).fit(30)
    assert outcome.history[-1]["programs"] == len(lengths)


def test_history_streams_to_a_table(tmp_path: Path) -> None:
    made = trainer(directory=tmp_path / "run", batch=4)
    made.fit(2)
    outcome = made.fit(5)
    with open(tmp_path / "run" / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [record["loss"] for record in outcome.history] and len(rows) == 5
    assert list(rows[0]) == ["iteration", "epoch", "units", "loss", "learning_rate", "programs", "seconds"]


def test_scalars_for_tensorboard_where_it_is_there(tmp_path: Path) -> None:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match="Invalid 'tensorboard' True: must be used where TensorBoard is installed"):
            trainer(directory=tmp_path, tensorboard=True)
        return
    trainer(directory=tmp_path, tensorboard=True).fit(2)
    assert list((tmp_path / "tensorboard").glob("events*"))


MEMORY = """
    import sys
    from pathlib import Path
    import numpy as np, tensorflow as tf
    from geoinv.datasets.units import SurveyFile
    from geoinv.trainer import Trainer
    source = SurveyFile(sys.argv[1])
    loss = lambda m, batch: tf.reduce_sum((tf.reduce_sum(batch["observed"], axis=0) * m) ** 2)
    outcome = Trainer(loss, np.ones(1000, np.float32), source, batch=8, optimizer=tf.keras.optimizers.SGD(1e-6)).fit(64)
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Files of 50 and of 400 MB, of which steps see as many shots. (A process counts its parent's size among its `ru_maxrss`.)"""
    peaks = []
    for number, count in enumerate((64, 512)):
        path, random = tmp_path / f"{number}.nc", np.random.default_rng(number)
        netcdf.write(path, xarray.Dataset({"observed": (("shot", "receiver", "time"), random.normal(size=(count, 200, 1000)).astype(np.float32))}))
        run = [sys.executable, "-c", textwrap.dedent(MEMORY), str(path)]
        out = subprocess.run(run, capture_output=True, text=True, check=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}).stdout
        peaks.append(int(out.split()[0]))
    assert peaks[1] < peaks[0] + 20, "MB"


# --------------------------------------------------------------------------------------------------------------- refused


def test_a_unit_that_is_not_finite_is_named_and_the_model_untouched() -> None:
    data = DATA.copy()
    data[7, 1] = np.nan
    for batch, optimizer in ((None, LBFGS()), (UNITS, tf.keras.optimizers.SGD(0.01)), (5, tf.keras.optimizers.SGD(0.01))):
        made = Trainer(squares, np.zeros(SIZE), {**SURVEY, "observed": data}, batch=batch, block=2, seed=None, optimizer=optimizer)
        with pytest.raises(ValueError, match=r"in batch 'units 6 to 7'|in units 6 to 7"):
            made.fit(3)
        model = np.zeros(SIZE) if batch != 5 else -0.01 * gradient(np.zeros(SIZE), slice(0, 6))
        np.testing.assert_allclose(made.parameters, model, rtol=1e-6)


def test_what_leaves_the_domain_is_a_step_too_long() -> None:
    """-log m + 100 m is infinite from zero on downwards, which the first step goes to; its least value is at 1 / 100."""

    def loss(model: tf.Tensor, batch: Any) -> tf.Tensor:
        return tf.reduce_sum(batch["weight"]) * tf.reduce_sum(100 * model - tf.math.log(model))

    outcome = Trainer(loss, np.full(3, 0.5), {"weight": np.ones(4)}, optimizer=LBFGS(), batch=None).fit(60)
    np.testing.assert_allclose(outcome.model, 0.01, rtol=1e-5)


def test_a_trainer_goes_on_after_data_that_were_bad_for_once() -> None:
    class Flaky(Units):
        failures = 1

        @property
        def count(self) -> int:
            return 5

        def read(self, units: np.ndarray) -> dict[str, np.ndarray]:
            if 2 in units and self.failures:
                self.failures -= 1 if self._ready() else 0
                raise ValueError("Invalid 'file' unit 2")
            return {"unit": units, "a": np.ones((len(units), 1))}

        def _ready(self) -> bool:  # once ahead, and once when it is asked for
            self.calls = getattr(self, "calls", 0) + 1
            return self.calls == 2

        def describe(self) -> dict[str, Any]:
            return {}

    made = Trainer(lambda m, batch: tf.reduce_sum(batch["a"]) * tf.reduce_sum(m**2), np.ones(2), Flaky(), seed=None)
    with pytest.raises(ValueError, match="Invalid 'file' unit 2"):
        made.fit(4)
    assert len(made.fit(6).history) == 6


def test_a_trainer_goes_on_after_a_batch_that_is_not_finite() -> None:
    weights = np.ones((4, 1))
    bad = [True]

    def loss(model: tf.Tensor, batch: Any) -> tf.Tensor:
        return tf.reduce_sum(batch["weight"]) * tf.reduce_sum(model**2) * (np.nan if bad[0] else 1.0)

    made = Trainer(Loss(loss, traceable=False), np.ones(2), {"weight": weights}, optimizer=tf.keras.optimizers.SGD(0.1), seed=None)
    with pytest.raises(ValueError, match=r"in batch 'unit 0'|in unit 0"):
        made.fit(2)
    bad[0] = False
    np.testing.assert_allclose(made.fit(2).model, 0.64)  # twice times 1 - 2 * 0.1


def test_penalties_and_smoothing_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="Invalid 'loss' nan of the penalty: must be finite"):
        trainer(penalty=lambda m: tf.reduce_sum(tf.math.log(m - 1.0))).fit(2)
    for options in ({"optimizer": tf.keras.optimizers.SGD(0.1)}, {"optimizer": LBFGS(), "batch": None}):
        made = trainer(smoothing=lambda leaves: [each / tf.reduce_sum(0 * each) for each in leaves], **options)
        with pytest.raises(ValueError, match=r"Invalid '(transform|smoothing)' of .*: must be finite. The .* as (they were|it was)"):
            made.fit(2)
        np.testing.assert_array_equal(made.parameters, np.zeros(SIZE))


def test_penalties_may_gather() -> None:
    made = trainer(optimizer=tf.keras.optimizers.SGD(0.1), batch=None, penalty=lambda m: tf.reduce_sum((tf.gather(m, [0, 1]) - 1.0) ** 2))
    expected = -0.1 * (gradient(np.zeros(SIZE)) + np.array([-2.0, -2.0, *[0.0] * (SIZE - 2)]))
    np.testing.assert_allclose(made.fit(1).model, expected, rtol=1e-6)


def test_gauss_newton_says_that_it_has_converged() -> None:
    outcome = Trainer(Fit(Rows(MATRIX)), SOLUTION, {"observed": DATA}, batch=UNITS, block=6, optimizer=GaussNewton()).fit(20)
    assert outcome.status == "converged" and len(outcome.history) < 12


def test_epochs_of_all_data_at_once_are_counted() -> None:
    for optimizer in (LBFGS(), tf.keras.optimizers.SGD(0.01)):
        outcome = trainer(optimizer=optimizer, batch=None).fit(4)
        assert [record["epoch"] for record in outcome.history] == [0, 1, 2, 3]


def test_the_learning_rate_of_a_step_is_recorded() -> None:
    schedule = tf.keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [0.1, 0.01, 0.001])
    outcome = trainer(optimizer=tf.keras.optimizers.SGD(schedule)).fit(3)
    np.testing.assert_allclose([record["learning_rate"] for record in outcome.history], [0.1, 0.01, 0.001], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam"}, r"Invalid 'optimizer' adam: must be an optimiser of Keras, LBFGS\(\) or GaussNewton\(\)"),
        ({"optimizer": GaussNewton(), "batch": None}, r"Invalid 'loss' Loss: must be a loss with residuals, for Gauss-Newton. Use Fit\(operator\)"),
        ({"optimizer": GaussNewton(), "smoothing": list}, "Invalid 'smoothing' of gradients"),
        ({"start": np.zeros(SIZE, int)}, "Invalid 'start' with an array of int64: must be of float32 or float64 arrays"),
        ({"start": np.full(SIZE, np.nan)}, "Invalid 'start' nan at index 0"),
        ({"batch": 0}, "Invalid 'batch' 0: must be"),
        ({"block": 0}, "Invalid 'block' 0: must be"),
        ({"loss": 3}, "Invalid 'loss' 3: must be a function of the model and a batch"),
        ({"loss": lambda m, batch: m}, r"Invalid 'loss' of shape \(7,\): must be a scalar. Sum over the units"),
        ({"precision": "half"}, "Invalid 'precision'"),
    ],
)
def test_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    given = {"loss": squares, "start": np.zeros(SIZE), "data": SURVEY} | options
    with pytest.raises(ValueError, match=message):
        Trainer(given.pop("loss"), given.pop("start"), given.pop("data"), **given).fit(1)


def test_optimisers_and_models_of_others_are_refused() -> None:
    optimizer = tf.keras.optimizers.Adam()
    trainer(optimizer=optimizer).fit(1)
    with pytest.raises(ValueError, match="Invalid 'optimizer' of other variables: must be one of its own"):
        trainer(optimizer=optimizer)
    with pytest.raises(ValueError, match="Invalid 'model' of dtype float32: must be of dtype float64"):
        Trainer(Fit(Rows(MATRIX)), np.zeros(SIZE, np.float32), {"observed": DATA}).fit(1)


def test_data_that_do_not_fit_an_operator_are_refused() -> None:
    operator = Rows(MATRIX)
    for data, message in (
        ({"seen": DATA}, "'observed' 'observed': must be of seen, unit"),
        ({"observed": np.zeros((UNITS, 9))}, r"'observed' of shape \(1, 9\)"),
    ):
        with pytest.raises(ValueError, match=message):
            Trainer(Fit(operator), np.zeros(SIZE), data).fit(1)


def test_geoinv_has_it_and_does_not_import_tensorflow_for_it() -> None:
    assert geoinv.Trainer is Trainer and geoinv.Fit is Fit and "Trainer" in dir(geoinv)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        geoinv.Nothing  # noqa: B018
    code = "import sys, geoinv; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
