"""What the images of a split are: figures by channel and class, counts of pixel values, and images that stand out.

Each figure follows from integers, or from float64 values added in a fixed order, so it is the same on every machine.
One pass over each raw shard also verifies its bytes and hashes its images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.statistics import statistics_of
from pipeline.numerics.sums import PIXEL_MAX, Integers, combine_images, sqrt_of_fraction, sum_images
from pipeline.runtime.tasks import map_tasks
from shardset.content import Digests, hash_images
from shardset.manifest import Shard, Split
from shardset.shards import Array, Labels, ShardSet
from shardset.statistics import Statistics

NUM_BINS = 50  # of brightness, in [0, 1], and of contrast, in [0, 0.5]
NUM_EXTREMES = 8


@dataclass(frozen=True)
class ChannelFigures:
    """One channel of one split. The last two are means over images of each image's own mean and std.

    Images have equally many pixels, so `mean_per_image` equals `mean`; it is listed because tutorials compute it.
    """

    min: float
    max: float
    mean: float
    std: float
    mean_per_image: float
    std_per_image: float


@dataclass(frozen=True)
class Spread:
    """The minimum, mean and maximum over the images of a split."""

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
    """One split: its figures, and the data behind pictures and duplicates."""

    figures: SplitFigures
    pixel_counts: Integers  # (C, 256), how often each pixel value occurs
    class_sums: Integers  # (classes, C, H, W), of pixels
    brightness: NDArray[np.float64]  # (N,)
    contrast: NDArray[np.float64]  # (N,)
    digests: Digests  # (N, 32)

    def extremes(self) -> dict[str, list[int]]:
        """List the indices of the images that stand out, the most extreme first. Ties go to the lower index."""
        return {
            name: np.argsort(sign * values, kind="stable")[:NUM_EXTREMES].tolist()
            for name, sign, values in (
                ("darkest", 1, self.brightness),
                ("brightest", -1, self.brightness),
                ("lowest contrast", 1, self.contrast),
                ("highest contrast", -1, self.contrast),
            )
        }

    def histograms(self) -> dict[str, Integers]:
        """Count the images by brightness and by contrast, in NUM_BINS bins each."""
        bins = {"brightness": self.brightness * NUM_BINS, "contrast": self.contrast * 2 * NUM_BINS}
        return {
            name: np.bincount(np.minimum(of_images.astype(np.int64), NUM_BINS - 1), minlength=NUM_BINS)
            for name, of_images in bins.items()
        }


@dataclass(frozen=True)
class _Part:
    """What is known about some consecutive images of a split."""

    pixel_counts: Integers  # (C, 256)
    class_sums: Integers  # (classes, C, H, W)
    image_stds: NDArray[np.float64]  # (n, C), of normalized values
    sums: Integers  # (n, C), over the pixels of an image
    squares: Integers  # (n, C), over the squared pixels of an image
    digests: Digests  # (n, 32)


def survey_splits(raw: ShardSet, table: Array) -> dict[Split, Survey]:
    """Survey every split of raw pixels; `table`, (C, 256), is what pixel values become by normalizing.

    Raises CorruptDataError if an image differs from the manifest.
    """
    labels = {split: raw.labels(split) for split in raw.manifest.splits}

    def survey_shard(task: tuple[Split, Shard, int, int]) -> _Part:
        split, shard, start, _ = task
        parts: list[_Part] = []
        for pixels in raw.verified_image_blocks(shard):
            block_labels = labels[split][start : start + len(pixels)]
            # Merged at once, so that memory doesn't grow with the number of blocks times that of classes.
            parts = [_merge([*parts, _survey_images(pixels, table, block_labels, len(raw.manifest.classes))])]
            start += len(pixels)
        return parts[0]

    tasks = [(split, *of_shard) for split in labels for of_shard in raw.ranges(split)]
    parts = list(zip(tasks, map_tasks(survey_shard, tasks), strict=True))
    return {
        split: _finish(raw, split, labels[split], table, _merge([part for task, part in parts if task[0] == split]))
        for split in labels
    }


def normalize_by_table(pixels: Array, table: Array) -> Array:
    """Look up the values of pixels (n, C, H, W) uint8 in a table, (C, 256)."""
    normalized: Array = table[np.arange(len(table))[:, None, None], pixels]
    return normalized


def _survey_images(pixels: Array, table: Array, labels: Labels, num_classes: int) -> _Part:
    class_sums = np.zeros((num_classes, *pixels.shape[1:]), np.int64)
    for label in np.unique(labels):
        class_sums[label] = pixels[labels == label].sum(axis=0, dtype=np.int64)
    flat = pixels.reshape(*pixels.shape[:2], -1)
    sums, squares = sum_images(flat)
    return _Part(
        pixel_counts=np.stack([np.bincount(channel.ravel(), minlength=256) for channel in flat.transpose(1, 0, 2)]),
        class_sums=class_sums,
        image_stds=_image_stds(normalize_by_table(pixels, table).reshape(flat.shape)),
        sums=sums,
        squares=squares,
        digests=hash_images(pixels),
    )


def _merge(parts: Sequence[_Part]) -> _Part:
    return _Part(
        pixel_counts=sum(part.pixel_counts for part in parts),  # type: ignore[arg-type]  # not 0: there is a part
        class_sums=sum(part.class_sums for part in parts),  # type: ignore[arg-type]
        image_stds=np.concatenate([part.image_stds for part in parts]),
        sums=np.concatenate([part.sums for part in parts]),
        squares=np.concatenate([part.squares for part in parts]),
        digests=np.concatenate([part.digests for part in parts]),
    )


def _finish(raw: ShardSet, split: Split, labels: Labels, table: Array, part: _Part) -> Survey:
    manifest = raw.manifest
    num_values = math.prod(manifest.image_shape)
    occurs = part.pixel_counts > 0
    low, high = occurs.argmax(axis=1), PIXEL_MAX - occurs[:, ::-1].argmax(axis=1)
    channels = combine_images(part.sums, part.squares, low, high, math.prod(manifest.image_shape[1:]))
    sums, squares = part.sums.sum(axis=1), part.squares.sum(axis=1)
    brightness = sums / (num_values * PIXEL_MAX)
    # In Python's integers: those of 64 bits overflow for images of more than 2.3e7 values.
    radicands = num_values * squares.astype(object) - sums.astype(object) ** 2
    contrast = np.sqrt(radicands.astype(np.float64)) / (num_values * PIXEL_MAX)
    class_counts = np.bincount(labels, minlength=len(manifest.classes)).tolist()
    figures = SplitFigures(
        samples=len(labels),
        classes=dict(zip(manifest.classes, class_counts, strict=True)),
        brightness=_spread(brightness),
        contrast=_spread(contrast),
        before=_figures_before(statistics_of(channels, manifest, split)),
        after={
            channel: _figures_after(part.pixel_counts[index], table[index], part.image_stds[:, index])
            for index, channel in enumerate(manifest.channels)
        },
    )
    return Survey(figures, part.pixel_counts, part.class_sums, brightness, contrast, part.digests)


def _spread(values: NDArray[np.float64]) -> Spread:
    return Spread(min=float(values.min()), mean=math.fsum(values) / len(values), max=float(values.max()))


def _image_stds(values: Array) -> NDArray[np.float64]:
    """Compute each image's std by channel, (n, C), of values (n, C, pixels)."""
    wide = values.astype(np.float64)
    num_pixels = wide.shape[-1]
    deviations = wide - _sum_pixels(wide)[..., None] / num_pixels
    variances: NDArray[np.float64] = _sum_pixels(deviations * deviations) / num_pixels
    return np.sqrt(variances)


def _sum_pixels(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # By halves, in an order that is fixed here: that of np.sum may change with numpy's version or the CPU.
    while (num_pixels := values.shape[-1]) > 1:
        half = num_pixels // 2
        folded = values[..., :half] + values[..., half : 2 * half]
        if num_pixels % 2:
            folded[..., 0] += values[..., -1]
        values = folded
    return values[..., 0]


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
