"""Shots: subsets, spreads of different lengths, windows; what is made of products with the derivative; fields that are not finite."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import waves
from waves import Case

from geoinv.operators import AcousticWave, Acquisition, Grid, testing
from geoinv.operators.forward import Linearization
from geoinv.operators.parallel import at_most, cores
from geoinv.operators.seismic import Absorbing, wavelets
from geoinv.operators.sensitivity import Checkpointed, Every, StoreAll

CASE = Case(2, "free surface", 2, tf.float64, ("velocity", "wavelet", "initial"), 1, StoreAll())
pytestmark = pytest.mark.filterwarnings("ignore:too few points per wavelength")


@functools.cache
def linearized(case: Case) -> Linearization:
    wave = waves.small(case)
    return wave.linearize(waves.model_of(wave))


# ---------------------------------------------------------------------------------------------------- shots and spreads


def test_subsets_are_the_same_bits_and_their_gradients_add_up() -> None:
    wave, whole = waves.small(CASE), linearized(CASE)
    model, w = waves.model_of(wave), testing.random(wave.data_spec, seed=4)
    gradient = whole.vjp(w)
    totals = {name: np.zeros_like(part) for name, part in gradient.items()}
    for shot in (1, 0):
        part = wave.subset([shot])
        own = {name: leaf[shot : shot + 1] if name in ("wavelet", "initial") else leaf for name, leaf in model.items()}
        at = part.linearize(own)
        np.testing.assert_array_equal(at.data, whole.data[shot : shot + 1])
        for name, leaf in at.vjp(w[shot : shot + 1]).items():
            totals[name][... if name == "velocity" else slice(shot, shot + 1)] += leaf
    for name, leaf in gradient.items():
        assert testing.relative_difference(totals[name], leaf) <= 1e-14


def test_gradients_pass_through_the_loops_of_tensorflow() -> None:
    """Also where steps are finer than samples, whose resampling is another sparse product."""
    case = Case(2, "free surface", 2, tf.float64, ("velocity",), 2, StoreAll())
    wave = waves.small(case)
    velocity = waves.model_of(wave)["velocity"]
    several = tf.stack([velocity, velocity * 1.01])

    @tf.function
    def gradient(velocities: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(velocities)
            energy = tf.map_fn(lambda each: tf.reduce_sum(wave({"velocity": each}) ** 2), velocities)
        return tape.gradient(energy, velocities)

    found = gradient(several)
    for each, own in zip(several, found, strict=True):
        at = wave.linearize({"velocity": each})
        assert testing.relative_difference(own, at.vjp(2 * at.data)["velocity"]) <= 1e-12


def test_a_subset_has_the_layers_of_the_whole_whatever_its_wavelets() -> None:
    wave = waves.small(CASE)
    low, high = (wavelets.ricker(frequency, waves.STEPS, waves.STEP, delay=0.035) for frequency in (20.0, 60.0))
    signals = np.stack([np.tile(low, (2, 1)), np.tile(high, (2, 1))])
    mixed = dataclasses.replace(wave, wavelet=signals, parameters=("velocity",))
    model = {"velocity": waves.model_of(wave)["velocity"]}
    whole = mixed.linearize(model).data
    for shot in range(2):
        np.testing.assert_array_equal(mixed.subset([shot]).linearize(model).data, whole[shot : shot + 1])


def test_what_is_replaced_is_placed_anew() -> None:
    wave = waves.small(CASE)
    given = wave.acquisition
    flipped = dataclasses.replace(wave, acquisition=given.subset(np.array([1, 0])))
    for ours, theirs in zip(flipped.placement.sources.factors, wave.placement.sources.factors, strict=True):
        np.testing.assert_array_equal(ours.columns, theirs.columns[::-1])
    wider = dataclasses.replace(wave, boundary=Absorbing(((5, 0), (0, 0)), free_surface=True))
    assert wider.placement.sources.box == wave.placement.sources.box.moved(0, 2)


def test_receivers_that_are_not_live_are_silent() -> None:
    wave, at = waves.small(CASE), linearized(CASE)
    assert not np.any(at.data[1, 2]) and np.all(np.any(at.data.numpy()[wave.acquisition.live], axis=1))
    w = np.zeros(wave.data_spec.shape)
    w[1, 2] = 1.0
    assert all(not np.any(leaf) for leaf in at.vjp(tf.constant(w)).values())


def test_windows_change_nothing_before_an_echo_returns_and_their_gradients_add_up() -> None:
    grid, easting = Grid.uniform((24, 80), (10.0, 10.0)), np.array([200.0, 350.0, 500.0, 640.0])
    sources = np.stack([np.full(4, 150.0), easting], axis=-1)
    receivers = np.stack([np.full((4, 6), 180.0), easting[:, np.newaxis] + np.arange(-60.0, 60.0, 20.0) + 3], axis=-1)
    options = {"dt": 1e-3, "velocity_limits": (1400.0, 2400.0), "order": 2, "boundary": Absorbing(((8, 0), (8, 8)), free_surface=True)}
    whole = AcousticWave(grid, Acquisition(sources, receivers), wavelets.ricker(15.0, 90, 1e-3, delay=0.05), **options, dtype=tf.float64)
    windowed = dataclasses.replace(whole, aperture=100.0)
    assert windowed.lattice.shape[1] < whole.lattice.shape[1] // 2 + 8
    model = {"velocity": tf.constant(np.linspace(2000.0, 1500.0, 24)[:, np.newaxis] * np.ones(80))}
    at = windowed.linearize(model)
    assert testing.relative_difference(at.data, whole(model)) <= 1e-9
    w, total = testing.random(windowed.data_spec, seed=3), np.zeros(grid.shape)
    for shot, part in enumerate(windowed.shot_gradients(model, lambda shot, _: w[shot])):
        np.testing.assert_array_equal(part.data, at.data[shot])
        assert np.any(part.values["velocity"]) and part.values["velocity"].shape == total[part.window].shape
        total[part.window] += part.values["velocity"]
    assert testing.relative_difference(at.vjp(w)["velocity"], total) <= 1e-12


# ------------------------------------------------------------------------------------- products with the derivative


def test_scipy_operator_is_the_derivative() -> None:
    at = linearized(CASE)
    matrix, v, w = at.to_scipy(), waves.direction_of(waves.small(CASE)), testing.random(at.data_spec, seed=6)
    ravelled = [np.concatenate([np.ravel(part[name]) for name in sorted(part)]) for part in (v, at.vjp(w))]  # as TensorFlow flattens a dict
    assert matrix.shape == (at.data.numpy().size, ravelled[0].size)
    np.testing.assert_array_equal(matrix @ ravelled[0], np.ravel(at.jvp(v)))
    np.testing.assert_array_equal(matrix.rmatvec(np.ravel(w)), ravelled[1])


def test_gauss_newton_product_is_symmetric_and_not_negative() -> None:
    wave, at = waves.small(CASE), linearized(CASE)
    first, second = (waves.direction_of(wave, seed) for seed in (1, 2))
    images = [at.jvp(v) for v in (first, second)]
    products = [at.gauss_newton_product(v) for v in (first, second)]
    sizes = [testing.norm(image) for image in images]
    assert testing.inner(first, products[0]) == pytest.approx(sizes[0] ** 2, rel=1e-12)
    expected = testing.inner(*images)
    assert abs(expected) > 1e-3 * sizes[0] * sizes[1]  # the two say something about one another
    for found in (testing.inner(first, products[1]), testing.inner(second, products[0])):
        assert abs(found - expected) <= 1e-12 * sizes[0] * sizes[1]
    weights = testing.random(at.data_spec, seed=4) ** 2
    weighted = testing.inner(first, at.gauss_newton_product(first, weights))
    assert weighted == pytest.approx(float(np.sum(weights * images[0] ** 2)), rel=1e-12)


def test_checkpoints_give_the_gradient_that_storing_gives() -> None:
    stored, checkpointed = linearized(CASE), linearized(CASE._replace(strategy=Checkpointed(2)))
    w = testing.random(stored.data_spec, seed=5)
    assert testing.relative_difference(checkpointed.data, stored.data) <= 1e-13
    found, expected = checkpointed.vjp(w), stored.vjp(w)
    for name, leaf in expected.items():
        assert testing.relative_difference(found[name], leaf) <= 1e-13


@pytest.mark.parametrize("steps", [60, 59])
def test_illumination_is_a_sum_over_the_fields_in_every_cell(steps: int) -> None:
    """Of the squared second differences in time over v^2: of fields that receivers in all cells record, one step longer."""
    shape, dt = (9, 10), 1e-3
    centers = np.stack(np.meshgrid(*(10.0 * (np.arange(n) + 0.5) for n in shape), indexing="ij"), axis=-1).reshape(-1, 2)
    boundary, limits = Absorbing(((3, 0), (0, 0)), free_surface=True, frequency=40.0), (1400.0, 2300.0)

    def wave(samples: int, receivers: np.ndarray) -> AcousticWave:
        signal = wavelets.ricker(40.0, 70, dt, delay=0.03)[:samples]
        survey = Acquisition([[45.0, 52.0], [56.0, 48.0]], receivers)
        return AcousticWave(grid, survey, signal, dt=dt, velocity_limits=limits, order=2, boundary=boundary, dtype=tf.float64)

    grid = Grid.uniform(shape, (10.0, 10.0))
    velocity = np.random.default_rng(0).uniform(1500.0, 2200.0, shape)
    fields = wave(61, centers).forward({"velocity": tf.constant(velocity)}).numpy()[..., : steps + 1].reshape(2, *shape, steps + 1)
    before = np.concatenate([np.zeros((2, *shape, 1)), fields], axis=-1)  # at rest
    expected = dt * np.sum((np.diff(before, 2) / dt**2 / velocity[..., np.newaxis] ** 2) ** 2, axis=(0, 3))
    found = wave(steps, centers[:1]).illumination({"velocity": tf.constant(velocity)})
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * expected.max())


# ------------------------------------------------------------------------------------------------------------ refused


def test_residuals_too_rough_for_the_snapshots_are_refused() -> None:
    at = linearized(CASE._replace(strategy=Every(4)))
    with pytest.raises(
        ValueError, match=r"Every\(steps=4\) of 0\.001 s for frequencies up to .* Hz \(source\) and 500 Hz \(cotangent\): must be Every\(\d\)"
    ):
        at.vjp(testing.random(at.data_spec, seed=2))


def test_the_residual_of_each_shot_is_judged() -> None:
    wave = waves.small(CASE._replace(strategy=Every(4)))
    model = waves.model_of(wave) | {"initial": tf.zeros(wave.model_spec["initial"].shape, tf.float64)}

    def cotangent(shot: int, data: tf.Tensor) -> tf.Tensor:
        return tf.zeros_like(data) if shot == 0 else testing.random(tf.TensorSpec(data.shape, data.dtype), seed=2)

    with pytest.raises(ValueError, match=r"Every\(steps=4\) .* \(cotangent of shot 1\): must be"):
        list(wave.shot_gradients(model, cotangent))
    tolerant = dataclasses.replace(wave, differentiation=Every(4, level=0.99))
    assert len(list(tolerant.shot_gradients(model, cotangent))) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda data: data[0], r"'cotangent of shot 0' of shape \(96,\): must be of shape \(3, 96\)"),
        (lambda data: data[:, :-1], r"'cotangent of shot 0' of shape \(3, 95\)"),
        (lambda data: tf.cast(data, tf.float32), "'cotangent of shot 0' of dtype float32: must be of dtype float64"),
    ],
)
def test_cotangents_of_a_shot_that_do_not_fit_its_data_are_refused(given, message) -> None:
    wave = waves.small(CASE)
    with pytest.raises(ValueError, match=message):
        list(wave.shot_gradients(waves.model_of(wave), lambda shot, data: given(data)))


def test_gradients_of_shots_are_made_as_they_are_taken() -> None:
    """Data and windows of all shots at once would be most of the memory of a large survey."""
    grid, count = Grid.uniform((12, 14), (10.0, 10.0)), 9
    sources = np.stack([np.full(count, 55.0), np.linspace(30.0, 100.0, count)], axis=1)
    wave = AcousticWave(grid, Acquisition(sources, sources), wavelets.ricker(20.0, 60, 1e-3), dt=1e-3, velocity_limits=(1400.0, 2400.0))
    begun = []

    def cotangent(shot: int, data: tf.Tensor) -> tf.Tensor:
        begun.append(shot)
        return data

    model = {"velocity": tf.fill(grid.shape, 2000.0)}
    gradients = wave.shot_gradients(model, cotangent)
    first = next(gradients)
    assert len(begun) <= cores() + 1 < count or cores() >= count - 1
    data = wave.linearize(model).data
    for shot, part in enumerate([first, *gradients]):
        np.testing.assert_array_equal(part.data, data[shot])
    assert sorted(begun) == list(range(count))


@pytest.mark.parametrize("compiled", [False, True])
def test_residuals_too_rough_for_the_snapshots_do_not_pass_in_graphs(compiled: bool) -> None:
    """There nothing can be read before it runs: an assertion where TensorFlow has them, NaN where XLA leaves them out."""
    wave = waves.small(CASE._replace(strategy=Every(4)))
    model = waves.model_of(wave, rest=True)

    @tf.function(jit_compile=compiled)
    def gradient(cotangent: tf.Tensor) -> tf.Tensor:
        return wave.linearize(model).vjp(cotangent)["velocity"]

    rough = testing.random(wave.data_spec, seed=2)
    smooth = rough[..., :1] * wavelets.ricker(30.0, waves.STEPS, waves.STEP, delay=0.035)
    np.testing.assert_allclose(gradient(smooth), wave.linearize(model).vjp(smooth)["velocity"], rtol=1e-9)
    if compiled:
        assert np.all(np.isnan(gradient(rough)))
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"Every\(steps=4\).*too few snapshots for the frequencies of the cotangent"):
            gradient(rough)


def test_snapshots_are_judged_by_the_wavelet_and_the_start_of_the_model() -> None:
    wave = dataclasses.replace(waves.small(CASE._replace(strategy=Every(4))), wavelet=np.zeros(waves.STEPS))
    model = waves.model_of(wave)
    rough = {**model, "wavelet": testing.random(model["wavelet"], seed=3)}
    with pytest.raises(ValueError, match=r"Every\(steps=4\) of 0\.001 s for frequencies up to .* Hz \(source\).*or finer"):
        wave.linearize(rough)
    with pytest.raises(ValueError, match=r"Every.*StoreAll.*with an initial field other than zero"):
        wave.linearize({**model, "initial": model["initial"] + 1.0})


def test_a_field_that_is_not_finite_is_refused_with_its_shot_and_step() -> None:
    wave = waves.small(CASE)
    model = waves.model_of(wave)
    signals = model["wavelet"].numpy()
    signals[1, 0, 5] = np.inf
    with pytest.raises(ValueError, match=r"not finite in shot 1 by step \d+") as raised:
        wave.linearize({**model, "wavelet": tf.constant(signals)})
    assert 5 <= int(str(raised.value).split("by step ")[1].split()[0].rstrip(":,.")) <= 8
    assert "\n" not in str(raised.value)
    part = {"velocity": model["velocity"], "wavelet": tf.constant(signals[1:]), "initial": model["initial"][1:]}
    with pytest.raises(ValueError, match=r"not finite in shot 1 by"):
        wave.subset([1]).linearize(part)


FLOAT = Case(2, "free surface", 2, tf.float32, ("velocity",), 1, StoreAll())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"'cotangent' nan at \(1, 2, 7\): must be finite everywhere\. 1 of 576 values .* \(shot, receiver, sample\)"),
        (np.inf, r"'cotangent' inf at \(1, 2, 7\)"),
        (3e38, r"'gradient' not finite in shot 1: must be finite\. The cotangent may be too large for the dtype: scale it"),
    ],
)
def test_cotangents_that_are_not_finite_or_too_large_are_refused(value: float, message: str) -> None:
    wave = waves.small(FLOAT)
    at = wave.linearize(waves.model_of(wave))
    cotangent = at.data.numpy()
    cotangent[1, 2, 7] = value
    if np.isfinite(value):
        cotangent[1] = value * np.sign(at.data[1])
    with pytest.raises(ValueError, match=f"^Invalid {message}"):
        at.vjp(tf.constant(cotangent))
    alone = message.replace("cotangent'", "cotangent of shot 1'").replace(r"\(1, 2, 7", r"\(2, 7").replace("576", "288").replace("(shot, ", "(")
    with pytest.raises(ValueError, match=f"^Invalid {alone}"):
        list(wave.shot_gradients(waves.model_of(wave), lambda shot, data: tf.constant(cotangent[shot])))


def test_no_cotangent_is_an_error_of_one_line() -> None:
    wave = waves.small(FLOAT)
    with pytest.raises(ValueError, match=r"^Invalid 'cotangent' None: must be of shape \(2, 3, 96\)\.$"):
        wave.linearize(waves.model_of(wave)).vjp(None)
    with pytest.raises(ValueError, match=r"^Invalid 'cotangent of shot 0' None: must be of shape"):
        list(wave.shot_gradients(waves.model_of(wave), lambda shot, data: None))


def test_no_more_parts_run_side_by_side_than_is_said() -> None:
    before = cores()
    with at_most(3), at_most(1):
        assert cores() == 1
        with at_most(None):
            assert cores() == 1
    with pytest.raises(KeyError), at_most(1):
        raise KeyError
    assert cores() == before
