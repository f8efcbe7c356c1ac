"""What is written about image files: samples.csv and skipped.csv of the set, and lines for people."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.files import render_csv
from pipeline.sources.images.decode import is_grey
from pipeline.sources.images.samples import ImageFacts
from shardset.errors import InputError
from shardset.manifest import Split
from shardset.models import printable
from shardset.reader import Labels
from shardset.shards import SAMPLES_NAME

SAMPLES_HEADER = ("index", "source", "sha256", "label", "width", "height", "orientation", "mode")
SKIPPED_NAME = "skipped.csv"
SKIPPED_HEADER = ("source", "reason")
MAX_NAME = 300  # characters

Names = Mapping[Split, Sequence[str]]
Facts = Mapping[Split, Sequence[ImageFacts]]


def find_unreadable(facts: Facts) -> dict[Split, list[int]]:
    """Find the samples of each split that could not be decoded, by index."""
    return {split: [index for index, fact in enumerate(of_split) if fact.problem] for split, of_split in facts.items()}


def check_readable(names: Names | None, facts: Facts) -> None:
    """Raise InputError, which lists all samples that could not be decoded with the reasons, if there are any."""
    if rows := [*_skipped_rows(names, facts)]:
        raise InputError(
            f"{list_unreadable(rows)}\nRepair or remove them, or set images.unreadable to skip in params.yaml."
        )


def list_unreadable(reasons: Collection[tuple[str, str]]) -> str:
    """List images that can't be read, given their names with the reasons, one a line."""
    lines = [f"{printable(name, MAX_NAME)}: {reason}" for name, reason in reasons]
    images = "image" if len(lines) == 1 else "images"
    return "\n  ".join([f"{len(lines):,} {images} can't be read:", *lines])


def render_tables(
    names: Names | None,
    labels: Mapping[Split, Labels],
    facts: Facts,
    selection: Mapping[Split, tuple[Split, NDArray[np.int64]]],
) -> dict[str, str]:
    """Render samples.csv of each split and, if any samples were skipped, skipped.csv: texts by path in the set.

    `selection` has, for each split, the split and the indices that its samples come from.
    """
    tables = {}
    for split, (origin, indices) in selection.items():
        if names is None:
            break
        rows = [
            (number, name, fact.sha256, label, fact.width, fact.height, fact.orientation, fact.mode)
            for number, (name, label, fact) in enumerate(
                (names[origin][index], labels[origin][index], facts[origin][index]) for index in indices.tolist()
            )
        ]
        tables[f"{split}/{SAMPLES_NAME}"] = render_csv([SAMPLES_HEADER, *rows])
    if skipped := [*_skipped_rows(names, facts)]:
        tables[SKIPPED_NAME] = render_csv([SKIPPED_HEADER, *skipped])
    return tables


def describe_changes(facts: Facts, *, is_turned: bool) -> Iterator[str]:
    """Say, one a line, how many images were skipped, and how many converted, turned or the first frame of several."""
    if num_skipped := sum(map(len, find_unreadable(facts).values())):
        yield f"Skipped: {num_skipped:,} unreadable, listed in {SKIPPED_NAME}"
    of_all = [fact for fact in chain.from_iterable(facts.values()) if not fact.problem]
    stored_mode = "L" if all(is_grey(fact.mode) for fact in of_all) else "RGB"
    converted = [fact.mode for fact in of_all if fact.mode != stored_mode]
    turned = [f"EXIF orientation {fact.orientation}" for fact in of_all if is_turned and fact.orientation > 1]
    first = ["first of several frames or pages" for fact in of_all if fact.has_more_frames]
    if changed := count_equal([*converted, *turned, *first]):
        yield f"Converted: {changed}"


def count_equal(values: Iterable[str]) -> str:
    """Count equal values in one line, the most frequent first: "12 PNG, 3 GIF"."""
    counts = Counter(values)
    return ", ".join(
        f"{counts[value]:,} {value}" for value in sorted(counts, key=lambda value: (-counts[value], value))
    )


def _skipped_rows(names: Names | None, facts: Facts) -> Iterator[tuple[str, str]]:
    for split, of_split in facts.items():
        for index, fact in enumerate(of_split):
            if fact.problem:
                yield names[split][index] if names else f"{split} sample {index}", fact.problem
