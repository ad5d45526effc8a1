"""What the wave operator refuses, and warns of, before it computes anything. (What needs a run: test_acoustic_shots.py.)"""

import contextlib
import dataclasses
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators import AcousticWave, Acquisition, Grid
from geoinv.operators.seismic import Absorbing, wavelets
from geoinv.operators.sensitivity import Checkpointed, Every

GRID = Grid.uniform((30, 40), (10.0, 10.0))
SOURCES = np.array([[150.0, 200.0], [155.0, 120.0]])
RECEIVERS = np.array([[100.0, 60.0], [104.0, 330.0]])
SIGNAL = wavelets.ricker(12.0, 250, 1e-3)


def wave(**changes: Any) -> AcousticWave:
    """A sound operator with something changed."""
    given = {
        "grid": GRID, "acquisition": Acquisition(SOURCES, RECEIVERS), "wavelet": SIGNAL, "dt": 1e-3, "velocity_limits": (1500.0, 3000.0),
        "boundary": Absorbing(10),
    }  # fmt: skip
    return AcousticWave(**{**given, **changes})


@contextlib.contextmanager
def refused(message: str) -> Iterator[None]:
    """With an error of use of one line."""
    with pytest.raises(ValueError, match=message) as raised:
        yield
    assert "\n" not in str(raised.value)


def test_the_operator_that_the_others_vary_is_sound() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wave()


def moved(points: np.ndarray, number: int, position: list[float]) -> np.ndarray:
    changed = points.copy()
    changed[number] = position
    return changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # The largest stable step of order 4: 0.95 * 2 / (v sqrt(2 * 16 / 3) / h).
        ({"dt": 4e-3, "wavelet": SIGNAL[::4], "time_step": 4e-3}, r"'time_step' 0\.004 s: must be at most 0\.001939 s .*order 4.*3000 m/s.*10, 10 m"),
        ({"time_step": 0.7e-3}, r"'time_step' 0\.0007 s: must be a whole fraction .* dt = 0\.001 s"),
        ({"time_step": -1e-3}, "'time_step' -0.001 at index 0: must be positive"),
        ({"dt": 0.0}, "'dt' 0 .*positive"),
        ({"dt": "a"}, "'dt' 'a': must be a number, or an array of numbers"),
        ({"aperture": "x"}, "'aperture' 'x': must be a number"),
        ({"parameters": 3}, r"'parameters' 3: must be a sequence of names, such as \('velocity',\)"),
        ({"samples": "a"}, "'samples' 'a': must be a number"),
        ({"acquisition": None}, r"'acquisition' None: must be an Acquisition\(...\)"),
        ({"grid": None}, "'grid' None: must be a Grid"),
        ({"parameters": "velocity"}, r"'parameters' 'velocity': must be a sequence of names, such as \('velocity',\)"),
        ({"dt": np.nan}, "'dt' nan .*finite"),
        ({"acquisition": Acquisition(moved(SOURCES, 1, [310.0, 200.0]), RECEIVERS)}, r"'sources' \(310, 200\) m \(shot 1, number 0\).*300 m.*400 m"),
        ({"acquisition": Acquisition(SOURCES, moved(RECEIVERS, 1, [100.0, -1.0]))}, r"'receivers' \(100, -1\) m \(shot 0, number 1\).* 2 are not"),
        ({"grid": Grid.uniform((30, 20, 20), (10.0,) * 3)}, "'acquisition' of 2 axes: must be of 3"),
        ({"grid": Grid.uniform((30, 40), (10.0, 10.0)).pad(2)}, "'grid' with cells of 10 to .*along upward: must be of cells of one size"),
        ({"boundary": Absorbing(((1, 2), (3, 4), (5, 6)))}, r"'cells' .*\(lower, upper\) for each of 2 axes"),
        ({"velocity_limits": (3000.0, 1500.0)}, r"'velocity_limits' \(3000.0, 1500.0\): must be \(lowest, highest\)"),
        ({"velocity_limits": (0.0, 1500.0)}, "'velocity_limits' 0 at index 0: must be positive"),
        ({"velocity_limits": 1500.0}, "'velocity_limits' of shape"),
        ({"order": 5}, "'order' 5: must be one of 2, 4, 6, 8"),
        ({"dtype": tf.float16}, "'dtype'"),
        ({"parameters": ("density",)}, r"'parameters' \('density',\): must be velocity, and others of"),
        ({"parameters": ("velocity", "slowness")}, "'parameters' .*slowness"),
        ({"density": np.ones((3, 4))}, r"'density' of shape \(3, 4\): must be of shape \(30, 40\)"),
        ({"density": np.ones(GRID.shape), "parameters": ("velocity", "density")}, "'density' given, and in parameters: must be one of the two"),
        ({"density": np.zeros(GRID.shape)}, "'density' 0 at index 0: must be positive"),
        ({"wavelet": np.where(np.arange(250) == 7, np.nan, SIGNAL)}, "'wavelet' nan at index 7: must be finite"),
        ({"wavelet": np.ones((2, 3, 250)) * SIGNAL}, r"'wavelet' of shape \(2, 3, 250\): must be of shape \(250,\) or \(2, 1, 250\)"),
        ({"wavelet": 1.0}, r"'wavelet' of shape \(\): must be of shape \[time\]"),
        ({"wavelet": np.zeros(0)}, r"'wavelet' of shape \(0,\): must be of shape \[time\]"),
        ({"samples": -5}, "'samples' -5: must be a whole number, 1 or more"),
        ({"samples": 99.5}, "'samples' 99.5: must be a whole number, 1 or more"),
        ({"differentiation": Every}, "'differentiation' .*Every.*: must be a strategy, such as"),
        ({"grid": Grid.uniform((3, 40), (70.0, 10.0)), "order": 4}, "'grid' of 3 cells along upward: must be of 5 or more"),
        ({"boundary": Absorbing(((10, 10), (10, 0))), "aperture": 50.0}, "'aperture' 50.0 m with layers of 10 and 0 cells .*on all sides"),
        ({"aperture": (50.0, 50.0)}, r"'aperture' \(50.0, 50.0\): must be 0 m or more, one number or one for each horizontal axis"),
        ({"boundary": 10}, r"'boundary' 10: must be an Absorbing"),
        ({"wavelet": SIGNAL + 0j}, "'wavelet' of complex numbers: must be real"),
        ({"samples": 50}, "'wavelet' of 250 samples, 50 in the record"),
        ({"differentiation": Every(20)}, r"'differentiation' Every\(steps=20\) of 0\.001 s for frequencies up to .* must be Every\(\d+\) or finer"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_refused(changes: dict[str, Any], message: str) -> None:
    with refused(message):
        wave(**changes).substeps  # noqa: B018


def test_the_coarsest_snapshots_that_are_advised_are_accepted() -> None:
    with pytest.raises(ValueError, match="or finer") as raised:
        wave(differentiation=Every(20))
    advised = int(str(raised.value).split("must be Every(")[1].split(")")[0])
    wave(differentiation=Every(advised))
    with pytest.raises(ValueError, match="or finer"):
        wave(differentiation=Every(advised + 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SOURCES[0], RECEIVERS), "'acquisition' with sources"),
        ((SOURCES, RECEIVERS[:, :1]), "'acquisition' with sources"),
        ((SOURCES, np.zeros((3, 2, 2))), "'acquisition' with sources"),
        ((SOURCES, RECEIVERS[:0]), "'receivers' of shape"),
        ((moved(SOURCES, 1, [np.nan, 0.0]), RECEIVERS), "'sources' .* of shot 1, number 0: must be finite"),
        ((SOURCES, RECEIVERS, np.ones((2, 3))), r"'live' of shape \(2, 3\): must be of shape \(2, 2\)"),
        ((SOURCES, RECEIVERS, None, np.array([[True], [False]])), "'sources' none live in shot 1"),
        ((SOURCES, RECEIVERS, np.array([[False, False], [True, True]])), "'receivers' none live in shot 0: must be .* 1 shots have none"),
    ],
)
def test_acquisitions_refused(arguments: tuple, message: str) -> None:
    with refused(message):
        Acquisition(*arguments)


def test_receivers_that_are_not_live_may_be_anywhere() -> None:
    wave(acquisition=Acquisition(SOURCES, moved(RECEIVERS, 1, [np.nan, -1e6]), live=[[True, False]] * 2))


TOP = Absorbing(10, free_surface=True)


@pytest.mark.parametrize("place", [[300.0, 120.0], [300.0, 0.0], [300.0, 400.0]])
def test_points_on_a_free_surface_are_refused(place: list[float]) -> None:
    """They radiate and record nothing, wherever the others are."""
    with refused("'sources' .*free surface"):
        wave(boundary=TOP, acquisition=Acquisition(moved(SOURCES, 1, place), RECEIVERS))
    wave(acquisition=Acquisition(moved(SOURCES, 1, place), RECEIVERS))  # where the top absorbs it is a place like any other
    with refused("'receivers' .*free surface"):
        wave(boundary=TOP, acquisition=Acquisition(SOURCES, moved(RECEIVERS, 1, place)))
    below = [place[0] - 1.0, place[1]]
    wave(boundary=TOP, acquisition=Acquisition(moved(SOURCES, 1, below), RECEIVERS))


@pytest.mark.parametrize(("cells", "spacing", "bottom"), [(75, 19.47, -2163.7), (27, 1.48, -478.9)])
def test_points_on_a_free_surface_are_refused_whatever_the_rounding(cells: int, spacing: float, bottom: float) -> None:
    grid = Grid.uniform((cells, 40), (spacing, spacing), origin=(bottom, 0.0))
    inside = np.array([[bottom + 10.3 * spacing, 20 * spacing]])
    with refused("'sources' .*free surface"):
        wave(grid=grid, acquisition=Acquisition(np.array([[grid.edges[0][-1], 15.2 * spacing]]), inside), boundary=TOP, dt=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
def test_points_on_faces_edges_and_corners_of_the_grid_are_in_it(ndim: int) -> None:
    """With layers behind them: they are interpolated there too, and interpolate a constant."""
    grid = Grid.uniform((14, 15, 16)[:ndim], (10.0,) * ndim)
    places = np.array(list(itertools.product(*((edges[0], 72.0, edges[-1]) for edges in grid.edges))))
    operator = wave(grid=grid, acquisition=Acquisition(places, places), boundary=Absorbing(4))
    matrix = operator.placement.spreads[0].matrix(0, operator.lattice.whole)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=ndim * 1.34e-3)  # Hicks' error for four cells on each side
    for place in (places[0], places[-1], places[1]):
        with refused("too near a side that reflects"):
            wave(grid=grid, acquisition=Acquisition(place[np.newaxis], places[13 % len(places)][np.newaxis]), boundary=Absorbing(0))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "'velocity' nan at index 45: must be finite"),
        (0.0, "'velocity' 0 at index 45: must be positive"),
        (-1500.0, "'velocity' -1500 at index 45: must be positive"),
        (3100.0, r"'velocity' 3100 m/s at cell \(1, 5\): must be at most 3000 m/s.*velocity_limits"),
    ],
)
def test_velocities_refused(value: float, message: str) -> None:
    velocity = np.full(GRID.shape, 2000.0, np.float32)
    velocity[1, 5] = value
    operator = wave()
    for compute in (operator, operator.forward, operator.linearize):
        with refused(message):
            compute({"velocity": tf.constant(velocity)})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"velocity": np.full((30, 41), 2000.0)}, r"'model' of shape \(30, 41\): must be of shape \(30, 40\)"),
        ({"velocity": tf.fill(GRID.shape, tf.constant(2000.0, tf.float64))}, "'model' of dtype float64: must be of dtype float32"),
        ({"speed": np.full(GRID.shape, 2000.0)}, "'model' structured as"),
    ],
)
def test_models_refused(model: dict[str, Any], message: str) -> None:
    operator = wave()
    for compute in (operator, operator.forward, operator.linearize, operator.illumination):
        with refused(message):
            compute(model)


@pytest.mark.parametrize("units", [[2], [-1], [], [0.5], [True, False, True]])
def test_shots_that_do_not_exist_are_refused(units: list) -> None:
    with refused("'units'"):
        wave().subset(units)


def test_too_few_points_per_wavelength_are_warned_of_with_what_to_do() -> None:
    with pytest.warns(
        UserWarning, match=r"too few points per wavelength: \d\.\d at .* Hz and 1500 m/s; .* % .*Order 2 wants .*cells of .* m, .*higher order"
    ):
        wave(order=2)
    for order in (6, 8):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wave(order=order)


def test_a_wavelet_that_resampling_damps_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"wavelet of up to .* Hz sampled every 0.004 s: steps are finer, and resampling passes 93.8 Hz and less"):
        wave(dt=4e-3, wavelet=wavelets.ricker(60.0, 62, 4e-3))


def test_a_subset_does_not_warn_again() -> None:
    with pytest.warns(UserWarning, match="too few points"):
        operator = wave(order=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        operator.subset([0])


def test_a_wavelet_shorter_than_the_record_is_padded_and_this_is_said() -> None:
    with pytest.warns(UserWarning, match="wavelet shorter than the record: 250 samples are padded with zeros to 310"):
        operator = wave(samples=310)
    assert operator.data_spec.shape == (2, 2, 310)
    np.testing.assert_array_equal(operator.wavelet[1, 0], np.r_[SIGNAL, np.zeros(60)])


def test_a_velocity_below_the_limit_is_warned_of() -> None:
    slow = {"velocity": np.full(GRID.shape, 1400.0, np.float32)}
    with pytest.warns(UserWarning, match=r"velocities below velocity_limits \(1500 m/s\)"):
        wave().step_matrix(slow)


def test_a_dtype_may_be_given_by_its_name() -> None:
    assert wave(dtype="float32").memory_estimate() == wave().memory_estimate()
    assert wave(wavelet=np.ones(1), differentiation=Every(2)).data_spec.shape == (2, 2, 1)


@pytest.mark.parametrize("shots", [-3, 0, 1.5])
def test_a_number_of_shots_that_cannot_be_is_refused(shots: float) -> None:
    with refused(f"'shots' {shots}: must be a whole number, 1 or more"):
        wave().memory_estimate(shots)


def test_jumps_of_a_models_density_that_the_step_was_not_made_for_are_refused() -> None:
    operator = wave(parameters=("velocity", "density"), order=8, velocity_limits=(1500.0, 5200.0))
    density = np.where(np.random.default_rng(0).random(GRID.shape) < 0.5, 1.0, 1000.0).astype(np.float32)
    model = {"velocity": tf.fill(GRID.shape, 5200.0), "density": tf.constant(density)}
    for compute in (operator, operator.forward, operator.linearize):
        with refused(r"'density' with jumps that make steps of 0\.00\d+ s unstable: must be smoother, or stepped by .* s at most. Give"):
            compute(model)
    slower = {**model, "velocity": tf.fill(GRID.shape, 2500.0)}
    assert np.all(np.isfinite(operator(slower))), "the velocities' limit was higher than needed"


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("shape", [(30, 40), (16, 18, 20)])
def test_checkpoints_stay_within_their_budget(shape: tuple[int, ...], varied: bool) -> None:
    """By what the operator itself expects of a shot: the states, and the steps of a segment."""
    grid = Grid.uniform(shape, (10.0,) * len(shape))
    middle = np.array([edges[-1] / 2 for edges in grid.edges])[np.newaxis]
    options = {"grid": grid, "acquisition": Acquisition(middle, middle), "density": np.ones(shape) if varied else None, "boundary": Absorbing(4)}
    size = wave(**options).memory_estimate(1).kept
    for share in (0.1, 0.3, 0.6, 1.02):
        operator = wave(**options, differentiation=Checkpointed(memory=share * size))
        loop = operator._loop
        images = loop.program(loop.keeping).kept_size * operator.dtype.size
        kept = operator.memory_estimate(1).kept + (images if loop.segments > 1 else 0)
        assert 0.5 * min(share, 1) * size <= kept <= share * size, (share, loop.plan)


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="widht"):
        wave(widht=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        wave().dt = 2e-3  # type: ignore[misc]


def test_warnings_point_at_the_line_of_the_user() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        operator = AcousticWave(GRID, Acquisition(SOURCES, RECEIVERS), 1.0 * SIGNAL, dt=1e-3, velocity_limits=(300.0, 3000.0), samples=300)
        operator.forward({"velocity": tf.fill(GRID.shape, 250.0)})
        dataclasses.replace(operator, order=2)
    assert [str(each.message).split()[0] for each in caught] == ["wavelet", "too", "velocities", "too"]
    assert {each.filename for each in caught} == {__file__}
