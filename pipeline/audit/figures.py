"""What the audit found, in figures: details.json, the headline figures, and the rows of images.csv."""

from collections.abc import Iterator, Mapping, Sequence
from math import fsum

import numpy as np

from pipeline.audit.details import HISTOGRAM_LIMITS, Band, ClassFigures, Details, SplitDetails, Spread
from pipeline.audit.lists import ROWS_PER_BLOCK, LeftOut, PairTable, find_leaked, find_twins
from pipeline.audit.near_duplicates import MAX_DISTANCE, is_searched
from pipeline.audit.oddities import find_oddities
from pipeline.audit.pairs import Indices, Pairs, number_images
from pipeline.audit.survey import Floats, Survey
from pipeline.numerics.sums import PIXEL_MAX
from pipeline.runtime.files import escape_formula
from shardset.manifest import Split
from shardset.reader import split_range
from shardset.shards import ShardSet

DISTANCES = (0.1, 0.2, 0.3, MAX_DISTANCE)
NUM_BINS = 50
DECIMALS = 4  # of the figures in images.csv
# Of images.csv. The measures are those of Survey; `nearest` is the distance of the nearest near-duplicate.
IMAGE_COLUMNS = ["split", "index", "label", "brightness", "contrast", "grey", "clipped", "border", "entropy", "nearest"]


def make_details(
    raw: ShardSet,
    surveys: Mapping[Split, Survey],
    exact: Pairs,
    pairs: PairTable,
    left_out: LeftOut,
) -> Details:
    """Collect the figures of details.json; `exact` is what `find_exact_pairs` found."""
    cluster_sizes = _cluster_sizes(pairs)
    return Details(
        content_sha256=raw.manifest.content_sha256,
        searched=is_searched(raw.manifest.image_shape),
        max_distance=MAX_DISTANCE,
        splits={split: _split_details(raw, split, survey, exact, pairs) for split, survey in surveys.items()},
        bands=tuple(_bands(pairs)),
        label_conflicts=int(pairs.is_conflict.sum()),
        clusters=len(cluster_sizes),
        largest_cluster=int(cluster_sizes.max(initial=0)),
        ignored=left_out.pairs,
        ignored_conflicts=left_out.conflicts,
        oddities=find_oddities(surveys),
    )


def headline_figures(details: Details, exact: Pairs, pairs: PairTable) -> dict[str, object]:
    """Collect the figures of audit.json: those that people compare between versions of a dataset."""
    by_split: dict[str, object] = {}
    for split, of in details.splits.items():
        leaked = {"leaked": of.leaked, "leaked_percent": round(100 * of.leaked / of.samples, 2)}
        by_split[split] = ({} if split == "train" else leaked) | {"twins": of.twins}
    return by_split | {
        "exact_duplicates": len(np.unique(number_images(exact)[0])),
        "near_duplicates": len(pairs),
        "label_conflicts": details.label_conflicts,
        "clusters": details.clusters,
    }


def summarize(details: Details, pairs: PairTable) -> str:
    """Describe in one line what was found."""
    leaked = [f"{of.leaked:,} leaked {split} images" for split, of in details.splits.items() if split != "train"]
    twins = f"{details.splits['train'].twins:,} train twins"
    conflicts = f"{details.label_conflicts:,} label conflicts"
    return ", ".join([f"{len(pairs):,} pairs of near-duplicates", *leaked, twins, conflicts])


def image_rows(raw: ShardSet, surveys: Mapping[Split, Survey], pairs: PairTable) -> Iterator[tuple[object, ...]]:
    """Make the rows of images.csv, the header first."""
    yield tuple(IMAGE_COLUMNS)
    names = [escape_formula(name) for name in raw.manifest.classes]
    for split, survey in surveys.items():
        nearest = _find_nearest(pairs, split, len(survey.labels))
        measures = survey.brightness, survey.contrast, survey.clipped_shares, survey.borders, survey.entropies
        for start, stop in split_range(0, len(survey.labels), ROWS_PER_BLOCK):
            facts = (column[start:stop] for column in (survey.labels, survey.grey, nearest))
            figures = (np.round(values[start:stop], DECIMALS) for values in measures)
            block = zip(*(column.tolist() for column in (*facts, *figures)), strict=True)
            for index, (label, grey, distance, brightness, contrast, *others) in enumerate(block, start):
                distance_or_none = "" if distance == np.inf else distance
                yield split, index, names[label], brightness, contrast, int(grey), *others, distance_or_none


def _find_nearest(pairs: PairTable, split: Split, num_images: int) -> Floats:
    """Find the distance of the nearest near-duplicate of each image of a split, infinity without one, (num_images,)."""
    nearest = np.full(num_images, np.inf)
    for prefix in ("", "other_"):
        rows = pairs.rows[pairs.rows[f"{prefix}split"] == pairs.splits.index(split)]
        np.minimum.at(nearest, rows[f"{prefix}index"], rows["distance"])
    return nearest


def _cluster_sizes(pairs: PairTable) -> Indices:
    """Count the images of each cluster, (clusters,)."""
    _, first = np.unique(np.concatenate(number_images(pairs.rows)), return_index=True)
    return np.bincount(np.tile(pairs.rows["cluster"], 2)[first])


def _split_details(raw: ShardSet, split: Split, survey: Survey, exact: Pairs, pairs: PairTable) -> SplitDetails:
    splits = list(raw.manifest.splits)
    number = splits.index(split)
    leaked, twins = find_leaked(pairs, split), find_twins(pairs, split)
    num_exact = np.bincount(exact["other_split"][exact["split"] == number], minlength=number + 1).tolist()
    return SplitDetails(
        samples=len(survey.labels),
        statistics=survey.statistics,
        brightness=_spread(survey.brightness),
        contrast=_spread(survey.contrast),
        pixel_counts=dict(zip(raw.manifest.channels, map(tuple, survey.pixel_counts.tolist()), strict=True)),
        histograms={name: _histogram(getattr(survey, name), limit) for name, limit in HISTOGRAM_LIMITS.items()},
        classes=_class_figures(raw.manifest.classes, survey, leaked, twins),
        leaked=len(leaked),
        twins=len(twins),
        exact_duplicates=num_exact[number],
        exact_in=dict(zip(splits[:number], num_exact, strict=False)),
    )


def _class_figures(classes: Sequence[str], survey: Survey, leaked: Indices, twins: Indices) -> dict[str, ClassFigures]:
    counts, num_leaked, num_twins = (
        np.bincount(labels, minlength=len(classes)).tolist()
        for labels in (survey.labels, survey.labels[leaked], survey.labels[twins])
    )
    sums = survey.class_sums
    figures = {}
    for index, (name, count) in enumerate(zip(classes, counts, strict=True)):
        num_values = count * survey.values_per_image * PIXEL_MAX
        figures[name] = ClassFigures(
            samples=count,
            mean_color=tuple((sums[index] * sums.shape[1] / num_values).tolist()) if count else None,
            brightness=int(sums[index].sum()) / num_values if count else None,
            leaked=num_leaked[index],
            twins=num_twins[index],
        )
    return figures


def _bands(pairs: PairTable) -> Iterator[Band]:
    for number, split in enumerate(pairs.splits):
        for other_split in pairs.splits[: number + 1]:
            kind = pairs.between(split, other_split)
            for distance in DISTANCES:
                within = kind.select(kind.rows["distance"] <= distance)
                yield Band(
                    split=split,
                    other_split=other_split,
                    distance=distance,
                    pairs=len(within),
                    images=len(np.unique(within.rows["index"])),
                    label_conflicts=int(within.is_conflict.sum()),
                )


def _spread(values: Floats) -> Spread:
    return Spread(min=float(values.min()), mean=fsum(values) / len(values), max=float(values.max()))


def _histogram(values: Floats, limit: float) -> tuple[int, ...]:
    bins = np.minimum((values * (NUM_BINS / limit)).astype(np.int64), NUM_BINS - 1)
    return tuple(np.bincount(bins, minlength=NUM_BINS).tolist())
