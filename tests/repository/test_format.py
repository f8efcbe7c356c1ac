"""docs/format.md is enough to write a reader: tests/helpers/second_reader.py was written from it alone."""

import random
import re
import shutil

import numpy as np
import pytest

from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset import ShardDataset
from tests.helpers.second_reader import read_set
from tests.helpers.shard_sets import download, make_params
from tests.helpers.workspace import REPOSITORY


def make_shards(raw_dir, path, dtype):
    write_stats(raw_dir, path / "stats.json")
    normalize_shards(raw_dir, path / "stats.json", path / "shards", make_params(dtype=dtype, samples_per_shard=32))
    return path / "shards"


def assert_same_samples(shards_dir):
    _, splits = read_set(shards_dir)
    for split, (images, labels) in splits.items():
        expected, targets = ShardDataset(shards_dir, split).tensors()
        assert np.array_equal(images.view(np.uint32), expected.numpy().view(np.uint32))
        assert np.array_equal(labels, targets.numpy())


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_second_reader_gives_the_same_samples(dtype, tiny_raw, tmp_path):
    assert_same_samples(make_shards(tiny_raw, tmp_path, dtype))


def test_second_reader_reads_raw_sets(tiny_raw):
    assert_same_samples(tiny_raw)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_second_reader_detects_any_flipped_bit(dtype, tiny_raw, tmp_path):
    shards_dir = make_shards(tiny_raw, tmp_path, dtype)
    rng = random.Random(0)
    files = sorted(path for path in shards_dir.rglob("*") if path.is_file())
    for path in (*files, *[shards_dir / "manifest.json"] * 20):
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=re.escape(path.name)):
            read_set(shards_dir)
        path.write_bytes(content)
    read_set(shards_dir)


def test_second_reader_is_small_and_independent():
    text = (REPOSITORY / "tests/helpers/second_reader.py").read_text()
    assert sum(bool(line.strip()) for line in text.splitlines()) < 60
    assert "shardset" not in text
    assert "pipeline" not in text


@pytest.mark.real
@pytest.mark.slow
def test_second_reader_reads_all_of_cifar10(cifar10_source, tmp_path):
    download("cifar10", tmp_path / "raw", tmp_path, cifar10_source)
    write_stats(tmp_path / "raw", tmp_path / "stats.json")
    normalize_shards(tmp_path / "raw", tmp_path / "stats.json", tmp_path / "shards", make_params())
    shutil.rmtree(tmp_path / "raw")
    assert_same_samples(tmp_path / "shards")
