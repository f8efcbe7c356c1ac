"""Images made smaller by averaging, exactly."""

import numpy as np
from numpy.typing import NDArray

from shardset.reader import Array


def reduce_images(pixels: Array, side: int) -> Array:
    """Reduce images (n, C, H, W) uint8 to at most side x side pixels, each the mean of what it covers, rounded.

    Where a pixel lies across a border, both sides count their share of it.
    """
    height, width = pixels.shape[2:]
    if max(height, width) <= side:
        return pixels
    down, across = _shares(height, side), _shares(width, side)
    num_units = int(down[0].sum() * across[0].sum())
    # Sums of integers, exact in whatever order they are added, while float32 holds them up to 2^24 or float64 to 2^53.
    wide_enough = np.float32 if 255 * num_units < 2**24 else np.float64
    sums = (down.astype(wide_enough) @ pixels.astype(wide_enough) @ across.T.astype(wide_enough)).astype(np.int64)
    reduced: Array = ((2 * sums + num_units) // (2 * num_units)).astype(np.uint8)
    return reduced


def _shares(size: int, side: int) -> NDArray[np.int64]:
    """Compute how much each pixel adds to each pixel of the reduced image, (min(size, side), size), in equal units."""
    if size <= side:
        return np.eye(size, dtype=np.int64)
    # In units of 1 / side of a pixel, so that a reduced pixel covers `size` units.
    first, units = np.arange(side)[:, None] * size, np.arange(size) * side
    shares: NDArray[np.int64] = np.maximum(np.minimum(first + size, units + side) - np.maximum(first, units), 0)
    return shares
