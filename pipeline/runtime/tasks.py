"""Independent tasks on threads of this process or on a Dask cluster, with the same results bit for bit."""

import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pkgutil import resolve_name
from threading import Event
from typing import TypeVar

from pipeline.errors import PipelineError
from pipeline.runtime.signals import deferred_signals
from shardset.errors import InputError

FIRST_WORKER_TIMEOUT = 30  # seconds for a cluster to have its first worker

T = TypeVar("T")
R = TypeVar("R")


def map_tasks(function: Callable[[T], R], items: Iterable[T], scheduler: str | None = None) -> list[R]:
    """Apply `function` to each item and return the results in the items' order. Stops at the first error.

    `scheduler` is the address of a Dask scheduler, "tcp://host:port", whose workers see the same files under the same
    paths. Without one, tasks run on threads of this process: numpy and hashlib release the GIL on blocks of the size
    used here. There is one more thread than cores, because a thread may wait for the disk. The environment variable
    PIPELINE_THREADS overrides the number.

    Raises InputError for an unusable scheduler or number of threads, and PipelineError for lost workers.
    """
    if scheduler:
        return _map_on_cluster(function, list(items), scheduler)
    return _map_on_threads(function, list(items), _num_threads())


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
    setting = os.environ.get("PIPELINE_THREADS") or str((os.cpu_count() or 1) + 1)
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
            client.run(resolve_name, f"{__name__}:FIRST_WORKER_TIMEOUT")
        except TimeoutError:
            raise InputError(f"scheduler {scheduler}: no worker joined within {FIRST_WORKER_TIMEOUT} s") from None
        except ImportError as error:
            raise InputError(f"scheduler {scheduler}: its workers don't have this package: {error}") from None
        try:
            results: list[R] = client.gather(client.map(function, items, pure=False))
        except (KilledWorker, CancelledError) as error:
            raise PipelineError(f"scheduler {scheduler}: workers were lost during a task: {error}") from None
        return results
