"""The survey convention, its files on disk, and the atomic writing behind every output."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

from geoinv.datasets import netcdf, survey
from geoinv.datasets.atomic import atomic_path


def three_stations(**changes):
    arguments = {
        "easting": [0.0, 10.0, 20.0],
        "northing": [0.0, 5.0, 5.0],
        "upward": [1.0, 1.0, 2.0],
        "observed": {"gz": [1e-5, -2e-5, 3e-5], "gzz": [1e-9, 2e-9, 3e-9]},
        "uncertainty": {"gz": [1e-7, 1e-7, 2e-7], "gzz": 1e-10},
        "crs": "EPSG:32610",
        "history": ["made by hand"],
    }
    return survey.make(**(arguments | changes))


def test_importing_the_package_is_light():
    code = "import sys, geoinv.datasets; sys.exit(any(name in sys.modules for name in ('tensorflow', 'xarray', 'pyproj', 'boule')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_submodule_imports_tensorflow():
    names = "atomic, csv, files, netcdf, projection, survey, synthetic, table, topography, trend, ubc, vtk"
    code = f"import sys; from geoinv.datasets import {names}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_survey_follows_the_convention():
    made = survey.validate(three_stations())
    assert dict(made.sizes) == {"station": 3, "component": 2}
    assert list(made["unit"].values) == ["m/s2", "1/s2"]
    assert made["easting"].attrs["units"] == "m"
    np.testing.assert_array_equal(made["observed"].sel(component="gzz"), [1e-9, 2e-9, 3e-9])
    np.testing.assert_array_equal(made["uncertainty"].sel(component="gzz"), 1e-10)


def test_absent_and_nan_uncertainties_mean_not_given():
    made = three_stations(uncertainty={"gz": [np.nan, np.nan, np.nan]})
    assert not np.any(made["uncertainty"].values)
    survey.validate(made)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"easting": [0.0, np.nan, 1.0]}, r"'easting' nan at station 1"),
        ({"upward": [0.0, 0.0, np.inf]}, r"'upward' inf at station 2"),
        ({"observed": {"gz": [np.nan, 0.0, 1.0]}}, r"'observed gz' nan at station 0"),
        ({"uncertainty": {"gz": [1e-7, -1e-7, 1e-7]}}, r"'uncertainty gz' -1e-07 at station 1"),
        ({"uncertainty": {"gz": [1e-7, np.inf, 1e-7]}}, r"'uncertainty gz' inf at station 1"),
        ({"northing": [0.0, 1.0]}, r"'northing' of shape \(2,\)"),
        ({"observed": {"bz": [0.0, 0.0, 0.0]}}, r"'component' 'bz'"),
        ({"observed": {}}, r"without components"),
        ({"easting": [], "northing": [], "upward": [], "observed": {"gz": []}, "uncertainty": None}, "0 stations"),
        ({"station_id": ["a", "b"]}, "station_id"),
    ],
)
def test_bad_values_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        three_stations(**changes)


def test_validate_refuses_what_was_broken_later():
    with pytest.raises(ValueError, match="without observed"):
        survey.validate(three_stations().drop_vars("observed"))
    with pytest.raises(ValueError, match="'observed' over"):
        survey.validate(three_stations().transpose("component", "station"))
    broken = three_stations()
    broken["observed"][2, 1] = np.nan
    with pytest.raises(ValueError, match="'observed gzz' nan at station 2"):
        survey.validate(broken)
    with pytest.raises(ValueError, match=r"0 at station 1.*assign_uncertainty"):
        survey.validate(three_stations(uncertainty={"gz": [1e-7, 0.0, 1e-7]}))


def test_duplicate_positions_warn_with_their_number_and_first_pair():
    with pytest.warns(UserWarning, match=r"^2 stations repeat .* stations 0 and 1\."):
        survey.validate(three_stations(easting=[7.0] * 3, northing=[8.0] * 3, upward=[9.0] * 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        survey.validate(three_stations(easting=[7.0] * 3, northing=[8.0] * 3, upward=[9.0, 9.5, 10.0]))


def test_assigned_uncertainty_is_floor_plus_relative():
    bare = three_stations(uncertainty=None)
    with pytest.raises(ValueError, match="Give a floor"):
        survey.assign_uncertainty(bare)
    done = survey.assign_uncertainty(bare, floor={"gz": 1e-7, "gzz": 1e-10}, relative=0.1)
    np.testing.assert_allclose(done["uncertainty"].values[:, 0], [1.1e-6, 2.1e-6, 3.1e-6], rtol=1e-12)
    np.testing.assert_allclose(done["uncertainty"].values[:, 1], [2e-10, 3e-10, 4e-10], rtol=1e-12)
    assert not np.any(bare["uncertainty"].values), "the survey passed in must not change"
    assert done.attrs["history"].splitlines()[0] == "made by hand"
    assert len(done.attrs["history"].splitlines()) == 2
    given = three_stations()
    assert survey.assign_uncertainty(given) is given
    kept = survey.assign_uncertainty(given, floor=1e-30)
    assert "6 given values kept" in kept.attrs["history"]
    np.testing.assert_array_equal(kept["uncertainty"], given["uncertainty"])
    assert np.all(survey.assign_uncertainty(given, floor=1.0)["uncertainty"] == 1.0), "the floor is the least there is"


def test_assigned_uncertainty_refuses_nonsense():
    made = three_stations(observed={"gz": [0.0, 1e-5, 1e-5]}, uncertainty=None)
    with pytest.raises(ValueError, match="0 at station 0"):
        survey.assign_uncertainty(made, relative=0.05)
    with pytest.raises(ValueError, match="'floor' -1"):
        survey.assign_uncertainty(made, floor=-1.0)
    with pytest.raises(ValueError, match="'floor' without gz"):
        survey.assign_uncertainty(made, floor={"gzz": 1e-9})
    with pytest.raises(ValueError, match="'relative'"):
        survey.assign_uncertainty(made, floor=1e-7, relative=-0.1)


def test_holdout_is_a_seeded_partition():
    made = survey.make(np.arange(50.0), np.zeros(50), np.zeros(50), {"gz": np.zeros(50)})
    train, held = survey.split_holdout(made, 0.2, seed=3)
    assert held.size == 10
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held])), np.arange(50))
    assert np.all(np.diff(train) > 0) and np.all(np.diff(held) > 0)
    np.testing.assert_array_equal(held, survey.split_holdout(made, 0.2, seed=3)[1])
    assert not np.array_equal(held, survey.split_holdout(made, 0.2, seed=4)[1])
    assert survey.split_holdout(made, 0.0, seed=0)[1].size == 0
    for fraction in (-0.1, 1.0, 0.999):
        with pytest.raises(ValueError, match="fraction"):
            survey.split_holdout(made, fraction, seed=0)


def test_netcdf_round_trip_keeps_everything(tmp_path):
    made = three_stations(station_id=["a", "b", "ä"])
    netcdf.write(tmp_path / "survey.nc", made)
    back = survey.validate(netcdf.read(tmp_path / "survey.nc"))
    assert back.identical(made)
    assert [path.name for path in tmp_path.iterdir()] == ["survey.nc"]


def test_netcdf_refuses_what_is_not_netcdf(tmp_path):
    (tmp_path / "text.nc").write_text("not netCDF")
    with pytest.raises(ValueError, match=r"text.nc.*netCDF-4"):
        netcdf.read(tmp_path / "text.nc")
    with pytest.raises(ValueError, match="an existing file"):
        netcdf.read(tmp_path / "absent.nc")
    with pytest.raises(ValueError, match="without a name"):
        netcdf.write(tmp_path / "model.nc", three_stations()["observed"].rename(None))


def test_atomic_path_replaces_only_when_the_block_ends_well(tmp_path):
    target = tmp_path / "result.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".txt" and temporary.parent == tmp_path
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["result.txt"]
    with pytest.raises(ValueError, match="existing folder"), atomic_path(tmp_path / "no" / "file"):
        pass
