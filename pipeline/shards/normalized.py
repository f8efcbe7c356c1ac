"""Normalized shards from raw ones: which raw shards each one reads, and how its values are computed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from pipeline.runtime.resume import Step
from pipeline.shards.writer import ShardTask, can_link, write_shards
from shardset.manifest import Dtype, Normalization, SetFile, Shard, Split, SplitShards
from shardset.normalization import normalize_pixels
from shardset.reader import Array, Labels, ShardReader, split_range
from shardset.shards import ShardSet
from shardset.threads import MapTasks, ignore


@dataclass(frozen=True)
class Piece:
    """Samples [start, stop) of a raw shard that become part of one new shard."""

    shard: Shard
    start: int
    stop: int

    @property
    def is_complete(self) -> bool:
        """Whether it is the entire raw shard, which can then be verified while it is read."""
        return self.stop - self.start == self.shard.samples


def plan_pieces(raw: ShardSet, split: Split, start: int, stop: int) -> list[Piece]:
    """List the pieces of raw shards that make up samples [start, stop) of a split, in order."""
    return [
        Piece(shard, max(start, first) - first, min(stop, last) - first)
        for shard, first, last in raw.ranges_with(split, start, stop)
    ]


def files_verified_on_read(raw: ShardSet, samples_per_shard: int) -> set[SetFile]:
    """Return the image files of raw shards that `NormalizedShard` reads entirely, and so verifies."""
    return {
        piece.shard.images
        for split, of_split in raw.manifest.splits.items()
        for start, stop in split_range(0, of_split.samples, samples_per_shard)
        for piece in plan_pieces(raw, split, start, stop)
        if piece.is_complete
    }


def num_new_bytes(raw: ShardSet, dtype: Dtype, samples_per_shard: int, shards_dir: Path) -> int:
    """Return the size of all images as `dtype`, without those whose file `shards_dir` can share with `raw`."""
    can_share = dtype == "uint8" and can_link(raw.dir / raw.shards("train")[0].images.path, shards_dir)
    size = prod(raw.manifest.image_shape) * np.dtype(dtype).itemsize
    return sum(
        size * (stop - start)
        for split, of_split in raw.manifest.splits.items()
        for start, stop in split_range(0, of_split.samples, samples_per_shard)
        if not can_share or not is_shared(plan_pieces(raw, split, start, stop), dtype)
    )


def is_shared(pieces: Sequence[Piece], dtype: Dtype) -> bool:
    """Say whether a shard of these pieces has the same file of images as a raw shard."""
    return dtype == "uint8" and len(pieces) == 1 and pieces[0].is_complete


def write_normalized_shards(
    raw: ShardSet,
    step: Step,
    normalization: Normalization,
    dtype: Dtype,
    samples_per_shard: int,
    map_tasks: MapTasks,
    done: Callable[[int], None] = ignore,
) -> dict[Split, SplitShards]:
    """Write every split of `raw`, normalized, and return the entries for the manifest; see `write_shards`."""

    def source_of(task: ShardTask) -> NormalizedShard:
        return NormalizedShard(raw.reader, plan_pieces(raw, task.split, task.start, task.stop), normalization, dtype)

    return write_shards(
        step,
        {split: of_split.samples for split, of_split in raw.manifest.splits.items()},
        source_of,
        dtype=dtype,
        image_shape=raw.manifest.image_shape,
        samples_per_shard=samples_per_shard,
        map_tasks=map_tasks,
        done=done,
    )


@dataclass(frozen=True)
class NormalizedShard:
    """Pieces of raw shards as one shard of `dtype`: normalized, or with uint8 the pixels themselves."""

    reader: ShardReader
    pieces: list[Piece]
    normalization: Normalization
    dtype: Dtype

    def labels(self) -> Labels:
        """Return the labels, (N,) int64."""
        return np.concatenate([self.reader.labels(piece.shard)[piece.start : piece.stop] for piece in self.pieces])

    def find_file(self) -> tuple[Path, SetFile] | None:
        """Return the file of the raw shard, verified, if the images are the pixels of exactly that shard."""
        if not is_shared(self.pieces, self.dtype):
            return None
        for _ in read_pixels(self.reader, self.pieces):
            pass
        return self.reader.dir, self.pieces[0].shard.images

    def blocks(self) -> Iterator[Array]:
        """Yield the images in blocks, (n, C, H, W) of `dtype`."""
        blocks = read_pixels(self.reader, self.pieces)
        if self.dtype == "uint8":
            yield from blocks
            return
        # One buffer per shard, reused for each block: allocating fresh memory would cost more than the arithmetic.
        buffer = np.empty((self.reader.block_samples, *self.reader.image_shape), np.float32)
        for pixels in blocks:
            yield normalize_pixels(pixels, self.normalization, buffer[: len(pixels)]).astype(self.dtype, copy=False)


def read_pixels(reader: ShardReader, pieces: Iterable[Piece]) -> Iterator[Array]:
    """Yield the pixels of pieces in blocks, (n, C, H, W) uint8. Pieces that are entire shards are verified."""
    for piece in pieces:
        if piece.is_complete:
            yield from reader.verified_image_blocks(piece.shard)
        else:
            images = reader.images(piece.shard)
            for start, stop in split_range(piece.start, piece.stop, reader.block_samples):
                yield images[start:stop]
