"""What a run has come to, on disk: so that it goes on where it was after it was killed, and ends as if it had not been.

A checkpoint is one file: a line of JSON with the digest of what follows, and an archive of arrays. It appears under its name only when it
is whole and on disk; the last few are kept, so that one is left if the newest is damaged. A run's own lie in its folder `checkpoints`
until it has ended.
"""

import hashlib
import io
import json
import os
import platform
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from geoinv.datasets import atomic
from geoinv.operators import checks

from . import rundir

FOLDER, SUFFIX = "checkpoints", ".checkpoint"
FORMAT = 1
#: How many of the last ones are kept.
KEPT = 3


@final
@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One of a run.

    Args:
        path: Its file.
        number: Of the iteration.
        about: What JSON can hold: the options, the files that were read and the machine among it.
        arrays: By name.
    """

    path: Path
    number: int
    about: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


def save(folder: str | Path, number: int, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Path:
    """Write a checkpoint, and remove all but the last few.

    Args:
        folder: Made where it is missing.
        number: Of the iteration; those of a higher one are older runs' and are removed.
        arrays: By name, but for "about".
        about: What JSON can hold.

    Raises:
        OSError: It cannot be written, as on a full disk; those that were there are there still.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    archive = io.BytesIO()
    np.savez(archive, **{**arrays, "about": np.frombuffer(json.dumps(about).encode(), np.uint8)})  # type: ignore[arg-type]
    payload = archive.getvalue()
    head = {"format": FORMAT, "number": number, "bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    path = folder / f"{number:06d}{SUFFIX}"
    with atomic.atomic_path(path) as temporary:
        temporary.write_bytes(json.dumps(head).encode() + b"\n" + payload)
    mine = [each for each in _files(folder) if each <= path]
    for old in {*_files(folder)} - {*mine[-KEPT:]}:
        old.unlink()
    return path


def latest(folder: str | Path) -> Checkpoint:
    """The newest checkpoint that is whole.

    Raises:
        ValueError: There is none.

    Warns:
        UserWarning: Newer ones that are damaged, by name.
    """
    some = _files(Path(folder))
    for path in reversed(some):
        try:
            return read(path)
        except ValueError as error:
            if path == some[0]:
                raise
            checks.warn(f"{error} The one before is taken.")
    raise checks.invalid("directory", f"'{Path(folder).parent}'", "of a run that was begun and has not ended", "It has no checkpoint that is whole.")


def read(path: str | Path) -> Checkpoint:
    """A checkpoint.

    Raises:
        ValueError: It is damaged, or of another version of the format.
    """
    path = Path(path)
    try:
        line, _, payload = path.read_bytes().partition(b"\n")
        head = json.loads(line)
        whole = hashlib.sha256(payload).hexdigest() == head["sha256"] and len(payload) == head["bytes"] and "format" in head
    except (ValueError, KeyError, TypeError):
        whole, head = False, {}
    if not whole:
        raise checks.invalid("checkpoint", f"'{path.name}'", "whole", "It is damaged.")
    if head["format"] != FORMAT:
        raise checks.invalid("checkpoint", f"'{path.name}' of format {head['format']}", f"of format {FORMAT}", "Another version of geoinv wrote it.")
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise checks.invalid("checkpoint", f"'{path.name}'", "an archive of arrays", f"{error}.") from None
    return Checkpoint(path, head["number"], json.loads(arrays.pop("about").tobytes()), arrays)


def there(directory: str | Path) -> bool:
    """Whether a run's directory has any, whole or not."""
    return bool(_files(Path(directory) / FOLDER))


def remove(directory: str | Path) -> None:
    """Remove those of a run that has ended, and what a killed process has left half-written in its directory."""
    shutil.rmtree(Path(directory) / FOLDER, ignore_errors=True)
    atomic.sweep(directory)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))


def machine() -> dict[str, str]:
    """What decides on the last bits of a result: the processor's model, how many cores share a long sum, and versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": _processor(), "cores": str(cores), **rundir.versions()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def check_same(checkpoint: Checkpoint, name: str, now: Mapping[str, Any], advice: str) -> None:
    """Refuse a checkpoint whose `name` is not what it is now, and say which of its entries are not.

    Raises:
        ValueError: They differ.
    """
    then = checkpoint.about[name]
    other = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    if other:
        changes = ", ".join(f"{key} ({then.get(key)} then, {now.get(key)} now)" for key in other)
        raise checks.invalid(f"checkpoint's {name}", f"another in {changes}", "the same", advice)
