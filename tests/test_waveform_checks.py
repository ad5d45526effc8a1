"""What `geoinv check` finds before anything is computed, the units of the data, coordinates from a table, and wavelets of each shot."""

import csv
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segyio
import xarray
from rich.console import Console

from geoinv.datasets import netcdf, segy, shots, synthetic
from geoinv.operators.seismic import wavelets
from geoinv.waveform import figures, job
from geoinv.waveform import inputs as waveform_inputs
from geoinv.waveform import inversion as waveform
from geoinv.waveform.bands import Setup, bands
from geoinv.waveform.inputs import Inputs
from geoinv.waveform.state import BandResult, Round

from test_waveform_inversion import TOY, options  # isort: skip


@pytest.fixture(scope="module")
def example() -> synthetic.WaveformExample:
    return synthetic.waveform(**TOY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, example: synthetic.WaveformExample) -> Path:
    folder = tmp_path_factory.mktemp("checks")
    netcdf.write(folder / "survey.nc", example.survey)
    netcdf.write(folder / "start.nc", example.start)
    return folder


def load(folder: Path, **sections: dict[str, Any]) -> Inputs:
    return waveform_inputs.load(options(folder, **sections))


# ---------------------------------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("band", "message"),
    [
        ({"rolloff": 1.0000001}, r"'bands.rolloff' with a ramp of 5e-07 Hz .* rings for 2e\+06 s: must be wider than 0.557 Hz, for records of 1.8 s"),
        ({"rolloff": 1.01}, "'bands.rolloff' with a ramp of 0.05 Hz from 5 Hz on, which rings for 20 s"),
        ({"lowcut": [2.9, 3.0]}, r"'bands.lowcut' with a ramp of 0.1 Hz .* 10 s: must be wider .* corners 2.2 Hz apart"),
    ],
)
def test_filters_that_ring_for_longer_than_the_records_are_refused(folder: Path, band: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^Invalid {message}"):
        load(folder, bands=band)


def test_filters_that_ring_for_much_of_the_records_are_warned_of(folder: Path) -> None:
    (warning,) = load(folder, bands={"rolloff": 1.3}).warnings
    assert re.search(r"bands.rolloff with a ramp of 1.5 Hz .* 0.667 s: the ends of records of 1.8 s .* bands.rolloff = 1.45", warning)
    assert not load(folder, bands={"rolloff": 1.45}).warnings, "as advised"
    (warning,) = load(folder, bands={"lowcut": [0.5, 2.0]}).warnings
    assert warning.startswith("bands.lowcut")


# ------------------------------------------------------------------------------------------------------------------ units


@pytest.mark.filterwarnings("ignore:velocities below")
@pytest.mark.parametrize("size", [1e-16, 1e-30, 1e20])
def test_results_do_not_depend_on_the_unit_of_the_data(folder: Path, example: synthetic.WaveformExample, size: float) -> None:
    same = example.survey.assign({name: example.survey[name] * size for name in ("observed", "uncertainty")})
    same["observed"] = same["observed"].astype(np.float32)
    netcdf.write(folder / "scaled.nc", same)
    found = []
    for file in ("survey.nc", "scaled.nc"):
        made = options(folder, data={"file": file}, bands={"iterations": [1]})
        outcome = waveform.run(made, waveform_inputs.load(made), waveform.Watch())
        found.append(outcome.last)
    first, second = found
    assert second.status == "iteration-limit" and second.round.history[-1]["iteration"] == 1
    start = first.objective.start(first.objective.inputs.velocity)
    change = first.model - start
    assert np.abs(change).max() > 10, "m/s"
    np.testing.assert_allclose(second.model - start, change, atol=1e-3 * np.abs(change).max())
    data, _ = job._prediction(second, second.objective.inputs)
    plain, _ = job._prediction(first, first.objective.inputs)
    for name in ("observed", "predicted"):
        expected = plain[name].values.astype(float)
        np.testing.assert_allclose(data[name].values / size, expected, atol=1e-3 * np.abs(expected).max())
    np.testing.assert_allclose(data["weight"].values * size, plain["weight"].values, rtol=1e-4)


def test_a_wavelet_far_too_weak_or_strong_is_an_error(folder: Path) -> None:
    """Nothing is converged where nothing can be seen."""
    for amplitude in (1e-30, 1e30):
        made = options(folder, source={"amplitude": amplitude, "estimate": False})
        with pytest.raises(ValueError, match=r"^Invalid 'illumination' of (0|inf) at most: must be positive .* source.amplitude"):
            waveform.run(made, waveform_inputs.load(made), waveform.Watch())
    made = options(folder, source={"amplitude": 1e-44, "estimate": False}, inversion={"preconditioner": "none"})
    with pytest.raises(ValueError, match=r"^Invalid 'gradient' zero everywhere in band 1: must be other than zero"):
        waveform.run(made, waveform_inputs.load(made), waveform.Watch())


# ------------------------------------------------------------------------------------------------------------------ check

REFUSED: list[tuple[dict[str, dict[str, Any]], str]] = [
    ({"misfit": {"nearest_offset": 1e9}}, "'misfit' with offsets and mutes that leave no sample"),
    ({"misfit": {"bottom_mute_velocity": 1e9}}, "'misfit' with offsets and mutes that leave no sample"),
    ({"source": {"delay": 3.0}}, "'source.delay' 3 s: must be below the 1.8 s of the records"),
    ({"source": {"frequency": 1e-6}}, "'source.frequency' 1e-06 Hz, which makes a wavelet that peaks after the end"),
    ({"propagator": {"snapshot_every": 1000}}, r"'propagator.snapshot_every' 1000: must be at most \d+ in this band"),
    ({"bands": {"lowpass": [2.0], "rolloff": 2.0, "points_per_wavelength": 3.0}}, "'bands.points_per_wavelength' 3, which makes 4 x 11 cells"),
    ({"bounds": {"upper": 1e9}}, r"'bounds.upper' 1e\+09 m/s: must be at most 20000 m/s. The highest velocity sets the time step"),
    ({"data": {"dimensions": 3}}, "'data.dimensions' 3: must be 2 for a survey without northings"),
]


@pytest.mark.parametrize(("sections", "message"), REFUSED)
def test_check_refuses_what_inversion_would(folder: Path, sections: dict[str, dict[str, Any]], message: str) -> None:
    made = options(folder, **sections)
    with pytest.raises(ValueError, match=f"^Invalid {message}"):
        job.check(made)
    with pytest.raises(ValueError, match=f"^Invalid {message}"):
        job.invert(made, folder / "none", console=Console(quiet=True))
    assert not (folder / "none").exists()


def test_snapshots_of_a_wavelet_that_is_known_are_checked_as_the_inversion_does(folder: Path) -> None:
    made = options(folder, source={"estimate": False}, propagator={"snapshot_every": 12})
    inputs = waveform_inputs.load(made)
    with pytest.raises(ValueError, match=r"must be at most \d+ in this band") as caught:
        Setup.of(made, inputs, bands(made, 0.004)[0])
    largest = int(re.findall(r"at most (\d+)", str(caught.value))[0])
    made = options(folder, source={"estimate": False}, propagator={"snapshot_every": largest}, bands={"iterations": [1]})
    assert waveform.run(made, inputs, waveform.Watch()).status == "iteration-limit"


@pytest.mark.parametrize(
    ("sections", "name"),
    [
        ({"source": {"wavelet": "ormsby", "corners": [1.0, 2.0, 10.0, 20.0]}}, "source.frequency"),
        ({"source": {"amplitude": 2.0}}, "source.amplitude"),
        ({"source": {"estimate": False, "regularization": 0.1}}, "source.regularization"),
        ({"bands": {"lowpass": None, "iterations": None, "rolloff": 2.0}}, "bands.rolloff"),
        ({"misfit": {"nearest_offset": 0.0, "offset_taper": 10.0}}, "misfit.offset_taper"),
        ({"misfit": {"mute_taper": 0.2}}, "misfit.mute_taper"),
        ({"model": {"file": None, "velocity": 1700.0, "dataset": "m0"}, "grid": {"spacing": 40.0}}, "model.dataset"),
        ({"model": {"water_velocity": 1480.0}}, "model.water_velocity"),
        ({"inversion": {"optimiser": "adam", "memory": 9}}, "inversion.memory"),
    ],
)
def test_options_that_would_do_nothing_are_refused(folder: Path, sections: dict[str, dict[str, Any]], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^Invalid '{name}' .*: must be given only with .*\. It would do nothing\.$"):
        options(folder, **sections)


# --------------------------------------------------------------------------------------------------------------- warnings


def test_no_warning_of_a_later_fit_reaches_the_user(folder: Path) -> None:
    """Velocities below the start model's are said once, in the log."""
    made = options(folder, source={"estimate_every": 1}, bands={"iterations": [3]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome = waveform.run(made, waveform_inputs.load(made), waveform.Watch())
    assert outcome.last.objective.velocity(outcome.last.model).min() < 1650
    assert any("velocities below" in line for line in outcome.warnings)


def test_figures_of_traces_that_are_muted_are_drawn_without_warnings(folder: Path) -> None:
    """Only the outermost shots have receivers beyond 1500 m."""
    made = options(folder, misfit={"nearest_offset": 1500.0})
    inputs = waveform_inputs.load(made)
    found = waveform.Objective.of(made, inputs, bands(made, 0.004)[0])
    start = found.start(inputs.velocity)
    last = BandResult("", "", Round(found, found.wavelet, start, (0.0, start)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data, _ = job._prediction(last, inputs)
        for figure in (figures.gathers(data, count=5), figures.residuals(data)):
            figure.canvas.draw()
    counted = np.isfinite(data["residual"].values).any(axis=1)
    assert counted[0] and counted[-1] and not counted[2]


# --------------------------------------------------------------------------------------------------------------- geometry


@pytest.fixture
def silent(tmp_path: Path, folder: Path, example: synthetic.WaveformExample) -> Path:
    """A folder with shots.segy, whose headers say nothing of places, and geometry.csv, which does."""
    segy.write(tmp_path / "shots.segy", example.survey)
    netcdf.write(tmp_path / "start.nc", example.start)
    with segyio.open(tmp_path / "shots.segy", "r+", ignore_geometry=True) as file:
        for number in range(file.tracecount):
            names = ("SourceX", "GroupX", "ReceiverGroupElevation", "SourceSurfaceElevation", "SourceDepth")
            file.header[number] = {getattr(segyio.TraceField, name): 0 for name in names}
    sources, receivers, live = shots.acquisition_arrays(example.survey)
    with open(tmp_path / "geometry.csv", "w", newline="") as text:
        table = csv.writer(text)
        table.writerow(["source_easting", "source_upward", "receiver_easting", "receiver_upward"])
        table.writerows([*sources[shot, 0, ::-1], *receivers[shot, receiver, ::-1]] for shot, receiver in np.argwhere(live))
    return tmp_path


def test_coordinates_come_from_a_table_where_headers_have_none(silent: Path, example: synthetic.WaveformExample) -> None:
    with pytest.raises(ValueError, match=r"'SourceX .* zero in all 115 live traces: .*data\.geometry"):
        load(silent, data={"file": "shots.segy"})
    survey = load(silent, data={"file": "shots.segy", "geometry": "geometry.csv"}).survey
    for name in ("source_easting", "source_upward", "receiver_easting", "receiver_upward"):
        np.testing.assert_allclose(survey[name], example.survey[name])
    assert f"coordinates read from {silent / 'geometry.csv'}" in survey.attrs["history"]


def test_a_table_that_does_not_fit_is_refused_by_the_option(silent: Path) -> None:
    lines = (silent / "geometry.csv").read_text().splitlines()
    (silent / "short.csv").write_text("\n".join(lines[:-1]))
    (silent / "wrong.csv").write_text("\n".join([lines[0].replace("source_upward", "depth"), *lines[1:]]))
    expected = [
        ({"geometry": "short.csv"}, r"of shape \(114,\): must be one number, or one for each of the 115 traces of the file.*data\.geometry"),
        ({"geometry": "wrong.csv"}, r"^Invalid 'data\.geometry' .*wrong\.csv' with a column 'depth': must be a table whose columns are of source_"),
        ({"geometry": "absent.csv"}, r"absent\.csv': must be an existing file"),
    ]
    for data, message in expected:
        with pytest.raises(ValueError, match=message):
            load(silent, data={"file": "shots.segy"} | data)


def test_a_table_is_not_for_netcdf(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^Invalid 'data\.geometry' .* must be off for netCDF files"):
        load(folder, data={"geometry": "geometry.csv"})


# --------------------------------------------------------------------------------------------------------------- wavelets


@pytest.fixture
def own(folder: Path) -> np.ndarray:
    """wavelets.nc: one for each shot of the file, its amplitude the shot's number and one; [shot, time]."""
    signals = np.arange(1.0, 6.0)[:, np.newaxis] * wavelets.ricker(7.0, 225, 0.008, delay=0.24)
    made = xarray.Dataset({"wavelet": (("shot", "time"), signals)}, coords={"time": ("time", 0.008 * np.arange(225), {"units": "s"})})
    netcdf.write(folder / "wavelets.nc", made)
    return signals


FILE = {"wavelet": "file", "file": "wavelets.nc", "frequency": 10.0}


@pytest.mark.filterwarnings("ignore:wavelet shorter than the record")
def test_a_file_may_hold_a_wavelet_for_each_shot(folder: Path, own: np.ndarray) -> None:
    """Those of the shots that are inverted, at the survey's interval; the traces are theirs."""
    made = options(folder, data={"first_shot": 1, "shot_every": 2}, source=FILE | {"estimate": False})
    inputs = waveform_inputs.load(made)
    assert inputs.wavelet.shape == (2, 1, 450)
    expected = np.array([2.0, 4.0])[:, np.newaxis] * wavelets.ricker(7.0, 450, 0.004, delay=0.24)
    np.testing.assert_allclose(inputs.wavelet[:, 0], expected, atol=2e-3)
    wave = waveform.Objective.of(made, inputs, bands(made, 0.004)[0]).wave
    data = wave.forward({"velocity": np.full(wave.grid.shape, 2000.0, np.float32)}).numpy()
    single = options(folder, data={"first_shot": 3}, source={"delay": 0.24, "estimate": False, "amplitude": 4.0})
    other = waveform.Objective.of(single, waveform_inputs.load(single), bands(single, 0.004)[0])
    alone = other.wave.forward({"velocity": np.full(wave.grid.shape, 2000.0, np.float32)}).numpy()
    scale = other.inputs.unit / inputs.unit
    np.testing.assert_allclose(data[1], scale * alone[0], atol=0.01 * np.abs(data[1]).max())


@pytest.mark.filterwarnings("ignore:wavelet shorter than the record")
def test_wavelets_of_each_shot_are_fitted_for_each_or_not_at_all(folder: Path, own: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^Invalid 'source\.per_shot' false .* must be true\. Or estimate = false"):
        load(folder, source=FILE)
    made = options(folder, source=FILE | {"per_shot": True})
    found = waveform.Objective.of(made, waveform_inputs.load(made), bands(made, 0.004)[0])
    fitted = found.fitted(found.start(found.inputs.velocity)).wavelet
    assert fitted.shape == found.wavelet.shape and fitted.shape[:2] == (5, 1)
    sizes = np.abs(fitted[:, 0]).max(axis=1)
    assert sizes.max() < 1.5 * sizes.min(), "all shots had the same"


def test_wavelet_files_that_do_not_fit_are_refused(folder: Path, own: np.ndarray) -> None:
    whole = netcdf.read(folder / "wavelets.nc")
    netcdf.write(folder / "few.nc", whole.isel(shot=slice(0, 3)))
    netcdf.write(folder / "pairs.nc", whole.expand_dims("source", axis=1).isel(source=[0, 0]))
    netcdf.write(folder / "early.nc", whole.assign_coords(time=whole["time"] - 0.1))
    for file, message in (
        ("few.nc", "with 3 shots: must be of every shot of the data file, 5 or more"),
        ("pairs.nc", "with 2 sources a shot: must be with 1, as the survey"),
        ("early.nc", "from -0.1 s on, every 0.008 to 0.008 s: must be evenly spaced, from zero or later on"),
        ("start.nc", "must be a file with 'wavelet' over"),
    ):
        with pytest.raises(ValueError, match=message):
            load(folder, source=FILE | {"file": file, "per_shot": True})
