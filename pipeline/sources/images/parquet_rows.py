"""Rows of parquet files, read nearly in order by several threads, in little memory."""

import io
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

from pipeline.errors import UnreadableImageError
from pipeline.runtime.tasks import max_in_flight
from shardset.errors import InputError, named_os_errors
from shardset.models import printable

LFS_POINTER = b"version https://git-lfs"  # how a file begins that a clone without Git LFS leaves in its place
# Row groups may be as large as their file, so they are read in batches. Threads ask for rows only nearly in order, so
# the batches read last are kept for threads that are late. To go back means to read the row group from its start.
BATCH_ROWS = 16
BUFFER_BYTES = 1 << 20  # without a buffer, pyarrow reads all images of a row group before the first one is there
MAX_REASON = 120  # characters


class _Batch(NamedTuple):
    """Rows of the file `name`, from the row `first` on: an array of pyarrow with their bytes."""

    name: str
    first: int
    images: Any


class ImageRows:
    """Reads the images in a column of several files, nearly in order, with one file open and few images in memory."""

    def __init__(self, path: Path, column: str) -> None:
        self.path, self._column = path, column
        self._lock = Lock()
        self._num_kept = max_in_flight() + BATCH_ROWS
        self._kept: deque[_Batch] = deque()
        self._file: Any = None
        self._name = ""
        self._starts: list[int] = []  # the first row of each row group
        self._batches: Iterator[Any] = iter(())
        self._next_row = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageRows, (self.path, self._column)

    def open(self, name: str, _place: Sequence[int] = ()) -> BinaryIO:
        """Open the encoded image of a row, "FILE#ROW". Raises UnreadableImageError if the row has none.

        Several threads may open images at the same time. In the order of the rows, each file is read once.
        """
        file, _, row = name.rpartition("#")
        content = self.read(file, int(row))
        if content is None:
            raise UnreadableImageError(
                "the row holds no image, at most the path of one; write the file with images embedded"
            )
        return io.BytesIO(content)

    def read(self, name: str, row: int) -> bytes | None:
        """Return the content of a row, or None if it has none. Raises InputError for a damaged file."""
        with self._lock, parquet_errors(self.path / name):
            while not (batch := self._find_kept(name, row)):
                self._seek(name, row)
                first, self._next_row = self._next_row, -1  # and -1 it stays if the batch can't be read
                images = next(self._batches).column(0).flatten()[0]
                self._next_row = first + len(images)
                self._kept.append(_Batch(name, first, images))
                while sum(len(kept.images) for kept in [*self._kept][1:]) >= self._num_kept:
                    self._kept.popleft()
            content: bytes | None = batch.images[row - batch.first].as_py()
            return content

    def _find_kept(self, name: str, row: int) -> _Batch | None:
        for batch in self._kept:
            if batch.name == name and batch.first <= row < batch.first + len(batch.images):
                return batch
        return None

    def _seek(self, name: str, row: int) -> None:
        """Start at the row group of a row, unless what is being read will come there sooner."""
        if self._name != name:
            if self._file:
                self._file.close()
            self._name = ""
            self._file = open_file(self.path / name)
            self._name, self._starts, self._next_row = name, _group_starts(self._file), -1
        group = bisect_right(self._starts, row) - 1
        near = min(self._starts[group], row - self._num_kept)
        if not max(near, 0) <= self._next_row <= row:
            groups = range(group, self._file.num_row_groups)
            column = f"{self._column}.bytes"
            self._batches = self._file.iter_batches(BATCH_ROWS, groups, [column], use_threads=False)
            self._next_row = self._starts[group]


def open_file(path: Path) -> Any:  # noqa: ANN401 (pyarrow has no types)
    """Open a file without reading its columns: pyarrow's ParquetFile, a context manager."""
    from pyarrow.parquet import ParquetFile

    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise InputError(f"{path}: only a pointer of Git LFS; fetch the file itself by `git lfs pull`")
    return ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Raise InputError for what pyarrow raises for damaged files, and if pyarrow is missing."""
    try:
        from pyarrow import ArrowException
    except ImportError:
        raise InputError(
            f"source {path}: needs pyarrow: pip install --constraint constraints.txt -e '.[parquet]'"
        ) from None
    try:
        with named_os_errors(path):
            yield
    except (ArrowException, OSError) as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise  # from the system, not from the content
        raise InputError(f"{path}: not a readable parquet file: {printable(str(error), MAX_REASON)}") from None


def _group_starts(file: Any) -> list[int]:  # noqa: ANN401 (pyarrow has no types)
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return [0, *accumulate(sizes)][:-1]
