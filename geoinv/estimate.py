"""What an inversion will take, memory and time, before anything large is there: a few units are computed, and what they take is carried on to all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np
import psutil
import tensorflow as tf

from geoinv.operators import checks
from geoinv.operators.forward import ForwardOperator
from geoinv.operators.sensitivity.timing import measured

from .memory import held

if TYPE_CHECKING:
    from .config import GaussNewton

#: Vectors of the model that Gauss-Newton holds: iterates, gradient, step, those of conjugate gradients.
VECTORS = 16
#: Bytes of smallness and smoothness for each cell, measured.
REGULARIZATION = 120.0


@final
@dataclass(frozen=True)
class Estimate:
    """Of an inversion, or of a band of it.

    Args:
        title: What it is of.
        memory: Bytes by what takes them; the peak is their sum.
        seconds: Of an iteration.
        notes: What was chosen, a line each.
        options: Of the config, to fit the budget: limits by name.
    """

    title: str
    memory: dict[str, float]
    seconds: float
    notes: Sequence[str] = ()
    options: Mapping[str, float] = field(default_factory=dict)

    @property
    def peak(self) -> float:
        """Bytes."""
        return sum(self.memory.values())

    def lines(self) -> list[str]:
        """For people."""
        parts = ", ".join(f"{name} {size(value)}" for name, value in self.memory.items())
        return [f"{self.title}: {size(self.peak)}, {seconds(self.seconds)} an iteration", f"  memory: {parts}", *(f"  {note}" for note in self.notes)]


def told(found: Sequence[Estimate], budget: float | None) -> list[str]:
    """Estimates in lines, held against a budget in bytes.

    Raises:
        ValueError: They do not fit in it.
    """
    lines = [line for each in found for line in each.lines()]
    largest = max(found, key=lambda each: each.peak)
    if budget is not None and largest.peak > budget:
        advice = "Use larger or fewer cells, or less data."
        raise checks.invalid("--memory", size(budget), f"at least {size(largest.peak)}, for {largest.title}", advice)
    for name in sorted({name for each in found for name in each.options}):
        lowest = min(each.options[name] for each in found if name in each.options)
        lines.append(f"to keep to {size(budget or 0.0)}: --set {name}={lowest:g}")
    return lines


def size(value: float) -> str:
    """Bytes for people."""
    return f"{value / 1e9:.2f} GB" if value >= 1e8 else f"{value / 1e6:.1f} MB"


def seconds(value: float) -> str:
    """Seconds for people."""
    return f"{value / 3600:.1f} h" if value > 5400 else f"{value / 60:.1f} min" if value > 90 else f"{value:.2g} s"


def resident() -> float:
    """Bytes that this process takes now: Python, TensorFlow, and the data that were read."""
    return float(psutil.Process().memory_info().rss)


class _Taken(NamedTuple):
    """By the operator of some units: bytes held, and beside them in a product; seconds ahead, to linearize, and for a product with J and J*."""

    held: float
    transient: float
    forward: float
    linearize: float
    product: float


def of_gauss_newton(
    title: str, make: Callable[[np.ndarray], ForwardOperator], units: int, model: np.ndarray, options: "GaussNewton", few: tuple[int, int]
) -> Estimate:
    """That of a Gauss-Newton inversion.

    Args:
        title: What it is.
        make: The operator of some units, by their numbers.
        units: How many there are.
        model: At which it is looked at, [n].
        options: Of the inversion.
        few: How many are computed: with two numbers of them what all have in common is told from what each takes.
    """
    counts = sorted({min(each, units) for each in few})
    some = [_taken(make(np.linspace(0, units - 1, count).astype(int)), model) for count in counts]
    # What was compiled for some serves all, and what building has left behind stays with the process.
    before = max(0.0, resident() - some[-1].held)
    whole = _Taken(*(carried_on(counts, [each[k] for each in some], units) for k in range(len(_Taken._fields))))
    iteration = whole.linearize + options.cg_iterations * whole.product + 2 * whole.forward
    memory = {"process, programs and data": before, "operator": whole.held, "products": whole.transient, "model vectors": 8.0 * VECTORS * model.size}
    memory["regularization"] = REGULARIZATION * model.size
    note = f"{options.cg_iterations} products with J and its transpose of {seconds(whole.product)} each, as inversion.cg_iterations allows"
    return Estimate(title, memory, iteration, [note])


def carried_on(counts: Sequence[int], values: Sequence[float], units: int) -> float:
    """What `units` take, on the straight line through what one or two counts of them took; as much as the larger one where it falls."""
    if len(counts) == 1:
        return values[0]
    slope = max(0.0, (values[1] - values[0]) / (counts[1] - counts[0]))
    return values[1] + slope * (units - counts[1])


def _taken(operator: ForwardOperator, model: np.ndarray) -> _Taken:
    given = tf.constant(model, operator.model_spec.dtype)
    linearize = measured(lambda: operator.linearize(given))
    at = operator.linearize(given)
    products = measured(lambda: at.pullback(at.pushforward(given)))
    forward = measured(lambda: operator.forward(given))
    return _Taken(held([operator, at]), max(products.memory, forward.memory), forward.seconds, linearize.seconds, products.seconds)
