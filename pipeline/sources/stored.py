"""Samples of a source in the work folder of a stage, from where tasks read their own parts."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np

from pipeline.runtime.tasks import Imap
from shardset.errors import named_os_errors
from shardset.manifest import Preparation, Split
from shardset.reader import BLOCK_VALUES, Array, Labels, split_range

HEADER_LOCK = Lock()


@dataclass(frozen=True)
class StoredSamples:
    """A dataset to store. The numbers of samples are by split.

    `names` are those of the files that the samples come from, if they come from files of their own. `inputs`, plain
    data, tells datasets apart.
    """

    classes: tuple[str, ...]
    channels: tuple[str, ...]
    image_shape: tuple[int, int, int]
    num_samples: Mapping[Split, int]
    reader: Any  # a SampleReader as pipeline/shards/raw.py describes it
    inputs: object
    preparation: Preparation | None = None
    names: Mapping[Split, Iterable[str]] | None = None


class Source(Protocol):
    """A source that was opened and can be used."""

    @property
    def splits(self) -> Collection[Split]: ...

    def store(self, folder: Path) -> StoredSamples:
        """Write what tasks need into a new folder."""


@dataclass(frozen=True)
class ArrayReader:
    """Reads samples from arrays on disk: for each split, the names and numbers of samples of its parts, in order."""

    dir: Path
    parts: Mapping[Split, tuple[tuple[str, int], ...]]

    def labels(self, split: Split, start: int, stop: int) -> Labels:
        return np.concatenate([load_rows(path, *part) for path, *part in self._overlaps(split, start, stop, "labels")])

    def blocks(self, split: Split, start: int, stop: int, _imap: Imap) -> Iterator[tuple[Array, list[Any]]]:
        for path, first, last in self._overlaps(split, start, stop, "images"):
            size = max(1, BLOCK_VALUES // _map_rows(path)[0].size)
            for part in split_range(first, last, size):
                yield load_rows(path, *part), []

    def is_unchanged(self, *_: object) -> bool:
        return True  # what the arrays are is among the inputs

    def _overlaps(self, split: Split, start: int, stop: int, kind: str) -> Iterator[tuple[Path, int, int]]:
        """Yield the files that hold samples [start, stop), each with their range within the file."""
        offset = 0
        for name, count in self.parts[split]:
            first, last = max(start - offset, 0), min(stop - offset, count)
            if first < last:
                yield self.dir / f"{name}.{kind}.npy", first, last
            offset += count


def save_arrays(folder: Path, name: str, images: Array, labels: Labels) -> tuple[str, int]:
    """Save a part for `ArrayReader`, and return its name and number of samples."""
    save_rows(folder / f"{name}.images.npy", images)
    save_rows(folder / f"{name}.labels.npy", labels)
    return name, len(labels)


def save_rows(path: Path, rows: Array) -> None:
    """Save an array. It is not flushed to disk, since it is needed only while this stage runs."""
    with named_os_errors(path):
        np.save(path, rows)


def load_rows(path: Path, start: int, stop: int) -> Array:
    """Load rows [start, stop) of a saved array."""
    with named_os_errors(path):
        return np.array(_map_rows(path)[start:stop])  # not mapped, since mapped pages count as memory


def _map_rows(path: Path) -> Array:
    # numpy parses the header by Python's own parser, which now and then fails in two threads at once, before Python
    # 3.11.9 and 3.12.3 (python/cpython#106905).
    with HEADER_LOCK:
        rows: Array = np.load(path, mmap_mode="r")
    return rows
