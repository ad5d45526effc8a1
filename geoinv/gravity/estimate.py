"""What a gravity inversion will take: the operator of some stations, carried on to all."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from .. import estimate
from .config import GravityConfig
from .inputs import load
from .job import build_operator

if TYPE_CHECKING:
    from geoinv.operators.forward import ForwardOperator


def estimates(config: GravityConfig, budget: float | None) -> list[estimate.Estimate]:
    """One.

    Args:
        config: The job's.
        budget: Bytes that may be taken: there is nothing to choose.

    Raises:
        ValueError: Anything wrong with the config or its data.
    """
    inputs, quiet = load(config), Console(quiet=True)
    whole = config.model_copy(update={"data": config.data.model_copy(update={"trend": "remove", "trend_degree": None})})

    def make(stations: np.ndarray) -> "ForwardOperator":
        return build_operator(whole, dataclasses.replace(inputs, survey=inputs.survey.isel(station=stations)), quiet)

    title = f"{inputs.fitted.size} stations, {np.count_nonzero(inputs.active)} cells ({config.operator.kind})"
    found = estimate.of_gauss_newton(title, make, inputs.fitted.size, inputs.reference, config.inversion, (32, 256))
    if inputs.held.size:  # what is held out is predicted by an operator of all stations, beside that of those that are fitted
        share = inputs.survey.sizes["station"] / inputs.fitted.size
        found = dataclasses.replace(found, memory=found.memory | {"operator of all stations": share * found.memory["operator"]})
    return [found]
