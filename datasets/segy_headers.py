"""What the trace headers of a SEG-Y file say: which traces belong together, where their sources and receivers are, when they start.

Scalars of zero mean one; negative scalars divide. Headers that are empty, in degrees or that contradict one another are refused,
with the bytes to look at. `segy` reads the samples.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, final

import numpy as np
from segyio import BinField, TraceField

from geoinv.operators import checks

#: The coordinates a caller may give instead of the headers'.
COORDINATES = tuple(f"{kind}_{axis}" for kind in ("source", "receiver") for axis in ("upward", "northing", "easting"))

#: TraceIdentificationCode of a dead trace.
DEAD = 2

_ANY_SENSOR, _SENSORS = (-1, 0), (1, *range(11, 18))  # TraceIdentificationCode; the others are auxiliary channels
_ANGLES = {2: "seconds of arc", 3: "decimal degrees", 4: "degrees, minutes and seconds"}  # CoordinateUnits; 1 is a length
_HEADERS = (
    *("FieldRecord", "TraceNumber", "TraceIdentificationCode", "offset", "CoordinateUnits", "TraceValueMeasurementUnit"),
    *("ReceiverGroupElevation", "SourceSurfaceElevation", "SourceDepth", "ElevationScalar"),
    *("SourceX", "SourceY", "GroupX", "GroupY", "SourceGroupScalar", "DelayRecordingTime", "ScalarTraceHeader"),
)
_HORIZONTAL = {"source": "SourceX (bytes 73-76) and SourceY (bytes 77-80)", "receiver": "GroupX (bytes 81-84) and GroupY (bytes 85-88)"}
_GEOMETRY = (
    "Pass the geometry, in metres, one number or one for each trace: coordinates={'source_easting': ..., 'receiver_easting': ...}; "
    "in a config, data.geometry names a table of them."
)


@final
@dataclasses.dataclass(frozen=True)
class Traces:
    """Some traces of a file: their numbers in it, headers, coordinates in metres, and which coordinates the caller gave."""

    number: np.ndarray
    headers: Mapping[str, np.ndarray]
    place: Mapping[str, np.ndarray]
    replaced: frozenset[str]

    @property
    def live(self) -> np.ndarray:
        return np.asarray(self.headers["TraceIdentificationCode"] != DEAD)

    def keep(self, mask: np.ndarray) -> "Traces":
        """Only the traces of a mask."""
        headers, place = ({name: values[mask] for name, values in table.items()} for table in (self.headers, self.place))
        return Traces(self.number[mask], headers, place, self.replaced)


def select(file: Any, units: str | None, coordinates: str | Mapping[str, Any], history: list[str]) -> Traces:
    """The seismic and the dead traces of a file, with their coordinates."""
    headers = {name: field(file, name) for name in _HEADERS}
    if isinstance(coordinates, str):
        checks.choice("coordinates", coordinates, ("header",))
        coordinates = {}
    said = "ft" if file.bin[BinField.MeasurementSystem] == 2 else "m"
    metres = checks.unit_factor("units", units or said, "length")
    history.append(f"lengths in {units or said}{'' if units else ' (binary header)'}, times {metres:g}")
    place = _header_places(headers, metres)
    for name, values in coordinates.items():
        checks.choice("coordinates", name, COORDINATES)
        array = np.asarray(values, dtype=np.float64)
        if array.shape not in ((), (file.tracecount,)):
            expected = f"one number, or one for each of the {file.tracecount} traces of the file"
            raise checks.invalid(f"coordinates {name}", f"of shape {array.shape}", expected, "A config gives them by data.geometry.")
        place[name] = np.broadcast_to(array, file.tracecount)
        history.append(f"{name} given by the caller")
    traces = Traces(np.arange(file.tracecount), headers, place, frozenset(coordinates))
    codes = headers["TraceIdentificationCode"]
    seismic = np.isin(codes, (*_ANY_SENSOR, DEAD, *_SENSORS))
    sensors = np.intersect1d(codes, _SENSORS)
    if sensors.size > 1:
        given = f"{' and '.join(map(str, sensors))} in one file (bytes 29-30)"
        raise checks.invalid("TraceIdentificationCode", given, "one kind of sensor", "Extract the traces of one sensor first.")
    for mask, what in ((~seismic, "auxiliary traces left out"), (codes == DEAD, "dead traces kept as not live")):
        if mask.any():
            history.append(f"{mask.sum()} {what} (TraceIdentificationCode)")
    if not np.any(seismic & (codes != DEAD)):
        raise checks.invalid("TraceIdentificationCode", f"of {', '.join(map(str, np.unique(codes)))} only", "0, 1 or 11 to 17 in some live trace")
    return traces.keep(seismic)


def field(file: Any, name: str) -> np.ndarray:
    """One header field of an open file [trace], int64."""
    return np.asarray(file.attributes(getattr(TraceField, name))[:], dtype=np.int64)


def _header_places(headers: Mapping[str, np.ndarray], metres: float) -> dict[str, np.ndarray]:
    """Coordinates [trace] in metres from the headers."""
    height, plane = headers["ElevationScalar"], headers["SourceGroupScalar"]
    return {
        "source_upward": metres * _scaled(headers["SourceSurfaceElevation"] - headers["SourceDepth"], height),
        "source_northing": metres * _scaled(headers["SourceY"], plane),
        "source_easting": metres * _scaled(headers["SourceX"], plane),
        "receiver_upward": metres * _scaled(headers["ReceiverGroupElevation"], height),
        "receiver_northing": metres * _scaled(headers["GroupY"], plane),
        "receiver_easting": metres * _scaled(headers["GroupX"], plane),
    }


def _scaled(values: np.ndarray, scalar: np.ndarray) -> np.ndarray:
    """Header values times their scalar; a negative scalar divides, zero means one."""
    size = np.maximum(np.abs(scalar), 1)
    return np.where(scalar < 0, values / size, values * size)


def shot_numbers(traces: Traces, group_by: str | None, history: list[str]) -> tuple[np.ndarray, str]:
    """The number of each trace's shot, and what tells shots apart."""
    record = traces.headers["FieldRecord"]
    position = np.stack([values for name, values in traces.place.items() if name.startswith("source")], axis=1)
    silent = np.unique(record).size == 1 and np.any(np.ptp(position[traces.live], axis=0) > 0)
    by = checks.choice("group_by", group_by or ("position" if silent else "FieldRecord"), ("FieldRecord", "position"))
    keys = record[:, None] if by == "FieldRecord" else position
    _, earliest, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    shot = group.ravel() if by == "FieldRecord" else np.argsort(np.argsort(earliest))[group.ravel()]
    reason = "" if group_by or by == "FieldRecord" else f": FieldRecord is {record[0]} everywhere"
    history.append(f"shots by {by}{reason}")
    live = np.flatnonzero(traces.live)
    _, first, group = np.unique(shot[live], return_index=True, return_inverse=True)
    moved = live[np.any(position[live] != position[live][first][group.ravel()], axis=1)]
    if moved.size:
        given = f"with two source positions, the second in trace {traces.number[moved[0]]}"
        advice = "Use group_by='position' (data.group_by in a config)."
        raise checks.invalid(f"FieldRecord {record[moved[0]]}", given, "one shot with one source", advice)
    return shot, by


def heard(traces: Traces, shot: np.ndarray, history: list[str]) -> tuple[Traces, np.ndarray]:
    """The traces of the shots with a live one, those shots numbered anew."""
    used = np.isin(shot, shot[traces.live])
    if not used.all():
        history.append(f"{np.unique(shot[~used]).size} shots without a live trace left out")
    return traces.keep(used), np.unique(shot[used], return_inverse=True)[1]


def check_coordinates(traces: Traces, shot: np.ndarray) -> None:
    """Refuse headers in degrees, empty ones, and ones that are empty in some traces only."""
    live, said = traces.live, traces.headers["CoordinateUnits"]
    for kind, fields in _HORIZONTAL.items():
        if f"{kind}_easting" in traces.replaced:
            continue
        angles = np.intersect1d(said[live], list(_ANGLES))
        if angles.size:
            advice = f"Project them and pass them. {_GEOMETRY}"
            raise checks.invalid("CoordinateUnits", f"{angles[0]} ({_ANGLES[int(angles[0])]}; bytes 89-90)", "0 or 1, lengths", advice)
        plane = np.stack([traces.place[f"{kind}_easting"], traces.place[f"{kind}_northing"]], axis=1)[live]
        empty = ~plane.any(axis=1)
        if empty.all() and not (np.all(said[live] == 1) and _told_apart(traces, shot, kind)):
            raise checks.invalid(fields, f"zero in all {empty.size} live traces", f"the {kind}s' coordinates", _GEOMETRY)
        if empty.any() and not empty.all():
            low, high = plane[~empty].min(axis=0), plane[~empty].max(axis=0)
            # Zero is a place like any other near a line that starts there, but not kilometres away from it.
            if np.linalg.norm(np.maximum(low, -high).clip(0)) > np.linalg.norm(high - low):
                at = traces.number[live][empty][0]
                raise checks.invalid(fields, f"zero in trace {at} ({empty.sum()} live traces)", "near the others", f"Mark them dead, or: {_GEOMETRY}")


def _told_apart(traces: Traces, shot: np.ndarray, kind: str) -> bool:
    """Whether coordinates that are zero everywhere still make sense: a borehole at the origin, or one source there."""
    live, channel = traces.live, traces.headers["TraceNumber"]
    receivers = [np.stack([shot, *(values for name, values in traces.place.items() if name.startswith("receiver"))])]
    # Channels that repeat within a "shot" betray several.
    receivers += [np.stack([shot, channel])] if channel.any() else []
    if any(np.unique(keys[:, live], axis=1).shape[1] < live.sum() for keys in receivers):
        return False
    return kind == "receiver" or np.unique(traces.place["source_upward"][live]).size == np.unique(shot).size


def receiver_table(traces: Traces, shot: np.ndarray, history: list[str]) -> np.ndarray:
    """The trace at each [shot, receiver]; -1 pads the shots with fewer receivers."""
    for name in ("TraceNumber", "offset"):
        rank = traces.headers[name]
        if len(np.unique(np.stack([shot, rank]), axis=1).T) == shot.size:
            break
    else:
        name, rank = "their order in the file", traces.number
    history.append(f"receivers by {name}")
    order = np.lexsort((rank, shot))
    counts = np.bincount(shot)
    column = np.arange(shot.size) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full((counts.size, counts.max()), -1)
    table[shot[order], column] = order
    return table


def places(traces: Traces, history: list[str]) -> dict[str, np.ndarray]:
    """The coordinates that count: without northings where the headers have none."""
    names = ("source_northing", "receiver_northing")
    if traces.replaced.intersection(names) or any(traces.place[name][traces.live].any() for name in names):
        return dict(traces.place)
    history.append("two-dimensional: SourceY and GroupY are zero")
    return {name: values for name, values in traces.place.items() if name not in names}


def start(traces: Traces, history: list[str]) -> float:
    """The time of the first sample in seconds, one for all live traces."""
    delay = _scaled(traces.headers["DelayRecordingTime"], traces.headers["ScalarTraceHeader"])[traces.live]
    if np.ptp(delay) > 0:
        given = f"from {delay.min():g} to {delay.max():g} ms (bytes 109-110)"
        raise checks.invalid("DelayRecordingTime", given, "the same in every live trace", "Pad the traces to one start first.")
    if delay[0] != 0:
        history.append(f"time starts at {delay[0]:g} ms (DelayRecordingTime)")
    return float(delay[0]) / 1e3
