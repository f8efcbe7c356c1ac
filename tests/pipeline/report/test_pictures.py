import base64
import io

import numpy as np
import pytest
from PIL import Image

from pipeline.numerics.reduce import reduce_images
from pipeline.report.pictures import (
    NEGATIVE,
    POSITIVE,
    ZERO,
    draw_image,
    draw_thumbnails,
    draw_values,
    thumbnail_bytes,
)
from tests.helpers.shard_sets import make_images, write_raw_set

IMAGES = {"train": make_images(21), "val": make_images(9, seed=2), "test": make_images(8, seed=1)}


def decode(png):
    assert png.url.startswith("data:image/png;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(png.url.partition(",")[2], validate=True)))
    image.load()  # compares the checksums
    assert image.size == (png.width, png.height)
    return np.array(image.convert("RGB"))


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (20, 33), (150, 151)])  # the last needs more than one block
def test_colours_are_drawn_as_they_are(size):
    (image,) = make_images(1, (3, *size))
    assert np.array_equal(decode(draw_image(image)), image.transpose(1, 2, 0))


@pytest.mark.parametrize(("num_channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_colours_are_the_first_three_channels_or_grey(num_channels, shown):
    (image,) = make_images(1, (num_channels, 8, 6))
    assert np.array_equal(decode(draw_image(image)), image[shown].transpose(1, 2, 0))


def test_thumbnails_show_the_images_asked_for(tmp_path):
    raw = write_raw_set(tmp_path / "raw", **IMAGES)
    asked = [("test", 7), ("train", 20), ("train", 0), ("test", 7), ("val", 3)]
    drawn = draw_thumbnails(raw, asked, 64)
    assert drawn.keys() == set(asked)
    for (split, index), png in drawn.items():
        assert np.array_equal(decode(png), IMAGES[split][index].transpose(1, 2, 0))


def test_thumbnails_are_reduced_to_their_side(tmp_path):
    images = make_images(3, (3, 300, 310))  # of which one is a block
    drawn = draw_thumbnails(write_raw_set(tmp_path / "raw", images), [("train", 2), ("train", 0)], 16)
    for index in (0, 2):
        (expected,) = reduce_images(images[[index]], 16)
        assert np.array_equal(decode(drawn["train", index]), expected.transpose(1, 2, 0))


def test_values_are_drawn_blue_to_white_to_red():
    values = np.zeros(256, np.float32)
    values[:5] = -2, -1, 0, 1, 2
    (row,) = decode(draw_values(np.arange(6, dtype=np.uint8)[None], values, limit=2)).tolist()
    between = [
        [round((end + white) / 2) for end, white in zip(color, ZERO, strict=True)] for color in (NEGATIVE, POSITIVE)
    ]
    assert row == [list(NEGATIVE), between[0], list(ZERO), between[1], list(POSITIVE), list(ZERO)]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (2, 5, 9), (3, 224, 224), (3, 1, 1)])
@pytest.mark.parametrize("side", [32, 96])
def test_thumbnails_take_no_more_bytes_than_estimated(shape, side, tmp_path):
    raw = write_raw_set(tmp_path / "raw", make_images(1, shape))
    (png,) = draw_thumbnails(raw, [("train", 0)], side).values()
    assert 0 < thumbnail_bytes(shape, side) - len(png.url) < 500
