"""Checkpoints, and runs that are killed at any instant and go on to the same bits."""

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from geoinv import checkpoints, resuming, rundir
from geoinv.config import parse
from geoinv.datasets import atomic, netcdf, synthetic, synthetic_picks
from geoinv.gravity import job as gravity_job
from geoinv.traveltime import job as traveltime_job
from geoinv.waveform import inputs as waveform_inputs
from geoinv.waveform import inversion as waveform
from geoinv.waveform import job as waveform_job

QUIET = Console(file=io.StringIO())
CONFIGS: dict[str, dict[str, Any]] = {
    "gravity": {
        "data": {"file": "stations.nc"},
        "grid": {"spacing": [100.0, 200.0, 200.0], "depth": 400.0, "margin": 200.0},
        "inversion": {"max_iterations": 8, "target_chi2": 1e-3, "stagnation": 0.0, "holdout": 0.1},
        "bounds": {"lower": -100.0, "upper": 350.0},
    },
    "traveltime": {
        "kind": "traveltime",
        "data": {"file": "picks.nc"},
        "inversion": {"max_iterations": 10, "target_chi2": 1e-3, "stagnation": 0.0, "holdout": 0.1},
    },
}
#: Two bands, with a fit of the wavelet after every two iterations.
WAVEFORM: dict[str, Any] = {
    "kind": "waveform",
    "data": {"file": "shots.nc"},
    "model": {"file": "start.nc"},
    "source": {"frequency": 7.0, "estimate_every": 2},
    "bands": {"lowpass": [4.0, 6.0], "iterations": [4, 3]},
    "propagator": {"absorbing_cells": 10},
    "inversion": {"regularization": 0.01},
    "bounds": {"lower": 1400.0, "upper": 3600.0},
}
CONFIGS["waveform"] = WAVEFORM
CONFIGS["waveform-adam"] = WAVEFORM | {"inversion": {"optimiser": "adam", "step": 20.0}}
JOBS = {"gravity": gravity_job, "traveltime": traveltime_job, "waveform": waveform_job, "waveform-adam": waveform_job}
SLOW = [pytest.param(kind, marks=() if kind == "traveltime" else pytest.mark.slow) for kind in CONFIGS]


@pytest.fixture(autouse=True)
def _coarse_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoinv.report.DPI", 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Surveys, and a config for each kind."""
    made = tmp_path_factory.mktemp("resume")
    example = synthetic.gravity(seed=3, shape=(5, 8, 8), spacing=(100.0, 150.0, 150.0), stations=(6, 6), noise=3e-7)
    netcdf.write(made / "stations.nc", example.survey)
    netcdf.write(made / "picks.nc", synthetic_picks.refraction(seed=1, receiver_count=20, spacing=3.0, shot_count=5).survey)
    waves = synthetic.waveform(shape=(12, 40), spacing=40.0, shot_count=3, receiver_count=16, frequency=6.0, length=1.4, noise=0.05)
    netcdf.write(made / "shots.nc", waves.survey)
    netcdf.write(made / "start.nc", waves.start)
    for kind, options in CONFIGS.items():
        config = parse(options, folder=made)
        (made / f"{kind}.toml").write_text(resuming.dump_toml(config), encoding="utf-8")
    return made


def whole(folder: Path, kind: str) -> Path:
    """An uninterrupted run."""
    output = folder / f"{kind}-whole"
    if not output.exists():
        JOBS[kind].invert(parse(CONFIGS[kind], folder=folder), output, console=QUIET)  # type: ignore[attr-defined]
    return output


def same(one: Path, other: Path) -> None:
    """Models, predictions and histories of two runs, bit for bit, but for the seconds."""
    first, second = rundir.read(one), rundir.read(other)
    for a, b in ((first.model, second.model), (first.predicted, second.predicted)):
        for name in a.variables:
            np.testing.assert_array_equal(a[name].values, b[name].values)
    assert [{**each, "seconds": 0} for each in first.history] == [{**each, "seconds": 0} for each in second.history]
    assert first.summary["status"] == second.summary["status"]


def no_remains(run: Path) -> None:
    assert not (run / "checkpoints").exists() and not [path for path in run.rglob(".*") if path.is_file()]


def killed(folder: Path, command: list[str], output: Path, after: int, delay: float) -> bool:
    """Whether a process was killed, once so many checkpoints have been made and some seconds later, before it ended."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    own = [sys.executable, "-m", "geoinv.cli", *command]
    process = subprocess.Popen(own, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None:
        made = sorted((output / "checkpoints").glob("[0-9]*.checkpoint"))
        if made and int(made[-1].stem) >= after:
            time.sleep(delay)
            break
        time.sleep(0.002)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def check_kills(folder: Path, kind: str, kills: int, seed: int) -> None:
    random, output, done = np.random.default_rng(seed), folder / f"{kind}-killed-{seed}", 0
    command = ["invert", f"{kind}.toml", "--output", str(output)]
    while done < kills:
        reached = max((int(path.stem) for path in (output / "checkpoints").glob("[0-9]*.checkpoint")), default=-1)
        if not killed(folder, command, output, reached + int(random.integers(1, 4)), float(random.uniform(0, 0.15))):
            break
        done += 1
        command = ["resume", str(output)]
    assert done, "killed once at least"
    if not (output / "summary.json").exists() or (output / "checkpoints").exists():
        resuming.resume(output, QUIET)
    same(output, whole(folder, kind))
    no_remains(output)


@pytest.mark.parametrize("kind", SLOW)
def test_a_killed_run_goes_on_to_the_same_bits(folder: Path, kind: str) -> None:
    check_kills(folder, kind, 1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("seed", range(1, 6))
def test_runs_killed_again_and_again(folder: Path, kind: str, seed: int) -> None:
    check_kills(folder, kind, 4, seed)


@pytest.mark.parametrize("kind", SLOW)
def test_an_interrupted_run_goes_on(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C keeps results and checkpoints."""
    output, save = folder / f"{kind}-interrupted", checkpoints.save

    def interrupting(where: Any, number: int, *rest: Any) -> Path:
        found = save(where, number, *rest)
        if number == 4:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", interrupting)
        summary = JOBS[kind].invert(parse(CONFIGS[kind], folder=folder), output, console=QUIET)  # type: ignore[attr-defined]
    iterations = 3 if kind.startswith("waveform") else 4  # the first model of a second round has a checkpoint of its own
    assert summary["status"] == "interrupted" and summary["iterations"] == iterations and (output / "report.html").is_file()
    resuming.resume(output, QUIET)
    same(output, whole(folder, kind))
    no_remains(output)


@pytest.mark.parametrize("kind", ["waveform", "waveform-adam"])
def test_waveforms_go_on_from_every_checkpoint(folder: Path, kind: str) -> None:
    """Within rounds, at their ends, and between bands: to the same models, wavelets, records and warnings."""
    config = parse(CONFIGS[kind], folder=folder)
    inputs, kept = waveform_inputs.load(config), []  # type: ignore[arg-type]

    def keep(state: waveform.State) -> None:
        arrays, about = state.to_checkpoint()
        kept.append(checkpoints.read(checkpoints.save(folder / f"{kind}-states", len(kept), arrays, about)))

    def run(past: waveform.State | None, watch: waveform.Watch) -> waveform.Outcome:
        return waveform.run(config, inputs, watch, past)  # type: ignore[arg-type]

    outcome = run(None, waveform.Watch(keep=keep))
    assert len(kept) == 11, "two bands of two rounds, 4 + 1 + 3 + 1 iterations and a start each"
    for number, checkpoint in enumerate(kept):
        again: list[Any] = []
        state = waveform.State.of(checkpoint, config, inputs)  # type: ignore[arg-type]
        found = run(state, waveform.Watch(keep=again.append))
        assert len(again) == len(kept) - 1 - number
        assert (found.status, found.reason, found.warnings) == (outcome.status, outcome.reason, outcome.warnings)
        assert [{**each, "seconds": 0} for each in found.records] == [{**each, "seconds": 0} for each in outcome.records]
        for one, other in zip(found.bands, outcome.bands, strict=True):
            for name in ("guess", "diagonal"):
                np.testing.assert_array_equal(getattr(one.round, name), getattr(other.round, name))
            np.testing.assert_array_equal(one.model, other.model)
            np.testing.assert_array_equal(one.objective.wavelet, other.objective.wavelet)
            assert str(one.objective.wave.differentiation) == str(other.objective.wave.differentiation)


def stopped(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose disk is full after some checkpoints."""
    output, replace = folder / name, os.replace

    def full(source: Any, target: Any) -> None:
        if str(target).endswith("000005.checkpoint"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left on device"):
            traveltime_job.invert(parse(CONFIGS["traveltime"], folder=folder), output, console=QUIET)  # type: ignore[arg-type]
    return output


def test_a_full_disk_leaves_the_last_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = stopped(folder, "full", monkeypatch)
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == [f"00000{number}.checkpoint" for number in (2, 3, 4)]
    resuming.resume(output, QUIET)
    same(output, whole(folder, "traveltime"))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["30k", "100k", "280k"])
def test_a_small_disk_is_full(folder: Path, size: str, tmp_path: Path) -> None:
    """At a checkpoint, or when results are written: one line, and the run goes on once there is room. Needs the right to mount."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tmp_path)], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    try:
        command = [sys.executable, "-m", "geoinv.cli", "invert", "traveltime.toml", "--output", str(tmp_path / "run")]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr and ended.stderr.count("\nerror: ") == 1
        assert ended.stderr.splitlines()[-1].startswith("error: [Errno 28] No space left on device; what was there is as it was.")
        assert not [path for path in (tmp_path / "run").rglob(".*") if path.is_file()], "nothing half-written"
        subprocess.run(["mount", "-o", "remount,size=50m", str(tmp_path)], check=True)
        resuming.resume(tmp_path / "run", QUIET)
        same(tmp_path / "run", whole(folder, "traveltime"))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = stopped(folder, "damaged", monkeypatch)
    newest = output / "checkpoints" / "000004.checkpoint"
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes(content)
    with pytest.warns(UserWarning, match="'000004.checkpoint': must be whole. It is damaged. The one before is taken"):
        resuming.resume(output, QUIET)
    same(output, whole(folder, "traveltime"))


def change_machine(about: dict[str, Any]) -> None:
    about["machine"]["tensorflow"] = "1.0"


def change_file(about: dict[str, Any]) -> None:
    about["files"] = dict.fromkeys(about["files"], "another")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (change_machine, r"Invalid 'checkpoint's machine' another in tensorflow \(1.0 then, .* now\): must be the same. Give --allow-different-bits"),
        (change_file, r"Invalid 'checkpoint's files' another in .*picks.nc \(another then, .*\): must be the same. What was inverted so far"),
    ],
)
def test_another_machine_and_other_data_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    output = stopped(folder, change.__name__, monkeypatch)
    newest = checkpoints.latest(output / "checkpoints")
    about = json.loads(json.dumps(newest.about))
    change(about)
    checkpoints.save(output / "checkpoints", newest.number, newest.arrays, about)
    with pytest.raises(ValueError, match=says):
        resuming.resume(output, QUIET)
    if change is change_machine:
        resuming.resume(output, QUIET, allow_different_bits=True)
        same(output, whole(folder, "traveltime"))


def test_what_cannot_go_on_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="traveltime-whole', a run that has ended: must be the output of an inversion that was stopped"):
        resuming.resume(whole(folder, "traveltime"), QUIET)
    with pytest.raises(ValueError, match=r"must be the output of an inversion that was stopped. It has no checkpoints"):
        resuming.resume(tmp_path, QUIET)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="It has no checkpoints"):
        resuming.resume(tmp_path, QUIET)
    (tmp_path / "checkpoints" / "000001.checkpoint").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"'000001.checkpoint': must be whole. It is damaged"):
        resuming.resume(tmp_path, QUIET)
    with pytest.raises(ValueError, match=r"Invalid 'output' .*: must be new or empty. Go on with 'geoinv resume .*', or give another --output"):
        rundir.prepare(tmp_path)


def test_the_command_line_refuses_in_one_line(folder: Path, command_line: Callable[..., tuple[int, list[str], list[str]]]) -> None:
    code, _, errors = command_line("resume", str(whole(folder, "traveltime")))
    assert code == 2 and len(errors) == 1 and errors[0].startswith("error: Invalid 'directory'")


# ---------------------------------------------------------------------------------------------------------------- files


def test_a_checkpoint_reads_back_and_the_last_three_are_kept(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(6):
        checkpoints.save(tmp_path / "some", number, {"model": random.normal(size=(3, number + 1))}, {"number": number, "text": "Königsee"})
    assert [path.name for path in sorted((tmp_path / "some").iterdir())] == [f"00000{number}.checkpoint" for number in (3, 4, 5)]
    found = checkpoints.latest(tmp_path / "some")
    assert found.number == 5 and found.about == {"number": 5, "text": "Königsee"} and found.arrays["model"].shape == (3, 6)
    checkpoints.save(tmp_path / "some", 1, {}, {})
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["000001.checkpoint"], "those of an older run that went further are gone"


#: The digest of what follows is right.
WITHOUT_FORMAT = b'{"sha256": "' + hashlib.sha256(b"xx").hexdigest().encode() + b'", "bytes": 2}\nxx'


@pytest.mark.parametrize("damage", [b"", b"\n", b"{}\nrest", b'{"sha256": 1, "bytes": 2, "format": 1}\nxx', b"\x80\x81\n", WITHOUT_FORMAT])
def test_files_that_are_none_are_damaged(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "000001.checkpoint").write_bytes(damage)
    with pytest.raises(ValueError, match=r"Invalid 'checkpoint' '000001.checkpoint': must be whole"):
        checkpoints.read(tmp_path / "000001.checkpoint")


def test_what_a_killed_process_left_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in (".model-0123456789ab.nc", "sub/.000001-fedcba987654.checkpoint", ".hidden", "model.nc", "sub/.keep-me"):
        (tmp_path / name).write_text("x")
    atomic.sweep(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [".hidden", "model.nc", "sub/.keep-me"]
