"""Normalized shards from raw ones: which raw shards each one reads, and how its values are computed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.shards.writer import write_shards
from shardset.manifest import Dtype, Normalization, SetFile, Shard, Split, SplitShards
from shardset.normalization import normalize_pixels
from shardset.reader import Array, ShardReader, split_range
from shardset.shards import ShardSet


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
    """Return the image files of raw shards that `NormalizedBlocks` reads entirely, and so verifies."""
    return {
        piece.shard.images
        for split, of_split in raw.manifest.splits.items()
        for start, stop in split_range(0, of_split.samples, samples_per_shard)
        for piece in plan_pieces(raw, split, start, stop)
        if piece.is_complete
    }


def write_normalized_shards(
    raw: ShardSet,
    shards_dir: Path,
    normalization: Normalization,
    dtype: Dtype,
    samples_per_shard: int,
    scheduler: str | None,
) -> dict[Split, SplitShards]:
    """Write every split of `raw`, normalized, and return the entries for the manifest; see `write_shards`."""

    def image_blocks(split: Split, start: int, stop: int) -> Iterable[Array]:
        return NormalizedBlocks(raw.reader, plan_pieces(raw, split, start, stop), normalization, dtype)

    return write_shards(
        shards_dir,
        {split: raw.labels(split) for split in raw.manifest.splits},
        image_blocks,
        dtype=dtype,
        image_shape=raw.manifest.image_shape,
        samples_per_shard=samples_per_shard,
        scheduler=scheduler,
    )


@dataclass(frozen=True)
class NormalizedBlocks:
    """Pieces of raw shards in blocks, (n, C, H, W) of `dtype`: normalized, or with uint8 the pixels themselves."""

    reader: ShardReader
    pieces: list[Piece]
    normalization: Normalization
    dtype: Dtype

    def __iter__(self) -> Iterator[Array]:
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
