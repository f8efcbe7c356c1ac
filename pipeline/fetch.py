"""Fetching a published archive over HTTP: from several mirrors, resumable, and verified before it has its name."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from pipeline.datasets import Archive
from pipeline.errors import FetchError
from pipeline.files import hash_file, write_text

# Called with the bytes that are there and the bytes that there will be.
Progress = Callable[[int, int], None]

TIMEOUT = (10, 30)  # seconds to connect, and between two packets
# Retry-After is not obeyed: it may ask for hours, and there are other mirrors to ask.
RETRY = Retry(
    total=3, backoff_factor=1, status_forcelist=[408, 429, 500, 502, 503, 504], respect_retry_after_header=False
)
CHUNK_BYTES = 8192  # what is lost, at most, when a connection breaks


def fetch_archive(
    archive: Archive, urls: Sequence[str], archives_dir: Path, progress: Progress, retry: Retry = RETRY
) -> Path:
    """Return the path of the verified archive in `archives_dir`, fetched from the first of `urls` that gives it.

    What an earlier, interrupted call fetched is kept in a .part file and not fetched again. Raises FetchError that
    lists what was tried.
    """
    archive_path = archives_dir / archive.file_name
    if archive_path.exists() and find_difference(archive_path, archive) is None:
        return archive_path
    archives_dir.mkdir(parents=True, exist_ok=True)
    failures = []
    with requests.Session() as session:
        session.headers["Accept-Encoding"] = "identity"
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        for url in urls:
            part = _Part(archive_path, url)
            try:
                _fetch_from(url, archive, part, session, progress)
            except FetchError as error:
                failures.append(f"  {url}: {error}")
            else:
                part.path.replace(archive_path)
                part.discard()
                return archive_path
    raise FetchError(f"{archive.file_name} could not be fetched from any of its sources:\n" + "\n".join(failures))


def find_difference(path: Path, archive: Archive) -> str | None:
    """Say how a file differs from the published archive, or None if it is the archive."""
    num_bytes = path.stat().st_size
    if num_bytes != archive.num_bytes:
        return f"expected {archive.num_bytes:,} bytes, got {num_bytes:,}"
    sha256 = hash_file(path)
    return None if sha256 == archive.sha256 else f"expected SHA-256 {archive.sha256}, got {sha256}"


class _Part:
    """The bytes fetched so far, and beside them the ETag or date of the file that they belong to, if known.

    Sources are byte-identical, so a part begun at one may be finished at another; the ETag holds for one URL only.
    """

    def __init__(self, archive_path: Path, url: str) -> None:
        self.path = archive_path.with_name(archive_path.name + ".part")
        self._validator_path = archive_path.with_name(archive_path.name + ".part.json")
        self._url = url

    @property
    def num_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self) -> str | None:
        """Return what If-Range needs, if the part was begun at this URL."""
        try:
            saved = json.loads(self._validator_path.read_text(encoding="utf-8"))
            return str(saved["validator"]) if saved["url"] == self._url else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def begin(self, response: requests.Response) -> None:
        """Start anew with the file that a response brings."""
        self.discard()
        etag = response.headers.get("ETag", "W/")
        validator = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
        if validator:
            write_text(self._validator_path, json.dumps({"url": self._url, "validator": validator}))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._validator_path.unlink(missing_ok=True)


def _fetch_from(url: str, archive: Archive, part: _Part, session: requests.Session, progress: Progress) -> None:
    inherited = part.num_bytes > 0
    while part.num_bytes < archive.num_bytes:
        before = part.num_bytes
        fault = "the server ends too early"
        try:
            _append(url, archive, part, session, progress)
        except requests.RequestException as error:
            fault = _explain(error)
        # A connection that broke after it brought bytes is taken up again; the adapter has retried all other faults.
        if part.num_bytes <= before:
            raise FetchError(fault)
    difference = find_difference(part.path, archive)
    if difference:
        part.discard()
        if not inherited:
            raise FetchError(difference)
        # The wrong bytes may be those that came from elsewhere.
        _fetch_from(url, archive, part, session, progress)


def _append(url: str, archive: Archive, part: _Part, session: requests.Session, progress: Progress) -> None:
    headers = {}
    if part.num_bytes:
        headers["Range"] = f"bytes={part.num_bytes}-"
        if validator := part.validator():
            headers["If-Range"] = validator
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        if response.status_code == requests.codes.partial_content:
            expected = f"bytes {part.num_bytes}-{archive.num_bytes - 1}/{archive.num_bytes}"
            offered = response.headers.get("Content-Range")
        else:
            expected = str(archive.num_bytes)
            offered = response.headers.get("Content-Length", expected)
        if offered != expected:
            raise FetchError(f"expected {expected}, the server offers {offered}")
        if response.status_code != requests.codes.partial_content:
            part.begin(response)
        # Unbuffered, so that what has arrived outlives the process.
        with part.path.open("ab", buffering=0) as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                if file.tell() > archive.num_bytes:
                    break
                progress(file.tell(), archive.num_bytes)
    if part.num_bytes > archive.num_bytes:
        part.discard()
        raise FetchError(f"expected {archive.num_bytes:,} bytes, the server sends more")


def _explain(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError):
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "timed out"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke before the end"
    # urllib3 wraps the system's sentence, such as "Connection refused", in layers of its own.
    reason = getattr(error.args[0], "reason", error.args[0]) if error.args else error
    return str(reason).split(": ", 1)[-1]
