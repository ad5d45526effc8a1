"""Time this project's cases in turn with its peers, and print the figures and how many times faster or smaller ours are.

python scripts/benchmark.py sparse-1m gravity-32k --peer-python path/to/peers/bin/python

Machines are noisy, so figures are only worth what was measured beside them: ours and each peer run in turns, every run in a process
of its own (its peak memory is its own), and each figure is the best of its rounds. The work itself is in benchmark_cases.py.
"""

import argparse
import importlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from rich.console import Console
from rich.table import Table

from geoinv.operators import checks

ROOT = Path(__file__).resolve().parent.parent
OURS = "geoinv"
#: Which of two figures is the better one, and what a ratio of them says, by unit.
BETTER = {"s": (min, "times faster"), "Mpt/s": (max, "times faster"), "GB": (min, "times less memory"), "model sizes": (min, "times less memory")}
#: Metrics that say how good the result is, not what it costs: they have no ratio, in whatever unit.
QUALITY = ("chi2", "rms", "iterations", "cells", "reflection")


@final
@dataclass(frozen=True)
class Line:
    """One figure, as a line of JSON."""

    case: str
    system: str
    metric: str
    value: float
    unit: str

    @property
    def comparable(self) -> bool:
        """Whether less, or more, of it is better."""
        return self.unit in BETTER and self.base not in QUALITY

    @property
    def base(self) -> str:
        """The metric without its variant, which stands in brackets: variants of ours are held against the one figure of a peer."""
        return self.metric.partition(" (")[0]


@final
@dataclass(frozen=True)
class Case:
    """What is run under one name.

    Args:
        function: In the module.
        about: What it is, in a line.
        stock: A peer's script and arguments, for this very interpreter (stock TensorFlow).
        rivals: Peers' scripts and arguments, for the interpreter of the peers; {data} stands for the path of `data`.
        data: The file it needs, in the folder of data.
        module: Beside this script.
    """

    function: str
    about: str
    stock: tuple[str, ...] = ()
    rivals: tuple[tuple[str, ...], ...] = ()
    data: str = ""
    module: str = "benchmark_cases"


#: Each runs both wave cases; lines of the other one are left out.
WAVE_PEERS = ("wave_deepwave.py",), ("wave_devito.py",)
#: Written here, for the peers' scripts have no case in three dimensions.
OWN_PEER = (str(ROOT / "scripts" / "peer_deepwave_3d.py"),)
STOCK_SENSITIVITY = str(ROOT / "scripts" / "peer_tensorflow_sensitivity.py")
STOCK_WAVE = str(ROOT / "scripts" / "peer_tensorflow_wave.py")
CASES = {
    "sparse-1m": Case("sparse_1m", "1M x 1M matrix of 9 diagonals: products and gradient", stock=("stock_tensorflow.py", "sparse")),
    "sparse-rays": Case("sparse_rays", "a real ray-path matrix with long-tailed rows", data="australia-rayleigh-5s/sw_tomography.npz"),
    "gravity-32k": Case("gravity_32k", "40 x 40 x 20 cells, 1600 stations, inverted", rivals=(("gravity_simpeg.py", "gravity-32k"),)),
    "gravity-131k": Case("gravity_131k", "64 x 64 x 32 cells, 2500 stations, inverted", rivals=(("gravity_simpeg.py", "gravity-131k"),)),
    "wave-400": Case(
        "wave_400", "acoustic, 400 x 400 cells, 500 steps, 4 shots", ("stock_tensorflow.py", "wave-xla"), WAVE_PEERS, module="benchmark_waves"
    ),
    "wave-1000": Case("wave_1000", "acoustic, 1000 x 1000 cells, 200 steps, 2 shots", (), WAVE_PEERS, module="benchmark_waves"),
    "wave-memory": Case("wave_memory", "the gradient of wave-400 in little memory", (STOCK_WAVE, "memory"), module="benchmark_waves"),
    "wave-tangent": Case("wave_tangent", "a Jacobian product of wave-400, forward mode", (STOCK_WAVE, "tangent"), module="benchmark_waves"),
    "jacobian": Case("jacobians", "few unknowns, and a band of 100 000 rows", (STOCK_SENSITIVITY, "jacobian"), module="benchmark_sensitivity"),
    "planner": Case("planner", "every way to a derivative, predicted and measured", module="benchmark_planner"),
    "scan": Case("scan", "the gradient of 2000 steps of one's own", (STOCK_SENSITIVITY, "scan"), module="benchmark_sensitivity"),
    "koenigsee": Case(
        "koenigsee",
        "refraction, 714 real picks, inverted",
        rivals=(("traveltime_pygimli.py", "{data}"),),
        data="koenigsee-refraction/koenigsee.sgt",
        module="benchmark_traveltime",
    ),
    "refraction-20k": Case("refraction_20k", "19 600 picks, 79 000 cells, 8 iterations", module="benchmark_traveltime"),
    "eikonal-3d": Case("eikonal_3d", "times and gradient, 100 x 100 x 100 cells, 20 shots", module="benchmark_traveltime"),
    "accumulate-50m": Case(
        "accumulate_50m",
        "8 gradients of 50M parameters, accumulated and applied",
        ("stock_tensorflow.py", "accumulate"),
        module="benchmark_accumulator",
    ),
    "accumulate-windows": Case("accumulate_windows", "gradients of windows of 512 x 512 x 512 cells", module="benchmark_accumulator"),
    "traveltime-workers": Case("traveltime_workers", "times of 100 shots and products, two workers against one core", module="benchmark_cluster"),
    "waveform-workers": Case("waveform_workers", "the gradient of 16 shots, two workers against one core", module="benchmark_cluster"),
    "wave-3d": Case("wave_3d", "acoustic, 150 x 150 x 150 cells, 300 steps, 2 shots", (), (OWN_PEER,), module="benchmark_waves"),
}


def main() -> int:
    options = parse()
    try:
        check(options)
    except ValueError as error:
        say(f"error: {error}")
        return 2
    if options.run:
        return run_here(options)
    outcomes = [run_case(name, options) for name in options.cases]
    return 0 if any(outcomes) and None not in outcomes else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="; ".join(f"{name}: {case.about}" for name, case in CASES.items()))
    parser.add_argument("--json", action="store_true", help="print lines of JSON only, the ratios last")
    parser.add_argument("--rounds", type=int, default=2, help="how many times ours and the peers take turns (default: 2)")
    parser.add_argument("--repeats", type=int, default=5, help="least number of timings of each call within a round (default: 5)")
    parser.add_argument("--peers", type=Path, help="folder of the peers' scripts (default: $GEOINV_PEERS, or ../shared/peers beside the project)")
    parser.add_argument("--peer-python", type=Path, help="interpreter of the environment where the peers are installed")
    parser.add_argument("--scale", type=float, default=1.0, help="shrink every case, to try things out; peers run at full size only")
    parser.add_argument("--run", metavar="CASE", help=argparse.SUPPRESS)  # one case in this process: how this script calls itself
    return parser.parse_args()


def check(options: argparse.Namespace) -> None:
    """Everything that can be wrong with the options, before anything runs."""
    if options.run:
        checks.choice("--run", options.run, tuple(CASES))
    elif not options.cases:
        for name, case in CASES.items():
            say(f"  {name:14} {case.about}")
        raise checks.invalid("CASE", "missing", "one or more of those above")
    for name in options.cases:
        checks.choice("CASE", name, tuple(CASES))
    for name in ("rounds", "repeats", "scale"):
        checks.positive(f"--{name}", getattr(options, name))
    if options.peers and not options.peers.is_dir():
        raise checks.invalid("--peers", f"'{options.peers}'", "an existing folder")
    if options.peer_python and not (options.peer_python.is_file() and os.access(options.peer_python, os.X_OK)):
        raise checks.invalid("--peer-python", f"'{options.peer_python}'", "a Python interpreter that can be run")


# ------------------------------------------------------------------------------------------------------------ one case


def run_here(options: argparse.Namespace) -> int:
    """Run one of our cases in this process and print its lines."""
    case = CASES[options.run]
    function = getattr(importlib.import_module(case.module), case.function)
    for system, metric, value, unit in function(options.scale, options.repeats):
        print(json.dumps(asdict(Line(options.run, system, metric, float(f"{value:.5g}"), unit))), flush=True)
    return 0


def run_case(name: str, options: argparse.Namespace) -> bool | None:
    """Run a case and its peers in turns and print the outcome: True if it ran, False if it could not, None if it failed."""
    data = data_folder() / CASES[name].data
    if CASES[name].data and not data.is_file():
        say(f"{name}: not run, '{data}' is not there; set GEOINV_DATA to the folder of the data")
        return False
    commands = {OURS: own_command(name, options), **peer_commands(name, options)}
    lines = list(best(take_turns(name, commands, options.rounds)))
    show(name, lines, options.json)
    return True if any(line.system == OURS for line in lines) else None


def data_folder() -> Path:
    return Path(os.environ.get("GEOINV_DATA", ROOT.parent / "shared" / "data"))


def own_command(name: str, options: argparse.Namespace) -> list[str]:
    return [sys.executable, __file__, "--run", name, "--scale", str(options.scale), "--repeats", str(options.repeats)]


def peer_commands(name: str, options: argparse.Namespace) -> dict[str, list[str]]:
    """The commands of the peers that are there; those that are not are named."""
    default = Path(os.environ.get("GEOINV_PEERS", ROOT.parent / "shared" / "peers"))
    folder, commands = options.peers or default, {}
    for python, script in ((Path(sys.executable), CASES[name].stock), *((options.peer_python, rival) for rival in CASES[name].rivals)):
        lacks = script and missing(folder / script[0], python, options.scale)
        if lacks:
            say(f"{name}: not compared with {script[0]}: {lacks}")
        elif script:
            data = str(data_folder() / CASES[name].data)
            commands[script[0]] = [str(python), str(folder / script[0]), *(each.format(data=data) for each in script[1:])]
    return commands


def missing(script: Path, python: Path | None, scale: float) -> str:
    """What keeps a peer from running, or nothing."""
    if not script.is_file():
        return f"'{script}' is not there, give --peers or GEOINV_PEERS"
    if python is None:
        return "give the interpreter it is installed for, --peer-python"
    return "it runs at full size only, without --scale" if scale != 1 else ""


def take_turns(case: str, commands: dict[str, list[str]], rounds: int) -> Iterator[Line]:
    """The lines of every command in turn, A B A B; one that fails is named and left out from then on."""
    left = dict(commands)
    for number in range(rounds):
        for label, command in list(left.items()):
            began = time.perf_counter()
            say(f"{case}: round {number + 1} of {rounds}: {label} ...", end=" ")
            try:
                yield from (line for line in execute(command) if line.case == case)
                say(f"{time.perf_counter() - began:.0f} s")
            except (RuntimeError, OSError) as error:  # it said so, or could not even be started
                say(f"failed: {error}")
                del left[label]


def execute(command: list[str]) -> list[Line]:
    """Run a command and read the figures that it prints."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "GEOINV_DATA": str(data_folder())}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **quiet})
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return [Line(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith('{"case"')]


# ---------------------------------------------------------------------------------------------------- figures and ratios


def best(lines: Iterable[Line]) -> Iterator[Line]:
    """The best figure of each system and metric, in the order of their first appearance; the last where none is better."""
    kept: dict[tuple[str, str, str], Line] = {}
    for line in lines:
        key = (line.case, line.system, line.metric)
        rivals = [kept[key], line] if key in kept and line.comparable else [line]
        kept[key] = BETTER.get(line.unit, (min,))[0](rivals, key=lambda each: each.value)
    yield from kept.values()


def ratios(lines: Iterable[Line]) -> Iterator[Line]:
    """How many times better our figures are than each system's, above 1 where ours is the better one."""
    lines = list(lines)
    for own, line in itertools.product((line for line in lines if line.system == OURS), lines):
        if line.system == OURS or (own.case, own.base, own.unit) != (line.case, line.metric, line.unit) or not line.comparable:
            continue
        better, meaning = BETTER[line.unit]
        larger, smaller = (line.value, own.value) if better is min else (own.value, line.value)
        if smaller > 0:
            yield Line(line.case, f"{OURS} vs {line.system}", own.metric, round(larger / smaller, 3), meaning)


def show(name: str, lines: list[Line], as_json: bool) -> None:
    if as_json:
        for line in [*lines, *ratios(lines)]:
            print(json.dumps(asdict(line)), flush=True)
    elif lines:
        console = Console()
        console.width = console.width if console.is_terminal else 160  # a file has room for the whole table
        console.print(f"\n{name}: {CASES[name].about}. In brackets: how many times faster, or smaller in memory, {OURS} is.", highlight=False)
        console.print(table(lines))


def table(lines: list[Line]) -> Table:
    """Metrics down, systems across, and behind each figure of theirs the ratio to ours."""
    made = Table("metric")
    systems = sorted({line.system for line in lines}, key=lambda system: (system != OURS, system))
    for system in systems:
        made.add_column(system, justify="right")
    figures = {(line.metric, line.system): quantity(line.value, line.unit) for line in lines}
    compared = {(ratio.metric, ratio.system.removeprefix(f"{OURS} vs ")): f"  ({ratio.value:#.3g} x)" for ratio in ratios(lines)}
    for line in lines:
        for metric, system in ((line.metric, each) for each in systems if (line.metric, each) in compared):
            figures.setdefault((metric, system), figures.get((line.base, system), ""))
    for metric in dict.fromkeys(line.metric for line in lines):
        made.add_row(metric, *(figures.get((metric, system), "-") + compared.get((metric, system), "") for system in systems))
    return made


def quantity(value: float, unit: str) -> str:
    """A figure with its unit, as a person would write it."""
    scaled = {"s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")), "GB": ((1.0, "GB"), (1e-3, "MB"))}.get(unit, ((1.0, unit),))
    factor, name = next((each for each in scaled if abs(value) >= each[0]), scaled[-1])
    return f"{value / factor:.3g}" + (f" {name}" if name != "1" else "")


def say(message: str, end: str = "\n") -> None:
    print(message, file=sys.stderr, end=end, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
