"""From the bytes of an image file to pixels of one size. Decoding, converting and resizing are Pillow's.

With `orientation: ignore`, RGB and grey images become what torchvision's ImageFolder, `Resize` and `CenterCrop` give,
bit for bit.
"""

import ctypes
import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError, _imaging
from PIL.Image import Resampling, Transpose

from pipeline.errors import NotAnImageError, UnreadableImageError
from shardset.errors import ShardSetError
from shardset.manifest import Preparation
from shardset.models import printable
from shardset.reader import Array

Mode = Literal["L", "RGB"]  # of stored images: grey or red, green and blue

# Not those for which Pillow starts another program, nor those without a magic number, which text may be taken for.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# Those whose first bytes are long enough to tell a damaged image from a file of another kind.
SIGNED_FORMATS = ("AVIF", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
SIGNATURE_BYTES = 16
MAX_PIXELS = 100_000_000
GREY_MODES = ("1", "L", "LA", "La", "I", "F")  # and those that start with I;16
ORIENTATION_TAG, SUBFILE_TAG, BITS_TAG = 0x0112, 254, 258
REDUCED_SUBFILE = 1
TRANSPOSITIONS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
BAND_ROWS = 256
MAX_REASON = 120  # characters


class Header(NamedTuple):
    """What a file says about its image before it is decoded; width and height as stored, in pixels."""

    format: str
    mode: str
    width: int
    height: int

    @property
    def is_grey(self) -> bool:
        return is_grey(self.mode)


def is_grey(mode: str) -> bool:
    """Say whether images of this mode of Pillow have no colours."""
    return mode in GREY_MODES or mode.startswith("I;16")


def silence_decoders() -> None:
    """Keep warnings of Pillow and messages of libtiff, which name no file, off stderr.

    This holds for the process, because threads share the filters of `warnings` and the handlers of libtiff.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with suppress(AttributeError, OSError):  # where it is a part of Pillow's own library, it can't be reached
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def open_image(file: BinaryIO) -> Image.Image:
    """Open an image without decoding it. Raises UnreadableImageError, which gives the reason."""
    with decoder_errors():
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            file.seek(0)
            raise _unidentified(file.read(SIGNATURE_BYTES)) from None
    _check_size(image.width, image.height)
    if getattr(image, "tag_v2", {}).get(SUBFILE_TAG) == REDUCED_SUBFILE:
        raise UnreadableImageError("its first page is a thumbnail, as in raw photographs; convert it to JPEG or PNG")
    return image


def read_header(image: Image.Image) -> Header:
    """Describe an image that was opened and not decoded."""
    return Header(str(image.format), image.mode, image.width, image.height)


def decode_image(image: Image.Image, mode: Mode, preparation: Preparation) -> tuple[Array, int]:
    """Decode, convert, turn, resize and crop an image: pixels, (C, size, size) uint8, and its EXIF orientation, 1 to 8.

    Of several frames or pages the first is taken. Raises UnreadableImageError, which gives the reason.
    """
    with decoder_errors():
        image.load()
        _check_size(image.width, image.height)  # of an icon the header may say something else
        orientation = _read_orientation(image)
        converted = _convert(image, mode)
        if preparation.orientation == "exif" and orientation in TRANSPOSITIONS:
            converted = converted.transpose(TRANSPOSITIONS[orientation])
        pixels = np.asarray(_resize_and_crop(converted, preparation.resize, preparation.size))
    channels_first = pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(channels_first), orientation


def has_more_frames(image: Image.Image) -> bool:
    """Say whether a decoded image is the first of several frames or pages."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 (as in decoder_errors; a damaged second frame doesn't matter)
        return False


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Turn what Pillow and the readers of archives raise for damaged files into UnreadableImageError."""
    try:
        yield
    except (ShardSetError, MemoryError, ImportError):  # a lack of memory or of a package says nothing about the file
        raise
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"more than {MAX_PIXELS // 10**6} megapixels") from None
    except Exception as error:
        # The disk raises errors with a number. But EINVAL means an offset, read from the file, that leads nowhere.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        # Pillow's decoders raise errors of many types: SyntaxError, struct.error, IndexError and others.
        reason = printable(str(error), MAX_REASON) or type(error).__name__
        is_plain = "truncated" in reason.lower()
        raise UnreadableImageError(reason if is_plain else f"damaged or not supported: {reason}") from None


def _unidentified(start: bytes) -> UnreadableImageError:
    if not start:
        return NotAnImageError("an empty file")
    for name in SIGNED_FORMATS:
        _, accepts = Image.OPEN[name]
        if accepts and accepts(start):
            return UnreadableImageError(f"damaged or not supported: its {name} header")
    return NotAnImageError("not an image of a known format, such as JPEG, PNG, GIF, WebP, TIFF or AVIF")


def _resize_and_crop(image: Image.Image, resize: int | None, size: int) -> Image.Image:
    """Resize so that the short side is `resize`, and crop the centre, with the rounding of torchvision."""
    width, height = image.size
    if resize is not None:
        short, long = sorted(image.size)
        new_long = int(resize * long / short)
        new_size = (resize, new_long) if width <= height else (new_long, resize)
        if resize * new_long > MAX_PIXELS:
            raise UnreadableImageError(
                f"{width:,} x {height:,} would be resized to {new_size[0]:,} x {new_size[1]:,}, more than "
                f"{MAX_PIXELS // 10**6} megapixels"
            )
        if new_size != image.size:
            image = image.resize(new_size, Resampling.BILINEAR)
    elif image.size != (size, size):
        raise UnreadableImageError(f"{width:,} x {height:,} instead of {size:,} x {size:,}; set images.resize")
    left, top = (int(round((side - size) / 2)) for side in image.size)  # noqa: RUF046 (round to even, as torchvision)
    return image.crop((left, top, left + size, top + size))


def _convert(image: Image.Image, mode: Mode) -> Image.Image:
    """Convert to 8 bits and to `mode`, with what is transparent on white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _reduce_to_8_bits(image)
    if not image.has_transparency_data:
        return image if image.mode == mode else image.convert(mode)
    opaque = Image.new(mode, image.size, "white")
    for top in range(0, image.height, BAND_ROWS):  # in bands, because the conversions take 8 bytes a pixel
        box = (0, top, image.width, min(top + BAND_ROWS, image.height))
        band = image.crop(box).convert("RGBA")
        opaque.paste(band.convert(mode), box, mask=band.getchannel("A"))
    return opaque


def _reduce_to_8_bits(image: Image.Image) -> Image.Image:
    """Keep the upper 8 bits of grey values of up to 16 bits. Pillow itself would clip them to 255."""
    # Of other values nobody knows the range, unless the format has 16 bits at most.
    if not image.mode.startswith("I;16") and (image.format not in ("PNG", "PPM") or image.mode == "F"):
        kind = "fractions" if image.mode == "F" else "signed or have 32 bits"
        raise UnreadableImageError(f"its grey values are {kind}; convert it to 8 or 16 bits")
    values = np.asarray(image)
    bits = getattr(image, "tag_v2", {}).get(BITS_TAG, (16,))[0]
    reduced = (values >> (bits - 8)).astype(np.uint8)
    if "transparency" in image.info:
        reduced[values == image.info["transparency"]] = 255
    return Image.fromarray(reduced)


def _read_orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
        return int(orientation) if orientation in TRANSPOSITIONS else 1
    except Exception:  # noqa: BLE001 (as in decoder_errors; damaged EXIF data say nothing about the pixels)
        return 1


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(f"{width:,} x {height:,} are more than {MAX_PIXELS // 10**6} megapixels")
