"""Picks as a table, and picks along a line: columns, units and shared sensors by hand, round trips, and every bad input by name and line."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from geoinv.datasets import pick_table, picks

TEXT = """shot_easting,shot_upward,receiver_easting,receiver_upward,time
0,1,10,2,0.01
0,1,20,3,0.02
20,3,0,1,0.021
"""
FOREIGN = "no;sx;sy;sz;gx;gy;gz;t;err\n1;1;2;3;4;5;6;10;0.5\n2;4;5;6;1;2;3;11;0.25\n"
NAMES = {f"{kind}_{axis}": f"{k}{a}" for kind, k in (("shot", "s"), ("receiver", "g")) for axis, a in zip(picks.COORDINATES, "xyz", strict=True)}
NAMES |= {"time": "t", "uncertainty": "err"}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "picks.csv"
    path.write_text(text)
    return path


def ends(survey: xarray.Dataset, kind: str) -> np.ndarray:
    """Positions [pick, (easting, northing, upward)] of shots or receivers, whatever the sensors' order."""
    return np.stack([survey[axis].values[survey[kind].values] for axis in ("easting", "northing", "upward")], axis=1)


def row(**changed: Any) -> xarray.Dataset:
    """Four sensors in a row, three picks from the first one."""
    given: dict[str, Any] = {"easting": [0, 10, 20, 30.0], "upward": np.zeros(4), "shot": [0, 0, 0], "receiver": [1, 2, 3]}
    return picks.make(**(given | {"observed": [0.01, 0.02, 0.03]} | changed))


# The table


def test_columns_of_our_names(tmp_path: Path) -> None:
    read = picks.validate(pick_table.read_csv(written(tmp_path, TEXT), crs="EPSG:25832"))
    np.testing.assert_array_equal(ends(read, "shot"), [[0, 0, 1], [0, 0, 1], [20, 0, 3]])
    np.testing.assert_array_equal(ends(read, "receiver"), [[10, 0, 2], [20, 0, 3], [0, 0, 1]])
    np.testing.assert_array_equal([read["observed"], read["uncertainty"]], [[0.01, 0.02, 0.021], np.zeros(3)])
    assert read.attrs["crs"] == "EPSG:25832" and read.attrs["source"].endswith("picks.csv") and len(read.attrs["sha256"]) == 64


def test_sensors_that_shots_and_receivers_share_are_one(tmp_path: Path) -> None:
    read = pick_table.read_csv(written(tmp_path, TEXT))
    assert read.sizes == {"sensor": 3, "pick": 3}
    np.testing.assert_array_equal(picks.reciprocal(read), [[1, 2]])  # only picks between the same two sensors are reciprocal


def test_sensors_that_differ_by_less_than_is_measured_are_one(tmp_path: Path) -> None:
    noise = TEXT.replace("20,3,0,1,", "20.00001,3,-0.00001,1,")
    assert pick_table.read_csv(written(tmp_path, noise)).sizes["sensor"] == 3
    apart = TEXT.replace("20,3,0,1,", "20,3.01,0,1,")
    assert pick_table.read_csv(written(tmp_path, apart)).sizes["sensor"] == 4


@pytest.mark.parametrize(
    ("time_units", "length_units", "seconds", "metres"),
    [("s", "m", 1.0, 1.0), ("ms", "km", 1e-3, 1e3), ("us", "ft", 1e-6, 0.3048)],
)
def test_columns_of_other_names_and_units(tmp_path: Path, time_units: str, length_units: str, seconds: float, metres: float) -> None:
    read = pick_table.read_csv(written(tmp_path, FOREIGN), columns=NAMES, time_units=time_units, length_units=length_units)
    np.testing.assert_allclose(ends(read, "shot"), metres * np.array([[1, 2, 3], [4, 5, 6]]), rtol=1e-14)
    np.testing.assert_allclose(ends(read, "receiver"), metres * np.array([[4, 5, 6], [1, 2, 3]]), rtol=1e-14)
    np.testing.assert_allclose([read["observed"], read["uncertainty"]], seconds * np.array([[10, 11], [0.5, 0.25]]), rtol=1e-14)
    assert read["observed"].attrs["units"] == "s" and read["easting"].attrs["units"] == "m"


def test_only_columns_of_other_names_need_naming(tmp_path: Path) -> None:
    read = pick_table.read_csv(written(tmp_path, TEXT.replace("time", "t_first")), columns={"time": "t_first"})
    np.testing.assert_array_equal(read["observed"], [0.01, 0.02, 0.021])


def test_a_table_without_header_goes_by_numbers(tmp_path: Path) -> None:
    names = {"shot_easting": "1", "shot_upward": "2", "receiver_easting": "3", "receiver_upward": "4", "time": "5"}
    read = pick_table.read_csv(written(tmp_path, TEXT.partition("\n")[2].replace(",", " ")), columns=names)
    np.testing.assert_array_equal(ends(read, "receiver"), [[10, 0, 2], [20, 0, 3], [0, 0, 1]])


@pytest.mark.parametrize("seed", range(3))
def test_what_is_written_is_read(tmp_path: Path, seed: int) -> None:
    """To the last digit, with the sensors in any order."""
    random = np.random.default_rng(seed)
    shot, receiver = (part[~np.eye(8, dtype=bool)] for part in np.meshgrid(np.arange(8), np.arange(8)))
    order = random.permutation(56)
    made = picks.make(
        random.normal(size=8), random.normal(size=8), shot[order], receiver[order], random.uniform(0.01, 1, 56), random.uniform(0, 1e-3, 56),
        northing=5e6 + random.normal(size=8),
    )  # fmt: skip
    pick_table.write_csv(tmp_path / "a.csv", made)
    read = picks.check_layout(pick_table.read_csv(tmp_path / "a.csv"))
    assert read.sizes == made.sizes
    for kind in ("shot", "receiver"):
        np.testing.assert_array_equal(ends(read, kind), ends(made, kind))
    for name in ("observed", "uncertainty"):
        np.testing.assert_array_equal(read[name], made[name])
    pick_table.write_csv(tmp_path / "b.csv", read)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize(("old", "new", "says"), [
    ("0.02\n", "soon\n", r"picks\.csv, line 3' 'soon' in column 'time': must be a finite number"),
    ("20,3,0,1", "20,3,,1", r"picks\.csv, line 4' '' in column 'receiver_easting': must be a finite number"),
    ("10,2", "inf,2", r"picks\.csv, line 2' 'inf' in column 'receiver_easting'"),
    ("0.02\n", "0\n", r"picks\.csv, line 3' a time of 0 s: must be positive"),
    ("0.021", "-0.021", r"picks\.csv, line 4' a time of -0.021 s: must be positive"),
    ("0,1,20,3", "20,3,20,3", r"picks\.csv, line 3' a pick from a sensor to itself: must be between two sensors"),
    ("20,3,0.02\n", "20,0.02\n", r"picks\.csv, line 3' with 4 cells: must be of 5 cells"),
    ("20,3,0.02\n", "20,3,0,02\n", r"picks\.csv, line 3' with 6 cells: must be of 5 cells"),
    ("shot_upward", "depth", r"'columns' without 'shot_upward': must be with all of .* The file has shot_easting, depth, receiver_easting"),
    ("time", "t", r"'columns' without 'time'.* name the one that holds it in data\.columns"),
    ("receiver_easting", "shot_easting", "'columns' without 'receiver_easting'"),
    (TEXT, TEXT.replace("time", "time,time").replace(",0.0", ",0.0,0.0"), r"'time' of .*picks\.csv, which is there twice"),
    (TEXT, "", r"picks\.csv'.* The file is empty"),
    (TEXT.partition("\n")[2], "", r"picks\.csv'.* no rows below the header"),
])  # fmt: skip
def test_tables_that_hold_no_picks_are_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError, match=says) as error:
        pick_table.read_csv(written(tmp_path, TEXT.replace(old, new, 1)))
    assert "\n" not in str(error.value)


def test_lines_are_counted_in_the_file_with_its_comments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"picks\.csv, line 6' a time of 0 s"):
        pick_table.read_csv(written(tmp_path, "# picked by hand\n\n" + TEXT.replace("0.021", "0.021\n").replace("20,3,0,1,0.021", "20,3,0,1,0")))


@pytest.mark.parametrize(("options", "says"), [
    ({"columns": {"shot_x": "sx"}}, "'columns' 'shot_x': must be one of shot_easting, shot_northing"),
    ({"columns": {"time": "t"}}, r"'t' of .*picks\.csv: must be one of 'shot_easting', .*, 'time'. It is not there"),
    ({"time_units": "min"}, "'time_units' 'min': must be one of 's', 'ms', 'us'"),
    ({"length_units": "yd"}, "'length_units' 'yd': must be one of 'm', 'km', 'ft'"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pick_table.read_csv(written(tmp_path, TEXT), **options)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.csv'.*an existing file"):
        pick_table.read_csv(tmp_path / "absent.csv")


def test_nothing_half_written_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, TEXT)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(os, "fsync", full)
        pick_table.write_csv(path, row())
    assert path.read_text() == TEXT and [each.name for each in tmp_path.iterdir()] == ["picks.csv"]
    with pytest.raises(ValueError, match="in an existing folder"):
        pick_table.write_csv(tmp_path / "none" / "picks.csv", row())
    assert not (tmp_path / "none").exists()
    pick_table.write_csv(path, row())
    assert pick_table.read_csv(path).sizes["pick"] == 3


# Along a line


@pytest.mark.parametrize(("east", "north", "azimuth"), [(0.6, 0.8, 36.8699), (0.8, -0.6, 126.8699), (0.0, 1.0, 0.0)])
def test_distances_along_an_oblique_line(east: float, north: float, azimuth: float) -> None:
    """Legs of 3 : 4 : 5; the first sensor in the direction that points east, or due north, is the origin."""
    along = np.array([25.0, 0.0, 5.0, 110.0])
    made = row(easting=4000 + east * along, northing=7000 + north * along, upward=[1, 2, 3, 4.0])
    flat = picks.validate(picks.project(made))
    np.testing.assert_allclose(flat["easting"], along, atol=1e-9)
    np.testing.assert_array_equal([flat["northing"], flat["upward"]], [np.zeros(4), [1, 2, 3, 4]])
    np.testing.assert_allclose(flat.attrs["line_origin"], [4000, 7000], atol=1e-9)
    assert (flat.attrs["line_azimuth"] + 180) % 360 - 180 == pytest.approx((azimuth + 180) % 360 - 180, abs=1e-4)
    assert "projected on the line through (4000.000, 7000.000)" in flat.attrs["history"]
    for name in ("shot", "receiver", "observed", "uncertainty"):
        np.testing.assert_array_equal(flat[name], made[name])


def test_sensors_beside_the_line_are_told() -> None:
    """One of five by 15 m, in the middle: by symmetry the line runs along easting, 15 / 5 = 3 m from the others and 12 m from that one."""
    five: dict[str, Any] = {"easting": [0, 10, 20, 30, 40.0], "upward": np.zeros(5), "northing": np.array([0, 0, 15.0, 0, 0])}
    with pytest.warns(UserWarning, match=r"Sensors lie up to 12 m from the line; they are 10 m apart"):
        flat = picks.project(row(**five))
    np.testing.assert_allclose(flat["easting"], five["easting"], atol=1e-9)
    np.testing.assert_allclose(flat.attrs["line_origin"], [0, 3], atol=1e-9)
    assert flat.attrs["line_azimuth"] == pytest.approx(90)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picks.project(row(**five | {"northing": five["northing"] / 2}))  # 6 m is less than they are apart


@pytest.mark.parametrize("northing", [0.0, 5e6, np.array([5e6, 5e6 + 5e-4, 5e6, 5e6 + 9e-4])])
def test_northings_that_are_the_same_leave_eastings_as_they_are(northing: Any) -> None:
    made = row(easting=[400, 410, 395, 430.0], northing=northing)
    flat = picks.project(made)
    xarray.testing.assert_identical(flat, made)
    assert "line_origin" not in flat.attrs


# The convention


def test_held_back_picks_are_those_of_the_seed() -> None:
    made = picks.make([0, 1.0], [0, 0.0], np.zeros(40, int), np.ones(40, int), np.full(40, 0.01))
    fitted, held = picks.split_holdout(made, 0.25, 3)
    assert held.size == 10
    np.testing.assert_array_equal(np.sort(np.concatenate([fitted, held])), np.arange(40))
    np.testing.assert_array_equal(picks.split_holdout(made, 0.25, 3)[1], held)
    assert not np.array_equal(picks.split_holdout(made, 0.25, 4)[1], held)
    assert picks.split_holdout(made, 0.0, 3)[1].size == 0
    assert picks.split_holdout(made, 1e-3, 3)[1].size == 1  # who asks for a test gets one
    with pytest.raises(ValueError, match=r"'fraction' 1\.0: must be at least 0 and below 1"):
        picks.split_holdout(made, 1.0, 0)
    with pytest.raises(ValueError, match=r"'fraction' 0\.9 of 3 picks: must be small enough to leave a pick"):
        picks.split_holdout(row(), 0.9, 0)


def test_layout_is_checked_and_values_are_not() -> None:
    made = row()
    assert picks.check_layout(made) is made
    zero = made.assign(observed=("pick", np.zeros(3), {"units": "seconds"}))
    assert picks.check_layout(zero) is zero


@pytest.mark.parametrize(("changed", "says"), [
    (lambda s: s.drop_vars(["upward", "receiver"]), "'survey' without upward, receiver: must be a Dataset as geoinv.datasets.picks.make returns"),
    (lambda s: s.rename(pick="datum"), r"'shot' over \('datum',\): must be over \('pick',\)"),
    (lambda s: s.rename(sensor="electrode"), r"'easting' over \('electrode',\): must be over \('sensor',\)"),
    (lambda s: s.assign(receiver=s["receiver"].astype(float)), "'receiver' of type float64: must be whole numbers"),
    (lambda s: s.assign(observed=s["observed"].astype(str)), "'observed' of type <U.*: must be numbers"),
    (lambda s: s.assign(uncertainty=s["uncertainty"].assign_attrs(units="ms")), "'uncertainty' in 'ms': must be in 's'"),
    (lambda s: s.assign_coords(upward=s["upward"].assign_attrs(units="ft")), "'upward' in 'ft': must be in 'm'"),
])  # fmt: skip
def test_other_layouts_are_refused(changed: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        picks.check_layout(changed(row()))


def test_a_blank_uncertainty_is_none_and_a_negative_one_names_its_line(tmp_path: Path) -> None:
    head = "shot_easting,shot_upward,receiver_easting,receiver_upward,time,uncertainty\n"
    (tmp_path / "blank.csv").write_text(head + "0,0,5,0,0.01,\n0,0,10,0,0.02,0.001\n", encoding="utf-8")
    np.testing.assert_array_equal(pick_table.read_csv(tmp_path / "blank.csv")["uncertainty"], [0.0, 0.001])
    (tmp_path / "negative.csv").write_text(head + "0,0,5,0,0.01,0.001\n0,0,10,0,0.02,-0.001\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 3.*uncertainty of -0.001"):
        pick_table.read_csv(tmp_path / "negative.csv")


def test_northings_of_shots_alone_are_refused(tmp_path: Path) -> None:
    text = "shot_easting,shot_northing,shot_upward,receiver_easting,receiver_upward,time\n0,5000,0,5,0,0.01\n"
    (tmp_path / "half.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="with 'shot_northing' alone"):
        pick_table.read_csv(tmp_path / "half.csv")
