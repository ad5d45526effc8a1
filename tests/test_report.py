"""The output directory, its figures and its report, from a made-up run."""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from geoinv import config, report, rundir
from geoinv.datasets import survey
from geoinv.gravity import figures as gravity_figures
from geoinv.gravity.report import compare_with_truth
from geoinv.operators.grid import Grid

GRID = Grid.uniform((8, 12, 10), (100.0, 100.0, 100.0), (-700.0, 0.0, 0.0)).pad(2)
HISTORY = [
    {"iteration": i, "phi_d": 1e3 / i, "chi2": 7.0 / i, "phi_m": i, "trade_off": 10.0**-i, "cg_iterations": 5 + i, "seconds": 0.5 * i}
    for i in range(1, 5)
]


def blob(center: tuple[float, float, float], peak: float, width: float) -> np.ndarray:
    distances = (((axis - c) / width) ** 2 for axis, c in zip(np.meshgrid(*GRID.centers, indexing="ij"), center, strict=True))
    return peak * np.exp(-sum(distances))


def made_up_model(with_truth: bool = True) -> xarray.Dataset:
    """A blurred body, one cell west of the true block; the top cells lie above the ground."""
    density = blob((-350.0, 600.0, 450.0), 300.0, 200.0)
    truth = np.zeros(GRID.shape)
    up, north, east = (np.abs(axis - c) < 160 for axis, c in zip(GRID.centers, (-350, 600, 550), strict=True))
    truth[np.ix_(up, north, east)] = 400.0
    density[GRID.centers[0] > 50] = np.nan
    fields = {"density": density, "true_density": truth} if with_truth else {"density": density}
    return xarray.Dataset({name: GRID.to_xarray(values, name=name, units="kg/m3") for name, values in fields.items()})


def made_up_survey(n: int = 60, components: tuple[str, ...] = ("gz",), seed: int = 0) -> xarray.Dataset:
    rng = np.random.default_rng(seed)
    observed = {name: 1e-5 * rng.normal(size=n) for name in components}
    stations = survey.make(1e3 * rng.random(n), 1.2e3 * rng.random(n), np.full(n, 150.0), observed, dict.fromkeys(components, 1e-6))
    stations["predicted"] = stations["observed"] + 1e-6 * rng.normal(size=(n, len(components)))
    stations["holdout"] = ("station", (rng.random(n) < 0.1).astype("i1"))
    return stations


def made_up_summary(**changes: Any) -> dict[str, Any]:
    return {
        "status": "stagnated", "reason": "the objective fell by less than 0.001", "iterations": 4, "chi2": np.float64(1.7512), "rms": 0.1234,
        "rms_unit": "mGal", "holdout_rms": math.nan, "holdout_mad": None, "seconds": 12.34, "peak_memory_bytes": 1_500_000_000,
        "n_data": 54, "n_model": np.int64(960), "versions": rundir.versions(), "seeds": {"holdout": 0},
        "sha256": {"stations.csv": "ab" * 32}, "warnings": ["stations <4> and 9 coincide"], **changes,
    }  # fmt: skip


def write_run(directory: Path, **changes: Any) -> None:
    options = config.parse({"data": {"file": "stations.csv"}, "grid": {"spacing": [100, 100, 100]}})
    files = {"config": options, "model": made_up_model(), "predicted": made_up_survey(), "history": HISTORY, "summary": made_up_summary()}
    rundir.write(directory, **{**files, **changes})


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "deep" / "output"
    write_run(rundir.prepare(directory))
    report.write(directory)
    return directory


# ------------------------------------------------------------------------------------------------------ output directory


def test_written_run_reads_back(run_directory: Path) -> None:
    run = rundir.read(run_directory)
    assert config.load(run_directory / "config.toml").grid.spacing == (100, 100, 100)
    assert run.history == HISTORY
    assert run.summary["n_model"] == 960
    assert run.summary["holdout_rms"] is None
    xarray.testing.assert_identical(run.predicted, made_up_survey())
    np.testing.assert_array_equal(run.model["density"], made_up_model()["density"])
    assert Grid.from_xarray(run.model["density"]).padding == GRID.padding


def test_nothing_temporary_is_left(run_directory: Path) -> None:
    names = {str(path.relative_to(run_directory)) for path in run_directory.rglob("*") if path.is_file()}
    expected = {"config.toml", "model.nc", "predicted.nc", "history.csv", "summary.json", "report.html"}
    assert names == expected | {f"figures/{name}.png" for name in ("survey", "model", "convergence")}


def test_prepare_creates_nothing(tmp_path: Path) -> None:
    assert rundir.prepare(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []


def test_prepare_refuses_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"^Invalid 'output' .* --overwrite"):
        rundir.prepare(tmp_path)
    assert rundir.prepare(tmp_path, overwrite=True) == tmp_path
    for path in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "below"):
        with pytest.raises(ValueError, match="Invalid 'output'"):
            rundir.prepare(path, overwrite=True)


def test_prepare_refuses_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(rundir.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"^Invalid 'output' .*: must be writable. Read-only file system"):
        rundir.prepare(tmp_path)


def test_incomplete_summary_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    summary = made_up_summary()
    del summary["chi2"]
    with pytest.raises(ValueError, match="without chi2"):
        write_run(tmp_path / "out", summary=summary)
    with pytest.raises(ValueError, match="Invalid 'status'"):
        write_run(tmp_path / "out", summary=made_up_summary(status="fine"))
    assert not (tmp_path / "out").exists()


def test_summary_is_strict_json(run_directory: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert set(json.loads((run_directory / "summary.json").read_text(), parse_constant=refuse)) >= set(rundir.SUMMARY)


def test_incomplete_directory_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "predicted.nc").unlink()
    with pytest.raises(ValueError, match=r"There is no predicted.nc"):
        report.write(tmp_path)


def test_provenance_helpers() -> None:
    assert rundir.peak_memory_bytes() > 10_000_000
    assert {"geoinv", "numpy", "tensorflow", "python"} <= set(rundir.versions())


# ---------------------------------------------------------------------------------------------------------------- report


def test_report_is_self_contained(run_directory: Path) -> None:
    page = (run_directory / "report.html").read_text()
    assert len(re.findall(r'src="data:image/png;base64,', page)) == len(re.findall(r"src=", page)) == 3
    assert not re.search(r"https?:|<script|<link|href=|url\(|@import", page)


def test_report_says_how_the_run_ended(run_directory: Path) -> None:
    page = (run_directory / "report.html").read_text()
    assert "Stagnated after 4 iterations: chi2 = 1.75, residual rms 0.123 mGal (the objective fell by less than 0.001)." in page
    for text in ("stations.csv", "0.123 mGal", "12.3 s", "1.50 GB", "ab" * 32, "target_chi2 = 1.0", "stations &lt;4&gt; and 9 coincide", "960"):
        assert text in page
    assert "held-out stations" not in page
    assert "Recovered against truth: excess of mass" in page


def test_report_without_truth_or_warnings(tmp_path: Path) -> None:
    write_run(tmp_path, model=made_up_model(with_truth=False), summary=made_up_summary(warnings=[], holdout_rms=0.2, holdout_mad=0.15))
    page = report.write(tmp_path).read_text()
    assert "truth" not in page
    assert "<h2>Warnings" not in page
    assert "0.15 mGal" in page


def test_figures_are_images_of_some_size(run_directory: Path) -> None:
    for name in ("survey", "model", "convergence"):
        image = (run_directory / "figures" / f"{name}.png").read_bytes()
        width, height = (int.from_bytes(image[at : at + 4], "big") for at in (16, 20))
        assert image.startswith(b"\x89PNG")
        assert len(image) > 15_000
        assert min(width, height) > 450


def test_truth_is_compared_in_cells() -> None:
    (record,) = compare_with_truth(made_up_model())
    np.testing.assert_allclose(record["true_center"], (-350, 600, 550), atol=1e-9)
    np.testing.assert_allclose(record["offset_cells"], (0, 0, 1), atol=1e-6)
    assert record["true_peak"] == 400
    assert record["true_mass"] == pytest.approx(400 * (3 * 4 * 3) * 100**3)


def test_truth_of_both_signs_gives_two_records() -> None:
    model = made_up_model()
    model["true_density"][4, 3, 3] = -200.0
    records = compare_with_truth(model)
    assert [record["true_peak"] for record in records] == [400, -200]


# --------------------------------------------------------------------------------------------------------------- figures


def test_components_have_their_own_row_and_unit() -> None:
    figure = gravity_figures.survey_maps(made_up_survey(components=("gz", "gzz")))
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert "gz (mGal)" in labels
    assert "gzz (eotvos)" in labels


def test_sections_pass_through_the_strongest_anomaly_and_state_exaggeration() -> None:
    titles = " | ".join(ax.get_title() for ax in gravity_figures.model_sections(made_up_model()).axes)
    assert "elevation -350 m" in titles
    assert "easting 450 m" in titles
    assert "exaggeration" not in titles
    flat = Grid.uniform((3, 20, 20), (50.0, 500.0, 500.0))
    model = xarray.Dataset({"density": flat.to_xarray(np.ones(flat.shape), name="density")})
    assert "vertical exaggeration 20" in " ".join(ax.get_title() for ax in gravity_figures.model_sections(model).axes)


def test_outline_is_the_border_of_the_mask() -> None:
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 1:3] = True
    segments = gravity_figures.outline(mask, np.arange(5.0), np.arange(4.0))
    assert len(segments) == 6
    assert sum(np.ptp(segment, axis=0).sum() for segment in segments) == 6.0


@pytest.mark.parametrize("n", [1, 2, 5])
def test_small_surveys_are_drawn(n: int, tmp_path: Path) -> None:
    gravity_figures.survey_maps(made_up_survey(n)).savefig(tmp_path / "survey.png")
    assert (tmp_path / "survey.png").stat().st_size > 5_000
