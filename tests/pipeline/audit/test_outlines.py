import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.descriptors import EXACT_SUM
from pipeline.audit.outlines import (
    GRID,
    NORM,
    ZOOMS,
    compare_outlines,
    compare_zoomed_outlines,
    compute_outlines,
    mirror_outlines,
)
from tests.helpers.scenes import draw_noise, draw_scene, take_view
from tests.helpers.shard_sets import make_images


def views(zoom=(1, 1), shift=(0, 0), count=40):
    scenes = [draw_scene(np.random.default_rng(seed)) for seed in range(count)]
    return np.stack([take_view(scene, zoom, shift) for scene in scenes])


def test_mirrored_outlines_are_those_of_the_mirror_image():
    images = views()
    assert np.array_equal(mirror_outlines(compute_outlines(images)), compute_outlines(images[..., ::-1]))


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_outlines_follow_from_exact_integers(channels):
    images = np.random.default_rng(0).integers(0, 2, (20, channels, 32, 32), np.uint8) * np.uint8(255)
    images[10:] = make_images(10, (channels, 32, 32))
    for image, outlines in zip(images, compute_outlines(images), strict=True):
        grey = image.sum(axis=0).astype(object)
        corners = grey[:-1, :-1], grey[:-1, 1:], grey[1:, :-1], grey[1:, 1:]
        down = corners[2] + corners[3] - corners[0] - corners[1]
        right = corners[1] + corners[3] - corners[0] - corners[2]
        steps = np.stack([down, right])[:, 2:29, 2:29]
        limit = abs(steps).sum() // steps.size + 1
        steps = np.clip(steps, -limit, limit)
        blurred = np.array(
            [[[of[2 * y : 2 * y + 3, 2 * x : 2 * x + 3].sum() for x in range(13)] for y in range(13)] for of in steps]
        )
        norm = float((blurred[:, 1:-1, 1:-1] ** 2).sum()) ** 0.5
        expected = np.clip(np.rint(blurred.astype(float) * (NORM / norm)), -127, 127)
        assert np.array_equal(outlines, expected)


def test_equal_images_are_alike_and_others_are_not():
    outlines = compute_outlines(views())
    alike = compare_outlines(outlines, np.stack([outlines, np.roll(outlines, 1, axis=0)], axis=1))
    assert alike[:, 0] == pytest.approx(1, abs=0.05)
    assert np.median(alike[:, 1]) < 0.4


@pytest.mark.parametrize("shift", [(2, 0), (0, -2), (2, 2)])
def test_shifted_images_are_alike(shift):
    plain, shifted = compute_outlines(views()), compute_outlines(views(shift=shift))
    assert np.median(compare_outlines(plain, shifted[:, None])) > 0.9


@pytest.mark.parametrize("zoom", [(1.15, 1), (1, 1.15), (1.15, 1.15), (1 / 1.15, 1.15)])
def test_best_zoom_is_the_one_between_the_images(zoom):
    plain, zoomed = compute_outlines(views()), compute_outlines(views(zoom))
    alike, numbers = compare_zoomed_outlines(plain, zoomed)
    across, down = zoom
    # The first image is enlarged where the second one shows less, and the other way round.
    expected = ZOOMS.index(((down > 1, across > 1), (down < 1, across < 1)))
    assert (numbers == expected).mean() >= 0.8
    assert np.median(alike) > 0.85


def test_equal_images_need_no_zoom():
    outlines = compute_outlines(views())
    alike, numbers = compare_zoomed_outlines(outlines, outlines)
    assert not numbers.any()
    assert alike == pytest.approx(1, abs=0.02)


def test_flat_images_are_not_alike():
    outlines = compute_outlines(np.full((2, 3, 32, 32), 77, np.uint8))
    assert not outlines.any()
    assert compare_outlines(outlines, outlines[:, None]).tolist() == [[0], [0]]
    assert compare_zoomed_outlines(outlines, outlines)[0].tolist() == [0, 0]


def test_many_channels_do_not_overflow():
    images = np.random.default_rng(0).integers(0, 2, (2, 1, 32, 32), np.uint8) * np.uint8(255)
    outlines = compute_outlines(images.repeat(200, axis=1)).astype(int)
    assert abs(outlines - compute_outlines(images)).max() <= 1


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 5), st.booleans())
def test_sums_of_products_are_exact_in_float32(seed, channels, extreme):
    images = draw_noise(seed, 3, channels, extreme)
    outlines = compute_outlines(images)
    assert outlines.shape == (3, 2, GRID, GRID)
    assert (outlines.astype(np.int64) ** 2).sum(axis=(1, 2, 3)).max() <= EXACT_SUM
