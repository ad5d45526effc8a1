"""The waveform config: its template, what is accepted, what is refused and how, and how the command line finds its job."""

import re
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from geoinv import cli
from geoinv.config import dump_toml, load, parse, template
from geoinv.gravity.config import GravityConfig
from geoinv.waveform.config import WaveformConfig

MINIMAL: dict[str, Any] = {"kind": "waveform", "data": {"file": "shots.segy"}, "grid": {"spacing": 20}, "model": {"velocity": 1800}}
README = Path(__file__).resolve().parent.parent / "README.md"
#: Options that exclude one another, so that the template's examples of all of them cannot stand together.
EXCLUDED = {"model": {"velocity"}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "line.toml"
    path.write_text(template("waveform"))
    return path


def test_kind_decides_on_the_options(file: Path) -> None:
    assert isinstance(load(file), WaveformConfig)
    assert isinstance(parse(MINIMAL), WaveformConfig)
    assert isinstance(parse({"data": {"file": "a.csv"}, "grid": {"spacing": [1, 1, 1]}}), GravityConfig)
    with pytest.raises(ValueError, match=r"^Invalid 'data.columns' \(unknown\)"):
        parse({**MINIMAL, "data": {"file": "shots.segy", "columns": {"gz": "gz"}}})


def test_template_loads_to_the_defaults(file: Path) -> None:
    assert load(file) == parse({**MINIMAL, "data": {"file": str(file.parent / "shots.segy")}})


def test_template_shows_every_option_and_its_examples_are_valid() -> None:
    options = tomllib.loads(re.sub(r"(?m)^# ([a-z_.]+ = )", r"\1", template("waveform")))
    shown = {name: set(section) for name, section in options.items() if isinstance(section, dict)}
    for name, excluded in EXCLUDED.items():
        for option in excluded:
            del options[name][option]
    options["model"]["density"] = "file"
    options["source"].pop("file")
    options["source"]["wavelet"] = "ormsby"
    config = parse(options)
    fields = {name: set(type(getattr(config, name)).model_fields) for name in shown}
    assert shown == fields
    assert {"data", "grid", "model", "source", "propagator", "bands", "misfit", "inversion", "bounds", "output", "sensitivity"} == set(shown)


def test_the_configs_in_the_readme_are_valid() -> None:
    arrivals, text = re.findall(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert parse(tomllib.loads(arrivals)).kind == "traveltime"
    config = parse(tomllib.loads(text))
    assert isinstance(config, WaveformConfig) and config.bands.lowpass == (4.0, 7.0)


def test_dump_loads_to_the_same(file: Path) -> None:
    config = load(
        file, ["bands.lowpass=[3, 5.5]", "bands.iterations=[4, 8]", "grid.upward=[-2000, 0]", "bounds.upper=upper.nc", "misfit.kind=envelope"]
    )
    again = file.with_name("again.toml")
    again.write_text(dump_toml(config), encoding="utf-8")
    assert load(again) == config
    assert isinstance(config, WaveformConfig)
    assert config.bands.lowpass == (3.0, 5.5)
    assert config.bounds.upper == str(file.parent / "upper.nc")


def test_one_band_needs_no_brackets(file: Path) -> None:
    config = load(file, ["bands.lowpass=4", "bands.iterations=3", "misfit.time_power=1"])
    assert isinstance(config, WaveformConfig)
    assert (config.bands.lowpass, config.bands.iterations, config.misfit.time_power) == ((4.0,), (3,), (1.0,))


def test_cells_may_be_those_of_the_start_model() -> None:
    config = parse({"kind": "waveform", "data": {"file": "shots.nc"}, "model": {"file": "start.nc"}})
    assert isinstance(config, WaveformConfig)
    assert (config.grid.spacing, config.model.file) == (None, "start.nc")


BAD = [
    ("kind=magnetic", "kind", "'gravity', 'traveltime', 'waveform'"),
    ("kind=[]", "kind", "'gravity', 'traveltime', 'waveform'"),
    ("seed=-1", "seed", "greater than or equal to 0"),
    ("data.format=csv", "data.format", "'segy'"),
    ("data.length_units=furlong", "data.length_units", "km"),
    ("data.shot_every=0", "data.shot_every", "greater than or equal to 1"),
    ("data.record_length=0", "data.record_length", "greater than 0"),
    ("data.uncertainty_relative=0", "data.uncertainty_relative", "above zero"),
    ("grid.spacing=-5", "grid.spacing", "greater than 0"),
    ("grid.upward=[0, -3000]", "grid.upward", "strictly increasing"),
    ("grid.easting=[0]", "grid.easting", "one entry for each axis"),
    ("model.velocity=500", "model.velocity", "within the bounds 1000 to 7000"),
    ("model.velocity=nan", "model.velocity", "finite"),
    ("model.file=start.nc", "model", "'velocity' or by a 'file'"),
    ("model.density=file", "model.density_file", "density = 'file'"),
    ("model.density_file=rho.nc", "model.density_file", "density = 'file'"),
    ("model.quantity=ft/s", "model.quantity", "'s2/km2'"),
    ("source.wavelet=klauder", "source.wavelet", "'ricker'"),
    ("source.wavelet=ormsby", "source.corners", "wavelet = 'ormsby'"),
    ("source.wavelet=file", "source.file", "wavelet = 'file'"),
    ("source.corners=[1, 2, 3, 4]", "source.corners", "wavelet = 'ormsby'"),
    ("source.amplitude=0", "source.amplitude", "other than zero"),
    ("propagator.order=3", "propagator.order", "2, 4, 6 or 8"),
    ("data.dimensions=1", "data.dimensions", "2 or 3"),
    ("propagator.absorbing_cells=3", "propagator.absorbing_cells", "greater than or equal to 4"),
    ("bands.lowpass=[5, 4]", "bands.lowpass", "strictly increasing"),
    ("bands.lowpass=low", "bands.lowpass", "number"),
    ("bands.lowpass=[]", "bands.lowpass", "not empty"),
    ("bands.iterations=[5, 5]", "bands.iterations", "each of the 1 bands"),
    ("bands.lowcut=[3, 2]", "bands.lowcut", "strictly increasing"),
    ("bands.rolloff=1", "bands.rolloff", "greater than 1"),
    ("misfit.kind=l1", "misfit.kind", "'crosscorrelation'"),
    ("misfit.farthest_offset=0", "misfit.farthest_offset", "greater than 0"),
    ("inversion.optimiser=newton", "inversion.optimiser", "'lbfgs' or 'adam'"),
    ("inversion.step=0", "inversion.step", "greater than 0"),
    ("inversion.illumination_floor=0", "inversion.illumination_floor", "greater than 0"),
    ("inversion.max_iterations=0", "inversion.max_iterations", "greater than or equal to 1"),
    ("bounds.lower=-1", "bounds.lower", "greater than 0"),
    ("bounds.lower=7000", "bounds", "lower < upper"),
    ("inversion.max_iteration=5", "inversion.max_iteration' (unknown)", "max_iterations"),
    ("propagators.order=4", "propagators' (unknown)", "propagator?"),
]


@pytest.mark.parametrize(("override", "name", "expected"), BAD)
def test_bad_values_are_refused_by_name(file: Path, override: str, name: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r"^Invalid '") as caught:
        load(file, [override])
    message = str(caught.value)
    assert message.startswith(f"Invalid '{name}")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["source.wavelet=ormsby", "source.corners=[4, 2, 20, 30]"], "'source.corners'"),
        (["bands.lowpass=[3, 5]", "bands.lowcut=[2, 3]"], "below the first band's 3 Hz"),
        (["bands.lowpass=[3, 5]", "bands.iterations=[4]"], "each of the 2 bands"),
        (["bands.lowpass=[3, 5]", "misfit.time_power=[1, 1, 0]"], "one number, or one for each of the 2 bands"),
        (["misfit.nearest_offset=500", "misfit.farthest_offset=400"], "larger than nearest_offset"),
        (["source.estimate=false", "source.per_shot=true"], "'source.per_shot' True: must be given only with estimate = true"),
        (["source.estimate=false", "source.estimate_every=2"], "'source.estimate_every'"),
        (["source.wavelet=file", "source.file=w.txt", "source.delay=0.1"], "'source.delay' 0.1: must be given only with a Ricker or Ormsby wavelet"),
        (["inversion.optimiser=adam", "inversion.max_step=9"], "'inversion.max_step'"),
        (["bands.points_per_wavelength=5"], "'bands.points_per_wavelength' 5.0: must be given only with bands.lowpass"),
        (["misfit.top_mute_delay=0.2"], "'misfit.top_mute_delay' 0.2: must be given only with top_mute_velocity"),
    ],
)
def test_options_that_contradict_one_another_are_refused(file: Path, overrides: list[str], expected: str) -> None:
    with pytest.raises(ValueError, match=r"^Invalid '") as caught:
        load(file, overrides)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [("data", r"'data' \(missing\)"), ("model", r"'model' \(missing\)"), ("grid", r"'grid' without cells")],
)
def test_what_must_be_given(missing: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^Invalid {expected}"):
        parse({name: value for name, value in MINIMAL.items() if name != missing})
    with pytest.raises(ValueError, match=r"^Invalid 'model' without a start"):
        parse({**MINIMAL, "model": {}})


class FakeJob(types.ModuleType):
    """Stands in for the module that inverts waveforms."""

    called: tuple[Any, ...] = ()

    def check(self, config: WaveformConfig) -> list[str]:
        return [f"{config.kind}: order {config.propagator.order}"]

    def invert(self, config: WaveformConfig, output: Path, *, overwrite: bool, console: Console, cluster: None) -> dict[str, Any]:
        self.called = (config, output, overwrite)
        return {"status": "converged", "reason": "enough", "iterations": 3, "chi2": 0.99, "rms": 0.1, "rms_unit": "Pa"}


def test_command_line_goes_by_the_kind(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    job = FakeJob("geoinv.waveform.job")
    monkeypatch.setitem(sys.modules, "geoinv.waveform.job", job)
    monkeypatch.chdir(file.parent)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["geoinv", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out

    assert run("init", "waveform") == template("waveform")
    assert run("check", "line.toml", "--set", "propagator.order=8") == "waveform: order 8\n"
    assert "Converged after 3 iterations" in run("invert", "line.toml", "--overwrite")
    config, output, overwrite = job.called
    assert isinstance(config, WaveformConfig)
    assert (output, overwrite) == (Path("line-output"), True)
