"""Params that suit the images of a source."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from statistics import median_low

from pipeline.shards.raw import samples_per_shard
from pipeline.sources.images.decode import Header
from shardset.manifest import Dtype

SIZES = (32, 64, 96, 128, 224)  # that models are usually trained with
MAX_SIZE = 4096  # as in params.py
FLOAT32_BYTES = 4
MAX_FLOAT32_SET_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Suggestion:
    """Values for params.yaml, and the images that they lead to, (C, H, W)."""

    size: int
    resize: int | None
    samples_per_shard: int
    dtype: Dtype
    image_shape: tuple[int, int, int]


def suggest_params(headers: Sequence[Header], size: int | None = None) -> Suggestion:
    """Choose params by the headers of all images, of which there is at least one, and by `size`, if it is given.

    Squares of one size keep it. Otherwise most images should be reduced, because enlarging them only costs space.
    """
    short_sides = [short_side(header) for header in headers]
    largest = max(max(header.width, header.height) for header in headers)
    resize: int | None
    if min(short_sides) == largest <= MAX_SIZE and size in (None, largest):
        size, resize = largest, None
    else:
        size = size or max((size for size in SIZES if size <= median_low(short_sides)), default=SIZES[0])
        resize = size * 8 // 7  # 256 for 224, as usual
    image_shape = (1 if all(header.is_grey for header in headers) else 3, size, size)
    image_bytes = FLOAT32_BYTES * prod(image_shape)
    return Suggestion(
        size=size,
        resize=resize,
        # As in data/raw, so that each shard is read once, and uint8 shards are the same files, which DVC stores once.
        samples_per_shard=samples_per_shard(image_shape),
        dtype="uint8" if len(headers) * image_bytes > MAX_FLOAT32_SET_BYTES else "float32",
        image_shape=image_shape,
    )


def short_side(header: Header) -> int:
    """Return the shorter side of an image in pixels."""
    return min(header.width, header.height)
