import shutil
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.audit.survey import NUM_BINS, NUM_EXTREMES, _image_stds, _sum_pixels, normalize_by_table, survey_splits
from pipeline.numerics.schemes import choose_normalization
from pipeline.numerics.statistics import compute_statistics
from pipeline.numerics.sums import sqrt_of_fraction
from shardset.content import hash_images
from shardset.errors import CorruptDataError
from shardset.normalization import normalization_table
from shardset.shards import open_shards
from tests.helpers.shard_sets import make_images, read_images, write_raw_set

CUSTOM = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
RGB = ("red", "green", "blue")


def make_table(raw, scheme="dataset", dtype="float32"):
    stats = compute_statistics(raw, "train")
    return normalization_table(choose_normalization(scheme, stats, raw.manifest.channels, CUSTOM), dtype)


def survey(raw):
    return survey_splits(raw, make_table(raw))


@pytest.fixture(scope="module")
def three_splits(tmp_path_factory):
    """A raw set of three splits of three classes."""
    images = {"train": make_images(40), "val": make_images(11, seed=1), "test": make_images(7, seed=2)}
    return write_raw_set(tmp_path_factory.mktemp("survey") / "raw", num_classes=3, **images)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("scheme", ["dataset", "dataset_per_image", "imagenet", "unit", "custom"])
def test_figures_are_those_of_numpy(scheme, dtype, three_splits):
    table = make_table(three_splits, scheme, dtype)
    surveys = survey_splits(three_splits, table)
    assert list(surveys) == ["train", "val", "test"]
    for split, of_split in surveys.items():
        stats = compute_statistics(three_splits, split)
        pixels = read_images(three_splits, split)
        for index, channel in enumerate(RGB):
            before, after = of_split.figures.before[channel], of_split.figures.after[channel]
            assert (before.mean, before.std) == (stats.mean[channel], stats.std[channel])
            assert (before.min, before.max) == (stats.min[channel], stats.max[channel])
            assert (before.mean_per_image, before.std_per_image) == (before.mean, stats.std_per_image[channel])
            values = table[index][pixels[:, index]].astype(np.float64)
            by_image = values.reshape(len(values), -1)
            expected = {
                "min": values.min(),
                "max": values.max(),
                "mean": values.mean(),
                "std": values.std(),
                "mean_per_image": by_image.mean(axis=1).mean(),
                "std_per_image": by_image.std(axis=1).mean(),
            }
            for name, value in expected.items():
                assert getattr(after, name) == pytest.approx(value, rel=1e-12, abs=1e-12), name


def test_mean_and_std_after_normalizing_are_exact(three_splits):
    table = make_table(three_splits)
    surveys = survey_splits(three_splits, table)
    red = [Fraction(value) for value in table[0][read_images(three_splits, "train")[:, 0]].ravel().tolist()]
    mean = sum(red) / len(red)
    variance = sum((value - mean) ** 2 for value in red) / len(red)
    after = surveys["train"].figures.after["red"]
    assert after.mean == float(mean)
    assert after.std == sqrt_of_fraction(variance)


def test_counts_sums_and_digests_are_those_of_the_images(three_splits):
    for split, of_split in survey(three_splits).items():
        pixels, labels = read_images(three_splits, split), three_splits.labels(split)
        assert of_split.figures.samples == len(pixels)
        assert of_split.figures.classes == {f"class_{i}": int((labels == i).sum()) for i in range(3)}
        for index in range(3):
            assert (
                of_split.pixel_counts[index].tolist() == np.bincount(pixels[:, index].ravel(), minlength=256).tolist()
            )
            assert np.array_equal(of_split.class_sums[index], pixels[labels == index].sum(axis=0, dtype=np.int64))
        assert np.array_equal(of_split.digests, hash_images(pixels))


def test_brightness_and_contrast_are_mean_and_std_of_an_image(three_splits):
    for split, of_split in survey(three_splits).items():
        scaled = read_images(three_splits, split).reshape(len(of_split.brightness), -1) / 255
        assert of_split.brightness == pytest.approx(scaled.mean(axis=1), rel=1e-12)
        assert of_split.contrast == pytest.approx(scaled.std(axis=1), rel=1e-12)
        for spread, values in (
            (of_split.figures.brightness, of_split.brightness),
            (of_split.figures.contrast, of_split.contrast),
        ):
            assert (spread.min, spread.max) == (values.min(), values.max())
            assert spread.mean == pytest.approx(values.mean(), rel=1e-12)


def test_images_that_stand_out_are_named_in_order(tmp_path):
    images = np.full((12, 3, 8, 8), 100, np.uint8)
    images[:, 0, 0, 0] += np.arange(12, dtype=np.uint8)  # slightly brighter and more contrasted each
    images[5], images[6], images[7, :, ::2] = 0, 255, 255
    found = survey(write_raw_set(tmp_path / "raw", images))["train"].extremes()
    assert found["darkest"][:3] == [5, 0, 1]
    assert found["brightest"][:3] == [6, 7, 11]
    assert found["lowest contrast"][:4] == [0, 5, 6, 1]  # equally flat ones by index
    assert found["highest contrast"][:2] == [7, 11]
    assert all(len(indices) == NUM_EXTREMES for indices in found.values())


def test_small_split_lists_each_image_once(tmp_path):
    found = survey(write_raw_set(tmp_path / "raw", make_images(3)))["train"].extremes()
    assert all(sorted(indices) == [0, 1, 2] for indices in found.values())


def test_histograms_count_every_image(tmp_path):
    images = make_images(10)
    images[0], images[1] = 0, 255  # the ends of the range of brightness
    images[2], images[2, :, ::2] = 0, 255  # the upper end of the range of contrast
    of_train = survey(write_raw_set(tmp_path / "raw", images))["train"]
    for name, limit in (("brightness", 1), ("contrast", 0.5)):
        counts, _ = np.histogram(getattr(of_train, name), NUM_BINS, (0, limit))
        assert of_train.histograms()[name].tolist() == counts.tolist()
    assert of_train.histograms()["brightness"][[0, -1]].tolist() == [1, 1]
    assert of_train.histograms()["contrast"][[0, -1]].tolist() == [2, 1]


@pytest.mark.slow
def test_survey_does_not_depend_on_threads(synthetic_raw, monkeypatch):
    raw = open_shards(synthetic_raw)
    surveys = []
    for threads in ("1", "3"):
        monkeypatch.setenv("PIPELINE_THREADS", threads)
        surveys.append(survey(raw))
    for split in ("train", "test"):
        one, three = (of_splits[split] for of_splits in surveys)
        assert one.figures == three.figures
        for name in ("pixel_counts", "class_sums", "brightness", "contrast", "digests"):
            assert getattr(one, name).tobytes() == getattr(three, name).tobytes()
        pixels, labels = read_images(raw, split), raw.labels(split)
        assert np.array_equal(one.digests, hash_images(pixels))  # across the bounds of blocks and shards
        assert np.array_equal(one.class_sums[3], pixels[labels == 3].sum(axis=0, dtype=np.int64))


def test_memory_does_not_grow_with_shards_times_classes(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 1)
    raw = write_raw_set(tmp_path / "raw", make_images(40, (1, 64, 64)), num_classes=200)
    assert len(raw.shards("train")) == 40
    table = np.arange(256, dtype=np.float32).reshape(1, 256)
    tracemalloc.start()
    try:
        survey_splits(raw, table)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * 200 * 64 * 64 * 8  # the sums of the classes, five times


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 28, 28), (4, 5, 9)])
def test_images_of_any_shape_are_surveyed(shape, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, *shape), np.uint8)
    raw = write_raw_set(tmp_path / "raw", images)
    table = np.broadcast_to(np.arange(256, dtype=np.float32), (shape[0], 256))
    of_train = survey_splits(raw, table)["train"]
    assert of_train.class_sums.shape == (2, *shape)
    assert len(of_train.figures.before) == len(of_train.figures.after) == shape[0]
    assert of_train.figures.after["band_0"].mean == pytest.approx(images[:, 0].mean(), rel=1e-12)


@pytest.mark.slow
def test_contrast_of_the_largest_images_does_not_overflow(tmp_path):
    image = np.zeros((1, 1, 6100, 6100), np.uint8)
    image[..., ::2] = 255
    assert (image.size * 255) ** 2 // 4 > 2**63
    raw = write_raw_set(tmp_path / "raw", image)
    table = np.arange(256, dtype=np.float32).reshape(1, 256)
    of_train = survey_splits(raw, table)["train"]
    assert (of_train.brightness.tolist(), of_train.contrast.tolist()) == ([0.5], [0.5])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_flipped_bit_in_an_image_is_found(split, three_splits, tmp_path):
    raw_dir = shutil.copytree(three_splits.dir, tmp_path / "raw")
    path = raw_dir / f"{split}/images-00000-of-00001.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=f"{split}/images-00000-of-00001.npy: expected SHA-256"):
        survey_splits(open_shards(raw_dir), make_table(three_splits))


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.integers(-1000, 1000)))
def test_sums_by_halves_are_sums(values):
    assert np.array_equal(_sum_pixels(values), values.sum(axis=-1))


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 40)),
        elements=st.floats(-3, 3, width=32),
    )
)
def test_stds_of_images_are_those_of_numpy(values):
    np.testing.assert_allclose(_image_stds(values), values.astype(np.float64).std(axis=-1), rtol=1e-10, atol=1e-12)


@given(hnp.arrays(np.uint8, (2, 3, 4, 5)))
def test_table_gives_each_channel_its_own_values(pixels):
    table = np.arange(3 * 256).reshape(3, 256)
    expected = pixels.astype(np.int64) + np.array([0, 256, 512]).reshape(3, 1, 1)
    assert np.array_equal(normalize_by_table(pixels, table), expected)
