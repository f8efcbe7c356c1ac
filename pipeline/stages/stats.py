"""Stage `stats`: the exact channel statistics of the train split."""

from pathlib import Path

from msgspec import to_builtins

from pipeline.numerics.statistics import compute_statistics
from pipeline.runtime.cluster import open_workers
from pipeline.runtime.files import write_json
from pipeline.runtime.tasks import Progress, Tally
from pipeline.stages.raw import open_raw
from pipeline.stages.remedies import repair_hint
from shardset.statistics import Statistics
from shardset.threads import ignore


def write_stats(
    raw_dir: Path, stats_path: Path, progress: Progress = ignore, scheduler: str | None = None
) -> Statistics:
    """Compute the statistics of the train split and write them as JSON; `scheduler` as in `open_workers`.

    Raises CorruptDataError if data/raw is missing or damaged.
    """
    with repair_hint():
        raw = open_raw(raw_dir)
        tally = Tally(progress, "Adding up", raw.manifest.splits["train"].samples)
        with open_workers(scheduler, stats_path.parent) as map_tasks:
            stats = compute_statistics(raw, "train", map_tasks, lambda shard: tally.add(shard.samples))
    write_json(stats_path, to_builtins(stats))
    return stats
