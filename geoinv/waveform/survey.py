"""The shots of a full-waveform inversion: read, thinned out, cleared of dead traces, from the source's time on, with uncertainties.

Nothing here imports TensorFlow.
"""

from pathlib import Path

import numpy as np
import xarray

from geoinv.datasets import line, netcdf, segy, shots
from geoinv.datasets.segy_headers import COORDINATES
from geoinv.datasets.table import read_table
from geoinv.operators import checks
from geoinv.operators.grid import DIMS

from .config import Data, WaveformConfig

NETCDF = (".nc", ".nc4")
#: So many samples in a row at a trace's extreme are no wave.
CLIPPED = 4
#: Northings that differ by less, m, place nothing: a survey along easting.
SAME_NORTHING = 1.0


def read_survey(config: WaveformConfig) -> tuple[xarray.Dataset, float, np.ndarray]:
    """The shots of the config's [data] with uncertainties, when their records begin, s, and their numbers in the file, from 0 on [shot]."""
    data = config.data
    survey = _read(data)
    if data.first_shot >= survey.sizes["shot"]:
        raise checks.invalid("data.first_shot", data.first_shot, f"below the number of shots, {survey.sizes['shot']}")
    numbers = np.arange(data.first_shot, survey.sizes["shot"], data.shot_every)
    survey = shots.select_shots(survey, numbers) if _selects(data) else survey
    survey, kept = _heard(survey.isel(receiver=slice(None, None, data.receiver_every)))
    _warn_of_clipping(survey)
    if data.dimensions == 3 and shots.axes_of(survey) == DIMS[2]:
        raise checks.invalid("data.dimensions", 3, "2 for a survey without northings")
    survey = _in_two_dimensions(survey, config) if data.dimensions == 2 else survey
    survey, first_time = _from_zero(survey)
    if data.record_length is not None:
        if data.record_length < 2 * shots.dt(survey):
            raise checks.invalid("data.record_length", f"{data.record_length:g} s", f"several samples of {shots.dt(survey):g} s")
        survey = survey.sel(time=survey["time"] <= data.record_length * (1 + 1e-9))
    sizes = shots.rms(survey)
    if not sizes.any():
        raise checks.invalid("data", "with zeros only from the source's time to the records' end", "records of waves", "Lengthen record_length.")
    floor = data.uncertainty_floor * float(np.median(sizes[survey["live"].values]))
    if floor or not np.all(survey["uncertainty"].values[survey["live"].values] > 0):
        survey = shots.assign_uncertainty(survey, floor=floor, relative=data.uncertainty_relative)
    return shots.validate(survey), first_time, numbers[kept]


def _in_two_dimensions(survey: xarray.Dataset, config: WaveformConfig) -> xarray.Dataset:
    """The survey without northings: their eastings as they are where that is sound, or along a line whose place the config knows."""
    origin, azimuth = config.data.line_origin, config.data.line_azimuth
    asked = [name for name in ("line_origin", "line_azimuth") if getattr(config.data, name) is not None]
    if shots.axes_of(survey) == DIMS[2]:
        if asked:
            raise checks.invalid(f"data.{asked[0]}", getattr(config.data, asked[0]), "off for a survey without northings")
        return survey
    if not asked and line.northing_spread(survey) <= SAME_NORTHING:
        return line.drop_northings(survey)
    made = line.project(survey, origin=origin, azimuth=azimuth)
    placed = config.placed()
    if placed and len(asked) < 2:
        given = f"off for a survey whose northings lie {line.northing_spread(survey):.4g} m apart"
        best = ", ".join(f"{value:.1f}" for value in made.attrs["line_origin"])
        advice = f"The survey alone would make them line_origin = [{best}] and line_azimuth = {made.attrs['line_azimuth']:.2f}."
        missing = "line_origin" if origin is None else "line_azimuth"
        raise checks.invalid(f"data.{missing}", given, f"given with {placed[0]}: line_origin and line_azimuth place its eastings", advice)
    return made


def _heard(survey: xarray.Dataset) -> tuple[xarray.Dataset, np.ndarray]:
    """The survey with traces of zeros taken as dead and without the shots that have no other, and a mask of those it keeps [shot]."""
    live = survey["live"].values
    heard = live & (survey["observed"].values != 0).any(axis=2)
    if not heard.any():
        raise checks.invalid("data", "with zero traces only", "records of waves")
    if heard.sum() < live.sum():
        at = np.argwhere(live & ~heard)[0]
        checks.warn(f"{live.sum() - heard.sum()} traces hold zeros only and are taken as dead (shot {at[0]}, receiver {at[1]})")
    kept = heard.any(axis=1)
    if not kept.all():
        checks.warn(f"{np.sum(~kept)} shots without a live trace are left out (shot {int(np.argmin(kept))})")
    alone = survey["uncertainty"].values * heard
    return survey.assign_coords(live=(("shot", "receiver"), heard)).assign(uncertainty=(("shot", "receiver"), alone)).isel(shot=kept), kept


def _warn_of_clipping(survey: xarray.Dataset) -> None:
    """Warn of traces that stay at their extreme for CLIPPED samples or more."""
    counts = []
    for gather in survey["observed"].values:
        peak = np.abs(gather).max(axis=1, keepdims=True)
        flat = (np.abs(gather) == peak) & (peak > 0)
        runs = np.lib.stride_tricks.sliding_window_view(flat, min(CLIPPED, flat.shape[1]), axis=1)
        counts.append(np.any(np.all(runs, axis=2), axis=1))
    clipped = np.array(counts)
    if clipped.any():
        at = np.argwhere(clipped)[0]
        text = f"{clipped.sum()} traces look clipped: {CLIPPED} samples or more at their extreme (shot {at[0]}, receiver {at[1]})"
        checks.warn(f"{text}. Repair them or mark them as not live, for their shape is not that of waves.")


def _selects(data: Data) -> bool:
    return bool(data.first_shot) or data.shot_every > 1


def _read(data: Data) -> xarray.Dataset:
    form = data.format if data.format != "auto" else ("netcdf" if Path(data.file).suffix.lower() in NETCDF else "segy")
    if form == "segy":
        places = "header" if data.geometry is None else _geometry(data.geometry)
        survey = segy.read(
            data.file, coordinates=places, units=data.length_units, group_by=data.group_by, dt=data.sampling_interval, crs=data.crs or ""
        )
        return survey if data.geometry is None else shots.add_history(survey, f"coordinates read from {data.geometry}")
    for name in ("length_units", "group_by", "sampling_interval", "geometry"):
        if getattr(data, name) is not None:
            raise checks.invalid(f"data.{name}", getattr(data, name), "off for netCDF files", "They say it themselves.")
    survey = shots.check_layout(netcdf.read(data.file))
    shots.check_values(survey)
    return survey.assign_attrs(crs=survey.attrs.get("crs") or data.crs or "")


def _geometry(path: str) -> dict[str, np.ndarray]:
    """The coordinates of a table, m, by name [trace]."""
    table = read_table(path)
    unknown = [name for name in table.columns if name not in COORDINATES]
    if unknown:
        raise checks.invalid("data.geometry", f"'{path}' with a column '{unknown[0]}'", f"a table whose columns are of {', '.join(COORDINATES)}")
    return {name: table.numbers(name) for name in table.columns}


def _from_zero(survey: xarray.Dataset) -> tuple[xarray.Dataset, float]:
    """The survey with its time from the source's on: what was recorded before is cut, and zeros stand where nothing was."""
    dt, first = shots.dt(survey), float(survey["time"].values[0])
    shift = round(first / dt)
    if abs(first - shift * dt) > 0.01 * dt:
        raise checks.invalid("time", f"that begins at {first:g} s", f"a multiple of the sampling interval, {dt:g} s", "Resample the traces.")
    if shift <= 2 - survey.sizes["time"]:
        raise checks.invalid("time", f"from {first:g} to {survey['time'].values[-1]:g} s", "times after the source's, zero")
    if shift < 0:
        survey = shots.add_history(survey.isel(time=slice(-shift, None)), f"cut {-shift} samples before time zero")
    elif shift > 0:
        silence = np.zeros((*survey["observed"].shape[:2], shift), np.float32)
        traces = np.concatenate([silence, survey["observed"].values], axis=2)
        survey = survey.drop_dims("time").assign(observed=(("shot", "receiver", "time"), traces, survey["observed"].attrs))
    return survey.assign_coords(time=("time", dt * np.arange(survey.sizes["time"]), {"units": "s"})), max(first, 0.0)
