"""The pictures of the report: images as PNG data URLs, with the same bytes on every run."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.image import imsave

from pipeline.audit.near_duplicates import NearDuplicate, reduce_images
from pipeline.audit.survey import Survey
from shardset.manifest import Split
from shardset.reader import Array
from shardset.shards import ShardSet

SAMPLES_PER_CLASS = 8
CLOSEST_PAIRS = 24
FARTHEST_PAIRS = 12
GAP = 2  # pixels between images
MAX_SIDE = 64  # pixels of a drawn image
NO_SOFTWARE: Any = {"Software": None}  # keeps the version of matplotlib out of the file


@dataclass(frozen=True)
class Png:
    """An image for the page, as a data URL, with its size in pixels."""

    url: str
    width: int
    height: int


@dataclass(frozen=True)
class PairPicture:
    """An image and its near-duplicate in train, side by side, as they are stored."""

    pair: NearDuplicate
    class_name: str
    train_class: str
    png: Png


def draw_samples(raw: ShardSet, table: Array) -> list[tuple[str, Png, Png]]:
    """Draw the first train images of each class, stored and normalized, with the class name.

    `table`, (C, 256) float32, is what pixel values become. Its range is scaled to that of the display.
    """
    labels = raw.labels("train")
    low, high = float(table.min()), float(table.max())
    displayed = np.rint((table.astype(np.float64) - low) / (high - low) * 255).astype(np.uint8)
    drawn = []
    for label, name in enumerate(raw.manifest.classes):
        images = raw.take("train", np.flatnonzero(labels == label)[:SAMPLES_PER_CLASS])
        if len(images):
            channels = np.arange(images.shape[1])[:, None, None]
            drawn.append((name, draw_images(images), draw_images(displayed[channels, images])))
    return drawn


def draw_means(survey: Survey) -> list[tuple[str, Png]]:
    """Draw the mean image of a split and of each of its classes."""
    counts = survey.figures.classes
    of_all = ("all", survey.class_sums.sum(axis=0), sum(counts.values()))
    of_classes = zip(counts, survey.class_sums, counts.values(), strict=True)
    return [
        (name, draw_images(((sums + count // 2) // count).astype(np.uint8)[None]))
        for name, sums, count in (of_all, *of_classes)
        if count
    ]


def draw_extremes(raw: ShardSet, survey: Survey, split: Split) -> list[tuple[str, list[int], Png]]:
    """Draw the images of a split that stand out, with the reason and their indices."""
    return [
        (name, indices, draw_images(raw.take(split, np.array(indices)))) for name, indices in survey.extremes().items()
    ]


def draw_pairs(raw: ShardSet, pairs: Sequence[NearDuplicate]) -> list[PairPicture]:
    """Draw each pair of near-duplicates, the train image on the right."""
    labels = {split: raw.labels(split) for split in raw.manifest.splits}
    classes = raw.manifest.classes
    return [
        PairPicture(
            pair,
            classes[labels[pair.split][pair.index]],
            classes[labels["train"][pair.train]],
            draw_images(
                np.concatenate(
                    [raw.take(pair.split, np.array([pair.index])), raw.take("train", np.array([pair.train]))]
                )
            ),
        )
        for pair in pairs
    ]


def draw_images(images: Array) -> Png:
    """Draw images, (n, C, H, W) uint8, in a row, reduced to MAX_SIDE pixels.

    The first three of three or more channels are red, green and blue.
    """
    images = reduce_images(images, MAX_SIDE)
    num_images, _, height, width = images.shape
    rgb = images[:, :3] if images.shape[1] >= len("rgb") else images[:, :1].repeat(3, axis=1)
    row = np.zeros((height, num_images * (width + GAP) - GAP, 4), np.uint8)
    for index, image in enumerate(rgb):
        left = index * (width + GAP)
        row[:, left : left + width, :3] = image.transpose(1, 2, 0)
        row[:, left : left + width, 3] = 255
    png = io.BytesIO()
    # Uncompressed, because the compressor's output may change with its version or the CPU.
    imsave(png, row, format="png", origin="upper", metadata=NO_SOFTWARE, pil_kwargs={"compress_level": 0})
    return Png("data:image/png;base64," + base64.b64encode(png.getvalue()).decode(), row.shape[1], height)


def closest_and_farthest(pairs: Iterable[NearDuplicate]) -> tuple[list[NearDuplicate], list[NearDuplicate]]:
    """Choose the closest pairs, and of the rest those just within the maximum distance, closest first."""
    ordered = sorted(pairs, key=lambda pair: (pair.distance, pair.split, pair.index, pair.train))
    return ordered[:CLOSEST_PAIRS], ordered[CLOSEST_PAIRS:][-FARTHEST_PAIRS:]
