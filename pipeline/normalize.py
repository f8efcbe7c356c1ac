"""Stage `normalize`: pixels to values with mean 0 and std 1, as torchvision's `ToTensor()` and `Normalize()` do it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from pipeline.card import render_card
from pipeline.errors import InputError
from pipeline.files import replace_dir, write_synced
from pipeline.manifest import SPLITS, Dtype, Manifest, Normalization, Split, save_manifest
from pipeline.shards import Array, Pixels, open_raw, write_shards
from pipeline.stats import Statistics, read_statistics

if TYPE_CHECKING:
    from pipeline.params import NormalizeParams

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def choose_normalization(params: "NormalizeParams", stats: Statistics, channels: tuple[str, ...]) -> Normalization:
    """Turn a scheme into its mean and std, one a channel. Raises InputError where they don't fit the channels."""
    mean = tuple(stats.mean[name] for name in channels)
    std = tuple(stats.std[name] for name in channels)
    match params.scheme:
        case "dataset":
            pass
        case "dataset_per_image":
            std = tuple(stats.std_per_image[name] for name in channels)
        case "imagenet":
            mean, std = IMAGENET_MEAN, IMAGENET_STD
        case "symmetric":
            mean = std = (0.5,) * len(channels)
        case "unit":
            mean, std = (0.0,) * len(channels), (1.0,) * len(channels)
        case "custom":
            mean, std = params.mean or (), params.std or ()
    if not len(mean) == len(std) == len(channels):
        raise InputError(
            f"params.yaml: normalize.scheme: '{params.scheme}' has {len(mean)} means and {len(std)} stds, "
            f"the images have {len(channels)} channels: {', '.join(channels)}"
        )
    return Normalization(scheme=params.scheme, mean=mean, std=std)


def normalization_of(manifest: Manifest) -> Normalization:
    """Return the normalization of a shard set; of one that was not normalized, the one that leaves pixels in [0, 1]."""
    num_channels = len(manifest.channels)
    return manifest.normalization or Normalization(scheme="unit", mean=(0.0,) * num_channels, std=(1.0,) * num_channels)


def normalize_pixels(pixels: Pixels, normalization: Normalization, out: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute `(v / 255 - mean[c]) / std[c]` for pixels (n, C, H, W) uint8 into `out`, float32 of the same shape.

    Each operation is a float32 one and the divisions are true ones, so the values equal torchvision's bit for bit;
    multiplying by reciprocals would not.
    """
    mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (normalization.mean, normalization.std))
    np.divide(pixels, np.float32(255), out=out)
    np.subtract(out, mean, out=out)
    return np.divide(out, std, out=out)


def normalization_table(normalization: Normalization, dtype: Dtype) -> Array:
    """Compute the value of each of the 256 pixels in each channel as the reader gives it, (C, 256) float32.

    With dtype float16 these are the values rounded to float16. Raises InputError if a value is no finite number.
    """
    num_channels = len(normalization.mean)
    pixels = np.broadcast_to(np.arange(256, dtype=np.uint8), (num_channels, 256)).reshape(1, num_channels, 1, 256)
    with np.errstate(all="ignore"):
        table = normalize_pixels(pixels, normalization, np.empty(pixels.shape, np.float32)).reshape(num_channels, 256)
        if dtype == "float16":
            table = table.astype(np.float16).astype(np.float32)
    if not np.isfinite(table).all():
        raise InputError(
            f"params.yaml: normalize.scheme: '{normalization.scheme}' gives values that {dtype} can't hold: "
            f"std is {normalization.std}"
        )
    return table


def normalize_shards(
    raw_dir: Path, stats_path: Path, shards_dir: Path, params: "NormalizeParams", scheduler: str | None = None
) -> Manifest:
    """Write a normalized shard set in the place of `shards_dir`; `scheduler` as in `map_tasks`.

    Raises InputError where the params don't fit the data, CorruptDataError where data/raw is not what it was.
    """
    raw = open_raw(raw_dir)
    # A raw shard that becomes a part of one new shard is verified while it is read, the others before.
    raw.verify(
        but={
            shard.images
            for split in SPLITS
            for shard, start, stop in raw.ranges(split)
            if start // params.samples_per_shard == (stop - 1) // params.samples_per_shard
        }
    )
    stats = read_statistics(stats_path)
    if (stats.dataset, set(stats.mean)) != (raw.manifest.dataset, set(raw.manifest.channels)):
        raise InputError(f"{stats_path}: not the statistics of {raw_dir}: run `dvc repro --force stats`")
    normalization = choose_normalization(params, stats, raw.manifest.channels)
    normalization_table(normalization, params.dtype)

    def normalized_blocks(split: Split, start: int, stop: int) -> Iterator[Array]:
        # One buffer a shard, used again for each block: fresh memory would cost more than the arithmetic.
        buffer = np.empty((raw.block_samples, *raw.manifest.image_shape), np.float32)
        for pixels in raw.image_blocks(split, start, stop):
            yield normalize_pixels(pixels, normalization, buffer[: len(pixels)]).astype(params.dtype, copy=False)

    with replace_dir(shards_dir) as staging_dir:
        splits = write_shards(
            staging_dir,
            {split: raw.labels(split) for split in raw.manifest.splits},
            raw.image_blocks if params.dtype == "uint8" else normalized_blocks,
            dtype=params.dtype,
            image_shape=raw.manifest.image_shape,
            samples_per_shard=params.samples_per_shard,
            scheduler=scheduler,
        )
        raw.expect_same()
        manifest = replace(raw.manifest, dtype=params.dtype, normalization=normalization, splits=splits)
        for name, text in render_card(manifest).items():
            write_synced(staging_dir / name, text)
        save_manifest(manifest, staging_dir)
    return manifest
