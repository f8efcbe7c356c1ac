"""What folders and archives list, and which of their files are no part of a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

# Left by file managers, NAS devices and Python. Names are compared in lower case.
LITTER = {
    "__macosx",
    "icon\r",
    "thumbs.db",
    "desktop.ini",
    "@eadir",
    "$recycle.bin",
    "system volume information",
    "__pycache__",
}


@dataclass
class Listing:
    """What a container holds: paths relative to it, with forward slashes, in no particular order."""

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)  # the reason by path; what is inside is not listed
    problems: list[str] = field(default_factory=list)


class Files(Protocol):
    """Opens the files of a source at the absolute `path`. It is small, because each task on a cluster carries one."""

    @property
    def path(self) -> Path: ...

    def open(self, name: str, place: Sequence[int]) -> BinaryIO:
        """Open a file. Reading it may raise any error if it is damaged inside its archive.

        Several threads may open files at the same time.
        """


class Container(Protocol):
    """A folder, an archive or parquet files, whose files have been listed."""

    @property
    def files(self) -> Files: ...

    def place(self, name: str) -> tuple[int, ...]:
        """Return what `files` needs to know of a file in order to open it."""


def ignored_reason(name: str) -> str | None:
    """Say why a file or folder of this name, without its path, is no part of a dataset."""
    if name.lower() in LITTER or name.startswith("._"):
        return "left by a program"
    return "hidden" if name.startswith(".") else None


def find_name_problem(name: str) -> str | None:
    """Say what is wrong with the path of a file or folder."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"{name!a}: the name is not valid UTF-8; rename it"
    return None
