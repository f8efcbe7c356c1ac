"""A lock between processes, which the operating system releases however the process ends."""

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.runtime.signals import deferred_signals

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def exclusive_lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock on writing `path` during the block.

    Raises PipelineError if another process holds it and `wait` is false.
    """
    lock_path = temp_sibling(path, "lock")
    while True:
        with lock_path.open("ab") as lock:
            try:
                _lock(lock.fileno())
            except (BlockingIOError, PermissionError):
                if not wait:
                    raise PipelineError(
                        f"{path}: another process is writing to it. Try again when it has finished."
                    ) from None
                time.sleep(0.1)
                continue
            except OSError as error:
                # Some cluster file systems have no locks. There, running one process at a time is up to the user.
                if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                    raise
            if not _is_same_file(lock_path, lock.fileno()):
                continue  # the previous holder removed it while this process waited
            try:
                yield
            finally:
                with deferred_signals():
                    if sys.platform == "win32":
                        lock.close()  # Windows can't delete open files
                    # Windows also refuses while another process has it open; `git clean` may have removed it.
                    with suppress(PermissionError, FileNotFoundError):
                        lock_path.unlink()
            return


def temp_sibling(path: Path, role: str) -> Path:
    """Return a temporary name for `path`, in the same folder so that a rename stays on one file system.

    .gitignore and .dvcignore contain its pattern.
    """
    return path.with_name(f".{path.name}.{role}.tmp")


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
