"""What folders and archives list, and which of their files are no part of a dataset."""

from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

# Left by file managers, NAS devices and Python. Names are compared in lower case.
LITTER = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "__pycache__"}


@dataclass
class Listing:
    """What a container holds: paths relative to it, with forward slashes, in no particular order."""

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)  # the reason by path; what is inside is not listed
    problems: list[str] = field(default_factory=list)


class Container(Protocol):
    """A folder or an archive. Several threads may open files at the same time."""

    listing: Listing

    def open(self, name: str) -> BinaryIO:
        """Open a file of the listing. Reading it may raise any error if it is damaged inside its archive."""


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
