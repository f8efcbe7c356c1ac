"""Images decoded on threads, as samples to store."""

import hashlib
import io
import socket
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.errors import UnreadableImageError
from pipeline.runtime.tasks import Imap
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
from pipeline.sources.images.facts import ImageFacts, read_facts
from pipeline.sources.images.listing import Files
from pipeline.sources.images.probe import check_decoder
from pipeline.sources.images.stored_catalog import StoredCatalog, StoredImage, StoredNames, store_catalog
from pipeline.sources.stored import StoredSamples
from shardset.errors import InputError, named_os_errors
from shardset.manifest import Preparation, Split
from shardset.reader import Array, Labels

MAX_SIZES = 5  # listed in a message
BLOCK_VALUES = 65_536  # larger images are not worth a copy into a block

# For large images, so that several don't need gigabytes at the same time. A lock would not do, because the allocator
# keeps freed memory for each thread.
_one_by_one = ThreadPoolExecutor(1)
CHANNELS: dict[Mode, tuple[str, ...]] = {"L": ("grey",), "RGB": ("red", "green", "blue")}


@dataclass(frozen=True)
class ImageSource:
    """The images of a catalog without problems. They become grey if all are, else red, green and blue."""

    catalog: Catalog
    mode: Mode
    preparation: Preparation

    @property
    def splits(self) -> Collection[Split]:
        return self.catalog.names

    def store(self, folder: Path) -> StoredSamples:
        stored = store_catalog(self.catalog, folder)
        num_samples = {split: len(names) for split, names in self.catalog.names.items()}
        return StoredSamples(
            classes=self.catalog.classes,
            channels=CHANNELS[self.mode],
            image_shape=image_shape(self.mode, self.preparation),
            num_samples=num_samples,
            reader=FileReader(self.catalog.container.files, stored, self.mode, self.preparation),
            inputs=[self.catalog.classes, {split: stored.inputs(split) for split in num_samples}],
            preparation=self.preparation,
            names={split: StoredNames(stored, split, count) for split, count in num_samples.items()},
        )


@dataclass(frozen=True)
class FileReader:
    """Reads and decodes the images of a catalog from their files."""

    files: Files
    catalog: StoredCatalog
    mode: Mode
    preparation: Preparation

    def labels(self, split: Split, start: int, stop: int) -> Labels:
        return self.catalog.labels(split, start, stop)

    def blocks(self, split: Split, start: int, stop: int, imap: Imap) -> Iterator[tuple[Array, list[ImageFacts]]]:
        """Decode samples [start, stop) in blocks: pixels, (n, C, H, W) uint8, black where there is a problem; facts."""
        check_worker(self.files.path)
        yield from in_blocks(imap(self._decode, self.catalog.images(split, start, stop)), self.mode, self.preparation)

    def is_unchanged(self, split: Split, start: int, stop: int, facts: bytes, imap: Imap) -> bool:
        """Say whether the files of samples [start, stop) have the bytes that these facts are of."""
        check_worker(self.files.path)
        images = self.catalog.images(split, start, stop)
        return all(imap(self._is_same, zip(images, read_facts(facts), strict=True)))

    def _is_same(self, pair: tuple[StoredImage, ImageFacts]) -> bool:
        image, facts = pair
        if image.problem:
            return (facts.sha256, facts.problem) == ("", image.problem)
        try:
            return hashlib.sha256(self._read(image)).hexdigest() == facts.sha256
        except UnreadableImageError as error:
            return (facts.sha256, facts.problem) == ("", str(error))

    def _decode(self, image: StoredImage) -> tuple[Array, ImageFacts]:
        if image.problem:  # not read again, because the file may be huge
            return unreadable_sample(ImageFacts("", 0, 0, 1, "", image.problem), self.mode, self.preparation)
        if image.is_large:
            return _one_by_one.submit(self._decode_file, image).result()
        return self._decode_file(image)

    def _decode_file(self, image: StoredImage) -> tuple[Array, ImageFacts]:
        sha256 = ""
        try:
            content = self._read(image)
            sha256 = hashlib.sha256(content).hexdigest()
            with open_image(io.BytesIO(content)) as opened:
                return decode_sample(opened, sha256, self.mode, self.preparation)
        except UnreadableImageError as error:
            return unreadable_sample(ImageFacts(sha256, 0, 0, 1, "", str(error)), self.mode, self.preparation)

    def _read(self, image: StoredImage) -> bytes:
        with decoder_errors(), named_os_errors(image.name), self.files.open(image.name, image.place) as file:
            return file.read()


def check_worker(path: Path) -> None:
    """Raise InputError if this machine, which may be a worker of a cluster, has no source at `path`.

    Raises PipelineError if it decodes to other pixels than other machines.
    """
    if not path.exists():
        raise InputError(
            f"source {path}: not found on {socket.gethostname()}: all workers need the same files, under the same path"
        )
    _check_decoder()


@cache
def _check_decoder() -> None:
    check_decoder()


def in_blocks(
    decoded: Iterable[tuple[Array, ImageFacts]], mode: Mode, preparation: Preparation
) -> Iterator[tuple[Array, list[ImageFacts]]]:
    """Collect decoded samples in blocks: pixels, (n, C, H, W) uint8, and facts."""
    size = max(1, BLOCK_VALUES // prod(image_shape(mode, preparation)))
    samples = iter(decoded)
    while block := [*islice(samples, size)]:
        images = [pixels for pixels, _ in block]
        yield np.stack(images) if len(images) > 1 else images[0][None], [facts for _, facts in block]


def image_shape(mode: Mode, preparation: Preparation) -> tuple[int, int, int]:
    """Return the shape of stored images, (C, H, W)."""
    return len(CHANNELS[mode]), preparation.size, preparation.size


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
    return np.zeros(image_shape(mode, preparation), np.uint8), facts


def choose_mode(headers: Collection[Header], preparation: Preparation) -> Mode:
    """Return grey if all images are, else red, green and blue.

    Raises InputError if images of another size would have to be resized and `resize` is null.
    """
    check_sizes(headers, preparation)
    return "L" if headers and all(header.is_grey for header in headers) else "RGB"


def check_sizes(headers: Collection[Header], preparation: Preparation) -> None:
    """Raise InputError if images are not resized and some aren't squares of `size` pixels already."""
    size = preparation.size
    sizes = Counter((header.width, header.height) for header in headers)
    num_others = len(headers) - sizes[size, size]
    if preparation.resize is not None or not num_others:
        return
    width, height = next(iter(sizes))
    is_square = len(sizes) == 1 and width == height
    remedy = f"images.size to {width}" if is_square else f"images.resize, for example to {size}"
    found = ", ".join(f"{width:,} x {height:,} ({count:,})" for (width, height), count in sizes.most_common(MAX_SIZES))
    raise InputError(
        f"with images.resize null all images should be {size} x {size} pixels, as images.size says, but "
        f"{num_others:,} of {len(headers):,} are not: {found}{', ...' * (len(sizes) > MAX_SIZES)}: set {remedy} in "
        "params.yaml"
    )
