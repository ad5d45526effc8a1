"""The shots of a full-waveform inversion: read, thinned out, cleared of dead traces, from the source's time on, with uncertainties.

Nothing here imports TensorFlow.
"""

import warnings
from pathlib import Path

import numpy as np
import xarray

from geoinv.datasets import netcdf, segy, shots
from geoinv.operators import checks
from geoinv.operators.grid import DIMS

from .config import Data

NETCDF = (".nc", ".nc4")
#: So many samples in a row at a trace's extreme are no wave.
CLIPPED = 4


def read_survey(data: Data) -> tuple[xarray.Dataset, float]:
    """The shots of the config's [data] with uncertainties, and when their records begin, s."""
    survey = _read(data)
    if data.first_shot >= survey.sizes["shot"]:
        raise checks.invalid("data.first_shot", data.first_shot, f"below the number of shots, {survey.sizes['shot']}")
    survey = shots.select_shots(survey, np.arange(data.first_shot, survey.sizes["shot"], data.shot_every)) if _selects(data) else survey
    survey = _heard(survey.isel(receiver=slice(None, None, data.receiver_every)))
    _warn_of_clipping(survey)
    if data.dimensions == 2 and shots.axes_of(survey) == DIMS[3]:
        survey = shots.project_to_line(survey)
    survey, first_time = _from_zero(survey)
    if data.record_length is not None:
        if data.record_length < 2 * shots.dt(survey):
            raise checks.invalid("data.record_length", f"{data.record_length:g} s", f"several samples of {shots.dt(survey):g} s")
        survey = survey.sel(time=survey["time"] <= data.record_length * (1 + 1e-9))
    rms = np.sqrt(np.mean(np.square(survey["observed"].values), axis=2, dtype=np.float64))[survey["live"].values]
    floor = data.uncertainty_floor * float(np.median(rms))
    if floor or not np.all(survey["uncertainty"].values[survey["live"].values] > 0):
        survey = shots.assign_uncertainty(survey, floor=floor, relative=data.uncertainty_relative)
    return shots.validate(survey), first_time


def _heard(survey: xarray.Dataset) -> xarray.Dataset:
    """The survey with traces of zeros taken as dead, and without the shots that have no other."""
    live = survey["live"].values
    heard = live & (survey["observed"].values != 0).any(axis=2)
    if not heard.any():
        raise checks.invalid("data", "with zero traces only", "records of waves")
    if heard.sum() < live.sum():
        at = np.argwhere(live & ~heard)[0]
        warnings.warn(f"{live.sum() - heard.sum()} traces hold zeros only and are taken as dead (shot {at[0]}, receiver {at[1]})", stacklevel=2)
    kept = heard.any(axis=1)
    if not kept.all():
        warnings.warn(f"{np.sum(~kept)} shots without a live trace are left out (shot {int(np.argmin(kept))})", stacklevel=2)
    alone = survey["uncertainty"].values * heard
    return survey.assign_coords(live=(("shot", "receiver"), heard)).assign(uncertainty=(("shot", "receiver"), alone)).isel(shot=kept)


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
        warnings.warn(f"{text}. Repair them or mark them as not live, for their shape is not that of waves.", stacklevel=2)


def _selects(data: Data) -> bool:
    return bool(data.first_shot) or data.shot_every > 1


def _read(data: Data) -> xarray.Dataset:
    form = data.format if data.format != "auto" else ("netcdf" if Path(data.file).suffix.lower() in NETCDF else "segy")
    if form == "segy":
        return segy.read(data.file, units=data.length_units, group_by=data.group_by, dt=data.sampling_interval, crs=data.crs or "")
    for name in ("length_units", "group_by", "sampling_interval"):
        if getattr(data, name) is not None:
            raise checks.invalid(f"data.{name}", getattr(data, name), "off for netCDF files", "They say it themselves.")
    survey = shots.check_layout(netcdf.read(data.file))
    shots.check_values(survey)
    return survey.assign_attrs(crs=survey.attrs.get("crs") or data.crs or "")


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
