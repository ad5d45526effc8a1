"""What `geoinv check` says of a travel-time config, and what the command line refuses."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoinv.config import dump_toml, parse
from geoinv.datasets import netcdf, sgt

from test_traveltime_inputs import UNIT, hill, line, loaded, options  # isort: skip

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


@pytest.mark.parametrize(("section", "says"), [
    ({"data": {"time_units": "ms"}}, "Invalid 'data.time_units' given: must be off for sgt files"),
    ({"data": {"columns": {"time": "t"}}}, "Invalid 'data.columns.time' given: must be off for sgt files"),
    ({"data": {"uncertainty_absolute": 0.0, "uncertainty_relative": 0.0}}, "uncertainty_relative' 0: must be above zero, one of them"),
])  # fmt: skip
def test_options_that_do_not_apply_are_refused(tmp_path: Path, section: dict[str, dict[str, Any]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        loaded(tmp_path, line(), section)


@pytest.mark.parametrize(("name", "dim", "value", "says"), [
    ("uncertainty", "pick", -1.0, "Invalid 'uncertainty' -1 at pick 2"),
    ("observed", "pick", np.nan, "Invalid 'observed' nan at pick 2"),
    ("northing", "sensor", np.nan, "Invalid 'northing' nan at sensor 2"),
])  # fmt: skip
def test_values_of_a_file_are_looked_at_before_they_are_used(tmp_path: Path, name: str, dim: str, value: float, says: str) -> None:
    survey = line().copy(deep=True)
    survey[name].values[2] = value
    netcdf.write(tmp_path / "picks.nc", survey)
    with pytest.raises(ValueError, match=says):
        loaded(tmp_path, None, {"data": {"file": "picks.nc"}})


def test_buried_shots_are_no_ground_and_that_is_said(tmp_path: Path) -> None:
    """Shots 2 m below the level of geophones 2 m apart, half-way between two of them."""
    easting, upward = np.append(np.arange(0.0, 21.0, 2.0), 9.0), np.append(np.zeros(11), -2.0)
    found = loaded(tmp_path, line(easting, upward), UNIT)
    assert found.active.all() and "1 of 12 places of sensors lie below drops of more than 60 degrees" in found.warnings[0]
    np.testing.assert_array_equal(found.survey["upward"], upward)


def test_ground_of_another_place_is_refused_or_said(tmp_path: Path) -> None:
    def at(easting: list[float], upward: list[float]) -> tuple[str, ...]:
        return loaded(tmp_path, line(), UNIT, hill(tmp_path, easting, upward)).warnings

    with pytest.raises(ValueError, match=r"'topography.file' .* from 1000 to 1100 m: must be of the ground along the line"):
        at([1000.0, 1100.0], [0.0, 0.0])
    assert "does not cover the line, 0 to 20 m: it is level beyond" in at([0.0, 10.0], [0.0, 0.0])[0]
    assert "All sensors lie 500 m or more below the ground" in at([0.0, 20.0], [500.0, 500.0])[0]
    assert at([0.0, 20.0, 300.0], [0.0, 0.0, 300.0]) == () and loaded(tmp_path, None, UNIT, hill(tmp_path, [0, 30, 300], [0, 0, 300])).grid.shape == (
        7,
        28,
    )


def test_a_shot_and_its_receiver_that_are_moved_to_one_place_are_refused(tmp_path: Path) -> None:
    survey = line(np.append(np.arange(0.0, 21.0, 2.0), 8.0), np.append(np.zeros(11), 0.5), observed=np.full(11, 0.01))
    with pytest.raises(ValueError, match="Invalid 'receiver' 4 at pick 4: must be at another place than the shot"):
        loaded(tmp_path, survey, UNIT, hill(tmp_path, [0.0, 20.0], [0.0, 0.0]))


def test_a_slope_has_the_same_depth_and_gradient_everywhere(tmp_path: Path) -> None:
    easting = np.append(np.arange(0.0, 21.0, 2.0), 9.0)
    found = loaded(tmp_path, line(easting, easting), {"grid": {"spacing": [0.5, 0.5], "depth": 8.0}})
    assert found.grid.edges[0][0] == pytest.approx(-8.0) and found.grid.edges[0][-1] == pytest.approx(20.0)
    for column in (10, 25, 40):
        depth = np.clip(found.grid.centers[1][column], 0, 20) - found.grid.centers[0]
        below = (depth > 0) & (depth < 8)
        np.testing.assert_allclose(found.start[below, column], 500 + 4500 * depth[below] / 8, rtol=1e-12)
    assert found.steepness() == pytest.approx(1.0)
