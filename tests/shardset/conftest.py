import shutil
from pathlib import Path

import pytest

from pipeline.shards.writer import save_manifest
from pipeline.sources.synthetic import generate
from tests.helpers.array_shards import write_arrays
from tests.helpers.shard_sets import content_hash, make_images, make_manifest, write_raw_set

SPLIT_SIZES = {"train": 25, "val": 12, "test": 7}


@pytest.fixture(scope="session")
def small_set(tmp_path_factory) -> Path:
    """A raw set of generated images in two train shards and one test shard, to be read only."""
    images, labels, classes = generate({"train": 120, "test": 40})
    set_dir = tmp_path_factory.mktemp("small") / "set"
    splits = write_arrays(set_dir, images, labels, samples_per_shard=100)
    content_sha256 = content_hash(images, labels)
    manifest = make_manifest(splits, dataset="synthetic", classes=classes, content_sha256=content_sha256)
    save_manifest(manifest, set_dir)
    return set_dir


@pytest.fixture
def set_copy(small_set, tmp_path) -> Path:
    """A copy of the small set, to be damaged by one test."""
    return shutil.copytree(small_set, tmp_path / "set")


@pytest.fixture(scope="session")
def split_images():
    """Images of three splits, all different, by split."""
    images = make_images(sum(SPLIT_SIZES.values()), seed=3)
    stops = {"train": 25, "val": 37, "test": 44}
    return {split: images[stop - SPLIT_SIZES[split] : stop] for split, stop in stops.items()}


@pytest.fixture(scope="session", params=[("train",), ("train", "val"), ("train", "test"), ("train", "val", "test")])
def split_set(request, split_images, tmp_path_factory):
    """A raw set of one, two or three splits, to be read only."""
    given = {split: split_images[split] for split in request.param}
    return write_raw_set(tmp_path_factory.mktemp("splits") / "set", **given)
