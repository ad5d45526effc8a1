"""What full-waveform inversion minimises in one band, as a function of the velocity of the cells that may change.

Shots run side by side, each forward and back before its core takes the next one, so that gradients hold the snapshots of the
shots that run and no others; their parts are added in the order of the shots.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import tensorflow as tf
from scipy.ndimage import gaussian_filter

from geoinv.operators import checks
from geoinv.operators.parallel import cores
from geoinv.operators.seismic import AcousticWave, limits, wavelets
from geoinv.operators.sensitivity.strategy import StoreAll, Strategy

from . import source_wavelet, traces
from .bands import Band, Setup, adjoint_corners, adjoint_top
from .cells import Averaging, interpolated
from .config import Source, WaveformConfig
from .filters import Corners, Filter
from .gathers import Gathers
from .inputs import Inputs
from .misfit import L2, CrossCorrelation, Envelope, WaveformMisfit
from .waves import build_operator, changed, snapshots

MISFITS: dict[str, WaveformMisfit] = {"l2": L2(), "crosscorrelation": CrossCorrelation(), "envelope": Envelope()}
#: A difference from cell to cell of this fraction of the mean velocity, everywhere, is a roughness of 1.
ROUGH = 0.01


class Part(NamedTuple):
    """Of one shot: the window of the band's cells, the gradient there, and the value."""

    window: tuple[slice, ...]
    gradient: np.ndarray
    value: float


#: (objective, model, shots, seed) to their parts in turn, as `Objective.parts`.
Spread = Callable[["Objective", np.ndarray, np.ndarray, int | None], Iterator[Part]]


@final
@dataclass(frozen=True, eq=False)
class Objective:
    """Twice the misfit over the number of its terms (chi2 for 'l2'), and the roughness of the change; data and wavelet in `Inputs.unit`.

    Args:
        config, inputs: Of the job.
        band: Its number and filter.
        filter: From the survey's samples to the band's.
        gathers: Observed traces in the band.
        averaging: From the model's cells to the band's.
        wave: The operator, with the wavelet in use.
        wavelet: That, [time] or [shot, source, time].
        roughness: Weight of the roughness, in units of the misfit.
        spread: Computes the parts of the shots elsewhere, where it is given; to the same bits.
    """

    config: WaveformConfig
    inputs: Inputs
    band: Band
    filter: Filter
    gathers: Gathers
    averaging: Averaging
    wave: AcousticWave
    wavelet: np.ndarray
    roughness: float = 0.0
    spread: Spread | None = None

    @classmethod
    def of(cls, config: WaveformConfig, inputs: Inputs, band: Band, spread: Spread | None = None) -> "Objective":
        """That of a band, with the wavelet as it was before any fit.

        Raises:
            ValueError: The operator refuses the inputs, or no data count.
        """
        setup = Setup.of(config, inputs, band)
        wave = build_operator(config, inputs, setup.averaging.coarse, setup.wavelet, setup.filter.interval)
        wavelet = np.array(wave.wavelet) if config.source.per_shot else setup.wavelet
        gathers = Gathers.of(inputs, setup.filter, setup.weights)
        return cls(config, inputs, band, setup.filter, gathers, setup.averaging, wave, wavelet, spread=spread)

    # ---------------------------------------------------------------------------------------------------------- model

    def start(self, velocity: np.ndarray) -> np.ndarray:
        """The cells that may change [n], of a velocity [grid]."""
        return velocity[self.inputs.free]

    def velocity(self, model: np.ndarray) -> np.ndarray:
        """The velocity [grid] of a model [n]."""
        velocity = self.inputs.velocity.copy()
        velocity[self.inputs.free] = model
        return velocity

    def _on_band(self, model: np.ndarray) -> dict[str, tf.Tensor]:
        return {"velocity": tf.constant(self.averaging(self.velocity(model)), tf.float32)}

    # ---------------------------------------------------------------------------------------------- value and gradient

    def value_and_gradient(self, model: np.ndarray) -> tuple[float, np.ndarray]:
        """The objective and its gradient [n]."""
        velocity = self.velocity(model)
        values, summed = self._summed(model)
        rough, rough_gradient = self._roughness(velocity)
        gradient = self.averaging.transposed(velocity, summed)
        return float(values.sum() + rough), self.start(gradient + rough_gradient)

    def value(self, model: np.ndarray) -> float:
        """The misfit alone."""
        return sum(self.value_of(*part) for part in self.predictions(model))

    def value_of(self, chosen: np.ndarray, predicted: np.ndarray) -> float:
        """What some shots add to the misfit with data [shot, receiver, time]."""
        return sum(self._misfit(shot, tf.constant(traces))[0] for shot, traces in zip(chosen, predicted, strict=True))

    def diagonal(self, model: np.ndarray, kind: str, seed: int) -> np.ndarray:
        """The diagonal of the Gauss-Newton Hessian, up to a factor, [n]: probed at random once for each shot, or from the sources' waves alone.

        For white noise z in the band the mean of (J^T W z)^2 is that of J^T W^2 J; squares of the shots add up, and smoothing over a
        quarter of a wavelength averages more of them. What is smoothed is their ratio to the sources' part, which varies much less.
        """
        medium = self._on_band(model)
        found = self.wave.illumination(medium).numpy().astype(np.float64) * (2 / medium["velocity"].numpy()) ** 2
        if not 0 < found.max() < np.inf:
            given, expected = f"of {found.max():g} at most", "positive where waves pass, and finite"
            raise checks.invalid("illumination", given, expected, "Are the sizes of data and wavelet comparable? See source.amplitude.")
        if kind == "hessian":
            found += 1e-9 * found.max()
            _, squares = self._summed(model, seed, power=2)
            wavelength = float(np.median(model)) / self.top
            found *= gaussian_filter(squares / found, [wavelength / 4 / widths[0] for widths in self.averaging.coarse.widths])
        return self.start(interpolated(found, self.averaging.coarse, self.averaging.fine))

    def _summed(self, model: np.ndarray, seed: int | None = None, power: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The shots' values [shot], and the sum of their gradients, to a power, on the band's cells, in the order of the shots."""
        shots, total, values = np.arange(len(self.gathers.observed)), np.zeros(self.averaging.coarse.shape), []
        for part in self.parts(model, shots, seed) if self.spread is None else self.spread(self, model, shots, seed):
            total[part.window] += part.gradient.astype(np.float64) ** power
            values.append(part.value)
        return np.array(values), total

    def parts(self, model: np.ndarray, shots: np.ndarray, seed: int | None = None) -> Iterator[Part]:
        """Of the misfit, of some shots in turn; or of white noise in place of residuals, where there is a seed of it."""
        values: dict[int, float] = {}

        def cotangent(number: int, data: tf.Tensor) -> tf.Tensor:
            shot = int(shots[number])
            values[number], adjoint = self._misfit(shot, data) if seed is None else (0.0, self._noise(shot, data, seed))
            return adjoint

        for number, part in enumerate(self.wave.subset(shots).shot_gradients(self._on_band(model), cotangent)):
            yield Part(part.window, part.values["velocity"].numpy(), values.pop(number))

    def _misfit(self, shot: int, data: tf.Tensor) -> tuple[float, tf.Tensor]:
        """One shot's part of the objective, and its derivative with respect to the data [receiver, time]."""
        chosen = np.array([shot])
        observed, weights = tf.constant(self.gathers.observed[chosen]), tf.constant(self.gathers.weights(chosen))
        misfit = MISFITS[self.config.misfit.kind]
        with tf.GradientTape() as tape:
            tape.watch(data)
            predicted = data[tf.newaxis]
            if self.config.misfit.normalise:
                predicted, observed = (traces.normalised(each, weights > 0) for each in (predicted, observed))
            value = 2 * misfit.value(predicted, observed, weights) / self._count
        return float(value), self._passed(tape.gradient(value, data))

    def _passed(self, adjoint: tf.Tensor) -> tf.Tensor:
        """An adjoint source without the frequencies that sources do not have: the image is blind to them, snapshots need not sample them.

        Nor has it anything long before time zero, where no wave has come yet: it begins without a jump.
        """
        corners = self._adjoint_corners
        passed = adjoint if corners is None else traces.bandpass(adjoint, self.wave.dt, corners)
        return passed * tf.constant(self.filter.eased(np.ones(adjoint.shape[-1])), passed.dtype)

    @functools.cached_property
    def _adjoint_corners(self) -> Corners | None:
        return adjoint_corners(self.band.corners, self.wave.wavelet, self.wave.dt)

    @property
    def _count(self) -> float:
        """Terms of the misfit: of samples, or of traces."""
        return self.gathers.count(MISFITS[self.config.misfit.kind])

    def _noise(self, shot: int, data: tf.Tensor, seed: int) -> tf.Tensor:
        drawn = np.random.default_rng([seed, shot]).standard_normal(data.shape).astype(np.float32)
        corners = self.band.corners or (0.0, 0.0, self.top, 1.2 * self.top)
        return self._passed(self.gathers.weights(np.array([shot]))[0] * traces.bandpass(tf.constant(drawn), self.wave.dt, corners))

    @property
    def top(self) -> float:
        """The highest frequency of the band, Hz."""
        return self.band.top or min(wavelets.band(self.wave.wavelet, self.wave.dt, level=limits.VISIBLE)[1], 0.4 / self.wave.dt)

    def _roughness(self, velocity: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = 0.0, np.zeros(velocity.shape)
        if not self.roughness:
            return value, gradient
        change, scale = velocity - self.inputs.velocity, self.roughness / (ROUGH * self.inputs.velocity.mean()) ** 2
        for axis in range(change.ndim):
            steps = np.diff(change, axis=axis)
            value += scale * float(np.mean(steps**2))
            ends = [(1, 1) if at == axis else (0, 0) for at in range(change.ndim)]
            gradient -= 2 * scale / steps.size * np.diff(np.pad(steps, ends), axis=axis)
        return value, gradient

    # ------------------------------------------------------------------------------------------------ wavelet and data

    def fitted(self, model: np.ndarray) -> "Objective":
        """The same with the wavelet that fits the data best at a model, if it is to be estimated."""
        source = self.config.source
        return self.with_wavelet(self._filtered_wavelet(model, source)) if source.estimate else self

    def tuned(self, model: np.ndarray) -> "Objective":
        """The same with the wavelet fitted at a model, and with what the operator keeps chosen for it."""
        return self.fitted(model)._with_snapshots()

    def taken_up(self, wavelet: np.ndarray, roughness: float) -> "Objective":
        """The same as it was once tuned, with the wavelet and the weight of the roughness that it had then."""
        return dataclasses.replace(self._with_fitted(wavelet), roughness=roughness)._with_snapshots()

    def kept(self, wavelet: np.ndarray, differentiation: Strategy) -> "Objective":
        """The same as it was once tuned in another process, with the wavelet and what the operator keeps there."""
        fitted = self._with_fitted(wavelet)
        return dataclasses.replace(fitted, wave=changed(fitted.wave, differentiation=differentiation))

    def _with_fitted(self, wavelet: np.ndarray) -> "Objective":
        return self.with_wavelet(wavelet) if self.config.source.estimate else self

    def _with_snapshots(self) -> "Objective":
        highest = adjoint_top(self.band.corners, self.wave.wavelet, self.wave.dt)
        return dataclasses.replace(self, wave=changed(self.wave, differentiation=snapshots(self.config, self.wave, highest)))

    def with_wavelet(self, wavelet: np.ndarray) -> "Objective":
        """The same with another wavelet, [time] or [shot, source, time] at the band's samples."""
        wave = changed(self.wave, wavelet=wavelet, differentiation=StoreAll())  # snapshots that suited the other may not suit this one
        return dataclasses.replace(self, wavelet=wavelet, wave=wave)

    def _filtered_wavelet(self, model: np.ndarray, source: Source) -> np.ndarray:
        equations = [
            source_wavelet.normal_equations(data, self.gathers.observed[shots], self.gathers.weights(shots))
            for shots, data in self.predictions(model)
        ]
        whole = self.wavelet.shape[-1] * self.wave.dt
        duration = whole if source.duration is None else min(whole, self.filter.lead * self.wave.dt + source.duration)
        found = source_wavelet.filtered_wavelet(
            source_wavelet.NormalEquations.joined(equations), self.wavelet, self.gathers.observed.shape[-1], self.wave.dt,
            regularization=source.regularization, duration=duration, taper=0.2 * duration,
        )  # fmt: skip
        return self.filter.eased(found)

    def predictions(self, model: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(shots, data [shot, receiver, time]) of a few shots at a time: all of them are held nowhere."""
        medium, total = self._on_band(model), len(self.gathers.observed)
        for chosen in np.array_split(np.arange(total), max(1, total // (4 * cores()))):
            yield chosen, self.wave.subset(chosen).forward(medium).numpy()


def preconditioner(objective: Objective, diagonal: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """r -> D^(-1/2) S D^(-1/2) r, close to the inverse of the Hessian: D its diagonal [n] with a floor, S a Gaussian smoothing."""
    options, free, widths = objective.config.inversion, objective.inputs.free, objective.inputs.grid.widths
    scale = 1 / np.sqrt(diagonal / diagonal.max() + options.illumination_floor)
    length = options.smoothing * float(np.median(objective.inputs.velocity[free])) / objective.top
    # Half of it twice: a product of a symmetric matrix with itself is positive semidefinite.
    sigmas = [length / np.sqrt(2) / each[0] for each in widths]

    def product(r: np.ndarray) -> np.ndarray:
        field = np.zeros(free.shape)
        field[free] = scale * r
        if length:
            field = gaussian_filter(gaussian_filter(field, sigmas), sigmas)
        return scale * field[free]

    return product
