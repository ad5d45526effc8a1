"""Ctrl-C while a step is taken is heard when it has been: a model is never left between two steps."""

import signal
import threading
from types import FrameType
from typing import Any, final


@final
class Interrupts:
    """Held back for as long as a model changes; other threads than the main one never hear any."""

    def __init__(self) -> None:
        self._before: Any = None
        self._pending = False

    def hold(self) -> None:
        """From now on."""
        if self._before is None and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)

    def restore(self) -> None:
        """As it was; what came meanwhile is forgotten."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        self._before, self._pending = None, False

    def release(self) -> None:
        """As it was.

        Raises:
            KeyboardInterrupt: One came meanwhile.
        """
        pending = self._pending
        self.restore()
        if pending:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pending = True
