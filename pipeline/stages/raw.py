"""Opening data/raw, the input of every stage but `download`."""

from pathlib import Path

from shardset.errors import CorruptDataError
from shardset.shards import ShardSet, open_shards


def open_raw(raw_dir: Path) -> ShardSet:
    """Open a set of raw pixels. Raises CorruptDataError if the set is incomplete, or is not raw pixels."""
    raw = open_shards(raw_dir)
    if raw.manifest.dtype != "uint8" or raw.manifest.normalization:
        raise CorruptDataError(
            f"{raw_dir}: expected raw uint8 pixels, got {raw.manifest.dtype} with normalization "
            f"{raw.manifest.normalization}: run `dvc repro --force download`"
        )
    return raw
