"""What a catalog on disk knows, and how much memory it takes to make one."""

import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from pipeline.sources.images.catalog import read_catalog
from pipeline.sources.images.stored_catalog import StoredNames, store_catalog
from shardset.threads import ignore
from tests.helpers.image_files import make_image_folder, make_parquet, make_tar, make_zip, save_picture
from tests.helpers.memory import PRINT_PEAK
from tests.helpers.workspace import REPOSITORY

MAX_BYTES_PER_IMAGE = {"folder": 500, "tar": 500, "zip": 1_200}  # of a zip, most are the list of the standard library
MEASURE = """
import sys
from pathlib import Path
from pipeline.sources.source import open_source
from shardset.manifest import Preparation

preparation = Preparation(resize=None, size=8, filter="bilinear", orientation="exif", background="white")
open_source("images", sys.argv[1], Path(), preparation, lambda *_: None).store(Path(sys.argv[2]))
"""


@pytest.fixture
def folder(tmp_path):
    """Names of different lengths in UTF-8, and one with a line break."""
    root = make_image_folder(tmp_path / "source", ("train", "test"), ("cat", "d\u00f6g \U0001f415"), each=4)
    (root / "train/cat/0.jpg").rename(root / "train/cat/0\n\u00e9.jpg")
    (root / "train/cat/2.jpg").write_text("text")
    return root


@pytest.mark.parametrize("pack", [None, make_tar, make_zip, make_parquet])
def test_any_range_of_images_is_read(pack, folder, tmp_path):
    catalog = read_catalog(pack(folder, tmp_path / "packed") if pack else folder, ignore)
    stored = store_catalog(catalog, tmp_path / "stored")
    files = catalog.container.files
    for split, names in catalog.names.items():
        assert [*StoredNames(stored, split, len(names))] == names
        for start, stop in ((0, 8), (0, 1), (2, 3), (3, 8), (7, 8)):
            images = stored.images(split, start, stop)
            assert [image.name for image in images] == names[start:stop]
            assert np.array_equal(stored.labels(split, start, stop), catalog.labels[split][start:stop])
            assert [image.problem for image in images] == [catalog.unreadable.get(name) for name in names[start:stop]]
            for image in images:
                with files.open(image.name, image.place) as file, catalog.open(image.name) as same:
                    assert file.read() == same.read()
    assert len(catalog.unreadable) == 1


def test_names_are_read_a_few_at_a_time(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.sources.images.stored_catalog.NAMES_AT_A_TIME", 3)
    catalog = read_catalog(folder, ignore)
    stored = store_catalog(catalog, tmp_path / "stored")
    assert [*StoredNames(stored, "train", 8)] == catalog.names["train"]


def test_inputs_are_the_names_and_labels(folder, tmp_path):
    def inputs(number):
        return store_catalog(read_catalog(folder, ignore), tmp_path / f"stored-{number}").inputs("train")

    before = inputs(0)
    save_picture(folder / "train/cat/1.jpg", 70)
    assert inputs(1) == before
    (folder / "train/cat/1.jpg").rename(folder / "train/cat/1.jpeg")
    assert inputs(2) != before


def write_many(kind, num_images, path):
    """A source with many tiny images, and names as ImageNet has them."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    content = file.getvalue()
    names = [f"train/n{number % 100:08}/n{number % 100:08}_{number:06}.JPEG" for number in range(num_images)]
    if kind == "tar":
        with tarfile.open(path, "w") as tar:
            for name in names:
                info = tarfile.TarInfo(f"a folder/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, content)
    else:
        for name in names:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")
@pytest.mark.parametrize("kind", MAX_BYTES_PER_IMAGE)
def test_memory_grows_little_with_the_number_of_images(kind, tmp_path):
    peaks = []
    for num_images in (4_000, 34_000):
        source = write_many(kind, num_images, tmp_path / f"{num_images}")
        command = [sys.executable, "-c", MEASURE + PRINT_PEAK, str(source), str(tmp_path / f"stored-{num_images}")]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=True
        )
        peaks.append(1024 * int(re.findall(r"\d+", done.stdout)[-1]))
    assert (peaks[1] - peaks[0]) / 30_000 < MAX_BYTES_PER_IMAGE[kind]
