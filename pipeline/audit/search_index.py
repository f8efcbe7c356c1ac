"""What the search for near-duplicates needs of every image, in files, so that memory doesn't grow with their number."""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audit.descriptors import SIDE, compute_descriptors, count_values
from pipeline.audit.outlines import GRID, compute_outlines
from pipeline.numerics.reduce import resize_images
from shardset.errors import named_os_errors
from shardset.manifest import Split
from shardset.reader import Array, split_range
from shardset.shards import ShardSet

ROWS_PER_READ = 1024


class SearchIndex:
    """Descriptors, outlines and small copies of all images, written once and then read by row.

    All methods raise OSError, which names the file, if the system can't write or read it.
    """

    def __init__(self, raw: ShardSet, scratch_dir: Path) -> None:
        """Prepare files in `scratch_dir`, an empty folder, which the caller removes."""
        self.image_shape = raw.manifest.image_shape
        num_channels = self.image_shape[0]
        self.num_images = {split: of_split.samples for split, of_split in raw.manifest.splits.items()}
        self.descriptors = _Rows(scratch_dir, "descriptors", np.dtype(np.int16), (count_values(num_channels),))
        self.outlines = _Rows(scratch_dir, "outlines", np.dtype(np.int8), (2, GRID, GRID))
        self.images = _Rows(scratch_dir, "images", np.dtype(np.uint8), (num_channels, SIDE, SIDE))
        for rows in (self.descriptors, self.outlines, self.images):
            for split, num_images in self.num_images.items():
                rows.create(split, num_images)

    def add(self, split: Split, start: int, pixels: Array) -> None:
        """Add consecutive images, (n, C, H, W) uint8; `start` is the index of the first. Threads may share an index."""
        images = resize_images(pixels, SIDE, SIDE)
        self.images.write(split, start, images)
        self.descriptors.write(split, start, compute_descriptors(images))
        self.outlines.write(split, start, compute_outlines(images))


class _Rows:
    """A file of equal rows for each split."""

    def __init__(self, scratch_dir: Path, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._dir, self._name, self._dtype, self._shape = scratch_dir, name, dtype, shape
        self._row_bytes = dtype.itemsize * prod(shape)

    def create(self, split: Split, num_rows: int) -> None:
        """Create the file of a split, all rows 0."""
        with named_os_errors(path := self._path(split)), path.open("xb") as file:
            file.truncate(num_rows * self._row_bytes)

    def write(self, split: Split, start: int, rows: Array) -> None:
        """Write consecutive rows; `start` is the index of the first."""
        with named_os_errors(path := self._path(split)), path.open("r+b") as file:
            file.seek(start * self._row_bytes)
            file.write(np.ascontiguousarray(rows, self._dtype).data)

    def read(self, split: Split, start: int, stop: int) -> Array:
        """Read rows [start, stop)."""
        with named_os_errors(path := self._path(split)):
            count, offset = (stop - start) * prod(self._shape), start * self._row_bytes
            return np.fromfile(path, self._dtype, count, offset=offset).reshape(-1, *self._shape)

    def take(self, split: Split, indices: Array) -> Array:
        """Read rows in the order of `indices`."""
        taken = np.empty((len(indices), *self._shape), self._dtype)
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
        taken = np.empty((len(indices), *self._shape), self._dtype)
        with named_os_errors(path := self._path(split)), path.open("rb", buffering=0) as file:
            for row, index in zip(taken, indices.tolist(), strict=True):
                file.seek(index * self._row_bytes)
                file.readinto(row.data.cast("B"))
        return taken

    def _path(self, split: Split) -> Path:
        return self._dir / f"{split}.{self._name}"
