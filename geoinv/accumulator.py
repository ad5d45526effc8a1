"""Gradients of many batches summed in place: the one place where variables are changed as it goes.

A sum lies in a buffer beside its variable, as rows of a few dozen neighbours: gradients of part of a variable (IndexedSlices, `Window`) are
scattered into the rows that they touch, and cost nothing elsewhere. Dense ones are added by one kernel, compiled together with what
computes them where that is TensorFlow (`fused`): XLA updates the buffer where it is, and a gradient of its own is never stored.
After `reset` the next dense gradient takes the place of what is there, so that nothing is cleared.
"""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import tensorflow as tf

from geoinv.operators import checks

from .gradients import Gradient, NotFiniteError, Window, finite, fitting

Precision = Literal["same", "float64", "kahan"]
PRECISIONS = ("same", "float64", "kahan")
Transform = Callable[[list[tf.Tensor]], Sequence[tf.Tensor]]

#: Length of the rows of a buffer, where the last axis is longer than a few of them: scattering costs as much for a row as for 60 of its entries.
ROW, LONG = 32, 256


@final
@dataclass(frozen=True, eq=False)
class _Buffer:
    """The sum of one variable's gradients: [row, entry], the last axis padded to whole rows.

    Args:
        shape: Of the variable, one axis at least.
        of: Its own.
        total: The sum.
        lost: What rounding has taken from it so far, to be given back (Kahan, Comm. ACM 8, 1965), or None.
    """

    shape: tuple[int, ...]
    of: tuple[int, ...]
    total: tf.Variable
    lost: tf.Variable | None

    @classmethod
    def beside(cls, variable: tf.Variable, precision: Precision) -> "_Buffer":
        """That of a variable."""
        own = tuple(variable.shape.as_list())
        shape = own or (1,)
        row = shape[-1] if shape[-1] < LONG else ROW
        rows = int(np.prod(shape[:-1], dtype=np.int64)) * -(-shape[-1] // row)
        dtype = tf.float64 if precision == "float64" else variable.dtype
        made = [tf.Variable(tf.zeros([rows, row], dtype), trainable=False) for _ in range(2 if precision == "kahan" else 1)]
        return cls(shape, own, made[0], made[1] if precision == "kahan" else None)

    @property
    def _row(self) -> int:
        return int(self.total.shape[1])

    @property
    def _rows(self) -> int:
        """Rows to the last axis."""
        return -(-self.shape[-1] // self._row)

    def add(self, gradient: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        """Add all of a gradient; whether the sum is finite."""
        over = self._rows * self._row - self.shape[-1]
        padded = tf.pad(tf.reshape(gradient, self.shape), [*[[0, 0]] * (len(self.shape) - 1), [0, over]]) if over else gradient
        given = tf.cast(tf.reshape(padded, self.total.shape), self.total.dtype)
        # Read even where it is not needed: XLA then writes the sum to where it is read from, and not beside it.
        total = tf.where(first, tf.zeros([], self.total.dtype), self.total)
        if self.lost is None:
            found = total + given
        else:
            part = given - tf.where(first, tf.zeros([], self.total.dtype), self.lost)
            found = total + part
            self.lost.assign((found - total) - part)
        self.total.assign(found)
        return finite(found)

    def scatter(self, rows: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Add to some rows [k], which may repeat, [k, entry]; whether their sums are finite."""
        values = tf.cast(values, self.total.dtype)
        if self.lost is None:
            self.total.scatter_add(tf.IndexedSlices(values, rows))
            return finite(tf.gather(self.total, rows))
        rows, place = tf.unique(rows)
        return self.renew(rows, tf.math.unsorted_segment_sum(values, place, tf.size(rows)))

    def renew(self, rows: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """As `scatter`, of rows that do not repeat: read, added to and written whole, faster than adding row by row."""
        total, part = tf.gather(self.total, rows), tf.cast(values, self.total.dtype)
        if self.lost is not None:
            part -= tf.gather(self.lost, rows)
        found = total + part
        if self.lost is not None:
            self.lost.scatter_update(tf.IndexedSlices((found - total) - part, rows))
        self.total.scatter_update(tf.IndexedSlices(found, rows))
        return finite(found)

    def of_slices(self, slices: tf.IndexedSlices) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Rows and values of a gradient of some entries along the first axis, and whether there are such entries."""
        given = tf.cast(slices.indices, tf.int64)
        index = tf.clip_by_value(given, 0, self.shape[0] - 1)
        inside = tf.reduce_all(given == index)
        if len(self.shape) == 1:
            return index // self._row, tf.one_hot(index % self._row, self._row, dtype=slices.values.dtype) * slices.values[:, tf.newaxis], inside
        each = int(np.prod(self.shape[1:-1], dtype=np.int64)) * self._rows
        rows = index[:, tf.newaxis] * each + tf.range(each, dtype=tf.int64)
        over = self._rows * self._row - self.shape[-1]
        values = tf.pad(slices.values, [*[[0, 0]] * (len(self.shape) - 1), [0, over]])
        return tf.reshape(rows, [-1]), tf.reshape(values, [-1, self._row]), inside

    def of_window(self, window: Window) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Rows and values of the gradient of a block, and whether it lies inside."""
        values, given, row = window.values, tf.cast(window.start, tf.int64), self._row
        block = tf.shape(values, tf.int64)  # windows of many shapes share a function, in which these are not known
        start = tf.clip_by_value(given, 0, tf.constant(self.shape, tf.int64) - block)
        first, many = start[-1] // row, tf.minimum((block[-1] + row - 2) // row + 1, self._rows)
        lead = start[-1] - first * row
        around = tf.stack([lead, many * row - block[-1] - lead])
        values = tf.pad(values, tf.concat([tf.zeros([len(self.shape) - 1, 2], tf.int64), around[tf.newaxis]], axis=0))
        at = tf.zeros([1], tf.int64)
        for axis, size in enumerate(self.shape[:-1]):
            at = tf.reshape(at[:, tf.newaxis] * size + start[axis] + tf.range(block[axis]), [-1])
        # The last row may begin beyond the end of the axis: it holds zeros then, and goes to the first one, which has none of the window.
        inside = (first + tf.range(many)) % self._rows
        return tf.reshape(at[:, tf.newaxis] * self._rows + inside, [-1]), tf.reshape(values, [-1, row]), tf.reduce_all(given == start)

    def value(self) -> tf.Tensor:
        """The sum, shaped as the variable."""
        return tf.reshape(tf.reshape(self.total, [*self.shape[:-1], self._rows * self._row])[..., : self.shape[-1]], self.of)

    def clear(self) -> bool:
        for each in (self.total, self.lost):
            if each is not None:
                each.assign(tf.zeros_like(each))
        return True


@final
class GradientAccumulator:
    """The sum of gradients with respect to some variables, kept in place.

    `add`, and functions made by `fused`, may be called by several threads; within a `tf.function` of the user's, `add` is part of it, and its
    check is made by the next call outside.

    Args:
        variables: Float variables of known shapes.
        precision: Of the sums: "same" as the variables', "float64", or "kahan" (compensated: nearly twice the digits, twice the memory).
        check: Refuse gradients and sums that are not finite, by their batch and variable; costs a pass over what was changed.
        jit_compile: Whether XLA compiles what is done to whole variables.

    Raises:
        ValueError: No variables, or others than float ones of known shape.
    """

    def __init__(
        self, variables: Sequence[tf.Variable], *, precision: Precision = "same", check: bool = True, jit_compile: bool = True
    ) -> None:  # fmt: skip
        self.variables = tuple(getattr(each, "value", each) if not isinstance(each, tf.Variable) else each for each in variables)
        checks.choice("precision", precision, PRECISIONS)
        for each in self.variables:
            if not isinstance(each, tf.Variable) or not each.dtype.is_floating or not each.shape.num_elements():
                raise checks.invalid("variables", f"with {_short(each)}", "float tf.Variables of known shape that are not empty")
        if not self.variables:
            raise checks.invalid("variables", "of none", "one or more")
        self._given, self._check, self._jit = tuple(variables), check, jit_compile
        self._buffers = [_Buffer.beside(each, precision) for each in self.variables]
        self._count = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._spoiled = tf.Variable(tf.zeros([len(self.variables)], tf.bool), trainable=False)
        self._lock = threading.RLock()
        self._programs: dict[Any, Any] = {}
        self._failed = False
        self._merged, self._scattered = tf.function(self._merge, jit_compile=jit_compile), tf.function(self._merge)

    @property
    def count(self) -> int:
        """How many batches have been added since the last reset."""
        return int(self._count)

    # ---------------------------------------------------------------------------------------------------------- adding

    def add(self, gradients: Sequence[Gradient], *, batch: Any = None) -> None:
        """Add the gradients of a batch.

        Args:
            gradients: One for each variable, in their order: a tensor, tf.IndexedSlices or a `Window`.
            batch: What the batch is called in messages; its number by default.

        Raises:
            ValueError: Another number of gradients, None, another shape or type, a window that is not inside, or one that is not finite: the
                variables are as they were then, and the sums of no use before `reset`.
        """
        gradients = [self._fitting(number, each) for number, each in enumerate(self._as_many(gradients))]
        if not tf.executing_eagerly():
            self._merge(gradients)
            return
        with self._lock:
            self._refuse_spoiled()
            whole = not any(isinstance(each, tf.IndexedSlices | Window) for each in gradients)
            with self._adding():
                (self._merged if whole else self._scattered)(gradients)
            self._verify(batch, gradients)

    def fused(self, function: Callable[..., tuple[Sequence[Gradient], Any]]) -> Callable[..., Any]:
        """A function of batches that adds the gradients it computes as it computes them.

        Args:
            function: In TensorFlow; of tensors, to (gradients, anything else): `linearization.vjp` or a tape in it, for instance. It reads
                the variables themselves.

        Returns:
            A function of the same tensors, and of `batch` as a keyword as for `add`, to the other result.
        """

        @functools.partial(tf.function, jit_compile=self._jit)
        def compiled(*given: Any) -> Any:
            gradients, other = function(*given)
            self._merge([self._fitting(number, each) for number, each in enumerate(self._as_many(gradients))])
            return other

        def called(*given: Any, batch: Any = None) -> Any:
            with self._lock:
                self._refuse_spoiled()
                with self._adding():
                    other = compiled(*given)
                self._verify(batch)
            return other

        return called

    @contextmanager
    def _adding(self) -> Iterator[None]:
        """What fails half-way leaves some variables with the batch and others without it."""
        self._failed = True
        yield
        self._failed = False

    def _merge(self, gradients: Sequence[Gradient]) -> None:
        first, found = self._count == 0, []
        for buffer, gradient in zip(self._buffers, gradients, strict=True):
            if isinstance(gradient, tf.IndexedSlices | Window):
                tf.cond(first, buffer.clear, lambda: True)
                slices = isinstance(gradient, tf.IndexedSlices)
                rows, values, inside = buffer.of_slices(gradient) if slices else buffer.of_window(gradient)
                found.append((buffer.scatter if slices else buffer.renew)(rows, values) & inside)
            else:
                found.append(buffer.add(gradient, first))
        self._count.assign_add(1)
        if self._check:
            self._spoiled.assign(tf.logical_or(self._spoiled, tf.logical_not(tf.stack(found))))

    # --------------------------------------------------------------------------------------------------------- results

    def sum(self) -> list[tf.Tensor]:
        """The sums, in their own precision, zeros where nothing was added.

        Raises:
            ValueError: They are not finite.
        """
        with self._lock:
            self._verify()
            return [buffer.value() if self.count else tf.zeros(buffer.of, buffer.total.dtype) for buffer in self._buffers]

    def mean(self) -> list[tf.Tensor]:
        """The sums over the number of batches.

        Raises:
            ValueError: They are not finite, or nothing was added.
        """
        with self._lock:
            self._refuse_none()
            return [each / tf.cast(self.count, each.dtype) for each in self.sum()]

    def apply(self, optimizer: Any, *, divisor: float | None = None, transform: Transform | None = None) -> None:
        """Let an optimiser change the variables by the mean gradient, and begin anew.

        Args:
            optimizer: With `apply_gradients`, as those of Keras have.
            divisor: Of the sums: the number of batches by default; 1 for the sums themselves, the number of units where batches differ in size.
            transform: Of the means, a list of tensors to such a list, in TensorFlow: smoothing, for instance.

        Raises:
            ValueError: Nothing was added, or sums that are not finite: the variables are as they were then.
        """
        with self._lock:
            self._refuse_none()
            self._verify()
            if not getattr(optimizer, "built", True):
                optimizer.build(list(self._given))
            self._applied(optimizer, transform)(tf.constant(self.count if divisor is None else divisor, tf.float64))
            self.reset()

    def _applied(self, optimizer: Any, transform: Transform | None) -> Any:
        """What lets an optimiser change the variables; one program for each."""
        if (optimizer, transform) not in self._programs:

            def means(divisor: tf.Tensor) -> list[tf.Tensor]:
                sums = [buffer.value() for buffer in self._buffers]
                return [tf.cast(each / tf.cast(divisor, each.dtype), variable.dtype) for each, variable in zip(sums, self.variables, strict=True)]

            def change(gradients: Any) -> None:
                optimizer.apply_gradients(list(zip(gradients, self._given, strict=True)))

            if transform is None:
                self._programs[optimizer, transform] = tf.function(lambda divisor: change(means(divisor)), jit_compile=self._jit)
            else:
                self._programs[optimizer, transform] = self._checked(lambda divisor: list(transform(means(divisor))), change)
        return self._programs[optimizer, transform]

    def _checked(self, transformed: Callable[[tf.Tensor], list[tf.Tensor]], change: Callable[[Any], None]) -> Callable[[tf.Tensor], None]:
        """A change by what must be looked at first."""
        compute, apply = tf.function(transformed, jit_compile=self._jit), tf.function(change, jit_compile=self._jit)

        def call(divisor: tf.Tensor) -> None:
            gradients = compute(divisor)
            if self._check and not all(bool(finite(each)) for each in gradients):
                raise NotFiniteError(str(checks.invalid("transform", "of finite gradients to others", "finite", "The variables are as they were.")))
            apply(gradients)

        return call

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What has been added so far, as arrays, which `from_arrays` takes back to the bit.

        Raises:
            ValueError: It is not finite.
        """
        with self._lock:
            self._verify()
            return {"count": np.asarray(self.count), **{f"buffer{k}": each.numpy() for k, each in enumerate(self._state)}} if self.count else {}

    def from_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from what `to_arrays` gave, of an accumulator for such variables."""
        with self._lock:
            self.reset()
            for k, each in enumerate(self._state if arrays else ()):
                each.assign(arrays[f"buffer{k}"])
            self._count.assign(int(arrays.get("count", 0)))

    @property
    def _state(self) -> list[tf.Variable]:
        return [each for buffer in self._buffers for each in (buffer.total, buffer.lost) if each is not None]

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            self._failed = False
            self._count.assign(0)
            self._spoiled.assign(tf.zeros_like(self._spoiled))

    # ---------------------------------------------------------------------------------------------------------- checks

    def _as_many(self, gradients: Sequence[Gradient]) -> list[Gradient]:
        given = list(gradients)
        if len(given) != len(self.variables):
            raise checks.invalid("gradients", f"{len(given)} in number", f"{len(self.variables)}, one for each variable")
        return given

    def _fitting(self, number: int, gradient: Gradient) -> Gradient:
        variable, name = self.variables[number], f"gradient of {self._name(number)}"
        return fitting(name, gradient, tuple(variable.shape), variable.dtype)

    def _refuse_none(self) -> None:
        if not self.count:
            raise checks.invalid("gradients", "of no batch", "added before they are used")

    def _refuse_failed(self) -> None:
        if self._failed:
            raise checks.invalid("gradients", "of a batch that failed while it was added", "reset", "Call reset(), and begin anew.")

    def _refuse_spoiled(self) -> None:
        self._refuse_failed()
        if self._check and np.any(self._spoiled.numpy()):
            raise checks.invalid("gradients", "that are not finite, from before", "reset", "Call reset(), and leave that batch out.")

    def _verify(self, batch: Any = None, gradients: Sequence[Gradient] | None = None) -> None:
        """Raise if sums are not finite; where the gradients that were added last are at hand, it is told which of both is the reason."""
        self._refuse_failed()
        bad = np.flatnonzero(self._spoiled.numpy()) if self._check else np.empty(0)
        if not bad.size:
            return
        number, of = int(bad[0]), f"batch {self.count - 1 if batch is None else batch!r}"
        whose = "that is not finite, whose sum overflows, or that is not inside,"
        if gradients is not None:
            whole = bool(finite(getattr(gradients[number], "values", gradients[number])))
            whose = "whose sum overflows" if whole else "that is not finite"
        advice = "The variables are as they were. Where sums overflow, sum in float64 or scale the loss."
        raise NotFiniteError(str(checks.invalid(f"gradient of {self._name(number)}", f"{whose} in {of}", "finite", advice)))

    def _name(self, number: int) -> str:
        return f"'{getattr(self._given[number], 'path', None) or self._given[number].name}'"


def _short(value: Any) -> str:
    return f"{value.dtype.name} {value.shape}" if hasattr(value, "dtype") else type(value).__name__
