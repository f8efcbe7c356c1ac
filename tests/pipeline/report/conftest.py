import pytest

from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset.shards import open_shards
from tests.helpers.shard_sets import make_params


@pytest.fixture
def normalize(raw, tmp_path):
    """A function that normalizes the module's raw set and returns the shard set."""
    write_stats(raw.dir, tmp_path / "stats.json")

    def normalize_raw(**changes):
        normalize_shards(raw.dir, tmp_path / "stats.json", tmp_path / "shards", make_params(**changes))
        return open_shards(tmp_path / "shards")

    return normalize_raw
