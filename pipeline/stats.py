"""Stage `stats`: the channel statistics of the train split, every figure exact.

Pixels are integers, so their sums are taken in integers: no order, thread count or shard size can change them. What is
not rational, a square root, is taken of exact integers. Each figure is rounded once, to float64.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import isqrt
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import ValidationError, model_validator

from pipeline.errors import InputError
from pipeline.files import write_json
from pipeline.manifest import Shard, Split
from pipeline.models import Model, describe
from pipeline.shards import Pixels, ShardSet, open_shards
from pipeline.threads import map_threads

PIXEL_MAX = 255
# Fractional bits kept of an image's square root. A float64 has 53 bits in all; with so many more, the rounding at the
# end is that of the exact sum of roots.
ROOT_BITS = 256

ByChannel = dict[str, float]


class Statistics(Model):
    """data/stats.json: figures of one split by channel name, of pixels scaled to [0, 1].

    `std` is the population standard deviation over all pixels, what `Normalize` needs for unit variance;
    `std_per_image` is the mean over images of each image's own. (The 0.2023 of many tutorials is that with n - 1 in
    place of n.)
    """

    dataset: str
    split: Split
    images: int
    pixels_per_channel: int
    mean: ByChannel
    std: ByChannel
    std_per_image: ByChannel
    min: ByChannel
    max: ByChannel

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        figures = (self.std, self.std_per_image, self.min, self.max)
        if any(figure.keys() != self.mean.keys() for figure in figures):
            raise ValueError("std, std_per_image, min and max should have the channels of mean")
        return self

    def summary(self) -> str:
        """Say in one line what the statistics are."""
        mean, std = (" ".join(f"{value:.4f}" for value in values.values()) for values in (self.mean, self.std))
        return f"{self.dataset} {self.split}, {self.images:,} images, mean {mean}, std {std} ({', '.join(self.mean)})"


@dataclass(frozen=True)
class ChannelSums:
    """Sums over the pixels v of one channel, in [0, 255]; two of them add up to that of both sets of images."""

    num_images: int
    num_pixels: int
    sum: int
    sum_of_squares: int
    # Over images: sqrt(n * sum(v^2) - sum(v)^2), which is n times the std of an image of n pixels, in 2^-ROOT_BITS.
    sum_of_roots: int
    min: int
    max: int

    def __add__(self, other: Self) -> "ChannelSums":
        return ChannelSums(
            self.num_images + other.num_images,
            self.num_pixels + other.num_pixels,
            self.sum + other.sum,
            self.sum_of_squares + other.sum_of_squares,
            self.sum_of_roots + other.sum_of_roots,
            min(self.min, other.min),
            max(self.max, other.max),
        )

    @property
    def mean(self) -> float:
        return self.sum / (self.num_pixels * PIXEL_MAX)

    @property
    def std(self) -> float:
        squared_deviations = self.num_pixels * self.sum_of_squares - self.sum**2
        return sqrt_of_fraction(Fraction(squared_deviations, (self.num_pixels * PIXEL_MAX) ** 2))

    @property
    def std_per_image(self) -> float:
        # Images have num_pixels / num_images pixels each, so num_images drops out of the mean over images.
        return self.sum_of_roots / ((self.num_pixels * PIXEL_MAX) << ROOT_BITS)


def sqrt_of_fraction(fraction: Fraction) -> float:
    """Compute a square root, correctly rounded to float64."""
    if not fraction:
        return 0.0
    # Scaled so that the root has 64 bits or more; its last bit is set where the root goes on, so that the one rounding
    # of the division below never takes a root just above a tie for the tie itself ("round to odd").
    shift = max(0, 66 - (fraction.numerator.bit_length() - fraction.denominator.bit_length()) // 2)
    scaled, remainder = divmod(fraction.numerator << (2 * shift), fraction.denominator)
    root = isqrt(scaled)
    return (root | bool(remainder or root * root != scaled)) / (1 << shift)


def sum_channels(blocks: Iterable[Pixels]) -> list[ChannelSums]:
    """Sum up images, blocks of (n, C, H, W) uint8, channel by channel."""
    return reduce(
        lambda total, block: [a + b for a, b in zip(total, block, strict=True)],
        (_sum_block(block) for block in blocks),
    )


def _sum_block(block: Pixels) -> list[ChannelSums]:
    pixels = block.reshape(*block.shape[:2], -1)
    num_images, _, pixels_per_image = pixels.shape
    # The narrowest type that holds an image's sum of squares: sums over uint64 take 1.5 times as long.
    wide_enough = np.uint32 if pixels_per_image * PIXEL_MAX**2 < 2**32 else np.uint64
    sums = pixels.sum(axis=-1, dtype=wide_enough).astype(np.uint64)
    squares = np.square(pixels, dtype=np.uint16).sum(axis=-1, dtype=wide_enough).astype(np.uint64)
    squared_deviations = pixels_per_image * squares - sums**2
    return [
        ChannelSums(
            num_images=num_images,
            num_pixels=num_images * pixels_per_image,
            sum=int(sums[:, channel].sum()),
            sum_of_squares=int(squares[:, channel].sum()),
            sum_of_roots=sum(isqrt(value << (2 * ROOT_BITS)) for value in squared_deviations[:, channel].tolist()),
            min=int(pixels[:, channel].min()),
            max=int(pixels[:, channel].max()),
        )
        for channel in range(pixels.shape[1])
    ]


def compute_statistics(shards: ShardSet, split: Split) -> Statistics:
    """Compute a split's statistics from uint8 shards. Raises CorruptDataError if a byte differs from the manifest."""

    def sum_shard(shard: Shard) -> list[ChannelSums]:
        return sum_channels(shards.verified_image_blocks(shard))

    by_shard = map_threads(sum_shard, shards.shards(split))
    channels = {
        name: reduce(ChannelSums.__add__, sums)
        for name, sums in zip(shards.manifest.channels, zip(*by_shard, strict=True), strict=True)
    }
    first = next(iter(channels.values()))
    return Statistics(
        dataset=shards.manifest.dataset,
        split=split,
        images=first.num_images,
        pixels_per_channel=first.num_pixels,
        mean={name: sums.mean for name, sums in channels.items()},
        std={name: sums.std for name, sums in channels.items()},
        std_per_image={name: sums.std_per_image for name, sums in channels.items()},
        min={name: sums.min / PIXEL_MAX for name, sums in channels.items()},
        max={name: sums.max / PIXEL_MAX for name, sums in channels.items()},
    )


def write_stats(raw_dir: Path, stats_path: Path) -> Statistics:
    """Compute the train split's statistics and write them as JSON."""
    stats = compute_statistics(open_shards(raw_dir), "train")
    write_json(stats_path, stats.model_dump(mode="json"))
    return stats


def load_stats(path: Path) -> Statistics:
    """Read data/stats.json. Raises InputError, naming the key that is wrong."""
    try:
        return Statistics.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}: run `dvc repro`") from None
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error)}: run `dvc repro`") from None
