"""The channel statistics of a split, from exact sums."""

from collections.abc import Callable, Sequence
from functools import partial

from pipeline.numerics.sums import PIXEL_MAX, ChannelSums, merge_sums, sum_channels
from pipeline.runtime.tasks import map_tasks
from shardset.manifest import Manifest, Shard, Split
from shardset.reader import ShardReader
from shardset.shards import ShardSet
from shardset.statistics import Statistics
from shardset.threads import MapTasks, ignore


def compute_statistics(
    raw: ShardSet, split: Split, map_tasks: MapTasks = map_tasks, done: Callable[[Shard], None] = ignore
) -> Statistics:
    """Compute a split's statistics from uint8 shards. Raises CorruptDataError if a byte differs from the manifest."""
    by_shard = map_tasks(partial(_sum_shard, raw.reader), raw.shards(split), done)
    return statistics_of(merge_channels(by_shard), raw.manifest, split)


def merge_channels(parts: Sequence[Sequence[ChannelSums]]) -> list[ChannelSums]:
    """Combine the sums of consecutive samples, channel by channel."""
    return [merge_sums(channel) for channel in zip(*parts, strict=True)]


def statistics_of(channels: Sequence[ChannelSums], manifest: Manifest, split: Split) -> Statistics:
    """Compute the figures of stats.json from a split's sums."""
    by_name = dict(zip(manifest.channels, channels, strict=True))
    return Statistics(
        dataset=manifest.dataset,
        split=split,
        images=manifest.splits[split].samples,
        pixels_per_channel=channels[0].num_pixels,
        mean={name: sums.mean for name, sums in by_name.items()},
        std={name: sums.std for name, sums in by_name.items()},
        std_per_image={name: sums.std_per_image for name, sums in by_name.items()},
        min={name: sums.min / PIXEL_MAX for name, sums in by_name.items()},
        max={name: sums.max / PIXEL_MAX for name, sums in by_name.items()},
    )


def _sum_shard(reader: ShardReader, shard: Shard) -> list[ChannelSums]:
    return sum_channels(reader.verified_image_blocks(shard))
