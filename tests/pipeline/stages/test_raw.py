import pytest

from pipeline.stages.normalize import normalize_shards
from pipeline.stages.raw import open_raw
from pipeline.stages.report import write_report
from pipeline.stages.stats import write_stats
from shardset.errors import CorruptDataError
from tests.helpers.shard_sets import audit, make_images, make_params, write_raw_set


def test_raw_set_is_opened(tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(6))
    assert open_raw(tmp_path / "raw").manifest == raw.manifest


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_normalized_set_is_not_accepted_as_raw(dtype, tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(6))
    stats_path, shards_dir = tmp_path / "stats.json", tmp_path / "shards"
    write_stats(raw.dir, stats_path)
    normalize_shards(raw.dir, stats_path, shards_dir, make_params(dtype=dtype))
    message = f"expected raw uint8 pixels, got {dtype} with normalization .*: run `dvc repro --force download`"
    with pytest.raises(CorruptDataError, match=message):
        write_stats(shards_dir, tmp_path / "other.json")
    with pytest.raises(CorruptDataError, match=message):
        normalize_shards(shards_dir, stats_path, tmp_path / "twice", make_params())
    with pytest.raises(CorruptDataError, match=message):
        audit(shards_dir, tmp_path / "audit")
    with pytest.raises(CorruptDataError, match=message):
        write_report(shards_dir, tmp_path / "audit", shards_dir, tmp_path / "report", decimals=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "shards", "stats.json"]
