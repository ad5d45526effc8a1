"""Synthetic surveys: the physics of the exact data, the seed, the staircase."""

import numpy as np
import pytest

from geoinv.datasets import netcdf, survey, synthetic
from geoinv.operators.constants import GRAVITATIONAL_CONSTANT
from geoinv.operators.gravity.ground import depths
from geoinv.operators.grid import Grid

GRID = Grid.uniform((3, 4, 4), (50.0, 100.0, 100.0), origin=(-150.0, 0.0, 0.0))
DENSITY = np.random.default_rng(0).uniform(100, 500, GRID.shape)
MASS = float(np.sum(DENSITY * GRID.volumes))
CENTER = np.array([np.sum(DENSITY * GRID.volumes * c) for c in np.meshgrid(*GRID.centers, indexing="ij")]) / MASS


@pytest.mark.parametrize("component", list(survey.COMPONENTS))
def test_far_away_every_component_is_that_of_a_point_mass(component):
    away = np.array([9000.0, 14000.0, -11000.0])  # upward, northing, easting
    upward, northing, easting = away
    r = np.linalg.norm(away)
    axes = {"x": easting, "y": northing, "z": -upward}  # from the mass to the station, z down
    if len(component) == 2:
        expected = -axes[component[1]] / r**3
    else:
        a, b = component[1:]
        expected = (3 * axes[a] * axes[b] - (a == b) * r**2) / r**5
    got = synthetic.prism_field(component, (CENTER + away)[None], GRID, DENSITY)[0]
    assert got == pytest.approx(GRAVITATIONAL_CONSTANT * MASS * expected, rel=2e-3)


def test_gauss_theorem_gives_the_mass():
    # The flux of gz through a plane over the body is 2 pi G M; the plane ends at 30 km, where the point mass gives the rest:
    # outside a square of half-side L at height h the missing share is 1 - (2/pi) arctan(L^2 / (h sqrt(2 L^2 + h^2))).
    spacing, half, height = 150.0, 30000.0, 300.0
    axis = np.arange(-half + spacing / 2, half, spacing)
    northing, easting = (part.ravel() for part in np.meshgrid(axis + CENTER[1], axis + CENTER[2], indexing="ij"))
    points = np.stack([np.full(northing.size, CENTER[0] + height), northing, easting], axis=1)
    merged = Grid((GRID.edges[0][[0, -1]], GRID.edges[1][[0, -1]], GRID.edges[2][[0, -1]]))
    flux = synthetic.prism_field("gz", points, merged, [[[MASS / merged.volumes[0, 0, 0]]]]).sum() * spacing**2
    share = 2 / np.pi * np.arctan(half**2 / (height * np.sqrt(2 * half**2 + height**2)))
    assert flux / share == pytest.approx(2 * np.pi * GRAVITATIONAL_CONSTANT * MASS, rel=1e-3)


def test_gradients_are_harmonic_and_agree_with_differences():
    point = np.array([[40.0, 130.0, 260.0]])
    traces = [synthetic.prism_field(name, point, GRID, DENSITY)[0] for name in ("gxx", "gyy", "gzz")]
    assert abs(sum(traces)) < 1e-12 * max(map(abs, traces))
    step = 0.05
    for name, axis, sign in (("gzz", 0, -1), ("gyz", 1, 1), ("gxz", 2, 1)):
        shift = step * np.eye(3)[axis]
        upper, lower = (synthetic.prism_field("gz", point + side * shift, GRID, DENSITY)[0] for side in (1, -1))
        assert synthetic.prism_field(name, point, GRID, DENSITY)[0] == pytest.approx(sign * (upper - lower) / (2 * step), rel=1e-5)


def test_the_default_example():
    example = synthetic.gravity()
    made = survey.validate(example.survey)
    assert example.grid.shape == example.active.shape == example.density.shape == (12, 24, 24)
    assert made.sizes["station"] == 400
    assert made["upward"].min() >= 1 and made["upward"].max() <= 10
    np.testing.assert_array_equal(made["uncertainty"], 2e-7)
    assert example.active.all()
    index = tuple(example.grid.cell_index(np.array([example.block_center]))[0])
    assert float(example.density[index]) == 400.0
    weights = example.density.values / example.density.values.sum()
    centers = [float(np.sum(weights * c)) for c in np.meshgrid(*example.grid.centers, indexing="ij")]
    assert example.block_center == pytest.approx(centers)
    gz = made["observed"].sel(component="gz").values
    peak = made.isel(station=int(gz.argmax()))
    assert gz.max() > 20 * 2e-7, "the anomaly must stand far above the noise, and point down"
    assert np.hypot(peak["easting"] - 1200, peak["northing"] - 1200) < 200


def test_noise_has_its_standard_deviation_and_seed():
    clean = synthetic.gravity(noise=0.0)
    noise = (synthetic.gravity().survey["observed"] - clean.survey["observed"]).values
    assert noise.std() == pytest.approx(2e-7, rel=0.1)
    assert abs(noise.mean()) < 4 * 2e-7 / 20
    assert not np.any(clean.survey["uncertainty"].values)
    assert synthetic.gravity().survey.identical(synthetic.gravity().survey)
    assert not synthetic.gravity(seed=1).survey.equals(synthetic.gravity().survey)


def test_relief_makes_a_staircase_that_honours_the_stations(tmp_path):
    example = synthetic.gravity(relief=150.0, components=("gz", "gzz"))
    count = example.active.sum(axis=0)
    assert count[12, 12] > count[0, 0] == 9, "a hill on a plain three cells down"
    assert not np.any(example.density.values[~example.active])
    points = np.stack([example.survey[name].values for name in example.grid.dims], axis=1)
    assert depths(example.grid, example.active, points).max() <= 50.0
    np.testing.assert_array_equal(example.survey["uncertainty"].values[0], [2e-7, 1e-9])
    netcdf.write(tmp_path / "density.nc", example.density)
    back = Grid.from_xarray(netcdf.read(tmp_path / "density.nc")["density"])
    np.testing.assert_array_equal(back.edges[0], example.grid.edges[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (2, 24, 24)}, "'shape'"),
        ({"shape": (12, 24)}, "'shape'"),
        ({"relief": 200.0}, "'relief' 200.0.*200 m"),
        ({"relief": -1.0}, "'relief'"),
        ({"height": (5.0, 1.0)}, "'height'"),
        ({"noise": -1.0}, "'noise'"),
        ({"components": ("bz",)}, "'component' 'bz'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        synthetic.gravity(**options)
