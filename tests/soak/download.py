"""Faults of servers, of connections, and of the downloading process."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from random import Random

from pipeline.errors import FetchError
from pipeline.sources.fetch import RETRIES, fetch_archive
from pipeline.sources.receive import Timeouts
from tests.helpers.cifar_format import TinyCifar, make_tiny_cifar
from tests.helpers.file_server import FileServer, serve
from tests.helpers.workspace import REPOSITORY, register_dataset
from tests.soak import Experiment, WrongBytesError

os.environ["NO_PROXY"] = "*"  # all servers are on loopback

POSIX = os.name == "posix"
ARCHIVE_NAME = "tiny.tar.gz"
# One request and its retries, none of which brings a byte, so that the mirror is abandoned.
NO_PROGRESS = [0] * (1 + RETRIES)
SHORT_TIMEOUTS = Timeouts(connect=2, read=0.2, backoff=0, window=1)


@cache
def tiny() -> TinyCifar:
    return make_tiny_cifar()


def fetch(folder: Path, *urls: str) -> None:
    """Fetch the archive and check it. If FetchError is raised instead, check that no file has the archive's name."""
    try:
        archive = tiny().facts().archive
        assert archive
        path = fetch_archive(archive, urls, folder, lambda done, total: None, SHORT_TIMEOUTS)
    except FetchError:
        assert not (folder / ARCHIVE_NAME).exists(), "an unverified file has its final name"
        raise
    if path.read_bytes() != tiny().archive:
        raise WrongBytesError("the archive has wrong bytes")


def cut_connections(random: Random, folder: Path) -> None:
    size = len(tiny().archive)
    cuts = [random.randrange(1, size) for _ in range(random.randrange(1, 9))]
    with serve(FileServer(tiny().archive, etag=random.choice(['"v1"', None]), cuts=list(cuts))) as server:
        fetch(folder, server.url)
    # Each request starts where the previous one broke off. Only bytes in flight are lost.
    starts = [int(request.get("Range", "bytes=0-")[6:-1]) for request in server.requests]
    for begin, cut, resumed in zip(starts, cuts, starts[1:], strict=False):
        assert begin <= resumed <= begin + cut, f"resumed at {resumed}, not at {begin + cut}"
        assert begin + cut - resumed <= 65_536, f"{begin + cut - resumed} bytes were fetched twice"


def change_between_parts(random: Random, folder: Path) -> None:
    size = len(tiny().archive)
    etag = random.choice(['"old"', None])
    with serve(FileServer(random.randbytes(size), etag=etag, cuts=[random.randrange(size), *NO_PROGRESS])) as server:
        with contextlib.suppress(FetchError):
            fetch(folder, server.url)
        server.content, server.etag, server.cuts = tiny().archive, etag and '"new"', []
        fetch(folder, server.url)


def garble_responses(random: Random, folder: Path) -> None:
    """One mirror sends a damaged response, noise, or an archive of other bytes. The next mirror is good."""
    size = len(tiny().archive)
    answer = bytearray(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: x\r\n\r\n" % size + tiny().archive)
    kind = random.choice(["head", "body", "noise", "cut", "longer", "other"])
    if kind == "head":
        for _ in range(random.randrange(1, 5)):
            answer[random.randrange(60)] = random.randrange(256)
    elif kind == "body":
        answer[-random.randrange(1, size)] ^= 1 << random.randrange(8)
    elif kind == "noise":
        answer = bytearray(random.randbytes(random.randrange(5000)))
    elif kind == "cut":
        del answer[random.randrange(len(answer)) :]
    elif kind == "longer":
        answer += random.randbytes(random.randrange(1, 5000))
    else:
        answer[-size:] = random.randbytes(size)
    with (
        serve(FileServer(b"", answer=lambda wfile, over: wfile.write(answer))) as bad,
        serve(FileServer(tiny().archive)) as good,
    ):
        with contextlib.suppress(FetchError):
            fetch(folder, bad.url)
        fetch(folder, bad.url, good.url)


def fail_by_status(random: Random, folder: Path) -> None:
    def statuses() -> list[int]:
        return [random.choice([400, 403, 404, 408, 410, 416, 429, 500, 502, 503, 504]) for _ in range(99)]

    headers = {"Retry-After": "3600"}
    with (
        serve(FileServer(b"", statuses=statuses(), headers=headers)) as first,
        serve(FileServer(b"", statuses=statuses(), headers=headers)) as second,
        serve(FileServer(tiny().archive, statuses=random.choices([429, 503], k=random.randrange(1 + RETRIES)))) as good,
    ):
        fetch(folder, first.url, second.url, good.url)


def make_project(folder: Path, *urls: str) -> dict[str, str]:
    """Copy the packages into a folder, with the tiny dataset registered, and return the environment to run them in."""
    for package in ("pipeline", "shardset"):
        shutil.copytree(REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    register_dataset(folder / "pipeline", "tiny", tiny().facts(*urls))
    params = (REPOSITORY / "params.yaml").read_text().replace("\ndataset: cifar10\n", "\ndataset: tiny\n")
    (folder / "params.yaml").write_text(params)
    return {name: value for name, value in os.environ.items() if name != "PIPELINE_SOURCE"} | {
        "PYTHONPATH": str(folder)
    }


def start(folder: Path, env: dict[str, str], *prefix: str) -> subprocess.Popen[str]:
    command = (*prefix, sys.executable, "-m", "pipeline", "download")
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_outputs(folder: Path) -> None:
    """Check that whatever has its final name is complete and correct."""
    archive = folder / "data/archives" / ARCHIVE_NAME
    if archive.exists() and archive.read_bytes() != tiny().archive:
        raise WrongBytesError("the archive has wrong bytes")
    raw = folder / "data/raw"
    if raw.exists():
        for split, arrays in (("train", tiny().train), ("test", tiny().test)):
            for kind, array in zip(("images", "labels"), arrays, strict=True):
                content = (raw / split / f"{kind}-00000-of-00001.npy").read_bytes()
                if not content.endswith(array.tobytes()):
                    raise WrongBytesError(f"{split} {kind} are wrong")
        assert (raw / "manifest.json").exists(), "a folder without a manifest has its final name"


def wait_for_a_request(server: FileServer, process: subprocess.Popen[str]) -> None:
    requests = len(server.requests)
    while len(server.requests) == requests and process.poll() is None:
        time.sleep(0.01)


def finish(folder: Path, process: subprocess.Popen[str]) -> None:
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    check_outputs(folder)
    assert (folder / "data/raw/manifest.json").exists(), "the command succeeded without its output"


def kill_at_any_time(random: Random, folder: Path) -> None:
    with serve(FileServer(tiny().archive, pause=0.01)) as server:
        env = make_project(folder, server.url)
        part = folder / "data/archives" / f"{ARCHIVE_NAME}.part"
        for _ in range(random.randrange(1, 4)):
            fetched = part.stat().st_size if part.exists() else 0
            process = start(folder, env)
            if random.random() < 0.7:  # while it fetches, decodes or writes; otherwise while it starts
                wait_for_a_request(server, process)
            time.sleep(random.uniform(0, 1))
            process.kill()
            process.communicate()
            check_outputs(folder)
            if part.exists():
                assert part.stat().st_size >= fetched, "bytes fetched earlier were lost"
        server.pause = 0
        finish(folder, start(folder, env))
    starts = [int(request.get("Range", "bytes=0-")[6:-1]) for request in server.requests]
    assert starts == sorted(starts), f"fetched again from the start: {starts}"


def stop_at_any_time(random: Random, folder: Path) -> None:
    with serve(FileServer(tiny().archive, pause=0.01)) as server:
        env = make_project(folder, server.url)
        process = start(folder, env)
        if random.random() < 0.7:
            wait_for_a_request(server, process)
        time.sleep(random.uniform(0, 1))
        process.send_signal(random.choice((signal.SIGTERM, signal.SIGINT)))
        _, stderr = process.communicate(timeout=60)
        assert "Traceback" not in stderr or "/pipeline/" not in stderr, stderr
        left = {path.name for path in (folder / "data").rglob(".*")} - {".raw.work.tmp"}
        assert not left, f"{left} were left behind"
        check_outputs(folder)
        server.pause = 0
        finish(folder, start(folder, env))
        assert not list((folder / "data").rglob(".*")), "the next run left temporary files behind"


def download_twice_at_once(random: Random, folder: Path) -> None:
    with serve(FileServer(tiny().archive, pause=0.005)) as server:
        env = make_project(folder, server.url)
        (folder / "data").mkdir()
        first = start(folder, env)
        time.sleep(random.uniform(0, 1))
        if random.random() < 0.3:
            first.kill()
            first.communicate()
            first = start(folder, env)
        second = start(folder, env)
        errors = [process.communicate(timeout=60)[1] for process in (first, second)]
    # A process that finds the other one writing data/raw exits with an error.
    refused = [error for process, error in zip((first, second), errors, strict=True) if process.returncode]
    assert refused == [] or ["another process is writing to it" in error for error in refused] == [True], errors
    check_outputs(folder)
    assert (folder / "data/raw/manifest.json").exists(), "neither process wrote data/raw"
    starts = [int(request.get("Range", "bytes=0-")[6:-1]) for request in server.requests]
    assert starts == sorted(set(starts)), f"fetched by both: {starts}"


def fill_the_disk(random: Random, folder: Path) -> None:
    """Limit the size of files, which like a full disk fails a write halfway."""
    with serve(FileServer(tiny().archive)) as server:
        env = make_project(folder, server.url)
        limit = f"ulimit -f {random.randrange(len(tiny().archive) // 1024)}; trap '' XFSZ; exec \"$@\""
        process = start(folder, env, "bash", "-c", limit, "bash")
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1, stderr
        assert "can't be written" in stderr, stderr
        assert stderr.count("Error: ") == 1, stderr
        assert not (folder / "data/archives" / ARCHIVE_NAME).exists()
        check_outputs(folder)
        finish(folder, start(folder, env))
    assert len(server.requests) == 2
    assert limit.startswith("ulimit -f 0;") or "Range" in server.requests[1], "fetched again from the start"


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment("connection cut at random offsets", "resumed at the same offset", cut_connections, 10, 1000),
    Experiment(
        "archive changed on the server between two parts",
        "downloaded again from the start",
        change_between_parts,
        5,
        500,
    ),
    Experiment(
        "damaged, truncated, wrong or random responses of a mirror", "next mirror used", garble_responses, 10, 1000
    ),
    Experiment("HTTP errors of all but one mirror", "next mirror used", fail_by_status, 5, 500),
    Experiment("SIGKILL during a download at random times", "resumed by the next run", kill_at_any_time, 1, 50),
    Experiment(
        "SIGTERM or Ctrl-C during a download at random times",
        "no traceback, no temporary files except finished work; resumed by the next run",
        stop_at_any_time,
        1,
        50,
    ),
    Experiment(
        "two downloads at once",
        "downloaded once; a second writer of data/raw exits with an error",
        download_twice_at_once,
        1,
        40,
    ),
    # Windows has no limit on file sizes.
    *(
        [Experiment("disk full during a download", "one error message; resumed by the next run", fill_the_disk, 1, 30)]
        * POSIX
    ),
)
