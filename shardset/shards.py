"""An open shard set: .npy files of images and labels, described by a manifest, read as numpy arrays."""

import csv
import os
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Never

import numpy as np
from numpy.typing import NDArray

from shardset.content import Digests, hash_content
from shardset.errors import CorruptDataError, DamagedFileError, InputError
from shardset.manifest import MANIFEST_NAME, SAMPLES_NAME, Manifest, SetFile, Shard, Split, load_manifest
from shardset.reader import Array, Labels, ShardReader
from shardset.threads import MapTasks, ignore, map_on_threads
from shardset.verification import ShardCheck, check_shard

# Files and folders that programs leave in a set: file managers, NFS, notebooks, Python, and writers that were killed.
# .dvcignore has the same patterns, so that DVC sees no change where there is none.
IGNORED_NAMES = (
    ".DS_Store",
    "._*",
    "Thumbs.db",
    "desktop.ini",
    ".nfs*",
    ".ipynb_checkpoints",
    "__pycache__",
    ".cache",
    ".gitattributes",
    ".*.tmp",
)


@dataclass(frozen=True, repr=False)
class ShardSet:
    """A shard set on disk, open for reading: its folder as an absolute path, and its manifest.

    Methods that read files raise DamagedFileError, which names a file that is missing or has the wrong size, dtype or
    shape, and OSError, which names a file that the system can't read. Hashes are compared by `verify` and `verify_all`.
    """

    dir: Path
    manifest: Manifest

    def __repr__(self) -> str:
        return f"<ShardSet {str(self.dir)!r}: {self.manifest.summary()}>"

    @property
    def reader(self) -> ShardReader:
        """What reads single shards."""
        return ShardReader(self.dir, self.manifest.dtype, self.manifest.image_shape)

    @property
    def block_samples(self) -> int:
        """The number of samples to process at a time."""
        return self.reader.block_samples

    def shards(self, split: Split) -> tuple[Shard, ...]:
        """Return a split's shards, in sample order."""
        return self.manifest.splits[split].shards

    def ranges(self, split: Split) -> list[tuple[Shard, int, int]]:
        """Return a split's shards, each with the range [start, stop) of its samples within the split."""
        return self.ranges_with(split, 0, self.manifest.splits[split].samples)

    def ranges_with(self, split: Split, start: int, stop: int) -> list[tuple[Shard, int, int]]:
        """Return the shards that hold samples [start, stop) of a split, as `ranges` does."""
        stops = self._stops[split]
        found = slice(np.searchsorted(stops, start, "right"), np.searchsorted(stops, stop) + 1)
        return [
            (shard, end - shard.samples, end)
            for shard, end in zip(self.shards(split)[found], stops[found].tolist(), strict=True)
        ]

    def images(self, shard: Shard) -> Array:
        """Memory-map a shard's images, read-only (N, C, H, W) of the manifest's dtype."""
        return self.reader.images(shard)

    def labels(self, split: Split) -> Labels:
        """Read a split's labels, (N,) int64: indices into the manifest's `classes`."""
        labels = np.empty(self.manifest.splits[split].samples, np.int64)
        for shard, start, stop in self.ranges(split):
            labels[start:stop] = self.reader.labels(shard)
        return labels

    def sources(self, split: Split) -> tuple[str, ...]:
        """Read the names of the files that a split's samples come from, in order: paths within the source.

        Raises InputError if the set was not made from image files, and CorruptDataError if samples.csv is damaged.
        """
        if not self.manifest.has_sources:
            raise InputError(f"{self.dir}: was not made from image files, so its samples have no names")
        (listed,) = (file for file in self.manifest.files if file.path == f"{split}/{SAMPLES_NAME}")
        self.reader.verify_file(listed)
        path, expected = self.dir / listed.path, self.manifest.splits[split].samples
        with path.open(encoding="utf-8", newline="") as file:
            names = tuple(row["source"] for row in csv.DictReader(file))
        if len(names) != expected:
            raise CorruptDataError(f"{path}: expected {expected:,} samples, got {len(names):,}. Build the set again.")
        return names

    def take(self, split: Split, indices: Array) -> Array:
        """Read some images of a split in the order of `indices`, (len(indices), C, H, W) of the manifest's dtype."""
        taken = np.empty((len(indices), *self.manifest.image_shape), self.manifest.dtype)
        order = np.argsort(indices, kind="stable")
        ordered = indices[order]
        for number in np.unique(np.searchsorted(self._stops[split], ordered, "right")).tolist():
            shard, stop = self.shards(split)[number], self._stops[split][number]
            within = slice(*np.searchsorted(ordered, (stop - shard.samples, stop)))
            taken[order[within]] = self.images(shard)[ordered[within] - (stop - shard.samples)]
        return taken

    def verified_image_blocks(self, shard: Shard) -> Iterator[Array]:
        """Yield a shard's images in blocks, (n, C, H, W). A block is overwritten when the next one is requested.

        Raises DamagedFileError after the last block if a byte differs from the manifest.
        """
        return self.reader.verified_image_blocks(shard)

    def verify(
        self,
        exclude: Container[SetFile] = (),
        map_files: MapTasks = map_on_threads,
        done: Callable[[int], None] = ignore,
    ) -> None:
        """Compare every file with the manifest, except those in `exclude`, and look for files that it doesn't list.

        `map_files` maps over shards. `done` is called with the number of samples of each shard that was compared. Files
        of IGNORED_NAMES may be there. Raises CorruptDataError, naming all files that differ.
        """
        self._verify(exclude, map_files, done)

    def verify_all(self, map_files: MapTasks = map_on_threads, done: Callable[[int], None] = ignore) -> None:
        """Verify every file as `verify` does, and for a set of pixels also recompute `content_sha256`.

        For pixels, this needs 32 bytes of memory per image. Raises CorruptDataError.
        """
        is_pixels = self.manifest.dtype == "uint8"
        digests = self._verify((), map_files, done, with_digests=is_pixels)
        if is_pixels:
            shards = [shard for of_split in self.manifest.splits.values() for shard in of_split.shards]
            self._check_content_hash(hash_content(zip(digests, map(self.reader.labels, shards), strict=True)))

    def check_unchanged(self) -> None:
        """Raise CorruptDataError if the set was replaced by another one since it was opened."""
        if load_manifest(self.dir) != self.manifest:
            raise CorruptDataError(f"{self.dir}: was replaced by another set while it was being read. Run this again.")

    def check_content(self, digests: Mapping[Split, Digests]) -> None:
        """Raise CorruptDataError unless the pixels' digests and the labels on disk give `content_sha256`."""
        self._check_content_hash(hash_content((digests[split], self.labels(split)) for split in self.manifest.splits))

    def _check_content_hash(self, content: str) -> None:
        if content != self.manifest.content_sha256:
            raise CorruptDataError(
                f"{self.dir / MANIFEST_NAME}: content_sha256: expected {self.manifest.content_sha256}, but the shards "
                f"have {content}. The set was not written by this pipeline; rebuild it or copy it again."
            )

    @cached_property
    def _stops(self) -> dict[Split, NDArray[np.int64]]:
        """For each shard of each split, the end of its samples within the split."""
        return {
            split: np.cumsum([shard.samples for shard in of_split.shards])
            for split, of_split in self.manifest.splits.items()
        }

    def _verify(
        self,
        exclude: Container[SetFile],
        map_files: MapTasks,
        done: Callable[[int], None],
        *,
        with_digests: bool = False,
    ) -> list[Digests]:
        """Verify, and return the digests of each shard's images if asked for."""
        checks = [
            ShardCheck(self.reader, shard, files, len(self.manifest.classes), with_digests)
            for of_split in self.manifest.splits.values()
            for shard in of_split.shards
            if (files := tuple(file for file in shard.files if file not in exclude))
        ]
        checked = map_files(check_shard, checks, lambda check: done(check.shard.samples))
        damaged = [problem for of_shard in checked for problem in of_shard.problems]
        damaged += [problem for file in self.manifest.files if (problem := self._find_problem(file))]
        listed = {MANIFEST_NAME, *(file.path for file in (*self.manifest.shard_files(), *self.manifest.files))}
        unlisted = [f"{self.dir / name}: not in the manifest" for name in sorted({*_find_files(self.dir)} - listed)]
        differences = "\n  ".join([f"{self.dir} differs from its manifest:", *damaged, *unlisted])
        if damaged:
            raise DamagedFileError(f"{differences}\nRestore these files from the original source.")
        if unlisted:
            raise CorruptDataError(f"{differences}\nMove these files out of the folder.")
        return [of_shard.digests for of_shard in checked]

    def _find_problem(self, file: SetFile) -> str | None:
        try:
            self.reader.verify_file(file)
        except CorruptDataError as error:
            return str(error)
        return None


def _find_files(set_dir: Path) -> Iterator[str]:
    """List all files of a set by their paths, except those of IGNORED_NAMES."""

    def fail(error: OSError) -> Never:  # else a folder that can't be read would count as empty
        raise error

    for folder, folders, files in os.walk(set_dir, onerror=fail):
        folders[:] = [name for name in folders if not _is_ignored(name)]
        for name in files:
            if not _is_ignored(name):
                yield Path(folder, name).relative_to(set_dir).as_posix()


def _is_ignored(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in IGNORED_NAMES)


def open_shards(shards_dir: str | PathLike[str]) -> ShardSet:
    """Open a shard set, to read it as numpy arrays.

    Only the manifest is read and compared with its own hash; `verify_shards` compares all files.

    Raises CorruptDataError if the manifest is missing, so that the set is not complete, or if it was changed.
    """
    path = Path(shards_dir)
    # Absolute, because cluster workers run in folders of their own.
    return ShardSet(path.absolute(), load_manifest(path))


def verify_shards(shards_dir: str | PathLike[str]) -> ShardSet:
    """Open a shard set and compare every byte with its manifest; for pixels, also recompute `content_sha256`.

    Float values are not turned back into pixels, so their content hash is not recomputed.

    Raises CorruptDataError, which names all files that differ, are missing, or are not in the manifest.
    """
    shards = open_shards(shards_dir)
    shards.verify_all()
    return shards
