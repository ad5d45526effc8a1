"""The posterior by informed directions, against dense matrices."""

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from geoinv.operators.forward import Linearization
from geoinv.operators.sensitivity import Informed, Posterior, Prior, informed, linearization

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
    assert found.degrees_of_freedom == pytest.approx(np.trace(RESOLUTION), rel=1e-7)


def test_deviations_are_right_within_their_error_bars(found: Informed) -> None:
    spread = found.spread(samples=600, seed=1)
    for estimate, exact in ((spread.prior, np.linalg.inv(PRECISION)), (spread.posterior, COVARIANCE)):
        off = (estimate.value - np.sqrt(np.diag(exact))) / estimate.error
        assert 0.5 < np.sqrt(np.mean(off**2)) < 1.6 and np.abs(off).max() < 5
    assert np.all(spread.posterior.value <= 1.02 * spread.prior.value)


def test_the_index_is_what_other_references_change(found: Informed) -> None:
    """Inversions whose references are drawn from the prior."""
    draws = np.linalg.cholesky(np.linalg.inv(PRECISION)) @ RANDOM.normal(size=(MODEL, 4000))
    answers = COVARIANCE @ (PRECISION @ draws)
    index = found.spread(samples=4000).kept
    np.testing.assert_allclose(index, np.std(answers, axis=1) / np.std(draws, axis=1), atol=0.03)
    assert index[5] < 0.6 and index[-1] > 0.95, "the first unknowns are known, the last assumed"


def test_few_directions_do_and_are_named(at: Linearization, found: Informed) -> None:
    seen = []
    some = informed(at, WEIGHTS, Prior(scipy.sparse.csr_array(PRECISION)), enough=0.2, each=lambda *each: seen.append(each))
    assert len(seen) < 30 and seen[-1][1] < 0.2
    large = found.values[found.values >= 0.2]
    np.testing.assert_allclose(some.values[: large.size], large, rtol=0.06)
    assert some.degrees_of_freedom == pytest.approx(found.degrees_of_freedom, abs=1.0)
    cut = informed(at, WEIGHTS, Prior(scipy.sparse.csr_array(PRECISION)), enough=1e-3, products=5)
    assert cut.values.size == 4 and cut.values[-1] > 1e-3


def test_it_agrees_with_solves(at: Linearization, found: Informed) -> None:
    solved = Posterior(at, WEIGHTS, lambda m: PRECISION @ m, tolerance=1e-11)
    np.testing.assert_allclose(solved.point_spread([7]), found.point_spread([7]), atol=1e-7)


def test_a_large_prior_is_solved_without_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoinv.operators.sensitivity.directions.FACTORISED", 10)
    prior, b = Prior(scipy.sparse.csr_array(PRECISION)), RANDOM.normal(size=(MODEL, 2))
    np.testing.assert_allclose(prior.solve(b), np.linalg.solve(PRECISION, b), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda at: Prior(PRECISION), "'precision' a ndarray: must be a square SciPy sparse matrix"),
        (lambda at: Prior(scipy.sparse.csr_array(-PRECISION)), "'precision' of other form"),
        (lambda at: Prior(scipy.sparse.csr_array(STEPS.T @ STEPS)), "'precision' that leaves a constant free"),
        (lambda at: informed(at, WEIGHTS, Prior(scipy.sparse.eye_array(7))), "'prior' over 7 unknowns: must be over 60"),
        (lambda at: informed(at, WEIGHTS[1:], Prior(scipy.sparse.eye_array(60))), "'weights' of shape"),
        (lambda at: informed(at, WEIGHTS, Prior(scipy.sparse.eye_array(60)), products=1), "'products' 1"),
        (lambda at: informed(at, WEIGHTS, Prior(scipy.sparse.eye_array(60)), enough=0.0), "'enough' 0"),
    ],
)
def test_bad_input(at: Linearization, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(at)
