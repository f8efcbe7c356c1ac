"""Tar and zip archives of image files, read in place."""

import stat
import tarfile
import zipfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import BinaryIO, Literal

from pipeline.errors import UnreadableImageError
from pipeline.sources.images.archive_files import TarFiles, ZipFiles, zip_place
from pipeline.sources.images.decode import decoder_errors
from pipeline.sources.images.layout import METADATA_NAMES, split_of
from pipeline.sources.images.listing import Listing, find_name_problem, ignored_reason
from shardset.errors import InputError, named_os_errors

MAX_LINKS = 40  # followed from one name, as in Linux
MAX_LINK_BYTES = 4096
READ_BYTES = 1 << 20
MSDOS = 0  # the system that zip files made on Windows name
UTF8_FLAG = 0x800


@dataclass(frozen=True, slots=True)
class _Special:
    """An entry of an archive that is no file with a content of its own: `target` is where a link leads."""

    kind: Literal["folder", "link", "sparse", "other"]
    target: str = ""


class _Archive:
    """The members of an archive by name, in little memory: of files there is the number of their place."""

    def __init__(self, place_values: int) -> None:
        self._place_values = place_values
        self._places = array("q")
        self.members: dict[str, int | _Special] = {}
        self._root = ""

    def add(self, name: str, member: tuple[int, ...] | _Special) -> None:
        # Of several members with one name the last counts, as when unpacking.
        if isinstance(member, tuple):
            self.members[name] = len(self._places) // self._place_values
            self._places.extend(member)
        else:
            self.members[name] = member

    def index(self) -> Listing:
        """List the members. The one folder that archives of a folder often begin with is left out of all names."""
        listing = Listing()
        self._root = _list_members(self.members, listing)
        return listing

    def place(self, name: str) -> tuple[int, ...]:
        number = _resolve(self._root + name, self.members)
        if not isinstance(number, int):
            raise KeyError(name)
        return tuple(self._places[number * self._place_values : (number + 1) * self._place_values])


class Tar:
    """An uncompressed tar archive. Raises InputError if it is damaged or incomplete."""

    def __init__(self, path: Path) -> None:
        self.files = TarFiles(path.absolute(), _size(path))
        archive = _Archive(place_values=2)
        try:
            with (
                decoder_errors(),
                named_os_errors(path),
                path.open("rb") as file,
                tarfile.open(fileobj=file, mode="r:") as tar,
            ):
                while member := tar.next():
                    archive.add(normpath(member.name), _tar_member(member))
                    tar.members.clear()  # type: ignore[attr-defined]  # or they take more than a kilobyte each
                _check_end(file, tar.offset)
        except UnreadableImageError as error:
            raise InputError(f"source {path}: not a readable .tar: {error}") from None
        self.listing, self._archive = archive.index(), archive

    def place(self, name: str) -> tuple[int, ...]:
        return self._archive.place(name)

    def open(self, name: str) -> BinaryIO:
        return self.files.open(name, self.place(name))


class Zip:
    """A zip archive. Raises InputError if it is damaged or incomplete."""

    def __init__(self, path: Path) -> None:
        self.files = ZipFiles(path.absolute(), _size(path))
        archive = _Archive(place_values=6)
        try:
            with decoder_errors(), named_os_errors(path), zipfile.ZipFile(path) as listed:
                for info in listed.infolist():
                    archive.add(normpath(_zip_name(info)), _zip_member(self.files, info))
        except UnreadableImageError as error:
            raise InputError(f"source {path}: not a readable .zip: {error}") from None
        self.listing, self._archive = archive.index(), archive

    def place(self, name: str) -> tuple[int, ...]:
        return self._archive.place(name)

    def open(self, name: str) -> BinaryIO:
        return self.files.open(name, self.place(name))


def _size(path: Path) -> int:
    with named_os_errors(path):
        return path.stat().st_size


def _tar_member(member: tarfile.TarInfo) -> tuple[int, ...] | _Special:
    if member.isdir():
        return _Special("folder")
    if member.issym():
        return _Special("link", join(dirname(normpath(member.name)), member.linkname))
    if member.islnk():
        return _Special("link", member.linkname)
    if member.issparse():
        return _Special("sparse")
    return (member.offset_data, member.size) if member.isreg() else _Special("other")


def _zip_member(files: ZipFiles, info: zipfile.ZipInfo) -> tuple[int, ...] | _Special:
    if _zip_name(info).endswith("/"):
        return _Special("folder")
    if stat.S_ISLNK(info.external_attr >> 16) and info.file_size <= MAX_LINK_BYTES:
        with files.open(info.filename, zip_place(info)) as file:
            return _Special("link", join(dirname(normpath(_zip_name(info))), file.read().decode(errors="replace")))
    return zip_place(info)


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


def _list_members(members: Mapping[str, int | _Special], listing: Listing) -> str:
    """Fill the listing of an archive, and return the one folder that holds everything, with a slash, if there is one.

    That folder is left out of all names.
    """
    files: list[str] = []
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
        elif isinstance(_resolve(name, members), int):
            files.append(name)
        elif problem := _find_member_problem(name, member):
            listing.problems.append(problem)
        elif member == _Special("other"):
            listing.ignored[name] = "not a regular file"
        elif name != ".":
            folders.add(name)
    root = _root_of(folders, files)
    listing.folders = sorted(name.removeprefix(root) for name in folders if name + "/" != root)
    listing.ignored = {name.removeprefix(root): reason for name, reason in listing.ignored.items()}
    listing.files = [name.removeprefix(root) for name in files] if root else files
    return root


def _find_member_problem(name: str, member: int | _Special) -> str | None:
    if isinstance(member, int):
        return None
    if member.kind == "link":
        return (
            f"{name}: a link to a folder or out of the archive, or a broken one; replace links by what they lead to, "
            "for example with `tar --dereference`"
        )
    return f"{name}: stored as a sparse file; pack it again without --sparse" if member.kind == "sparse" else None


def _resolve(name: str, members: Mapping[str, int | _Special]) -> int | _Special | None:
    """Follow links from a name to the member that they lead to."""
    for _ in range(MAX_LINKS):
        member = members.get(name)
        if not isinstance(member, _Special) or member.kind != "link":
            return member
        name = normpath(member.target)
    return None


def _root_of(folders: set[str], files: Sequence[str]) -> str:
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
