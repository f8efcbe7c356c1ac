"""Command `verify`: every byte of a shard set against its manifest."""

from pathlib import Path

from pipeline.runtime.tasks import Progress, Tally, map_tasks
from pipeline.stages.remedies import repair_hint
from shardset.manifest import Manifest
from shardset.shards import open_shards
from shardset.threads import ignore


def verify_set(shards_dir: Path, progress: Progress = ignore) -> Manifest:
    """Verify a shard set and return its manifest. Raises CorruptDataError, which says how to repair it."""
    with repair_hint():
        shards = open_shards(shards_dir)
        tally = Tally(progress, "Checking", shards.manifest.num_samples)
        shards.verify_all(map_tasks, tally.add)
        return shards.manifest
