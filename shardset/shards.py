"""An open shard set: .npy files of images and labels, described by a manifest, read as numpy arrays."""

import hashlib
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from itertools import accumulate
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from shardset.content import Digests, hash_content, hash_images
from shardset.errors import CorruptDataError, DamagedFileError
from shardset.manifest import MANIFEST_NAME, Manifest, SetFile, Shard, Split, load_manifest
from shardset.npy import little_endian, npy_header

Array = NDArray[Any]
Labels = NDArray[np.int64]

# 128 CIFAR-10 images: 2 MB as uint8 and float32 together. That mostly stays in cache, and is long enough that threads
# don't spend their time handing over the GIL. Half or twice as many take 5 to 20% longer.
BLOCK_VALUES = 393_216

# Left by file managers in folders that someone opened.
IGNORED_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")

T = TypeVar("T")
R = TypeVar("R")
MapFiles = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


def map_on_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Apply `function` to each item on threads, and return the results in the items' order."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(function, items))


def split_range(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Cut [start, stop) into consecutive ranges of `size`; the last one may be shorter."""
    return [(first, min(first + size, stop)) for first in range(start, stop, size)]


@dataclass(frozen=True, repr=False)
class ShardSet:
    """A shard set on disk, open for reading."""

    dir: Path
    manifest: Manifest

    def __repr__(self) -> str:
        return f"<ShardSet {str(self.dir)!r}: {self.manifest.summary()}>"

    @property
    def block_samples(self) -> int:
        """The number of samples to process at a time."""
        return max(1, BLOCK_VALUES // prod(self.manifest.image_shape))

    def shards(self, split: Split) -> tuple[Shard, ...]:
        """Return a split's shards, in sample order."""
        return self.manifest.splits[split].shards

    def ranges(self, split: Split) -> list[tuple[Shard, int, int]]:
        """Return a split's shards, each with the range [start, stop) of its samples within the split."""
        stops = accumulate(shard.samples for shard in self.shards(split))
        return [(shard, stop - shard.samples, stop) for shard, stop in zip(self.shards(split), stops, strict=True)]

    def images(self, shard: Shard) -> Array:
        """Memory-map a shard's images, read-only (N, C, H, W) of the manifest's dtype. Raises CorruptDataError."""
        return self._map(shard.images, self.manifest.dtype, (shard.samples, *self.manifest.image_shape))

    def labels(self, split: Split) -> Labels:
        """Read a split's labels, (N,) int64. Raises CorruptDataError."""
        return np.concatenate(
            [np.array(self._map(shard.labels, "int64", (shard.samples,))) for shard in self.shards(split)]
        )

    def take(self, split: Split, indices: Array) -> Array:
        """Read some images of a split in the order of `indices`, (len(indices), C, H, W) of the manifest's dtype."""
        taken = np.empty((len(indices), *self.manifest.image_shape), self.manifest.dtype)
        for shard, start, stop in self.ranges(split):
            within = (start <= indices) & (indices < stop)
            if within.any():
                taken[within] = self.images(shard)[indices[within] - start]
        return taken

    def verified_image_blocks(self, shard: Shard) -> Iterator[Array]:
        """Yield a shard's images in blocks, (n, C, H, W). A block is overwritten when the next one is requested.

        Raises CorruptDataError after the last block if a byte differs from the manifest.
        """
        shape = shard.samples, *self.manifest.image_shape
        return self._verified_blocks(shard.images, self.manifest.dtype, shape, self.block_samples)

    def verify(
        self,
        exclude: Container[SetFile] = (),
        map_files: MapFiles = map_on_threads,
    ) -> None:
        """Compare every file with the manifest, except those in `exclude`, and look for files that it doesn't list.

        `map_files(function, files)` applies a function to each file. Raises CorruptDataError, naming all files that
        differ.
        """
        shards = [shard for split in self.manifest.splits.values() for shard in split.shards]
        files = [(file, shard) for shard in shards for file in (shard.images, shard.labels) if file not in exclude]
        problems = map_files(lambda item: self._find_problem(*item), files)
        problems += [self._find_problem(file) for file in self.manifest.files]
        listed = {MANIFEST_NAME, *(file.path for file in (*self.manifest.shard_files(), *self.manifest.files))}
        found = {
            path.relative_to(self.dir).as_posix()
            for path in self.dir.rglob("*")
            if not path.is_dir() and path.name not in IGNORED_FILES
        }
        unlisted = [f"{self.dir / name}: not in the manifest" for name in sorted(found - listed)]
        damaged = [problem for problem in problems if problem]
        differences = "\n  ".join([f"{self.dir} differs from its manifest:", *damaged, *unlisted])
        if damaged:
            raise DamagedFileError(f"{differences}\nRestore these files from the original source.")
        if unlisted:
            raise CorruptDataError(f"{differences}\nMove these files out of the folder.")

    def check_unchanged(self) -> None:
        """Raise CorruptDataError if the set was replaced by another one since it was opened."""
        if load_manifest(self.dir) != self.manifest:
            raise CorruptDataError(f"{self.dir}: was replaced by another set while it was being read. Run this again.")

    def check_content(self, digests: Mapping[Split, Digests]) -> None:
        """Raise CorruptDataError unless the pixels' digests and the labels on disk give `content_sha256`."""
        content = hash_content((digests[split], self.labels(split)) for split in self.manifest.splits)
        if content != self.manifest.content_sha256:
            raise CorruptDataError(
                f"{self.dir / MANIFEST_NAME}: content_sha256: expected {self.manifest.content_sha256}, but the shards "
                f"have {content}. The set was not written by this pipeline; rebuild it or copy it again."
            )

    def _find_problem(self, file: SetFile, shard: Shard | None = None) -> str | None:
        try:
            if shard is None:
                with self._open(file) as stream:
                    self._check_hash(file, hashlib.file_digest(stream, "sha256").hexdigest())
            elif file is shard.images:
                for _ in self.verified_image_blocks(shard):
                    pass
            else:
                for block in self._verified_blocks(file, "int64", (shard.samples,), BLOCK_VALUES):
                    if block.min() < 0 or block.max() >= len(self.manifest.classes):
                        return f"{self.dir / file.path}: labels should be in [0, {len(self.manifest.classes)})"
        except CorruptDataError as error:
            return str(error)
        return None

    def _map(self, file: SetFile, dtype: str, shape: tuple[int, ...]) -> Array:
        with self._open_array(file, dtype, shape) as stream:
            # As a plain array: numpy spends as long on wrapping small results in a memmap as on computing them.
            return np.asarray(np.memmap(stream, little_endian(dtype), "r", stream.tell(), shape))

    def _verified_blocks(self, file: SetFile, dtype: str, shape: tuple[int, ...], size: int) -> Iterator[Array]:
        # Read into one buffer rather than mapped, because mapped pages count as memory, one shard per thread. Each
        # block is hashed while it is in cache, and the hash covers the very bytes that the caller works on.
        buffer = np.empty((min(size, shape[0]), *shape[1:]), little_endian(dtype))
        sha256 = hashlib.sha256(npy_header(dtype, shape))
        with self._open_array(file, dtype, shape) as stream:
            for start, stop in split_range(0, shape[0], size):
                block = buffer[: stop - start]
                stream.readinto(block.data.cast("B"))
                sha256.update(block.data)
                yield block
        self._check_hash(file, sha256.hexdigest())

    @contextmanager
    def _open_array(self, file: SetFile, dtype: str, shape: tuple[int, ...]) -> Iterator[BufferedReader]:
        """Open an .npy file at the start of its array. Raises DamagedFileError if size, dtype or shape is wrong."""
        header = npy_header(dtype, shape)
        num_bytes = len(header) + little_endian(dtype).itemsize * prod(shape)
        with self._open(file) as stream:
            if file.bytes != num_bytes or stream.read(len(header)) != header:
                raise DamagedFileError(f"{self.dir / file.path}: not an .npy file of {dtype} {shape} in C order")
            yield stream

    @contextmanager
    def _open(self, file: SetFile) -> Iterator[BufferedReader]:
        """Open a file of the set. Raises DamagedFileError if it is missing or its size is wrong."""
        path = self.dir / file.path
        try:
            stream = path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            raise DamagedFileError(f"{path}: missing") from None
        except IsADirectoryError:
            raise DamagedFileError(f"{path}: a folder, not a file") from None
        with stream:
            num_bytes = os.fstat(stream.fileno()).st_size
            if num_bytes != file.bytes:
                raise DamagedFileError(f"{path}: expected {file.bytes:,} bytes, got {num_bytes:,}")
            yield stream

    def _check_hash(self, file: SetFile, sha256: str) -> None:
        if sha256 != file.sha256:
            raise DamagedFileError(f"{self.dir / file.path}: expected SHA-256 {file.sha256}, got {sha256}")


def open_shards(shards_dir: str | PathLike[str]) -> ShardSet:
    """Open a shard set by its manifest. Raises CorruptDataError if the set is not complete."""
    path = Path(shards_dir)
    # Absolute, because cluster workers run in folders of their own.
    return ShardSet(path.absolute(), load_manifest(path))


def verify_shards(shards_dir: str | PathLike[str], map_files: MapFiles = map_on_threads) -> ShardSet:
    """Open a shard set and compare every byte with its manifest; for pixels, also recompute `content_sha256`.

    `map_files` as in `ShardSet.verify`. Float values are not turned back into pixels, so their content hash is not
    recomputed. Raises CorruptDataError.
    """
    shards = open_shards(shards_dir)
    shards.verify(map_files=map_files)
    if shards.manifest.dtype == "uint8":
        digests: dict[Split, Digests] = {}
        for split in shards.manifest.splits:
            by_shard = map_files(lambda shard: hash_images(shards.images(shard)), shards.shards(split))
            digests[split] = np.concatenate(by_shard)
        shards.check_content(digests)
    return shards
