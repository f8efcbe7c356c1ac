"""The shard set: .npy files of images and labels with a manifest, in data/raw and in data/shards alike."""

import hashlib
import io
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from itertools import accumulate
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.card import render_card
from pipeline.errors import CorruptDataError
from pipeline.manifest import (
    MANIFEST_NAME,
    SPLITS,
    TO_MEND,
    Dtype,
    Manifest,
    Shard,
    ShardFile,
    Split,
    SplitShards,
    load_manifest,
)
from pipeline.parallel import map_tasks

Array = NDArray[Any]
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

# 128 images of CIFAR-10: as uint8 and float32 together 2 MB, which mostly stays in cache, and long enough for threads
# not to spend their time on handing Python's lock to one another. Half or twice as many take 5 to 20 % longer.
BLOCK_VALUES = 393_216

# What file managers leave in folders that someone looked into.
NOT_OURS = (".DS_Store", "Thumbs.db", "desktop.ini")


def split_range(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Cut [start, stop) into consecutive ranges of `size`, the last one perhaps shorter."""
    return [(first, min(first + size, stop)) for first in range(start, stop, size)]


def little_endian(dtype: str) -> np.dtype[Any]:
    """Name the dtype as it lies on disk: "<f4" for float32, on every machine."""
    return np.dtype(dtype).newbyteorder("<")


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return what stands before the array in an .npy file."""
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(little_endian(dtype))
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()


def hash_content(splits: Iterable[tuple[Iterable[Pixels], Labels]]) -> str:
    """Hash a dataset's identity, SHA-256 as hex digits.

    `splits` are, of train and then test, the images, uint8 arrays in C order that follow one another, and the labels,
    (N,) int64.
    """
    content = hashlib.sha256()
    for images, labels in splits:
        for block in images:
            content.update(block.data)
        content.update(labels.astype("<i8").data)
    return content.hexdigest()


@dataclass(frozen=True)
class ShardSet:
    """A shard set on disk, open for reading. Arrays are memory-mapped and read-only."""

    dir: Path
    manifest: Manifest

    @property
    def block_samples(self) -> int:
        """How many samples are worked on at a time."""
        return max(1, BLOCK_VALUES // prod(self.manifest.image_shape))

    def shards(self, split: Split) -> tuple[Shard, ...]:
        """List a split's shards, in sample order."""
        return self.manifest.splits[split].shards

    def ranges(self, split: Split) -> list[tuple[Shard, int, int]]:
        """List a split's shards, each with the range [start, stop) of its samples in the split."""
        stops = accumulate(shard.samples for shard in self.shards(split))
        return [(shard, stop - shard.samples, stop) for shard, stop in zip(self.shards(split), stops, strict=True)]

    def images(self, shard: Shard) -> Array:
        """Map a shard's images, (N, C, H, W) of the manifest's dtype. Raises CorruptDataError."""
        return self._map(shard.images, self.manifest.dtype, (shard.samples, *self.manifest.image_shape))

    def labels(self, split: Split) -> Labels:
        """Read a split's labels, (N,) int64. Raises CorruptDataError."""
        return np.concatenate(
            [np.array(self._map(shard.labels, "int64", (shard.samples,))) for shard in self.shards(split)]
        )

    def take(self, split: Split, indices: Array) -> Array:
        """Read the images of some samples, (len(indices), C, H, W) of the manifest's dtype, in the order given."""
        taken = np.empty((len(indices), *self.manifest.image_shape), self.manifest.dtype)
        for shard, start, stop in self.ranges(split):
            here = (start <= indices) & (indices < stop)
            if here.any():
                taken[here] = self.images(shard)[indices[here] - start]
        return taken

    def image_blocks(self, split: Split, start: int, stop: int) -> Iterator[Array]:
        """Yield the images of samples [start, stop), in order, in blocks that end where shards end.

        A shard that lies within the range is verified, as in `verified_image_blocks`; of others only a part is read.
        """
        for shard, shard_start, shard_stop in self.ranges(split):
            if start <= shard_start and shard_stop <= stop:
                yield from self.verified_image_blocks(shard)
            elif start < shard_stop and stop > shard_start:
                images = self.images(shard)
                within = max(start, shard_start) - shard_start, min(stop, shard_stop) - shard_start
                for begin, end in split_range(*within, self.block_samples):
                    yield images[begin:end]

    def verified_image_blocks(self, shard: Shard) -> Iterator[Array]:
        """Yield a shard's images in blocks, each of which holds until the next one is asked for.

        Raises CorruptDataError after the last one if a byte was wrong.
        """
        shape = shard.samples, *self.manifest.image_shape
        return self._verified_blocks(shard.images, self.manifest.dtype, shape, self.block_samples)

    def verify(self, but: Container[ShardFile] = ()) -> None:
        """Compare every file with the manifest, all `but` some. Raises CorruptDataError that names all that differ."""
        files = [
            (file, shard) for split in SPLITS for shard in self.shards(split) for file in (shard.images, shard.labels)
        ]
        to_check = [(file, shard) for file, shard in files if file not in but]
        problems = [problem for problem in map_tasks(lambda item: self._find_problem(*item), to_check) if problem]
        card = render_card(self.manifest)
        problems += [
            f"{self.dir / name}: missing, or not what the manifest says"
            for name, text in card.items()
            if not _holds(self.dir / name, text.encode())
        ]
        expected = {MANIFEST_NAME, *card, *(file.path for file, _ in files)}
        found = {
            path.relative_to(self.dir).as_posix()
            for path in self.dir.rglob("*")
            if not path.is_dir() and path.name not in NOT_OURS
        }
        problems += [f"{self.dir / name}: not in the manifest" for name in sorted(found - expected)]
        if problems:
            differences = "\n  ".join(problems)
            raise CorruptDataError(f"{self.dir} differs from its manifest:\n  {differences}\nOf each, {TO_MEND}.")

    def expect_same(self) -> None:
        """Raise CorruptDataError if another set has taken the place of this one, some files of which were read."""
        if load_manifest(self.dir) != self.manifest:
            raise CorruptDataError(f"{self.dir}: another set has taken its place meanwhile: run this again")

    def verify_content(self) -> None:
        """Hash the pixels and labels of uint8 shards anew. Raises CorruptDataError if they are another dataset's."""
        splits = ((map(self.images, self.shards(split)), self.labels(split)) for split in SPLITS)
        if (got := hash_content(splits)) != self.manifest.content_sha256:
            raise CorruptDataError(
                f"{self.dir / MANIFEST_NAME}: content_sha256: expected {self.manifest.content_sha256}, the shards have "
                f"{got}: delete {self.dir} and run `dvc repro --force`"
            )

    def _find_problem(self, file: ShardFile, shard: Shard) -> str | None:
        try:
            if file is shard.images:
                for _ in self.verified_image_blocks(shard):
                    pass
            else:
                for block in self._verified_blocks(file, "int64", (shard.samples,), BLOCK_VALUES):
                    if block.min() < 0 or block.max() >= len(self.manifest.classes):
                        return f"{self.dir / file.path}: labels should be in [0, {len(self.manifest.classes)})"
        except CorruptDataError as error:
            return str(error)
        return None

    def _map(self, file: ShardFile, dtype: str, shape: tuple[int, ...]) -> Array:
        with self._open(file, dtype, shape) as stream:
            # As a plain array: a memmap spends as long on wrapping each small result as numpy on computing it.
            return np.asarray(np.memmap(stream, little_endian(dtype), "r", stream.tell(), shape))

    def _verified_blocks(self, file: ShardFile, dtype: str, shape: tuple[int, ...], size: int) -> Iterator[Array]:
        # Read into one buffer, not mapped: what is mapped counts as memory, a shard a thread. The hash is taken from a
        # block while it is in cache, and of the very bytes that are worked on, whatever becomes of the file meanwhile.
        buffer = np.empty((min(size, shape[0]), *shape[1:]), little_endian(dtype))
        sha256 = hashlib.sha256(npy_header(dtype, shape))
        with self._open(file, dtype, shape) as stream:
            for start, stop in split_range(0, shape[0], size):
                block = buffer[: stop - start]
                stream.readinto(block.data.cast("B"))
                sha256.update(block.data)
                yield block
        if sha256.hexdigest() != file.sha256:
            raise CorruptDataError(f"{self.dir / file.path}: expected SHA-256 {file.sha256}, got {sha256.hexdigest()}")

    @contextmanager
    def _open(self, file: ShardFile, dtype: str, shape: tuple[int, ...]) -> Iterator[BufferedReader]:
        """Open a file where its array starts. Raises CorruptDataError, also for what can't be read later."""
        path = self.dir / file.path
        header = npy_header(dtype, shape)
        try:
            with path.open("rb") as stream:
                num_bytes = os.fstat(stream.fileno()).st_size
                if num_bytes != file.bytes:
                    raise CorruptDataError(f"{path}: expected {file.bytes:,} bytes, got {num_bytes:,}")
                size = len(header) + little_endian(dtype).itemsize * prod(shape)
                if num_bytes != size or stream.read(len(header)) != header:
                    raise CorruptDataError(f"{path}: not an .npy file of {dtype} {shape} in C order")
                yield stream
        except FileNotFoundError:
            raise CorruptDataError(f"{path}: missing") from None
        except OSError as error:
            raise CorruptDataError(f"{path}: can't be read: {error.strerror}") from None


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def open_shards(shards_dir: str | PathLike[str]) -> ShardSet:
    """Open a shard set by its manifest. Raises CorruptDataError where there is no whole one."""
    path = Path(shards_dir)
    # Absolute, since the workers of a cluster run in folders of their own.
    return ShardSet(path.absolute(), load_manifest(path))


def open_raw(raw_dir: Path) -> ShardSet:
    """Open a set of pixels that were not normalized. Raises CorruptDataError where it is none."""
    raw = open_shards(raw_dir)
    if raw.manifest.dtype != "uint8" or raw.manifest.normalization:
        raise CorruptDataError(
            f"{raw_dir}: expected uint8 pixels that were not normalized, got {raw.manifest.dtype} and normalization "
            f"{raw.manifest.normalization}: delete {raw_dir} and run `dvc repro --force`"
        )
    return raw


def verify_shards(shards_dir: Path) -> ShardSet:
    """Open a shard set and compare every byte with its manifest, and pixels with their content hash too.

    Normalized values are not turned back into pixels: the stage `report` proves those. Raises CorruptDataError.
    """
    shards = open_shards(shards_dir)
    shards.verify()
    if shards.manifest.dtype == "uint8":
        shards.verify_content()
    return shards


def write_shards(
    shards_dir: Path,
    labels: Mapping[Split, Labels],
    image_blocks: Callable[[Split, int, int], Iterable[Array]],
    *,
    dtype: Dtype,
    image_shape: tuple[int, int, int],
    samples_per_shard: int,
    scheduler: str | None = None,
) -> dict[Split, SplitShards]:
    """Write all shards of all splits and return what the manifest says of them; the manifest is the caller's to write.

    `image_blocks(split, start, stop)` yields the images of samples [start, stop) as (n, C, H, W) arrays of `dtype`; it
    is called once a shard, on several threads, or on a cluster, see `map_tasks`.
    """

    def write_shard(task: tuple[Split, str, int, int]) -> Shard:
        split, name, start, stop = task
        blocks, of_labels = image_blocks(split, start, stop), [labels[split][start:stop]]
        return Shard(
            samples=stop - start,
            images=_write_npy(shards_dir, f"{split}/images-{name}", dtype, (stop - start, *image_shape), blocks),
            labels=_write_npy(shards_dir, f"{split}/labels-{name}", "int64", (stop - start,), of_labels),
        )

    tasks: list[tuple[Split, str, int, int]] = []
    for split in SPLITS:
        (shards_dir / split).mkdir()
        ranges = split_range(0, len(labels[split]), samples_per_shard)
        tasks += [(split, f"{i:05d}-of-{len(ranges):05d}.npy", *samples) for i, samples in enumerate(ranges)]
    written = list(zip(tasks, map_tasks(write_shard, tasks, scheduler), strict=True))
    return {
        split: SplitShards(
            samples=len(labels[split]), shards=tuple(shard for task, shard in written if task[0] == split)
        )
        for split in SPLITS
    }


def _write_npy(
    shards_dir: Path, relative_path: str, dtype: str, shape: tuple[int, ...], blocks: Iterable[Array]
) -> ShardFile:
    header = npy_header(dtype, shape)
    sha256 = hashlib.sha256(header)
    num_bytes = len(header)
    with (shards_dir / relative_path).open("wb") as file:
        file.write(header)
        for block in blocks:
            data = np.ascontiguousarray(block, little_endian(dtype))
            file.write(data.data)
            sha256.update(data.data)
            num_bytes += data.nbytes
        file.flush()
        os.fsync(file.fileno())
    return ShardFile(path=relative_path, bytes=num_bytes, sha256=sha256.hexdigest())
