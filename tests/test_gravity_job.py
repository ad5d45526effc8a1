"""The gravity job from end to end on small synthetic surveys: what it writes, and that the numbers agree with one another."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from rich.console import Console

from geoinv import rundir
from geoinv.config import load, parse
from geoinv.datasets import csv, netcdf, synthetic, ubc
from geoinv.datasets import survey as surveys
from geoinv.gravity import job as gravity_job
from geoinv.operators.grid import Grid

MGAL = 1e-5
#: 6 x 6 stations over a block in 5 x 8 x 8 cells.
EXAMPLE = synthetic.gravity(seed=3, shape=(5, 8, 8), spacing=(100.0, 150.0, 150.0), stations=(6, 6), noise=3e-7)
BASIC: dict[str, dict[str, Any]] = {
    "data": {"file": "stations.nc"},
    "grid": {"spacing": [100.0, 200.0, 200.0], "depth": 400.0, "margin": 200.0},
    "operator": {"kind": "prism"},
    "inversion": {"max_iterations": 15, "holdout": 0.15},
    "bounds": {"lower": -100.0, "upper": 350.0},
}


def write_survey(folder: Path, survey: xarray.Dataset) -> None:
    """The same stations in every format."""
    netcdf.write(folder / "stations.nc", survey)
    csv.write_csv(folder / "stations.csv", survey)
    ubc.write_observations(folder / "stations.obs", survey)


def invert(folder: Path, name: str = "out", **sections: dict[str, Any]) -> tuple[dict[str, Any], rundir.Run]:
    options = {key: {**BASIC.get(key, {}), **sections.get(key, {})} for key in {**BASIC, **sections}}
    config = parse({**options, "seed": 5}, folder=folder)
    summary = gravity_job.invert(config, folder / name, console=Console(file=io.StringIO()))
    return summary, rundir.read(folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("job")
    write_survey(made, EXAMPLE.survey)
    return made


@pytest.fixture(scope="module")
def done(folder: Path) -> tuple[dict[str, Any], rundir.Run]:
    return invert(folder, output={"ubc": True, "vtk": True})


def residuals(run: rundir.Run) -> tuple[np.ndarray, np.ndarray]:
    """Predicted less observed in mGal, and in uncertainties, at every station."""
    data = run.predicted
    residual = (data["predicted"] - data["observed"]).values[:, 0]
    return residual / MGAL, residual / data["uncertainty"].values[:, 0]


# What is written


def test_files(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    names = {path.name for path in (folder / "out").iterdir()}
    expected = (
        "config.toml",
        "model.nc",
        "predicted.nc",
        "history.csv",
        "summary.json",
        "figures",
        "report.html",
        "model.vtr",
        "model.msh",
        "model.den",
    )
    assert names == set(expected)
    pictures = list((folder / "out" / "figures").glob("*.png"))
    assert {path.stem for path in pictures} == {"survey", "model", "convergence"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert "<html" in (folder / "out" / "report.html").read_text()


def test_summary_in_the_file_is_the_one_returned(done: tuple[dict[str, Any], rundir.Run]) -> None:
    summary, run = done
    assert run.summary == json.loads(json.dumps(summary))
    assert set(rundir.SUMMARY) <= set(summary)


def test_numbers_agree_with_the_predicted_data(done: tuple[dict[str, Any], rundir.Run]) -> None:
    summary, run = done
    mgal, scaled = residuals(run)
    held = run.predicted["holdout"].values == 1
    assert (summary["n_data"], summary["n_holdout"]) == (np.sum(~held), np.sum(held)) == (31, 5)
    assert summary["chi2"] == pytest.approx(np.mean(scaled[~held] ** 2), rel=1e-10)
    assert summary["rms"] == pytest.approx(np.sqrt(np.mean(mgal[~held] ** 2)), rel=1e-10)
    assert summary["residual_std"] == pytest.approx(np.std(mgal[~held]), rel=1e-10)
    assert summary["holdout_rms"] == pytest.approx(np.sqrt(np.mean(mgal[held] ** 2)), rel=1e-10)
    assert summary["holdout_mad"] == pytest.approx(1.4826 * np.median(np.abs(mgal[held] - np.median(mgal[held]))), rel=1e-10)
    assert summary["rms_unit"] == "mGal"
    assert summary["status"] == "converged"
    assert summary["chi2"] <= 1.0


def test_predicted_data_are_those_of_the_model(done: tuple[dict[str, Any], rundir.Run]) -> None:
    """Through choclo's prisms, one by one."""
    _, run = done
    grid = Grid.from_xarray(run.model["density"])
    points = np.stack([run.predicted[name].values for name in grid.dims], axis=1)
    points[:, 0] += run.predicted["raised"].values
    expected = synthetic.prism_field("gz", points, grid, np.nan_to_num(run.model["density"].values))
    np.testing.assert_allclose(run.predicted["predicted"].values[:, 0], expected, rtol=1e-9)


def test_observed_data_are_those_of_the_survey(done: tuple[dict[str, Any], rundir.Run]) -> None:
    for name in ("easting", "northing", "upward", "observed", "uncertainty"):
        np.testing.assert_array_equal(done[1].predicted[name], EXAMPLE.survey[name])


def test_history_agrees_with_the_summary(done: tuple[dict[str, Any], rundir.Run]) -> None:
    summary, run = done
    last = run.history[-1]
    assert [row["iteration"] for row in run.history] == list(range(summary["iterations"] + 1))
    assert last["chi2"] == pytest.approx(summary["chi2"], rel=1e-12)
    assert last["phi_d"] == pytest.approx(summary["chi2"] * summary["n_data"], rel=1e-10)
    zero = (EXAMPLE.survey["observed"] / EXAMPLE.survey["uncertainty"]).values[run.predicted["holdout"].values == 0]
    assert run.history[0]["chi2"] == pytest.approx(np.mean(zero**2), rel=1e-10)


def test_model_is_bounded_below_the_ground_and_nothing_above(done: tuple[dict[str, Any], rundir.Run]) -> None:
    summary, run = done
    density = run.model["density"].values
    assert summary["n_model"] == np.isfinite(density).sum() < density.size
    assert np.nanmin(density) >= -100.0
    assert np.nanmax(density) <= 350.0
    above = np.isnan(density)
    assert not (above[:-1] & ~above[1:]).any()  # no rock on air


def test_model_shows_the_block(done: tuple[dict[str, Any], rundir.Run]) -> None:
    """The centre of mass of what is dense lies within a cell of the block's, horizontally."""
    density = done[1].model["density"].fillna(0.0)
    dense = density.where(density > 0.5 * float(density.max()), 0.0)
    for name, expected in zip(("northing", "easting"), EXAMPLE.block_center[1:], strict=True):
        assert float((dense * density[name]).sum() / dense.sum()) == pytest.approx(expected, abs=200.0)


def test_exports_hold_the_model(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    grid = ubc.read_mesh(folder / "out" / "model.msh")
    np.testing.assert_allclose(ubc.read_model(folder / "out" / "model.den", grid), done[1].model["density"].values, rtol=1e-8, atol=1e-5)


def test_provenance(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    summary = done[0]
    path = str(folder / "stations.nc")
    assert summary["sha256"] == {path: hashlib.sha256(Path(path).read_bytes()).hexdigest()}
    assert summary["seeds"] == {"seed": 5}
    assert {"python", "tensorflow", "geoinv"} <= set(summary["versions"])
    assert summary["seconds"] > 0
    assert summary["peak_memory_bytes"] > 1e8


def test_written_config_runs_again_to_the_same_bits(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    again = gravity_job.invert(load(folder / "out" / "config.toml"), folder / "again", console=Console(file=io.StringIO()))
    second = rundir.read(folder / "again")
    assert second.config == done[1].config
    np.testing.assert_array_equal(second.model["density"], done[1].model["density"])
    np.testing.assert_array_equal(second.predicted["predicted"], done[1].predicted["predicted"])
    assert again["chi2"] == done[0]["chi2"]


def test_report_regenerates(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    from geoinv.report import write

    report = folder / "out" / "report.html"
    before = report.read_bytes()
    report.unlink()
    for path in (folder / "out" / "figures").glob("*.png"):
        path.unlink()
    write(folder / "out")
    assert report.read_bytes() == before
    assert list((folder / "out" / "figures").glob("*.png"))


@pytest.mark.slow
def test_formats_give_the_same_model(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    """The UBC file prints ten digits."""
    _, run = invert(folder, "from-ubc", data={"file": "stations.obs"})
    np.testing.assert_allclose(run.model["density"], done[1].model["density"], atol=0.01)


def test_full_output_is_refused_before_anything_is_read(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    config = parse({**BASIC, "data": {"file": "absent.csv"}}, folder=folder)
    with pytest.raises(ValueError, match="--overwrite"):
        gravity_job.invert(config, folder / "out", console=Console(file=io.StringIO()))


# Options


def test_stations_held_out_are_not_fitted(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    """Data at the held-out stations may be anything: the model does not change by a bit."""
    _, held = surveys.split_holdout(EXAMPLE.survey, 0.15, 5)
    observed = EXAMPLE.survey["observed"].copy(deep=True)
    observed[held] += 1e-3
    netcdf.write(folder / "spoilt.nc", EXAMPLE.survey.assign(observed=observed))
    summary, spoilt = invert(folder, "spoilt", data={"file": "spoilt.nc"})
    np.testing.assert_array_equal(spoilt.model["density"], done[1].model["density"])
    assert summary["holdout_rms"] == pytest.approx(100.0, rel=0.1)
    np.testing.assert_array_equal(np.flatnonzero(spoilt.predicted["holdout"]), held)


def test_trend_solved_for_is_the_constant_that_was_added(folder: Path) -> None:
    """Density cannot imitate a constant far outside the anomaly's size; what little it can is the tolerance."""
    observed = EXAMPLE.survey["observed"] + 2.0 * MGAL
    netcdf.write(folder / "shifted.nc", EXAMPLE.survey.assign(observed=observed))
    options = {"trend": "solve", "trend_degree": 0}
    plain, _ = invert(folder, "unshifted", data=options)
    shifted, run = invert(folder, "shifted", data={"file": "shifted.nc", **options})
    (before,), (after,) = plain["trend_coefficients_mGal"], shifted["trend_coefficients_mGal"]
    assert after - before == pytest.approx(2.0, abs=0.03)  # one datum's uncertainty
    assert shifted["status"] == "converged"
    grid = Grid.from_xarray(run.model["density"])
    points = np.stack([run.predicted[name].values for name in grid.dims], axis=1)
    points[:, 0] += run.predicted["raised"].values
    field = synthetic.prism_field("gz", points, grid, np.nan_to_num(run.model["density"].values))
    np.testing.assert_allclose(run.predicted["predicted"].values[:, 0], field + after * MGAL, atol=1e-12)


@pytest.mark.slow
def test_robust_misfit_withstands_outliers(folder: Path) -> None:
    observed = EXAMPLE.survey["observed"].copy(deep=True)
    observed[[4, 20]] += 3.0 * MGAL
    netcdf.write(folder / "outliers.nc", EXAMPLE.survey.assign(observed=observed))
    changes = {"data": {"file": "outliers.nc"}, "bounds": {"lower": None, "upper": None}}
    _, reference = invert(folder, "clean-huber", bounds=changes["bounds"], inversion={"holdout": 0.0})
    errors = {}
    for misfit in ("l2", "huber"):
        target = {"misfit": misfit, "holdout": 0.0, "target_chi2": 12.0 if misfit == "huber" else 1.0}
        _, run = invert(folder, f"outliers-{misfit}", **changes, inversion=target)
        errors[misfit] = float(np.sqrt(np.nanmean((run.model["density"] - reference.model["density"]) ** 2)))
    assert errors["huber"] < 0.5 * errors["l2"]


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["depth", "none"])
def test_other_weightings_reach_the_target(folder: Path, weighting: str) -> None:
    summary, _ = invert(folder, f"weighting-{weighting}", regularization={"weighting": weighting})
    assert summary["status"] == "converged"


def test_finite_differences_give_the_model_of_the_prisms(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    summary, run = invert(folder, "poisson", operator={"kind": "poisson"})
    assert summary["status"] == "converged"
    expected = done[1].model["density"].values
    difference = np.sqrt(np.nanmean((run.model["density"].values - expected) ** 2))
    assert difference < 0.05 * np.sqrt(np.nanmean(expected**2))
    mgal, _ = residuals(run)
    assert np.abs((run.predicted["predicted"] - done[1].predicted["predicted"]).values).max() / MGAL < 0.05
    assert mgal.std() < 0.05


# Interruption


@pytest.fixture
def process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A long `geoinv invert` of its own, in a process group that Ctrl-C would reach."""
    (folder / "long.toml").write_text(
        f'[data]\nfile = "{folder}/stations.nc"\n[grid]\nspacing = [25.0, 50.0, 50.0]\ndepth = 400.0\nmargin = 200.0\n'
        '[operator]\nkind = "prism"\n[inversion]\ntarget_chi2 = 1e-9\nmax_iterations = 100000\nstagnation = 0.0\n'
    )
    command = [sys.executable, "-u", "-m", "geoinv.cli", "invert", "long.toml", "--output", "interrupted"]
    started = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    yield started
    if started.poll() is None:
        started.kill()
    started.wait()


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"'{text}' never appeared")


def test_interruption_during_iterations_leaves_a_result(folder: Path, process: subprocess.Popen[str]) -> None:
    wait_for(process, "iteration")
    for _ in range(3):
        wait_for(process, " ")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Interrupted after" in out
    run = rundir.read(folder / "interrupted")
    assert run.summary["status"] == "interrupted"
    _, scaled = residuals(run)
    assert run.summary["chi2"] == pytest.approx(np.mean(scaled**2), rel=1e-10)
    assert run.summary["iterations"] == run.history[-1]["iteration"]
    assert (folder / "interrupted" / "report.html").is_file()


@pytest.mark.parametrize("moment", ["survey:", pytest.param("forward operator ...", marks=pytest.mark.slow)])
def test_interruption_during_setup_writes_nothing(folder: Path, process: subprocess.Popen[str], moment: str) -> None:
    shutil.rmtree(folder / "interrupted", ignore_errors=True)
    before = set(folder.iterdir())
    wait_for(process, moment)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert set(folder.iterdir()) == before


@pytest.mark.slow
def test_interruption_of_the_report_keeps_the_result(folder: Path, process: subprocess.Popen[str]) -> None:
    shutil.rmtree(folder / "interrupted", ignore_errors=True)
    wait_for(process, "iteration")
    for _ in range(2):
        wait_for(process, " ")
    process.send_signal(signal.SIGINT)
    wait_for(process, "figures and report ...")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert rundir.read(folder / "interrupted").summary["status"] == "interrupted"
    assert not [path for path in (folder / "interrupted").rglob("*") if path.name.startswith(".")]
