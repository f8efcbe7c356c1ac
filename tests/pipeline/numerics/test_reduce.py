from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.numerics.reduce import reduce_images, resize_images

sizes = st.integers(1, 9)


def slow_mean(row, first, last):
    """The mean of a row over [first, last), in which both ends may be fractions."""
    total = sum(max(0, min(last, i + 1) - max(first, i)) * Fraction(int(value)) for i, value in enumerate(row))
    return total / (last - first)


@given(sizes, sizes, sizes, sizes, st.integers(0, 5))
def test_each_pixel_is_the_rounded_mean_of_what_it_covers(height, width, rows, columns, seed):
    image = np.random.default_rng(seed).integers(0, 256, (1, 1, height, width), np.uint8)
    expected = np.empty((rows, columns), np.uint8)
    for down in range(rows):
        for across in range(columns):
            edges = [Fraction(width * n, columns) for n in (across, across + 1)]
            by_row = [slow_mean(row, *edges) for row in image[0, 0]]
            total = Fraction(0)
            first, last = Fraction(height * down, rows), Fraction(height * (down + 1), rows)
            for i, value in enumerate(by_row):
                total += max(Fraction(0), min(last, Fraction(i + 1)) - max(first, Fraction(i))) * value
            expected[down, across] = (total / (last - first) + Fraction(1, 2)).__floor__()
    assert np.array_equal(resize_images(image, rows, columns)[0, 0], expected)


def test_longer_sides_alone_are_reduced():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 50, 20), np.uint8)
    assert np.array_equal(reduce_images(images, 32), resize_images(images, 32, 20))


def test_small_images_stay_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 20), np.uint8)
    assert reduce_images(images, 32) is images


@pytest.mark.parametrize("size", [256, 257, 3000])
def test_large_white_images_stay_white(size):
    assert (reduce_images(np.full((1, 1, size, size), 255, np.uint8), 32) == 255).all()


def test_images_and_channels_are_reduced_by_themselves():
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 50, 70), np.uint8)
    one_by_one = [[reduce_images(images[i : i + 1, c : c + 1], 32)[0, 0] for c in range(2)] for i in range(3)]
    assert np.array_equal(reduce_images(images, 32), one_by_one)
