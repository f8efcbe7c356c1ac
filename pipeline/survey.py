"""What the images of a split are: figures by channel and by class, counts of pixels, and the images that stand out.

Each figure follows from whole numbers, or from float64 values added up in a fixed order: no machine changes a bit.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorruptDataError
from pipeline.manifest import Shard, Split
from pipeline.normalize import normalization_of, normalization_table
from pipeline.parallel import map_tasks
from pipeline.shards import Array, Labels, Pixels, ShardSet
from pipeline.stats import PIXEL_MAX, Statistics, compute_statistics, sqrt_of_fraction, sum_images

REMEDY = "run `dvc repro --force normalize`"
NUM_BINS = 50  # of brightness, in [0, 1], and of contrast, in [0, 0.5]
NUM_EXTREMES = 8


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

    def survey_shard(item: tuple[Shard, int, int]) -> _ShardSurvey:
        shard, start, stop = item
        return _survey_shard(shards, shard, raw.image_blocks(split, start, stop), labels[start:stop], table)

    surveys = map_tasks(survey_shard, shards.ranges(split))
    pixel_counts = np.sum([survey.pixel_counts for survey in surveys], axis=0)
    image_stds = np.concatenate([survey.image_stds for survey in surveys])
    sums, squares = (np.concatenate(parts) for parts in zip(*((it.sums, it.squares) for it in surveys), strict=True))
    num_values = math.prod(manifest.image_shape)
    brightness = sums / (num_values * PIXEL_MAX)
    contrast = np.sqrt(num_values * squares - sums * sums) / (num_values * PIXEL_MAX)
    class_counts = np.bincount(labels, minlength=len(manifest.classes)).tolist()
    figures = SplitFigures(
        samples=manifest.splits[split].samples,
        classes=dict(zip(manifest.classes, class_counts, strict=True)),
        brightness=_spread(brightness),
        contrast=_spread(contrast),
        before=_figures_before(compute_statistics(raw, split)),
        after={
            channel: _figures_after(pixel_counts[index], table[index], image_stds[:, index])
            for index, channel in enumerate(manifest.channels)
        },
    )
    class_sums = np.sum([survey.class_sums for survey in surveys], axis=0)
    return Survey(figures, pixel_counts, class_sums, brightness, contrast)


@dataclass(frozen=True)
class _ShardSurvey:
    pixel_counts: NDArray[np.int64]  # (C, 256)
    class_sums: NDArray[np.int64]  # (classes, C, H, W)
    image_stds: NDArray[np.float64]  # (n, C), of normalized values
    sums: NDArray[np.int64]  # (n,), of an image's pixels
    squares: NDArray[np.int64]  # (n,), of an image's pixels


def _survey_shard(
    shards: ShardSet, shard: Shard, raw_blocks: Iterable[Pixels], labels: Labels, table: Array
) -> _ShardSurvey:
    channels = np.arange(len(table))[:, None]
    written = shards.images(shard)
    pixel_counts = np.zeros(table.shape, np.int64)
    class_sums = np.zeros((len(shards.manifest.classes), *shards.manifest.image_shape), np.int64)
    by_block = []
    done = 0
    for block in raw_blocks:
        pixels = block.reshape(*block.shape[:2], -1)
        values = table[channels, pixels]
        expected = pixels if shards.manifest.dtype == "uint8" else values
        if not np.array_equal(written[done : done + len(block)].reshape(pixels.shape), expected):
            raise CorruptDataError(
                f"{shards.dir / shard.images.path}: samples {done} to {done + len(block) - 1} are not the normalized "
                f"raw images: {REMEDY}"
            )
        of_block = labels[done : done + len(block)]
        for label in np.unique(of_block):
            class_sums[label] += block[of_block == label].sum(axis=0, dtype=np.int64)
        done += len(block)
        pixel_counts += _count_pixels(pixels)
        sums, squares = sum_images(pixels)
        by_block.append((_image_stds(values), sums.sum(axis=1), squares.sum(axis=1)))
    image_stds, sums, squares = (np.concatenate(parts) for parts in zip(*by_block, strict=True))
    return _ShardSurvey(pixel_counts, class_sums, image_stds, sums, squares)


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
