"""What the search for near-duplicates needs of every image, in files, so that memory doesn't grow with their number."""

import errno
import hashlib
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader, FileIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.descriptors import SIDE, compute_descriptors, count_values
from pipeline.audit.outlines import GRID, compute_outlines
from pipeline.numerics.reduce import resize_images
from pipeline.runtime.locks import temp_sibling
from shardset.errors import named_os_errors
from shardset.manifest import SetFile, Split
from shardset.reader import Array, split_range
from shardset.shards import ShardSet

ROWS_PER_READ = 1024


@dataclass(frozen=True)
class Rows:
    """Equal rows of one kind, one for each image, in a file for each raw shard.

    `stops` says for each of these where its images end within their split. All methods raise OSError, which names the
    file, if the system can't read it.
    """

    dir: Path
    kind: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stops: dict[Split, NDArray[np.int64]]

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * prod(self.shape)

    def read(self, split: Split, start: int, stop: int) -> Array:
        """Read rows [start, stop)."""
        rows = np.empty((stop - start, *self.shape), self.dtype)
        stops = self.stops[split]
        first, done = int(np.searchsorted(stops, start, "right")), start
        for number, end in enumerate(stops[first:].tolist(), first):
            part = rows[done - start : end - start]
            with named_os_errors(path := self._path(split, number)), path.open("rb") as file:
                self._read_into(part, file, done - self._start(split, number))
            done += len(part)
            if done == stop:
                break
        return rows

    def take(self, split: Split, indices: Array) -> Array:
        """Read rows in the order of `indices`."""
        taken = np.empty((len(indices), *self.shape), self.dtype)
        order = np.argsort(indices, kind="stable")
        ordered = indices[order]
        if not len(indices):
            return taken
        for start, stop in split_range(0, int(ordered[-1]) + 1, ROWS_PER_READ):
            within = slice(*np.searchsorted(ordered, (start, stop)))
            if within.start < within.stop:
                taken[order[within]] = self.read(split, start, stop)[ordered[within] - start]
        return taken

    def take_each(self, split: Split, indices: Array) -> Array:
        """Read rows in the order of `indices`, each by itself, which is faster for few of them."""
        taken = np.empty((len(indices), *self.shape), self.dtype)
        numbers = np.searchsorted(self.stops[split], indices, "right")
        for number in np.unique(numbers).tolist():
            first = self._start(split, number)
            with named_os_errors(path := self._path(split, number)), path.open("rb", buffering=0) as file:
                for row in np.flatnonzero(numbers == number).tolist():
                    self._read_into(taken[row : row + 1], file, int(indices[row]) - first)
        return taken

    def _start(self, split: Split, number: int) -> int:
        return int(self.stops[split][number - 1]) if number else 0

    def _path(self, split: Split, number: int) -> Path:
        return self.dir / f"{part_name(split, number)}.{self.kind}"

    def _read_into(self, rows: Array, file: BufferedReader | FileIO, start: int) -> None:
        file.seek(start * self.row_bytes)
        if file.readinto(rows.data.cast("B")) != rows.nbytes:
            raise OSError(errno.EIO, "Too short")


@dataclass(frozen=True)
class SearchIndex:
    """Descriptors, outlines and small copies of all images. It is small, so that each task can carry one."""

    image_shape: tuple[int, int, int]
    num_images: dict[Split, int]
    descriptors: Rows
    outlines: Rows
    images: Rows

    @property
    def total(self) -> int:
        """The number of images of all splits."""
        return sum(self.num_images.values())

    @property
    def num_bytes(self) -> int:
        """The size of all files."""
        return self.total * sum(rows.row_bytes for rows in (self.descriptors, self.outlines, self.images))


def open_index(raw: ShardSet, index_dir: Path) -> SearchIndex:
    """Open the index of a raw shard set, for each of whose shards `write_part` writes a part."""
    stops = {split: np.array([stop for _, _, stop in raw.ranges(split)]) for split in raw.manifest.splits}
    num_images = {split: of_split.samples for split, of_split in raw.manifest.splits.items()}
    kinds = {
        kind: Rows(index_dir, kind, dtype, shape, stops)
        for kind, (dtype, shape) in _row_formats(raw.manifest.image_shape[0]).items()
    }
    return SearchIndex(raw.manifest.image_shape, num_images, **kinds)


def write_part(index_dir: Path, name: str, batches: Iterable[Array]) -> tuple[SetFile, ...]:
    """Write the rows of one shard, whose images come in batches, (n, C, h, w) uint8. Running it again changes nothing.

    `name` is that of `part_name`. Returns the files, relative to `index_dir`.
    """
    paths = [index_dir / f"{name}.{kind}" for kind in _row_formats(1)]
    # Temporary names of their own, because a cluster may run two copies of a task at the same time.
    temp_paths = [temp_sibling(path, os.urandom(8).hex()) for path in paths]
    hashes = [hashlib.sha256() for _ in paths]
    with named_os_errors(index_dir):
        with ExitStack() as stack:
            files = [stack.enter_context(temp_path.open("wb")) for temp_path in temp_paths]
            for batch in batches:
                for file, sha256, rows in zip(files, hashes, _compute_rows(batch), strict=True):
                    file.write(rows.data)
                    sha256.update(rows.data)
        # Without fsync, since the hash of a file that a power failure damages is wrong, and the file is written again.
        for temp_path, path in zip(temp_paths, paths, strict=True):
            temp_path.replace(path)
        return tuple(
            SetFile(path=path.name, bytes=path.stat().st_size, sha256=sha256.hexdigest())
            for path, sha256 in zip(paths, hashes, strict=True)
        )


def part_name(split: Split, number: int) -> str:
    """Name the part of a shard, by its number within its split."""
    return f"{split}-{number:05d}"


def _compute_rows(images: Array) -> list[Array]:
    """Compute the rows of each kind for images (n, C, h, w) uint8."""
    images = resize_images(images, SIDE, SIDE)
    rows = compute_descriptors(images), compute_outlines(images), images
    formats = _row_formats(images.shape[1]).values()
    return [np.ascontiguousarray(of_kind, dtype) for of_kind, (dtype, _) in zip(rows, formats, strict=True)]


def _row_formats(num_channels: int) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    return {
        "descriptors": (np.dtype("<i2"), (count_values(num_channels),)),
        "outlines": (np.dtype("<i1"), (2, GRID, GRID)),
        "images": (np.dtype("<u1"), (num_channels, SIDE, SIDE)),
    }
