"""Finite-difference weights against published tables and against the polynomials they must be exact for."""

import numpy as np
import pytest

from geoinv.operators import stencils


def test_published_centred_weights() -> None:
    # Fornberg (1988), table 1.
    np.testing.assert_allclose(stencils.central(1, 4), [1 / 12, -2 / 3, 0, 2 / 3, -1 / 12], atol=1e-15)
    np.testing.assert_allclose(stencils.central(2, 6), [1 / 90, -3 / 20, 3 / 2, -49 / 18, 3 / 2, -3 / 20, 1 / 90], atol=1e-14)
    np.testing.assert_allclose(stencils.central(4, 2), [1, -4, 6, -4, 1], atol=1e-13)


def test_published_staggered_weights() -> None:
    # Levander (1988): 9/8 and -1/24.
    np.testing.assert_allclose(stencils.staggered(1, 4), [1 / 24, -9 / 8, 9 / 8, -1 / 24], atol=1e-15)
    np.testing.assert_allclose(stencils.staggered(0, 2), [0.5, 0.5])


@pytest.mark.parametrize("derivative", range(5))
def test_exact_for_polynomials_on_irregular_nodes_at_large_coordinates(derivative: int) -> None:
    rng = np.random.default_rng(derivative)
    nodes = 5e5 + np.sort(rng.uniform(0, 10, (3, 7)) + 5 * np.arange(7), axis=-1)
    at = 5e5 + rng.uniform(0, 40, 3)
    found = stencils.weights(nodes, at, derivative=derivative)
    for degree in range(7):
        monomial = np.poly1d([1.0] + [0.0] * degree)  # of t = (x - centre) / 20, so that all values are near 1
        expected = monomial.deriv(derivative)((at - 5e5 - 20) / 20) / 20**derivative if derivative else monomial((at - 5e5 - 20) / 20)
        np.testing.assert_allclose(np.sum(found * monomial((nodes - 5e5 - 20) / 20), axis=-1), expected, atol=1e-9)


@pytest.mark.parametrize("derivative", range(5))
@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_number_of_weights_is_the_least_for_the_order(derivative: int, order: int) -> None:
    for values, nodes in (
        (stencils.central(derivative, order), lambda n: np.arange(n) - n // 2),
        (stencils.staggered(derivative, order), lambda n: np.arange(n) - n / 2 + 0.5),
    ):
        x = nodes(values.size).astype(float)
        exact = [
            np.isclose(values @ x**p, (p == derivative) * np.prod(np.arange(1, derivative + 1)), atol=1e-9 * 4.0**p)
            for p in range(derivative + order)
        ]
        assert all(exact)
        assert (derivative == 0 and values.size % 2) or not np.isclose(values @ x ** (derivative + order), 0, atol=1e-6)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"Invalid 'order' 3: must be an even number"):
        stencils.central(1, 3)
    with pytest.raises(ValueError, match=r"Invalid 'derivative' 3: must be from 0 to 2 on 3 nodes"):
        stencils.weights(np.arange(3.0), derivative=3)
