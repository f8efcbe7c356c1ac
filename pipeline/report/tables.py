"""The figures of the report as tables and metrics."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from pipeline.audit.near_duplicates import MAX_DISTANCE, NearDuplicate
from pipeline.audit.survey import NUM_BINS, Survey
from pipeline.runtime import files
from shardset.manifest import Manifest, Split
from shardset.reader import Array
from shardset.shards import ShardSet

DISTANCES = (0.1, 0.2, 0.3, MAX_DISTANCE)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

Rows = Iterable[tuple[object, ...]]


@dataclass(frozen=True)
class Band:
    """Near-duplicates of one split within a distance: pairs, images of the split, and pairs whose labels differ."""

    split: Split
    distance: float
    pairs: int
    images: int
    other_class: int


def count_by_distance(raw: ShardSet, near: list[NearDuplicate]) -> list[Band]:
    """Count the near-duplicates of each split other than train within each of DISTANCES."""
    labels = {split: raw.labels(split) for split in raw.manifest.splits}
    bands = []
    for split in labels:
        for distance in DISTANCES if split != "train" else ():
            within = [pair for pair in near if pair.split == split and pair.distance <= distance]
            others = sum(bool(labels[split][pair.index] != labels["train"][pair.train]) for pair in within)
            bands.append(Band(split, distance, len(within), len({pair.index for pair in within}), others))
    return bands


def make_metrics(surveys: Mapping[Split, Survey], exact: dict[str, int], bands: list[Band]) -> dict[str, object]:
    """Collect the figures of metrics.json."""
    near = {
        band.split: {"pairs": band.pairs, "images": band.images, "pairs_of_other_class": band.other_class}
        for band in bands
        if band.distance == MAX_DISTANCE
    }
    by_split: dict[str, object] = {split: asdict(survey.figures) for split, survey in surveys.items()}
    return by_split | {"duplicates": {"exact": exact, "near": near}}


def make_tables(
    manifest: Manifest, table: Array, surveys: Mapping[Split, Survey], near: list[NearDuplicate]
) -> dict[str, Rows]:
    """Make the rows of each CSV file by its name, the header first. Shares are in percent.

    `table`, (C, 256), is what pixel values become by normalizing.
    """
    pixels: dict[str, Iterable[object]] = {"pixel": range(256)}
    for index, channel in enumerate(manifest.channels):
        pixels[f"{channel}_value"] = [float(str(value)) for value in table[index]]
        pixels |= {f"{channel}_{split}": percent(of.pixel_counts[index]).tolist() for split, of in surveys.items()}
    pixels |= {f"all_{split}": percent(of.pixel_counts.sum(axis=0)).tolist() for split, of in surveys.items()}
    images: dict[str, Iterable[object]] = {}
    for name, limit in (("brightness", 1), ("contrast", 0.5)):
        images[name] = [round((index + 0.5) * limit / NUM_BINS, 3) for index in range(NUM_BINS)]
        images |= {f"{name}_{split}": percent(of.histograms()[name]).tolist() for split, of in surveys.items()}
    classes: dict[str, Iterable[object]] = {"class": manifest.classes}
    classes |= {split: of.figures.classes.values() for split, of in surveys.items()}
    return {
        **{
            name: [tuple(columns), *zip(*columns.values(), strict=True)]
            for name, columns in (("pixels", pixels), ("images", images), ("classes", classes))
        },
        "near_duplicates": [
            ("split", "index", "train", "distance"),
            *((pair.split, pair.index, pair.train, pair.distance) for pair in near),
        ],
    }


def render_csv(rows: Rows) -> str:
    """Render CSV with LF line endings. Text that a spreadsheet would run as a formula gets an apostrophe in front."""
    return files.render_csv(map(_as_text, row) for row in rows)


def _as_text(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell


def percent(counts: ArrayLike) -> Array:
    """Turn counts into shares of their sum, in percent."""
    shares: Array = 100 * np.asarray(counts) / np.sum(counts)
    return shares
