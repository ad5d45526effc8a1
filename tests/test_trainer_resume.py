"""Training runs that are killed, in steps and within them, and go on to the same bits."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from geoinv import checkpoints
from geoinv.trainer import Outcome, Trainer
from geoinv.training.loss import Fit
from geoinv.training.methods import LBFGS, GaussNewton

from rows import DATA, MATRIX, SIZE, SURVEY, Rows, squares  # isort: skip

Make = Callable[[Path], Trainer]


def keras(directory: Path) -> Trainer:
    """Five blocks to a step, sums in two parts, another order in each epoch."""
    optimizer = tf.keras.optimizers.Adam(0.1)
    return Trainer(
        squares, np.zeros(SIZE, np.float32), {name: array.astype(np.float32) for name, array in SURVEY.items()}, optimizer=optimizer, batch=5,
        precision="kahan", directory=directory, checkpoint_seconds=0.0, penalty=lambda m: tf.reduce_sum(m**2),
    )  # fmt: skip


def searched(directory: Path) -> Trainer:
    return Trainer(squares, np.zeros(SIZE), SURVEY, optimizer=LBFGS(), batch=None, block=4, directory=directory, checkpoint_seconds=0.0)


def stepped(directory: Path) -> Trainer:
    return Trainer(squares, np.zeros(SIZE), SURVEY, optimizer=LBFGS(first_step=0.1), batch=6, block=3, directory=directory, checkpoint_seconds=0.0)


def gauss_newton(directory: Path) -> Trainer:
    optimizer = GaussNewton(cg_iterations=2)
    return Trainer(
        Fit(Rows(MATRIX)), np.zeros(SIZE), {"observed": DATA}, optimizer=optimizer, batch=8, block=4, directory=directory, checkpoint_seconds=0.0
    )


ITERATIONS = 6
MAKERS = {make.__name__: make for make in (keras, searched, stepped, gauss_newton)}


class Killed(BaseException):
    """In place of a kill, just after a checkpoint."""


def killed_after(make: Make, directory: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> Outcome | None:
    """A run that is killed once it has written so many checkpoints; None if it was."""
    save, written = checkpoints.save, []

    def saving(*arguments: Any) -> Path:
        written.append(save(*arguments))
        if len(written) == count:
            raise Killed
        return written[-1]

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", saving)
        try:
            made = make(directory)
            return made.resume(ITERATIONS) if checkpoints.there(directory) else made.fit(ITERATIONS)
        except Killed:
            return None


def same(one: Outcome, other: Outcome) -> None:
    np.testing.assert_array_equal(one.model, other.model)
    forgotten = {"seconds": 0, "programs": 0}
    assert [{**each, **forgotten} for each in one.history] == [{**each, **forgotten} for each in other.history]
    assert (one.status, one.reason) == (other.status, other.reason)


@pytest.mark.parametrize("name", MAKERS)
def test_runs_go_on_from_every_checkpoint(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after each checkpoint in turn, and most of these runs again after four more."""
    make = MAKERS[name]
    whole = make(tmp_path / "whole").fit(ITERATIONS)
    count = checkpoints.latest(tmp_path / "whole" / "checkpoints").number
    assert count >= 2 * ITERATIONS, "within steps too"
    for killed in range(1, count - 2, 7):
        directory = tmp_path / str(killed)
        assert killed_after(make, directory, killed, monkeypatch) is None
        if killed + 4 < count - 2:
            assert killed_after(make, directory, 4, monkeypatch) is None
        same(make(directory).resume(ITERATIONS), whole)


SCRIPT = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from geoinv import checkpoints
    from test_trainer_resume import MAKERS
    directory = Path(sys.argv[3])
    made = MAKERS[sys.argv[2]](directory)
    outcome = made.resume(300) if checkpoints.there(directory) else made.fit(300)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["keras", "stepped"])
def test_processes_killed_at_random_instants_go_on(name: str, tmp_path: Path) -> None:
    random, code = np.random.default_rng(5), "\n".join(line.strip() for line in SCRIPT.splitlines())
    command = [sys.executable, "-c", code, str(Path(__file__).parent), name]
    for killed in range(12):
        process = subprocess.Popen([*command, str(tmp_path / "run")], env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, stderr=subprocess.PIPE)
        before = len(list((tmp_path / "run" / "checkpoints").glob("[0-9]*.checkpoint")))
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            some = sorted((tmp_path / "run" / "checkpoints").glob("[0-9]*.checkpoint"))
            if some and (len(some) > before or killed):
                time.sleep(float(random.uniform(2.5, 5)) if killed else 0.3)
                break
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL, process.stderr.read() if process.stderr else ""
    assert killed, "killed once at least"
    made = MAKERS[name](tmp_path / "run")
    outcome = made.resume(301)
    same(outcome, MAKERS[name](tmp_path / "whole").fit(301))


def test_what_a_run_does_not_go_on_with(tmp_path: Path) -> None:
    keras(tmp_path / "run").fit(2)
    with pytest.raises(ValueError, match=r"Invalid 'directory' .*: must be without checkpoints of a run. Go on with resume\(\)"):
        keras(tmp_path / "run").fit(3)
    with pytest.raises(ValueError, match=r"Invalid 'iterations' 2: must be more than the 2 that are done. The run has ended"):
        keras(tmp_path / "run").resume(2)
    with pytest.raises(ValueError, match=r"'checkpoint's options' another in .*batch \(5 then, None now\).*optimizer \(Adam then, LBFGS now\)"):
        searched(tmp_path / "run").resume(5)
    with pytest.raises(ValueError, match=r"Invalid 'directory' .*none': must be with checkpoints of a run. Begin with fit"):
        keras(tmp_path / "none").resume(5)


def test_a_run_goes_on_in_one_process_as_in_two(tmp_path: Path) -> None:
    whole = keras(tmp_path / "whole").fit(5)
    made = keras(tmp_path / "parts")
    made.fit(2)
    same(made.fit(5), whole)
    keras(tmp_path / "again").fit(2)
    same(keras(tmp_path / "again").resume(5), whole)


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    made = keras(tmp_path / "run")

    def stop(record: dict[str, Any]) -> None:
        if record["iteration"] == 3:
            raise KeyboardInterrupt

    outcome = made.fit(5, report=stop)
    assert outcome.status == "interrupted" and len(outcome.history) == 3
    same(made.fit(5), keras(tmp_path / "whole").fit(5))


def stopping(at: int, call: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but that Ctrl-C is pressed at a call of it."""
    calls = itertools.count(1)

    def called(*arguments: Any) -> Any:
        if next(calls) == at:
            raise KeyboardInterrupt
        return call(*arguments)

    return called


@pytest.mark.parametrize("at", [4, 9, 14, 17])
def test_products_that_are_interrupted_leave_nothing_behind(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, made = gauss_newton(tmp_path / "whole").fit(ITERATIONS), gauss_newton(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(Fit, "product", stopping(at, Fit.product))
        if at < 9:
            with pytest.raises(KeyboardInterrupt):
                made.fit(ITERATIONS)
        else:
            assert made.fit(ITERATIONS).status == "interrupted"
    same(made.fit(ITERATIONS), whole)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("at", [3, 8])
def test_one_trainer_is_interrupted_resumed_and_killed(name: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after a checkpoint, `resume` by the same trainer, killed at its next checkpoint, and then by another one."""
    make, save = MAKERS[name], checkpoints.save
    made, written = make(tmp_path / "run"), list[Path]()

    def saving(*arguments: Any) -> Path:
        written.append(save(*arguments))
        if len(written) == at:
            raise KeyboardInterrupt
        if len(written) == at + 2:  # the first is that of the interruption itself
            raise Killed
        return written[-1]

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", saving)
        with contextlib.suppress(KeyboardInterrupt):
            made.fit(ITERATIONS)
        with pytest.raises(Killed):
            made.resume(ITERATIONS)
    same(make(tmp_path / "run").resume(ITERATIONS), make(tmp_path / "whole").fit(ITERATIONS))


def test_a_short_run_that_is_interrupted_has_a_checkpoint(tmp_path: Path) -> None:
    def make(name: str) -> Trainer:
        return Trainer(squares, np.zeros(SIZE), SURVEY, batch=np.int64(5), seed=np.int64(3), block=np.int64(2), directory=tmp_path / name)

    def stop(record: dict[str, Any]) -> None:
        if record["iteration"] == 3:
            raise KeyboardInterrupt

    assert make("run").fit(5, report=stop).status == "interrupted"
    same(make("run").resume(5), make("whole").fit(5))


def test_other_data_functions_and_schedules_are_other_runs(tmp_path: Path) -> None:
    def make(decay: float = 0.9, shift: float = 0.0, **options: Any) -> Trainer:
        schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.1, 10, decay)
        given = {**SURVEY, "observed": DATA + shift}
        return Trainer(squares, np.zeros(SIZE), given, optimizer=tf.keras.optimizers.Adam(schedule), directory=tmp_path, **options)

    make().fit(2)
    for options, key in (({"decay": 0.8}, "learning_rate"), ({"shift": 1.0}, "data"), ({"penalty": tf.reduce_sum}, "penalty")):
        with pytest.raises(ValueError, match=f"'checkpoint's options' another in .*{key} \\("):
            make(**options).resume(4)
    assert len(make().resume(4).history) == 4


@pytest.mark.parametrize("name", MAKERS)
def test_an_interruption_while_the_model_changes_is_heard_after_the_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal, just after the model has been changed and before the step is counted."""
    make, whole = MAKERS[name], MAKERS[name](tmp_path / "whole").fit(ITERATIONS)
    for way in ("fit", "resume"):
        made = make(tmp_path / way)
        for change in ("apply", "set"):
            original, calls = getattr(made._task, change), itertools.count(1)

            def changing(*arguments: Any, original: Any = original, calls: Any = calls) -> None:
                original(*arguments)
                if next(calls) == 3:
                    os.kill(os.getpid(), signal.SIGINT)

            monkeypatch.setattr(made._task, change, changing)
        outcome = made.fit(ITERATIONS)
        assert outcome.status == "interrupted" and len(outcome.history) == 3
        same(made.fit(ITERATIONS) if way == "fit" else make(tmp_path / way).resume(ITERATIONS), whole)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interruption_while_a_checkpoint_is_written_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = keras(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", stopping(14, checkpoints.save))
        assert made.fit(ITERATIONS).status == "interrupted"
    assert checkpoints.latest(tmp_path / "run" / "checkpoints").about["iteration"] == len(made._task.history) > 0
    same(keras(tmp_path / "run").resume(ITERATIONS), keras(tmp_path / "whole").fit(ITERATIONS))
