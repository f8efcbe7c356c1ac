"""Images resized by averaging, exactly."""

import numpy as np
from numpy.typing import NDArray

from shardset.reader import Array


def reduce_images(pixels: Array, side: int) -> Array:
    """Reduce images (n, C, H, W) uint8 to at most side x side pixels, as `resize_images` does."""
    return resize_images(pixels, min(pixels.shape[2], side), min(pixels.shape[3], side))


def resize_images(pixels: Array, height: int, width: int) -> Array:
    """Resize images (n, C, H, W) uint8 to height x width pixels, each the mean of what it covers, rounded.

    Where a pixel lies across a border, both sides count their share of it.
    """
    if pixels.shape[2:] == (height, width):
        return pixels
    num_units = pixels.shape[2] * pixels.shape[3]
    # Sums of integers, exact in whatever order they are added, while float32 holds them up to 2^24 or float64 to 2^53.
    wide_enough = np.float32 if 255 * num_units < 2**24 else np.float64
    if pixels.shape[2] % height:
        rows = _shares(pixels.shape[2], height).astype(wide_enough) @ pixels.astype(wide_enough)
    else:
        rows = height * _sum_rows(pixels, height).astype(wide_enough)
    sums = (rows @ _shares(pixels.shape[3], width).T.astype(wide_enough)).astype(np.int64)
    resized: Array = ((2 * sums + num_units) // (2 * num_units)).astype(np.uint8)
    return resized


def _sum_rows(pixels: Array, height: int) -> Array:
    """Sum as many rows into each of `height` new ones, seven times as fast as a product of matrices."""
    num_images, num_channels, old_height, width = pixels.shape
    groups = pixels.reshape(num_images, num_channels, height, old_height // height, width)
    sums = np.zeros((num_images, num_channels, height, width), np.uint32)
    for number in range(groups.shape[3]):
        sums += groups[:, :, :, number]
    return sums


def _shares(size: int, new_size: int) -> NDArray[np.int64]:
    """Compute how much each pixel adds to each new pixel, (new_size, size), in units of 1 / new_size of a pixel."""
    first, units = np.arange(new_size)[:, None] * size, np.arange(size) * new_size
    shares: NDArray[np.int64] = np.maximum(np.minimum(first + size, units + new_size) - np.maximum(first, units), 0)
    return shares
