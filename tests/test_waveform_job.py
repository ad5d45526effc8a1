"""The full-waveform job: from a config to a directory of results, what is read on the way, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from rich.console import Console

from geoinv import config, report, rundir
from geoinv.datasets import netcdf, segy, shots, synthetic
from geoinv.operators.grid import Grid
from geoinv.operators.seismic import wavelets
from geoinv.waveform import inputs as waveform_inputs
from geoinv.waveform import job as waveform_job
from geoinv.waveform.config import WaveformConfig
from geoinv.waveform.inputs import Inputs

from test_waveform_inversion import TOY, options  # isort: skip


@pytest.fixture(scope="module")
def example() -> synthetic.WaveformExample:
    return synthetic.waveform(**TOY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, example: synthetic.WaveformExample) -> Path:
    folder = tmp_path_factory.mktemp("job")
    netcdf.write(folder / "survey.nc", example.survey)
    netcdf.write(folder / "start.nc", example.start)
    return folder


def load(folder: Path, **sections: dict[str, Any]) -> Inputs:
    return waveform_inputs.load(options(folder, **sections))


@pytest.fixture(scope="module")
def done(folder: Path, example: synthetic.WaveformExample) -> tuple[dict[str, Any], rundir.Run]:
    truth = (example.grid, example.velocity.values)
    made = options(folder, bands={"iterations": [3]})
    summary = waveform_job.invert(made, folder / "out", console=Console(quiet=True), true_velocity=truth)
    return summary, rundir.read(folder / "out")


# ------------------------------------------------------------------------------------------------------------ a whole run


def test_files(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    names = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()}
    figures = {f"figures/{name}.png" for name in ("velocity", "profiles", "gathers", "residuals", "convergence", "wavelets", "illumination")}
    files = {"config.toml", "model.nc", "model.vtr", "predicted.nc", "wavelet.nc", "history.csv", "summary.json", "report.html"}
    assert names == files | figures
    assert config.load(folder / "out" / "config.toml") == options(folder, bands={"iterations": [3]})
    assert all((folder / "out" / name).stat().st_size > 12_000 for name in figures)


def test_summary_agrees_with_the_files(done: tuple[dict[str, Any], rundir.Run], example: synthetic.WaveformExample) -> None:
    summary, run = done
    assert set(rundir.SUMMARY) <= set(summary)
    assert (summary["status"], summary["iterations"], len(run.history)) == ("iteration-limit", 3, 4)
    (band,) = summary["bands"]
    assert band["misfit"] == pytest.approx(run.history[-1]["misfit"]) and band["misfit"] < 0.6 * band["misfit_start"]
    assert band["misfit_start_model"] == pytest.approx(band["misfit_start"], rel=1e-3), "the first band starts from the start model"
    for key, name in (("model_rms_error_start", "start_velocity"), ("model_rms_error", "velocity")):
        error = run.model[name].values - example.velocity.values
        assert summary[key] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-4)
    residual = (run.predicted["observed"] - run.predicted["predicted"]).values / run.predicted["uncertainty"].values[..., None]
    assert summary["chi2"] == pytest.approx(np.mean(residual[run.predicted["weight"].values > 0] ** 2), rel=1e-4)
    shots.check_layout(run.predicted)
    np.testing.assert_array_equal(run.predicted["time"], example.survey["time"])
    np.testing.assert_array_equal(run.predicted.attrs["filter_corners_hz"], [0.0, 0.0, 5.0, 7.5])
    left, whole = (run.predicted[name].values[2, 3] for name in ("predicted", "observed"))
    expected = np.linalg.norm((left - whole)[run.predicted["weight"].values[2, 3] > 0]) / np.linalg.norm(whole)
    assert run.predicted["residual"].values[2, 3] == pytest.approx(expected, rel=0.02), "the weights' taper ends within the last sample"
    fractions = [run.predicted[name].values[run.predicted["weight"].values.any(axis=2)] for name in ("start_residual", "residual")]
    assert np.median(fractions[1]) < 0.8 * np.median(fractions[0])


def test_report_shows_the_run(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    page = (folder / "out" / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 7
    for text in ("Waveform inversion: survey.nc", "Stopped at the iteration limit after 3 iterations", "Recovered against truth", "Band 1, to 5 Hz"):
        assert text in page


def test_interrupted_run_writes_its_best_model(folder: Path, monkeypatch: pytest.MonkeyPatch, done: Any) -> None:
    add = waveform_job.IterationTable.add

    def stop(self: Any, record: dict[str, Any]) -> None:
        add(self, record)
        if record["iteration"] == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(waveform_job.IterationTable, "add", stop)
    monkeypatch.setattr(report, "write", lambda directory: directory)  # drawing is tested above
    summary = waveform_job.invert(options(folder), folder / "stopped", console=Console(quiet=True))
    assert summary["status"] == "interrupted" and len(rundir.read(folder / "stopped").history) == 2
    assert rundir.sentence(summary).startswith("Interrupted after 1 iteration: chi2 = ")


Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def run(folder: Path, example: synthetic.WaveformExample, monkeypatch: pytest.MonkeyPatch, command_line: Run) -> Run:
    """The command line in a folder with shots.segy and line.toml: its exit code, and the lines of its output and of its errors."""
    segy.write(folder / "shots.segy", example.survey)
    (folder / "line.toml").write_text(config.dump_toml(options(folder, data={"file": "shots.segy"}, bands={"iterations": [1]})))
    monkeypatch.chdir(folder)
    return command_line


def test_command_line_checks_segy_and_refuses_in_one_line(run: Run) -> None:
    code, out, _ = run("check", "line.toml")
    assert code == 0 and out[0].startswith("survey: 5 shots, 115 traces of 450 samples every 4 ms")
    for override in ("data.file=absent.segy", "misfit.nearest_offset=1e6", "data.first_shot=9", "source.frequency=300"):
        code, out, err = run("invert", "line.toml", "--output", "bad", "--set", override)
        assert code == 2 and len(err) == 1 and err[0].startswith("error: Invalid '"), err
        assert not Path("bad").exists()


@pytest.mark.slow
def test_command_line_from_segy_to_report(run: Run) -> None:
    code, out, _ = run("invert", "line.toml", "--output", "line")
    assert code == 0 and out[-1] == "line/report.html"
    first = next(number for number, line in enumerate(out) if line.startswith("band 1: 0 to 5 Hz, 16 x 50 cells of 40 x 40 m"))
    assert out[first].endswith("compiling ...") and out[first + 1].startswith("band 1: wavelet fitted, gradients with Every")
    Path("line/report.html").unlink()
    assert run("report", "line")[:2] == (0, ["line/report.html"]) and Path("line/report.html").is_file()


@pytest.mark.slow
def test_three_dimensions_from_survey_to_report(tmp_path: Path) -> None:
    """A slow lens between sources near the top and receivers near the bottom."""
    grid = Grid.uniform((14, 16, 18), (40.0,) * 3, origin=(-560.0, 0.0, 0.0))
    away = np.meshgrid(*(centers - at for centers, at in zip(grid.centers, (-300.0, 320.0, 360.0), strict=True)), indexing="ij")
    velocity = 2000.0 - 200.0 * np.exp(-sum((part / 120.0) ** 2 for part in away))
    sources = np.array([[-60.0, north, east] for north in (80.0, 320.0, 560.0) for east in (80.0, 360.0, 640.0)])
    receivers = np.array([[-500.0, north, east] for north in np.arange(60.0, 600.0, 120.0) for east in np.arange(60.0, 700.0, 120.0)])
    survey = synthetic.record(grid, velocity, sources, receivers, wavelets.ricker(6.0, 200, 0.004), dt=0.004, refine=1, noise=0.02)
    netcdf.write(tmp_path / "survey.nc", survey)
    netcdf.write(tmp_path / "start.nc", grid.to_xarray(np.full(grid.shape, 2000.0), name="velocity", units="m/s"))
    # The wavelet is known: fitted, it would take up the delay that all paths through the lens have in common.
    wavelet = {"frequency": 6.0, "estimate": False}
    made = options(tmp_path, data={"dimensions": 3}, bands={"iterations": [4]}, misfit={"nearest_offset": 0.0}, source=wavelet)
    summary = waveform_job.invert(made, tmp_path / "out", console=Console(quiet=True), true_velocity=(grid, velocity))
    assert summary["bands"][0]["misfit"] < 0.1 * summary["bands"][0]["misfit_start"]
    assert summary["model_rms_error"] < 0.5 * summary["model_rms_error_start"]
    assert (tmp_path / "out" / "report.html").is_file()


# ----------------------------------------------------------------------------------------------------------------- inputs


def test_check_does_without_tensorflow(folder: Path) -> None:
    (folder / "toy.toml").write_text(config.dump_toml(options(folder)))
    code = "import sys; from geoinv import config; from geoinv.waveform import job; print(job.check(config.load(sys.argv[1])))"
    ran = subprocess.run(
        [sys.executable, "-c", code + "; assert 'tensorflow' not in sys.modules", str(folder / "toy.toml")], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "5 shots, 115 traces of 450 samples every 4 ms" in ran.stdout


def test_arrays_are_read_depth_first_in_their_own_quantity(folder: Path) -> None:
    velocity = np.linspace(1500.0, 3000.0, 16)[:, None] + np.linspace(0.0, 400.0, 50)
    with h5py.File(folder / "start.h5", "w") as file:
        file["m0"] = (velocity / 1e3) ** -2.0
    np.save(folder / "start.npy", velocity / 1e3)
    hdf5 = load(folder, model={"file": "start.h5", "dataset": "m0", "quantity": "s2/km2", "file_spacing": 40.0})
    numpy = load(folder, model={"file": "start.npy", "quantity": "km/s"}, grid={"spacing": 40.0})
    for inputs in (hdf5, numpy):
        np.testing.assert_allclose(inputs.velocity, velocity[::-1], rtol=1e-12)
        assert inputs.grid.edges[0][-1] == 0 and inputs.grid.edges[1][0] == 0


def test_a_start_that_grows_with_depth_below_water(folder: Path) -> None:
    inputs = load(
        folder,
        model={"file": None, "velocity": 1700.0, "gradient": 0.5, "water_depth": 100.0},
        grid={"spacing": 20.0, "easting": [0.0, 2000.0], "upward": [-400.0, 0.0]},
    )
    assert inputs.grid.shape == (20, 100)
    assert np.all(inputs.velocity[-5:] == 1500.0) and not inputs.free[-5:].any() and inputs.free[:-5].all()
    np.testing.assert_allclose(inputs.velocity[:-5, 0], 1700 + 0.5 * (-inputs.grid.centers[0][:-5] - 100))


def test_cells_follow_the_survey_and_the_highest_band(folder: Path) -> None:
    inputs = load(folder, model={"file": None, "velocity": 1600.0}, grid={"margin": 50.0}, bands={"lowpass": [5.0, 10.0], "iterations": [1, 1]})
    widths = inputs.grid.widths[0]
    points = waveform_inputs.points_per_wavelength(4)
    assert widths[0] == pytest.approx(1600 / (12.5 * points), rel=0.05) and 4.5 < points < 7
    assert inputs.grid.edges[1][0] <= 40 - 50 + widths[0] and inputs.grid.edges[1][-1] >= 1960 + 50 - 1e-6


def test_lines_in_space_are_projected(folder: Path, example: synthetic.WaveformExample) -> None:
    survey, turn = example.survey, np.radians(30.0)
    places = {}
    for kind in ("source", "receiver"):
        along = survey[f"{kind}_easting"]
        places[f"{kind}_easting"] = (along.dims, 1e5 + along.values * np.cos(turn), {"units": "m"})
        places[f"{kind}_northing"] = (along.dims, 5e5 + along.values * np.sin(turn), {"units": "m"})
    segy.write(folder / "line.segy", survey.assign_coords(places))
    inputs = load(folder, data={"file": "line.segy"}, grid={"spacing": 40.0}, model={"file": None, "velocity": 1700.0})
    assert inputs.grid.ndim == 2 and shots.axes_of(inputs.survey) == ("upward", "easting")
    expected = shots.offsets(survey)
    np.testing.assert_allclose(shots.offsets(inputs.survey), expected, atol=0.01)


def test_records_that_start_late_or_early(folder: Path, example: synthetic.WaveformExample) -> None:
    for shift, name in ((25, "late.nc"), (-25, "early.nc")):
        netcdf.write(folder / name, example.survey.assign_coords(time=("time", example.survey["time"].values + 0.004 * shift, {"units": "s"})))
    late, early = load(folder, data={"file": "late.nc"}), load(folder, data={"file": "early.nc"})
    assert late.first_time == pytest.approx(0.1) and late.survey.sizes["time"] == 475 and early.survey.sizes["time"] == 425
    assert not late.survey["observed"].values[..., :25].any()
    np.testing.assert_array_equal(late.survey["observed"].values[..., 25:], example.survey["observed"].values)
    np.testing.assert_array_equal(early.survey["observed"].values, example.survey["observed"].values[..., 25:])


def changed(folder: Path, example: synthetic.WaveformExample, name: str, change: Callable[[np.ndarray], None]) -> str:
    """A file of the survey with its traces [shot, receiver, time] changed."""
    survey = example.survey.copy(deep=True)
    change(survey["observed"].values)
    netcdf.write(folder / name, survey)
    return name


def test_traces_of_zeros_are_dead_and_shots_of_such_left_out(folder: Path, example: synthetic.WaveformExample) -> None:
    def silence(traces: np.ndarray) -> None:
        traces[0, 3] = 0
        traces[4] = 0

    inputs = load(folder, data={"file": changed(folder, example, "silent.nc", silence)})
    assert inputs.survey.sizes["shot"] == 4 and not inputs.survey["live"].values[0, 3] and inputs.survey["live"].values.sum() == 4 * 23 - 1
    assert inputs.survey["uncertainty"].values[0, 3] == 0
    said = "\n".join(inputs.warnings)
    assert (
        "24 traces hold zeros only and are taken as dead (shot 0, receiver 3)" in said
        and "1 shots without a live trace are left out (shot 4)" in said
    )


def test_clipped_and_broken_traces_are_named(folder: Path, example: synthetic.WaveformExample) -> None:
    def clip(traces: np.ndarray) -> None:
        limit = 0.3 * np.abs(traces[1, 5]).max()
        traces[1, 5] = np.clip(traces[1, 5], -limit, limit)

    def spoil(traces: np.ndarray) -> None:
        traces[2, 7, 100] = np.nan

    plain = load(folder)
    assert not plain.warnings and "uncertainty" not in plain.survey.attrs["history"], "all are given"
    (warning,) = load(folder, data={"file": changed(folder, example, "clipped.nc", clip)}).warnings
    assert warning.startswith("1 traces look clipped") and "(shot 1, receiver 5)" in warning
    with pytest.raises(ValueError, match=r"^Invalid 'observed' nan at shot 2, receiver 7, sample 100: must be finite"):
        load(folder, data={"file": changed(folder, example, "broken.nc", spoil)})


def test_a_grid_beyond_the_start_model_is_said(folder: Path) -> None:
    inputs = load(folder, grid={"easting": [-400.0, 2000.0]})
    assert inputs.grid.shape == (16, 60) and np.all(inputs.velocity[:, :10] == inputs.velocity[:, 10:11])
    assert inputs.warnings == ("The grid reaches 400 m beyond the cells of model.file: the values at its edge go on there.",)


def test_a_start_model_on_finer_cells_keeps_its_sea_floor(folder: Path) -> None:
    depth = 20.0 + 40.0 * np.arange(16)
    np.save(folder / "sea.npy", np.where(depth < 120.0, 1500.0, 2000.0 + depth)[:, None] * np.ones(50))
    model = {"file": "sea.npy", "file_spacing": 40.0, "water_depth": 120.0}
    inputs = load(folder, model=model, grid={"spacing": 10.0}, bands={"points_per_wavelength": None})
    assert inputs.grid.shape == (64, 200)
    np.testing.assert_allclose(inputs.velocity[-12:], 1500.0)
    below = -inputs.grid.centers[0][:-12]
    np.testing.assert_allclose(inputs.velocity[:-12, 7], np.clip(2000.0 + below, 2140.0, 2620.0), rtol=1e-12)
    own = Grid.uniform((16, 50), (40.0, 40.0), origin=(-640.0, 0.0))
    netcdf.write(folder / "sea.nc", own.to_xarray(np.load(folder / "sea.npy")[::-1].copy(), name="velocity", units="m/s"))
    cells = {"spacing": 10.0, "upward": [-640.0, 80.0]}  # the sea reaches 80 m higher than in the file
    taller = load(folder, model={"file": "sea.nc", "water_depth": 200.0}, grid=cells, bands={"points_per_wavelength": None})
    np.testing.assert_allclose(taller.velocity[-20:], 1500.0)
    np.testing.assert_allclose(taller.velocity[:-20], inputs.velocity[:-12])


def test_only_cells_of_the_free_file_change(folder: Path, example: synthetic.WaveformExample) -> None:
    free = np.ones(example.grid.shape)
    free[-4:, 10:20] = 0.0
    netcdf.write(folder / "free.nc", example.grid.to_xarray(free, name="free"))
    inputs = load(folder, model={"free_file": "free.nc", "water_depth": 120.0, "density": "gardner"})
    np.testing.assert_array_equal(inputs.free, (free == 1) & (np.arange(16) < 13)[:, None])
    assert inputs.density is not None and np.all(inputs.density[-4, 10:20] > 1900.0), "it is rock, if it does not change"


def test_density_of_gardner_is_not_that_of_water(folder: Path) -> None:
    inputs = load(folder, model={"density": "gardner", "water_depth": 120.0})
    assert inputs.density is not None and np.all(inputs.density[-3:] == 1000.0)
    np.testing.assert_allclose(inputs.density[:-3], 310 * inputs.velocity[:-3] ** 0.25, rtol=1e-12)  # Gardner et al. 1974


BAD: list[tuple[dict[str, dict[str, Any]], str]] = [
    ({"grid": {"spacing": 40.0, "easting": [100.0, 2000.0]}}, r"'receiver' upward -60 m, easting 40 m \(shot 0\): must be inside the grid"),
    ({"bounds": {"upper": 2500.0}}, r"'model' .* m/s at cell \(\d+, \d+\): must be within the bounds 1400 to 2500 m/s"),
    ({"model": {"water_depth": 9999.0}}, "'model' with a water_depth or free_file that leaves no cell"),
    ({"model": {"free_file": "survey.nc"}}, "a model with 'free'"),
    ({"model": {"file": "survey.nc"}}, "a model with 'velocity'"),
    ({"bands": {"lowpass": [0.5]}}, r"'bands.lowpass' 0.5 Hz: must be above 0.557 Hz, one period in the records"),
    ({"bands": {"lowpass": [90.0]}}, r"'bands.lowpass' .* below the Nyquist frequency, 125 Hz"),
    ({"data": {"file": "absent.segy"}}, "an existing file"),
    ({"data": {"first_shot": 5}}, "'data.first_shot' 5: must be below the number of shots, 5"),
    ({"data": {"record_length": 0.004}}, "'data.record_length' 0.004 s: must be several samples"),
    ({"data": {"sampling_interval": 0.002}}, "'data.sampling_interval' 0.002: must be off for netCDF files"),
    ({"data": {"file": "gone.nc"}}, "'time' from -9 to .* must be times after the source's"),
    ({"model": {"file_spacing": 10.0}}, "'model.file_spacing' 10.0: must be off for netCDF"),
    ({"grid": {"spacing": 1e-7}}, r"'grid.spacing' that makes .* cells: must be large enough"),
    ({"grid": {"spacing": 1e6}}, r"'grid.spacing' that makes 1 x 1 cells: must be small enough for 5 along each axis"),
    ({"grid": {"upward": [-640.0, -60.0], "spacing": 40.0}, "propagator": {"free_surface": True}}, "'source' on the free surface"),
    ({"source": {"frequency": 125.0}}, "'source.frequency' 125 Hz: must be below 62.5 Hz"),
    ({"source": {"delay": 100.0}}, "'source.delay' 100 s: must be below the 1.8 s of the records"),
    ({"bands": {"lowpass": None, "iterations": None, "lowcut": [100.0, 120.0]}}, "'bands.lowcut' 120 Hz: must be below 112.5 Hz"),
    ({"model": {"file": "start.h5", "dataset": "m9"}}, "model.dataset the name of an array in it"),
    ({"model": {"file": "negative.npy"}, "grid": {"spacing": 40.0}}, "'model.file' -1 at index 0: must be positive"),
    ({"source": {"wavelet": "file", "file": "absent.txt", "frequency": 10.0}}, "'wavelet'"),
]


@pytest.mark.parametrize(("sections", "message"), BAD)
def test_bad_inputs_are_refused(folder: Path, sections: dict[str, dict[str, Any]], message: str) -> None:
    with h5py.File(folder / "start.h5", "w") as file:
        file["m0"] = np.ones((3, 4))
    survey = netcdf.read(folder / "survey.nc")
    netcdf.write(folder / "gone.nc", survey.assign_coords(time=("time", survey["time"].values - 9.0, {"units": "s"})))
    np.save(folder / "negative.npy", -np.ones((16, 50)))
    with pytest.raises(ValueError, match=message):
        load(folder, **sections)


def test_a_wrong_start_leaves_no_directory(folder: Path) -> None:
    with pytest.raises(ValueError, match="within the bounds"):
        waveform_job.invert(options(folder, bounds={"upper": 2500.0}), folder / "none", console=Console(quiet=True))
    assert not (folder / "none").exists()


def test_model_file_that_is_written_can_be_started_from(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    again = load(folder, model={"file": "out/model.nc"})
    np.testing.assert_array_equal(again.velocity, done[1].model["velocity"].values)
    assert isinstance(options(folder), WaveformConfig) and again.grid.shape == Grid.from_xarray(done[1].model["velocity"]).shape
    assert json.loads((folder / "out" / "summary.json").read_text())["bands"][0]["frequency"] == 5.0
