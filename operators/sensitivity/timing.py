"""What a product costs on this machine: measured, because no count of operations says."""

import time
from collections.abc import Callable

#: Seconds that are spent on timing a call again, once it is warm.
_WORTH = 0.1
#: How many times at most.
_MOST = 5


def seconds(call: Callable[[], object]) -> float:
    """The shortest time of a call that has been made before, s: the first one compiles."""
    call()
    times: list[float] = []
    while len(times) < _MOST and sum(times) < _WORTH:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)
