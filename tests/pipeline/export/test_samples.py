import io
import shutil

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from pipeline.export.samples import PixelSet, check_channels, encode_images
from shardset.errors import DamagedFileError, InputError
from shardset.shards import open_shards
from tests.helpers.shard_sets import make_images, read_images, write_raw_set


def open_pixels(shards):
    counts: list[int] = []
    return PixelSet(shards, counts.append), counts


def decode(png):
    with Image.open(io.BytesIO(png)) as image:
        return image.format, image.mode, np.asarray(image)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_png_files_have_the_same_pixels(channels, mode):
    images = make_images(3, (channels, 8, 12))
    for image, png in zip(images, encode_images(images), strict=True):
        kind, stored_mode, pixels = decode(png)
        assert (kind, stored_mode) == ("PNG", mode)
        assert np.array_equal(pixels, image.transpose(1, 2, 0) if channels == 3 else image[0])


def test_samples_come_in_order_with_their_labels(colour_set, grey_set):
    for shards in (colour_set, grey_set):
        pixels, counts = open_pixels(shards)
        for split, of_split in shards.manifest.splits.items():
            samples = [*pixels.samples(split)]
            assert [sample.index for sample in samples] == [*range(of_split.samples)]
            assert [sample.label for sample in samples] == shards.labels(split).tolist()
            assert [sample.png for sample in samples] == encode_images(read_images(shards, split))
            assert {sample.source for sample in samples} == {None}
        assert sum(counts) == shards.manifest.num_samples


def test_images_that_are_read_ahead_keep_their_pixels(tmp_path):
    shards = write_raw_set(tmp_path / "raw", make_images(150, (3, 64, 64)))
    assert shards.block_samples * 3 < 150  # several blocks, which are read into one buffer
    pixels, _ = open_pixels(shards)
    assert [sample.png for sample in pixels.samples("train")] == encode_images(read_images(shards, "train"))


def test_samples_of_image_files_have_their_names(image_set):
    pixels, _ = open_pixels(image_set)
    assert pixels.manifest.has_sources
    for split in image_set.manifest.splits:
        assert tuple(sample.source for sample in pixels.samples(split)) == image_set.sources(split)


def test_parts_hold_as_many_samples_as_raw_shards(tmp_path):
    pixels, _ = open_pixels(write_raw_set(tmp_path / "raw", make_images(10_001, (1, 4, 4))))
    parts = [(part.number, part.total, len([*part.samples])) for part in pixels.parts("train")]
    assert parts == [(0, 2, 10_000), (1, 2, 1)]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("kind", ["images", "labels"])
def test_damaged_file_is_found_while_it_is_read(kind, split, colour_set, tmp_path):
    copy = shutil.copytree(colour_set.dir, tmp_path / "raw")
    path = copy / f"{split}/{kind}-00000-of-00001.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    pixels, _ = open_pixels(open_shards(copy))
    with pytest.raises(DamagedFileError, match=f"{split}/{kind}-00000-of-00001.npy: expected SHA-256"):
        [sample.index for part in pixels.parts(split) for sample in part.samples]


@pytest.mark.parametrize("channels", [("a", "b"), ("red", "green", "blue", "alpha")])
def test_other_numbers_of_channels_are_rejected(channels, colour_set, tmp_path):
    manifest = replace(colour_set.manifest, image_shape=(len(channels), 8, 12), channels=channels)
    with pytest.raises(InputError, match="images should be grey or RGB to be exported as PNG, got channels a, b|alpha"):
        check_channels(manifest, tmp_path)
