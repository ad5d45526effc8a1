"""What a gradient is said to take, and what it takes: the growth of the peak of the memory of a process of its own."""

import json
import subprocess
import sys

import pytest

#: Prints what is expected and what is found, in bytes. 300 x 300 cells, 300 steps, two shots: some hundred megabytes at the least.
PROGRAM = """
import json
from pathlib import Path
import numpy as np
import tensorflow as tf
from geoinv.operators import AcousticWave, Acquisition, Grid
from geoinv.operators.seismic import Absorbing, wavelets
from geoinv.operators.sensitivity import Checkpointed, Every, StoreAll

def peak():  # getrusage would begin with the peak of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

n, steps = {n}, {steps}
places = np.array([[10.0 * n - 50, 5.0 * n], [10.0 * n - 50, 4.0 * n]])
wave = AcousticWave(
    Grid.uniform((n, n), (10.0, 10.0)), Acquisition(places, places + 20.0), wavelets.ricker(8.0, steps, 1.5e-3), dt=1.5e-3,
    velocity_limits=(1500.0, 2500.0), boundary=Absorbing(10), differentiation={strategy},
)
model = {{"velocity": tf.fill([n, n], 2000.0)}}
w = tf.reverse(tf.constant(wave.wavelet, tf.float32), [2]) * tf.ones(wave.data_spec.shape)
before = peak()
tf.reduce_sum(wave.linearize(model).vjp(w)["velocity"]).numpy()
print(json.dumps([*wave.memory_estimate(), peak() - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of the resident memory from /proc")
@pytest.mark.parametrize("strategy", ["StoreAll()", "Every(4)", "Checkpointed(4)"])
@pytest.mark.parametrize(("n", "steps"), [(300, 480), (600, 480)])
def test_estimate_is_what_a_gradient_takes(strategy: str, n: int, steps: int) -> None:
    command = [sys.executable, "-c", PROGRAM.format(strategy=strategy, n=n, steps=steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *estimated, measured = json.loads(done.stdout)
    assert sum(estimated) == pytest.approx(measured, rel=0.25), estimated
