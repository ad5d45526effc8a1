"""The config: what is accepted, what is refused and how, and its written forms."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from geoinv.config import Config, dump_toml, load, parse, template

MINIMAL = {"data": {"file": "stations.csv"}, "grid": {"spacing": [100, 200, 200]}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "survey.toml"
    path.write_text(template())
    return path


def test_template_loads_to_the_defaults(file: Path) -> None:
    assert load(file) == parse({"data": {"file": str(file.parent / "stations.csv")}, "grid": {"spacing": [250, 500, 500]}})


def test_template_shows_every_option_and_its_examples_are_valid(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^# ([a-z_.]+ = )", r"\1", template())
    options = tomllib.loads(text)
    options["topography"]["source"] = "file"
    options["grid"].pop("file")
    config = parse(options)
    for name, section in options.items():
        if isinstance(section, dict):
            assert set(section) == set(type(getattr(config, name)).model_fields) - ({"file"} if name == "grid" else set())


def test_dump_loads_to_the_same(file: Path) -> None:
    columns = 'data.columns.gz="Gravité \\"ISO\\""'
    config = load(file, ["bounds.lower=-300", "data.trend_degree=1", columns, "inversion.cg_tolerance=1e-7", "topography.source=flat"])
    again = file.with_name("again.toml")
    again.write_text(dump_toml(config), encoding="utf-8")
    assert load(again) == config
    assert config.data.columns.gz == 'Gravité "ISO"'
    assert config.inversion.cg_tolerance == 1e-7


def test_config_is_immutable() -> None:
    with pytest.raises(ValidationError):
        parse(MINIMAL).inversion.max_iterations = 3  # type: ignore[misc]


def test_overrides_read_as_toml_and_bare_words_as_text(file: Path) -> None:
    config = load(
        file, ["inversion.max_iterations=5", "grid.spacing=[1, 2, 3]", "inversion.misfit=huber", "output.vtk = false", "data.crs='EPSG:4326'"]
    )
    assert config.inversion.max_iterations == 5
    assert config.grid.spacing == (1, 2, 3)
    assert config.inversion.misfit == "huber"
    assert config.output.vtk is False
    assert config.data.crs == "EPSG:4326"


def test_paths_are_relative_to_the_config_and_expand_variables(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOINV_DATA", "/surveys")
    config = load(file, ["data.file=${GEOINV_DATA}/a.csv", "bounds.upper=upper.nc"])
    assert config.data.file == "/surveys/a.csv"
    assert config.bounds.upper == str(file.parent / "upper.nc")
    assert parse(MINIMAL).data.file == "stations.csv"


UNKNOWN = [
    ("inversion.max_iteration=5", "'inversion.max_iteration' (unknown)", "max_iterations"),
    ("data.columns.gzz=x", "'data.columns.gzz' (unknown)", "gz?"),
    ("inverson.misfit=l2", "'inverson' (unknown)", "inversion?"),
    ("output.zzz=1", "'output.zzz' (unknown)", "There are vtk, ubc."),
]
BAD = [
    ("seed=-1", "seed", "greater than or equal to 0"),
    ("kind=magnetic", "kind", "'gravity'"),
    ("data=5", "data", "a section of options"),
    ("data.file=''", "data.file", "not empty"),
    ("data.file=$NOT_SET_ANYWHERE/a.csv", "data.file", "NOT_SET_ANYWHERE is not"),
    ("data.units=furlong", "data.units", "mGal"),
    ("data.positive=sideways", "data.positive", "'down' or 'up'"),
    ("data.format=xls", "data.format", "'csv'"),
    ("data.uncertainty_floor=0", "data.uncertainty_floor", "greater than 0"),
    ("data.uncertainty_relative=-0.1", "data.uncertainty_relative", "greater than or equal to 0"),
    ("data.trend_degree=4", "data.trend_degree", "less than or equal to 3"),
    ("data.trend=solve", "data.trend", "trend_degree"),
    ("data.height=inf", "data.height", "finite"),
    ("grid.spacing=[1, 2]", "grid.spacing", "one entry for each axis"),
    ("grid.spacing=[1, 2, 3, 4]", "grid.spacing", "one entry for each axis"),
    ("grid.spacing=[1, 2, 0]", "grid.spacing", "greater than 0"),
    ("grid.growth=0.5", "grid.growth", "greater than or equal to 1"),
    ("topography.source=file", "topography.file", "source = 'file'"),
    ("operator.tolerance=1", "operator.tolerance", "less than or equal to 0.1"),
    ("operator.kind=fft", "operator.kind", "'poisson' or 'prism'"),
    ("regularization.smoothness=[1, 1, -1]", "regularization.smoothness", "greater than or equal to 0"),
    ("bounds.lower=[]", "bounds.lower", "number"),
    ("inversion.misfit=l3", "inversion.misfit", "'l2' or 'huber'"),
    ("inversion.target_chi2=nan", "inversion.target_chi2", "finite"),
    ("inversion.max_iterations=0", "inversion.max_iterations", "greater than or equal to 1"),
    ("inversion.cooling_factor=1", "inversion.cooling_factor", "greater than 1"),
    ("inversion.holdout=1", "inversion.holdout", "less than 1"),
    ("seed", "--set", "section.option=value"),
    ("seed.x=3", "--set", "'seed' is not a section"),
]


def refusal(file: Path, *overrides: str) -> str:
    with pytest.raises(ValueError, match=r"^Invalid '") as caught:
        load(file, overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert not isinstance(caught.value, ValidationError)
    return message


@pytest.mark.parametrize(("override", "named", "hint"), UNKNOWN)
def test_unknown_options_are_refused_with_close_matches(file: Path, override: str, named: str, hint: str) -> None:
    message = refusal(file, override)
    assert named in message
    assert hint in message


@pytest.mark.parametrize(("override", "name", "expected"), BAD)
def test_bad_values_are_refused_by_name(file: Path, override: str, name: str, expected: str) -> None:
    message = refusal(file, override)
    assert message.startswith(f"Invalid '{name}")
    assert expected in message


def test_crossed_bounds_are_refused(file: Path) -> None:
    assert "lower < upper" in refusal(file, "bounds.lower=5", "bounds.upper=5")


def test_weights_of_zero_only_are_refused(file: Path) -> None:
    assert "above zero" in refusal(file, "regularization.smallness=0", "regularization.smoothness=[0, 0, 0]")


def test_what_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^Invalid 'data.file' \(missing\)"):
        parse({"data": {}, "grid": {"spacing": [1, 1, 1]}})
    with pytest.raises(ValueError, match=r"^Invalid 'grid' without cells"):
        parse({"data": {"file": "a.csv"}, "grid": {}})
    assert isinstance(parse({"data": {"file": "a.csv"}, "grid": {"file": "mesh.msh"}}), Config)


@pytest.mark.parametrize("content", [b"seed = ", b"\xff\xfe", None])
def test_files_that_are_not_toml_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^Invalid 'config' '.*bad.toml'"):
        load(path)
