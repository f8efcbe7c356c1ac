"""Writing a shard set: one task per shard, the manifest last."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipeline.runtime.files import write_synced
from pipeline.runtime.locks import temp_sibling
from pipeline.runtime.tasks import map_tasks
from shardset.errors import named_os_errors
from shardset.manifest import (
    MANIFEST_NAME,
    Dtype,
    Manifest,
    SetFile,
    Shard,
    Split,
    SplitShards,
    render_manifest,
)
from shardset.npy import little_endian, npy_header
from shardset.reader import Array, Labels, split_range

T = TypeVar("T")
R = TypeVar("R")

FLUSHED_BYTES = 33_554_432
if sys.platform == "linux":
    flush_data = os.fdatasync
else:
    flush_data = os.fsync

# Called once per shard with its split and range [start, stop) of samples. Returns their images in blocks, (n, C, H, W),
# which are made where the shard is written: on a thread, or on a worker, to which the iterable is sent pickled.
ImageBlocks = Callable[[Split, int, int], Iterable[Array]]


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: samples [start, stop) of a split, and the name that both of its files end with."""

    split: Split
    start: int
    stop: int
    name: str


def plan_shards(split: Split, num_samples: int, samples_per_shard: int) -> list[ShardTask]:
    """Cut a split into shards of `samples_per_shard`; the last one may hold fewer."""
    ranges = split_range(0, num_samples, samples_per_shard)
    return [ShardTask(split, *samples, f"{i:05d}-of-{len(ranges):05d}.npy") for i, samples in enumerate(ranges)]


@dataclass(frozen=True)
class ShardJob:
    """All that writing one shard needs, and no more, because it may be sent to a worker."""

    shards_dir: Path
    task: ShardTask
    dtype: Dtype
    image_shape: tuple[int, int, int]
    labels: Labels  # of this shard alone
    blocks: Iterable[Array]


def write_shards(
    shards_dir: Path,
    labels: Mapping[Split, Labels],
    image_blocks: ImageBlocks,
    *,
    dtype: Dtype,
    image_shape: tuple[int, int, int],
    samples_per_shard: int,
    scheduler: str | None = None,
) -> dict[Split, SplitShards]:
    """Write all shards of all splits and return their entries for the manifest, which the caller writes.

    `scheduler` as in `map_tasks`.
    """
    for split in labels:
        (shards_dir / split).mkdir()
    jobs = {
        split: [
            ShardJob(
                shards_dir,
                task,
                dtype,
                image_shape,
                of_split[task.start : task.stop],
                image_blocks(split, task.start, task.stop),
            )
            for task in plan_shards(split, len(of_split), samples_per_shard)
        ]
        for split, of_split in labels.items()
    }
    shards = map_by_split(partial(map_tasks, scheduler=scheduler), write_shard, jobs)
    for unfinished in shards_dir.glob("*/.*.tmp"):  # left by workers that were killed
        unfinished.unlink(missing_ok=True)
    return {
        split: SplitShards(samples=len(labels[split]), shards=tuple(of_split)) for split, of_split in shards.items()
    }


def map_by_split(
    map_jobs: Callable[[Callable[[T], R], Iterable[T]], Iterable[R]],
    function: Callable[[T], R],
    jobs: Mapping[Split, Sequence[T]],
) -> dict[Split, list[R]]:
    """Apply `function` to the jobs of all splits by one call of `map_jobs`, such as `map`; return results by split."""
    results = iter(map_jobs(function, chain.from_iterable(jobs.values())))
    return {split: list(islice(results, len(of_split))) for split, of_split in jobs.items()}


def write_shard(job: ShardJob) -> Shard:
    """Write the files of one shard and return its entry for the manifest. Running it again changes nothing."""
    task, shape = job.task, (len(job.labels), *job.image_shape)
    return Shard(
        samples=len(job.labels),
        images=_write_npy(job.shards_dir, f"{task.split}/images-{task.name}", job.dtype, shape, job.blocks),
        labels=_write_npy(job.shards_dir, f"{task.split}/labels-{task.name}", "int64", shape[:1], [job.labels]),
    )


def write_set_file(set_dir: Path, path: str, text: str) -> SetFile:
    """Write a text file of the set, such as its card, and return its entry for the manifest."""
    write_synced(set_dir / path, text)
    content = text.encode()
    return SetFile(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def save_manifest(manifest: Manifest, set_dir: Path) -> None:
    """Write a set's manifest. It comes last, because its presence means that the set is complete."""
    write_synced(set_dir / MANIFEST_NAME, render_manifest(manifest))


def _write_npy(set_dir: Path, name: str, dtype: str, shape: tuple[int, ...], blocks: Iterable[Array]) -> SetFile:
    header = npy_header(dtype, shape)
    sha256 = hashlib.sha256(header)
    num_bytes = len(header)
    # A temporary name of its own, because a cluster may run two copies of a task at the same time.
    temp_path = temp_sibling(set_dir / name, os.urandom(8).hex())
    # Data are flushed to disk while more are made, so that little is left for fsync to wait for.
    with named_os_errors(temp_path), temp_path.open("wb") as file, ThreadPoolExecutor(1) as flusher:
        file.write(header)
        flushes: list[Future[None]] = []
        for block in blocks:
            data = np.ascontiguousarray(block, little_endian(dtype))
            file.write(data.data)
            sha256.update(data.data)
            num_bytes += data.nbytes
            if num_bytes // FLUSHED_BYTES > len(flushes):
                flushes.append(flusher.submit(flush_data, file.fileno()))
        for flush in flushes:
            flush.result()
        file.flush()
        os.fsync(file.fileno())
    temp_path.replace(set_dir / name)
    return SetFile(path=name, bytes=num_bytes, sha256=sha256.hexdigest())
