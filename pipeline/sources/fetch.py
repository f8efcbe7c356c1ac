"""Fetching a published archive over HTTP: from several mirrors, resumable, verified before it gets its final name."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from io import FileIO
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from requests.utils import get_environ_proxies, select_proxy

from pipeline.errors import FetchError, PipelineError
from pipeline.runtime.files import hash_file
from pipeline.runtime.locks import exclusive_lock
from pipeline.sources.receive import DEFAULT_TIMEOUTS, Pace, Timeouts, enforce_pace, receive
from pipeline.sources.registry import Archive
from shardset.models import printable

LOGGER = logging.getLogger(__name__)

# Called with the number of bytes fetched so far and the total.
Progress = Callable[[int, int], None]

RETRIES = 3  # of a request that brings nothing, before the next mirror is tried
RETRYABLE_STATUSES = (408, 429, 500, 502, 503, 504)
MAX_REASON = 300  # characters of an error message


def fetch_archive(
    archive: Archive, urls: Sequence[str], archives_dir: Path, progress: Progress, timeouts: Timeouts = DEFAULT_TIMEOUTS
) -> Path:
    """Return the path of the verified archive in `archives_dir`, fetched from the first of `urls` that has it.

    Bytes fetched by an earlier, interrupted call are kept in a .part file and not fetched again. While another process
    fetches into the same folder, this one waits. Raises FetchError, listing what was tried, and PipelineError if the
    disk is full.
    """
    archive_path = archives_dir / archive.file_name
    if _is_fetched(archive_path, archive):
        return archive_path
    archives_dir.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(archive_path, wait=True):
        if not _is_fetched(archive_path, archive):
            _fetch_from_any(urls, archive, archive_path, progress, timeouts)
    return archive_path


def find_difference(path: Path, archive: Archive) -> str | None:
    """Describe how a file differs from the published archive, or return None if it is the archive."""
    num_bytes = path.stat().st_size
    if num_bytes != archive.num_bytes:
        return f"expected {archive.num_bytes:,} bytes, got {num_bytes:,}"
    sha256 = hash_file(path)
    return None if sha256 == archive.sha256 else f"expected SHA-256 {archive.sha256}, got {sha256}"


def _is_fetched(archive_path: Path, archive: Archive) -> bool:
    return archive_path.exists() and find_difference(archive_path, archive) is None


def _fetch_from_any(
    urls: Sequence[str], archive: Archive, archive_path: Path, progress: Progress, timeouts: Timeouts
) -> None:
    failures = []
    for url in urls:
        LOGGER.info("Fetching %s from %s", archive.file_name, urlsplit(_without_password(url)).netloc)
        part = _Part(archive_path, _without_password(url))
        try:
            _fetch_from(url, archive, part, progress, timeouts)
        except FetchError as error:
            failures.append(f"  {_without_password(url)}: {printable(str(error), MAX_REASON)}")
        else:
            part.path.replace(archive_path)
            part.discard()
            return
    raise FetchError(f"{archive.file_name} could not be fetched from any of its sources:\n" + "\n".join(failures))


class _Part:
    """The bytes fetched so far, and the ETag or date of the file that they belong to, if known.

    Sources are byte-identical, so a part from one may be finished by another. The ETag is valid for one URL only.
    """

    def __init__(self, archive_path: Path, url: str) -> None:
        self.path = archive_path.with_name(archive_path.name + ".part")
        self._validator_path = archive_path.with_name(archive_path.name + ".part.json")
        self._url = url

    @property
    def num_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self) -> str | None:
        """Return the value of If-Range, if the part was begun at this URL."""
        try:
            saved = json.loads(self._validator_path.read_text(encoding="utf-8"))
            return str(saved["validator"]) if saved["url"] == self._url else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def begin(self, headers: Mapping[str, str]) -> None:
        """Start over with the file announced by these response headers."""
        self.discard()
        etag = headers.get("ETag", "W/")
        validator = headers.get("Last-Modified") if etag.startswith("W/") else etag
        if validator:
            self._validator_path.write_text(json.dumps({"url": self._url, "validator": validator}), encoding="utf-8")
        self.path.touch()

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._validator_path.unlink(missing_ok=True)


def _fetch_from(
    url: str, archive: Archive, part: _Part, progress: Progress, timeouts: Timeouts, *, again: bool = False
) -> None:
    in_pieces = part.num_bytes > 0
    retries = 0
    pace = Pace(timeouts.window)
    while part.num_bytes < archive.num_bytes:
        before = part.num_bytes
        in_pieces |= before > 0
        reason = "the server closed the connection too early"
        try:
            _append(url, archive, part, progress, timeouts, pace)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            reason = _explain(error)
            if not _is_retryable(error):
                raise FetchError(reason) from None
        if part.num_bytes > before:
            retries = 0
        elif retries == RETRIES:
            raise FetchError(reason)
        else:
            # Retry-After is ignored: it may ask for hours, and there are other mirrors to try.
            time.sleep(timeouts.backoff * 2**retries)
            retries += 1
    difference = find_difference(part.path, archive)
    if difference:
        part.discard()
        if again or not in_pieces:
            raise FetchError(difference)
        # The pieces may come from different files.
        _fetch_from(url, archive, part, progress, timeouts, again=True)


def _append(url: str, archive: Archive, part: _Part, progress: Progress, timeouts: Timeouts, pace: Pace) -> None:
    start, validator = part.num_bytes, part.validator()
    headers = {}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    with closing(enforce_pace(receive(url, headers, timeouts), pace)) as received:
        response, _ = next(received)
        expected = {}
        if response.status_code == requests.codes.partial_content:
            expected["Content-Range"] = f"bytes {start}-{archive.num_bytes - 1}/{archive.num_bytes}"
        else:
            start = 0
        expected["Content-Length"] = str(archive.num_bytes - start)
        for name, value in expected.items():
            if response.headers.get(name) != value:
                raise FetchError(f"expected {name}: {value}, got {response.headers.get(name)}")
        if not start and ("If-Range" in headers or not part.num_bytes):
            with _disk_errors_named(part.path):
                part.begin(response.headers)
        # A server without ranges sends everything from the start. Its bytes overwrite those already there, which are
        # the same, so that nothing is lost if it stops early. Unbuffered, so that received bytes survive a kill.
        with part.path.open("r+b", buffering=0) as file:
            file.seek(start)
            for _, chunk in received:
                if file.tell() + len(chunk) > archive.num_bytes:
                    raise FetchError(f"expected {archive.num_bytes:,} bytes, but the server sends more")
                with _disk_errors_named(part.path):
                    _write(file, chunk)
                progress(file.tell(), archive.num_bytes)
            with _disk_errors_named(part.path):
                os.fsync(file.fileno())


def _write(file: FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]  # a disk that fills up accepts fewer bytes than it is given


@contextmanager
def _disk_errors_named(path: Path) -> Iterator[None]:
    # Network errors are OSErrors too, but after these the next mirror is tried.
    try:
        yield
    except OSError as error:
        raise PipelineError(f"{path}: can't be written: {error.strerror}") from None


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _is_retryable(error: Exception) -> bool:
    if isinstance(error, requests.HTTPError):
        return error.response.status_code in RETRYABLE_STATUSES
    return isinstance(error, requests.ConnectionError | requests.Timeout | urllib3.exceptions.HTTPError)


def _explain(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "timed out"
    # urllib3 wraps the system's message, such as "Connection refused", in its own layers.
    reason = getattr(error.args[0], "reason", error.args[0]) if error.args else error
    message = str(getattr(reason, "original_error", reason)).split(": ", 1)[-1]
    if isinstance(error, requests.exceptions.ProxyError):
        return f"the proxy {_proxy_of(error)} can't be used: {message}"
    return message if isinstance(error, requests.RequestException) else f"the connection broke: {message}"


def _proxy_of(error: requests.exceptions.ProxyError) -> str:
    url = str(error.request.url) if error.request else ""
    proxy = select_proxy(url, get_environ_proxies(url)) or ""
    return urlsplit(proxy if "://" in proxy else f"//{proxy}").netloc.rpartition("@")[2]
