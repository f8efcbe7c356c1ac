"""Files inside of archives, opened by their place: no list of the archive's members is needed for that."""

import io
import os
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from pipeline.errors import UnreadableImageError
from pipeline.sources.images.decode import decoder_errors
from shardset.errors import InputError, named_os_errors

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# In front of each member of a zip archive: a signature, facts that the archive's list has too, and the lengths of the
# name and of the extra fields that follow.
LOCAL_HEADER = struct.Struct("<4s22xHH")
LOCAL_SIGNATURE = b"PK\x03\x04"
ENCRYPTED_FLAG = 1


@dataclass(frozen=True)
class TarFiles:
    """Opens the files of a .tar of `num_bytes` by offset and size."""

    path: Path
    num_bytes: int

    def open(self, _name: str, place: Sequence[int]) -> BinaryIO:
        start, size = place
        return io.BufferedReader(_open_section(self, start, size))


@dataclass(frozen=True)
class ZipFiles:
    """Opens the files of a .zip of `num_bytes` by what `zip_place` returns."""

    path: Path
    num_bytes: int

    def open(self, name: str, place: Sequence[int]) -> BinaryIO:
        info = zipfile.ZipInfo(name)
        start, info.compress_size, info.file_size, info.CRC, info.compress_type, info.flag_bits = place
        if info.flag_bits & ENCRYPTED_FLAG:
            raise UnreadableImageError("encrypted")
        with decoder_errors():
            with _open_section(self, start, LOCAL_HEADER.size) as section:
                signature, name_bytes, extra_bytes = LOCAL_HEADER.unpack(section.readall())
            start += LOCAL_HEADER.size + name_bytes + extra_bytes
            if signature != LOCAL_SIGNATURE or start + info.compress_size > self.num_bytes:
                raise zipfile.BadZipFile("Bad file header")
            content = _open_section(self, start, info.compress_size)
            return cast("BinaryIO", zipfile.ZipExtFile(content, "r", info, close_fileobj=True))


def zip_place(info: zipfile.ZipInfo) -> tuple[int, ...]:
    """Return what is needed to open a member of a zip archive."""
    return info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type, info.flag_bits


def _open_section(archive: TarFiles | ZipFiles, start: int, size: int) -> "_Section":
    path = archive.path
    with named_os_errors(path):
        file = path.open("rb", buffering=0)
        num_bytes = os.fstat(file.fileno()).st_size
    if num_bytes != archive.num_bytes:
        file.close()
        raise InputError(
            f"source {path}: changed since it was listed: expected {archive.num_bytes:,} bytes, got {num_bytes:,}"
        )
    return _Section(file, path, start, size)


class _Section(io.RawIOBase):
    """A part of a file, as a file of its own."""

    def __init__(self, file: FileIO, path: Path, start: int, size: int) -> None:
        self._file, self._path, self._start, self._size = file, path, start, size
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
