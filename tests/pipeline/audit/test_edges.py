from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.descriptors import EXACT_SUM
from pipeline.audit.edges import MAX_INT16_CHANNELS, MAX_SHIFT, compute_distances, compute_edges, zoom_images
from tests.helpers.scenes import draw_noise, draw_scene, take_view
from tests.helpers.shard_sets import make_images


def correlate(first, second, down, right):
    """The correlation of the edges of one pair, (2, h, w), where they overlap at a shift."""
    height, width = first.shape[1:]
    rows, columns = (
        [(i, i + shift) for i in range(size) if 0 <= i + shift < size]
        for size, shift in ((height, down), (width, right))
    )
    first_values = np.array([first[:, row[0], column[0]] for row in rows for column in columns], np.float64)
    second_values = np.array([second[:, row[1], column[1]] for row in rows for column in columns], np.float64)
    norm = ((first_values**2).sum() * (second_values**2).sum()) ** 0.5
    return (first_values * second_values).sum() / max(norm, 1)


def test_distance_is_that_of_the_best_small_shift():
    edges = compute_edges(make_images(8))
    firsts, seconds = edges[:4], edges[4:]
    shifts = [*product(range(-MAX_SHIFT, MAX_SHIFT + 1), repeat=2)]
    expected = [
        1 - max(correlate(first, second, *shift) for shift in shifts)
        for first, second in zip(firsts, seconds, strict=True)
    ]
    assert compute_distances(firsts, seconds) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shift", [(0, 0), (2, -1), (-2, 2)])
def test_shifted_images_have_no_distance(shift):
    images = make_images(5, (3, 40, 40))
    edges, shifted = (
        compute_edges(images[:, :, 4 + down : 36 + down, 4 + right : 36 + right]) for down, right in ((0, 0), shift)
    )
    distances = compute_distances(edges, shifted)
    assert distances.max() < 0.02  # not 0, since steps are clipped at the mean of each view
    assert (distances == compute_distances(shifted, edges)).all()


def test_edges_are_clipped_steps_of_the_smoothed_image():
    images = make_images(10)
    for image, edges in zip(images, compute_edges(images), strict=True):
        grey = image.sum(axis=0, dtype=np.int64)
        smooth = grey[:-1, :-1] + grey[:-1, 1:] + grey[1:, :-1] + grey[1:, 1:]
        steps = np.stack([smooth[1:, :-1] - smooth[:-1, :-1], smooth[:-1, 1:] - smooth[:-1, :-1]])[:, 3:27, 3:27]
        limit = np.abs(steps).mean()
        level = (EXACT_SUM / steps.size) ** 0.5 - 1
        assert np.abs(edges - np.clip(steps, -limit, limit) / limit * level).max() <= 0.51


def test_flat_images_have_no_edges():
    flat = compute_edges(np.full((2, 3, 32, 32), 77, np.uint8))
    assert not flat.any()
    assert compute_distances(flat, flat).tolist() == [1, 1]


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 5), st.booleans())
def test_sums_of_products_are_exact_in_float32(seed, channels, extreme):
    images = draw_noise(seed, 3, channels, extreme)
    edges = compute_edges(images).astype(np.float64)
    assert np.array_equal(edges, np.rint(edges))
    assert (edges**2).sum(axis=(1, 2, 3)).max() <= EXACT_SUM


def test_squares_of_a_ramp_are_at_their_limit():
    ramp = (np.add.outer(np.arange(32), np.arange(32)) * 4).astype(np.uint8)[None, None]
    assert 0.9 * EXACT_SUM < (compute_edges(ramp).astype(np.float64) ** 2).sum() <= EXACT_SUM


@pytest.mark.parametrize("channels", [MAX_INT16_CHANNELS, MAX_INT16_CHANNELS + 1, 200])
def test_many_channels_do_not_overflow(channels):
    images = np.random.default_rng(0).integers(0, 2, (2, 1, 32, 32), np.uint8) * np.uint8(255)
    assert np.array_equal(compute_edges(images.repeat(channels, axis=1)), compute_edges(images))


@pytest.mark.parametrize(("down", "across"), [(True, False), (False, True), (True, True)])
def test_zoomed_images_show_a_part_enlarged(down, across):
    scenes = [draw_scene(np.random.default_rng(seed)) for seed in range(10)]
    zoom = 1.15 if across else 1, 1.15 if down else 1
    plain, expected = (np.stack([take_view(scene, of_view) for scene in scenes]) for of_view in ((1, 1), zoom))
    zoomed = zoom_images(plain, down, across)
    before, after = (np.abs(images.astype(int) - expected).mean() for images in (plain, zoomed))
    assert after < before / 2
    assert np.array_equal(zoom_images(plain[..., ::-1], down, across), zoomed[..., ::-1])


def test_no_zoom_keeps_images():
    images = make_images(2)
    assert zoom_images(images, down=False, across=False) is images
