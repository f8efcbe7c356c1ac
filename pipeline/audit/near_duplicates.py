"""Near-duplicates: a search among the train images for each image of the other splits.

The search has two steps. A coarse step compares all images, plain and mirrored, by their colours on a grid, and keeps a
few candidates for each image. A fine step compares the edges of those at all small shifts. Edges are more specific than
pixels: many images have sky above sea, but only near-duplicates have all outlines in the same places.

Images of more than 32 pixels a side are reduced to 32 first. The time and the memory of a comparison, and what is taken
for a near-duplicate, are then the same for images of any size.

All values compared are integers whose sums stay below 2^24, so float32 holds each sum exactly in whatever order it is
added. The pairs are therefore the same on every machine, although a matrix product finds them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.tasks import map_tasks
from shardset.manifest import Split
from shardset.reader import Array, split_range
from shardset.shards import ShardSet

# A convention, chosen by looking at pairs of CIFAR-10, see docs/near-duplicates.md.
MAX_DISTANCE = 0.35
EXACT_SUM = 2**24
SIDE = 32  # pixels of a reduced image
GRID = 8  # cells per side
NUM_CANDIDATES = 8
MIN_SIMILARITY = 0.5  # of candidates, in [-1, 1]
IMAGES_PER_TASK = 32
TRAIN_PER_BLOCK = 8192  # compared with the images of a task at once: 2 MB of similarities

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class NearDuplicate:
    """A sample of a split and a train sample, by index; `distance` is 0 for equal edges, 1 for unrelated ones."""

    split: Split
    index: int
    train: int
    distance: float
    mirrored: bool


def find_near_duplicates(raw: ShardSet, max_distance: float = MAX_DISTANCE) -> list[NearDuplicate]:
    """Find the pairs of a sample outside train and a train sample within `max_distance`.

    They are ordered by split, index and train index, at most NUM_CANDIDATES for each sample. Images
    smaller than 8 x 8 pixels are not searched.
    """
    splits = [split for split in raw.manifest.splits if split != "train"]
    if not splits or min(raw.manifest.image_shape[1:]) < GRID:
        return []
    train = np.concatenate(
        map_tasks(lambda indices: grid_descriptors(_read_reduced(raw, "train", indices)), _ranges(raw, "train", 1024))
    )

    def find(task: tuple[Split, Indices]) -> list[NearDuplicate]:
        return list(_find_near(raw, train, *task, max_distance))

    tasks = [(split, indices) for split in splits for indices in _ranges(raw, split, IMAGES_PER_TASK)]
    return [pair for pairs in map_tasks(find, tasks) for pair in pairs]


def reduce_images(pixels: Array, side: int = SIDE) -> Array:
    """Reduce images (n, C, H, W) uint8 to at most side x side pixels, each the mean of what it covers, rounded.

    Where a pixel lies across a border, both sides count their share of it.
    """
    sums, num_units = pixels, 1
    for axis, size in ((2, pixels.shape[2]), (3, pixels.shape[3])):
        if size > side:
            # In units of 1 / side of a pixel, so that each box has `size` units and all shares are integers.
            first, share = np.divmod(np.arange(side) * size, side)
            cut = np.take(sums, first, axis) * np.expand_dims(share, [i for i in range(4) if i != axis])
            sums = side * np.add.reduceat(sums, first, axis, np.int64) - cut + np.roll(cut, -1, axis)
            num_units *= size
    return pixels if num_units == 1 else ((2 * sums + num_units) // (2 * num_units)).astype(np.uint8)


def grid_descriptors(pixels: Array) -> Floats:
    """Reduce images (n, C, H, W) to colours on a grid, (n, C * 64) integers with mean 0 in each channel.

    Dot products are the cosine of the angle between two images in units of 2^-24, so brightness and contrast cancel.
    """
    num_images, num_channels, height, width = pixels.shape
    cells = pixels[..., : height // GRID * GRID, : width // GRID * GRID]
    cells = cells.reshape(num_images, num_channels, GRID, height // GRID, GRID, width // GRID)
    sums = cells.sum(axis=(3, 5), dtype=np.int64).reshape(num_images, num_channels, -1)
    deviations = (GRID**2 * sums - sums.sum(axis=-1, keepdims=True)).reshape(num_images, -1)
    norms = np.sqrt((deviations * deviations).sum(axis=-1, keepdims=True))
    # Rounding can add as much as the root of the number of values to the norm.
    return _scale(deviations, norms, EXACT_SUM**0.5 - deviations.shape[-1] ** 0.5)


def compute_edges(pixels: Array) -> Floats:
    """Compute the edges of images (n, C, H, W) as steps down and to the right, (n, 2, h, w) integers.

    The image is converted to grey and smoothed. Steps are clipped at their mean absolute value, so that a horizon or
    an outline doesn't outweigh everything else. A margin is left out, since many unrelated images have the same frame.
    """
    height, width = pixels.shape[2:]
    top, left = height // 10, width // 10
    grey = pixels.sum(axis=1, dtype=np.int64)[:, top : height - top, left : width - left]
    smooth = grey[:, 1:, 1:] + grey[:, 1:, :-1] + grey[:, :-1, 1:] + grey[:, :-1, :-1]
    corner = smooth[:, :-1, :-1]
    steps = np.stack([smooth[:, 1:, :-1] - corner, smooth[:, :-1, 1:] - corner], axis=1)
    limits = np.abs(steps).mean(axis=(1, 2, 3), keepdims=True)
    return _scale(np.clip(steps, -limits, limits), limits, (EXACT_SUM / prod(steps.shape[1:])) ** 0.5 - 1)


def compute_distances(tests: Floats, trains: Floats, max_shift: tuple[int, int]) -> NDArray[np.float64]:
    """Compute 1 - the correlation of edges (n, 2, h, w) where they overlap, at the best shift within `max_shift`."""
    best = np.zeros(len(tests))
    for down, right in product(*(range(-most, most + 1) for most in max_shift)):
        test = tests[:, :, max(0, down) : min(0, down) or None, max(0, right) : min(0, right) or None]
        train = trains[:, :, max(0, -down) : min(0, -down) or None, max(0, -right) : min(0, -right) or None]
        test, train = (edges.reshape(len(edges), -1) for edges in (test, train))
        norms = np.vecdot(test, test).astype(np.float64) * np.vecdot(train, train)
        best = np.maximum(best, np.vecdot(test, train) / np.sqrt(np.maximum(norms, 1)))
    return np.maximum(1 - best, 0)


def _find_near(
    raw: ShardSet, train: Floats, split: Split, indices: Indices, max_distance: float
) -> Iterator[NearDuplicate]:
    pixels = _read_reduced(raw, split, indices)
    images = np.stack([pixels, pixels[..., ::-1]])
    tests, trains, is_mirrored = _choose_candidates(np.stack([*map(grid_descriptors, images)]), train)
    if not len(tests):
        return
    edges = np.stack([*map(compute_edges, images)])[is_mirrored, tests]
    height, width = pixels.shape[2:]
    train_edges = compute_edges(_read_reduced(raw, "train", trains))
    distances = compute_distances(edges, train_edges, (height // 12, width // 12))
    for pair in np.flatnonzero(distances <= max_distance).tolist():
        yield NearDuplicate(
            split=split,
            index=int(indices[tests[pair]]),
            train=int(trains[pair]),
            distance=round(float(distances[pair]), 4),
            mirrored=bool(is_mirrored[pair]),
        )


def _choose_candidates(descriptors: Floats, train: Floats) -> tuple[Indices, Indices, Indices]:
    """Choose the most similar train images of each image, as indices of pairs, and 1 where the image is mirrored.

    `descriptors`, (2, n, D), are of the images and of their mirror images. Ties go to the lower index.
    """
    best = [np.empty((3, 0))] * descriptors.shape[1]  # of each image: similarity, train index, whether it is mirrored
    for start, stop in split_range(0, len(train), TRAIN_PER_BLOCK):
        similarities = descriptors.reshape(-1, descriptors.shape[2]) @ train[start:stop].T
        plain, mirrored = similarities.reshape(2, -1, stop - start)
        for test, row in enumerate(np.maximum(plain, mirrored)):
            is_full = best[test].shape[1] == NUM_CANDIDATES
            near = np.flatnonzero(row >= (best[test][0, -1] if is_full else MIN_SIMILARITY * EXACT_SUM))
            found = np.stack([row[near], start + near, mirrored[test, near] > plain[test, near]])
            of_test = np.concatenate([best[test], found], axis=1)
            best[test] = of_test[:, np.argsort(-of_test[0], kind="stable")[:NUM_CANDIDATES]]
    tests = np.repeat(np.arange(len(best)), [of_test.shape[1] for of_test in best])
    _, trains, is_mirrored = np.concatenate([of_test[:, np.argsort(of_test[1])] for of_test in best], axis=1)
    return tests, trains.astype(np.int64), is_mirrored.astype(np.int64)


def _read_reduced(raw: ShardSet, split: Split, indices: Indices) -> Array:
    blocks = split_range(0, len(indices), raw.block_samples)
    return np.concatenate([reduce_images(raw.take(split, indices[start:stop])) for start, stop in blocks])


def _scale(values: Array, units: Array, level: float) -> Floats:
    """Round values / units * level to integers. Where the unit is 0, so is the result."""
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.rint(values / units * level), posinf=0, neginf=0).astype(np.float32)


def _ranges(raw: ShardSet, split: Split, size: int) -> list[Indices]:
    return [np.arange(*samples) for samples in split_range(0, raw.manifest.splits[split].samples, size)]
