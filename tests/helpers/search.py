"""The search for near-duplicates in a raw shard set, without the rest of the stage `audit`."""

from pathlib import Path

from pipeline.audit.near_duplicates import find_near_duplicates
from pipeline.audit.pairs import Pair
from pipeline.audit.search_index import SearchIndex, open_index, part_name, write_part
from pipeline.runtime.resume import open_step
from pipeline.runtime.tasks import map_tasks
from shardset.shards import ShardSet
from tests.helpers.audits import name_pairs


def make_index(raw: ShardSet, index_dir: Path) -> SearchIndex:
    """Index all images of a raw shard set in a new folder."""
    index_dir.mkdir()
    for split in raw.manifest.splits:
        for number, shard in enumerate(raw.shards(split)):
            write_part(index_dir, part_name(split, number), [raw.images(shard)])
    return open_index(raw, index_dir)


def search(raw: ShardSet, scratch_dir: Path) -> list[Pair]:
    """Find the near-duplicates of a raw shard set, in the order of their splits and indices."""
    index = make_index(raw, scratch_dir)
    pairs = find_near_duplicates(index, open_step(scratch_dir, "search"), map_tasks)
    pairs.sort(order=["split", "index", "other_split", "other_index"])
    return name_pairs(pairs, tuple(raw.manifest.splits))
