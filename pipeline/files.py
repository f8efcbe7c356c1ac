"""Files and folders that appear under their final name only when they are whole."""

import errno
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.parallel import signals_put_off

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line ends; a reader sees the old file or the new one, never a part.

    Raises OSError that names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temp_path = _temp_sibling(path, "new")
    try:
        with only_writer(path, wait=True):
            try:
                write_synced(temp_path, text)
                temp_path.replace(path)
                _sync_dir(path.parent)
            finally:
                temp_path.unlink(missing_ok=True)
    except OSError as error:
        error.filename = str(path)  # a full disk names none
        raise


def write_synced(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line ends, in a folder that no one else sees yet."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def render_json(data: object) -> str:
    """Render JSON whose bytes follow from `data` alone. Keys keep their order: red comes before green and blue."""
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def write_json(path: Path, data: object) -> None:
    """Write `data` as `render_json` renders them."""
    write_text(path, render_json(data))


@contextmanager
def replace_dir(target_dir: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which takes the place of `target_dir` when the block succeeds.

    Files in `target_dir` may be hard links into DVC's cache: they are unlinked, never written into. When the block
    raises, `target_dir` is as it was; what a killed process left is put right by the next. Raises PipelineError where
    the disk is full or can't be written, or another process is at work on `target_dir`.
    """
    target_dir = target_dir.resolve()  # it may be a link to another disk
    new_dir, old_dir = _temp_sibling(target_dir, "new"), _temp_sibling(target_dir, "old")
    try:
        target_dir.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(target_dir, wait=False):
            _put_right(target_dir)
            try:
                new_dir.mkdir()
                yield new_dir
                for folder, _, _ in os.walk(new_dir):
                    _sync_dir(Path(folder))
                if target_dir.is_dir():
                    target_dir.rename(old_dir)
                new_dir.rename(target_dir)
                _sync_dir(target_dir.parent)
            finally:
                with signals_put_off():
                    _put_right(target_dir)
    except OSError as error:
        if str(error.filename or new_dir).startswith(str(target_dir.with_name(f".{target_dir.name}."))):
            raise PipelineError(f"{target_dir}: can't be written: {error.strerror}") from error
        raise


@contextmanager
def only_writer(path: Path, *, wait: bool) -> Iterator[None]:
    """Keep `path` from other writers; the lock ends with the process, however that ends.

    Raises PipelineError where another process has it and this one is not to wait.
    """
    lock_path = _temp_sibling(path, "lock")
    while True:
        with lock_path.open("ab") as lock:
            try:
                _lock(lock.fileno())
            except (BlockingIOError, PermissionError):
                if not wait:
                    raise PipelineError(
                        f"{path}: another process is writing it: let it end, then run this again"
                    ) from None
                time.sleep(0.1)
                continue
            except OSError as error:
                # Some file systems of clusters have no locks; there it is for people to run one at a time.
                if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                    raise
            if not _is_at(lock_path, lock.fileno()):
                continue  # the former writer removed it while this one waited
            try:
                yield
            finally:
                if sys.platform == "win32":
                    lock.close()  # it removes no open file
                with suppress(PermissionError):  # nor one that another process has opened meanwhile
                    lock_path.unlink()
            return


def hash_file(path: Path) -> str:
    """Hash a file's bytes, SHA-256 as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temp_sibling(path: Path, role: str) -> Path:
    # In the same folder, so that a rename stays on one file system; .gitignore and .dvcignore know the pattern.
    return path.with_name(f".{path.name}.{role}.tmp")


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _put_right(target_dir: Path) -> None:
    """Give back the former folder unless a new one took its place, and remove what is left."""
    new_dir, old_dir = _temp_sibling(target_dir, "new"), _temp_sibling(target_dir, "old")
    if old_dir.exists() and not target_dir.exists():
        old_dir.rename(target_dir)
    for leftover in (new_dir, old_dir):
        if leftover.exists():
            # Renamed first: a thread that Ctrl-C left at work can't add a file to it while it is removed.
            leftover.rename(_temp_sibling(target_dir, f"gone-{os.urandom(8).hex()}"))
    for path in target_dir.parent.iterdir():
        if path.name.startswith(f".{target_dir.name}.gone"):
            # What a network file system keeps, since someone has it open, goes another time.
            shutil.rmtree(path, ignore_errors=True)


def _sync_dir(path: Path) -> None:
    """Have the names in a folder outlast a power cut, where the system can do that: Windows opens no folder."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
