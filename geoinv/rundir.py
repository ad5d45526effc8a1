"""The output directory of an inversion: what is in it, how it is written, and how it is read back.

    config.toml     the options, as resolved             history.csv    one row an iteration
    model.nc        what was found, on the grid, SI      summary.json   how the run ended, in numbers
    predicted.nc    observed and predicted data, SI      figures/, report.html
    wavelet.nc      source wavelets, of waveforms          rays.nc         ways of picks, of travel times

Every file appears under its name only when it is whole, and `summary.json` last of the data; figures and report follow, and
`geoinv report` draws them anew. Checkpoints lie in `checkpoints` until a run has ended. A model.vtr, and model.msh with model.den, are
written where they are asked for.
"""

import csv
import dataclasses
import importlib.metadata
import json
import math
import resource
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from geoinv.operators import checks

if TYPE_CHECKING:
    import xarray

    from geoinv.config import Config

#: Keys that every summary.json has; chi2 is the mean of (residual / uncertainty)^2, `rms` is in `rms_unit`.
SUMMARY = (
    *("status", "reason", "iterations", "chi2", "rms", "rms_unit"),
    *("seconds", "peak_memory_bytes", "n_data", "n_model", "versions", "seeds", "sha256", "warnings"),
)

STATUSES = {
    "converged": "Converged",
    "stagnated": "Stagnated",
    "iteration-limit": "Stopped at the iteration limit",
    "interrupted": "Interrupted",
    "failed": "Ended early",
}

_PACKAGES = ("geoinv", "tensorflow", "numpy", "scipy", "xarray", "h5netcdf", "segyio", "choclo", "pyproj", "boule")


def prepare(directory: str | Path, *, overwrite: bool = False) -> Path:
    """Check, before anything is computed, that results can be written; creates nothing.

    Raises:
        ValueError: The directory is a file, is not empty (without `overwrite`), or cannot be written to.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise checks.invalid("output", f"'{directory}'", "a directory", "It is a file.")
    if not overwrite and directory.is_dir() and any(directory.iterdir()):
        stopped = any((directory / "checkpoints").glob("[0-9]*.checkpoint"))
        advice = f"Go on with 'geoinv resume {directory}', or give" if stopped else "Give"
        raise checks.invalid("output", f"'{directory}'", "new or empty", f"{advice} another --output, or --overwrite to replace its results.")
    existing = next(folder for folder in (directory, *directory.absolute().parents) if folder.exists())
    try:
        tempfile.TemporaryFile(dir=existing).close()  # the only test that also holds on a read-only file system
    except OSError as error:
        raise checks.invalid("output", f"'{directory}'", "writable", f"{error.strerror}.") from None
    return directory


#: Files that a run of any command may write besides figures/*.png; an earlier run's are removed before new ones are written.
_FILES = (
    *("summary.json", "config.toml", "model.nc", "predicted.nc", "history.csv", "report.html"),
    *("model.vtr", "model.msh", "model.den", "wavelet.nc", "rays.nc", "sensitivity.nc"),
)
#: Data sets, by name, that only some kinds of inversion write.
_EXTRA = ("wavelet", "rays")


def clear(directory: str | Path) -> None:
    """Make the directory where it is missing, and remove from it what an earlier run wrote, its summary first."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for path in [*(directory / name for name in _FILES), *(directory / "figures").glob("*.png")]:
        path.unlink(missing_ok=True)


def write(
    directory: str | Path,
    *,
    config: "Config",
    model: "xarray.Dataset",
    predicted: "xarray.Dataset",
    history: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    extra: Mapping[str, "xarray.Dataset"] | None = None,
) -> None:
    """Write everything but the figures and the report, creating the directory.

    Args:
        directory: Where; files of an earlier run are replaced.
        config: The options, as resolved.
        model: On the grid, SI, NaN in inactive cells; the true one too where it is known.
        predicted: A survey with `predicted`.
        history: One record an iteration, all of the same keys: the columns of history.csv.
        summary: A record with the keys of SUMMARY at least.
        extra: Other data sets, by the name of their file.

    Raises:
        ValueError: The summary lacks a key, or names an unknown status.
    """
    from geoinv.config import dump_toml
    from geoinv.datasets import netcdf

    missing = [key for key in SUMMARY if key not in summary]
    if missing:
        raise checks.invalid("summary", f"without {', '.join(missing)}", f"a record of {', '.join(SUMMARY)}")
    checks.choice("status", summary["status"], tuple(STATUSES))
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "summary.json").unlink(missing_ok=True)
    write_text(directory / "config.toml", dump_toml(config))
    netcdf.write(directory / "model.nc", model)
    netcdf.write(directory / "predicted.nc", predicted)
    for name, data in (extra or {}).items():
        netcdf.write(directory / f"{checks.choice('extra', name, _EXTRA)}.nc", data)
    _write_history(directory / "history.csv", history)
    write_text(directory / "summary.json", json.dumps(_plain(summary), indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    from geoinv.datasets.atomic import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_history(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    from geoinv.datasets.atomic import atomic_path

    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(history[0]) if history else [])
        writer.writeheader()
        writer.writerows(history)


def _plain(value: Any) -> Any:
    """The value as JSON knows it: NumPy's numbers as Python's, and null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


@final
@dataclass(frozen=True, eq=False)
class Run:
    """What an output directory holds; `config` is the text of config.toml, `extra` the data sets besides model and predicted."""

    config: str
    model: "xarray.Dataset"
    predicted: "xarray.Dataset"
    history: list[dict[str, float]]
    summary: dict[str, Any]
    extra: dict[str, "xarray.Dataset"] = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What was inverted."""
        return str(tomllib.loads(self.config).get("kind", "gravity"))


def read(directory: str | Path) -> Run:
    """Read an output directory.

    Raises:
        ValueError: A file is missing: this is not the directory of a complete run.
    """
    from geoinv.datasets import netcdf

    directory = Path(directory)
    for name in ("config.toml", "model.nc", "predicted.nc", "history.csv", "summary.json"):
        if not (directory / name).is_file():
            raise checks.invalid("directory", f"'{directory}'", "the output of 'geoinv invert'", f"There is no {name}.")
    with open(directory / "history.csv", newline="", encoding="utf-8") as file:
        history = [{key: float(text) if text else math.nan for key, text in row.items()} for row in csv.DictReader(file)]
    return Run(
        config=(directory / "config.toml").read_text(encoding="utf-8"),
        model=netcdf.read(directory / "model.nc"),
        predicted=netcdf.read(directory / "predicted.nc"),
        history=history,
        summary=json.loads((directory / "summary.json").read_text(encoding="utf-8")),
        extra={name: netcdf.read(directory / f"{name}.nc") for name in _EXTRA if (directory / f"{name}.nc").is_file()},
    )


def sentence(summary: Mapping[str, Any]) -> str:
    """How a run ended, in one sentence."""
    count = summary["iterations"]
    end = f"{STATUSES[summary['status']]} after {count} iteration{'s' * (count != 1)}: chi2 = {summary['chi2']:.3g}"
    return f"{end}, residual rms {summary['rms']:.3g} {summary['rms_unit']} ({summary['reason'].rstrip('.')})."


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that computed a result."""
    return {"python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in _PACKAGES}}


def peak_memory_bytes() -> int:
    """The largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
