"""The files of a shard set, opened, mapped and verified one by one."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardset.errors import DamagedFileError, named_os_errors
from shardset.manifest import Dtype, SetFile, Shard
from shardset.mapping import map_file
from shardset.npy import little_endian, npy_header

Array = NDArray[Any]
Labels = NDArray[np.int64]

# 128 CIFAR-10 images: 2 MB as uint8 and float32 together. That mostly stays in cache, and is long enough that threads
# don't spend their time handing over the GIL. Half or twice as many take 5 to 20% longer.
BLOCK_VALUES = 393_216


def split_range(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Cut [start, stop) into consecutive ranges of `size`; the last one may be shorter."""
    return [(first, min(first + size, stop)) for first in range(start, stop, size)]


@dataclass(frozen=True)
class ShardReader:
    """Reads single shards of a set. It is small, so that each task on a cluster can carry one.

    All methods raise DamagedFileError if a file is missing or has the wrong size, dtype or shape, and OSError, which
    names the file, if the system can't read it.
    """

    dir: Path
    dtype: Dtype
    image_shape: tuple[int, int, int]

    @property
    def block_samples(self) -> int:
        """The number of samples to process at a time."""
        return max(1, BLOCK_VALUES // prod(self.image_shape))

    def images(self, shard: Shard) -> Array:
        """Memory-map a shard's images, read-only (N, C, H, W) of the set's dtype."""
        shape = shard.samples, *self.image_shape
        with self._open_array(shard.images, self.dtype, shape) as stream:
            memory = map_file(stream.fileno(), shard.images.bytes)
            return np.frombuffer(memory, little_endian(self.dtype), offset=stream.tell()).reshape(shape)

    def labels(self, shard: Shard) -> Labels:
        """Read a shard's labels, read-only (N,) int64."""
        with self._open_array(shard.labels, "int64", (shard.samples,)) as stream:
            return np.frombuffer(stream.read(), little_endian("int64"))

    def verified_image_blocks(self, shard: Shard) -> Iterator[Array]:
        """Yield a shard's images in blocks, (n, C, H, W). A block is overwritten when the next one is requested.

        Raises DamagedFileError after the last block if a byte differs from the manifest.
        """
        return self._verified_blocks(shard.images, self.dtype, (shard.samples, *self.image_shape), self.block_samples)

    def verified_label_blocks(self, shard: Shard) -> Iterator[Labels]:
        """Yield a shard's labels in blocks, (n,), as `verified_image_blocks` does."""
        return self._verified_blocks(shard.labels, "int64", (shard.samples,), BLOCK_VALUES)

    def verify_file(self, file: SetFile) -> None:
        """Compare every byte of a file with the manifest."""
        with self._open(file) as stream:
            self._check_hash(file, hashlib.file_digest(stream, "sha256").hexdigest())

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
        """Open an .npy file at the start of its array."""
        header = npy_header(dtype, shape)
        num_bytes = len(header) + little_endian(dtype).itemsize * prod(shape)
        with self._open(file) as stream:
            if file.bytes != num_bytes or stream.read(len(header)) != header:
                raise DamagedFileError(f"{self.dir / file.path}: not an .npy file of {dtype} {shape} in C order")
            yield stream

    @contextmanager
    def _open(self, file: SetFile) -> Iterator[BufferedReader]:
        path = self.dir / file.path
        with named_os_errors(path):
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
