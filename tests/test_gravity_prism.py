"""The dense operator of analytic prisms, against choclo called directly."""

import choclo
import numpy as np
import pytest

from geoinv.operators.gravity import prism
from geoinv.operators.gravity.components import COMPONENTS
from geoinv.operators.gravity.prism import GravityPrism
from geoinv.operators.grid import Grid
from geoinv.operators.testing import batch_test, dot_test

GRID = Grid((np.array([-90.0, -40.0, -10.0, 0.0]), np.array([0.0, 30.0, 70.0]), np.array([100.0, 150.0, 170.0, 230.0])))
STATIONS = {
    "upward": np.array([5.0, 0.0, 33.0, 120.0]),
    "northing": np.array([12.0, 41.0, 30.0, 69.0]),
    "easting": np.array([155.0, 120.0, 188.0, 101.0]),
}
ACTIVE = np.ones(GRID.shape, dtype=bool)
ACTIVE[-1, 1, :2] = ACTIVE[0, 0, 2] = False
# z is down and choclo's u is up: one sign for each u.
CHOCLO = {
    "gz": (-1, choclo.prism.gravity_u),
    "gx": (1, choclo.prism.gravity_e),
    "gy": (1, choclo.prism.gravity_n),
    "gzz": (1, choclo.prism.gravity_uu),
    "gxx": (1, choclo.prism.gravity_ee),
    "gyy": (1, choclo.prism.gravity_nn),
    "gxy": (1, choclo.prism.gravity_en),
    "gxz": (-1, choclo.prism.gravity_eu),
    "gyz": (-1, choclo.prism.gravity_nu),
}


def directly(component: str, station: int, density: np.ndarray) -> float:
    """The sum over the cells, one call of choclo each."""
    sign, formula = CHOCLO[component]
    up, north, east = GRID.edges
    e, n, u = (STATIONS[dim][station] for dim in ("easting", "northing", "upward"))
    return sign * sum(
        formula(e, n, u, east[i], east[i + 1], north[j], north[j + 1], up[k], up[k + 1], density[k, j, i]) for k, j, i in np.ndindex(density.shape)
    )


def density(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=GRID.shape)


def test_every_component_is_choclos() -> None:
    assert set(CHOCLO) == set(COMPONENTS)
    found = np.asarray(GravityPrism(GRID, STATIONS, tuple(CHOCLO))(density()))
    expected = [[directly(name, station, density()) for name in CHOCLO] for station in range(4)]
    assert (np.abs(found - expected) <= 1e-12 * np.abs(expected).max(axis=0)).all()


def test_derivatives_and_signs_agree_with_differences_of_choclos_potential() -> None:
    # Of the potential's derivatives by central differences, x easting, y northing, z down.
    step, (e, n, u) = 0.5, (150.0, 40.0, 160.0)
    axes = {"x": (step, 0, 0), "y": (0, step, 0), "z": (0, 0, -step)}

    def potential(shift: np.ndarray) -> float:
        return choclo.prism.gravity_pot(e + shift[0], n + shift[1], u + shift[2], 100.0, 230.0, 0.0, 70.0, -90.0, 0.0, 1000.0)

    found = np.asarray(GravityPrism(GRID, {"easting": [e], "northing": [n], "upward": [u]}, tuple(COMPONENTS))(np.full(GRID.shape, 1000.0)))[0]
    for name, value in zip(COMPONENTS, found, strict=True):
        steps = [np.array(axes[letter]) for letter in name[1:]]
        signs = [np.array(sign) for sign in np.ndindex(*[2] * len(steps))]
        total = sum(np.prod(2 * s - 1) * potential(sum((2 * k - 1) * d for k, d in zip(s, steps, strict=True))) for s in signs)
        scale = np.abs(found[:3]).max() if len(name) == 2 else np.abs(found[3:]).max()
        assert total / (2 * step) ** len(steps) == pytest.approx(value, abs=1e-3 * scale), name


def test_an_inactive_cell_carries_no_density() -> None:
    operator = GravityPrism(GRID, STATIONS, ("gz", "gxz"), active=ACTIVE)
    whole = GravityPrism(GRID, STATIONS, ("gz", "gxz"))
    np.testing.assert_allclose(operator(density()), whole(np.where(ACTIVE, density(), 0.0)), rtol=1e-12)
    adjoint = np.asarray(operator.linearize(density()).vjp(np.ones((4, 2))))
    assert not adjoint[~ACTIVE].any()
    assert adjoint[ACTIVE].all()


def test_subset_and_adjoint() -> None:
    operator = GravityPrism(GRID, STATIONS, ("gx", "gz"), active=ACTIVE)
    assert batch_test(operator, (3, 0, 2)) <= 1e-14
    assert dot_test(operator) <= 1e-12
    np.testing.assert_array_equal(operator.subset([2, 0]).setting.points, operator.setting.points[[2, 0]])


def test_station_inside_a_cell_is_raised() -> None:
    operator = GravityPrism(GRID, STATIONS | {"upward": np.array([5.0, -7.0, 33.0, 120.0])})
    np.testing.assert_allclose(operator.setting.raised, [0.0, 7.0, 0.0, 0.0])
    np.testing.assert_allclose(operator(density()), GravityPrism(GRID, STATIONS)(density()), rtol=1e-14)


def test_too_large_a_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    large = Grid.uniform((10, 100, 1000), (10.0, 10.0, 10.0))
    stations = {"upward": np.full(1100, 101.0), "northing": np.full(1100, 50.0), "easting": np.full(1100, 50.0)}
    with pytest.raises(ValueError, match=r"Invalid 'kernel' of 8\.2 GB: must be at most 8 GB\. Use GravityPoisson"):
        GravityPrism(large, stations)
    monkeypatch.setattr(prism, "MAX_BYTES", 8 * 4 * GRID.size)
    GravityPrism(GRID, STATIONS)
    with pytest.raises(ValueError, match="kernel"):
        GravityPrism(GRID, STATIONS, ("gz", "gx"))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="three-dimensional"):
        GravityPrism(Grid.uniform((3, 3), (1.0, 1.0)), STATIONS)
    with pytest.raises(ValueError, match=r"'components' 'gw': must be one of 'gz', 'gx'"):
        GravityPrism(GRID, STATIONS, ("gw",))
    edge = {"upward": [0.0], "northing": [30.0], "easting": [120.0]}
    assert np.isfinite(GravityPrism(GRID, edge)(density())).all()
    with pytest.raises(ValueError, match=r"'stations' .* on the edge of a cell: must be off the edges, where 'gzz' is infinite"):
        GravityPrism(GRID, edge, ("gz", "gzz"))
