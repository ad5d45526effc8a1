"""The work of benchmark.py: each case yields (system, metric, value, unit), for this project and for what shares its process.

A case is called as ``case(scale, repeats)``: a scale below 1 shrinks it, `repeats` is the least number of timings of a call.
"""

import contextlib
import functools
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import tensorflow as tf

from geoinv.inversion import Problem, run
from geoinv.maps import ActiveCells
from geoinv.operators import CSRMatrix, GravityPoisson, Grid
from geoinv.operators.gravity.components import prism_field
from geoinv.regularization import small_and_smooth
from geoinv.weighting import probed_diagonal, sensitivity_weights

Figures = Iterator[tuple[str, str, float, str]]
Product = Callable[[tf.Tensor], tf.Tensor]
#: Calls are timed for at least this long, in seconds: short ones need many repeats.
LEAST = 0.3
#: Calls in a row before it is another system's turn: an iteration that calls a product finds the caches as it left them.
ROW = 4


def compare(metric: str, calls: Mapping[str, Callable[[], Any]], repeats: int) -> Figures:
    """The best time of each system's call; the calls take turns after a first one that compiles, whose results must agree."""
    # np.asarray waits for a tensor and views it in place; Tensor.numpy() would copy it, which SciPy is not asked to do either.
    first = [np.asarray(call()).reshape(-1) for call in calls.values()]
    for result in first[1:]:
        np.testing.assert_allclose(result, first[0], rtol=1e-3, atol=1e-4 * np.abs(first[0]).max())
    times = timed({system: lambda call=call: np.asarray(call()) for system, call in calls.items()}, repeats)
    yield from ((system, metric, value, "s") for system, value in times.items())


def timed(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The shortest time of each call, in seconds, called in turns, each a few times in a row."""
    shortest = dict.fromkeys(calls, float("inf"))
    began, count = time.perf_counter(), 0
    while ROW * count < repeats or time.perf_counter() - began < LEAST * len(calls):
        for name, call in calls.items():
            for _ in range(ROW):
                start = time.perf_counter()
                call()
                shortest[name] = min(shortest[name], time.perf_counter() - start)
        count += 1
    return shortest


def peak_memory() -> float:
    """Largest resident memory of this process, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def memory_growth(work: Callable[[], Any]) -> float:
    """How far the resident memory rises during `work` above what it is before, GB."""
    with contextlib.suppress(OSError):  # without it, memory that was freed before hides as much of the growth
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak counts from here, not from what made the matrix
    before = peak_memory()
    work()
    return peak_memory() - before


# -------------------------------------------------------------------------------------------------------------- sparse


def laplacian(side: int) -> scipy.sparse.csr_array:
    """The 4th-order Laplacian of a square grid, zero outside; 9 entries a row, float32."""
    weights = np.array([-1 / 12, 4 / 3, -5 / 2, 4 / 3, -1 / 12], np.float32)
    line = scipy.sparse.diags_array(list(weights), offsets=[-2, -1, 0, 1, 2], shape=(side, side))
    same = scipy.sparse.eye_array(side)
    matrix = (scipy.sparse.kron(line, same) + scipy.sparse.kron(same, line)).tocsr().astype(np.float32)
    matrix.sort_indices()
    return matrix


def sparse_1m(scale: float, repeats: int) -> Figures:
    """The gradient comes before the products of many columns: memory that they leave to be used again would hide what it needs."""
    twin = laplacian(max(8, round(1000 * scale)))
    matrix, rng = CSRMatrix.from_scipy(twin), np.random.default_rng(0)
    yield from gradient(matrix, tf.constant(rng.random(twin.shape[1], np.float32)), repeats)
    for columns in (1, 8, 32):
        x = rng.random((twin.shape[1], columns), np.float32).squeeze()
        yield from products(f"-{columns}", matrix, twin, x, x, repeats)


def gradient(matrix: CSRMatrix, x: tf.Tensor, repeats: int) -> Figures:
    """Of |A x|^2 with respect to the values of A and x; what the matrix keeps for its products is there before."""
    values = tf.Variable(matrix.values)
    np.asarray(matrix.T @ (matrix @ x))

    @tf.function
    def derivatives() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum((matrix.with_values(values) @ x) ** 2)
        return tape.gradient(loss, [values, x])

    yield "geoinv", "gradient-memory", memory_growth(lambda: np.asarray(derivatives()[0])), "GB"
    yield "geoinv", "gradient", timed({"geoinv": lambda: np.asarray(derivatives()[0])}, repeats)["geoinv"], "s"


def products(label: str, matrix: CSRMatrix, twin: scipy.sparse.csr_array, x: np.ndarray, y: np.ndarray, repeats: int) -> Figures:
    """``A x`` and ``A^T y`` beside SciPy's."""
    ours, theirs = tf.constant(x), tf.constant(y)
    yield from compare(f"product{label}", {"geoinv": lambda: matrix @ ours, "scipy": lambda: twin @ x}, repeats)
    yield from compare(f"transpose{label}", {"geoinv": lambda: matrix.T @ theirs, "scipy": lambda: twin.T @ y}, repeats)


def ray_paths() -> scipy.sparse.csr_array:
    """[path, cell] share of each path in each cell, float32: rows of 1 to 91 entries, columns of 0 to 2100."""
    with np.load(Path(os.environ["GEOINV_DATA"]) / "australia-rayleigh-5s" / "sw_tomography.npz") as file:
        parts = [file[f"jac_{name}"] for name in ("data", "indices", "indptr")]
        return scipy.sparse.csr_array((parts[0].astype(np.float32), *parts[1:]), shape=(parts[2].size - 1, int(file["jac_shape"].min())))


def sparse_rays(scale: float, repeats: int) -> Figures:
    """At its own size, where the cost of a call dominates, and 60 times over with the rows in random order, where memory does."""
    small, rng = ray_paths(), np.random.default_rng(0)
    copies = scipy.sparse.vstack([small] * max(1, round(60 * scale)), format="csr")
    large = copies[rng.permutation(copies.shape[0])]
    x, y = (rng.random(size, np.float32) for size in large.shape[::-1])
    matrix, transposed, cotangent = CSRMatrix.from_scipy(large), large.T.tocsr(), tf.constant(y)
    yield from products("-stacked", matrix, large, x, y, repeats)
    calls = {"geoinv": lambda: matrix.T @ cotangent, "scipy-transposed-csr": lambda: transposed @ y}
    yield from (each for each in compare("transpose-stacked", calls, repeats) if each[0] != "scipy")
    yield from small_products(small, x, y[: small.shape[0]], repeats)


def small_products(twin: scipy.sparse.csr_array, x: np.ndarray, y: np.ndarray, repeats: int) -> Figures:
    """Beside SciPy and `tf.sparse`, called directly and from a tf.function."""
    matrix, entries = CSRMatrix.from_scipy(twin), twin.tocoo()
    stock = tf.SparseTensor(np.stack([entries.row, entries.col], axis=1).astype(np.int64), entries.data, twin.shape)

    def stock_product(vector: tf.Tensor, adjoint: bool = False) -> tf.Tensor:
        return tf.sparse.sparse_dense_matmul(stock, vector[:, tf.newaxis], adjoint_a=adjoint)

    yield from called_both_ways("product", lambda v: matrix @ v, lambda: twin @ x, stock_product, tf.constant(x), repeats)
    stock_transpose = functools.partial(stock_product, adjoint=True)
    yield from called_both_ways("transpose", lambda v: matrix.T @ v, lambda: twin.T @ y, stock_transpose, tf.constant(y), repeats)


def called_both_ways(metric: str, ours: Product, scipys: Callable[[], Any], stock: Product, vector: tf.Tensor, repeats: int) -> Figures:
    """A product called directly, and from a tf.function."""
    yield from compare(metric, {"geoinv": lambda: ours(vector), "scipy": scipys, "tensorflow": lambda: stock(vector)}, repeats)
    our_function, stock_function = tf.function(ours), tf.function(stock)
    calls = {"geoinv": lambda: our_function(vector), "tensorflow": lambda: stock_function(vector)}
    yield from compare(f"{metric}-in-function", calls, repeats)


# ------------------------------------------------------------------------------------------------------------- gravity


def gravity(cells: int, layers: int, stations: int, scale: float, repeats: int) -> Figures:
    """A buried block of 500 kg/m3 under flat ground, inverted to its noise of 2 % of the peak.

    Its data are those of analytic prisms, so that the operator's own error counts against the fit.
    """
    extent, depth = 100.0 * cells, 50.0 * layers
    cells, layers, stations = (max(4, round(scale * number)) for number in (cells, layers, stations))
    grid = Grid.uniform((layers, cells, cells), (depth / layers, extent / cells, extent / cells), origin=(-depth, 0.0, 0.0))
    density = 500.0 * block(grid)
    points = station_points(grid, stations)
    start = time.perf_counter()
    physics = GravityPoisson(grid, dict(zip(grid.dims, points.T, strict=True)))
    np.asarray(physics(tf.constant(density)))
    yield "geoinv", "kernel", time.perf_counter() - start, "s"
    derivative = physics.linearize(tf.constant(density))
    derivative.jvp(tf.constant(density))
    yield "geoinv", "jvp", timed({"geoinv": lambda: np.asarray(derivative.jvp(tf.constant(density)))}, repeats)["geoinv"], "s"
    exact = prism_field("gz", points, grid, density)
    yield from inversion(physics, grid, exact)
    yield "geoinv", "peak-memory", peak_memory(), "GB"


def block(grid: Grid) -> np.ndarray:
    """1 within 500 m of the middle and from 300 to 800 m below the ground, shaped as the grid."""
    upward, northing, easting = grid.centers
    middle = grid.edges[1].mean()
    layers, across, along = (upward <= -300) & (upward >= -800), abs(northing - middle) <= 500, abs(easting - middle) <= 500
    return layers[:, None, None] * across[:, None] * along * 1.0


def station_points(grid: Grid, count: int) -> np.ndarray:
    """[station, axis]: a square array 10 m above the ground, 50 m inside the grid's edges."""
    line = np.linspace(50.0, grid.edges[1][-1] - 50.0, count)
    northing, easting = (axis.ravel() for axis in np.meshgrid(line, line, indexing="ij"))
    return np.stack([np.full(northing.size, 10.0), northing, easting], axis=1)


def inversion(physics: GravityPoisson, grid: Grid, exact: np.ndarray) -> Figures:
    """From zero to chi2 1, the weights that the sensitivities give included."""
    noise = 0.02 * np.abs(exact).max()
    observed = (exact + np.random.default_rng(0).normal(0.0, noise, exact.size))[:, np.newaxis]
    start = time.perf_counter()
    active = np.ones(grid.shape, dtype=bool)
    operator = physics @ ActiveCells(active)
    at = operator.linearize(tf.zeros(grid.size, tf.float64))
    diagonal = probed_diagonal(lambda cotangent: at.vjp(cotangent / noise), observed.shape)
    model_term = small_and_smooth(grid, active, weights=sensitivity_weights(diagonal, grid.volumes.ravel()))
    uncertainty = np.full_like(observed, noise)
    outcome = run(Problem(operator, observed, uncertainty, model_term, lower=-1000.0, upper=1000.0, preconditioner=diagonal))
    yield "geoinv", "inversion", time.perf_counter() - start, "s"
    yield "geoinv", "chi2", outcome.last.chi2, "1"


gravity_32k = functools.partial(gravity, 40, 20, 40)
gravity_131k = functools.partial(gravity, 64, 32, 50)
