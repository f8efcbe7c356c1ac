"""What a source holds: every image with its split, class and header, and all that is wrong with it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.errors import NotAnImageError, UnreadableImageError
from pipeline.runtime.tasks import Progress, imap_on_threads
from pipeline.sources.images.archives import Tar, Zip
from pipeline.sources.images.containers import Folder, open_container
from pipeline.sources.images.decode import Header, open_image, read_header, silence_decoders
from pipeline.sources.images.layout import find_class_problems, plan_by_folders, plan_by_metadata
from pipeline.sources.images.listing import Container, Listing
from pipeline.sources.images.metadata import find_metadata, read_metadata
from pipeline.sources.images.parquet import SUFFIX as PARQUET_SUFFIX
from pipeline.sources.images.parquet import is_parquet, open_parquet
from shardset.errors import InputError, named_os_errors
from shardset.manifest import Split
from shardset.reader import Labels, split_range

HEADERS_PER_TASK = 64  # handing over a single one to a thread takes as long as reading it

# A file that has one of these names but is no image is reported, because somebody took it for one.
IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".jpx", ".jxl", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".svg", ".tga", ".tif", ".tiff", ".webp"),
)

MAX_PROBLEMS = 20


@dataclass(frozen=True)
class Catalog:
    """The images of a source, by split and in order: their paths in the source, and their labels.

    `headers` and `unreadable`, which gives the reasons, are by path, and so is `ignored`: files that are no part of the
    dataset, with the reasons. While there are `problems`, the source can't be used.
    """

    classes: tuple[str, ...]
    names: dict[Split, list[str]]
    labels: dict[Split, Labels]
    container: Container
    headers: dict[str, Header]
    unreadable: dict[str, str]
    ignored: dict[str, str]
    problems: list[str]

    def open(self, name: str) -> BinaryIO:
        """Open a file; see `Files.open`."""
        return self.container.files.open(name, self.container.place(name))

    def sample_headers(self) -> list[Header]:
        """Return the headers of the images that belong to a split and can be read."""
        names = (name for of_split in self.names.values() for name in of_split)
        return [self.headers[name] for name in names if name in self.headers]

    def check(self, source: Path) -> None:
        """Raise InputError, which lists the problems, if there are any."""
        if self.problems:
            raise InputError("\n  ".join([f"source {source} can't be used:", *self.problems]))


def read_catalog(path: Path, progress: Progress) -> Catalog:
    """Look through a folder, an archive or parquet files. Images are not decoded.

    Raises InputError if `path` is none of these.
    """
    silence_decoders()
    if is_parquet(path):
        return _read_parquet(path.parent, [path.name], Listing(), progress)
    container = open_container(path)
    if tables := [name for name in container.listing.files if name.lower().endswith(PARQUET_SUFFIX)]:
        if not path.is_dir():
            raise InputError(f"source {path}: has parquet files inside, such as {tables[0]}; unpack it")
        return _read_parquet(path, tables, container.listing, progress)
    return _read_container(container, progress)


def _read_parquet(root: Path, files: list[str], listing: Listing, progress: Progress) -> Catalog:
    others = [name for name in listing.files if not name.lower().endswith(PARQUET_SUFFIX)]
    if images := [name for name in others if name.lower().endswith(IMAGE_SUFFIXES)]:
        raise InputError(
            f"source {root}: has parquet files and image files, such as {files[0]} and {images[0]}; keep one kind, or "
            "name the folder of the parquet files as the source"
        )
    table = open_parquet(root, files)
    all_names = [name for of_split in table.names.values() for name in of_split]
    headers, unreadable, not_images = _read_headers(table.open, all_names, progress)
    splits = {
        split: [("", table.classes[label]) for label in np.unique(labels).tolist()]
        for split, labels in table.labels.items()
    }
    return Catalog(
        classes=table.classes,
        names=table.names,
        labels=table.labels,
        container=table,
        headers=headers,
        unreadable=unreadable | not_images,
        ignored=listing.ignored | dict.fromkeys(others, "not a parquet file"),
        problems=[*listing.problems, *find_class_problems(splits)],
    )


def _read_container(container: Folder | Tar | Zip, progress: Progress) -> Catalog:
    listing = container.listing
    metadata = find_metadata(listing.files, listing.folders)
    files = [name for name in listing.files if name not in metadata]
    headers, unreadable, ignored = _read_headers(container.open, files, progress)
    images = [name for name in files if name not in ignored]
    if metadata:
        rows = (row for name in metadata for row in read_metadata(name, container.open))
        layout = plan_by_metadata(images, rows)
    else:
        layout = plan_by_folders(images, listing.folders)
    classes = layout.classes
    index_of = {name: index for index, name in enumerate(classes)}
    return Catalog(
        classes=classes,
        names={split: [name for name, _ in of_split] for split, of_split in layout.splits.items()},
        labels={
            split: np.fromiter((index_of[label] for _, label in of_split), np.int64, len(of_split))
            for split, of_split in layout.splits.items()
        },
        container=container,
        headers=headers,
        unreadable={name: reason for name, reason in unreadable.items() if name not in layout.ignored},
        ignored=listing.ignored | ignored | layout.ignored,
        problems=[*_first(listing.problems), *_first(layout.problems), *find_class_problems(layout.splits)],
    )


def _first(problems: list[str]) -> list[str]:
    """Keep the message short where something is wrong with all of many files."""
    num_others = len(problems) - MAX_PROBLEMS
    return [*problems[:MAX_PROBLEMS], f"and {num_others:,} more like these"] if num_others > 0 else problems


def _read_headers(
    open_file: Callable[[str], BinaryIO], names: Iterable[str], progress: Progress
) -> tuple[dict[str, Header], dict[str, str], dict[str, str]]:
    """Read the header of each file. Returns headers, and the reasons for unreadable images and for other files."""
    names = [*names]
    headers: dict[str, Header] = {}
    kinds: dict[Header, Header] = {}  # one for all images that are alike
    unreadable: dict[str, str] = {}
    ignored: dict[str, str] = {}

    def read(name: str) -> Header | UnreadableImageError:
        try:
            with named_os_errors(name), open_file(name) as file, open_image(file) as image:
                return read_header(image)
        except UnreadableImageError as error:
            return error

    ranges = split_range(0, len(names), HEADERS_PER_TASK)
    by_range = imap_on_threads(lambda part: [*map(read, names[slice(*part)])], ranges)
    for name, found in zip(names, chain.from_iterable(by_range), strict=True):
        if isinstance(found, Header):
            headers[name] = kinds.setdefault(found, found)
        elif isinstance(found, NotAnImageError) and not name.lower().endswith(IMAGE_SUFFIXES):
            ignored[name] = "not an image"
        else:
            unreadable[name] = str(found)
        progress("Looking at files", len(headers) + len(unreadable) + len(ignored), len(names))
    return headers, unreadable, ignored
