"""The posterior by informed directions, against dense matrices."""

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from geoinv.operators.forward import Linearization
from geoinv.operators.gravity import GravityPrism
from geoinv.operators.grid import Grid
from geoinv.operators.sensitivity import Informed, Posterior, Prior, informed, linearization
from geoinv.regularization import small_and_smooth

DATA, MODEL = 30, 60
RANDOM = np.random.default_rng(0)
#: Each datum is a smooth average of unknowns, of falling weight with depth: of late ones the data tell nothing.
JACOBIAN = np.exp(-(((np.linspace(0, 40, DATA)[:, None] - np.arange(MODEL)) / 4) ** 2)) * np.exp(-np.arange(MODEL) / 25)
WEIGHTS = RANDOM.uniform(50, 400, DATA)
STEPS = np.diff(np.eye(MODEL), axis=0)
PRECISION = 2.0 * np.eye(MODEL) + 9.0 * STEPS.T @ STEPS
INFORMATION = JACOBIAN.T * WEIGHTS @ JACOBIAN
COVARIANCE = np.linalg.inv(INFORMATION + PRECISION)
RESOLUTION = COVARIANCE @ INFORMATION


@pytest.fixture(scope="module")
def at() -> Linearization:
    return linearization(lambda m: tf.linalg.matvec(JACOBIAN, m), tf.zeros(MODEL, tf.float64))


@pytest.fixture(scope="module")
def found(at: Linearization) -> Informed:
    return informed(at, WEIGHTS, Prior(scipy.sparse.csr_array(PRECISION)), enough=1e-9)


def test_eigenvalues_are_those_of_the_pencil(found: Informed) -> None:
    root = np.linalg.cholesky(PRECISION)
    white = np.linalg.solve(root, np.linalg.solve(root, INFORMATION).T)
    expected = np.linalg.eigvalsh(white)[::-1]
    clear = np.count_nonzero(expected > 1e-6)
    np.testing.assert_allclose(found.values[:clear], expected[:clear], rtol=1e-6)
    np.testing.assert_allclose(found.vectors.T @ PRECISION @ found.vectors, np.eye(found.values.size), atol=1e-9)


def test_resolution_and_covariance(found: Informed) -> None:
    v = RANDOM.normal(size=MODEL)
    np.testing.assert_allclose(found.covariance(v), COVARIANCE @ v, atol=1e-8)
    np.testing.assert_allclose(found.resolved(v), RESOLUTION @ v, atol=1e-7)
    np.testing.assert_allclose(found.point_spread([3, 20]), RESOLUTION[:, [3, 20]], atol=1e-7)
    np.testing.assert_allclose(found.averaging([3, 20]), RESOLUTION[[3, 20]], atol=1e-7)
    np.testing.assert_allclose(found.resolution, np.diag(RESOLUTION), atol=1e-7)
    assert found.degrees_of_freedom.value == pytest.approx(np.trace(RESOLUTION), rel=1e-7)


def test_deviations_are_right_within_their_error_bars(found: Informed) -> None:
    spread = found.spread(samples=600, seed=1)
    for estimate, exact in ((spread.prior, np.linalg.inv(PRECISION)), (spread.posterior, COVARIANCE)):
        off = (estimate.value - np.sqrt(np.diag(exact))) / estimate.error
        assert 0.5 < np.sqrt(np.mean(off**2)) < 1.6 and np.abs(off).max() < 5
    assert np.all(spread.posterior.value <= 1.02 * spread.prior.value)


def test_the_index_is_what_other_references_change(found: Informed) -> None:
    """Inversions whose references are drawn from the prior and smoothed by it."""
    draws = np.linalg.cholesky(np.linalg.inv(PRECISION)) @ RANDOM.normal(size=(MODEL, 4000))
    references = np.linalg.solve(PRECISION, np.diag(PRECISION)[:, None] * draws)
    answers = COVARIANCE @ (PRECISION @ references)
    index = found.spread(samples=4000).kept
    np.testing.assert_allclose(index, np.std(answers, axis=1) / np.std(references, axis=1), atol=0.03)
    assert index[5] < 0.4 and index[-1] > 0.9, "the first unknowns are known, the last assumed"


def test_few_directions_do_and_are_named(at: Linearization, found: Informed) -> None:
    seen = []
    some = informed(at, WEIGHTS, Prior(scipy.sparse.csr_array(PRECISION)), enough=0.2, each=lambda *each: seen.append(each))
    assert len(seen) < 30 and seen[-1][1] < 0.2
    large = found.values[found.values >= 0.2]
    np.testing.assert_allclose(some.values[: large.size], large, rtol=0.06)
    assert some.complete and np.abs(some.errors[: large.size]).max() < 0.05 * large.max()
    cut = informed(at, WEIGHTS, Prior(scipy.sparse.csr_array(PRECISION)), enough=1e-3, products=5)
    assert cut.values.size == 5 and not (cut.complete or cut.interrupted)
    assert cut.degrees_of_freedom.value < DATA, "no more than data"


def test_it_agrees_with_solves(at: Linearization, found: Informed) -> None:
    solved = Posterior(at, WEIGHTS, lambda m: PRECISION @ m, tolerance=1e-11)
    np.testing.assert_allclose(solved.point_spread([7]), found.point_spread([7]), atol=1e-7)


def test_a_large_prior_is_solved_without_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoinv.operators.sensitivity.prior.FACTORISED", 10)
    b, order = RANDOM.normal(size=(MODEL, 2)), RANDOM.permutation(MODEL)
    for prior in (Prior(scipy.sparse.csr_array(PRECISION)), Prior(scipy.sparse.csr_array(PRECISION), order=order)):
        np.testing.assert_allclose(prior.solve(b), np.linalg.solve(PRECISION, b), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(prior.solve(b[:, 0]), prior.solve(b)[:, 0], rtol=1e-12)


def test_a_prior_of_flat_cells_is_solved_in_few_steps_along_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of a fifth of their width tie columns 25 times more than rows: the tridiagonal part takes that out."""
    monkeypatch.setattr("geoinv.operators.sensitivity.prior.FACTORISED", 10)
    chain = scipy.sparse.csr_array(STEPS.T @ STEPS)
    matrix = scipy.sparse.eye_array(MODEL**2) + 25 * scipy.sparse.kron(chain, scipy.sparse.eye_array(MODEL)) + scipy.sparse.kronsum(chain, 0 * chain)
    b, columns = RANDOM.normal(size=MODEL**2), np.arange(MODEL**2).reshape(MODEL, MODEL).T.ravel()
    for order, most in ((columns, 30), (None, 300)):
        monkeypatch.setattr("geoinv.operators.sensitivity.prior.MOST_ITERATIONS", most)
        assert np.linalg.norm(matrix @ Prior(matrix, order=order).solve(b) - b) < 1e-6 * np.linalg.norm(b)
    monkeypatch.setattr("geoinv.operators.sensitivity.prior.MOST_ITERATIONS", 30)
    with pytest.raises(ValueError, match=r"'precision' whose solve leaves .*: must be one that is solved to 1.0e-08 in 30 iterations"):
        Prior(matrix).solve(b)


# ------------------------------------------------------------------------------------------- eigenvalues that are repeated

SPECTRA: dict[str, np.ndarray] = {
    "repeated": np.array([10.0, 10, 5, 5, 5, 2, 2, *[0.05] * 30, *[0.0] * 20]),
    "all alike": np.full(20, 3.0),
    "ten alike": np.array([7.0] * 10 + [1e-3] * 50),
    "pairs": np.repeat(1e3 * 0.6 ** np.arange(40), 2),
    "single": 1e4 * 0.5 ** np.arange(60),
}


def of_spectrum(values: np.ndarray, dtype: tf.DType = tf.float64) -> tuple[Linearization, Prior, np.ndarray]:
    """A problem whose pencil has these eigenvalues, and its resolution matrix."""
    size, random = values.size, np.random.default_rng(1)
    turn = np.linalg.qr(random.standard_normal((size, size)))[0]
    steps = np.diff(np.eye(size), axis=0)
    precision = 0.5 * np.eye(size) + steps.T @ steps
    jacobian = np.sqrt(values)[:, None] * turn.T @ np.linalg.cholesky(precision).T
    at = linearization(lambda m: tf.linalg.matvec(tf.constant(jacobian, dtype), m), tf.zeros(size, dtype))
    information = jacobian.T @ jacobian
    return at, Prior(scipy.sparse.csr_array(precision)), np.linalg.solve(information + precision, information)


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32])
@pytest.mark.parametrize("name", SPECTRA)
def test_repeated_eigenvalues_are_found_as_often(name: str, dtype: tf.DType) -> None:
    values = SPECTRA[name]
    at, prior, resolution = of_spectrum(values, dtype)
    counted: list[int] = []
    found = informed(at, np.ones(values.size, dtype.as_numpy_dtype), prior, each=lambda number, _: counted.append(number))
    large = np.sort(values[values >= 0.1])[::-1]
    assert found.complete and len(counted) <= 1.2 * large.size + 14, "hardly more products than directions"
    np.testing.assert_allclose(found.values[: large.size], large, rtol=1e-2)
    assert np.all(found.values[large.size :] < 0.1)
    # As precise as the dtype: single precision adds noise to small eigenvalues, in parts of the largest.
    told = found.degrees_of_freedom
    assert abs(told.value - np.trace(resolution)) <= 3 * told.error + 1e-6 * values.max()
    assert found.gains.sum() <= np.trace(resolution) + 1e-6 * values.max()
    off = found.point_spread(range(values.size)) - resolution
    scale, noise = np.sqrt(prior.precision.diagonal()), 1e-6 * values.max()
    assert np.all(np.sqrt(np.sum(off * (prior.precision @ off), axis=0)) <= (0.1 / 1.1 + noise) * scale), "directions below 0.1 are left out"


def test_degrees_of_freedom_are_bounded_where_the_search_is_cut() -> None:
    """Though 20 directions of 300 are known."""
    for values in (np.r_[np.linspace(40, 0.01, 150), np.zeros(150)], 1e4 * 0.97 ** np.arange(300)):
        at, prior, resolution = of_spectrum(values)
        found = informed(at, np.ones(300), prior, products=20)
        told = found.degrees_of_freedom
        assert not found.complete and found.gains.sum() < 20
        assert abs(told.value - np.trace(resolution)) < 2 * told.error < np.trace(resolution)


def test_a_symmetric_gravity_survey_over_symmetric_cells() -> None:
    """A square array over square cells: turned by a right angle it is the same, so many eigenvalues come in pairs."""
    grid = Grid.uniform((3, 8, 8), (100.0,) * 3, origin=(-300.0, 0.0, 0.0))
    east, north = (each.ravel() for each in np.meshgrid(np.linspace(50, 750, 5), np.linspace(50, 750, 5)))
    operator = GravityPrism(grid, {"easting": east, "northing": north, "upward": np.full(25, 1.0)})
    at = operator.linearize(tf.zeros(grid.shape, tf.float64))
    weights = np.full(at.data_spec.shape, (1e-7) ** -2)
    matrix = 1e-4 * small_and_smooth(grid, np.ones(grid.shape, bool)).hessian.to_scipy()
    jacobian = np.stack([np.ravel(at.jvp(tf.constant(unit.reshape(grid.shape)))) for unit in np.eye(192)], axis=1)
    information = 1e14 * jacobian.T @ jacobian
    covariance = np.linalg.inv(information + matrix.toarray())
    exact = np.sort(np.linalg.eigvals(np.linalg.solve(matrix.toarray(), information)).real)[::-1]
    exact = exact[exact > 0.1]
    assert np.count_nonzero(np.diff(exact) > -1e-6 * exact[1:]) >= 4, "pairs"
    found = informed(at, weights, Prior(matrix))
    np.testing.assert_allclose(found.values[: exact.size], exact, rtol=1e-3)
    told = found.degrees_of_freedom
    assert found.complete and abs(told.value - np.trace(covariance @ information)) <= 3 * told.error + 1e-9
    resolution, cells = covariance @ information, [0, 100, 150]
    off = found.point_spread(cells) - resolution[:, cells]
    assert np.all(np.sum(off * (matrix @ off), axis=0) <= (0.1 / 1.1) ** 2 * matrix.diagonal()[cells])
    ratio = np.sqrt(np.diag(found.covariance(np.eye(192))) / np.diag(covariance))
    assert ratio.min() >= 1 - 1e-6 and ratio.max() <= np.sqrt(1.1), "directions below 0.1 keep 1 / 1.1 of the prior's variance or more"


def test_an_interruption_returns_what_is_found(at: Linearization) -> None:
    prior = Prior(scipy.sparse.csr_array(PRECISION))

    def stop(number: int, _: float) -> None:
        if number == 8:
            raise KeyboardInterrupt

    cut = informed(at, WEIGHTS, prior, enough=1e-9, each=stop)
    assert cut.interrupted and not cut.complete and cut.values.size == 8
    same = informed(at, WEIGHTS, prior, enough=1e-9, products=8)
    np.testing.assert_array_equal(cut.vectors, same.vectors)

    def never(m: tf.Tensor) -> tf.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # nothing is found
        informed(Linearization(at.model_spec, at.data_spec, at.data, never, never), WEIGHTS, prior)


def test_an_interruption_of_the_deviations_keeps_the_samples(found: Informed) -> None:
    def stop(count: int) -> None:
        if count >= 100:
            raise KeyboardInterrupt

    cut = found.spread(samples=400, each=stop)
    assert cut.prior.products == 100
    np.testing.assert_array_equal(cut.posterior.value, found.spread(samples=100).posterior.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda at: Prior(PRECISION), "'precision' a ndarray: must be a square SciPy sparse matrix"),
        (lambda at: Prior(scipy.sparse.csr_array(-PRECISION)), "'precision' of other form"),
        (lambda at: Prior(scipy.sparse.csr_array(STEPS.T @ STEPS)), "'precision' that leaves a constant free"),
        (lambda at: Prior(scipy.sparse.eye_array(3), order=np.array([0, 1, 1])), "'order' of 3 entries: must be each of the 3 unknowns once"),
        (lambda at: informed(at, WEIGHTS, Prior(scipy.sparse.eye_array(7))), "'prior' over 7 unknowns: must be over 60"),
        (lambda at: informed(at, WEIGHTS[1:], Prior(scipy.sparse.eye_array(60))), "'weights' of shape"),
        (lambda at: informed(at, WEIGHTS, Prior(scipy.sparse.eye_array(60)), products=1), "'products' 1"),
        (lambda at: informed(at, WEIGHTS, Prior(scipy.sparse.eye_array(60)), enough=0.0), "'enough' 0"),
    ],
)
def test_bad_input(at: Linearization, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(at)
