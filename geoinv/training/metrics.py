"""The history of a training run as it grows: rows of history.csv, and scalars for TensorBoard where they are asked for."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from geoinv.operators import checks


@final
class Metrics:
    """Writes rows.

    Args:
        directory: Where history.csv is written, or None for nowhere.
        tensorboard: Whether to write scalars for TensorBoard, too.

    Raises:
        ValueError: TensorBoard is asked for and not installed.
    """

    def __init__(self, directory: Path | None, *, tensorboard: bool = False) -> None:
        self._path = None if directory is None else directory / "history.csv"
        self._events = None if directory is None or not tensorboard else _writer(directory / "tensorboard")
        self._columns: list[str] = []

    def begin(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Begin anew with the rows so far: what a killed run wrote after its last checkpoint is written again."""
        self._columns = []
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            for record in history:
                self._write(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """One more row."""
        self._write(record)
        if self._events is not None:
            import tensorflow as tf

            with self._events.as_default():
                for name, value in record.items():
                    tf.summary.scalar(name, float(value), step=record["iteration"])
            self._events.flush()

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        first = not self._columns
        self._columns = self._columns or list(record)
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            if first:
                writer.writeheader()
            writer.writerow(record)


def _writer(directory: Path) -> Any:
    import tensorflow as tf

    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise checks.invalid("tensorboard", True, "used where TensorBoard is installed", "Install it, or leave it off.") from None
    return tf.summary.create_file_writer(os.fspath(directory))
