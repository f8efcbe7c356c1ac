import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from msgspec.structs import replace

from pipeline.numerics.sums import sqrt_of_fraction
from pipeline.report.proof import (
    ValueFigures,
    check_audit,
    check_origin,
    check_statistics,
    check_unit_variance,
    compute_figures,
    value_table,
)
from pipeline.shards.writer import save_manifest
from shardset.errors import CorruptDataError
from shardset.shards import open_shards
from tests.helpers.audits import audit_with
from tests.helpers.shard_sets import read_images, write_raw_set

RGB = ("red", "green", "blue")
DTYPES = ["float32", "float16", "uint8"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A raw shard set of three splits, of random pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), np.uint8)
    raw_dir = tmp_path_factory.mktemp("proof") / "raw"
    return write_raw_set(raw_dir, pixels[:30], val=pixels[30:40], test=pixels[40:])


def details_of(raw):
    return audit_with(raw)[0]


def train_of(raw):
    return details_of(raw).splits["train"]


def figures_of(raw, shards):
    return compute_figures(details_of(raw).splits, value_table(shards))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", ["dataset", "dataset_per_image", "imagenet", "symmetric", "unit", "custom"])
def test_normalized_set_passes_every_check(scheme, dtype, raw, normalize):
    shards = normalize(scheme=scheme, dtype=dtype, samples_per_shard=7)
    check_origin(raw, shards)
    check_statistics(shards, train_of(raw))
    check_unit_variance(shards, figures_of(raw, shards)["train"])


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
    normalization = shards.manifest.normalization
    red, *others = getattr(normalization, key)
    wrong = replace(normalization, **{key: (float(np.nextafter(red, 1)), *others)})
    save_manifest(replace(shards.manifest, normalization=wrong), shards.dir)
    with pytest.raises(CorruptDataError, match=r"stats\.json was not computed from this data"):
        check_statistics(open_shards(shards.dir), train_of(raw))


def test_fixed_schemes_need_no_statistics_of_the_data(raw, normalize):
    shards = normalize(scheme="imagenet")
    train = train_of(raw)
    check_statistics(shards, replace(train, statistics=replace(train.statistics, mean=dict.fromkeys(RGB, 0.1))))
    check_unit_variance(shards, {"red": ValueFigures(0, 1, 0.5, 0.2)})


@pytest.mark.parametrize("change", [{"mean": 1e-4}, {"mean": -1e-4}, {"std": 1.0001}, {"std": 0.9999}], ids=str)
def test_train_mean_or_std_that_is_off_is_found(change, raw, normalize):
    shards = normalize()
    figures = figures_of(raw, shards)["train"]
    off = dataclasses.replace(figures["green"], **change)
    with pytest.raises(CorruptDataError, match=r"mean 0 and std 1 .* in channel green"):
        check_unit_variance(shards, figures | {"green": off})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", ["dataset", "dataset_per_image", "imagenet", "unit", "custom"])
def test_figures_are_those_of_numpy(scheme, dtype, raw, normalize):
    shards = normalize(scheme=scheme, dtype=dtype)
    table = value_table(shards)
    for split, of_split in figures_of(raw, shards).items():
        pixels = read_images(raw, split)
        for index, (channel, figures) in enumerate(of_split.items()):
            assert channel == raw.manifest.channels[index]
            values = table[index][pixels[:, index]].astype(np.float64)
            assert (figures.min, figures.max) == (values.min(), values.max())
            assert figures.mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-12)
            assert figures.std == pytest.approx(values.std(), rel=1e-12)


def test_mean_and_std_after_normalizing_are_exact(raw, normalize):
    shards = normalize()
    table = value_table(shards)
    red = [Fraction(value) for value in table[0][read_images(raw, "train")[:, 0]].ravel().tolist()]
    mean = sum(red) / len(red)
    variance = sum((value - mean) ** 2 for value in red) / len(red)
    figures = figures_of(raw, shards)["train"]["red"]
    assert (figures.mean, figures.std) == (float(mean), sqrt_of_fraction(variance))


@pytest.mark.parametrize("change", [{"content_sha256": "0" * 64}, {"splits": {}}])
def test_audit_of_other_data_is_rejected(change, raw):
    details = details_of(raw)
    check_audit(raw, details)
    with pytest.raises(CorruptDataError, match="the audit is of other data"):
        check_audit(raw, replace(details, **change))


def test_value_table_is_what_the_shards_hold(raw, normalize):
    shards = normalize(dtype="float16")
    table = value_table(shards)
    assert table.shape == (3, 256)
    assert table.dtype == np.float32
    pixels, values = read_images(raw, "test"), read_images(shards, "test")
    for channel in range(3):
        assert np.array_equal(table[channel][pixels[:, channel]], values[:, channel])
