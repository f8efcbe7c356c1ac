from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.numerics.statistics import merge_channels
from pipeline.numerics.sums import sqrt_of_fraction, sum_channels, sum_exactly, sum_images

EPSILON = Fraction(1, 2**53)  # the relative error of one rounding to float64
MEGAPIXEL = 1000 * 1000

images = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 7), st.integers(1, 7)))


def decimal_sqrt(fraction):
    """Sixty digits of a square root, far more than a float64 holds."""
    with localcontext(prec=60):
        return (Decimal(fraction.numerator) / Decimal(fraction.denominator)).sqrt()


def exact_mean(values):
    return sum(values, Fraction(0)) / len(values)


def exact_variance(values):
    mean = exact_mean(values)
    return exact_mean([(value - mean) ** 2 for value in values])


def exact_std_per_image(channel):
    """The mean over images of each image's own std, for (N, H, W) uint8, to some fifty digits."""
    variances = [exact_variance([Fraction(v, 255) for v in image.ravel().tolist()]) for image in channel]
    with localcontext(prec=60):
        return Fraction(sum(map(decimal_sqrt, variances)) / len(variances))


def sum_by_counts(pixels):
    """Sum pixels and their squares by how often each value occurs, in Python's integers."""
    counts = list(enumerate(np.bincount(pixels.ravel(), minlength=256).tolist()))
    return sum(value * count for value, count in counts), sum(value**2 * count for value, count in counts)


def defined_std_per_image(channel):
    """The figure as defined, for (N, H, W) uint8: roots rounded once, their exact sum rounded once, divided once."""
    roots = []
    for image in channel:
        total, squares = sum_by_counts(image)
        roots.append(Fraction(float(decimal_sqrt(Fraction(image.size * squares - total**2)))))
    return float(sum(roots)) / (channel.size * 255)


def make_bits(num_pixels, num_ones, high=1):
    """An image of one row, (1, 1, 1, num_pixels), with `num_ones` pixels of value `high`, all others 0."""
    image = np.zeros((1, 1, 1, num_pixels), np.uint8)
    image[..., :num_ones] = high
    return image


@given(images, st.integers(1, 9))
def test_mean_and_std_are_exact_values_rounded_once(array, size):
    channels = sum_channels(array[start : start + size] for start in range(0, len(array), size))
    assert len(channels) == array.shape[1]
    for index, channel in enumerate(channels):
        pixels = [Fraction(pixel, 255) for pixel in array[:, index].ravel().tolist()]
        assert channel.num_pixels == len(pixels)
        assert channel.mean == float(exact_mean(pixels))
        assert channel.std == float(decimal_sqrt(exact_variance(pixels)))
        assert (channel.min, channel.max) == (array[:, index].min(), array[:, index].max())


@given(images, st.integers(1, 9))
def test_std_per_image_has_three_roundings_at_most(array, size):
    channels = sum_channels(array[start : start + size] for start in range(0, len(array), size))
    for index, channel in enumerate(channels):
        assert channel.std_per_image == defined_std_per_image(array[:, index])
        exact = exact_std_per_image(array[:, index])
        assert abs(Fraction(channel.std_per_image) - exact) <= ((1 + EPSILON) ** 3 - 1) * exact


@pytest.mark.parametrize("seed", range(3))
def test_megapixel_image_has_exact_figures(seed):
    # Of much contrast: black and white, with noise.
    noise = np.random.default_rng(seed).integers(0, 256, (1, 1, 1000, 1000), np.uint8)
    array = np.where(noise < 128, noise // 8, 255 - noise // 16)
    (channel,) = sum_channels([array])
    total, squares = sum_by_counts(array)
    radicand = MEGAPIXEL * squares - total**2
    assert radicand > 2**53
    assert channel.mean == float(Fraction(total, MEGAPIXEL * 255))
    assert channel.std == float(decimal_sqrt(Fraction(radicand, (MEGAPIXEL * 255) ** 2)))
    assert channel.std_per_image == defined_std_per_image(array[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("side", [4100, 6001])  # a radicand of int64 overflows from 16.8 megapixels on
def test_image_of_many_megapixels_has_an_exact_std(side):
    num_pixels = side**2
    image = np.zeros((1, 1, side, side), np.uint8)
    image.ravel()[: num_pixels * 3 // 4] = 255
    image.ravel()[-3:] = 7
    total, squares = sum_by_counts(image)
    assert num_pixels * squares > 2**63
    (channel,) = sum_channels([image])
    assert channel.std == float(decimal_sqrt(Fraction(num_pixels * squares - total**2, (num_pixels * 255) ** 2)))
    assert channel.std_per_image == defined_std_per_image(image[:, 0])


# The first counts from 400,000 on where float64 rounds the radicand, beyond 2^53, and so gets the root wrong.
@pytest.mark.parametrize("num_ones", [400_005, 400_013, 400_019, 400_027])
def test_root_beyond_float64_integers_is_rounded_once(num_ones):
    image = make_bits(MEGAPIXEL, num_ones, high=255)
    radicand = 255**2 * num_ones * (MEGAPIXEL - num_ones)
    rounded_once = float(decimal_sqrt(Fraction(radicand)))
    assert float(np.sqrt(np.float64(radicand))) != rounded_once
    (channel,) = sum_channels([image])
    assert channel.sum_of_roots == Fraction(rounded_once)
    assert channel.std_per_image == rounded_once / (MEGAPIXEL * 255)


@pytest.mark.parametrize(
    "num_pixels", [372_180, 372_181, 372_182, 372_183]
)  # float64 holds every radicand up to the second
def test_roots_are_right_where_the_method_changes(num_pixels):
    array = np.concatenate([make_bits(num_pixels, num_pixels // 2 + odd, high=255) for odd in range(4)])
    (channel,) = sum_channels([array])
    expected = [
        float(decimal_sqrt(Fraction(255**2 * ones * (num_pixels - ones))))
        for ones in range(num_pixels // 2, num_pixels // 2 + 4)
    ]
    assert channel.sum_of_roots == sum(map(Fraction, expected))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2**32))
def test_merged_sums_equal_those_of_all_images(sizes, seed):
    array = np.random.default_rng(seed).integers(0, 256, (sum(sizes), 2, 5, 5), np.uint8)
    parts = np.split(array, np.cumsum(sizes)[:-1])
    merged = merge_channels([sum_channels([part]) for part in parts])
    for whole, channel in zip(sum_channels([array]), merged, strict=True):
        for name in (
            "num_pixels",
            "sum",
            "sum_of_squares",
            "sum_of_roots",
            "min",
            "max",
            "mean",
            "std",
            "std_per_image",
        ):
            assert getattr(channel, name) == getattr(whole, name)


@given(st.permutations(range(24)))
def test_figures_do_not_depend_on_the_order_of_images(order):
    array = np.random.default_rng(0).integers(0, 256, (24, 2, 5, 5), np.uint8)
    for channel, other in zip(sum_channels([array]), sum_channels([array[order]]), strict=True):
        for name in ("mean", "std", "std_per_image", "min", "max"):
            assert getattr(channel, name) == getattr(other, name)


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 7, 255, 256, 257, 768])))
)
@example(np.full((2, 3, 1024), 255, np.uint8))
@example(np.full((1, 1, 65_536), 255, np.uint8))
@example(np.full((1, 1, 65_537), 255, np.uint8))
def test_sums_by_image_are_those_of_integers(pixels):
    sums, squares = sum_images(pixels)
    wide = pixels.astype(np.int64)
    assert np.array_equal(sums, wide.sum(axis=-1))
    assert np.array_equal(squares, (wide * wide).sum(axis=-1))


@pytest.mark.parametrize("side", [300, 512, 1000])
def test_sums_of_large_white_images_do_not_overflow(side):
    white = np.full((1, 1, side, side), 255, np.uint8)
    (sums,) = sum_channels([white])
    assert (sums.sum, sums.sum_of_squares) == (side**2 * 255, side**2 * 255**2)
    assert (sums.mean, sums.std, sums.std_per_image) == (1, 0, 0)


@given(st.fractions(min_value=0), st.integers(-300, 300))
def test_square_root_is_correctly_rounded(fraction, exponent):
    scaled = fraction * Fraction(2) ** exponent
    assert sqrt_of_fraction(scaled) == float(decimal_sqrt(scaled))


@given(st.integers(2**52, 2**53 - 1))
def test_square_root_near_a_tie_is_rounded_to_the_right_side(mantissa):
    tie = Fraction(2 * mantissa + 1, 2)
    above, below = tie**2 + Fraction(1, 2**80), tie**2 - Fraction(1, 2**80)
    assert sqrt_of_fraction(above) == mantissa + 1
    assert sqrt_of_fraction(below) == mantissa


@pytest.mark.parametrize(("num_pixels", "num_ones"), [(10_252, 3), (18_047, 16), (20_504, 6)])
def test_std_near_a_tie_is_rounded_to_the_right_side(num_pixels, num_ones):
    image = make_bits(num_pixels, num_ones)
    exact = Fraction(num_ones * (num_pixels - num_ones), (num_pixels * 255) ** 2)
    (channel,) = sum_channels([image])
    assert channel.std == float(decimal_sqrt(exact))
    assert channel.std_per_image == defined_std_per_image(image[:, 0])


@given(st.lists(st.floats(0, 1e300, allow_subnormal=False), max_size=50))
def test_sum_is_exact(values):
    assert sum_exactly(np.array(values, np.float64)) == sum(map(Fraction, values))


def test_sum_of_many_large_values_is_exact():
    values = np.full(100_000, float(2**53 - 1))
    assert sum_exactly(values) == (2**53 - 1) * 100_000
