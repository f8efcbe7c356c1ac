"""Stage `report`: what the data is and what normalizing did, read back from the shards on disk."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorruptDataError
from pipeline.files import write_json, write_text
from pipeline.manifest import SPLITS, Shard, Split
from pipeline.normalize import normalization_of, normalization_table
from pipeline.parallel import map_tasks
from pipeline.shards import Array, Pixels, ShardSet, verify_shards
from pipeline.stats import Statistics, compute_statistics, sqrt_of_fraction

if TYPE_CHECKING:
    from pipeline.params import ReportParams

REMEDY = "run `dvc repro --force normalize`"


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
class SplitFigures:
    """One split: samples by class name, and figures by channel name before and after normalizing."""

    samples: int
    classes: dict[str, int]
    before: dict[str, ChannelFigures]
    after: dict[str, ChannelFigures]


def write_report(
    raw_dir: Path, shards_dir: Path, report_dir: Path, params: "ReportParams"
) -> dict[Split, SplitFigures]:
    """Verify both shard sets, survey them, and write report.html, report.md and metrics.json.

    Raises CorruptDataError where a byte differs from the manifests, a value from the formula, a mean or std that should
    be the train split's from that, or, with scheme `dataset`, the normalized train split from mean 0 and std 1.
    """
    raw, shards = verify_shards(raw_dir), verify_shards(shards_dir)
    if raw.manifest.content_sha256 != shards.manifest.content_sha256:
        raise CorruptDataError(f"{shards_dir} was not made from {raw_dir}: run `dvc repro`")
    figures = {split: survey_split(raw, shards, split) for split in SPLITS}
    check_statistics(shards, figures["train"])
    check_unit_variance(shards, figures["train"])
    write_json(report_dir / "metrics.json", {split: asdict(figures[split]) for split in SPLITS})
    for name in ("report.md", "report.html"):
        write_text(report_dir / name, _render(name, shards, figures, params))
    return figures


def survey_split(raw: ShardSet, shards: ShardSet, split: Split) -> SplitFigures:
    """Compute a split's figures. Raises CorruptDataError if a value or label on disk is not what raw's makes it."""
    manifest = shards.manifest
    labels = shards.labels(split)
    if not np.array_equal(labels, raw.labels(split)):
        raise CorruptDataError(f"{shards.dir}: the {split} labels are not those of {raw.dir}: {REMEDY}")
    table = _table(shards)

    def survey_shard(item: tuple[Shard, int, int]) -> _Survey:
        shard, start, stop = item
        return _survey_shard(shards, shard, raw.image_blocks(split, start, stop), table)

    surveys = map_tasks(survey_shard, shards.ranges(split))
    histogram = np.sum([survey.histogram for survey in surveys], axis=0)
    image_stds = np.concatenate([survey.image_stds for survey in surveys])
    class_counts = np.bincount(labels, minlength=len(manifest.classes)).tolist()
    return SplitFigures(
        samples=manifest.splits[split].samples,
        classes=dict(zip(manifest.classes, class_counts, strict=True)),
        before=_figures_before(compute_statistics(raw, split)),
        after={
            channel: _figures_after(histogram[index], table[index], image_stds[:, index])
            for index, channel in enumerate(manifest.channels)
        },
    )


@dataclass(frozen=True)
class _Survey:
    histogram: NDArray[np.int64]  # (C, 256), how often each pixel occurs
    image_stds: NDArray[np.float64]  # (N, C), of normalized values


def _survey_shard(shards: ShardSet, shard: Shard, raw_blocks: Iterable[Pixels], table: Array) -> _Survey:
    channels = np.arange(len(table))[:, None]
    written = shards.images(shard)
    histogram = np.zeros(table.shape, np.int64)
    image_stds = []
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
        done += len(block)
        histogram += _count_pixels(pixels)
        image_stds.append(_image_stds(values))
    return _Survey(histogram, np.concatenate(image_stds))


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


def _table(shards: ShardSet) -> Array:
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


def check_statistics(shards: ShardSet, train: SplitFigures) -> None:
    """Raise CorruptDataError unless the mean and std of schemes that take them from the train split are its own."""
    normalization = shards.manifest.normalization
    if normalization is None or normalization.scheme not in ("dataset", "dataset_per_image"):
        return
    name = "std" if normalization.scheme == "dataset" else "std_per_image"
    measured = tuple(tuple(getattr(it, key) for it in train.before.values()) for key in ("mean", name))
    if measured != (normalization.mean, normalization.std):
        raise CorruptDataError(
            f"{shards.dir}: expected mean and std {measured} of the train split, got {normalization.mean} and "
            f"{normalization.std}: data/stats.json was not that of this data: run `dvc repro --force stats`"
        )


def check_unit_variance(shards: ShardSet, train: SplitFigures) -> None:
    """Raise CorruptDataError unless scheme `dataset` gave the train split mean 0 and std 1, but for rounding."""
    normalization = shards.manifest.normalization
    if normalization is None or normalization.scheme != "dataset":
        return
    # Each value is off by a few roundings of numbers no larger than the largest value.
    largest = float(np.abs(_table(shards)).max())
    epsilon = float(np.finfo(np.float16 if shards.manifest.dtype == "float16" else np.float32).eps)
    tolerance = 4 * epsilon * max(1.0, largest)
    for channel, figures in train.after.items():
        if abs(figures.mean) > tolerance or abs(figures.std - 1) > tolerance:
            raise CorruptDataError(
                f"{shards.dir}: expected the normalized train split to have mean 0 and std 1 within {tolerance:.1e}, "
                f"got mean {figures.mean:.3e} and std {figures.std:.9f} in channel {channel}: "
                "data/stats.json is not that of this data: run `dvc repro --force stats`"
            )


def _render(name: str, shards: ShardSet, figures: dict[Split, SplitFigures], params: "ReportParams") -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    def number(value: float) -> str:
        # Without "-0.0000", which would say that a sign survived the rounding.
        return f"{round(value, params.decimals) + 0.0:.{params.decimals}f}"

    environment = Environment(
        loader=PackageLoader("pipeline"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number
    return environment.get_template(f"{name}.j2").render(manifest=shards.manifest, figures=figures)
