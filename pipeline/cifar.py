"""The original format of CIFAR: a gzipped tar, or a folder, of pickles. They are read as plain data, never executed."""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Collection, Mapping
from itertools import islice
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import CorruptDataError, InputError
from pipeline.manifest import SPLITS, Split
from pipeline.plain_pickle import Call, read_plain_pickle
from pipeline.shards import Labels, Pixels

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

IMAGE_SHAPE = (3, 32, 32)
# CIFAR-10 is 1.09 times as large unpacked as packed, and has 9 members.
MAX_RATIO = 4
MAX_MEMBERS = 1000


def read_folder(folder: Path, dataset_class: "type[CIFAR10]") -> dict[str, bytes]:
    """Read the dataset's files from a folder that holds them, or holds the folder that does. Raises InputError."""
    if folder.name != dataset_class.base_folder:
        folder /= dataset_class.base_folder
    files = {}
    for name in list_files(dataset_class):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name}: missing: the source should hold {dataset_class.base_folder}/ with all its files"
            )
        files[name] = (folder / name).read_bytes()
    return files


def read_archive(path: Path, dataset_class: "type[CIFAR10]") -> dict[str, bytes]:
    """Read the dataset's files out of its archive, in memory: no member, whatever its name or kind, is put on disk.

    Raises CorruptDataError.
    """
    limit = MAX_RATIO * path.stat().st_size
    try:
        with gzip.open(path) as packed:
            unpacked = packed.read(limit + 1)
        if len(unpacked) > limit:
            raise CorruptDataError(f"{path}: unpacks to more than {limit:,} bytes")
        return _read_members(unpacked, dataset_class.base_folder, list_files(dataset_class))
    except (tarfile.TarError, EOFError, OSError, OverflowError, RecursionError, ValueError, zlib.error) as error:
        raise CorruptDataError(f"{path}: not a readable archive: {error}") from None


def _read_members(unpacked: bytes, base_folder: str, names: Collection[str]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
        for member in islice(tar, MAX_MEMBERS):
            folder, _, name = member.name.rpartition("/")
            # A sparse member may claim any size.
            if folder == base_folder and name in names and member.isreg() and member.size <= len(unpacked):
                content = tar.extractfile(member)
                files[name] = content.read() if content else b""
    if missing := [name for name in names if name not in files]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    return files


def list_files(dataset_class: "type[CIFAR10]") -> dict[str, str]:
    """List the names of a dataset's files, each with the MD5 that torchvision knows."""
    meta = dataset_class.meta["filename"], dataset_class.meta["md5"]
    return dict((*dataset_class.train_list, *dataset_class.test_list, meta))


def decode(
    files: Mapping[str, bytes], dataset_class: "type[CIFAR10]", source: Path
) -> tuple[dict[Split, tuple[Pixels, Labels]], tuple[str, ...]]:
    """Decode images, (N, 3, 32, 32) uint8, and labels, (N,) int64, of both splits, and the names of the classes.

    `source` is where the files come from, for messages. Raises InputError for a file that is not the published one, and
    CorruptDataError for one that can't be decoded.
    """
    for name, md5 in list_files(dataset_class).items():
        if (got := hashlib.md5(files[name], usedforsecurity=False).hexdigest()) != md5:
            raise InputError(f"{source}: {name}: expected MD5 {md5}, got {got}: it is not the published file")
    name = dataset_class.meta["filename"]
    try:
        classes = decode_classes(files[name], dataset_class.meta["key"])
        splits: dict[Split, tuple[Pixels, Labels]] = {}
        for split, listed in zip(SPLITS, (dataset_class.train_list, dataset_class.test_list), strict=True):
            batches = []
            for name, _ in listed:
                batches.append(decode_batch(files[name], len(classes)))
            splits[split] = np.concatenate([images for images, _ in batches]), np.concatenate([of for _, of in batches])
    except ValueError as error:
        raise CorruptDataError(f"{source}: {name}: {error}") from None
    return splits, classes


def decode_classes(content: bytes, key: str) -> tuple[str, ...]:
    """Decode the names of the classes. Raises ValueError."""
    meta = read_plain_pickle(content)
    classes = meta.get(key) if isinstance(meta, dict) else None
    if isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes):
        return tuple(classes)
    raise ValueError(f"should have the names of the classes as {key}")


def decode_batch(content: bytes, num_classes: int) -> tuple[Pixels, Labels]:
    """Decode one file's images, (N, 3, 32, 32) uint8, and labels, (N,) int64. Raises ValueError."""
    match read_plain_pickle(content):
        case {"data": Call("numpy.core.multiarray _reconstruct", _, state), "labels": list(labels)} | {
            "data": Call("numpy.core.multiarray _reconstruct", _, state),
            "fine_labels": list(labels),
        }:
            pass
        case _:
            raise ValueError("should have an array as data, and a list as labels or fine_labels")
    match state:
        # As numpy keeps an array: version, shape, dtype, whether in Fortran's order, bytes.
        case (_, (int(rows), int(columns)), Call("numpy dtype", ("u1", *_)), False, str(data)):
            pass
        case _:
            raise ValueError("data should be a uint8 array of two dimensions in C order")
    if rows < 1 or columns != prod(IMAGE_SHAPE) or len(data) != rows * columns:
        raise ValueError(f"data should have shape (N, {prod(IMAGE_SHAPE)}), got ({rows}, {columns})")
    if len(labels) != rows or not all(type(label) is int and 0 <= label < num_classes for label in labels):
        raise ValueError(f"labels should be {rows} whole numbers in [0, {num_classes})")
    pixels = np.frombuffer(data.encode("latin-1"), np.uint8)
    return pixels.reshape(rows, *IMAGE_SHAPE), np.array(labels, np.int64)
