"""Independent tasks, on threads of this process or on a Dask cluster: the results are the same bit for bit."""

import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from pkgutil import resolve_name
from threading import Event, current_thread, main_thread
from typing import Any, TypeVar

from pipeline.errors import InputError, PipelineError

WORKERS_WITHIN = 30  # seconds, in which a cluster has its first worker

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def signals_put_off() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM wait for the block's end.

    Not by a mask: Python calls its handlers in the main thread whichever thread the signal reached.
    """
    if current_thread() is not main_thread():
        yield
        return
    arrived: list[int] = []
    former: dict[int, Any] = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not None:  # one that C set can't be set again
                former[number] = signal.signal(number, lambda number, _: arrived.append(number))
        yield
    finally:
        for restored, handler in former.items():  # SIGINT, which may come again, last
            signal.signal(restored, handler)
        for one in arrived:
            signal.raise_signal(one)


def map_tasks(function: Callable[[T], R], items: Iterable[T], scheduler: str | None = None) -> list[R]:
    """Apply `function` to each item and return the results in the items' order; the first error ends it.

    `scheduler` is the address of a Dask scheduler, "tcp://host:port", whose workers see the same files under the same
    paths. Without it the tasks run on threads, one more than cores, since one may wait for the disk: numpy and hashlib
    release the GIL on blocks of the size used here. The environment variable PIPELINE_THREADS sets another number.

    Raises InputError for a scheduler or a number of threads that can't be used.
    """
    if scheduler:
        return _map_on_cluster(function, list(items), scheduler)
    return _map_on_threads(function, list(items), _num_threads())


def _map_on_threads(function: Callable[[T], R], items: list[T], num_threads: int) -> list[R]:
    # Each thread takes the next item when it is done with one: few submits, since signals wait for their end. The
    # exception of one, amid a submit, could leave a lock of the pool held for ever.
    todo = iter(enumerate(items))
    results: dict[int, R] = {}
    stop = Event()

    def work() -> None:
        try:
            while not stop.is_set() and (item := next(todo, None)):
                results[item[0]] = function(item[1])
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(num_threads) as pool:
        try:
            with signals_put_off():
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
            client.wait_for_workers(1, timeout=WORKERS_WITHIN)
            client.run(resolve_name, f"{__name__}:WORKERS_WITHIN")
        except TimeoutError:
            raise InputError(f"scheduler {scheduler}: has no worker, and got none in {WORKERS_WITHIN} s") from None
        except ImportError as error:
            raise InputError(f"scheduler {scheduler}: its workers need this package: {error}") from None
        try:
            results: list[R] = client.gather(client.map(function, items, pure=False))
        except (KilledWorker, CancelledError) as error:
            raise PipelineError(f"scheduler {scheduler}: lost workers that were at work: {error}") from None
        return results
