"""The figures of a full-waveform inversion: models, profiles, gathers and their fit, residuals, convergence, wavelets, illumination."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from geoinv.datasets.shots import offsets
from geoinv.operators.grid import Grid

from ..figures import DIVERGING, FIELD, colourbar, length_unit, thin_ticks

if TYPE_CHECKING:
    import xarray

#: One colour a band, in order of frequency; told apart by colour-blind readers.
BAND_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")


class _Section(NamedTuple):
    """A vertical section of a model: the plane itself, or the one through the middle of a volume."""

    edges: tuple[np.ndarray, np.ndarray]
    unit: str
    middle: int | None
    place: str
    along: str

    @classmethod
    def of(cls, model: "xarray.Dataset") -> "_Section":
        grid = Grid.from_xarray(model["velocity"])
        unit, factor = length_unit(float(np.ptp(grid.edges[-1])))
        middle = grid.shape[1] // 2 if grid.ndim == 3 else None
        place = "" if middle is None else f", northing {grid.centers[1][middle] / factor:.4g} {unit}"
        return cls((grid.edges[0] / factor, grid.edges[-1] / factor), unit, middle, place, _easting(model))

    def values(self, field: "xarray.DataArray") -> np.ndarray:
        values = np.asarray(field, float)
        return values if self.middle is None else values[:, self.middle]

    def draw(self, ax: Axes, values: np.ndarray, colours: str, norm: Normalize, title: str) -> Any:
        drawn = ax.pcolormesh(self.edges[1], self.edges[0], values, cmap=colours, norm=norm, rasterized=True)
        ax.set_aspect("equal" if self.aspect < 8 else "auto")
        ax.set_title(f"{title}{self.place}", fontsize=9)
        ax.set_xlabel(f"{self.along} ({self.unit})", fontsize=8)
        ax.set_ylabel(f"upward ({self.unit})", fontsize=8)
        thin_ticks(ax)
        return drawn

    @property
    def aspect(self) -> float:
        """Width over height."""
        return float(np.ptp(self.edges[1]) / np.ptp(self.edges[0]))

    def height(self, width: float) -> float:
        """Of a panel so wide, in inches, with its title and labels."""
        return float(np.clip(width / self.aspect, 1.1, 6.0)) + 0.55


def velocity(model: "xarray.Dataset") -> Figure:
    """Start and result on one scale, the true model where it is known, and what changed or what is still wrong.

    Args:
        model: `velocity`, `start_velocity` and, where known, `true_velocity`, m/s.
    """
    section = _Section.of(model)
    start, found = section.values(model["start_velocity"]), section.values(model["velocity"])
    panels = [(start, "start"), (found, "result")]
    differences = [(found - start, "result - start")]
    if "true_velocity" in model:
        truth = section.values(model["true_velocity"])
        panels.append((truth, "true"))
        differences = [(start - truth, "start - true"), (found - truth, "result - true"), (found - start, "result - start")]
    columns = 2 if len(panels) == 3 else 1
    width = 4.6 if columns == 2 else 7.0
    figure = Figure(figsize=(columns * (width + 0.7), 3 * section.height(width - 0.9)), layout="compressed")
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr,call-arg]
    cells = figure.subplots(3, columns, squeeze=False, sharex=True, sharey=True)
    values = np.concatenate([each.ravel() for each, _ in panels])
    scale = Normalize(*np.percentile(values, [0.2, 99.8]))
    change = np.concatenate([each.ravel() for each, _ in differences])
    limit = float(np.percentile(np.abs(change), 99.5)) or 1.0
    left = cells[:, 0] if columns == 2 else cells[:2, 0]
    right = cells[:, 1] if columns == 2 else cells[2:, 0]
    for ax, (field, title) in zip(left, panels, strict=True):
        drawn = section.draw(ax, field, FIELD, scale, title)
    colourbar(figure, drawn, list(left), values, "velocity (m/s)")
    for ax, (field, title) in zip(right, differences, strict=True):
        drawn = section.draw(ax, field, DIVERGING, Normalize(-limit, limit), title)
    colourbar(figure, drawn, list(right), change, "difference (m/s)")
    for ax in cells.ravel():
        ax.label_outer()
    return figure


def gathers(predicted: "xarray.Dataset", count: int = 3) -> Figure:
    """Observed and predicted traces of some shots on one scale, and their difference, magnified where it is small; a row a shot.

    Args:
        predicted: A waveform survey with `observed`, `predicted` and `weight` of the same traces.
        count: How many shots, evenly spread.
    """
    total = predicted.sizes["shot"]
    chosen = np.arange(total) if total <= count else np.linspace(0, total - 1, count + 2).round().astype(int)[1:-1]
    figure = Figure(figsize=(10.2, 3.3 * len(chosen) + 0.4), layout="compressed")
    rows = figure.subplots(len(chosen), 3, squeeze=False, sharex=True, sharey=True)
    for axes, shot in zip(rows, chosen, strict=True):
        _gather_row(figure, list(axes), predicted.isel(shot=int(shot)), int(shot))
    return figure


def _easting(data: "xarray.Dataset") -> str:
    """What the coordinate `easting` is."""
    return "distance" if "line_origin" in data.attrs else "easting"


def _gather_row(figure: Figure, axes: list[Axes], gather: "xarray.Dataset", shot: int) -> None:
    live = np.flatnonzero(gather["live"].values)
    easting = gather["receiver_easting"].values[live]
    by_place = np.unique(easting).size == easting.size > 1  # not the lines of a spread in three dimensions
    order = live[np.argsort(easting, kind="stable")] if by_place else live
    unit, factor = length_unit(float(np.ptp(easting)))
    places = np.sort(easting) / factor if by_place else np.arange(live.size, dtype=float)
    time, counted = gather["time"].values, gather["weight"].values[order] > 0
    observed, computed = (np.where(counted, gather[name].values[order].astype(float), 0.0) for name in ("observed", "predicted"))
    # Late and far arrivals show on the scale of the traces' own sizes, not of the strongest one's.
    size = np.sqrt(np.mean(observed**2, axis=1, keepdims=True))
    size = np.maximum(size, 0.05 * size.max()) if size.max() > 0 else np.ones_like(size)
    limit = float(np.percentile(np.abs(observed / size), 99)) or 1.0
    source = float(np.mean(gather["source_easting"].values)) / factor
    norm, drawn = Normalize(-limit, limit), []
    factor_shown = _magnification(limit, float(np.percentile(np.abs(observed - computed) / size, 99.5)))
    panels = {
        f"observed, shot {shot}" + (f" at {source:.4g} {unit}" if by_place else ""): observed,
        "predicted": computed,
        "observed - predicted" + (f", x {factor_shown}" if factor_shown > 1 else ""): factor_shown * (observed - computed),
    }
    for ax, (title, traces) in zip(axes, panels.items(), strict=True):
        drawn.append(ax.pcolormesh(places, time, (traces / size).T, cmap="gray", norm=norm, shading="nearest", rasterized=True))
        ax.set_title(title, fontsize=9)
        ax.set_xlabel(f"receiver {_easting(gather)} ({unit})" if by_place else "receiver", fontsize=8)
        ax.set_ylabel("time (s)", fontsize=8)
        ax.set_ylim(time[-1], time[0])
        thin_ticks(ax)
        ax.label_outer()
    bar = figure.colorbar(drawn[0], ax=axes, extend="both", shrink=0.9, aspect=32, pad=0.02)
    bar.set_label("over the observed trace's rms", fontsize=8)
    bar.ax.tick_params(labelsize=7.5)


def _magnification(limit: float, largest: float) -> int:
    """The round factor by which small values fill a scale up to its limit."""
    return max((factor for factor in (1, 2, 5, 10, 20, 50, 100) if factor * largest <= limit), default=1)


def profiles(model: "xarray.Dataset") -> Figure:
    """Velocity over depth where it changed most in each third of the section: start, result, and the truth where it is known.

    Args:
        model: As for `velocity`.
    """
    section = _Section.of(model)
    upward, easting = ((edges[1:] + edges[:-1]) / 2 for edges in section.edges)
    figure = Figure(figsize=(9.0, 3.9), layout="constrained")
    drawn = {"start": ("start_velocity", ":", "0.35"), "true": ("true_velocity", "-", "black"), "result": ("velocity", "-", BAND_COLOURS[5])}
    shown = {label: (section.values(model[name]), style, colour) for label, (name, style, colour) in drawn.items() if name in model}
    change = np.sum((section.values(model["velocity"]) - section.values(model["start_velocity"])) ** 2, axis=0)
    for ax, part in zip(figure.subplots(1, 3, sharex=True, sharey=True), np.array_split(np.arange(easting.size), 3), strict=True):
        column = part[change[part].argmax()]
        for label, (values, style, colour) in shown.items():
            ax.plot(values[:, column], upward, style, color=colour, linewidth=1.4, label=label)
        ax.set_title(f"{section.along} {easting[column]:.4g} {section.unit}{section.place}", fontsize=9)
        ax.set_xlabel("velocity (m/s)", fontsize=8)
        ax.set_ylabel(f"upward ({section.unit})", fontsize=8)
        _plain(ax)
        thin_ticks(ax)
        ax.label_outer()
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def residuals(predicted: "xarray.Dataset") -> Figure:
    """What start and result leave of the traces, against offset and shot by shot.

    Args:
        predicted: A waveform survey with `start_residual` and `residual` (shot, receiver), of the observed traces' rms, NaN where nothing counts.
    """
    apart = offsets(predicted)
    unit, factor = length_unit(float(apart.max()))
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    counted = np.isfinite(predicted["residual"].values)
    edges = np.unique(np.quantile(apart[counted], np.linspace(0, 1, 13)))
    bins = np.clip(np.digitize(apart, edges) - 1, 0, max(edges.size - 2, 0))
    for label, name, colour in (("start", "start_residual", "0.35"), ("result", "residual", BAND_COLOURS[0])):
        values = predicted[name].values
        groups = [each for number in range(bins.max() + 1) if (each := counted & (bins == number)).any()]
        low, middle, high = np.array([np.percentile(values[each], [25, 50, 75]) for each in groups]).T
        places = [float(np.mean(apart[each])) / factor for each in groups]
        left.plot(places, middle, "o-", color=colour, markersize=3.5, label=label)
        left.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
        shot = np.flatnonzero(counted.any(axis=1))
        right.plot(shot, [float(np.median(values[i][counted[i]])) for i in shot], "o-", color=colour, markersize=3.5)
    left.set_xlabel(f"offset ({unit})", fontsize=9)
    left.set_ylabel("rms residual, of the trace's rms", fontsize=9)
    right.set_xlabel("shot", fontsize=9)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in (left, right):
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        _plain(ax)
    left.legend(fontsize=8, frameon=False)
    return figure


def convergence(history: Sequence[Mapping[str, float]]) -> Figure:
    """The misfit of every band over its iterations, as a fraction of the band's start.

    Args:
        history: Records with `band`, `frequency`, `iteration` and `relative`.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    ax = figure.subplots()
    for number in sorted({int(record["band"]) for record in history}):
        own = [record for record in history if record["band"] == number]
        colour = BAND_COLOURS[(number - 1) % len(BAND_COLOURS)]
        ax.plot(
            [record["iteration"] for record in own], [record["relative"] for record in own], "o-", color=colour, markersize=3.5, label=_band(own[0])
        )
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    ax.yaxis.set_minor_formatter(NullFormatter() if _decades(history) > 1 else PercentFormatter(1.0, decimals=None))
    ax.set_ylabel("misfit, of that at the band's start", fontsize=9)
    ax.set_xlabel("iteration in the band", fontsize=9)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8, frameon=False)
    _plain(ax)
    ax.tick_params(which="both", labelsize=8)
    return figure


def _decades(history: Sequence[Mapping[str, float]]) -> float:
    return float(-np.log10(max(1e-12, min(record["relative"] for record in history))))


def _band(record: Mapping[str, float]) -> str:
    frequency = record["frequency"]
    return f"band {int(record['band'])}" + (f", to {frequency:g} Hz" if np.isfinite(frequency) else "")


def _plain(ax: Axes) -> None:
    ax.grid(True, which="major", color="0.9")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def wavelets(fitted: "xarray.Dataset") -> Figure:
    """The wavelet of every band, as fitted and as assumed before, and its amplitude spectrum.

    Args:
        fitted: `wavelet` and `guess` (band, time), and `frequency` (band), Hz.
    """
    time, dt = fitted["time"].values, float(np.diff(fitted["time"].values[:2])[0])
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    length = 4 * time.size
    frequencies = np.fft.rfftfreq(length, dt)
    shown, highest = 0.0, 0.0
    for number, row in enumerate(fitted["band"].values):
        colour = BAND_COLOURS[number % len(BAND_COLOURS)]
        for name, style in (("wavelet", "-"), ("guess", ":")):
            signal = fitted[name].values[number]
            peak = np.abs(signal).max() or 1.0
            label = _band({"band": row, "frequency": fitted["frequency"].values[number]}) if name == "wavelet" else None
            left.plot(time, signal / peak, style, color=colour, linewidth=1.2, label=label)
            spectrum = np.abs(np.fft.rfft(signal, length))
            right.plot(frequencies, spectrum / (spectrum.max() or 1.0), style, color=colour, linewidth=1.2)
            shown = max(shown, time[np.flatnonzero(np.abs(signal) > 0.02 * peak)[-1]] if signal.any() else 0.0)
            highest = max(highest, frequencies[np.flatnonzero(spectrum > 0.01 * spectrum.max())[-1]] if signal.any() else 0.0)
    left.set_xlim(time[0], min(time[-1], 1.15 * shown + 0.1))
    left.set_xlabel("time (s)", fontsize=9)
    left.set_ylabel("wavelet, of its peak", fontsize=9)
    right.set_xlim(0, 1.1 * highest or frequencies[-1])
    right.set_xlabel("frequency (Hz)", fontsize=9)
    right.set_ylabel("amplitude, of its peak", fontsize=9)
    for ax in (left, right):
        _plain(ax)
    left.plot([], [], ":", color="0.3", linewidth=1.2, label="before the fit")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def illumination(model: "xarray.Dataset") -> Figure:
    """How well each cell is seen, in decibels below the best one.

    Args:
        model: `illumination`, of the largest, zero where cells do not change.
    """
    section = _Section.of(model)
    lit = section.values(model["illumination"])
    level = 10 * np.log10(np.where(lit > 0, lit, np.nan))
    figure = Figure(figsize=(7.9, section.height(7.0)), layout="compressed")
    ax = figure.subplots()
    lowest = min(-5.0, max(-60.0, float(np.floor(np.nanpercentile(level, 1) / 5) * 5)))
    ax.set_facecolor("0.93")
    drawn = section.draw(ax, level, FIELD, Normalize(lowest, 0.0), "illumination in the last band (grey: cells that do not change)")
    colourbar(figure, drawn, [ax], level, "dB below the best lit cell")
    return figure
