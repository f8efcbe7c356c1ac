"""Stage `stats`: the channel statistics of the train split, every figure exact.

Pixels are integers, so their sums are taken in integers: no order, thread count or shard size can change them. What is
not rational, a square root, is taken of exact integers. Each figure is rounded once, to float64.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import isqrt
from os import PathLike
from pathlib import Path
from typing import Self

import numpy as np
from msgspec import to_builtins
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.files import write_json
from pipeline.manifest import Shard, Split
from pipeline.models import Model, parse_json
from pipeline.parallel import map_tasks
from pipeline.shards import Pixels, ShardSet, open_raw

PIXEL_MAX = 255
# Square roots are summed up as integers, in units of 2^-ROOT_BITS.
ROOT_BITS = 256

ByChannel = dict[str, float]


class Statistics(Model, frozen=True):
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

    def __post_init__(self) -> None:
        for name in ("std", "std_per_image", "min", "max"):
            if getattr(self, name).keys() != self.mean.keys():
                raise ValueError(f"{name}: should have the channels of mean")

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
    # Over images: sqrt(n * sum(v^2) - sum(v)^2), which is n times the std of an image of n pixels; and how far from it
    # the exact sum may be. Both in units of 2^-ROOT_BITS.
    sum_of_roots: int
    root_error: int
    min: int
    max: int

    def __add__(self, other: Self) -> "ChannelSums":
        return ChannelSums(
            self.num_images + other.num_images,
            self.num_pixels + other.num_pixels,
            self.sum + other.sum,
            self.sum_of_squares + other.sum_of_squares,
            self.sum_of_roots + other.sum_of_roots,
            self.root_error + other.root_error,
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
        return self._mean_of_roots(self.sum_of_roots)

    @property
    def is_certain(self) -> bool:
        """Whether `std_per_image` is correctly rounded: all that it may be exactly rounds to the same float64."""
        low, high = self.sum_of_roots - self.root_error, self.sum_of_roots + self.root_error
        return self._mean_of_roots(low) == self._mean_of_roots(high)

    def _mean_of_roots(self, sum_of_roots: int) -> float:
        # Images have num_pixels / num_images pixels each, so num_images drops out of the mean over images.
        return sum_of_roots / ((self.num_pixels * PIXEL_MAX) << ROOT_BITS)


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


# Of integers below `limit`, the sum of square roots and how far it may be off, both in units of 2^-ROOT_BITS.
RootSum = Callable[[NDArray[np.int64], int], tuple[int, int]]


def sum_roots_fast(values: NDArray[np.int64], limit: int) -> tuple[int, int]:
    """Sum up square roots in numpy: each is off by less than 2^-39, before the shift that is undone at the end."""
    shift = (62 - limit.bit_length()) // 2
    scaled = values << (2 * shift)
    root = np.sqrt(scaled.astype(np.float64))
    whole = root.astype(np.int64)
    whole -= whole * whole > scaled
    rest = scaled - whole * whole
    # sqrt(scaled) = whole + rest / (whole + sqrt(scaled)); the quotient's own error, of a few 2^-53, is far smaller
    # than that of cutting it off after 40 bits.
    fraction = np.divide(rest, whole + root, out=np.zeros(len(values)), where=rest > 0)
    units = (int(whole.sum()) << 40) + int((fraction * 2.0**40).astype(np.int64).sum())
    to_root_bits = ROOT_BITS - 40 - shift
    return units << to_root_bits, 2 * int(np.count_nonzero(rest)) << to_root_bits


def sum_roots_exact(values: NDArray[np.int64], limit: int) -> tuple[int, int]:
    """Sum up square roots in Python's integers, twenty times as slow: each is off by less than one unit."""
    del limit
    return sum(isqrt(value << (2 * ROOT_BITS)) for value in values.tolist()), len(values)


def sum_channels(blocks: Iterable[Pixels], sum_roots: RootSum = sum_roots_fast) -> list[ChannelSums]:
    """Sum up images, blocks of (n, C, H, W) uint8, channel by channel."""
    by_image: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    low, high, pixels_per_image = [], [], 0
    for block in blocks:
        pixels = block.reshape(*block.shape[:2], -1)
        pixels_per_image = pixels.shape[-1]
        by_image.append(sum_images(pixels))
        low.append(pixels.min(axis=0).min(axis=-1))  # twice as fast as over both axes at once
        high.append(pixels.max(axis=0).max(axis=-1))
    # (C, N) each: what is left of N images once their pixels are summed up.
    sums, squares = (np.concatenate(parts).T.copy() for parts in zip(*by_image, strict=True))
    roots = [
        sum_roots(squared_deviations, (pixels_per_image * PIXEL_MAX) ** 2 // 4)
        for squared_deviations in pixels_per_image * squares - sums * sums
    ]
    return [
        ChannelSums(
            num_images=len(sums[channel]),
            num_pixels=len(sums[channel]) * pixels_per_image,
            sum=int(sums[channel].sum()),
            sum_of_squares=int(squares[channel].sum()),
            sum_of_roots=sum_of_roots,
            root_error=root_error,
            min=int(np.min(low, axis=0)[channel]),
            max=int(np.max(high, axis=0)[channel]),
        )
        for channel, (sum_of_roots, root_error) in enumerate(roots)
    ]


def sum_images(pixels: Pixels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sum up the pixels and their squares of each image and channel, (n, C) each, of (n, C, pixels)."""
    # In floats, which is faster: whatever the order, they are exact while sums of integers stay below 2^24 in float32
    # and 2^53 in float64. 256 * 255^2 does; an image that can't be cut into rows of 256 takes float64.
    row, wide_enough = (256, np.float32) if pixels.shape[-1] % 256 == 0 else (pixels.shape[-1], np.float64)
    rows = pixels.reshape(*pixels.shape[:2], -1, row).astype(wide_enough)
    sums, squares = np.vecdot(rows, np.ones(row, wide_enough)), np.vecdot(rows, rows)
    return sums.sum(axis=-1, dtype=np.int64), squares.sum(axis=-1, dtype=np.int64)


def compute_statistics(shards: ShardSet, split: Split, scheduler: str | None = None) -> Statistics:
    """Compute a split's statistics from uint8 shards. Raises CorruptDataError if a byte differs from the manifest."""
    channels = _sum_split(shards, split, sum_roots_fast, scheduler)
    if not all(sums.is_certain for sums in channels.values()):
        channels = _sum_split(shards, split, sum_roots_exact, scheduler)
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


def _sum_split(shards: ShardSet, split: Split, sum_roots: RootSum, scheduler: str | None) -> dict[str, ChannelSums]:
    def sum_shard(shard: Shard) -> list[ChannelSums]:
        return sum_channels(shards.verified_image_blocks(shard), sum_roots)

    by_shard = map_tasks(sum_shard, shards.shards(split), scheduler)
    by_channel = (reduce(ChannelSums.__add__, sums) for sums in zip(*by_shard, strict=True))
    return dict(zip(shards.manifest.channels, by_channel, strict=True))


def write_stats(raw_dir: Path, stats_path: Path, scheduler: str | None = None) -> Statistics:
    """Compute the train split's statistics and write them as JSON; `scheduler` as in `map_tasks`."""
    stats = compute_statistics(open_raw(raw_dir), "train", scheduler)
    write_json(stats_path, to_builtins(stats))
    return stats


def read_statistics(path: Path) -> Statistics:
    """Read data/stats.json. Raises InputError, naming the key that is wrong."""
    try:
        return parse_json(path.read_bytes(), Statistics)
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}: run `dvc repro`") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}: run `dvc repro`") from None


def load_stats(path: str | PathLike[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Read the mean and std of data/stats.json, by channel, as `transforms.Normalize` takes them. Raises InputError."""
    stats = read_statistics(Path(path))
    return tuple(stats.mean.values()), tuple(stats.std.values())
