"""Bad input through the real command line: one line on standard error, exit code 2, no traceback, and nothing written."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from geoinv import cli, config
from geoinv.datasets import netcdf, ubc
from geoinv.datasets import survey as surveys
from geoinv.gravity import inputs as gravity_inputs
from geoinv.operators.grid import Grid

HEADER = "easting,northing,upward,gz,uncertainty"
MESH = "8 8 4\n-200 -200 10\n8*200\n8*200\n4*100\n"
CONFIG = """
[data]
file = "stations.csv"
[grid]
spacing = [100.0, 200.0, 200.0]
depth = 400.0
"""


def rows(count: int = 5) -> list[list[str]]:
    """Stations on a square array, as the cells of a table."""
    places = [(200.0 * i, 200.0 * j) for j in range(count) for i in range(count)]
    return [[f"{x:g}", f"{y:g}", "1", f"{np.sin(x + 2 * y):.4f}", "0.1"] for x, y in places]


def table(cells: list[list[str]], header: str = HEADER) -> str:
    return "\n".join([header, *(",".join(row) for row in cells)]) + "\n"


def edited(column: str, value: str, row: int = 7) -> str:
    """The table with one cell changed."""
    cells = rows()
    cells[row][HEADER.split(",").index(column)] = value
    return table(cells)


def observations(cells: list[list[str]], announced: int | None = None) -> str:
    return "\n".join([str(announced or len(cells)), *(" ".join(row) for row in cells)]) + "\n"


def survey(**changes: np.ndarray) -> xarray.Dataset:
    """The stations as a survey in SI, some of its values replaced."""
    x, y, z, gz, uncertainty = np.array(rows(), float).T
    made = surveys.make(x, y, z, {"gz": gz * 1e-5}, {"gz": uncertainty * 1e-5})
    for name, values in changes.items():
        made[name] = (made[name].dims, values)
    return made


def model(value: float) -> xarray.Dataset:
    grid = Grid.uniform((4, 8, 8), (100.0, 200.0, 200.0), origin=(-390.0, -200.0, -200.0))
    return grid.to_xarray(np.full(grid.shape, value), name="density", units="kg/m3").to_dataset()


@dataclass(frozen=True)
class Case:
    """Something wrong: what changes in the folder, what is said of it."""

    expected: tuple[str, ...]
    options: tuple[str, ...] = ()
    files: dict[str, str | bytes | Callable[[Path], None]] = field(default_factory=dict)
    config: str = CONFIG


def hole(name: str) -> str:
    return f"{table(rows())[:-1]}\n\n1,2,{name},0.1\n"


def nc(**changes: np.ndarray) -> dict[str, str | bytes | Callable[[Path], None]]:
    return {"s.nc": lambda path: netcdf.write(path, survey(**changes))}


def one(index: int, value: float) -> np.ndarray:
    values = np.full((25, 1), 1e-6)
    values[index] = value
    return values


GEOGRAPHIC = "longitude,latitude,upward,gz,uncertainty\n1,8,0,0.2,0.1\n2,8,0,0.3,0.1\n1,9,0,0.2,0.1\n"
NC, UBC, MESHED = "data.file=s.nc", "data.file=s.obs", "grid.file=m.msh"
CASES = {
    # The config
    "no config": Case(("config", "'c.toml'", "No such file"), config=""),
    "malformed TOML": Case(("config", "TOML"), config="[data\nfile = 3"),
    "unknown option": Case(("'inversion.max_iteration' (unknown)", "max_iterations"), config=CONFIG + "[inversion]\nmax_iteration = 3\n"),
    "unknown section": Case(("'inverzion' (unknown)",), config=CONFIG + "[inverzion]\nmax_iterations = 3\n"),
    "wrong type": Case(("inversion.max_iterations", "'many'"), ("inversion.max_iterations='many'",)),
    "fraction of an iteration": Case(("inversion.max_iterations",), ("inversion.max_iterations=2.5",)),
    "unknown unit": Case(("data.units", "'furlong/s2'", "mGal"), ("data.units=furlong/s2",)),
    "bounds crossed": Case(("bounds", "lower < upper"), ("bounds.lower=5.0", "bounds.upper=-5.0")),
    "bounds equal": Case(("bounds", "lower < upper"), ("bounds.lower=5", "bounds.upper=5")),
    # The survey's file
    "missing file": Case(("absent.csv", "an existing file"), ("data.file=absent.csv",)),
    "folder in place of a file": Case(("an existing file",), ("data.file=.",)),
    "missing column": Case(
        ("column", "'gravity'", "is not there"), ("data.columns={gz='gravity',easting='easting',northing='northing',upward='upward'}",)
    ),
    "no gz": Case(("column", "component"), files={"stations.csv": table(rows(), "easting,northing,upward,g,uncertainty")}),
    "no height": Case(("upward",), files={"stations.csv": table(rows(), "easting,northing,z,gz,uncertainty")}),
    "NaN": Case(("line 9", "gz", "must be a number"), files={"stations.csv": edited("gz", "nan")}),
    "infinite": Case(("line 9", "gz", "a finite number"), files={"stations.csv": edited("gz", "-inf")}),
    "NaN coordinate": Case(("line 9", "easting", "must be a number"), files={"stations.csv": edited("easting", "NaN")}),
    "blank": Case(("line 9", "upward", "must be a number"), files={"stations.csv": edited("upward", "")}),
    "text": Case(("line 9", "'high'", "a finite number"), files={"stations.csv": edited("gz", "high")}),
    "short row": Case(("line 27", "cells"), files={"stations.csv": table(rows()) + "1,2\n"}),
    "negative uncertainty": Case(("uncertainty", "-1e-06 at station 7", "not negative"), files={"stations.csv": edited("uncertainty", "-0.1")}),
    "zero uncertainty": Case(("uncertainty", "1 of 25", "uncertainty_floor"), files={"stations.csv": edited("uncertainty", "0")}),
    "no uncertainty": Case(("uncertainty", "uncertainty_floor"), files={"stations.csv": table([row[:4] for row in rows()], HEADER[:-12])}),
    "empty survey": Case(("stations.csv", "no rows"), files={"stations.csv": HEADER + "\n"}),
    "empty file": Case(("stations.csv", "empty"), files={"stations.csv": ""}),
    "binary file": Case(("stations.csv",), files={"stations.csv": bytes(range(256)) * 8}),
    "no CRS for longitude": Case(("crs", "projected"), files={"stations.csv": GEOGRAPHIC}),
    "geographic CRS": Case(("crs", "projected, in metres"), ("data.crs=EPSG:4326",)),
    "unknown CRS": Case(("crs", "EPSG:999999"), ("data.crs=EPSG:999999",)),
    "latitude out of range": Case(("latitude", "degrees"), ("data.crs=EPSG:32610",), files={"stations.csv": GEOGRAPHIC.replace("8,", "98,")}),
    "no CRS for the reduction": Case(("data.crs", "latitude"), ("data.reduction=disturbance",)),
    "wrong count": Case(("line 1", "announces 26", "25"), (UBC,), {"s.obs": observations(rows(), 26)}),
    "count of zero": Case(("line 1", "'0'"), (UBC,), {"s.obs": "0\n"}),
    "UBC text": Case(("line 3", "'x'"), (UBC,), {"s.obs": "2\n0 0 0 1 1\nx 0 0 1 1\n"}),
    "netCDF without variables": Case(("survey", "observed"), (NC,), {"s.nc": lambda path: netcdf.write(path, xarray.Dataset())}),
    "netCDF without uncertainty": Case(("uncertainty",), (NC,), {"s.nc": lambda path: netcdf.write(path, survey().drop_vars("uncertainty"))}),
    "netCDF of another kind": Case(("survey", "observed"), (NC,), {"s.nc": lambda path: netcdf.write(path, model(1.0))}),
    "not netCDF": Case(("s.nc", "netCDF"), (NC,), {"s.nc": "a,b\n1,2\n"}),
    "netCDF with NaN": Case(("observed gz", "nan", "station 4", "finite"), (NC,), nc(observed=one(4, np.nan))),
    "netCDF with infinity": Case(("observed gz", "inf", "station 4", "finite"), (NC,), nc(observed=one(4, np.inf))),
    "netCDF with negative uncertainty": Case(("uncertainty gz", "station 4", "not negative"), (NC,), nc(uncertainty=one(4, -1e-6))),
    "netCDF with zero uncertainty": Case(("uncertainty", "1 of 25", "uncertainty_floor"), (NC,), nc(uncertainty=one(4, 0.0))),
    "netCDF with text": Case(("observed",), (NC,), nc(observed=np.full((25, 1), "high"))),
    "netCDF without stations": Case(("0 stations",), (NC,), {"s.nc": lambda path: netcdf.write(path, survey().isel(station=slice(0)))}),
    "netCDF in mGal": Case(
        ("unit", "mGal", "m/s2"), (NC,), {"s.nc": lambda path: netcdf.write(path, survey().assign_coords(unit=("component", ["mGal"])))}
    ),
    "netCDF of another shape": Case(
        ("observed", "over ('station', 'component')"), (NC,), {"s.nc": lambda path: netcdf.write(path, survey().isel(component=0))}
    ),
    "netCDF without gz": Case(
        ("gz",), (NC,), {"s.nc": lambda path: netcdf.write(path, survey().assign_coords(component=["gzz"], unit=("component", ["1/s2"])))}
    ),
    # The grid, the ground and the bounds
    "outside the grid": Case(("stations", "outside the grid"), (MESHED,), {"m.msh": MESH.replace("8*200\n8*200", "8*200\n8*100")}),
    "below the grid": Case(("stations", "grid"), (MESHED,), {"m.msh": MESH.replace("-200 -200 10", "-200 -200 900")}),
    "negative width": Case(("m.msh, line 4", "'-200'", "positive"), (MESHED,), {"m.msh": MESH.replace("8*200\n4", "-200 7*200\n4")}),
    "zero width": Case(("m.msh, line 3", "'8*0'", "positive"), (MESHED,), {"m.msh": MESH.replace("10\n8*200", "10\n8*0")}),
    "too few widths": Case(("m.msh", "19 cell widths"), (MESHED,), {"m.msh": MESH.replace("4*100", "3*100")}),
    "mesh missing": Case(("m.msh", "an existing file"), (MESHED,)),
    "mesh that is a survey": Case(("UBC-GIF tensor mesh",), ("grid.file=stations.csv",)),
    "top below the stations": Case(("top",), ("grid.top=-500.0",)),
    "buried station": Case(
        ("stations", "more than a cell below the ground", "400"),
        ("topography.source=file", "topography.file=t.csv"),
        {"t.csv": table([[x, y, "401" if (x, y) == ("400", "400") else "1"] for x, y, *_ in rows()], "easting,northing,upward")},
    ),
    "topography missing": Case(("t.csv", "an existing file"), ("topography.source=file", "topography.file=t.csv")),
    "topography of text": Case(
        ("t.csv, line 2", "a finite number"), ("topography.source=file", "topography.file=t.csv"), {"t.csv": "easting,northing,upward\n1,2,high\n"}
    ),
    "topography without CRS": Case(
        ("crs",),
        ("topography.source=file", "topography.file=t.csv", "topography.columns={longitude='lon',latitude='lat',upward='z'}"),
        {"t.csv": "lon,lat,z\n1,2,3\n2,3,4\n"},
    ),
    "bounds of files crossed": Case(
        ("bounds", "lower 100, upper 50"),
        ("bounds.lower=l.nc", "bounds.upper=u.nc", MESHED),
        {"m.msh": MESH, "l.nc": lambda path: netcdf.write(path, model(100.0)), "u.nc": lambda path: netcdf.write(path, model(50.0))},
    ),
    "bound of a file crossing a number": Case(
        ("bounds", "lower 1000, upper 50"),
        ("bounds.lower=l.den", "bounds.upper=50.0", MESHED),
        {"m.msh": MESH, "l.den": "1.0\n" * 256},
    ),
    "bounds of another size": Case(("l.den", "255 values", "256 cells"), ("bounds.lower=l.den", MESHED), {"m.msh": MESH, "l.den": "1.0\n" * 255}),
    "bounds of another shape": Case(
        ("l.nc", "of shape (5, 10, 10)"), ("bounds.lower=l.nc",), {"l.nc": lambda path: netcdf.write(path, model(1.0).isel(upward=slice(1)))}
    ),
    "bounds on another grid": Case(
        ("l.nc", "northing", "cells of the grid"),
        ("bounds.lower=l.nc", MESHED),
        {"m.msh": MESH.replace("-200 -200 10", "-200 -250 10"), "l.nc": lambda path: netcdf.write(path, model(1.0))},
    ),
    "bounds without density": Case(("l.nc", "density"), ("bounds.lower=l.nc",), {"l.nc": lambda path: netcdf.write(path, survey())}),
    "bounds that are air": Case(("bounds.lower", "finite"), ("bounds.lower=l.den", MESHED), {"m.msh": MESH, "l.den": "-100\n" * 256}),
    "bounds missing": Case(("absent.nc", "an existing file"), ("bounds.lower=absent.nc",)),
    # What the stations cannot carry
    "trend of too many terms": Case(
        ("degree", "Lower the degree"), ("data.trend_degree=1",), {"stations.csv": table([row for row in rows() if row[1] == "0"])}
    ),
    "trend to solve for with too many terms": Case(
        ("degree", "Lower the degree"), ("data.trend_degree=1", "data.trend=solve"), {"stations.csv": table([row for row in rows() if row[1] == "0"])}
    ),
    "nothing left to fit": Case(("fraction", "leave a station"), ("inversion.holdout=0.9",), {"stations.csv": table(rows()[:1])}),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stations.csv").write_text(table(rows()))
    (tmp_path / "c.toml").write_text(CONFIG)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["geoinv", *arguments])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
        warnings.simplefilter("default")
        cli.main()
    return int(ended.value.code or 0)


def write(folder: Path, case: Case) -> tuple[str, ...]:
    """Lay out the case's files; the command-line options that choose them."""
    if case.config:
        (folder / "c.toml").write_text(case.config)
    else:
        (folder / "c.toml").unlink()
    for name, content in case.files.items():
        if callable(content):
            content(folder / name)
        else:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return tuple(word for option in case.options for word in ("--set", option))


def assert_one_line(err: str, expected: tuple[str, ...]) -> None:
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for part in expected:
        assert part in err


@pytest.mark.parametrize("command", ["check", "invert"])
@pytest.mark.parametrize("name", CASES)
def test_one_line_and_nothing_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, command: str
) -> None:
    case = CASES[name]
    options = write(folder, case)
    before = sorted(folder.rglob("*"))
    assert run(monkeypatch, command, "c.toml", *options, *(("--output", "out") if command == "invert" else ())) == 2
    assert_one_line(capsys.readouterr().err, case.expected)
    assert sorted(folder.rglob("*")) == before


OUTPUTS = {
    "below a file": "stations.csv/out",
    "a file": "stations.csv",
    "full": ".",
    "not writable": "/proc/out",
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_output_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str) -> None:
    before = sorted(folder.rglob("*"))
    assert run(monkeypatch, "invert", "c.toml", "--output", OUTPUTS[name]) == 2
    assert_one_line(capsys.readouterr().err, ("output",))
    assert sorted(folder.rglob("*")) == before


ODD = {
    "single station": table(rows()[:1]),
    "one line of stations": table([row for row in rows() if row[1] == "0"]),
    "diagonal line of stations": table([row for row in rows() if row[0] == row[1]]),
    "two stations": table(rows()[:2]),
    "a cell's extent": table([["0", "0", "1", "0.1", "0.1"], ["50", "0", "1", "0.1", "0.1"], ["0", "50", "1", "0.2", "0.1"]]),
    "windows file": table(rows()).replace("\n", "\r\n"),
    "heights far apart": edited("upward", "350"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_surveys_that_are_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (folder / "stations.csv").write_text(ODD[name])
    assert run(monkeypatch, "check", "c.toml") == 0
    captured = capsys.readouterr()
    assert "stations, " in captured.out
    assert captured.err == ""


def test_duplicates_are_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "stations.csv").write_text(table([*rows(), rows()[3]]))
    assert run(monkeypatch, "check", "c.toml") == 0
    captured = capsys.readouterr()
    said = [line for line in (captured.out + captured.err).splitlines() if line.startswith("warning: ")]
    assert said == ["warning: 1 stations repeat the exact position of another; the first pair is stations 3 and 25."]


def test_mesh_with_its_grid_is_good(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What the bad meshes and bounds above are changed from passes."""
    (folder / "m.msh").write_text(MESH)
    netcdf.write(folder / "l.nc", model(-50.0))
    ubc.write_model(folder / "u.den", ubc.read_mesh(folder / "m.msh"), np.full((4, 8, 8), 50.0))
    assert run(monkeypatch, "check", "c.toml", "--set", MESHED, "--set", "bounds.lower=l.nc", "--set", "bounds.upper=u.den") == 0
    assert "4 x 8 x 8 cells" in capsys.readouterr().out


@pytest.mark.parametrize("mesh", ["8 8 1\n-200 -200 10\n8*200\n8*200\n400\n", "8 1 4\n-200 -200 10\n8*200\n1600\n4*100\n"], ids=["layer", "profile"])
def test_mesh_one_cell_wide_is_inverted(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mesh: str) -> None:
    (folder / "m.msh").write_text(mesh)
    options = (MESHED, "operator.kind=prism", "inversion.max_iterations=1")
    assert run(monkeypatch, "invert", "c.toml", "--output", "out", *(word for option in options for word in ("--set", option))) == 0
    assert capsys.readouterr().err == ""
    assert (folder / "out" / "summary.json").is_file()


@pytest.mark.parametrize("name", ["no config", pytest.param("NaN", marks=pytest.mark.slow), "outside the grid"])
def test_in_a_process_of_its_own(folder: Path, name: str) -> None:
    options = write(folder, CASES[name])
    before = sorted(folder.rglob("*"))
    command = [sys.executable, "-m", "geoinv.cli", "invert", "c.toml", *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONWARNINGS": "default"})
    assert ended.returncode == 2
    assert_one_line(ended.stderr, CASES[name].expected)
    assert sorted(folder.rglob("*")) == before


def _netcdf(folder: Path, spoil: Callable[[Any], None]) -> Path:
    made = surveys.make([0.0, 100.0, 200.0, 300.0], [0.0, 50.0, 0.0, 80.0], [1.0] * 4, {"gz": [1e-5] * 4}, {"gz": [1e-6] * 4})
    spoil(made)
    netcdf.write(folder / "s.nc", made)
    (folder / "c.toml").write_text(
        '[data]\nfile = "s.nc"\nuncertainty_floor = 0.1\ntrend_degree = 0\n[grid]\nspacing = [50.0, 100.0, 100.0]\n[topography]\nsource = "flat"\n'
    )
    return folder / "c.toml"


@pytest.mark.parametrize(("name", "value", "expected"), [("uncertainty", -1e-6, "uncertainty gz"), ("observed", np.nan, "station 2")])
def test_values_of_a_netcdf_survey_are_checked_before_anything_is_done_to_them(tmp_path: Path, name: str, value: float, expected: str) -> None:
    def spoil(made: Any) -> None:
        made[name][2, 0] = value

    with pytest.raises(ValueError, match=f"{expected}.*1 of 4 stations"):
        gravity_inputs.load(config.load(_netcdf(tmp_path, spoil)))
