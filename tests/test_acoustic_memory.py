"""What a gradient is said to take, and what it takes: the growth of the peak of the memory of a process of its own."""

import json
import subprocess
import sys

import pytest

#: Prints what is expected and what is found, in bytes: some hundred megabytes at the least.
PROGRAM = """
import json
from pathlib import Path
import numpy as np
import tensorflow as tf
from geoinv.operators import AcousticWave, Acquisition, Grid
from geoinv.operators.seismic import Absorbing, wavelets
from geoinv.operators.sensitivity import Boundary, Checkpointed, Every, StoreAll

def peak():  # getrusage would begin with the peak of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

shape, steps, dtype = {shape}, {steps}, tf.as_dtype("{dtype}")
places = np.array([10.0 * each / 2 for each in shape]) + np.linspace(-40, 40, {shots})[:, np.newaxis] * np.eye(len(shape))[-1]
wave = AcousticWave(
    Grid.uniform(shape, (10.0,) * len(shape)), Acquisition(places, places + 20.0), wavelets.ricker(8.0, steps, 1.5e-3), dt=1.5e-3,
    velocity_limits=(1500.0, 2500.0), boundary=Absorbing(10), differentiation={strategy}, dtype=dtype,
    density=np.full(shape, 2000.0) if {density} else None,
)
model = {{"velocity": tf.fill(shape, tf.constant(2000.0, dtype))}}
w = tf.reverse(tf.constant(wave.wavelet, dtype), [2]) * tf.ones(wave.data_spec.shape, dtype)
before = peak()
tf.reduce_sum(wave.linearize(model).vjp(w)["velocity"]).numpy()
print(json.dumps([*wave.memory_estimate(), peak() - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of the resident memory from /proc")
@pytest.mark.parametrize(
    ("strategy", "shape", "steps", "shots", "dtype", "density"),
    [
        *(
            (strategy, (n, n), 480, 2, "float32", False)
            for strategy in ("StoreAll()", "Every(4)", "Checkpointed(4)", "Boundary()")
            for n in (300, 600)
        ),
        ("Checkpointed(2)", (80, 820), 480, 60, "float32", False),
        ("Every(4)", (300, 300), 480, 2, "float64", False),
        ("Every(4)", (300, 300), 480, 2, "float32", True),
        ("StoreAll()", (60, 60, 60), 200, 2, "float32", False),
    ],
)
def test_estimate_is_what_a_gradient_takes(strategy: str, shape: tuple[int, ...], steps: int, shots: int, dtype: str, density: bool) -> None:
    program = PROGRAM.format(strategy=strategy, shape=shape, steps=steps, shots=shots, dtype=dtype, density=density)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *estimated, measured = json.loads(done.stdout)
    assert sum(estimated) == pytest.approx(measured, rel=0.25), estimated
