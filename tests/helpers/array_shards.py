"""Shards of arrays, written by the pipeline's writer."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.runtime.resume import Step
from pipeline.runtime.tasks import map_tasks
from pipeline.shards.writer import write_shards
from shardset.manifest import Dtype, Split, SplitShards


@dataclass(frozen=True)
class ArraySource:
    """The labels and images of one shard; `make_blocks` yields the images in blocks."""

    shard_labels: np.ndarray
    make_blocks: Callable[[], Iterable[np.ndarray]]

    def labels(self):
        return self.shard_labels

    def find_file(self):
        return None

    def blocks(self):
        return self.make_blocks()


def in_blocks(images: np.ndarray, size: int) -> Iterable[np.ndarray]:
    for first in range(0, len(images), size):
        yield images[first : first + size]


def write_arrays(
    set_dir: Path,
    images: dict[Split, np.ndarray],
    labels: dict[Split, np.ndarray],
    samples_per_shard: int,
    dtype: Dtype = "uint8",
    block_size: int = 10_000,
) -> dict[Split, SplitShards]:
    """Write the shards of a set, without its manifest."""
    step = Step(set_dir)
    for folder in (step.dir, step.records_dir):
        folder.mkdir(exist_ok=True)

    def source_of(task):
        within = slice(task.start, task.stop)
        return ArraySource(labels[task.split][within], lambda: in_blocks(images[task.split][within], block_size))

    try:
        return write_shards(
            step,
            {split: len(of_split) for split, of_split in labels.items()},
            source_of,
            dtype=dtype,
            image_shape=images["train"].shape[1:],
            samples_per_shard=samples_per_shard,
            map_tasks=map_tasks,
        )
    finally:
        shutil.rmtree(step.records_dir)
