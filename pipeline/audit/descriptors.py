"""Descriptors: the colours of an image on a grid, as a few integers whose products tell how alike two images are.

They are Walsh-Hadamard coefficients: sums of the cells with signs of a checkered pattern. Mirroring an image negates
those whose pattern is odd and keeps those whose pattern is even. With E and O for the dot products of both parts, an
image resembles another one by E + O and its mirror image by E - O, so the better of both is E + |O|.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from shardset.reader import Array

SIDE = 32  # pixels of the images described
GRID = 8  # cells a side for brightness
COLOUR_GRID = 4  # cells a side for each of the two differences of colours
# Sums of products of descriptors are below 2^24, so float32 holds each of them exactly in whatever order it is added.
EXACT_SUM = 2**24
# How much each channel adds to the values of a grid.
Weights = dict[int, tuple[tuple[int, ...], ...]]
RGB_WEIGHTS: Weights = {GRID: ((1, 2, 1),), COLOUR_GRID: ((2, 0, -2), (-2, 4, -2))}


def compute_descriptors(images: Array) -> NDArray[np.int16]:
    """Compute the descriptors of images (n, C, 32, 32) uint8, (n, D) with a norm of at most 2^12. Even parts are first.

    Brightness and contrast cancel out, so a flat image has only zeros. Images of other than 3 channels are described by
    the sum of these.
    """
    num_images, num_channels = images.shape[:2]
    strips = images.reshape(num_images, num_channels, GRID, -1, SIDE).sum(axis=3, dtype=np.uint16)
    coefficients = strips.reshape(num_images, -1).astype(np.float32) @ _patterns(num_channels)
    values = coefficients.astype(np.int64)
    norms = np.sqrt((values * values).sum(axis=1, keepdims=True))
    # Rounding can add as much as half the root of the number of values to the norm.
    level = EXACT_SUM**0.5 - values.shape[1] ** 0.5 / 2
    descriptors: NDArray[np.int16] = np.rint(values / np.maximum(norms, 1) * level).astype(np.int16)
    return descriptors


def count_even(num_channels: int) -> int:
    """Return how many values of a descriptor are even under mirroring; the others follow them."""
    return sum(len(weights) * (grid * grid // 2 - 1) for grid, weights in _weights(num_channels).items())


def count_values(num_channels: int) -> int:
    """Return how many values a descriptor has."""
    return sum(len(weights) * (grid * grid - 1) for grid, weights in _weights(num_channels).items())


def _weights(num_channels: int) -> Weights:
    return RGB_WEIGHTS if num_channels == len("rgb") else {GRID: ((1,) * num_channels,)}


@cache
def _patterns(num_channels: int) -> NDArray[np.float32]:
    """Return the sign and weight of each channel, strip and column in each coefficient, (C * GRID * SIDE, D)."""
    even: list[Array] = []
    odd: list[Array] = []
    for grid, all_weights in _weights(num_channels).items():
        signs = _walsh(grid)
        for weights in all_weights:
            for number in range(1, grid * grid):  # without 0, the mean
                down, across = divmod(number, grid)
                cells = np.outer(signs[down].repeat(GRID // grid), signs[across].repeat(SIDE // grid))
                is_odd = not np.array_equal(signs[across], signs[across, ::-1])
                (odd if is_odd else even).append(np.multiply.outer(weights, cells).ravel())
    return np.stack(even + odd, axis=1).astype(np.float32)


def _walsh(size: int) -> NDArray[np.int64]:
    signs = np.ones((1, 1), np.int64)
    while len(signs) < size:
        signs = np.block([[signs, signs], [signs, -signs]])
    return signs
