"""The pictures of the report: images as PNG data URLs, with the same bytes on every machine."""

import base64
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.numerics.reduce import reduce_images
from shardset.manifest import Split
from shardset.reader import Array, split_range
from shardset.shards import ShardSet

Image = tuple[Split, int]  # split and index

MARKUP_BYTES = 400  # of a thumbnail with its caption
MAX_STORED = 65_535  # bytes of an uncompressed block
GREY, RGB, PALETTE = 0, 2, 3  # color types of PNG
# Values from negative to positive, with zero white.
NEGATIVE, ZERO, POSITIVE = (33, 102, 172), (255, 255, 255), (178, 24, 43)


@dataclass(frozen=True)
class Png:
    """An image for the page, as a data URL, with its size in pixels."""

    url: str
    width: int
    height: int


def draw_thumbnails(raw: ShardSet, images: Iterable[Image], side: int) -> dict[Image, Png]:
    """Draw images, each at most `side` pixels a side."""
    indices: dict[Split, set[int]] = defaultdict(set)
    for split, index in images:
        indices[split].add(index)
    drawn: dict[Image, Png] = {}
    for split, of_split in indices.items():
        ordered = np.array(sorted(of_split))
        for start, stop in split_range(0, len(ordered), raw.block_samples):
            block = ordered[start:stop]
            reduced = reduce_images(raw.take(split, block), side)
            drawn |= {(split, index): draw_image(image) for index, image in zip(block.tolist(), reduced, strict=True)}
    return drawn


def draw_image(image: Array) -> Png:
    """Draw an image, (C, H, W) uint8: the first three of three or more channels as colours, else the first as grey."""
    if len(image) >= len("rgb"):
        return _encode_png(np.moveaxis(image[:3], 0, -1), RGB)
    return _encode_png(image[0], GREY)


def draw_values(channel: Array, values: Array, limit: float) -> Png:
    """Draw one channel of an image, (H, W) uint8: red for positive values, blue for negative ones, white for 0.

    `values`, (256,), is what pixel values become by normalizing. They lie in [-limit, limit], whose ends have the full
    colour.
    """
    share = values.astype(np.float64)[:, None] / limit
    full = np.where(share < 0, NEGATIVE, POSITIVE)
    palette = np.rint(ZERO + np.abs(share) * (full - ZERO)).astype(np.uint8)
    return _encode_png(channel, PALETTE, palette)


def _encode_png(pixels: Array, color_type: int, palette: Array | None = None) -> Png:
    """Encode pixels, (H, W) or (H, W, 3) uint8, without compressing: a compressor's output changes with its version."""
    height, width = pixels.shape[:2]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0))).tobytes()  # a 0 in front of each: not filtered
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0))]
    if palette is not None:
        chunks.append((b"PLTE", palette.tobytes()))
    chunks += [(b"IDAT", _store(rows)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return Png("data:image/png;base64," + base64.b64encode(content).decode(), width, height)


def _store(data: bytes) -> bytes:
    """Wrap bytes as a zlib stream of uncompressed blocks."""
    blocks = [data[start : start + MAX_STORED] for start in range(0, len(data), MAX_STORED)]
    stored = b"".join(
        struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ 0xFFFF) + block
        for number, block in enumerate(blocks, 1)
    )
    return b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(data))


def thumbnail_bytes(image_shape: Sequence[int], side: int) -> int:
    """Compute about how many bytes of the page a thumbnail takes, of an image of shape (C, H, W)."""
    channels, height, width = image_shape
    values = min(height, side) * (min(width, side) * (3 if channels >= len("rgb") else 1) + 1)
    return (values + 80) * 4 // 3 + MARKUP_BYTES
