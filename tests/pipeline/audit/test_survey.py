import numpy as np
import pytest

from pipeline.audit.measures import measure_borders, measure_entropies
from pipeline.audit.shard_survey import REDUCED_SIDE
from pipeline.numerics.reduce import reduce_images
from pipeline.numerics.statistics import compute_statistics
from pipeline.runtime.tasks import map_tasks
from tests.helpers.audits import survey
from tests.helpers.shard_sets import make_images, read_images, write_raw_set


@pytest.fixture(scope="module")
def three_splits(tmp_path_factory):
    """A raw set of three splits of three classes, in shards of 16 images and fewer."""
    images = {"train": make_images(40), "val": make_images(11, seed=1), "test": make_images(7, seed=2)}
    images["train"][3], images["train"][4], images["train"][5] = 255, 0, 9
    images["train"][6] = images["train"][6, :1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 16)
        raw = write_raw_set(tmp_path_factory.mktemp("survey") / "raw", num_classes=3, **images)
    assert len(raw.shards("train")) == 3
    return raw


def test_statistics_are_those_of_stats(three_splits):
    surveys = survey(three_splits)
    assert list(surveys) == ["train", "val", "test"]
    for split, of_split in surveys.items():
        assert of_split.statistics == compute_statistics(three_splits, split, map_tasks)


def test_arrays_hold_what_numpy_computes(three_splits):
    for split, of_split in survey(three_splits).items():
        pixels, labels = read_images(three_splits, split), three_splits.labels(split)
        flat, wide = pixels.reshape(len(pixels), -1), pixels.astype(np.int64)
        assert of_split.labels.tolist() == labels.tolist()
        for index in range(3):
            counts = np.bincount(pixels[:, index].ravel(), minlength=256)
            assert of_split.pixel_counts[index].tolist() == counts.tolist()
            assert np.array_equal(of_split.class_sums[index], wide[labels == index].sum(axis=(0, 2, 3)))
        assert np.array_equal(of_split.clipped_shares, ((flat == 0) | (flat == 255)).sum(axis=1) / 3072)
        assert of_split.brightness == pytest.approx(flat.mean(axis=1) / 255, rel=1e-12)
        assert of_split.contrast == pytest.approx(flat.std(axis=1) / 255, rel=1e-12)
        assert np.array_equal(of_split.borders, measure_borders(pixels))
        assert np.array_equal(of_split.entropies, measure_entropies(pixels))
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


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 28, 28), (4, 5, 9)])
def test_images_of_any_shape_are_surveyed(shape, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, *shape), np.uint8)
    raw = write_raw_set(tmp_path / "raw", images)
    of_train = survey(raw)["train"]
    assert of_train.statistics == compute_statistics(raw, "train", map_tasks)
    assert of_train.brightness == pytest.approx(images.reshape(6, -1).mean(axis=1) / 255, rel=1e-12)


@pytest.mark.slow
def test_contrast_of_the_largest_images_does_not_overflow(tmp_path):
    image = np.zeros((1, 1, 6100, 6100), np.uint8)
    image[..., ::2] = 255
    assert (image.size * 255) ** 2 // 4 > 2**63
    of_train = survey(write_raw_set(tmp_path / "raw", image))["train"]
    assert (of_train.brightness.tolist(), of_train.contrast.tolist()) == ([0.5], [0.5])
