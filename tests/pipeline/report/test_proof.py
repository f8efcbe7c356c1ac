import dataclasses
import shutil

import numpy as np
import pytest
from msgspec.structs import replace

from pipeline.audit.survey import survey_splits
from pipeline.report.proof import (
    check_labels,
    check_origin,
    check_statistics,
    check_unit_variance,
    check_values,
    value_table,
)
from pipeline.shards.writer import save_manifest, write_shards
from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset.errors import CorruptDataError
from shardset.shards import open_shards
from tests.helpers.shard_sets import make_params, read_images, write_raw_set

DTYPES = ["float32", "float16", "uint8"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A raw shard set of three splits, of random pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), np.uint8)
    raw_dir = tmp_path_factory.mktemp("proof") / "raw"
    return write_raw_set(raw_dir, pixels[:30], val=pixels[30:40], test=pixels[40:])


@pytest.fixture
def normalize(raw, tmp_path):
    """A function that normalizes the raw set and returns the shard set."""
    write_stats(raw.dir, tmp_path / "stats.json")

    def normalize_raw(**changes):
        normalize_shards(raw.dir, tmp_path / "stats.json", tmp_path / "shards", make_params(**changes))
        return open_shards(tmp_path / "shards")

    return normalize_raw


def figures_of_train(raw, shards):
    return survey_splits(raw, value_table(shards))["train"].figures


def rewrite(shards, images, labels):
    """Replace a shard set by one with other contents, and right hashes of these."""
    shutil.rmtree(shards.dir)
    shards.dir.mkdir()
    splits = write_shards(
        shards.dir,
        labels,
        lambda split, start, stop: [images[split][start:stop]],
        dtype=shards.manifest.dtype,
        image_shape=shards.manifest.image_shape,
        samples_per_shard=7,
    )
    save_manifest(replace(shards.manifest, splits=splits, files=()), shards.dir)
    return open_shards(shards.dir)


def load_all(shards):
    images = {split: read_images(shards, split).copy() for split in shards.manifest.splits}
    return images, {split: shards.labels(split) for split in images}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", ["dataset", "dataset_per_image", "imagenet", "symmetric", "unit", "custom"])
def test_normalized_set_passes_every_check(scheme, dtype, raw, normalize):
    shards = normalize(scheme=scheme, dtype=dtype, samples_per_shard=7)
    check_origin(raw, shards)
    check_values(raw, shards)
    check_statistics(shards, figures_of_train(raw, shards))
    check_unit_variance(shards, figures_of_train(raw, shards))


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
        check_values(raw, shards)


def test_negative_zero_is_not_taken_for_zero(raw, normalize):
    shards = normalize(scheme="unit")
    images, labels = load_all(shards)
    zeros = np.argwhere(images["train"] == 0)
    images["train"][tuple(zeros[0])] = -0.0
    with pytest.raises(CorruptDataError, match=f"train sample {zeros[0][0]} differs from"):
        check_values(raw, rewrite(shards, images, labels))


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
            check_labels(raw, shards)
    else:
        with pytest.raises(CorruptDataError, match="was not made from"):
            check_origin(raw, shards)


@pytest.mark.parametrize(
    "change", [{"channels": ("a", "b", "c")}, {"classes": ("a", "b")}, {"image_shape": (3, 16, 4)}]
)
def test_manifest_that_differs_from_raw_is_rejected(change, raw, normalize):
    shards = normalize()
    shards = dataclasses.replace(shards, manifest=replace(shards.manifest, **change))
    with pytest.raises(CorruptDataError, match="was not made from .* by normalize"):
        check_origin(raw, shards)


def test_shards_of_another_dataset_are_rejected(tiny_raw, normalize):
    with pytest.raises(CorruptDataError, match=r"shards: was not made from .*/raw by normalize"):
        check_origin(open_shards(tiny_raw), normalize())


def test_raw_pixels_are_not_taken_for_normalized_ones(raw):
    with pytest.raises(CorruptDataError, match="was not made from .* by normalize"):
        check_origin(raw, raw)


@pytest.mark.parametrize(
    ("scheme", "key"),
    [("dataset", "mean"), ("dataset", "std"), ("dataset_per_image", "mean"), ("dataset_per_image", "std")],
)
def test_mean_or_std_off_by_one_bit_is_found(scheme, key, raw, normalize):
    shards = normalize(scheme=scheme)
    figures = figures_of_train(raw, shards)
    normalization = shards.manifest.normalization
    red, *others = getattr(normalization, key)
    wrong = replace(normalization, **{key: (float(np.nextafter(red, 1)), *others)})
    save_manifest(replace(shards.manifest, normalization=wrong), shards.dir)
    with pytest.raises(CorruptDataError, match=r"stats\.json was not computed from this data"):
        check_statistics(open_shards(shards.dir), figures)


def test_fixed_schemes_need_no_statistics_of_the_data(raw, normalize):
    shards = normalize(scheme="imagenet")
    figures = figures_of_train(raw, shards)
    check_statistics(shards, dataclasses.replace(figures, before={}))
    check_unit_variance(shards, dataclasses.replace(figures, after={"red": figures.before["red"]}))


@pytest.mark.parametrize("change", [{"mean": 1e-4}, {"mean": -1e-4}, {"std": 1.0001}, {"std": 0.9999}], ids=str)
def test_train_mean_or_std_that_is_off_is_found(change, raw, normalize):
    shards = normalize()
    figures = figures_of_train(raw, shards)
    off = dataclasses.replace(figures.after["green"], **change)
    with pytest.raises(CorruptDataError, match=r"mean 0 and std 1 .* in channel green"):
        check_unit_variance(shards, dataclasses.replace(figures, after=figures.after | {"green": off}))


def test_value_table_is_what_the_shards_hold(raw, normalize):
    shards = normalize(dtype="float16")
    table = value_table(shards)
    assert table.shape == (3, 256)
    assert table.dtype == np.float32
    pixels, values = read_images(raw, "test"), read_images(shards, "test")
    for channel in range(3):
        assert np.array_equal(table[channel][pixels[:, channel]], values[:, channel])
