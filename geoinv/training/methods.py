"""Optimisers of the trainer: one of Keras, L-BFGS with all data or with batches, Gauss-Newton by products with batches.

Each is a generator of steps, and keeps what its next step depends on as arrays: from these it goes on to the same bits.
"""

import abc
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import tensorflow as tf

from geoinv.operators import checks

from ..descent import LBFGSState, lbfgs
from ..optimize import conjugate_gradients
from ..quasi_newton import InverseHessian, has_curvature

if TYPE_CHECKING:
    from .task import Task

Record = dict[str, Any]
Arrays = dict[str, np.ndarray]
Keep = Callable[[], Arrays]
#: (iteration, history) to a number.
Schedule = Callable[[int, Sequence[Record]], float]


class Method(abc.ABC):
    """How a model is changed."""

    @abc.abstractmethod
    def steps(self, task: "Task", state: Mapping[str, np.ndarray] | None) -> Iterator[tuple[Record, Keep]]:
        """Endless steps, from a state or from the task's model on: what a row of the history says of it, and what gives the state after it."""


@final
@dataclass(frozen=True, eq=False)
class Keras(Method):
    """An optimiser of Keras, applied to the mean gradient of each batch.

    Args:
        optimizer: Such as `tf.keras.optimizers.Adam(1e-2)`.
        learning_rate: A schedule that replaces the optimiser's own.
    """

    optimizer: Any
    learning_rate: Schedule | None = None

    def steps(self, task: "Task", state: Mapping[str, np.ndarray] | None) -> Iterator[tuple[Record, Keep]]:
        self.optimizer.build(task.variables)
        if state is not None:
            for name, variable in zip(self._slots(), self.optimizer.variables, strict=True):
                variable.assign(state[name])
        while True:
            if self.learning_rate is not None:
                self.optimizer.learning_rate = float(self.learning_rate(task.iteration, task.history))
            batch = task.draw()
            loss = task.sum_gradients(task.leaves, batch)
            rate = float(self.optimizer.learning_rate)  # with a schedule of Keras the next one's, once it is applied
            task.apply(self.optimizer, batch)
            yield {"loss": loss, "learning_rate": rate}, self._slots

    def _slots(self) -> Arrays:
        return {f"slot{number}": variable.numpy() for number, variable in enumerate(self.optimizer.variables)}


@final
@dataclass(frozen=True)
class LBFGS(Method):
    """L-BFGS: with a line search where a batch is all of the data, with steps of a given length where it is part of them.

    With batches a pair is the change of the gradient of one batch, which is computed at both ends of the step (Schraudolph, Yu & Guenter 2007).

    Args:
        memory: Pairs to keep.
        learning_rate: Factor of the quasi-Newton step with batches, a number or a schedule.
        first_step: Largest change of an entry in the first step.
        max_step: And in any other.
    """

    memory: int = 7
    learning_rate: float | Schedule = 1.0
    first_step: float | None = None
    max_step: float = np.inf

    def steps(self, task: "Task", state: Mapping[str, np.ndarray] | None) -> Iterator[tuple[Record, Keep]]:
        past = None if state is None else LBFGSState.from_arrays(state)
        return self._searched(task, past) if task.whole else self._stepped(task, past)

    def _searched(self, task: "Task", past: LBFGSState | None) -> Iterator[tuple[Record, Keep]]:
        batch, evaluations = task.draw(), itertools.count(0 if past is None else 1)

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            return task.value_and_gradient(x, batch, trial=next(evaluations) > 0)  # a step too long is shortened

        options = {"memory": self.memory, "first_step": self.first_step, "max_step": self.max_step}
        iterates = lbfgs(objective, task.vector if past is None else past, **options)  # type: ignore[arg-type]
        for iterate in iterates if past is None else itertools.islice(iterates, 1, None):
            if iterate.iteration:
                task.set(iterate.model)
                yield {"loss": iterate.value, "evaluations": iterate.evaluations}, iterate.to_arrays
                task.draw()

    def _stepped(self, task: "Task", past: LBFGSState | None) -> Iterator[tuple[Record, Keep]]:
        x = task.vector
        last = past or LBFGSState(0, 0, 0.0, x, np.zeros_like(x))
        while True:
            batch, number = task.draw(passes=2), last.model.dtype.type
            value, gradient = task.value_and_gradient(last.model, batch)
            largest = float(np.max(np.abs(gradient), initial=0.0)) or 1.0
            # Before there is a pair the gradient's own length is kept to: 1 by default, as large as the largest change of the model.
            scale = 1.0 if last.steps else (self.first_step or 1.0) / largest
            direction = -InverseHessian(last.steps, last.changes, lambda r: r, scale)(gradient)
            rate = self.learning_rate(task.iteration, task.history) if callable(self.learning_rate) else self.learning_rate
            longest = float(np.max(np.abs(direction), initial=0.0))
            step = number(min(rate, self.max_step / longest if longest else rate)) * direction
            model = last.model + step
            change = task.value_and_gradient(model, batch)[1] - gradient
            steps, changes = last.steps, last.changes
            if has_curvature(step, change):
                steps, changes = (*steps, step)[-self.memory :], (*changes, change)[-self.memory :]
            last = LBFGSState(last.iteration + 1, last.evaluations + 2, value, model, gradient, steps, changes)
            task.set(model)
            yield {"loss": value, "learning_rate": float(rate), "evaluations": last.evaluations}, last.to_arrays


@final
@dataclass(frozen=True)
class GaussNewton(Method):
    """Gauss-Newton by conjugate gradients on products with the batch, and a line search; J is held nowhere.

    Args:
        damping: Added to the diagonal of the Hessian (Levenberg 1944), in its own unit.
        cg_iterations, cg_tolerance: When the inner iterations stop.
    """

    damping: float = 0.0
    cg_iterations: int = 20
    cg_tolerance: float = 1e-2

    def steps(self, task: "Task", state: Mapping[str, np.ndarray] | None) -> Iterator[tuple[Record, Keep]]:
        while True:
            x, batch = task.vector, task.draw()
            value, gradient = task.value_and_gradient(x, batch)
            product = task.hessian(x, batch)
            solution = conjugate_gradients(
                lambda v, product=product: product(v) + self.damping * v, -tf.constant(gradient), lambda r: r,  # type: ignore[misc]
                tolerance=self.cg_tolerance, max_iterations=self.cg_iterations,
            )  # fmt: skip
            model = self._search(task, x, value, gradient, solution.x.numpy(), batch)
            if task.whole and np.array_equal(model, x):
                return
            task.set(model)
            yield {"loss": value, "cg_iterations": solution.iterations}, dict

    def _search(self, task: "Task", x: np.ndarray, value: float, gradient: np.ndarray, step: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """The step, halved until the value decreases enough (Armijo)."""
        slope, length = float(gradient.astype(np.float64) @ step.astype(np.float64)), 1.0
        for _ in range(12):
            tried = x + x.dtype.type(length) * step
            if task.value(tried, batch) <= value + 1e-4 * length * slope:
                return tried
            length /= 2
        return x


def as_method(given: Any) -> Method:
    """A method, from itself or from an optimiser of Keras; Adam by default."""
    if given is None:
        return Keras(tf.keras.optimizers.Adam())
    if isinstance(given, Method):
        return given
    if not hasattr(given, "apply_gradients"):
        raise checks.invalid("optimizer", given, "an optimiser of Keras, LBFGS() or GaussNewton()")
    return Keras(given)
