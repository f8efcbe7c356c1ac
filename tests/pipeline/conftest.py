import pytest

from shardset.shards import ShardSet
from tests.helpers.exports import write_colour_set, write_grey_set, write_image_set


@pytest.fixture(scope="session")
def colour_set(tmp_path_factory) -> ShardSet:
    return write_colour_set(tmp_path_factory.mktemp("colour") / "raw")


@pytest.fixture(scope="session")
def grey_set(tmp_path_factory) -> ShardSet:
    return write_grey_set(tmp_path_factory.mktemp("grey"))


@pytest.fixture(scope="session")
def image_set(tmp_path_factory) -> ShardSet:
    return write_image_set(tmp_path_factory.mktemp("images"))
