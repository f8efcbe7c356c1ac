"""Sums over pixels, every one exact.

Pixels are integers, so their sums are taken in integers: no order, thread count or shard size can change them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

PIXEL_MAX = 255


@dataclass(frozen=True)
class ChannelSums:
    """Sums over the pixels v of one channel, in [0, 255]."""

    num_pixels: int
    sum: int
    sum_of_squares: int
    # Over images of n pixels: sqrt(n * sum(v^2) - sum(v)^2), which is n times the image's own std, as float64.
    sum_of_roots: Fraction
    min: int
    max: int

    @property
    def mean(self) -> float:
        """The mean of pixels scaled to [0, 1], rounded once."""
        return self.sum / (self.num_pixels * PIXEL_MAX)

    @property
    def std(self) -> float:
        """The population standard deviation of pixels scaled to [0, 1], rounded once."""
        squared_deviations = self.num_pixels * self.sum_of_squares - self.sum**2
        return sqrt_of_fraction(Fraction(squared_deviations, (self.num_pixels * PIXEL_MAX) ** 2))

    @property
    def std_per_image(self) -> float:
        """The mean over images of each image's own std: correctly rounded roots, whose sum is rounded once."""
        # N images have num_pixels / N pixels each, so N cancels out of the mean.
        return float(self.sum_of_roots) / (self.num_pixels * PIXEL_MAX)


def merge_sums(parts: Sequence[ChannelSums]) -> ChannelSums:
    """Combine the sums of consecutive samples."""
    return ChannelSums(
        num_pixels=sum(part.num_pixels for part in parts),
        sum=sum(part.sum for part in parts),
        sum_of_squares=sum(part.sum_of_squares for part in parts),
        sum_of_roots=sum((part.sum_of_roots for part in parts), Fraction(0)),
        min=min(part.min for part in parts),
        max=max(part.max for part in parts),
    )


def sum_channels(blocks: Iterable[NDArray[np.uint8]]) -> list[ChannelSums]:
    """Sum images, blocks of (n, C, H, W) uint8, channel by channel."""
    by_image: list[tuple[Integers, Integers]] = []
    low, high, pixels_per_image = [], [], 0
    for block in blocks:
        pixels = block.reshape(*block.shape[:2], -1)
        pixels_per_image = pixels.shape[-1]
        by_image.append(sum_images(pixels))
        low.append(pixels.min(axis=0).min(axis=-1))  # twice as fast as over both axes at once
        high.append(pixels.max(axis=0).max(axis=-1))
    sums, squares = (np.concatenate(parts) for parts in zip(*by_image, strict=True))
    return combine_images(sums, squares, np.min(low, axis=0), np.max(high, axis=0), pixels_per_image)


def combine_images(
    sums: Integers, squares: Integers, low: Integers, high: Integers, pixels_per_image: int
) -> list[ChannelSums]:
    """Combine the sums of images, (N, C) each as from `sum_images`, and the range of each channel, (C,) each."""
    return [
        ChannelSums(
            num_pixels=len(sums) * pixels_per_image,
            sum=int(sums[:, channel].sum()),
            sum_of_squares=int(squares[:, channel].sum()),
            sum_of_roots=sum_exactly(_image_roots(sums[:, channel], squares[:, channel], pixels_per_image)),
            min=int(low[channel]),
            max=int(high[channel]),
        )
        for channel in range(sums.shape[1])
    ]


def sum_images(pixels: NDArray[np.uint8]) -> tuple[Integers, Integers]:
    """Sum the pixels and their squares of each image and channel, (n, C) each, from (n, C, pixels) uint8."""
    # Floats are faster, and exact in any order while sums of integers stay below 2^24 in float32 or 2^53 in float64.
    # 256 * 255^2 does; an image that can't be cut into rows of 256 needs float64.
    row, wide_enough = (256, np.float32) if pixels.shape[-1] % 256 == 0 else (pixels.shape[-1], np.float64)
    rows = pixels.reshape(*pixels.shape[:2], -1, row).astype(wide_enough)
    sums, squares = np.vecdot(rows, np.ones(row, wide_enough)), np.vecdot(rows, rows)
    return sums.sum(axis=-1, dtype=np.int64), squares.sum(axis=-1, dtype=np.int64)


def sum_exactly(values: NDArray[np.float64]) -> Fraction:
    """Add finite numbers without rounding."""
    mantissas, exponents = np.frexp(values)
    integers = (mantissas * 2**53).astype(np.int64)
    total = Fraction(0)
    for exponent in np.unique(exponents).tolist():
        of_exponent = integers[exponents == exponent]
        # In two halves, whose sums 64 bits can hold.
        high, low = int((of_exponent >> 32).sum()), int((of_exponent & 0xFFFFFFFF).sum())
        total += ((high << 32) + low) * Fraction(2) ** (exponent - 53)
    return total


def sqrt_of_fraction(fraction: Fraction) -> float:
    """Compute a square root, correctly rounded to float64."""
    if not fraction:
        return 0.0
    # Scaled so that the root has at least 64 bits. Its last bit is set where the root continues ("round to odd"), so
    # that the single rounding of the final division never mistakes a root just above a tie for the tie.
    shift = max(0, 66 - (fraction.numerator.bit_length() - fraction.denominator.bit_length()) // 2)
    scaled, remainder = divmod(fraction.numerator << (2 * shift), fraction.denominator)
    root = isqrt(scaled)
    return (root | bool(remainder or root * root != scaled)) / (1 << shift)


def _image_roots(sums: Integers, squares: Integers, pixels_per_image: int) -> NDArray[np.float64]:
    """Compute sqrt(n * sum(v^2) - sum(v)^2) for each image, correctly rounded."""
    if (pixels_per_image * PIXEL_MAX) ** 2 < 2**53:
        # float64 holds the radicand exactly, and IEEE 754 rounds its root correctly.
        return np.sqrt((pixels_per_image * squares - sums * sums).astype(np.float64))
    pairs = zip(sums.tolist(), squares.tolist(), strict=True)
    return np.array([sqrt_of_fraction(Fraction(pixels_per_image * square - total**2)) for total, square in pairs])
