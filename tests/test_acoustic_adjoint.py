"""The derivatives of the wave operator are those of its discrete scheme, in every part of the model and with every way to keep its past."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from geoinv.operators import AcousticWave, Acquisition, Grid, testing
from geoinv.operators.forward import Nest
from geoinv.operators.seismic import Absorbing, wavelets
from geoinv.operators.sensitivity import Boundary, Checkpointed, StoreAll, Strategy

EVERYTHING = ("velocity", "density", "wavelet", "initial")
pytestmark = pytest.mark.filterwarnings("ignore:too few points per wavelength")


@functools.cache
def wave(kind: str, strategy: Strategy) -> AcousticWave:
    """Three shots of two sources and up to five receivers, off the cell centres."""
    shape, order, boundary, parameters = {
        "layers": ((14, 18), 4, Absorbing(4), ("velocity",)),
        "free surface": ((20, 20), 8, Absorbing(((3, 0), (0, 5)), free_surface=True), EVERYTHING),
        "three axes": ((13, 13, 13), 2, Absorbing(((3, 0), (3, 3), (3, 0)), free_surface=True), ("velocity", "density")),
    }[kind]
    rng, grid, samples = np.random.default_rng(0), Grid.uniform(shape, (10.0,) * len(shape)), 45
    sources, receivers = (np.stack([rng.uniform(40, 10 * n - 45, (3, count)) for n in shape], axis=-1) for count in (2, 5))
    live = np.arange(5) < np.array([[5], [3], [4]])
    wavelet = np.stack([wavelets.ricker(25.0, samples, 1e-3, delay=0.01 + 0.001 * k) for k in range(6)]).reshape(3, 2, samples)
    options = {"dt": 1e-3, "velocity_limits": (1400.0, 2400.0), "order": order, "boundary": boundary, "parameters": parameters}
    return AcousticWave(grid, Acquisition(sources, receivers, live), wavelet, **options, differentiation=strategy, dtype=tf.float64)


def model_of(operator: AcousticWave) -> Nest:
    rng = np.random.default_rng(1)
    physical = {name: rng.uniform(1500, 2200, spec.shape) for name, spec in operator.model_spec.items() if name in ("velocity", "density")}
    return {name: tf.constant(physical.get(name, rng.normal(size=spec.shape))) for name, spec in operator.model_spec.items()}


def inner(first: Nest, second: Nest) -> float:
    return sum(float(tf.reduce_sum(a * b)) for a, b in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True))


@pytest.mark.parametrize("kind", ["layers", "free surface", pytest.param("three axes", marks=pytest.mark.slow)])
def test_products_are_adjoint_and_the_derivative(kind: str) -> None:
    operator = wave(kind, StoreAll())
    model = model_of(operator)
    at, v, w = operator.linearize(model), testing.random(operator.model_spec, seed=2), testing.random(operator.data_spec, seed=3)
    change = at.jvp(v)
    assert abs(inner(change, w) - inner(v, at.vjp(w))) <= 1e-12 * np.sqrt(inner(change, change) * inner(w, w))
    for name in model:
        direction = {each: (part if each == name else tf.zeros_like(part)) for each, part in v.items()}
        step = 1e-3 if name in ("velocity", "density") else 1.0
        up, down = ({each: model[each] + sign * step * direction[each] for each in model} for sign in (1, -1))
        difference = (operator.forward(up) - operator.forward(down)) / (2 * step)
        assert testing.relative_difference(at.jvp(direction), difference) <= 1e-7, name


@pytest.mark.parametrize("strategy", [Checkpointed(2), Boundary()], ids=["checkpoints", "backwards"])
def test_other_strategies_give_the_same_gradient(strategy: Strategy) -> None:
    every = wave("free surface", StoreAll())
    model, w = model_of(every), testing.random(every.data_spec, seed=3)
    other = dataclasses.replace(every, differentiation=strategy)
    expected, found = every.linearize(model), other.linearize(model)
    np.testing.assert_allclose(found.data, expected.data, rtol=0, atol=1e-12 * np.abs(expected.data).max())
    for name, gradient in expected.vjp(w).items():
        assert testing.relative_difference(found.vjp(w)[name], gradient) <= 1e-9, name


def test_a_tape_and_subsets_see_the_same_gradient() -> None:
    operator = wave("layers", StoreAll())
    model, w = model_of(operator), testing.random(operator.data_spec, seed=3)
    expected = operator.linearize(model).vjp(w)["velocity"]
    velocity = tf.Variable(model["velocity"])
    with tf.GradientTape() as tape:
        data = operator({"velocity": velocity})
    assert testing.relative_difference(tape.gradient(data, velocity, output_gradients=w), expected) <= 1e-14
    parts = [operator.subset([shot]).linearize(model) for shot in range(3)]
    np.testing.assert_array_equal(tf.concat([part.data for part in parts], axis=0), data)
    total = tf.add_n([part.vjp(w[shot : shot + 1])["velocity"] for shot, part in enumerate(parts)])
    assert testing.relative_difference(total, expected) <= 1e-14


def test_windows_change_nothing_before_an_echo_returns() -> None:
    grid, easting = Grid.uniform((24, 80), (10.0, 10.0)), np.array([200.0, 350.0, 500.0, 640.0])
    sources = np.stack([np.full(4, 150.0), easting], axis=-1)
    receivers = np.stack([np.full((4, 6), 180.0), easting[:, np.newaxis] + np.arange(-60.0, 60.0, 20.0) + 3], axis=-1)
    options = {"dt": 1e-3, "velocity_limits": (1400.0, 2400.0), "boundary": Absorbing(8), "dtype": tf.float64}
    whole = AcousticWave(grid, Acquisition(sources, receivers), wavelets.ricker(15.0, 90, 1e-3, delay=0.05), **options)
    windowed = dataclasses.replace(whole, aperture=100.0, placement=None)
    assert windowed.lattice.shape[1] < whole.lattice.shape[1] // 2 + 8
    model = {"velocity": tf.constant(np.linspace(2000.0, 1500.0, 24)[:, np.newaxis] * np.ones(80))}
    at = windowed.linearize(model)
    assert testing.relative_difference(at.data, whole.linearize(model).data) <= 1e-9
    w, total = testing.random(windowed.data_spec, seed=3), np.zeros(grid.shape)
    for part in windowed.shot_gradients(model, lambda shot, _: w[shot]):
        total[part.window] += part.values["velocity"]
    assert testing.relative_difference(at.vjp(w)["velocity"], total) <= 1e-12
