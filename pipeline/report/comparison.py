"""Shards compared with the raw pixels and labels that they were made from, every byte and every value.

Which raw samples a shard consists of is worked out by code of its own, because mistakes of `normalize` are to be found.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.report.proof import value_table
from shardset.errors import CorruptDataError
from shardset.manifest import Shard, Split
from shardset.reader import Array, ShardReader, split_range
from shardset.shards import ShardSet
from shardset.threads import MapTasks, ignore


@dataclass(frozen=True)
class Comparison:
    """A shard whose samples begin at `start` in their split, and the parts of raw shards that it was made from.

    A part is a raw shard and the range [first, last) of its samples.
    """

    split: Split
    shard: Shard
    start: int
    parts: tuple[tuple[Shard, int, int], ...]


def plan_comparisons(raw: ShardSet, shards: ShardSet) -> list[Comparison]:
    """List the comparisons that cover all shards."""
    return [
        Comparison(split, shard, start, _find_parts(raw, split, start, stop))
        for split in shards.manifest.splits
        for shard, start, stop in shards.ranges(split)
    ]


def verify_other_files(raw: ShardSet, shards: ShardSet, comparisons: Sequence[Comparison], map_tasks: MapTasks) -> None:
    """Verify all files that `compare_shards` doesn't verify. Raises CorruptDataError."""
    read_entirely = {
        shard.images for of in comparisons for shard, first, last in of.parts if last - first == shard.samples
    }
    raw.verify(exclude=read_entirely, map_files=map_tasks)
    shards.verify(exclude={of.shard.images for of in comparisons}, map_files=map_tasks)


def compare_shards(
    raw: ShardSet,
    shards: ShardSet,
    comparisons: Sequence[Comparison],
    map_tasks: MapTasks,
    done: Callable[[int], None] = ignore,
) -> None:
    """Compare labels, and every value with that of its raw pixel, bit for bit, and verify images while reading them.

    `done` is called with the number of samples of each shard that was compared. Raises DamagedFileError if a byte
    differs from the manifest, and CorruptDataError if a label or value is wrong nevertheless.
    """
    compare = partial(_compare_shard, raw.reader, shards.reader, value_table(shards))
    map_tasks(compare, comparisons, lambda comparison: done(comparison.shard.samples))


def normalize_by_table(pixels: Array, table: Array) -> Array:
    """Look up the values of pixels (n, C, H, W) uint8 in a table, (C, 256)."""
    rows = table.shape[1] * np.arange(len(table))[:, None, None]
    normalized: Array = table.ravel().take(pixels + rows)  # three times as fast as table[rows, pixels]
    return normalized


def _find_parts(raw: ShardSet, split: Split, start: int, stop: int) -> tuple[tuple[Shard, int, int], ...]:
    overlapping = raw.ranges_with(split, start, stop)
    return tuple((shard, max(start - begin, 0), min(stop, end) - begin) for shard, begin, end in overlapping)


def _compare_shard(raw: ShardReader, shards: ShardReader, table: Array, comparison: Comparison) -> None:
    split, shard, number = comparison.split, comparison.shard, comparison.start
    labels = np.concatenate([raw.labels(part)[first:last] for part, first, last in comparison.parts])
    if not np.array_equal(shards.labels(shard), labels):
        raise CorruptDataError(f"{shards.dir}: the {split} labels are not those of {raw.dir}")
    wrong: int | None = None
    for block, pixels in _cut_alike(shards.verified_image_blocks(shard), _raw_blocks(raw, comparison.parts)):
        is_pixels = shards.dtype == "uint8"
        expected = pixels if is_pixels else normalize_by_table(pixels, table).astype(shards.dtype, copy=False)
        if wrong is None and not np.array_equal(_bits(block), _bits(expected)):
            wrong = number + int((_bits(block) != _bits(expected)).any(axis=(1, 2, 3)).argmax())
        number += len(block)
    if wrong is not None:  # only now that the bytes are known to be those of the manifests
        raise CorruptDataError(f"{shards.dir}: {split} sample {wrong} differs from the normalized sample in {raw.dir}")


def _raw_blocks(raw: ShardReader, parts: Sequence[tuple[Shard, int, int]]) -> Iterator[Array]:
    """Yield the pixels of parts in blocks, (n, C, H, W). Those that are entire shards are verified."""
    for shard, first, last in parts:
        if last - first == shard.samples:
            yield from raw.verified_image_blocks(shard)
        else:
            images = raw.images(shard)
            for start, stop in split_range(first, last, raw.block_samples):
                yield images[start:stop]


def _cut_alike(one: Iterator[Array], other: Iterator[Array]) -> Iterator[tuple[Array, Array]]:
    """Yield the blocks of two iterators that have as many rows in all, cut so that those of a pair are equally long."""
    first, second = next(one, None), next(other, None)
    while first is not None and second is not None:
        size = min(len(first), len(second))
        yield first[:size], second[:size]
        first, second = (
            rest if len(rest) else next(blocks, None) for rest, blocks in ((first[size:], one), (second[size:], other))
        )


def _bits(values: Array) -> Array:
    """View values as unsigned integers, which tell 0.0 from -0.0."""
    return values.view(f"u{values.itemsize}")
