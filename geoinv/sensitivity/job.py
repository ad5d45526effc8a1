"""The sensitivity job: from a config, and a run's model where there is one, to a directory of what the data resolve.

config.toml       the options, as resolved             summary.json    numbers
sensitivity.nc    fields on the grid, SI               figures/, report.html
"""

import importlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import numpy as np

from geoinv.datasets import netcdf
from geoinv.operators import checks

from .. import rundir
from ..config import dump_toml
from ..console import progress

if TYPE_CHECKING:
    import xarray
    from rich.console import Console

    from geoinv.operators.sensitivity import Informed
    from geoinv.operators.sensitivity.directions import Spread

    from ..gravity.config import GravityConfig
    from ..traveltime.config import TravelTimeConfig
    from ..waveform.config import WaveformConfig
    from .target import Target

Settings = Union["GravityConfig", "TravelTimeConfig", "WaveformConfig"]
#: Down to this eigenvalue directions must be found, or the solves for images take more than some thirty products each.
SOLVED = 100.0
#: Seconds between lines of progress.
TOLD = 10.0

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def run(config: Settings, output: Path, *, directory: Path | None = None, overwrite: bool = False, console: "Console") -> dict[str, Any]:
    """Work out what the data of a config resolve, and write it.

    Args:
        config: Of any kind of inversion.
        output: Directory to write.
        directory: Output of `geoinv invert`, at whose model the problem is linearized; at the start model without it.
        overwrite: Replace earlier results.
        console: Where progress is shown.

    Returns:
        The summary, as written to summary.json.

    Raises:
        ValueError: Anything wrong with the inputs, the run or the output directory; nothing is written then.
    """
    began = time.perf_counter()
    rundir.prepare(output, overwrite=overwrite)
    if directory is not None and directory.resolve() == output.resolve():
        raise checks.invalid("output", f"'{output}'", "another directory than the inversion's", "Its results would be replaced.")
    finished = None if directory is None else _finished(config, directory)
    resolved = resolve(config, console, finished)
    summary = numbers(config, resolved) | _provenance(config, directory, time.perf_counter() - began)
    _write(config, output, resolved.data, summary)
    with progress(console, "figures and report"):
        from .report import write

        write(output)
    return summary


class Resolved(NamedTuple):
    """What data resolve.

    Args:
        target: The problem.
        found: Its informed directions.
        data: Everything on the grid, as `fields` makes it.
        warnings: What to know about it, a line each.
        interrupted: Whether some of it is less than was asked for, because of Ctrl-C.
    """

    target: "Target"
    found: "Informed"
    data: "xarray.Dataset"
    warnings: list[str]
    interrupted: bool


def resolve(config: Settings, console: "Console", finished: rundir.Run | None = None) -> Resolved:
    """What the data of a config resolve; writes nothing.

    Args:
        config: Of any kind of inversion.
        console: Where progress is shown.
        finished: An inversion, at whose model the problem is linearized.

    Raises:
        ValueError: Anything wrong with the inputs or the inversion.
    """
    target: Target = importlib.import_module(f"geoinv.{config.kind}.sensitivity").target(config, finished, console)
    for line in target.notes:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    options, cells = config.sensitivity, _cells(config, target)
    found = _directions(config, target, console)
    images, stopped = _images(target, found, cells, console)
    spread = _spread(config, found, console)
    warnings = list(_warnings(options.samples, found, images is None, spread))
    for line in warnings:
        console.print(f"warning: {line}", highlight=False, markup=False, soft_wrap=True)
    shown = found.point_spread(cells) if images is None else images
    data = fields(target, found, cells, shown, spread, investigated=options.investigated)
    return Resolved(target, found, data, warnings, found.interrupted or stopped or spread.prior.products < options.samples)


def _finished(config: Settings, directory: Path) -> rundir.Run:
    run = rundir.read(directory)
    if run.kind != config.kind:
        raise checks.invalid("model", f"'{directory}', a {run.kind} inversion", f"one of {config.kind}, as the config")
    return run


def _directions(config: Settings, target: "Target", console: "Console") -> "Informed":
    from geoinv.operators.sensitivity import informed

    options, told = config.sensitivity, time.monotonic()
    with progress(console, "directions that the data inform", options.products) as advance:

        def tell(products: int, smallest: float) -> None:
            nonlocal told
            advance(1)
            if time.monotonic() - told > TOLD:
                known = "" if np.isinf(smallest) else f", eigenvalues down to {smallest:.3g} found"
                console.print(f"{products} products{known}", highlight=False)
                told = time.monotonic()

        found = informed(target.at, target.weights, target.prior, enough=options.enough, products=options.products, seed=config.seed, each=tell)
    if not found.values.size:
        raise checks.invalid("data", "that tell nothing about the model", "such that some data depend on it")
    return found


def _images(target: "Target", found: "Informed", cells: np.ndarray, console: "Console") -> tuple[np.ndarray | None, bool]:
    """Point-spread functions, right to a thousandth, by solves that the directions found precondition, none where these are too few; and
    whether Ctrl-C ended them."""
    from geoinv.operators.sensitivity import Posterior

    if found.interrupted or reach(found)["smallest_eigenvalue"] > SOLVED:
        return None, False
    exact = Posterior(target.at, target.weights, lambda m: target.prior.precision @ m, tolerance=1e-4, preconditioner=found.covariance)
    images = []
    try:
        with progress(console, "images of points", len(cells)) as advance:
            for cell in cells:
                images.append(exact.point_spread([cell])[:, 0])
                advance(1)
    except KeyboardInterrupt:
        return None, True
    return np.stack(images, axis=1), False


def _spread(config: Settings, found: "Informed", console: "Console") -> "Spread":
    samples, done = config.sensitivity.samples, 0
    with progress(console, "deviations", samples) as advance:

        def tell(count: int) -> None:
            nonlocal done
            advance(count - done)
            done = count

        return found.spread(samples=samples, seed=config.seed, each=tell)


def _warnings(samples: int, found: "Informed", cut: bool, spread: "Spread") -> Iterator[str]:
    """What an interruption or too few products leave undone."""
    missing = found.rest.value
    if not found.complete:
        why = "interrupted" if found.interrupted else "sensitivity.products was too few"
        yield (
            f"Not all directions are found ({why}): fields leave out about {missing:.3g} of {found.degrees_of_freedom.value:.3g} degrees of freedom, "
            "so coverage and resolution are too small, deviations and the index too large."
        )
    if cut:
        yield "Images of points are made of the directions that were found."
    if spread.prior.products < samples:
        yield f"Interrupted: deviations are from {spread.prior.products} samples."


def _cells(config: Settings, target: "Target") -> np.ndarray:
    """Of the unknowns, those whose point-spread functions are shown."""
    grid, numbers = target.grid, np.full(target.grid.shape, -1)
    numbers[target.active] = np.arange(int(target.active.sum()))
    places = config.sensitivity.cells
    if places is None:  # below the middle of the active cells, at three depths
        middle = [int(np.median(index)) for index in np.nonzero(target.active)]
        column = np.flatnonzero(np.moveaxis(target.active, 0, -1)[tuple(middle[1:])])
        wanted = [(int(column[round(share * (column.size - 1))]), *middle[1:]) for share in (0.85, 0.6, 0.3)]
    else:
        if not places or {len(place) for place in places} != {grid.ndim}:
            raise checks.invalid("sensitivity.cells", [list(place) for place in places], f"a list of [{', '.join(grid.dims)}] in m")
        points = np.array(places, float)
        outside = np.flatnonzero(~grid.contains(points))
        if outside.size:
            raise checks.invalid("sensitivity.cells", points[outside[0]].tolist(), "inside of the grid")
        wanted = [tuple(index) for index in grid.cell_index(points)]
    chosen = np.array([numbers[index] for index in wanted])
    if np.any(chosen < 0):
        at = [float(centers[i]) for centers, i in zip(grid.centers, wanted[int(np.argmin(chosen))], strict=True)]
        raise checks.invalid("sensitivity.cells", f"in the inactive cell at {at}", "in cells that are unknown")
    return chosen


def fields(
    target: "Target", found: "Informed", cells: np.ndarray, images: np.ndarray, spread: "Spread", *, investigated: float = 0.9
) -> "xarray.Dataset":  # fmt: skip
    """Everything on the grid.

    Args:
        target: The problem.
        found: Its informed directions.
        cells: Of the unknowns, those whose point-spread functions are shown.
        images: These, [unknown, cell].
        spread: Deviations and index.
        investigated: The index up to which a depth counts as such.
    """
    import xarray

    constant = np.where(np.arange(target.prior.size) < int(target.active.sum()), 1.0, 0.0)
    unit = target.unit
    named = {
        "model": (target.model, unit, target.quantity),
        "coverage": (target.on_grid(found.coverage), f"1/({unit})", "root of the diagonal of J'WJ: signal to noise of a unit change"),
        "resolution": (target.on_grid(found.resolution), "1", "diagonal of the resolution matrix"),
        "index": (target.on_grid(spread.kept), "1", "part of a smooth change of the reference model that the answer keeps"),
        "constant_index": (target.on_grid(constant - found.resolved(constant)), "1", "what the answer keeps of a constant added to the reference"),
        "prior_deviation": (target.on_grid(spread.prior.value), unit, "standard deviation before the data"),
        "deviation": (target.on_grid(spread.posterior.value), unit, "standard deviation after the data"),
    }
    made = xarray.Dataset({name: target.grid.to_xarray(values, name=name, units=units) for name, (values, units, _) in named.items()})
    for name, (_, _, about) in named.items():
        made[name].attrs["long_name"] = about
    dims, places = target.grid.dims, np.argwhere(target.active)[cells]
    made["point_spread"] = (("cell", *dims), target.on_grid(images), {"long_name": "image of a unit change in one cell"})
    for axis, (dim, centers) in enumerate(zip(dims, target.grid.centers, strict=True)):
        made[f"cell_{dim}"] = ("cell", centers[places[:, axis]], {"units": "m"})
    depth = _investigated(target, made["index"].values, investigated)
    made["depth_of_investigation"] = (dims[1:], depth, {"units": "m", "long_name": "below the topmost cell"})
    made["eigenvalue"] = ("direction", found.values, {"long_name": "what the data tell over what was assumed"})
    made["eigenvalue_error"] = ("direction", found.errors)
    return made.assign_attrs(quantity=target.quantity, unit=unit, **target.place)


def _investigated(target: "Target", index: np.ndarray, level: float) -> np.ndarray:
    """Below the topmost unknown cell of each column, how deep the index stays low from there on down, m."""
    edges, known = target.grid.edges[0], np.where(target.active, index <= level, False)
    top = target.active.shape[0] - 1 - np.argmax(target.active[::-1], axis=0)
    rows = np.arange(target.active.shape[0]).reshape(-1, *[1] * (index.ndim - 1))
    lost = np.where((rows <= top) & ~known, rows, -1).max(axis=0)  # the highest cell, below the top, that is not known
    depth = edges[top + 1] - edges[np.maximum(lost + 1, 0)]
    return np.where(target.active.any(axis=0), depth, np.nan)


def _missed(target: "Target", depth: np.ndarray) -> np.ndarray:
    """What lies between the depth of investigation and the bottom of each column, m."""
    edges, active = target.grid.edges[0], target.active
    top = active.shape[0] - 1 - np.argmax(active[::-1], axis=0)
    return np.round(edges[top + 1] - edges[0] - depth, 6)


def numbers(config: Settings, resolved: Resolved) -> dict[str, Any]:
    """What came of it, in numbers."""
    from geoinv.operators.forward import ravel

    target, found, data, warnings, interrupted = resolved
    return {
        "kind": config.kind,
        "n_model": int(target.active.sum()),
        "n_data": int(np.count_nonzero(ravel(target.weights))),
        # About the cells: a trend's coefficients have their own, and none among the directions that were not found.
        "degrees_of_freedom": float(np.nansum(data["resolution"])) + found.rest.value,
        "degrees_of_freedom_error": found.rest.error,
        "directions_above_noise": int(np.count_nonzero(found.values > 1)),
        "directions": int(found.values.size),
        **reach(found),
        "largest_resolution": float(np.nanmax(data["resolution"])),
        "least_deviation_ratio": float(np.nanmin(data["deviation"] / data["prior_deviation"])),
        "depth_of_investigation_m": float(np.nanmedian(data["depth_of_investigation"])),
        "depth_of_investigation_is_the_bottom": bool(np.nanmedian(_missed(target, data["depth_of_investigation"].values)) == 0),
        "interrupted": interrupted,
        "notes": list(target.notes),
        "warnings": warnings,
    }


def _provenance(config: Settings, directory: Path | None, seconds: float) -> dict[str, Any]:
    return {
        "linearized_at": "the start model" if directory is None else str(directory),
        "seconds": seconds,
        "peak_memory_bytes": rundir.peak_memory_bytes(),
        "versions": rundir.versions(),
        "seeds": {"seed": config.seed},
    }


def reach(found: "Informed") -> dict[str, Any]:
    """How far down all eigenvalues are found, and whether that is as far as was asked."""
    from geoinv.operators.sensitivity.lanczos import FOUND

    sure = found.errors <= FOUND * found.values
    first = int(np.argmin(sure)) if not sure.all() else sure.size
    return {"smallest_eigenvalue": float(found.values[max(first - 1, 0)]), "complete": found.complete}


def _write(config: Settings, output: Path, data: "xarray.Dataset", summary: dict[str, Any]) -> None:
    rundir.clear(output)
    rundir.write_text(output / "config.toml", dump_toml(config))
    netcdf.write(output / "sensitivity.nc", data)
    rundir.write_text(output / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
