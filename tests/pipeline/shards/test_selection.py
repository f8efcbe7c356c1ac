import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.tasks import map_tasks
from pipeline.shards.selection import check_fractions, check_selection, select_samples, selects_all, write_selection
from pipeline.sources.source import ArraySamples
from shardset.content import hash_content, hash_images
from shardset.errors import InputError
from tests.helpers.shard_sets import decode_arrays, make_images, read_images
from tests.helpers.task_sizes import recording_sizes
from tests.helpers.workspace import hash_files

FRACTIONS = st.sampled_from([None, 0.1, 0.25, 0.5])
PIXELS = st.lists(st.integers(0, 40), min_size=40, max_size=120)  # an image each, of which many are equal


def digests_of(values):
    digests = b"".join(hashlib.sha256(bytes([value])).digest() for value in values)
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


def split_of_each(values, test=None, val=None):
    """The split that each image of train goes to."""
    fractions = {"test": test, "val": val}
    selection = select_samples({"train": digests_of(values)}, {"train": []}, fractions)
    found: dict[int, str] = {}
    for split, (origin, indices) in selection.items():
        assert origin == "train"
        assert indices.tolist() == sorted(indices.tolist())
        found |= dict.fromkeys(indices.tolist(), split)
    assert sorted(found) == list(range(len(values)))
    return [found[index] for index in range(len(values))]


@given(PIXELS, FRACTIONS, FRACTIONS)
def test_equal_images_never_straddle_splits(values, test, val):
    splits = split_of_each(values, test, val)
    for value in set(values):
        assert len({split for split, other in zip(splits, values, strict=True) if other == value}) == 1


@given(PIXELS, st.lists(st.integers(41, 200), min_size=100, max_size=100), st.randoms())
def test_added_images_move_no_other_between_splits(values, added, random):
    before = dict(zip(values, split_of_each(values, 0.2, 0.2), strict=True))
    mixed = [*values, *added]
    random.shuffle(mixed)
    after = dict(zip(mixed, split_of_each(mixed, 0.2, 0.2), strict=True))
    assert before.items() <= after.items()


@given(PIXELS)
def test_larger_test_fraction_keeps_the_test_images(values):
    many = [*values, *range(41, 200)]
    smaller, larger = split_of_each(many, 0.1), split_of_each(many, 0.3)
    assert all(b == "test" for a, b in zip(smaller, larger, strict=True) if a == "test")


def test_counts_are_close_to_the_fractions():
    rng = np.random.default_rng(0)
    digests = {"train": rng.integers(0, 256, (10_000, 32), np.uint8)}

    selection = select_samples(digests, {"train": []}, {"test": 0.2, "val": 0.1})
    counts = {split: len(indices) for split, (_, indices) in selection.items()}
    assert abs(counts["test"] - 2000) < 120  # three standard deviations
    assert abs(counts["val"] - 1000) < 90
    assert sum(counts.values()) == 10_000


@pytest.mark.parametrize(
    ("first_bytes", "split"),
    [("3fffffff", "test"), ("40000000", "val"), ("bfffffff", "val"), ("c0000000", "train"), ("ffffffff", "train")],
)
def test_bounds_of_fractions_are_exact(first_bytes, split):
    filler = "ff" if first_bytes.endswith("ff") else "00"
    digest = np.frombuffer(bytes.fromhex(first_bytes + filler * 28), np.uint8)
    selection = select_samples({"train": digest[None]}, {"train": []}, {"test": 0.25, "val": 0.5})
    assert [name for name, (_, indices) in selection.items() if 0 in indices] == [split]


def test_fraction_of_a_split_that_exists_is_refused():
    check_fractions({"train", "test"}, {"test": None, "val": 0.1})
    with pytest.raises(InputError, match=r"images.test_fraction: should be null, because the source has a split test"):
        check_fractions({"train", "test"}, {"test": 0.1, "val": 0.1})


def stage(path, num_train=60, num_test=10):
    pixels = make_images(num_train + num_test, (3, 8, 8))
    images = {"train": pixels[:num_train], "test": pixels[num_train:]}
    labels = {split: np.arange(len(of_split)) % 3 for split, of_split in images.items()}
    decoded = decode_arrays(path, "made", ArraySamples(("a", "b", "c"), ("r", "g", "b"), images, labels))
    return decoded.shards, decoded.digests(), images, labels


def test_moved_samples_keep_pixels_labels_and_order(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 7)
    raw, digests, images, labels = stage(tmp_path)
    selection = select_samples(digests, {"train": [3, 4], "test": [0]}, {"val": 0.3})
    assert not selects_all(raw, selection)
    moved = write_selection(raw, digests, selection, map_tasks)
    assert tuple(moved.manifest.splits) == ("train", "val", "test")
    for split, (origin, indices) in selection.items():
        assert np.array_equal(read_images(moved, split), images[origin][indices])
        assert np.array_equal(moved.labels(split), labels[origin][indices])
    assert sorted([*selection["train"][1], *selection["val"][1]]) == [i for i in range(60) if i not in (3, 4)]
    assert selection["test"][1].tolist() == list(range(1, 10))
    content = hash_content((hash_images(read_images(moved, s)), moved.labels(s)) for s in moved.manifest.splits)
    assert moved.manifest.content_sha256 == content
    listed = {file.path for file in moved.manifest.shard_files()}
    assert hash_files(moved.dir).keys() == listed
    before = {path: path.stat().st_mtime_ns for path in moved.dir.rglob("*.npy")}
    assert write_selection(raw, digests, selection, map_tasks).manifest == moved.manifest
    assert {path: path.stat().st_mtime_ns for path in moved.dir.rglob("*.npy")} == before  # nothing was written again
    other = select_samples(digests, {"train": [3, 4], "test": [0]}, {"val": 0.1})
    again = write_selection(raw, digests, other, map_tasks)
    assert not moved.dir.exists()
    assert hash_files(again.dir).keys() == {file.path for file in again.manifest.shard_files()}


def test_selection_of_everything_is_known(tmp_path):
    raw, digests, _, _ = stage(tmp_path)
    assert selects_all(raw, select_samples(digests, {"train": [], "test": []}, {"test": None, "val": None}))
    assert not selects_all(raw, select_samples(digests, {"train": [7], "test": []}, {"test": None, "val": None}))


def test_source_of_a_shard_is_small(tmp_path, monkeypatch):
    """Of a small split each shard has samples of many others."""
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 20)
    raw, digests, _, _ = stage(tmp_path, num_train=4000)
    selection = select_samples(digests, {"train": [], "test": []}, {"val": 0.1})
    sizes: list[int] = []
    write_selection(raw, digests, selection, recording_sizes(sizes))
    assert len(sizes) > 100
    assert max(sizes) < 10_000


@pytest.mark.parametrize(
    ("excluded", "reason"),
    [
        ({"train": [], "test": range(10)}, "test: no images are left for it"),
        ({"train": range(2, 60, 3), "test": []}, "test: train lacks these classes: c"),
    ],
)
def test_split_without_samples_or_classes_is_refused(excluded, reason, tmp_path):
    raw, digests, _, _ = stage(tmp_path)
    with pytest.raises(InputError, match=reason):
        check_selection(raw, select_samples(digests, excluded, {}))
