"""From the params to the samples of a dataset, wherever they come from."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipeline.runtime.tasks import FETCHING, Progress
from pipeline.sources import synthetic
from pipeline.sources.cifar import decode, read_archive, read_folder
from pipeline.sources.images.catalog import read_catalog
from pipeline.sources.images.probe import check_decoder
from pipeline.sources.images.samples import ImageSamples, samples_of
from pipeline.sources.images.tables import count_equal
from pipeline.sources.images.torchvision import TORCHVISION, read_torchvision
from pipeline.sources.registry import DATASETS, Archive, Dataset
from shardset.errors import InputError
from shardset.manifest import Preparation, Split
from shardset.reader import Array, Labels

LOGGER = logging.getLogger(__name__)

CHANNELS = ("red", "green", "blue")


@dataclass(frozen=True)
class ArraySamples:
    """A dataset in memory: images, (N, C, H, W) uint8, and labels, (N,) int64, of each split."""

    classes: tuple[str, ...]
    channels: tuple[str, ...]
    images: dict[Split, Array]
    labels: dict[Split, Labels]
    preparation: None = None
    names: None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        num_channels, height, width = self.images["train"].shape[1:]
        return num_channels, height, width

    def blocks(self, split: Split, start: int, stop: int) -> Iterator[tuple[Array, list[Any]]]:
        """Yield samples [start, stop) of a split: pixels, (n, C, H, W) uint8, and no facts."""
        yield self.images[split][start:stop], []


def open_samples(
    name: str, source: str | None, archives_dir: Path, preparation: Preparation, progress: Progress
) -> ArraySamples | ImageSamples:
    """Open the dataset called `name`: a known one, `images`, or `torchvision:CLASS`.

    `source` is where it comes from: for a known dataset an http, https or file URL, the path of the archive, or of a
    folder with its files, in place of its own URLs; for `images` the path of a folder, an archive or parquet files; for
    torchvision the folder of its files, which are otherwise downloaded.

    Raises InputError for an unusable source, FetchError, and CorruptDataError for an unreadable archive.
    """
    if name in DATASETS:
        return _read_known(DATASETS[name], archives_dir, source, progress)
    check_decoder()
    if name.startswith(TORCHVISION):
        root = archives_dir / name.removeprefix(TORCHVISION)
        return read_torchvision(name.removeprefix(TORCHVISION), root, source, preparation)
    path = Path(source or "").expanduser()
    catalog = read_catalog(path, progress)
    catalog.check(path)
    if catalog.ignored:
        LOGGER.info("Left out: %s", count_equal(catalog.ignored.values()))
    return samples_of(catalog, preparation)


def _read_known(dataset: Dataset, archives_dir: Path, source: str | None, progress: Progress) -> ArraySamples:
    """Read a known dataset. Nothing is decoded until its hash has been compared with the published one."""
    if dataset.archive is None:
        images, labels, classes = synthetic.generate()
        return ArraySamples(classes, CHANNELS, images, labels)
    path = _find_archive(dataset.archive, archives_dir, source, progress)
    files = dataset.archive.files
    contents = read_folder(path, files) if path.is_dir() else read_archive(path, files)
    images, labels, classes = decode(contents, files, path)
    return ArraySamples(classes, CHANNELS, images, labels)


def _find_archive(archive: Archive, archives_dir: Path, source: str | None, progress: Progress) -> Path:
    """Return the path of the verified archive, or of a folder that should have its files."""
    from pipeline.sources.fetch import fetch_archive, find_difference

    try:
        path = None if source is None else _local_path(source)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"source {source}: {error}") from None
    if path is None:
        return fetch_archive(archive, [source] if source else archive.urls, archives_dir, partial(progress, FETCHING))
    if path.is_dir():
        return path
    try:
        difference = find_difference(path, archive)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"source {source}: no such file or folder") from None
    if difference:
        raise InputError(f"source {source}: {difference}: it is not the published {archive.file_name}")
    return path


def _local_path(source: str) -> Path | None:
    scheme = urlsplit(source).scheme.lower()
    if scheme in ("http", "https"):
        return None
    if scheme == "file":
        if urlsplit(source).netloc not in ("", "localhost"):
            raise ValueError("file URLs should refer to this machine, file:///path")
        return Path(url2pathname(urlsplit(source).path))
    if "://" in source:
        raise ValueError("should be an http, https or file URL, or a path")
    return Path(source).expanduser()
