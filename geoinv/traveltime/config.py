"""What a travel-time inversion is told: every option with its default, unit and meaning."""

from typing import Annotated, Literal, final

from pydantic import Field, model_validator

from geoinv.operators import checks

from ..config import Config, Count, GaussNewton, PathText, Positive, PriorSensitivity, Section, UnitOfLength, Weight, option


class PickColumns(Section):
    """The columns of a CSV file of picks; the option's own name where not given."""

    shot_easting: str | None = option(None, "Column of the shot's easting.", example="sx")
    shot_northing: str | None = option(None, "Column of the shot's northing; zero if there is none.", example="sy")
    shot_upward: str | None = option(None, "Column of the shot's height, positive up.", example="sz")
    receiver_easting: str | None = option(None, "Column of the receiver's easting.", example="gx")
    receiver_northing: str | None = option(None, "Column of the receiver's northing; zero if there is none.", example="gy")
    receiver_upward: str | None = option(None, "Column of the receiver's height, positive up.", example="gz")
    time: str | None = option(None, "Column of the time of the first arrival.", example="t")
    uncertainty: str | None = option(None, "Column of its standard deviation, in the same units.", example="err")


class Data(Section):
    """Where the picks are and what their file means."""

    file: PathText = option(..., "File of picks; relative to this config, ${VARIABLES} expanded.", example="picks.sgt", needed=True)
    format: Literal["auto", "sgt", "csv", "netcdf"] = option(
        "auto", "'sgt' (pyGIMLi's unified data format), 'csv' (a row for each pick), 'netcdf', or 'auto' by the file's ending."
    )
    columns: PickColumns = option(PickColumns(), "")
    time_units: Literal["s", "ms", "us"] = option("s", "Units of the times of a CSV file.")
    length_units: UnitOfLength = option("m", "Units of the positions of a CSV file: 'm', 'km' or 'ft'.")
    crs: str | None = option(None, "Projected reference system of the positions, for the record.", example="EPSG:25832")
    uncertainty_absolute: Weight | None = option(
        None, "Smallest standard deviation, s; where the file has none, plus the relative part. If off, 2 % of the median time for such picks.",
        example=0.0003,
    )  # fmt: skip
    uncertainty_relative: Weight = option(0.03, "Where the file has no uncertainty, a fraction of the time added to that.")


class GridOptions(Section):
    """The cells of a vertical section below the line of sensors."""

    spacing: tuple[Positive, Positive] | None = option(
        None, "Cell size along (vertical, easting), m; half the median distance of neighbouring receivers if off.", example=[0.5, 0.5]
    )
    margin: Weight | None = option(None, "Distance from the outermost sensors to the sides, m; 4 cells if off.", example=5.0)
    depth: Positive | None = option(None, "Depth of the grid below the lowest ground, m; a third of the line if off.", example=20.0)
    growth: Annotated[float, Field(ge=1)] = option(1.0, "Ratio of the thickness of a cell to that of the one above it.")
    uniform_depth: Weight | None = option(None, "Depth below the lowest ground at which growth starts, m; a quarter of all if off.", example=5.0)


class Topography(Section):
    """The ground, above which there is nothing for a wave to pass through."""

    source: Literal["sensors", "flat", "file"] = option(
        "sensors", "'sensors' (straight lines between them, but for those below steep drops), 'flat' (level at the highest one) or 'file'."
    )
    file: PathText | None = option(
        None, "For source = 'file': CSV file with columns 'easting' (along the line) and 'upward', m.", example="ground.csv"
    )

    @model_validator(mode="after")
    def _file_where_needed(self) -> "Topography":
        if (self.source == "file") != (self.file is not None):
            raise checks.invalid("topography.file", self.file or "not given", "given if and only if source = 'file'")
        return self


class Start(Section):
    """The first model: velocity that grows with depth, or a file."""

    top: Positive = option(500.0, "Velocity at the ground, m/s.")
    bottom: Positive = option(5000.0, "Velocity at the depth of the grid below the ground, m/s; linear in between, within the bounds.")
    file: PathText | None = option(None, "netCDF model with 'velocity' on the same cells; takes the place of the above.", example="model.nc")


class OperatorOptions(Section):
    """How times are computed."""

    order: Literal[1, 2] = option(2, "Order of the upwind differences.")
    refinement: Count | None = option(
        None, "Into how many parts cells are cut for the times: fewer errors, cost by its square. If off, 2 below steep ground, else 1.",
        example=2,
    )  # fmt: skip


class Regularization(Section):
    """What is asked of the model besides fitting the data."""

    parameter: Literal["log", "slowness", "velocity"] = option("log", "What is solved for: the logarithm of slowness, slowness or velocity.")
    shape: Literal["smooth", "blocky"] = option("smooth", "'smooth', or 'blocky' (few sharp interfaces, by reweighted least squares).")
    smallness: Weight = option(0.001, "Weight of the departure from the reference, against smoothness over one cell.")
    smoothness: tuple[Weight, Weight] = option((0.3, 1.0), "Weights of first differences along (vertical, easting); small along what may be layered.")
    reference: Literal["start"] | Positive = option("start", "Reference: 'start' (the start model) or a velocity, m/s.")
    threshold: Positive = option(0.02, "For shape = 'blocky': relative change over one cell that counts as a jump.")

    @model_validator(mode="after")
    def _some_weight(self) -> "Regularization":
        if not (self.smallness or any(self.smoothness)):
            raise checks.invalid("regularization", "with zero weights only", "of smallness or smoothness above zero")
        return self


class Bounds(Section):
    """Limits of the velocity."""

    lower: Positive = option(100.0, "Lowest velocity, m/s.")
    upper: Positive = option(8000.0, "Highest velocity, m/s.")

    @model_validator(mode="after")
    def _in_order(self) -> "Bounds":
        if self.lower >= self.upper:
            raise checks.invalid("bounds", f"lower = {self.lower:g}, upper = {self.upper:g}", "crossed nowhere: lower < upper")
        return self


class Inversion(GaussNewton):
    """How the model is sought and when the search stops."""

    trade_off_ratio: Positive = option(1.0, "First trade-off parameter, relative to the ratio of the largest eigenvalues.")
    cg_iterations: Count = option(
        15, "Limit of conjugate-gradient steps in one iteration; ways change with the model, and more fit what will have moved."
    )


class Output(Section):
    """What is written besides the standard files."""

    vtk: bool = option(True, "Write the model for ParaView.")


@final
class TravelTimeConfig(Config):
    """A travel-time inversion, as its TOML file describes it."""

    kind: Literal["traveltime"] = option("traveltime", "What is inverted.")
    data: Data
    grid: GridOptions = GridOptions()
    topography: Topography = Topography()
    start: Start = Start()
    operator: OperatorOptions = OperatorOptions()
    regularization: Regularization = Regularization()
    bounds: Bounds = Bounds()
    inversion: Inversion = Inversion()
    output: Output = Output()
    sensitivity: PriorSensitivity = PriorSensitivity()


CONFIG = TravelTimeConfig
