"""Pieces of the report's page: text, numbers and tables as HTML."""

import html
from collections.abc import Iterable, Sequence


def text(value: object) -> str:
    """A value as text in HTML."""
    return html.escape(str(value))


def number(value: float | None) -> str:
    """Three digits, or 'none'."""
    return "none" if value is None else f"{value:.3g}"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, a row each."""
    return "<table>" + "".join(f"<tr><th>{text(name)}</th><td><code>{text(value)}</code></td></tr>" for name, value in rows) + "</table>"


def numbers(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of numbers under a heading."""
    lines = [("th", heading), *(("td", row) for row in rows)]
    cells = ("".join(f"<{tag}>{text(cell)}</{tag}>" for cell in row) for tag, row in lines)
    return '<table class="numbers">' + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"
