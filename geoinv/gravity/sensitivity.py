"""What gravity data resolve: the linearized problem of a gravity config, with the model term of the inversion as the prior."""

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
import tensorflow as tf

from geoinv.operators.sensitivity import Prior

from ..sensitivity.target import Target, lines, model_of, prior_weight
from .config import GravityConfig
from .inputs import load
from .job import build_operator, build_problem

if TYPE_CHECKING:
    from rich.console import Console

    from ..rundir import Run

#: Deviation of a trend's coefficients before the data, over the spread of these: they are as good as free.
FREE = 100.0


def target(config: GravityConfig, run: "Run | None", console: "Console") -> Target:
    """The problem of a config.

    Args:
        config: The options.
        run: A finished inversion, whose trade-off parameter and model are taken.
        console: Where progress is shown.

    Raises:
        ValueError: No trade-off parameter or smallness, a run on other cells, or anything wrong with the inputs.
    """
    trade_off = prior_weight(config.sensitivity, config.regularization.smallness, run, "density")
    inputs = load(config)
    model = np.where(inputs.active, 0.0, np.nan) if run is None else model_of(run, "density", inputs.grid)
    operator = build_operator(config, inputs, console)
    problem = build_problem(config, inputs, operator, console)
    size, extra = int(inputs.active.sum()), operator.model_spec.shape[0] - int(inputs.active.sum())
    precision = trade_off * problem.regularization.curvature(problem.first).to_scipy()
    if extra:  # in mGal
        free = (FREE * 1e5 * float(np.std(inputs.survey["observed"].values))) ** -2.0
        precision = precision + scipy.sparse.diags_array(np.r_[np.zeros(size), np.full(extra, free)])
    notes = (
        f"{problem.observed.shape[0]} stations, {size} cells; the model term of the inversion as the prior, trade-off {trade_off:.4g}",
        "bounds and robust misfits are left out: the problem is the linear least-squares one",
    )
    return Target(
        grid=inputs.grid,
        active=inputs.active,
        at=problem.operator.linearize(tf.zeros(problem.operator.model_spec.shape, tf.float64)),
        weights=tf.constant(problem.uncertainty) ** -2,
        prior=Prior(precision, order=lines(precision.tocsr(), inputs.active)),
        model=model,
        quantity="density",
        unit="kg/m3",
        notes=notes,
        place={"crs": inputs.survey.attrs.get("crs", "")},
    )
