"""What the images of each shard are, measured in one pass over data/raw that also verifies and hashes them.

Each figure follows from integers, or from float64 values added in a fixed order, so it is the same on every machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.measures import (
    NUM_VALUES,
    count_channels,
    count_clipped,
    find_grey,
    measure_borders,
    measure_entropies,
)
from pipeline.audit.search_index import part_name, write_part
from pipeline.numerics.reduce import reduce_images
from pipeline.numerics.sums import Integers, sum_images
from pipeline.runtime.resume import Step
from shardset.content import Digests, hash_images
from shardset.manifest import SetFile, Shard, Split
from shardset.models import Model
from shardset.reader import Array, ShardReader, split_range
from shardset.shards import ShardSet
from shardset.threads import MapTasks, ignore

REDUCED_SIDE = 32  # pixels of the images in which borders, entropy and near-duplicates are looked for
REDUCED_PER_BATCH = 128  # of large images there are few in a block, and each call costs as much as several images
MAX_PER_BATCH = 512  # of tiny images there are many in a block, each of which would take memory at REDUCED_SIDE


@dataclass(frozen=True)
class SurveyTask:
    """One raw shard to survey, and its number within its split."""

    split: Split
    number: int
    shard: Shard

    @property
    def name(self) -> str:
        return part_name(self.split, self.number)


class ShardSurvey(Model, frozen=True):
    """What was measured of one raw shard, and its files of the search index.

    `measures` holds rows of `measures_dtype`, one for each image, and `pixel_counts` how often each pixel value occurs,
    (C, 256) int64.
    """

    measures: bytes
    pixel_counts: bytes
    files: tuple[SetFile, ...]


def measures_dtype(num_channels: int) -> np.dtype[np.void]:
    """Describe the measures of one image.

    `sums` and `squares`, (C,), are over its pixels and over their squares; `clipped` counts its values that are 0 or
    255; `digest`, (32,), is the SHA-256 of its pixels.
    """
    return np.dtype(
        [
            ("sums", "<i8", (num_channels,)),
            ("squares", "<i8", (num_channels,)),
            ("clipped", "<i8"),
            ("grey", "?"),
            ("border", "<f8"),
            ("entropy", "<f8"),
            ("digest", "u1", (32,)),
        ]
    )


def survey_shards(raw: ShardSet, step: Step, map_tasks: MapTasks, done: Callable[[int], None] = ignore) -> None:
    """Survey every shard of raw pixels that `step` lacks, and index its images in the folder of the step.

    `done` is called with the number of images of each shard. Raises CorruptDataError if an image differs from the
    manifest.
    """
    tasks = [task for split in raw.manifest.splits for task in _list_tasks(raw, split)]
    map_tasks(partial(survey_shard, step, raw.reader), tasks, lambda task: done(task.shard.samples))


def survey_shard(step: Step, reader: ShardReader, task: SurveyTask) -> None:
    """Survey a shard, and keep a ShardSurvey as a record, unless that was done before."""
    step.finish(task.name, ShardSurvey, partial(_survey_shard, step, reader, task))


def read_digests(raw: ShardSet, step: Step, split: Split) -> Digests:
    """Read the SHA-256 of the pixels of each image of a split that was surveyed, (N, 32)."""
    digests = np.empty((raw.manifest.splits[split].samples, 32), np.uint8)
    for rows, _, measures, _ in read_measures(raw, step, split):
        digests[rows] = measures["digest"]
    return digests


def read_measures(raw: ShardSet, step: Step, split: Split) -> Iterator[tuple[slice, Shard, NDArray[np.void], Integers]]:
    """Read what was measured of a split: the rows of each shard, the shard, its measures and its pixel counts."""
    dtype, stop = measures_dtype(raw.manifest.image_shape[0]), 0
    for task in _list_tasks(raw, split):
        start, stop = stop, stop + task.shard.samples
        record = step.read(task.name, ShardSurvey)
        pixel_counts = np.frombuffer(record.pixel_counts, "<i8").reshape(-1, NUM_VALUES)
        yield slice(start, stop), task.shard, np.frombuffer(record.measures, dtype), pixel_counts


def _list_tasks(raw: ShardSet, split: Split) -> list[SurveyTask]:
    return [SurveyTask(split, number, shard) for number, shard in enumerate(raw.shards(split))]


def _survey_shard(step: Step, reader: ShardReader, task: SurveyTask) -> ShardSurvey:
    num_channels = reader.image_shape[0]
    measures = np.empty(task.shard.samples, measures_dtype(num_channels))
    pixel_counts = np.zeros((num_channels, NUM_VALUES), "<i8")
    files = write_part(step.dir, task.name, _measure(reader, task.shard, measures, pixel_counts))
    return ShardSurvey(measures=measures.tobytes(), pixel_counts=pixel_counts.tobytes(), files=files)


def _measure(reader: ShardReader, shard: Shard, measures: NDArray[np.void], pixel_counts: Integers) -> Iterator[Array]:
    """Fill in what is measured of a shard, and yield its images reduced to at most REDUCED_SIDE pixels a side."""
    first = start = 0
    batch: list[Array] = []
    blocks = reader.verified_image_blocks(shard)
    for pixels in (block[i:j] for block in blocks for i, j in split_range(0, len(block), MAX_PER_BATCH)):
        _measure_pixels(measures[start : start + len(pixels)], pixels)
        pixel_counts += count_channels(pixels)
        reduced = reduce_images(pixels, REDUCED_SIDE)
        batch.append(reduced.copy() if reduced is pixels else reduced)  # the block will be overwritten
        start += len(pixels)
        if start - first >= REDUCED_PER_BATCH or start == shard.samples:
            images = np.concatenate(batch)
            measures["border"][first:start] = measure_borders(images)
            measures["entropy"][first:start] = measure_entropies(images)
            yield images
            first, batch = start, []


def _measure_pixels(measures: NDArray[np.void], pixels: Array) -> None:
    measures["sums"], measures["squares"] = sum_images(pixels.reshape(*pixels.shape[:2], -1))
    measures["clipped"] = count_clipped(pixels)
    measures["grey"] = find_grey(pixels)
    measures["digest"] = hash_images(pixels)
