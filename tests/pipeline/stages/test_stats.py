import json

import numpy as np
import pytest
from msgspec import to_builtins

from pipeline.stages.remedies import REPAIR_HINT
from pipeline.stages.stats import write_stats
from shardset.errors import CorruptDataError
from shardset.statistics import load_stats, read_statistics
from tests.helpers.shard_sets import make_images, write_raw_set

SUMMARY = "made train, 4 images, mean 0.0000 0.2000 1.0000, std 0.0000 0.2000 0.0000 (red, green, blue)"


@pytest.mark.slow
def test_stats_json_describes_the_train_split_alone(synthetic_raw, tmp_path):
    stats = write_stats(synthetic_raw, tmp_path / "stats.json")
    train = np.concatenate([np.load(path) for path in sorted((synthetic_raw / "train").glob("images-*.npy"))])
    assert (stats.dataset, stats.split, stats.images) == ("synthetic", "train", 12_000)
    assert stats.pixels_per_channel == 12_288_000
    for index, name in enumerate(("red", "green", "blue")):
        pixels = train[:, index].astype(np.float64) / 255
        assert stats.mean[name] == pytest.approx(pixels.mean(), rel=1e-12)
        assert stats.std[name] == pytest.approx(pixels.std(), rel=1e-12)
        assert stats.std_per_image[name] == pytest.approx(pixels.std(axis=(1, 2)).mean(), rel=1e-12)
        assert (stats.min[name], stats.max[name]) == (pixels.min(), pixels.max())
    assert read_statistics(tmp_path / "stats.json") == stats
    mean, std = load_stats(str(tmp_path / "stats.json"))
    assert (mean, std) == (tuple(stats.mean.values()), tuple(stats.std.values()))
    written = json.loads((tmp_path / "stats.json").read_bytes())
    assert written == to_builtins(stats)
    assert list(written["mean"]) == list(written["std"]) == ["red", "green", "blue"]


def test_other_splits_do_not_change_stats_json(tmp_path):
    train, other = make_images(30), make_images(20, seed=1)
    for name, others in (("alone", {}), ("both", {"val": other, "test": other})):
        write_raw_set(tmp_path / name, train, **others)
        write_stats(tmp_path / name, tmp_path / f"{name}.json")
    assert (tmp_path / "alone.json").read_bytes() == (tmp_path / "both.json").read_bytes()


def test_stats_are_summarized_by_channel(tmp_path):
    images = np.zeros((4, 3, 8, 8), np.uint8)
    images[::2, 1] = 102
    images[:, 2] = 255
    write_raw_set(tmp_path / "raw", images)
    assert write_stats(tmp_path / "raw", tmp_path / "stats.json").summary() == SUMMARY


def test_damaged_shard_is_reported_with_a_remedy(tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(6))
    path = raw.dir / raw.shards("train")[0].images.path
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptDataError, match=f"{path.name}: expected SHA-256") as failed:
        write_stats(raw.dir, tmp_path / "stats.json")
    assert str(failed.value).endswith(REPAIR_HINT)
    assert not (tmp_path / "stats.json").exists()


def test_missing_raw_set_is_reported_with_a_remedy(tmp_path):
    with pytest.raises(CorruptDataError, match=r"manifest\.json: missing") as failed:
        write_stats(tmp_path / "raw", tmp_path / "stats.json")
    assert str(failed.value).endswith(REPAIR_HINT)
