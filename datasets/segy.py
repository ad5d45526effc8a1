"""Waveform surveys as SEG-Y: shots in any trace order, read and written through segyio.

What the headers say is checked, not trusted: files with trace lengths, intervals or delays that disagree, degrees, or empty
coordinates are refused with the bytes to look at. Scalars of zero mean one; negative scalars divide.

Format: SEG-Y revision 1, "SEG Y rev 1 Data Exchange format", Society of Exploration Geophysicists, 2002. Fields of the headers
have segyio's names; bytes of a trace header are counted from 1, as in the standard.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import segyio
import xarray
from segyio import BinField, TraceField

from geoinv.operators import checks

from . import files, segy_headers, shots
from .atomic import atomic_path

_FORMATS = {1: "IBM float", 2: "int32", 3: "int16", 5: "IEEE float", 6: "IEEE double", 8: "int8"}
_UNITS = {1: "Pa", 2: "V", 3: "mV", 4: "A", 5: "m", 6: "m/s", 7: "m/s2", 8: "N", 9: "W"}  # TraceValueMeasurementUnit

_INTERVAL = "Pass dt=... in seconds (data.sampling_interval in a config)"


def read(
    path: str | os.PathLike[str],
    *,
    units: str | None = None,
    coordinates: str | Mapping[str, Any] = "header",
    group_by: str | None = None,
    dt: float | None = None,
    crs: str = "",
) -> xarray.Dataset:
    """Read a waveform survey.

    Shots are sorted by field record; receivers by channel within the shot (TraceNumber), where that does not tell them apart by
    offset, else as in the file. A dead trace keeps its place and is not live; auxiliary channels and shots without a live trace are
    left out. A file whose northings (SourceY, GroupY) are all zero is two-dimensional.

    Args:
        path: The file, big- or little-endian.
        units: Of lengths in the headers, "m", "km" or "ft"; by default what the binary header says, metres where it is silent.
        coordinates: "header", or a mapping of some of `segy_headers.COORDINATES`, in metres, to one number or one for each
            trace of the file (in its order), which replace what the headers say.
        group_by: What tells shots apart, "FieldRecord" or "position" (of the source); by default the first, unless it is the
            same everywhere and the position is not.
        dt: The sampling interval in seconds, where the headers disagree or are wrong.
        crs: The projected system of the coordinates, kept as an attribute.

    Returns:
        A survey (see `shots`) whose uncertainties are not given; the history says what was chosen, left out and converted.

    Raises:
        ValueError: Not a SEG-Y file, traces of different lengths, intervals, delays or sensors, coordinates that are empty or in
            degrees, a shot with two source positions, or a sample that is not finite.
    """
    given = files.existing(path)
    history: list[str] = []
    with _opened(given, history) as file:
        time = _check_length(file)
        interval = _interval(file, dt)
        traces = segy_headers.select(file, units, coordinates, history)
        shot, by = segy_headers.shot_numbers(traces, group_by, history)
        traces, shot = segy_headers.heard(traces, shot, history)
        segy_headers.check_coordinates(traces, shot)
        table = segy_headers.receiver_table(traces, shot, history)
        live = (table >= 0) & traces.live[table]
        observed = np.zeros((*table.shape, time.size), dtype=np.float32)
        for row, column in np.argwhere(live):
            observed[row, column] = file.trace.raw[int(traces.number[table[row, column]])]
    first = table[np.arange(len(table)), live.argmax(axis=1)]
    place = segy_headers.places(traces, history)
    return shots.make(
        observed,
        segy_headers.start(traces, history) + interval * time,
        {name.removeprefix("source_"): values[first] for name, values in place.items() if name.startswith("source")},
        {name.removeprefix("receiver_"): np.where(table < 0, np.nan, values[table]) for name, values in place.items() if name.startswith("receiver")},
        live=live,
        shot_id=traces.headers["FieldRecord"][first] if by == "FieldRecord" else None,
        units=_data_unit(traces),
        crs=crs,
        source=str(path),
        sha256=files.sha256(path),
        history=history,
    )


def write(path: str | os.PathLike[str], data: xarray.Dataset) -> None:
    """Write a waveform survey as SEG-Y revision 1: big-endian IEEE floats, one field record a shot, replacing the file at once or not at all.

    Coordinates are rounded to millimetres, or centimetres where those do not fit. Receivers that are not live are written as dead
    traces up to the last live one of the shot. Uncertainties are not written; a survey whose northings are all zero reads as
    two-dimensional.

    Args:
        path: The file to write or replace.
        data: A waveform survey with one source a shot. Whole, positive, increasing `shot_id` become field records, else 1, 2, ...

    Raises:
        ValueError: Several sources a shot, an interval that is not a whole number of microseconds (up to 32767), more than 32767
            samples, a first time outside what a delay can say, or coordinates beyond 21 000 km.
    """
    shots.check_layout(data)
    shots.check_values(data)
    spec = segyio.spec()
    spec.format, spec.samples = 5, np.arange(data.sizes["time"])
    interval = _microseconds(data)
    headers = _written_headers(data)
    spec.tracecount = len(headers["shot"])
    common = {"TRACE_SAMPLE_COUNT": data.sizes["time"], "TRACE_SAMPLE_INTERVAL": interval, "CoordinateUnits": 1, **_delay(data)}
    common["TraceValueMeasurementUnit"] = {unit: code for code, unit in _UNITS.items()}.get(data["observed"].attrs.get("units", ""), -1)
    observed = np.ascontiguousarray(data["observed"].values, dtype=np.float32)
    rows, columns = headers.pop("shot"), headers.pop("receiver")
    with atomic_path(path) as temporary, segyio.create(temporary, spec) as file:
        file.text[0] = segyio.tools.create_text_header(_text(data))
        widest = int(np.bincount(rows).max())
        # segyio counts every trace as one of the ensemble and as auxiliary, and truncates the interval.
        file.bin.update({BinField.Traces: min(widest, 32767), BinField.AuxTraces: 0, BinField.SEGYRevision: 1, BinField.TraceFlag: 1})
        file.bin.update({BinField.Interval: interval, BinField.IntervalOriginal: interval, BinField.SortingCode: 5, BinField.MeasurementSystem: 1})
        for number, (shot, receiver) in enumerate(zip(rows, columns, strict=True)):
            fields = common | {name: int(values[number]) for name, values in headers.items()}
            file.header[number] = {getattr(TraceField, name): value for name, value in fields.items()}
            file.trace[number] = observed[shot, receiver]


def _data_unit(traces: segy_headers.Traces) -> str:
    codes = np.unique(traces.headers["TraceValueMeasurementUnit"][traces.live])
    return _UNITS.get(int(codes[0]), "arbitrary") if codes.size == 1 else "arbitrary"


@contextmanager
def _opened(path: Path, history: list[str]) -> Iterator[Any]:
    """The file, opened without a geometry, in its own byte order; segyio's errors in the words of this project."""
    with open(path, "rb") as raw:
        head = raw.read(3600)
    code, endian = _format(path, head)
    try:
        file = segyio.open(path, ignore_geometry=True, endian=endian)
    except (RuntimeError, OSError, IndexError) as error:
        (samples,) = struct.unpack_from(">H" if endian == "big" else "<H", head, 3220)
        advice = "Its traces have different lengths, or it is cut off; rewrite it with traces of one length."
        raise checks.invalid("path", f"'{path}'", f"of whole traces of {samples} samples each (binary header)", advice) from error
    with file:
        history.append(f"read from {path}: SEG-Y, {_FORMATS[code]}, {file.tracecount} traces of {len(file.samples)} samples")
        yield file


def _format(path: Path, head: bytes) -> tuple[int, str]:
    """The code of the sample format and the byte order, of which only one makes sense of the code."""
    if len(head) == 3600:
        for mark, endian in ((">h", "big"), ("<h", "little")):
            (code,) = struct.unpack_from(mark, head, 3224)
            if code in _FORMATS:
                return code, endian
    codes = ", ".join(f"{code} ({name})" for code, name in _FORMATS.items())
    raise checks.invalid("path", f"'{path}'", f"a SEG-Y file with the sample format (bytes 3225-3226) {codes}")


def _check_length(file: Any) -> np.ndarray:
    """Sample numbers [time], after checking that every trace says it has that many, or nothing."""
    length = len(file.samples)
    said = segy_headers.field(file, "TRACE_SAMPLE_COUNT") & 0xFFFF  # segyio reads the 16 bits as signed
    other = np.flatnonzero((said != 0) & (said != length))
    if other.size:
        given = f"{said[other[0]]} samples in the header of trace {other[0]} (bytes 115-116)"
        raise checks.invalid("TRACE_SAMPLE_COUNT", given, f"{length}, as the binary header says", "Rewrite the file with traces of one length.")
    return np.arange(length)


def _interval(file: Any, dt: float | None) -> float:
    """The sampling interval in seconds: the caller's, or the one that the binary and the trace headers agree on."""
    if dt is not None:
        return float(checks.positive("dt", dt))
    binary, said = file.bin[BinField.Interval] & 0xFFFF, segy_headers.field(file, "TRACE_SAMPLE_INTERVAL") & 0xFFFF
    values = np.unique([value for value in (binary, *said) if value != 0])
    if values.size == 0:
        raise checks.invalid("dt", "zero in the binary header and in every trace header", "in bytes 3217-3218", f"{_INTERVAL}.")
    if values.size > 1:
        at = np.flatnonzero((said != 0) & (said != (binary or values[0])))[0]
        given = f"{said[at]} microseconds in trace {at} (bytes 117-118) and {binary or values[0]} elsewhere"
        raise checks.invalid("dt", given, "one interval", f"{_INTERVAL} if you know which is right.")
    return float(values[0]) / 1e6


def _microseconds(data: xarray.Dataset) -> int:
    interval, samples = shots.dt(data) * 1e6, data.sizes["time"]
    if samples > 32767:
        raise checks.invalid("time", f"of {samples} samples", "of at most 32767 for SEG-Y", "netCDF has no such limit.")
    if abs(interval - round(interval)) > 1e-3 or not 1 <= round(interval) <= 32767:
        expected = "a whole number of microseconds up to 32767 for SEG-Y"
        raise checks.invalid("dt", f"{interval:.9g} microseconds", expected, "Resample, or write netCDF, which takes any interval.")
    return round(interval)


def _delay(data: xarray.Dataset) -> dict[str, int]:
    """The headers that say the time of the first sample."""
    start = float(data["time"].values[0]) * 1e3
    for divisor in (1, 10, 100, 1000):
        count = round(start * divisor)
        if abs(start * divisor - count) < 1e-6 * max(1, abs(count)) and abs(count) < 2**15:
            return {"DelayRecordingTime": count, "ScalarTraceHeader": -divisor if divisor > 1 else 0}
    raise checks.invalid("time", f"starting at {start:g} ms", "starting at a time of 16 bits, in steps of 1 ms down to 1 microsecond")


def _written_headers(data: xarray.Dataset) -> dict[str, np.ndarray]:
    """Headers [trace], and each trace's shot and receiver: up to the last live receiver of each shot."""
    sources, placed, live = shots.acquisition_arrays(data)
    if sources.shape[1] != 1:
        raise checks.invalid("survey", f"with {sources.shape[1]} sources a shot", "with one, the only thing SEG-Y can say", "Write netCDF.")
    own = np.stack([data[f"receiver_{axis}"].values for axis in shots.axes_of(data)], axis=-1)
    receivers = np.where(np.isfinite(own).all(axis=-1, keepdims=True), own, placed)
    shot, receiver = np.nonzero(np.cumsum(live[:, ::-1], axis=1)[:, ::-1])
    source, group = sources[shot, 0], receivers[shot, receiver]
    heights, height_scalar = _scaled(np.stack([np.maximum(source[:, 0], 0), np.maximum(-source[:, 0], 0), group[:, 0]]))
    flat = np.stack([source[:, -1], group[:, -1], *([source[:, 1], group[:, 1]] if source.shape[1] == 3 else [])])
    plane, plane_scalar = _scaled(flat)
    apart = group[:, 1:] - source[:, 1:]
    return {
        **{"shot": shot, "receiver": receiver, "FieldRecord": _records(data)[shot], "TraceNumber": receiver + 1},
        **{"TRACE_SEQUENCE_LINE": np.arange(1, shot.size + 1), "TRACE_SEQUENCE_FILE": np.arange(1, shot.size + 1)},
        "TraceIdentificationCode": np.where(live[shot, receiver], 1, segy_headers.DEAD),
        "offset": np.rint(apart[:, 0] if apart.shape[1] == 1 else np.linalg.norm(apart, axis=1)),
        **dict(zip(("SourceSurfaceElevation", "SourceDepth", "ReceiverGroupElevation"), heights, strict=True)),
        **dict(zip(("SourceX", "GroupX", "SourceY", "GroupY"), plane, strict=False)),
        **{"ElevationScalar": np.full(shot.size, height_scalar), "SourceGroupScalar": np.full(shot.size, plane_scalar)},
    }


def _scaled(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Lengths as whole millimetres, or centimetres where those do not fit in 32 bits, and the scalar that says so."""
    for divisor in (1000, 100):
        whole = np.rint(values * divisor)
        if np.abs(whole).max() < 2**31:
            return whole, -divisor
    raise checks.invalid("coordinates", f"up to {np.abs(values).max():.6g} m", "below 21 474 km for SEG-Y", "Are they in metres?")


def _records(data: xarray.Dataset) -> np.ndarray:
    given = data["shot_id"].values if "shot_id" in data.variables else np.zeros(0)
    usable = given.size and given.dtype.kind in "iu" and given.min() > 0 and given.max() < 2**31 and np.all(np.diff(given.astype(np.int64)) > 0)
    return given if usable else np.arange(1, data.sizes["shot"] + 1)


def _text(data: xarray.Dataset) -> dict[int, str]:
    lines = (
        "Written by geoinv: SEG-Y revision 1, big-endian, 4-byte IEEE floats",
        f"{data.sizes['shot']} shots, sorted by field record and channel",
        "Coordinates: SourceX/GroupX easting, SourceY/GroupY northing, in metres",
        "Elevations in metres, positive up; source at surface elevation - depth",
        f"Coordinate reference system: {data.attrs.get('crs') or 'local'}",
        f"Samples: {data['observed'].attrs.get('units', 'arbitrary')}; uncertainties are not stored",
        "Trace identification code 2: dead trace",
    )
    return {i: line.encode("ascii", "replace").decode()[:76] for i, line in enumerate(lines, start=1)} | {39: "SEG Y REV1", 40: "END TEXTUAL HEADER"}
