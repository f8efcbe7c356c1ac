"""Independent tasks on threads of this process or on a Dask cluster, with the same results bit for bit."""

import hashlib
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from pipeline.errors import PipelineError
from pipeline.runtime.signals import deferred_signals
from shardset.errors import InputError
from shardset.threads import usable_cpus

if TYPE_CHECKING:
    from distributed import Client

FIRST_WORKER_TIMEOUT = 30  # seconds for a cluster to have its first worker
AHEAD = 4  # items per thread that are worked on before their results are asked for

# Called with what is being done, how much of it is done, and the total: images, and bytes for FETCHING.
Progress = Callable[[str, int, int], None]
FETCHING = "Fetching"

T = TypeVar("T")
R = TypeVar("R")


def map_tasks(function: Callable[[T], R], items: Iterable[T], scheduler: str | None = None) -> list[R]:
    """Apply `function` to each item and return the results in the items' order. Stops at the first error.

    `scheduler` is the address of a Dask scheduler, "tcp://host:port", whose workers see the same files under the same
    paths and have the same version of this package. Each item travels with its `function`, so both should be small. A
    task may run more than once, even at the same time on two workers.

    Without a scheduler, tasks run on threads of this process: numpy and hashlib release the GIL on blocks of the size
    used here. There is one more thread than usable CPUs, because a thread may wait for the disk. The environment
    variable PIPELINE_THREADS overrides the number.

    Raises InputError for an unusable scheduler or number of threads, and PipelineError for lost workers.
    """
    if scheduler:
        return _map_on_cluster(function, list(items), scheduler)
    return _map_on_threads(function, list(items), _num_threads())


def imap_on_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Apply `function` to each item on threads, as many as `map_tasks` uses, and yield the results in the items' order.

    Only a few items at a time are taken and worked on ahead of the results, so memory doesn't grow with their number.
    """
    remaining, most = iter(items), max_in_flight()
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(_num_threads()) as pool:
        try:
            while True:
                if len(pending) <= most // 2:
                    with deferred_signals():  # as in _map_on_threads, and seldom, because it takes as long as a submit
                        pending.extend(pool.submit(function, item) for item in islice(remaining, most - len(pending)))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def max_in_flight() -> int:
    """Return how many items `imap_on_threads` works on at a time at most."""
    return AHEAD * _num_threads() + 1


def _map_on_threads(function: Callable[[T], R], items: list[T], num_threads: int) -> list[R]:
    # Each thread pulls its next item, to keep the number of submits low. Signals are deferred during these, because an
    # exception raised by a handler in the middle of a submit could leave a lock of the pool held indefinitely.
    pending = iter(enumerate(items))
    results: dict[int, R] = {}
    stop = Event()

    def work() -> None:
        try:
            while not stop.is_set() and (item := next(pending, None)):
                results[item[0]] = function(item[1])
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(num_threads) as pool:
        try:
            with deferred_signals():
                futures = [pool.submit(work) for _ in items[:num_threads]]
            for future in futures:
                future.result()
        finally:
            stop.set()
    return [results[index] for index in range(len(items))]


def _num_threads() -> int:
    setting = os.environ.get("PIPELINE_THREADS") or str(usable_cpus() + 1)
    if not re.fullmatch("[1-9][0-9]{0,3}", setting):
        raise InputError(f"PIPELINE_THREADS: should be a whole number from 1 to 9999, got {setting!r}")
    return int(setting)


def _map_on_cluster(function: Callable[[T], R], items: list[T], scheduler: str) -> list[R]:
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise InputError("scheduler: needs Dask: pip install --constraint constraints.txt -e '.[dask]'") from None
    try:
        client = Client(scheduler)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"scheduler {scheduler}: can't be reached: {error}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=FIRST_WORKER_TIMEOUT)
        except TimeoutError:
            raise InputError(f"scheduler {scheduler}: no worker joined within {FIRST_WORKER_TIMEOUT} s") from None
        _check_workers(client, scheduler)
        try:
            results: list[R] = client.gather(client.map(function, items, pure=False))
        except (KilledWorker, CancelledError) as error:
            raise PipelineError(f"scheduler {scheduler}: workers were lost during a task: {error}") from None
        _check_workers(client, scheduler)  # some may have joined since
        return results


def _check_workers(client: "Client", scheduler: str) -> None:
    for worker, found in client.run(installed_version, on_error="return").items():
        lost = isinstance(found, OSError)
        if not lost and found != installed_version():
            raise InputError(
                f"scheduler {scheduler}: worker {worker}: expected {installed_version()}, got {found}. "
                "Install the same version on all workers and restart them."
            )


@cache  # what a worker has imported stays as it was when the worker was asked first
def installed_version() -> str:
    """Describe the version of this package, its source code and Python."""
    try:
        number = version("cifar-pipeline")
    except PackageNotFoundError:  # run from a folder
        number = "not installed"
    folder = Path(__file__).parents[2]
    code = hashlib.sha256()
    for path in sorted([*folder.glob("pipeline/**/*.py"), *folder.glob("shardset/**/*.py")]):
        code.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    python = ".".join(map(str, sys.version_info[:2]))
    return f"cifar-pipeline {number} (code {code.hexdigest()[:8]}) on Python {python}"
