from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.near_duplicates import (
    EXACT_SUM,
    MAX_DISTANCE,
    NUM_CANDIDATES,
    SIDE,
    compute_edges,
    find_near_duplicates,
    grid_descriptors,
    reduce_images,
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


def change_images(train):
    """Change every tenth image in one way of CHANGES each."""
    return np.stack([change(train[10 * index]) for index, change in enumerate(CHANGES.values())])


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A raw set whose test split has changed train images, then ten unrelated ones."""
    train = make_images(NUM_TRAIN)
    test = np.concatenate([change_images(train), make_images(10, seed=1)])
    return write_raw_set(tmp_path_factory.mktemp("planted") / "raw", train, test)


def test_every_planted_duplicate_is_found_and_no_other(planted):
    pairs = find_near_duplicates(planted)
    assert [(pair.split, pair.index, pair.train) for pair in pairs] == [
        ("test", index, 10 * index) for index in range(len(CHANGES))
    ]
    assert [pair.mirrored for pair in pairs] == ["mirrored" in name for name in CHANGES]
    assert [pair.distance == 0 for pair in pairs] == [name in ("equal", "shifted", "mirrored") for name in CHANGES]
    assert all(0 <= pair.distance <= MAX_DISTANCE for pair in pairs)


def test_val_and_test_are_searched_in_order(tmp_path):
    train = make_images(NUM_TRAIN)
    changed = change_images(train)
    test = np.concatenate([make_images(3, seed=1), changed[:3]])
    raw = write_raw_set(tmp_path / "raw", train, val=changed, test=test)
    assert [(pair.split, pair.index, pair.train) for pair in find_near_duplicates(raw)] == [
        *(("val", index, 10 * index) for index in range(len(CHANGES))),
        *(("test", 3 + index, 10 * index) for index in range(3)),
    ]


def test_train_alone_has_no_near_duplicates(tmp_path):
    images = make_images(20)[[*range(20), 3, 3]]
    assert find_near_duplicates(write_raw_set(tmp_path / "raw", images)) == []


def test_unrelated_images_are_far_beyond_the_threshold(planted, monkeypatch):
    monkeypatch.setattr("pipeline.audit.near_duplicates.MIN_SIMILARITY", -1)
    pairs = find_near_duplicates(planted, max_distance=2)
    assert min(pair.distance for pair in pairs if pair.train != 10 * pair.index) > MAX_DISTANCE + 0.1


@pytest.mark.parametrize("block", [1, 5, 8192])
def test_copies_in_train_are_listed_up_to_the_limit(block, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.audit.near_duplicates.TRAIN_PER_BLOCK", block)
    images = make_images(30)
    train = images[[*range(20), *[5] * NUM_CANDIDATES]]
    pairs = find_near_duplicates(write_raw_set(tmp_path / "raw", train, images[[25, 5]]))
    copies = [5, *range(20, 20 + NUM_CANDIDATES - 1)]  # ties go to the lower index
    assert [(pair.index, pair.train, pair.distance) for pair in pairs] == [(1, copy, 0) for copy in copies]


def test_equal_frames_make_no_duplicates(tmp_path):
    images = make_images(40)
    images[..., :3, :] = images[..., -3:, :] = images[..., :3] = images[..., -3:] = 255
    assert find_near_duplicates(write_raw_set(tmp_path / "raw", images[:30], images[30:])) == []


@pytest.mark.parametrize("threads", ["1", "3"])
def test_pairs_do_not_depend_on_threads_or_task_size(threads, planted, monkeypatch):
    expected = find_near_duplicates(planted)
    monkeypatch.setenv("PIPELINE_THREADS", threads)
    monkeypatch.setattr("pipeline.audit.near_duplicates.IMAGES_PER_TASK", 5)
    monkeypatch.setattr("pipeline.audit.near_duplicates.TRAIN_PER_BLOCK", 7)
    assert find_near_duplicates(planted) == expected


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 17, 40), (3, 64, 48), (1, 8, 8)])
def test_images_of_any_shape_are_searched(shape, tmp_path):
    train = make_images(60, shape)
    raw = write_raw_set(tmp_path / "raw", train, np.concatenate([train[5:7], make_images(3, shape, seed=1)]))
    assert [(pair.index, pair.train) for pair in find_near_duplicates(raw) if not pair.distance] == [(0, 5), (1, 6)]


@pytest.mark.parametrize(
    ("side", "enlarged"), [(33, 1), (64, 1), (100, 1), pytest.param(2400, 4, marks=pytest.mark.slow)]
)
def test_copies_of_larger_images_are_found(side, enlarged, tmp_path):
    size = side // enlarged
    train = make_images(8, (3, size, size)).repeat(enlarged, axis=2).repeat(enlarged, axis=3)
    test = np.stack([train[2], add_noise(train[5]), train[6][..., ::-1], train[3] // 2 + 60])
    pairs = find_near_duplicates(write_raw_set(tmp_path / "raw", train, test))
    assert [(pair.index, pair.train, pair.mirrored) for pair in pairs] == [
        (0, 2, False),
        (1, 5, False),
        (2, 6, True),
        (3, 3, False),
    ]
    assert [pair.distance for pair in pairs][::2] == [0, 0]


def box_mean(image, top, left):
    """The mean of one box of SIDE x SIDE equal ones, as a fraction, of an image (H, W)."""
    height, width = image.shape
    enlarged = image.repeat(SIDE, axis=0).repeat(SIDE, axis=1)
    box = enlarged[top * height : (top + 1) * height, left * width : (left + 1) * width]
    return Fraction(int(box.sum()), box.size)


@settings(max_examples=25)
@given(st.integers(0, 2**32), *[st.integers(SIDE, 3 * SIDE + 1)] * 2, *[st.integers(0, SIDE - 1)] * 2)
def test_reduced_pixels_are_rounded_means_of_boxes(seed, height, width, top, left):
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 2, height, width), np.uint8)
    reduced = reduce_images(pixels)
    assert (reduced.shape, reduced.dtype) == ((2, 2, SIDE, SIDE), np.uint8)
    assert reduced[1, 1, top, left] == floor(box_mean(pixels[1, 1], top, left) + Fraction(1, 2))
    assert np.array_equal(reduce_images(pixels[..., ::-1]), reduced[..., ::-1])


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 8, 31)])
def test_small_images_are_compared_as_they_are(shape):
    images = make_images(3, shape)
    assert reduce_images(images) is images


@pytest.mark.parametrize(("shape", "reduced"), [((1, 20, 100), (1, 20, 32)), ((3, 4000, 9), (3, 32, 9))])
def test_each_side_is_reduced_on_its_own(shape, reduced):
    assert reduce_images(np.full((1, *shape), 200, np.uint8)).tolist() == np.full((1, *reduced), 200).tolist()


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 1, 1), (1, 7, 100)])
def test_images_that_are_too_small_are_not_searched(shape, tmp_path):
    images = np.zeros((4, *shape), np.uint8)
    assert find_near_duplicates(write_raw_set(tmp_path / "raw", images, images)) == []


def test_flat_images_are_not_near_duplicates(tmp_path):
    images = np.full((5, 3, 32, 32), 77, np.uint8)
    assert find_near_duplicates(write_raw_set(tmp_path / "raw", images[:3], images[3:])) == []


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(8, 70), st.integers(8, 70), st.booleans())
def test_no_sum_exceeds_what_float32_holds_exactly(seed, channels, height, width, extreme):
    pixels = np.random.default_rng(seed).integers(0, 256, (3, channels, height, width), np.uint8)
    if extreme:
        pixels = (pixels >> 7) * np.uint8(255)
    for values in (grid_descriptors(pixels), compute_edges(pixels).reshape(3, -1)):
        assert np.array_equal(values, np.rint(values))
        assert (values.astype(np.float64) ** 2).sum(axis=1).max() <= EXACT_SUM
