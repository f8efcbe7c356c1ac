"""What the images of each split are, measured in one pass over data/raw that also verifies and hashes them.

Each figure follows from integers, or from float64 values added in a fixed order, so it is the same on every machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.measures import (
    NUM_VALUES,
    count_channels,
    count_clipped,
    find_grey,
    measure_borders,
    measure_entropies,
)
from pipeline.numerics.reduce import reduce_images
from pipeline.numerics.statistics import statistics_of
from pipeline.numerics.sums import PIXEL_MAX, Integers, combine_images, sum_images
from pipeline.runtime.tasks import Progress, map_tasks
from shardset.content import Digests, hash_images
from shardset.manifest import Shard, Split
from shardset.reader import Array, Labels
from shardset.shards import ShardSet
from shardset.statistics import Statistics

REDUCED_SIDE = 32  # pixels of the images in which borders, entropy and near-duplicates are looked for
REDUCED_PER_BATCH = 128  # of large images there are few in a block, and each call costs as much as several images

Floats = NDArray[np.float64]

# Called with a split, the index of the first of some consecutive images, and the images, (n, C, h, w) uint8, reduced
# to at most REDUCED_SIDE pixels a side. Calls come from several threads, in any order, once for each image.
Visitor = Callable[[Split, int, Array], None]


@dataclass(frozen=True)
class Survey:
    """One split: arrays with a row per image, and how often each pixel value occurs, (C, 256).

    `sums` and `squares`, (N, C), are over the pixels of an image and over their squares; `clipped`, (N,), counts its
    values that are 0 or 255.
    """

    labels: Labels
    pixel_counts: Integers
    sums: Integers
    squares: Integers
    clipped: Integers
    grey: NDArray[np.bool_]
    borders: Floats
    entropies: Floats
    digests: Digests
    values_per_image: int

    @cached_property
    def brightness(self) -> Floats:
        """The mean of each image over all channels, pixels scaled to [0, 1], (N,)."""
        brightness: Floats = self.sums.sum(axis=1) / (self.values_per_image * PIXEL_MAX)
        return brightness

    @cached_property
    def contrast(self) -> Floats:
        """The population std of each image over all channels, pixels scaled to [0, 1], (N,)."""
        sums, squares = self.sums.sum(axis=1), self.squares.sum(axis=1)
        # In Python's integers: those of 64 bits overflow for images of more than 2.3e7 values.
        radicands = self.values_per_image * squares.astype(object) - sums.astype(object) ** 2
        contrast: Floats = np.sqrt(radicands.astype(np.float64)) / (self.values_per_image * PIXEL_MAX)
        return contrast

    @cached_property
    def clipped_shares(self) -> Floats:
        """The share of each image's values that are 0 or 255, (N,)."""
        return self.clipped / self.values_per_image


def survey_splits(raw: ShardSet, visit: Visitor, progress: Progress) -> dict[Split, Survey]:
    """Survey every split of raw pixels. Raises CorruptDataError if an image differs from the manifest."""
    surveys = {split: _empty_survey(raw, split) for split in raw.manifest.splits}
    num_images = sum(of_split.samples for of_split in raw.manifest.splits.values())
    lock, done = Lock(), 0

    def survey_shard(task: tuple[Split, Shard, int, int]) -> None:
        nonlocal done
        split, shard, start, stop = task
        first, batch = start, []
        for pixels in raw.verified_image_blocks(shard):
            counts = _measure(surveys[split], start, pixels)
            reduced = reduce_images(pixels, REDUCED_SIDE)
            batch.append(reduced.copy() if reduced is pixels else reduced)  # the block will be overwritten
            start += len(pixels)
            if start - first >= REDUCED_PER_BATCH or start == stop:
                images = np.concatenate(batch)
                _measure_reduced(surveys[split], first, images)
                visit(split, first, images)
                first, batch = start, []
            with lock:  # one array for all threads, so that memory doesn't grow with shards
                surveys[split].pixel_counts[:] += counts
                done += len(pixels)
                progress("Measuring", done, num_images)

    map_tasks(survey_shard, [(split, *of_shard) for split in surveys for of_shard in raw.ranges(split)])
    return surveys


def survey_statistics(raw: ShardSet, split: Split, survey: Survey) -> Statistics:
    """Compute the channel statistics of a split from its survey."""
    occurs = survey.pixel_counts > 0
    low, high = occurs.argmax(axis=1), PIXEL_MAX - occurs[:, ::-1].argmax(axis=1)
    channels = combine_images(survey.sums, survey.squares, low, high, prod(raw.manifest.image_shape[1:]))
    return statistics_of(channels, raw.manifest, split)


def _empty_survey(raw: ShardSet, split: Split) -> Survey:
    num_images, num_channels = raw.manifest.splits[split].samples, raw.manifest.image_shape[0]
    return Survey(
        labels=raw.labels(split),
        pixel_counts=np.zeros((num_channels, NUM_VALUES), np.int64),
        sums=np.empty((num_images, num_channels), np.int64),
        squares=np.empty((num_images, num_channels), np.int64),
        clipped=np.empty(num_images, np.int64),
        grey=np.empty(num_images, np.bool_),
        borders=np.empty(num_images),
        entropies=np.empty(num_images),
        digests=np.empty((num_images, 32), np.uint8),
        values_per_image=prod(raw.manifest.image_shape),
    )


def _measure(survey: Survey, start: int, pixels: Array) -> Integers:
    """Fill in the rows of consecutive images, of which `start` is the first, and count their values, (C, 256)."""
    rows = slice(start, start + len(pixels))
    survey.sums[rows], survey.squares[rows] = sum_images(pixels.reshape(*pixels.shape[:2], -1))
    survey.clipped[rows] = count_clipped(pixels)
    survey.grey[rows] = find_grey(pixels)
    survey.digests[rows] = hash_images(pixels)
    return count_channels(pixels)


def _measure_reduced(survey: Survey, start: int, reduced: Array) -> None:
    """Fill in what is measured of reduced images, of which `start` is the first."""
    rows = slice(start, start + len(reduced))
    survey.borders[rows] = measure_borders(reduced)
    survey.entropies[rows] = measure_entropies(reduced)
