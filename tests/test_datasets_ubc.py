"""UBC-GIF files: order of cells, signs and units by hand; write, read and write again gives the same bytes."""

import numpy as np
import pytest

from geoinv.datasets import survey, ubc
from geoinv.operators.grid import Grid

GRID = Grid((np.array([-30.0, -10.0, 0.0]), np.array([0.0, 5.0]), np.array([100.0, 101.0, 103.0])))


def write(tmp_path, text, name):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_observations_by_hand(tmp_path):
    path = write(tmp_path, "! a survey\n2\n\n100. 200. 10. -1.5 0.1 ! first\n110. 210. 1.2D+01 2.5 0.2\n", "grav.obs")
    down = ubc.read_observations(path)
    np.testing.assert_allclose(down["observed"].values[:, 0], [-1.5e-5, 2.5e-5], rtol=1e-14)
    np.testing.assert_allclose(down["uncertainty"].values[:, 0], [1e-6, 2e-6], rtol=1e-14)
    np.testing.assert_array_equal(down["upward"], [10.0, 12.0])
    up = ubc.read_observations(path, positive="up")
    np.testing.assert_array_equal(up["observed"], -down["observed"])
    np.testing.assert_array_equal(up["uncertainty"], down["uncertainty"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file is empty"),
        ("60308 83.8 25.4\n1\n0 0 0 1\n", "line 1' '60308 83.8 25.4'.*Magnetic"),
        ("3\n0 0 0 1\n1 0 0 1\n", "line 1' announces 3 stations"),
        ("1\n\n0 0 1\n", "line 3' with 3 numbers"),
        ("1\n0 0 x 1\n", "line 2' 'x'"),
        ("1\n0 0 nan 1\n", "line 2' 'nan'"),
        ("0\n", "line 1' '0'"),
        ("1\n0 0 0 1 -3\n", "uncertainty gz"),
    ],
)
def test_bad_observations(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        ubc.read_observations(write(tmp_path, text, "bad.obs"))


@pytest.mark.parametrize("positive", ["down", "up"])
@pytest.mark.parametrize("deviation", [None, {"gz": 1e-6 / 3}])
def test_observations_round_trip_to_the_byte(tmp_path, positive, deviation):
    random = np.random.default_rng(1)
    made = survey.make(
        5.57e5 + random.uniform(0, 1e3, 20), 7.1e6 + random.uniform(0, 1e3, 20), random.uniform(0, 9, 20),
        {"gz": np.append(random.normal(0, 1e-5, 19), 0.0)}, deviation,
    )  # fmt: skip
    ubc.write_observations(tmp_path / "a.obs", made, positive=positive)
    back = ubc.read_observations(tmp_path / "a.obs", positive=positive)
    np.testing.assert_allclose(back["observed"], made["observed"], rtol=1e-9)
    np.testing.assert_allclose(back["uncertainty"], made["uncertainty"], rtol=1e-9)
    np.testing.assert_allclose(back["northing"], made["northing"], rtol=0, atol=1e-6)
    ubc.write_observations(tmp_path / "b.obs", back, positive=positive)
    assert (tmp_path / "a.obs").read_bytes() == (tmp_path / "b.obs").read_bytes()
    assert b"-0.000000000" not in (tmp_path / "a.obs").read_bytes()


def test_mesh_by_hand(tmp_path):
    grid = ubc.read_mesh(write(tmp_path, "2 1 3 ! cells\n100 0 50\n1 2\n5\n2*10 20\n", "mesh.msh"))
    assert grid.shape == (3, 1, 2)
    np.testing.assert_array_equal(grid.edges[0], [10.0, 30.0, 40.0, 50.0])
    np.testing.assert_array_equal(grid.edges[1], [0.0, 5.0])
    np.testing.assert_array_equal(grid.edges[2], [100.0, 101.0, 103.0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 1 3\n", "nE nN nZ"),
        ("2 1 3\n0 0 0\n1 2\n5\n2*10\n", r"line 5' ends with 5 cell widths.*2 \+ 1 \+ 3"),
        ("2 1 3\n0 0 0\n1 -2\n5\n2*10 20\n", "line 3' '-2'"),
        ("2 1 3\n0 0 0\n1 2\n5\n2.5*10 20\n", r"line 5' '2\.5'"),
        ("2 1 three\n0 0 0\n1 2\n5\n2*10 20\n", "line 1' 'three'"),
    ],
)
def test_bad_meshes(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        ubc.read_mesh(write(tmp_path, text, "bad.msh"))


def test_meshes_round_trip_to_the_byte(tmp_path):
    grid = Grid.uniform((5, 4, 3), (10 / 3, 100 / 7, 25.0), origin=(-123.456, 7132879.338713, 556579.338713)).pad(3, ratio=1.3)
    ubc.write_mesh(tmp_path / "a.msh", grid)
    back = ubc.read_mesh(tmp_path / "a.msh")
    assert back.shape == grid.shape
    for got, expected in zip(back.edges, grid.edges, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    ubc.write_mesh(tmp_path / "b.msh", back)
    assert (tmp_path / "a.msh").read_bytes() == (tmp_path / "b.msh").read_bytes()


def test_models_run_down_then_east_then_north(tmp_path):
    grid = Grid.uniform((3, 2, 2), (1.0, 1.0, 1.0))
    path = write(tmp_path, "\n".join(map(str, [-100, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])), "model.den")
    model = ubc.read_model(path, grid)
    assert np.isnan(model[2, 0, 0])  # the first value: top, south, west
    np.testing.assert_array_equal(model[::-1, 0, 0][1:], [1000.0, 2000.0])  # then down
    np.testing.assert_array_equal(model[::-1, 0, 1], [3000.0, 4000.0, 5000.0])  # then one cell east
    np.testing.assert_array_equal(model[::-1, 1, 0], [6000.0, 7000.0, 8000.0])  # then north
    assert ubc.read_model(path, grid, air_flag=None, units="kg/m3")[2, 0, 0] == -100.0


def test_models_round_trip_to_the_byte(tmp_path):
    grid = Grid.uniform((4, 3, 2), (1.0, 1.0, 1.0))
    model = np.random.default_rng(2).normal(0, 300, grid.shape)
    model[3, :, 1] = np.nan
    ubc.write_model(tmp_path / "a.den", grid, model)
    back = ubc.read_model(tmp_path / "a.den", grid)
    np.testing.assert_allclose(back, model, rtol=1e-8)
    ubc.write_model(tmp_path / "b.den", grid, back)
    assert (tmp_path / "a.den").read_bytes() == (tmp_path / "b.den").read_bytes()


def test_bad_models(tmp_path):
    with pytest.raises(ValueError, match=r"with 3 values.*4 cells"):
        ubc.read_model(write(tmp_path, "1\n2\n3\n", "short.den"), GRID)
    with pytest.raises(ValueError, match="line 2' 'x'"):
        ubc.read_model(write(tmp_path, "1\nx\n3\n4\n", "bad.den"), GRID)
    with pytest.raises(ValueError, match="air flag"):
        ubc.write_model(tmp_path / "model.den", GRID, np.full(GRID.shape, -1e5))
    with pytest.raises(ValueError, match="shape"):
        ubc.write_model(tmp_path / "model.den", GRID, np.zeros((1, 1, 1)))
    with pytest.raises(ValueError, match="three-dimensional"):
        ubc.write_mesh(tmp_path / "mesh.msh", Grid.uniform((2, 2), (1.0, 1.0)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.den", "short.den"]
