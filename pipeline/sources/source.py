"""From the params to the samples of a dataset, wherever they come from."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipeline.runtime.tasks import FETCHING, Progress
from pipeline.sources import synthetic
from pipeline.sources.cifar import CHANNELS, CifarSource
from pipeline.sources.images.catalog import read_catalog
from pipeline.sources.images.probe import check_decoder
from pipeline.sources.images.samples import ImageSource, choose_mode
from pipeline.sources.images.tables import count_equal
from pipeline.sources.images.torchvision import TORCHVISION, read_torchvision
from pipeline.sources.registry import DATASETS, Archive
from pipeline.sources.stored import ArrayReader, Source, StoredSamples, save_arrays
from shardset.errors import InputError
from shardset.manifest import Preparation, Split
from shardset.reader import Array, Labels

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArraySamples:
    """A dataset in memory: images, (N, C, H, W) uint8, and labels, (N,) int64, of each split."""

    classes: tuple[str, ...]
    channels: tuple[str, ...]
    images: Mapping[Split, Array]
    labels: Mapping[Split, Labels]

    @property
    def splits(self) -> Collection[Split]:
        return self.labels

    def store(self, folder: Path) -> StoredSamples:
        folder.mkdir()
        num_channels, height, width = self.images["train"].shape[1:]
        parts = {split: (save_arrays(folder, split, self.images[split], self.labels[split]),) for split in self.labels}
        return StoredSamples(
            classes=self.classes,
            channels=self.channels,
            image_shape=(num_channels, height, width),
            num_samples={split: len(labels) for split, labels in self.labels.items()},
            reader=ArrayReader(folder, parts),
            inputs=None,
        )


def open_source(
    name: str, source: str | None, archives_dir: Path, preparation: Preparation, progress: Progress
) -> Source:
    """Open the dataset called `name`: a known one, `images`, or `torchvision:CLASS`.

    `source` is where it comes from: for a known dataset an http, https or file URL, the path of the archive, or of a
    folder with its files, in place of its own URLs; for `images` the path of a folder, an archive or parquet files; for
    torchvision the folder of its files, which are otherwise downloaded.

    Raises InputError for an unusable source, FetchError, and CorruptDataError for an unreadable archive.
    """
    if name in DATASETS:
        archive = DATASETS[name].archive
        if archive is None:
            images, labels, classes = synthetic.generate()
            return ArraySamples(classes, CHANNELS, images, labels)
        return CifarSource(_find_archive(archive, archives_dir, source, progress), archive.files)
    check_decoder()
    if name.startswith(TORCHVISION):
        root = archives_dir / name.removeprefix(TORCHVISION)
        return read_torchvision(name.removeprefix(TORCHVISION), root, source, preparation)
    path = Path(source or "").expanduser()
    catalog = read_catalog(path, progress)
    catalog.check(path)
    if catalog.ignored:
        LOGGER.info("Left out: %s", count_equal(catalog.ignored.values()))
    return ImageSource(catalog, choose_mode(catalog.sample_headers(), preparation), preparation)


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
