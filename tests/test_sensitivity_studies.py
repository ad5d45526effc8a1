"""The sensitivity studies at toy size: what physics expects of them, and that they repeat to the last bit."""

import csv
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoinv import config
from geoinv.operators.grid import Grid

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
GRAVITY: dict[str, Any] = {"shape": (6, 12, 18), "spacings": (270.0, 540.0), "noise": (0.01, 0.3), "depths": (150.0, 350.0)}
#: One shape for both bands: what is compiled for one serves the other.
WAVES: dict[str, Any] = {
    "survey": {"shape": (16, 40), "spacing": 40.0, "shot_count": 3, "receiver_count": 19, "length": 1.4, "noise": 0.5},
    "tops": (3.5, 5.0),
    "depths": (180.0, 300.0),
}
#: The weathered layer is about 3 m thick here.
REFRACTION: dict[str, Any] = {"receivers": 18, "shots": (2, 6), "depths": (2.25, 5.25)}


def study(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a script defines."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr("geoinv.report.DPI", 40)
    return runpy.run_path(str(SCRIPTS / f"{name}.py"))


def table(folder: Path) -> list[dict[str, float]]:
    with open(folder / "table.csv", newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if key != "complete"} for row in csv.DictReader(file)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.suffix in {".csv", ".png", ".toml"}}


def test_more_stations_and_less_noise_resolve_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = study("sensitivity_gravity", monkeypatch)["run"]
    message = run(tmp_path / "one", **GRAVITY)
    found = {(row["spacing_m"], row["noise_mGal"], row["cell_depth_m"]): row for row in table(tmp_path / "one")}
    assert len(found) == 8
    for spacing in GRAVITY["spacings"]:
        for depth in GRAVITY["depths"]:
            quiet, noisy = (found[spacing, noise, depth] for noise in GRAVITY["noise"])
            assert quiet["degrees_of_freedom"] > 1.2 * noisy["degrees_of_freedom"] and quiet["resolution"] > noisy["resolution"]
            assert quiet["degrees_of_freedom"] <= quiet["n_data"] + 1e-6
    for noise in GRAVITY["noise"]:
        dense, sparse = (found[spacing, noise, 150.0] for spacing in GRAVITY["spacings"])
        assert dense["degrees_of_freedom"] > 1.5 * sparse["degrees_of_freedom"] and dense["resolution"] > 1.5 * sparse["resolution"]
        assert found[270.0, noise, 350.0]["resolution"] < 0.5 * dense["resolution"], "resolution falls with depth"
    assert found[270.0, 0.01, 150.0]["width_across_m"] < found[270.0, 0.01, 350.0]["width_across_m"]
    assert message.startswith("From 35 stations to 12 with more noise, the degrees of freedom fall from ")
    run(tmp_path / "two", **GRAVITY)
    first = contents(tmp_path / "one")
    assert first == contents(tmp_path / "two") and len(first) == 7, "a table, two figures, and a config for each survey"
    run(tmp_path / "two", seed=1, **GRAVITY)
    assert contents(tmp_path / "two")["table.csv"] != first["table.csv"]


def test_the_trade_off_of_the_study_gives_its_deviation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a dense inverse of the model term."""
    from geoinv.regularization import small_and_smooth
    from geoinv.weighting import depth_weights

    made = study("sensitivity_gravity", monkeypatch)
    grid = Grid.uniform((5, 8, 9), (100.0,) * 3, origin=(-500.0, 0.0, 0.0))
    everywhere = np.ones(grid.shape, bool)
    hessian = small_and_smooth(grid, everywhere, smoothness=(4.0,) * 3, weights=depth_weights(grid, everywhere)).hessian.to_scipy().toarray()
    covariance = np.linalg.inv(made["trade_off"](grid, 4.0) * hessian)
    assert np.sqrt(np.mean(np.diag(covariance))) == pytest.approx(made["DEVIATION"], rel=0.03)


def test_higher_bands_see_sharper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = study("sensitivity_waveform", monkeypatch)["run"]
    run(tmp_path / "one", **WAVES)
    found = {(row["top_Hz"], row["cell_depth_m"]): row for row in table(tmp_path / "one")}
    assert len(found) == 4
    for depth in WAVES["depths"]:
        low, high = (found[top, depth] for top in WAVES["tops"])
        assert high["degrees_of_freedom"] > 1.3 * low["degrees_of_freedom"] and high["resolution"] > low["resolution"]
        assert high["width_across_m"] < low["width_across_m"] and high["depth_of_investigation_m"] >= low["depth_of_investigation_m"]
        assert high["wavelength_m"] == pytest.approx(low["wavelength_m"] * WAVES["tops"][0] / WAVES["tops"][1])
        # Velocity doubles from 1600 m/s at the top over the 640 m of the cells.
        assert high["wavelength_m"] == pytest.approx(1600 * (1 + depth / 640) / 5.0, rel=1e-3)
        assert 1 / 6 < high["width_across_m"] / high["wavelength_m"] < 0.6
    assert len(contents(tmp_path / "one")) == 5


@pytest.mark.slow
def test_bands_repeat_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = study("sensitivity_waveform", monkeypatch)["run"]
    for name in ("one", "two"):
        run(tmp_path / name, **WAVES)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_more_shots_resolve_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = study("sensitivity_refraction", monkeypatch)["run"]
    message = run(tmp_path / "one", **REFRACTION)
    found = {(row["shots"], row["cell_depth_m"]): row for row in table(tmp_path / "one")}
    assert len(found) == 4 and message.startswith("From 2 to 6 shots the degrees of freedom grow from ")
    for depth in REFRACTION["depths"]:
        few, many = (found[shots, depth] for shots in REFRACTION["shots"])
        assert (few["n_data"], many["n_data"]) == (36, 108) and few["degrees_of_freedom"] <= 36
        assert many["degrees_of_freedom"] > 1.3 * few["degrees_of_freedom"] and many["resolution"] > 1.3 * few["resolution"]
    assert found[6, 5.25]["resolution"] < found[6, 2.25]["resolution"]
    run(tmp_path / "two", **REFRACTION)
    first = contents(tmp_path / "one")
    assert first == contents(tmp_path / "two") and len(first) == 5
    run(tmp_path / "two", seed=1, **REFRACTION)
    assert contents(tmp_path / "two")["inputs/shots-2.toml"] != first["inputs/shots-2.toml"]


def test_images_are_measured_between_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Gaussian whose middle lies between centres: its widths at half maximum, and how far it is from a cell."""
    image = study("sensitivity_studies", monkeypatch)["Image"]
    grid = Grid.uniform((40, 60), (10.0, 10.0), origin=(-400.0, 0.0))
    up, east = np.meshgrid(*grid.centers, indexing="ij")
    found = image.of(grid, np.exp(-(((up + 183) / 40) ** 2) - ((east - 301) / 60) ** 2), (25, 30))
    assert found.across == pytest.approx(2 * 60 * np.sqrt(np.log(2)), rel=0.02) and found.down == pytest.approx(2 * 40 * np.sqrt(np.log(2)), rel=0.02)
    assert found.bias == pytest.approx(183 - 145, abs=1.0)
    artefact = 5 * np.exp(-(((up + 20) / 30) ** 2) - ((east - 80) / 30) ** 2)
    beside = image.of(grid, np.exp(-(((up + 183) / 40) ** 2) - ((east - 301) / 60) ** 2) + artefact, (25, 30))
    np.testing.assert_allclose(beside, found, rtol=1e-3, err_msg="a larger lobe elsewhere is not the image of the cell")
    edge = image.of(grid, np.broadcast_to(np.exp(up / 1e4), grid.shape), (39, 30))
    assert (edge.across, edge.down) == (600.0, 400.0), "one that falls to half nowhere is as wide as the cells"


@pytest.mark.parametrize("name", ["sensitivity_gravity", "sensitivity_refraction", "sensitivity_waveform"])
def test_a_seed_below_zero_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--seed", "-1", "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 2 and capsys.readouterr().err.strip() == "error: Invalid 'seed' -1: must be 0 or more."
    assert not (tmp_path / "out").exists()


def test_the_configs_that_are_written_are_those_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study("sensitivity_gravity", monkeypatch)["run"](tmp_path, **{**GRAVITY, "spacings": (540.0,), "noise": (0.3,)})
    made = config.load(tmp_path / "inputs" / "spacing-540m-noise-0.3mGal.toml")
    assert Path(made.data.file).is_file() and made.sensitivity.trade_off > 0 and len(made.sensitivity.cells) == 24
