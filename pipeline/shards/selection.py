"""The same samples in other splits: some left out, some of train moved to test or val."""

import shutil
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from pipeline.runtime.resume import Step
from pipeline.runtime.tasks import map_tasks
from pipeline.shards.raw import samples_per_shard
from pipeline.shards.writer import ShardTask, write_shards
from shardset.content import Digests, hash_content
from shardset.errors import InputError
from shardset.manifest import SPLITS, Split
from shardset.reader import Array, split_range
from shardset.shards import ShardSet

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
    places = [int.from_bytes(digests["train"][index]) for index in train.tolist()] if any(fractions.values()) else []
    start, total = 0, Fraction(0)
    rest = np.ones(len(train), bool)
    for split, fraction in fractions.items():
        total += Fraction(fraction or 0)
        stop = ceil(total * 2**256)
        if stop > start:
            inside = np.array([start <= place < stop for place in places], bool)
            selection[split] = "train", train[inside]
            rest &= ~inside
        start = stop
    selection["train"] = "train", train[rest]
    return {split: selection[split] for split in SPLITS if split in selection}


def check_selection(raw: ShardSet, selection: Selection) -> None:
    """Raise InputError for an empty split, or one with a class that train lacks."""
    found = {split: set(raw.labels(origin)[chosen].tolist()) for split, (origin, chosen) in selection.items()}
    for split, labels in found.items():
        if not labels:
            raise InputError(f"{split}: no images are left for it")
        if lacking := sorted(labels - found["train"]):
            names = ", ".join(raw.manifest.classes[label] for label in lacking)
            raise InputError(f"{split}: train lacks these classes: {names}: add images, or lower the fractions")


@dataclass(frozen=True)
class _Chosen:
    staged: ShardSet
    origin: Split
    chosen: NDArray[np.int64]
    task: ShardTask
    all_labels: NDArray[np.int64]

    def labels(self) -> NDArray[np.int64]:
        return self.all_labels[self.task.start : self.task.stop]

    def blocks(self) -> Iterator[Array]:
        for first, last in split_range(self.task.start, self.task.stop, self.staged.block_samples):
            yield self.staged.take(self.origin, self.chosen[first:last])


def apply_selection(raw: ShardSet, digests: Mapping[Split, Digests], selection: Selection) -> ShardSet:
    """Rewrite a new set, whose manifest is not on disk yet, with the selected samples in its place."""
    sizes = {split: of_split.samples for split, of_split in raw.manifest.splits.items()}
    if all(origin == split and len(chosen) == sizes[split] for split, (origin, chosen) in selection.items()):
        return raw
    staged = ShardSet(raw.dir / ".staged.tmp", raw.manifest)
    staged.dir.mkdir()
    for split in sizes:
        (raw.dir / split).rename(staged.dir / split)
    labels = {split: staged.labels(origin)[chosen] for split, (origin, chosen) in selection.items()}

    step = Step(raw.dir)
    step.records_dir.mkdir()
    splits = write_shards(
        step,
        {split: len(of_split) for split, of_split in labels.items()},
        lambda task: _Chosen(staged, *selection[task.split], task, labels[task.split]),
        map_tasks=map_tasks,
        dtype="uint8",
        image_shape=raw.manifest.image_shape,
        samples_per_shard=samples_per_shard(raw.manifest.image_shape),
    )
    shutil.rmtree(staged.dir)
    shutil.rmtree(step.records_dir)
    content = hash_content((digests[origin][chosen], labels[split]) for split, (origin, chosen) in selection.items())
    return ShardSet(raw.dir, replace(raw.manifest, splits=splits, content_sha256=content))
