"""Tar and zip archives of image files, read in place."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from pipeline.errors import UnreadableImageError
from pipeline.sources.images.decode import decoder_errors
from pipeline.sources.images.layout import METADATA_NAMES, split_of
from pipeline.sources.images.listing import Listing, find_name_problem, ignored_reason
from shardset.errors import InputError, named_os_errors

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_LINKS = 40  # followed from one name, as in Linux
MAX_LINK_BYTES = 4096
READ_BYTES = 1 << 20
MSDOS = 0  # the system that zip files made on Windows name
UTF8_FLAG, ENCRYPTED_FLAG = 0x800, 1


@dataclass(frozen=True)
class _Member:
    """An entry of an archive: `target` is where a link leads, `place` where the content of a file is."""

    kind: Literal["file", "folder", "link", "sparse", "other"]
    target: str = ""
    place: Any = None


class Tar:
    """An uncompressed tar archive. Raises InputError if it is damaged or incomplete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with (
                decoder_errors(),
                named_os_errors(path),
                path.open("rb") as file,
                tarfile.open(fileobj=file, mode="r:") as archive,
            ):
                # Of several members with one name the last counts, as when unpacking.
                members = {normpath(member.name): _tar_member(member) for member in archive}
                _check_end(file, archive.offset)
        except UnreadableImageError as error:
            raise InputError(f"source {path}: not a readable .tar: {error}") from None
        self.listing, self._places = _index_archive(members)

    def open(self, name: str) -> BinaryIO:
        return io.BufferedReader(_Section(self._path, *self._places[name]))


class Zip:
    """A zip archive. Raises InputError if it is damaged or incomplete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with decoder_errors(), named_os_errors(path):
                self._archive = zipfile.ZipFile(path)
                names = {normpath(_zip_name(info)): info for info in self._archive.infolist()}
                members = {name: self._member(name, info) for name, info in names.items()}
        except UnreadableImageError as error:
            raise InputError(f"source {path}: not a readable .zip: {error}") from None
        self.listing, self._places = _index_archive(members)

    def open(self, name: str) -> BinaryIO:
        info: zipfile.ZipInfo = self._places[name]
        if info.flag_bits & ENCRYPTED_FLAG:
            raise UnreadableImageError("encrypted")
        with decoder_errors(), named_os_errors(self._path):
            return cast("BinaryIO", self._archive.open(info))

    def _member(self, name: str, info: zipfile.ZipInfo) -> _Member:
        if _zip_name(info).endswith("/"):
            return _Member("folder")
        if stat.S_ISLNK(info.external_attr >> 16) and info.file_size <= MAX_LINK_BYTES:
            target = self._archive.read(info).decode(errors="replace")
            return _Member("link", join(dirname(name), target))
        return _Member("file", place=info)


class _Section(io.RawIOBase):
    """A part of a file, as a file of its own."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        with named_os_errors(path):
            self._file = path.open("rb", buffering=0)
        self._path, self._start, self._size = path, start, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        part = memoryview(buffer)[: max(0, self._size - self._position)]
        with named_os_errors(self._path):
            self._file.seek(self._start + self._position)
            num_bytes = self._file.readinto(part) or 0
        self._position += num_bytes
        return num_bytes

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = (0, self._position, self._size)[whence] + offset
        if position < 0:
            raise ValueError("negative seek value")
        self._position = position
        return position

    def close(self) -> None:
        self._file.close()
        super().close()


def _tar_member(member: tarfile.TarInfo) -> _Member:
    if member.isdir():
        return _Member("folder")
    if member.issym():
        return _Member("link", join(dirname(normpath(member.name)), member.linkname))
    if member.islnk():
        return _Member("link", member.linkname)
    if member.issparse():
        return _Member("sparse")
    return _Member("file", place=(member.offset_data, member.size)) if member.isreg() else _Member("other")


def _check_end(file: BinaryIO, offset: int) -> None:
    """Check that the file has the end mark at an offset and nothing behind it, where tarfile just stops reading."""
    file.seek(offset)
    num_bytes = 0
    while block := file.read(READ_BYTES):
        if block.strip(tarfile.NUL):
            raise UnreadableImageError(f"damaged at byte {offset:,}, or several archives joined; pack it again")
        num_bytes += len(block)
    if num_bytes < tarfile.BLOCKSIZE:
        raise UnreadableImageError("incomplete: it has no end mark; copy it again")


def _zip_name(info: zipfile.ZipInfo) -> str:
    name = info.filename
    if not info.flag_bits & UTF8_FLAG:
        with suppress(UnicodeError):  # macOS writes UTF-8 without saying so, which zipfile takes for code page 437
            name = name.encode("cp437").decode()
    return name.replace("\\", "/") if info.create_system == MSDOS else name


def _index_archive(members: Mapping[str, _Member]) -> tuple[Listing, dict[str, Any]]:
    """List an archive's members, and find where the content of each file is.

    The one folder that archives of a folder often begin with is left out of all names.
    """
    listing = Listing()
    places: dict[str, Any] = {}
    folders: set[str] = set()
    for name, member in members.items():
        if name.startswith("/") or name.split("/")[0] == "..":
            listing.problems.append(f"{name}: leads out of the archive")
            continue
        *parents, _ = paths = [*_paths_to(name)] or [""]
        ignored = next(((path, reason) for path in paths if (reason := ignored_reason(path.rpartition("/")[2]))), None)
        folders.update(path for path in parents if not ignored or len(path) < len(ignored[0]))
        if ignored:
            listing.ignored[ignored[0]] = ignored[1]
        elif problem := find_name_problem(name):
            listing.problems.append(problem)
        elif (at := _resolve(name, members)) and at.kind == "file":
            places[name] = at.place
        elif problem := _find_member_problem(name, member):
            listing.problems.append(problem)
        elif member.kind == "other":
            listing.ignored[name] = "not a regular file"
        elif name != ".":
            folders.add(name)
    root = _root_of(folders, places)
    listing.folders = sorted(name.removeprefix(root) for name in folders if name + "/" != root)
    listing.ignored = {name.removeprefix(root): reason for name, reason in listing.ignored.items()}
    places = {name.removeprefix(root): place for name, place in places.items()}
    listing.files = [*places]
    return listing, places


def _find_member_problem(name: str, member: _Member) -> str | None:
    if member.kind == "link":
        return (
            f"{name}: a link to a folder or out of the archive, or a broken one; replace links by what they lead to, "
            "for example with `tar --dereference`"
        )
    return f"{name}: stored as a sparse file; pack it again without --sparse" if member.kind == "sparse" else None


def _resolve(name: str, members: Mapping[str, _Member]) -> _Member | None:
    """Follow links from a name to the member that they lead to."""
    for _ in range(MAX_LINKS):
        member = members.get(name)
        if member is None or member.kind != "link":
            return member
        name = normpath(member.target)
    return None


def _root_of(folders: set[str], files: Mapping[str, Any]) -> str:
    """Return the one folder that holds everything, with a slash, unless it is itself a split or a class."""
    tops = {name.split("/")[0] for name in (*folders, *files)}
    if len(tops) != 1 or split_of(root := tops.pop()) or root in files:
        return ""
    has_folders = any(name.count("/") == 1 for name in folders)
    return f"{root}/" if has_folders or any(f"{root}/{name}" in files for name in METADATA_NAMES) else ""


def _paths_to(name: str) -> Iterator[str]:
    """Yield each folder on the way to a path in an archive, and the path itself, but not the top."""
    parts = name.split("/")
    for stop in range(1, len(parts) + 1):
        if parts != ["."]:
            yield "/".join(parts[:stop])
