import shutil
import tracemalloc
from collections import defaultdict

import numpy as np
import pytest

from pipeline.audit.measures import measure_borders, measure_entropies
from pipeline.audit.survey import REDUCED_SIDE, survey_splits, survey_statistics
from pipeline.numerics.reduce import reduce_images
from pipeline.numerics.statistics import compute_statistics
from shardset.content import hash_images
from shardset.errors import CorruptDataError
from shardset.shards import open_shards
from tests.helpers.shard_sets import make_images, read_images, write_raw_set

ARRAYS = ("pixel_counts", "sums", "squares", "clipped", "grey", "borders", "entropies", "digests")


def survey(raw):
    return survey_splits(raw, lambda split, start, reduced: None, lambda action, done, total: None)


@pytest.fixture(scope="module")
def three_splits(tmp_path_factory):
    """A raw set of three splits of three classes."""
    images = {"train": make_images(40), "val": make_images(11, seed=1), "test": make_images(7, seed=2)}
    images["train"][3], images["train"][4], images["train"][5] = 255, 0, 9
    images["train"][6] = images["train"][6, :1]
    return write_raw_set(tmp_path_factory.mktemp("survey") / "raw", num_classes=3, **images)


def test_statistics_are_those_of_stats(three_splits):
    surveys = survey(three_splits)
    assert list(surveys) == ["train", "val", "test"]
    for split, of_split in surveys.items():
        assert survey_statistics(three_splits, split, of_split) == compute_statistics(three_splits, split)


def test_arrays_hold_what_numpy_computes(three_splits):
    for split, of_split in survey(three_splits).items():
        pixels = read_images(three_splits, split)
        flat, wide = pixels.reshape(len(pixels), -1), pixels.astype(np.int64)
        assert of_split.labels.tolist() == three_splits.labels(split).tolist()
        for index in range(3):
            counts = np.bincount(pixels[:, index].ravel(), minlength=256)
            assert of_split.pixel_counts[index].tolist() == counts.tolist()
        assert np.array_equal(of_split.sums, wide.sum(axis=(2, 3)))
        assert np.array_equal(of_split.squares, (wide**2).sum(axis=(2, 3)))
        assert np.array_equal(of_split.clipped, ((flat == 0) | (flat == 255)).sum(axis=1))
        assert np.array_equal(of_split.clipped_shares, of_split.clipped / 3072)
        assert np.array_equal(of_split.digests, hash_images(pixels))
        assert of_split.brightness == pytest.approx(flat.mean(axis=1) / 255, rel=1e-12)
        assert of_split.contrast == pytest.approx(flat.std(axis=1) / 255, rel=1e-12)
    train = survey(three_splits)["train"]
    assert np.flatnonzero(train.grey).tolist() == [3, 4, 5, 6]
    assert np.flatnonzero(train.borders == 1).tolist() == np.flatnonzero(train.entropies == 0).tolist() == [3, 4, 5]


def test_large_images_are_reduced_for_borders_and_entropy(tmp_path):
    images = make_images(5, (3, 80, 48))
    of_train = survey(write_raw_set(tmp_path / "raw", images))["train"]
    reduced = reduce_images(images, REDUCED_SIDE)
    assert reduced.shape == (5, 3, 32, 32)
    assert np.array_equal(of_train.borders, measure_borders(reduced))
    assert np.array_equal(of_train.entropies, measure_entropies(reduced))


def test_each_reduced_image_is_visited_once(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 7)
    images = make_images(40, (3, 64, 32))
    raw = write_raw_set(tmp_path / "raw", images, images[:9])
    visited: dict[str, dict] = defaultdict(dict)
    seen = []
    survey_splits(
        raw,
        lambda split, start, reduced: visited[split].update(enumerate(reduced.copy(), start)),
        lambda action, done, total: seen.append((done, total)),
    )
    for split, of_split in visited.items():
        assert sorted(of_split) == list(range(raw.manifest.splits[split].samples))
        expected = reduce_images(read_images(raw, split), REDUCED_SIDE)
        assert all(np.array_equal(expected[index], image) for index, image in of_split.items())
    assert {*visited} == {"train", "test"}
    assert max(seen) == (49, 49)


@pytest.mark.slow
def test_survey_does_not_depend_on_threads(synthetic_raw, monkeypatch):
    raw = open_shards(synthetic_raw)
    surveys = []
    for threads in ("1", "3"):
        monkeypatch.setenv("PIPELINE_THREADS", threads)
        surveys.append(survey(raw))
    for split in ("train", "test"):
        one, three = (of_splits[split] for of_splits in surveys)
        for name in ARRAYS:
            assert getattr(one, name).tobytes() == getattr(three, name).tobytes()
        assert np.array_equal(one.digests, hash_images(read_images(raw, split)))  # across blocks and shards


def test_memory_does_not_grow_with_shards_times_classes(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 1)
    raw = write_raw_set(tmp_path / "raw", make_images(40, (1, 64, 64)), num_classes=200)
    assert len(raw.shards("train")) == 40
    survey(raw)  # what is computed once and kept, such as terms of the entropy
    tracemalloc.start()
    try:
        survey(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 28, 28), (4, 5, 9)])
def test_images_of_any_shape_are_surveyed(shape, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, *shape), np.uint8)
    raw = write_raw_set(tmp_path / "raw", images)
    of_train = survey(raw)["train"]
    assert survey_statistics(raw, "train", of_train) == compute_statistics(raw, "train")
    assert of_train.brightness == pytest.approx(images.reshape(6, -1).mean(axis=1) / 255, rel=1e-12)


@pytest.mark.slow
def test_contrast_of_the_largest_images_does_not_overflow(tmp_path):
    image = np.zeros((1, 1, 6100, 6100), np.uint8)
    image[..., ::2] = 255
    assert (image.size * 255) ** 2 // 4 > 2**63
    of_train = survey(write_raw_set(tmp_path / "raw", image))["train"]
    assert (of_train.brightness.tolist(), of_train.contrast.tolist()) == ([0.5], [0.5])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_flipped_bit_in_an_image_is_found(split, three_splits, tmp_path):
    raw_dir = shutil.copytree(three_splits.dir, tmp_path / "raw")
    path = raw_dir / f"{split}/images-00000-of-00001.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=f"{split}/images-00000-of-00001.npy: expected SHA-256"):
        survey(open_shards(raw_dir))
