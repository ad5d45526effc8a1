"""What a full-waveform inversion is told: every option with its default, unit and meaning."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Literal, TypeVar, final

from pydantic import BeforeValidator, Field, model_validator

from geoinv.operators import checks

from ..config import Config, Count, Fraction, PathText, Positive, Section, Sensitivity, UnitOfLength, Weight, option

Number = TypeVar("Number")
#: One number a band; a single one needs no brackets.
PerBand = Annotated[tuple[Number, ...], BeforeValidator(lambda given: given if isinstance(given, list | tuple) else (given,))]
Four = tuple[Weight, Weight, Positive, Positive]


def _idle(section: Section, table: str, names: Iterable[str], used: object, when: str) -> None:
    """Refuse options of a table that are not at their defaults where they would do nothing."""
    for name in names:
        if not used and (value := getattr(section, name)) != type(section).model_fields[name].default:
            raise checks.invalid(f"{table}.{name}", value, f"given only with {when}", "It would do nothing.")


def _increasing(name: str, values: tuple[float, ...], expected: str = "strictly increasing") -> None:
    if any(b <= a for a, b in pairwise(values)):
        raise checks.invalid(name, list(values), expected)


class Data(Section):
    """Which traces are inverted and how well they are known."""

    file: PathText = option(..., "File of shot gathers; relative to this config, ${VARIABLES} expanded.", example="shots.segy", needed=True)
    format: Literal["auto", "segy", "netcdf"] = option("auto", "'segy', 'netcdf', or 'auto' by the file's ending.")
    length_units: UnitOfLength | None = option(
        None, "Units of the coordinates in SEG-Y headers: 'm', 'km' or 'ft'; the file's own if off.", example="m"
    )
    group_by: Literal["FieldRecord", "position"] | None = option(
        None, "What tells the shots of a SEG-Y file apart: 'FieldRecord', or 'position' of the source; found out if off.", example="position"
    )
    sampling_interval: Positive | None = option(None, "Sampling interval, s, where SEG-Y headers are wrong; theirs if off.", example=0.004)
    geometry: PathText | None = option(
        None,
        "Text table (CSV) in place of SEG-Y coordinates, where they are missing or wrong: a row for each trace of the file in its order; columns of "
        "these, m: source_easting, source_northing, source_upward, receiver_easting, receiver_northing, receiver_upward (positive up).",
        example="geometry.csv",
    )
    crs: str | None = option(None, "Projected reference system, for the record.", example="EPSG:32610")
    dimensions: Literal[2, 3] = option(
        2, "2 or 3. In two, northings that agree within a metre are left out; other surveys are projected onto a line, and eastings count along it."
    )
    line_origin: tuple[float, float] | None = option(
        None, "Easting and northing of that line's zero, m; its first source or receiver if off.", example=[455000.0, 4120000.0]
    )
    line_azimuth: Annotated[float, Field(ge=0, lt=360)] | None = option(
        None, "Direction of the line, degrees clockwise from north; that which suits the survey best if off.", example=62.5
    )
    uncertainty_relative: Weight = option(0.05, "Where the file has no uncertainty, a fraction of the root mean square of each trace.")
    uncertainty_floor: Weight = option(0.0, "Smallest uncertainty, as a fraction of the median of those root mean squares; also of a file's own.")
    first_shot: Annotated[int, Field(ge=0)] = option(0, "The first shot to invert, counted from 0.")
    shot_every: Count = option(1, "Invert every so many shots.")
    receiver_every: Count = option(1, "Invert every so many receivers of a shot.")
    record_length: Positive | None = option(None, "Length of the records to invert, s; all of it if off.", example=4.0)

    @model_validator(mode="after")
    def _some_uncertainty(self) -> "Data":
        if not (self.uncertainty_relative or self.uncertainty_floor):
            raise checks.invalid("data.uncertainty_relative", "0 with uncertainty_floor = 0", "above zero, or the floor", "0.05 is 5 %.")
        _idle(self, "data", ["line_origin", "line_azimuth"], self.dimensions == 2, "dimensions = 2")
        return self


class GridOptions(Section):
    """The cells of the model: square or cubic ones over an extent, or those of the start model's file."""

    spacing: Positive | None = option(
        None, "Cell size in every direction, m; if off that of model.file, or what the highest band asks for.", example=20.0, needed=True
    )
    easting: tuple[float, float] | None = option(None, "Extent along easting, m; model.file's, or around the survey, if off.", example=[0.0, 10000.0])
    northing: tuple[float, float] | None = option(None, "Extent along northing, m, in three dimensions.", example=[0.0, 5000.0])
    upward: tuple[float, float] | None = option(
        None, "Extent along upward, m, bottom first; model.file's, or half the survey's length below its top, if off.", example=[-3000.0, 0.0]
    )
    margin: Weight = option(0.0, "Distance from the outermost sources and receivers to the edge of the grid, m, where that follows the survey.")

    @model_validator(mode="after")
    def _in_order(self) -> "GridOptions":
        for name in ("easting", "northing", "upward"):
            if getattr(self, name) is not None:
                _increasing(f"grid.{name}", getattr(self, name))
        return self


class Model(Section):
    """The start model, and what of it is known."""

    file: PathText | None = option(
        None, "Start velocity: netCDF model, or an HDF5 or .npy array [depth, (northing,) easting]; replaces the two below.", example="start.nc"
    )
    dataset: str | None = option(None, "Name of the array in an HDF5 file, or of the variable in a netCDF one if not 'velocity'.", example="m0")
    quantity: Literal["m/s", "km/s", "s2/km2"] = option("m/s", "What that file holds: 'm/s', 'km/s', or squared slowness in 's2/km2'.")
    file_spacing: Positive | None = option(None, "Spacing of an array's samples, m; grid.spacing if off. Its first is at the top west.", example=25.0)
    velocity: Positive | None = option(None, "Start velocity at the top (below the water), m/s.", example=1800.0, needed=True)
    gradient: float = option(0.0, "What it grows by with depth, (m/s)/m.")
    water_depth: Weight | None = option(
        None, "Depth of the sea floor below the top of the grid, m: cells above are water and do not change.", example=500.0
    )
    water_velocity: Positive = option(1500.0, "Velocity of the water, m/s.")
    free_file: PathText | None = option(
        None, "netCDF model file with a variable 'free': only cells where it is 1 change; for a sea floor with relief, say.", example="free.nc"
    )
    density: Literal["constant", "gardner", "file"] = option(
        "constant",
        "'constant' (the equation without density), 'gardner' (310 v^0.25 of the start model, kg/m3; 1000 in water) or 'file'; it does not change.",
    )
    density_file: PathText | None = option(None, "netCDF file of the density, kg/m3.", example="density.nc")

    @model_validator(mode="after")
    def _one_definition(self) -> "Model":
        if (self.file is None) == (self.velocity is None):
            given = "with both a file and a velocity" if self.file else "without a start"
            raise checks.invalid(
                "model", given, "given by 'velocity' or by a 'file'", "Add velocity = 1800.0, for instance." if not self.file else ""
            )
        if (self.density == "file") != (self.density_file is not None):
            raise checks.invalid("model.density_file", self.density_file or "not given", "given if and only if density = 'file'")
        _idle(self, "model", ["gradient"], self.file is None, "'velocity'")
        _idle(self, "model", ["dataset", "quantity", "file_spacing"], self.file, "a 'file'")
        _idle(self, "model", ["water_velocity"], self.file is None and self.water_depth, "'velocity' and water_depth")
        return self


class Source(Section):
    """The source wavelet: s(t) on the right of the wave equation."""

    wavelet: Literal["ricker", "ormsby", "file"] = option("ricker", "'ricker', 'ormsby' or 'file'.")
    frequency: Positive = option(10.0, "Peak frequency of the Ricker wavelet, Hz.")
    corners: Four | None = option(None, "Corners of the Ormsby wavelet, Hz.", example=[2.0, 4.0, 20.0, 30.0])
    file: PathText | None = option(
        None,
        "Text or .npy file: amplitudes, or times in s and amplitudes; or netCDF with 'wavelet' over time, s, or one for each shot of the data: "
        "(shot, time), or (shot, source, time) where several sources fire together.",
        example="wavelet.txt",
    )
    delay: Weight | None = option(None, "Time of the peak of a Ricker or Ormsby wavelet, s; so that it starts near zero if off.", example=0.15)
    amplitude: float = option(1.0, "What the wavelet is multiplied by, where it is not fitted.")
    estimate: bool = option(True, "Fit the wavelet to the data at the start of every band, by a least-squares filter.")
    per_shot: bool = option(False, "Fit one for each shot instead of one for all.")
    regularization: Weight = option(1e-3, "Damping of that filter, as a fraction of the largest power of the predicted data.")
    duration: Positive | None = option(None, "Time after which the fitted wavelet is zero, s; the record's length if off.", example=0.5)
    estimate_every: Count | None = option(None, "Fit it again every so many iterations of a band; only at the start of each if off.", example=5)

    @model_validator(mode="after")
    def _what_each_needs(self) -> "Source":
        for wavelet, name in (("ormsby", "corners"), ("file", "file")):
            if (self.wavelet == wavelet) != (getattr(self, name) is not None):
                raise checks.invalid(f"source.{name}", getattr(self, name) or "not given", f"given if and only if wavelet = '{wavelet}'")
        if self.corners is not None:
            _increasing("source.corners", self.corners)
        if self.amplitude == 0:
            raise checks.invalid("source.amplitude", 0, "other than zero")
        _idle(self, "source", ["frequency"], self.wavelet == "ricker", "wavelet = 'ricker'")
        _idle(self, "source", ["delay"], self.wavelet != "file", "a Ricker or Ormsby wavelet")
        _idle(self, "source", ["amplitude"], not self.estimate, "estimate = false, for a fit finds the size")
        _idle(self, "source", ["per_shot", "regularization", "duration", "estimate_every"], self.estimate, "estimate = true")
        return self


class Propagator(Section):
    """How waves are computed."""

    order: Literal[2, 4, 6, 8] = option(4, "Order of the differences in space: 2, 4, 6 or 8.")
    absorbing_cells: Annotated[int, Field(ge=4)] = option(10, "Width of the absorbing layer outside the grid, cells: 4 or more.")
    free_surface: bool = option(False, "Reflect at the top of the grid (land or sea surface) instead of absorbing.")
    snapshot_every: Count | None = option(
        None, "Time steps between the snapshots that the gradient reads; as many as the highest frequency allows if off.", example=4
    )
    aperture: Weight | None = option(
        None, "How far beyond its sources and receivers a shot propagates, m: in a window of its own; in the whole grid if off.", example=2000.0
    )
    snapshot_memory: Positive = option(2.0, "Memory that gradients may take, GB; where snapshots need more they are computed again from checkpoints.")
    shots_at_a_time: Count | None = option(
        None, "Shots that an inversion computes side by side in a process, each with memory of its own; one on each core if off.", example=1
    )


class Bands(Section):
    """The frequencies that are inverted one after the other, low ones first."""

    lowpass: PerBand[Positive] | None = option(
        None, "Highest frequency of each band, Hz: data and wavelet are filtered alike. One band with all of them if off.", example=[4.0, 6.0, 9.0]
    )
    rolloff: Annotated[float, Field(gt=1)] = option(
        1.5,
        "The low-pass filter is zero from this many times that frequency on. It rings for one over the width of this ramp, by which the ends of the "
        "records are tapered.",
    )
    lowcut: tuple[Weight, Positive] | None = option(
        None, "Frequencies below the first of which data are left out, and from the second of which they count in full, Hz.", example=[1.5, 2.5]
    )
    points_per_wavelength: Annotated[float, Field(ge=2)] | None = option(
        None, "Use larger cells in low bands, as long as there are so many to the shortest wavelength; the grid's everywhere if off.", example=5.0
    )
    iterations: PerBand[Count] | None = option(
        None, "Limit of iterations of each band; inversion.max_iterations for each if off.", example=[10, 10, 20]
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Bands":
        if self.lowpass is not None:
            if not self.lowpass:
                raise checks.invalid("bands.lowpass", "[]", "not empty")
            _increasing("bands.lowpass", self.lowpass)
        if self.lowcut is not None:
            _increasing("bands.lowcut", self.lowcut)
            if self.lowpass is not None and self.lowcut[1] >= self.lowpass[0]:
                raise checks.invalid("bands.lowcut", list(self.lowcut), f"below the first band's {self.lowpass[0]:g} Hz")
        _idle(self, "bands", ["rolloff", "points_per_wavelength"], self.lowpass is not None, "bands.lowpass")
        count = len(self.lowpass or (0,))
        if self.iterations is not None and len(self.iterations) != count:
            raise checks.invalid("bands.iterations", list(self.iterations), f"one number for each of the {count} bands")
        return self


class Misfit(Section):
    """How predicted traces are held against observed ones."""

    kind: Literal["l2", "crosscorrelation", "envelope"] = option(
        "l2", "'l2' (least squares), 'crosscorrelation' (blind to amplitudes) or 'envelope' (blind to phases; for a poor start)."
    )
    normalise: bool = option(False, "Divide each trace by its root mean square first, observed and predicted alike.")
    nearest_offset: Weight = option(0.0, "Smallest distance from source to receiver that counts, m.")
    farthest_offset: Positive | None = option(None, "Largest one, m; any if off.", example=6000.0)
    offset_taper: Weight = option(0.0, "Length of the cosine tapers inside these, m.")
    top_mute_velocity: Positive | None = option(None, "Mute what comes before delay + offset / velocity, m/s; nothing if off.", example=2000.0)
    top_mute_delay: float = option(0.0, "That delay, s.")
    bottom_mute_velocity: Positive | None = option(None, "Mute what comes after delay + offset / velocity, m/s; nothing if off.", example=1500.0)
    bottom_mute_delay: float = option(0.0, "That delay, s.")
    mute_taper: Weight = option(0.1, "Length of the cosine tapers of the mutes, s.")
    time_power: PerBand[Weight] = option(
        (0.0,),
        "Weigh samples by this power of time, one for all bands or one for each: 0.5 (2-D) or 1 (3-D) makes up for spreading, "
        "and more of it lets weak late arrivals from deep cells weigh in.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> "Misfit":
        if self.farthest_offset is not None:
            _increasing("misfit.farthest_offset", (self.nearest_offset, self.farthest_offset), "larger than nearest_offset")
        _idle(self, "misfit", ["offset_taper"], self.nearest_offset or self.farthest_offset, "nearest_offset or farthest_offset")
        _idle(self, "misfit", ["top_mute_delay"], self.top_mute_velocity, "top_mute_velocity")
        _idle(self, "misfit", ["bottom_mute_delay"], self.bottom_mute_velocity, "bottom_mute_velocity")
        _idle(self, "misfit", ["mute_taper"], self.top_mute_velocity or self.bottom_mute_velocity, "a mute's velocity")
        return self


class Inversion(Section):
    """How the model is sought and when the search stops."""

    optimiser: Literal["lbfgs", "adam"] = option("lbfgs", "'lbfgs' (limited-memory quasi-Newton with a line search) or 'adam'.")
    step: Positive = option(50.0, "Largest change of the velocity in the first step of a band (lbfgs) or in any step (adam), m/s.")
    max_step: Positive | None = option(None, "Largest change in any step of lbfgs, m/s; no limit if off.", example=200.0)
    memory: Count = option(7, "Pairs of steps that lbfgs keeps.")
    max_iterations: Count = option(10, "Limit of iterations in each band.")
    tolerance: Fraction = option(1e-3, "Relative decrease of the misfit an iteration, over three, below which a band ends.")
    preconditioner: Literal["illumination", "hessian", "none"] = option(
        "illumination", "'illumination' (energy of the sources' waves), 'hessian' (its diagonal, receivers and weights included) or 'none'."
    )
    illumination_floor: Annotated[float, Field(gt=0, le=1)] = option(0.01, "Smallest value of these to divide by, as a fraction of the largest.")
    smoothing: Weight = option(0.0, "Length over which gradients are smoothed, in wavelengths of the band's highest frequency.")
    regularization: Weight = option(
        0.0, "Weight, against the misfit at a band's start, of the change's roughness: 1 for 1 % of the mean velocity from cell to cell everywhere."
    )

    @model_validator(mode="after")
    def _nothing_idle(self) -> "Inversion":
        _idle(self, "inversion", ["max_step", "memory"], self.optimiser == "lbfgs", "optimiser = 'lbfgs'")
        _idle(self, "inversion", ["illumination_floor"], self.preconditioner != "none", "a preconditioner")
        return self


class Bounds(Section):
    """Limits of the velocity: a number, or a model file with one value a cell."""

    lower: Positive | PathText = option(1000.0, "Lowest velocity, m/s, or a netCDF model file.")
    upper: Positive | PathText = option(7000.0, "Highest velocity, m/s, or a netCDF model file. It sets the time step.")

    @model_validator(mode="after")
    def _in_order(self) -> "Bounds":
        if isinstance(self.lower, float) and isinstance(self.upper, float) and self.lower >= self.upper:
            raise checks.invalid("bounds", f"lower = {self.lower:g}, upper = {self.upper:g}", "crossed nowhere: lower < upper")
        return self


class Output(Section):
    """What is written besides the standard files."""

    vtk: bool = option(True, "Write the model for ParaView.")


class WaveformSensitivity(Sensitivity):
    """What 'geoinv sensitivity' works out, of the last band."""

    deviation: Positive | None = option(
        None, "Standard deviation of the velocity before the data, m/s; 5 % of the mean velocity if off.", example=150.0
    )
    length: Positive | None = option(
        None, "Distance over which it varies, m; half a wavelength of the band's highest frequency if off.", example=100.0
    )


@final
class WaveformConfig(Config):
    """A full-waveform inversion, as its TOML file describes it."""

    kind: Literal["waveform"] = option("waveform", "What is inverted.")
    seed: Annotated[int, Field(ge=0)] = option(0, "Seed of every random choice.")
    data: Data
    grid: GridOptions = GridOptions()
    model: Model
    source: Source = Source()
    propagator: Propagator = Propagator()
    bands: Bands = Bands()
    misfit: Misfit = Misfit()
    inversion: Inversion = Inversion()
    bounds: Bounds = Bounds()
    output: Output = Output()
    sensitivity: WaveformSensitivity = WaveformSensitivity()

    @model_validator(mode="after")
    def _consistent(self) -> "WaveformConfig":
        if self.grid.spacing is None and self.model.file is None and self.bands.lowpass is None:
            raise checks.invalid("grid", "without cells", "given by 'spacing', 'bands' or the model's 'file'", "Add spacing = 20.0, for instance.")
        lower, upper, start = self.bounds.lower, self.bounds.upper, self.model.velocity
        if isinstance(lower, float) and isinstance(upper, float) and start is not None and not lower <= start <= upper:
            raise checks.invalid("model.velocity", f"{start:g}", f"within the bounds {lower:g} to {upper:g}")
        count, powers = len(self.bands.lowpass or (0,)), self.misfit.time_power
        if len(powers) not in (1, count):
            raise checks.invalid("misfit.time_power", list(powers), f"one number, or one for each of the {count} bands")
        return self

    def placed(self) -> list[str]:
        """The options that were given and that speak of places by their eastings."""
        files = {"model": ("file", "free_file", "density_file"), "bounds": ("lower", "upper"), "grid": ("easting",)}
        named = {f"{table}.{name}": getattr(getattr(self, table), name) for table, names in files.items() for name in names}
        return [name for name, value in named.items() if isinstance(value, str | tuple)]


CONFIG = WaveformConfig
