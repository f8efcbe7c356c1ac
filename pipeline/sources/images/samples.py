"""Images decoded on threads, as samples to store."""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from pipeline.errors import UnreadableImageError
from pipeline.runtime.tasks import imap_on_threads
from pipeline.sources.images.catalog import Catalog
from pipeline.sources.images.decode import Mode, decode_image, open_image, read_header
from shardset.manifest import Preparation, Split
from shardset.reader import BLOCK_VALUES, Array, Labels, split_range

CHANNELS: dict[Mode, tuple[str, ...]] = {"L": ("grey",), "RGB": ("red", "green", "blue")}


class ImageFacts(NamedTuple):
    """What is known about the file of a sample; width and height as stored, in pixels; `mode` is Pillow's.

    `problem` says why it can't be decoded, or is None.
    """

    sha256: str
    width: int
    height: int
    orientation: int
    mode: str
    problem: str | None = None


@dataclass(frozen=True)
class ImageSamples:
    """The samples of a source, read one by one. `read` decodes one, given its split and index.

    Where `names` is None, the samples don't come from files of their own.
    """

    classes: tuple[str, ...]
    channels: tuple[str, ...]
    labels: dict[Split, Labels]
    names: dict[Split, list[str]] | None
    preparation: Preparation
    read: Callable[[Split, int], tuple[Array, ImageFacts]]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return len(self.channels), self.preparation.size, self.preparation.size

    def blocks(self, split: Split, start: int, stop: int) -> Iterator[tuple[Array, list[ImageFacts]]]:
        """Decode samples [start, stop) in blocks: pixels, (n, C, H, W) uint8, black where there is a problem; facts."""
        decoded = imap_on_threads(lambda index: self.read(split, index), range(start, stop))
        for first, last in split_range(start, stop, max(1, BLOCK_VALUES // prod(self.image_shape))):
            block = [next(decoded) for _ in range(first, last)]
            yield np.stack([pixels for pixels, _ in block]), [facts for _, facts in block]


@dataclass(frozen=True)
class FileReader:
    """Reads the images of a catalog from their files."""

    catalog: Catalog
    mode: Mode
    preparation: Preparation

    def __call__(self, split: Split, index: int) -> tuple[Array, ImageFacts]:
        sha256, width, height, mode = "", 0, 0, ""
        try:
            with self.catalog.open(self.catalog.names[split][index]) as file:
                content = file.read()
            sha256 = hashlib.sha256(content).hexdigest()
            with open_image(io.BytesIO(content)) as image:
                _, mode, width, height = read_header(image)
                pixels, orientation = decode_image(image, self.mode, self.preparation)
        except UnreadableImageError as error:
            size = self.preparation.size
            black = np.zeros((len(CHANNELS[self.mode]), size, size), np.uint8)
            return black, ImageFacts(sha256, width, height, 1, mode, str(error))
        return pixels, ImageFacts(sha256, width, height, orientation, mode)


def samples_of(catalog: Catalog, preparation: Preparation) -> ImageSamples:
    """Return the samples of a catalog without problems. They are grey if all images are, else red, green and blue."""
    headers = [catalog.headers[name] for names in catalog.names.values() for name in names if name in catalog.headers]
    mode: Mode = "L" if headers and all(header.is_grey for header in headers) else "RGB"
    reader = FileReader(catalog, mode, preparation)
    return ImageSamples(catalog.classes, CHANNELS[mode], catalog.labels, catalog.names, preparation, reader)
