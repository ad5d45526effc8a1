"""Full-waveform inversion, part by part: cells of a band, its filter, the objective's gradient, the preconditioner, the loop over bands."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from geoinv import config
from geoinv.datasets import netcdf, synthetic
from geoinv.operators.grid import Grid
from geoinv.operators.parallel import cores
from geoinv.operators.sensitivity.strategy import Checkpointed, Every, StoreAll
from geoinv.waveform import inputs as waveform_inputs
from geoinv.waveform import inversion as waveform
from geoinv.waveform import job, traces
from geoinv.waveform.bands import bands
from geoinv.waveform.cells import Averaging, coarsened, interpolated, sampled
from geoinv.waveform.config import WaveformConfig
from geoinv.waveform.filters import Filter
from geoinv.waveform.gathers import Gathers, Weights
from geoinv.waveform.inputs import Inputs
from geoinv.waveform.objective import Objective, preconditioner
from geoinv.waveform.state import BandResult, Round
from geoinv.waveform.waves import snapshots

#: One shape for all tests that propagate waves: what is compiled for one serves the others.
TOY: dict[str, Any] = {"shape": (16, 50), "spacing": 40.0, "shot_count": 5, "receiver_count": 23, "frequency": 6.0, "length": 1.8, "noise": 0.05}


@pytest.fixture(scope="module")
def example() -> synthetic.WaveformExample:
    return synthetic.waveform(**TOY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, example: synthetic.WaveformExample) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    netcdf.write(folder / "survey.nc", example.survey)
    netcdf.write(folder / "start.nc", example.start)
    return folder


def options(folder: Path, **sections: dict[str, Any]) -> WaveformConfig:
    made: dict[str, Any] = {
        "kind": "waveform", "data": {"file": "survey.nc"}, "model": {"file": "start.nc"}, "source": {"frequency": 7.0},
        "bands": {"lowpass": [5.0], "iterations": [7]}, "misfit": {"nearest_offset": 150.0},
        "inversion": {"smoothing": 0.15}, "propagator": {"absorbing_cells": 10}, "bounds": {"lower": 1400.0, "upper": 3600.0},
    }  # fmt: skip
    for name, section in sections.items():
        made[name] = made.get(name, {}) | section
    found = config.parse(made, folder=folder)
    assert isinstance(found, WaveformConfig)
    return found


def objective(folder: Path, **sections: dict[str, Any]) -> tuple[Objective, Inputs]:
    made = options(folder, **sections)
    inputs = waveform_inputs.load(made)
    return Objective.of(made, inputs, bands(made, 0.004)[0]), inputs


# ----------------------------------------------------------------------------------------------------------------- cells


def test_averages_keep_the_mean_of_the_squared_slowness() -> None:
    fine = Grid.uniform((6, 9), (10.0, 10.0))
    coarse = coarsened(fine, 25.0)
    assert coarse.shape == (3, 4)
    assert all(np.ptp(edges) == pytest.approx(np.ptp(own)) for edges, own in zip(coarse.edges, fine.edges, strict=True))
    velocity = 1500 + 2000 * np.random.default_rng(0).random(fine.shape)
    averaged = Averaging(fine, coarse)(velocity)
    assert np.sum(averaged**-2.0 * coarse.volumes) == pytest.approx(np.sum(velocity**-2.0 * fine.volumes), rel=1e-12)
    np.testing.assert_allclose(Averaging(fine, coarse)(np.full(fine.shape, 2000.0)), 2000.0, rtol=1e-12)


def test_averages_are_transposed_exactly() -> None:
    fine = Grid.uniform((5, 7), (10.0, 10.0))
    averaging = Averaging(fine, coarsened(fine, 23.0))
    random = np.random.default_rng(1)
    velocity, change = 2000 + 500 * random.random(fine.shape), random.standard_normal(fine.shape)
    weights = random.standard_normal(averaging.coarse.shape)
    slope = np.sum(weights * (averaging(velocity + 1e-3 * change) - averaging(velocity - 1e-3 * change))) / 2e-3
    assert np.sum(averaging.transposed(velocity, weights) * change) == pytest.approx(slope, rel=1e-7)


def test_interpolation_is_exact_for_what_is_linear() -> None:
    source, target = Grid.uniform((10, 20), (20.0, 20.0)), Grid.uniform((13, 27), (10.0, 10.0), (40.0, 60.0))
    up, east = np.meshgrid(*source.centers, indexing="ij")
    expected_up, expected_east = np.meshgrid(*target.centers, indexing="ij")
    np.testing.assert_allclose(interpolated(2 * up - 3 * east, source, target), 2 * expected_up - 3 * expected_east, atol=1e-9)


def test_sampling_takes_the_cell_that_holds_a_centre() -> None:
    source = Grid.uniform((3, 4), (20.0, 20.0))
    values = np.arange(12.0).reshape(3, 4)
    halved = Grid.uniform((6, 8), (10.0, 10.0))
    np.testing.assert_array_equal(sampled(values, source, halved), np.kron(values, np.ones((2, 2))))
    beyond = Grid.uniform((2, 2), (30.0, 60.0), (-100.0, 30.0))  # below all cells; centres at 60 (an edge) and 120 (beyond the last)
    np.testing.assert_array_equal(sampled(values, source, beyond), [[3.0, 3.0], [3.0, 3.0]])


# ---------------------------------------------------------------------------------------------------------------- filter


def test_filter_takes_a_sine_to_the_frequency_of_the_scheme() -> None:
    """Leapfrog steps a wave of angular frequency w at (2 / dt) arcsin(w dt / 2); what passes the band passes in full, at its time."""
    chosen = Filter((1.0, 2.0, 8.0, 12.0), 0.004, 0.01, lead=100)
    time, own = 0.004 * np.arange(1500), 0.01 * (np.arange(700) - 100)
    envelope = np.exp(-(((time - 3.0) / 0.6) ** 2))
    passed = chosen(np.stack([envelope * np.cos(2 * np.pi * 6 * (time - 3.0)), envelope * np.cos(2 * np.pi * 20 * (time - 3.0))]))
    scheme = 2 / 0.01 * np.arcsin(2 * np.pi * 6 * 0.01 / 2) / (2 * np.pi)
    assert passed.shape == (2, 700) and passed.dtype == np.float32
    peak = np.fft.rfftfreq(32768, 0.01)[np.argmax(np.abs(np.fft.rfft(passed[0], 32768)))]
    assert scheme - 6 > 0.03 and peak == pytest.approx(scheme, abs=0.004)
    early = 3.0 * np.sqrt(1 - (np.pi * 6 * 0.01) ** 2)  # 3 s times dw / dw', the scheme's group velocity over the true one
    power = passed[0].astype(float) ** 2
    assert np.sum(own * power) / np.sum(power) == pytest.approx(early, abs=0.003)
    assert np.abs(passed[0]).max() == pytest.approx(1.0, abs=0.03) and np.abs(passed[1]).max() < 1e-3


def test_what_a_filter_did_to_time_is_undone() -> None:
    """A late wave of 8 Hz comes 0.1 s early in steps of 20 ms; on the way back it is where it was."""
    chosen = Filter.of((1.0, 3.0, 9.0, 12.0), 0.004, 0.02)
    time = 0.004 * np.arange(1000)
    wave = np.exp(-(((time - 3.0) / 0.25) ** 2)) * np.cos(2 * np.pi * 8 * (time - 3.0))
    band = chosen(wave)
    early = np.sum(chosen.times(1000) * band.astype(float) ** 2) / np.sum(band.astype(float) ** 2)
    assert early < 2.65
    expected = traces.bandpass(tf.constant(wave), 0.004, (1.0, 3.0, 9.0, 12.0)).numpy()
    np.testing.assert_allclose(chosen.undone(band, 1000), expected, atol=2e-3)
    np.testing.assert_allclose(chosen.undone(band, 1000, lead=50)[50:], expected, atol=2e-3)


# ------------------------------------------------------------------------------------------------------------- objective


@pytest.fixture(scope="module")
def tuned(folder: Path) -> tuple[Objective, np.ndarray]:
    found, inputs = objective(folder)
    start = found.start(inputs.velocity)
    return found.tuned(start), start


def agrees_with_differences(found: Objective, model: np.ndarray) -> None:
    bump = found.velocity(model) * 0
    bump[8:12, 20:30] = 1.0
    direction = found.start(bump)
    higher, lower = (found.value_and_gradient(model + step * direction)[0] for step in (4.0, -4.0))
    assert found.value_and_gradient(model)[1] @ direction == pytest.approx((higher - lower) / 8, rel=0.02)


def test_gradient_is_that_of_the_objective(tuned: tuple[Objective, np.ndarray]) -> None:
    found, start = tuned
    assert found.wave.differentiation.plan(1000, 1.0, 1).every > 2, "few snapshots do for 5 Hz"
    agrees_with_differences(found, start)
    assert found.value_and_gradient(start)[0] == pytest.approx(found.value(start), rel=1e-5)


@pytest.mark.parametrize(
    ("misfit", "roughness"),
    [
        ({"kind": "crosscorrelation"}, 0.0),
        ({"kind": "envelope"}, 0.0),
        ({"normalise": True, "top_mute_velocity": 1500.0, "top_mute_delay": 0.2}, 0.0),
        ({"kind": "envelope", "normalise": True, "time_power": 1.0, "bottom_mute_velocity": 1500.0, "bottom_mute_delay": 0.5}, 0.0),
        ({"offset_taper": 200.0, "farthest_offset": 1500.0}, 3.0),
    ],
)
def test_gradient_of_other_misfits(folder: Path, tuned: tuple[Objective, np.ndarray], misfit: dict[str, Any], roughness: float) -> None:
    """With the programs of the objective above; away from the start, where the roughness of the change is at its minimum."""
    first, start = tuned
    made = options(folder, misfit=misfit)
    gathers = Gathers(first.gathers.observed, Weights.of(first.inputs, first.filter, made.misfit, made.misfit.time_power[0]))
    found = dataclasses.replace(first, config=made, gathers=gathers, roughness=roughness)
    step = first.velocity(start) * 0
    step[6:9, 15:33] = 30.0
    agrees_with_differences(found, start + first.start(step))


@pytest.mark.slow
@pytest.mark.parametrize(
    "sections",
    [
        {"propagator": {"free_surface": True, "absorbing_cells": 10}},
        {"model": {"file": "start.nc", "density": "gardner"}},
        {"propagator": {"aperture": 600.0, "absorbing_cells": 10}},
        {"source": {"frequency": 7.0, "per_shot": True}},
        {"bands": {"lowpass": [5.0], "points_per_wavelength": None}},
    ],
    ids=lambda sections: "-".join(option for section in sections.values() for option in section),
)
def test_gradient_with_other_operators(folder: Path, sections: dict[str, Any]) -> None:
    found, inputs = objective(folder, **sections)
    start = found.start(inputs.velocity)
    agrees_with_differences(found.tuned(start), start)


def test_wavelet_is_found(tuned: tuple[Objective, np.ndarray]) -> None:
    """Turned by 60 degrees and of another frequency than the guess, from the data of a model that is not yet right."""
    found, _ = tuned
    samples = round(TOY["length"] / 0.004)
    true = found.filter(synthetic.turned_ricker(6.0, samples, 0.004, corners=(2.0, 3.0), phase=60.0))
    guess = found.filter(found.inputs.wavelet)

    def likeness(a: np.ndarray) -> float:
        return float(a @ true / np.linalg.norm(a) / np.linalg.norm(true))

    assert abs(likeness(guess)) < 0.5 and likeness(found.wavelet) > 0.97


def test_hessian_diagonal_is_that_of_born_products(tuned: tuple[Objective, np.ndarray]) -> None:
    """Random probes of each shot, smoothed: the means over parts of rows to within a third."""
    found, start = tuned
    assert isinstance(found.wave.differentiation, Every), "what an inversion takes by default"
    rows = sum(found.velocity(found.diagonal(start, "hessian", seed)) for seed in range(3))
    wave = dataclasses.replace(found.wave, differentiation=StoreAll())
    at, weights = wave.linearize(found._on_band(start)), found.gathers.weights(np.arange(5))
    means = []
    for row in (12, 8, 4):
        products = []
        for column in range(12, 39, 3):
            one = np.zeros(wave.grid.shape, np.float32)
            one[row, column] = 1.0
            products.append(np.sum(traces.bandpass(weights * at.jvp({"velocity": one}), wave.dt, found.band.corners) ** 2))
        means.append(np.mean(products))
    probed = [rows[row, 12:39].mean() for row in (12, 8, 4)]
    np.testing.assert_allclose(np.array(probed) / probed[0], np.array(means) / means[0], rtol=1 / 3)


def test_preconditioner_is_symmetric_and_positive(tuned: tuple[Objective, np.ndarray]) -> None:
    found, start = tuned
    lit = found.diagonal(start, "illumination", 0)
    assert lit.min() > 0
    rows = found.velocity(lit)
    assert rows[-3:].mean() > 10 * rows[:3].mean(), "sources are along the top"
    product = preconditioner(found, lit)
    a, b = np.random.default_rng(0).standard_normal((2, start.size))
    assert a @ product(b) == pytest.approx(b @ product(a), rel=1e-9)
    assert a @ product(a) > 0


def test_inversion_brings_the_model_closer(folder: Path, example: synthetic.WaveformExample) -> None:
    inputs = waveform_inputs.load(options(folder))
    records: list[dict[str, Any]] = []
    lines: list[str] = []
    outcome = waveform.run(options(folder), inputs, waveform.Watch(records.append, lines.append))
    assert len(lines) == 3 and lines[0].endswith("; compiling ...") and "wavelet fitted" in lines[1]
    assert lines[2].startswith("warning: band 1: velocities below the start model's lowest, 1650 m/s") and len(outcome.warnings) == 1
    assert outcome.last.misfit == min(record["misfit"] for record in records)
    found, truth = outcome.last.objective.velocity(outcome.last.model), example.velocity.values
    assert [record["iteration"] for record in records] == list(range(8))
    assert records[-1]["misfit"] < 0.35 * records[0]["misfit"]
    assert np.linalg.norm(found - truth) < 0.7 * np.linalg.norm(inputs.velocity - truth)
    assert found.min() >= 1400 and found.max() <= 3600


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:gradients take")
@pytest.mark.parametrize(
    "sections",
    [
        {"source": {"per_shot": True}},
        {"inversion": {"preconditioner": "hessian"}},
        {"model": {"density": "gardner"}, "propagator": {"free_surface": True}},
        {"propagator": {"snapshot_memory": 1e-6}},
        {"propagator": {"aperture": 600.0}},
        {"misfit": {"kind": "envelope", "top_mute_velocity": 2500.0}},
    ],
    ids=str,
)
def test_the_misfit_falls_with_other_options(folder: Path, sections: dict[str, Any]) -> None:
    made = options(folder, bands={"iterations": [3]}, **sections)
    outcome = waveform.run(made, waveform_inputs.load(made), waveform.Watch())
    assert outcome.status == "iteration-limit"
    assert outcome.last.misfit < 0.8 * outcome.last.round.history[0]["misfit"]


def test_memory_that_snapshots_exceed_is_saved_by_checkpoints_and_said(tuned: tuple[Objective, np.ndarray]) -> None:
    found, _ = tuned
    highest = 1.5 * 7.5

    def chosen(gigabytes: float) -> Any:
        propagator = found.config.propagator.model_copy(update={"snapshot_memory": gigabytes})
        return snapshots(found.config.model_copy(update={"propagator": propagator}), found.wave, highest)

    assert isinstance(chosen(2.0), Every)
    plans = (chosen(2.0), Checkpointed(2))
    sizes = (dataclasses.replace(found.wave, differentiation=plan).memory_estimate(min(cores(), 5)) for plan in plans)
    every, checkpointed = ((size.kept + size.running) / 1e9 for size in sizes)
    assert checkpointed < every
    assert isinstance(chosen((checkpointed + every) / 2), Checkpointed)
    often = found.config.model_copy(update={"propagator": found.config.propagator.model_copy(update={"snapshot_every": 99})})
    with pytest.raises(ValueError, match=r"^Invalid 'propagator.snapshot_every' 99: must be at most \d+ in this band"):
        snapshots(often, found.wave, highest)
    with pytest.warns(UserWarning, match=r"gradients take .* GB with Checkpointed\(states=2\), more than snapshot_memory = 1e-06 GB"):
        assert chosen(1e-6) == Checkpointed(2)


def test_data_that_begin_late_count_from_where_the_filter_is_right(folder: Path, example: synthetic.WaveformExample) -> None:
    late = example.survey.assign_coords(time=("time", example.survey["time"].values + 0.1, {"units": "s"}))
    netcdf.write(folder / "late.nc", late)
    made = options(folder, data={"file": "late.nc"})
    inputs = waveform_inputs.load(made)
    weigh = Weights.of(inputs, Filter.of((0.0, 0.0, 5.0, 7.5), 0.004, 0.01), made.misfit, 0.0)
    weights = weigh(np.array([0]))[0, 20]
    assert inputs.first_time == pytest.approx(0.1) and weigh.ringing == pytest.approx(0.4)
    assert not weights[weigh.times < 0.1 - 1e-6].any()
    half, full = (weights[np.argmin(np.abs(weigh.times - time))] for time in (0.1 + weigh.ringing / 2, 1.0))
    assert half == pytest.approx(0.5 * full, rel=1e-5)


def test_samples_count_by_a_power_of_time_of_each_band(folder: Path) -> None:
    made = options(folder, bands={"lowpass": [3.0, 5.0], "iterations": None}, misfit={"time_power": [1.0, 0.0]})
    inputs = waveform_inputs.load(made)
    assert [(band.number, band.iterations, band.time_power) for band in bands(made, 0.004)] == [(1, 10, 1.0), (2, 10, 0.0)]
    one, none = (Weights.of(inputs, Filter.of((0.0, 0.0, 5.0, 7.5), 0.004, 0.01), made.misfit, power) for power in (1.0, 0.0))
    middle = (one.times > 0.1) & (one.times < one.times[-1] - one.ringing)
    gain = one(np.array([0]))[0, 20, middle] / none(np.array([0]))[0, 20, middle]
    np.testing.assert_allclose(gain / gain[-1], one.times[middle] / one.times[middle][-1], rtol=1e-5)


def test_predicted_traces_are_written_in_true_time(tuned: tuple[Objective, np.ndarray]) -> None:
    """Observed ones as raw traces through the band's filter, at the survey's samples; predicted ones treated alike, and both say so."""
    found, start = tuned
    last = BandResult("", "", Round(found, found.wavelet, start, (0.0, start)))
    data, start_misfit = job._prediction(last, found.inputs)
    raw = found.inputs.survey["observed"].values
    np.testing.assert_array_equal(data["time"], found.inputs.survey["time"])
    inside = slice(0, round(1.3 / 0.004))  # the filter misses what was not recorded after the end
    expected = traces.bandpass(tf.constant(raw, tf.float64), 0.004, (0.0, 0.0, 5.0, 7.5)).numpy()
    assert np.abs(data["observed"].values - expected)[..., inside].max() < 0.01 * np.abs(expected).max()
    whole = np.concatenate([part for _, part in found.predictions(start)])
    np.testing.assert_allclose(data["predicted"], found.inputs.unit * found.filter.undone(whole, raw.shape[-1]), rtol=1e-5, atol=1e-9)
    assert data.attrs["filter_corners_hz"] == [0.0, 0.0, 5.0, 7.5]
    assert "zero-phase band-pass with cosine tapers between 0, 0, 5, 7.5 Hz; times are true" in data.attrs["history"]
    assert start_misfit == pytest.approx(found.with_wavelet(found.wavelet).fitted(start).value(start), rel=1e-5)


def test_mutes_that_leave_nothing_are_refused(folder: Path) -> None:
    for misfit in ({"nearest_offset": 9000.0}, {"bottom_mute_velocity": 1e9, "bottom_mute_delay": -0.1}, {"top_mute_velocity": 10.0}):
        with pytest.raises(ValueError, match=r"^Invalid 'misfit' with offsets and mutes that leave no sample"):
            objective(folder, misfit={"nearest_offset": 150.0, "farthest_offset": None} | misfit)


def test_water_does_not_change_and_rounds_fit_the_wavelet_again(folder: Path) -> None:
    made = options(
        folder, model={"water_depth": 120.0}, bands={"iterations": [2]}, source={"estimate_every": 1}, inversion={"optimiser": "adam", "step": 20.0}
    )
    inputs = waveform_inputs.load(made)
    outcome = waveform.run(made, inputs, waveform.Watch())
    found = outcome.last.objective.velocity(outcome.last.model)
    np.testing.assert_array_equal(found[-3:], inputs.velocity[-3:])
    assert 0 < np.abs(found[:-3] - inputs.velocity[:-3]).max() <= 40.0
    assert [record["iteration"] for record in outcome.last.round.history] == [0, 1, 2]


def test_a_band_that_cannot_be_run_keeps_those_before_it(folder: Path) -> None:
    made = options(folder, bands={"lowpass": [4.0, 10.0], "iterations": [1, 1]}, propagator={"snapshot_every": 5})
    outcome = waveform.run(made, waveform_inputs.load(made), waveform.Watch())
    assert outcome.status == "failed" and [each.band.number for each in outcome.bands] == [1]
    assert re.fullmatch(
        r"Ended after .* band 1, whose model this is: Invalid 'propagator.snapshot_every' 5: must be at most [1-4] in .*", outcome.reason
    )
    bad = options(folder, propagator={"snapshot_every": 99})
    with pytest.raises(ValueError, match=r"'propagator.snapshot_every' 99"):
        waveform.run(bad, waveform_inputs.load(bad), waveform.Watch())


def test_an_interruption_keeps_the_best_model(folder: Path) -> None:
    made = options(folder)
    inputs = waveform_inputs.load(made)

    def stop(record: dict[str, Any]) -> None:
        if record["iteration"] == 2:
            raise KeyboardInterrupt

    outcome = waveform.run(made, inputs, waveform.Watch(stop))
    assert outcome.status == "interrupted"
    assert len(outcome.last.round.history) == 3 and outcome.last.objective.value(outcome.last.model) < outcome.last.round.history[0]["misfit"]
