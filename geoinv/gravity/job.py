"""The gravity job: from a config to a directory of results."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoinv.datasets import trend
from geoinv.datasets.files import sha256

from .. import rundir
from ..console import progress
from ..resuming import finish, run
from .config import GravityConfig
from .inputs import Inputs, describe, load

if TYPE_CHECKING:
    import xarray
    from rich.console import Console

    from geoinv.operators.forward import ForwardOperator

    from ..checkpoints import Checkpoint
    from ..cluster import Cluster
    from ..inversion import Outcome, Problem

MGAL = 1e5  # mGal in one m/s2
#: Of a block of stations: entries of a kernel of prisms, and by the finite-difference operator stations, at least, and cells to a station.
KERNEL, STATIONS, CELLS = 2.0**24, 4096, 16.0

# A job's output is for people: TensorFlow's notes on its own start-up, about graphics cards mostly, would bury it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def check(config: GravityConfig) -> list[str]:
    """Read and check everything a config names; computes nothing and does not import TensorFlow.

    Raises:
        ValueError: Anything wrong.
    """
    return check_lines(load(config))


def invert(
    config: GravityConfig,
    output: Path,
    *,
    overwrite: bool = False,
    console: "Console",
    true_density: np.ndarray | None = None,
    checkpoint: "Checkpoint | None" = None,
    cluster: "Cluster | None" = None,
) -> dict[str, Any]:
    """Invert a survey and write the results.

    Args:
        config: The options.
        output: Directory to write.
        overwrite: Replace the results of an earlier run.
        console: Where progress is shown.
        true_density: The known model of a synthetic survey, kg/m3 on the grid, to be compared in the report.
        checkpoint: Of a run of this config that was stopped, to go on from.
        cluster: On whose workers the gravity at blocks of stations and its products are computed.

    Returns:
        The summary, as written to summary.json.

    Raises:
        ValueError: Anything wrong with the inputs or the output directory; nothing is written then.
    """
    began = time.perf_counter()
    rundir.prepare(output, overwrite=overwrite)
    inputs = load(config)
    for line in check_lines(inputs):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    operator = build_operator(config, inputs, console)
    problem = build_problem(config, inputs, operator, console, cluster)
    outcome = run(config, problem, output, _files(config), console, checkpoint)
    predicted = operator.forward(outcome.last.model).numpy()
    summary = _summary(config, inputs, outcome, predicted, time.perf_counter() - began)
    model, data = _results(config, inputs, outcome, predicted, true_density)
    rundir.clear(output)
    _export(config, inputs, model, output)
    rundir.write(output, config=config, model=model, predicted=data, history=[each.record() for each in outcome.iterates], summary=summary)
    with progress(console, "figures and report"):
        from ..report import write

        write(output)
    finish(output, outcome.status)
    return summary


def check_lines(inputs: Inputs) -> list[str]:
    """What was read, and what to know about it."""
    return [*describe(inputs), *(f"warning: {line}" for line in inputs.warnings)]


def build_operator(config: GravityConfig, inputs: Inputs, console: "Console") -> "ForwardOperator":
    """Gravity of a vector of densities of the active cells, and of a trend's coefficients (mGal) if they are solved for."""
    from geoinv.operators.gravity.poisson import GravityPoisson
    from geoinv.operators.gravity.prism import GravityPrism

    from ..maps import ActiveCells, WithTrend

    with progress(console, "forward operator"):
        if config.operator.kind == "prism":
            physics: ForwardOperator = GravityPrism(inputs.grid, inputs.survey, active=inputs.active)
        else:
            physics = GravityPoisson(inputs.grid, inputs.survey, tolerance=config.operator.tolerance, active=inputs.active)
    operator: ForwardOperator = physics @ ActiveCells(inputs.active)
    if config.data.trend == "solve" and config.data.trend_degree is not None:
        terms = trend.trend_matrix(inputs.survey["easting"].values, inputs.survey["northing"].values, config.data.trend_degree)
        operator = WithTrend(operator, terms[:, None, :] / MGAL)
    return operator


def in_blocks(config: GravityConfig, inputs: Inputs, operator: "ForwardOperator", cluster: "Cluster | None") -> "ForwardOperator":
    """The operator of the stations that are fitted, in blocks of them.

    One solve of Poisson's equation serves all stations of a block: blocks are so large that it takes less than half of their time.
    """
    from ..blockwise import blockwise, cut

    cells = inputs.grid.size
    # Eight rows of a kernel in double precision end at a multiple of 64 bytes: where nothing is held out, blocks are slices of it, and no copies.
    prisms = config.operator.kind == "prism"
    blocks = cut(inputs.fitted.size, KERNEL / cells, 8) if prisms else cut(inputs.fitted.size, max(STATIONS, cells / CELLS))
    return blockwise(operator, [inputs.fitted[each] for each in blocks], blocks, cluster)


def build_problem(
    config: GravityConfig, inputs: Inputs, operator: "ForwardOperator", console: "Console", cluster: "Cluster | None" = None
) -> "Problem":  # fmt: skip
    """The inverse problem of the stations that are fitted; blocks of them on the workers of a cluster where there is one."""
    import tensorflow as tf

    from ..inversion import Problem
    from ..misfit import chosen
    from ..regularization import small_and_smooth
    from ..weighting import depth_weights, probed_diagonal, sensitivity_weights

    part = in_blocks(config, inputs, operator, cluster)
    observed, uncertainty = (inputs.survey[name].values[inputs.fitted] for name in ("observed", "uncertainty"))
    size = int(inputs.active.sum())
    at = part.linearize(tf.zeros(part.model_spec.shape, tf.float64))
    with progress(console, "sensitivities"):
        diagonal = probed_diagonal(lambda w: at.vjp(w / uncertainty), uncertainty.shape, seed=config.seed)
    options = config.regularization
    weights = {
        "sensitivity": lambda: sensitivity_weights(diagonal[:size], inputs.grid.volumes[inputs.active]),
        "depth": lambda: depth_weights(inputs.grid, inputs.active, exponent=options.depth_exponent),
        "none": lambda: None,
    }[options.weighting]()
    regularization = small_and_smooth(
        inputs.grid, inputs.active,
        smallness=options.smallness, smoothness=options.smoothness, reference=inputs.reference, weights=weights,
    )  # fmt: skip
    extra = part.model_spec.shape[0] - size
    return Problem(
        operator=part,
        observed=tf.constant(observed),
        uncertainty=tf.constant(uncertainty),
        regularization=regularization.extended(extra) if extra else regularization,
        misfit=chosen(config.inversion.misfit, config.inversion.huber_threshold),
        lower=np.pad(inputs.lower, (0, extra), constant_values=-np.inf),
        upper=np.pad(inputs.upper, (0, extra), constant_values=np.inf),
        preconditioner=diagonal,
    )


def _summary(config: GravityConfig, inputs: Inputs, outcome: "Outcome", predicted: np.ndarray, seconds: float) -> dict[str, Any]:
    fitted, held = inputs.fitted, inputs.held
    residual = (predicted - inputs.survey["observed"].values)[:, 0] * MGAL
    return {
        "status": outcome.status,
        "reason": outcome.reason,
        "iterations": outcome.last.iteration,
        "chi2": outcome.last.chi2,
        "rms": float(np.sqrt(np.mean(residual[fitted] ** 2))),
        "residual_std": float(np.std(residual[fitted])),
        "rms_unit": "mGal",
        "holdout_rms": float(np.sqrt(np.mean(residual[held] ** 2))) if held.size else None,
        "holdout_mad": float(1.4826 * np.median(np.abs(residual[held] - np.median(residual[held])))) if held.size else None,
        "seconds": seconds,
        "peak_memory_bytes": rundir.peak_memory_bytes(),
        "n_data": int(fitted.size),
        "n_holdout": int(held.size),
        "n_model": int(outcome.last.model.shape[0]),
        "n_raised": int((inputs.raised > 0).sum()),
        "raised_max_m": float(inputs.raised.max()),
        "trend_coefficients_mGal": outcome.last.model.numpy()[int(inputs.active.sum()) :].tolist(),
        "versions": rundir.versions(),
        "seeds": {"seed": config.seed},
        "sha256": {path: sha256(path) for path in _files(config)},
        "warnings": list(inputs.warnings),
    }


def _results(
    config: GravityConfig, inputs: Inputs, outcome: "Outcome", predicted: np.ndarray, true_density: np.ndarray | None
) -> tuple["xarray.Dataset", "xarray.Dataset"]:
    density = np.full(inputs.grid.shape, np.nan)
    density[inputs.active] = outcome.last.model.numpy()[: int(inputs.active.sum())]
    model = inputs.grid.to_xarray(density, name="density", units="kg/m3").to_dataset()
    model.attrs |= {"crs": inputs.survey.attrs.get("crs", ""), **model["density"].attrs}
    if true_density is not None:
        model["true_density"] = inputs.grid.to_xarray(np.asarray(true_density), name="true_density", units="kg/m3")
    flags = np.zeros(inputs.survey.sizes["station"], dtype=np.int8)
    flags[inputs.held] = 1
    data = inputs.survey.assign(
        predicted=(("station", "component"), predicted),
        holdout=("station", flags),
        raised=("station", inputs.raised, {"units": "m"}),
    )
    return model, _with_trend(config, inputs, data, outcome)


def _with_trend(config: GravityConfig, inputs: Inputs, data: "xarray.Dataset", outcome: "Outcome") -> "xarray.Dataset":
    """The data with a trend that was solved for on record, as `remove_trend` records one that was removed."""
    if config.data.trend != "solve" or config.data.trend_degree is None:
        return data
    coefficients = outcome.last.model.numpy()[int(inputs.active.sum()) :] / MGAL
    region = trend.region_of(data["easting"].values, data["northing"].values)
    return trend.record_trend(data, config.data.trend_degree, "gz", coefficients, region, "solved for in")


def _files(config: GravityConfig) -> list[str]:
    """The files that the result depends on."""
    named = (config.data.file, config.grid.file, config.topography.file, config.bounds.lower, config.bounds.upper, config.regularization.reference)
    return sorted({path for path in named if isinstance(path, str)})


def _export(config: GravityConfig, inputs: Inputs, model: "xarray.Dataset", output: Path) -> None:
    from geoinv.datasets import ubc, vtk

    density = model["density"].values
    if config.output.vtk:
        vtk.write_vtr(output / "model.vtr", inputs.grid, {str(name): model[name].values for name in model.data_vars})
    if config.output.ubc:
        ubc.write_mesh(output / "model.msh", inputs.grid)
        ubc.write_model(output / "model.den", inputs.grid, density)
