import shutil
from pathlib import Path

import pytest

from tests.helpers.shard_sets import make_images, write_raw_set

SPLIT_SIZES = {"train": 25, "val": 12, "test": 7}


@pytest.fixture
def set_copy(synthetic_raw, tmp_path) -> Path:
    """A copy of the synthetic raw set, to be damaged by one test."""
    return shutil.copytree(synthetic_raw, tmp_path / "set")


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
