"""From the bytes of an image file to pixels of one size. Decoding, converting and resizing are Pillow's.

With `orientation: ignore`, RGB and grey images become what torchvision's ImageFolder, `Resize` and `CenterCrop` give,
bit for bit.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Resampling, Transpose

from pipeline.errors import NotAnImageError, UnreadableImageError
from shardset.manifest import Preparation
from shardset.models import printable
from shardset.reader import Array

Mode = Literal["L", "RGB"]  # of stored images: grey or red, green and blue

# Not those for which Pillow starts another program, nor those without a magic number, which text may be taken for.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 100_000_000
GREY_MODES = ("1", "L", "LA", "La", "I", "F")  # and those that start with I;16
ORIENTATION_TAG, BITS_TAG = 0x0112, 258
TRANSPOSITIONS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
MAX_REASON = 120  # characters


class Header(NamedTuple):
    """What a file says about its image before it is decoded; width and height as stored, in pixels."""

    format: str
    mode: str
    width: int
    height: int

    @property
    def is_grey(self) -> bool:
        return self.mode in GREY_MODES or self.mode.startswith("I;16")


def open_image(file: BinaryIO) -> Image.Image:
    """Open an image without decoding it. Raises UnreadableImageError, which gives the reason."""
    with _reasons():
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise NotAnImageError("not an image, or its start is damaged") from None
        except Image.DecompressionBombError:
            raise UnreadableImageError(f"more than {MAX_PIXELS // 10**6} megapixels") from None
    _check_size(image.width, image.height)
    return image


def read_header(image: Image.Image) -> Header:
    """Describe an image that was opened and not decoded."""
    return Header(str(image.format), image.mode, image.width, image.height)


def decode_image(image: Image.Image, mode: Mode, preparation: Preparation) -> tuple[Array, int]:
    """Decode, convert, turn, resize and crop an image: pixels, (C, size, size) uint8, and its EXIF orientation, 1 to 8.

    Of several frames or pages the first is taken. Raises UnreadableImageError, which gives the reason.
    """
    with _reasons():
        image.load()
        orientation = _read_orientation(image)
        converted = _convert(image, mode)
        if preparation.orientation == "exif" and orientation in TRANSPOSITIONS:
            converted = converted.transpose(TRANSPOSITIONS[orientation])
        pixels = np.asarray(_resize_and_crop(converted, preparation.resize, preparation.size))
    channels_first = pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(channels_first), orientation


def _resize_and_crop(image: Image.Image, resize: int | None, size: int) -> Image.Image:
    """Resize so that the short side is `resize`, and crop the centre, with the rounding of torchvision."""
    width, height = image.size
    if resize is not None:
        short, long = sorted(image.size)
        new_long = int(resize * long / short)
        new_size = (resize, new_long) if width <= height else (new_long, resize)
        _check_size(*new_size)
        if new_size != image.size:
            image = image.resize(new_size, Resampling.BILINEAR)
    left, top = (int(round((side - size) / 2)) for side in image.size)  # noqa: RUF046 (round to even, as torchvision)
    return image.crop((left, top, left + size, top + size))


def _convert(image: Image.Image, mode: Mode) -> Image.Image:
    """Convert to 8 bits and to `mode`, with what is transparent on white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _reduce_to_8_bits(image)
    if not image.has_transparency_data:
        return image.convert(mode)
    opaque = Image.new(mode, image.size, "white")
    with_alpha = image.convert("RGBA")
    opaque.paste(with_alpha.convert(mode), mask=with_alpha.getchannel("A"))
    return opaque


def _reduce_to_8_bits(image: Image.Image) -> Image.Image:
    """Keep the upper 8 bits of grey values of up to 16 bits. Pillow itself would clip them to 255."""
    values = np.asarray(image)
    # Of 32-bit values nobody knows the range, unless the format has 16 bits at most.
    if not image.mode.startswith("I;16") and (image.format not in ("PNG", "PPM") or image.mode == "F"):
        raise UnreadableImageError(f"grey values of 32 bits (mode {image.mode}); convert it to 8 or 16 bits")
    bits = getattr(image, "tag_v2", {}).get(BITS_TAG, (16,))[0]
    reduced = (values >> (bits - 8)).astype(np.uint8)
    if "transparency" in image.info:
        reduced[values == image.info["transparency"]] = 255
    return Image.fromarray(reduced)


def _read_orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except (SyntaxError, ValueError, OSError, LookupError, TypeError, struct.error):
        return 1  # damaged EXIF data say nothing about the pixels
    return orientation if orientation in TRANSPOSITIONS else 1


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(f"{width:,} x {height:,} are more than {MAX_PIXELS // 10**6} megapixels")


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn what Pillow raises for damaged files into UnreadableImageError."""
    try:
        yield
    except (UnreadableImageError, MemoryError):  # a lack of memory says nothing about the file
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # from the disk, not from Pillow
        # Pillow's decoders raise errors of many types: SyntaxError, struct.error, IndexError and others.
        reason = printable(str(error), MAX_REASON) or type(error).__name__
        raise UnreadableImageError(reason) from None
