"""Checks that a normalized shard set follows from its raw pixels, mean and std."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pipeline.audit.details import Details, SplitDetails
from pipeline.numerics.sums import sqrt_of_fraction
from shardset.errors import CorruptDataError
from shardset.manifest import Manifest, Split
from shardset.normalization import normalization_of, normalization_table
from shardset.reader import Array
from shardset.shards import ShardSet


@dataclass(frozen=True)
class ValueFigures:
    """The normalized values of one channel in one split: their range, and their exact mean and std, rounded once."""

    min: float
    max: float
    mean: float
    std: float


def value_table(shards: ShardSet) -> Array:
    """Compute what each pixel value becomes by normalizing, (C, 256) float32."""
    return normalization_table(normalization_of(shards.manifest), shards.manifest.dtype)


def check_origin(raw: ShardSet, shards: ShardSet) -> None:
    """Raise CorruptDataError unless the manifest of `shards` says that it is `raw` normalized."""
    if shards.manifest.normalization is None or _identity(raw.manifest) != _identity(shards.manifest):
        raise CorruptDataError(f"{shards.dir}: was not made from {raw.dir} by normalize")


def check_audit(raw: ShardSet, details: Details) -> None:
    """Raise CorruptDataError if the audit is of other data than `raw`."""
    if details.content_sha256 != raw.manifest.content_sha256 or [*details.splits] != [*raw.manifest.splits]:
        raise CorruptDataError(f"{raw.dir}: the audit is of other data, content_sha256 {details.content_sha256}")


def compute_figures(details: Mapping[Split, SplitDetails], table: Array) -> dict[Split, dict[str, ValueFigures]]:
    """Compute the figures of normalized values, by split and channel.

    They follow from how often each pixel value occurs and from `table`, (C, 256), what pixel values become.
    """
    return {
        split: {
            channel: _figures_of(counts, values)
            for (channel, counts), values in zip(of.pixel_counts.items(), table.tolist(), strict=True)
        }
        for split, of in details.items()
    }


def check_statistics(shards: ShardSet, train: SplitDetails) -> None:
    """Raise CorruptDataError if the scheme uses the train split's mean and std, but the manifest has different ones."""
    normalization = normalization_of(shards.manifest)
    if normalization.scheme not in ("dataset", "dataset_per_image"):
        return
    stds = train.statistics.std if normalization.scheme == "dataset" else train.statistics.std_per_image
    measured = tuple(train.statistics.mean.values()), tuple(stds.values())
    if measured != (normalization.mean, normalization.std):
        raise CorruptDataError(
            f"{shards.dir}: expected mean and std {measured} of the train split, got {normalization.mean} and "
            f"{normalization.std}: stats.json was not computed from this data"
        )


def check_unit_variance(shards: ShardSet, train: Mapping[str, ValueFigures]) -> None:
    """Raise CorruptDataError unless scheme `dataset` gave the train split mean 0 and std 1, up to rounding."""
    if normalization_of(shards.manifest).scheme != "dataset":
        return
    # Each value is off by a few roundings of numbers no larger than the largest value.
    largest = float(np.abs(value_table(shards)).max())
    epsilon = float(np.finfo(np.float16 if shards.manifest.dtype == "float16" else np.float32).eps)
    tolerance = 4 * epsilon * max(1.0, largest)
    for channel, figures in train.items():
        if abs(figures.mean) > tolerance or abs(figures.std - 1) > tolerance:
            raise CorruptDataError(
                f"{shards.dir}: expected the normalized train split to have mean 0 and std 1 within {tolerance:.1e}, "
                f"got mean {figures.mean:.3e} and std {figures.std:.9f} in channel {channel}: "
                "stats.json was not computed from this data"
            )


def _figures_of(counts: Sequence[int], values: Sequence[float]) -> ValueFigures:
    occurring = [(Fraction(value), count) for value, count in zip(values, counts, strict=True) if count]
    total = sum(count for _, count in occurring)
    mean = sum(value * count for value, count in occurring) / total
    variance = sum((value - mean) ** 2 * count for value, count in occurring) / total
    return ValueFigures(
        min=float(min(value for value, _ in occurring)),
        max=float(max(value for value, _ in occurring)),
        mean=float(mean),
        std=sqrt_of_fraction(Fraction(variance)),
    )


def _identity(manifest: Manifest) -> tuple[object, ...]:
    samples = {split: shards.samples for split, shards in manifest.splits.items()}
    return manifest.content_sha256, manifest.classes, manifest.channels, manifest.image_shape, samples
