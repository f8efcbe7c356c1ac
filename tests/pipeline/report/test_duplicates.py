import pytest

from pipeline.audit.figures import DISTANCES
from pipeline.audit.lists import LeftOut
from pipeline.report.duplicates import CLOSE, find_conflicts, find_exact_duplicates, find_leaks, find_twins
from pipeline.report.finding import EXAMPLES, NAMED
from tests.helpers.audits import audit_with, make_pair
from tests.helpers.shard_sets import make_images, write_raw_set

SAMPLES = {"train": 40, "val": 8, "test": 20}


def make_raw(path, images):
    return write_raw_set(path / "raw", **images)


@pytest.fixture(scope="module")
def images():
    return {split: make_images(count, seed=count) for split, count in SAMPLES.items()}


@pytest.fixture(scope="module")
def clean(images, tmp_path_factory):
    """A raw set of three splits without duplicates, whose classes alternate."""
    return make_raw(tmp_path_factory.mktemp("clean"), images)


@pytest.fixture(scope="module")
def raw(images, tmp_path_factory):
    """The same, but train image 4 equals train 2, and test 1 equals train 7."""
    images = {split: pixels.copy() for split, pixels in images.items()}
    images["train"][4], images["test"][1] = images["train"][2], images["train"][7]
    return make_raw(tmp_path_factory.mktemp("duplicates"), images)


def leaks_of(raw, near=(), dataset="made"):
    return {finding.text: finding for finding in find_leaks(*audit_with(raw, near), dataset)}


def twins_of(raw, near=()):
    return {finding.text: finding for finding in find_twins(*audit_with(raw, near))}


def test_close_pairs_are_counted_by_the_audit():
    assert CLOSE in DISTANCES


def test_leaks_are_counted_and_shown(raw):
    near = [make_pair(("test", index), ("train", index), 0.3 - index / 100) for index in (3, 5, 9, 11)]
    leaks = leaks_of(raw, near)
    # One is an exact duplicate, one at 0.19.
    leak = leaks["5 of 20 test images (25%) have a near-duplicate in train, 2 of them a close one."]
    assert (leak.mark, leak.section) == ("look", "pairs")
    assert "report the accuracy on data/audit/test_without_leaks.csv." in leak.advice
    assert leak.examples == tuple((("test", index), ("train", other)) for index, other in ((1, 7), (11, 11), (9, 9)))
    assert leaks["No val image has a near-duplicate in train."].mark == "good"


@pytest.mark.parametrize(
    ("distances", "mark", "text"),
    [
        ([0.2], "look", "1 of 20 test images (5.0%) has a close near-duplicate in train."),
        ([0.1, 0.2], "look", "2 of 20 test images (10%) have a close near-duplicate in train."),
        ([0.2, 0.21], "look", "2 of 20 test images (10%) have a near-duplicate in train, 1 of them a close one."),
        ([0.21], "note", "1 of 20 test images (5.0%) may have a near-duplicate in train, but not a close one."),
        ([0.3, 0.21], "note", "2 of 20 test images (10%) may have a near-duplicate in train, but not a close one."),
    ],
)
def test_leaks_claim_no_more_than_their_distance_supports(distances, mark, text, clean):
    near = [make_pair(("test", index), ("train", index), distance) for index, distance in enumerate(distances)]
    finding = leaks_of(clean, near)[text]
    assert finding.mark == mark
    assert ("Look at the pairs before using data/audit/test_without_leaks.csv." in finding.advice) == (mark == "note")
    assert ("memorised" in finding.advice) == (mark == "look")


def test_close_pairs_with_other_splits_are_not_counted_as_leaks(clean):
    near = [
        make_pair(("test", 3), ("train", 3), 0.3),
        make_pair(("test", 3), ("val", 3), 0.1),
        make_pair(("test", 3), ("test", 1), 0.1),
        make_pair(("val", 3), ("train", 3), 0.1),
    ]
    assert "1 of 20 test images (5.0%) may have a near-duplicate in train, but not a close one." in leaks_of(
        clean, near
    )


@pytest.mark.parametrize(("dataset", "num_named"), [("cifar10", 1), ("cifar100", 0)])
def test_published_list_is_named_for_its_test_split(dataset, num_named, raw):
    near = [make_pair(("val", 1), ("train", 1))]
    leaks = leaks_of(raw, near, dataset)
    assert sum("A published list, of closer pairs, has 286." in leak.advice for leak in leaks.values()) == num_named
    assert sum("data/audit/test_without_leaks.csv" in leak.advice for leak in leaks.values()) == 1


def test_examples_are_of_different_clusters(raw):
    near = [make_pair(("test", index), ("train", 10), index / 1000) for index in range(3, 12)]
    leak = leaks_of(raw, near)["10 of 20 test images (50%) have a close near-duplicate in train."]
    assert leak.examples == ((("test", 1), ("train", 7)), (("test", 3), ("train", 10)))


def test_twins_are_counted_by_split(raw):
    near = [make_pair(("train", 11), ("train", 10), 0.25), make_pair(("test", 8), ("test", 6))]
    twins = twins_of(raw, near)
    train = twins["2 of 40 train images (5.0%) have an earlier near-duplicate in train, 1 of them a close one."]
    test = twins["1 of 20 test images (5.0%) has a close earlier near-duplicate in test."]
    assert (train.mark, test.mark) == ("look", "note")
    assert test.advice == "Each counts in the accuracy, although they are not independent."
    assert "data/audit/train_without_twins.csv leaves them out." in train.advice
    assert len(twins) == 2


def test_twins_that_are_not_close_are_noted(clean):
    near = [make_pair((split, 7), (split, 6), 0.25) for split in ("train", "val")]
    train, val = twins_of(clean, near).values()
    assert train.text == "1 of 40 train images (2.5%) may have an earlier near-duplicate in train, but not a close one."
    assert val.advice == "If they do, each counts in the accuracy, although they are not independent."
    assert train.mark == val.mark == "note"
    assert train.advice == "Look at the pairs before using data/audit/train_without_twins.csv."


def test_label_conflicts_are_named(raw):
    near = [make_pair(("test", index), ("train", index + 21), 0.1) for index in range(NAMED + 2)]
    (finding,) = find_conflicts(*audit_with(raw, near))
    assert finding.text == "5 pairs of near-duplicates have different labels."
    assert (finding.mark, finding.section) == ("look", "conflict")
    assert "class_0 (test 0) and class_1 (train 21), class_1 (test 1) and class_0 (train 22)" in finding.advice
    assert finding.advice.endswith(", and others.")
    assert len(finding.examples) == EXAMPLES
    (one,) = find_conflicts(*audit_with(raw, near[:1]))
    assert one.text == "1 pair of near-duplicates has different labels."
    assert one.advice.endswith("(train 21).")


@pytest.mark.parametrize(("distances", "mark"), [([0.3, 0.21], "note"), ([0.3, 0.2], "look")])
def test_label_conflicts_need_a_look_if_one_is_close(distances, mark, clean):
    near = [make_pair(("test", index), ("train", index + 21), distance) for index, distance in enumerate(distances)]
    (finding,) = find_conflicts(*audit_with(clean, near))
    assert finding.mark == mark


@pytest.mark.parametrize(
    ("left_out", "advice"),
    [
        (LeftOut(0, 0), ""),
        (LeftOut(1, 0), "1 pair that people judged not to be duplicates is left out."),
        (
            LeftOut(1, 1),
            "1 pair that people judged not to be duplicates, 1 of them with different labels, is left out.",
        ),
        (
            LeftOut(30, 4),
            "30 pairs that people judged not to be duplicates, 4 of them with different labels, are left out.",
        ),
    ],
)
def test_equal_labels_are_good_news(left_out, advice, raw):
    (finding,) = find_conflicts(*audit_with(raw, left_out=left_out))
    assert (finding.text, finding.mark) == ("All near-duplicates have equal labels.", "good")
    assert finding.advice == advice


def test_exact_duplicates_are_counted(raw):
    details, _ = audit_with(raw)
    finding = find_exact_duplicates(details)
    assert finding.text == "Some images occur more than once, bit for bit."
    assert finding.mark == "look"
    assert finding.advice == "1 train image equals an earlier image; 1 test image equals a train image."
