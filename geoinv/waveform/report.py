"""What the report of a full-waveform inversion shows: its figures, its key numbers, and the result beside the truth."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import page, rundir
from . import figures

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

#: Errors of a start model, m/s, below which there is nothing to compare with.
NONE = 0.1

CAPTIONS = {
    "velocity": "Start and result on one scale, and their differences. Trust what lies where waves pass in many directions (see the illumination): "
    "towards the sides and the bottom a result drifts little from its start, or picks up the pattern of the shots.",
    "gathers": "Observed and predicted traces of some shots in the last band, each trace over the observed one's rms (muted samples are left out); "
    "the difference is magnified where its title says so. Coherent arrivals in it are structure the model has not explained; a half-period "
    "offset of whole arrivals is cycle skipping.",
    "residuals": "What is left of the traces in the last band, as a fraction of them: start and result, each with the wavelet that suits it best. "
    "Medians, and the middle half of the traces as a band, against offset; medians of each shot. Rising with offset it is the deep or the "
    "background velocity that is wrong; one shot that stands out may be misplaced or noisy.",
    "profiles": "Velocity over depth, in each third of the section where it changed most.",
    "convergence": "Misfit in each band. A band that hardly falls may already be fitted to its noise, or start from a model too far off: try a lower "
    "first frequency, or the envelope misfit.",
    "wavelets": "The source wavelet of each band after its last fit, and before any. The fit takes up what all traces have in common, so an odd "
    "wavelet points to a velocity that is wrong near the surface.",
    "illumination": "What gradients are divided by. Changes in dim cells rest on little data.",
}


def draw(run: rundir.Run) -> dict[str, "Figure"]:
    """The figures, by name."""
    drawn = {
        "velocity": figures.velocity(run.model),
        "profiles": figures.profiles(run.model),
        "gathers": figures.gathers(run.predicted),
        "residuals": figures.residuals(run.predicted),
        "convergence": figures.convergence(run.history),
    }
    if "wavelet" in run.extra:
        drawn["wavelets"] = figures.wavelets(run.extra["wavelet"])
    if "illumination" in run.model:
        drawn["illumination"] = figures.illumination(run.model)
    return drawn


def key_numbers(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of what to read first."""
    last = summary["bands"][-1]
    top = "all frequencies" if last["frequency"] is None else f"to {last['frequency']:g} Hz"
    rows = [
        ("Samples fitted in the last band", f"{summary['n_data']:,}"),
        ("Model cells", f"{summary['n_model']:,}"),
        (f"chi2 in the last band ({top}), mean of (residual / uncertainty)^2, with that of unfiltered traces", page.number(summary["chi2"])),
        ("Residual rms there", f"{page.number(summary['rms'])} {summary['rms_unit']}"),
        (f"Misfit there ({summary['misfit']}): start model, start of the band, result", ", ".join(map(page.number, _misfits(last)))),
    ]
    if "model_rms_error" in summary:
        rows.append(("Model's rms error: start, result", f"{summary['model_rms_error_start']:.1f}, {summary['model_rms_error']:.1f} m/s"))
    for band in summary["bands"]:
        name = f"Band {band['band']}" + ("" if band["frequency"] is None else f", to {band['frequency']:g} Hz")
        cells = " x ".join(f"{each:.3g}" for each in band["spacing_m"])
        fall = 100 * (1 - band["misfit"] / band["misfit_start"]) if band["misfit_start"] else 0.0
        text = (
            f"misfit down by {fall:.1f} % in {band['iterations']} iterations, {band['seconds']:.0f} s; cells of {cells} m, {band['differentiation']}"
        )
        rows.append((name, text))
    return [*rows, ("Time", f"{summary['seconds']:.1f} s"), ("Peak memory", f"{summary['peak_memory_bytes'] / 1e9:.2f} GB")]


def _misfits(band: Mapping[str, Any]) -> list[float]:
    return [band[name] for name in ("misfit_start_model", "misfit_start", "misfit") if name in band]


def truth_sections(model: "xarray.Dataset") -> list[str]:
    """Errors of start and result against the true model, where it is known: everywhere, and by depth."""
    if "true_velocity" not in model:
        return []
    truth = model["true_velocity"].values
    errors = {name: model[name].values - truth for name in ("start_velocity", "velocity")}
    depths = model["upward"].values
    rows = [("everywhere", *_row(errors, np.ones(truth.shape, bool)))]
    free = model["free"].values.astype(bool)
    for part in np.array_split(np.flatnonzero(free.reshape(len(free), -1).any(axis=1))[::-1], 4):
        if part.size:
            chosen = np.zeros(truth.shape, bool)
            chosen[part] = free[part]
            rows.append((f"upward {depths[part[0]]:,.0f} to {depths[part[-1]]:,.0f} m", *_row(errors, chosen)))
    return ["<h2>Recovered against truth</h2>" + page.numbers(("rms error (m/s)", "start", "result", "of the start's"), rows)]


def _row(errors: Mapping[str, np.ndarray], chosen: np.ndarray) -> tuple[str, str, str]:
    before, after = (float(np.sqrt(np.mean(errors[name][chosen] ** 2))) for name in ("start_velocity", "velocity"))
    return f"{before:.1f}", f"{after:.1f}", f"{100 * after / before:.0f} %" if before >= NONE else ""
