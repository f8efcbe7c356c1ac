"""CIFAR's original format: a gzipped tar, or a folder, of pickled batches. Only files with a known MD5 are decoded."""

import gzip
import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.runtime.signals import deferred_signals
from pipeline.sources.registry import Batches
from pipeline.sources.stored import ArrayReader, StoredSamples, save_arrays
from shardset.errors import CorruptDataError, InputError, named_os_errors
from shardset.manifest import Split

IMAGE_SHAPE = (3, 32, 32)
CHANNELS = ("red", "green", "blue")
# All names that a pickled batch may reference. The first is where numpy kept the function when CIFAR was published.
PICKLED_NAMES: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


@dataclass(frozen=True)
class CifarSource:
    """A dataset in CIFAR's format: the path of its verified archive, or of a folder that should have its files."""

    path: Path
    files: Batches

    @property
    def splits(self) -> Collection[Split]:
        return self.files.batches

    def store(self, folder: Path) -> StoredSamples:
        """Decode the files one by one, each into arrays of its own.

        Raises InputError for a file that is missing or not the published one, and CorruptDataError for a bad archive.
        """
        read = read_folder if self.path.is_dir() else read_archive
        return decode(read(self.path, self.files), self.files, self.path, folder)


def read_folder(folder: Path, files: Batches) -> Iterator[tuple[str, bytes]]:
    """Read the dataset's files from `folder`, or from its subfolder named `files.folder`. Raises InputError."""
    if folder.name != files.folder:
        folder /= files.folder
    for name in files.md5_by_name:
        path = folder / name
        try:
            with named_os_errors(path):
                content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise InputError(f"{path}: missing: the source should hold {files.folder}/ with all its files") from None
        yield name, content


def read_archive(path: Path, files: Batches) -> Iterator[tuple[str, bytes]]:
    """Read the dataset's files from its archive, in the archive's order. Raises CorruptDataError."""
    missing = {*files.md5_by_name}
    try:
        # tarfile's own mode "r:gz" tells every OSError that it gets while reading as "not a gzip file".
        with named_os_errors(path), gzip.open(path) as archive, tarfile.open(fileobj=archive, mode="r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                if folder == files.folder and name in missing and (stream := tar.extractfile(member)):
                    content = stream.read()
                    missing.remove(name)
                    yield name, content
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorruptDataError(f"{path}: not a readable archive: {error}") from None
    if missing:
        raise CorruptDataError(f"{path}: not a readable archive: it lacks {', '.join(sorted(missing))}")


def decode(contents: Iterable[tuple[str, bytes]], files: Batches, source: Path, folder: Path) -> StoredSamples:
    """Decode files, given by name, into arrays in a new folder: (N, 3, 32, 32) uint8, and labels, (N,) int64.

    `source` is where the files come from, for messages. Raises InputError for a file that is not the published one.
    """
    folder.mkdir()
    num_samples: dict[str, int] = {}
    classes: tuple[str, ...] = ()
    for name, content in _read_ahead(contents):
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if md5 != (expected := files.md5_by_name[name]):
            raise InputError(f"{source}: {name}: expected MD5 {expected}, got {md5}: it is not the published file")
        batch = _unpickle(content)
        if name == files.meta[0]:
            classes = tuple(batch[files.classes_key])
        else:
            labels = np.array(batch[files.labels_key], np.int64)
            _, num_samples[name] = save_arrays(folder, name, batch["data"].reshape(-1, *IMAGE_SHAPE), labels)
    parts = {split: tuple((name, num_samples[name]) for name in names) for split, names in files.batches.items()}
    return StoredSamples(
        classes=classes,
        channels=CHANNELS,
        image_shape=IMAGE_SHAPE,
        num_samples={split: sum(count for _, count in of_split) for split, of_split in parts.items()},
        reader=ArrayReader(folder, parts),
        inputs=files.md5_by_name,
    )


def _read_ahead(contents: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Read the next file on a thread while the caller works on the one before."""
    remaining = iter(contents)
    with ThreadPoolExecutor(1) as reader:
        with deferred_signals():  # as in map_tasks
            following = reader.submit(next, remaining, None)
        while file := following.result():
            with deferred_signals():
                following = reader.submit(next, remaining, None)
            yield file


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 (whatever the name stands for)
        if (module, name) not in PICKLED_NAMES:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of CIFAR's format")
        return PICKLED_NAMES[module, name]


def _unpickle(content: bytes) -> dict[str, Any]:
    # Latin-1 keeps the bytes of Python 2's strings, which numpy expects of its arrays.
    batch: dict[str, Any] = _Unpickler(io.BytesIO(content), encoding="latin-1").load()
    return batch
