import csv

import numpy as np
import pytest

from pipeline.audit.exact_duplicates import find_exact_pairs
from pipeline.audit.lists import (
    LeftOut,
    find_leaked,
    find_twins,
    list_pairs,
    lists_to_keep,
    load_ignored,
    load_pairs,
    pair_rows,
)
from pipeline.audit.pairs import Pair
from pipeline.runtime.files import render_csv
from shardset.content import hash_images
from shardset.errors import CorruptDataError, InputError
from tests.helpers.audits import tabulate
from tests.helpers.memory import traced_peak
from tests.helpers.shard_sets import make_images, read_images, write_raw_set

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    images = {split: make_images(6, (3, 8, 8), seed=seed) for seed, split in enumerate(SPLITS)}
    return write_raw_set(tmp_path_factory.mktemp("pairs") / "raw", **images)


@pytest.fixture(scope="module")
def digests(raw):
    return {split: hash_images(read_images(raw, split)) for split in SPLITS}


def pair(split, index, other_split, other_index, distance=0.1, *, mirrored=False):
    return Pair(split, index, other_split, other_index, distance, mirrored)


def list_them(raw, pairs, digests, ignored=frozenset()):
    table, left_out = list_pairs(raw, tabulate(pairs, tuple(raw.manifest.splits)), digests, ignored)
    return list(table), left_out


FOUND = [
    pair("test", 4, "val", 1),
    pair("test", 4, "train", 3, 0.2, mirrored=True),
    pair("val", 1, "train", 0),
    pair("train", 5, "train", 2),
    pair("test", 2, "test", 0),
]


def test_pairs_are_listed_in_the_order_of_splits_and_indices(raw, digests):
    listed, left_out = list_them(raw, FOUND, digests)
    assert [of.pair for of in listed] == [FOUND[3], FOUND[2], FOUND[4], FOUND[1], FOUND[0]]
    assert left_out == LeftOut(pairs=0, conflicts=0)
    # Labels alternate by index.
    assert [(of.label, of.other_label) for of in listed] == [
        ("class_1", "class_0"),
        ("class_1", "class_0"),
        ("class_0", "class_0"),
        ("class_0", "class_1"),
        ("class_0", "class_1"),
    ]
    assert [of.is_conflict for of in listed] == [True, True, False, True, True]
    assert [of.is_twin for of in listed] == [True, False, True, False, False]
    assert [of.is_leak for of in listed] == [False, True, False, True, False]
    assert [of.cluster for of in listed] == [0, 1, 2, 1, 1]


def test_pair_found_twice_is_listed_once_at_its_least_distance(raw, digests):
    twice = [pair("test", 0, "train", 0, 0.3, mirrored=True), pair("test", 0, "train", 0, 0.0)]
    assert [of.pair for of in list_them(raw, twice, digests)[0]] == [twice[1]]


def test_ignored_pair_is_left_out_of_clusters_too(raw, digests):
    listed, _ = list_them(raw, FOUND, digests)
    kept, left_out = list_them(raw, FOUND, digests, {listed[4].id, "0" * 16})
    assert [of.pair for of in kept] == [of.pair for of in listed[:4]]
    assert [of.cluster for of in kept] == [0, 1, 2, 3]
    assert left_out == LeftOut(pairs=1, conflicts=1)


def test_ignored_pairs_with_equal_labels_are_no_conflicts(raw, digests):
    listed, _ = list_them(raw, FOUND, digests)
    _, left_out = list_them(raw, FOUND, digests, {listed[1].id, listed[2].id})
    assert left_out == LeftOut(pairs=2, conflicts=1)


def test_id_of_a_pair_follows_from_its_pixels_alone(raw, digests, tmp_path):
    """An image that comes first and images in other splits don't change it."""
    (listed,), _ = list_them(raw, [FOUND[1]], digests)
    train, test = read_images(raw, "train"), read_images(raw, "test")
    moved = write_raw_set(tmp_path / "raw", np.concatenate([test[[4]], train[[3]]]))
    (same,), _ = list_them(moved, [pair("train", 1, "train", 0)], {"train": hash_images(read_images(moved, "train"))})
    assert same.id == listed.id
    (other,), _ = list_them(raw, [pair("test", 4, "train", 4)], digests)
    assert other.id != listed.id


def test_written_pairs_are_read_back(raw, digests, tmp_path):
    listed, _ = list_them(raw, FOUND, digests)
    (tmp_path / "near_duplicates.csv").write_text(render_csv(pair_rows(listed)))
    assert load_pairs(tmp_path, raw) == listed
    assert load_ignored(tmp_path / "near_duplicates.csv") == {of.id for of in listed}


@pytest.mark.parametrize(
    "change", [("val,1", "val,6"), ("train,5", "train,x"), ("split,", "splat,"), ("test,2", "tset,2")]
)
def test_malformed_list_is_corrupt(change, raw, digests, tmp_path):
    listed, _ = list_them(raw, FOUND, digests)
    text = render_csv(pair_rows(listed))
    assert change[0] in text
    (tmp_path / "near_duplicates.csv").write_text(text.replace(*change))
    with pytest.raises(CorruptDataError, match=r"near_duplicates\.csv: not a list of near-duplicates of "):
        load_pairs(tmp_path, raw)


def test_quote_in_a_long_list_is_corrupt(raw, digests, tmp_path):
    """The quote makes the rest of the file one cell, which is longer than those that csv reads."""
    header, *rows = render_csv(pair_rows(list_them(raw, FOUND, digests)[0])).splitlines(keepends=True)
    (tmp_path / "near_duplicates.csv").write_text(header + '"' + "".join(rows * 1000))
    with pytest.raises(CorruptDataError, match=r"near_duplicates\.csv: not a list of near-duplicates of "):
        load_pairs(tmp_path, raw)


def test_missing_list_is_named(raw, tmp_path):
    with pytest.raises(CorruptDataError, match=r"near_duplicates\.csv: no such file"):
        load_pairs(tmp_path, raw)


def test_lists_to_keep_leave_out_leaks_and_later_twins(raw, digests):
    listed, _ = list_pairs(raw, tabulate(FOUND), digests, set())
    lists = {name: [*rows] for name, rows in lists_to_keep(raw, listed).items()}
    assert all(rows.pop(0) == ("split", "index") for rows in lists.values())
    assert lists == {
        "train_without_twins.csv": [("train", index) for index in (0, 1, 2, 3, 4)],
        "val_without_leaks.csv": [("val", index) for index in (0, 2, 3, 4, 5)],
        # 2 is a twin of 0, which is no leak.
        "test_without_leaks.csv": [("test", index) for index in (0, 1, 2, 3, 5)],
    }
    assert find_leaked(listed, "test").tolist() == [4]
    assert find_leaked(listed, "train").tolist() == []
    assert find_twins(listed, "test").tolist() == [2]


def test_name_that_looks_like_a_formula_is_escaped(raw, digests):
    listed, _ = list_them(raw, FOUND[:1], digests)
    named = [type(listed[0])(listed[0].pair, "=1+1", "cat", 0, listed[0].id)]
    (row,) = csv.DictReader(render_csv(pair_rows(named)).splitlines())
    assert (row["label"], row["other_label"]) == ("'=1+1", "cat")


def find_and_list_pairs(raw, digests):
    exact = find_exact_pairs({"train": digests})
    table, _ = list_pairs(raw, exact, {"train": digests}, set())
    assert len(table) == 10_000


def test_memory_per_pair_is_bounded(tmp_path):
    raw = write_raw_set(tmp_path / "raw", np.zeros((20_000, 1, 1, 1), np.uint8))
    digests = np.random.default_rng(0).integers(0, 256, (20_000, 32), np.uint8)
    digests[10_000:] = digests[:10_000]
    assert traced_peak(find_and_list_pairs, raw, digests) / 10_000 < 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file, although params.yaml names it as audit.ignore"),
        (b"split,index\ntest,1\n", "expected a column `pair`, as in near_duplicates.csv, got .'split', 'index'."),
        (b"", "expected a column `pair`, as in near_duplicates.csv, got None"),
        (b"pair\n\xff\n", "not a CSV file in UTF-8"),
    ],
)
def test_unusable_list_to_ignore_is_one_line(content, message, tmp_path):
    path = tmp_path / "judged.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"judged.csv: {message}") as failed:
        load_ignored(path)
    assert "\n" not in str(failed.value)
