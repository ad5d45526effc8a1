"""What `geoinv check` says of a travel-time config, and what the command line refuses."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from geoinv.config import dump_toml, parse
from geoinv.datasets import sgt

from test_traveltime_inputs import UNIT, line, options  # isort: skip

Called = Callable[..., tuple[int, list[str], list[str]]]


def test_check_says_what_was_read_and_does_not_import_tensorflow(tmp_path: Path) -> None:
    """Times of 2 to 12 ms, the median 6 ms: deviations of 0.12 ms and 3 % of each. Seven layers of 100 m/s more each."""
    sgt.write_sgt(tmp_path / "picks.sgt", line())
    config = parse(options(UNIT, {"start": {"top": 1000.0, "bottom": 1700.0}}), folder=tmp_path)
    (tmp_path / "line.toml").write_text(dump_toml(config))
    code = "from geoinv.traveltime import job; print(*job.check(geoinv.config.load('line.toml')), 'tensorflow' in sys.modules, sep='\\n')"
    ended = subprocess.run([sys.executable, "-c", f"import sys, geoinv.config; {code}"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [
        "survey: 11 picks, shots at 1 of 12 sensors, 2 to 12 ms, uncertainty 0.18 to 0.48 ms",
        "grid: 7 x 28 cells of 1 x 1 m (upward, easting), 196 of 196 active",
        "start: 1050 to 1650 m/s",
        "uncertainty set to 0.00012 s + 0.03 of the time",
        "False",
    ]


@pytest.mark.parametrize(("old", "new", "option", "says"), [
    ("12\t11\t0.012\n", "", "", "a file of 11 measurements, as line 15 says. It ends after 10 of them"),
    ("12\t11\t0.012\n", "12\t11", "", "line 27' 2 values: must be 3"),
    ("12\t11\t0.012\n", "13\t11\t0.012\n", "", "line 27' '13': must be the number of a position, 1 to 12"),
    ("12\t11\t0.012\n", "12\t11\t0\n", "", "line 27' a time of 0 s: must be positive"),
    ("", "", "[data]\nfile = 'absent.sgt'\n", "absent.sgt': must be an existing file"),
    ("", "", "[data]\nfile = 'picks.sgt'\n[grid]\nspacings = [1.0, 1.0]\n", "'grid.spacings' (unknown): must be an option that exists"),
])  # fmt: skip
def test_the_command_line_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Called, old: str, new: str, option: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sgt.write_sgt(tmp_path / "picks.sgt", line())
    Path("picks.sgt").write_text(Path("picks.sgt").read_text().replace(old, new))
    Path("bad.toml").write_text('kind = "traveltime"\n' + (option or "[data]\nfile = 'picks.sgt'\n"))
    code, _, (told,) = command_line("invert", "bad.toml")
    assert code == 2 and told.startswith("error: ") and says in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.toml", "picks.sgt"]
