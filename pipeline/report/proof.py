"""Checks that a normalized shard set follows from its raw pixels, mean and std."""

import numpy as np

from pipeline.audit.survey import SplitFigures, normalize_by_table
from pipeline.runtime.tasks import map_tasks
from shardset.errors import CorruptDataError
from shardset.manifest import Manifest, Split
from shardset.normalization import normalization_of, normalization_table
from shardset.reader import Array, split_range
from shardset.shards import ShardSet

BLOCKS = 16  # per task: few enough for all cores to get some


def value_table(shards: ShardSet) -> Array:
    """Compute what each pixel value becomes by normalizing, (C, 256) float32."""
    return normalization_table(normalization_of(shards.manifest), shards.manifest.dtype)


def check_origin(raw: ShardSet, shards: ShardSet) -> None:
    """Raise CorruptDataError unless the manifest of `shards` says that it is `raw` normalized."""
    if shards.manifest.normalization is None or _identity(raw.manifest) != _identity(shards.manifest):
        raise CorruptDataError(f"{shards.dir}: was not made from {raw.dir} by normalize")


def check_labels(raw: ShardSet, shards: ShardSet) -> None:
    """Raise CorruptDataError unless both sets have the same labels."""
    for split in raw.manifest.splits:
        if not np.array_equal(shards.labels(split), raw.labels(split)):
            raise CorruptDataError(f"{shards.dir}: the {split} labels are not those of {raw.dir}")


def check_values(raw: ShardSet, shards: ShardSet) -> None:
    """Raise CorruptDataError unless every stored value is that of its raw pixel, bit for bit."""
    table, dtype = value_table(shards), shards.manifest.dtype

    def check_range(task: tuple[Split, int, int]) -> None:
        split, first, last = task
        for start, stop in split_range(first, last, raw.block_samples):
            indices = np.arange(start, stop)
            pixels = raw.take(split, indices)
            expected = pixels if dtype == "uint8" else normalize_by_table(pixels, table).astype(dtype, copy=False)
            different = _bits(shards.take(split, indices)) != _bits(expected)
            if different.any():
                sample = indices[different.any(axis=(1, 2, 3))][0]
                raise CorruptDataError(
                    f"{shards.dir}: {split} sample {sample} differs from the normalized sample in {raw.dir}"
                )

    map_tasks(
        check_range,
        [
            (split, *samples)
            for split, of_split in raw.manifest.splits.items()
            for samples in split_range(0, of_split.samples, BLOCKS * raw.block_samples)
        ],
    )


def check_statistics(shards: ShardSet, train: SplitFigures) -> None:
    """Raise CorruptDataError if the scheme uses the train split's mean and std, but the manifest has different ones."""
    normalization = normalization_of(shards.manifest)
    if normalization.scheme not in ("dataset", "dataset_per_image"):
        return
    name = "std" if normalization.scheme == "dataset" else "std_per_image"
    measured = tuple(tuple(getattr(figures, key) for figures in train.before.values()) for key in ("mean", name))
    if measured != (normalization.mean, normalization.std):
        raise CorruptDataError(
            f"{shards.dir}: expected mean and std {measured} of the train split, got {normalization.mean} and "
            f"{normalization.std}: stats.json was not computed from this data"
        )


def check_unit_variance(shards: ShardSet, train: SplitFigures) -> None:
    """Raise CorruptDataError unless scheme `dataset` gave the train split mean 0 and std 1, up to rounding."""
    if normalization_of(shards.manifest).scheme != "dataset":
        return
    # Each value is off by a few roundings of numbers no larger than the largest value.
    largest = float(np.abs(value_table(shards)).max())
    epsilon = float(np.finfo(np.float16 if shards.manifest.dtype == "float16" else np.float32).eps)
    tolerance = 4 * epsilon * max(1.0, largest)
    for channel, figures in train.after.items():
        if abs(figures.mean) > tolerance or abs(figures.std - 1) > tolerance:
            raise CorruptDataError(
                f"{shards.dir}: expected the normalized train split to have mean 0 and std 1 within {tolerance:.1e}, "
                f"got mean {figures.mean:.3e} and std {figures.std:.9f} in channel {channel}: "
                "stats.json was not computed from this data"
            )


def _bits(values: Array) -> Array:
    """View values as unsigned integers, which tell 0.0 from -0.0."""
    return values.view(f"u{values.itemsize}")


def _identity(manifest: Manifest) -> tuple[object, ...]:
    samples = {split: shards.samples for split, shards in manifest.splits.items()}
    return manifest.content_sha256, manifest.classes, manifest.channels, manifest.image_shape, samples
