import json
import shutil
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec import to_builtins

from pipeline.stages.stats import (
    ChannelSums,
    compute_statistics,
    load_stats,
    read_statistics,
    sqrt_of_fraction,
    sum_channels,
    sum_roots_exact,
    sum_roots_fast,
    write_stats,
)
from shardset.errors import CorruptDataError, InputError
from shardset.shards import ShardSet, open_shards, write_shards
from tests.helpers.shard_sets import make_manifest

images = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 7), st.integers(1, 7)))


def exact_sqrt(fraction):
    """Sixty digits of a square root: far more than a float64 has."""
    with localcontext(prec=60):
        return (Decimal(fraction.numerator) / Decimal(fraction.denominator)).sqrt()


def exact_figures(channel):
    """Mean, std and per-image std of (N, H, W) uint8 by the textbook, each rounded to float64 once."""

    def variance(pixels):
        mean = sum(pixels) / Fraction(len(pixels))
        return sum((pixel - mean) ** 2 for pixel in pixels) / len(pixels)

    pixels = [Fraction(pixel, 255) for pixel in channel.ravel().tolist()]
    image_stds = [exact_sqrt(variance([Fraction(pixel, 255) for pixel in image.ravel().tolist()])) for image in channel]
    with localcontext(prec=60):
        std_per_image = sum(image_stds) / len(image_stds)
    return float(sum(pixels) / len(pixels)), float(exact_sqrt(variance(pixels))), float(std_per_image)


@given(images, st.integers(1, 9), st.sampled_from([sum_roots_fast, sum_roots_exact]))
def test_figures_are_the_exact_values_rounded_once_whatever_the_blocks(array, size, sum_roots):
    sums = sum_channels((array[start : start + size] for start in range(0, len(array), size)), sum_roots)
    for index, channel in enumerate(sums):
        assume(channel.is_certain)
        assert (channel.mean, channel.std, channel.std_per_image) == exact_figures(array[:, index])
        assert (channel.min, channel.max) == (array[:, index].min(), array[:, index].max())


@given(st.permutations(range(6)))
def test_sums_merge_in_any_order(order):
    parts = np.random.default_rng(0).integers(0, 256, (6, 4, 2, 5, 5), np.uint8)
    whole = sum_channels([parts.reshape(24, 2, 5, 5)])
    merged = [
        reduce(ChannelSums.__add__, sums) for sums in zip(*(sum_channels([parts[i]]) for i in order), strict=True)
    ]
    assert merged == whole


@given(st.fractions(min_value=0), st.integers(-300, 300))
def test_a_square_root_is_correctly_rounded(fraction, exponent):
    scaled = fraction * Fraction(2) ** exponent
    assert sqrt_of_fraction(scaled) == float(exact_sqrt(scaled))


@given(st.integers(2**52, 2**53 - 1))
def test_a_square_root_next_to_a_tie_is_rounded_to_the_right_side(mantissa):
    tie = Fraction(2 * mantissa + 1, 2)
    above, below = tie**2 + Fraction(1, 2**80), tie**2 - Fraction(1, 2**80)
    assert sqrt_of_fraction(above) == mantissa + 1
    assert sqrt_of_fraction(below) == mantissa


@pytest.mark.parametrize(("num_pixels", "num_ones"), [(10_252, 3), (18_047, 16), (20_504, 6)])
def test_a_mean_of_roots_next_to_a_tie_is_rounded_to_the_right_side(num_pixels, num_ones):
    image = np.zeros((1, 1, 1, num_pixels), np.uint8)
    image[..., :num_ones] = 1
    (fast,) = sum_channels([image], sum_roots_fast)
    assert not fast.is_certain
    (exact,) = sum_channels([image], sum_roots_exact)
    assert exact.std_per_image == exact.std == exact_figures(image[:, 0])[2]


def test_where_the_fast_roots_leave_a_doubt_the_exact_ones_settle_it(tmp_path):
    images = np.zeros((2, 1, 1, 10_252), np.uint8)
    images[..., :3] = 1
    labels = {"train": np.zeros(2, np.int64), "test": np.zeros(1, np.int64)}
    splits = write_shards(
        tmp_path,
        labels,
        lambda _, start, stop: [images[start:stop]],
        dtype="uint8",
        image_shape=images.shape[1:],
        samples_per_shard=1,
    )
    manifest = make_manifest(splits, image_shape=images.shape[1:], channels=("gray",))
    stats = compute_statistics(ShardSet(tmp_path, manifest), "train")
    assert stats.std_per_image == stats.std == {"gray": exact_figures(images[:, 0])[2]}


@given(st.lists(st.integers(0, (2**16 * 255) ** 2 // 4), min_size=1, max_size=9))
def test_the_fast_roots_are_no_further_off_than_they_say(values):
    limit = (2**16 * 255) ** 2 // 4
    fast, error = sum_roots_fast(np.array(values), limit)
    exact, exact_error = sum_roots_exact(np.array(values), limit)
    assert abs(fast - exact) <= error + exact_error


@pytest.mark.parametrize("side", [300, 512])
def test_sums_of_large_white_images_do_not_wrap(side):
    white = np.full((1, 1, side, side), 255, np.uint8)
    (sums,) = sum_channels([white])
    assert (sums.mean, sums.std, sums.std_per_image) == (1, 0, 0)


def test_stats_json_is_that_of_the_train_split_alone(synthetic_raw, tmp_path):
    stats = write_stats(synthetic_raw, tmp_path / "stats.json")
    train = np.concatenate([np.load(path) for path in sorted((synthetic_raw / "train").glob("images-*.npy"))])
    assert (stats.dataset, stats.split, stats.images, stats.pixels_per_channel) == (
        "synthetic",
        "train",
        12000,
        12288000,
    )
    for index, name in enumerate(("red", "green", "blue")):
        pixels = train[:, index].astype(np.float64) / 255
        assert stats.mean[name] == pytest.approx(pixels.mean(), rel=1e-12)
        assert stats.std[name] == pytest.approx(pixels.std(), rel=1e-12)
        assert stats.std_per_image[name] == pytest.approx(pixels.std(axis=(1, 2)).mean(), rel=1e-12)
        assert (stats.min[name], stats.max[name]) == (pixels.min(), pixels.max())
    assert read_statistics(tmp_path / "stats.json") == stats
    mean, std = load_stats(str(tmp_path / "stats.json"))
    assert (mean, std) == (tuple(stats.mean.values()), tuple(stats.std.values()))
    written = json.loads((tmp_path / "stats.json").read_bytes())
    assert written == to_builtins(stats)
    assert list(written["mean"]) == list(written["std"]) == ["red", "green", "blue"]


def test_a_wrong_byte_in_a_shard_is_found_while_it_is_read(synthetic_raw, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(synthetic_raw, raw)
    shard = raw / "train/images-00001-of-00002.npy"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptDataError, match="images-00001-of-00002.npy: expected SHA-256"):
        compute_statistics(open_shards(raw), "train")
    compute_statistics(open_shards(raw), "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": 0.5}, "mean: should be"),
        ({"extra": 1}, "extra: unknown key"),
        ({"split": "valid"}, "'train' or 'test'"),
    ],
)
def test_a_broken_stats_file_is_named_with_the_key(change, message, synthetic_raw, tmp_path):
    path = tmp_path / "stats.json"
    stats = write_stats(synthetic_raw, path)
    path.write_text(json.dumps(to_builtins(stats) | change))
    with pytest.raises(InputError, match=message):
        load_stats(path)
    with pytest.raises(InputError, match="can't be read"):
        load_stats(tmp_path / "absent.json")
