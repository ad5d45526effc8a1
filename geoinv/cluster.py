"""Parts of a computation on the workers of a Dask cluster: one part on each thread of each, results in order whatever happens to workers."""

import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, final

from geoinv.operators import checks

from . import checkpoints

if TYPE_CHECKING:
    from distributed import Client

Result = TypeVar("Result")
#: Parts under way or waiting on every thread: what a worker has at hand when it has ended one.
AHEAD = 2
#: Arguments that workers keep.
HELD = 8
#: How long to wait for workers, s.
PATIENCE = 60


@final
class Cluster:
    """Workers that are connected; see `connected`."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._held: deque[tuple[Any, Any]] = deque(maxlen=HELD)

    @property
    def threads(self) -> int:
        """How many parts run at a time; 1 while there is no worker."""
        return max(1, sum(self._client.nthreads().values()))

    def in_turn(self, function: Callable[..., Result], shared: Sequence[Any], parts: Sequence[Any]) -> Iterator[Result]:
        """``function(*shared, part)`` of every part, in order: a few more than there are threads are asked for at a time.

        Parts that a worker had not returned when it was lost are computed by another one.

        Args:
            function: Of a module that workers have, too; pure.
            shared: Arguments of all parts, which each worker gets once; the same objects in a later call are there still. Not to be changed.
            parts: The last argument of each.

        Raises:
            Exception: What the function raised.
            ConnectionError: Workers are lost again and again, or the scheduler is.
        """
        from distributed import KilledWorker

        held = [self._kept(each) for each in shared]
        rest = iter(parts)
        ahead = deque(self._submitted(function, held, part) for part in islice(rest, AHEAD * self.threads))
        try:
            while ahead:
                found = ahead.popleft().result()
                ahead.extend(self._submitted(function, held, part) for part in islice(rest, max(1, AHEAD * self.threads - len(ahead))))
                yield found
        except (KilledWorker, CancelledError) as error:
            text = f"The workers of the cluster were lost: {error}. Have they enough memory? What was done is kept: 'geoinv resume' goes on with it"
            raise ConnectionError(text) from None
        finally:  # where one failed, or nobody asks for more
            self._client.cancel(list(ahead))

    def _kept(self, value: Any) -> Any:
        """An argument on the workers: the result of a task, not scattered, for it is made anew where the worker that holds it is lost."""
        for place, entry in enumerate(self._held):
            if entry[0] is value:
                del self._held[place]
                self._held.append(entry)  # the last to go
                return entry[1]
        self._held.append((value, self._client.submit(_same, value, pure=False)))
        return self._held[-1][1]

    def _submitted(self, function: Callable[..., Any], held: Sequence[Any], part: Any) -> Any:
        return self._client.submit(function, *held, part, pure=False)


def _same(value: Any) -> Any:
    return value


@contextmanager
def connected(workers: int | None = None, scheduler: str | None = None) -> Iterator[Cluster | None]:
    """A cluster for as long as the context lasts; None where neither workers nor a scheduler are asked for.

    Args:
        workers: Processes of one thread each to start on this machine.
        scheduler: Address of a running scheduler instead, such as "tcp://host:8786"; its workers must have geoinv and see the same files.

    Raises:
        ValueError: Both are given, Dask is not installed, or nobody answers at the address.
    """
    if workers is None and scheduler is None:
        yield None
        return
    if workers is not None and scheduler is not None:
        raise checks.invalid("scheduler", f"'{scheduler}', with {workers} workers", "given without workers", "Its cluster has workers of its own.")
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise checks.invalid("workers", workers or scheduler, "asked for where Dask is installed", "Run: pip install 'geoinv[cluster]'.") from None
    logging.getLogger("distributed").setLevel(logging.ERROR)
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=10, set_as_default=False)
        except (OSError, ValueError) as error:
            raise checks.invalid("scheduler", f"'{scheduler}'", "the address of a running Dask scheduler", f"{error}.") from None
        with client:
            _check_workers(client, scheduler)
            yield Cluster(client)
        return
    count = checks.count("workers", workers)
    with _deaf_to_interrupts():
        local = LocalCluster(n_workers=count, threads_per_worker=1, processes=True, dashboard_address=":0")
    with local, Client(local, set_as_default=False) as client:  # else xarray would use it
        yield Cluster(client)


def _check_workers(client: "Client", scheduler: str) -> None:
    """Refuse workers that cannot compute, and warn of those that compute other last bits."""
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
        machines = client.run(checkpoints.machine)
    except (TimeoutError, ImportError, AttributeError) as error:
        raise checks.invalid("scheduler", f"'{scheduler}'", "one whose workers have geoinv as it is here", f"{error}.") from None
    own = {name: each for name, each in checkpoints.machine().items() if name != "cores"}
    other = sorted({name for each in machines.values() for name, mine in own.items() if each.get(name) != mine})
    if other:
        checks.warn(f"workers have another {', '.join(other)} than this machine: the last bits of results depend on who computes them")


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that begin meanwhile ignore Ctrl-C, which a terminal sends to all: the one that asks for parts decides what becomes of them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
