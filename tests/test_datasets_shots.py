"""The waveform survey: its layout, ragged spreads, files on disk, and every broken value named by shot and receiver."""

import subprocess
import sys

import numpy as np
import pytest
import xarray

from geoinv.datasets import netcdf, shots

TIME = 0.004 * np.arange(50)
ORIGIN = {"upward": 0.0, "northing": 0.0, "easting": 0.0}


def two_shots(**changes):
    """Two shots over three receivers at 0, 10 and 20 m; the last receiver of the second shot is dead."""
    arguments = {
        "observed": np.random.default_rng(1).standard_normal((2, 3, 50)),
        "time": TIME,
        "sources": {"upward": [-5.0, -6.0], "easting": [0.0, 30.0]},
        "receivers": {"upward": -8.0, "easting": [0.0, 10.0, 20.0]},
        "live": [[True, True, True], [True, True, False]],
        "crs": "EPSG:32610",
        "history": ["made by hand"],
    }
    return shots.make(**(arguments | changes))


def in_three_dimensions(**changes):
    sources = {"upward": 0.0, "northing": [3.0, 0.0], "easting": [0.0, 0.0]}
    receivers = {"upward": 10.0, "northing": [3.0, 7.0, 15.0], "easting": [0.0, 3.0, 9.0]}
    return two_shots(**({"sources": sources, "receivers": receivers} | changes))


def gather(count, **changes):
    made = {"observed": np.full((count, 50), float(count)), "sources": {"upward": 0.0, "easting": 1.0 * count}}
    return made | {"receivers": {"upward": 0.0, "easting": 10.0 * np.arange(count)}} | changes


def test_the_modules_do_without_tensorflow():
    code = "import sys; from geoinv.datasets import segy, shots; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_survey_follows_the_convention():
    made = shots.validate(two_shots(shot_id=[101, 102]))
    assert dict(made.sizes) == {"shot": 2, "receiver": 3, "time": 50}
    assert made["observed"].dtype == np.float32 and made["live"].dtype == bool
    assert made["observed"].attrs["units"] == "Pa" and made["receiver_easting"].attrs["units"] == "m"
    np.testing.assert_array_equal(made["receiver_easting"], [[0, 10, 20], [0, 10, 20]])
    np.testing.assert_array_equal(made["receiver_upward"], np.full((2, 3), -8.0))
    assert not np.any(made["observed"].values[1, 2]) and np.all(np.any(made["observed"].values[0], axis=1))
    assert shots.axes_of(made) == ("upward", "easting")


def test_the_sampling_interval_survives_rounding():
    assert shots.dt(two_shots()) == 0.004
    assert shots.dt(two_shots(time=(1.0 + 0.001 * np.arange(50)).astype(np.float32))) == pytest.approx(0.001, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observed": np.zeros((2, 3))}, r"'observed' of shape \(2, 3\)"),
        ({"time": TIME[:-1]}, r"'time' of shape \(49,\)"),
        ({"time": TIME[::-1]}, "'time'.*strictly increasing"),
        ({"time": np.append(TIME[:-1], 0.25)}, "'time'.*evenly spaced"),
        ({"time": np.full(50, np.nan)}, "'time' nan at index 0"),
        ({"sources": {"easting": [0.0, 1.0]}}, "upward and easting of both"),
        ({"receivers": {"upward": 0.0, "northing": 0.0, "easting": [0.0, 1.0, 2.0]}}, "northing, easting of receivers"),
        ({"sources": {"upward": [0.0, np.nan], "easting": [0.0, 1.0]}}, "'source_upward' nan at shot 1:"),
        ({"sources": {"upward": 0.0, "easting": [[0.0, 1.0], [2.0, np.inf]]}}, "'source_easting' inf at shot 1, source 1:"),
        ({"sources": {"upward": 0.0, "easting": np.zeros(3)}}, r"'sources easting' of shape \(3,\)"),
        ({"sources": {"upward": 0.0, "easting": np.zeros((2, 1, 1))}}, "'sources easting' of shape"),
        ({"receivers": {"upward": 0.0, "easting": [[0.0, 1.0, 2.0], [0.0, np.nan, 2.0]]}}, "'receiver_easting' nan at shot 1, receiver 1:"),
        ({"receivers": {"upward": 0.0, "easting": [0.0, 1.0]}}, r"'receivers easting' of shape \(2,\)"),
        ({"live": [[True, True, True], [False, False, False]]}, "'live' False for every receiver of shot 1"),
        ({"uncertainty": [0.1, -0.1, 0.1]}, "'uncertainty' -0.1 at shot 0, receiver 1:"),
        ({"uncertainty": [0.1, 0.1, np.inf]}, "'uncertainty' inf at shot 0, receiver 2:"),
        ({"shot_id": [1, 2, 3]}, "'shot_id' of shape"),
        ({"observed": np.zeros((0, 3, 50)), "sources": {"upward": 0.0, "easting": 0.0}, "live": None}, "at least one shot"),
    ],
)
def test_bad_values_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        two_shots(**changes)


def test_a_bad_sample_is_named_unless_its_receiver_is_dead():
    observed = np.ones((2, 3, 50))
    observed[1, 2, 7] = np.nan
    shots.validate(two_shots(observed=observed))
    with pytest.raises(ValueError, match="'observed' nan at shot 1, receiver 2, sample 7"):
        two_shots(observed=observed, live=None)


def test_validate_refuses_what_was_broken_later():
    with pytest.raises(ValueError, match="without live, observed"):
        shots.validate(two_shots().drop_vars(["observed", "live"]))
    with pytest.raises(ValueError, match=r"'observed' over \('receiver', 'shot', 'time'\)"):
        shots.validate(two_shots().transpose("receiver", "shot", "time"))
    with pytest.raises(ValueError, match="'live' of type int64"):
        shots.validate(two_shots().assign_coords(live=(("shot", "receiver"), np.ones((2, 3), dtype=np.int64))))
    with pytest.raises(ValueError, match="with one northing"):
        shots.validate(in_three_dimensions().drop_vars("source_northing"))
    with pytest.raises(ValueError, match=r"uncertainty.*0 at shot 0, receiver 2 .1 of 5 live"):
        shots.validate(two_shots(uncertainty=[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]))


def test_gathers_of_different_lengths_are_padded():
    named = [gather(n, shot_id=f"S{n}", uncertainty=0.5 * n) for n in (2, 4, 1)]
    made = shots.validate(shots.from_gathers(named, TIME, units="m/s", crs="EPSG:32610"))
    np.testing.assert_array_equal(made["live"], [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    np.testing.assert_array_equal(made["observed"].values[:, :, 7], [[2, 2, 0, 0], [4, 4, 4, 4], [1, 0, 0, 0]])
    np.testing.assert_array_equal(made["uncertainty"], [[1, 1, 0, 0], [2, 2, 2, 2], [0.5, 0, 0, 0]])
    np.testing.assert_array_equal(made["receiver_easting"].values[0], [0, 10, np.nan, np.nan])
    np.testing.assert_array_equal(made["source_easting"], [2, 4, 1])
    assert list(made["shot_id"].values) == ["S2", "S4", "S1"] and made["observed"].attrs["units"] == "m/s"


def test_a_dead_receiver_within_a_gather_stays_in_place():
    made = shots.from_gathers([gather(3, live=[True, False, True]), gather(2)], TIME)
    np.testing.assert_array_equal(made["live"], [[1, 0, 1], [1, 1, 0]])
    assert float(made["receiver_easting"][0, 1]) == 10.0


@pytest.mark.parametrize(
    ("gathers", "message"),
    [
        ([], "0 shots"),
        ([gather(2), gather(3, observed=np.zeros((3, 49)))], r"shot 1' with observed of shape \(3, 49\).*50 samples"),
        ([gather(2), gather(3, colour="red")], "shot 1' with .*colour"),
        ([{"observed": np.zeros((2, 50))}], "shot 0' with observed"),
        ([gather(2), gather(2, receivers={"upward": 0.0, "easting": [1.0, 2.0, 3.0]})], r"shot 1' of shape \(3,\)"),
        (
            [
                gather(2),
                gather(
                    1, sources=dict.fromkeys(("upward", "northing", "easting"), 0.0), receivers=dict.fromkeys(("upward", "northing", "easting"), 0.0)
                ),
            ],
            "shot 1' with other axes",
        ),
        ([gather(2), gather(2, sources={"upward": 0.0, "easting": [0.0, 1.0]})], "'sources easting' of shapes"),
        ([gather(2, shot_id=1), gather(2)], "'shot_id' of shape"),
    ],
)
def test_bad_gathers_are_refused_by_shot(gathers, message):
    with pytest.raises(ValueError, match=message):
        shots.from_gathers(gathers, TIME)


@pytest.mark.parametrize("several", [False, True])
def test_netcdf_keeps_everything(tmp_path, several):
    ragged = shots.from_gathers(
        [gather(n, shot_id=f"S{n}", uncertainty=0.5) for n in (2, 4)], TIME, units="m/s", crs="EPSG:32610", history=["a", "b"]
    )
    sources = {"upward": 0.0, "easting": [[0.0, 1.0], [2.0, 3.0]]}
    made = two_shots(sources=sources, shot_id=[7, 8], uncertainty=0.25) if several else ragged
    netcdf.write(tmp_path / "survey.nc", made)
    read = shots.validate(netcdf.read(tmp_path / "survey.nc"))
    xarray.testing.assert_equal(read, made)
    assert read.attrs == made.attrs
    for name in ("observed", "time", "source_upward", "receiver_easting"):
        assert read[name].attrs == made[name].attrs and read[name].dtype == made[name].dtype
    assert read["live"].dtype == bool and read["source_easting"].dims == made["source_easting"].dims


def test_arrays_for_the_operators():
    made = shots.from_gathers([gather(3, live=[False, True, True]), gather(1)], TIME)
    sources, receivers, live = shots.acquisition_arrays(made, ("upward", "easting"))
    np.testing.assert_array_equal(sources, [[[0, 3]], [[0, 1]]])
    np.testing.assert_array_equal(receivers[..., 1], [[10, 10, 20], [0, 0, 0]])
    np.testing.assert_array_equal(live, [[0, 1, 1], [1, 0, 0]])
    sources, receivers, _ = shots.acquisition_arrays(in_three_dimensions())
    np.testing.assert_array_equal(sources[0, 0], [0, 3, 0])
    np.testing.assert_array_equal(receivers[0, 2], [10, 15, 9])
    paired, _, _ = shots.acquisition_arrays(two_shots(sources={"upward": [1.0, 2.0], "easting": [[0.0, 1.0], [2.0, 3.0]]}))
    np.testing.assert_array_equal(paired, [[[1, 0], [1, 1]], [[2, 2], [2, 3]]])
    with pytest.raises(ValueError, match=r"line\.project"):
        shots.acquisition_arrays(in_three_dimensions(), ("upward", "easting"))
    with pytest.raises(ValueError, match="northings"):
        shots.acquisition_arrays(two_shots(), ("upward", "northing", "easting"))


def test_offsets_are_horizontal_distances_from_the_nearest_source():
    np.testing.assert_allclose(shots.offsets(in_three_dimensions())[0], [0, 5, 15], rtol=1e-15)  # legs 3-4 and 9-12
    np.testing.assert_array_equal(shots.offsets(two_shots()), [[0, 10, 20], [30, 20, 30]])  # the dead one as the first live one
    pair = two_shots(sources={"upward": 0.0, "easting": [[0.0, 16.0], [100.0, 200.0]]})
    np.testing.assert_array_equal(shots.offsets(pair)[0], [0, 6, 4])


def test_some_shots():
    picked = shots.validate(shots.select_shots(two_shots(shot_id=["a", "b"]), [1]))
    assert list(picked["shot_id"].values) == ["b"] and float(picked["source_easting"][0]) == 30.0
    assert picked.attrs["history"].splitlines() == ["made by hand", "kept 1 of 2 shots"]
    with pytest.raises(ValueError, match=r"'units'.*from 0 to 1"):
        shots.select_shots(two_shots(), [2])


def test_uncertainty_relative_to_the_rms_of_each_trace():
    amplitude = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    wave = amplitude[..., None] * np.sin(2 * np.pi * np.arange(50) / 10)  # whole periods: rms = amplitude / sqrt(2)
    made = shots.assign_uncertainty(two_shots(observed=wave, uncertainty=[[0, 0.5, 0], [0.001, 0, 0]]), floor=0.01, relative=0.1)
    expected = 0.01 + 0.1 * amplitude / np.sqrt(2)
    expected[0, 1], expected[1, 0], expected[1, 2] = 0.5, 0.01, 0.0  # given; given below the floor; dead
    np.testing.assert_allclose(made["uncertainty"], expected, rtol=1e-6)
    assert "2 given values kept" in made.attrs["history"]
    shots.validate(made)


def test_uncertainties_that_cannot_be():
    with pytest.raises(ValueError, match="0 at shot 0, receiver 0"):
        shots.assign_uncertainty(two_shots())
    with pytest.raises(ValueError, match="'floor' -1"):
        shots.assign_uncertainty(two_shots(), floor=-1.0)
    silent = np.ones((2, 3, 50))
    silent[1, 1] = 0
    with pytest.raises(ValueError, match=r"0 at shot 1, receiver 1: must be positive .floor None, relative 0.1"):
        shots.assign_uncertainty(two_shots(observed=silent), relative=0.1)
    given = two_shots(uncertainty=0.1)
    assert shots.assign_uncertainty(given) is given
