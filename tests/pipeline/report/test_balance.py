import numpy as np
import pytest

from pipeline.report.balance import balance_sentence, class_range, shifted_classes, unbalanced_splits
from pipeline.sources.source import ArraySamples
from shardset.shards import open_shards
from tests.helpers.audits import audit_with
from tests.helpers.shard_sets import make_images, write_array_set


@pytest.fixture
def details_of(tmp_path):
    """A function from the samples of each class by split to details."""

    def audit(**counts):
        labels = {split: np.repeat(np.arange(len(of)), of) for split, of in counts.items()}
        images = {split: make_images(len(of), (1, 8, 8), seed=len(of)) for split, of in labels.items()}
        classes = tuple("abcdefgh"[: len(counts["train"])])
        write_array_set(tmp_path / "raw", "made", ArraySamples(classes, ("grey",), images, labels))
        return audit_with(open_shards(tmp_path / "raw"))[0]

    return audit


@pytest.mark.parametrize(
    ("train", "test", "unbalanced", "sentence"),
    [
        ([4, 4], [2, 2], [], "Each class has 4 train images and 2 test images."),
        ([10, 11], [1, 1], [], "Each class has 10 (a) to 11 (b) train images and 1 test image."),
        (
            [10, 12],
            [0, 1],
            ["train", "test"],
            "Each class has 10 (a) to 12 (b) train images and 0 (a) to 1 (b) test images.",
        ),
        ([1, 0, 9], [1, 1, 1], ["train"], "Each class has 0 (b) to 9 (c) train images and 1 test image."),
        ([5, 5], [4, 8], ["test"], "Each class has 5 train images and 4 (a) to 8 (b) test images."),
    ],
)
def test_split_is_balanced_when_classes_have_about_equally_many(train, test, unbalanced, sentence, details_of):
    details = details_of(train=train, test=test)
    assert unbalanced_splits(details) == unbalanced
    assert balance_sentence(details) == sentence


@pytest.mark.parametrize(
    ("splits", "sentence"),
    [
        (["train"], "Each class has 1 train image."),
        (["train", "val", "test"], "Each class has 1 train image, 1 val image and 1 test image."),
    ],
)
def test_every_split_is_in_the_sentence(splits, sentence, details_of):
    assert balance_sentence(details_of(**{split: [1, 1] for split in splits})) == sentence


@pytest.mark.parametrize(
    ("train", "test", "shifted"),
    [
        ([5, 5], [11, 9], {}),
        ([5, 5], [13, 7], {"test": "a"}),
        ([2, 8], [4, 16], {}),  # unbalanced, but equally
        ([4, 4, 12], [2, 9, 9], {"test": "b"}),
    ],
)
def test_splits_with_other_class_shares_are_found(train, test, shifted, details_of):
    assert shifted_classes(details_of(train=train, test=test)) == shifted


def test_equal_classes_are_named_by_the_first(details_of):
    assert class_range(details_of(train=[3, 5, 3, 5]), "train") == ((3, "a"), (5, "b"))
