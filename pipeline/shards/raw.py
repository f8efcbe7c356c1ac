"""Raw sets: the pixels of a dataset as they come from its source."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from pipeline.runtime.resume import SET_NAME, Step, open_step, remove_others
from pipeline.runtime.tasks import Imap, Tally, imap_on_threads
from pipeline.shards.writer import ShardJob, ShardTask, plan_shards, remove_unfinished, write_shard
from shardset.content import Digests, hash_content, hash_images
from shardset.errors import CorruptDataError
from shardset.manifest import Manifest, Preparation, SetFile, Shard, Split, SplitShards
from shardset.models import Model
from shardset.reader import Array, Labels
from shardset.shards import ShardSet
from shardset.threads import MapTasks, ignore

MAX_SAMPLES_PER_SHARD = 10_000
MAX_BYTES_PER_SHARD = 256_000_000
DECODED_NAME = "decoded"  # of the folder, within the work folder, with all samples of the source


class SampleReader(Protocol):
    """Reads samples of a split. It is small, because each task on a cluster carries one."""

    def labels(self, split: Split, start: int, stop: int) -> Labels:
        """Return the labels of samples [start, stop), int64."""

    def blocks(self, split: Split, start: int, stop: int, imap: Imap) -> Iterable[tuple[Array, list[Any]]]:
        """Yield samples [start, stop) in blocks, decoded by `imap`: pixels, (n, C, H, W) uint8, and a fact each."""

    def is_unchanged(self, split: Split, start: int, stop: int, facts: bytes, imap: Imap) -> bool:
        """Say whether samples [start, stop), of which these facts were found, as msgpack, are still the same."""


class Samples(Protocol):
    """A dataset to store, from wherever it comes."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def channels(self) -> tuple[str, ...]: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def num_samples(self) -> Mapping[Split, int]: ...
    @property
    def reader(self) -> SampleReader: ...
    @property
    def preparation(self) -> Preparation | None: ...
    @property
    def inputs(self) -> object: ...


class RawRecord(Model, frozen=True):
    """A shard that was written, the digests of its images and, as msgpack, a fact about each sample if known."""

    shard: Shard
    digests: bytes
    facts: bytes

    @property
    def files(self) -> tuple[SetFile, SetFile]:
        return self.shard.files


@dataclass(frozen=True)
class DecodedSet:
    """All samples of a source as shards in the folder of a step. Records are read one by one, to save memory."""

    step: Step
    tasks: Mapping[Split, list[ShardTask]]
    manifest: Manifest

    @property
    def shards(self) -> ShardSet:
        return ShardSet(self.step.dir, self.manifest)

    def facts(self, split: Split) -> Iterator[bytes]:
        """Yield the facts of each shard."""
        return (record.facts for record in _read_records(self.step, self.tasks[split]))

    def digests(self) -> dict[Split, Digests]:
        """Read the digests of all images, (N, 32) uint8, by split."""
        return {
            split: np.concatenate([_digests(record) for record in _read_records(self.step, tasks)])
            for split, tasks in self.tasks.items()
        }


def open_decoded(work_dir: Path, dataset: str, samples: Samples) -> Step:
    """Open the step whose folder all samples of a source are decoded into; see `open_step`."""
    preparation = msgspec.to_builtins(samples.preparation)
    step = open_step(work_dir, DECODED_NAME, dataset, samples.inputs, samples.channels, preparation, np.__version__)
    final_dir = _final_dir(step)
    if final_dir.exists():  # killed after `use_as_set`
        step.dir.rmdir()
        final_dir.rename(step.dir)
    return step


def use_as_set(decoded: Step) -> None:
    """Make the folder of decoded samples the set that the stage writes."""
    final = Step(_final_dir(decoded))
    remove_others(final, SET_NAME)  # of an earlier run that wrote a selection
    decoded.dir.rename(final.dir)


def _final_dir(decoded: Step) -> Path:
    return decoded.dir.with_name(decoded.dir.name.replace(DECODED_NAME, SET_NAME))


@dataclass(frozen=True)
class _RawJob:
    step: Step
    task: ShardTask
    image_shape: tuple[int, int, int]
    reader: SampleReader


def write_samples(
    step: Step, dataset: str, samples: Samples, map_tasks: MapTasks, tally: Tally, *, on_cluster: bool = False
) -> DecodedSet:
    """Write all shards of a dataset that are not there yet, or whose source has changed. `tally` counts samples."""
    size = samples_per_shard(samples.image_shape)
    tasks = {split: plan_shards(split, count, size) for split, count in samples.num_samples.items()}
    for split in tasks:
        (step.dir / split).mkdir(exist_ok=True)
    jobs = [
        _RawJob(step, task, samples.image_shape, samples.reader) for of_split in tasks.values() for task in of_split
    ]
    if on_cluster:
        map_tasks(finish_raw_shard, jobs, lambda job: tally.add(job.task.num_samples))
    elif samples.preparation is None:
        map_tasks(partial(finish_raw_shard, advance=tally.add), jobs)
    else:  # image files are decoded on threads, one shard after the other
        for job in jobs:
            finish_raw_shard(job, imap_on_threads, tally.add)
    remove_unfinished(step.dir)
    return DecodedSet(step, tasks, _make_manifest(step, tasks, dataset, samples))


def finish_raw_shard(job: _RawJob, imap: Imap = map, advance: Callable[[int], None] = ignore) -> None:
    """Write a shard and keep its record, unless that was done before and the source is still the same."""
    task = job.task
    record = job.step.find(task.record, RawRecord)
    if record and job.reader.is_unchanged(task.split, task.start, task.stop, record.facts, imap):
        advance(task.num_samples)
    else:
        job.step.save(task.record, _DecodedShard(job, imap, advance).write())


class _DecodedShard:
    """The source of a shard, which keeps what it learns of the samples while they are written."""

    def __init__(self, job: _RawJob, imap: Imap, advance: Callable[[int], None]) -> None:
        self._job, self._imap, self._advance = job, imap, advance
        self._range = job.task.split, job.task.start, job.task.stop
        self._digests: list[Digests] = []
        self._facts: list[Any] = []

    def write(self) -> RawRecord:
        shard = write_shard(ShardJob(self._job.step, self._job.task, "uint8", self._job.image_shape, self))
        return RawRecord(
            shard=shard,
            digests=np.concatenate(self._digests).tobytes(),
            facts=msgspec.msgpack.encode(self._facts),
        )

    def labels(self) -> Labels:
        return self._job.reader.labels(*self._range)

    def find_file(self) -> None:
        return None

    def blocks(self) -> Iterator[Array]:
        for pixels, of_block in self._job.reader.blocks(*self._range, self._imap):
            self._digests.append(hash_images(pixels))
            self._facts += of_block
            yield pixels
            self._advance(len(pixels))


def samples_per_shard(image_shape: tuple[int, int, int]) -> int:
    """Return how many samples a raw shard of these images, (C, H, W), holds."""
    return max(1, min(MAX_SAMPLES_PER_SHARD, MAX_BYTES_PER_SHARD // prod(image_shape)))


def _read_records(step: Step, tasks: list[ShardTask]) -> Iterator[RawRecord]:
    return (step.read(task.record, RawRecord) for task in tasks)


def _digests(record: RawRecord) -> Digests:
    return np.frombuffer(record.digests, np.uint8).reshape(-1, 32)


def _make_manifest(step: Step, tasks: Mapping[Split, list[ShardTask]], dataset: str, samples: Samples) -> Manifest:
    splits = {
        split: SplitShards(
            samples=samples.num_samples[split],
            shards=tuple(record.shard for record in _read_records(step, of_split)),
        )
        for split, of_split in tasks.items()
    }
    content = (
        (_digests(record), samples.reader.labels(split, task.start, task.stop))
        for split, of_split in tasks.items()
        for task, record in zip(of_split, _read_records(step, of_split), strict=True)
    )
    return Manifest(
        format_version=2,
        dataset=dataset,
        classes=samples.classes,
        dtype="uint8",
        layout="NCHW",
        image_shape=samples.image_shape,
        channels=samples.channels,
        content_sha256=hash_content(content),
        normalization=None,
        preparation=samples.preparation,
        skipped=0,
        splits=splits,
        files=(),
    )


def check_content(manifest: Manifest, expected: str | None) -> None:
    """Raise CorruptDataError unless `content_sha256` is the one expected, if it is known."""
    if expected not in (None, manifest.content_sha256):
        raise CorruptDataError(
            f"{manifest.dataset}: expected the decoded images and labels to have content_sha256 {expected}, got "
            f"{manifest.content_sha256}: please report this, with your version of numpy"
        )
