"""The planner: what every way computes, which one is chosen, and what it says about the others."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from geoinv.operators import AcousticWave, Acquisition, CSRMatrix, Grid, SparseOperator, testing
from geoinv.operators.forward import Linearization, ravel, unravel
from geoinv.operators.seismic import wavelets
from geoinv.operators.sensitivity import (
    Boundary,
    Checkpointed,
    Coloring,
    FixedPoint,
    Implicit,
    Loop,
    StoreAll,
    gauss_newton_diagonal,
    linearization,
    plan,
)
from geoinv.operators.sensitivity.ways import Products, Way

RANDOM = np.random.default_rng(0)
DATA, MODEL = 23, 17
BAND = scipy.sparse.diags_array(np.ones(3), offsets=range(-1, 2), shape=(DATA, MODEL))


def banded(m: tf.Tensor) -> tf.Tensor:
    """Nonlinear, of a band of three diagonals."""
    wide = tf.pad(m, [[1, DATA - MODEL + 1]])
    return tf.sin(wide[1:-1]) * wide[2:] + wide[:-2] ** 3


@pytest.fixture(scope="module")
def at() -> Linearization:
    return linearization(banded, tf.constant(RANDOM.normal(size=MODEL)))


@pytest.fixture(scope="module")
def dense(at: Linearization) -> np.ndarray:
    return np.stack([ravel(at.jvp(unravel(unit, at.model_spec))) for unit in np.eye(MODEL)], axis=1)


def by_name(ways: Any) -> dict[str, Way]:
    return {way.name: way for way in ways}


def test_all_ways_agree(at: Linearization, dense: np.ndarray) -> None:
    products = Products(at, Coloring(BAND), count=3, accuracy=0.02)
    v, w, weights = RANDOM.normal(size=MODEL), RANDOM.normal(size=DATA), RANDOM.uniform(1, 2, DATA)
    ways = by_name(products.jacobian())
    assert set(ways) == {"forward", "reverse", "coloured (3)"}
    for way in ways.values():
        found = way.make()()
        np.testing.assert_allclose(found.toarray() if scipy.sparse.issparse(found) else found, dense, atol=1e-13)
    for task, arguments, expected in (
        ("gradient", (w,), dense.T @ w),
        ("gauss_newton_product", (v,), dense.T @ dense @ v),
        ("gauss_newton_product", (v, weights), dense.T @ (weights * (dense @ v))),
        ("hessian_product", (v, w), at.hessian_product(v, w)),
    ):
        ways = by_name(getattr(products, task)())
        assert len(ways) >= 2
        for way in ways.values():
            made = way.make()
            for _ in range(2):  # the matrix is made once
                np.testing.assert_allclose(made(*arguments), expected, atol=1e-12, err_msg=f"{task}: {way.name}")
    ways = by_name(products.diagonal())
    assert set(ways) == {"columns", "rows", "coloured (3)", "random (5000)"}
    for way in ways.values():
        tolerance = 0.08 if way.name.startswith("random") else 1e-12
        np.testing.assert_allclose(way.make()(weights), weights @ dense**2, rtol=tolerance)


@pytest.mark.parametrize(
    ("shape", "pattern", "expected"),
    [((2000, 3), None, "forward"), ((3, 2000), None, "reverse"), ((1500, 1500), scipy.sparse.eye_array(1500), "coloured (1)")],
)
def test_the_shape_decides_how_a_jacobian_is_made(shape: tuple[int, int], pattern: Any, expected: str) -> None:
    n, m = shape
    matrix = tf.constant(RANDOM.normal(size=shape) if pattern is None else np.zeros((1, 1)))
    at = linearization(tf.sin if pattern is not None else lambda x: tf.linalg.matvec(matrix, x), tf.ones(m, tf.float64))
    found = plan(at, "jacobian", pattern=pattern)
    assert found.chosen.name == expected
    times = {way.name: way.seconds for way in found.ways}
    assert found.chosen.seconds * 20 < max(times.values())
    assert found.run().shape == (n, m)


def test_many_products_are_worth_a_matrix_that_fits() -> None:
    matrix = tf.constant(RANDOM.normal(size=(40, 30)))
    function, model = lambda x: tf.linalg.matvec(matrix, tf.sin(x)), tf.ones(30, tf.float64)
    assert plan(function, "gauss_newton_product", model=model).chosen.name == "products"
    many = plan(function, "gauss_newton_product", model=model, products=1000)
    assert many.chosen.name.startswith("matrix, ")
    assert plan(function, "gauss_newton_product", model=model, products=1000, memory=5e3).chosen.name == "products"
    v = RANDOM.normal(size=30)
    np.testing.assert_allclose(many.run(v), linearization(function, model).gauss_newton_product(v), rtol=1e-12)


def test_a_diagonal_that_may_be_rough_is_probed() -> None:
    matrix = tf.constant(RANDOM.normal(size=(900, 900)))
    at = linearization(lambda x: tf.linalg.matvec(matrix, x), tf.ones(900, tf.float64))
    assert plan(at, "diagonal").chosen.name in ("columns", "rows")
    rough = plan(at, "diagonal", accuracy=0.25)
    assert rough.chosen.name == "random (32)"
    ratio = rough.run() / np.sum(matrix.numpy() ** 2, axis=0)
    assert 0.15 < np.std(ratio) < 0.35


def test_weights_of_complex_data_serve_both_of_their_parts() -> None:
    """Every way to a diagonal, and its estimate, against sum_k w_k |J_kj|^2."""
    rng = np.random.default_rng(0)
    matrix, weights = rng.normal(size=(7, 4)) + 1j * rng.normal(size=(7, 4)), rng.uniform(1, 2, 7)
    at = linearization(lambda m: tf.linalg.matvec(tf.constant(matrix), tf.complex(m, tf.zeros_like(m))), tf.zeros(4, tf.float64))
    given, expected = tf.constant(weights, tf.complex128), weights @ np.abs(matrix) ** 2
    for way in plan(at, "diagonal").ways:
        np.testing.assert_allclose(way.make()(given), expected, rtol=1e-12, err_msg=way.name)
    v = rng.normal(size=4)
    for way in plan(at, "gauss_newton_product", products=5).ways:
        np.testing.assert_allclose(way.make()(tf.constant(v), given), (matrix.conj().T @ (weights * (matrix @ v))).real, rtol=1e-12, err_msg=way.name)
    found = gauss_newton_diagonal(at, given, products=4000)
    assert np.all(np.abs(found.value - expected) < 5 * found.error) and np.all(found.error < 0.1 * expected)


def rotated(state: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    x, y = state["x"], state["y"]
    return {"x": 0.8 * x - 0.6 * y, "y": 0.6 * x + 0.8 * y, "count": state["count"] + 1}


def rotated_back(state: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    x, y = state["x"], state["y"]
    return {"x": 0.8 * x + 0.6 * y, "y": 0.8 * y - 0.6 * x, "count": state["count"] - 1}


def start(size: int) -> dict[str, tf.Tensor]:
    return {"x": tf.ones(size, tf.float64), "y": tf.zeros(size, tf.float64), "count": tf.constant(0)}


def test_loops_are_run_back_as_memory_allows() -> None:
    loop = Loop(rotated, start(1000), 60)
    assert plan(loop, "gradient").choice == StoreAll()
    tight = plan(loop, "gradient", memory=16e3 * 25)
    assert isinstance(tight.choice, Checkpointed) and tight.chosen.memory <= 16e3 * 25
    angle = 60 * np.arctan2(0.6, 0.8)
    for found in (plan(loop, "gradient"), tight):
        x, y = found.run(start(1000))[:2]  # of the floating leaves
        np.testing.assert_allclose(x, np.cos(angle), rtol=1e-10)
        np.testing.assert_allclose(y, -np.sin(angle), rtol=1e-10)
    backwards = plan(Loop(rotated, start(1000), 60, inverse=rotated_back), "gradient", memory=16e3 * 8)
    assert backwards.choice == Boundary()
    with pytest.raises(ValueError, match=r"'memory' 32 kB: must be at least .* kB, for 'Boundary\(\)'"):
        plan(Loop(rotated, start(1000), 60, inverse=rotated_back), "gradient", memory=32e3)


def test_checkpoints_cost_what_their_schedule_says() -> None:
    """A step back takes the same whatever is kept; ahead a loop runs as often as Revolve counts."""
    ways = {way.name: way for way in plan(Loop(rotated, start(1000), 60), "gradient").ways}
    names = sorted((name for name in ways if name.startswith("Checkpointed")), key=lambda name: ways[name].memory)
    assert len(names) >= 4
    times = [ways[name].seconds for name in names]
    assert times == sorted(times, reverse=True), "more states, fewer runs"
    assert ways[names[-1]].memory < ways["StoreAll()"].memory


def test_fixed_points_are_differentiated_at_the_point_or_along_the_way() -> None:
    """Of x = cos(a x): dx/da = -x sin(a x) / (1 + a sin(a x)), whichever way it is found."""
    a = tf.Variable(np.linspace(0.1, 0.9, 2000))
    point = FixedPoint(lambda x: tf.cos(a * x), tf.zeros(2000, tf.float64), tolerance=1e-13)
    found = plan(point, "gradient")
    assert [way.name for way in found.ways][:2] == ["Implicit()", "StoreAll()"] and "Checkpointed" in found.explain()
    assert found.explain().startswith("gradient of a fixed point that ")
    x, w = point.run().numpy(), np.random.default_rng(0).standard_normal(2000)
    expected = -w * x * np.sin(a * x) / (1 + a * np.sin(a * x))
    for way in found.ways[:3]:
        (gradient,) = way.make()(tf.constant(w))
        np.testing.assert_allclose(gradient, expected, rtol=1e-9)
    assert plan(point, "gradient", memory=11 * 16e3).choice == Implicit(), "nothing of the way is kept"
    with pytest.raises(ValueError, match="'model' given: must be left out: the fixed point has its state"):
        plan(point, "gradient", model=1.0)


def test_from_a_good_guess_a_fixed_point_is_differentiated_at_the_point_only() -> None:
    """One step from the point leads to it, and has 1 / (1 + a sin(a x)) less of a derivative than the point."""
    a = tf.Variable(np.linspace(0.1, 0.9, 50))
    x = FixedPoint(lambda x: tf.cos(a * x), tf.zeros(50, tf.float64), tolerance=1e-13).run()
    assert [way.name for way in plan(FixedPoint(lambda x: tf.cos(a * x), x), "gradient").ways] == ["Implicit()"]


def test_what_is_explained() -> None:
    ways = (Way("slow", 90.0, 10.0, lambda: None), Way("fast", 2e-3, 4e9, lambda: None), Way("middle", 1.5, 2e6, lambda: None))
    from geoinv.operators.sensitivity.planner import DerivativePlan

    assert DerivativePlan("jacobian", ways, 1e9).explain().splitlines() == [
        "jacobian, within 1 GB",
        "  way          time     memory",
        "  middle      1.5 s       2 MB  chosen",
        "  slow      1.5 min       10 B",
        "  fast         2 ms       4 GB  too large",
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda at: plan(at, "best"), "'task' 'best': must be one of 'gradient', 'jacobian'"),
        (lambda at: plan(at, "jacobian", model=np.ones(3)), "'model' given: must be left out"),
        (lambda at: plan(banded, "jacobian"), "'model' left out: must be given, with an operator or a function"),
        (lambda at: plan(7, "jacobian"), "'of' a int: must be a linearization, an operator or a function"),
        (lambda at: plan(at, "jacobian", products=0), "'products' 0"),
        (lambda at: plan(at, "diagonal", accuracy=-1.0), "'accuracy' -1.0: must be from 0"),
        (lambda at: plan(at, "jacobian", memory=100), r"'memory' 100 B: must be at least \d.* kB, for '(forward|reverse)'"),
        (lambda at: plan(at, "jacobian", pattern=np.eye(3)), "'pattern' a ndarray: must be a SciPy sparse matrix"),
        (lambda at: plan(Loop(rotated, start(3), 5), "jacobian"), "'of' a Loop"),
        (lambda at: plan(Loop(rotated, start(3), 0), "gradient"), "'n' 0: must be a whole number, 1 or more"),
        (lambda at: plan(at, "diagonal", accuracy="a"), "'accuracy' 'a': must be a number"),
        (lambda at: plan(at, "diagonal", products=2.5), "'products' 2.5: must be a whole number, 1 or more"),
    ],
)
def test_bad_input(at: Linearization, call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(at)


def test_the_strategy_of_waves_is_chosen_within_a_budget() -> None:
    grid, places = Grid.uniform((24, 30), (10.0, 10.0)), np.array([[60.0, 80.0], [60.0, 200.0]])
    wave = AcousticWave(grid, Acquisition(places, places), wavelets.ricker(12.0, 300, 1e-3), dt=1e-3, velocity_limits=(1500.0, 2500.0))
    model = {"velocity": tf.fill(grid.shape, 2000.0)}
    ample = plan(wave, "gradient", model=model)
    assert ample.choice == StoreAll()
    tight = plan(wave, "gradient", model=model, memory=ample.chosen.memory / 6)
    assert isinstance(tight.choice, Checkpointed)
    estimate = wave.differentiated(tight.choice).memory_estimate()
    assert estimate.kept + estimate.running <= ample.chosen.memory / 6
    w = testing.random(wave.data_spec, seed=1)
    gradients = [found.run(w)["velocity"] for found in (ample, tight)]
    assert testing.relative_difference(*gradients) <= 1e-5
    assert testing.relative_difference(gradients[0], wave.linearize(model).vjp(w)["velocity"]) == 0


def test_an_operator_that_is_a_matrix_tells_its_pattern() -> None:
    matrix = CSRMatrix.from_scipy(scipy.sparse.csr_array(BAND))
    found = plan(SparseOperator(matrix), "jacobian", model=tf.ones(MODEL, tf.float64))
    assert "coloured (3)" in by_name(found.ways)
    np.testing.assert_allclose(by_name(found.ways)["coloured (3)"].make()().toarray(), BAND.toarray())


@tf.custom_gradient
def reverse_only(x: tf.Tensor) -> Any:
    return x**2, lambda g: tf.raw_ops.PreventGradient(input=g, message="no forward mode") * tf.stop_gradient(2 * x)


@pytest.mark.parametrize(("task", "arguments"), [("gradient", (np.ones(5),)), ("jacobian", ()), ("diagonal", ())])
def test_functions_of_one_mode_have_the_ways_of_that(task: Any, arguments: tuple[Any, ...]) -> None:
    model = tf.range(1.0, 6.0, dtype=tf.float64)
    found = plan(reverse_only, task, model=model, accuracy=0.3)
    assert "left out: forward products, for they raise 'Gradient explicitly disabled" in found.explain()
    assert {way.choice for way in found.ways} <= {"reverse", 23}, "a diagonal's 23 samples are reverse products, too"
    for way in found.ways:
        value = np.asarray(way.make()(*arguments))
        np.testing.assert_allclose(np.diag(value) if value.ndim == 2 else value, (4 * model**2) if task == "diagonal" else 2 * model)


def test_what_no_way_leads_to_raises_as_products_do() -> None:
    with pytest.raises(LookupError, match="no forward mode"):
        plan(reverse_only, "gauss_newton_product", model=tf.ones(3, tf.float64))


def test_loops_and_fixed_points_are_planned_as_they_were_given() -> None:
    loops = [Loop(lambda x: rate * x, start(3)["x"], 4) for rate in (2.0, 3.0)]  # noqa: B023
    points = [FixedPoint(lambda x: rate * x + SHIFT, SHIFT) for rate in (0.2, 0.5)]  # noqa: B023
    for loop, rate in zip(loops, (2.0, 3.0), strict=True):
        np.testing.assert_allclose(plan(loop, "gradient").run(tf.ones(3, tf.float64))[0], rate**4)
    for point, rate in zip(points, (0.2, 0.5), strict=True):
        np.testing.assert_allclose(plan(point, "gradient").run(tf.ones(3, tf.float64))[0], 1 / (1 - rate), rtol=1e-5)


SHIFT = tf.ones(3, tf.float64)
