import numpy as np
import pytest

from pipeline.report.balance import balance_sentence, class_range, is_balanced
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
    ("train", "test", "balanced", "sentence"),
    [
        ([4, 4], [2, 2], True, "Each class has 4 train images and 2 test images."),
        ([10, 11], [1, 1], True, "Each class has 10 (a) to 11 (b) train images and 1 test image."),
        ([10, 12], [0, 1], False, "Each class has 10 (a) to 12 (b) train images and 0 (a) to 1 (b) test images."),
        ([1, 0, 9], [1, 1, 1], False, "Each class has 0 (b) to 9 (c) train images and 1 test image."),
    ],
)
def test_classes_are_balanced_when_train_has_about_equally_many(train, test, balanced, sentence, details_of):
    details = details_of(train=train, test=test)
    assert is_balanced(details) == balanced
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


def test_equal_classes_are_named_by_the_first(details_of):
    assert class_range(details_of(train=[3, 5, 3, 5]), "train") == ((3, "a"), (5, "b"))
