import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.descriptors import EXACT_SUM, compute_descriptors, count_even, count_values
from tests.helpers.scenes import draw_noise
from tests.helpers.shard_sets import make_images

CHANNELS = [1, 2, 3, 4]


def compare(first, second, num_even):
    """The similarity as it is, and mirrored, of descriptors, (n, D)."""
    products = first.astype(np.int64) * second
    even, odd = products[:, :num_even].sum(axis=1), products[:, num_even:].sum(axis=1)
    return even + odd, even - odd


@pytest.mark.parametrize("channels", CHANNELS)
def test_mirroring_negates_the_odd_part(channels):
    images = make_images(20, (channels, 32, 32))
    plain, mirrored = compute_descriptors(images), compute_descriptors(images[..., ::-1])
    num_even = count_even(channels)
    assert np.array_equal(plain[:, :num_even], mirrored[:, :num_even])
    assert np.array_equal(plain[:, num_even:], -mirrored[:, num_even:])
    assert plain.shape == (20, count_values(channels))
    assert plain[:, num_even:].any(axis=0).all()


def test_products_tell_how_alike_mirror_images_are():
    images = make_images(20)
    first, second = compute_descriptors(images[:10]), compute_descriptors(images[10:])
    plain, mirrored = compare(first, second, count_even(3))
    of_mirrored, _ = compare(first, compute_descriptors(images[10:, :, :, ::-1]), count_even(3))
    assert np.array_equal(mirrored, of_mirrored)
    assert not np.array_equal(plain, of_mirrored)


def test_brightness_and_contrast_cancel_out():
    images = make_images(20) // 4 * 2
    changed = images // 2 + 100
    assert np.array_equal(compute_descriptors(images), compute_descriptors(changed))


@pytest.mark.parametrize("change", [(1, 0, -1), (1, -1, 1)])
def test_colour_tells_images_of_equal_brightness_apart(change):
    images = make_images(1) // 2 + 60
    stains = (make_images(1, (1, 32, 32), seed=1) // 4).astype(int) * np.array(change)[:, None, None]
    stained = (images + stains).astype(np.uint8)
    assert (stained * np.array([1, 2, 1])[:, None, None]).sum() == (images * np.array([1, 2, 1])[:, None, None]).sum()
    similarity, _ = compare(compute_descriptors(images), compute_descriptors(stained), count_even(3))
    assert similarity[0] < 0.95 * EXACT_SUM


def test_a_flat_image_has_only_zeros():
    assert not compute_descriptors(np.full((2, 3, 32, 32), 77, np.uint8)).any()


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from(CHANNELS), st.booleans())
def test_sums_of_products_are_exact_in_float32(seed, channels, extreme):
    images = draw_noise(seed, 5, channels, extreme)
    squares = (compute_descriptors(images).astype(np.int64) ** 2).sum(axis=1)
    assert squares.max() <= EXACT_SUM
    assert squares.min() > 0.98 * EXACT_SUM
