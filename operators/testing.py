"""Tests that any operator must pass: adjoint, Taylor, forward against reverse mode, executions, subsets, and order of accuracy.

Each returns one number to assert on. Models, tangents and cotangents are random where none is given, from a seed; nested
specs and complex leaves count in the inner product of the project, ``<a, b> = Re sum(conj(a) b)``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from . import checks
from .forward import ForwardOperator, Nest

#: Relative step of the Taylor test's first point, and how many times it is halved. Large steps keep the remainder clear of
#: rounding (it stays above 1e-10 of the objective in float64); the fit uses the last ones, where it is asymptotic.
TAYLOR_STEP, TAYLOR_HALVINGS = 1e-2, 5


def dot_test(operator: ForwardOperator, model: Nest | None = None, *, seed: int = 0) -> float:
    """How far `vjp` is from the adjoint of `jvp`: ``|<J v, w> - <v, J* w>| / (|J v| |w|)``.

    Args:
        operator: Whose linearization is tested.
        model: Where; random by default.
        seed: Of the random numbers.

    Returns:
        Rounding for a right adjoint: below 1e-12 in float64, 1e-5 in float32.
    """
    at = operator.linearize(_model(operator, model, seed))
    v, w = random(operator.model_spec, seed + 1), random(operator.data_spec, seed + 2)
    forward, adjoint = at.jvp(v), at.vjp(w)
    return abs(inner(forward, w) - inner(v, adjoint)) / max(norm(forward) * norm(w), np.finfo(float).tiny)


def taylor_test(operator: ForwardOperator, model: Nest | None = None, *, seed: int = 0) -> float:
    """The observed order of the remainder of ``phi(m) = |F(m) - d|^2 / 2`` after its first-order Taylor expansion.

    The remainder ``|phi(m + h v) - phi(m) - h <J* r, v>|`` falls as h^2 where the derivative is right and as h where it is
    wrong. For a linear operator phi is quadratic and the remainder h^2 |J v|^2 / 2 exactly, so the test is as sharp there.

    Args:
        operator: Whose linearization is tested; in double precision.
        model: Where; random by default.
        seed: Of the random numbers.

    Returns:
        2 for a right derivative, 1 for a wrong one.
    """
    model = _model(operator, model, seed)
    at = operator.linearize(model)
    v = random(operator.model_spec, seed + 1)
    v = _scaled(v, max(norm(model), 1.0) / norm(v))
    residual = random(operator.data_spec, seed + 2)
    residual = _scaled(residual, max(norm(at.jvp(v)), np.finfo(float).tiny) / norm(residual))
    slope = inner(at.vjp(residual), v)
    steps = TAYLOR_STEP * 0.5 ** np.arange(TAYLOR_HALVINGS + 1)
    remainders = []
    for step in steps:
        change = _minus(operator(_plus(model, v, step)), at.data)
        # phi(m + h v) - phi(m) from the change of the data: the difference of the two values would cancel.
        remainders.append(abs(inner(change, residual) + 0.5 * norm(change) ** 2 - step * slope))
    return order_test(remainders, steps)


def jvp_vjp_check(operator: ForwardOperator, model: Nest | None = None, *, seed: int = 0) -> float:
    """Largest relative difference between three ways to ``<w, J v>`` on random directions.

    The ways are `Linearization.jvp`, `Linearization.vjp` and, through ``operator(model)``, TensorFlow's ForwardAccumulator
    (eager and under tf.function).

    Returns:
        The difference relative to |J v| |w|.
    """
    model = _model(operator, model, seed)
    at = operator.linearize(model)
    worst = 0.0
    for trial in range(3):
        v, w = random(operator.model_spec, seed + 10 + trial), random(operator.data_spec, seed + 20 + trial)
        forward = at.jvp(v)
        scale = max(norm(forward) * norm(w), np.finfo(float).tiny)
        found = [inner(at.vjp(w), v)] + [inner(accumulate(model, v), w) for accumulate in _accumulators(operator, trial)]
        worst = max(worst, *(abs(value - inner(forward, w)) / scale for value in found))
    return worst


def mode_test(operator: ForwardOperator, model: Nest | None = None, *, seed: int = 0) -> float:
    """Largest relative difference of data and gradient between eager, tf.function and, where the operator compiles, XLA."""
    model, w = _model(operator, model, seed), random(operator.data_spec, seed + 1)

    def evaluate(model: Nest, w: Nest) -> tuple[Nest, Nest]:
        with tf.GradientTape() as tape:
            tape.watch(model)
            data = operator(model)
        return data, tape.gradient(data, model, output_gradients=w)

    eager = evaluate(model, w)
    runs = [tf.function(evaluate)] + ([tf.function(evaluate, jit_compile=True)] if operator.xla else [])
    return max(relative_difference(part, expected) for run in runs for part, expected in zip(run(model, w), eager, strict=True))


def batch_test(
    operator: ForwardOperator, units: Any, model: Nest | None = None, *, seed: int = 0, rows: Callable[[Nest, Any], Nest] | None = None,
    compiled: Sequence[Any] = (),
) -> float:  # fmt: skip
    """Largest relative difference between a subset's data and adjoint and those of the whole operator.

    Args:
        operator: The whole; every leaf of its data has the units first unless `rows` says otherwise.
        units: Indices of the units of the subset.
        model: Where; random by default.
        seed: Of the random numbers.
        rows: (data, units) to the data of these units.
        compiled: The tf.functions the operator runs; a second subset of the same size must not trace them again.

    Raises:
        AssertionError: A tf.function was traced again.
    """
    model = _model(operator, model, seed)
    take = rows or _take

    def difference(units: Any) -> float:
        part = operator.subset(units)
        w = random(part.data_spec, seed + 1)
        with tf.GradientTape() as tape:
            tape.watch(model)
            expected = take(operator(model), units)
        adjoint = tape.gradient(expected, model, output_gradients=w)
        at = part.linearize(model)
        return max(relative_difference(part(model), expected), relative_difference(at.data, expected), relative_difference(at.vjp(w), adjoint))

    worst = difference(units)
    before = [function.experimental_get_tracing_count() for function in compiled]
    worst = max(worst, difference(_reversed(units)))
    after = [function.experimental_get_tracing_count() for function in compiled]
    assert after == before, f"A second subset of the same size traced again: {before} traces, then {after}. Pass its arrays as arguments."
    return worst


def order_test(errors: Sequence[float] | np.ndarray, spacings: Sequence[float] | np.ndarray) -> float:
    """The observed order p of errors that fall as spacing**p, by least squares of their logarithms.

    Args:
        errors: Positive, one for each spacing.
        spacings: Positive, two or more.
    """
    errors, spacings = checks.positive("errors", errors), checks.positive("spacings", spacings)
    if errors.shape != spacings.shape or errors.size < 2:
        raise checks.invalid("errors", f"of shape {errors.shape}", f"one for each of two or more spacings, of shape {spacings.shape}")
    return float(np.polyfit(np.log(spacings), np.log(errors), 1)[0])


def random(spec: Nest, seed: int) -> Nest:
    """Normally distributed tensors structured as a spec, real and imaginary parts alike."""
    generator = np.random.default_rng(seed)

    def leaf(expected: tf.TensorSpec) -> tf.Tensor:
        shape = tuple(expected.shape)
        values = generator.standard_normal(shape)
        return tf.constant(values + 1j * generator.standard_normal(shape) if expected.dtype.is_complex else values, expected.dtype)

    return tf.nest.map_structure(leaf, spec)


def inner(first: Nest, second: Nest) -> float:
    """``Re sum(conj(a) b)`` over the leaves, in double precision."""
    return sum(float(np.vdot(a, b).real) for a, b in zip(_arrays(first), _arrays(second), strict=True))


def norm(nest: Nest) -> float:
    """``sqrt(<a, a>)``."""
    return inner(nest, nest) ** 0.5


def relative_difference(found: Nest, expected: Nest) -> float:
    """``|a - b| / |b|`` over all leaves; the norm of `found` where `expected` is zero."""
    difference = sum(float(np.sum(np.abs(a - b) ** 2)) for a, b in zip(_arrays(found), _arrays(expected), strict=True)) ** 0.5
    return difference / (norm(expected) or 1.0)


def _accumulators(operator: ForwardOperator, trial: int) -> list[Callable[[Nest, Nest], Nest]]:
    def accumulate(model: Nest, tangent: Nest) -> Nest:
        with tf.autodiff.ForwardAccumulator(model, tangent) as accumulator:
            data = operator(model)
        return accumulator.jvp(data)

    return [accumulate, tf.function(accumulate)] if trial == 0 else [accumulate]  # one trace is enough


def _model(operator: ForwardOperator, model: Nest | None, seed: int) -> Nest:
    return random(operator.model_spec, seed) if model is None else model


def _arrays(nest: Nest) -> list[np.ndarray]:
    arrays = [np.asarray(leaf) for leaf in tf.nest.flatten(nest)]
    return [array.astype(np.complex128 if np.iscomplexobj(array) else np.float64) for array in arrays]


def _scaled(nest: Nest, factor: float) -> Nest:
    return tf.nest.map_structure(lambda leaf: leaf * tf.cast(factor, leaf.dtype), nest)


def _plus(first: Nest, second: Nest, step: float) -> Nest:
    return tf.nest.map_structure(lambda a, b: a + tf.cast(step, a.dtype) * b, first, second)


def _minus(first: Nest, second: Nest) -> Nest:
    return tf.nest.map_structure(tf.subtract, first, second)


def _take(data: Nest, units: Any) -> Nest:
    if isinstance(data, tuple):  # of a Stack: one index set for each part
        return tuple(_take(part, some) for part, some in zip(data, units, strict=True))
    return tf.nest.map_structure(lambda leaf: tf.gather(leaf, units), data)


def _reversed(units: Any) -> Any:
    if isinstance(units, tuple) and isinstance(units[0], (tuple, list, np.ndarray)):  # one index set for each part of a Stack
        return tuple(_reversed(part) for part in units)
    return np.asarray(units)[::-1].copy()
