"""Where image files lie: a folder, a tar or a zip archive. Archives are read in place, nothing is unpacked."""

import errno
import os
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.sources.images.archives import Tar, Zip
from pipeline.sources.images.listing import Listing, find_name_problem, ignored_reason
from shardset.errors import InputError, named_os_errors

COMPRESSED = {  # by their first bytes
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}


def open_container(path: Path) -> "Folder | Tar | Zip":
    """Open a folder, a .tar or a .zip. Raises InputError for anything else."""
    try:
        with named_os_errors(path):
            if path.is_dir():
                return Folder(path)
            if path.exists() and not path.is_file():
                raise InputError(f"source {path}: neither a file nor a folder")
            with path.open("rb") as file:
                start = file.read(tarfile.BLOCKSIZE)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError for a name with a null character
        raise InputError(f"source {path}: no such file or folder") from None
    if _is_tar(start):  # before .zip, because a zip file at the end of a .tar makes it look like one
        return Tar(path)
    if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
        return Zip(path)
    for signature, command in COMPRESSED.items():
        if start.startswith(signature):
            raise InputError(
                f"source {path}: compressed; images are read in place, so decompress it first, for example with "
                f"`{command} {path.name}`"
            )
    raise InputError(f"source {path}: should be a folder, a .tar, a .zip, or .parquet files")


@dataclass(frozen=True)
class FolderFiles:
    """Opens the files of a folder."""

    path: Path

    def open(self, name: str, _place: Sequence[int]) -> BinaryIO:
        path = self.path / name
        with named_os_errors(path):
            return path.open("rb")


class Folder:
    """A folder. Symbolic links are followed."""

    def __init__(self, path: Path) -> None:
        self.files = FolderFiles(path.absolute())
        self.listing = Listing()
        self._list(path, "", ())

    def place(self, _name: str) -> tuple[int, ...]:
        return ()

    def open(self, name: str) -> BinaryIO:
        return self.files.open(name, ())

    def _list(self, folder: Path, prefix: str, parents: tuple[tuple[int, int], ...]) -> None:
        with named_os_errors(folder):
            status = folder.stat()
            if (identity := (status.st_dev, status.st_ino)) in parents:
                self.listing.problems.append(f"{prefix[:-1]}: a symbolic link to a folder that contains it; remove it")
                return
            with os.scandir(folder) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
        for entry in children:
            name = prefix + entry.name
            if reason := ignored_reason(entry.name):
                self.listing.ignored[name] = reason
            elif problem := find_name_problem(name):
                self.listing.problems.append(problem)
            elif _is_broken_link(entry):
                self.listing.problems.append(f"{name}: a broken symbolic link; remove it or restore its target")
            elif entry.is_dir():
                self.listing.folders.append(name)
                self._list(folder / entry.name, name + "/", (*parents, identity))
            elif entry.is_file():
                self.listing.files.append(name)
            else:
                self.listing.ignored[name] = "not a regular file"


def _is_broken_link(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_symlink() and not Path(entry.path).exists()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return True


def _is_tar(start: bytes) -> bool:
    if start and not start.strip(tarfile.NUL):  # an empty archive
        return True
    try:
        tarfile.TarInfo.frombuf(start, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
