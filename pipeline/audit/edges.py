"""The distance of two images: how far their edges are from equal, at the best small shift."""

from functools import cache
from itertools import product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pipeline.audit.descriptors import EXACT_SUM, SIDE
from shardset.reader import Array

MARGIN = 3  # pixels left out, since many unrelated images have the same frame
MAX_INT16_CHANNELS = 4  # of which sums of twelve pixels fit in 16 bits
MAX_SHIFT = 2  # pixels
NUM_SHIFTS = 2 * MAX_SHIFT + 1  # along each axis
ZOOM = 1.15
ZOOM_UNITS = 64  # weights of pixels are multiples of 1 / ZOOM_UNITS

Floats = NDArray[np.float32]


def compute_edges(images: Array) -> Floats:
    """Compute the edges of images (n, C, 32, 32) uint8 as steps down and to the right, (n, 2, h, w) integers.

    The image is converted to grey and smoothed. Steps are clipped at their mean absolute value, so that a horizon or
    an outline doesn't outweigh everything else.
    """
    grey = grey_line(images)
    rows = grey[SIDE:] + grey[:-SIDE]
    smooth = rows[1:] + rows[:-1]
    steps = cut_steps(smooth[SIDE:] - smooth[:-SIDE], smooth[1:] - smooth[:-1], MARGIN, SIDE - MARGIN - 2)
    limits = (np.abs(steps).sum(axis=1, keepdims=True, dtype=np.int64) / steps.shape[1]).astype(np.float32)
    # The squares of all values add up to less than 2^24, so float32 holds each sum of products exactly.
    level = (EXACT_SUM / steps.shape[1]) ** 0.5 - 1
    scaled = steps.astype(np.float32) * (np.float32(level) / np.maximum(limits, np.float32(1 / steps.shape[1])))
    edges: Floats = np.rint(np.clip(scaled, -np.float32(level), np.float32(level)))
    return edges.reshape(len(images), 2, SIDE - 2 * MARGIN - 2, -1)


def grey_line(images: Array) -> Array:
    """Convert images (n, C, 32, 32) uint8 to grey, as one line of integers, on which numpy is faster than on rows."""
    dtype = np.int16 if images.shape[1] <= MAX_INT16_CHANNELS else np.int32
    line: Array = images.sum(axis=1, dtype=dtype).ravel()
    return line


def cut_steps(down: Array, right: Array, start: int, stop: int) -> Array:
    """Cut rows and columns [start, stop) out of steps on a line of images, (n, 2 * rows * columns).

    Steps from one row or image to the next lie outside of these.
    """
    num_images = len(down) // SIDE**2 + 1
    steps = np.empty((num_images, 2, stop - start, stop - start), down.dtype)
    for number, line in enumerate((down, right)):
        padded = np.zeros(num_images * SIDE**2, line.dtype)
        padded[: len(line)] = line
        steps[:, number] = padded.reshape(-1, SIDE, SIDE)[:, start:stop, start:stop]
    return steps.reshape(num_images, -1)


def compute_distances(firsts: Floats, seconds: Floats) -> NDArray[np.float64]:
    """Compute 1 - the correlation of edges (n, 2, h, w) where they overlap, at the best shift within MAX_SHIFT."""
    num_images, _, height, width = firsts.shape
    # A shift is a step along a line, because there are zeros between rows and between channels.
    lines = np.zeros((2, num_images, 2, height + MAX_SHIFT, width + MAX_SHIFT), np.float32)
    lines[:, :, :, :height, :width] = firsts, seconds
    first, second = lines.reshape(2, num_images, -1)
    row, num_values = width + MAX_SHIFT, first.shape[1]
    padded = np.zeros((num_images, num_values + NUM_SHIFTS * row), np.float32)
    padded[:, MAX_SHIFT * (row + 1) :][:, :num_values] = second
    windows = sliding_window_view(padded, num_values, 1)[:, :-1].reshape(num_images, NUM_SHIFTS, row, -1)
    products = np.vecdot(windows[:, :, :NUM_SHIFTS], first[:, None, None]).reshape(num_images, -1)
    overlaps = _overlaps(height, width)
    norms = (first * first @ overlaps).astype(np.float64) * (second * second @ overlaps[:, ::-1])
    distances: NDArray[np.float64] = 1 - (products / np.sqrt(np.maximum(norms, 1))).max(axis=1)
    return np.maximum(distances, 0)


def zoom_images(images: Array, down: bool, across: bool) -> Array:
    """Enlarge images (n, C, 32, 32) uint8 by ZOOM about their middle, along the axes given, and crop them."""
    if not down and not across:
        return images
    zoom, same = zoom_weights(SIDE, ZOOM_UNITS), ZOOM_UNITS * np.eye(SIDE, dtype=np.float32)
    sums = (zoom if down else same) @ images.astype(np.float32) @ (zoom if across else same).T
    return np.floor(sums / ZOOM_UNITS**2 + 0.5).astype(np.uint8)


@cache
def zoom_weights(size: int, units: int) -> Floats:
    """Return the weights that enlarge a line of `size` values about its middle, (size, size) multiples of 1 / units."""
    middle = (size - 1) / 2
    positions = (np.arange(size) - middle) / ZOOM + middle
    first = np.floor(positions).astype(np.int64)
    shares = np.rint((positions - first) * units)
    weights = np.zeros((size, size), np.float32)
    weights[np.arange(size), first] = units - shares
    weights[np.arange(size), first + 1] += shares
    return weights


@cache
def _overlaps(height: int, width: int) -> Floats:
    """Return 1 where the first image of a pair overlaps the second one, (values of a line, shifts)."""
    overlaps = np.zeros((NUM_SHIFTS**2, 2, height + MAX_SHIFT, width + MAX_SHIFT), np.float32)
    for overlap, (down, right) in zip(overlaps, product(range(-MAX_SHIFT, MAX_SHIFT + 1), repeat=2), strict=True):
        overlap[:, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)] = 1
    return overlaps.reshape(len(overlaps), -1).T.copy()
