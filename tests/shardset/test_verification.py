import pickle

import numpy as np
import pytest

from shardset.content import hash_images
from shardset.shards import open_shards
from shardset.verification import ShardCheck, check_shard


@pytest.fixture
def check(set_copy):
    shards = open_shards(set_copy)
    shard = shards.shards("train")[0]
    return ShardCheck(shards.reader, shard, shard.files, len(shards.manifest.classes), with_digests=True)


def change(check, **changes):
    return ShardCheck(**{name: getattr(check, name) for name in ShardCheck.__dataclass_fields__} | changes)


def test_intact_shard_has_no_problems_and_the_digests_of_its_images(check):
    checked = check_shard(check)
    assert checked.problems == []
    assert np.array_equal(checked.digests, hash_images(check.reader.images(check.shard)))
    assert check_shard(change(check, with_digests=False)).digests.shape == (0, 32)


def test_only_the_given_files_are_read(check):
    (check.reader.dir / check.shard.images.path).unlink()
    assert check_shard(change(check, files=(check.shard.labels,))).problems == []
    (problem,) = check_shard(change(check, files=(check.shard.images,))).problems
    assert problem == f"{check.reader.dir / check.shard.images.path}: missing"


def test_both_files_can_have_problems(check):
    (check.reader.dir / check.shard.images.path).unlink()
    images, labels = check_shard(change(check, num_classes=1)).problems
    assert images.endswith("missing")
    assert labels.endswith("labels should be in [0, 1)")


def test_check_is_small_and_works_as_a_copy(check):
    content = pickle.dumps(check)
    assert len(content) < 1500
    assert np.array_equal(check_shard(pickle.loads(content)).digests, check_shard(check).digests)
