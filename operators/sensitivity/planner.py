"""Which way to a derivative is the cheapest: of those that fit in memory, the one that takes the least time on this machine."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

from .. import checks
from ..forward import ForwardOperator, Linearization, Nest
from ..sparse.operator import SparseOperator
from .colors import Coloring
from .functions import linearization
from .looped import Loop
from .settled import FixedPoint
from .ways import Products, Way

Task = Literal["gradient", "jacobian", "gauss_newton_product", "hessian_product", "diagonal"]


@final
@dataclass(frozen=True)
class DerivativePlan:
    """The ways to a derivative, the cheapest that fits first of all.

    Args:
        title: What is computed, of what.
        ways: All of them.
        memory: Bytes that may be taken.
        products: How many were planned for.
        missing: Why there are no others, a line each.
    """

    title: str
    ways: Sequence[Way]
    memory: float
    products: int = 1
    missing: Sequence[str] = ()

    @property
    def chosen(self) -> Way:
        """The way that is expected to take the least time of those that fit in memory."""
        return min((way for way in self.ways if way.memory <= self.memory), key=lambda way: way.seconds)

    @property
    def choice(self) -> Any:
        """What to hand on: a mode, a strategy, a colouring."""
        return self.chosen.choice

    def run(self, *arguments: Any, **options: Any) -> Any:
        """Compute it in the chosen way; arguments as of the method of `Linearization` that is named like the task, none for a Jacobian."""
        return self._made(*arguments, **options)

    @functools.cached_property
    def _made(self) -> Callable[..., Any]:
        return self.chosen.make()

    def explain(self) -> str:
        """The ways as a table: time and memory that they are expected to take, the fastest first."""
        ordered = sorted(self.ways, key=lambda way: (way.memory > self.memory, way.seconds))
        width = max(len(way.name) for way in ordered)
        lines = [f"{self.title}, within {_bytes(self.memory)}", f"  {'way':{width}}  {'time':>9}  {'memory':>9}"]
        for way in ordered:
            note = "  too large" if way.memory > self.memory else "  chosen" if way is self.chosen else ""
            lines.append(f"  {way.name:{width}}  {_seconds(way.seconds):>9}  {_bytes(way.memory):>9}{note}")
        return "\n".join([*lines, *(f"  left out: {line}" for line in self.missing)])


def plan(
    of: Linearization | ForwardOperator | Callable[[Nest], Nest] | Loop | FixedPoint, task: Task, *, model: Nest | None = None, pattern: Any = None,
    products: int = 1, accuracy: float = 0.0, memory: float = 2e9, seed: int = 0,
) -> DerivativePlan:  # fmt: skip
    """The cheapest way to a derivative, from the shape of the problem and a product of each kind that is timed here.

    Args:
        of: A linearization; an operator or a TensorFlow function, with its model; or a `Loop` or a `FixedPoint`, for its gradient.
        task: 'gradient' (``J* w``), 'jacobian', 'gauss_newton_product', 'hessian_product', or 'diagonal' (of ``J* W J``).
        model: Structured as the operator or the function takes it.
        pattern: Of the Jacobian, where it is sparse and known: a SciPy sparse matrix, a `CSRMatrix` or a `Coloring` (see `detect_pattern`).
        products: How many gradients or products will be taken at this model: many may be worth a matrix.
        accuracy: Relative error of a diagonal's entries that is good enough; 0 for exact ones.
        memory: Bytes that may be taken.
        seed: Of random vectors.

    Returns:
        `.run(...)` computes it, `.choice` is what to hand on (a strategy, say), `.explain()` prints the alternatives.

    Raises:
        ValueError: An unknown task, no model or one too many, a derivative that there is not, or nothing that fits in memory.
    """
    checks.choice("task", task, get_args(Task))
    checks.count("products", products)
    if not 0 <= checks.finite("accuracy", accuracy) < 1:
        raise checks.invalid("accuracy", accuracy, "from 0 (exact) to below 1")
    checks.positive("memory", memory)
    loop = of.looped(model) if task == "gradient" and isinstance(of, (ForwardOperator, Loop, FixedPoint)) else None
    missing: list[str] = []
    if loop is not None:
        title, ways = loop.title, list(loop.ways(memory))
    else:
        at = _linearized(of, model)
        if task == "hessian_product" and at.curvature is None:
            raise checks.invalid("task", "'hessian_product'", "one that there is", "This operator is not twice differentiable.")
        where = of.matrix if pattern is None and isinstance(of, SparseOperator) else pattern
        coloring = where if where is None or isinstance(where, Coloring) else Coloring(where)
        title = f"{f'{products} times ' if products > 1 else ''}{task.replace('_', ' ')} of {at.shape[0]} data with respect to {at.shape[1]} unknowns"
        ways, missing = _ways(Products(at, coloring, products, accuracy, seed), task)
    if not any(way.memory <= memory for way in ways):
        least = min(ways, key=lambda way: way.memory)
        raise checks.invalid("memory", _bytes(memory), f"at least {_bytes(least.memory)}, for '{least.name}'")
    return DerivativePlan(title, ways, memory, products, missing)


def _ways(products: Products, task: Task) -> tuple[list[Way], list[str]]:
    """The ways, and why others are missing."""
    tasks: dict[Task, Callable[[], Iterator[Way]]] = {
        "gradient": products.gradient,
        "jacobian": products.jacobian,
        "gauss_newton_product": products.gauss_newton_product,
        "hessian_product": products.hessian_product,
        "diagonal": products.diagonal,
    }
    found = list(tasks[task]())
    if not found:
        raise next(iter(products.refused.values()))
    return found, [f"{kind} products, for they raise '{' '.join(str(error).split())[:100]}'" for kind, error in products.refused.items()]


def _linearized(of: Any, model: Nest | None) -> Linearization:
    if isinstance(of, Linearization):
        if model is not None:
            raise checks.invalid("model", "given", "left out: the linearization has its own")
        return of
    if not isinstance(of, ForwardOperator) and not callable(of):
        raise checks.invalid("of", f"a {type(of).__name__}", "a linearization, an operator or a function", "Of a Loop there is 'gradient'.")
    if model is None:
        raise checks.invalid("model", "left out", "given, with an operator or a function")
    return of.linearize(model) if isinstance(of, ForwardOperator) else linearization(of, model)


def _seconds(value: float) -> str:
    for factor, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value * 1e6:.3g} us"


def _bytes(value: float) -> str:
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B"
