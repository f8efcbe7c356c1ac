from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit.exact_duplicates import count_exact_duplicates
from shardset.content import hash_images
from tests.helpers.shard_sets import make_images

images = make_images(10)
indices = st.lists(st.integers(0, 9), min_size=1, max_size=12)


def count(**splits):
    return count_exact_duplicates({split: hash_images(images[of_split]) for split, of_split in splits.items()})


def test_different_images_are_not_duplicates():
    assert count(train=[0, 1, 2], test=[3, 4]) == {"train": 0, "test": 0, "test_in_train": 0}


def test_repeated_images_are_counted_within_and_across_splits():
    found = count(train=[0, 1, 2, 1, 1], test=[7, 8, 1, 9, 8])
    assert found == {"train": 2, "test": 1, "test_in_train": 1}


def test_each_copy_in_another_split_is_counted():
    assert count(train=[3, 3, 3], test=[3, 3]) == {"train": 2, "test": 1, "test_in_train": 2}


def test_three_splits_are_compared_in_pairs():
    assert count(train=[0, 1], val=[1, 2], test=[1, 2, 2, 3]) == {
        "train": 0,
        "val": 0,
        "test": 1,
        "val_in_train": 1,
        "test_in_train": 1,
        "test_in_val": 3,
    }


def test_train_alone_is_compared_with_itself():
    assert count(train=[0, 0, 1]) == {"train": 1}


@given(indices, indices)
def test_counts_are_those_of_a_plain_loop(train, test):
    assert count(train=train, test=test) == {
        "train": sum(index in train[:i] for i, index in enumerate(train)),
        "test": sum(index in test[:i] for i, index in enumerate(test)),
        "test_in_train": sum(index in train for index in test),
    }
