"""Normalized shards from raw ones: which raw shards each one reads, and how its values are computed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.shards.writer import write_shards
from shardset.manifest import Dtype, Normalization, SetFile, Shard, Split, SplitShards
from shardset.normalization import normalize_pixels
from shardset.shards import Array, ShardSet, split_range


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
        for shard, first, last in raw.ranges(split)
        if first < stop and start < last
    ]


def files_verified_on_read(raw: ShardSet, samples_per_shard: int) -> set[SetFile]:
    """Return the image files of raw shards that `read_normalized` reads entirely, and so verifies."""
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

    def image_blocks(split: Split, start: int, stop: int) -> Iterator[Array]:
        return read_normalized(raw, plan_pieces(raw, split, start, stop), normalization, dtype)

    return write_shards(
        shards_dir,
        {split: raw.labels(split) for split in raw.manifest.splits},
        image_blocks,
        dtype=dtype,
        image_shape=raw.manifest.image_shape,
        samples_per_shard=samples_per_shard,
        scheduler=scheduler,
    )


def read_pixels(raw: ShardSet, pieces: Iterable[Piece]) -> Iterator[Array]:
    """Yield the pixels of pieces in blocks, (n, C, H, W) uint8. Pieces that are entire shards are verified."""
    for piece in pieces:
        if piece.is_complete:
            yield from raw.verified_image_blocks(piece.shard)
        else:
            images = raw.images(piece.shard)
            for start, stop in split_range(piece.start, piece.stop, raw.block_samples):
                yield images[start:stop]


def read_normalized(
    raw: ShardSet, pieces: Iterable[Piece], normalization: Normalization, dtype: Dtype
) -> Iterator[Array]:
    """Yield pieces in blocks, (n, C, H, W) of `dtype`: normalized values, or with uint8 the pixels themselves."""
    blocks = read_pixels(raw, pieces)
    if dtype == "uint8":
        yield from blocks
        return
    # One buffer per shard, reused for each block: allocating fresh memory would cost more than the arithmetic.
    buffer = np.empty((raw.block_samples, *raw.manifest.image_shape), np.float32)
    for pixels in blocks:
        yield normalize_pixels(pixels, normalization, buffer[: len(pixels)]).astype(dtype, copy=False)
