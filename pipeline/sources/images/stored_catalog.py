"""A catalog in the work folder of a stage, from where tasks read the names and places of their own images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from pipeline.runtime.files import hash_file, write_synced
from pipeline.sources.images.catalog import Catalog
from pipeline.sources.stored import load_rows, save_rows
from shardset.errors import named_os_errors
from shardset.manifest import Split
from shardset.models import render_json
from shardset.reader import Labels, split_range

LARGE_PIXELS = 32_000_000  # Pillow needs 4 bytes a pixel, and as many for a conversion
NAMES_AT_A_TIME = 10_000


class StoredImage(NamedTuple):
    """An image of a catalog. `problem` says why it can't be read, if that is known; `place` is for `Files.open`."""

    name: str
    place: Sequence[int]
    is_large: bool
    problem: str | None


@dataclass(frozen=True)
class StoredCatalog:
    """The images of a source by split, in a folder: what takes memory in a `Catalog`."""

    dir: Path

    def images(self, split: Split, start: int, stop: int) -> list[StoredImage]:
        """Read what is known of images [start, stop)."""
        ends = load_rows(self.dir / f"{split}.ends.npy", max(start - 1, 0), stop).tolist()
        places = load_rows(self.dir / f"{split}.places.npy", start, stop).tolist()
        with named_os_errors(path := self.dir / f"{split}.unreadable"):
            problems = msgspec.json.decode(path.read_bytes(), type=dict[int, str])
        if start == 0:
            ends.insert(0, 0)
        with named_os_errors(path := self.dir / f"{split}.names"), path.open("rb") as file:
            file.seek(ends[0])
            content = file.read(ends[-1] - ends[0])
        return [
            StoredImage(content[first - ends[0] : last - ends[0]].decode(), place, bool(is_large), problems.get(index))
            for index, first, last, (is_large, *place) in zip(
                range(start, stop), ends[:-1], ends[1:], places, strict=True
            )
        ]

    def labels(self, split: Split, start: int, stop: int) -> Labels:
        """Read the labels of images [start, stop)."""
        return load_rows(self.dir / f"{split}.labels.npy", start, stop)

    def inputs(self, split: Split) -> list[str]:
        """Hash the names and labels of a split."""
        return [hash_file(self.dir / f"{split}.{kind}") for kind in ("names", "ends.npy", "labels.npy")]


@dataclass(frozen=True)
class StoredNames:
    """The names of a split's images, read a few at a time."""

    catalog: StoredCatalog
    split: Split
    num_images: int

    def __iter__(self) -> Iterator[str]:
        for part in split_range(0, self.num_images, NAMES_AT_A_TIME):
            yield from (image.name for image in self.catalog.images(self.split, *part))


def store_catalog(catalog: Catalog, folder: Path) -> StoredCatalog:
    """Write the images of a catalog without problems into a new folder."""
    folder.mkdir()
    for split, names in catalog.names.items():
        with named_os_errors(path := folder / f"{split}.names"), path.open("wb") as file:
            file.writelines(name.encode() for name in names)
        ends = np.cumsum(np.fromiter((len(name.encode()) for name in names), np.int64, len(names)))
        save_rows(folder / f"{split}.ends.npy", ends)
        save_rows(folder / f"{split}.labels.npy", catalog.labels[split])
        num_values = 1 + len(catalog.container.place(names[0]))
        places = np.empty((len(names), num_values), np.int64)
        for number, name in enumerate(names):
            header = catalog.headers.get(name)
            is_large = header is not None and header.width * header.height > LARGE_PIXELS
            places[number] = is_large, *catalog.container.place(name)
        save_rows(folder / f"{split}.places.npy", places)
        problems = {index: catalog.unreadable[name] for index, name in enumerate(names) if name in catalog.unreadable}
        write_synced(folder / f"{split}.unreadable", render_json(problems))
    return StoredCatalog(folder)
