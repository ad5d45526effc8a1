"""The whole battery over every operator of the registry."""

import numpy as np
import pytest
import tensorflow as tf
from registry import OPERATORS, Entry

from geoinv.operators import testing
from geoinv.operators.forward import ForwardOperator, Nest
from geoinv.operators.gravity import poisson
from geoinv.operators.seismic import shots
from geoinv.operators.sparse import operator as sparse_operator

#: Parts, as they stand, of entries that compose them further: in the slow suite only.
CONTAINED = {"chain", "gravity of active cells"}
MARKED = [pytest.param(entry, id=entry.name, marks=[pytest.mark.slow] * (entry.name in CONTAINED)) for entry in OPERATORS]
every = pytest.mark.parametrize("entry", MARKED)


def model_of(operator: ForwardOperator) -> Nest:
    return testing.random(operator.model_spec, seed=5)


def gradient(operator: ForwardOperator, model: Nest, cotangent: Nest) -> Nest:
    with tf.GradientTape() as tape:
        tape.watch(model)
        data = operator(model)
    return tape.gradient(data, model, output_gradients=cotangent)


@every
def test_adjoint(entry: Entry) -> None:
    assert testing.dot_test(entry.make()) <= entry.tolerance


@every
def test_taylor_rate(entry: Entry) -> None:
    assert 1.9 <= testing.taylor_test(entry.make()) <= 2.1


@every
def test_forward_mode_equals_reverse_mode(entry: Entry) -> None:
    assert testing.jvp_vjp_check(entry.make()) <= 1e-10


@every
def test_executions_agree(entry: Entry) -> None:
    assert testing.mode_test(entry.make()) <= entry.tolerance


@every
def test_scipy_operator_is_the_derivative(entry: Entry) -> None:
    operator = entry.make()
    scipy_operator = operator.linearize(model_of(operator)).to_scipy()
    dense = scipy_operator @ np.eye(scipy_operator.shape[1])
    np.testing.assert_allclose(scipy_operator.rmatmat(np.eye(scipy_operator.shape[0])), dense.T, atol=1e-11 * np.abs(dense).max())


@every
def test_second_derivatives(entry: Entry) -> None:
    operator = entry.make()
    model, v, w = model_of(operator), testing.random(operator.model_spec, 6), testing.random(operator.data_spec, 7)
    if not operator.twice_differentiable:
        pytest.skip("refused: see test_forward.py")
    expected = operator.linearize(model).hessian_product(v, w)

    def reverse_over_reverse(model: Nest) -> Nest:
        with tf.GradientTape() as tape:
            tape.watch(model)
            parts = zip(tf.nest.flatten(gradient(operator, model, w)), tf.nest.flatten(v), strict=True)
            total = tf.add_n([tf.math.real(tf.reduce_sum(tf.math.conj(part) * direction)) for part, direction in parts])
        return tape.gradient(total, model, unconnected_gradients="zero")

    def forward_over_reverse(model: Nest) -> Nest:
        with tf.autodiff.ForwardAccumulator(model, v) as accumulator:
            result = gradient(operator, model, w)
        return accumulator.jvp(result, unconnected_gradients="zero")

    def both(model: Nest) -> tuple[Nest, Nest]:
        return reverse_over_reverse(model), forward_over_reverse(model)

    # What AutoGraph makes of operators is in test_executions_agree.
    graph = tf.function(both, autograph=False)
    runs = [both, graph] + ([tf.function(both, autograph=False, jit_compile=True)] if operator.xla else [])
    for run in runs:
        for found in run(model):
            assert testing.relative_difference(found, expected) <= 1e-10


@every
def test_hessian_product_is_the_change_of_the_gradient(entry: Entry) -> None:
    operator = entry.make()
    if not operator.twice_differentiable:
        pytest.skip("has none")
    model, v, w = model_of(operator), testing.random(operator.model_spec, 6), testing.random(operator.data_spec, 7)
    step = 1e-5

    def shifted(sign: float) -> Nest:
        moved = tf.nest.map_structure(lambda m, d: m + tf.cast(sign * step, m.dtype) * d, model, v)
        return operator.linearize(moved).vjp(w)

    difference = tf.nest.map_structure(lambda up, down: (up - down) / (2 * step), shifted(1.0), shifted(-1.0))
    assert testing.relative_difference(operator.linearize(model).hessian_product(v, w), difference) <= 1e-7


@every
def test_subset_is_rows_of_the_whole_without_retracing(entry: Entry) -> None:
    if entry.units is None:
        pytest.skip("has no units")
    operator = entry.make()
    operator.linearize(model_of(operator))
    operator(model_of(operator))  # waves compile their programs when these first run
    programs = dict(shots._PROGRAMS)
    functions = [function for program in programs.values() for function in (program.forward, program.adjoint)]
    compiled = [sparse_operator.apply, sparse_operator.apply_transposed, poisson.apply, poisson.apply_adjoint, *functions]
    assert testing.batch_test(operator, entry.units, compiled=compiled) <= entry.tolerance
    assert len(shots._PROGRAMS) == len(programs)
