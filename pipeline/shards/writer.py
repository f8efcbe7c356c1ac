"""Writing a shard set: one task per shard, the manifest last."""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from msgspec.structs import replace

from pipeline.runtime.files import open_synced, write_synced
from pipeline.runtime.locks import temp_sibling
from pipeline.runtime.resume import Step
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
from shardset.threads import MapTasks, ignore

FLUSHED_BYTES = 33_554_432
if sys.platform == "linux":
    flush_data = os.fdatasync
else:
    flush_data = os.fsync


class ShardSource(Protocol):
    """What becomes one shard. It is sent to the worker that writes the shard, so it is small."""

    def labels(self) -> Labels:
        """Return the labels, (N,) int64."""

    def blocks(self) -> Iterable[Array]:
        """Yield the images in blocks, (n, C, H, W)."""

    def find_file(self) -> tuple[Path, SetFile] | None:
        """Return a set's folder and a verified file there that is the file of these images, if there is one."""


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: samples [start, stop) of a split, and the name that both of its files end with."""

    split: Split
    start: int
    stop: int
    name: str

    @property
    def num_samples(self) -> int:
        return self.stop - self.start

    @property
    def record(self) -> str:
        """The name of what is kept when the shard is finished."""
        return f"{self.split}-{self.name}"


def plan_shards(split: Split, num_samples: int, samples_per_shard: int) -> list[ShardTask]:
    """Cut a split into shards of `samples_per_shard`; the last one may hold fewer."""
    ranges = split_range(0, num_samples, samples_per_shard)
    return [ShardTask(split, *samples, f"{i:05d}-of-{len(ranges):05d}.npy") for i, samples in enumerate(ranges)]


@dataclass(frozen=True)
class ShardJob:
    """All that writing one shard into the folder of a step needs."""

    step: Step
    task: ShardTask
    dtype: Dtype
    image_shape: tuple[int, int, int]
    source: ShardSource


def write_shards(  # noqa: PLR0913 (most are passed by keyword)
    step: Step,
    num_samples: Mapping[Split, int],
    source_of: Callable[[ShardTask], ShardSource],
    *,
    dtype: Dtype,
    image_shape: tuple[int, int, int],
    samples_per_shard: int,
    map_tasks: MapTasks,
    done: Callable[[int], None] = ignore,
) -> dict[Split, SplitShards]:
    """Write all shards of all splits that are not there yet, and return the entries for the manifest.

    `done` is called with the number of samples of each shard that is complete.
    """
    jobs = {
        split: [
            ShardJob(step, task, dtype, image_shape, source_of(task))
            for task in plan_shards(split, of_split, samples_per_shard)
        ]
        for split, of_split in num_samples.items()
    }
    for split in jobs:
        (step.dir / split).mkdir(exist_ok=True)
    all_jobs = [job for of_split in jobs.values() for job in of_split]
    map_tasks(finish_shard, all_jobs, lambda job: done(job.task.num_samples))
    remove_unfinished(step.dir)
    return {
        split: SplitShards(
            samples=num_samples[split], shards=tuple(step.read(job.task.record, Shard) for job in of_split)
        )
        for split, of_split in jobs.items()
    }


def finish_shard(job: ShardJob) -> None:
    """Write a shard, and keep its entry for the manifest as a record, unless that was done before."""
    job.step.finish(job.task.record, Shard, lambda: write_shard(job))


def write_shard(job: ShardJob) -> Shard:
    """Write the files of one shard and return its entry for the manifest. Running it again changes nothing."""
    task, set_dir, labels = job.task, job.step.dir, job.source.labels()
    shape, name = (task.num_samples, *job.image_shape), f"{task.split}/images-{task.name}"
    return Shard(
        samples=task.num_samples,
        images=_link_file(job, name) or _write_npy(set_dir, name, job.dtype, shape, job.source.blocks()),
        labels=_write_npy(set_dir, f"{task.split}/labels-{task.name}", "int64", shape[:1], [labels]),
    )


def remove_unfinished(set_dir: Path) -> None:
    """Remove what killed workers left in the folders of splits."""
    for unfinished in set_dir.glob("*/.*.tmp"):
        unfinished.unlink(missing_ok=True)


def write_set_file(set_dir: Path, path: str, text: str) -> SetFile:
    """Write a text file of the set, such as its card, and return its entry for the manifest."""
    write_synced(set_dir / path, text)
    content = text.encode()
    return SetFile(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def copy_set_file(raw_dir: Path, file: SetFile, set_dir: Path) -> SetFile:
    """Copy a text file of another set, such as samples.csv, and return its entry for the manifest."""
    path = set_dir / file.path
    with named_os_errors(path):
        shutil.copyfile(raw_dir / file.path, path)
        with path.open("r+b") as copy:
            os.fsync(copy.fileno())
    return file


def save_manifest(manifest: Manifest, set_dir: Path) -> None:
    """Write a set's manifest. It comes last, because its presence means that the set is complete."""
    write_synced(set_dir / MANIFEST_NAME, render_manifest(manifest))


def can_link(path: Path, folder: Path) -> bool:
    """Say whether a file can have another name in a folder."""
    temp_path = temp_sibling(folder / path.name, os.urandom(8).hex())
    if is_linked := _link(path, temp_path):
        temp_path.unlink()
    return is_linked


def _link(path: Path, new_path: Path) -> bool:
    """Give a file another name, if that is possible."""
    try:
        os.link(os.path.realpath(path), new_path)
    except OSError:  # it is on another disk, or the file system has no hard links
        return False
    return True


def _link_file(job: ShardJob, name: str) -> SetFile | None:
    """Let `name` be another name of a file that holds the same images, where there is one and it can have two names."""
    if (found := job.source.find_file()) is None:
        return None
    source_dir, file = found
    path = job.step.dir / name
    temp_path = temp_sibling(path, os.urandom(8).hex())
    if not _link(source_dir / file.path, temp_path):
        return None
    if sys.platform != "win32":  # it can't flush files that are open for reading
        with named_os_errors(temp_path), temp_path.open("rb") as linked:
            os.fsync(linked.fileno())
    temp_path.replace(path)
    temp_path.unlink(missing_ok=True)  # if both were names of one file already, a rename does nothing
    return replace(file, path=name)


def _write_npy(set_dir: Path, name: str, dtype: str, shape: tuple[int, ...], blocks: Iterable[Array]) -> SetFile:
    header = npy_header(dtype, shape)
    sha256 = hashlib.sha256(header)
    num_bytes = len(header)
    # A temporary name of its own, because a cluster may run two copies of a task at the same time.
    temp_path = temp_sibling(set_dir / name, os.urandom(8).hex())
    # Data are flushed to disk while more are made, so that little is left for fsync to wait for.
    with open_synced(temp_path, "wb") as file, ThreadPoolExecutor(1) as flusher:
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
    temp_path.replace(set_dir / name)
    return SetFile(path=name, bytes=num_bytes, sha256=sha256.hexdigest())
