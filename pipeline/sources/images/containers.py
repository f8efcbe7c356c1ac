"""Where image files lie: a folder, a tar or a zip archive. Archives are read in place, nothing is unpacked."""

import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any, BinaryIO, Literal, Protocol

from pipeline.errors import UnreadableImageError
from pipeline.sources.images.layout import METADATA_NAMES, split_of
from shardset.errors import InputError, named_os_errors

# Left by file managers, NAS devices and Python. Names are compared in lower case.
LITTER = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "__pycache__"}
MAX_LINKS = 40  # followed from one name, as in Linux


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
        """Open a file of the listing. Raises UnreadableImageError if it is damaged inside its archive."""


def open_container(path: Path) -> Container:
    """Open a folder, a .tar or a .zip. Raises InputError for anything else."""
    try:
        with named_os_errors(path):
            if path.is_dir():
                return Folder(path)
            if zipfile.is_zipfile(path):
                return Zip(path)
            if tarfile.is_tarfile(path):
                return Tar(path)
    except FileNotFoundError:
        raise InputError(f"source {path}: no such file or folder") from None
    raise InputError(f"source {path}: should be a folder, a .tar, a .zip, or .parquet files")


class Folder:
    """A folder. Symbolic links are followed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.listing = Listing()
        self._list(path, "", ())

    def open(self, name: str) -> BinaryIO:
        path = self._path / name
        with named_os_errors(path):
            return path.open("rb")

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
            if reason := _ignored_reason(entry.name):
                self.listing.ignored[name] = reason
            elif not _is_utf8(name):
                self.listing.problems.append(f"{name!a}: the name is not valid UTF-8; rename it")
            elif entry.is_dir():
                self.listing.folders.append(name)
                self._list(folder / entry.name, name + "/", (*parents, identity))
            elif entry.is_file():
                self.listing.files.append(name)
            elif entry.is_symlink():
                self.listing.problems.append(f"{name}: a broken symbolic link; remove it or restore its target")
            else:
                self.listing.ignored[name] = "not a regular file"


@dataclass(frozen=True)
class _Member:
    """An entry of an archive: `target` is where a link leads, `place` where the content of a file is."""

    kind: Literal["file", "folder", "link", "other"]
    target: str = ""
    place: Any = None


class Tar:
    """An uncompressed tar archive."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with named_os_errors(path), path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
                # Of several members with one name the last counts, as when unpacking.
                members = {normpath(member.name): _tar_member(member) for member in archive}
                file.seek(archive.offset)
                is_complete = file.read(tarfile.BLOCKSIZE) == tarfile.NUL * tarfile.BLOCKSIZE
        except tarfile.TarError as error:
            raise InputError(
                f"source {path}: not a readable .tar: {error}. If it is compressed, decompress it first, for example "
                f"with `gunzip {path.name}`, because images are read in place."
            ) from None
        if not is_complete:
            raise InputError(f"source {path}: incomplete: it has no end mark. Copy it again.")
        self.listing, self._places = _index_archive(members)

    def open(self, name: str) -> BinaryIO:
        offset, num_bytes = self._places[name]
        with named_os_errors(self._path), self._path.open("rb") as archive:
            archive.seek(offset)
            return io.BytesIO(archive.read(num_bytes))


class Zip:
    """A zip archive."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with named_os_errors(path):
                self._archive = zipfile.ZipFile(path)
                infos = {normpath(info.filename): info for info in self._archive.infolist()}
                members = {name: self._member(info) for name, info in infos.items()}
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise InputError(f"source {path}: not a readable .zip: {error}") from None
        self.listing, self._places = _index_archive(members)

    def __reduce__(self) -> tuple[Any, ...]:
        return Zip, (self._path,)

    def open(self, name: str) -> BinaryIO:
        info: zipfile.ZipInfo = self._places[name]
        if info.flag_bits & 1:
            raise UnreadableImageError("encrypted")
        try:
            with named_os_errors(self._path):
                return io.BytesIO(self._archive.read(info))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise UnreadableImageError(f"damaged in the archive: {error}") from None

    def _member(self, info: zipfile.ZipInfo) -> _Member:
        if info.is_dir():
            return _Member("folder")
        if stat.S_ISLNK(info.external_attr >> 16):
            target = self._archive.read(info).decode(errors="replace")
            return _Member("link", join(dirname(normpath(info.filename)), target))
        return _Member("file", place=info)


def _tar_member(member: tarfile.TarInfo) -> _Member:
    if member.isdir():
        return _Member("folder")
    if member.issym():
        return _Member("link", join(dirname(normpath(member.name)), member.linkname))
    if member.islnk():
        return _Member("link", member.linkname)
    if member.isreg() and member.sparse is None:
        return _Member("file", place=(member.offset_data, member.size))
    return _Member("other")


def _index_archive(members: dict[str, _Member]) -> tuple[Listing, dict[str, Any]]:
    """List an archive's members, and find where the content of each file is.

    The one folder that archives of a folder often begin with is left out of all names.
    """
    listing = Listing()
    places: dict[str, Any] = {}
    for name, member in members.items():
        at = _resolve(name, members)
        if ignored := next(filter(None, map(_ignored_path, (*_parents(name), name))), None):
            listing.ignored |= ignored
        elif not _is_utf8(name):
            listing.problems.append(f"{name!a}: the name is not valid UTF-8; rename it")
        elif name.startswith(("/", "..")):
            listing.problems.append(f"{name}: leads out of the archive")
        elif at and at.kind == "file":
            places[name] = at.place
        elif member.kind == "link":
            listing.problems.append(
                f"{name}: a link to a folder or out of the archive, or a broken one; replace links by what they lead "
                "to, for example with `tar --dereference`"
            )
        elif member.kind == "other":
            listing.ignored[name] = "not a regular file"
        elif name != ".":
            listing.folders.append(name)
    listing.folders = sorted({*listing.folders, *(parent for name in places for parent in _parents(name))})
    root = _root_of(listing.folders, places)
    listing.folders = [name.removeprefix(root) for name in listing.folders if name + "/" != root]
    listing.ignored = {name.removeprefix(root): reason for name, reason in listing.ignored.items()}
    places = {name.removeprefix(root): place for name, place in places.items()}
    listing.files = [*places]
    return listing, places


def _resolve(name: str, members: dict[str, _Member]) -> _Member | None:
    """Follow links from a name to the member that they lead to."""
    for _ in range(MAX_LINKS):
        member = members.get(name)
        if member is None or member.kind != "link":
            return member
        name = normpath(member.target)
    return None


def _root_of(folders: list[str], files: dict[str, Any]) -> str:
    """Return the one folder that holds everything, with a slash, unless it is itself a split or a class."""
    tops = {name.split("/")[0] for name in (*folders, *files)}
    if len(tops) != 1 or split_of(root := tops.pop()) or root in files:
        return ""
    has_folders = any(name.count("/") == 1 for name in folders)
    return f"{root}/" if has_folders or any(f"{root}/{name}" in files for name in METADATA_NAMES) else ""


def _parents(name: str) -> Iterator[str]:
    for index, character in enumerate(name):
        if character == "/":
            yield name[:index]


def _ignored_path(path: str) -> dict[str, str] | None:
    reason = _ignored_reason(path.rpartition("/")[2])
    return {path: reason} if reason and path != "." and not path.startswith("..") else None


def _ignored_reason(name: str) -> str | None:
    """Say why a file or folder of this name, without its path, is no part of a dataset."""
    if name.lower() in LITTER or name.startswith("._"):
        return "left by a program"
    return "hidden" if name.startswith(".") else None


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
