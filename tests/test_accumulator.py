"""Sums of gradients in place, against sums of arrays in double precision."""

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from geoinv.accumulator import GradientAccumulator
from geoinv.gradients import Window

RANDOM = np.random.default_rng(0)
#: Shapes with rows that are whole, padded, short and alone.
SHAPES = [(), (5,), (300,), (512,), (4, 6), (3, 2, 320), (2, 3, 257), (7, 5, 9)]


def variables(shapes: list[tuple[int, ...]] = SHAPES, dtype: Any = tf.float32) -> list[tf.Variable]:
    return [tf.Variable(tf.cast(RANDOM.normal(size=shape), dtype), name=f"v{number}") for number, shape in enumerate(shapes)]


def drawn(shapes: list[tuple[int, ...]] = SHAPES, dtype: Any = np.float32) -> list[np.ndarray]:
    return [RANDOM.normal(size=shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("precision", ["same", "float64", "kahan"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_and_means_of_dense_gradients(precision: Any, dtype: Any, jit_compile: bool) -> None:
    made = GradientAccumulator(variables(dtype=dtype), precision=precision, jit_compile=jit_compile)
    for _ in range(2):  # the second round begins where the first left its sums
        batches = [drawn(dtype=dtype) for _ in range(5)]
        for batch in batches:
            made.add(batch)
        expected = [np.sum([batch[number].astype(float) for batch in batches], axis=0) for number in range(len(SHAPES))]
        for found, mean, total in zip(made.sum(), made.mean(), expected, strict=True):
            assert found.dtype == (np.float64 if precision == "float64" else dtype)
            assert found.shape == mean.shape == total.shape
            np.testing.assert_allclose(found, total, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(mean, total / 5, rtol=1e-5, atol=1e-5)
        assert made.count == 5
        made.reset()
        assert made.count == 0 and all(not np.any(each) for each in made.sum())


@pytest.mark.parametrize("kind", ["slices", "window"])
@pytest.mark.parametrize("precision", ["same", "kahan"])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape])
def test_parts_of_a_variable(shape: tuple[int, ...], precision: Any, kind: str) -> None:
    """Windows at both ends and anywhere, slices that repeat, and dense gradients between."""
    (variable,) = variables([shape])
    made, expected = GradientAccumulator([variable], precision=precision), np.zeros(shape)
    for turn in range(8):
        if turn in (3, 4):
            (gradient,) = drawn([shape])
            made.add([gradient])
            expected += gradient
        elif kind == "slices":
            indices = RANDOM.integers(0, shape[0], 6)
            values = RANDOM.normal(size=(6, *shape[1:])).astype(np.float32)
            made.add([tf.IndexedSlices(values, indices, shape)])
            np.add.at(expected, indices, values)
        else:
            block = [int(RANDOM.integers(1, size + 1)) for size in shape]
            start = [int(RANDOM.integers(0, size - length + 1)) for size, length in zip(shape, block, strict=True)]
            if turn == 0:
                start = [size - length for size, length in zip(shape, block, strict=True)]
            values = RANDOM.normal(size=block).astype(np.float32)
            made.add([Window(values, start)])
            expected[tuple(slice(at, at + length) for at, length in zip(start, block, strict=True))] += values
    np.testing.assert_allclose(made.sum()[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 33, 64, 270, 290, 300])
def test_windows_begin_and_end_anywhere_in_rows(length: int) -> None:
    """Rows of a long axis are read, added to and written whole: none twice, whatever the window's place among them."""
    made, expected = GradientAccumulator([tf.Variable(tf.zeros([2, 300]))]), np.zeros((2, 300), np.float32)
    for start in range(300 - length + 1):
        made.add([Window(np.full((1, length), start + 1, np.float32), (start % 2, start))])
        expected[start % 2, start : start + length] += start + 1
    np.testing.assert_array_equal(made.sum()[0], expected)


def test_a_part_comes_first_after_a_reset() -> None:
    (variable,) = variables([(40, 300)])
    made = GradientAccumulator([variable])
    made.add([np.ones((40, 300), np.float32)])
    made.reset()
    made.add([Window(np.ones((2, 3), np.float32), (1, 5))])
    assert float(tf.reduce_sum(made.sum()[0])) == 6.0


def test_compensated_sums_lose_next_to_nothing() -> None:
    """A million and ten thousand hundredths: one by one in single precision each is rounded to a sixteenth."""
    large, small = np.full(10, 1e6, np.float32), np.full(10, 0.01, np.float32)
    errors = {}
    for precision in ("same", "kahan", "float64"):
        made = GradientAccumulator([tf.Variable(tf.zeros([10]))], precision=precision)  # type: ignore[arg-type]
        made.add([large])
        for _ in range(1000):
            made.add([small])
        errors[precision] = float(np.abs(made.sum()[0].numpy() - (1e6 + 1000 * float(np.float32(0.01)))).max())
    assert errors["same"] > 5 and errors["kahan"] <= 0.0625 and errors["float64"] < 1e-8


@pytest.mark.parametrize("jit_compile", [True, False])
def test_fused_functions_add_what_a_tape_finds(jit_compile: bool) -> None:
    a, b = variables([(3, 2, 320), (5,)])
    made = GradientAccumulator([a, b], jit_compile=jit_compile)

    def of(scale: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = scale * tf.reduce_sum(tf.sin(a)) + tf.reduce_sum(b**2) * scale**2
        return tape.gradient(loss, [a, b]), loss

    add = made.fused(of)
    losses = [add(tf.constant(scale)) for scale in (1.0, 2.0, -0.5)]
    np.testing.assert_allclose(losses[1], 2 * np.sum(np.sin(a)) + 4 * np.sum(b.numpy() ** 2), rtol=1e-5)
    for found, expected in zip(made.sum(), [2.5 * np.cos(a), 5.25 * 2 * b.numpy()], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_additions_in_a_function_of_the_users() -> None:
    (variable,) = variables([(300,)])
    made = GradientAccumulator([variable])

    @tf.function
    def several(gradients: tf.Tensor) -> None:
        for gradient in gradients:
            made.add([gradient])

    given = tf.constant(RANDOM.normal(size=(6, 300)).astype(np.float32))
    several(given)
    assert made.count == 6
    np.testing.assert_allclose(made.sum()[0], np.sum(given, axis=0), rtol=1e-5, atol=1e-5)
    several(tf.where(tf.range(300) == 7, np.nan, given))
    with pytest.raises(ValueError, match=r"Invalid 'gradient of 'v0:0'' that is not finite, whose sum overflows"):
        made.sum()


@pytest.mark.parametrize("optimizer", [lambda: keras.optimizers.SGD(0.1, momentum=0.9), lambda: keras.optimizers.Adam(0.01)])
def test_optimisers_of_keras_see_the_mean(optimizer: Callable[[], Any]) -> None:
    start, batches = drawn([(4, 6), (300,)]), [drawn([(4, 6), (300,)]) for _ in range(4)]
    results = []
    for accumulated in (True, False):
        own, used = [tf.Variable(each) for each in start], optimizer()
        made = GradientAccumulator(own)
        for _ in range(3):
            if accumulated:
                for batch in batches:
                    made.add(batch)
                made.apply(used)
                assert made.count == 0
            else:
                used.apply_gradients(
                    [(tf.constant(np.mean(parts, axis=0)), each) for parts, each in zip(zip(*batches, strict=True), own, strict=True)]
                )
        results.append(own)
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


def test_variables_of_keras_and_layers_of_them() -> None:
    layer = keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=1))
    layer.build((None, 4))
    made, x = GradientAccumulator(layer.trainable_variables), tf.constant(RANDOM.normal(size=(5, 4)).astype(np.float32))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 2)
    gradients = tape.gradient(loss, layer.trainable_variables)
    before = [tf.identity(each).numpy() for each in layer.trainable_variables]
    made.add(gradients)
    made.apply(keras.optimizers.SGD(0.5))
    for old, new, gradient in zip(before, layer.trainable_variables, gradients, strict=True):
        np.testing.assert_allclose(new, old - 0.5 * gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", ["add", "fused", "window"])
def test_no_addition_of_many_threads_is_lost(way: str) -> None:
    """Whole numbers, whose sums are exact in any order."""
    variable = tf.Variable(tf.zeros([64, 300]))
    made = GradientAccumulator([variable])
    fused = made.fused(lambda scale: ([scale * tf.ones_like(variable)], scale))

    def work(number: int) -> None:
        for turn in range(40):
            scale = float(1 + (number + turn) % 5)
            if way == "add":
                made.add([np.full((64, 300), scale, np.float32)])
            elif way == "fused":
                fused(tf.constant(scale))
            else:
                made.add([Window(np.full((8, 30), scale, np.float32), (3, 11))])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = sum(1 + (number + turn) % 5 for number in range(6) for turn in range(40))
    assert made.count == 240
    found = made.sum()[0].numpy()
    assert np.all(found[3:11, 11:41] == expected) and (way == "window" or np.all(found == expected))


# ------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("gradients", "says"),
    [
        ([np.ones((4, 6), np.float32)], "Invalid 'gradients' 1 in number: must be 2, one for each variable"),
        ([None, np.ones(5, np.float32)], "Invalid 'gradient of 'v0:0'' None: must be a tensor. Does the loss depend on this variable"),
        ([np.ones((4, 5), np.float32), np.ones(5, np.float32)], r"'gradient of 'v0:0'' of shape \(4, 5\): must be of \(4, 6\)"),
        ([np.ones((4, 6)), np.ones(5, np.float32)], "'gradient of 'v0:0'' of type float64: must be float32"),
        ([np.ones((4, 6), np.float32), np.ones((), np.float32)], r"'gradient of 'v1:0'' of shape \(\): must be of \(5,\)"),
        ([Window(np.ones((2, 3), np.float32), (3, 0)), np.ones(5, np.float32)], r"a window of \(2, 3\) from \[3, 0\] on: must be inside of \(4, 6\)"),
        ([Window(np.ones(3, np.float32), (3,)), np.ones(5, np.float32)], r"a window of shape \(3,\): must be of 2 axes"),
        ([tf.IndexedSlices(np.ones((2, 3), np.float32), [0, 1]), np.ones(5, np.float32)], r"slices of shape \(3,\): must be of \(6,\)"),
        ([tf.IndexedSlices(np.ones((1, 6), np.float32), [4]), np.ones(5, np.float32)], r"slices at \[4\]: must be one for each of them, from 0 to 3"),
        ([tf.IndexedSlices(np.ones((1, 6), np.float32), [-1]), np.ones(5, np.float32)], r"slices at \[-1\]: must be one for each"),
        ([tf.IndexedSlices(np.ones((2, 6), np.float32), [1]), np.ones(5, np.float32)], r"slices at \[1\]: must be one for each"),
    ],
)
def test_gradients_that_do_not_fit_are_refused_and_nothing_is_added(gradients: Any, says: str) -> None:
    made = GradientAccumulator(variables([(4, 6), (5,)]))
    with pytest.raises(ValueError, match=says):
        made.add(gradients)
    assert made.count == 0


@pytest.mark.parametrize("way", ["add", "fused", "window"])
def test_a_gradient_that_is_not_finite_names_its_batch_and_leaves_the_model(way: str) -> None:
    first, second = variables([(4, 6), (300,)])
    before = [tf.identity(each).numpy() for each in (first, second)]
    made = GradientAccumulator([first, second])
    made.add([np.ones((4, 6), np.float32), np.ones(300, np.float32)])
    wrong = np.ones(300, np.float32)
    wrong[17] = np.nan
    with pytest.raises(ValueError, match=r"Invalid 'gradient of 'v1:0'' that is not finite.* in batch 'shots 3 to 5': must be finite. The variables"):
        if way == "add":
            made.add([np.ones((4, 6), np.float32), wrong], batch="shots 3 to 5")
        elif way == "fused":
            made.fused(lambda values: ([tf.ones([4, 6]), values], values))(tf.constant(wrong), batch="shots 3 to 5")
        else:
            made.add([np.ones((4, 6), np.float32), Window(wrong[10:20], (10,))], batch="shots 3 to 5")
    for use in (lambda: made.apply(keras.optimizers.SGD(0.1)), made.mean, lambda: made.add([np.ones((4, 6), np.float32), np.ones(300, np.float32)])):
        with pytest.raises(ValueError, match="not finite"):
            use()
    for old, new in zip(before, (first, second), strict=True):
        np.testing.assert_array_equal(old, new)
    made.reset()
    made.add([np.ones((4, 6), np.float32), np.ones(300, np.float32)])
    assert np.all(made.sum()[1] == 1)


@pytest.mark.parametrize("start", [(3, 0), (0, 290), (-1, 5)])
def test_windows_that_a_function_places_outside_are_told(start: tuple[int, int]) -> None:
    """Where they lie is known only when it runs."""
    (variable,) = variables([(4, 300)])
    made = GradientAccumulator([variable])

    @tf.function
    def added(at: tf.Tensor) -> None:
        made.add([Window(tf.ones([2, 20]), at)])

    added(tf.constant([2, 280]))
    assert float(tf.reduce_sum(made.sum()[0])) == float(tf.reduce_sum(made.sum()[0][2:, 280:])) == 40
    added(tf.constant(start))
    with pytest.raises(ValueError, match="or that is not inside, in batch 1"):
        made.sum()


def test_slices_that_a_function_chooses_outside_are_told() -> None:
    """Also beyond the end of a variable and within the last row of its buffer."""
    made = GradientAccumulator(variables([(300,)]))
    added = tf.function(lambda at: made.add([tf.IndexedSlices(tf.ones([1]), at)]))
    added(tf.constant([299]))
    assert float(made.sum()[0][299]) == 1
    added(tf.constant([310]))
    with pytest.raises(ValueError, match="or that is not inside, in batch 1"):
        made.sum()


def test_a_batch_that_fails_half_way_spoils_the_sums() -> None:
    made = GradientAccumulator(variables([(5,)]), jit_compile=False)
    add = made.fused(lambda x: ([tf.debugging.check_numerics(x, "fails") * tf.ones(5)], x))
    add(tf.constant(1.0))
    with pytest.raises(tf.errors.InvalidArgumentError):
        add(tf.constant(np.nan, tf.float32))
    for use in (made.sum, made.mean, lambda: made.apply(keras.optimizers.SGD(0.1)), lambda: made.add([np.ones(5, np.float32)])):
        with pytest.raises(ValueError, match="Invalid 'gradients' of a batch that failed while it was added"):
            use()
    made.reset()
    made.add([np.ones(5, np.float32)])
    assert np.all(made.sum()[0] == 1)


def test_sums_that_overflow_are_told_apart() -> None:
    made = GradientAccumulator(variables([(5,)]))
    made.add([np.full(5, 3e38, np.float32)])
    with pytest.raises(
        ValueError, match=r"whose sum overflows in batch 1: must be finite. The variables are as they were. Where sums overflow, sum in float64"
    ):
        made.add([np.full(5, 3e38, np.float32)])
    double = GradientAccumulator(variables([(5,)]), precision="float64")
    for _ in range(2):
        double.add([np.full(5, 3e38, np.float32)])
    assert np.all(double.sum()[0] > 5e38)


def test_an_accumulator_is_freed_with_its_buffers() -> None:
    """What it has compiled for its optimisers holds it, and nothing else does."""
    made = GradientAccumulator(variables([(300,)]))
    made.add([np.ones(300, np.float32)])
    made.apply(keras.optimizers.SGD(0.1))
    kept = weakref.ref(made)
    del made
    gc.collect()
    assert kept() is None


def test_nothing_is_applied_before_anything_was_added() -> None:
    with pytest.raises(ValueError, match="Invalid 'gradients' of no batch"):
        GradientAccumulator(variables([(5,)])).apply(keras.optimizers.SGD(0.1))


@pytest.mark.parametrize("given", [[], [tf.Variable(1)], [tf.Variable(tf.zeros([3, 0]))], [tf.constant(1.0)], [tf.Variable([1.0], shape=[None])]])
def test_other_variables_are_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="Invalid 'variables'"):
        GradientAccumulator(given)


@pytest.mark.parametrize("precision", ["same", "float64", "kahan"])
def test_sums_go_on_from_arrays_to_the_bit(precision: Any) -> None:
    random = np.random.default_rng(5)
    batches = [random.normal(size=(9, 300)).astype(np.float32) for _ in range(5)]
    (variable,) = variables([(9, 300)])
    whole, half, rest = (GradientAccumulator([variable], precision=precision) for _ in range(3))
    for number, batch in enumerate(batches):
        whole.add([batch])
        (half if number < 3 else rest).add([batch])
        if number == 2:
            rest.from_arrays(half.to_arrays())
    assert rest.count == 5
    np.testing.assert_array_equal(rest.sum()[0], whole.sum()[0])
    rest.from_arrays(GradientAccumulator([variable], precision=precision).to_arrays())
    assert rest.count == 0


def test_sums_are_divided_and_changed_before_an_optimiser_has_them() -> None:
    (variable,) = variables([(4,)])
    before, made = variable.numpy(), GradientAccumulator([variable])
    made.add([np.full(4, 6.0, np.float32)])
    made.add([np.full(4, 2.0, np.float32)])
    made.apply(tf.keras.optimizers.SGD(1.0), divisor=16, transform=lambda means: [tf.cumsum(each) for each in means])
    np.testing.assert_allclose(before - variable.numpy(), 0.5 * np.arange(1, 5), rtol=1e-6)
