r"""The acoustic wave equation in the time domain, as an operator: velocity to the pressure at the receivers of every shot.

.. math:: \frac{1}{\rho v^2} \frac{\partial^2 p}{\partial t^2} - \nabla \cdot \frac{1}{\rho} \nabla p = s(t) \, \delta(x - x_s)

Where the density rho is constant it is left out (taken as 1); else s is the acceleration of the volume that the source injects, m3/s2.
In three dimensions a source s makes the pressure ``rho s(t - r / v) / (4 pi r)`` at a distance r in a homogeneous medium. The
equation is solved by finite differences: central ones of order 2 to 8 in space, leapfrog in time (`stepping`); layers around the
grid absorb what leaves it, or its top is free of pressure (`boundaries`). Derivatives are those of the discrete scheme, exactly.
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import tensorflow as tf

from .. import checks, stencils
from ..forward import ForwardOperator, Linearization, Nest, conform
from ..grid import Grid
from ..parallel import each, in_turn
from ..sensitivity.looped import Looped
from ..sensitivity.strategy import StoreAll, Strategy
from ..sparse import CSRMatrix
from . import assembly, judging, limits, looping, resampling, wavelets
from .acquisition import Acquisition, Placement
from .boundaries import Absorbing
from .boxes import Box
from .density import CONSTANT, VARIABLE
from .judging import Snapshots
from .lattice import Lattice
from .materials import Rock
from .runs import Run
from .scheme import Scheme
from .shots import Gradient, Loop, Memory

PARAMETERS = ("velocity", "density", "wavelet", "initial")
ORDERS = (2, 4, 6, 8)
KINDS: dict[str, tuple[type, str]] = {
    "grid": (Grid, "a Grid"),
    "acquisition": (Acquisition, "an Acquisition(...)"),
    "boundary": (Absorbing, "an Absorbing(...)"),
    "differentiation": (Strategy, "a strategy, such as StoreAll() or Every(4)"),
}


class ShotGradient(NamedTuple):
    """Of one shot: its window as slices of the grid, the gradient there with respect to velocity and density, and the data [receiver, time].

    What concerns one shot alone, its wavelet and its initial field, is left to `linearize`.
    """

    window: tuple[slice, ...]
    values: dict[str, tf.Tensor]
    data: tf.Tensor


@final
@dataclass(frozen=True, eq=False)
class AcousticWave(ForwardOperator):
    """Pressure at receivers, from velocity.

    The model is a dict of what `parameters` names: ``velocity`` [grid.shape] in m/s, ``density`` [grid.shape] in kg/m3, ``wavelet``
    [shot, source, time], ``initial`` [shot, 2, *grid.shape], the pressure one internal step before the start and at it, in Pa. The data
    are the pressure [shot, receiver, time] in Pa, at times n dt from the start of the wavelet on; zero at receivers that are not live.

    Args:
        grid: Cells of one size along each axis.
        acquisition: Sources and receivers. Spreads half as long as the longest, or shorter, run programs of their own where that saves time.
        wavelet: Source signal, [time] for all shots or [shot, source, time].
        dt: Sampling interval of wavelet and data, s. Steps are finer where stability asks for it.
        velocity_limits: (lowest, highest) velocity of the models, m/s. The highest decides on the time step and is kept to; from the
            lowest it is judged whether short waves are dispersed, and models below it are warned of.
        samples: Length of the record; that of the wavelet by default.
        order: Order of accuracy in space: 2, 4, 6 or 8.
        boundary: Layers around the grid, or a free surface.
        density: [grid.shape], kg/m3, where it varies and is not in the model.
        parameters: Names of what the model consists of; the velocity always. With ``initial`` among them data are picked from finer
            steps, not low-passed, for what was before the start is not known.
        differentiation: What the time loop keeps for the adjoint.
        time_step: Internal step, s, a whole fraction of dt; by default the largest stable one.
        dtype: tf.float32 or tf.float64.
        aperture: How far beyond its sources and receivers a shot propagates along the horizontal axes, m (one number, or one for each):
            each then runs in a window of its own, with its own layers; by default in the whole grid.

    A velocity above the limit, a density that is not positive or jumps too far for the time step, a cotangent and a wavefield that are not
    finite are refused in eager mode; inside tf.function, where values are not at hand, they are not looked at. Snapshots too far apart for a
    cotangent are refused there too, when it runs; under XLA, which cannot raise, its gradient is NaN.

    Attributes:
        placement: Where every shot propagates; that of a subset is part of the whole's, so that nothing is compiled anew. (What
            `dataclasses.replace` makes is placed anew, with shots counted from 0.)
        frequency: At which the layers work best, Hz; a subset's is that of the whole.

    Raises:
        ValueError: Cells of different size, a source or receiver outside, an unstable time step, limits out of order, unknown names.

    Warns:
        UserWarning: Too few points per wavelength; a wavelet shorter than the record, or so high that resampling to finer steps damps it;
            a model with velocities below the limits; a density that differs so much along a narrow layer that fields may grow there.
    """

    grid: Grid
    acquisition: Acquisition
    wavelet: Any
    dt: float = dataclasses.field(kw_only=True)
    velocity_limits: tuple[float, float] = dataclasses.field(kw_only=True)
    samples: int | None = dataclasses.field(kw_only=True, default=None)
    order: int = dataclasses.field(kw_only=True, default=4)
    boundary: Absorbing = dataclasses.field(kw_only=True, default=Absorbing())
    density: Any = dataclasses.field(kw_only=True, default=None)
    parameters: Sequence[str] = dataclasses.field(kw_only=True, default=("velocity",))
    differentiation: Strategy = dataclasses.field(kw_only=True, default=StoreAll())
    time_step: float | None = dataclasses.field(kw_only=True, default=None)
    dtype: tf.DType = dataclasses.field(kw_only=True, default=tf.float32)
    aperture: Sequence[float] | float | None = dataclasses.field(kw_only=True, default=None)
    placement: Placement = dataclasses.field(init=False, repr=False)
    frequency: float = dataclasses.field(init=False, repr=False)

    xla = True
    twice_differentiable = False

    def __post_init__(self) -> None:
        checks.positive("dt", self.dt)
        checks.choice("order", self.order, ORDERS)
        object.__setattr__(self, "dtype", tf.as_dtype(checks.choice("dtype", self.dtype, (tf.float32, tf.float64))))
        for name, (kind, expected) in KINDS.items():
            if not isinstance(given := getattr(self, name), kind):
                raise checks.invalid(name, given, expected)
        if isinstance(self.parameters, str) or not isinstance(self.parameters, Sequence):
            raise checks.invalid("parameters", repr(self.parameters), "a sequence of names, such as ('velocity',)")
        if "velocity" not in self.parameters or not set(self.parameters) <= set(PARAMETERS):
            raise checks.invalid("parameters", tuple(self.parameters), f"velocity, and others of {', '.join(PARAMETERS)}")
        lowest, highest = checks.positive("velocity_limits", checks.shape("velocity_limits", self.velocity_limits, (2,)))
        if lowest > highest:
            raise checks.invalid("velocity_limits", self.velocity_limits, "(lowest, highest) in m/s")
        for dim, widths in zip(self.grid.dims, self.grid.widths, strict=True):
            if np.ptp(widths) > 1e-6 * widths[0]:
                raise checks.invalid("grid", f"with cells of {widths.min():g} to {widths.max():g} m along {dim}", "of cells of one size")
        if self.acquisition.sources.shape[2] != self.grid.ndim:
            raise checks.invalid("acquisition", f"of {self.acquisition.sources.shape[2]} axes", f"of {self.grid.ndim}, as the grid")
        if self.density is not None and "density" in self.parameters:
            raise checks.invalid("density", "given, and in parameters", "one of the two")
        if self.density is not None:
            object.__setattr__(self, "density", checks.positive("density", checks.shape("density", self.density, self.grid.shape)))
        object.__setattr__(self, "wavelet", judging.wavelet(self.wavelet, self.samples, self.acquisition.sources.shape[:2]))
        place = Placement.on(self.grid, self.acquisition, self.layers, self.boundary.free_surface, self.aperture)
        object.__setattr__(self, "placement", place)
        object.__setattr__(self, "frequency", self.boundary.frequency or wavelets.peak(self.wavelet, self.dt))
        if "initial" in self.parameters and self.substeps > 1 and self.differentiation.plan(1, 1.0, 1).every > 1:
            expected = "a strategy that keeps every step, with an initial field and steps finer than the samples"
            raise checks.invalid("differentiation", self.differentiation, expected, "Such data are not low-passed. Or sample as finely as the steps.")
        _ = self.lattice  # refuses a grid too small for its layers
        self._warn()
        self.snapshots.check("wavelet", self.wavelet, self.wavelet)

    def _warn(self) -> None:
        highest = wavelets.band(self.wavelet, self.dt, level=limits.VISIBLE)[1]
        if highest:
            limits.warn_of_dispersion(self.order, self.spacing, self.velocity_limits[0], highest, self.internal_step)
        if self.substeps > 1 and highest > (passed := resampling.BAND * 0.5 / self.dt):
            text = f"wavelet of up to {highest:.3g} Hz sampled every {self.dt:g} s: steps are finer, and resampling passes {passed:.3g} Hz and less"
            checks.warn(f"{text} in full. Sample it more finely.")
        if self.density is not None:
            self._warn_of_edges(self.density)

    def _warn_of_edges(self, density: np.ndarray) -> None:
        whole = Box((0,) * self.grid.ndim, self.grid.shape)
        for window in set(self.placement.windows):
            judging.warn_of_edges(density[window.slices(whole)], self.layers, self.grid.dims)

    # ------------------------------------------------------------------------------------------------ sizes and places

    @property
    def spacing(self) -> tuple[float, ...]:
        """Cell size along each axis, m."""
        return tuple(float(widths[0]) for widths in self.grid.widths)

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(lower, upper) width of the absorbing layers along each axis, in cells."""
        return self.boundary.widths(self.grid.ndim)

    @functools.cached_property
    def lattice(self) -> Lattice:
        """The cells that are stepped."""
        window = self.placement.windows[0].shape
        shape = tuple(n + lower + upper for n, (lower, upper) in zip(window, self.layers, strict=True))
        for n, (lower, upper), dim in zip(window, self.layers, self.grid.dims, strict=True):
            needed = max(2, self.order // 2 * (bool(lower) + bool(upper)) + 1)
            if n < needed:
                raise checks.invalid("grid", f"of {n} cells along {dim}", f"of {needed} or more between these layers for order {self.order}")
        return Lattice(shape, self.spacing, self.order, self.layers, self.boundary.free_surface)

    @functools.cached_property
    def substeps(self) -> int:
        """Internal steps to a sample of the data."""
        highest = self.velocity_limits[1]
        largest = limits.stable_step(self.spacing, highest, self.order)
        setting = f"order {self.order}, velocities up to {highest:g} m/s, cells of {', '.join(f'{each:g}' for each in self.spacing)} m"
        if self.density is not None and (shorter := self._stable_step(highest, self.density, largest)) < largest:
            largest, setting = shorter, f"{setting}, and jumps of density"
        return limits.substeps(self.dt, self.time_step, largest, setting)

    def _stable_step(self, velocity: Any, density: np.ndarray, wanted: float) -> float:
        """The largest stable time step, s, or one at least as long as is wanted."""
        settings = (self.layers, self.spacing, self.order)
        enough = limits.LARGEST / wanted**2
        steepest = limits.steepest(velocity, density, *settings, mirrored=self.boundary.free_surface, enough=enough)
        return wanted if steepest <= enough else math.sqrt(limits.LARGEST / steepest)

    @property
    def internal_step(self) -> float:
        """Internal time step, s."""
        return self.dt / self.substeps

    @functools.cached_property
    def _loop(self) -> Loop:
        steps = resampling.fine_length(self.wavelet.shape[-1], self.substeps)
        scheme = Scheme(self.lattice, VARIABLE if "density" in self.parameters or self.density is not None else CONSTANT)
        state, images = scheme.state_size, sum(box.size for box in scheme.images)
        # In rounds of the loop, with which segments end: three steps, where every step is kept.
        rounds = -(-steps // 3)
        plan = self.differentiation.plan(rounds, state / (3 * images), state * self.dtype.size)
        plan = plan._replace(segment=steps if plan.segment >= rounds else 3 * plan.segment)
        return Loop(scheme, steps, plan, self.placement.sources.box, self.placement.spreads[0].box)

    def _loop_of(self, shot: int) -> Loop:
        """With the receivers of a shot's own spread."""
        return dataclasses.replace(self._loop, receivers=self.placement.receivers(shot)[0].box)

    def _gathered(self, run: Run, parts: Sequence[tf.Tensor]) -> tf.Tensor:
        """Data from what was computed of each shot."""
        return run.sampled(run.gathered(parts, self.acquisition.receivers.shape[1]))

    @property
    def snapshots(self) -> Snapshots:
        """Those of the differentiation."""
        return Snapshots(self.differentiation, self.dt, self.internal_step)

    @property
    def model_spec(self) -> Nest:
        shapes = {
            "velocity": self.grid.shape,
            "density": self.grid.shape,
            "wavelet": self.wavelet.shape,
            "initial": (self.acquisition.shots, 2, *self.grid.shape),
        }
        return {name: tf.TensorSpec(shapes[name], self.dtype) for name in self.parameters}

    @property
    def data_spec(self) -> Nest:
        return tf.TensorSpec([*self.acquisition.receivers.shape[:2], self.wavelet.shape[-1]], self.dtype)

    def subset(self, units: Any) -> "AcousticWave":
        shots = checks.units(units, self.acquisition.shots)
        part = copy.copy(self)  # with all that was worked out for the whole
        own = {"acquisition": self.acquisition.subset(shots), "wavelet": self.wavelet[shots], "placement": self.placement.subset(shots)}
        for name, value in own.items():
            object.__setattr__(part, name, value)
        return part

    def differentiated(self, strategy: Strategy) -> "AcousticWave":
        """The same operator with another differentiation: placed as it is, and without its warnings."""
        return looping.differentiated(self, strategy)

    def looped(self, model: Nest) -> Looped:
        return looping.looped(self, conform("model", model, self.model_spec))

    # ------------------------------------------------------------------------------------------------------ derivatives

    def forward(self, model: Nest) -> tf.Tensor:
        run = self._run(model)
        data, ends = zip(*each(lambda n: self._loop_of(n).forward(run.medium(n), run.shot(n)), run.count), strict=True)
        judging.check_finite(self._loop_of, run, dict(enumerate(ends)))
        return self._gathered(run, data)

    def linearize(self, model: Nest) -> Linearization:
        run = self._run(model)
        self._check_start(run)
        data, ends, records = zip(*each(lambda n: self._loop_of(n).record(run.medium(n), run.shot(n)), run.count), strict=True)
        judging.check_finite(self._loop_of, run, dict(enumerate(ends)))

        def pullback(cotangent: tf.Tensor) -> Nest:
            residual = run.unsampled(self.snapshots.guarded("cotangent", run.wavelet, cotangent))

            def back(n: int) -> Gradient:
                return self._loop_of(n).adjoint(run.medium(n), run.shot(n), copy.copy(records[n]), run.computed(n, residual[n]))

            gradients = each(back, run.count)
            judging.check_gradients(run, dict(enumerate(gradients)))
            return {name: run.collected(name, gradients) for name in self.parameters}

        def pushforward(tangent: Nest) -> tf.Tensor:
            change = run.changed(tangent)
            parts = each(lambda n: self._loop_of(n).born(run.medium(n), run.shot(n), records[n], change.material(n), change.shot(n)), run.count)
            return self._gathered(run, parts)

        return Linearization(self.model_spec, self.data_spec, self._gathered(run, data), pushforward, pullback)

    def shot_gradients(self, model: Nest, cotangent: Callable[[int, tf.Tensor], tf.Tensor]) -> Iterator[ShotGradient]:
        """The gradient of every shot in its window, shot by shot in their order, each run forward and back before its core takes the next one.

        What the forward runs keep is there for the shots that run, not for all of them, and so are data and values of windows until they
        are taken from the iterator: add them up as they come.

        Args:
            model: Structured as `model_spec`.
            cotangent: (shot, its data [receiver, time]) to the cotangent of these data, such as the residual; called from several threads.

        Raises:
            ValueError: A cotangent of other shape or dtype; with `Every`, snapshots too far apart for its band.
        """
        run = self._run(model)
        self._check_start(run)
        spec = tf.TensorSpec(self.data_spec.shape[1:], self.dtype)

        def one(number: int) -> ShotGradient:
            loop, medium, shot = self._loop_of(number), run.medium(number), run.shot(number)
            name = f"cotangent of shot {self.placement.numbers[number]}"
            fine, end, record = loop.record(medium, shot)
            judging.check_finite(self._loop_of, run, {number: end})
            data = self._gathered(run, [fine])[0]
            adjoint_source = self.snapshots.guarded(name, run.wavelet[number], conform(name, cotangent(number, data), spec))
            residual = run.computed(number, run.unsampled(adjoint_source[tf.newaxis])[0])
            adjoint = loop.adjoint(medium, shot, record, residual)
            judging.check_gradients(run, {number: adjoint})
            gradient = run.alone(number, adjoint)
            window = self.placement.windows[number].slices(Box((0,) * self.grid.ndim, self.grid.shape))
            return ShotGradient(window, {name: part for name, part in gradient._asdict().items() if name in self.parameters}, data)

        return in_turn(one, run.count)

    def memory_estimate(self, shots: int | None = None) -> Memory:
        """What a gradient takes above what the process holds before, bytes; nothing is computed.

        Args:
            shots: That run at a time, as in `shot_gradients`, which lets each go: as many as there are cores. By default all of them
                are held, as `linearize` does.
        """
        if shots is not None:
            checks.count("shots", shots)
        spreads = len({spread for spread, _ in self.placement.seats})
        return self._loop.memory(self.acquisition.shots if shots is None else shots, self.dtype.size, held=shots is None, spreads=spreads)

    def illumination(self, model: Nest) -> tf.Tensor:
        """Sum over shots and time of the square of ``d2p/dt2 / v^2``, [grid.shape]: how well each cell is lit by the sources.

        The diagonal of the Gauss-Newton Hessian without what the receivers add (Shin, Yoon, Marfurt et al., Geophys. Prosp. 49, 2001).
        """
        run = self._run(model)
        fields = each(lambda n: self._loop_of(n).illumination(run.medium(n), run.shot(n)), run.count)
        return run.illuminated(fields) * self.internal_step

    def step_matrix(self, model: Nest) -> CSRMatrix:
        """One internal step of the first shot without a source as a sparse matrix, [state, state]; `assembly` has the order of the state."""
        return assembly.step_matrix(self.lattice, *self._run(model).medium(0))

    def _run(self, model: Nest) -> Run:
        model = conform("model", model, self.model_spec)
        wavelet = model.get("wavelet", tf.constant(self.wavelet, self.dtype))
        given = None if self.density is None else tf.constant(self.density, self.dtype)
        rock = Rock(model["velocity"], model.get("density", given))
        if tf.executing_eagerly():
            judging.check_velocity(rock.velocity.numpy(), *self.velocity_limits)
            if rock.density is not None:
                self._check_density(rock.velocity.numpy(), rock.density.numpy())
        settings = (self.internal_step, self.velocity_limits[1], self.frequency, self.boundary.reflection)
        nodes = np.arange(self.order // 2 + 1)
        aside = 0.0 if self._loop.scheme.physics.fluxes else float(stencils.root(self.order) @ (nodes * (nodes - 1) / 2))  # of the root's centre
        profiles = [strip.profiles(self.spacing[strip.axis], *settings, aside) for strip in self.lattice.strips]
        return Run(self._loop.scheme, self.internal_step, self.substeps, self.placement, profiles, rock, wavelet, model.get("initial"))

    def _check_start(self, run: Run) -> None:
        """Refuse snapshots too far apart for the wavelet of a model, or where they cannot be judged."""
        if self.snapshots.every == 1 or not tf.executing_eagerly():
            return
        self.snapshots.check("wavelet", run.wavelet.numpy(), run.wavelet.numpy())
        if run.initial is not None and tf.reduce_any(run.initial != 0):
            expected = "StoreAll() or Checkpointed(n) with an initial field other than zero"
            raise checks.invalid("differentiation", self.differentiation, expected, "The frequencies that come of it are not known.")

    def _check_density(self, velocity: np.ndarray, density: np.ndarray) -> None:
        """Refuse what is not positive and, where it is part of the model, jumps that the time step was not made for."""
        checks.positive("density", density)
        if "density" not in self.parameters:
            return
        self._warn_of_edges(density)
        if (stable := self._stable_step(velocity, density, self.internal_step)) < self.internal_step:
            given = f"with jumps that make steps of {self.internal_step:.4g} s unstable"
            expected = f"smoother, or stepped by {stable:.4g} s at most"
            advice = f"Give time_step = {self.dt / math.ceil(self.dt / stable):.4g}."
            raise checks.invalid("density", given, expected, advice)
