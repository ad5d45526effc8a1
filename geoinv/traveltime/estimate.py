"""What a travel-time inversion will take: the times of some shots, carried on to all."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from .. import estimate
from .config import TravelTimeConfig
from .inputs import load
from .job import build_problem

if TYPE_CHECKING:
    from geoinv.operators.forward import ForwardOperator


def estimates(config: TravelTimeConfig, budget: float | None) -> list[estimate.Estimate]:
    """One.

    Args:
        config: The job's.
        budget: Bytes that may be taken: there is nothing to choose.

    Raises:
        ValueError: Anything wrong with the config or its data.
    """
    inputs = load(config)
    numbers = inputs.survey["shot"].values[inputs.fitted]
    shots = np.unique(numbers)
    start = build_problem(config, dataclasses.replace(inputs, fitted=inputs.fitted[numbers == shots[0]])).first.numpy()

    def make(chosen: np.ndarray) -> "ForwardOperator":
        return build_problem(config, dataclasses.replace(inputs, fitted=inputs.fitted[np.isin(numbers, shots[chosen])])).operator

    title = f"{inputs.fitted.size} picks of {shots.size} shots, {np.count_nonzero(inputs.active)} cells"
    return [estimate.of_gauss_newton(title, make, shots.size, start, config.inversion, (2, 6))]
