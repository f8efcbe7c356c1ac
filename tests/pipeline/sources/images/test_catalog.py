import json
import os
import re
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from pipeline.sources.images.catalog import read_catalog
from shardset.errors import InputError
from tests.helpers.image_files import make_image_folder, make_picture, make_tar, make_zip, save_picture


def read(path):
    return read_catalog(path, lambda action, done, total: None)


def as_table(catalog):
    return {
        split: [
            (name, catalog.classes[label]) for name, label in zip(names, catalog.labels[split].tolist(), strict=True)
        ]
        for split, names in catalog.names.items()
    }


@pytest.fixture
def folder(tmp_path):
    return make_image_folder(tmp_path / "source")


def test_folder_tar_and_zip_are_the_same(folder, tmp_path):
    (folder / "train/.DS_Store").touch()
    (folder / "notes.txt").write_text("text")
    catalogs = [
        read(path) for path in (folder, make_tar(folder, tmp_path / "x.tar"), make_zip(folder, tmp_path / "x.zip"))
    ]
    assert as_table(catalogs[0]) == as_table(catalogs[1]) == as_table(catalogs[2])
    for catalog in catalogs:
        catalog.check(folder)
        assert catalog.ignored == {"train/.DS_Store": "hidden", "notes.txt": "not an image"}
        assert catalog.headers == catalogs[0].headers
        assert catalog.unreadable == {}
        for name in catalog.headers:
            with catalog.open(name) as file:
                assert file.read() == (folder / name).read_bytes()


def test_content_decides_what_is_an_image(tmp_path):
    """ImageFolder goes by the suffix: it misses images without one, and fails later at others."""
    root = tmp_path / "source"
    for name in ("photo", "photo.jpeg.bak", "photo.txt", "photo.JPG", "png.jpg"):
        (root / "cat").mkdir(parents=True, exist_ok=True)
        make_picture(1).save(root / "cat" / name, "PNG" if name == "png.jpg" else "JPEG")
    (root / "cat/notes.txt").write_text("no image")
    (root / "cat/notes").write_bytes(b"")
    (root / "cat/page.jpg").write_text("<html>404</html>")
    (root / "cat/empty.png").touch()
    make_picture(1).save(root / "cat/cut", "JPEG")
    os.truncate(root / "cat/cut", 100)
    catalog = read(root)
    taken = ["photo", "photo.JPG", "photo.jpeg.bak", "photo.txt", "png.jpg"]
    assert sorted(catalog.headers) == [f"cat/{name}" for name in taken]
    assert catalog.ignored == {"cat/notes": "not an image", "cat/notes.txt": "not an image"}
    assert catalog.unreadable == {
        "cat/cut": "Truncated File Read",
        "cat/empty.png": "an empty file",
        "cat/page.jpg": "not an image of a known format, such as JPEG, PNG, GIF, WebP, TIFF or AVIF",
    }
    assert catalog.headers["cat/png.jpg"].format == "PNG"
    by_suffix = [os.path.basename(path) for path, _ in ImageFolder(str(root)).samples]  # noqa: PTH119
    assert by_suffix == ["empty.png", "page.jpg", "photo.JPG", "png.jpg"]


def test_hidden_files_and_litter_are_counted_not_classes(folder):
    for name in ("train/.thumbnails/a.jpg", "train/__MACOSX/._a.jpg", "train/@eaDir/a.jpg", "train/cat/._0.jpg"):
        save_picture(folder / name, 1)
    for name in ("Thumbs.db", "Icon\r"):
        (folder / "train/cat" / name).touch()
    # To ImageFolder they are classes and images.
    assert ImageFolder(str(folder / "train")).classes == [".thumbnails", "@eaDir", "__MACOSX", "cat", "dog"]
    catalog = read(folder)
    catalog.check(folder)
    assert catalog.classes == ("cat", "dog")
    assert catalog.ignored == {
        "train/.thumbnails": "hidden",
        "train/@eaDir": "left by a program",
        "train/__MACOSX": "left by a program",
        "train/cat/._0.jpg": "left by a program",
        "train/cat/Icon\r": "left by a program",
        "train/cat/Thumbs.db": "left by a program",
    }


def test_all_problems_are_told_at_once(tmp_path):
    root = make_image_folder(tmp_path / "source", ("train", "test"))
    (root / "train/Cat").mkdir()
    save_picture(root / "train/Cat/1.jpg", 1)
    save_picture(root / "test/bird/1.jpg", 1)
    (root / "train/cat/broken.jpg").symlink_to("nowhere")
    (root / "train/cat/loop").symlink_to("..")
    with pytest.raises(InputError) as raised:
        read(root).check(root)
    assert str(raised.value).split("\n  ") == [
        f"source {root} can't be used:",
        "train/cat/broken.jpg: a broken symbolic link; remove it or restore its target",
        "train/cat/loop: a symbolic link to a folder that contains it; remove it",
        "test: train lacks these classes: bird",
        "classes 'Cat' and 'cat' differ only in case or encoding; rename one",
    ]


def test_problems_of_many_files_are_shortened(tmp_path):
    save_picture(tmp_path / "class/0.png", 1, (4, 4))
    for number in range(30):
        save_picture(tmp_path / f"{number:02}.png", 1, (4, 4))
        (tmp_path / f"link {number:02}").symlink_to("nowhere")
    problems = read(tmp_path).problems
    outside, link = (
        "an image outside of a class folder; move it into one",
        "a broken symbolic link; remove it or restore",
    )
    assert problems[0].startswith(f"link 00: {link}")
    assert problems[19:22] == [problems[19], "and 10 more like these", f"00.png: {outside}"]
    assert problems[40:] == [f"19.png: {outside}", "and 10 more like these"]


def test_image_folder_walks_a_cycle_of_links_many_times(tmp_path):
    root = make_image_folder(tmp_path / "source", ("",), each=1)
    (root / "cat/loop").symlink_to("../cat")
    assert len(ImageFolder(str(root)).samples) > 20  # the same two images, until the system refuses the path
    with pytest.raises(InputError, match="cat/loop: a symbolic link to a folder that contains it"):
        read(root).check(root)


def test_classes_that_other_systems_take_for_one_are_refused(tmp_path):
    root = tmp_path / "source"
    for name in ("caf\u00e9", "cafe\u0301"):
        save_picture(root / name / "1.png", 1)
    assert len(ImageFolder(str(root)).classes) == 2
    with pytest.raises(InputError, match="differ only in case or encoding; rename one"):
        read(root).check(root)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("pack", [None, make_tar, make_zip])
def test_metadata_decides_where_present(kind, pack, tmp_path):
    root = tmp_path / "source"
    rows = [("b.jpg", 1, "test"), ("a.jpg", 0, "train"), ("sub/c.jpg", 1, "train")]
    for name in ("a.jpg", "b.jpg", "sub/c.jpg", "d.jpg"):
        save_picture(root / name, 1)
    lines = [json.dumps({"file_name": name, "label": label, "split": split}) for name, label, split in rows]
    if kind == "csv":
        lines = ["file_name,label,split", *(",".join(map(str, row)) for row in rows)]
    (root / f"metadata.{kind}").write_text("\n".join(lines))
    catalog = read(pack(root, tmp_path / "archive") if pack else root)
    catalog.check(root)
    assert as_table(catalog) == {"train": [("a.jpg", "0"), ("sub/c.jpg", "1")], "test": [("b.jpg", "1")]}
    assert catalog.ignored == {"d.jpg": "not in the metadata"}


def test_metadata_of_each_split_is_read(tmp_path):
    """As Hugging Face documents it, file names are relative to the folder of the metadata."""
    root = tmp_path / "source"
    for split in ("train", "test"):
        save_picture(root / split / "images/1.jpg", 1)
        (root / split / "metadata.csv").write_text("file_name,label\nimages/1.jpg,cat\n")
    assert as_table(read(root)) == {
        "train": [("train/images/1.jpg", "cat")],
        "test": [("test/images/1.jpg", "cat")],
    }


def test_unreadable_image_that_belongs_to_nothing_is_not_told(tmp_path):
    save_picture(tmp_path / "a.jpg", 1)
    (tmp_path / "b.jpg").touch()
    (tmp_path / "metadata.csv").write_text("file_name,label\na.jpg,x\n")
    catalog = read(tmp_path)
    assert (catalog.unreadable, catalog.ignored) == ({}, {"b.jpg": "not in the metadata"})


def test_damaged_metadata_in_an_archive_is_named(tmp_path):
    root = make_image_folder(tmp_path / "source", ("",))
    (root / "metadata.csv").write_text("file_name,label\ncat/0.jpg,content\n")
    path = make_zip(root, tmp_path / "x.zip")
    content = path.read_bytes()
    start = content.index(b"metadata.csv") + len(b"metadata.csv")
    path.write_bytes(content[:start] + bytes([content[start] ^ 255]) + content[start + 1 :])
    with pytest.raises(InputError, match="^metadata.csv: damaged or not supported: "):
        read(path)


def test_damaged_image_in_an_archive_is_unreadable(folder, tmp_path):
    path = make_zip(folder, tmp_path / "x.zip")
    content = path.read_bytes()
    start = content.index(b"train/cat/0.jpg") + len(b"train/cat/0.jpg")
    path.write_bytes(content[:start] + bytes(20) + content[start + 20 :])
    catalog = read(path)
    assert list(catalog.unreadable) == ["train/cat/0.jpg"]
    assert catalog.unreadable["train/cat/0.jpg"].startswith(("damaged or not supported: ", "not an image"))


def test_large_image_is_unreadable_by_its_header(folder):
    path = save_picture(folder / "train/cat/bomb.png", 1)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 20_000, 5_001)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.warns(Image.DecompressionBombWarning), Image.open(path) as image:  # and ImageFolder would decode it
        assert image.size == (20_000, 5_001)
    assert read(folder).unreadable == {"train/cat/bomb.png": "20,000 x 5,001 are more than 100 megapixels"}


def test_file_removed_while_it_is_read_is_named(folder, monkeypatch):
    monkeypatch.setattr("pipeline.sources.images.catalog.HEADERS_PER_TASK", 1)
    seen: list[tuple[str, int, int]] = []

    def remove(action, done, total):
        if not seen:
            shutil.rmtree(folder / "val/dog")
        seen.append((action, done, total))

    many = make_image_folder(folder, ("test",), ("cat", "dog"), each=100)
    with pytest.raises(FileNotFoundError) as raised:
        read_catalog(many, remove)
    assert re.match(re.escape(str(folder / "val/dog")), raised.value.filename)


def test_progress_counts_all_files(folder):
    calls = []
    read_catalog(folder, lambda *call: calls.append(call))
    assert calls == [("Looking at files", number, 18) for number in range(1, 19)]


def test_labels_are_int64(folder):
    assert {labels.dtype for labels in read(folder).labels.values()} == {np.dtype(np.int64)}
