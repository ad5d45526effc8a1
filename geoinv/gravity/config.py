"""What a gravity inversion is told: every option with its default, unit and meaning."""

from typing import Annotated, Literal, final

from pydantic import AfterValidator, Field, model_validator

from geoinv.operators import checks
from geoinv.operators.constants import QUANTITIES

from ..config import Config, GaussNewton, PathText, Positive, PriorSensitivity, Section, UnitOfLength, Weight, option


def _unit_of_gravity(unit: str) -> str:
    if unit not in QUANTITIES["acceleration"]:
        raise ValueError("one of " + ", ".join(QUANTITIES["acceleration"]))
    return unit


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
    length_units: UnitOfLength = option("m", "Units of the coordinates of a CSV file: 'm', 'km' or 'ft'.")
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


class Output(Section):
    """What is written besides the standard files."""

    vtk: bool = option(True, "Write the model for ParaView.")
    ubc: bool = option(False, "Write the mesh and the model as UBC files.")


@final
class GravityConfig(Config):
    """A gravity inversion, as its TOML file describes it."""

    kind: Literal["gravity"] = option("gravity", "What is inverted.")
    data: Data
    grid: GridOptions
    topography: Topography = Topography()
    operator: OperatorOptions = OperatorOptions()
    regularization: Regularization = Regularization()
    bounds: Bounds = Bounds()
    inversion: GaussNewton = GaussNewton()
    output: Output = Output()
    sensitivity: PriorSensitivity = PriorSensitivity()


CONFIG = GravityConfig
