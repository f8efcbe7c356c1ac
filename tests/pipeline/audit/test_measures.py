from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.audit.measures import (
    count_channels,
    count_clipped,
    count_values,
    find_grey,
    measure_borders,
    measure_entropies,
)

blocks = hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)))


@given(blocks)
def test_values_are_counted_by_image_and_channel(pixels):
    counts = count_values(pixels)
    assert counts.shape == (*pixels.shape[:2], 256)
    for image, of_image in zip(pixels, counts, strict=True):
        for channel, of_channel in zip(image, of_image, strict=True):
            assert of_channel.tolist() == np.bincount(channel.ravel(), minlength=256).tolist()


@given(blocks)
def test_values_of_all_images_are_counted_by_channel(pixels):
    assert np.array_equal(count_channels(pixels), count_values(pixels).sum(axis=0))


@given(blocks)
def test_lowest_and_highest_values_are_clipped(pixels):
    flat = pixels.reshape(len(pixels), -1)
    assert np.array_equal(count_clipped(pixels), ((flat == 0) | (flat == 255)).sum(axis=1))


def test_image_with_equal_channels_is_grey():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), np.uint8)
    pixels[1] = pixels[1, :1]
    pixels[2] = pixels[2, :1]
    pixels[2, 2, 7, 7] ^= 1
    pixels[3] = 9
    assert find_grey(pixels).tolist() == [False, True, False, True]
    assert not find_grey(pixels[:, :1]).any()  # with one channel, that says nothing


@given(blocks)
def test_entropy_is_that_of_the_grey_values(pixels):
    for image, entropy in zip(pixels, measure_entropies(pixels), strict=True):
        grey = image.sum(axis=0, dtype=int) // len(image)
        shares = np.bincount(grey.ravel()) / grey.size
        assert entropy == pytest.approx(-sum(share * log2(share) for share in shares if share), abs=1e-5)


def noise(size=10):
    return np.random.default_rng(0).integers(0, 200, (1, 3, size, size), np.uint8)


@pytest.mark.parametrize(
    ("plain", "share"),
    [
        (np.s_[:0], 0),
        (np.s_[..., :2, :], 0),  # at the top alone, such as a sky
        (np.s_[..., [0, 1, 9], :], 0.3),
        (np.s_[..., [0, 8, 9]], 0.3),
        (np.s_[..., [0, 4, 9], :], 0.2),  # a line in the middle is no bar
        (np.s_[...], 1),
    ],
)
def test_border_is_the_share_of_plain_bars_at_opposite_edges(plain, share):
    pixels = noise()
    pixels[plain] = 230
    assert measure_borders(pixels) == pytest.approx([share])


def test_frame_takes_what_is_not_inside():
    pixels = noise()
    inner = pixels[..., 2:8, 3:8].copy()
    pixels[:] = 230
    pixels[..., 2:8, 3:8] = inner
    assert measure_borders(pixels) == pytest.approx([1 - 6 * 5 / 100])


def test_bars_with_slight_noise_are_plain():
    pixels = noise()
    for level, share in ((8, 0.2), (9, 0)):
        pixels[..., [0, 9], :] = 100
        pixels[..., [0, 9], ::2] += level
        assert measure_borders(pixels) == pytest.approx([share])


def test_each_image_of_a_block_is_measured_by_itself():
    pixels = np.concatenate([noise(), np.full((1, 3, 10, 10), 7, np.uint8), noise()])
    assert measure_borders(pixels).tolist() == [0, 1, 0]
    assert measure_entropies(pixels)[1] == 0
    assert measure_entropies(pixels)[0] == measure_entropies(pixels)[2] > 5
