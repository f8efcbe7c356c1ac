"""The search for near-duplicates in a raw shard set, without the rest of the stage `audit`."""

from pathlib import Path

from pipeline.audit.near_duplicates import find_near_duplicates
from pipeline.audit.pairs import Pair
from pipeline.audit.search_index import SearchIndex
from shardset.shards import ShardSet


def make_index(raw: ShardSet, scratch_dir: Path) -> SearchIndex:
    """Index all images of a raw shard set in a new folder."""
    scratch_dir.mkdir()
    index = SearchIndex(raw, scratch_dir)
    for split in raw.manifest.splits:
        for shard, start, _ in raw.ranges(split):
            index.add(split, start, raw.images(shard))
    return index


def search(raw: ShardSet, scratch_dir: Path) -> list[Pair]:
    """Find the near-duplicates of a raw shard set."""
    return find_near_duplicates(make_index(raw, scratch_dir), lambda action, done, total: None)
