"""Surveys of first arrivals: the convention, and files of pyGIMLi's format."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from geoinv.datasets import netcdf, picks, sgt

FILE = """4 # shot/geophone points
#x\ty
0\t1.5
10\t2
20\t2.5
30\t1
3 # measurements
#s\tg\tt\terr
1\t2\t0.011\t0.001
1\t4\t0.03\t0.001
4\t1\t0.031\t0.001
"""


def survey(**changed: Any) -> xarray.Dataset:
    given: dict[str, Any] = {
        "easting": [0, 10, 20.0],
        "upward": [1, 2, 3.0],
        "shot": [0, 0, 2],
        "receiver": [1, 2, 0],
        "observed": [0.01, 0.02, 0.03],
    }
    return picks.make(**(given | changed))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "line.sgt"
    path.write_text(text)
    return path


def test_a_file_as_pygimli_writes_it(tmp_path: Path) -> None:
    found = picks.validate(sgt.read_sgt(written(tmp_path, FILE)))
    np.testing.assert_array_equal(found["easting"], [0, 10, 20, 30])
    np.testing.assert_array_equal(found["upward"], [1.5, 2, 2.5, 1])
    np.testing.assert_array_equal(found["northing"], 0)
    np.testing.assert_array_equal([found["shot"], found["receiver"]], [[0, 0, 3], [1, 3, 0]])
    np.testing.assert_array_equal([found["observed"], found["uncertainty"]], [[0.011, 0.03, 0.031], [0.001] * 3])
    assert found["observed"].attrs["units"] == "s" and len(found.attrs["sha256"]) == 64


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("errors", [False, True])
def test_what_is_written_is_read(tmp_path: Path, three: bool, errors: bool) -> None:
    random = np.random.default_rng(0)
    made = survey(
        easting=random.normal(size=3), northing=random.normal(size=3) if three else 0.0, observed=random.uniform(size=3), uncertainty=0.1 * errors
    )
    sgt.write_sgt(tmp_path / "a.sgt", made)
    found = sgt.read_sgt(tmp_path / "a.sgt")
    for name in made.variables:
        np.testing.assert_array_equal(found[name], made[name])
    netcdf.write(tmp_path / "a.nc", made)
    xarray.testing.assert_identical(netcdf.read(tmp_path / "a.nc"), made)


def test_columns_in_any_order_and_unit(tmp_path: Path) -> None:
    text = "2 # points\n# x/km y z\n0 5 1 # a comment\n1 6 2\n\n2\n#valid t/ms g s err/us\n1 12 2 1 500\n0 13 1 2 400\n"
    found = sgt.read_sgt(written(tmp_path, text))
    np.testing.assert_array_equal([found[name] for name in ("easting", "northing", "upward")], [[0, 1000], [5, 6], [1, 2]])
    np.testing.assert_allclose([found["observed"], found["uncertainty"]], [[0.012], [5e-4]])
    assert (int(found["shot"][0]), int(found["receiver"][0])) == (0, 1)


@pytest.mark.parametrize(("old", "new", "says"), [
    (FILE, "", "a file with a number of positions. It is empty"),
    ("4 # shot", "5 # shot", r"line 8' '#s g t err': must be one of the 5 positions. 5 came before it|line 7' 3 values: must be 2"),
    ("4 # shot", "3 # shot", r"line 6' '30 1': must be the number of measurements|line 7.* must be the names of the columns"),
    ("3 # meas", "4 # meas", r"a file of 4 measurements, as line 7 says. It ends after 3 of them"),
    ("3 # meas", "x # meas", r"line 7' 'x # measurements': must be the number of measurements"),
    (FILE[FILE.index("3 # meas"):], "", "a file with a number of measurements. It ends before"),
    ("4\t1\t0.031\t0.001\n", "4\t1\t0.0", r"line 11' 3 values: must be 4, one for each column. Are there 3 measurements"),
    ("1\t4\t0.03", "1\t5\t0.03", r"line 10' '5': must be the number of a position, 1 to 4. Positions count from 1"),
    ("1\t4\t0.03", "0\t4\t0.03", r"line 10' '0': must be the number of a position, 1 to 4"),
    ("1\t4\t0.03", "1\t4\t-0.03", r"line 10' a time of -0.03 s: must be positive"),
    ("1\t4\t0.03", "1\t4\t0.0", r"line 10' a time of 0 s: must be positive"),
    ("1\t4\t0.03", "1\t4\tnan", r"line 10' 'nan': must be a finite number"),
    ("1\t4\t0.03", "4\t4\t0.03", r"line 10' a pick from sensor 4 to itself"),
    ("#s\tg\tt", "#s\tg\ttime", r"line 8' columns s, g, time, err: must be with t among them"),
    ("\terr", "\terr/days", r"'unit of a column of .*' 'days': must be one of 's', 'ms', 'us'"),
])  # fmt: skip
def test_files_that_are_none_are_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sgt.read_sgt(written(tmp_path, FILE.replace(old, new, 1)))


@pytest.mark.parametrize(("changed", "says"), [
    ({"shot": [0, 0, 3]}, "'shot' 3 at pick 2: must be the number of a sensor, 0 to 2. 1 of 3 picks are not"),
    ({"receiver": [1, -1, 0]}, "'receiver' -1 at pick 1"),
    ({"receiver": [0, 2, 0]}, "'receiver' 0 at pick 0: must be another sensor than the shot's"),
    ({"shot": [0.0, 0.0, 2.0]}, "'shot' of type float64: must be whole numbers, of sensors from 0"),
    ({"observed": [0.01, 0.0, 0.03]}, "'observed' 0 at pick 1: must be a positive time, s"),
    ({"observed": [0.01, np.inf, 0.03]}, "'observed' inf at pick 1"),
    ({"uncertainty": [0.1, 0.1, -0.1]}, "'uncertainty' -0.1 at pick 2: must be finite and not negative"),
    ({"easting": [0, np.nan, 1]}, "'easting' nan at sensor 1"),
    ({"upward": [0.0, 1.0]}, r"'upward' of shape \(2,\): must be of shape \(3,\)"),
    ({"shot": np.zeros(0, int), "receiver": np.zeros(0, int), "observed": []}, "'survey' with 0 picks"),
])  # fmt: skip
def test_values_that_no_survey_holds_are_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        survey(**changed)


@pytest.mark.parametrize(("changed", "says"), [
    (lambda s: s.drop_vars("shot"), "'survey' without shot"),
    (lambda s: s.assign(observed=s["observed"].assign_attrs(units="ms")), "'observed' in 'ms': must be in 's'"),
    (lambda s: s.assign(shot=s["shot"].astype(float)), "'shot' of type float64: must be whole numbers"),
    (lambda s: s.rename(pick="station"), r"'shot' over \('station',\): must be over \('pick',\)"),
    (lambda s: s.assign(uncertainty=("pick", [0.1, 0.0, 0.1])), r"'uncertainty' 0 at pick 1 \(1 of 3 picks\): must be positive where"),
])  # fmt: skip
def test_what_is_no_survey_is_refused(changed: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        picks.validate(changed(survey(uncertainty=0.1)))


def test_uncertainties_are_absolute_and_relative() -> None:
    found = picks.assign_uncertainty(survey(uncertainty=[0.0, 1e-4, 0.5]), absolute=1e-3, relative=0.1)
    np.testing.assert_allclose(found["uncertainty"], [1e-3 + 1e-3, 1e-3, 0.5])
    assert found.attrs["history"] == "uncertainty set to 0.001 s + 0.1 of the time; 2 given values kept where above 0.001 s"
    given = survey(uncertainty=0.1)
    assert picks.assign_uncertainty(given) is given
    with pytest.raises(ValueError, match=r"'uncertainty' not given for pick 0: must be positive\. Give a part of the time"):
        picks.assign_uncertainty(survey())
    with pytest.raises(ValueError, match=r"'relative' -0.1: must be zero or more"):
        picks.assign_uncertainty(survey(), relative=-0.1)


def test_picks_that_disagree_with_those_of_the_way_back_are_told() -> None:
    made = survey(observed=[0.01, 0.02, 0.0215], uncertainty=2e-4)
    np.testing.assert_array_equal(picks.reciprocal(made), [[1, 2]])
    with pytest.warns(UserWarning, match=r"1 of 1 picks differ from those of the way back by more than 5 deviations: 1 and 2 \(20 and 21.5 ms\)"):
        picks.validate(made)
    picks.validate(survey(observed=[0.01, 0.02, 0.0205], uncertainty=2e-4))  # within five deviations of a difference


@pytest.mark.parametrize(
    ("behind", "says"),
    [
        ("4\t2\t0.02\t0.001\n", "line 12' '4 2 0.02 0.001': must be nothing behind 3 measurements"),
        ("rubbish\n", "line 12' 'rubbish': must be nothing behind 3 measurements"),
        ("2\n#x\ty\n0\t1.5\n", "a file of 2 points of the ground, as line 12 says. It has 1 of them"),
    ],
)
def test_more_than_was_announced_is_refused(tmp_path: Path, behind: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sgt.read_sgt(written(tmp_path, FILE + behind))


def test_points_of_the_ground_behind_the_picks_are_said_to_be_left_out(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="2 points of the ground in .* are left out"):
        found = sgt.read_sgt(written(tmp_path, FILE + "2\n#x\ty\n0\t1.5\n10\t2\n"))
    assert found.sizes["pick"] == 3
    assert sgt.read_sgt(written(tmp_path, FILE + "0\n")).sizes["pick"] == 3


def test_sensors_at_one_place_are_one() -> None:
    """Reciprocal picks are found where shots are listed again, and no pick leads from a place to itself."""
    twice = survey(easting=[0, 10, 20.0, 0, 10], upward=[1, 2, 3.0, 1, 2], shot=[0, 4, 2], receiver=[1, 3, 0])
    np.testing.assert_array_equal(picks.reciprocal(twice), [[0, 1]])
    with pytest.raises(ValueError, match="Invalid 'receiver' 3 at pick 0: must be at another place than the shot"):
        survey(easting=[0, 10, 20.0, 0], upward=[1, 2, 3.0, 1], receiver=[3, 2, 0])


@pytest.mark.parametrize("behind", ["# end of it\n", "0 # topo\n", "# none\n0\n"])
def test_remarks_behind_the_picks_are_none_of_them(tmp_path: Path, behind: str) -> None:
    assert sgt.read_sgt(written(tmp_path, FILE + behind)).sizes["pick"] == 3


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 8' columns s, g, t, t: must be each of them once"):
        sgt.read_sgt(written(tmp_path, FILE.replace("#s\tg\tt\terr", "#s\tg\tt\tt")))


def test_a_bent_line_is_told() -> None:
    """Five sensors a metre apart, and a leg across them: on any one line they come to lie together."""
    easting, northing = np.r_[np.arange(6.0), np.full(5, 2.0)], np.r_[np.zeros(6), np.arange(10.0, 51.0, 10.0)]
    bent = survey(easting=easting, upward=np.zeros(11), northing=northing, shot=[0, 0, 0], receiver=[1, 5, 10])
    with pytest.warns(UserWarning, match="The line is bent: 2 offsets change by more than 10 %, that of pick 1 by"):
        found = picks.project(bent)
    assert "largest change of an offset" in found.attrs["history"]
