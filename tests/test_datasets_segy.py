"""SEG-Y against files laid out byte by byte here, as the revision 1 standard has them: scalars, orders, formats, and every bad header."""

import struct
import warnings

import numpy as np
import pytest
import segyio
import xarray

from geoinv.datasets import segy, shots

# First byte (from 1) and type of each trace header used, from table 2 of the standard.
BYTES = {
    **{"record": (9, "i"), "channel": (13, "i"), "code": (29, "h"), "offset": (37, "i")},
    **{"receiver_elevation": (41, "i"), "source_elevation": (45, "i"), "source_depth": (49, "i"), "elevation_scalar": (69, "h")},
    **{"scalar": (71, "h"), "source_x": (73, "i"), "source_y": (77, "i"), "group_x": (81, "i"), "group_y": (85, "i"), "units": (89, "h")},
    **{"delay": (109, "h"), "samples": (115, "H"), "interval": (117, "H"), "value_unit": (203, "h"), "time_scalar": (215, "h")},
}
BINARY = {"interval": (3217, "H"), "samples": (3221, "H"), "format": (3225, "H"), "system": (3255, "h"), "revision": (3501, "H")}
SAMPLES = 8


def block(size, table, fields, first, order=">"):
    raw = bytearray(size)
    for name, value in fields.items():
        byte, kind = table[name]
        struct.pack_into(order + kind, raw, byte - first, value)
    return bytes(raw)


def lay_out(path, traces, binary=None, order=">", kind="f"):
    """Write a file of (header, samples) pairs."""
    head = {"interval": 2000, "samples": SAMPLES, "format": 5, "system": 1, "revision": 0x100} | (binary or {})
    raw = b" " * 3200 + block(400, BINARY, head, 3201, order)
    for header, values in traces:
        raw += block(240, BYTES, {"samples": len(values), "interval": 2000, "code": 1, "units": 1} | header, 1, order)
        raw += struct.pack(f"{order}{len(values)}{kind}", *values)
    path.write_bytes(raw)
    return path


def trace(record, channel, **changes):
    """A trace of a 2-D line whose samples are 100 record + 10 channel + n; sources every 50 m from 1000 m, receivers 10 m apart from there."""
    header = {"record": record, "channel": channel, "source_x": 950 + 50 * record, "group_x": 950 + 50 * record + 10 * channel}
    return header | changes, [100 * record + 10 * channel + n for n in range(SAMPLES)]


def line(**changes):
    return [trace(record, channel, **changes) for record in (1, 2) for channel in (1, 2, 3)]


def test_values_coordinates_and_time(tmp_path):
    read = shots.validate(segy.read(lay_out(tmp_path / "line.sgy", line(value_unit=1)), crs="EPSG:32610"))
    expected = np.array([[[100 * r + 10 * c + n for n in range(SAMPLES)] for c in (1, 2, 3)] for r in (1, 2)], dtype=np.float32)
    np.testing.assert_array_equal(read["observed"], expected)
    np.testing.assert_array_equal(read["source_easting"], [1000, 1050])
    np.testing.assert_array_equal(read["receiver_easting"], [[1010, 1020, 1030], [1060, 1070, 1080]])
    np.testing.assert_allclose(read["time"], 0.002 * np.arange(SAMPLES), rtol=1e-14)
    assert shots.axes_of(read) == ("upward", "easting") and list(read["shot_id"].values) == [1, 2]
    assert read["observed"].attrs["units"] == "Pa" and read["live"].values.all() and not read["uncertainty"].values.any()
    assert read.attrs["crs"] == "EPSG:32610" and len(read.attrs["sha256"]) == 64
    assert "shots by FieldRecord\nreceivers by TraceNumber\ntwo-dimensional" in read.attrs["history"]


def test_any_order_of_the_traces_reads_the_same(tmp_path):
    whole = segy.read(lay_out(tmp_path / "line.sgy", line()))
    for seed in range(3):
        shuffled = [line()[i] for i in np.random.default_rng(seed).permutation(6)]
        read = segy.read(lay_out(tmp_path / "line.sgy", shuffled))
        xarray.testing.assert_equal(read, whole)


def test_receivers_without_channels_are_sorted_by_offset_else_left_in_order(tmp_path):
    given = [trace(1, channel) for channel in (3, 1, 2)]
    by_offset = [(header | {"channel": 0, "offset": -10 * header["channel"]}, values) for header, values in given]
    read = segy.read(lay_out(tmp_path / "line.sgy", by_offset))
    np.testing.assert_array_equal(read["observed"].values[0, :, 0], [130, 120, 110])
    assert "receivers by offset" in read.attrs["history"]
    in_order = [(header | {"channel": 0}, values) for header, values in given]
    read = segy.read(lay_out(tmp_path / "line.sgy", in_order))
    np.testing.assert_array_equal(read["observed"].values[0, :, 0], [130, 110, 120])
    assert "receivers by their order in the file" in read.attrs["history"]


@pytest.mark.parametrize(
    ("scalar", "factor"), [(0, 1.0), (1, 1.0), (-1, 1.0), (10, 10.0), (-10, 0.1), (-100, 0.01), (-1000, 0.001), (-10000, 0.0001), (1000, 1000.0)]
)
def test_scalars(tmp_path, scalar, factor):
    header = {
        "source_x": 123457,
        "source_y": 7,
        "group_x": -34567,
        "group_y": 11,
        "source_elevation": 305,
        "source_depth": 21,
        "receiver_elevation": -77,
    }
    plane = segy.read(lay_out(tmp_path / "a.sgy", [trace(1, 1, scalar=scalar, **header)]))
    height = segy.read(lay_out(tmp_path / "b.sgy", [trace(1, 1, elevation_scalar=scalar, **header)]))
    for made, flat, up in ((plane, factor, 1.0), (height, 1.0, factor)):
        read = [made[f"{kind}_{axis}"].item() for kind in ("source", "receiver") for axis in ("easting", "northing", "upward")]
        np.testing.assert_allclose(read, [flat * 123457, flat * 7, up * (305 - 21), flat * -34567, flat * 11, up * -77], rtol=1e-15)


def test_scalars_may_differ_from_trace_to_trace(tmp_path):
    traces = [trace(1, 1, scalar=-10, source_x=10000, group_x=10105), trace(1, 2, scalar=-100, source_x=100000, group_x=102025)]
    np.testing.assert_array_equal(segy.read(lay_out(tmp_path / "a.sgy", traces))["receiver_easting"], [[1010.5, 1020.25]])


def test_lengths_in_feet(tmp_path):
    path = lay_out(tmp_path / "a.sgy", [trace(1, 1, source_depth=10)], {"system": 2})
    assert segy.read(path)["source_easting"].item() == pytest.approx(304.8, rel=1e-15)
    assert segy.read(path)["source_upward"].item() == pytest.approx(-3.048, rel=1e-15)
    assert segy.read(path, units="m")["source_easting"].item() == 1000.0
    assert segy.read(path, units="km")["source_easting"].item() == 1e6


def test_ibm_floats_and_integers(tmp_path):
    # -118.625 is the textbook's example of an IBM float; 1 = 16^1 * 1/16.
    words = [0xC276A000, 0x41100000, 0, 0, 0, 0, 0, 0]
    read = segy.read(lay_out(tmp_path / "ibm.sgy", [(trace(1, 1)[0], words)], {"format": 1}, kind="I"))
    np.testing.assert_array_equal(read["observed"].values[0, 0, :3], [-118.625, 1.0, 0.0])
    for code, kind in ((2, "i"), (3, "h"), (6, "d"), (8, "b")):
        read = segy.read(lay_out(tmp_path / "int.sgy", [(trace(1, 1)[0], range(-4, 4))], {"format": code}, kind=kind))
        np.testing.assert_array_equal(read["observed"].values[0, 0], np.arange(-4, 4, dtype=np.float32))


def test_little_endian_files(tmp_path):
    big = segy.read(lay_out(tmp_path / "big.sgy", line()))
    xarray.testing.assert_equal(segy.read(lay_out(tmp_path / "little.sgy", line(), order="<")), big)


def test_spreads_of_different_lengths_and_dead_traces(tmp_path):
    traces = [trace(1, 1), trace(1, 2, code=2), trace(1, 3), trace(2, 2), trace(4, 1), trace(4, 2)]
    read = shots.validate(segy.read(lay_out(tmp_path / "a.sgy", traces)))
    np.testing.assert_array_equal(read["live"], [[1, 0, 1], [1, 0, 0], [1, 1, 0]])
    np.testing.assert_array_equal(read["observed"].values[..., 0], [[110, 0, 130], [220, 0, 0], [410, 420, 0]])
    assert read["receiver_easting"][0, 1] == 1020.0 and np.isnan(read["receiver_easting"][1, 1])
    assert "1 dead traces kept" in read.attrs["history"]


def test_a_dead_trace_may_hold_anything(tmp_path):
    dead = (trace(1, 2, code=2, source_x=0, group_x=0, delay=9)[0], [np.nan] * SAMPLES)
    read = shots.validate(segy.read(lay_out(tmp_path / "a.sgy", [trace(1, 1), dead])))
    np.testing.assert_array_equal(read["live"], [[1, 0]])
    assert not read["observed"].values[0, 1].any()


def test_auxiliary_channels_and_silent_shots_are_left_out(tmp_path):
    traces = [trace(1, 1), trace(1, 90, code=6), trace(2, 1, code=2), trace(3, 1), trace(3, 91, code=4)]
    read = segy.read(lay_out(tmp_path / "a.sgy", traces))
    assert list(read["shot_id"].values) == [1, 3] and read.sizes["receiver"] == 1
    assert "2 auxiliary traces left out" in read.attrs["history"] and "1 shots without a live trace left out" in read.attrs["history"]


def test_shots_by_source_position_where_the_field_record_says_nothing(tmp_path):
    traces = [trace(record, channel) for record in (2, 1) for channel in (1, 2)]
    same = [(header | {"record": 0}, values) for header, values in traces]
    read = segy.read(lay_out(tmp_path / "a.sgy", same))
    np.testing.assert_array_equal(read["source_easting"], [1050, 1000])  # as they come in the file
    np.testing.assert_array_equal(read["observed"].values[..., 0], [[210, 220], [110, 120]])
    assert "shots by position: FieldRecord is 0 everywhere" in read.attrs["history"] and "shot_id" not in read.variables
    numbered = [(header | {"record": i + 1}, values) for i, (header, values) in enumerate(traces)]
    assert segy.read(lay_out(tmp_path / "a.sgy", numbered)).sizes["shot"] == 4
    assert segy.read(lay_out(tmp_path / "a.sgy", numbered), group_by="position").sizes["shot"] == 2


@pytest.mark.parametrize(("delay", "scalar", "start"), [(100, 0, 0.1), (-40, 1, -0.04), (125, -10, 0.0125), (2, 100, 0.2)])
def test_the_delay_is_the_first_time(tmp_path, delay, scalar, start):
    read = segy.read(lay_out(tmp_path / "a.sgy", line(delay=delay, time_scalar=scalar)))
    np.testing.assert_allclose(read["time"], start + 0.002 * np.arange(SAMPLES), atol=1e-15)
    assert "time starts at" in read.attrs["history"]


@pytest.mark.parametrize(
    ("binary", "said", "given", "expected"), [(0, 2000, None, 2e-3), (40000, 40000, None, 0.04), (2000, 0, None, 2e-3), (0, 0, 5e-4, 5e-4)]
)
def test_the_interval(tmp_path, binary, said, given, expected):
    path = lay_out(tmp_path / "a.sgy", line(interval=said), {"interval": binary})
    assert shots.dt(segy.read(path, dt=given)) == pytest.approx(expected, rel=1e-12)


def test_three_dimensions(tmp_path):
    read = segy.read(lay_out(tmp_path / "a.sgy", [trace(1, 1, group_y=40), trace(1, 2, group_y=-30)]))
    assert shots.axes_of(read) == ("upward", "northing", "easting")
    np.testing.assert_array_equal(read["receiver_northing"], [[40, -30]])


def test_geometry_from_the_caller(tmp_path):
    path = lay_out(tmp_path / "a.sgy", line(source_x=0, group_x=0))
    geometry = {"source_easting": np.repeat([5.0, 6.0], 3), "receiver_easting": np.tile([1.0, 2.0, 3.0], 2), "receiver_upward": -4.0}
    read = segy.read(path, coordinates=geometry)
    np.testing.assert_array_equal(read["source_easting"], [5, 6])
    np.testing.assert_array_equal(read["receiver_easting"], [[1, 2, 3], [1, 2, 3]])
    np.testing.assert_array_equal(read["receiver_upward"], np.full((2, 3), -4.0))
    assert "receiver_upward given by the caller" in read.attrs["history"]
    degrees = lay_out(tmp_path / "a.sgy", line(units=3))
    assert segy.read(degrees, coordinates=geometry).sizes["shot"] == 2


def test_a_borehole_at_the_origin_is_not_a_file_without_coordinates(tmp_path):
    hole = [trace(record, c, source_x=0, group_x=0, receiver_elevation=-10 * c, source_depth=record) for record in (1, 2) for c in (1, 2)]
    read = segy.read(lay_out(tmp_path / "a.sgy", hole))
    np.testing.assert_array_equal(read["receiver_upward"], [[-10, -20], [-10, -20]])
    np.testing.assert_array_equal(read["source_upward"], [-1, -2])


FAR = {"source_x": 500000, "group_x": 500100}


@pytest.mark.parametrize(
    ("traces", "binary", "options", "message"),
    [
        (line(group_x=0), {}, {}, r"'GroupX .bytes 81-84. and GroupY .bytes 85-88.' zero in all 6 live traces.*coordinates="),
        (line(source_x=0), {}, {}, r"'SourceX .bytes 73-76. and SourceY .bytes 77-80.' zero in all 6 live traces.*coordinates="),
        ([(header | {"record": 0}, values) for header, values in line(source_x=0)], {}, {}, "'SourceX"),  # channels repeat: not one shot
        ([trace(1, 1, **FAR), trace(1, 2, **(FAR | {"group_x": 0}))], {}, {}, "'GroupX.* zero in trace 1 .1 live"),
        (line(units=2), {}, {}, "'CoordinateUnits' 2 .seconds of arc.*Project"),
        (line(units=3), {}, {}, "'CoordinateUnits' 3 .decimal degrees"),
        ([*line(), trace(3, 1, delay=4)], {}, {}, "'DelayRecordingTime' from 0 to 4 ms"),
        ([*line(), trace(3, 1, interval=4000)], {}, {}, "'dt' 4000 microseconds in trace 6 .* and 2000 elsewhere.*Pass dt"),
        (line(interval=1000), {}, {}, "'dt' 1000 microseconds in trace 0 .* and 2000 elsewhere"),
        (line(interval=0), {"interval": 0}, {}, "'dt' zero in the binary header"),
        (line(), {}, {"dt": -0.002}, "'dt' -0.002"),
        ([*line(), trace(3, 1, samples=6)], {}, {}, "'TRACE_SAMPLE_COUNT' 6 samples in the header of trace 6 .*must be 8"),
        ([*line(), (trace(3, 1)[0], range(5))], {}, {}, "whole traces of 8 samples.*different lengths"),
        ([*line(), (trace(3, 1)[0], range(3 * SAMPLES + 60 * 2))], {}, {}, "144 samples in the header of trace 6"),
        (line(), {"samples": 0}, {}, "whole traces of 0 samples"),
        (line(), {"format": 4}, {}, "sample format .bytes 3225-3226. 1 .IBM"),
        (line(), {"format": 99}, {}, "sample format"),
        ([], {}, {}, "whole traces of 8"),
        ([trace(1, 1, code=11), trace(1, 2, code=12)], {}, {}, "'TraceIdentificationCode' 11 and 12 in one file"),
        (line(code=2), {}, {}, "'TraceIdentificationCode' of 2 only"),
        ([*line(), trace(2, 4, source_x=777)], {}, {}, "'FieldRecord 2' with two source positions, the second in trace 6.*group_by"),
        ([*line(), (trace(2, 4)[0], [0.0, np.nan, *range(6)])], {}, {}, "'observed' nan at shot 1, receiver 3, sample 1"),
        (line(), {}, {"units": "yard"}, "'units' 'yard'"),
        (line(), {}, {"group_by": "colour"}, "'group_by' 'colour'"),
        (line(), {}, {"coordinates": "headers"}, "'coordinates' 'headers'"),
        (line(), {}, {"coordinates": {"easting": 1.0}}, "'coordinates' 'easting'"),
        (line(), {}, {"coordinates": {"source_easting": [1.0, 2.0]}}, r"of shape \(2,\): .* each of the 6 traces.*data\.geometry"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, traces, binary, options, message):
    path = lay_out(tmp_path / "bad.sgy", traces, binary)
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message) as caught:
        warnings.simplefilter("error")
        segy.read(path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not SEG-Y", b" " * 3600, b"\0" * 10000])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "other.sgy").write_bytes(content)
    with pytest.raises(ValueError, match=r"'path' .*other\.sgy.*SEG-Y"):
        segy.read(tmp_path / "other.sgy")
    with pytest.raises(ValueError, match="existing file"):
        segy.read(tmp_path / "none.sgy")


def ragged(dims=2, offset=0.0, start=0.0, **changes):
    rng = np.random.default_rng(dims)
    axes = ("upward", "easting") if dims == 2 else ("upward", "northing", "easting")
    live = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0]], dtype=bool)
    return shots.make(
        rng.standard_normal((3, 4, 20)),
        start + 0.0005 * np.arange(20),
        {axis: offset + rng.uniform(-500, 500, 3) for axis in axes},
        {axis: offset + rng.uniform(-500, 500, (3, 4)) for axis in axes},
        live=live,
        **changes,
    )


@pytest.mark.parametrize(
    ("dims", "offset", "rounding", "start"), [(2, 0.0, 0.0005, 0.0), (3, 0.0, 0.0005, -0.1), (3, 4e6, 0.005, 0.0125), (2, 2.1e6, 0.0005, 0.000123)]
)
def test_writing_and_reading_back(tmp_path, dims, offset, rounding, start):
    made = ragged(dims, offset, start, shot_id=[11, 12, 30], units="m/s")
    segy.write(tmp_path / "a.sgy", made)
    read = shots.validate(segy.read(tmp_path / "a.sgy"))
    for name in ("observed", "live", "shot_id"):
        np.testing.assert_array_equal(read[name], made[name])
    np.testing.assert_allclose(read["time"], made["time"], atol=1e-12)
    assert shots.axes_of(read) == shots.axes_of(made) and read["observed"].attrs["units"] == "m/s"
    written = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]], dtype=bool)  # a dead trace keeps its place, padding does not
    for axis in shots.axes_of(made):
        np.testing.assert_allclose(read[f"source_{axis}"], made[f"source_{axis}"], rtol=0, atol=1.001 * rounding)
        np.testing.assert_allclose(read[f"receiver_{axis}"].values[written], made[f"receiver_{axis}"].values[written], rtol=0, atol=1.001 * rounding)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.sgy"]
    segy.write(tmp_path / "b.sgy", read)
    assert (tmp_path / "b.sgy").read_bytes()[3600:] == (tmp_path / "a.sgy").read_bytes()[3600:]


def test_what_is_written_is_the_standard(tmp_path):
    receivers = {"upward": [[-8.0, -9.0]], "northing": [[100.0, 2.0]], "easting": [[10.1234, -20.0]]}
    made = shots.make([[[1.5] * 5, [-2.5] * 5]], 0.1 + 0.002 * np.arange(5), {"upward": -6.5, "northing": 1.0, "easting": 500.0}, receivers)
    segy.write(tmp_path / "a.sgy", made)
    raw = (tmp_path / "a.sgy").read_bytes()
    assert len(raw) == 3600 + 2 * (240 + 4 * 5)
    text = raw[:3200].decode("cp037")
    assert "Written by geoinv" in text and "in metres" in text and "SEG Y REV1" in text and text[80 * 3 :].startswith("C 4")
    binary = {name: struct.unpack_from(">" + kind, raw, byte - 1)[0] for name, (byte, kind) in BINARY.items()}
    assert binary == {"interval": 2000, "samples": 5, "format": 5, "system": 1, "revision": 0x100}
    assert struct.unpack_from(">h", raw, 3502) == (1,) and struct.unpack_from(">hh", raw, 3212) == (2, 0)  # fixed length; traces, auxiliary
    header = {name: struct.unpack_from(">" + kind, raw, 3600 + byte - 1)[0] for name, (byte, kind) in BYTES.items()}
    assert header == {
        **{"record": 1, "channel": 1, "code": 1, "offset": 500, "receiver_elevation": -8000, "source_elevation": 0, "source_depth": 6500},
        **{"elevation_scalar": -1000, "scalar": -1000, "source_x": 500000, "source_y": 1000, "group_x": 10123, "group_y": 100000, "units": 1},
        **{"delay": 100, "samples": 5, "interval": 2000, "value_unit": 1, "time_scalar": 0},
    }
    assert struct.unpack_from(">5f", raw, 3840) == (1.5,) * 5 and struct.unpack_from(">5f", raw, 3840 + 260) == (-2.5,) * 5
    with segyio.open(tmp_path / "a.sgy", ignore_geometry=True) as file:
        np.testing.assert_allclose(file.samples, 100 + 2.0 * np.arange(5))


def test_padding_is_not_written_and_its_absence_reads_the_same(tmp_path):
    gathers = [
        {"observed": np.ones((n, 20)), "sources": {"upward": 0.0, "easting": 3.0 * n}, "receivers": {"upward": 0.0, "easting": 1.0 + np.arange(n)}}
        for n in (2, 5, 1)
    ]
    made = shots.from_gathers(gathers, 0.001 * np.arange(20))
    segy.write(tmp_path / "a.sgy", made)
    assert (tmp_path / "a.sgy").stat().st_size == 3600 + 8 * (240 + 80)
    xarray.testing.assert_allclose(segy.read(tmp_path / "a.sgy").drop_vars("shot_id"), made, atol=1e-12)


def test_field_records_are_the_shots_numbers_where_they_can_be(tmp_path):
    for given in (["a", "b", "c"], [3, 2, 1], [0, 1, 2], None):
        segy.write(tmp_path / "a.sgy", ragged(shot_id=given))
        assert list(segy.read(tmp_path / "a.sgy")["shot_id"].values) == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": 0.002 / 3 * np.arange(20)}, "'dt' 666.66.* microseconds: must be a whole number"),
        ({"time": 0.04 * np.arange(20)}, "'dt' 40000 microseconds: must be a whole number of microseconds up to 32767"),
        ({"time": 100.0 + 0.001 * np.arange(20)}, "'time' starting at 100000 ms"),
        ({"receivers": {"upward": 0.0, "easting": 3e7}}, "'coordinates' up to 3e.07 m"),
        ({"sources": {"upward": 0.0, "easting": [[0.0, 1.0]]}}, "2 sources a shot"),
    ],
)
def test_surveys_that_segy_cannot_hold_leave_the_old_file(tmp_path, changes, message):
    arguments = {"time": 0.001 * np.arange(20), "sources": {"upward": 0.0, "easting": 0.0}, "receivers": {"upward": 0.0, "easting": 5.0}}
    (tmp_path / "a.sgy").write_bytes(b"old")
    with pytest.raises(ValueError, match=message):
        segy.write(tmp_path / "a.sgy", shots.make(np.ones((1, 1, 20)), **(arguments | changes)))
    with pytest.raises(ValueError, match="without live, observed"):
        segy.write(tmp_path / "a.sgy", ragged().drop_vars(["observed", "live"]))
    assert (tmp_path / "a.sgy").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_too_many_samples(tmp_path):
    made = shots.make(np.ones((1, 1, 32768)), 0.001 * np.arange(32768), {"upward": 0.0, "easting": 0.0}, {"upward": 0.0, "easting": 5.0})
    with pytest.raises(ValueError, match=r"32768 samples.*at most 32767"):
        segy.write(tmp_path / "a.sgy", made)
