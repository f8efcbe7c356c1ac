import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.near_duplicates import (
    EXACT_SUM,
    MAX_DISTANCE,
    ExactDuplicates,
    count_exact_duplicates,
    describe,
    find_edges,
    find_near_duplicates,
)
from tests.helpers.shard_sets import make_images, write_raw_set

NUM_TRAIN = 300


def shift(image):
    moved = np.roll(image, (2, -1), (1, 2))
    moved[:, :2], moved[:, :, -1:] = 128, 128
    return moved


def add_noise(image):
    noise = np.random.default_rng(1).integers(-12, 13, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


CHANGES = {
    "equal": lambda image: image,
    "shifted": shift,
    "mirrored": lambda image: image[..., ::-1],
    "brighter": lambda image: np.minimum(image.astype(int) + 40, 255).astype(np.uint8),
    "of less contrast": lambda image: 64 + image // 2,
    "noisy": add_noise,
    "mirrored, shifted, darker and noisy": lambda image: add_noise(shift(image[..., ::-1]) // 2),
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Ten unrelated test images, after those that are changed train images."""
    train = make_images(NUM_TRAIN)
    changed = [change(train[10 * index]) for index, change in enumerate(CHANGES.values())]
    test = np.concatenate([changed, make_images(10, seed=1)])
    return write_raw_set(tmp_path_factory.mktemp("planted") / "raw", train, test)


def test_every_planted_duplicate_is_found_and_nothing_else(planted):
    pairs = find_near_duplicates(planted)
    assert [(pair.test, pair.train) for pair in pairs] == [(index, 10 * index) for index in range(len(CHANGES))]
    assert [pair.mirrored for pair in pairs] == ["mirrored" in name for name in CHANGES]
    assert [pair.distance == 0 for pair in pairs] == [name in ("equal", "shifted", "mirrored") for name in CHANGES]


def test_unrelated_images_are_far_beyond_the_threshold(planted, monkeypatch):
    monkeypatch.setattr("pipeline.duplicates.MIN_LIKENESS", -1)
    pairs = find_near_duplicates(planted, max_distance=2)
    assert min(pair.distance for pair in pairs if pair.train != 10 * pair.test) > MAX_DISTANCE + 0.1


def test_the_same_frame_makes_no_duplicates(tmp_path):
    images = make_images(40)
    images[..., :3, :] = images[..., -3:, :] = images[..., :3] = images[..., -3:] = 255
    assert find_near_duplicates(write_raw_set(tmp_path / "raw", images[:30], images[30:])) == []


@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_pairs_are_the_same_on_any_number_of_threads(threads, planted, monkeypatch):
    expected = find_near_duplicates(planted)
    monkeypatch.setenv("PIPELINE_THREADS", threads)
    monkeypatch.setattr("pipeline.duplicates.LIKENESSES_AT_ONCE", 5 * NUM_TRAIN)
    assert find_near_duplicates(planted) == expected


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 17, 40), (3, 64, 48), (1, 8, 8)])
def test_images_of_any_shape_are_searched(shape, tmp_path):
    train = make_images(60, shape)
    raw = write_raw_set(tmp_path / "raw", train, np.concatenate([train[5:7], make_images(3, shape, seed=1)]))
    assert [(pair.test, pair.train) for pair in find_near_duplicates(raw) if not pair.distance] == [(0, 5), (1, 6)]


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 1, 1)])
def test_images_too_small_to_tell_have_none(shape, tmp_path):
    images = np.zeros((4, *shape), np.uint8)
    assert find_near_duplicates(write_raw_set(tmp_path / "raw", images, images)) == []


def test_flat_images_are_exact_duplicates_but_no_near_ones(tmp_path):
    images = np.full((5, 3, 32, 32), 77, np.uint8)
    raw = write_raw_set(tmp_path / "raw", images[:3], images[3:])
    assert find_near_duplicates(raw) == []
    assert count_exact_duplicates(raw) == ExactDuplicates(train=2, test=1, test_in_train=2)


def test_exact_duplicates_are_counted_within_and_across_splits(planted, tmp_path):
    assert count_exact_duplicates(planted) == ExactDuplicates(train=0, test=0, test_in_train=1)
    train = make_images(10)
    raw = write_raw_set(tmp_path / "raw", train[[0, 1, 2, 1, 1]], train[[7, 8, 1, 9, 8]])
    assert count_exact_duplicates(raw) == ExactDuplicates(train=2, test=1, test_in_train=1)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(8, 70), st.integers(8, 70), st.booleans())
def test_no_sum_exceeds_what_float32_holds_exactly(seed, channels, height, width, extreme):
    pixels = np.random.default_rng(seed).integers(0, 256, (3, channels, height, width), np.uint8)
    if extreme:
        pixels = (pixels >> 7) * np.uint8(255)
    for values in (describe(pixels), find_edges(pixels).reshape(3, -1)):
        assert np.array_equal(values, np.rint(values))
        assert (values.astype(np.float64) ** 2).sum(axis=1).max() <= EXACT_SUM
