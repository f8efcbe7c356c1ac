import shutil

import numpy as np
import pytest

from pipeline.numerics.statistics import compute_statistics
from shardset.errors import CorruptDataError
from shardset.shards import ShardSet, open_shards
from tests.helpers.array_shards import write_arrays
from tests.helpers.shard_sets import make_images, make_manifest, read_images, write_raw_set

RGB = ("red", "green", "blue")


def test_statistics_are_those_of_numpy(synthetic_raw):
    raw = open_shards(synthetic_raw)
    stats = compute_statistics(raw, "train")
    assert (stats.dataset, stats.split, stats.images) == ("synthetic", "train", 12_000)
    assert stats.pixels_per_channel == 12_288_000
    assert tuple(stats.mean) == tuple(stats.std) == tuple(stats.std_per_image) == RGB
    for name, pixels in zip(RGB, read_images(raw, "train").transpose(1, 0, 2, 3), strict=True):
        scaled = pixels.astype(np.float64) / 255
        assert stats.mean[name] == pytest.approx(scaled.mean(), rel=1e-12)
        assert stats.std[name] == pytest.approx(scaled.std(), rel=1e-12)
        assert stats.std_per_image[name] == pytest.approx(scaled.std(axis=(1, 2)).mean(), rel=1e-12)
        assert (stats.min[name], stats.max[name]) == (scaled.min(), scaled.max())


def test_statistics_are_those_of_one_split_alone(tmp_path):
    images = {"train": make_images(5), "val": make_images(4, seed=1), "test": make_images(3, seed=2)}
    raw = write_raw_set(tmp_path / "raw", **images)
    for split, of_split in images.items():
        stats = compute_statistics(raw, split)
        assert (stats.split, stats.images, stats.pixels_per_channel) == (split, len(of_split), len(of_split) * 1024)
        expected = of_split.astype(np.float64).mean(axis=(0, 2, 3)) / 255
        assert list(stats.mean.values()) == pytest.approx(expected.tolist(), rel=1e-12)


def test_statistics_do_not_depend_on_shards_or_threads(tmp_path, monkeypatch):
    images = make_images(30)
    found = []
    for samples_per_shard, threads in ((30, "1"), (7, "1"), (7, "3"), (1, "2")):
        monkeypatch.setenv("PIPELINE_THREADS", threads)
        set_dir = tmp_path / f"{samples_per_shard}-{threads}"
        splits = write_arrays(set_dir, {"train": images}, {"train": np.zeros(len(images), np.int64)}, samples_per_shard)
        found.append(compute_statistics(ShardSet(set_dir, make_manifest(splits)), "train"))
    assert found == found[:1] * 4


def test_flipped_bit_in_a_shard_is_found(synthetic_raw, tmp_path):
    raw_dir = shutil.copytree(synthetic_raw, tmp_path / "raw")
    shard_path = raw_dir / "train/images-00001-of-00002.npy"
    content = bytearray(shard_path.read_bytes())
    content[-1] ^= 1
    shard_path.write_bytes(content)
    with pytest.raises(CorruptDataError, match="images-00001-of-00002.npy: expected SHA-256"):
        compute_statistics(open_shards(raw_dir), "train")
    compute_statistics(open_shards(raw_dir), "test")
