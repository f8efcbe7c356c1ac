"""Raw sets: the pixels of a dataset as they come from its source, and the same samples in other splits."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.runtime.resume import Step
from pipeline.runtime.tasks import map_tasks
from pipeline.shards.writer import ShardJob, ShardTask, plan_shards, write_shard
from shardset.content import Digests, hash_content, hash_images
from shardset.errors import CorruptDataError
from shardset.manifest import Manifest, Preparation, Shard, Split, SplitShards
from shardset.reader import Array, Labels
from shardset.shards import ShardSet

MAX_SAMPLES_PER_SHARD = 10_000
MAX_BYTES_PER_SHARD = 256_000_000


class Samples(Protocol):
    """A dataset to store, from wherever it comes."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def channels(self) -> tuple[str, ...]: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def labels(self) -> Mapping[Split, Labels]: ...
    @property
    def preparation(self) -> Preparation | None: ...

    def blocks(self, split: Split, start: int, stop: int) -> Iterable[tuple[Array, list[Any]]]:
        """Yield samples [start, stop) of a split in blocks: pixels, (n, C, H, W) uint8, and a fact each."""


@dataclass(frozen=True)
class RawShard:
    """A shard that was written, and what is known about its samples."""

    shard: Shard
    digests: Digests
    facts: list[Any]


@dataclass(frozen=True)
class _RawJob:
    dir: Path
    task: ShardTask
    samples: Samples
    advance: Callable[[int], None]


@dataclass(frozen=True)
class _Source:
    given_labels: Labels
    images: Iterable[Array]

    def labels(self) -> Labels:
        return self.given_labels

    def blocks(self) -> Iterable[Array]:
        return self.images


def write_samples(
    set_dir: Path, dataset: str, samples: Samples, progress: Callable[[int, int], None] | None = None
) -> tuple[ShardSet, dict[Split, Digests], dict[Split, list[Any]]]:
    """Write all shards of a dataset into an empty folder; `progress` is called with samples done and in total.

    Returns the set, whose manifest the caller writes, and by split the digests of the samples and their facts.
    """
    num_done, num_samples = 0, sum(map(len, samples.labels.values()))

    def advance(count: int) -> None:
        nonlocal num_done
        num_done += count
        if progress:
            progress(num_done, num_samples)

    size = samples_per_shard(samples.image_shape)
    jobs = {
        split: [_RawJob(set_dir, task, samples, advance) for task in plan_shards(split, len(labels), size)]
        for split, labels in samples.labels.items()
    }
    for split in jobs:
        (set_dir / split).mkdir()
    # Image files are decoded on threads, one shard after the other.
    mapped = map_tasks if samples.preparation is None else map
    results = iter(mapped(_write_raw_shard, [job for of_split in jobs.values() for job in of_split]))
    by_split = {split: list(islice(results, len(of_split))) for split, of_split in jobs.items()}
    digests = {split: np.concatenate([raw.digests for raw in of_split]) for split, of_split in by_split.items()}
    splits = {
        split: SplitShards(samples=len(digests[split]), shards=tuple(raw.shard for raw in of_split))
        for split, of_split in by_split.items()
    }
    facts = {split: [fact for raw in of_split for fact in raw.facts] for split, of_split in by_split.items()}
    return ShardSet(set_dir, _make_manifest(dataset, samples, splits, digests)), digests, facts


def samples_per_shard(image_shape: tuple[int, int, int]) -> int:
    """Return how many samples a raw shard of these images, (C, H, W), holds."""
    return max(1, min(MAX_SAMPLES_PER_SHARD, MAX_BYTES_PER_SHARD // prod(image_shape)))


def _make_manifest(
    dataset: str, samples: Samples, splits: dict[Split, SplitShards], digests: Mapping[Split, Digests]
) -> Manifest:
    return Manifest(
        format_version=2,
        dataset=dataset,
        classes=samples.classes,
        dtype="uint8",
        layout="NCHW",
        image_shape=samples.image_shape,
        channels=samples.channels,
        content_sha256=hash_content((digests[split], samples.labels[split]) for split in digests),
        normalization=None,
        preparation=samples.preparation,
        skipped=0,
        splits=splits,
        files=(),
    )


def _write_raw_shard(job: _RawJob) -> RawShard:
    task = job.task
    digests: list[Digests] = []
    facts: list[Any] = []

    def images() -> Iterator[Array]:
        for pixels, of_block in job.samples.blocks(task.split, task.start, task.stop):
            digests.append(hash_images(pixels))
            facts.extend(of_block)
            yield pixels
            job.advance(len(pixels))

    labels = job.samples.labels[task.split][task.start : task.stop]
    source = _Source(labels, images())
    shard = write_shard(ShardJob(Step(job.dir), task, "uint8", job.samples.image_shape, source))
    return RawShard(shard, np.concatenate(digests), facts)


def check_content(manifest: Manifest, expected: str | None) -> None:
    """Raise CorruptDataError unless `content_sha256` is the one expected, if it is known."""
    if expected not in (None, manifest.content_sha256):
        raise CorruptDataError(
            f"{manifest.dataset}: expected the decoded images and labels to have content_sha256 {expected}, got "
            f"{manifest.content_sha256}: please report this, with your version of numpy"
        )
