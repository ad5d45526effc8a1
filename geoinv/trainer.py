"""Fitting a large gridded model to a survey that need not fit in memory: batches, gradients summed in place, runs that survive a kill."""

import numbers
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from geoinv.datasets.batches import Blocks
from geoinv.datasets.files import digest
from geoinv.datasets.units import Arrays, Units
from geoinv.operators import checks
from geoinv.operators.forward import Nest

from . import checkpoints
from .accumulator import Precision, Transform
from .checkpoints import Checkpoint
from .cluster import Cluster
from .training.loss import Fit, Loss, Mapped, Penalty, as_loss
from .training.methods import GaussNewton, as_method
from .training.metrics import Metrics
from .training.task import Record, Size, Task

#: A condition to stop on: the history to the reason, or None to go on.
Stop = Callable[[Sequence[Record]], str | None]


@final
@dataclass(frozen=True, eq=False)
class Outcome:
    """Where the training ended and why.

    Args:
        status: 'iteration-limit', 'stopped' (by the condition), 'converged' (no step decreases the loss) or 'interrupted'.
        reason: In a sentence.
        model: Structured as the first one; what the map makes of it where there is one.
        history: A record a step. Its loss is that of the step's batch before the step; with L-BFGS on all of the data, after it. Its programs
            are those that this process has compiled.
    """

    status: str
    reason: str
    model: Nest
    history: Sequence[Record]


@final
class Trainer:
    r"""Minimises the mean of a loss over the units of a survey, plus a penalty,

    .. math:: \frac{1}{N} \sum_u \phi_u(m) + R(m)

    a batch of units at a time. Each batch's gradients are summed in place, block after block in the order of their units. A block is what is
    computed at once, whatever the batch: the sum of a batch has the same bits however it came to be, and another size of block changes it
    by rounding only. The same arguments give the same run to the bit; so does one that was killed, from its last checkpoint on.

    Args:
        loss: Of a block of units, summed over them: a function of (model, batch) in TensorFlow, where the batch holds the survey's arrays
            [unit, ...] and the units' numbers as "unit"; or `Fit(operator)`, whose gradients are those of the operator, one block on each core.
        start: First model: a nest of float32 or float64 arrays; of what goes into the map where there is one.
        data: The survey: `Arrays`, or a `SurveyFile` that is read a few blocks ahead; a dict of arrays [unit, ...] is taken as `Arrays`.
        optimizer: One of Keras, `LBFGS()` or `GaussNewton()`; Adam by default.
        batch: Units to a step, a function of (iteration, history), or None for all of them.
        block: Units that are computed at once.
        penalty: R, a function of the model (before the map) in TensorFlow.
        map: From what is changed to the model that the loss takes, such as `maps.Bounded` or a network.
        smoothing: Of the mean gradients, from a list of tensors (the model's leaves) to such a list, in TensorFlow.
        precision: Of the sums: "same" as the model's, "float64" or "kahan".
        seed: Of the order of the blocks in each epoch; the survey's order if None.
        cluster: From `cluster.connected`, on whose workers the blocks of `Fit` and of `Loss(function, traceable=False)` are computed, to the same
            bits; what the loss is made of must be there, too.
        directory: Where history.csv and checkpoints are kept.
        checkpoint_seconds: Between checkpoints, at least; they are made after steps and within them, after blocks.
        tensorboard: Whether scalars for TensorBoard are written there, too.

    Raises:
        ValueError: Arguments that do not fit together.
    """

    def __init__(
        self,
        loss: Any,
        start: Nest,
        data: Units | Mapping[str, Any],
        *,
        optimizer: Any = None,
        batch: Size = 1,
        block: int = 1,
        penalty: Callable[[Nest], Any] | None = None,
        map: Callable[[Nest], Nest] | None = None,
        smoothing: Transform | None = None,
        precision: Precision = "same",
        seed: int | None = 0,
        cluster: Cluster | None = None,
        directory: str | Path | None = None,
        checkpoint_seconds: float = 30.0,
        tensorboard: bool = False,
    ) -> None:
        source = data if isinstance(data, Units) else Arrays(data)
        given, self._map = as_loss(loss), map
        self._method = as_method(optimizer)
        if getattr(getattr(self._method, "optimizer", None), "built", False):
            raise checks.invalid("optimizer", "of other variables", "one of its own", "Keras' optimisers serve one model each.")
        seed = None if seed is None else checks.count("seed", seed, least=0)
        if isinstance(batch, numbers.Integral):
            batch = checks.count("batch", batch)
        if smoothing is not None and isinstance(self._method, GaussNewton):
            raise checks.invalid("smoothing", "of gradients", "left out with GaussNewton()", "Penalise roughness.")
        if cluster is not None and given.traceable:
            raise checks.invalid("cluster", "for a loss that is compiled here", "left out, or with Fit(...) or Loss(function, traceable=False)")
        blocks = Blocks(source.count, checks.count("block", block), seed)
        mapped = given if map is None else Mapped(given, map)
        self._task = Task(mapped, Penalty(penalty), source, blocks, start, batch, precision, smoothing, self._keep, cluster)
        self._directory = None if directory is None else Path(directory)
        self._every, self._kept = checkpoint_seconds, time.monotonic()
        self._metrics = Metrics(self._directory, tensorboard=tensorboard)
        self._state: Callable[[], dict[str, np.ndarray]] | None = None
        self._number, self._fresh = 0, False
        self._options = {
            "data": source.describe(),
            "model": [f"{leaf.dtype.name} {tuple(leaf.shape)} {digest(leaf.numpy())}" for leaf in self._task.variables],
            "loss": _named(given),
            "penalty": _named(penalty),
            "map": _named(map),
            "smoothing": _named(smoothing),
            "batch": batch if batch is None or isinstance(batch, int) else "a function",
            "block": blocks.size,
            "precision": precision,
            "seed": seed,
            **_described(getattr(self._method, "optimizer", self._method)),
        }

    @property
    def model(self) -> Nest:
        """As it is now: what the map makes of it where there is one."""
        return self._task.model if self._map is None else self._map(self._task.model)

    @property
    def parameters(self) -> Nest:
        """What is changed: the model before the map."""
        return self._task.model

    def fit(self, iterations: int, *, stop: Stop | None = None, report: Callable[[Record], None] = lambda _: None) -> Outcome:
        """Train from the first model on, or go on after an earlier call.

        Args:
            iterations: Number of the last step, counted from the beginning.
            stop: Asked after each step.
            report: Called with the record of each step.

        Raises:
            ValueError: A loss or gradient that is not finite (the units are named, and the model is as it was before the step), data that
                cannot be read, or a directory with checkpoints of another run.
        """
        if self._directory is not None and not self._number and checkpoints.there(self._directory):
            advice = "Go on with resume(), or remove its folder 'checkpoints'."
            raise checks.invalid("directory", f"'{self._directory}'", "without checkpoints of a run", advice)
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True)
        self._metrics.begin(self._task.history)
        return self._run(iterations, stop, report)

    def resume(
        self, iterations: int, *, stop: Stop | None = None, report: Callable[[Record], None] = lambda _: None, allow_different_bits: bool = False
    ) -> Outcome:  # fmt: skip
        """Go on from the last checkpoint in the directory, of a run with the same arguments; it ends with the same bits as if it had not been left.

        Of functions only the names are compared; `Fit` is compared by its operator's and misfit's kinds.

        Args:
            iterations, stop, report: As for `fit`.
            allow_different_bits: On another processor or with other versions too.

        Raises:
            ValueError: As `fit`; no checkpoint, one of other arguments or another machine, or a run that has done all iterations.
        """
        if self._directory is None or not checkpoints.there(self._directory):
            raise checks.invalid("directory", f"'{self._directory}'", "with checkpoints of a run", "Begin with fit().")
        checkpoint = checkpoints.latest(self._directory / checkpoints.FOLDER)
        checkpoints.check_same(checkpoint, "options", self._options, "Begin anew in another directory.")
        if not allow_different_bits:
            checkpoints.check_same(checkpoint, "machine", checkpoints.machine(), "Allow different bits to go on all the same.")
        if (done := checkpoint.about["iteration"]) >= iterations:
            raise checks.invalid("iterations", iterations, f"more than the {done} that are done", "The run has ended.")
        self._take_up(checkpoint)
        self._metrics.begin(self._task.history)
        return self._run(iterations, stop, report)

    def _run(self, iterations: int, stop: Stop | None, report: Callable[[Record], None]) -> Outcome:
        task, began = self._task, time.perf_counter()
        task.begin()
        before = task.history[-1]["seconds"] if task.history else 0.0
        state = None if self._state is None else self._state()
        try:
            steps = self._method.steps(task, state)
            while task.iteration < iterations:
                step = next(steps, None)
                if step is None:
                    return self._ended("converged", "No step decreases the loss any more.")
                record, self._state = step
                record = {**task.stepped(record), "seconds": before + time.perf_counter() - began}
                task.history.append(record)
                task.interrupts.release()
                self._metrics.add(record)
                report(record)
                self._keep()
                if reason := stop and stop(task.history):
                    return self._ended("stopped", reason)
        except KeyboardInterrupt:
            self._keep(due=True)
            if not task.iteration:
                raise
            return Outcome("interrupted", f"Interrupted in step {task.iteration + 1}.", self.model, tuple(task.history))
        finally:
            task.interrupts.restore()
            task.passes.close()
        return self._ended("iteration-limit", f"{iterations} iterations were allowed.")

    def _ended(self, status: str, reason: str) -> Outcome:
        self._keep(due=True)
        return Outcome(status, reason, self.model, tuple(self._task.history))

    # ------------------------------------------------------------------------------------------------------ checkpoints

    def _keep(self, *, due: bool = False) -> None:
        """Write a checkpoint, if it is time for one."""
        if self._directory is None or (due and self._fresh):
            return
        self._fresh = False
        if not due and time.monotonic() - self._kept < self._every:
            return
        arrays, about = self._task.to_arrays()
        own = {} if self._state is None else {f"method.{name}": array for name, array in self._state().items()}
        about = {**about, "begun": self._state is not None, "options": self._options, "machine": checkpoints.machine()}
        checkpoints.save(self._directory / checkpoints.FOLDER, self._number, {**arrays, **own}, about)
        self._number, self._kept, self._fresh = self._number + 1, time.monotonic(), True

    def _take_up(self, checkpoint: Checkpoint) -> None:
        self._task.from_arrays(dict(checkpoint.arrays), dict(checkpoint.about))
        own = {name.partition(".")[2]: array for name, array in checkpoint.arrays.items() if name.startswith("method.")}
        self._state = (lambda: own) if checkpoint.about["begun"] else None
        self._number = checkpoint.number + 1


def _described(optimizer: Any) -> dict[str, Any]:
    """What tells an optimiser from others: its kind and numbers."""
    options = optimizer.get_config() if hasattr(optimizer, "get_config") else vars(optimizer)
    plain = {f"optimizer's {name}": _plain(value) for name, value in options.items() if name != "name"}
    return {"optimizer": type(optimizer).__name__, **plain}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):  # a schedule of Keras
        return {str(name): _plain(each) for name, each in value.items()}
    return value if isinstance(value, int | float | str | None) else _named(value)


def _named(given: Any) -> str | None:
    """What a function or a loss is called."""
    if isinstance(given, Fit):
        return f"Fit of {type(given.operator).__name__}, {given.misfit}"
    if isinstance(given, Loss):
        return _named(given.function)
    return None if given is None else getattr(given, "__qualname__", type(given).__name__)
