"""The README shows what runs."""

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_python_examples_print_what_they_say(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inversion, sparse, waves, arrivals, sensitivity, training = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(inversion, str(README), "exec"), {})
    assert capsys.readouterr().out.startswith("Reached the target: chi2")
    exec(compile(sparse, str(README), "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert any(line.split()[0] == "diagonals" and line.endswith("<- used") for line in printed) and printed[-1] == "(898,)"
    exec(compile(waves, str(README), "exec"), {})
    shape, memory = capsys.readouterr().out.splitlines()
    assert shape == "(60, 120)" and 0.2 < float(memory) < 0.5
    exec(compile(arrivals, str(README), "exec"), {})
    assert capsys.readouterr().out.splitlines() == ["2.183 s, 2.183 s", "38 (38, 4000)"]
    exec(compile(sensitivity, str(README), "exec"), {})
    assert capsys.readouterr().out.splitlines() == ["(400,)", "3 1198"]
    monkeypatch.chdir(tmp_path)
    exec(compile(training, str(README), "exec"), {})
    assert capsys.readouterr().out.splitlines() == ["iteration-limit 100 True"]


def test_its_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    assert len(pictures) == 3 and all((README.parent / picture).stat().st_size > 10_000 for picture in pictures)
