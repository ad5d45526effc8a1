"""Readers on the real files, in the folder that GEOINV_DATA names."""

import os
from pathlib import Path

import numpy as np
import pytest

from geoinv.datasets import csv, picks, projection, sgt, survey, topography, ubc
from geoinv.datasets.table import read_table

DATA = Path(os.environ.get("GEOINV_DATA", "GEOINV_DATA-is-not-set"))


def real(name):
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no real data: {path} does not exist (set GEOINV_DATA)")
    return path


def test_clear_lake_projects_to_its_own_utm_columns():
    path = real("clear-lake-gravity/groundGrav_Combined_zEllipsoid_Full.csv")
    common = {"upward": "zWGS84", "gz": "ISO", "station_id": "Station_ID"}
    plane = csv.read_csv(path, columns=common | {"easting": "xWGS84_UTM10N", "northing": "yWGS84_UTM10N"}, crs="EPSG:32610")
    geographic = csv.read_csv(path, columns=common | {"longitude": "lonWGS84", "latitude": "latWGS84"}, crs="EPSG:32610")
    assert plane.sizes["station"] == 2929
    for name in ("easting", "northing"):
        np.testing.assert_allclose(plane[name], geographic[name], rtol=0, atol=0.01)
    assert float(plane["observed"][0, 0]) == pytest.approx(-1.73e-5)
    with pytest.warns(UserWarning, match="1 stations repeat .* stations 2165 and 2166"):
        survey.validate(plane)
    with pytest.raises(ValueError, match="70 rows are blank"):
        csv.read_csv(path, columns=common | {"easting": "xWGS84_UTM10N", "northing": "yWGS84_UTM10N", "gz": "FAA"})


def test_southern_africa_free_air_range():
    table = read_table(real("southern-africa-gravity/southern-africa-gravity.csv.xz"))
    height = table.numbers("height_sea_level_m")
    disturbance = projection.normal_gravity_disturbance(table.numbers("latitude"), height, 1e-5 * table.numbers("gravity_mgal"))
    np.testing.assert_allclose([disturbance.min() * 1e5, disturbance.max() * 1e5], [-102, 132], atol=1)  # as its README states
    bouguer = disturbance - projection.bouguer_slab(height)
    np.testing.assert_allclose([bouguer.min() * 1e5, bouguer.max() * 1e5], [-189, 78], atol=1)


def test_bushveld_topography_agrees_with_its_stations():
    table = read_table(real("bushveld-gravity/bushveld_gravity.csv"))
    ground = topography.read_grid(real("bushveld-gravity/bushveld_topography.nc"), crs="EPSG:32735")
    easting, northing = projection.project(table.numbers("longitude"), table.numbers("latitude"), "EPSG:32735")
    difference = ground.elevation(easting, northing) - table.numbers("elevation")
    assert abs(np.median(difference)) < 10 and np.std(difference) < 60, "a grid of 1.8 km cells follows the ground to tens of metres"


def test_do27_files_round_trip(tmp_path):
    observed = ubc.read_observations(real("do27-joint-synthetic/GRAV_noisydata.obs"))
    assert observed.sizes["station"] == 961
    assert float(observed["observed"].min()) < -2e-6, "a lighter pipe: gz down is negative"
    ubc.write_observations(tmp_path / "a.obs", observed)
    given = np.loadtxt(real("do27-joint-synthetic/GRAV_noisydata.obs"), skiprows=1)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "a.obs", skiprows=1), given[:, :4])
    mesh = real("do27-joint-synthetic/mesh_inverse_ubc.msh")
    grid = ubc.read_mesh(mesh)
    assert grid.shape == (60, 81, 81)
    assert grid.edges[0][-1] == 450.0 and grid.widths[0][-1] < grid.widths[0][0]
    ubc.write_mesh(tmp_path / "a.msh", grid)
    assert (tmp_path / "a.msh").read_text().split() == mesh.read_text().split()


def test_koenigsee_picks(tmp_path):
    found = picks.assign_uncertainty(sgt.read_sgt(real("koenigsee-refraction/koenigsee.sgt")), relative=0.03)
    assert (found.sizes["sensor"], found.sizes["pick"], len(np.unique(found["shot"]))) == (63, 714, 15)  # as its README states
    np.testing.assert_allclose([found["observed"].min(), found["observed"].max()], [0.35e-3, 28.9e-3], atol=5e-5)
    picks.validate(found)
    sgt.write_sgt(tmp_path / "a.sgt", found)
    np.testing.assert_array_equal(sgt.read_sgt(tmp_path / "a.sgt")["observed"], found["observed"])
