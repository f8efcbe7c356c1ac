"""Near-duplicates: a search among the train images for each image of the other splits.

The search has two steps. A coarse step compares all images, plain and mirrored, by their colours on a grid, and keeps a
few candidates for each image. A fine step compares the edges of those at full size, at all small shifts. Edges are more
specific than pixels: many images have sky above sea, but only near-duplicates have all outlines in the same places.

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
from shardset.shards import Array, ShardSet, split_range

# A convention, chosen by looking at pairs of CIFAR-10, see docs/near-duplicates.md.
MAX_DISTANCE = 0.35
EXACT_SUM = 2**24
GRID = 8  # cells per side
NUM_CANDIDATES = 8
MIN_SIMILARITY = 0.5  # of candidates, in [-1, 1]
SIMILARITIES_PER_TASK = 1_600_000  # 6 MB: 32 images against 50,000 train images; and as many mirrored

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
        map_tasks(lambda indices: grid_descriptors(raw.take("train", indices)), _ranges(raw, "train", 1024))
    ).T

    def find(task: tuple[Split, Indices]) -> list[NearDuplicate]:
        return list(_find_near(raw, train, *task, max_distance))

    size = max(1, SIMILARITIES_PER_TASK // raw.manifest.splits["train"].samples)
    tasks = [(split, indices) for split in splits for indices in _ranges(raw, split, size)]
    return [pair for pairs in map_tasks(find, tasks) for pair in pairs]


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
    pixels = raw.take(split, indices)
    plain, mirrored = grid_descriptors(pixels) @ train, grid_descriptors(pixels[..., ::-1]) @ train
    tests, trains = _choose_candidates(np.maximum(plain, mirrored))
    if not len(tests):
        return
    is_mirrored = (mirrored > plain)[tests, trains]
    flipped, straight = (compute_edges(images)[tests] for images in (pixels[..., ::-1], pixels))
    edges = np.where(is_mirrored[:, None, None, None], flipped, straight)
    height, width = pixels.shape[2:]
    distances = compute_distances(edges, compute_edges(raw.take("train", trains)), (height // 12, width // 12))
    for pair in np.flatnonzero(distances <= max_distance).tolist():
        yield NearDuplicate(
            split=split,
            index=int(indices[tests[pair]]),
            train=int(trains[pair]),
            distance=round(float(distances[pair]), 4),
            mirrored=bool(is_mirrored[pair]),
        )


def _choose_candidates(similarities: Floats) -> tuple[Indices, Indices]:
    """Choose the most similar train images of each image, as indices of pairs. Ties go to the lower index."""
    chosen = []
    count = min(NUM_CANDIDATES, similarities.shape[1])
    for test, row in enumerate(similarities):
        enough = max(np.partition(row, -count)[-count], MIN_SIMILARITY * EXACT_SUM)
        trains = np.flatnonzero(row >= enough)
        best = np.sort(trains[np.argsort(-row[trains], kind="stable")][:count])
        chosen.append(np.stack([np.full(len(best), test), best]))
    tests, trains = np.concatenate(chosen, axis=1)
    return tests, trains


def _scale(values: Array, units: Array, level: float) -> Floats:
    """Round values / units * level to integers. Where the unit is 0, so is the result."""
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.rint(values / units * level), posinf=0, neginf=0).astype(np.float32)


def _ranges(raw: ShardSet, split: Split, size: int) -> list[Indices]:
    return [np.arange(*samples) for samples in split_range(0, raw.manifest.splits[split].samples, size)]
