"""What the images of a split are: figures by channel and class, counts of pixel values, and images that stand out.

Each figure follows from integers, or from float64 values added in a fixed order, so it is the same on every machine.
One pass over each raw shard also verifies its bytes and hashes its images.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.statistics import statistics_of
from pipeline.numerics.sums import PIXEL_MAX, Integers, combine_images, sqrt_of_fraction, sum_images
from pipeline.runtime.tasks import map_tasks
from shardset.content import Digests, hash_images
from shardset.manifest import Shard, Split
from shardset.reader import Array
from shardset.shards import ShardSet
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


class _Sums:
    """What is known about the images of a split. One object for all threads, so that memory doesn't grow with shards.

    Integers are added in any order, and each image has its own rows, so the order of the calls doesn't matter.
    """

    def __init__(self, raw: ShardSet, split: Split) -> None:
        num_images, num_channels = raw.manifest.splits[split].samples, raw.manifest.image_shape[0]
        self.labels = raw.labels(split)
        self.pixel_counts = np.zeros((num_channels, PIXEL_MAX + 1), np.int64)
        self.class_sums = np.zeros((len(raw.manifest.classes), *raw.manifest.image_shape), np.int64)
        self.image_stds = np.empty((num_images, num_channels))  # of normalized values
        self.sums = np.empty((num_images, num_channels), np.int64)  # over the pixels of an image
        self.squares = np.empty((num_images, num_channels), np.int64)  # over the squared pixels of an image
        self.digests = np.empty((num_images, 32), np.uint8)
        self._lock = Lock()

    def add(self, start: int, pixels: Array, table: Array) -> None:
        """Add consecutive images, (n, C, H, W) uint8; `start` is the index of the first."""
        rows = slice(start, start + len(pixels))
        flat = pixels.reshape(*pixels.shape[:2], -1)
        self.image_stds[rows] = _image_stds(normalize_by_table(pixels, table).reshape(flat.shape))
        self.sums[rows], self.squares[rows] = sum_images(flat)
        self.digests[rows] = hash_images(pixels)
        counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in flat.transpose(1, 0, 2)])
        labels = self.labels[rows]
        class_sums = {label: pixels[labels == label].sum(axis=0, dtype=np.int64) for label in set(labels.tolist())}
        with self._lock:
            self.pixel_counts += counts
            for label, of_class in class_sums.items():
                self.class_sums[label] += of_class


def survey_splits(raw: ShardSet, table: Array) -> dict[Split, Survey]:
    """Survey every split of raw pixels; `table`, (C, 256), is what pixel values become by normalizing.

    Raises CorruptDataError if an image differs from the manifest.
    """
    sums = {split: _Sums(raw, split) for split in raw.manifest.splits}

    def survey_shard(task: tuple[Split, Shard, int]) -> None:
        split, shard, start = task
        for pixels in raw.verified_image_blocks(shard):
            sums[split].add(start, pixels, table)
            start += len(pixels)

    map_tasks(survey_shard, [(split, shard, start) for split in sums for shard, start, _ in raw.ranges(split)])
    return {split: _finish(raw, split, table, of_split) for split, of_split in sums.items()}


def normalize_by_table(pixels: Array, table: Array) -> Array:
    """Look up the values of pixels (n, C, H, W) uint8 in a table, (C, 256)."""
    normalized: Array = table[np.arange(len(table))[:, None, None], pixels]
    return normalized


def _finish(raw: ShardSet, split: Split, table: Array, of_split: _Sums) -> Survey:
    manifest = raw.manifest
    num_values = math.prod(manifest.image_shape)
    occurs = of_split.pixel_counts > 0
    low, high = occurs.argmax(axis=1), PIXEL_MAX - occurs[:, ::-1].argmax(axis=1)
    channels = combine_images(of_split.sums, of_split.squares, low, high, math.prod(manifest.image_shape[1:]))
    sums, squares = of_split.sums.sum(axis=1), of_split.squares.sum(axis=1)
    brightness = sums / (num_values * PIXEL_MAX)
    # In Python's integers: those of 64 bits overflow for images of more than 2.3e7 values.
    radicands = num_values * squares.astype(object) - sums.astype(object) ** 2
    contrast = np.sqrt(radicands.astype(np.float64)) / (num_values * PIXEL_MAX)
    class_counts = np.bincount(of_split.labels, minlength=len(manifest.classes)).tolist()
    figures = SplitFigures(
        samples=len(of_split.labels),
        classes=dict(zip(manifest.classes, class_counts, strict=True)),
        brightness=_spread(brightness),
        contrast=_spread(contrast),
        before=_figures_before(statistics_of(channels, manifest, split)),
        after={
            channel: _figures_after(of_split.pixel_counts[index], table[index], of_split.image_stds[:, index])
            for index, channel in enumerate(manifest.channels)
        },
    )
    return Survey(figures, of_split.pixel_counts, of_split.class_sums, brightness, contrast, of_split.digests)


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
