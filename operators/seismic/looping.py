"""The time loop of waves as the planner sees it: what a strategy keeps of it and takes, from one shot that is timed."""

import copy
import functools
from typing import TYPE_CHECKING

import tensorflow as tf

from ..forward import Nest
from ..parallel import cores
from ..sensitivity.looped import Looped
from ..sensitivity.strategy import Plan, Strategy

if TYPE_CHECKING:
    from .acoustic import AcousticWave


def differentiated(wave: "AcousticWave", strategy: Strategy) -> "AcousticWave":
    """An operator with another strategy, and with all that was worked out for the first."""
    other = copy.copy(wave)
    other.__dict__.pop("_loop", None)
    object.__setattr__(other, "differentiation", strategy)
    return other


def looped(wave: "AcousticWave", model: Nest) -> Looped:
    """The loop of all shots, held until all went back, as `linearize` does; the model structured as `model_spec`."""
    shots, first = wave.acquisition.shots, wave.subset([0])
    own = {name: leaf[:1] if name in ("wavelet", "initial") else leaf for name, leaf in model.items()}
    cotangent = tf.ones(first.data_spec.shape, wave.dtype)

    @functools.cache
    def planned(strategy: Strategy) -> Plan:
        return wave.differentiated(strategy)._loop.plan

    def memory(strategy: Strategy) -> float:
        estimate = wave.differentiated(strategy).memory_estimate()
        return float(estimate.kept + estimate.running)

    return Looped(
        steps=wave._loop.steps,
        plan=planned,
        memory=memory,
        ahead=lambda: first.forward(own),
        back=lambda strategy: first.differentiated(strategy).linearize(own).vjp(cotangent),
        gradient=lambda strategy: lambda w: wave.differentiated(strategy).linearize(model).vjp(w),
        parts=-(-shots // min(cores(), shots)),
    )
