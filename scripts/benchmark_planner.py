"""The planner's case of benchmark.py: on problems of many shapes every way to a derivative, predicted beside measured."""

import functools
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse
import tensorflow as tf
from benchmark_sensitivity import COURANT, banded, few_unknowns

from geoinv.datasets import synthetic
from geoinv.operators import AcousticWave, Acquisition, GravityPoisson, Grid
from geoinv.operators.forward import Nest
from geoinv.operators.seismic import wavelets
from geoinv.operators.sensitivity import FixedPoint, Loop, linearization, plan
from geoinv.operators.sensitivity.planner import DerivativePlan
from geoinv.operators.sensitivity.timing import peak
from geoinv.operators.sensitivity.ways import Way

Figures = Iterator[tuple[str, str, float, str]]
#: Ways that are expected to take longer, s, are not run: they cannot be the best.
PATIENCE = 20.0
#: The shortest of so many.
ROUNDS = 3


def planner(scale: float, repeats: int) -> Figures:
    """Predictions stand as a system of their own, so that the table has them beside what was measured."""
    for shape, (make, arguments) in shapes(scale).items():
        made = make()
        runs = {way.name: functools.partial(finished, way, made, arguments) for way in made.ways if worth(way, made)}
        for run in runs.values():
            run()  # compiles
        seconds = dict.fromkeys(runs, float("inf"))
        for _ in range(min(repeats, ROUNDS)):
            seconds = {name: min(seconds[name], clocked(run)) for name, run in runs.items()}
        grown = {name: memory(run) for name, run in runs.items()}
        for way in made.ways:
            yield "predicted", f"{shape}: {way.name}", way.seconds, "s"
            yield "predicted", f"{shape}: {way.name}, memory", way.memory / 1e9, "GB"
            if way.name in seconds:
                yield "geoinv", f"{shape}: {way.name}", seconds[way.name], "s"
            if way.name in grown:
                yield "geoinv", f"{shape}: {way.name}, memory", grown[way.name], "GB"
        yield "geoinv", f"{shape}: chosen '{made.chosen.name}'", seconds[made.chosen.name] / min(seconds.values()), "times the best"


def worth(way: Way, made: DerivativePlan) -> bool:
    """Whether a way is run."""
    return way.seconds <= PATIENCE and way.memory <= made.memory


def memory(call: Callable[[], object]) -> float:
    """What a call takes at a time above what is there before it, GB: tensors, and what NumPy has besides."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tensors = peak(call)
    arrays = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return (tensors + arrays) / 1e9


def finished(way: Way, made: DerivativePlan, arguments: tuple[Nest, ...]) -> None:
    """All that a way was planned for: as many products as the plan counts, none of which the next call finds done."""
    run = way.make()
    for _ in range(made.products):
        tf.nest.map_structure(np.asarray, run(*arguments))


def clocked(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def shapes(scale: float) -> dict[str, tuple[Callable[[], DerivativePlan], tuple[Nest, ...]]]:
    """Problems by name: how each is planned, and what its ways are run with."""
    random = np.random.default_rng(0)
    many, some, side, steps = max(500, round(1e5 * scale)), max(40, round(400 * scale)), max(24, round(400 * scale)), max(60, round(500 * scale))
    places = tf.constant(np.linspace(0, 1, many), tf.float32)
    unknowns = tf.constant(random.uniform(1, 9, 10), tf.float32)
    field = tf.constant(random.normal(size=many), tf.float32)
    kernel = tf.constant(random.normal(size=(10, many)), tf.float32)
    dense = tf.constant(random.normal(size=(some, some)), tf.float32)
    pattern = scipy.sparse.diags_array(np.ones(5), offsets=range(-2, 3), shape=(many, many))
    x = tf.constant(random.normal(size=some), tf.float32)

    def full(m: tf.Tensor) -> tf.Tensor:
        return tf.sin(tf.linalg.matvec(dense, tf.tanh(m)))

    stiffness = tf.Variable(tf.fill([side, side], COURANT))
    start = tf.random.stateless_normal([side, side], (0, 0))

    def step(state: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        old, now = state
        wide = tf.pad(now, [[1, 1], [1, 1]])
        around = wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2]
        return now, 2 * now - old + stiffness * (around - 4 * now)

    loop = Loop(step, (start, start), steps, jit_compile=True)
    pull = tf.Variable(tf.fill([side, side], 0.9))

    def relaxed(u: tf.Tensor) -> tf.Tensor:
        wide = tf.pad(u, [[1, 1], [1, 1]])
        return pull * tf.tanh((wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2]) / 4 + start)

    point = FixedPoint(relaxed, tf.zeros([side, side]), tolerance=1e-5, jit_compile=True)
    whole = 8.0 * side**2 * steps
    wave, velocity = waves(max(40, round(300 * scale)), max(60, round(600 * scale)))
    data = tf.nest.map_structure(lambda spec: tf.ones(spec.shape, spec.dtype), wave.data_spec)
    example = synthetic.gravity(seed=0)
    gravity = GravityPoisson(example.grid, example.survey, active=example.active)
    density = tf.constant(np.asarray(example.density), tf.float64)
    few = functools.partial(linearization, lambda m: few_unknowns(m, places), unknowns, jit_compile=True)
    wide = functools.partial(linearization, lambda m: tf.tanh(tf.linalg.matvec(kernel, tf.sin(m))), field, jit_compile=True)
    square = functools.partial(linearization, full, x, jit_compile=True)
    return {
        "few unknowns": (lambda: plan(few(), "jacobian"), ()),
        "few data": (lambda: plan(wide(), "jacobian"), ()),
        "a band": (lambda: plan(linearization(banded, field, jit_compile=True), "jacobian", pattern=pattern), ()),
        "a square": (lambda: plan(square(), "jacobian"), ()),
        "one gradient": (lambda: plan(square(), "gradient"), (x,)),
        "one product": (lambda: plan(gravity, "gauss_newton_product", model=density), (density,)),
        "many products": (lambda: plan(square(), "gauss_newton_product", products=2000), (x,)),
        "many Hessian products": (lambda: plan(square(), "hessian_product", products=2000), (x, x)),
        "a rough diagonal": (lambda: plan(square(), "diagonal", accuracy=0.15), ()),
        "a loop": (lambda: plan(loop, "gradient", memory=4 * whole), ((start, start),)),
        "a loop, little memory": (lambda: plan(loop, "gradient", memory=whole / 12), ((start, start),)),
        "a fixed point": (lambda: plan(point, "gradient"), (start,)),
        "waves, little memory": (lambda: plan(wave, "gradient", model=velocity, memory=little(wave)), (data,)),
    }


def waves(side: int, samples: int) -> tuple[AcousticWave, dict[str, tf.Tensor]]:
    """Two shots on a square."""
    grid = Grid.uniform((side, side), (10.0, 10.0))
    sources = np.array([[side * 5.0, side * 3.0], [side * 5.0, side * 7.0]])
    signal = wavelets.ricker(8.0, samples, 1e-3)
    wave = AcousticWave(grid, Acquisition(sources, sources), signal, dt=1e-3, velocity_limits=(1500.0, 2500.0))
    return wave, {"velocity": tf.fill(grid.shape, 2000.0)}


def little(wave: AcousticWave) -> float:
    """A sixth of what everything would take, bytes."""
    estimate = wave.memory_estimate()
    return (estimate.kept + estimate.running) / 6
