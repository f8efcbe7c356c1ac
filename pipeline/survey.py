"""What the images of a split are: figures by channel and by class, counts of pixels, and the images that stand out.

Each figure follows from whole numbers, or from float64 values added up in a fixed order: no machine changes a bit.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorruptDataError
from pipeline.manifest import Split
from pipeline.normalize import normalization_of, normalization_table
from pipeline.parallel import map_tasks
from pipeline.shards import Array, Labels, Pixels, ShardSet, split_range
from pipeline.stats import PIXEL_MAX, Statistics, compute_statistics, sqrt_of_fraction, sum_images

REMEDY = "run `dvc repro --force normalize`"
NUM_BINS = 50  # of brightness, in [0, 1], and of contrast, in [0, 0.5]
NUM_EXTREMES = 8
BLOCKS = 16  # a task: few enough for all cores to have some, and many enough for what they return to be little


@dataclass(frozen=True)
class ChannelFigures:
    """One channel of one split. The last two are means over images of each image's own mean and std.

    Images have equally many pixels, so `mean_per_image` is `mean`; it is here because tutorials compute it.
    """

    min: float
    max: float
    mean: float
    std: float
    mean_per_image: float
    std_per_image: float


@dataclass(frozen=True)
class Spread:
    """Of the images of a split, the least, the mean and the greatest."""

    min: float
    mean: float
    max: float


@dataclass(frozen=True)
class SplitFigures:
    """One split: samples by class name, and figures by channel name before and after normalizing.

    Brightness and contrast are the mean and the std of an image over all its channels, pixels scaled to [0, 1].
    """

    samples: int
    classes: dict[str, int]
    brightness: Spread
    contrast: Spread
    before: dict[str, ChannelFigures]
    after: dict[str, ChannelFigures]


@dataclass(frozen=True)
class Survey:
    """One split: its figures, and what pictures are made of."""

    figures: SplitFigures
    pixel_counts: NDArray[np.int64]  # (C, 256), how often each pixel occurs
    class_sums: NDArray[np.int64]  # (classes, C, H, W), of pixels
    brightness: NDArray[np.float64]  # (N,)
    contrast: NDArray[np.float64]  # (N,)

    def extremes(self) -> dict[str, list[int]]:
        """List the indices of the images that stand out, the most extreme first, the first ones of equals."""
        return {
            name: np.argsort(sign * values, kind="stable")[:NUM_EXTREMES].tolist()
            for name, sign, values in (
                ("darkest", 1, self.brightness),
                ("brightest", -1, self.brightness),
                ("flattest", 1, self.contrast),
                ("most contrasted", -1, self.contrast),
            )
        }

    def histograms(self) -> dict[str, NDArray[np.int64]]:
        """Count the images by brightness and by contrast, in NUM_BINS bins each."""
        bins = {"brightness": self.brightness * NUM_BINS, "contrast": self.contrast * 2 * NUM_BINS}
        return {
            name: np.bincount(np.minimum(of_images.astype(np.int64), NUM_BINS - 1), minlength=NUM_BINS)
            for name, of_images in bins.items()
        }


def survey_split(raw: ShardSet, shards: ShardSet, split: Split) -> Survey:
    """Survey a split. Raises CorruptDataError if a value or label on disk is not what raw's makes it."""
    manifest = shards.manifest
    labels = shards.labels(split)
    if not np.array_equal(labels, raw.labels(split)):
        raise CorruptDataError(f"{shards.dir}: the {split} labels are not those of {raw.dir}: {REMEDY}")
    table = value_table(shards)

    def survey_block(samples: tuple[int, int]) -> _Part:
        indices = np.arange(*samples)
        pixels, written = raw.take(split, indices), shards.take(split, indices)
        values = table[np.arange(len(table))[:, None, None], pixels]
        expected = pixels if manifest.dtype == "uint8" else values
        if not np.array_equal(written, expected):
            first = indices[(written != expected).any(axis=(1, 2, 3))][0]
            raise CorruptDataError(
                f"{shards.dir}: {split} sample {first} is not that of {raw.dir} normalized: {REMEDY}"
            )
        return _survey_images(pixels, values, labels[indices], len(manifest.classes))

    def survey_blocks(samples: tuple[int, int]) -> _Part:
        return reduce(_Part.__add__, map(survey_block, split_range(*samples, raw.block_samples)))

    part = reduce(_Part.__add__, map_tasks(survey_blocks, split_range(0, len(labels), BLOCKS * raw.block_samples)))
    num_values = math.prod(manifest.image_shape)
    brightness = part.sums / (num_values * PIXEL_MAX)
    contrast = np.sqrt(num_values * part.squares - part.sums * part.sums) / (num_values * PIXEL_MAX)
    class_counts = np.bincount(labels, minlength=len(manifest.classes)).tolist()
    figures = SplitFigures(
        samples=manifest.splits[split].samples,
        classes=dict(zip(manifest.classes, class_counts, strict=True)),
        brightness=_spread(brightness),
        contrast=_spread(contrast),
        before=_figures_before(compute_statistics(raw, split)),
        after={
            channel: _figures_after(part.pixel_counts[index], table[index], part.image_stds[:, index])
            for index, channel in enumerate(manifest.channels)
        },
    )
    return Survey(figures, part.pixel_counts, part.class_sums, brightness, contrast)


@dataclass(frozen=True)
class _Part:
    """What is known of some images; two of them add up to that of both, in this order."""

    pixel_counts: NDArray[np.int64]  # (C, 256)
    class_sums: NDArray[np.int64]  # (classes, C, H, W)
    image_stds: NDArray[np.float64]  # (n, C), of normalized values
    sums: NDArray[np.int64]  # (n,), of an image's pixels
    squares: NDArray[np.int64]  # (n,), of an image's pixels

    def __add__(self, other: Self) -> "_Part":
        return _Part(
            self.pixel_counts + other.pixel_counts,
            self.class_sums + other.class_sums,
            np.concatenate([self.image_stds, other.image_stds]),
            np.concatenate([self.sums, other.sums]),
            np.concatenate([self.squares, other.squares]),
        )


def _survey_images(images: Pixels, values: Array, labels: Labels, num_classes: int) -> _Part:
    class_sums = np.zeros((num_classes, *images.shape[1:]), np.int64)
    for label in np.unique(labels):
        class_sums[label] = images[labels == label].sum(axis=0, dtype=np.int64)
    pixels = images.reshape(*images.shape[:2], -1)
    sums, squares = sum_images(pixels)
    image_stds = _image_stds(values.reshape(pixels.shape))
    return _Part(_count_pixels(pixels), class_sums, image_stds, sums.sum(axis=1), squares.sum(axis=1))


def _spread(values: NDArray[np.float64]) -> Spread:
    return Spread(min=float(values.min()), mean=math.fsum(values) / len(values), max=float(values.max()))


def _count_pixels(pixels: Pixels) -> NDArray[np.int64]:
    return np.stack([np.bincount(pixels[:, channel].ravel(), minlength=256) for channel in range(pixels.shape[1])])


def _image_stds(values: Array) -> NDArray[np.float64]:
    """Compute each image's std by channel, (n, C), of values (n, C, pixels)."""
    wide = values.astype(np.float64)
    num_pixels = wide.shape[-1]
    deviations = wide - _sum_pixels(wide)[..., None] / num_pixels
    variances: NDArray[np.float64] = _sum_pixels(deviations * deviations) / num_pixels
    return np.sqrt(variances)


def _sum_pixels(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # By halves, in an order that is fixed here: np.sum's order is numpy's affair, and may change with version or CPU.
    while (num_pixels := values.shape[-1]) > 1:
        half = num_pixels // 2
        folded = values[..., :half] + values[..., half : 2 * half]
        if num_pixels % 2:
            folded[..., 0] += values[..., -1]
        values = folded
    return values[..., 0]


def value_table(shards: ShardSet) -> Array:
    """Compute what each pixel is after normalizing, (C, 256) float32."""
    return normalization_table(normalization_of(shards.manifest), shards.manifest.dtype)


def _figures_before(stats: Statistics) -> dict[str, ChannelFigures]:
    return {
        channel: ChannelFigures(
            min=stats.min[channel],
            max=stats.max[channel],
            mean=stats.mean[channel],
            std=stats.std[channel],
            mean_per_image=stats.mean[channel],
            std_per_image=stats.std_per_image[channel],
        )
        for channel in stats.mean
    }


def _figures_after(counts: Array, values: Array, image_stds: Array) -> ChannelFigures:
    """Compute figures from how often each value occurs, in exact fractions, and from the stds of the images."""
    occurring = [
        (Fraction(value), count) for value, count in zip(values.tolist(), counts.tolist(), strict=True) if count
    ]
    total = sum(count for _, count in occurring)
    mean = sum(value * count for value, count in occurring) / total
    variance = sum((value - mean) ** 2 * count for value, count in occurring) / total
    return ChannelFigures(
        min=float(min(value for value, _ in occurring)),
        max=float(max(value for value, _ in occurring)),
        mean=float(mean),
        std=sqrt_of_fraction(Fraction(variance)),
        mean_per_image=float(mean),
        std_per_image=math.fsum(image_stds) / len(image_stds),
    )
