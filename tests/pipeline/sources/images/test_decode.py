import errno
import io
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from pipeline.errors import NotAnImageError, UnreadableImageError
from pipeline.sources.images.decode import (
    decode_image,
    decoder_errors,
    has_more_frames,
    open_image,
    read_header,
    silence_decoders,
)
from shardset.errors import InputError
from shardset.manifest import Preparation
from tests.helpers.image_files import make_picture, save_picture

# Both orientations, one-pixel sides, squares, sides that are odd, even, equal to resize or shorter than size.
SIZES = [(1, 1), (1, 7), (9, 1), (30, 40), (40, 30), (33, 47), (47, 33), (36, 36), (37, 64), (100, 3), (36, 90)]


def prepare(resize: int | None = 36, size=32, orientation="exif"):
    return Preparation(resize=resize, size=size, filter="bilinear", orientation=orientation, background="white")


def encode(image, image_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def decode(content, preparation, mode="RGB"):
    with open_image(io.BytesIO(content)) as image:
        return decode_image(image, mode, preparation)


def decode_as_stored(content, mode="RGB"):
    """Decode a square image without resizing it: (H, W, C)."""
    with Image.open(io.BytesIO(content)) as image:
        size = image.width
    return decode(content, prepare(None, size), mode)[0].transpose(1, 2, 0)


def make_tiff(bits, rows, sample_format=1, subfile=0, photometric=1):
    """A grey TIFF by hand, with tags that Pillow doesn't write; `rows` is the packed pixels of 4 x 4."""
    tags = [(254, 4, subfile), (256, 3, 4), (257, 3, 4), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    tags += [(273, 4, 200), (277, 3, 1), (278, 3, 4), (279, 4, len(rows)), (339, 3, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries).ljust(200, b"\0") + rows


def make_png_header(width, height):
    """The start of a PNG that says it is as large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.fixture(scope="module")
def folder_of_sizes(tmp_path_factory):
    root = tmp_path_factory.mktemp("sizes")
    kinds = [("RGB", "jpg"), ("CMYK", "jpg"), ("L", "jpg"), ("RGB", "png"), ("L", "png"), ("P", "gif"), ("1", "tif")]
    for number, (width, height) in enumerate(SIZES):
        for mode, suffix in kinds:
            save_picture(root / "class" / f"{width}x{height}-{mode}.{suffix}", number, (width, height), mode)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resize", "size"), [(36, 32), (36, 36), (37, 32), (36, 31), (5, 4), (5, 5), (64, 1), (1, 1), (121, 96)]
)
def test_pixels_equal_those_of_torchvision(resize, size, folder_of_sizes):
    transform = Compose([Resize(resize), CenterCrop(size), PILToTensor()])
    for (path, _), (expected, _) in zip(
        (folder := ImageFolder(str(folder_of_sizes), transform)).samples, folder, strict=True
    ):
        pixels, _ = decode(Path(path).read_bytes(), prepare(resize, size, "ignore"))
        np.testing.assert_array_equal(pixels, expected.numpy(), err_msg=path)


def solid(mode, color):
    return Image.new(mode, (4, 4), color)


# Each mode with its right pixel, and the one that `convert("RGB")` of Pillow gives, as in ImageFolder.
GREY_16 = Image.fromarray(np.full((4, 4), 0x1234, np.uint16))
PALETTE = Image.new("P", (4, 4), 0)
PALETTE.putpalette([10, 20, 30])
MODES = [
    ("16-bit grey PNG", encode(GREY_16), (0x12, 0x12, 0x12), (255, 255, 255)),
    ("16-bit grey TIFF", encode(GREY_16, "TIFF"), (0x12, 0x12, 0x12), (255, 255, 255)),
    ("16-bit grey PGM", encode(GREY_16, "PPM"), (0x12, 0x12, 0x12), (255, 255, 255)),
    ("16-bit grey JPEG 2000", encode(GREY_16, "JPEG2000"), (0x12, 0x12, 0x12), (255, 255, 255)),
    ("12-bit grey", make_tiff(12, bytes.fromhex("abcabc" * 8)), (0xAB, 0xAB, 0xAB), (255, 255, 255)),
    ("transparent 16-bit grey", encode(GREY_16, transparency=0x1234), (255, 255, 255), (255, 255, 255)),
    ("half alpha", encode(solid("RGBA", (255, 0, 0, 128))), (255, 127, 127), (255, 0, 0)),
    ("full alpha", encode(solid("RGBA", (0, 0, 0, 0))), (255, 255, 255), (0, 0, 0)),
    ("alpha in WebP", encode(solid("RGBA", (0, 0, 0, 0)), "WEBP", exact=True), (255, 255, 255), (0, 0, 0)),
    ("grey and alpha", encode(solid("LA", (10, 0))), (255, 255, 255), (10, 10, 10)),
    ("transparent palette", encode(PALETTE, transparency=b"\0"), (255, 255, 255), (10, 20, 30)),
    ("half transparent palette", encode(PALETTE, transparency=b"\x80"), (132, 137, 142), (10, 20, 30)),
    ("opaque palette", encode(PALETTE), (10, 20, 30), (10, 20, 30)),
    ("transparent colour", encode(solid("RGB", (9, 8, 7)), transparency=(9, 8, 7)), (255, 255, 255), (9, 8, 7)),
    ("transparent grey", encode(solid("L", 9), transparency=9), (255, 255, 255), (9, 9, 9)),
    ("grey", encode(solid("L", 9)), (9, 9, 9), (9, 9, 9)),
    ("black and white", encode(solid("1", 1)), (255, 255, 255), (255, 255, 255)),
    ("inverted fax", make_tiff(8, bytes([250] * 16), photometric=0), (5, 5, 5), (5, 5, 5)),
    ("Lab", encode(solid("LAB", (100, 140, 120)), "TIFF"), (107, 86, 106), (107, 86, 106)),
    ("CMYK", encode(solid("CMYK", (0, 255, 255, 0)), "TIFF"), (255, 0, 0), (255, 0, 0)),
]


@pytest.mark.parametrize(
    ("content", "expected", "of_pillow"), [row[1:] for row in MODES], ids=[row[0] for row in MODES]
)
def test_mode_becomes_8_bit_rgb_on_white(content, expected, of_pillow):
    assert (decode_as_stored(content) == expected).all()
    silence_decoders()
    with Image.open(io.BytesIO(content)) as image:
        assert image.convert("RGB").getpixel((0, 0)) == of_pillow


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encode(solid("L", 9)), 9),
        (encode(GREY_16), 0x12),
        (encode(solid("LA", (10, 128))), 132),
        (encode(solid("L", 9), transparency=9), 255),
        (encode(GREY_16, transparency=0x1234), 255),
        (encode(solid("1", 1)), 255),
    ],
)
def test_grey_image_stays_grey_where_asked(content, expected):
    pixels = decode_as_stored(content, "L")
    assert pixels.shape == (4, 4, 1)
    assert (pixels == expected).all()


def test_transparent_image_is_laid_on_white_in_all_bands():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (600, 600, 4), np.uint8))
    white = Image.new("RGB", image.size, "white")
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    np.testing.assert_array_equal(decode_as_stored(encode(image)), np.asarray(white))


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("GIF", {}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("MPO", {"quality": 100, "subsampling": 0}),
    ],
)
def test_first_of_several_frames_is_taken(image_format, options):
    frames = [solid("RGB", color) for color in ("red", "lime", "blue")]
    content = encode(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    pixels = decode_as_stored(content).astype(int)
    assert abs(pixels - (255, 0, 0)).max() <= 2
    with open_image(io.BytesIO(content)) as image:
        assert has_more_frames(image)
    with open_image(io.BytesIO(encode(frames[0], "JPEG" if image_format == "MPO" else image_format))) as image:
        assert not has_more_frames(image)


@pytest.mark.parametrize("tag", range(9))
def test_exif_orientation_is_applied_unless_ignored(tag, tmp_path):
    picture, exif = make_picture(1, (40, 30)), Image.Exif()
    exif[0x0112] = tag
    path = tmp_path / "class/photo.png"
    path.parent.mkdir()
    path.write_bytes(encode(picture, exif=exif))
    pixels, orientation = decode(path.read_bytes(), prepare())
    turned = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    assert orientation == max(tag, 1)
    np.testing.assert_array_equal(pixels, decode(encode(turned), prepare())[0])
    ((as_torchvision, _),) = ImageFolder(str(tmp_path), Compose([Resize(36), CenterCrop(32), PILToTensor()]))
    np.testing.assert_array_equal(decode(path.read_bytes(), prepare(orientation="ignore"))[0], as_torchvision.numpy())
    assert np.array_equal(pixels, as_torchvision.numpy()) == (tag < 2)


def test_damaged_exif_is_no_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(make_picture(1), "JPEG", exif=exif)
    assert decode(content, prepare())[1] == 6
    silence_decoders()
    for start in range(content.index(b"Exif"), content.index(b"Exif") + 24):
        damaged = content[:start] + b"\xff" * 4 + content[start + 4 :]
        assert decode(damaged, prepare())[1] in (1, 6)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"])
def test_truncated_image_is_refused_if_pixels_lack(image_format):
    silence_decoders()
    content = encode(make_picture(1), image_format)
    expected, _ = decode(content, prepare())
    reasons = []
    lengths = [*range(0, len(content), max(1, len(content) // 50)), *range(len(content) - 30, len(content))]
    for length in lengths:
        try:
            pixels, _ = decode(content[:length], prepare())
        except UnreadableImageError as error:
            reasons.append(str(error))
        else:
            np.testing.assert_array_equal(pixels, expected)  # only an end mark lacks
    assert len(reasons) >= len(lengths) - 25
    known = re.compile("an empty file|not an image of|damaged or not supported: |.*[tT]runcated")
    assert all(map(known.match, reasons)), reasons


def test_truncated_image_is_filled_with_grey_by_others(monkeypatch):
    content = encode(make_picture(1, (300, 200)), "JPEG")[:-500]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as many training scripts do
    with Image.open(io.BytesIO(content)) as image:
        assert image.convert("RGB").getpixel((299, 199)) == (128, 128, 128)
    monkeypatch.undo()
    with pytest.raises(UnreadableImageError, match="^image file is truncated"):
        decode(content, prepare())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (make_png_header(10_000, 10_001), "10,000 x 10,001 are more than 100 megapixels"),
        (make_png_header(50_000, 50_000), "more than 100 megapixels"),
        (encode(Image.new("L", (1, 4000))), "1 x 4,000 would be resized to 200 x 800,000, more than 100 megapixels"),
        (encode(solid("F", 0.5), "TIFF"), "its grey values are fractions; convert it to 8 or 16 bits"),
        (encode(solid("I", 70_000), "TIFF"), "its grey values are signed or have 32 bits; convert it to 8 or 16 bits"),
        (make_tiff(16, b"\0\xff" * 16, sample_format=2), "its grey values are signed or have 32 bits"),
        (make_tiff(8, bytes(16), subfile=1), "its first page is a thumbnail, as in raw photographs"),
        (encode(solid("L", 9))[:12] + bytes(20), "damaged or not supported: its PNG header"),
        (encode(solid("L", 9), "TIFF")[:60], "damaged or not supported: its TIFF header"),
    ],
)
def test_reason_is_for_people(content, reason):
    silence_decoders()
    with pytest.raises(UnreadableImageError, match=f"^{re.escape(reason)}") as raised:
        decode(content, prepare(200, 200))
    assert not isinstance(raised.value, NotAnImageError)


@pytest.mark.parametrize(
    "content", [b"", b"some text", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"\0" * 1000, b"Python\n"]
)
def test_other_file_is_no_image(content):
    with pytest.raises(NotAnImageError, match="^an empty file$" if not content else "^not an image of a known format"):
        open_image(io.BytesIO(content))


@pytest.mark.parametrize("size", [(31, 32), (33, 33), (16, 16)])
def test_other_size_is_refused_without_resizing(size, tmp_path):
    path = save_picture(tmp_path / "class/picture.png", 1, size)
    message = re.escape(f"{size[0]} x {size[1]} instead of 32 x 32; set images.resize")
    with pytest.raises(UnreadableImageError, match=f"^{message}$"):
        decode(path.read_bytes(), prepare(None))
    # torchvision pads it with black, or cuts it.
    ((tensor, _),) = ImageFolder(str(tmp_path), Compose([CenterCrop(32), PILToTensor()]))
    assert tensor.shape == (3, 32, 32)


def test_offset_to_nowhere_is_damage_not_a_fault_of_the_disk(tmp_path):
    path = tmp_path / "big.tif"
    path.write_bytes(b"II+\0\x08\0\0\0" + struct.pack("<q", 2**63 - 1))
    with path.open("rb") as file:
        with pytest.raises(OSError, match=str(errno.EINVAL)):
            Image.open(file)
        with pytest.raises(UnreadableImageError, match="^damaged or not supported: "):
            open_image(file)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux")
def test_fault_of_the_disk_is_not_told_as_damage():
    with Path("/proc/self/mem").open("rb") as file, pytest.raises(OSError, match="Input/output error") as raised:
        open_image(file)
    assert raised.value.errno == errno.EIO


def test_decoders_are_silent(capfd):
    content = bytearray(encode(make_picture(1), "TIFF", compression="tiff_lzw"))
    content[100:200] = b"\xff" * 100
    odd_exif = encode(make_picture(1), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.warns(UserWarning, match="Corrupt EXIF"):
            decode(odd_exif, prepare())
    silence_decoders()
    decode(odd_exif, prepare())
    with pytest.raises(UnreadableImageError, match="^damaged or not supported: "):
        decode(bytes(content), prepare())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"])
def test_header_is_read_from_the_content(image_format):
    with open_image(io.BytesIO(encode(make_picture(1, (32, 16)), image_format))) as image:
        header = read_header(image)
    assert (header.format, header.width, header.height) == (image_format, 32, 16)
    assert not header.is_grey


@pytest.mark.parametrize("error", [InputError("needs pyarrow"), ImportError("no _lzma"), MemoryError()], ids=repr)
def test_what_the_machine_lacks_is_no_damage_of_the_image(error):
    with pytest.raises(type(error)) as raised, decoder_errors():
        raise error
    assert raised.value is error
