"""The options of a run: their TOML form, their checks, and how mistakes are told.

The options themselves stand in the `config` of each kind, what several have in common here, the one home of each with its default, unit and
meaning: `template` prints them as a commented file, `load` checks a file against those of its kind, and `dump_toml` writes them
back as resolved. Nothing here imports TensorFlow or xarray.
"""

import difflib
import importlib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from geoinv.operators import checks
from geoinv.operators.constants import QUANTITIES

#: What can be inverted; the options and the job of a kind are those of its package, `<kind>.config` and `<kind>.job`.
KINDS = ("gravity", "traveltime", "waveform")

Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Tolerance = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


def _resolve(path: str, info: ValidationInfo) -> str:
    """The path with its environment variables expanded, absolute where the folder of the config file is known."""
    expanded = os.path.expandvars(path)
    unset = re.findall(r"\$\{?(\w+)", expanded)
    if unset:
        raise ValueError(f"a path whose environment variables are set: {unset[0]} is not")
    folder = (info.context or {}).get("folder")
    return str(Path(folder, expanded).resolve()) if folder else expanded


PathText = Annotated[str, Field(min_length=1), AfterValidator(_resolve)]


def _unit_of_length(unit: str) -> str:
    if unit not in QUANTITIES["length"]:
        raise ValueError("one of " + ", ".join(QUANTITIES["length"]))
    return unit


UnitOfLength = Annotated[str, AfterValidator(_unit_of_length)]


def option(default: Any, description: str, *, example: Any = None, needed: bool = False) -> Any:
    """A field of a section. Without a default the template shows `example`, commented out unless the option is `needed`."""
    return Field(default, description=description, json_schema_extra={"example": example, "needed": needed})


class Section(BaseModel):
    """A table of options: immutable, and an unknown one is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GaussNewton(Section):
    """How the model is sought and when the search stops."""

    misfit: Literal["l2", "huber"] = option("l2", "'l2' (least squares) or 'huber' (robust against outliers).")
    huber_threshold: Positive = option(1.345, "Residual, in uncertainties, beyond which Huber's misfit grows linearly.")
    target_chi2: Positive = option(1.0, "Misfit per datum at which to stop: for l2 the mean of (residual / uncertainty)^2.")
    max_iterations: Count = option(20, "Limit of Gauss-Newton iterations.")
    trade_off_ratio: Positive = option(10.0, "First trade-off parameter, relative to the ratio of the largest eigenvalues.")
    cooling_factor: Annotated[float, Field(gt=1)] = option(3.0, "What the trade-off parameter is divided by.")
    cooling_every: Count = option(1, "Iterations between coolings.")
    cg_iterations: Count = option(30, "Limit of conjugate-gradient steps in one iteration.")
    cg_tolerance: Tolerance = option(1e-2, "Relative residual at which conjugate gradients stop.")
    stagnation: Fraction = option(1e-3, "Relative decrease of the misfit an iteration, over three, below which the search has stagnated.")
    holdout: Fraction = option(0.0, "Fraction of the data kept out of the fit, to test it.")


class Sensitivity(Section):
    """What 'geoinv sensitivity' works out."""

    cells: tuple[tuple[float, ...], ...] | None = option(
        None, "Where point-spread functions are shown: positions in m, upward first; below the middle if off.", example=[[-300.0, 500.0, 800.0]]
    )
    enough: Positive = option(0.1, "Directions are sought down to this ratio of what the data tell to what was assumed.")
    products: Annotated[int, Field(ge=2)] = option(500, "Limit of products with the Jacobian and its adjoint for that.")
    investigated: Tolerance = option(0.9, "Part of a change of the reference that may show down to the depth of investigation.")
    samples: Annotated[int, Field(ge=2)] = option(400, "Models drawn for the deviations, which are right to 1 / sqrt(2 samples) of themselves.")


class PriorSensitivity(Sensitivity):
    """What 'geoinv sensitivity' works out where the model term of the inversion is the prior."""

    trade_off: Positive | None = option(None, "Weight of the model term against the data; that of a run's last iteration if off.", example=1.0)


class Config(Section):
    """What the options of every kind of inversion begin with."""

    kind: str
    seed: Annotated[int, Field(ge=0)] = option(0, "Seed of every random choice (hold-out stations, probes).")


def of_kind(kind: Any) -> type[Config]:
    """The options of a kind of inversion."""
    return importlib.import_module(f".{checks.choice('kind', kind, KINDS)}.config", __package__).CONFIG


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a config file; which options there are depends on its `kind`.

    Args:
        path: TOML file.
        overrides: ``section.option=value``, each in place of what the file says; values as in TOML, plain text unquoted.

    Raises:
        ValueError: No such file, not TOML, an unknown option, or a value out of range.
    """
    path = Path(path)
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise checks.invalid("config", f"'{path}'", "a TOML file that can be read", f"{error.strerror}.") from None
    except ValueError as error:  # of syntax or of encoding
        raise checks.invalid("config", f"'{path}'", "TOML", f"{error}.") from None
    return overridden(options, overrides, folder=path.parent.resolve())


def overridden(options: dict[str, Any], overrides: Sequence[str], *, folder: Path | None = None) -> Config:
    """The config of a nested mapping of options, some of them replaced as in `load`."""
    for override in overrides:
        _override(options, override)
    return parse(options, folder=folder)


def parse(options: Mapping[str, Any], *, folder: Path | None = None) -> Config:
    """The config of a nested mapping of options; relative paths are resolved against `folder` where given.

    Its class is that of its `kind`, gravity where it does not say.
    """
    config = of_kind(options.get("kind", "gravity"))
    try:
        return config.model_validate(options, context={"folder": folder})
    except ValidationError as error:
        raise _one_line(error, config) from None


def _override(options: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    *sections, name = path.strip().split(".")
    if not (equals and name):
        raise checks.invalid("--set", f"'{override}'", "of the form section.option=value")
    for section in sections:
        options = options.setdefault(section, {})
        if not isinstance(options, dict):
            raise checks.invalid("--set", f"'{override}'", "of the form section.option=value", f"'{section}' is not a section.")
    try:
        options[name] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        options[name] = text.strip()


def _one_line(error: ValidationError, config: type[Config]) -> ValueError:
    """One of pydantic's complaints in this project's form; those of our own checks go first, for they say the most."""
    found = error.errors()
    first = next((each for each in found if each["type"] == "value_error"), found[0])
    section, path = _locate(first["loc"], config)
    if first["type"] == "extra_forbidden":
        return checks.invalid(path, "(unknown)", "an option that exists", _similar(str(first["loc"][-1]), section))
    message = str(first.get("ctx", {}).get("error", first["msg"]))
    if message.startswith("Invalid '"):
        return ValueError(message)
    if first["type"] == "missing" and isinstance(first["loc"][-1], str):
        return checks.invalid(path, "(missing)", "given")
    expected = _EXPECTED.get(first["type"], message.removeprefix("Input should be "))
    return checks.invalid(path, repr(first["input"]), expected)


#: What to say where pydantic speaks of Python types rather than of the file.
_EXPECTED = {
    "missing": "a list with one entry for each axis",
    "too_long": "a list with one entry for each axis",
    "tuple_type": "a list with one entry for each axis",
    "string_too_short": "not empty",
    "model_type": "a section of options",
}


def _similar(name: str, section: type[Section]) -> str:
    near = difflib.get_close_matches(name, section.model_fields, n=2, cutoff=0.6)
    return f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(section.model_fields)}."


def _locate(loc: tuple[int | str, ...], config: type[Config]) -> tuple[type[Section], str]:
    """The section that holds an offending option, and the option's dotted path (without pydantic's names of union members)."""
    section: type[Section] = config
    names: list[str] = []
    for part in loc:
        names.append(str(part))
        field = section.model_fields.get(str(part))
        if field is None or not _is_section(field.annotation):
            break
        section = field.annotation
    return section, ".".join(names)


def _is_section(annotation: Any) -> TypeGuard[type[Section]]:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def dump_toml(config: Config) -> str:
    """The config as TOML: every option that is set, as resolved."""
    options = config.model_dump(exclude_none=True)
    sections = {name: options.pop(name) for name in list(options) if isinstance(options[name], dict)}
    blocks = ["\n".join(_assignments(options)), *("\n".join([f"[{name}]", *_assignments(table)]) for name, table in sections.items())]
    return "\n\n".join(blocks) + "\n"


def _assignments(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _assignments(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name} = {_literal(value)}"


def _literal(value: Any) -> str:
    """A TOML value; TOML writes strings, numbers, booleans and lists as JSON does."""
    return json.dumps(value, ensure_ascii=False)


def template(kind: str = "gravity") -> str:
    """A commented config of a kind with every option and its default; those that are off by default are commented out."""
    config = of_kind(kind)
    sections = {name: field.annotation for name, field in config.model_fields.items() if _is_section(field.annotation)}
    blocks = [f"# A {kind} inversion for geoinv. Lines of the form '# option = value' are off.", "\n".join(_documented(config))]
    blocks += ["\n".join([f"[{name}]", *_documented(section, name)]) for name, section in sections.items()]
    return "\n\n".join(blocks) + "\n"


def _documented(section: type[Section], name: str = "", prefix: str = "") -> Iterator[str]:
    for option_name, field in section.model_fields.items():
        if _is_section(field.annotation):
            if name:  # the sections of the file itself have their own headings
                yield from _documented(field.annotation, name, f"{prefix}{option_name}.")
            continue
        extra = dict(field.json_schema_extra or {})  # type: ignore[arg-type]
        without_default = field.is_required() or field.default is None
        yield f"# {field.description}"
        off = "# " if without_default and not extra["needed"] else ""
        yield f"{off}{prefix}{option_name} = {_literal(extra['example'] if without_default else field.default)}"
