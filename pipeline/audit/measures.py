"""What is measured of each image, from blocks of images (n, C, H, W) uint8. All of it in integers."""

from functools import cache
from math import log2

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.numerics.sums import PIXEL_MAX, Integers
from shardset.reader import Array

NUM_VALUES = PIXEL_MAX + 1
PLAIN_RANGE = 8  # of the pixel values of a row or column that counts as plain
ENTROPY_UNITS = 2**20  # per bit


def count_values(pixels: Array) -> Integers:
    """Count how often each pixel value occurs in each channel of each image, (n, C, 256)."""
    num_images, num_channels = pixels.shape[:2]
    offsets = NUM_VALUES * np.arange(num_images * num_channels)[:, None]
    cells = pixels.reshape(num_images * num_channels, -1) + offsets
    counts = np.bincount(cells.ravel(), minlength=offsets.size * NUM_VALUES)
    return counts.reshape(num_images, num_channels, NUM_VALUES)


def count_channels(pixels: Array) -> Integers:
    """Count how often each pixel value occurs in each channel of all images together, (C, 256)."""
    counts = []
    for channel in pixels.reshape(*pixels.shape[:2], -1).swapaxes(0, 1):
        height, width = channel.shape
        image = Image.frombuffer("L", (width, height), np.ascontiguousarray(channel), "raw", "L", 0, 1)
        counts.append(image.histogram())  # three times as fast as np.bincount
    return np.array(counts, np.int64)


def count_clipped(pixels: Array) -> Integers:
    """Count the values of each image that are 0 or 255, (n,)."""
    is_clipped = pixels.reshape(len(pixels), -1) - np.uint8(1) >= PIXEL_MAX - 1  # 0 - 1 is 255
    return np.array([np.count_nonzero(of_image) for of_image in is_clipped])


def find_grey(pixels: Array) -> NDArray[np.bool_]:
    """Find images with several channels that are equal in every pixel, (n,)."""
    equal: NDArray[np.bool_] = (pixels[:, 1:] == pixels[:, :1]).all(axis=(1, 2, 3)) & (pixels.shape[1] > 1)
    return equal


def measure_borders(pixels: Array) -> NDArray[np.float64]:
    """Measure the share of each image that a plain frame takes, or plain bars at opposite edges, (n,)."""
    inner = np.ones(len(pixels))
    for lines in (pixels, pixels.swapaxes(2, 3)):
        # Most images have no plain edge, which is quickly seen.
        framed = np.flatnonzero(_find_plain(lines[:, :, [0, -1]]).all(axis=1))
        plain = _find_plain(lines[framed])
        length = plain.shape[1]
        widths = np.argmin(plain, axis=1) + np.argmin(plain[:, ::-1], axis=1)
        inner[framed] *= 1 - np.where(plain.all(axis=1), length, widths) / length
    return 1 - inner


def measure_entropies(pixels: Array) -> NDArray[np.float64]:
    """Measure the entropy of each image's grey values in bits, (n,)."""
    grey = (pixels.sum(axis=1, dtype=np.uint16) // pixels.shape[1]).astype(np.uint8)
    counts = count_values(grey[:, None])[:, 0]
    num_pixels = grey[0].size
    terms = _entropy_terms(num_pixels)
    sums = terms[counts].sum(axis=1)
    entropies: NDArray[np.float64] = (terms[-1] - sums) / (num_pixels * ENTROPY_UNITS)
    return entropies


def _find_plain(lines: Array) -> NDArray[np.bool_]:
    """Find lines of one colour, (n, lines), of images (n, C, lines, pixels)."""
    plain: NDArray[np.bool_] = (lines.max(axis=3) - lines.min(axis=3) <= PLAIN_RANGE).all(axis=1)
    return plain


@cache
def _entropy_terms(num_pixels: int) -> Integers:
    """Compute n * log2(n) for n up to `num_pixels`, as integers, whose sum is the same in any order."""
    terms = [count * log2(count or 1) * ENTROPY_UNITS for count in range(num_pixels + 1)]
    return np.rint(terms).astype(np.int64)
