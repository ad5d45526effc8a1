"""Every script runs, at toy size where it can, and gives the number it is for."""

import json
import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest

from geoinv import config
from geoinv.datasets import csv, netcdf, synthetic
from geoinv.gravity.report import compare_with_truth

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def test_the_demo_recovers_its_block(tmp_path: Path) -> None:
    message = runpy.run_path(str(SCRIPTS / "demo_gravity.py"))["run"](tmp_path)
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    model = netcdf.read(tmp_path / "results" / "model.nc")
    (block,) = compare_with_truth(model)
    density = np.nan_to_num(model["density"].values)
    assert model["true_density"].values[np.unravel_index(density.argmax(), density.shape)] > 0, "the densest cell lies in the block"
    assert summary["status"] == "converged" and summary["chi2"] <= 1.05
    assert np.all(block["offset_cells"] <= 1.0)
    assert block["mass"] == pytest.approx(block["true_mass"], rel=0.2), "gravity determines the total mass"
    assert str(tmp_path / "results" / "report.html") in message
    assert "Recovered against truth" in (tmp_path / "results" / "report.html").read_text()


def test_invert_gravity_fits_a_csv_of_stations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = synthetic.gravity(seed=2, stations=(8, 8), shape=(6, 12, 12), spacing=(100.0, 200.0, 200.0))
    csv.write_csv(tmp_path / "stations.csv", example.survey)
    options = ["--uncertainty", "0.02", "--spacing", "100", "200", "200", "--output", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["invert_gravity.py", str(tmp_path / "stations.csv"), *options])
    runpy.run_path(str(SCRIPTS / "invert_gravity.py"), run_name="__main__")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["chi2"] <= 1.0 and summary["rms"] == pytest.approx(0.02, rel=0.2), "the noise is 0.02 mGal"


@pytest.mark.parametrize("name", ["clear_lake", "do27"])
def test_the_configs_of_the_surveys_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOINV_DATA", "/anywhere")
    options = config.load(SCRIPTS / "configs" / f"{name}.toml")
    assert options.data.file.startswith("/anywhere") and options.data.uncertainty_floor


def test_the_config_of_the_refraction_line_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOINV_DATA", "/anywhere")
    options = config.load(SCRIPTS / "configs" / "koenigsee.toml")
    assert options.kind == "traveltime" and options.data.file.startswith("/anywhere") and options.inversion.holdout == 0.1


def test_the_travel_time_demo_finds_the_rock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["invert_traveltime.py", "synthetic", "--output", str(tmp_path / "out")])
    runpy.run_path(str(SCRIPTS / "invert_traveltime.py"), run_name="__main__")
    summary = json.loads((tmp_path / "out" / "results" / "summary.json").read_text())
    assert summary["status"] == "converged" and summary["velocity_error"] < 0.6 * summary["velocity_error_start"]
    assert "Where waves pass, the velocity's rms error fell from" in capsys.readouterr().out
    picks = str(tmp_path / "out" / "inputs" / "picks.csv")
    flags = ["--spacing", "2", "2", "--depth", "30", "--start", "600", "4000", "--set", "inversion.max_iterations=3", "--blocky"]
    monkeypatch.setattr("sys.argv", ["invert_traveltime.py", "survey", picks, *flags, "--output", str(tmp_path / "own")])
    runpy.run_path(str(SCRIPTS / "invert_traveltime.py"), run_name="__main__")
    assert json.loads((tmp_path / "own" / "summary.json").read_text())["chi2"] < 10
    made = config.load(tmp_path / "own" / "config.toml")
    assert made.regularization.shape == "blocky" and made.grid.spacing == (2.0, 2.0) and made.start.bottom == 4000.0


@pytest.mark.parametrize("name", ["invert_gravity", "invert_traveltime", "invert_waveform"])
def test_a_mistake_ends_in_one_line_and_2(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing.dat")
    arguments = {
        "invert_gravity": [missing, "--uncertainty", "0.02", "--spacing", "100", "200", "200"],
        "invert_traveltime": ["survey", missing],
        "invert_waveform": ["survey", missing, "--start", missing, "--spacing", "20", "--bands", "4"],
    }
    monkeypatch.setattr("sys.argv", [f"{name}.py", *arguments[name], "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: Invalid ") and "missing.dat" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("invert_waveform", ["overthrust", "{folder}"], "Invalid 'folder' with a model file of q: must be of the Overthrust section, with 'm'."),
        ("invert_waveform", ["overthrust", "{folder}/good", "--shots", "-3"], "Invalid '--shots' -3: must be 1 or more."),
        ("invert_waveform", ["overthrust", "{folder}/good", "--seed", "-1"], "Invalid 'seed' -1: must be 0 or more."),
        ("invert_traveltime", ["synthetic", "--seed", "-1"], "Invalid 'seed' -1: must be 0 or more."),
        ("demo_waveform", ["--seed", "-1"], "Invalid 'seed' -1: must be 0 or more."),
        ("demo_gravity", ["--seed", "-1"], "Invalid 'seed' -1: must be 0 or more."),
    ],
)
def test_what_a_script_cannot_do_is_said_before_anything_is_written(
    name: str, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, dataset in ((tmp_path, "q"), (tmp_path / "good", "m")):
        (folder / "overthrust2d-model").mkdir(parents=True)
        with h5py.File(folder / "overthrust2d-model" / "overthrust_model.h5", "w") as file:
            file[dataset] = np.full((20, 30), 0.2)
    filled = [argument.format(folder=tmp_path) for argument in arguments]
    monkeypatch.setattr("sys.argv", [f"{name}.py", *filled, "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip() == f"error: {message}"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_overthrust_experiment_at_toy_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a section of its own: a slow lens in a velocity that grows with depth, which one band brings closer."""
    shape = (32, 64)
    depth, easting = np.mgrid[: shape[0], : shape[1]]
    start = 1.6 * (1 + depth / shape[0])
    true = start * (1 - 0.08 * np.exp(-(((depth - 11) / 4) ** 2) - ((easting - 32) / 7) ** 2))
    file = tmp_path / "overthrust2d-model" / "overthrust_model.h5"
    file.parent.mkdir()
    with h5py.File(file, "w") as made:
        made["m"], made["m0"] = true**-2.0, start**-2.0
    monkeypatch.setenv("GEOINV_DATA", str(tmp_path))
    options = ["bands.lowpass=[6.0]", "bands.iterations=[6]", "data.record_length=1.6", "model.water_depth=0", "bounds.upper=3500.0"]
    # Few shots and iterations leave more to smoothing than the whole section's do.
    few = ["misfit.time_power=0", "inversion.smoothing=0.2", "inversion.preconditioner=illumination", "inversion.illumination_floor=0.01"]
    settings = [word for option in [*options, *few] for word in ("--set", option)]
    monkeypatch.setattr("sys.argv", ["invert_waveform.py", "overthrust", str(tmp_path), "--shots", "4", "--output", str(tmp_path / "out"), *settings])
    runpy.run_path(str(SCRIPTS / "invert_waveform.py"), run_name="__main__")
    summary = json.loads((tmp_path / "out" / "results" / "summary.json").read_text())
    assert summary["model_rms_error"] < 0.85 * summary["model_rms_error_start"]
    assert "The model's rms error fell from" in capsys.readouterr().out


@pytest.mark.slow
def test_the_waveform_demo_finds_its_lenses(tmp_path: Path) -> None:
    message = runpy.run_path(str(SCRIPTS / "demo_waveform.py"))["run"](tmp_path)
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert summary["model_rms_error"] < 0.4 * summary["model_rms_error_start"]
    assert str(tmp_path / "results" / "report.html") in message
