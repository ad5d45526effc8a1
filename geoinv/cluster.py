"""Parts of a computation on the workers of a Dask cluster: one part on each thread of each, results in order whatever happens to workers."""

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, final

from geoinv.operators import checks

from . import checkpoints

if TYPE_CHECKING:
    from distributed import Client, Future

Result = TypeVar("Result")
#: Parts under way or waiting on every thread: what a worker has at hand when it has ended one.
AHEAD = 2
#: Arguments that workers keep.
HELD = 8
#: An environment variable of Dask's workers.
TRIM = "MALLOC_TRIM_THRESHOLD_"
#: How long to wait for workers, and how often to look whether there are any, s.
PATIENCE, POLL = 60, 5


@final
class Cluster:
    """Workers that are connected; see `connected`."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._held: deque[tuple[Any, Any]] = deque(maxlen=HELD)

    @property
    def threads(self) -> int:
        """How many parts run at a time; 1 while there is no worker."""
        with _losses():
            return max(1, sum(self._client.nthreads().values()))

    @property
    def places(self) -> tuple[str, ...]:
        """The address of a worker for each of its threads, of those that take on work: they pause where they have no memory left."""
        with _losses():
            there = self._client.scheduler_info(n_workers=-1)["workers"]
        return tuple(sorted(address for address, each in there.items() if each["status"] == "running" for _ in range(each["nthreads"])))

    def in_turn(self, function: Callable[..., Result], shared: Sequence[Any], parts: Sequence[Any]) -> Iterator[Result]:
        """``function(*shared, part)`` of every part, in order: a few more than there are threads are asked for at a time.

        Parts that a worker had not returned when it was lost are computed by another one.

        Args:
            function: Of a module that workers have, too; pure.
            shared: Arguments of all parts, which each worker gets once; the same objects in a later call are there still. Not to be changed.
            parts: The last argument of each.

        Raises:
            Exception: What the function raised.
            ConnectionError: Workers are lost again and again, none is left, or the scheduler is lost.
        """
        held = [self._kept(each) for each in shared]
        rest = iter(parts)
        ahead = deque(self.submit(function, *held, part) for part in islice(rest, AHEAD * self.threads))
        try:
            while ahead:
                (found,) = self.results([ahead.popleft()])
                ahead.extend(self.submit(function, *held, part) for part in islice(rest, max(1, AHEAD * self.threads - len(ahead))))
                yield found
        finally:  # where one failed, or nobody asks for more
            self._client.cancel(list(ahead))

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """What a pure function makes of arguments, on a worker: kept there while it is referred to, and made anew elsewhere if the worker is lost.

        No worker is asked for: tasks that are given one, as the one they would best go to, are never run where it is lost (distributed 2026.8).

        Args:
            function: Of a module that workers have, too.
            arguments: Pickled, or what was submitted before: then the worker that has that is preferred.
        """
        with _losses(), _large_arguments():
            return self._client.submit(function, *arguments, pure=False)

    def shared_out(self, values: Sequence[Any]) -> "list[Future[Any]]":
        """Values on workers, no more of them on one than on another: at once, so that the scheduler sees where it has put those before."""
        with _losses(), _large_arguments():
            return list(self._client.map(same, list(values), pure=False))

    def results(self, futures: "Sequence[Future[Any]]") -> list[Any]:
        """Of what was submitted, here.

        Raises:
            Exception: What a function raised.
            ConnectionError: As `in_turn`.
        """
        with _losses():
            self._wait(futures)
            return self._client.gather(list(futures))

    def _wait(self, futures: "Sequence[Future[Any]]") -> None:
        """Until they are there; not for ever where all workers have left: Dask would."""
        deadline, rest = float("inf"), deque(futures)
        while rest:
            try:
                rest[0].exception(timeout=POLL)
                rest.popleft()
            except TimeoutError:
                there, now = bool(self.places), time.monotonic()
                deadline = float("inf") if there else min(deadline, now + PATIENCE)
                if now > deadline:
                    raise _lost(f"for {PATIENCE} s none has been there that takes on work") from None

    def _kept(self, value: Any) -> Any:
        """An argument on the workers: the result of a task, not scattered, for it is made anew where the worker that holds it is lost."""
        for place, entry in enumerate(self._held):
            if entry[0] is value:
                del self._held[place]
                self._held.append(entry)  # the last to go
                return entry[1]
        self._held.append((value, self.submit(same, value)))
        return self._held[-1][1]


def same(value: Any) -> Any:
    """The argument: submitted, it is on a worker."""
    return value


@contextmanager
def _losses() -> Iterator[None]:
    """One line for workers that are lost again and again, or the scheduler."""
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    try:
        yield
    except (KilledWorker, CancelledError, CommClosedError) as error:
        raise _lost(error) from None


def _large_arguments() -> Any:
    """An operator is one argument, and large: Dask would warn of it."""
    import dask

    return dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"})


def _lost(reason: object) -> ConnectionError:
    text = f"The workers of the cluster were lost: {reason}. Have they enough memory? What was done is kept: 'geoinv resume' goes on with it"
    return ConnectionError(text)


@contextmanager
def connected(workers: int | None = None, scheduler: str | None = None) -> Iterator[Cluster | None]:
    """A cluster for as long as the context lasts; None where neither workers nor a scheduler are asked for.

    Args:
        workers: Processes of one thread each to start on this machine.
        scheduler: Address of a running scheduler instead, such as "tcp://host:8786"; it and its workers must have geoinv, and see the same files.

    Raises:
        ValueError: Both are given, Dask is not installed, or nobody answers at the address.
    """
    if workers is None and scheduler is None:
        yield None
        return
    if workers is not None and scheduler is not None:
        raise checks.invalid("scheduler", f"'{scheduler}', with {workers} workers", "given without workers", "Its cluster has workers of its own.")
    try:
        import dask
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
    # Without a limit of memory: what workers hold is of no use on a disk. And with memory that is used again: Dask would have that of each
    # array go back to the system, to be fetched anew, page by page, for the next one.
    environment = {name: value for name, value in dask.config.get("distributed.nanny.pre-spawn-environ").items() if name != TRIM}
    with _deaf_to_interrupts(), dask.config.set({"distributed.nanny.pre-spawn-environ": environment}):
        local = LocalCluster(n_workers=count, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=None)
    with local, Client(local, set_as_default=False) as client:  # else xarray would use it
        client.register_plugin(_sharing(count))
        yield Cluster(client)


def _sharing(count: int) -> Any:
    """Workers of one machine keep to some of its cores each: their threads would wait for one another on all of them."""
    from distributed import WorkerPlugin

    class Sharing(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            if hasattr(os, "sched_setaffinity"):
                everywhere = sorted(os.sched_getaffinity(0))
                os.sched_setaffinity(0, everywhere[worker.name % count :: count] or [everywhere[worker.name % len(everywhere)]])

    return Sharing()


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
