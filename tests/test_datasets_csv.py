"""CSV surveys: units and signs against numbers worked out by hand, round trips, and every bad input by name and line."""

import lzma

import numpy as np
import pytest

from geoinv.datasets import csv, survey

COLUMNS = {"easting": "X", "northing": "Y", "upward": "Z", "gz": "grav", "uncertainty": "sd", "station_id": "name"}
TEXT = "name,X,Y,Z,grav,sd\nA1,100.0,200.0,10.0,-1.5,0.1\nA2,110.0,210.0,20.0,2.5,0.2\n"


def write(tmp_path, text, name="survey.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_values_in_mgal_become_si(tmp_path):
    read = survey.validate(csv.read_csv(write(tmp_path, TEXT), columns=COLUMNS, crs="EPSG:32610"))
    np.testing.assert_allclose(read["observed"].values[:, 0], [-1.5e-5, 2.5e-5], rtol=1e-14)
    np.testing.assert_allclose(read["uncertainty"].values[:, 0], [1e-6, 2e-6], rtol=1e-14)
    np.testing.assert_array_equal(read["upward"], [10.0, 20.0])
    assert list(read["station_id"].values) == ["A1", "A2"]
    assert read.attrs["crs"] == "EPSG:32610" and len(read.attrs["sha256"]) == 64
    assert "'grav' in mGal times 1e-05" in read.attrs["history"]


def test_units_and_direction_of_every_component(tmp_path):
    path = write(tmp_path, "easting,northing,upward,gz,gx,gzz,gxz,uncertainty_gz\n1,2,3,10,10,10,10,4\n")
    units = {"gz": "uGal", "gx": "gu", "gzz": "eotvos", "gxz": "1/s2"}
    read = csv.read_csv(path, units=units, positive="up", length_units="ft")
    values = dict(zip(read["component"].values, read["observed"].values[0], strict=True))
    assert values == pytest.approx({"gz": -1e-7, "gx": 1e-5, "gzz": 1e-8, "gxz": -10.0}, rel=1e-14)
    assert float(read["uncertainty"].sel(component="gz")[0]) == pytest.approx(4e-8, rel=1e-14)
    assert float(read["easting"][0]) == pytest.approx(0.3048, rel=1e-14)


@pytest.mark.parametrize("mark", [";", "\t", " "])
def test_other_separators_comments_and_quotes(tmp_path, mark):
    text = "# a comment\n\n" + TEXT.replace(",", mark).replace("A1", '"A1"' if mark != " " else "A1")
    read = csv.read_csv(write(tmp_path, text), columns=COLUMNS)
    np.testing.assert_allclose(read["observed"].values[:, 0], [-1.5e-5, 2.5e-5])
    assert list(read["station_id"].values) == ["A1", "A2"]


def test_compressed_files_are_read_and_damaged_ones_refused(tmp_path):
    packed = lzma.compress(TEXT.encode())
    (tmp_path / "survey.csv.xz").write_bytes(packed)
    assert csv.read_csv(tmp_path / "survey.csv.xz", columns=COLUMNS).sizes["station"] == 2
    (tmp_path / "cut.csv.xz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match=r"cut\.csv\.xz.*readable"):
        csv.read_csv(tmp_path / "cut.csv.xz", columns=COLUMNS)


def test_longitude_and_latitude_are_projected(tmp_path):
    path = write(tmp_path, "lon,lat,h,g\n-123.0,0.0,5,1\n")  # the central meridian of UTM 10N at the equator
    names = {"longitude": "lon", "latitude": "lat", "upward": "h", "gz": "g"}
    read = csv.read_csv(path, columns=names, crs="EPSG:32610")
    assert float(read["easting"][0]) == pytest.approx(500000.0, abs=1e-6)
    assert float(read["northing"][0]) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="'crs' '': must be a projected"):
        csv.read_csv(path, columns=names)
    with pytest.raises(ValueError, match=r"'EPSG:4326'.*must be projected"):
        csv.read_csv(path, columns=names, crs="EPSG:4326")
    with pytest.raises(ValueError, match="PROJ knows"):
        csv.read_csv(path, columns=names, crs="nonsense")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (TEXT.replace("2.5", "abc"), {}, r"survey\.csv, line 3' 'abc' in column 'grav'"),
        (TEXT.replace("2.5", ""), {}, r"survey\.csv, line 3' blank in column 'grav'.*drop_missing"),
        (TEXT.replace("110.0", "NaN"), {}, r"survey\.csv, line 3' blank in column 'X'"),
        (TEXT.replace("20.0", "inf"), {}, r"survey\.csv, line 3' 'inf' in column 'Z'"),
        (TEXT.replace("-1.5,", ""), {}, r"survey\.csv, line 2' with 5 cells"),
        (TEXT.replace("-1.5", "-1,5"), {}, r"survey\.csv, line 2' with 7 cells"),
        (TEXT.replace("grav", "ISO"), {}, r"'grav' of .* one of 'name', 'X', 'Y', 'Z', 'ISO', 'sd'"),
        (TEXT.replace("name", "grav"), {}, "is there twice"),
        (TEXT.splitlines()[0], {}, "no rows below the header"),
        ("", {}, "file is empty"),
        (TEXT, {"units": "mgals"}, "'mgals': must be one of 'm/s2', 'mGal'"),
        (TEXT, {"units": {"gzz": "eotvos"}}, "'units' without gz"),
        (TEXT, {"length_units": "yards"}, "'length_units' 'yards'"),
        (TEXT, {"positive": "left"}, "'positive' 'left'"),
        (TEXT, {"columns": COLUMNS | {"gq": "grav"}}, "'columns' 'gq'"),
        (TEXT, {"columns": {"easting": "X", "northing": "Y", "upward": "Z"}}, "naming a component"),
        (TEXT, {"columns": {"easting": "X", "upward": "Z", "gz": "grav"}}, "easting and northing, or longitude and latitude"),
        (TEXT, {"columns": COLUMNS | {"longitude": "X", "latitude": "Y"}}, "easting and northing, or longitude and latitude"),
        (TEXT, {"columns": {"easting": "X", "northing": "Y", "gz": "grav"}}, "naming upward"),
        (TEXT, {"columns": COLUMNS | {"gzz": "grav"}}, "uncertainty_gz, uncertainty_gzz"),
        (TEXT.replace("0.2", "-0.2"), {}, "'uncertainty gz' -2e-06 at station 1"),
    ],
)
def test_bad_files_and_options(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        csv.read_csv(write(tmp_path, text), **({"columns": COLUMNS} | options))


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.csv'.*an existing file") as error:
        csv.read_csv(tmp_path / "absent.csv", columns=COLUMNS)
    assert "\n" not in str(error.value)


def test_dropped_rows_are_recorded(tmp_path):
    read = csv.read_csv(write(tmp_path, TEXT.replace("2.5", "")), columns=COLUMNS, drop_missing=True)
    assert list(read["station_id"].values) == ["A1"]
    assert "removed 1 of 2 rows" in read.attrs["history"]


@pytest.mark.parametrize(
    "options", [{"units": {"gz": "mGal", "gxz": "eotvos"}}, {"units": {"gz": "uGal", "gxz": "1/s2"}, "positive": "up", "length_units": "km"}]
)
def test_written_surveys_read_back(tmp_path, options):
    random = np.random.default_rng(0)
    made = survey.make(
        5e5 + random.uniform(0, 1e4, 7),
        4.2e6 + random.uniform(0, 1e4, 7),
        random.uniform(-50, 900, 7),
        {"gz": random.normal(0, 1e-4, 7), "gxz": random.normal(0, 1e-8, 7)},
        {"gz": random.uniform(1e-7, 1e-6, 7)},
        station_id=[f"S {i}, north" for i in range(7)],
    )
    csv.write_csv(tmp_path / "first.csv", made, **options)
    back = csv.read_csv(tmp_path / "first.csv", **options)
    for name in ("easting", "northing", "upward", "observed", "uncertainty"):
        np.testing.assert_allclose(back[name], made[name], rtol=1e-11)
    assert list(back["station_id"].values) == list(made["station_id"].values)
    csv.write_csv(tmp_path / "second.csv", back, **options)
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()
