"""Runs of a config that keep checkpoints, and going on with one that was killed or interrupted."""

import importlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from geoinv.datasets.files import sha256
from geoinv.operators import checks

from . import checkpoints
from .checkpoints import Checkpoint
from .cluster import connected
from .config import dump_toml, parse
from .console import COLUMNS, IterationTable

if TYPE_CHECKING:
    from rich.console import Console

    from .config import Config
    from .inversion import Iterate, Outcome, Problem


@final
@dataclass(frozen=True, eq=False)
class Keeper:
    """Writes the checkpoints of a run.

    Args:
        output: The run's directory.
        about: What every checkpoint says: the options, the machine, the files that were read.
    """

    output: Path
    about: Mapping[str, Any]

    @classmethod
    def of(cls, config: "Config", output: Path, files: Sequence[str], checkpoint: Checkpoint | None) -> "Keeper":
        """That of a run which begins, or goes on with a checkpoint; files are what its result depends on."""
        if checkpoint is None:
            checkpoints.remove(output)  # those of another run that is being replaced
        machine, read = checkpoints.machine(), {path: sha256(path) for path in files}
        return cls(output, {"kind": config.kind, "config": dump_toml(config), "machine": machine, "files": read})

    def save(self, number: int, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
        """Write one more."""
        checkpoints.save(self.output / checkpoints.FOLDER, number, arrays, {**self.about, **about})


def run(
    config: "Config", problem: "Problem", output: Path, files: Sequence[str], console: "Console", checkpoint: Checkpoint | None = None
) -> "Outcome":  # fmt: skip
    """Invert by Gauss-Newton with a table of iterations, and a checkpoint in the output directory after each.

    Args:
        config: With [inversion] as `config.GaussNewton`.
        problem: What is inverted.
        output: The run's directory.
        files: What its result depends on.
        console: Where the table is shown.
        checkpoint: To go on from.
    """
    from .inversion import Settings, run, taken_up

    keeper = Keeper.of(config, output, files, checkpoint)
    records: list[dict[str, Any]] = [] if checkpoint is None else list(checkpoint.about["records"])
    past = [] if checkpoint is None else taken_up(records, checkpoint.arrays["model"], checkpoint.arrays["predicted"])

    def report(iterate: "Iterate") -> None:
        table.add(iterate.record())
        records.append(iterate.record())
        arrays = {"model": np.asarray(iterate.model), "predicted": np.asarray(iterate.predicted)}
        keeper.save(iterate.iteration, arrays, {"records": records})

    with IterationTable(console, COLUMNS[config.kind]) as table:
        for record in records:
            table.add(record)
        return run(problem, Settings.of(config.inversion, config.seed), report, past)  # type: ignore[attr-defined]


def finish(output: Path, status: str) -> None:
    """Remove the checkpoints of a run that has nothing left to do, once its results are written."""
    if status not in ("interrupted", "failed"):
        checkpoints.remove(output)


def resume(
    directory: Path, console: "Console", *, allow_different_bits: bool = False, workers: int | None = None, scheduler: str | None = None
) -> dict[str, Any]:  # fmt: skip
    """Go on with a run where its last checkpoint was made; it ends with the same bits as if it had not been stopped.

    The true model of a synthetic survey, which a script had given, is not known any more: the report compares with none.

    Args:
        directory: Output of 'geoinv invert'.
        console: Where progress is shown.
        allow_different_bits: On another processor or with other versions too.
        workers, scheduler: See `invert`.

    Returns:
        The summary of the run.

    Raises:
        ValueError: Nothing to go on with, files that have changed, or another machine.
    """
    if not checkpoints.there(directory):
        ended = (directory / "summary.json").is_file()
        given = f"'{directory}', a run that has ended" if ended else f"'{directory}'"
        advice = "Its results are there: there is nothing to go on with." if ended else "It has no checkpoints."
        raise checks.invalid("directory", given, "the output of an inversion that was stopped", advice)
    checkpoint = checkpoints.latest(directory / checkpoints.FOLDER)
    if not allow_different_bits:
        advice = "Give --allow-different-bits to go on all the same."
        checkpoints.check_same(checkpoint, "machine", checkpoints.machine(), advice)
    files = {path: sha256(path) if Path(path).is_file() else "missing" for path in checkpoint.about["files"]}
    checkpoints.check_same(checkpoint, "files", files, "What was inverted so far is not these data: begin anew.")
    config = parse(tomllib.loads(checkpoint.about["config"]))
    console.print(f"going on with {checkpoint.path.name}", highlight=False)
    return invert(config, directory, overwrite=True, console=console, checkpoint=checkpoint, workers=workers, scheduler=scheduler)


def invert(
    config: "Config", output: Path, *, workers: int | None = None, scheduler: str | None = None, **options: Any
) -> dict[str, Any]:  # fmt: skip
    """Run the job of a config, on the workers of a cluster where they are asked for.

    Args:
        config, output, options: Of the job's `invert`.
        workers: Processes to start on this machine.
        scheduler: Address of a running Dask scheduler.

    Raises:
        ValueError: As the job, and as `cluster.connected`.
    """
    job = importlib.import_module(f"geoinv.{config.kind}.job")
    with connected(workers, scheduler) as cluster:
        return job.invert(config, output, **options, cluster=cluster)
