"""The convention of a waveform survey: shots, each recorded by a spread of receivers.

A waveform survey is an `xarray.Dataset` over the dimensions `shot`, `receiver` and `time`:

- coordinates `time` (time), in seconds, evenly spaced; `source_easting`, `source_upward` (shot), or (shot, source) where several
  sources fire together; `receiver_easting`, `receiver_upward` (shot, receiver); in metres, `upward` positive up; in three
  dimensions also `source_northing` and `receiver_northing`;
- coordinate `live` (shot, receiver): False where a trace is dead or only pads a spread shorter than the longest;
- variables `observed` (shot, receiver, time), float32, with its unit as attribute `units` ("Pa", or what the file says), and
  `uncertainty` (shot, receiver), one standard deviation of every sample of the trace, in the same unit;
- optionally `shot_id` (shot), numbers or text;
- attributes `crs`, `source`, `sha256` and `history`, as in `survey`.

An uncertainty of zero means "not given", as in `survey`. Traces that are not live hold zeros; their coordinates may be NaN.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray

from geoinv.operators import checks
from geoinv.operators.grid import DIMS

from .survey import add_history

_GATHER = ("observed", "sources", "receivers", "live", "uncertainty", "shot_id")


def make(
    observed: Any,
    time: Any,
    sources: Mapping[str, Any],
    receivers: Mapping[str, Any],
    *,
    live: Any = None,
    uncertainty: Any = None,
    shot_id: Any = None,
    units: str = "Pa",
    crs: str = "",
    source: str = "",
    sha256: str = "",
    history: Sequence[str] = (),
) -> xarray.Dataset:
    """A waveform survey from arrays.

    Args:
        observed: Traces [shot, receiver, time]; stored as float32, and as zeros where not live.
        time: [time], in seconds.
        sources: `upward`, `easting` and, in three dimensions, `northing` of the sources in metres: [shot], [shot, source] or one number.
        receivers: The same of the receivers: [shot, receiver], [receiver] for a spread that never moves, or one number.
        live: [shot, receiver] or [receiver]; everything is live by default.
        uncertainty: One standard deviation [shot, receiver], [receiver] or one number; zero or NaN means "not given".
        shot_id: Numbers or names [shot].
        units: Of `observed`.
        crs, source, sha256, history: See `survey`.

    Raises:
        ValueError: Shapes or axes that disagree, uneven time, a shot without live receivers, or a value that is not finite
            (names the shot and the receiver).
    """
    traces = np.array(observed, dtype=np.float32)
    if traces.ndim != 3:
        raise checks.invalid("observed", f"of shape {traces.shape}", "of three axes (shot, receiver, time)")
    spread = traces.shape[:2]
    axes = _common_axes(sources, receivers)
    alive = np.ones(spread, dtype=bool) if live is None else _broadcast("live", live, spread, bool)
    deviation = np.nan_to_num(_broadcast("uncertainty", 0.0 if uncertainty is None else uncertainty, spread), posinf=np.inf, neginf=-np.inf)
    traces[~alive] = 0.0
    firing = _source_columns(sources, axes, spread[0])
    made = xarray.Dataset(
        {
            "observed": (("shot", "receiver", "time"), traces, {"units": units}),
            "uncertainty": (("shot", "receiver"), np.where(alive, deviation, 0.0)),
        },
        coords={
            "time": ("time", checks.shape("time", np.asarray(time, dtype=np.float64), traces.shape[2:]), {"units": "s"}),
            **{f"source_{axis}": (("shot", "source")[: v.ndim], v, {"units": "m"}) for axis, v in firing.items()},
            **{f"receiver_{axis}": (("shot", "receiver"), _broadcast(f"receivers {axis}", receivers[axis], spread), {"units": "m"}) for axis in axes},
            "live": (("shot", "receiver"), alive),
        },
        attrs={"crs": crs, "source": source, "sha256": sha256, "history": "\n".join(history)},
    )
    if shot_id is not None:
        made = made.assign_coords(shot_id=("shot", checks.shape("shot_id", np.asarray(shot_id), spread[:1])))
    check_values(made)
    return made


def from_gathers(gathers: Sequence[Mapping[str, Any]], time: Any, **options: Any) -> xarray.Dataset:
    """A survey from one gather a shot, whose spreads may differ in length; shorter ones are padded with receivers that are not live.

    Args:
        gathers: Mappings with `observed` [receiver, time], `sources` and `receivers` (mappings of axes, as for `make`, of one
            shot), and optionally `live`, `uncertainty` (both [receiver] or one value) and, in all of them or none, `shot_id`.
        time: [time], in seconds, common to all.
        options: `units`, `crs`, `source`, `sha256` and `history` of `make`.

    Raises:
        ValueError: As `make`, and trace lengths that disagree (names the shot).
    """
    if not gathers:
        raise checks.invalid("gathers", "of 0 shots", "at least one gather")
    traces = [_gather_traces(shot, gather, np.size(time)) for shot, gather in enumerate(gathers)]
    axes = _common_axes(gathers[0]["sources"], gathers[0]["receivers"])
    for shot, gather in enumerate(gathers):
        if _common_axes(gather["sources"], gather["receivers"]) != axes:
            raise checks.invalid(f"gathers, shot {shot}", "with other axes than shot 0", f"with {', '.join(axes)}")

    def padded(pick: Any, fill: Any, dtype: Any = np.float64) -> np.ndarray:
        rows = [_broadcast(f"gathers, shot {i}", pick(g), t.shape[:1], dtype) for i, (g, t) in enumerate(zip(gathers, traces, strict=True))]
        return _pad(rows, fill)

    firing = {axis: [np.asarray(gather["sources"][axis], dtype=np.float64) for gather in gathers] for axis in axes}
    for axis, rows in firing.items():
        if len({row.shape for row in rows}) != 1:
            raise checks.invalid(f"sources {axis}", f"of shapes {sorted({row.shape for row in rows})}", "of one number of sources a shot")
    named = [gather["shot_id"] for gather in gathers if "shot_id" in gather]
    return make(
        _pad(traces, 0.0),
        time,
        {axis: np.stack(rows) for axis, rows in firing.items()},
        {axis: padded(lambda g, axis=axis: g["receivers"][axis], np.nan) for axis in axes},
        live=padded(lambda g: g.get("live", True), False, bool),
        uncertainty=padded(lambda g: g.get("uncertainty", 0.0), 0.0),
        shot_id=named or None,
        **options,
    )


def check_layout(survey: xarray.Dataset) -> xarray.Dataset:
    """The survey itself, after checking that its variables are those of the convention, whatever their values.

    Raises:
        ValueError: Missing variables, other dimensions, types that are not numbers (`live`: bool), or coordinates in other units than
            s and m by their attribute `units`.
    """
    places = [f"{kind}_{axis}" for kind in ("source", "receiver") for axis in DIMS[2]]
    missing = [name for name in ("time", *places, "live", "observed", "uncertainty") if name not in survey.variables]
    if missing:
        raise checks.invalid("survey", f"without {', '.join(missing)}", "a Dataset as geoinv.datasets.shots.make returns")
    if ("source_northing" in survey.variables) != ("receiver_northing" in survey.variables):
        raise checks.invalid("survey", "with one northing", "two-dimensional, or with source_northing and receiver_northing")
    firing = survey["source_upward"].dims if survey["source_upward"].dims == ("shot", "source") else ("shot",)
    spread = ("live", "uncertainty", *(f"receiver_{axis}" for axis in axes_of(survey)))
    expected: dict[str, tuple] = {"time": ("time",), "observed": ("shot", "receiver", "time"), **dict.fromkeys(spread, ("shot", "receiver"))}
    expected |= {f"source_{axis}": firing for axis in axes_of(survey)}
    for name, dims in expected.items():
        if survey[name].dims != dims:
            raise checks.invalid(name, f"over {survey[name].dims}", f"over {dims}")
        if survey[name].dtype.kind not in ("b" if name == "live" else "fiu"):
            raise checks.invalid(name, f"of type {survey[name].dtype}", "bool" if name == "live" else "numbers")
    for name in expected.keys() - {"observed", "live", "uncertainty"}:
        checks.in_unit(name, survey[name].attrs, "s" if name == "time" else "m")
    return survey


def validate(survey: xarray.Dataset) -> xarray.Dataset:
    """The survey itself, after checking that it follows the convention and is ready to be inverted.

    Raises:
        ValueError: As `check_layout` and `check_values`, or uncertainties for some live receivers and none (zero) for others.
    """
    check_layout(survey)
    check_values(survey)
    live = survey["live"].values
    zero = live & (survey["uncertainty"].values == 0)
    if 0 < zero.sum() < live.sum():
        given = f"0 at {_at(zero)} ({zero.sum()} of {live.sum()} live receivers)"
        raise checks.invalid("uncertainty", given, "positive where others are given", "Give a floor: assign_uncertainty(floor=...).")
    return survey


def check_values(survey: xarray.Dataset) -> None:
    """Raise a ValueError that names the first value, shot and receiver that breaks the convention."""
    if 0 in survey["observed"].shape:
        raise checks.invalid("survey", f"of {dict(survey.sizes)}", "of at least one shot, receiver and sample")
    dt(survey)
    live = survey["live"].values
    silent = np.flatnonzero(~live.any(axis=1))
    if silent.size:
        raise checks.invalid("live", f"False for every receiver of shot {silent[0]}", "True for at least one", "Leave such shots out: select_shots.")
    for axis in axes_of(survey):
        for name, where in ((f"source_{axis}", True), (f"receiver_{axis}", live)):
            _refuse(name, survey[name].values, where & ~np.isfinite(survey[name].values), "finite")
    observed = survey["observed"].values
    bad = np.array([~np.isfinite(gather).all(axis=1) for gather in observed])  # a shot at a time: the mask of a survey is large
    if bad.any():
        shot, receiver = np.argwhere(bad)[0]
        sample = int(np.flatnonzero(~np.isfinite(observed[shot, receiver]))[0])
        given = f"{observed[shot, receiver, sample]:g} at {_at(bad)}, sample {sample}"
        raise checks.invalid("observed", given, "finite", f"{bad.sum()} of {bad.size} traces are not; make() silences those that are not live.")
    deviation = survey["uncertainty"].values
    _refuse("uncertainty", deviation, live & ~(np.isfinite(deviation) & (deviation >= 0)), "finite and not negative")


def axes_of(survey: xarray.Dataset) -> tuple[str, ...]:
    """The survey's spatial axes: (upward, easting) or (upward, northing, easting)."""
    return DIMS[3 if "source_northing" in survey.variables else 2]


def dt(survey: xarray.Dataset) -> float:
    """The sampling interval, in seconds.

    Raises:
        ValueError: Time with fewer than two samples, that does not increase, or that strays from even spacing by over 1 % of an interval.
    """
    time = checks.increasing("time", survey["time"].values)
    interval = (time[-1] - time[0]) / (time.size - 1)
    stray = np.flatnonzero(np.abs(time - time[0] - interval * np.arange(time.size)) > 0.01 * interval)
    if stray.size:
        raise checks.invalid("time", f"{time[stray[0]]:g} s at sample {stray[0]}", f"evenly spaced (every {interval:g} s)", "Resample the traces.")
    return float(f"{interval:.12g}")  # 0.004, not the 0.004000000000000001 of the division


def acquisition_arrays(survey: xarray.Dataset, dims: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions as the operators take them; receivers that are not live stand where their shot's first live one does.

    Args:
        survey: A waveform survey.
        dims: The axes of the grid, (upward, easting) or (upward, northing, easting); by default the survey's own.

    Returns:
        Sources [shot, source, axis] and receivers [shot, receiver, axis], in metres, and live [shot, receiver].

    Raises:
        ValueError: The grid has other axes than the survey.
    """
    axes = axes_of(survey)
    if dims is not None and tuple(dims) != axes:
        advice = "Project the survey: line.project." if len(axes) == 3 else "Give the survey northings."
        raise checks.invalid("survey", f"with the axes {', '.join(axes)}", f"on the grid's axes {', '.join(dims)}", advice)
    sources = np.stack([survey[f"source_{axis}"].values.reshape(survey.sizes["shot"], -1) for axis in axes], axis=-1)
    receivers = np.stack([survey[f"receiver_{axis}"].values for axis in axes], axis=-1)
    live = survey["live"].values
    first = receivers[np.arange(len(live)), live.argmax(axis=1)]
    return sources, np.where(live[..., None], receivers, first[:, None]), live


def offsets(survey: xarray.Dataset) -> np.ndarray:
    """Horizontal distances [shot, receiver] from the (nearest) source, in metres; receivers that are not live get that of the first live one."""
    sources, receivers, _ = acquisition_arrays(survey)
    apart = receivers[:, :, None, 1:] - sources[:, None, :, 1:]
    return np.linalg.norm(apart, axis=-1).min(axis=2)


def rms(survey: xarray.Dataset) -> np.ndarray:
    """The root mean square of each trace, [shot, receiver]; summed in double precision, for small squares are zero in single."""
    traces = survey["observed"].values
    return np.sqrt(np.einsum("srt,srt->sr", traces, traces, dtype=np.float64) / traces.shape[2])


def select_shots(survey: xarray.Dataset, shots: Any) -> xarray.Dataset:
    """The survey of some shots (indices in any order, a slice, or a mask of them all); the history says so."""
    count = survey.sizes["shot"]
    index = checks.units(shots, count)
    return add_history(survey.isel(shot=index), f"kept {index.size} of {count} shots")


def assign_uncertainty(survey: xarray.Dataset, *, floor: float | None = None, relative: float | None = None) -> xarray.Dataset:
    """The survey with uncertainty = floor + relative * rms of the trace where none was given, and the floor at least; the history says so.

    Args:
        survey: A waveform survey.
        floor: In the unit of `observed`.
        relative: A fraction of each trace's root-mean-square.

    Returns:
        A new survey; the same one when both are None and every live receiver has an uncertainty.

    Raises:
        ValueError: Negative numbers, a result that is zero at a live receiver, or nothing given and uncertainties missing.
    """
    live, given = survey["live"].values, survey["uncertainty"].values
    if floor is None and relative is None:
        _refuse("uncertainty", given, live & ~(given > 0), "positive", "Give a floor, or a fraction of each trace's rms.")
        return survey
    for name, value in (("floor", floor or 0.0), ("relative", relative or 0.0)):
        if not 0 <= value < np.inf:
            raise checks.invalid(name, value, "zero or more")
    values = np.where(given > 0, np.maximum(given, floor or 0.0), (floor or 0.0) + (relative or 0.0) * rms(survey))
    _refuse("uncertainty", values, live & ~(values > 0), f"positive (floor {floor}, relative {relative})", "Give a floor above zero.")
    kept = int(np.count_nonzero(given[live]))
    line = f"uncertainty set to {floor or 0:g} + {relative or 0:g} rms of each trace" + (f"; {kept} given values kept where above" if kept else "")
    return add_history(survey.assign(uncertainty=(("shot", "receiver"), np.where(live, values, 0.0))), line)


def _common_axes(sources: Mapping[str, Any], receivers: Mapping[str, Any]) -> tuple[str, ...]:
    for axes in DIMS.values():
        if set(sources) == set(receivers) == set(axes):
            return axes
    given = f"with {', '.join(sources)} of sources and {', '.join(receivers)} of receivers"
    raise checks.invalid("survey", given, "with upward and easting of both, or upward, northing and easting of both")


def _source_columns(sources: Mapping[str, Any], axes: Sequence[str], shots: int) -> dict[str, np.ndarray]:
    """The sources' coordinates, all [shot] or all [shot, source]."""
    arrays = {axis: np.asarray(sources[axis], dtype=np.float64) for axis in axes}
    several = max((array.shape[1:2] for array in arrays.values()), key=len)
    columns = {axis: array[:, None] if several and array.ndim == 1 else array for axis, array in arrays.items()}
    return {axis: _broadcast(f"sources {axis}", array, (shots, *several)) for axis, array in columns.items()}


def _gather_traces(shot: int, gather: Mapping[str, Any], samples: int) -> np.ndarray:
    if not {"observed", "sources", "receivers"} <= set(gather) <= set(_GATHER):
        raise checks.invalid(f"gathers, shot {shot}", f"with {', '.join(gather)}", f"a mapping of {', '.join(_GATHER)} (the last three at will)")
    traces = np.asarray(gather["observed"], dtype=np.float32)
    if traces.ndim != 2 or traces.shape[1] != samples:
        raise checks.invalid(f"gathers, shot {shot}", f"with observed of shape {traces.shape}", f"[receiver, time] with {samples} samples, as 'time'")
    return traces


def _pad(rows: Sequence[np.ndarray], fill: Any) -> np.ndarray:
    """Arrays [receiver, ...] as one [row, receiver, ...], the shorter ones filled up at the end."""
    padded = np.full((len(rows), max(map(len, rows)), *rows[0].shape[1:]), fill, dtype=rows[0].dtype)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def _broadcast(name: str, values: Any, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    array = np.asarray(values, dtype=dtype)
    try:
        return np.array(np.broadcast_to(array, shape))
    except ValueError:
        raise checks.invalid(name, f"of shape {array.shape}", f"of shape {shape}, or fit to be repeated to it") from None


def _at(bad: np.ndarray) -> str:
    """The first true place of a mask [shot, receiver] (or [shot], or [shot, source]), in words."""
    first = np.argwhere(bad)[0]
    return f"shot {first[0]}" + (f", receiver {first[1]}" if first.size > 1 else "")


def _refuse(name: str, values: np.ndarray, bad: np.ndarray, expected: str, advice: str = "") -> None:
    if bad.any():
        place = _at(bad).replace("receiver", "source") if name.startswith("source") else _at(bad)
        raise checks.invalid(name, f"{values[bad][0]:g} at {place}", expected, advice or f"{bad.sum()} of {bad.size} values are not.")
