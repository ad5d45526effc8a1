"""The report of an inversion: its figures and one self-contained HTML page, from the files of an output directory alone."""

import base64
import importlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoinv import page, rundir
from geoinv.datasets.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; }
.status { font-size: 1.1rem; border-left: .3rem solid #0072b2; padding-left: .8rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding: .2rem .9rem .2rem 0; text-align: left; }
tr { border-bottom: 1px solid #e4e4e4; } .numbers :is(td, th):not(:first-child) { text-align: right; } th { font-weight: 600; }
figure { margin: 1.2rem 0 2rem; } img { max-width: 100%; } img[alt=convergence] { max-width: 34rem; } figcaption { color: #444; font-size: .92rem; }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: .85rem; } code { overflow-wrap: anywhere; }
"""


def write(directory: str | Path) -> Path:
    """Draw figures/*.png and write report.html from the files of an output directory.

    Returns:
        The path of report.html.

    Raises:
        ValueError: The directory does not hold a complete run.
    """
    directory = Path(directory)
    if (directory / "sensitivity.nc").is_file():
        from geoinv.sensitivity import report

        return report.write(directory)
    run = rundir.read(directory)
    images = {name: save(figure, directory / "figures" / f"{name}.png") for name, figure in _of_kind(run.kind).draw(run).items()}
    path = directory / "report.html"
    rundir.write_text(path, render(run, images))
    return path


def _of_kind(kind: str) -> Any:
    """The module that knows what the report of a kind of inversion shows."""
    return importlib.import_module(f"geoinv.{kind}.report")


def save(figure: "Figure", path: Path) -> bytes:
    """Write a figure as an image, and give its bytes."""
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
    return path.read_bytes()


def render(run: rundir.Run, images: Mapping[str, bytes]) -> str:
    """The page as one HTML text without links, scripts or other files."""
    summary = run.summary
    kind = _of_kind(run.kind)
    title = f"{run.kind.capitalize()} inversion: {Path(tomllib.loads(run.config)['data']['file']).name}"
    warnings = [f"<h2>Warnings</h2><ul>{''.join(f'<li>{page.text(each)}</li>' for each in summary['warnings'])}</ul>"] if summary["warnings"] else []
    body = [
        f'<h1>{page.text(title)}</h1><p class="status">{page.text(rundir.sentence(summary))}</p>',
        *warnings,
        "<h2>Key numbers</h2>" + page.table(kind.key_numbers(summary)),
        *kind.truth_sections(run.model),
        "<h2>Figures</h2>" + "".join(figure(name, image, kind.CAPTIONS[name]) for name, image in images.items()),
        "<h2>Iterations</h2>" + _iterations(run.kind, run.history),
        f"<h2>Configuration</h2><pre>{page.text(run.config)}</pre>",
        "<h2>Provenance</h2>" + page.table(_provenance(summary)),
    ]
    return document(title, body)


def document(title: str, body: Sequence[str]) -> str:
    """A page of parts that are HTML already."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{page.text(title)}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _provenance(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return [("Versions", versions), *_pairs("Seed", summary["seeds"]), *_pairs("SHA-256", summary["sha256"])]


def _pairs(label: str, values: Any) -> list[tuple[str, str]]:
    if isinstance(values, Mapping):
        return [(f"{label}, {name}", str(value)) for name, value in values.items()]
    return [(label, str(values))]


def figure(name: str, image: bytes, caption: str) -> str:
    """An image with its caption as HTML."""
    data = base64.b64encode(image).decode()
    return f'<figure><img alt="{name}" src="data:image/png;base64,{data}"><figcaption>{page.text(caption)}</figcaption></figure>'


def _iterations(kind: str, history: Sequence[Mapping[str, float]]) -> str:
    from geoinv.console import COLUMNS

    rows = [[_cell(record[key], form) for _, key, form in COLUMNS[kind]] for record in history]
    return page.numbers([heading for heading, _, _ in COLUMNS[kind]], rows)


def _cell(value: float, form: str) -> str:
    if np.isnan(value):
        return ""
    return format(round(value) if form == "d" else value, form)
