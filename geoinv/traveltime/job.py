"""The travel-time job: from a config to a directory of results."""

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from geoinv.datasets import line
from geoinv.datasets.files import sha256

from .. import rundir
from ..console import progress
from ..resuming import finish, run
from .config import TravelTimeConfig
from .coverage import errors
from .inputs import Inputs, describe, load

if TYPE_CHECKING:
    import xarray
    from rich.console import Console

    from geoinv.operators.forward import ForwardOperator
    from geoinv.operators.seismic import Eikonal
    from geoinv.operators.seismic.arrivals import Arrivals

    from ..checkpoints import Checkpoint
    from ..cluster import Cluster
    from ..inversion import Outcome, Problem

# A job's output is for people: TensorFlow's notes on its own start-up, about graphics cards mostly, would bury it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

#: Slope of the ground beyond which the steps of whole cells hurt times more than twice as many nodes along each axis cost.
STEEP = 0.4
#: Nodes of the shots of a block: some 10 ms of a product.
BLOCK = 2.0**20
#: Points of a way that are kept for the figures.
POINTS = 60


class Parameter(NamedTuple):
    """What is solved for in place of velocity.

    Args:
        of_velocity, velocity: There and back; monotonic.
        unit: Of it.
    """

    of_velocity: Callable[[Any], Any]
    velocity: Callable[[Any], Any]
    unit: str


PARAMETERS = {
    "log": Parameter(lambda v: -np.log(v), lambda m: np.exp(-m), "1"),
    "slowness": Parameter(np.reciprocal, np.reciprocal, "s/m"),
    "velocity": Parameter(np.asarray, np.asarray, "m/s"),
}


def check(config: TravelTimeConfig) -> list[str]:
    """Read and check everything a config names; computes nothing and does not import TensorFlow.

    Raises:
        ValueError: Anything wrong.
    """
    return check_lines(load(config))


def check_lines(inputs: Inputs) -> list[str]:
    """What was read, and what to know about it."""
    return [*describe(inputs), *(f"warning: {line}" for line in inputs.warnings)]


def invert(
    config: TravelTimeConfig,
    output: Path,
    *,
    overwrite: bool = False,
    console: "Console",
    true_velocity: np.ndarray | None = None,
    checkpoint: "Checkpoint | None" = None,
    cluster: "Cluster | None" = None,
) -> dict[str, Any]:
    """Invert first arrivals and write the results.

    Args:
        config: The options.
        output: Directory to write.
        overwrite: Replace the results of an earlier run.
        console: Where progress is shown.
        true_velocity: The known model of a synthetic survey, m/s on the grid, to be compared in the report.
        checkpoint: Of a run of this config that was stopped, to go on from.
        cluster: On whose workers the times of shots and their products are computed.

    Returns:
        The summary, as written to summary.json.

    Raises:
        ValueError: Anything wrong with the inputs or the output directory; nothing is written then.
    """
    began = time.perf_counter()
    rundir.prepare(output, overwrite=overwrite)
    inputs = load(config)
    for text in check_lines(inputs):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    outcome = run(config, build_problem(config, inputs, cluster), output, _files(config), console, checkpoint)
    with progress(console, "times and ways of all picks"):
        velocity = velocity_of(config, inputs, outcome.last.model.numpy())
        model, predicted, ways = _results(config, inputs, velocity, true_velocity)
    summary = _summary(config, inputs, outcome, predicted, time.perf_counter() - began) | errors(model)
    rundir.clear(output)
    if config.output.vtk:
        from geoinv.datasets import vtk

        vtk.write_vtr(output / "model.vtr", inputs.grid, {name: model[name].values for name in ("velocity", "coverage")})
    history = [each.record() for each in outcome.iterates]
    rundir.write(output, config=config, model=model, predicted=predicted, history=history, summary=summary, extra={"rays": ways})
    with progress(console, "figures and report"):
        from ..report import write

        write(output)
    finish(output, outcome.status)
    return summary


def times(config: TravelTimeConfig, inputs: Inputs, some: np.ndarray | None = None) -> "Eikonal":
    """Travel times of picks, all by default, from the slowness of cells."""
    from geoinv.operators.seismic import Eikonal

    chosen = inputs.survey if some is None else inputs.survey.isel(pick=some)
    sensors, (shots, number) = inputs.sensors(), np.unique(chosen["shot"].values, return_inverse=True)
    options = config.operator
    parts = options.refinement or (2 if inputs.steepness() > STEEP else 1)
    receivers, active = sensors[chosen["receiver"].values], inputs.ground.active(inputs.grid, parts)
    return Eikonal(inputs.grid, sensors[shots], receivers, number, active=active, refinement=parts, order=options.order)


def in_blocks(arrivals: "Arrivals", cluster: "Cluster | None") -> "ForwardOperator":
    """Shot after shot in blocks, each large enough that what it takes besides its marches does not count."""
    from ..blockwise import blockwise, cut

    shots = cut(len(arrivals.ways), BLOCK / arrivals.medium.size)
    share = dataclasses.replace(arrivals, assembled=arrivals.assembled / len(shots))
    return blockwise(share, shots, [np.concatenate([arrivals.ways[shot].picks for shot in each]) for each in shots], cluster)


def build_problem(config: TravelTimeConfig, inputs: Inputs, cluster: "Cluster | None" = None) -> "Problem":
    """The inverse problem of the picks that are fitted, over the parameter of active cells; shots on the workers of a cluster where there is one."""
    import tensorflow as tf

    from ..inversion import Problem
    from ..maps import ActiveCells, Exponential, Reciprocal
    from ..misfit import chosen
    from ..regularization import small_and_blocky, small_and_smooth

    options, parameter = config.regularization, PARAMETERS[config.regularization.parameter]
    operator = times(config, inputs, inputs.fitted)
    physics = in_blocks(operator.arrivals, cluster) @ operator.of_nodes
    if options.parameter != "slowness":
        physics = physics @ {"log": Exponential, "velocity": Reciprocal}[options.parameter](inputs.grid.shape)
    start = parameter.of_velocity(inputs.start[inputs.active])
    known = {
        "smallness": options.smallness,
        "smoothness": options.smoothness,
        "reference": start if options.reference == "start" else parameter.of_velocity(options.reference),
    }
    if options.shape == "blocky":  # a relative change, in the parameter's own unit
        threshold = options.threshold * (1.0 if options.parameter == "log" else float(np.median(start)))
        penalty: Any = small_and_blocky(inputs.grid, inputs.active, **known, threshold=threshold)
    else:
        penalty = small_and_smooth(inputs.grid, inputs.active, **known)
    limits = sorted(float(parameter.of_velocity(each)) for each in (config.bounds.lower, config.bounds.upper))
    return Problem(
        operator=physics @ ActiveCells(inputs.active),
        observed=tf.constant(inputs.survey["observed"].values[inputs.fitted]),
        uncertainty=tf.constant(inputs.survey["uncertainty"].values[inputs.fitted]),
        regularization=penalty,
        misfit=chosen(config.inversion.misfit, config.inversion.huber_threshold),
        lower=limits[0],
        upper=limits[1],
        start=start,
    )


def velocity_of(config: TravelTimeConfig, inputs: Inputs, model: np.ndarray) -> np.ndarray:
    """The velocity of cells [grid.shape], m/s, NaN above the ground."""
    found = np.full(inputs.grid.shape, np.nan)
    found[inputs.active] = PARAMETERS[config.regularization.parameter].velocity(model)
    return found


def _results(
    config: TravelTimeConfig, inputs: Inputs, velocity: np.ndarray, true_velocity: np.ndarray | None
) -> tuple["xarray.Dataset", "xarray.Dataset", "xarray.Dataset"]:
    """The model with its coverage, the picks with their predictions, and the ways of the picks that were fitted."""
    import tensorflow as tf

    slowness, grid = np.divide(1, velocity, out=np.ones(velocity.shape), where=inputs.active), inputs.grid
    flags = np.zeros(inputs.survey.sizes["pick"], np.int8)
    flags[inputs.held] = 1
    operator = times(config, inputs)
    at = operator.linearize(tf.constant(slowness))
    lengths = at.vjp(tf.constant(flags == 0, tf.float64)).numpy()
    fields = {
        "velocity": (velocity, "m/s", "velocity"),
        "start_velocity": (np.where(inputs.active, inputs.start, np.nan), "m/s", "velocity at the start"),
        "coverage": (
            np.where(inputs.active, lengths / grid.volumes, np.nan),
            "1/m",
            "derivative of the sum of times by slowness, the length of all ways in a cell, over its area",
        ),
    }
    if true_velocity is not None:
        fields["true_velocity"] = (np.where(inputs.active, true_velocity, np.nan), "m/s", "true velocity")
    import xarray

    model = xarray.Dataset(
        {name: grid.to_xarray(values, name=name, units=unit).assign_attrs(long_name=text) for name, (values, unit, text) in fields.items()}
    )
    knots = {"surface_easting": ("knot", inputs.ground.easting, {"units": "m"}), "surface_upward": ("knot", inputs.ground.upward, {"units": "m"})}
    model = model.assign(knots).assign_attrs(line.place(inputs.survey))
    predicted = inputs.survey.assign(predicted=("pick", at.data.numpy(), {"units": "s"}), holdout=("pick", flags))
    return model, predicted, _ways(inputs, operator.rays(slowness))


def _ways(inputs: Inputs, rays: list[np.ndarray]) -> "xarray.Dataset":
    """The ways of the picks that were fitted as a data set over all of their points, thinned for drawing."""
    import xarray

    thin = [way[np.unique(np.linspace(0, len(way) - 1, POINTS).round().astype(int))] for way in (rays[pick] for pick in inputs.fitted)]
    points = np.concatenate(thin)
    return xarray.Dataset(
        {
            "pick": ("point", np.repeat(inputs.fitted, [len(way) for way in thin])),
            "upward": ("point", points[:, 0], {"units": "m"}),
            "easting": ("point", points[:, 1], {"units": "m"}),
        }
    )


def _summary(config: TravelTimeConfig, inputs: Inputs, outcome: "Outcome", predicted: "xarray.Dataset", seconds: float) -> dict[str, Any]:
    residual = 1e3 * (predicted["predicted"].values - predicted["observed"].values)
    fitted, held = residual[inputs.fitted], residual[inputs.held]
    return {
        "status": outcome.status,
        "reason": outcome.reason,
        "iterations": outcome.last.iteration,
        "chi2": outcome.last.chi2,
        "rms": float(np.sqrt(np.mean(fitted**2))),
        "rms_unit": "ms",
        "holdout_rms": float(np.sqrt(np.mean(held**2))) if held.size else None,
        "median_residual": float(np.median(np.abs(fitted))),
        "seconds": seconds,
        "peak_memory_bytes": rundir.peak_memory_bytes(),
        "n_data": int(inputs.fitted.size),
        "n_holdout": int(inputs.held.size),
        "n_model": int(inputs.active.sum()),
        "n_moved": int(np.count_nonzero(inputs.survey["moved"].values)),
        "versions": rundir.versions(),
        "seeds": {"seed": config.seed},
        "sha256": {path: sha256(path) for path in _files(config)},
        "warnings": list(inputs.warnings),
    }


def _files(config: TravelTimeConfig) -> list[str]:
    """The files that the result depends on."""
    return [path for path in (config.data.file, config.topography.file, config.start.file) if path]
