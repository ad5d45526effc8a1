"""The contract: compositions, what the checks refuse, and what TensorFlow may not differentiate."""

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import pytest
import tensorflow as tf
from registry import Exponential, Product, sparse

from geoinv.operators import testing
from geoinv.operators.forward import Chain, ForwardOperator, Linearization, Stack, Sum, ravel, unravel

RUNS = {"eager": lambda f: f, "graph": tf.function, "xla": lambda f: tf.function(f, jit_compile=True)}


def test_compositions_compute_what_they_say() -> None:
    f, g, e = sparse(6, 5), sparse(6, 5, seed=1), Exponential(5)
    model = testing.random(e.model_spec, 0)
    np.testing.assert_allclose((f @ e)(model), f.matrix @ tf.exp(model))
    np.testing.assert_allclose((f + g)(model), f(model) + g(model))
    assert [part.shape for part in Stack((f, e))(model)] == [(6,), (5,)]


def test_lists_and_arrays_are_models_too() -> None:
    np.testing.assert_allclose(Exponential(2)([0.0, 1.0]), np.exp([0, 1]))


def test_nothing_is_linearized_where_nobody_records(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, model = Exponential(2), tf.constant([0.0, 1.0], tf.float64)
    calls = []
    linearize = Exponential.linearize
    monkeypatch.setattr(Exponential, "linearize", lambda self, at: calls.append(at) or linearize(self, at))
    np.testing.assert_allclose(operator(model), np.exp([0, 1]))
    assert not calls
    with tf.GradientTape() as tape:
        tape.watch(model)
        data = operator(model)
    np.testing.assert_allclose(tape.gradient(data, model), np.exp([0, 1]))
    with tf.autodiff.ForwardAccumulator(model, tf.ones_like(model)) as accumulator:
        data = operator(model)
    np.testing.assert_allclose(accumulator.jvp(data), np.exp([0, 1]))
    assert len(calls) == 2


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("mode", ["tape over tape", "accumulator over tape", "tape over accumulator"])
def test_an_operator_not_twice_differentiable_raises(mode: str, run: str) -> None:
    operator, v = Exponential(3, twice_differentiable=False), tf.constant([1.0, 2.0, 3.0], tf.float64)

    def gradient(model: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(model)
            total = tf.reduce_sum(operator(model) * v)
        return tape.gradient(total, model)

    def second(model: tf.Tensor) -> tf.Tensor:
        if mode == "accumulator over tape":
            with tf.autodiff.ForwardAccumulator(model, v) as accumulator:
                result = gradient(model)
            return accumulator.jvp(result)
        with tf.GradientTape() as tape:
            tape.watch(model)
            if mode == "tape over tape":
                result = gradient(model)
            else:
                with tf.autodiff.ForwardAccumulator(model, v) as accumulator:
                    data = operator(model)
                result = accumulator.jvp(data)
        return tape.gradient(result, model)

    with pytest.raises(ValueError, match="not twice differentiable"):
        RUNS[run](second)(tf.constant([0.1, 0.2, 0.3], tf.float64))


def test_third_derivatives_raise_rather_than_vanish() -> None:
    operator, model = Exponential(1), tf.constant([0.5], tf.float64)
    with tf.GradientTape() as third:
        third.watch(model)
        with tf.GradientTape() as second:
            second.watch(model)
            with tf.GradientTape() as first:
                first.watch(model)
                data = operator(model)
            slope = first.gradient(data, model)
        curvature = second.gradient(slope, model)
    with pytest.raises(ValueError, match="third"):
        third.gradient(curvature, model)


def test_a_gradient_from_outside_a_compiled_function() -> None:
    operator = Exponential(5) @ sparse(5, 5)
    model, w = testing.random(operator.model_spec, 0), testing.random(operator.data_spec, 1)
    compiled = tf.function(operator, jit_compile=True)
    with tf.GradientTape() as tape:
        tape.watch(model)
        data = compiled(model)
    np.testing.assert_allclose(tape.gradient(data, model, output_gradients=w), operator.linearize(model).vjp(w))


@final
@dataclass(frozen=True, eq=False)
class Wrong(ForwardOperator):
    """An exponential whose tangents and cotangents are scaled: what the battery must catch."""

    right: Exponential
    tangent: float
    cotangent: float

    @property
    def model_spec(self) -> tf.TensorSpec:
        return self.right.model_spec

    @property
    def data_spec(self) -> tf.TensorSpec:
        return self.right.data_spec

    def forward(self, model: tf.Tensor) -> tf.Tensor:
        return self.right.forward(model)

    def linearize(self, model: tf.Tensor) -> Linearization:
        at = self.right.linearize(model)
        return replace(at, pushforward=lambda v: self.tangent * at.pushforward(v), pullback=lambda w: self.cotangent * at.pullback(w))

    def subset(self, units: Any) -> ForwardOperator:
        raise NotImplementedError


def test_the_battery_sees_a_wrong_adjoint_and_a_wrong_derivative() -> None:
    assert testing.dot_test(Wrong(Exponential(4), 1.1, 1.0)) > 1e-3
    assert testing.jvp_vjp_check(Wrong(Exponential(4), 1.1, 1.0)) > 1e-3
    both_wrong = Wrong(Exponential(4), 0.5, 0.5)
    assert testing.dot_test(both_wrong) < 1e-12
    assert testing.taylor_test(both_wrong) < 1.5


def test_ravel_and_unravel_are_inverse() -> None:
    spec = Product(3).model_spec
    model = testing.random(spec, 0)
    vector = ravel(model)
    assert vector.shape == (12,)
    assert testing.relative_difference(unravel(vector, spec), model) == 0


def test_bad_input_is_named() -> None:
    operator = Product(3)
    with pytest.raises(ValueError, match="Invalid 'model' structured as"):
        operator({"density": np.ones(3)})
    with pytest.raises(ValueError, match=r"Invalid 'model' of shape \(4,\): must be of shape \(3,\)"):
        Exponential(3)(np.ones(4))
    with pytest.raises(ValueError, match="Invalid 'model' of dtype float32: must be of dtype float64"):
        Exponential(3)(tf.ones(3))
    with pytest.raises(ValueError, match="Invalid 'chain'"):
        Chain(sparse(6, 5), operator)
    with pytest.raises(ValueError, match="Invalid 'sum' of operators with data_spec"):
        Sum((sparse(6, 5), sparse(4, 5)))
