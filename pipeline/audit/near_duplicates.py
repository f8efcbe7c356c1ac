"""Near-duplicates: a search among all earlier images for each image.

The search narrows down in four steps. Candidates are the images with the most similar colours on a grid, plain or
mirrored. Outlines of candidates are compared, then again with either image enlarged. The few pairs left are compared by
their edges at all small shifts. Edges are more specific than pixels: many images have sky above sea, but only
near-duplicates have all outlines in the same places.

All values compared are integers whose sums stay below 2^24, so float32 holds each sum exactly in whatever order it is
added. The pairs are therefore the same on every machine, although matrix products find them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.candidates import MAX_QUERIES, NUM_CANDIDATES, find_candidates
from pipeline.audit.descriptors import GRID
from pipeline.audit.edges import compute_distances, compute_edges, zoom_images
from pipeline.audit.outlines import ZOOMS, compare_outlines, compare_zoomed_outlines, mirror_outlines
from pipeline.audit.pairs import PAIR, Indices, Pairs, make_pairs
from pipeline.audit.search_index import SearchIndex
from pipeline.runtime.resume import Step
from shardset.manifest import SetFile, Split
from shardset.models import Model
from shardset.reader import Array, split_range
from shardset.threads import MapTasks, ignore

# Conventions, chosen by looking at pairs of CIFAR-10, see docs/near-duplicates.md.
MAX_DISTANCE = 0.35
ZOOM_PENALTY = 0.05  # added to the distance of enlarged images, since the best of nine zooms is closer by chance
MIN_OUTLINES = 0.52
MIN_ZOOMED_OUTLINES = 0.65
BLOCK = 128


@dataclass(frozen=True)
class SearchTask:
    """Images [start, stop) of a split, at most MAX_QUERIES, to look for among the earlier ones of a split."""

    split: Split
    other_split: Split
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.other_split}-{self.start:09d}"


class FoundPairs(Model, frozen=True):
    """What one task found, rows of PAIR."""

    pairs: bytes

    @property
    def files(self) -> tuple[SetFile, ...]:
        return ()


def is_searched(image_shape: tuple[int, int, int]) -> bool:
    """Whether images of a shape (C, H, W) are large enough to be compared."""
    return min(image_shape[1:]) >= GRID


def find_near_duplicates(
    index: SearchIndex, step: Step, map_tasks: MapTasks, done: Callable[[int], None] = ignore
) -> Pairs:
    """Find the pairs of an image and an earlier one within MAX_DISTANCE, as far as `step` lacks them.

    They come in no particular order, at most NUM_CANDIDATES for each image and other split. `done` is called with the
    number of images of each task. Raises OSError, which names the file, if the index can't be read.
    """
    if not is_searched(index.image_shape):
        return np.empty(0, PAIR)
    splits = list(index.num_images)
    tasks = [
        SearchTask(split, other_split, start, stop)
        for number, split in enumerate(splits)
        for other_split in splits[: number + 1]
        for start, stop in split_range(0, index.num_images[split], MAX_QUERIES)
    ]
    # The longest tasks first, so that no thread is left with one at the end.
    tasks.sort(key=lambda task: -(task.stop if task.split == task.other_split else index.num_images[task.other_split]))

    def count(task: SearchTask) -> None:
        if task.split == task.other_split:  # so that each image counts once
            done(task.stop - task.start)

    map_tasks(partial(find_pairs, index, step), tasks, count)
    return np.concatenate([np.frombuffer(step.read(task.name, FoundPairs).pairs, PAIR) for task in tasks])


def find_pairs(index: SearchIndex, step: Step, task: SearchTask) -> None:
    """Find the near-duplicates of a task's images, and keep them as a record, unless that was done before."""
    step.finish(task.name, FoundPairs, lambda: FoundPairs(pairs=_find_pairs(index, task).tobytes()))


def _find_pairs(index: SearchIndex, task: SearchTask) -> Pairs:
    rows, indices = find_candidates(index, task.split, task.start, task.stop, task.other_split)
    if not len(rows):
        return np.empty(0, PAIR)
    outlines = index.outlines.read(task.split, task.start, task.stop)
    others = index.outlines.take(task.other_split, indices)
    is_near, is_mirrored = _compare_outlines(outlines, rows, others)
    rows, indices, others, is_mirrored = rows[is_near], indices[is_near], others[is_near], is_mirrored[is_near]
    kept, zooms = _compare_zoomed(outlines[rows], others, is_mirrored)
    distances = np.empty(len(kept))
    for first, last in split_range(0, len(kept), BLOCK):
        block = kept[first:last]
        images = index.images.take_each(task.split, task.start + rows[block])
        images = np.where(is_mirrored[block, None, None, None], images[..., ::-1], images)
        others = index.images.take_each(task.other_split, indices[block])
        distances[first:last] = _compare_edges(images, others, zooms[block])
    found, splits = kept[distances <= MAX_DISTANCE], list(index.num_images)
    return make_pairs(
        split=splits.index(task.split),
        index=task.start + rows[found],
        other_split=splits.index(task.other_split),
        other_index=indices[found],
        # Python's `round` is exact, unlike that of numpy.
        distance=[round(distance, 4) for distance in distances[distances <= MAX_DISTANCE].tolist()],
        mirrored=is_mirrored[found],
    )


def _compare_outlines(outlines: Array, rows: Indices, others: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which candidates have similar outlines, and which of them are mirrored."""
    starts = np.searchsorted(rows, np.arange(len(outlines) + 1))
    alike = np.empty((2, len(rows)), np.float32)
    for first, last in split_range(0, len(outlines), BLOCK):
        part = slice(starts[first], starts[last])
        row = rows[part]
        places = np.arange(starts[first], starts[last]) - starts[row]
        grid = np.zeros((last - first, NUM_CANDIDATES, *others.shape[1:]), np.int8)
        grid[row - first, places] = others[part]
        both = np.concatenate([grid, mirror_outlines(grid)], axis=1)
        alike[:, part] = (
            compare_outlines(outlines[first:last], both).reshape(last - first, 2, -1)[row - first, :, places].T
        )
    return alike.max(axis=0) >= MIN_OUTLINES, alike[1] > alike[0]


def _compare_zoomed(outlines: Array, others: Array, is_mirrored: Array) -> tuple[Indices, Indices]:
    """Return which pairs have similar outlines at a zoom, and the best zoom of each pair, as an index of ZOOMS."""
    alike, zooms = np.empty(len(others)), np.empty(len(others), np.int64)
    for first, last in split_range(0, len(others), BLOCK):
        part = slice(first, last)
        mirrored = is_mirrored[part, None, None, None]
        firsts = np.where(mirrored, mirror_outlines(outlines[part]), outlines[part])
        alike[part], zooms[part] = compare_zoomed_outlines(firsts, others[part])
    return np.flatnonzero(alike >= MIN_ZOOMED_OUTLINES), zooms


def _compare_edges(images: Array, others: Array, zooms: Indices) -> NDArray[np.float64]:
    """Compute the distances of pairs of images (n, C, 32, 32), the lower one of those as they are and zoomed."""
    distances = compute_distances(compute_edges(images), compute_edges(others))
    for zoom in set(zooms.tolist()) - {0}:
        pairs = np.flatnonzero(zooms == zoom)
        of_image, of_other = ZOOMS[zoom]
        images[pairs], others[pairs] = zoom_images(images[pairs], *of_image), zoom_images(others[pairs], *of_other)
    zoomed = np.flatnonzero(zooms)
    if len(zoomed):
        zoomed_distances = compute_distances(compute_edges(images[zoomed]), compute_edges(others[zoomed]))
        distances[zoomed] = np.minimum(distances[zoomed], zoomed_distances + ZOOM_PENALTY)
    return distances
