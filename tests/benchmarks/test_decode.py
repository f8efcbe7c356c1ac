"""The contenders of stage `download` do the same work: equal pixels, in the same order."""

import sys

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Resize

from benchmarks.decode import RESIZE, SIZE, prepare
from shardset.shards import verify_shards
from tests.helpers.image_files import make_image_folder, make_picture
from tests.helpers.shard_sets import download, read_images
from tests.helpers.workspace import REPOSITORY, Workspace, assert_succeeds


@pytest.mark.parametrize("size", [(300, 301), (301, 300), (400, 533), (533, 400), (256, 300), (90, 31)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_prepared_pixels_are_those_of_torchvision(size, mode):
    image = make_picture(1, size, mode)
    expected: Image.Image = CenterCrop(SIZE)(Resize(RESIZE)(image.convert("RGB")))
    assert np.array_equal(prepare(image), np.asarray(expected))


@pytest.mark.slow
def test_stage_stores_the_pixels_of_the_torchvision_contender(tmp_path):
    folder = make_image_folder(tmp_path / "data/images")
    command = (sys.executable, "-m", "benchmarks.decode", "torchvision")
    assert_succeeds(Workspace(tmp_path).run(*command, PYTHONPATH=str(REPOSITORY)))
    download("images", tmp_path / "raw", tmp_path, folder, size=SIZE, resize=RESIZE, orientation="ignore")
    raw = verify_shards(tmp_path / "raw")
    assert list(raw.manifest.splits) == ["train", "val", "test"]
    for split in raw.manifest.splits:
        assert np.array_equal(read_images(raw, split), np.load(tmp_path / f"out/{split}-images.npy"))
        assert raw.labels(split).tolist() == np.load(tmp_path / f"out/{split}-labels.npy").tolist()
