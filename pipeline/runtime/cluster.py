"""Tasks on the workers of a Dask cluster."""

import ctypes
import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.errors import PipelineError
from pipeline.runtime.tasks import installed_version, map_tasks
from shardset.errors import InputError
from shardset.threads import MapTasks, ignore

if TYPE_CHECKING:
    from distributed import Client

FIRST_WORKER_TIMEOUT = 30  # seconds for a cluster to have its first worker
TRIES = 4  # of a task that meets an error of TRANSIENT_ERRORS
# Transient errors of network file systems and connections. A full disk or a missing permission is not retried.
TRANSIENT_ERRORS = frozenset(
    {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN}
    | {errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH}
)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt
MAX_MMAP_THRESHOLD = 33_554_432  # bytes

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def open_workers(scheduler: str | None, shared_dir: Path) -> Iterator[MapTasks]:
    """Yield a function that maps tasks on threads, or on the workers of a Dask scheduler at "tcp://host:port".

    Workers see `shared_dir` and all other files under the same paths as this process, and have the same version of this
    package. A task travels there and its result back, so both should be small. A task may run more than once, even at
    the same time on two workers. It is retried after a transient error, or if its worker is lost.

    Raises InputError for an unusable scheduler, and PipelineError for lost workers.
    """
    if scheduler is None:
        yield map_tasks
        return
    with _connect(scheduler, shared_dir) as client:
        yield partial(_map_on_cluster, client)


@contextmanager
def _connect(scheduler: str, shared_dir: Path) -> Iterator["Client"]:
    """Connect to a scheduler whose workers are fit for tasks, see `open_workers`."""
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            "scheduler: needs Dask: install cifar-pipeline with the extra dask, in a clone by "
            "pip install --constraint constraints.txt -e '.[dask]'"
        ) from None
    try:
        client = Client(scheduler)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"scheduler {scheduler}: can't be reached: {error}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=FIRST_WORKER_TIMEOUT)
        except TimeoutError:
            raise InputError(f"scheduler {scheduler}: no worker joined within {FIRST_WORKER_TIMEOUT} s") from None
        _check_workers(client, shared_dir)
        try:
            yield client
        except (ImportError, AttributeError, PipelineError):
            with suppress(OSError):
                _check_workers(client, shared_dir)  # one that joined later may be the reason
            raise


def _map_on_cluster(
    client: "Client", function: Callable[[T], R], items: Iterable[T], done: Callable[[T], None] = ignore
) -> list[R]:
    """Map on the workers of a client, as `MapTasks` describes."""
    from distributed import KilledWorker, as_completed

    all_items, results = list(items), {}
    run = partial(_run, function, _worker_version())
    futures = client.map(partial(run, 0), all_items, pure=False)
    # A future is known by its key here, since a task that is tried again has another one.
    index_of = {future.key: index for index, future in enumerate(futures)}
    num_tries = dict.fromkeys(range(len(all_items)), 1)
    running = as_completed(futures)
    del futures
    try:
        for future in running:
            index = index_of.pop(future.key)
            if _is_transient(future.exception()) and num_tries[index] < TRIES:
                again = client.submit(run, 2 ** num_tries[index], all_items[index], pure=False)
                index_of[again.key] = index
                num_tries[index] += 1
                running.add(again)
            else:
                results[index] = future.result()
                done(all_items[index])
    except (KilledWorker, CancelledError) as error:
        address = client.scheduler.address
        raise PipelineError(f"scheduler {address}: workers were lost during a task: {error}") from None
    return [results[index] for index in range(len(all_items))]


def _run(function: Callable[[T], R], expected_version: str, delay: float, item: T) -> R:
    if _worker_version() != expected_version:  # it joined after the others were checked, and must not write anything
        raise PipelineError(f"a worker has another version: expected {expected_version}, got {_worker_version()}")
    _keep_freed_memory()
    time.sleep(delay)
    return function(item)


@cache
def _keep_freed_memory() -> None:
    """Undo Dask's MALLOC_TRIM_THRESHOLD_ in a worker.

    With it, the memory of each block goes back to the system at once and is asked for again, which takes a quarter of
    the time of decoding, and half of that of the report. These are the values that glibc comes to by itself.
    """
    with suppress(AttributeError, OSError, TypeError):  # where it is not glibc
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(option, MAX_MMAP_THRESHOLD)


def _is_transient(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in TRANSIENT_ERRORS


def _check_workers(client: "Client", shared_dir: Path) -> None:
    scheduler = client.scheduler.address
    probe = shared_dir.absolute() / f".{os.urandom(8).hex()}.tmp"
    probe.write_text(installed_version(), encoding="utf-8")
    try:
        for worker, found in client.run(_describe_worker, probe, on_error="return").items():
            if isinstance(found, OSError):  # it was lost
                continue
            found_version, sees_files = (found, True) if isinstance(found, Exception) else found
            if found_version != _worker_version():
                raise InputError(
                    f"scheduler {scheduler}: worker {worker}: expected {_worker_version()}, got {found_version}. "
                    "Install the same version on all workers and restart them."
                )
            if not sees_files:
                raise InputError(
                    f"scheduler {scheduler}: worker {worker}: can't see {shared_dir.absolute()}. All workers need a "
                    "file system that they share with this machine, under the same path."
                )
    finally:
        probe.unlink(missing_ok=True)


def _describe_worker(probe: Path) -> tuple[str, bool]:
    """Describe the version of what a worker runs, and say whether it sees a file."""
    try:
        sees_files = probe.exists()
    except OSError:
        sees_files = False
    return _worker_version(), sees_files


@cache  # what a process has imported stays as it is
def _worker_version() -> str:
    """Describe the version of this package and of what decodes images, which can lack parts."""
    from PIL.features import get_supported

    try:
        pyarrow = version("pyarrow")
    except PackageNotFoundError:
        pyarrow = "none"
    return f"{installed_version()}, pyarrow {pyarrow}, decoders {' '.join(sorted(get_supported()))}"
