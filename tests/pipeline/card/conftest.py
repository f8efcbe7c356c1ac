import pytest

from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset.shards import ShardSet, open_shards
from tests.helpers.image_files import make_image_folder
from tests.helpers.shard_sets import download, make_images, make_params, write_raw_set


@pytest.fixture(scope="session")
def normalized_tiny(tiny_raw, tmp_path_factory) -> ShardSet:
    """The tiny dataset normalized, in shards of 40 samples, to be read only."""
    path = tmp_path_factory.mktemp("card")
    write_stats(tiny_raw, path / "stats.json")
    normalize_shards(tiny_raw, path / "stats.json", path / "shards", make_params(samples_per_shard=40))
    return open_shards(path / "shards")


@pytest.fixture(scope="session", params=[("train",), ("train", "val"), ("train", "val", "test")])
def normalized_splits(request, tmp_path_factory) -> ShardSet:
    """A small set of one to three splits, normalized, to be read only."""
    path = tmp_path_factory.mktemp("splits")
    images = {split: make_images(4 + index, seed=index) for index, split in enumerate(request.param)}
    raw = write_raw_set(path / "raw", **images)
    write_stats(raw.dir, path / "stats.json")
    normalize_shards(raw.dir, path / "stats.json", path / "shards", make_params(dtype="uint8", samples_per_shard=3))
    return open_shards(path / "shards")


@pytest.fixture(scope="session")
def normalized_images(tmp_path_factory) -> ShardSet:
    """A small set of image files in three splits, normalized, to be read only."""
    path = tmp_path_factory.mktemp("images")
    download("images", path / "raw", path / "archives", make_image_folder(path / "source", classes=("cat", "dög")))
    write_stats(path / "raw", path / "stats.json")
    normalize_shards(path / "raw", path / "stats.json", path / "shards", make_params(samples_per_shard=4))
    return open_shards(path / "shards")
