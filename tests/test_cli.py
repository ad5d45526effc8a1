"""The command line: exit codes, one-line errors, nothing written by mistake; the console's plain form."""

import io
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import geoinv
from geoinv import cli, console
from geoinv.config import Config, template

SUMMARY = {"status": "converged", "reason": "chi2 reached its target", "iterations": 3, "chi2": 0.99, "rms": 0.1, "rms_unit": "mGal"}


class FakeJob(types.ModuleType):
    """Stands in for geoinv.gravity.job, which needs TensorFlow."""

    status = "converged"
    error: Exception | None = None
    called: tuple[Any, ...] = ()

    def check(self, config: Config) -> list[str]:
        warnings.warn("two stations\nat one point", stacklevel=2)
        return [f"target chi2 {config.inversion.target_chi2}", "961 stations"]

    def invert(self, config: Config, output: Path, overwrite: bool, console: Console, cluster: None) -> dict[str, Any]:
        self.called = (config, output, overwrite)
        if self.error:
            raise self.error
        return {**SUMMARY, "status": self.status}


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeJob:
    fake = FakeJob("geoinv.gravity.job")
    monkeypatch.setitem(sys.modules, "geoinv.gravity.job", fake)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lake.toml").write_text(template())
    return fake


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["geoinv", *arguments])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
        warnings.simplefilter("always")
        cli.main()
    return int(ended.value.code or 0)


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_version_and_template(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"geoinv {geoinv.__version__}\n"
    assert run(monkeypatch, "init", "gravity") == 0
    assert capsys.readouterr().out == template()


def test_check_prints_findings_and_warnings_as_lines(monkeypatch: pytest.MonkeyPatch, job: FakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "check", "lake.toml", "--set", "inversion.target_chi2=0.8") == 0
    captured = capsys.readouterr()
    assert captured.out == "target chi2 0.8\n961 stations\n"
    assert captured.err == "warning: two stations at one point\n"


def test_invert_passes_everything_on(monkeypatch: pytest.MonkeyPatch, job: FakeJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "invert", "lake.toml", "--set", "seed=7", "--overwrite") == 0
    config, output, overwrite = job.called
    assert (config.seed, output, overwrite) == (7, Path("lake-output"), True)
    out = capsys.readouterr().out
    assert "Converged after 3 iterations: chi2 = 0.99, residual rms 0.1 mGal" in out
    assert "lake-output/report.html" in out


@pytest.mark.parametrize(("status", "code"), [("interrupted", 130), ("failed", 2)])
def test_a_run_that_ended_early_says_so_by_its_code(monkeypatch: pytest.MonkeyPatch, job: FakeJob, status: str, code: int) -> None:
    job.status = status
    assert run(monkeypatch, "invert", "lake.toml", "--output", "here") == code
    assert job.called[1] == Path("here")


@pytest.mark.parametrize("error", [ValueError("Invalid 'gz' nan:\nmust be finite."), PermissionError(13, "Permission denied", "model.nc")])
def test_mistakes_end_in_one_line_and_2(monkeypatch: pytest.MonkeyPatch, job: FakeJob, capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    job.error = error
    assert run(monkeypatch, "invert", "lake.toml") == 2
    assert str(error).split()[0] in error_line(capsys)
    assert [path.name for path in Path.cwd().iterdir()] == ["lake.toml"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("check", "missing.toml"), "missing.toml"),
        (("check", "lake.toml", "--set", "inversion.iterations=3"), "'inversion.iterations' (unknown)"),
        (("invert", "lake.toml", "--set", "operator.tolerance=7"), "operator.tolerance"),
        (("report", "full"), "There is no config.toml"),
        (("init", "magnetic"), "'gravity'"),
    ],
)
def test_bad_input(
    monkeypatch: pytest.MonkeyPatch, job: FakeJob, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    Path("full").mkdir()
    Path("full", "notes.txt").touch()
    before = sorted(Path.cwd().rglob("*"))
    assert run(monkeypatch, *arguments) == 2
    assert expected in error_line(capsys)
    assert job.called == ()
    assert sorted(Path.cwd().rglob("*")) == before


RECORDS = [
    {"iteration": 1, "phi_d": 1234.5, "chi2": 12.345, "phi_m": 0.5, "trade_off": 1e4, "cg_iterations": 7, "seconds": 1.25},
    {"iteration": 2, "phi_d": 100.0, "chi2": 1.0, "phi_m": 2.5, "trade_off": None, "cg_iterations": 9, "seconds": 2.5},
]


def show(terminal: bool) -> str:
    stream = io.StringIO()
    screen = Console(file=stream, force_terminal=terminal, width=100)
    with console.progress(screen, "near field", total=3) as advance:
        for _ in range(3):
            advance(1)
    with console.IterationTable(screen, console.COLUMNS["gravity"]) as table:
        for record in RECORDS:
            table.add(record)
    return stream.getvalue()


def test_plain_console_prints_one_line_a_record() -> None:
    lines = show(terminal=False).splitlines()
    assert lines[0] == "near field ..."
    assert lines[1].startswith("near field: ")
    assert lines[2].split() == ["iteration", "misfit", "phi_d", "chi2", "phi_m", "trade-off", "CG", "steps", "seconds"]
    assert lines[3].split() == ["1", "1234", "12.345", "0.5", "1e+04", "7", "1.2"]
    assert len(lines) == 5
    assert len({len(line) for line in lines[2:]}) == 1


def test_terminal_gets_a_live_table() -> None:
    text = show(terminal=True)
    assert "\x1b[" in text
    assert "12.345" in text
    assert "3/3" in text
