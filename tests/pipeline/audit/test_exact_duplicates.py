from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit.exact_duplicates import find_exact_pairs
from shardset.content import hash_images
from tests.helpers.audits import name_pairs
from tests.helpers.shard_sets import make_images

images = make_images(10)
indices = st.lists(st.integers(0, 9), min_size=1, max_size=12)


def find(**splits):
    found = find_exact_pairs({split: hash_images(images[of_split]) for split, of_split in splits.items()})
    pairs = name_pairs(found, tuple(splits))
    assert all((pair.distance, pair.mirrored) == (0, False) for pair in pairs)
    return [(pair.split, pair.index, pair.other_split, pair.other_index) for pair in pairs]


def test_different_images_are_not_duplicates():
    assert find(train=[0, 1, 2], test=[3, 4]) == []


def test_each_copy_is_paired_with_the_first_image():
    assert find(train=[0, 1, 2, 1, 1]) == [("train", 3, "train", 1), ("train", 4, "train", 1)]


def test_copies_in_another_split_are_paired_with_the_first_of_each():
    assert find(train=[3, 3], test=[5, 3, 3]) == [
        ("train", 1, "train", 0),
        ("test", 1, "train", 0),
        ("test", 2, "train", 0),
        ("test", 2, "test", 1),
    ]


def test_three_splits_are_compared_in_pairs():
    found = find(train=[0, 1], val=[1, 2], test=[1, 2, 2, 3])
    assert Counter((split, other) for split, _, other, _ in found) == {
        ("val", "train"): 1,
        ("test", "train"): 1,
        ("test", "val"): 3,
        ("test", "test"): 1,
    }


def test_digests_that_begin_or_end_alike_are_no_duplicates():
    digests = np.zeros((6, 32), np.uint8)
    digests[1, 31], digests[2, 8], digests[3, 0], digests[5, 8] = 1, 1, 1, 1
    found = name_pairs(find_exact_pairs({"train": digests[:3], "test": digests[3:]}), ("train", "test"))
    assert [(pair.split, pair.index, pair.other_split, pair.other_index) for pair in found] == [
        ("test", 1, "train", 0),
        ("test", 2, "train", 2),
    ]


@given(indices, indices)
def test_counts_are_those_of_a_plain_loop(train, test):
    counts = Counter((split, other) for split, _, other, _ in find(train=train, test=test))
    assert counts == Counter(
        {
            ("train", "train"): sum(index in train[:i] for i, index in enumerate(train)),
            ("test", "test"): sum(index in test[:i] for i, index in enumerate(test)),
            ("test", "train"): sum(index in train for index in test),
        }
    )
