"""What first arrivals resolve: the linearized problem of a travel-time config, with the model term of the inversion as the prior."""

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from geoinv.datasets import line
from geoinv.operators import checks
from geoinv.operators.forward import Linearization
from geoinv.operators.sensitivity import Prior

from ..console import progress
from ..sensitivity.target import Target, lines, model_of, prior_weight
from .config import TravelTimeConfig
from .inputs import load
from .job import PARAMETERS, build_problem

if TYPE_CHECKING:
    from rich.console import Console

    from ..rundir import Run


def target(config: TravelTimeConfig, run: "Run | None", console: "Console") -> Target:
    """The problem of a config, in the parameter that its inversion solves for.

    Args:
        config: The options.
        run: A finished inversion, whose trade-off parameter and model are taken; the start model without it.
        console: Where progress is shown.

    Raises:
        ValueError: No trade-off parameter or smallness, a run on other cells or along another line, or anything wrong with the inputs.
    """
    trade_off, inputs = prior_weight(config.sensitivity, config.regularization.smallness, run, "velocity"), load(config)
    if run is not None and not line.same_place(run.model.attrs, inputs.survey.attrs):
        raise checks.invalid("model", "along another line than the config's picks", "of the same line_origin and line_azimuth")
    velocity = inputs.start if run is None else model_of(run, "velocity", inputs.grid)
    parameter, problem = PARAMETERS[config.regularization.parameter], build_problem(config, inputs)
    with progress(console, "times and their derivative"):
        model = tf.constant(parameter.of_velocity(velocity[inputs.active]))
        at: Linearization = problem.operator.linearize(model)
    precision = trade_off * problem.regularization.curvature(model).to_scipy()
    name = {"log": "logarithm of slowness", "slowness": "slowness", "velocity": "velocity"}[config.regularization.parameter]
    notes = (
        f"{problem.observed.shape[0]} picks, {inputs.active.sum()} cells, unknown: {name}; the model term of the inversion as the prior, "
        f"trade-off {trade_off:.4g}",
        "bounds and robust misfits are left out, and ways stay as they are in this model: the problem is the linear least-squares one",
    )
    field = np.full(inputs.grid.shape, np.nan)
    field[inputs.active] = model.numpy()
    return Target(
        grid=inputs.grid,
        active=inputs.active,
        at=at,
        weights=problem.uncertainty**-2,
        prior=Prior(precision, order=lines(precision.tocsr(), inputs.active)),
        model=field,
        quantity=name,
        unit=parameter.unit,
        notes=notes,
        place=line.place(inputs.survey),
    )
