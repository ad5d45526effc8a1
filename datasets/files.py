"""Opening input files: existence, compression, identity, and errors that name the file and the line."""

import bz2
import gzip
import hashlib
import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from geoinv.operators import checks

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def existing(path: str | os.PathLike[str]) -> Path:
    """The path of an existing file.

    Raises:
        ValueError: There is no such file.
    """
    given = Path(path)
    if not given.is_file():
        raise checks.invalid("path", f"'{given}'", "an existing file", f"Relative names start at '{Path.cwd()}'.")
    return given


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file, decompressed by its suffix (.gz, .bz2, .xz); bytes that are not UTF-8 become replacement characters.

    Raises:
        ValueError: No such file, no permission, or a damaged compressed file.
    """
    given = existing(path)
    opener = _OPENERS.get(given.suffix.lower(), open)
    try:
        with opener(given, "rt", encoding="utf-8-sig", errors="replace") as file:
            return str(file.read())
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise checks.invalid("path", f"'{given}'", "a readable file", f"Reading it failed: {error}.") from error


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes as they lie on disk, in hexadecimal."""
    with open(existing(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(array: np.ndarray) -> str:
    """A short digest of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


def bad_line(path: str | os.PathLike[str], line: int, given: str, expected: str, advice: str = "") -> ValueError:
    """An error about one line of a file, ready to be raised."""
    return checks.invalid(f"{path}, line {line}", given, expected, advice)
