"""The errors that reading a shard set raises. Each message is meant for a person.

ShardSetError
├── InputError          an argument, or a file given by the caller, can't be used
└── CorruptDataError    the set is not what it should be
    └── DamagedFileError    a file is missing, or its bytes differ from the manifest

Environment faults (no permission, too many open files, a failing disk) are raised as OSError, which names the file.
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

if sys.platform != "win32":
    import resource


class ShardSetError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(ShardSetError):
    """An argument, or a file given by the caller, that can't be used."""


class CorruptDataError(ShardSetError):
    """A set that is not what its manifest, its content hash or the format says."""


class DamagedFileError(CorruptDataError):
    """A file of the set that is missing, or whose bytes differ from the manifest."""


@contextmanager
def named_os_errors(path: str | PathLike[str]) -> Iterator[None]:
    """Name the file in each OSError. The system names it where opening fails, but not reading, writing or mapping."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not from the system
            raise
        # A new one, because a pickled OSError loses what was assigned to its attributes.
        raise OSError(error.errno, describe_os_error(error), error.filename or str(path)) from error


def describe_os_error(error: OSError) -> str:
    """Return the system's message without the file name. For too many open files it includes limit and remedy."""
    if error.errno == errno.EMFILE and sys.platform != "win32":
        limit, highest = (
            "unlimited" if value == resource.RLIM_INFINITY else str(value)
            for value in resource.getrlimit(resource.RLIMIT_NOFILE)
        )
        return f"Too many open files: the limit is {limit}; `ulimit -n NUMBER` raises it up to {highest}"
    return error.strerror or str(error)
