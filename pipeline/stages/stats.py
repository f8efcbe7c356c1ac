"""Stage `stats`: the exact channel statistics of the train split."""

from pathlib import Path

from msgspec import to_builtins

from pipeline.numerics.statistics import compute_statistics
from pipeline.runtime.files import write_json
from pipeline.stages.raw import open_raw
from pipeline.stages.remedies import repair_hint
from shardset.statistics import Statistics


def write_stats(raw_dir: Path, stats_path: Path, scheduler: str | None = None) -> Statistics:
    """Compute the statistics of the train split and write them as JSON; `scheduler` as in `map_tasks`.

    Raises CorruptDataError if data/raw is missing or damaged.
    """
    with repair_hint():
        stats = compute_statistics(open_raw(raw_dir), "train", scheduler)
    write_json(stats_path, to_builtins(stats))
    return stats
