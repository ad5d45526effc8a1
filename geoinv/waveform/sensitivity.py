"""What shot gathers resolve: the linearized problem of the last band of a waveform config."""

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from geoinv.datasets import line, shots
from geoinv.operators import checks
from geoinv.operators.forward import Linearization
from geoinv.operators.grid import Grid
from geoinv.operators.seismic import AcousticWave
from geoinv.operators.sensitivity import Checkpointed, Prior, StoreAll

from ..console import progress
from ..regularization import small_and_smooth
from ..sensitivity.target import Target, lines, model_of
from .bands import bands
from .cells import sampled
from .config import WaveformConfig
from .inputs import load
from .objective import Objective

if TYPE_CHECKING:
    from rich.console import Console

    from ..rundir import Run

#: What the defaults of the prior are: parts of the mean velocity and of a wavelength.
DEVIATION, LENGTH = 0.05, 0.5
#: Models drawn to give the prior its deviation.
DRAWS = 200


def target(config: WaveformConfig, run: "Run | None", console: "Console") -> Target:
    """The problem of a config, on the cells of its last band; least squares of the filtered traces, whatever the misfit of the inversion.

    Args:
        config: The options.
        run: A finished inversion, whose velocity is taken; the wavelet is fitted there, if it is to be fitted.
        console: Where progress is shown.

    Raises:
        ValueError: A run on other cells, or anything wrong with the inputs.
    """
    # Of the misfit only what chooses data is kept: other weights than the uncertainties' would not be those of the noise.
    config = config.model_copy(update={"misfit": config.misfit.model_copy(update={"normalise": False, "time_power": (0.0,)})})
    inputs = load(config)
    if run is not None and not line.same_place(run.model.attrs, inputs.survey.attrs):
        raise checks.invalid("model", "along another line than the config's survey", "of the same line_origin and line_azimuth")
    velocity = inputs.velocity if run is None else model_of(run, "velocity", inputs.grid)
    band = bands(config, shots.dt(inputs.survey))[-1]
    objective = Objective.of(config, inputs, band)
    with progress(console, "wavelet"):
        objective = objective.fitted(objective.start(velocity))
    coarse, medium = objective.averaging.coarse, objective.averaging(velocity)
    free = sampled(inputs.free.astype(float), inputs.grid, coarse) > 0.5
    wave = _within(objective.wave, config.propagator.snapshot_memory)
    with progress(console, "forward run"):
        at = wave.linearize({"velocity": tf.constant(medium, tf.float32)})
    # Noise is white at the survey's samples; sums over the band's samples, which are other ones, stand for sums over those.
    scale = objective.filter.interval / shots.dt(inputs.survey)
    weights = scale * np.concatenate([objective.gathers.weights(shot) for shot in np.arange(len(objective.gathers.observed))[:, np.newaxis]]) ** 2
    mean, top = float(medium[free].mean()), objective.top
    deviation = config.sensitivity.deviation or DEVIATION * mean
    length = config.sensitivity.length or LENGTH * mean / top
    where = f"band {band.number} (to {top:.3g} Hz), {' x '.join(map(str, coarse.shape))} cells of {coarse.widths[0][0]:.3g} m"
    notes = (
        f"{wave.acquisition.shots} shots in {where}, {int(free.sum())} unknown; kept for derivatives: {wave.differentiation}",
        f"prior: deviation {deviation:.3g} m/s over {length:.3g} m; data: white noise of the survey's uncertainties",
    )
    return Target(
        grid=coarse,
        active=free,
        at=_of_cells(at, free),
        weights=tf.constant(weights, tf.float32),
        prior=_prior(coarse, free, deviation, length),
        model=medium,
        quantity="velocity",
        unit="m/s",
        notes=notes,
        place=line.place(inputs.survey),
    )


def _within(wave: AcousticWave, gigabytes: float) -> AcousticWave:
    """The operator with a derivative that is exact and held by all shots within the memory, or by as few states as can be."""
    choices = [wave.differentiated(each) for each in (StoreAll(), *map(Checkpointed, (64, 32, 16, 8, 4, 2)))]
    sizes = [each.memory_estimate() for each in choices]
    fits = [each for each, size in zip(choices, sizes, strict=True) if (size.kept + size.running) / 1e9 <= gigabytes]
    return fits[0] if fits else choices[-1]


def _of_cells(at: Linearization, free: np.ndarray) -> Linearization:
    """The derivative with respect to the velocities of some cells, a float64 vector."""
    cells, shape = np.flatnonzero(free), free.shape

    def push(v: tf.Tensor) -> tf.Tensor:
        field = np.zeros(free.size, np.float32)
        field[cells] = v.numpy()
        return at.jvp({"velocity": tf.constant(field.reshape(shape))})

    def pull(w: tf.Tensor) -> tf.Tensor:
        return tf.constant(np.ravel(at.vjp(w)["velocity"])[cells], tf.float64)

    return Linearization(tf.TensorSpec((cells.size,), tf.float64), at.data_spec, at.data, push, pull)


def _prior(grid: Grid, free: np.ndarray, deviation: float, length: float) -> Prior:
    """Of a deviation that is the same in the mean, and rough over more than a length only."""
    alike = min(widths.min() for widths in grid.widths[1:])  # `small_and_smooth` counts in cells of this size
    matrix = small_and_smooth(grid, free, smoothness=((length / alike) ** 2,) * grid.ndim).hessian.to_scipy()
    drawn = Prior(matrix).samples(DRAWS, np.random.default_rng(0))
    return Prior(matrix * float(np.mean(drawn**2)) / deviation**2, order=lines(matrix, free))
