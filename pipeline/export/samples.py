"""The samples of a set of pixels as PNG files, verified while they are read, in order and in little memory."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.runtime.tasks import imap_on_threads
from pipeline.shards.raw import samples_per_shard
from shardset.errors import InputError
from shardset.manifest import SAMPLES_NAME, Manifest, Split
from shardset.reader import Array, split_range
from shardset.shards import ShardSet

PNG_CHANNELS = (1, 3)  # grey, RGB


@dataclass(frozen=True, slots=True)
class Sample:
    """An image as a PNG file, its index within the split, its label and, if it came from a file, that file's name."""

    index: int
    png: bytes
    label: int
    source: str | None


@dataclass(frozen=True)
class Part:
    """The samples of one file: the `number`-th of `total` of its split."""

    number: int
    total: int
    samples: Iterator[Sample]


@dataclass(frozen=True)
class PixelSet:
    """A set of uint8 pixels, verified except for the images. `done` is called with the number of samples encoded."""

    shards: ShardSet
    done: Callable[[int], None]

    @property
    def manifest(self) -> Manifest:
        return self.shards.manifest

    def samples(self, split: Split) -> Iterator[Sample]:
        """Yield the samples of a split in order. Raises DamagedFileError if a byte differs from the manifest."""
        of_split = self.shards.shards(split)
        blocks = (block.copy() for shard in of_split for block in self.shards.verified_image_blocks(shard))
        images = chain.from_iterable(map(self._count, imap_on_threads(encode_images, blocks)))
        label_blocks = chain.from_iterable(map(self.shards.reader.verified_label_blocks, of_split))
        labels = chain.from_iterable(block.tolist() for block in label_blocks)
        for index, (png, label, source) in enumerate(zip(images, labels, self._sources(split), strict=True)):
            yield Sample(index, png, label, source)

    def parts(self, split: Split) -> Iterator[Part]:
        """Cut a split into parts with as many samples as a shard of data/raw. The parts have to be read in order."""
        samples = self.samples(split)
        ranges = split_range(0, self.manifest.splits[split].samples, samples_per_shard(self.manifest.image_shape))
        for number, (start, stop) in enumerate(ranges):
            yield Part(number, len(ranges), islice(samples, stop - start))
        next(samples, None)  # the last shard's hash is compared only when more is asked for than there is

    def _count(self, images: list[bytes]) -> list[bytes]:
        self.done(len(images))
        return images

    def _sources(self, split: Split) -> Iterator[str | None]:
        if not self.manifest.has_sources:
            yield from repeat(None, self.manifest.splits[split].samples)
            return
        with (self.shards.dir / split / SAMPLES_NAME).open(encoding="utf-8", newline="") as file:
            yield from (row["source"] for row in csv.DictReader(file))


def check_channels(manifest: Manifest, set_dir: Path) -> None:
    """Raise InputError if the images have neither one channel nor three."""
    if manifest.image_shape[0] not in PNG_CHANNELS:
        channels = ", ".join(manifest.channels)
        raise InputError(f"{set_dir}: images should be grey or RGB to be exported as PNG, got channels {channels}")


def encode_images(images: Array) -> list[bytes]:
    """Encode images, (N, C, H, W) uint8 with 1 or 3 channels, as PNG files. The same pixels come back, bit for bit."""
    pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return [_encode(image[..., 0] if image.shape[-1] == 1 else image) for image in pixels]


def _encode(image: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
