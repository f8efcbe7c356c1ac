"""The same samples in other splits: some left out, some of train moved to test or val."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from pipeline.runtime.resume import SET_NAME, open_step
from pipeline.runtime.tasks import Progress, Tally
from pipeline.shards.raw import samples_per_shard
from pipeline.shards.writer import ShardTask, write_shards
from shardset.content import Digests, hash_content
from shardset.errors import InputError
from shardset.manifest import SPLITS, Shard, Split
from shardset.reader import Array, Labels, ShardReader, split_range
from shardset.shards import ShardSet
from shardset.threads import MapTasks, ignore

HASHED_SAMPLES = 10_000  # at a time

# For each split, the split that its samples come from, and their indices there, in order.
Selection = Mapping[Split, tuple[Split, NDArray[np.int64]]]


def check_fractions(splits: Container[Split], fractions: Mapping[Split, float | None]) -> None:
    """Raise InputError if a fraction is given for a split that is there already."""
    for split, fraction in fractions.items():
        if fraction and split in splits:
            raise InputError(
                f"params.yaml: images.{split}_fraction: should be null, because the source has a split {split}"
            )


def select_samples(
    digests: Mapping[Split, Digests],
    excluded: Mapping[Split, Sequence[int]],
    fractions: Mapping[Split, float | None],
) -> Selection:
    """Leave out the samples that are `excluded`, by index, and move fractions of train to new splits.

    With the SHA-256 of its pixels as a fraction of 2^256, a sample moves to the first split if it is below that split's
    fraction, to the second one if it is in the next fraction. So equal images move together, and an added image moves
    no other.
    """
    chosen = {split: np.delete(np.arange(len(of_split)), excluded[split]) for split, of_split in digests.items()}
    selection: dict[Split, tuple[Split, NDArray[np.int64]]] = {split: (split, kept) for split, kept in chosen.items()}
    train = chosen["train"]
    places = np.ascontiguousarray(digests["train"]).view("S32")[train, 0]  # compared as texts, byte by byte
    start, total = 0, Fraction(0)
    rest = np.ones(len(train), bool)
    for split, fraction in fractions.items():
        total += Fraction(fraction or 0)
        stop = ceil(total * 2**256)
        if stop > start:
            inside = _is_below(places, stop) & ~_is_below(places, start)
            selection[split] = "train", train[inside]
            rest &= ~inside
        start = stop
    selection["train"] = "train", train[rest]
    return {split: selection[split] for split in SPLITS if split in selection}


def _is_below(places: NDArray[np.bytes_], bound: int) -> NDArray[np.bool_]:
    return np.ones(len(places), bool) if bound >= 2**256 else places < bound.to_bytes(32)


def check_selection(raw: ShardSet, selection: Selection) -> None:
    """Raise InputError for an empty split, or one with a class that train lacks."""
    found = {split: {*np.unique(raw.labels(origin)[chosen]).tolist()} for split, (origin, chosen) in selection.items()}
    for split, labels in found.items():
        if not labels:
            raise InputError(f"{split}: no images are left for it")
        if lacking := sorted(labels - found["train"]):
            names = ", ".join(raw.manifest.classes[label] for label in lacking)
            raise InputError(f"{split}: train lacks these classes: {names}: add images, or lower the fractions")


def selects_all(raw: ShardSet, selection: Selection) -> bool:
    """Say whether a selection leaves all samples in their splits."""
    sizes = {split: of_split.samples for split, of_split in raw.manifest.splits.items()}
    return all(origin == split and len(chosen) == sizes[split] for split, (origin, chosen) in selection.items())


def write_selection(
    raw: ShardSet,
    digests: Mapping[Split, Digests],
    selection: Selection,
    map_tasks: MapTasks,
    progress: Progress = ignore,
) -> ShardSet:
    """Write the shards of the selected samples, next to a raw set. Return the set, whose manifest the caller writes."""
    labels = {split: raw.labels(origin)[chosen] for split, (origin, chosen) in selection.items()}
    content = hash_content(
        (digests[origin][chosen[slice(*part)]], labels[split][slice(*part)])
        for split, (origin, chosen) in selection.items()
        for part in split_range(0, len(chosen), HASHED_SAMPLES)
    )
    sizes = {split: len(chosen) for split, (_, chosen) in selection.items()}

    def source_of(task: ShardTask) -> SelectedShard:
        origin, chosen = selection[task.split]
        return SelectedShard(raw.reader, [*_find_pieces(raw, origin, chosen[task.start : task.stop])])

    step = open_step(raw.dir.parent, SET_NAME, raw.manifest.content_sha256, content, sizes)
    splits = write_shards(
        step,
        sizes,
        source_of,
        dtype="uint8",
        image_shape=raw.manifest.image_shape,
        samples_per_shard=samples_per_shard(raw.manifest.image_shape),
        map_tasks=map_tasks,
        done=Tally(progress, "Moving to splits", sum(sizes.values())).add,
    )
    return ShardSet(step.dir, replace(raw.manifest, splits=splits, content_sha256=content))


@dataclass(frozen=True)
class SelectedShard:
    """Samples of other shards as one shard: pieces of these, each with the indices within it, in order."""

    reader: ShardReader
    pieces: list[tuple[Shard, NDArray[np.uint32]]]

    def labels(self) -> Labels:
        return np.concatenate([self.reader.labels(shard)[chosen] for shard, chosen in self.pieces])

    def find_file(self) -> None:
        return None

    def blocks(self) -> Iterator[Array]:
        for shard, chosen in self.pieces:
            for first, last in split_range(0, len(chosen), self.reader.block_samples):
                # Mapped for each block, because mapped pages count as memory.
                yield self.reader.images(shard)[chosen[first:last]]


def _find_pieces(raw: ShardSet, split: Split, chosen: NDArray[np.int64]) -> Iterator[tuple[Shard, NDArray[np.uint32]]]:
    for shard, start, stop in raw.ranges_with(split, int(chosen[0]), int(chosen[-1]) + 1):
        within = chosen[slice(*np.searchsorted(chosen, (start, stop)))] - start
        if len(within):
            yield shard, within.astype(np.uint32)
