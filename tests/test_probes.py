"""Jacobians from products, dense and sparse, against exact ones; colourings; functions that are linearized; bad input."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from registry import Exponential

from geoinv.operators.forward import Linearization, ravel
from geoinv.operators.sensitivity import (
    Coloring,
    coloring,
    columns,
    detect_pattern,
    jacobian,
    linearization,
    rows,
    sparse_jacobian,
    write_jacobian,
)
from geoinv.operators.sparse import CSRMatrix

RANDOM = np.random.default_rng(0)
SIZE = 30
MODEL = tf.constant(RANDOM.normal(size=SIZE))


def banded(m: tf.Tensor) -> tf.Tensor:
    """Each datum of its own unknown and those one and three behind."""
    behind = tf.pad(m, [[3, 0]])
    return tf.sin(m) * behind[2:-1] + behind[:-3] ** 2


def exact_banded(m: np.ndarray) -> np.ndarray:
    one, three = (np.concatenate([np.zeros(k), m[:-k]]) for k in (1, 3))
    return np.diag(np.cos(m) * one) + np.diag(np.sin(m[1:]), -1) + np.diag(2 * three[3:], -3)


@pytest.fixture(scope="module")
def at() -> Linearization:
    return linearization(banded, MODEL)


def test_dense_jacobians_by_columns_and_by_rows(at: Linearization, tmp_path: Path) -> None:
    expected = exact_banded(MODEL.numpy())
    for mode in ("forward", "reverse"):
        np.testing.assert_allclose(jacobian(at, mode=mode), expected, atol=1e-14)  # type: ignore[arg-type]
        write_jacobian(at, tmp_path / "jacobian.h5", mode=mode, memory=7 * 8 * SIZE)  # type: ignore[arg-type]
        with h5py.File(tmp_path / "jacobian.h5") as file:
            np.testing.assert_allclose(file["jacobian"], expected, atol=1e-14)
    assert [path.name for path in tmp_path.iterdir()] == ["jacobian.h5"]
    np.testing.assert_allclose(columns(at, [4, 0]), expected[:, [4, 0]], atol=1e-14)
    np.testing.assert_allclose(rows(at, slice(3, 9, 2)), expected[3:9:2], atol=1e-14)  # type: ignore[arg-type]


def test_functions_of_nests_with_complex_data_and_second_derivatives() -> None:
    """Against what NumPy makes of the derivatives written out."""
    a, b = RANDOM.normal(size=3), RANDOM.normal(size=2)

    def function(model: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.exp(model["a"]) * tf.reduce_sum(model["b"]), tf.cast(model["b"], tf.complex128) ** 2 * (1 + 2j)

    at = linearization(function, {"a": a, "b": b})
    assert at.shape == (3 + 2 * 2, 5)
    assert at.data_spec == (tf.TensorSpec([3], tf.float64), tf.TensorSpec([2], tf.complex128))
    above = np.hstack([np.diag(np.exp(a) * b.sum()), np.exp(a)[:, None] * np.ones(2)])
    below = np.vstack([np.hstack([np.zeros((2, 3)), factor * np.diag(2 * b)]) for factor in (1, 2)])
    np.testing.assert_allclose(jacobian(at, mode="forward"), np.vstack([above, below]), atol=1e-13)
    np.testing.assert_allclose(jacobian(at, mode="reverse"), np.vstack([above, below]), atol=1e-13)
    v, w = (
        {"a": tf.ones(3, tf.float64), "b": tf.constant([1.0, -2.0], tf.float64)},
        (tf.constant([1.0, 2.0, 3.0], tf.float64), tf.constant([1 + 1j, 2])),
    )
    # d/dm of <w, J v> with J as above.
    inner = np.array([1.0, 2.0, 3.0]) * np.exp(a)
    along_a = inner * (b.sum() * 1 - 1)
    along_b = np.full(2, inner.sum()) + 2 * np.real(np.conj([1 + 1j, 2]) * (1 + 2j)) * [1, -2]
    np.testing.assert_allclose(ravel(at.hessian_product(v, w)), np.concatenate([along_a, along_b]), atol=1e-12)


def test_colours_do_not_share_rows_and_are_few() -> None:
    for seed in range(5):
        pattern = scipy.sparse.random(60, 40, density=0.05, rng=seed, format="csr")
        colors = coloring(pattern)
        for color in range(colors.max() + 1):
            assert (pattern[:, colors == color] != 0).sum(axis=1).max() <= 1
        assert colors.max() + 1 >= np.diff(pattern.indptr).max(), "a row's entries have colours of their own"
    for band in (1, 4, 9):
        bands = scipy.sparse.diags(np.ones(band), range(band), shape=(200, 200))
        assert coloring(bands).max() + 1 == band
    # An arrow: its full row needs a colour for each column, its full column none beside those of its rows.
    arrow = scipy.sparse.eye(50).tolil()
    arrow[0], arrow[:, 0] = 1, 1
    assert Coloring(arrow.tocsr(), "forward").count == 50
    wide = scipy.sparse.csr_array(np.ones((2, 50)))
    assert (Coloring(wide).mode, Coloring(wide).count, Coloring(wide, "forward").count) == ("reverse", 2, 50)


def test_sparse_jacobians_in_as_many_products_as_colours(at: Linearization) -> None:
    expected = scipy.sparse.csr_array(exact_banded(MODEL.numpy()))
    pattern = scipy.sparse.csr_array((np.zeros(expected.nnz), expected.indices, expected.indptr), shape=expected.shape)  # zeros are entries, too
    products = []
    counted = Linearization(
        at.model_spec, at.data_spec, at.data, lambda v: products.append("J") or at.pushforward(v), lambda w: products.append("J*") or at.pullback(w)
    )
    for given, kind in ((pattern, "J"), (CSRMatrix.from_scipy(expected), "J"), (Coloring(pattern, "reverse"), "J*")):
        products.clear()
        found = sparse_jacobian(counted, given)
        np.testing.assert_allclose(found.toarray(), expected.toarray(), atol=1e-14)
        assert products == [kind] * 5, "neighbours up to three apart share a row; one more product to try the result"


@tf.custom_gradient
def hidden_sine(x: tf.Tensor) -> Any:
    return tf.stop_gradient(tf.sin(x)), lambda g: g * tf.cos(x)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_functions_with_rules_and_operators_of_their_own(jit_compile: bool) -> None:
    """Of sin(exp(m)) the products are those of its two derivatives, in whichever way these are known."""
    v, w = (tf.constant(RANDOM.normal(size=SIZE)) for _ in range(2))
    slope, bend = tf.exp(MODEL) * tf.cos(tf.exp(MODEL)), tf.exp(MODEL) * tf.cos(tf.exp(MODEL)) - tf.exp(2 * MODEL) * tf.sin(tf.exp(MODEL))
    for twice in (True, False):
        exponential = Exponential(SIZE, twice_differentiable=twice)
        at = linearization(lambda m, exponential=exponential: hidden_sine(exponential(m)), MODEL, jit_compile=jit_compile)
        np.testing.assert_allclose(at.jvp(v), slope * v, rtol=1e-13)
        np.testing.assert_allclose(at.vjp(w), slope * w, rtol=1e-13)
        if twice:
            np.testing.assert_allclose(at.hessian_product(v, w), bend * v * w, rtol=1e-12)
        else:
            with pytest.raises(ValueError, match="not twice differentiable"):
                at.hessian_product(v, w)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_patterns_are_found_in_few_products(jit_compile: bool) -> None:
    n = 3000
    offsets = [-40, -1, 0, 1, 40]
    matrix = CSRMatrix.from_scipy(scipy.sparse.diags(RANDOM.normal(size=(5, n)), offsets, shape=(n, n)).tocsr())
    at = linearization(lambda m: tf.sin(matrix.matvec(m)), tf.constant(RANDOM.normal(size=n)), jit_compile=jit_compile)
    products = []
    counted = Linearization(at.model_spec, at.data_spec, at.data, lambda v: products.append(v) or at.pushforward(v), at.pullback)
    found = detect_pattern(counted)
    assert (found != (matrix.to_scipy() != 0)).nnz == 0
    assert len(products) < 0.1 * n
    assert detect_pattern(linearization(lambda m: m[:1] * 2, tf.constant([1.0]))).toarray() == [[1]]


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32, tf.float16, tf.bfloat16])
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_missing_entry_is_found_in_the_smallest_row(dtype: tf.DType, mode: Any) -> None:
    """Rows of different units; in single precision as far as numbers tell. In half precision they tell too little for a test."""
    scales = np.geomspace(1, {8: 1e-10, 4: 1e-4, 2: 1}[dtype.size], SIZE)
    scales = scales[:, None] if mode == "forward" else scales
    dense = tf.constant(np.tri(SIZE, k=1) * np.tri(SIZE, k=1).T * scales, dtype)
    at = linearization(lambda m: tf.linalg.matvec(dense, m), tf.ones(SIZE, dtype))
    whole = scipy.sparse.csr_array(np.tri(SIZE, k=1) * np.tri(SIZE, k=1).T)
    found = sparse_jacobian(at, Coloring(whole, mode))
    np.testing.assert_allclose(found.toarray(), tf.cast(dense, tf.float64), rtol=1e-6)
    for row, column in ((SIZE - 1, SIZE - 2), (0, 0)) if dtype.size > 2 else ():
        missing = whole.tolil()
        missing[row, column] = 0
        with pytest.raises(ValueError, match="'pattern' that misses entries in 1 of 30 " + ("rows" if mode == "forward" else "columns")):
            sparse_jacobian(at, Coloring(missing.tocsr(), mode))


def test_products_that_are_not_finite_do_not_pass_for_a_jacobian() -> None:
    at = linearization(lambda m: tf.concat([tf.sqrt(m[:1]), m[1:]], 0), tf.zeros(3, tf.float64))
    with pytest.raises(ValueError, match="'products' that are not finite, row 0 first of all"):
        sparse_jacobian(at, scipy.sparse.eye(3))


def test_rules_without_a_forward_mode_have_sparse_jacobians_by_rows() -> None:
    @tf.custom_gradient
    def square(x: tf.Tensor) -> Any:
        return x**2, lambda g: tf.raw_ops.PreventGradient(input=g, message="no forward mode") * tf.stop_gradient(2 * x)

    at = linearization(square, MODEL)
    np.testing.assert_allclose(sparse_jacobian(at, Coloring(scipy.sparse.eye(SIZE), "reverse")).diagonal(), 2 * MODEL)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_files_hold_no_numbers_where_nothing_was_computed(at: Linearization, tmp_path: Path, mode: Any) -> None:
    """And of half precision, and of nothing; and what waits is what was allowed."""
    products = iter(range(12))
    stopped = Linearization(at.model_spec, at.data_spec, at.data, *(lambda v, f=f: (next(products), f(v))[1] for f in (at.pushforward, at.pullback)))
    with pytest.raises(RuntimeError, match="StopIteration"):
        write_jacobian(stopped, tmp_path / "a.h5", mode=mode, memory=5 * 8 * SIZE)
    expected = exact_banded(MODEL.numpy())
    with h5py.File(tmp_path / "a.h5.part") as file:
        found = file["jacobian"][:] if mode == "reverse" else file["jacobian"][:].T
    np.testing.assert_allclose(found[:10], (expected if mode == "reverse" else expected.T)[:10], atol=1e-14)
    assert np.isnan(found[10:]).all()
    write_jacobian(linearization(lambda m: 2 * m, tf.ones(3, tf.bfloat16)), tmp_path / "b.h5", mode=mode)
    write_jacobian(linearization(lambda m: m[:0], MODEL), tmp_path / "c.h5", mode=mode)
    with h5py.File(tmp_path / "b.h5") as half, h5py.File(tmp_path / "c.h5") as empty:
        np.testing.assert_array_equal(half["jacobian"], 2 * np.eye(3))
        assert empty["jacobian"].shape == (0, SIZE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda at: write_jacobian(at, "no folder/a.h5"), "'file' 'no folder/a.h5': must be in a folder that is there. Make .*no folder"),
        (lambda at: write_jacobian(at, "a.h5", memory=0), "'memory' 0 at index 0: must be positive"),
        (lambda at: jacobian(at, memory=7000.0), r"'memory' 7000 bytes: must be at least 7200 for a Jacobian of 30 x 30. Stream it to a file"),
        (lambda at: jacobian(at, mode="sideways"), "'mode' 'sideways'"),
        (lambda at: columns(at, [30]), "'units'"),
        (lambda at: sparse_jacobian(at, scipy.sparse.eye(29)), r"'pattern' of shape \(29, 29\): must be of shape \(30, 30\), that of the Jacobian"),
        (lambda at: sparse_jacobian(at, np.eye(30)), "'pattern' a ndarray: must be a SciPy sparse matrix or a CSRMatrix"),
        (lambda at: sparse_jacobian(at, scipy.sparse.eye(30)), "'pattern' that misses entries in 29 of 30 rows"),
        (
            lambda _: linearization(lambda m: tf.numpy_function(np.sin, [m], tf.float64), MODEL),
            r"'function' that calls Python \(operation 'PyFunc', test_pr",
        ),
        (lambda _: linearization(lambda m: m, tf.constant([1])), "'model' with a leaf of dtype int32: must be of floating or complex leaves"),
        (lambda _: linearization(lambda m: tf.argmax(m), MODEL), "'data' with a leaf of dtype int64"),
    ],
)
def test_bad_input(at: Linearization, call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(at)
