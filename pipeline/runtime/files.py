"""Files and folders that appear under their final name only when they are complete."""

import csv
import errno
import hashlib
import io
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import PipelineError
from pipeline.runtime.locks import exclusive_lock, temp_sibling
from pipeline.runtime.signals import deferred_signals
from shardset.errors import describe_os_error, named_os_errors
from shardset.models import render_json

# Of fsync, where a file system can't flush folders.
NO_FLUSH_ERRORS = (errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line endings. A reader sees the old file or the new one, never a part.

    Raises OSError, which names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temp_path = temp_sibling(path, "new")
    try:
        with exclusive_lock(path, wait=True):
            try:
                write_synced(temp_path, text)
                temp_path.replace(path)
                _sync_dir(path.parent)
            finally:
                temp_path.unlink(missing_ok=True)
    except OSError as error:
        error.filename = str(path)  # the error for a full disk doesn't name it
        raise


def write_synced(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line endings into a folder that no one else reads yet."""
    with open_synced(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


@contextmanager
def open_synced(path: Path, mode: str, **options: Any) -> Iterator[Any]:  # noqa: ANN401 (those of `open`)
    """Open a file for writing, and flush it to disk at the end of the block. Raises OSError, which names the file."""
    with named_os_errors(path), path.open(mode, **options) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write CSV as `render_csv` renders it, row by row, into a folder that no one else reads yet."""
    with open_synced(path, "w", encoding="utf-8", newline="") as file:
        _write_rows(file, rows)


def render_csv(rows: Iterable[Iterable[object]]) -> str:
    """Render CSV with LF line endings."""
    text = io.StringIO()
    _write_rows(text, rows)
    return text.getvalue()


def escape_formula(text: str) -> str:
    """Put an apostrophe in front of text that a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def write_json(path: Path, data: object) -> None:
    """Write `data` as `render_json` renders it."""
    write_text(path, render_json(data))


@contextmanager
def replace_dir(target_dir: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which replaces `target_dir` when the block succeeds.

    Files in `target_dir` may be hard links into DVC's cache, so they are unlinked and never written into. If the block
    raises, `target_dir` stays as it was. The next call cleans up after a killed process. Raises PipelineError if the
    disk is full or not writable, or if another process is writing `target_dir`. An OSError about any other file, such
    as one that the block reads, is raised as it is.
    """
    target_dir = Path(os.path.realpath(target_dir))  # it may be a link to another disk
    new_dir = temp_sibling(target_dir, "new")
    with exclusive_writer(target_dir):
        remove_dir(new_dir, target_dir)
        try:
            new_dir.mkdir()
            yield new_dir
            put_in_place(new_dir, target_dir)
        finally:
            with deferred_signals():
                remove_dir(new_dir, target_dir)


@contextmanager
def exclusive_writer(target_dir: Path) -> Iterator[None]:
    """Keep other processes from writing `target_dir`, and clean up after one that was killed while it replaced it.

    Raises PipelineError as `replace_dir` does.
    """
    old_dir = temp_sibling(target_dir, "old")
    try:
        target_dir.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(target_dir, wait=False):
            _restore(old_dir, target_dir)
            try:
                yield
            finally:
                with deferred_signals():
                    _restore(old_dir, target_dir)
    except OSError as error:
        path = Path(str(error.filename))
        temp_paths = {temp_sibling(target_dir, role) for role in ("new", "old", "work", "lock")}
        if temp_paths.isdisjoint((path, *path.parents)):
            raise
        raise PipelineError(f"{target_dir}: can't be written: {describe_os_error(error)}") from error


def put_in_place(new_dir: Path, target_dir: Path) -> None:
    """Replace a folder by another one on the same file system."""
    for folder, _, _ in os.walk(new_dir):
        _sync_dir(Path(folder))
    if target_dir.is_dir():
        target_dir.rename(temp_sibling(target_dir, "old"))
    new_dir.rename(target_dir)
    _sync_dir(target_dir.parent)


def remove_dir(temp_dir: Path, target_dir: Path) -> None:
    """Remove a temporary folder next to `target_dir`, if it is there, and what earlier calls could not remove."""
    if temp_dir.exists():
        # Renamed first, so that a thread still running after Ctrl-C can't add files to it during removal.
        temp_dir.rename(temp_sibling(target_dir, f"gone-{os.urandom(8).hex()}"))
    for path in target_dir.parent.iterdir():
        if path.name.startswith(f".{target_dir.name}.gone"):
            # A network file system keeps files that are open elsewhere. A later call removes them.
            shutil.rmtree(path, ignore_errors=True)


def check_free_space(target_dir: Path, num_bytes: int, way_out: str) -> None:
    """Raise PipelineError, which ends with `way_out`, if the disk of `target_dir` has less than `num_bytes` free."""
    free = shutil.disk_usage(target_dir.resolve().parent).free
    if free < num_bytes:
        raise PipelineError(
            f"{target_dir}: {_size(num_bytes)} will be written, but the disk has {_size(free)} free. {way_out}"
        )


def hash_file(path: Path) -> str:
    """Hash a file's bytes, SHA-256 as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _LineFeeds:
    """A text file that ends each row of csv.writer with LF."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row.removesuffix("\r\n") + "\n")


def _write_rows(file: TextIO, rows: Iterable[Iterable[object]]) -> None:
    # With LF as its terminator, csv.writer leaves CR unquoted before Python 3.13, and readers end a row there.
    csv.writer(_LineFeeds(file), lineterminator="\r\n").writerows(rows)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 10**9 else f"{num_bytes / 1e6:,.1f} MB"


def _restore(old_dir: Path, target_dir: Path) -> None:
    """Put the previous folder back unless a new one replaced it."""
    if old_dir.exists() and not target_dir.exists():
        old_dir.rename(target_dir)
    remove_dir(old_dir, target_dir)


def _sync_dir(path: Path) -> None:
    """Make the names in a folder survive a power failure, where the system allows it."""
    if sys.platform == "win32":  # it can't open folders
        return
    with named_os_errors(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in NO_FLUSH_ERRORS:
                raise
        finally:
            os.close(descriptor)
