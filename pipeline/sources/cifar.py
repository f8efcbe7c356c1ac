"""CIFAR's original format: a gzipped tar, or a folder, of pickled batches. Only files with a known MD5 are decoded."""

import gzip
import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.runtime.tasks import map_tasks
from pipeline.sources.registry import Batches
from shardset.errors import CorruptDataError, InputError, named_os_errors
from shardset.manifest import Split
from shardset.reader import Array, Labels

IMAGE_SHAPE = (3, 32, 32)
# All names that a pickled batch may reference. The first is where numpy kept the function when CIFAR was published.
PICKLED_NAMES: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def read_folder(folder: Path, files: Batches) -> dict[str, bytes]:
    """Read the dataset's files from `folder`, or from its subfolder named `files.folder`. Raises InputError."""
    if folder.name != files.folder:
        folder /= files.folder
    contents = {}
    for name in files.md5_by_name:
        path = folder / name
        try:
            with named_os_errors(path):
                contents[name] = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise InputError(f"{path}: missing: the source should hold {files.folder}/ with all its files") from None
    return contents


def read_archive(path: Path, files: Batches) -> dict[str, bytes]:
    """Read the dataset's files from its archive into memory. Nothing is unpacked on disk. Raises CorruptDataError."""
    contents = {}
    try:
        # tarfile's own mode "r:gz" tells every OSError that it gets while reading as "not a gzip file".
        with named_os_errors(path), gzip.open(path) as archive, tarfile.open(fileobj=archive, mode="r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                if folder == files.folder and name in files.md5_by_name and (stream := tar.extractfile(member)):
                    contents[name] = stream.read()
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorruptDataError(f"{path}: not a readable archive: {error}") from None
    if missing := files.md5_by_name.keys() - contents:
        raise CorruptDataError(f"{path}: not a readable archive: it lacks {', '.join(sorted(missing))}")
    return contents


def decode(
    contents: Mapping[str, bytes], files: Batches, source: Path
) -> tuple[dict[Split, Array], dict[Split, Labels], tuple[str, ...]]:
    """Decode images, (N, 3, 32, 32) uint8, and labels, (N,) int64, of each split, and the class names.

    `source` is where the files come from, for messages. Raises InputError for a file that is not the published one.
    """
    digests = map_tasks(lambda name: hashlib.md5(contents[name], usedforsecurity=False).hexdigest(), files.md5_by_name)
    for (name, md5), got in zip(files.md5_by_name.items(), digests, strict=True):
        if got != md5:
            raise InputError(f"{source}: {name}: expected MD5 {md5}, got {got}: it is not the published file")
    images: dict[Split, Array] = {}
    labels: dict[Split, Labels] = {}
    for split, names in files.batches.items():
        batches = [_unpickle(contents[name]) for name in names]
        images[split] = np.concatenate([batch["data"].reshape(-1, *IMAGE_SHAPE) for batch in batches])
        labels[split] = np.concatenate([np.array(batch[files.labels_key], np.int64) for batch in batches])
    return images, labels, tuple(_unpickle(contents[files.meta[0]])[files.classes_key])


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 (whatever the name stands for)
        if (module, name) not in PICKLED_NAMES:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of CIFAR's format")
        return PICKLED_NAMES[module, name]


def _unpickle(content: bytes) -> dict[str, Any]:
    # Latin-1 keeps the bytes of Python 2's strings, which numpy expects of its arrays.
    batch: dict[str, Any] = _Unpickler(io.BytesIO(content), encoding="latin-1").load()
    return batch
