"""Images that occur twice: exactly, by hash, and nearly, by a search among the train images for each test image.

The search is in two steps. A coarse one compares all images, plain and mirrored, by their colours on a grid, and keeps
a few candidates for each test image. A fine one compares the edges of those in full size, at all small shifts. Edges
say more than pixels: many images have sky above sea, but only near duplicates have all outlines in the same places.

All that is compared are whole numbers, and no sum of theirs exceeds 2^24: float32 holds each exactly, in whatever order
it was added up. So the pairs are the same on every machine, though a matrix product finds them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from pipeline.manifest import SPLITS, Split
from pipeline.parallel import map_tasks
from pipeline.shards import Array, Pixels, ShardSet, split_range

# On CIFAR-10 478 test images have a train image within it. By a look at 144 of the nearest ones 93 % are of one shot:
# 48 of 48 up to 0.2, 42 of 48 from there to 0.3, 35 of 48 to 0.35. From there to 0.4 it is just 26 of 48.
MAX_DISTANCE = 0.35
EXACT_SUM = 2**24
GRID = 8  # cells a side
NUM_CANDIDATES = 8
MIN_LIKENESS = 0.5  # of candidates, in [-1, 1]
LIKENESSES_AT_ONCE = 1_600_000  # 6 MB, and as many of mirrored images: beside 50,000 train images of 32 test images

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ExactDuplicates:
    """How many images are bit for bit equal to an earlier one of their split, or, of test, to one of train."""

    train: int
    test: int
    test_in_train: int


@dataclass(frozen=True)
class NearDuplicate:
    """A test image and a train image, by their indices; `distance` is 0 for equal edges, 1 for unrelated ones."""

    test: int
    train: int
    distance: float
    mirrored: bool


def count_exact_duplicates(raw: ShardSet) -> ExactDuplicates:
    """Count the images of a uint8 shard set that occur more than once."""
    counts = {split: Counter(_hashes(raw, split)) for split in SPLITS}
    return ExactDuplicates(
        train=counts["train"].total() - len(counts["train"]),
        test=counts["test"].total() - len(counts["test"]),
        test_in_train=sum(count for key, count in counts["test"].items() if key in counts["train"]),
    )


def find_near_duplicates(raw: ShardSet, max_distance: float = MAX_DISTANCE) -> list[NearDuplicate]:
    """Find the pairs of a test and a train image within `max_distance`, ordered by test and train index.

    For each test image, NUM_CANDIDATES train images at most. Images of less than 8 x 8 pixels have none.
    """
    if min(raw.manifest.image_shape[1:]) < GRID:
        return []
    train = np.concatenate(
        map_tasks(lambda indices: describe(raw.take("train", indices)), _ranges(raw, "train", 1024))
    ).T

    def find(indices: Array) -> list[NearDuplicate]:
        return list(_find_near(raw, train, indices, max_distance))

    found = map_tasks(find, _ranges(raw, "test", max(1, LIKENESSES_AT_ONCE // raw.manifest.splits["train"].samples)))
    return [pair for pairs in found for pair in pairs]


def describe(pixels: Pixels) -> Floats:
    """Reduce images (n, C, H, W) to colours on a grid, (n, C * 64) whole numbers, of mean 0 in each channel.

    Their products are the cosine of the angle between two images in units of 2^-24: brightness and contrast drop out.
    """
    num_images, num_channels, height, width = pixels.shape
    cells = pixels[..., : height // GRID * GRID, : width // GRID * GRID]
    cells = cells.reshape(num_images, num_channels, GRID, height // GRID, GRID, width // GRID)
    sums = cells.sum(axis=(3, 5), dtype=np.int64).reshape(num_images, num_channels, -1)
    deviations = (GRID**2 * sums - sums.sum(axis=-1, keepdims=True)).reshape(num_images, -1)
    norms = np.sqrt((deviations * deviations).sum(axis=-1, keepdims=True))
    # Rounding adds to the norm, by the root of the number of values at most.
    return _scale(deviations, norms, EXACT_SUM**0.5 - deviations.shape[-1] ** 0.5)


def find_edges(pixels: Pixels) -> Floats:
    """Compute the edges of images (n, C, H, W) as steps down and to the right, (n, 2, h, w) whole numbers.

    They are of the grey image, smoothed, and cut off where they exceed the image's mean: a horizon or an outline does
    not outweigh all else. A margin is left out, since many unrelated images have the same frame.
    """
    height, width = pixels.shape[2:]
    top, left = height // 10, width // 10
    grey = pixels.sum(axis=1, dtype=np.int64)[:, top : height - top, left : width - left]
    smooth = grey[:, 1:, 1:] + grey[:, 1:, :-1] + grey[:, :-1, 1:] + grey[:, :-1, :-1]
    corner = smooth[:, :-1, :-1]
    steps = np.stack([smooth[:, 1:, :-1] - corner, smooth[:, :-1, 1:] - corner], axis=1)
    limits = np.abs(steps).mean(axis=(1, 2, 3), keepdims=True)
    return _scale(np.clip(steps, -limits, limits), limits, (EXACT_SUM / prod(steps.shape[1:])) ** 0.5 - 1)


def measure_distances(tests: Floats, trains: Floats, max_shift: tuple[int, int]) -> NDArray[np.float64]:
    """Compute 1 - the correlation of edges (n, 2, h, w), where they overlap, at the best shift of up to `max_shift`."""
    best = np.zeros(len(tests))
    for down, right in product(*(range(-most, most + 1) for most in max_shift)):
        test = tests[:, :, max(0, down) : min(0, down) or None, max(0, right) : min(0, right) or None]
        train = trains[:, :, max(0, -down) : min(0, -down) or None, max(0, -right) : min(0, -right) or None]
        test, train = (edges.reshape(len(edges), -1) for edges in (test, train))
        norms = np.vecdot(test, test).astype(np.float64) * np.vecdot(train, train)
        best = np.maximum(best, np.vecdot(test, train) / np.sqrt(np.maximum(norms, 1)))
    return np.maximum(1 - best, 0)


def _find_near(raw: ShardSet, train: Floats, indices: Indices, max_distance: float) -> Iterator[NearDuplicate]:
    pixels = raw.take("test", indices)
    plain, mirrored = describe(pixels) @ train, describe(pixels[..., ::-1]) @ train
    tests, trains = _choose_candidates(np.maximum(plain, mirrored))
    if not len(tests):
        return
    is_mirrored = (mirrored > plain)[tests, trains]
    edges = np.where(is_mirrored[:, None, None, None], *(find_edges(of)[tests] for of in (pixels[..., ::-1], pixels)))
    height, width = pixels.shape[2:]
    distances = measure_distances(edges, find_edges(raw.take("train", trains)), (height // 12, width // 12))
    for pair in np.flatnonzero(distances <= max_distance).tolist():
        yield NearDuplicate(
            test=int(indices[tests[pair]]),
            train=int(trains[pair]),
            distance=round(float(distances[pair]), 4),
            mirrored=bool(is_mirrored[pair]),
        )


def _choose_candidates(likenesses: Floats) -> tuple[Indices, Indices]:
    """Choose the most alike train images of each test image, the first ones of equals, as indices of pairs."""
    chosen = []
    count = min(NUM_CANDIDATES, likenesses.shape[1])
    for test, row in enumerate(likenesses):
        enough = max(np.partition(row, -count)[-count], MIN_LIKENESS * EXACT_SUM)
        trains = np.flatnonzero(row >= enough)
        best = np.sort(trains[np.argsort(-row[trains], kind="stable")][:count])
        chosen.append(np.stack([np.full(len(best), test), best]))
    tests, trains = np.concatenate(chosen, axis=1)
    return tests, trains


def _scale(values: Array, units: Array, level: float) -> Floats:
    """Round values / units * level to whole numbers; where the unit is 0, so is the result."""
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.rint(values / units * level), posinf=0, neginf=0).astype(np.float32)


def _ranges(raw: ShardSet, split: Split, size: int) -> list[Indices]:
    return [np.arange(*samples) for samples in split_range(0, raw.manifest.splits[split].samples, size)]


def _hashes(raw: ShardSet, split: Split) -> list[bytes]:
    def hash_images(indices: Indices) -> list[bytes]:
        return [hashlib.sha256(image.data).digest() for image in raw.take(split, indices)]

    return [key for keys in map_tasks(hash_images, _ranges(raw, split, 1024)) for key in keys]
