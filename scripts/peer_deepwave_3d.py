"""deepwave on the case `wave-3d` of benchmark.py; run by it, in the environment of the peers."""

import json
import time
from collections.abc import Callable

import deepwave
import torch

SIDE, SAMPLES, SHOTS, SPACING, DT = 150, 300, 2, 5.0, 0.001


def main() -> None:
    torch.set_num_threads(2)
    velocity = torch.full((SIDE, SIDE, SIDE), 1500.0)
    velocity[SIDE // 2 :] = 2000.0
    row = torch.tensor([2, SIDE // 2])
    receivers = torch.cat([row.expand(SIDE, 2), torch.arange(SIDE)[:, None]], dim=1)
    sources = receivers[torch.linspace(10, SIDE - 10, SHOTS).long()][:, None]
    amplitudes = deepwave.wavelets.ricker(25, SAMPLES, DT, 0.06).reshape(1, 1, -1).repeat(SHOTS, 1, 1)
    places = {"source_locations": sources, "receiver_locations": receivers.expand(SHOTS, SIDE, 3)}

    def run(model: torch.Tensor, every: int) -> torch.Tensor:
        options = {"accuracy": 4, "pml_width": 10, "pml_freq": 25.0, "model_gradient_sampling_interval": every}
        return deepwave.scalar(model, SPACING, DT, source_amplitudes=amplitudes, **places, **options)[-1]

    def gradient(every: int) -> None:
        model = velocity.clone().requires_grad_(True)
        (run(model, every) ** 2).sum().backward()

    for metric, call in (("forward", lambda: run(velocity, 1)), ("gradient-every-4", lambda: gradient(4))):
        seconds = min(_seconds(call) for _ in range(2))
        value = round(SIDE**3 * SAMPLES * SHOTS / seconds / 1e6, 1)
        print(json.dumps({"case": "wave-3d", "system": "deepwave", "metric": metric, "value": value, "unit": "Mpt/s"}), flush=True)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
