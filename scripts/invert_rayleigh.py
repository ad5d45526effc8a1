r"""Map the velocity of Rayleigh waves from their slowness between pairs of stations: straight-ray tomography with sparse matrices.

python scripts/invert_rayleigh.py sw_tomography.npz --output rayleigh-output

.. math:: \min_s \; |J s - d|^2 + \lambda^2 |R s|^2

d is the slowness measured along each path (s/m), s that of each cell, J the share of each path in each cell (its rows sum to 1), R
the roughness (differences of neighbouring cells) and lambda the damping. After the surface-wave example of CoFI (Magrini et al.
2023, doi:10.1029/2023JB026688). The archive holds J and R in compressed sparse row form (jac_*, R_*), slowness [path],
station_coords [path, (lat, lon, lat, lon)] and grid_mesh [cell, (lat min, lat max, lon min, lon max)].
"""

import argparse
import os
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from geoinv.datasets import files, netcdf
from geoinv.datasets.atomic import atomic_path
from geoinv.operators import CSRMatrix, checks

NEEDED = (*(f"{matrix}_{part}" for matrix in ("jac", "R") for part in ("data", "indices", "indptr")), "slowness", "station_coords", "grid_mesh")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE.npz", help="paths, matrices and cells")
    parser.add_argument("--damping", type=float, default=0.015, help="lambda (default: 0.015)")
    parser.add_argument("--holdout", type=float, default=0.1, help="share of the paths that test the fit (default: 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of these paths (default: 0)")
    parser.add_argument("--output", type=Path, default=Path("rayleigh-output"), help="directory to write (default: rayleigh-output)")
    options = parser.parse_args()
    try:
        print(run(options.file, options.output, damping=options.damping, holdout=options.holdout, seed=options.seed)[1])
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


class Paths(NamedTuple):
    """What was measured: slowness [path] in s/m, station_coords [path, 4] in degrees, and their matrices (see above)."""

    shares: CSRMatrix
    roughness: CSRMatrix
    slowness: np.ndarray
    station_coords: np.ndarray
    cells: np.ndarray

    @property
    def stations(self) -> np.ndarray:
        """[station, (latitude, longitude)]."""
        return np.unique(self.station_coords.reshape(-1, 2), axis=0)

    @property
    def lengths(self) -> np.ndarray:
        """[path] great-circle distance, km."""
        lat1, lon1, lat2, lon2 = np.radians(self.station_coords.T)
        haversine = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
        return 2 * 6371.0 * np.arcsin(np.sqrt(haversine))


def load(path: Path) -> Paths:
    """Read an archive.

    Raises:
        ValueError: No such file, not an archive, an array missing or not fitting the others.
    """
    if not zipfile.is_zipfile(files.existing(path)):
        raise checks.invalid("FILE.npz", f"'{path}'", "an archive of NumPy arrays")
    with np.load(path) as archive:
        missing = [name for name in NEEDED if name not in archive]
        arrays = {name: numbers(archive, name) for name in NEEDED if name not in missing}
    if missing:
        raise checks.invalid("FILE.npz", f"'{path}' without {', '.join(missing)}", "an archive of all of these")
    slowness, cells, coordinates = vectors(arrays)
    if arrays["R_indptr"].size == 0:
        raise checks.invalid("R_indptr", "with 0 entries", "of one entry or more, the rows and one more")
    shares, roughness = (
        CSRMatrix.from_arrays(arrays[f"{name}_indptr"], arrays[f"{name}_indices"], checks.finite(f"{name}_data", arrays[f"{name}_data"]), shape)
        for name, shape in (("jac", (slowness.size, len(cells))), ("R", (arrays["R_indptr"].size - 1, len(cells))))
    )
    return Paths(shares, roughness, slowness, coordinates, cells)


def numbers(archive: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """An array of an archive; objects, which would have to be unpickled, and text are refused."""
    try:
        array = np.asarray(archive[name])
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise checks.invalid(name, "that cannot be read", "an array of numbers", f"Reading it failed: {error}") from error
    if array.dtype.kind not in "iuf":
        raise checks.invalid(name, f"of dtype {array.dtype}", "an array of real numbers")
    return array


def vectors(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The slowness [path], the cells [cell, 4] and the station coordinates [path, 4], finite and of these shapes."""
    slowness, cells = checks.positive("slowness", arrays["slowness"]), checks.finite("grid_mesh", arrays["grid_mesh"])
    checks.shape("slowness", slowness, (slowness.size,))
    checks.shape("grid_mesh", cells, (*cells.shape[:1], 4))
    return slowness, cells, checks.shape("station_coords", checks.finite("station_coords", arrays["station_coords"]), (slowness.size, 4))


def invert(paths: Paths, weights: np.ndarray, damping: float) -> np.ndarray:
    """The slowness [cell] in s/m that fits the paths of weight 1, not those of weight 0: normal equations, conjugate gradients."""
    mean = np.average(paths.slowness, weights=weights)  # a constant is not rough: it is fitted as it is, and what is left is small
    shares = paths.shares
    normal = shares.T @ shares.scale_rows(weights) + damping**2 * (paths.roughness.T @ paths.roughness)
    deviation = normal.solve(shares.T @ (weights * (paths.slowness - mean)), method="cg", tolerance=1e-8)
    return mean + np.asarray(deviation)


def run(file: Path, output: Path, *, damping: float = 0.015, holdout: float = 0.1, seed: int = 0) -> tuple[xarray.Dataset, str]:
    """Invert all paths, and for the test of the fit all but some; write model.nc and velocity.png.

    Returns:
        The model, and a summary to print.

    Raises:
        ValueError: Options out of range, an output that cannot be a directory, a bad archive; all before any work.
    """
    damping = float(checks.positive("--damping", damping))
    if seed < 0:
        raise checks.invalid("--seed", seed, "0 or more")
    check_directory(output)
    paths = load(file)
    held = held_out(paths.slowness.size, holdout, seed)
    slowness = invert(paths, np.ones(paths.slowness.size), damping)
    residual = misfit(paths, slowness)
    unseen = misfit(paths, invert(paths, 1.0 - held, damping))[held]
    model = dataset(paths, slowness).assign_attrs(damping=damping, rms=rms(residual), holdout_rms=rms(unseen), holdout=holdout, seed=seed)
    output.mkdir(parents=True, exist_ok=True)
    netcdf.write(output / "model.nc", model)
    with atomic_path(output / "velocity.png") as temporary:
        draw(paths, model, residual, unseen).savefig(temporary, dpi=160)
    return model, summary(paths, model, unseen.size, output)


def check_directory(output: Path) -> None:
    """Refuse a directory to write that is a file, or would be inside one."""
    existing = next(part for part in (output, *output.absolute().parents) if part.exists())
    if not existing.is_dir():
        raise checks.invalid("--output", f"'{output}'", "a directory", f"'{existing}' is a file.")


def held_out(count: int, holdout: float, seed: int) -> np.ndarray:
    """[path] True for those held out."""
    number = round(holdout * count) if np.isfinite(holdout) else 0
    if not 0 < number < count:
        raise checks.invalid("--holdout", holdout, f"a share that holds out some of {count} paths, but not all")
    return np.isin(np.arange(count), np.random.default_rng(seed).permutation(count)[:number])


def misfit(paths: Paths, slowness: np.ndarray) -> np.ndarray:
    """Predicted less measured slowness [path], s/m."""
    return np.asarray(paths.shares @ slowness) - paths.slowness


def rms(residual: np.ndarray) -> float:
    return float(np.sqrt(np.mean(residual**2)))


def dataset(paths: Paths, slowness: np.ndarray) -> xarray.Dataset:
    """The model on latitude and longitude, NaN outside the cells, with the number of paths through each cell."""
    latitude, longitude = (np.round(paths.cells[:, pair].mean(axis=1), 6) for pair in ([0, 1], [2, 3]))
    rows, columns = np.unique(latitude), np.unique(longitude)
    place = np.searchsorted(rows, latitude), np.searchsorted(columns, longitude)

    def table(values: np.ndarray, units: str) -> tuple[tuple[str, str], np.ndarray, dict[str, str]]:
        filled = np.full((rows.size, columns.size), np.nan)
        filled[place] = values
        return ("latitude", "longitude"), filled, {"units": units}

    counts = np.bincount(paths.shares.indices, minlength=slowness.size)
    return xarray.Dataset(
        {"slowness": table(slowness, "s/m"), "velocity": table(1 / slowness, "m/s"), "paths": table(counts, "1")},
        {"latitude": ("latitude", rows, {"units": "degrees_north"}), "longitude": ("longitude", columns, {"units": "degrees_east"})},
    )


def summary(paths: Paths, model: xarray.Dataset, held: int, output: Path) -> str:
    low, high = float(model["slowness"].min()), float(model["slowness"].max())
    relative = 100 * model.attrs["rms"] / paths.slowness.mean()
    return "\n".join(
        [
            f"{paths.slowness.size} paths between {len(paths.stations)} stations, {len(paths.cells)} cells",
            f"rms slowness misfit {model.attrs['rms']:.3g} s/m on all paths ({relative:.1f} % of the mean slowness)",
            f"                    {model.attrs['holdout_rms']:.3g} s/m on {held} paths that were held out (seed {model.attrs['seed']})",
            f"velocity {1e-3 / high:.2f} to {1e-3 / low:.2f} km/s"
            if low > 0
            else "warning: some slownesses are not positive; use a larger --damping",
            f"model    {output / 'model.nc'}",
            f"figure   {output / 'velocity.png'}",
        ]
    )


# -------------------------------------------------------------------------------------------------------------- figure


def draw(paths: Paths, model: xarray.Dataset, residual: np.ndarray, unseen: np.ndarray) -> Figure:
    """The map of velocity beside the residuals."""
    figure = Figure(figsize=(11.5, 6.0), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.75, 1.0])
    draw_map(left, paths, model)
    top, bottom = right.subplots(2, 1)
    draw_histogram(top, residual, unseen)
    draw_lengths(bottom, paths.lengths, residual)
    return figure


def draw_map(figure: Figure, paths: Paths, model: xarray.Dataset) -> None:
    """Slow red, fast blue, about the mean of the cells that paths cross; those that none crosses are pale."""
    ax, velocity, crossed = figure.subplots(), model["velocity"] / 1e3, model["paths"] > 0
    seen = velocity.values[crossed.values]
    middle, spread = float(np.mean(seen)), float(np.percentile(np.abs(seen - np.mean(seen)), 98))
    style = {"cmap": "RdBu", "norm": Normalize(middle - spread, middle + spread), "rasterized": True}
    ax.pcolormesh(model["longitude"], model["latitude"], velocity.where(~crossed), alpha=0.3, **style)
    drawn = ax.pcolormesh(model["longitude"], model["latitude"], velocity.where(crossed), **style)
    latitude, longitude = paths.stations.T
    ax.plot(longitude, latitude, "^", color="black", markersize=2.4, markeredgewidth=0, alpha=0.8, label=f"{latitude.size} stations")
    ax.set_aspect(1 / np.cos(np.radians(latitude.mean())))
    ax.set(xlabel="longitude (degrees)", ylabel="latitude (degrees)", title="Phase velocity of Rayleigh waves (pale: no path crosses)")
    ax.legend(loc="lower left", frameon=False, fontsize=9, markerscale=2)
    figure.colorbar(drawn, ax=ax, label="velocity (km/s)", shrink=0.8, extend="both")


def draw_histogram(ax: Axes, residual: np.ndarray, unseen: np.ndarray) -> None:
    limit = float(np.percentile(np.abs(residual), 99.5)) * 1e6
    bins = np.linspace(-limit, limit, 61)
    for values, style in ((residual, {"color": "0.75"}), (unseen, {"color": "#D55E00", "histtype": "step", "linewidth": 1.4})):
        label = "all paths" if values is residual else "held out"
        ax.hist(values * 1e6, bins, density=True, label=f"{label}: rms {rms(values) * 1e6:.2f}", **style)
    ax.set(xlabel="predicted - measured slowness (ms/km)", ylabel="density", xlim=(-limit, limit), title="Residuals")
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    ax.spines[["top", "right"]].set_visible(False)


def draw_lengths(ax: Axes, lengths: np.ndarray, residual: np.ndarray) -> None:
    """Single residuals, and their rms in tenths of the paths."""
    parts = np.array_split(np.argsort(lengths), 10)
    ax.plot(lengths, residual * 1e6, ".", color="0.6", markersize=1.2, alpha=0.5, rasterized=True)
    middle = [np.median(lengths[part]) for part in parts]
    for sign in (-1, 1):
        ax.plot(
            middle,
            [sign * rms(residual[part]) * 1e6 for part in parts],
            "o-",
            color="#0072B2",
            markersize=3,
            label="rms of a tenth of the paths" if sign > 0 else None,
        )
    limit = float(np.percentile(np.abs(residual), 99.8)) * 1e6
    ax.set(xlabel="length of the path (km)", ylabel="residual (ms/km)", ylim=(-limit, limit), xlim=(0, None))
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    ax.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    sys.exit(main())
