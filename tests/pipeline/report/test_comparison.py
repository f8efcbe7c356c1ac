import pickle
import shutil
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec.structs import replace

from pipeline.report.comparison import (
    _cut_alike,
    compare_shards,
    normalize_by_table,
    plan_comparisons,
    verify_other_files,
)
from pipeline.report.proof import check_origin
from pipeline.runtime.tasks import map_tasks
from pipeline.shards.writer import save_manifest
from shardset.errors import CorruptDataError, DamagedFileError
from shardset.shards import open_shards
from tests.helpers.array_shards import write_arrays
from tests.helpers.shard_sets import read_images, write_raw_set

DTYPES = ["float32", "float16", "uint8"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A raw shard set of three splits, of random pixels, in shards of 12 samples."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), np.uint8)
    path = tmp_path_factory.mktemp("comparison")
    uncut = write_raw_set(path / "uncut", pixels[:30], val=pixels[30:40], test=pixels[40:])
    splits = write_arrays(path / "raw", *load_all(uncut), samples_per_shard=12)
    save_manifest(replace(uncut.manifest, splits=splits), path / "raw")
    return open_shards(path / "raw")


def load_all(shards):
    images = {split: read_images(shards, split).copy() for split in shards.manifest.splits}
    return images, {split: shards.labels(split) for split in images}


def rewrite(shards, images, labels):
    """Replace a shard set by one with other contents, and right hashes of these."""
    shutil.rmtree(shards.dir)
    splits = write_arrays(shards.dir, images, labels, samples_per_shard=7, dtype=shards.manifest.dtype)
    save_manifest(replace(shards.manifest, splits=splits, files=()), shards.dir)
    return open_shards(shards.dir)


def compare(raw, shards, **options):
    compare_shards(raw, shards, plan_comparisons(raw, shards), map_tasks, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 5, 12, 13, 24, 1000])
def test_normalized_set_passes_whatever_the_shard_size(size, dtype, raw, normalize):
    shards = normalize(dtype=dtype, samples_per_shard=size)
    counts: list[int] = []
    compare(raw, shards, done=counts.append)
    assert sorted(counts) == sorted(shard.samples for of in shards.manifest.splits.values() for shard in of.shards)


@pytest.mark.parametrize("size", [5, 12, 24])
@pytest.mark.parametrize("set_name", ["raw", "shards"])
def test_any_changed_file_is_found_by_one_of_two_checks(set_name, size, raw, normalize, tmp_path):
    shards = normalize(scheme="unit", dtype="uint8", samples_per_shard=size)
    raw = open_shards(shutil.copytree(raw.dir, tmp_path / "raw"))
    comparisons = plan_comparisons(raw, shards)
    for file in {"raw": raw, "shards": shards}[set_name].manifest.shard_files():
        path = tmp_path / set_name / file.path
        content = path.read_bytes()
        path.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
        with pytest.raises(DamagedFileError, match=f"{path.name}: expected SHA-256"):
            check_all(raw, shards, comparisons)
        path.write_bytes(content)
    check_all(raw, shards, comparisons)


def check_all(raw, shards, comparisons):
    verify_other_files(raw, shards, comparisons, map_tasks)
    compare_shards(raw, shards, comparisons, map_tasks)


def test_raw_shards_are_verified_once_where_sizes_agree(raw, normalize):
    shards = normalize(samples_per_shard=12)
    verified: list = []

    def map_files(function, checks, done):
        verified.extend(file for check in checks for file in check.files)
        return map_tasks(function, checks, done)

    verify_other_files(raw, shards, plan_comparisons(raw, shards), map_files)
    assert {file.path.split("/")[1].split("-")[0] for file in verified} == {"labels"}


def test_tasks_are_small(raw, normalize):
    (comparison, *_) = plan_comparisons(raw, normalize(samples_per_shard=12))
    assert len(pickle.dumps(comparison)) < 2000


@given(st.lists(st.integers(1, 5), max_size=9), st.data())
def test_blocks_are_cut_where_either_iterator_cuts(sizes, data):
    total = sum(sizes)
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, total - 1)))), total] if total > 1 else [0, total]
    rows = np.arange(total)
    one = np.split(rows, np.cumsum(sizes)[:-1]) if sizes else []
    other = [rows[start:stop] for start, stop in pairwise(cuts) if start < stop]
    pairs = [*_cut_alike(iter(one), iter(other))]
    for side in (0, 1):
        assert np.array_equal(np.concatenate([pair[side] for pair in pairs] or [rows]), rows)
    assert {int(pair[0][0]) for pair in pairs} == ({0, *np.cumsum(sizes).tolist(), *cuts} - {total} if total else set())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("split", "sample"), [("train", 0), ("train", 29), ("val", 4), ("test", 7)])
def test_wrong_value_with_a_right_hash_is_found(split, sample, dtype, raw, normalize):
    shards = normalize(scheme="unit", dtype=dtype)
    images, labels = load_all(shards)
    bits = images[split].view(f"u{images[split].itemsize}")
    bits[sample, 1, 2, 3] ^= 1  # the smallest change there is
    shards = rewrite(shards, images, labels)
    shards.verify()
    check_origin(raw, shards)
    with pytest.raises(CorruptDataError, match=f"{split} sample {sample} differs from the normalized sample in .*/raw"):
        compare(raw, shards)


def test_negative_zero_is_not_taken_for_zero(raw, normalize):
    shards = normalize(scheme="unit")
    images, labels = load_all(shards)
    zeros = np.argwhere(images["train"] == 0)
    images["train"][tuple(zeros[0])] = -0.0
    with pytest.raises(CorruptDataError, match=f"train sample {zeros[0][0]} differs from"):
        compare(raw, rewrite(shards, images, labels))


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("fault", ["swapped labels", "missing sample"])
def test_wrong_labels_with_a_right_hash_are_found(fault, split, raw, normalize):
    shards = normalize(scheme="unit")
    images, labels = load_all(shards)
    if fault == "swapped labels":
        labels[split][[0, 1]] = labels[split][[1, 0]]
    else:
        images[split], labels[split] = images[split][:-1], labels[split][:-1]
    shards = rewrite(shards, images, labels)
    if fault == "swapped labels":
        check_origin(raw, shards)
        with pytest.raises(CorruptDataError, match=f"the {split} labels are not those of .*/raw"):
            compare(raw, shards)
    else:
        with pytest.raises(CorruptDataError, match="was not made from"):
            check_origin(raw, shards)


@given(hnp.arrays(np.uint8, (2, 3, 4, 5)))
def test_table_gives_each_channel_its_own_values(pixels):
    table = np.arange(3 * 256).reshape(3, 256)
    expected = pixels.astype(np.int64) + np.array([0, 256, 512]).reshape(3, 1, 1)
    assert np.array_equal(normalize_by_table(pixels, table), expected)
