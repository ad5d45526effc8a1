"""The command line. Everything heavy is imported inside the commands, so that help answers at once."""

import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoinv import __version__

if TYPE_CHECKING:
    from geoinv.config import Config

#: Exit codes besides 0.
MISUSE, INTERRUPTED = 2, 130

app = typer.Typer(
    help="Invert geophysical surveys with operators that TensorFlow differentiates.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[
    Path, typer.Argument(help="TOML file; 'geoinv init gravity', 'traveltime' or 'waveform' prints one to start from.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.OPTION=VALUE", help="Replace an option of the config; may be repeated.", show_default=False),
]

Workers = Annotated[
    int | None, typer.Option(metavar="N", help="Spread shots or stations over so many processes; the bits stay the same.", show_default=False)
]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Or over the workers of a running Dask scheduler, such as tcp://host:8786.", show_default=False)
]


def main() -> None:
    """Run the command line."""
    guarded(app)


def guarded(command: Callable[[], object]) -> None:
    """Run a command; a mistake of use ends in one line on standard error and exit code 2. For scripts too."""
    warnings.showwarning = _show_warning
    try:
        command()
    except (ValueError, OSError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        sys.exit(MISUSE)
    except MemoryError as error:
        print(f"error: Not enough memory: {_one_line(error)}. Use larger or fewer cells.", file=sys.stderr)
        sys.exit(MISUSE)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {_one_line(message)}", file=sys.stderr)


def _exit(status: str) -> None:
    """Leave with the code of a run that did not end by itself."""
    if code := {"interrupted": INTERRUPTED, "failed": MISUSE}.get(status):
        raise typer.Exit(code)


def _load(path: Path, overrides: list[str] | None) -> "Config":
    from geoinv.config import load

    return load(path, overrides or [])


def _job(config: "Config") -> Any:
    """The module that checks and inverts this kind of config."""
    return importlib.import_module(f"geoinv.{config.kind}.job")


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(f"geoinv {__version__}")
        raise typer.Exit


@app.command()
def check(config: ConfigPath, overrides: Overrides = None) -> None:
    """Check a config and its data; computes nothing."""
    settings = _load(config, overrides)
    for line in _job(settings).check(settings):
        print(line)


@app.command()
def invert(
    config: ConfigPath,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; CONFIG's name and '-output' by default.", show_default=False)
    ] = None,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")] = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Invert a survey and write the model, its fit and a report. Ctrl-C keeps the result so far."""
    settings = _load(config, overrides)
    directory = output or Path(f"{config.stem}-output")
    from rich.console import Console

    from geoinv import resuming, rundir

    summary = resuming.invert(settings, directory, overwrite=overwrite, console=Console(), workers=workers, scheduler=scheduler)
    print(f"{rundir.sentence(summary)}\n{directory / 'report.html'}")
    _exit(summary["status"])


@app.command()
def estimate(
    config: ConfigPath,
    memory: Annotated[float | None, typer.Option(metavar="GB", help="Choose what is kept so that it fits in so much.", show_default=False)] = None,
    overrides: Overrides = None,
) -> None:
    """Say what an inversion will take, memory and time an iteration, before anything large is computed."""
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    settings = _load(config, overrides)
    from geoinv.estimate import told
    from geoinv.operators import checks

    budget = None if memory is None else 1e9 * float(checks.positive("--memory", memory))
    found = importlib.import_module(f"geoinv.{settings.kind}.estimate").estimates(settings, budget)
    print("\n".join(told(found, budget)))


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(help="Output directory of 'geoinv invert' that was stopped.", show_default=False)],
    allow_different_bits: Annotated[
        bool, typer.Option("--allow-different-bits", help="Go on with another processor or other versions than it was begun with.")
    ] = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Go on with an inversion that was killed or interrupted; it ends as if it had not been."""
    from rich.console import Console

    from geoinv import resuming, rundir

    summary = resuming.resume(
        directory, Console(), allow_different_bits=allow_different_bits, workers=workers, scheduler=scheduler
    )  # fmt: skip
    print(f"{rundir.sentence(summary)}\n{directory / 'report.html'}")
    _exit(summary["status"])


@app.command()
def sensitivity(
    config: ConfigPath,
    model: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Output of 'geoinv invert' at whose model to linearize; that of this config if there.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; CONFIG's name and '-sensitivity' by default.", show_default=False)
    ] = None,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")] = False,
) -> None:
    """Work out what the data resolve: coverage, depth of investigation, point spread, resolution and deviations. Ctrl-C keeps what is found."""
    settings = _load(config, overrides)
    own, directory = Path(f"{config.stem}-output"), output or Path(f"{config.stem}-sensitivity")
    from rich.console import Console

    from geoinv.sensitivity import job, report

    run = model or (own if (own / "summary.json").is_file() else None)
    summary = job.run(settings, directory, directory=run, overwrite=overwrite, console=Console())  # type: ignore[arg-type]
    print(f"{report.sentence(summary)}\n{directory / 'report.html'}")
    if summary["interrupted"]:
        raise typer.Exit(INTERRUPTED)


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="Output directory of 'geoinv invert' or 'geoinv sensitivity'.", show_default=False)],
) -> None:
    """Draw the figures and the report of an output directory anew."""
    from geoinv.report import write

    print(write(directory))


@app.command()
def init(kind: Annotated[str, typer.Argument(help="What to invert: gravity, traveltime or waveform.", show_default=False)]) -> None:
    """Print a commented config with every option and its default."""
    from geoinv.config import template

    print(template(kind), end="")


if __name__ == "__main__":
    main()
