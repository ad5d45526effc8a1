"""The full-waveform job: from a config to a directory of results."""

import itertools
import math
import os
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

from geoinv.datasets import line, shots
from geoinv.datasets.files import sha256
from geoinv.operators.grid import Grid

from .. import resuming, rundir
from ..console import COLUMNS, IterationTable, progress
from . import bands
from .cells import sampled
from .config import WaveformConfig
from .inputs import Inputs, describe, load

if TYPE_CHECKING:
    from rich.console import Console

    from ..checkpoints import Checkpoint
    from ..cluster import Cluster
    from .inversion import BandResult, Outcome

# A job's output is for people: TensorFlow's notes on its own start-up, about graphics cards mostly, would bury it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def check(config: WaveformConfig) -> list[str]:
    """Read and check everything a config names; computes nothing and does not import TensorFlow.

    Raises:
        ValueError: Anything wrong.
    """
    inputs = load(config)
    ahead = bands.check(config, inputs)
    return [*check_lines(inputs), *(f"warning: {text}" for text in ahead)]


def check_lines(inputs: Inputs) -> list[str]:
    """What was read, and what to know about it."""
    return [*describe(inputs), *(f"warning: {text}" for text in inputs.warnings)]


def invert(
    config: WaveformConfig,
    output: Path,
    *,
    overwrite: bool = False,
    console: "Console",
    true_velocity: tuple[Grid, np.ndarray] | None = None,
    checkpoint: "Checkpoint | None" = None,
    cluster: "Cluster | None" = None,
) -> dict[str, Any]:
    """Invert a survey and write the results.

    Args:
        config: The options.
        output: Directory to write.
        overwrite: Replace the results of an earlier run.
        console: Where progress is shown.
        true_velocity: The known model of a synthetic survey, its cells and m/s on them, to be compared in the report.
        checkpoint: Of a run of this config that was stopped, to go on from.
        cluster: Whose workers compute the gradients of the shots, to the same bits.

    Returns:
        The summary, as written to summary.json.

    Raises:
        ValueError: Anything wrong with the inputs or the output directory; nothing is written then.
    """
    began = time.perf_counter()
    rundir.prepare(output, overwrite=overwrite)
    inputs = load(config)
    bands.check(config, inputs)  # the bands warn themselves, when their turn comes

    for text in check_lines(inputs):
        _say(console, text)
    outcome, data, start_misfit = _computed(config, inputs, output, console, checkpoint, cluster)
    truth = None if true_velocity is None else sampled(true_velocity[1], true_velocity[0], inputs.grid)
    model = _model(outcome, inputs, truth)
    summary = _summary(config, inputs, outcome, data, model, start_misfit) | {"seconds": time.perf_counter() - began}
    rundir.clear(output)
    _export(config, inputs, model, output)
    extra = {"wavelet": _wavelets(outcome, inputs)}
    rundir.write(output, config=config, model=model, predicted=data, extra=extra, history=outcome.records, summary=summary)
    with progress(console, "figures and report"):
        from ..report import write

        write(output)
    resuming.finish(output, outcome.status)
    return summary


def _computed(
    config: WaveformConfig, inputs: Inputs, output: Path, console: "Console", checkpoint: "Checkpoint | None", cluster: "Cluster | None"
) -> tuple["Outcome", xarray.Dataset, float]:  # fmt: skip
    """The inversion, its data, and the misfit of the start model."""
    from geoinv.operators import checks
    from geoinv.operators.parallel import at_most

    side_by_side = config.propagator.shots_at_a_time
    if cluster is not None and side_by_side is not None and cluster.threads > side_by_side:
        text = f"{cluster.threads} shots run at a time on workers, and not propagator.shots_at_a_time = {side_by_side}"
        checks.warn(f"{text}: each may take propagator.snapshot_memory / {side_by_side}")
    with at_most(side_by_side):
        outcome = _run(config, inputs, output, console, checkpoint, cluster)
        with progress(console, "prediction"), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the final model, given when its band ended
            return outcome, *_prediction(outcome.last, inputs)


def _run(
    config: WaveformConfig, inputs: Inputs, output: Path, console: "Console", checkpoint: "Checkpoint | None", cluster: "Cluster | None"
) -> "Outcome":  # fmt: skip
    """Invert with a table of iterations, and a checkpoint in the output directory after each."""
    import tensorflow as tf

    from . import inversion
    from .spread import OnCluster

    tf.get_logger().setLevel("ERROR")  # every band has a program of its own, and TensorFlow would wonder why it traces so often
    keeper = resuming.Keeper.of(config, output, _files(config), checkpoint)
    spread = None if cluster is None else OnCluster(cluster, keeper.about["files"])
    past = None if checkpoint is None else inversion.State.of(checkpoint, config, inputs, spread)
    numbers = itertools.count(0 if checkpoint is None else checkpoint.number + 1)
    with IterationTable(console, COLUMNS["waveform"]) as table:
        for record in past.records if past else []:
            table.add(record)
        watch = inversion.Watch(table.add, partial(_say, console), lambda state: keeper.save(next(numbers), *state.to_checkpoint()))
        return inversion.run(config, inputs, watch, past, spread)


def _say(console: "Console", text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _prediction(last: "BandResult", inputs: Inputs) -> tuple[xarray.Dataset, float]:
    """Observed and predicted traces of the last band, and the start model's misfit there, with the wavelet that suits it best.

    At the survey's samples, in true time and in its unit: what a raw trace is through the band's filter.
    """
    objective, first = last.objective, last.objective.start(inputs.velocity)
    suited = objective.with_wavelet(last.round.guess).fitted(first)
    times = inputs.survey["time"].values
    weigh = objective.gathers.weights.at(times)

    def written(traces: np.ndarray) -> np.ndarray:
        return objective.filter.undone(traces, times.size)

    observed = np.stack([written(gather) for gather in objective.gathers.observed])
    weights = np.concatenate([weigh(np.array([shot])) for shot in range(len(observed))])
    predicted, left, left_at_start, start_misfit = np.empty_like(observed), np.empty(weights.shape[:2]), np.empty(weights.shape[:2]), 0.0
    for chosen, data in objective.predictions(last.model):
        predicted[chosen] = written(data)
        left[chosen] = _unexplained(observed[chosen], predicted[chosen], weights[chosen])
    for chosen, data in suited.predictions(first):
        start_misfit += suited.value_of(chosen, data)
        left_at_start[chosen] = _unexplained(observed[chosen], written(data), weights[chosen])
    attributes = {"units": inputs.survey["observed"].attrs.get("units", "")}
    unit = np.float32(inputs.unit)
    weights = weights if objective.config.misfit.normalise else weights / unit
    signals = {"observed": (observed * unit, attributes), "predicted": (predicted * unit, attributes), "weight": (weights, {})}
    made = inputs.survey.assign({name: (("shot", "receiver", "time"), *each) for name, each in signals.items()})
    made = made.assign(residual=(("shot", "receiver"), left), start_residual=(("shot", "receiver"), left_at_start))
    return _filtered(made, last.band), start_misfit


def _filtered(data: xarray.Dataset, band: bands.Band) -> xarray.Dataset:
    """The traces of a band, which say what was done to them."""
    if band.corners is None:
        return shots.add_history(data, "observed and predicted: all frequencies, not filtered").assign_attrs(band=band.number)
    corners = ", ".join(f"{corner:g}" for corner in band.corners)
    text = f"observed and predicted: band {band.number}, zero-phase band-pass with cosine tapers between {corners} Hz; times are true"
    return shots.add_history(data, text).assign_attrs(band=band.number, filter_corners_hz=list(band.corners))


def _unexplained(observed: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The rms of what predicted traces leave of observed ones over the rms of these, of samples that count, [shot, receiver]; else NaN."""
    counted = weights > 0
    left, whole = (np.sum(np.square(each), axis=2, where=counted, dtype=np.float64) for each in (predicted - observed, observed))
    return np.sqrt(np.divide(left, whole, out=np.full(whole.shape, np.nan), where=whole > 0))


def _model(outcome: "Outcome", inputs: Inputs, truth: np.ndarray | None) -> xarray.Dataset:
    last, grid = outcome.last, inputs.grid
    fields = {"velocity": last.objective.velocity(last.model), "start_velocity": inputs.velocity}
    if truth is not None:
        fields["true_velocity"] = truth
    made = xarray.Dataset({name: grid.to_xarray(values.astype(np.float32), name=name, units="m/s") for name, values in fields.items()})
    made["free"] = grid.to_xarray(inputs.free.astype(np.int8), name="free")
    if last.round.diagonal is not None:
        lit = np.zeros(grid.shape, np.float32)
        lit[inputs.free] = last.round.diagonal / last.round.diagonal.max()
        made["illumination"] = grid.to_xarray(lit, name="illumination")
    return made.assign_attrs(line.place(inputs.survey))


def _wavelets(outcome: "Outcome", inputs: Inputs) -> xarray.Dataset:
    """The wavelet of every band before and after it was fitted, (band, time), in true time; where each shot has its own, their mean."""
    dt, samples = shots.dt(inputs.survey), inputs.survey.sizes["time"]
    filters = [each.objective.filter for each in outcome.bands]
    lead = max(math.ceil(each.lead * each.interval / dt) for each in filters)
    found = {}
    for name, of in (("guess", lambda each: each.round.guess), ("wavelet", lambda each: each.objective.wavelet)):
        means = [of(each).reshape(-1, of(each).shape[-1]).mean(axis=0) for each in outcome.bands]
        rows = [inputs.unit * each.undone(mean, samples, lead) for each, mean in zip(filters, means, strict=True)]
        found[name] = (("band", "time"), np.array(rows))
    tops = [each.band.top or np.nan for each in outcome.bands]
    times = dt * np.arange(-lead, samples)
    coords = {"band": [each.band.number for each in outcome.bands], "time": ("time", times, {"units": "s"}), "frequency": ("band", tops)}
    return xarray.Dataset(found, coords=coords)


def _summary(
    config: WaveformConfig, inputs: Inputs, outcome: "Outcome", data: xarray.Dataset, model: xarray.Dataset, start_misfit: float
) -> dict[str, Any]:
    residual, live = (data["predicted"] - data["observed"]).values.astype(np.float64), inputs.survey["live"].values
    uncertainty = np.where(live, inputs.survey["uncertainty"].values, 1.0)[..., None]
    counted = np.broadcast_to(data["weight"].values > 0, residual.shape)
    ends = [_band(each) for each in outcome.bands]
    ends[-1]["misfit_start_model"] = start_misfit
    return {
        "status": outcome.status,
        "reason": outcome.reason,
        "iterations": sum(each["iterations"] for each in ends),
        "chi2": float(np.mean(((residual / uncertainty) ** 2)[counted])),
        "rms": float(np.sqrt(np.mean(residual[counted] ** 2))),
        "rms_unit": data["observed"].attrs["units"],
        "misfit": config.misfit.kind,
        "bands": ends,
        **_errors(inputs, model),
        "seconds": 0.0,
        "peak_memory_bytes": rundir.peak_memory_bytes(),
        "n_data": int(counted.sum()),
        "n_model": int(inputs.free.sum()),
        "versions": rundir.versions(),
        "seeds": {"seed": config.seed},
        "sha256": {path: sha256(path) for path in _files(config)},
        "warnings": [*inputs.warnings, *outcome.warnings],
    }


def _band(result: "BandResult") -> dict[str, Any]:
    wave, first, last = result.objective.wave, result.round.history[0], result.round.history[-1]
    return {
        "band": result.band.number,
        "frequency": result.band.top,
        "status": result.status,
        "iterations": last["iteration"],
        "misfit_start": first["misfit"],
        "misfit": result.misfit,
        "evaluations": last["evaluations"],
        "seconds": last["seconds"] - first["seconds"],
        "spacing_m": list(wave.spacing),
        "time_step_s": wave.internal_step,
        "differentiation": str(wave.differentiation),
    }


def _errors(inputs: Inputs, model: xarray.Dataset) -> dict[str, float]:
    """Root-mean-square errors over all cells, where the truth is known."""
    if "true_velocity" not in model:
        return {}
    truth = model["true_velocity"].values
    named = (("model_rms_error_start", "start_velocity"), ("model_rms_error", "velocity"))
    return {key: float(np.sqrt(np.mean((model[name].values - truth) ** 2, dtype=np.float64))) for key, name in named}


def _files(config: WaveformConfig) -> list[str]:
    """The files that the result depends on."""
    options = (config.data.file, config.data.geometry, config.source.file, config.bounds.lower, config.bounds.upper)
    models = (config.model.file, config.model.density_file, config.model.free_file)
    return sorted({path for path in (*options, *models) if isinstance(path, str)})


def _export(config: WaveformConfig, inputs: Inputs, model: xarray.Dataset, output: Path) -> None:
    if config.output.vtk:
        from geoinv.datasets import vtk

        vtk.write_vtr(output / "model.vtr", inputs.grid, {str(name): model[name].values for name in model.data_vars if name != "free"})
