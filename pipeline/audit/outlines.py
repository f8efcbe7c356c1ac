"""Outlines: the edges of an image, blurred to a coarse grid, which tell quickly whether a closer look is worth it."""

from functools import cache
from itertools import product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pipeline.audit.descriptors import SIDE
from pipeline.audit.edges import cut_steps, grey_line, zoom_weights
from shardset.reader import Array

GRID = 13  # points a side, two pixels apart
MARGIN = 2  # pixels left out, since many unrelated images have the same frame
NUM_STEPS = SIDE - 1 - 2 * MARGIN  # along each axis
WINDOW = GRID - 2  # points of one image that are compared with those of another one, shifted by up to one point
NORM = 400  # of the values in the middle window. Their products add up to less than 2^24, so float32 holds them exactly
ZOOM_UNITS = 16  # weights of points are multiples of 1 / ZOOM_UNITS
# Which of two images is enlarged along an axis: none, the first, the second.
AXIS_ZOOMS = ((0, 0), (1, 0), (0, 1))
# Whether the first image is enlarged down and across, and whether the second is. No zoom comes first.
ZOOMS = tuple(((down[0], across[0]), (down[1], across[1])) for down, across in product(AXIS_ZOOMS, repeat=2))

Floats = NDArray[np.float32]


def compute_outlines(images: Array) -> NDArray[np.int8]:
    """Compute the outlines of images (n, C, 32, 32) uint8, (n, 2, GRID, GRID): steps down, and to the right.

    Steps are clipped at their mean absolute value, so that a horizon doesn't outweigh everything else.
    """
    grey = grey_line(images)
    rows, columns = grey[1:] + grey[:-1], grey[SIDE:] + grey[:-SIDE]
    steps = cut_steps(rows[SIDE:] - rows[:-SIDE], columns[1:] - columns[:-1], MARGIN, SIDE - MARGIN - 1)
    limits = (np.abs(steps).sum(axis=1, keepdims=True, dtype=np.int64) // steps.shape[1] + 1).astype(steps.dtype)
    rows = np.clip(steps, -limits, limits).reshape(len(images), 2, NUM_STEPS, NUM_STEPS)
    # A point is the sum of 3 x 3 steps.
    blurred_rows = rows[:, :, :-2:2] + rows[:, :, 1:-1:2] + rows[:, :, 2::2]
    blurred = (blurred_rows.reshape(-1, NUM_STEPS).astype(np.float32) @ _blur()).reshape(-1, 2, GRID, GRID)
    middles = _middles(blurred).reshape(len(images), -1).astype(np.float64)  # in which all sums of squares are exact
    norms = np.sqrt(np.vecdot(middles, middles))[:, None, None, None]
    outlines: NDArray[np.int8] = np.clip(np.rint(blurred * (NORM / np.maximum(norms, 1))), -127, 127).astype(np.int8)
    return outlines


def mirror_outlines(outlines: Array) -> Array:
    """Return the outlines of the mirror images."""
    mirrored: Array = outlines[..., ::-1] * np.array([1, -1], outlines.dtype)[:, None, None]
    return mirrored


def compare_outlines(firsts: Array, seconds: Array) -> Floats:
    """Compute how alike outlines (n, 2, GRID, GRID) are to others (n, m, 2, GRID, GRID) at the best small shift.

    Returns (n, m), in [-1, 1] up to the difference of norms between windows.
    """
    middles = _middles(seconds).reshape(*seconds.shape[:2], -1).astype(np.float32)
    products = _windows(firsts) @ middles.transpose(0, 2, 1)
    best: Floats = products.max(axis=1) / np.float32(NORM**2)
    return best


def compare_zoomed_outlines(firsts: Array, seconds: Array) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Compute how alike pairs of outlines (n, 2, GRID, GRID) are at the best small shift and zoom.

    Returns that, (n,), and the index of the zoom in ZOOMS, (n,).
    """
    first_zooms, second_zooms = _zoom(firsts), _zoom(seconds)
    num_pairs, num_values = len(firsts), 2 * GRID * GRID
    # A window is a step along a line, and zeros around the middle leave out what it doesn't cover.
    middles = np.zeros_like(first_zooms)
    _middles(middles)[:] = _middles(first_zooms)
    middles = middles.reshape(num_pairs, 4, 1, 1, -1)
    lines = np.zeros((num_pairs, 4, num_values + 3 * GRID), np.float32)
    lines[:, :, GRID + 1 :][:, :, :num_values] = second_zooms.reshape(num_pairs, 4, -1)
    windows = sliding_window_view(lines, num_values, 2)[:, :, :-1].reshape(num_pairs, 4, 3, GRID, -1)[:, :, :, :3]
    first_norms, second_norms = _norms(first_zooms), _norms(second_zooms)
    alike = np.empty((num_pairs, len(ZOOMS)))
    for number, zooms in enumerate(ZOOMS):
        first, second = (2 * down + across for down, across in zooms)
        products = np.vecdot(windows[:, second], middles[:, first]).max(axis=(1, 2))
        alike[:, number] = products / np.maximum(first_norms[:, first] * second_norms[:, second], 1)
    return alike.max(axis=1), alike.argmax(axis=1)


@cache
def _blur() -> Floats:
    """Return the weights that blur a line of steps to GRID points, (steps, GRID)."""
    offsets = np.arange(NUM_STEPS)[:, None] - 2 * np.arange(GRID)
    return np.isin(offsets, (0, 1, 2)).astype(np.float32)


def _middles(outlines: Array) -> Array:
    return outlines[..., 1:-1, 1:-1]


def _norms(zooms: Floats) -> NDArray[np.float64]:
    """Compute the norms of the middles of zoomed outlines (n, 4, 2, GRID, GRID), (n, 4)."""
    middles = _middles(zooms).reshape(*zooms.shape[:2], -1)
    norms: NDArray[np.float64] = np.sqrt(np.vecdot(middles, middles).astype(np.float64))
    return norms


def _windows(outlines: Array) -> Floats:
    """Return all windows of outlines, (n, 9, 2 * WINDOW * WINDOW)."""
    windows = sliding_window_view(outlines, (WINDOW, WINDOW), (2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(len(outlines), 9, -1).astype(np.float32)


def _zoom(outlines: Array) -> Floats:
    """Enlarge outlines (n, 2, GRID, GRID) along neither axis, across, down and both, (n, 4, 2, GRID, GRID)."""
    weights = np.stack([ZOOM_UNITS * np.eye(GRID, dtype=np.float32), zoom_weights(GRID, ZOOM_UNITS)])
    num_images = len(outlines)
    across = outlines.astype(np.float32) @ weights.reshape(-1, GRID).T  # (n, 2, y, zoom and x)
    both = across.reshape(num_images, 2, GRID, 2, GRID).transpose(0, 3, 1, 4, 2) @ weights.reshape(-1, GRID).T
    # From (n, zoom across, 2, x, zoom down and y).
    both = both.reshape(num_images, 2, 2, GRID, 2, GRID).transpose(0, 4, 1, 2, 5, 3)
    return np.rint(both.reshape(num_images, 4, 2, GRID, GRID) / ZOOM_UNITS**2)
