"""What the images of each split are: the figures of each image, and sums, from the surveys of all shards."""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.measures import NUM_VALUES
from pipeline.audit.shard_survey import read_measures
from pipeline.numerics.statistics import merge_channels, statistics_of
from pipeline.numerics.sums import PIXEL_MAX, ChannelSums, Integers, combine_images
from pipeline.runtime.resume import Step
from shardset.manifest import Split
from shardset.reader import Labels
from shardset.shards import ShardSet
from shardset.statistics import Statistics

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Survey:
    """One split: arrays with a row per image, its statistics, and sums over its images. It takes 49 bytes an image.

    `brightness` and `contrast`, (N,), are the mean and the population std of each image over all channels, pixels
    scaled to [0, 1]; `clipped_shares`, (N,), is the share of its values that are 0 or 255. `pixel_counts` says how
    often each pixel value occurs, (C, 256). `class_sums`, (classes, C), is over all pixels of the images of a class.
    """

    labels: Labels
    brightness: Floats
    contrast: Floats
    clipped_shares: Floats
    grey: NDArray[np.bool_]
    borders: Floats
    entropies: Floats
    pixel_counts: Integers
    class_sums: Integers
    statistics: Statistics
    values_per_image: int


def read_survey(raw: ShardSet, step: Step, split: Split) -> Survey:
    """Read the survey of a split, all of whose shards were surveyed."""
    shape, num_images = raw.manifest.image_shape, raw.manifest.splits[split].samples
    labels, grey = np.empty(num_images, np.int64), np.empty(num_images, np.bool_)
    brightness, contrast, clipped_shares, borders, entropies = (np.empty(num_images) for _ in range(5))
    class_sums = np.zeros((len(raw.manifest.classes), shape[0]), np.int64)
    pixel_counts = np.zeros((shape[0], NUM_VALUES), np.int64)
    channels = []
    for rows, shard, measures, shard_counts in read_measures(raw, step, split):
        labels[rows] = raw.reader.labels(shard)
        brightness[rows], contrast[rows] = _brightness_and_contrast(measures, prod(shape))
        clipped_shares[rows] = measures["clipped"] / prod(shape)
        grey[rows], borders[rows], entropies[rows] = (measures[name] for name in ("grey", "border", "entropy"))
        np.add.at(class_sums, labels[rows], measures["sums"])
        pixel_counts += shard_counts
        channels.append(_sum_channels(measures, shard_counts, prod(shape[1:])))
    return Survey(
        labels=labels,
        brightness=brightness,
        contrast=contrast,
        clipped_shares=clipped_shares,
        grey=grey,
        borders=borders,
        entropies=entropies,
        pixel_counts=pixel_counts,
        class_sums=class_sums,
        statistics=statistics_of(merge_channels(channels), raw.manifest, split),
        values_per_image=prod(shape),
    )


def _brightness_and_contrast(measures: NDArray[np.void], values_per_image: int) -> tuple[Floats, Floats]:
    sums, squares = measures["sums"].sum(axis=1), measures["squares"].sum(axis=1)
    # In Python's integers: those of 64 bits overflow for images of more than 2.3e7 values.
    radicands = values_per_image * squares.astype(object) - sums.astype(object) ** 2
    scale = values_per_image * PIXEL_MAX
    return sums / scale, np.sqrt(radicands.astype(np.float64)) / scale


def _sum_channels(measures: NDArray[np.void], pixel_counts: Integers, pixels_per_image: int) -> list[ChannelSums]:
    occurs = pixel_counts > 0
    low, high = occurs.argmax(axis=1), PIXEL_MAX - occurs[:, ::-1].argmax(axis=1)
    return combine_images(measures["sums"], measures["squares"], low, high, pixels_per_image)
