"""What a gravity inversion is told: every option with its default, unit and meaning, and its TOML form.

The models below are the one home of the options: `template` prints them as a commented file, `load` checks a file against
them, and `dump_toml` writes them back as resolved. Nothing here imports TensorFlow or xarray.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from geoinv.operators import checks
from geoinv.operators.constants import QUANTITIES

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


def _unit_of_gravity(unit: str) -> str:
    if unit not in QUANTITIES["acceleration"]:
        raise ValueError("one of " + ", ".join(QUANTITIES["acceleration"]))
    return unit


def _unit_of_length(unit: str) -> str:
    if unit not in QUANTITIES["length"]:
        raise ValueError("one of " + ", ".join(QUANTITIES["length"]))
    return unit


def option(default: Any, description: str, *, example: Any = None, needed: bool = False) -> Any:
    """A field of a section. Without a default the template shows `example`, commented out unless the option is `needed`."""
    return Field(default, description=description, json_schema_extra={"example": example, "needed": needed})


class Section(BaseModel):
    """A table of options: immutable, and an unknown one is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PointColumns(Section):
    """The columns of a CSV file that hold positions; the option's own name where not given."""

    easting: str | None = option(None, "Column of the easting, m.", example="easting")
    northing: str | None = option(None, "Column of the northing, m.", example="northing")
    upward: str | None = option(None, "Column of the height, m, positive up.", example="upward")
    longitude: str | None = option(None, "Column of the longitude, degrees; used with a crs in place of easting.", example="longitude")
    latitude: str | None = option(None, "Column of the latitude, degrees.", example="latitude")


class StationColumns(PointColumns):
    """The columns of a CSV file of gravity stations."""

    gz: str | None = option(None, "Column of the observed gravity.", example="gz")
    uncertainty: str | None = option(None, "Column of its standard deviation, in the same units.", example="uncertainty")


class Data(Section):
    """Where the stations are and what their file means."""

    file: PathText = option(..., "File of stations; relative to this config, ${VARIABLES} expanded.", example="stations.csv", needed=True)
    format: Literal["auto", "csv", "ubc", "netcdf"] = option("auto", "'csv', 'ubc' (GIF observations), 'netcdf', or 'auto' by the file's ending.")
    columns: StationColumns = option(StationColumns(), "")
    units: Annotated[str, AfterValidator(_unit_of_gravity)] = option(
        "mGal", "Units of gravity in the file ('mGal', 'uGal', 'gu', 'm/s2'; netCDF is always SI) and of the floor below."
    )
    positive: Literal["down", "up"] = option("down", "Direction in which the file counts gravity: 'down' (an excess of mass is positive) or 'up'.")
    crs: str | None = option(None, "Projected reference system; needed where the file gives longitude and latitude.", example="EPSG:32610")
    length_units: Annotated[str, AfterValidator(_unit_of_length)] = option("m", "Units of the coordinates of a CSV file: 'm', 'km' or 'ft'.")
    delimiter: str | None = option(None, "What separates the columns of a CSV file; found out if off.", example=";")
    drop_missing: bool = option(False, "Leave out the rows of a CSV file with blanks instead of refusing them.")
    uncertainty_floor: Positive | None = option(
        None, "Smallest uncertainty, in 'units'; where the file has none, plus the relative part.", example=0.1
    )
    uncertainty_relative: Weight = option(0.0, "Where the file has no uncertainty, a fraction of |observed| added to the floor.")
    reduction: Literal["none", "disturbance", "bouguer"] = option(
        "none", "Of absolute gravity: 'disturbance' subtracts normal gravity (needs a crs), 'bouguer' also the slab below each station."
    )
    bouguer_density: Positive = option(2670.0, "Density of that slab, kg/m3.")
    trend_degree: Annotated[int, Field(ge=0, le=3)] | None = option(
        None, "Degree of the regional polynomial, 0 (a shift) to 3; none if off.", example=1
    )
    trend: Literal["remove", "solve"] = option("remove", "'remove' fits the trend to the data first; 'solve' estimates it with the model.")
    height: float = option(0.0, "Height of the sensor above that of the file, m, which is then taken for the ground's.")

    @model_validator(mode="after")
    def _degree_to_solve_for(self) -> "Data":
        if self.trend == "solve" and self.trend_degree is None:
            raise checks.invalid("data.trend", "'solve'", "given with the 'trend_degree' to solve for", "Add trend_degree = 0 for a shift.")
        return self


class GridOptions(Section):
    """The cells of the model: a UBC mesh file, or cells of one size around the stations."""

    file: PathText | None = option(None, "UBC tensor mesh; takes the place of the options below.", example="mesh.msh")
    spacing: tuple[Positive, Positive, Positive] | None = option(
        None, "Cell size along (vertical, northing, easting), m.", example=[250.0, 500.0, 500.0], needed=True
    )
    margin: Weight | None = option(None, "Distance from the outermost stations to the edge of the grid, m; 3 cells if off.", example=1500.0)
    depth: Positive | None = option(None, "Depth of the grid below the lowest station, m; half the smaller extent if off.", example=5000.0)
    top: float | None = option(None, "Top of the grid, m above the datum; just above the ground if off.", example=1000.0)
    growth: Annotated[float, Field(ge=1)] = option(1.0, "Ratio of the thickness of a cell to that of the one above it.")
    uniform_depth: Weight = option(0.0, "Depth below the lowest station at which growth starts, m.")

    @model_validator(mode="after")
    def _one_definition(self) -> "GridOptions":
        if self.file is None and self.spacing is None:
            raise checks.invalid(
                "grid", "without cells", "given by 'spacing' or by a mesh 'file'", "Add spacing = [250.0, 500.0, 500.0], for instance."
            )
        return self


class Topography(Section):
    """The ground, above which cells carry no density."""

    source: Literal["flat", "stations", "file"] = option(
        "stations", "'flat' (every cell is ground), 'stations' (through the stations' heights) or 'file'."
    )
    file: PathText | None = option(None, "Points or grid of ground heights.", example="topography.csv")
    columns: PointColumns = option(PointColumns(), "")
    crs: str | None = option(None, "Projected reference system of a file with longitude and latitude; the data's if off.", example="EPSG:32610")

    @model_validator(mode="after")
    def _file_where_needed(self) -> "Topography":
        if (self.source == "file") != (self.file is not None):
            raise checks.invalid("topography.file", self.file or "not given", "given if and only if source = 'file'")
        return self


class OperatorOptions(Section):
    """How gravity is computed from density."""

    kind: Literal["poisson", "prism"] = option("poisson", "'poisson' (finite differences) or 'prism' (analytic and dense; small surveys only).")
    tolerance: Annotated[float, Field(ge=1e-3, le=0.1)] = option(1e-2, "Accuracy of computed gravity, as a fraction of its peak.")


class Regularization(Section):
    """What is asked of the model besides fitting the data."""

    smallness: Weight = option(1.0, "Weight of the departure from the reference, against smoothness over one horizontal cell.")
    smoothness: tuple[Weight, Weight, Weight] = option((1.0, 1.0, 1.0), "Weights of first differences along (vertical, northing, easting).")
    reference: float | PathText = option(0.0, "Reference density, kg/m3, or a UBC or netCDF model file.")
    weighting: Literal["sensitivity", "depth", "none"] = option("sensitivity", "What balances shallow against deep cells.")
    depth_exponent: Positive = option(1.5, "Decay of the kernel with distance that weighting = 'depth' assumes.")

    @model_validator(mode="after")
    def _some_weight(self) -> "Regularization":
        if not (self.smallness or any(self.smoothness)):
            raise checks.invalid("regularization", "with zero weights only", "of smallness or smoothness above zero")
        return self


class Bounds(Section):
    """Limits of the density: a number, or a model file with one value a cell."""

    lower: float | PathText | None = option(None, "Lowest density, kg/m3, or a UBC or netCDF model file.", example=-500.0)
    upper: float | PathText | None = option(None, "Highest density, kg/m3, or a UBC or netCDF model file.", example=500.0)

    @model_validator(mode="after")
    def _in_order(self) -> "Bounds":
        if isinstance(self.lower, float) and isinstance(self.upper, float) and self.lower >= self.upper:
            raise checks.invalid("bounds", f"lower = {self.lower:g}, upper = {self.upper:g}", "crossed nowhere: lower < upper")
        return self


class Inversion(Section):
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
    holdout: Fraction = option(0.0, "Fraction of the stations kept out of the fit, to test it.")


class Output(Section):
    """What is written besides the standard files."""

    vtk: bool = option(True, "Write the model for ParaView.")
    ubc: bool = option(False, "Write the mesh and the model as UBC files.")


class Config(Section):
    """A gravity inversion, as its TOML file describes it."""

    kind: Literal["gravity"] = option("gravity", "What is inverted.")
    seed: Annotated[int, Field(ge=0)] = option(0, "Seed of every random choice (hold-out stations, probes).")
    data: Data
    grid: GridOptions
    topography: Topography = Topography()
    operator: OperatorOptions = OperatorOptions()
    regularization: Regularization = Regularization()
    bounds: Bounds = Bounds()
    inversion: Inversion = Inversion()
    output: Output = Output()


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a config file.

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
    for override in overrides:
        _override(options, override)
    return parse(options, folder=path.parent.resolve())


def parse(options: Mapping[str, Any], *, folder: Path | None = None) -> Config:
    """The config of a nested mapping of options; relative paths are resolved against `folder` where given."""
    try:
        return Config.model_validate(options, context={"folder": folder})
    except ValidationError as error:
        raise _one_line(error) from None


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


def _one_line(error: ValidationError) -> ValueError:
    """One of pydantic's complaints in this project's form; those of our own checks go first, for they say the most."""
    found = error.errors()
    first = next((each for each in found if each["type"] == "value_error"), found[0])
    section, path = _locate(first["loc"])
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


def _locate(loc: tuple[int | str, ...]) -> tuple[type[Section], str]:
    """The section that holds an offending option, and the option's dotted path (without pydantic's names of union members)."""
    section: type[Section] = Config
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


def template() -> str:
    """A commented config with every option and its default; those that are off by default are commented out."""
    sections = {name: field.annotation for name, field in Config.model_fields.items() if _is_section(field.annotation)}
    blocks = ["# A gravity inversion for geoinv. Lines of the form '# option = value' are off.", "\n".join(_documented(Config))]
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
