"""Images decoded on threads, as samples to store."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
from PIL import Image

from pipeline.errors import UnreadableImageError
from pipeline.runtime.tasks import imap_on_threads
from pipeline.sources.images.catalog import Catalog
from pipeline.sources.images.decode import (
    Header,
    Mode,
    decode_image,
    decoder_errors,
    has_more_frames,
    open_image,
    read_header,
)
from shardset.errors import InputError, named_os_errors
from shardset.manifest import Preparation, Split
from shardset.reader import Array, Labels, split_range

MAX_SIZES = 5  # listed in a message
BLOCK_VALUES = 65_536  # larger images are not worth a copy into a block
LARGE_PIXELS = 32_000_000  # Pillow needs 4 bytes a pixel, and as many for a conversion

# For large images, so that several don't need gigabytes at the same time. A lock would not do, because the allocator
# keeps freed memory for each thread.
_one_by_one = ThreadPoolExecutor(1)
CHANNELS: dict[Mode, tuple[str, ...]] = {"L": ("grey",), "RGB": ("red", "green", "blue")}


class ImageFacts(NamedTuple):
    """What is known about the file of a sample; width and height as stored, in pixels; `mode` is Pillow's.

    `problem` says why it can't be decoded, or is None. `has_more_frames`: it is the first frame or page of several.
    """

    sha256: str
    width: int
    height: int
    orientation: int
    mode: str
    problem: str | None = None
    has_more_frames: bool = False


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
            images = [pixels for pixels, _ in block]
            yield np.stack(images) if len(images) > 1 else images[0][None], [facts for _, facts in block]


@dataclass(frozen=True)
class FileReader:
    """Reads the images of a catalog from their files."""

    catalog: Catalog
    mode: Mode
    preparation: Preparation

    def __call__(self, split: Split, index: int) -> tuple[Array, ImageFacts]:
        name = self.catalog.names[split][index]
        if problem := self.catalog.unreadable.get(name):  # not read again, because the file may be huge
            return unreadable_sample(ImageFacts("", 0, 0, 1, "", problem), self.mode, self.preparation)
        header = self.catalog.headers[name]
        if header.width * header.height > LARGE_PIXELS:
            return _one_by_one.submit(self._read, name).result()
        return self._read(name)

    def _read(self, name: str) -> tuple[Array, ImageFacts]:
        sha256 = ""
        try:
            with decoder_errors(), named_os_errors(name), self.catalog.open(name) as file:
                content = file.read()
            sha256 = hashlib.sha256(content).hexdigest()
            with open_image(io.BytesIO(content)) as image:
                return decode_sample(image, sha256, self.mode, self.preparation)
        except UnreadableImageError as error:
            return unreadable_sample(ImageFacts(sha256, 0, 0, 1, "", str(error)), self.mode, self.preparation)


def decode_sample(image: Image.Image, sha256: str, mode: Mode, preparation: Preparation) -> tuple[Array, ImageFacts]:
    """Decode an open image, whose file has this SHA-256: pixels as from `decode_image`, or black ones, and facts."""
    _, stored_mode, width, height = read_header(image)
    try:
        pixels, orientation = decode_image(image, mode, preparation)
    except UnreadableImageError as error:
        return unreadable_sample(ImageFacts(sha256, width, height, 1, stored_mode, str(error)), mode, preparation)
    more = has_more_frames(image)
    return pixels, ImageFacts(sha256, width, height, orientation, stored_mode, has_more_frames=more)


def unreadable_sample(facts: ImageFacts, mode: Mode, preparation: Preparation) -> tuple[Array, ImageFacts]:
    """Return black pixels in place of an image that can't be decoded, with its facts."""
    return np.zeros((len(CHANNELS[mode]), preparation.size, preparation.size), np.uint8), facts


def samples_of(catalog: Catalog, preparation: Preparation) -> ImageSamples:
    """Return the samples of a catalog without problems. They are grey if all images are, else red, green and blue.

    Raises InputError if images of another size would have to be resized and `resize` is null.
    """
    headers = catalog.sample_headers()
    check_sizes(headers, preparation)
    mode: Mode = "L" if headers and all(header.is_grey for header in headers.values()) else "RGB"
    reader = FileReader(catalog, mode, preparation)
    return ImageSamples(catalog.classes, CHANNELS[mode], catalog.labels, catalog.names, preparation, reader)


def check_sizes(headers: Mapping[str, Header], preparation: Preparation) -> None:
    """Raise InputError if images are not resized and some, given by name, aren't squares of `size` pixels already."""
    size = preparation.size
    sizes = Counter(f"{header.width:,} x {header.height:,}" for header in headers.values())
    num_others = len(headers) - sizes[f"{size:,} x {size:,}"]
    if preparation.resize is not None or not num_others:
        return
    width, height = next(iter(headers.values()))[-2:]
    is_square = len(sizes) == 1 and width == height
    remedy = f"images.size to {width}" if is_square else f"images.resize, for example to {size}"
    found = ", ".join(f"{size} ({count:,})" for size, count in sizes.most_common(MAX_SIZES))
    raise InputError(
        f"with images.resize null all images should be {size} x {size} pixels, as images.size says, but "
        f"{num_others:,} of {len(headers):,} are not: {found}{', ...' * (len(sizes) > MAX_SIZES)}: set {remedy} in "
        "params.yaml"
    )
