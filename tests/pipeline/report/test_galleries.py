import numpy as np
import pytest

from pipeline.audit.lists import ListedPair
from pipeline.report.galleries import (
    CLUSTER_IMAGES,
    CLUSTERS,
    FEW_PAIRS,
    MEASURES,
    MOST_PAIRS,
    PICTURE_BYTES,
    SAMPLES,
    SAMPLES_PER_CLASS,
    SIDES,
    choose_clusters,
    choose_images,
    choose_oddities,
    choose_pairs,
    choose_samples,
    fit_pairs,
    kind_of,
)
from pipeline.report.pictures import thumbnail_bytes
from tests.helpers.audits import audit_with, list_made_pairs, make_pair
from tests.helpers.shard_sets import make_images, write_raw_set


def distances(gallery):
    return [of.pair.distance for of in gallery.pairs]


@pytest.mark.parametrize(
    ("shape", "num_fixed", "num_pairs", "side", "room"),
    [
        ((3, 32, 32), 250, 5000, SIDES[0], MOST_PAIRS),  # small images are drawn as they are
        ((3, 32, 32), 250, 7, SIDES[0], 7),
        ((3, 224, 224), 50, 0, SIDES[0], 0),
        ((3, 224, 224), 150, 10, 64, 10),  # few pictures are large
        ((3, 224, 224), 151, 84, 64, 51),
        ((3, 224, 224), 270, 5000, SIDES[-1], 84),  # many are small
        ((1, 224, 224), 270, 5000, 96, 31),  # grey ones take a third
        ((3, 4096, 4096), 5000, 10, SIDES[-1], 0),
    ],
)
def test_pictures_are_as_large_as_fits(shape, num_fixed, num_pairs, side, room):
    assert fit_pairs(shape, num_fixed, num_pairs) == (side, room)
    if room:
        assert (num_fixed + 2 * room) * thumbnail_bytes(shape, side) <= PICTURE_BYTES


def test_every_set_has_room_for_some_pairs(tmp_path):
    images = {split: make_images(800, (1, 8, 8), seed=seed) for seed, split in enumerate(("train", "val", "test"))}
    raw = write_raw_set(tmp_path / "raw", num_classes=400, **images)
    near = [make_pair(("test", index), ("train", index)) for index in range(700)]
    details, pairs = audit_with(raw, near)
    galleries = choose_images(raw, details, pairs, num_others=50)
    num_fixed = 50 + sum(1 for _ in galleries.images()) - 2 * sum(len(of.pairs) for of in galleries.pairs)
    for side in (224, 4096):
        assert fit_pairs((3, side, side), num_fixed, 10_000)[1] >= FEW_PAIRS


@pytest.mark.parametrize(
    ("num_classes", "num_shown", "per_class"),
    [(1, 1, SAMPLES_PER_CLASS), (10, 10, 6), (20, 20, SAMPLES // 20), (100, SAMPLES, 1)],
)
def test_samples_are_the_first_of_each_class_in_train(num_classes, num_shown, per_class, tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(200, (1, 8, 8)), num_classes=num_classes)
    samples = choose_samples(raw)
    assert list(samples) == [f"class_{label}" for label in range(num_shown)]
    for label, of_class in enumerate(samples.values()):
        assert of_class == [("train", label + num_classes * number) for number in range(per_class)]


def test_classes_without_train_images_have_no_samples(tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(3), num_classes=5)
    assert list(choose_samples(raw)) == ["class_0", "class_1", "class_2"]


def test_pairs_are_grouped_by_kind_and_ordered_by_distance():
    conflict = list_made_pairs(0.3, labels=("a", "b"))
    leaks = list_made_pairs(0.2, 0.1, first=10)
    twins = list_made_pairs(0.05, split="train", first=20)
    others = list_made_pairs(0.01, other_split="val", first=30)
    galleries = choose_pairs([*others, *twins, *leaks, *conflict], 100)
    assert [(of.name, of.total) for of in galleries] == [("conflict", 1), ("leak", 2), ("twin", 1), ("other", 1)]
    assert [distances(of) for of in galleries] == [[0.3], [0.1, 0.2], [0.05], [0.01]]
    assert [of.title for of in galleries[1:]] == [
        kind_of("test", "train")[1],
        kind_of("train", "train")[1],
        kind_of("test", "val")[1],
    ]


def test_half_of_the_pairs_are_the_closest_and_half_the_farthest():
    (gallery,) = choose_pairs(list_made_pairs(*(number / 100 for number in range(30))), 10)
    assert distances(gallery) == [0, 0.01, 0.02, 0.03, 0.04, 0.25, 0.26, 0.27, 0.28, 0.29]
    assert gallery.total == 30


def test_each_cluster_is_shown_before_one_is_shown_twice():
    large = list_made_pairs(0.01, 0.02, 0.03, 0.27, 0.28, 0.29, cluster=99)
    small = list_made_pairs(0.1, 0.11, 0.12, 0.13, first=10)
    (gallery,) = choose_pairs([*large, *small], 4)
    assert distances(gallery) == [0.01, 0.1, 0.13, 0.29]
    (gallery,) = choose_pairs([*large, *small[:1]], 4)  # the small cluster has no other pair to be among the farthest
    assert distances(gallery) == [0.01, 0.1, 0.28, 0.29]


def test_pairs_of_several_clusters_are_ordered_by_distance():
    large = list_made_pairs(0.01, 0.02, 0.04, 0.05, 0.31, 0.32, cluster=99)
    small = list_made_pairs(0.03, 0.3, first=10)
    (gallery,) = choose_pairs([*large, *small], 7)
    assert distances(gallery) == [0.01, 0.02, 0.03, 0.05, 0.3, 0.31, 0.32]


@pytest.mark.parametrize(("num_leaks", "num_twins", "shown"), [(2, 50, [2, 18]), (50, 2, [18, 2]), (50, 50, [10, 10])])
def test_room_that_a_kind_leaves_goes_to_the_others(num_leaks, num_twins, shown):
    leaks = list_made_pairs(*[0.1] * num_leaks)
    twins = list_made_pairs(*[0.2] * num_twins, split="train", first=100)
    assert [len(of.pairs) for of in choose_pairs([*leaks, *twins], 20)] == shown


def test_clusters_are_the_largest_with_their_labels():
    chain = list_made_pairs(*[0.1] * 12, labels=("a", "b"), cluster=7)  # 12 test images of a, 12 train images of b
    triple = [
        ListedPair(make_pair(("train", index), ("train", 50)), "c", "c", 3, f"{index:016x}") for index in (51, 52)
    ]
    large, small = choose_clusters([*list_made_pairs(0.1, first=90), *triple, *chain])
    assert (large.size, large.labels, len(large.images)) == (24, {"a": 12, "b": 12}, CLUSTER_IMAGES)
    assert (small.size, small.labels) == (3, {"c": 3})
    assert set(small.images) == {("train", 50), ("train", 51), ("train", 52)}


def test_clusters_are_as_many_as_have_room():
    many = [of for number in range(20) for of in list_made_pairs(0.1, 0.2, cluster=number, first=10 * number)]
    assert len(choose_clusters(many)) == CLUSTERS


def test_oddities_of_all_splits_are_shown_by_kind(tmp_path):
    images = {"train": make_images(20), "test": make_images(20, seed=1)}
    images["train"][[3, 5]] = images["train"][[3, 5], :1]
    details, _ = audit_with(write_raw_set(tmp_path / "raw", **images))
    galleries = {of.name: of for of in choose_oddities(details)}
    assert galleries["grey"].counts == {"train": 2}
    assert {image for image, _ in galleries["grey"].images} == {("train", 3), ("train", 5)}
    darkest = galleries["darkest"]
    assert darkest.counts == {}
    assert [split for (split, _), _ in darkest.images] == ["train"] * 5 + ["test"] * 5
    values = [value for _, value in darkest.images]
    assert values == pytest.approx(
        [
            *np.sort(images["train"].mean(axis=(1, 2, 3)))[:5] / 255,
            *np.sort(images["test"].mean(axis=(1, 2, 3)))[:5] / 255,
        ],
        abs=1e-4,
    )


def test_measure_of_every_oddity_can_be_written(tmp_path):
    images = make_images(20)
    images[3] = images[3, :1]
    images[5] = 0
    details, _ = audit_with(write_raw_set(tmp_path / "raw", images))
    galleries = choose_oddities(details)
    assert {of.name for of in galleries} == set(MEASURES)
    written = {of.name: MEASURES[of.name].format(of.images[0][1]) for of in galleries}
    assert written["clipped"] == "clipped 100%"
    assert written["plain borders"] == "plain 100%"
    assert written["low entropy"] == "entropy 0.0 bits"
    assert written["darkest"] == "brightness 0.000"


def test_oddities_that_meet_a_rule_come_before_rankings(tmp_path):
    images = {"train": make_images(20), "test": make_images(20, seed=1)}
    images["test"][3] = images["test"][3, :1]
    details, _ = audit_with(write_raw_set(tmp_path / "raw", **images))
    first, *others = choose_oddities(details)
    assert (first.name, first.counts) == ("grey", {"test": 1})
    assert not any(of.counts for of in others)
