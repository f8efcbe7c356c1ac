"""Command `verify`: every byte of a shard set against its manifest."""

from pathlib import Path

from pipeline.runtime.tasks import map_tasks
from pipeline.stages.remedies import repair_hint
from shardset.manifest import Manifest
from shardset.shards import verify_shards


def verify_set(shards_dir: Path) -> Manifest:
    """Verify a shard set and return its manifest. Raises CorruptDataError, which says how to repair it."""
    with repair_hint():
        return verify_shards(shards_dir, map_tasks).manifest
