"""Where a two-dimensional survey with northings lies on its model, and in what units files say that they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from rich.console import Console

from geoinv.datasets import netcdf, shots, synthetic
from geoinv.operators.seismic import wavelets
from geoinv.waveform import figures, job
from geoinv.waveform import inputs as waveform_inputs
from geoinv.waveform.inputs import Inputs

from test_waveform_inversion import TOY, options  # isort: skip

AZIMUTH, ORIGIN = 62.5, (455000.0, 4120000.0)
PLACES = [f"{kind}_{axis}" for kind in ("source", "receiver") for axis in ("upward", "easting")]


@pytest.fixture(scope="module")
def example() -> synthetic.WaveformExample:
    return synthetic.waveform(**TOY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, example: synthetic.WaveformExample) -> Path:
    """The example's files: its survey along easting, at a constant northing, and along an oblique line."""
    folder = tmp_path_factory.mktemp("places")
    survey = example.survey
    netcdf.write(folder / "survey.nc", survey)
    netcdf.write(folder / "start.nc", example.start)
    constant, oblique = survey.copy(), survey.copy()
    for kind in ("source", "receiver"):
        dims, along = survey[f"{kind}_easting"].dims, survey[f"{kind}_easting"].values
        constant = constant.assign_coords({f"{kind}_northing": (dims, np.full_like(along, 2.5e5))})
        turned = zip(("easting", "northing"), ORIGIN, (np.sin(np.radians(AZIMUTH)), np.cos(np.radians(AZIMUTH))), strict=True)
        oblique = oblique.assign_coords({f"{kind}_{axis}": (dims, start + share * along) for axis, start, share in turned})
    for name, made in (("constant.nc", constant), ("oblique.nc", oblique)):
        netcdf.write(folder / name, shots.check_layout(made))
    return folder


def load(folder: Path, **sections: dict[str, Any]) -> Inputs:
    return waveform_inputs.load(options(folder, **sections))


# ------------------------------------------------------------------------------------------------------------------ lines


def test_northings_that_agree_are_left_out(folder: Path, example: synthetic.WaveformExample) -> None:
    inputs = load(folder, data={"file": "constant.nc"})
    for name in PLACES:
        np.testing.assert_array_equal(inputs.survey[name], example.survey[name])
    assert any("northings, 250000 m to within 0 m, left out" in line for line in waveform_inputs.describe(inputs))
    assert inputs.survey.attrs.get("crs", "") == example.survey.attrs.get("crs", "")


def test_northings_within_a_metre_of_one_another_agree(folder: Path) -> None:
    survey = netcdf.read(folder / "constant.nc")
    for spread, kept in ((0.9, True), (1.1, False)):
        moved = survey.copy(deep=True)
        moved["source_northing"][0] += spread
        netcdf.write(folder / "moved.nc", moved)
        if kept:
            np.testing.assert_array_equal(load(folder, data={"file": "moved.nc"}).survey["source_easting"], survey["source_easting"])
        else:
            with pytest.raises(ValueError, match=r"^Invalid 'data.line_origin' off for a survey whose northings lie 1.1 m apart"):
                load(folder, data={"file": "moved.nc"})


def test_a_line_lies_where_the_config_says(folder: Path, example: synthetic.WaveformExample) -> None:
    """The inversion of an oblique line is that of the line which it was turned from."""
    found = []
    for name, data in (("plain", {}), ("turned", {"file": "oblique.nc", "line_origin": ORIGIN, "line_azimuth": AZIMUTH})):
        made = options(folder, data=data, bands={"iterations": [1]})
        job.invert(made, folder / name, console=Console(quiet=True))
        found.append((netcdf.read(folder / name / "model.nc"), netcdf.read(folder / name / "predicted.nc")))
    (plain, _), (turned, predicted) = found
    change = np.abs(plain.velocity - plain.start_velocity).max()
    np.testing.assert_allclose(turned["velocity"], plain["velocity"], atol=1e-3 * float(change))
    for written in (turned, predicted):
        assert tuple(written.attrs["line_origin"]) == ORIGIN and written.attrs["line_azimuth"] == pytest.approx(AZIMUTH)
    for name in PLACES:
        np.testing.assert_allclose(predicted[name], example.survey[name], atol=1e-6)
    assert {ax.get_xlabel() for ax in figures.gathers(predicted, count=1).axes if ax.get_xlabel()} == {"receiver distance (m)"}


@pytest.mark.parametrize(
    ("sections", "missing"),
    [
        ({}, "line_origin' off .*: must be given with model.file"),
        ({"data": {"line_origin": ORIGIN}}, "line_azimuth' off .*: must be given with model.file"),
        ({"data": {"line_azimuth": AZIMUTH}}, "line_origin' off .*: must be given with model.file"),
        (
            {"model": {"file": None, "velocity": 1700.0}, "grid": {"spacing": 40.0, "easting": [0.0, 2000.0]}},
            "line_origin' off .*: must be given with grid.easting",
        ),
    ],
)
def test_files_and_extents_of_an_unplaced_line_are_refused(folder: Path, sections: dict[str, Any], missing: str) -> None:
    data = {"file": "oblique.nc"} | sections.get("data", {})
    with pytest.raises(ValueError, match=rf"^Invalid 'data.{missing}: line_origin and line_azimuth place its eastings\. .*") as caught:
        load(folder, **sections | {"data": data})
    if "line_origin" not in data and "line_azimuth" not in data:  # the survey begins 40 m along the line
        assert "line_origin = [455035.5, 4120018.5] and line_azimuth = 62.50." in str(caught.value)


def test_without_such_options_the_line_is_the_surveys_own(folder: Path, example: synthetic.WaveformExample) -> None:
    inputs = load(folder, data={"file": "oblique.nc"}, model={"file": None, "velocity": 1700.0}, grid={"spacing": 40.0})
    eastings = example.survey["receiver_easting"]
    first = min(float(eastings.min()), float(example.survey["source_easting"].min()))
    np.testing.assert_allclose(inputs.survey["receiver_easting"], eastings - first, atol=1e-6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"line_azimuth": 90.0}, r"'data.line_azimuth' 90.0: must be off for a survey without northings"),
        ({"dimensions": 3, "line_azimuth": 90.0}, "'data.line_azimuth' 90.0: must be given only with dimensions = 2"),
    ],
)
def test_lines_of_surveys_that_need_none_are_refused(folder: Path, data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(folder, data=data)


def test_models_of_another_line_are_refused(folder: Path) -> None:
    model = netcdf.read(folder / "start.nc")
    here = {"file": "oblique.nc", "line_origin": ORIGIN, "line_azimuth": AZIMUTH}
    netcdf.write(folder / "along.nc", model.assign_attrs(line_origin=[ORIGIN[0] + 0.3, ORIGIN[1]], line_azimuth=AZIMUTH))
    load(folder, data=here, model={"file": "along.nc"}, bounds={"lower": "along.nc", "upper": 9000.0})
    for name, origin, azimuth in (("moved.nc", (ORIGIN[0] + 3, ORIGIN[1]), AZIMUTH), ("turned.nc", ORIGIN, AZIMUTH + 180)):
        netcdf.write(folder / name, model.assign_attrs(line_origin=list(origin), line_azimuth=azimuth))
        with pytest.raises(ValueError, match=rf"^Invalid 'model.file' '.*{name}' along another line .* It has line_origin = .*, line_azimuth = "):
            load(folder, data=here, model={"file": name})
        with pytest.raises(ValueError, match=r"^Invalid 'bounds.lower' '.*' along another line"):
            load(folder, data=here, bounds={"lower": name})
    with pytest.raises(ValueError, match=r"^Invalid 'model.file' '.*along.nc' along another line"):
        load(folder, data={"file": "constant.nc"}, model={"file": "along.nc"})


def test_outside_of_the_grid_it_is_said_what_eastings_are(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"must be inside the grid .* Eastings are distances along data.line_origin's line\."):
        load(folder, data={"file": "oblique.nc", "line_origin": (0.0, 0.0), "line_azimuth": AZIMUTH})


# ------------------------------------------------------------------------------------------------------------------ units


def say(unit: str, *names: str) -> Callable[[xarray.Dataset], xarray.Dataset]:
    def changed(data: xarray.Dataset) -> xarray.Dataset:
        data = data.copy(deep=True)
        for name in names:
            data[name].attrs["units"] = unit
        return data

    return changed


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("survey.nc", say("km", "receiver_easting"), "'receiver_easting' in 'km': must be in 'm'"),
        ("survey.nc", say("ft", "source_upward"), "'source_upward' in 'ft': must be in 'm'"),
        ("survey.nc", say("ms", "time"), "'time' in 'ms': must be in 's'"),
        ("survey.nc", say("milliseconds", "time"), "'time' in 'milliseconds': must be in 's'"),
        ("start.nc", say("km", "easting"), "'easting' in 'km': must be in 'm'"),
        ("start.nc", say("km/s", "velocity"), "'velocity' in 'km/s': must be in 'm/s'"),
    ],
)
def test_other_units_are_refused(folder: Path, file: str, change: Callable[[xarray.Dataset], xarray.Dataset], message: str) -> None:
    section = "data" if file == "survey.nc" else "model"
    netcdf.write(folder / "changed.nc", change(netcdf.read(folder / file)))
    with pytest.raises(ValueError, match=rf"^Invalid {message}\. Convert the values and the attribute 'units'\.$"):
        load(folder, **{section: {"file": "changed.nc"}})


def test_units_may_be_spelled_out_or_be_missing(folder: Path) -> None:
    survey, model = netcdf.read(folder / "survey.nc"), netcdf.read(folder / "start.nc")
    netcdf.write(folder / "changed.nc", say("Seconds", "time")(say("metres", *PLACES)(survey)))
    model = say("m s-1", "velocity")(model)
    del model["easting"].attrs["units"]
    netcdf.write(folder / "model.nc", model)
    found, plain = load(folder, data={"file": "changed.nc"}, model={"file": "model.nc"}), load(folder)
    np.testing.assert_array_equal(found.survey["time"], plain.survey["time"])
    np.testing.assert_array_equal(found.velocity, plain.velocity)


def test_a_model_in_the_unit_that_the_config_says(folder: Path) -> None:
    model = netcdf.read(folder / "start.nc")
    scaled = say("km/s", "velocity")(model.assign(velocity=model["velocity"] / 1000))
    for dim in ("upward", "easting"):
        scaled[dim].attrs |= model[dim].attrs
    netcdf.write(folder / "km.nc", scaled)
    found = load(folder, model={"file": "km.nc", "quantity": "km/s"})
    np.testing.assert_allclose(found.velocity, load(folder).velocity, rtol=1e-6)


def test_wavelets_in_milliseconds_are_refused(folder: Path) -> None:
    signal, times = wavelets.ricker(7.0, 450, 0.004), ("time", 4.0 * np.arange(450), {"units": "ms"})
    netcdf.write(folder / "wavelet.nc", xarray.Dataset({"wavelet": ("time", signal)}, coords={"time": times}))
    with pytest.raises(ValueError, match=r"^Invalid 'source.file time' in 'ms': must be in 's'"):
        load(folder, source={"wavelet": "file", "file": "wavelet.nc", "frequency": 10.0})


# ------------------------------------------------------------------------------------------------- wavelets and cells


def test_a_wavelet_of_another_interval_shows(folder: Path) -> None:
    """A wavelet sampled every millisecond without saying so, taken for one every 4 ms: said, and its peaks are shown."""
    np.savetxt(folder / "fine.txt", wavelets.ricker(20.0, 1800, 0.001))
    lines = job.check(options(folder, source={"wavelet": "file", "file": "fine.txt", "frequency": 10.0}))
    assert any("warning" in line and "has 1800 samples, more than the record's 450: are they 0.004 s apart?" in line for line in lines)
    at = 0.004 * np.abs(wavelets.ricker(20.0, 1800, 0.001)).argmax()
    assert any(line.startswith(f"wavelet: largest amplitude at {at:.3g} s, spectrum at 5") for line in lines)


def test_check_warns_of_cells_that_are_large_for_the_waves(folder: Path) -> None:
    """Of a Ricker wavelet at 8 Hz, up to about 18 Hz, 1650 m/s and cells of 40 m, in order 2."""
    sections = {"source": {"frequency": 8.0, "estimate": False}, "bands": {"lowpass": None, "iterations": None}, "propagator": {"order": 2}}
    warned = [line for line in job.check(options(folder, **sections)) if "too few points per wavelength" in line]
    assert len(warned) == 1 and warned[0].startswith("warning: band 1: ")
    assert not any("points" in line for line in job.check(options(folder)))


def test_a_guess_that_a_fit_will_replace_is_not_judged(folder: Path) -> None:
    """A spike has all frequencies; what is left of it after the fit is in the data."""
    np.savetxt(folder / "spike.txt", np.eye(1, 450)[0])
    spike = {"source": {"wavelet": "file", "file": "spike.txt", "frequency": 10.0}, "bands": {"lowpass": None, "iterations": None}}
    assert not any("points" in line for line in job.check(options(folder, **spike)))
    with pytest.raises(ValueError, match=r"^Invalid 'grid.spacing' that makes cells of 40 m in band 1"):
        job.check(options(folder, **spike | {"source": {**spike["source"], "estimate": False}}))


def test_a_wavelet_below_its_band_and_a_few_slow_cells_are_no_reason_to_refuse(folder: Path) -> None:
    source = {"frequency": 4.0, "estimate": False}
    assert not any("Invalid" in line for line in job.check(options(folder, source=source, bands={"lowpass": [25.0], "iterations": [1]})))
    model = netcdf.read(folder / "start.nc")
    model["velocity"][-1, :10] = 200.0
    netcdf.write(folder / "slow.nc", model)
    lines = job.check(options(folder, model={"file": "slow.nc"}, bounds={"lower": 100.0}))
    assert any("too few points per wavelength" in line for line in lines)


def test_cells_that_hold_no_such_waves_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^Invalid 'grid.spacing' that makes cells of 40 m in band 2: must be below 27.5 m: two to the wavelength"):
        job.check(options(folder, bands={"lowpass": [5.0, 30.0], "iterations": [1, 1]}))
