"""Independent tasks on threads of this process or on workers of a cluster, with the same results bit for bit."""

import hashlib
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from threading import Event, Lock
from typing import Any, TypeVar

from pipeline.runtime.signals import deferred_signals
from shardset.errors import InputError
from shardset.threads import ignore, usable_cpus

AHEAD = 4  # items per thread that are worked on before their results are asked for

# Called with what is being done, how much of it is done, and the total: images, and bytes for FETCHING.
Progress = Callable[[str, int, int], None]
FETCHING = "Fetching"

Imap = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # `map`, or `imap_on_threads`

T = TypeVar("T")
R = TypeVar("R")


class Tally:
    """Counts images that are done, on any thread, and shows the count."""

    def __init__(self, progress: Progress, action: str, total: int) -> None:
        self._show = partial(progress, action)
        self._total, self._num_done = total, 0
        self._lock = Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._num_done += count
            self._show(self._num_done, self._total)


def map_tasks(function: Callable[[T], R], items: Iterable[T], done: Callable[[T], None] = ignore) -> list[R]:
    """Map on threads of this process: numpy and hashlib release the GIL on blocks of the size used here.

    There is one more thread than usable CPUs, because a thread may wait for the disk. The environment variable
    PIPELINE_THREADS overrides the number. Raises InputError if that isn't a number.
    """
    # Each thread pulls its next item, to keep the number of submits low. Signals are deferred during these, because an
    # exception raised by a handler in the middle of a submit could leave a lock of the pool held indefinitely.
    all_items, num_threads = list(items), _num_threads()
    pending = iter(enumerate(all_items))
    results: dict[int, R] = {}
    stop, lock = Event(), Lock()

    def work() -> None:
        try:
            while not stop.is_set() and (task := next(pending, None)):
                index, item = task
                results[index] = function(item)
                with lock:
                    done(item)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(num_threads) as pool:
        try:
            with deferred_signals():
                futures = [pool.submit(work) for _ in all_items[:num_threads]]
            for future in futures:
                future.result()
        finally:
            stop.set()
    return [results[index] for index in range(len(all_items))]


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
                    with deferred_signals():  # as in map_tasks, and seldom, because it takes as long as a submit
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


def _num_threads() -> int:
    setting = os.environ.get("PIPELINE_THREADS") or str(usable_cpus() + 1)
    if not re.fullmatch("[1-9][0-9]{0,3}", setting):
        raise InputError(f"PIPELINE_THREADS: should be a whole number from 1 to 9999, got {setting!r}")
    return int(setting)


@cache  # what a worker has imported stays as it was when the worker was asked first
def installed_version() -> str:
    """Describe the version of this package, its source code, Pillow and Python."""
    try:
        number = version("cifar-pipeline")
    except PackageNotFoundError:  # run from a folder
        number = "not installed"
    folder = Path(__file__).parents[2]
    code = hashlib.sha256()
    for path in sorted([*folder.glob("pipeline/**/*.py"), *folder.glob("shardset/**/*.py")]):
        code.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    python = ".".join(map(str, sys.version_info[:2]))
    return f"cifar-pipeline {number} (code {code.hexdigest()[:8]}) with Pillow {version('pillow')} on Python {python}"
