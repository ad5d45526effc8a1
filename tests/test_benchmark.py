"""The benchmark: its figures at toy size, the turns it takes with peers, and its ratios. No timing is asserted."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
Main = Callable[..., int]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def benchmark() -> ModuleType:
    return load("benchmark")


@pytest.fixture
def main(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Main:
    def run(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["benchmark.py", *map(str, arguments)])
        return int(benchmark.main())

    return run


def write_program(path: Path, body: str) -> Path:
    """A peer: it notes its turn in a file, and prints JSON lines by say(metric, value, unit) with the number of its turn at hand."""
    head = f"""
import json, pathlib, sys
log = pathlib.Path({str(path.parent / "turns")!r})
log.open("a").write({path.stem!r} + "\\n")
turn = log.read_text().split().count({path.stem!r})
def say(metric, value, unit, case="made-up", system={path.stem!r}):
    print(json.dumps(dict(case=case, system=system, metric=metric, value=value, unit=unit)))
"""
    path.write_text(head + body)
    return path


@pytest.fixture
def made_up(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A case whose programs, ours and two peers', get better or worse from turn to turn; without TensorFlow."""
    case = benchmark.Case("nowhere", "numbers out of thin air", stock=("stock.py", "argument"), rivals=(("rival.py",),))
    monkeypatch.setattr(benchmark, "CASES", {"made-up": case})
    monkeypatch.setenv("GEOINV_DATA", str(tmp_path / "nowhere"))  # it needs none
    ours = write_program(tmp_path / "ours.py", "say('product', 2.0 / turn, 's', system='geoinv'); say('rms', 0.5, 's', system='geoinv')")
    write_program(
        tmp_path / "stock.py", "assert sys.argv[1:] == ['argument']; print('a note'); say('product', 4.0 + turn, 's'); say('x', 1, 's', 'other')"
    )
    write_program(tmp_path / "rival.py", "say('product', 3.0, 's'); say('rms', 0.7, 's')")
    monkeypatch.setattr(benchmark, "own_command", lambda name, options: [sys.executable, str(ours)])
    return tmp_path


# Figures


def test_our_figures_at_toy_size(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), "sparse-1m", "--json", "--scale", "0.03", "--rounds", "1", "--repeats", "1"]
    done = subprocess.run([*command, "--peers", str(tmp_path)], capture_output=True, text=True, check=True, cwd=tmp_path)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(list(line) == ["case", "system", "metric", "value", "unit"] and line["case"] == "sparse-1m" and line["value"] > 0 for line in lines)
    found = {(line["system"], line["metric"]): line["unit"] for line in lines}
    compared = {f"{kind}-{columns}" for kind in ("product", "transpose") for columns in (1, 8, 32)}
    expected = {("geoinv", "gradient"): "s", ("geoinv", "gradient-memory"): "GB"}
    expected |= {(system, metric): "s" for system in ("geoinv", "scipy") for metric in compared}
    assert found == expected | {("geoinv vs scipy", metric): "times faster" for metric in compared}
    assert f"not compared with stock_tensorflow.py: '{tmp_path / 'stock_tensorflow.py'}' is not there" in done.stderr


@pytest.mark.slow
def test_the_rays_and_gravity_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = load("benchmark_cases")
    monkeypatch.setattr(cases, "LEAST", 0.0)
    figures = {metric: value for _, metric, value, _ in cases.gravity_32k(0.1, 1)}
    assert list(figures) == ["kernel", "jvp", "inversion", "chi2", "peak-memory"] and 0 < figures["chi2"] <= 1
    if "GEOINV_DATA" not in os.environ:
        pytest.skip("the rays need the survey files: set GEOINV_DATA")
    systems: dict[str, set[str]] = {}
    for system, metric, value, _ in cases.sparse_rays(0.01, 1):
        assert value > 0
        systems.setdefault(metric, set()).add(system)
    assert systems["transpose-stacked"] == {"geoinv", "scipy", "scipy-transposed-csr"}
    assert systems["product"] == systems["transpose"] == {"geoinv", "scipy", "tensorflow"}
    assert systems["product-in-function"] == systems["transpose-in-function"] == {"geoinv", "tensorflow"}


def test_sensitivity_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    cases = load("benchmark_sensitivity")
    monkeypatch.setattr(sys.modules["benchmark_cases"], "LEAST", 0.0)
    figures = {metric: value for _, metric, value, _ in cases.jacobians(0.01, 1)}
    assert list(figures) == ["jacobian-few-unknowns", "jacobian-banded", "jacobian-banded-cost", "jacobian-banded-columns"]
    assert figures["jacobian-banded-columns"] > 1
    assert [metric for _, metric, *_ in cases.scan(0.01, 1)] == [
        "gradient-checkpointed-memory",
        "gradient-checkpointed",
        "gradient-memory",
        "gradient",
    ]


def test_the_accumulator_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    cases = load("benchmark_accumulator")
    monkeypatch.setattr(sys.modules["benchmark_cases"], "LEAST", 0.0)
    assert [metric for _, metric, *_ in cases.accumulate_50m(0.001, 1)] == ["step", "extra-memory"]
    figures = {metric: value for _, metric, value, _ in cases.accumulate_windows(0.1, 1)}
    assert list(figures) == ["add-dense", "add-window-32", "add-window-64", "window-gain"] and min(figures.values()) > 0


def test_travel_times_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    cases = load("benchmark_traveltime")
    figures = {metric: value for _, metric, value, _ in cases.refraction_20k(0.03, 1)}
    assert list(figures) == ["inversion", "memory", "chi2", "iterations", "cells", "picks"] and figures["iterations"] == 8
    assert figures["picks"] == 2 * 17 and figures["chi2"] > 0
    assert [metric for _, metric, *_ in cases.eikonal_3d(0.08, 1)] == ["memory", "times", "gradient"]
    if "GEOINV_DATA" not in os.environ:
        pytest.skip("Koenigsee needs the survey files: set GEOINV_DATA")
    found = {metric: value for _, metric, value, _ in cases.koenigsee(0.1, 1)}
    assert found["iterations"] == 2 and 0 < found["rms"] < 2e-3


def test_a_wrong_result_is_no_figure() -> None:
    cases = load("benchmark_cases")
    with pytest.raises(AssertionError):
        list(cases.compare("product", {"geoinv": lambda: [1.0, 2.0], "scipy": lambda: [1.0, 2.1]}, 1))


def test_calls_take_turns() -> None:
    turns: list[str] = []
    cases = load("benchmark_cases")
    times = cases.timed({name: lambda name=name: turns.append(name) for name in "ab"}, 2 * cases.ROW)
    assert turns[: 4 * cases.ROW] == (["a"] * cases.ROW + ["b"] * cases.ROW) * 2 and set(times) == {"a", "b"}


# Peers


def test_peers_take_turns_with_ours(main: Main, made_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("made-up", "--json", "--peers", made_up, "--peer-python", sys.executable, "--rounds", 2) == 0
    assert (made_up / "turns").read_text().split() == ["ours", "stock", "rival"] * 2
    lines = [tuple(json.loads(line).values()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ("made-up", "geoinv", "product", 1.0, "s"),
        ("made-up", "geoinv", "rms", 0.5, "s"),
        ("made-up", "stock", "product", 5.0, "s"),
        ("made-up", "rival", "product", 3.0, "s"),
        ("made-up", "rival", "rms", 0.7, "s"),
        ("made-up", "geoinv vs stock", "product", 5.0, "times faster"),
        ("made-up", "geoinv vs rival", "product", 3.0, "times faster"),
    ]


def test_the_table_for_people(main: Main, made_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("made-up", "--peers", made_up, "--peer-python", sys.executable, "--rounds", 1) == 0
    out, err = capsys.readouterr()
    cells = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in out.splitlines() if line[:1] in "│┃" and line]
    assert cells == [["metric", "geoinv", "rival", "stock"], ["product", "2 s", "3 s  (1.50 x)", "5 s  (2.50 x)"], ["rms", "500 ms", "700 ms", "-"]]
    assert "made-up: round 1 of 1: stock.py ... 0 s" in err


def test_a_peer_that_fails_is_named_once_and_left_out(main: Main, made_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_program(made_up / "stock.py", "say('product', 9.0, 's'); raise SystemExit('no module of that name')")
    assert main("made-up", "--json", "--peers", made_up, "--rounds", 2) == 0
    out, err = capsys.readouterr()
    assert (made_up / "turns").read_text().split() == ["ours", "stock", "ours"]
    assert "stock" not in out
    assert err.count("stock.py ... failed: no module of that name") == 1
    assert "made-up: not compared with rival.py: give the interpreter it is installed for, --peer-python" in err


def test_a_peer_that_cannot_start_is_named_once_and_left_out(main: Main, made_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = made_up / "python"
    python.write_bytes(b"no program")
    python.chmod(0o755)
    assert main("made-up", "--json", "--peers", made_up, "--peer-python", python, "--rounds", 2) == 0
    out, err = capsys.readouterr()
    assert (made_up / "turns").read_text().split() == ["ours", "stock"] * 2
    assert "rival" not in out and '"geoinv vs stock"' in out
    assert err.count("rival.py ... failed: [Errno 8] Exec format error") == 1


def test_peers_do_not_run_at_another_size(main: Main, made_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("made-up", "--peers", made_up, "--peer-python", sys.executable, "--scale", 0.5, "--rounds", 1) == 0
    assert (made_up / "turns").read_text().split() == ["ours"]
    assert "not compared with rival.py: it runs at full size only" in capsys.readouterr().err


def test_our_own_failure_is_a_failure(main: Main, made_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_program(made_up / "ours.py", "raise ValueError('Invalid matrix')")
    assert main("made-up", "--peers", made_up, "--rounds", 1) == 1
    assert "geoinv ... failed: ValueError: Invalid matrix" in capsys.readouterr().err


# Ratios


def test_the_best_of_each_figure(benchmark: ModuleType) -> None:
    lines = [benchmark.Line("c", "s", *figure) for figure in (("t", 2, "s"), ("t", 1, "s"), ("t", 3, "s"), ("w", 5, "Mpt/s"), ("w", 7, "Mpt/s"))]
    lines += [benchmark.Line("c", "s", *figure) for figure in (("chi2", 0.5, "1"), ("chi2", 0.9, "1"), ("rms", 1, "s"), ("rms", 2, "s"))]
    assert [(line.metric, line.value) for line in benchmark.best(lines)] == [("t", 1), ("w", 7), ("chi2", 0.9), ("rms", 2)]


@pytest.mark.parametrize(
    ("unit", "ours", "theirs", "ratio", "meaning"),
    [
        ("s", 0.5, 2.0, 4.0, "times faster"),
        ("s", 2.0, 0.5, 0.25, "times faster"),
        ("GB", 0.2, 2.2, 11.0, "times less memory"),
        ("model sizes", 1.5, 6.0, 4.0, "times less memory"),
        ("Mpt/s", 600.0, 200.0, 3.0, "times faster"),
    ],
)
def test_ratios(benchmark: ModuleType, unit: str, ours: float, theirs: float, ratio: float, meaning: str) -> None:
    lines = [benchmark.Line("c", "geoinv", "m", ours, unit), benchmark.Line("c", "peer", "m", theirs, unit)]
    assert list(benchmark.ratios(lines)) == [benchmark.Line("c", "geoinv vs peer", "m", ratio, meaning)]


def test_what_has_no_ratio(benchmark: ModuleType) -> None:
    """Measures of the fit, figures that only one has, those of another case or in another unit, and nothing at all."""
    ours = (("chi2", 1.0, "1"), ("rms", 1.0, "s"), ("alone", 1.0, "s"), ("unit", 1.0, "s"), ("nothing", 0.0, "GB"), ("case", 1.0, "s"))
    theirs = (("chi2", 2.0, "1"), ("rms", 2.0, "s"), ("unit", 2.0, "GB"), ("nothing", 2.0, "GB"))
    lines = [benchmark.Line("c", "geoinv", *figure) for figure in ours] + [benchmark.Line("c", "peer", *figure) for figure in theirs]
    assert not list(benchmark.ratios([*lines, benchmark.Line("d", "peer", "case", 2.0, "s")]))


# Misuse


def test_an_unknown_case_is_named(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("sparse-1m", "sparse-2m") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Invalid 'CASE' 'sparse-2m': must be one of 'sparse-1m', 'sparse-rays', 'gravity-32k'")


def test_an_unknown_case_to_run_here_is_named(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("--run", "nope") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Invalid '--run' 'nope': must be one of 'sparse-1m'")


def test_an_interpreter_that_cannot_be_run_is_named(main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "python").write_text("not executable")
    assert main("sparse-1m", "--peer-python", tmp_path / "python") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: Invalid '--peer-python' '{tmp_path / 'python'}': must be a Python interpreter that can be run."


def test_no_case_lists_them(main: Main, benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 2
    *listed, line = capsys.readouterr().err.splitlines()
    assert [each.split()[0] for each in listed] == list(benchmark.CASES)
    assert line.startswith("error: Invalid 'CASE' missing")


@pytest.mark.parametrize(
    ("option", "value"), [("--scale", 0), ("--rounds", -1), ("--repeats", 0), ("--peers", "nowhere"), ("--peer-python", "nowhere")]
)
def test_bad_options_are_named(main: Main, option: str, value: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("sparse-1m", option, value) == 2
    assert f"error: Invalid '{option}'" in capsys.readouterr().err


def test_a_case_without_its_data_is_not_run(main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GEOINV_DATA", str(tmp_path))
    assert main("sparse-rays") == 1
    out, err = capsys.readouterr()
    assert (
        not out
        and err
        == f"sparse-rays: not run, '{tmp_path}/australia-rayleigh-5s/sw_tomography.npz' is not there; set GEOINV_DATA to the folder of the data\n"
    )


def test_a_wave_case_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    figures = {metric: (value, unit) for _, metric, value, unit in load("benchmark_waves").wave_memory(0.1, 1)}
    assert {metric: unit for metric, (_, unit) in figures.items()} == {"gradient-memory": "GB", "gradient": "Mpt/s"}
    assert all(value > 0 for value, _ in figures.values())


def test_every_case_has_its_function(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    assert all(callable(getattr(load(case.module), case.function)) for case in benchmark.CASES.values())
