"""One response over HTTP, abandoned if it is too slow."""

import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar
from urllib.parse import urljoin

import requests

from pipeline.errors import FetchError

REDIRECTS = 10
CHUNK_BYTES = 65_536
# 4 kB/s over a minute. At that rate CIFAR-10 takes twelve hours; the slowest known host gives tens of kB/s.
MIN_BYTES = 240_000

# A response, and some bytes of its body.
Received = tuple[requests.Response, bytes]
T = TypeVar("T")


@dataclass(frozen=True)
class Timeouts:
    """How long to wait, in seconds.

    `connect` is for a connection, `read` for the next packet. The first retry comes after `backoff`, each later one
    after twice as long. A server that sends less than MIN_BYTES in `window`, headers included, is abandoned.
    """

    connect: float = 10
    read: float = 30
    backoff: float = 1
    window: float = 60


DEFAULT_TIMEOUTS = Timeouts()


def receive(url: str, headers: dict[str, str], timeouts: Timeouts) -> Iterator[Received]:
    """Yield the response with no bytes, then with each chunk as soon as it has arrived."""
    secure = url.lower().startswith("https:")
    with requests.Session() as session:
        session.headers["Accept-Encoding"] = "identity"
        # Redirects are followed here, because requests would first read the entire body of each into memory.
        for _ in range(1 + REDIRECTS):
            request = session.prepare_request(requests.Request("GET", url, headers))
            settings = session.merge_environment_settings(url, {}, stream=True, verify=None, cert=None)
            with session.get_adapter(url).send(
                request,
                stream=True,
                timeout=(timeouts.connect, timeouts.read),
                verify=settings["verify"] or True,
                cert=settings["cert"],
                proxies=settings["proxies"],
            ) as response:
                response.raise_for_status()
                target = session.get_redirect_target(response)
                if target is None:
                    yield response, b""
                    # Not decompressed, because some servers report the archive's own gzip as its Content-Encoding.
                    while chunk := response.raw.read1(CHUNK_BYTES, decode_content=False):
                        yield response, chunk
                    return
            url = urljoin(url, target)
            if secure and not url.lower().startswith("https:"):
                raise FetchError(f"redirects to {url}, which is not https")
        raise FetchError(f"redirects more than {REDIRECTS} times")


class Pace:
    """Checks that one source, over all connections to it, sends MIN_BYTES in each window of time."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._begin()

    def _begin(self) -> None:
        self._num_bytes = 0
        self._end = time.monotonic() + self._window

    def count(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes
        if self._num_bytes >= MIN_BYTES:
            self._begin()

    def wait(self, inbox: "Queue[T]") -> T:
        """Take the next item. Raises FetchError when the window ends."""
        with suppress(Empty):
            if (seconds := self._end - time.monotonic()) > 0:
                return inbox.get(timeout=seconds)
        raise FetchError(f"too slow: less than {MIN_BYTES:,} bytes in {self._window:g} s")


def enforce_pace(received: Iterator[Received], pace: Pace) -> Generator[Received, None, None]:
    """Yield what is received by a separate thread, since a lookup or header that never ends can only be abandoned."""
    inbox: Queue[Received | Exception | None] = Queue(1)
    abandoned = Event()

    def receive() -> None:
        try:
            for item in received:
                inbox.put(item)
                if abandoned.is_set():
                    return
            inbox.put(None)
        except Exception as error:  # noqa: BLE001 (raised again in the waiting thread)
            inbox.put(error)

    Thread(target=receive, daemon=True).start()
    try:
        while item := pace.wait(inbox):
            if isinstance(item, Exception):
                raise item
            pace.count(len(item[1]))
            yield item
    finally:
        abandoned.set()
        with suppress(Empty):
            inbox.get_nowait()  # makes room for the next item, so that the thread goes on, sees the flag and ends
