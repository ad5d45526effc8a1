"""The travel-time job from end to end on small synthetic lines: what it writes, and that the numbers agree with one another."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import xarray
from rich.console import Console

from geoinv import report, rundir
from geoinv.config import load, parse
from geoinv.datasets import netcdf, pick_table, picks, sgt, synthetic_picks
from geoinv.operators import Eikonal, Grid
from geoinv.traveltime import coverage, inputs, job
from geoinv.traveltime import sensitivity as traveltime_sensitivity

QUIET = Console(file=io.StringIO())
#: 5 shots into 20 receivers, 3 m apart, over a weathered layer of about 3.4 m.
EXAMPLE = synthetic_picks.refraction(seed=1, receiver_count=20, spacing=3.0, shot_count=5)
BASIC: dict[str, dict[str, Any]] = {"data": {"file": "picks.nc"}, "inversion": {"holdout": 0.1}}


def settings(folder: Path, **sections: dict[str, Any]) -> Any:
    options = {key: {**BASIC.get(key, {}), **sections.get(key, {})} for key in {**BASIC, **sections}}
    return parse({"kind": "traveltime", "seed": 3, **options}, folder=folder)


def invert(folder: Path, name: str, **sections: dict[str, Any]) -> tuple[dict[str, Any], rundir.Run]:
    config = settings(folder, **sections)
    grid = inputs.load(config).grid
    truth = EXAMPLE.velocity(grid.centers[0][:, None], grid.centers[1])
    return job.invert(config, folder / name, console=QUIET, true_velocity=truth), rundir.read(folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("traveltime")
    netcdf.write(made / "picks.nc", EXAMPLE.survey)
    return made


@pytest.fixture(scope="module")
def done(folder: Path) -> tuple[dict[str, Any], rundir.Run]:
    return invert(folder, "out")


def test_files_and_figures(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    names = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()}
    figures = {f"figures/{name}.png" for name in ("section", "rays", "curves", "residuals", "convergence")}
    tables = {"config.toml", "model.nc", "predicted.nc", "rays.nc", "history.csv", "summary.json", "report.html", "model.vtr"}
    assert names == figures | tables
    html = (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "Recovered against truth" in html and html.count("<figure>") == 5


def test_the_fit_is_what_its_numbers_say(done: tuple[dict[str, Any], rundir.Run]) -> None:
    summary, run = done
    held = run.predicted["holdout"].values == 1
    residual = run.predicted["predicted"].values - run.predicted["observed"].values
    assert summary["status"] == "converged" and summary["chi2"] <= 1 and held.sum() == summary["n_holdout"] == 10
    assert summary["rms"] == pytest.approx(1e3 * np.sqrt(np.mean(residual[~held] ** 2)), rel=1e-9)
    assert summary["holdout_rms"] == pytest.approx(1e3 * np.sqrt(np.mean(residual[held] ** 2)), rel=1e-9)
    assert summary["chi2"] == pytest.approx(np.mean((residual / run.predicted["uncertainty"].values)[~held] ** 2), rel=1e-9)


def test_the_rock_is_found_below_the_weathered_layer(done: tuple[dict[str, Any], rundir.Run]) -> None:
    summary, run = done
    assert summary["velocity_error"] < 0.75 * summary["velocity_error_start"]
    velocity, truth = (run.model[name].values for name in ("velocity", "true_velocity"))
    seen = coverage.seen(run.model)
    rock = truth == synthetic_picks.ROCK
    assert np.median(velocity[seen & ~rock]) < 800 and 2000 < np.median(velocity[seen & rock]) < 3500
    assert np.all(np.isnan(velocity) == np.isnan(truth))


def test_predictions_are_those_of_the_model(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    run, grid = done[1], Grid.from_xarray(done[1].model["velocity"])
    data, active = run.predicted, np.isfinite(run.model["velocity"].values)
    sensors = np.stack([data["upward"].values, data["easting"].values], axis=1)
    shots, number = np.unique(data["shot"].values, return_inverse=True)
    slowness = np.where(active, 1 / run.model["velocity"].values, 1.0)
    operator = Eikonal(grid, sensors[shots], sensors[data["receiver"].values], number, active=active)
    np.testing.assert_allclose(operator(slowness), data["predicted"], rtol=1e-12)


def test_coverage_is_the_length_of_all_ways(done: tuple[dict[str, Any], rundir.Run]) -> None:
    """Times are slowness times length: those of the fitted picks, summed over cells."""
    run, grid = done[1], Grid.from_xarray(done[1].model["velocity"])
    lengths = np.nan_to_num(run.model["coverage"].values) * grid.volumes
    times = np.nansum(lengths / run.model["velocity"].values)
    assert times == pytest.approx(run.predicted["predicted"].values[run.predicted["holdout"].values == 0].sum(), rel=1e-9)
    ways = run.extra["rays"]
    assert set(np.unique(ways["pick"])) == set(np.flatnonzero(run.predicted["holdout"].values == 0))
    drawn = 0.0
    for pick in np.unique(ways["pick"]):
        way = ways.isel(point=ways["pick"].values == pick)
        drawn += np.sum(np.hypot(np.diff(way["easting"]), np.diff(way["upward"])))
    assert drawn == pytest.approx(lengths.sum(), rel=0.1), "thinned, so that corners are cut"


@pytest.mark.parametrize(
    "sections",
    [
        {"regularization": {"parameter": "velocity"}},
        {"regularization": {"parameter": "slowness"}},
        {"regularization": {"shape": "blocky", "reference": 1000.0}},
        {"inversion": {"misfit": "huber"}, "bounds": {"lower": 300.0, "upper": 3000.0}},
        {"grid": {"growth": 1.1, "spacing": [1.0, 2.0], "margin": 7.0, "depth": 25.0}, "output": {"vtk": False}},
        {"operator": {"order": 1, "refinement": 2}},
    ],
    ids=["velocity", "slowness", "blocky", "robust and bounded", "growing cells", "finer nodes"],
)
def test_options_that_find_the_rock_too(folder: Path, sections: dict[str, Any], request: pytest.FixtureRequest) -> None:
    summary, run = invert(folder, f"options-{request.node.callspec.id}", **sections)
    assert summary["status"] == "converged" and summary["chi2"] < 1.3
    seen, rock = coverage.seen(run.model), run.model["true_velocity"].values == synthetic_picks.ROCK
    assert np.median(run.model["velocity"].values[seen & ~rock]) < 800 and 2000 < np.median(run.model["velocity"].values[seen & rock]) < 3500
    velocity = run.model["velocity"].values[np.isfinite(run.model["velocity"].values)]
    bounds = sections.get("bounds", {"lower": 100.0, "upper": 8000.0})
    assert bounds["lower"] * (1 - 1e-9) <= velocity.min() and velocity.max() <= bounds["upper"] * (1 + 1e-9)


def test_robust_weights_withstand_wrong_picks(folder: Path) -> None:
    """A twentieth of the picks a third too late."""
    late = np.random.default_rng(0).permutation(EXAMPLE.survey.sizes["pick"])[:5]
    observed = EXAMPLE.survey["observed"].values.copy()
    observed[late] *= 1.33
    netcdf.write(folder / "late.nc", EXAMPLE.survey.assign(observed=("pick", observed, {"units": "s"})))
    errors, left = [], []
    for misfit in ("huber", "l2"):  # as many iterations: neither reaches its target
        summary, run = invert(folder, f"late-{misfit}", data={"file": "late.nc"}, inversion={"misfit": misfit, "holdout": 0.0, "max_iterations": 4})
        errors.append(summary["velocity_error"])
        left.append(np.sqrt(np.mean((run.predicted["predicted"].values - EXAMPLE.survey["observed"].values)[late] ** 2)))
    assert errors[0] < 0.85 * errors[1] and left[0] < 0.7 * left[1], "the late picks are predicted nearer to what they should have been"


def test_every_format_gives_the_same_model(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    sgt.write_sgt(folder / "picks.sgt", EXAMPLE.survey)
    pick_table.write_csv(folder / "picks.csv", EXAMPLE.survey)
    for name in ("picks.sgt", "picks.csv"):
        config = settings(folder, data={"file": name}, inversion={"holdout": 0.0})
        model = job.build_problem(config, inputs.load(config))
        np.testing.assert_allclose(model.observed, EXAMPLE.survey["observed"], rtol=1e-12)
        np.testing.assert_allclose(model.uncertainty, EXAMPLE.survey["uncertainty"], rtol=1e-12)
        np.testing.assert_allclose(model.operator(model.first), job.build_problem(_whole(folder), inputs.load(_whole(folder))).operator(model.first))


def _whole(folder: Path) -> Any:
    return settings(folder, inversion={"holdout": 0.0})


def test_between_boreholes_below_level_ground(folder: Path) -> None:
    """A fast block between two boreholes 20 m apart, seen by straight and nearly straight waves."""
    depths = -np.arange(1.0, 30.0, 2.0)
    grid = Grid.uniform((64, 56), (0.5, 0.5), (-32.0, -4.0))
    block = (np.abs(grid.centers[0] + 15)[:, None] < 3) & (np.abs(grid.centers[1] - 10) < 3)
    shot, receiver = (each.ravel() for each in np.meshgrid(np.arange(15), 15 + np.arange(15), indexing="ij"))
    easting, upward = np.repeat([0.0, 20.0], 15), np.tile(depths, 2)
    points = np.stack([upward, easting], axis=1)
    times = Eikonal(grid, points[:15], points[receiver], shot)(np.where(block, 1 / 2500, 1 / 2000))
    netcdf.write(folder / "boreholes.nc", picks.make(easting, upward, shot, receiver, times.numpy(), 2e-5))
    config = settings(
        folder,
        data={"file": "boreholes.nc"},
        topography={"source": "flat"},
        grid={"spacing": [1.0, 1.0], "depth": 31.0},
        start={"top": 2000.0, "bottom": 2000.0},
        regularization={"smoothness": [1.0, 1.0]},
        inversion={"holdout": 0.0},
    )
    summary = job.invert(config, folder / "boreholes", console=QUIET)
    velocity = netcdf.read(folder / "boreholes" / "model.nc")["velocity"]
    inside = velocity.sel(upward=slice(-17, -13), easting=slice(8, 12)).mean()
    assert summary["chi2"] < 1.2 and 2250 < inside < 2600
    assert abs(velocity.sel(upward=slice(-28, -24), easting=slice(2, 18)).mean() - 2000) < 60


def test_a_sensitivity_target_is_the_problem_at_its_model(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    config = settings(folder)
    made = traveltime_sensitivity.target(config, done[1], QUIET)
    problem = job.build_problem(config, inputs.load(config))
    velocity = done[1].model["velocity"].values[made.active]
    np.testing.assert_allclose(np.exp(-made.model[made.active]), velocity, rtol=1e-12)
    at, v = problem.operator.linearize(tf.constant(-np.log(velocity))), tf.constant(np.random.default_rng(0).normal(size=velocity.size))
    np.testing.assert_allclose(made.at.jvp(v), at.jvp(v), rtol=1e-9)
    np.testing.assert_allclose(made.weights, problem.uncertainty.numpy() ** -2.0, rtol=1e-12)
    trade_off = done[1].history[-1]["trade_off"]
    np.testing.assert_allclose(made.prior.precision @ v.numpy(), trade_off * problem.regularization.curvature(problem.first).matvec(v), rtol=1e-9)


def test_a_blocky_target_has_the_weights_of_its_model(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    config = settings(folder, regularization={"shape": "blocky"})
    made, problem = traveltime_sensitivity.target(config, done[1], QUIET), job.build_problem(config, inputs.load(config))
    curvature = problem.regularization.curvature(tf.constant(made.model[made.active])).to_scipy()
    np.testing.assert_allclose(made.prior.precision.toarray(), done[1].history[-1]["trade_off"] * curvature.toarray(), rtol=1e-12)


def test_reports_do_without_ways(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    shutil.copytree(folder / "out", folder / "no-ways")
    (folder / "no-ways" / "rays.nc").unlink()
    assert report.write(folder / "no-ways").is_file()


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({}, "Invalid 'sensitivity.trade_off' off"),
        ({"regularization": {"smallness": 0.0}, "sensitivity": {"trade_off": 1.0}}, "Invalid 'regularization.smallness' 0"),
    ],
)
def test_sensitivity_needs_a_prior(folder: Path, sections: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        traveltime_sensitivity.target(settings(folder, **sections), None, QUIET)


def test_sensitivity_refuses_a_model_of_another_line(folder: Path, done: tuple[dict[str, Any], rundir.Run]) -> None:
    turned = EXAMPLE.survey["easting"].values
    survey = EXAMPLE.survey.assign_coords(easting=("sensor", 0.8 * turned, {"units": "m"}), northing=("sensor", 0.6 * turned, {"units": "m"}))
    netcdf.write(folder / "oblique.nc", survey)
    with pytest.raises(ValueError, match="along another line than the config's picks"):
        traveltime_sensitivity.target(settings(folder, data={"file": "oblique.nc"}), done[1], QUIET)


def test_the_command_line(
    folder: Path,
    tmp_path: Path,
    done: tuple[dict[str, Any], rundir.Run],
    monkeypatch: pytest.MonkeyPatch,
    command_line: Callable[..., tuple[int, list[str], list[str]]],
) -> None:
    shutil.copy(folder / "picks.nc", tmp_path)
    (tmp_path / "line.toml").write_text('kind = "traveltime"\nseed = 3\n[data]\nfile = "picks.nc"\n[inversion]\nholdout = 0.1\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code, out, _ = command_line("invert", "line.toml")
    assert code == 0 and any("Converged after" in text for text in out)
    assert load(tmp_path / "line-output" / "config.toml").kind == "traveltime"
    model = netcdf.read(tmp_path / "line-output" / "model.nc")
    xarray.testing.assert_identical(model["velocity"], done[1].model["velocity"])
