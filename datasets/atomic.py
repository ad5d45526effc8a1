"""Writing files so that a reader finds the whole old file or the whole new one, never a half."""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geoinv.operators import checks

_TEMPORARY = re.compile(r"\..+-[0-9a-f]{12}(\.[^.]+)?")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well; after an error nothing is left behind.

    The temporary name keeps the suffix, because some writers choose their format by it.

    Args:
        path: Where the finished file belongs; its folder must exist. An existing file is replaced.

    Yields:
        The path to write to, on the same file system, so that the renaming is atomic.

    Raises:
        ValueError: `path` is a folder, or its folder does not exist.
        OSError: The disk is full; the message names the file.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise checks.invalid("path", f"'{target}'", "in an existing folder", f"Create '{target.parent}' first.")
    if target.is_dir():
        raise checks.invalid("path", f"'{target}'", "a file", "It is a folder.")
    temporary = target.with_name(f".{target.stem}-{uuid.uuid4().hex[:12]}{target.suffix}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise full(target) if error.errno == errno.ENOSPC else error from None
    finally:
        temporary.unlink(missing_ok=True)


def full(path: str | os.PathLike[str]) -> OSError:
    """A full disk, ready to be raised."""
    text = "No space left on device; what was there is as it was. Free some, and 'geoinv resume' goes on with an inversion. It was to be written"
    return OSError(errno.ENOSPC, text, os.fspath(path))


def require_space(path: str | os.PathLike[str], size: float) -> None:
    """Refuse to begin a file of so many bytes where they do not fit: HDF5 does not survive a disk that fills up while it writes.

    Raises:
        OSError: The disk is too full.
    """
    if shutil.disk_usage(Path(path).parent).free < size:
        raise full(path)


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove from a folder, and the folders in it, the temporary files that a killed process has left there."""
    for path in Path(folder).rglob(".*"):
        if path.is_file() and _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Force the bytes to disk before the renaming, else a power cut could leave an empty file under the final name."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
