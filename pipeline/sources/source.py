"""From the name of a dataset to its images and labels, wherever they come from."""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipeline.sources import synthetic
from pipeline.sources.cifar import decode, read_archive, read_folder
from pipeline.sources.fetch import Progress, fetch_archive, find_difference
from pipeline.sources.registry import Archive, Dataset
from shardset.errors import InputError
from shardset.manifest import Split
from shardset.reader import Array, Labels


def read_dataset(
    dataset: Dataset, archives_dir: Path, source: str | None, progress: Progress
) -> tuple[dict[Split, Array], dict[Split, Labels], tuple[str, ...]]:
    """Return images, (N, C, H, W) uint8, and labels, (N,) int64, of each split, and the class names.

    `source` replaces the dataset's own URLs: an http, https or file URL, the path of the archive, or of a folder with
    its files. Nothing is decoded until its hash has been compared with the published one.

    Raises InputError for an unusable source, FetchError, and CorruptDataError for an unreadable archive.
    """
    if dataset.archive is None:
        return synthetic.generate()
    path = _find_archive(dataset.archive, archives_dir, source, progress)
    files = dataset.archive.files
    contents = read_folder(path, files) if path.is_dir() else read_archive(path, files)
    return decode(contents, files, path)


def _find_archive(archive: Archive, archives_dir: Path, source: str | None, progress: Progress) -> Path:
    """Return the path of the verified archive, or of a folder that should have its files."""
    try:
        path = None if source is None else _local_path(source)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"source {source}: {error}") from None
    if path is None:
        return fetch_archive(archive, [source] if source else archive.urls, archives_dir, progress)
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
