"""What the audit found, in figures: details.json, the headline figures, and the rows of images.csv."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import fsum

import numpy as np

from pipeline.audit.details import HISTOGRAM_LIMITS, Band, ClassFigures, Details, SplitDetails, Spread
from pipeline.audit.lists import LeftOut, ListedPair, find_leaked, find_twins
from pipeline.audit.near_duplicates import MAX_DISTANCE, is_searched
from pipeline.audit.oddities import find_oddities
from pipeline.audit.pairs import Pair
from pipeline.audit.survey import Floats, Survey, survey_statistics
from pipeline.numerics.sums import PIXEL_MAX
from pipeline.runtime.files import escape_formula
from shardset.manifest import Split
from shardset.shards import ShardSet

DISTANCES = (0.1, 0.2, 0.3, MAX_DISTANCE)
NUM_BINS = 50
DECIMALS = 4  # of the figures in images.csv
# Of images.csv. The measures are those of Survey; `nearest` is the distance of the nearest near-duplicate.
IMAGE_COLUMNS = ["split", "index", "label", "brightness", "contrast", "grey", "clipped", "border", "entropy", "nearest"]


def make_details(
    raw: ShardSet,
    surveys: Mapping[Split, Survey],
    exact: Sequence[Pair],
    pairs: Sequence[ListedPair],
    left_out: LeftOut,
) -> Details:
    """Collect the figures of details.json; `exact` is what `find_exact_pairs` found."""
    cluster_sizes = Counter(of_cluster for _, of_cluster in {image for of in pairs for image in _images_of(of)})
    num_exact = Counter((pair.split, pair.other_split) for pair in exact)
    return Details(
        content_sha256=raw.manifest.content_sha256,
        searched=is_searched(raw.manifest.image_shape),
        max_distance=MAX_DISTANCE,
        splits={split: _split_details(raw, split, survey, num_exact, pairs) for split, survey in surveys.items()},
        bands=tuple(_bands(tuple(surveys), pairs)),
        label_conflicts=sum(of.is_conflict for of in pairs),
        clusters=len(cluster_sizes),
        largest_cluster=max(cluster_sizes.values(), default=0),
        ignored=left_out.pairs,
        ignored_conflicts=left_out.conflicts,
        oddities=find_oddities(surveys),
    )


def headline_figures(details: Details, exact: Sequence[Pair], pairs: Sequence[ListedPair]) -> dict[str, object]:
    """Collect the figures of audit.json: those that people compare between versions of a dataset."""
    by_split: dict[str, object] = {}
    for split, of in details.splits.items():
        leaked = {"leaked": of.leaked, "leaked_percent": round(100 * of.leaked / of.samples, 2)}
        by_split[split] = ({} if split == "train" else leaked) | {"twins": of.twins}
    return by_split | {
        "exact_duplicates": len({(pair.split, pair.index) for pair in exact}),
        "near_duplicates": len(pairs),
        "label_conflicts": details.label_conflicts,
        "clusters": details.clusters,
    }


def summarize(details: Details, pairs: Sequence[ListedPair]) -> str:
    """Describe in one line what was found."""
    leaked = [f"{of.leaked:,} leaked {split} images" for split, of in details.splits.items() if split != "train"]
    twins = f"{details.splits['train'].twins:,} train twins"
    conflicts = f"{details.label_conflicts:,} label conflicts"
    return ", ".join([f"{len(pairs):,} pairs of near-duplicates", *leaked, twins, conflicts])


def image_rows(
    raw: ShardSet, surveys: Mapping[Split, Survey], pairs: Sequence[ListedPair]
) -> Iterator[tuple[object, ...]]:
    """Make the rows of images.csv, the header first."""
    yield tuple(IMAGE_COLUMNS)
    nearest: dict[tuple[Split, int], float] = {}
    for of in sorted(pairs, key=lambda of: of.pair.distance):
        for image, _ in _images_of(of):
            nearest.setdefault(image, of.pair.distance)
    names = [escape_formula(name) for name in raw.manifest.classes]
    for split, survey in surveys.items():
        measures = survey.brightness, survey.contrast, survey.clipped_shares, survey.borders, survey.entropies
        rounded = zip(*(np.round(values, DECIMALS).tolist() for values in measures), strict=True)
        for index, (brightness, contrast, *others) in enumerate(rounded):
            label, grey = names[survey.labels[index]], int(survey.grey[index])
            yield split, index, label, brightness, contrast, grey, *others, nearest.get((split, index), "")


def _images_of(of: ListedPair) -> list[tuple[tuple[Split, int], int]]:
    """List both images of a pair, each with the number of its cluster."""
    pair = of.pair
    return [((pair.split, pair.index), of.cluster), ((pair.other_split, pair.other_index), of.cluster)]


def _split_details(
    raw: ShardSet,
    split: Split,
    survey: Survey,
    num_exact: Mapping[tuple[Split, Split], int],
    pairs: Sequence[ListedPair],
) -> SplitDetails:
    manifest = raw.manifest
    splits = list(manifest.splits)
    leaked, twins = find_leaked(pairs, split), find_twins(pairs, split)
    return SplitDetails(
        samples=len(survey.labels),
        statistics=survey_statistics(raw, split, survey),
        brightness=_spread(survey.brightness),
        contrast=_spread(survey.contrast),
        pixel_counts=dict(zip(manifest.channels, map(tuple, survey.pixel_counts.tolist()), strict=True)),
        histograms={name: _histogram(getattr(survey, name), limit) for name, limit in HISTOGRAM_LIMITS.items()},
        classes=_class_figures(manifest.classes, survey, leaked, twins),
        leaked=len(leaked),
        twins=len(twins),
        exact_duplicates=num_exact[split, split],
        exact_in={other: num_exact[split, other] for other in splits[: splits.index(split)]},
    )


def _class_figures(
    classes: Sequence[str], survey: Survey, leaked: set[int], twins: set[int]
) -> dict[str, ClassFigures]:
    num_classes = len(classes)
    counts = np.bincount(survey.labels, minlength=num_classes).tolist()
    sums = np.zeros((num_classes, survey.sums.shape[1]), np.int64)
    np.add.at(sums, survey.labels, survey.sums)
    num_leaked, num_twins = (
        np.bincount(survey.labels[sorted(indices)], minlength=num_classes).tolist() for indices in (leaked, twins)
    )
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


def _bands(splits: Sequence[Split], pairs: Sequence[ListedPair]) -> Iterator[Band]:
    for number, split in enumerate(splits):
        for other_split in splits[: number + 1]:
            kind = [of for of in pairs if (of.pair.split, of.pair.other_split) == (split, other_split)]
            for distance in DISTANCES:
                within = [of for of in kind if of.pair.distance <= distance]
                yield Band(
                    split=split,
                    other_split=other_split,
                    distance=distance,
                    pairs=len(within),
                    images=len({of.pair.index for of in within}),
                    label_conflicts=sum(of.is_conflict for of in within),
                )


def _spread(values: Floats) -> Spread:
    return Spread(min=float(values.min()), mean=fsum(values) / len(values), max=float(values.max()))


def _histogram(values: Floats, limit: float) -> tuple[int, ...]:
    bins = np.minimum((values * (NUM_BINS / limit)).astype(np.int64), NUM_BINS - 1)
    return tuple(np.bincount(bins, minlength=NUM_BINS).tolist())
