"""Settings that must precede the import of TensorFlow, and the same random numbers for a test whichever ran before it."""

import os
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

#: Of the generators of modules, as they were when the first test of theirs began.
_STATES: dict[int, Any] = {}


@pytest.fixture(autouse=True)
def same_random_numbers(request: pytest.FixtureRequest) -> None:
    """Tests that share a generator of their module would else depend on which of them run in this process."""
    for generator in vars(request.module).values():
        if isinstance(generator, np.random.Generator):
            bits = generator.bit_generator
            bits.state = _STATES.setdefault(id(generator), bits.state)


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Runs `geoinv` with arguments: its exit code, and the lines of its output and of its errors."""
    from geoinv import cli

    def called(*arguments: str) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["geoinv", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out.splitlines(), err.splitlines()

    return called
