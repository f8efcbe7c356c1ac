"""What is written about image files: samples.csv and skipped.csv of the set, and lines for people."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain, compress, count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.files import hash_file, write_csv
from pipeline.sources.images.decode import is_grey
from pipeline.sources.images.facts import ImageFacts
from shardset.errors import InputError
from shardset.manifest import SAMPLES_NAME, SetFile, Split
from shardset.models import printable
from shardset.reader import Labels

SAMPLES_HEADER = ("index", "source", "sha256", "label", "width", "height", "orientation", "mode")
SKIPPED_NAME = "skipped.csv"
SKIPPED_HEADER = ("source", "reason")
MAX_NAME = 300  # characters

# Of the samples of each split, in order. Each may be read from disk whenever it is iterated over.
Names = Mapping[Split, Iterable[str]]
Facts = Mapping[Split, Iterable[ImageFacts]]


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


def write_tables(
    set_dir: Path,
    names: Names | None,
    labels: Mapping[Split, Labels],
    facts: Facts,
    selection: Mapping[Split, tuple[Split, NDArray[np.int64]]],
) -> list[SetFile]:
    """Write samples.csv of each split and, if any samples were skipped, skipped.csv, and return their entries.

    `selection` has, for each split, the split and the indices, in order, that its samples come from.
    """
    tables = []
    for split, (origin, indices) in selection.items():
        if names is None:
            break
        is_selected = np.zeros(len(labels[origin]), bool)
        is_selected[indices] = True
        samples = compress(zip(names[origin], labels[origin], facts[origin], strict=True), is_selected)
        rows = (
            (number, name, fact.sha256, label, fact.width, fact.height, fact.orientation, fact.mode)
            for number, (name, label, fact) in enumerate(samples)
        )
        tables.append(_write_table(set_dir, f"{split}/{SAMPLES_NAME}", SAMPLES_HEADER, rows))
    if skipped := [*_skipped_rows(names, facts)]:
        tables.append(_write_table(set_dir, SKIPPED_NAME, SKIPPED_HEADER, skipped))
    return tables


def _write_table(set_dir: Path, name: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> SetFile:
    """Write a table, row by row, and return its entry."""
    path = set_dir / name
    write_csv(path, chain([header], rows))
    return SetFile(path=name, bytes=path.stat().st_size, sha256=hash_file(path))


def describe_changes(facts: Facts, *, is_turned: bool) -> Iterator[str]:
    """Say, one a line, how many images were skipped, and how many converted, turned or the first frame of several."""
    num_skipped = 0
    modes, changes = Counter[str](), Counter[str]()
    for fact in chain.from_iterable(facts.values()):
        if fact.problem:
            num_skipped += 1
            continue
        modes[fact.mode] += 1
        if is_turned and fact.orientation > 1:
            changes[f"EXIF orientation {fact.orientation}"] += 1
        if fact.has_more_frames:
            changes["first of several frames or pages"] += 1
    del modes["L" if all(map(is_grey, modes)) else "RGB"]
    if num_skipped:
        yield f"Skipped: {num_skipped:,} unreadable, listed in {SKIPPED_NAME}"
    if changed := count_equal(modes + changes):
        yield f"Converted: {changed}"


def count_equal(values: Iterable[str] | Mapping[str, int]) -> str:
    """Count equal values in one line, the most frequent first: "12 PNG, 3 GIF". Counts may be given instead."""
    counts = Counter(values)
    return ", ".join(
        f"{counts[value]:,} {value}" for value in sorted(counts, key=lambda value: (-counts[value], value))
    )


def _skipped_rows(names: Names | None, facts: Facts) -> Iterator[tuple[str, str]]:
    for split, of_split in facts.items():
        of_samples = names[split] if names else (f"{split} sample {index}" for index in count())
        for name, fact in zip(of_samples, of_split, strict=names is not None):
            if fact.problem:
                yield name, fact.problem
