"""Odd and damaged images through the command, with nothing but our own lines on stderr."""

import csv
import os

import pytest
from PIL import Image

from tests.helpers.image_files import make_picture, save_picture
from tests.helpers.workspace import assert_succeeds


def save_odd_images(folder):
    """Save images for which Pillow or libtiff print something, and say how each ends."""
    for name in ("good.jpg", "truncated.jpg", "animated.gif", "16-bit.png", "alpha.png"):
        mode = {"16-bit.png": "I;16", "alpha.png": "RGBA"}.get(name, "RGB")
        picture = make_picture(1, mode="L" if mode == "I;16" else mode)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "animated.gif":
            picture.save(path, save_all=True, append_images=[make_picture(2)])
        else:
            picture.convert(mode).save(path)
    os.truncate(folder / "truncated.jpg", 900)
    make_picture(1).save(folder / "odd exif.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")  # Pillow warns
    make_picture(1).save(folder / "damaged.tif", compression="tiff_lzw")  # libtiff prints
    content = (folder / "damaged.tif").read_bytes()
    (folder / "damaged.tif").write_bytes(content[:100] + b"\xff" * 100 + content[200:])
    content = save_picture(folder / "samples.tif", 1).read_bytes()  # Pillow logs an error
    samples_tag = b"\x15\x01\x03\0\x01\0\0\0"
    assert content.count(samples_tag + b"\x03\0") == 1
    (folder / "samples.tif").write_bytes(content.replace(samples_tag + b"\x03\0", samples_tag + b"\xff\xff"))
    Image.new("F", (40, 40)).save(folder / "float.tif")
    (folder / "notes.txt").write_text("text")
    return {
        "damaged.tif": "damaged or not supported: decoder error -2",
        "float.tif": "its grey values are fractions; convert it to 8 or 16 bits",
        "samples.tif": "damaged or not supported: its TIFF header",
        "truncated.jpg": "image file is truncated",
    }


@pytest.mark.slow
@pytest.mark.parametrize("unreadable", ["fail", "skip"])
def test_odd_images_are_taken_or_told_without_noise(unreadable, workspace):
    problems = save_odd_images(workspace.path / "images/cat")
    workspace.set_param("dataset: cifar10", "dataset: images")
    workspace.set_param("  source: data/images", "  source: images")
    workspace.set_param("  unreadable: fail", f"  unreadable: {unreadable}")
    done = workspace.pipeline("download")
    lines = done.stderr.splitlines()
    assert lines[0] == "Left out: 1 not an image"
    if unreadable == "fail":
        assert done.returncode == 2
        assert not (workspace.path / "data/raw").exists()
        assert lines[1] == "Error: 4 images can't be read:"
        assert lines[6:] == ["Repair or remove them, or set images.unreadable to skip in params.yaml."]
        for line, (name, reason) in zip(lines[2:6], problems.items(), strict=True):
            assert line.startswith(f"  cat/{name}: {reason}")
        return
    assert_succeeds(done)
    assert lines[1:] == [
        "Skipped: 4 unreadable, listed in skipped.csv",
        "Converted: 1 I;16, 1 P, 1 RGBA, 1 first of several frames or pages",
    ]
    with (workspace.path / "data/raw/skipped.csv").open(newline="") as file:
        skipped = [*csv.DictReader(file)]
    assert [row["source"] for row in skipped] == [f"cat/{name}" for name in problems]
    assert all(row["reason"].startswith(reason) for row, reason in zip(skipped, problems.values(), strict=True))
