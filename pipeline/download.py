"""Stage `download`: the one place that knows where data comes from and what its original format is."""

import pkgutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipeline import synthetic
from pipeline.cifar import decode, read_archive, read_folder
from pipeline.datasets import DATASETS, Archive
from pipeline.errors import CorruptDataError, FetchError, InputError
from pipeline.fetch import Progress, fetch_archive, find_difference
from pipeline.files import replace_dir
from pipeline.manifest import SPLITS, Manifest, Split, save_manifest
from pipeline.shards import Labels, Pixels, hash_content, write_shards

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

RAW_SAMPLES_PER_SHARD = 10_000
CHANNELS = ("red", "green", "blue")

WAYS_OUT = """What you can do:
  another mirror   PIPELINE_SOURCE=https://host/{file_name} dvc repro
  a local file     PIPELINE_SOURCE=/path/to/{file_name} dvc repro, or a folder with the unpacked files
  no data at all   make demo, which generates a dataset"""


def download_dataset(name: str, raw_dir: Path, archives_dir: Path, source: str | None, progress: Progress) -> Manifest:
    """Write a dataset as a uint8 shard set in the place of `raw_dir`.

    `source` replaces the dataset's own URLs: an http, https or file URL, the path of the archive, or of a folder that
    holds the unpacked files. Whatever it is, nothing of it is unpacked or decoded before its hash is found right.

    Raises InputError for a source that can't be used, FetchError, and CorruptDataError for data that are not the
    dataset's.
    """
    dataset = DATASETS[name]
    if dataset.archive is None:
        splits, classes = synthetic.generate(), synthetic.CLASSES
    else:
        path = _find_original(dataset.archive, archives_dir, source, progress)
        # torchvision takes seconds to import, and only this needs it.
        dataset_class: type[CIFAR10] = pkgutil.resolve_name(dataset.archive.reader)
        files = read_folder(path, dataset_class) if path.is_dir() else read_archive(path, dataset_class)
        splits, classes = decode(files, dataset_class, path)
    content_sha256 = hash_content(splits[split] for split in SPLITS)
    if content_sha256 != dataset.content_sha256:
        raise CorruptDataError(
            f"{name}: expected the decoded images and labels to have SHA-256 {dataset.content_sha256}, "
            f"got {content_sha256}: please report this, with your versions of torchvision and numpy"
        )
    return write_raw(raw_dir, name, classes, content_sha256, splits)


def write_raw(
    raw_dir: Path,
    name: str,
    classes: tuple[str, ...],
    content_sha256: str,
    splits: dict[Split, tuple[Pixels, Labels]],
) -> Manifest:
    """Write images, (N, 3, H, W) uint8, and labels, (N,) int64, as a shard set in the place of `raw_dir`."""
    image_shape = splits["train"][0].shape[1:]

    def image_blocks(split: Split, start: int, stop: int) -> Iterable[Pixels]:
        return [splits[split][0][start:stop]]

    with replace_dir(raw_dir) as staging_dir:
        manifest = Manifest(
            format_version=1,
            dataset=name,
            classes=classes,
            dtype="uint8",
            layout="NCHW",
            image_shape=image_shape,
            channels=CHANNELS,
            content_sha256=content_sha256,
            normalization=None,
            splits=write_shards(
                staging_dir,
                {split: labels for split, (_, labels) in splits.items()},
                image_blocks,
                dtype="uint8",
                image_shape=image_shape,
                samples_per_shard=RAW_SAMPLES_PER_SHARD,
            ),
        )
        save_manifest(manifest, staging_dir)
    return manifest


def _find_original(archive: Archive, archives_dir: Path, source: str | None, progress: Progress) -> Path:
    """Return the path of the verified archive, or of a folder with its files, from wherever they come."""
    try:
        path = None if source is None else _local_path(source)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"source {source}: {error}") from None
    if path and path.is_dir():
        return path
    if path:
        if not path.exists():
            raise InputError(f"source {source}: no such file or folder")
        if difference := find_difference(path, archive):
            raise InputError(f"source {source}: {difference}: it is not the published {archive.file_name}")
        return path
    try:
        return fetch_archive(archive, [source] if source else archive.urls, archives_dir, progress)
    except FetchError as error:
        raise FetchError(f"{error}\n{WAYS_OUT.format(file_name=archive.file_name)}") from None


def _local_path(source: str) -> Path | None:
    scheme = urlsplit(source).scheme.lower()
    if scheme in ("http", "https"):
        return None
    if scheme == "file":
        if urlsplit(source).netloc not in ("", "localhost"):
            raise ValueError("a file URL should be of this machine, file:///path")
        return Path(url2pathname(urlsplit(source).path))
    if "://" in source:
        raise ValueError("should be an http, https or file URL, or a path")
    return Path(source).expanduser()
