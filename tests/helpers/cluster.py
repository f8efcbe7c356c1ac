"""Dask clusters to test with: processes of this machine, and workers that share nothing but one folder."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.helpers.workspace import REPOSITORY

HOST = "127.0.0.1"


@contextmanager
def local_cluster(num_workers: int = 2) -> Iterator[str]:
    """Start single-threaded worker processes, and yield the scheduler's address. A worker that is lost is replaced."""
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with distributed.LocalCluster(
        n_workers=num_workers, threads_per_worker=1, processes=True, dashboard_address=":0", host=HOST
    ) as cluster:
        yield cluster.scheduler_address


class Relay:
    """Passes TCP connections on to a port of this machine, and counts the bytes of both directions."""

    def __init__(self, target_port: int | None = None) -> None:
        self.num_bytes = 0
        self.target_port = target_port
        self._started, self._stopped = Event(), asyncio.Event()
        self._thread = Thread(target=asyncio.run, args=(self._run(),))
        self._thread.start()
        self._started.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, HOST, 0)
        self.port: int = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stopped.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(HOST, self.target_port)
        except OSError:  # it doesn't listen yet, or no longer
            writer.close()
            return
        await asyncio.gather(self._copy(reader, there[1]), self._copy(there[0], writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                self.num_bytes += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@dataclass(frozen=True)
class Cluster:
    """Workers that were started one by one. All that they send and receive goes through relays."""

    address: str
    workers: list[subprocess.Popen[bytes]]
    relays: list[Relay]

    @property
    def num_bytes(self) -> int:
        """The bytes that have crossed the network, in all directions."""
        return sum(relay.num_bytes for relay in self.relays)


@contextmanager
def separate_workers(path: Path, num_workers: int = 2, hidden_dir: Path | None = None) -> Iterator[Cluster]:
    """Start single-threaded workers, each with a folder below `path` to work in and for its temporary files.

    They stand for machines with a shared file system: files are found by absolute paths only, and not through /tmp. A
    worker that is lost stays so. In place of `hidden_dir`, the last worker sees an empty folder.
    """
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with ExitStack() as stack:
        scheduler = stack.enter_context(
            distributed.LocalCluster(n_workers=0, processes=True, dashboard_address=":0", host=HOST)
        )
        relays = [Relay(int(scheduler.scheduler_address.rpartition(":")[2]))]
        stack.callback(relays[0].close)
        cluster = Cluster(f"tcp://{HOST}:{relays[0].port}", [], relays)
        for number in range(num_workers):
            relays.append(Relay())
            stack.callback(relays[-1].close)
            hidden = hidden_dir if number == num_workers - 1 else None
            cluster.workers.append(stack.enter_context(_start_worker(path / f"worker-{number}", cluster, hidden)))
        with distributed.Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(num_workers, timeout=60)
        yield cluster


@contextmanager
def _start_worker(folder: Path, cluster: Cluster, hidden_dir: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker that is reached through the last relay of a cluster."""
    for name in ("local", "tmp"):
        (folder / name).mkdir(parents=True)
    relay = cluster.relays[-1]
    relay.target_port = _free_port()
    hide = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', hidden_dir)
    command = (
        *(hide if hidden_dir else ()),
        *(sys.executable, "-m", "distributed.cli.dask_worker", cluster.address, "--nthreads", "1", "--no-nanny"),
        *("--no-dashboard", "--local-directory", folder / "local", "--listen-address"),
        *(f"tcp://{HOST}:{relay.target_port}", "--contact-address", f"tcp://{HOST}:{relay.port}"),
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(folder / "tmp")}
    with (folder / "log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=folder, env=environment, stderr=log)
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()


def _free_port() -> int:
    relay = Relay()
    relay.close()
    return relay.port
