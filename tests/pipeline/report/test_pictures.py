import base64
import io

import numpy as np
import pytest
from PIL import Image

from pipeline.audit.near_duplicates import NearDuplicate
from pipeline.audit.survey import survey_splits
from pipeline.report.pictures import (
    CLOSEST_PAIRS,
    FARTHEST_PAIRS,
    closest_and_farthest,
    draw_extremes,
    draw_images,
    draw_means,
    draw_pairs,
    draw_samples,
)
from tests.helpers.shard_sets import make_images, write_raw_set

UNIT_TABLE = np.tile(np.arange(256, dtype=np.float32) / 255, (3, 1))
IMAGES = {"train": make_images(21), "val": make_images(9, seed=2), "test": make_images(8, seed=1)}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The raw shard set of IMAGES, with two classes that alternate."""
    return write_raw_set(tmp_path_factory.mktemp("pictures") / "raw", **IMAGES)


@pytest.fixture(scope="module")
def surveys(raw):
    return survey_splits(raw, UNIT_TABLE)


def decode(png):
    return np.array(Image.open(io.BytesIO(base64.b64decode(png.url.partition(",")[2]))))


def as_shown(*images):
    return [image.transpose(1, 2, 0).tolist() for image in images]


def make_pair(split="test", index=0, train=0, distance=0.0):
    return NearDuplicate(split=split, index=index, train=train, distance=distance, mirrored=False)


def test_mean_images_are_rounded_means_of_each_class(surveys):
    train = IMAGES["train"]
    drawn = draw_means(surveys["train"])
    assert [name for name, _ in drawn] == ["all", "class_0", "class_1"]
    for (_, png), of_name in zip(drawn, (train, train[::2], train[1::2]), strict=True):
        expected = np.floor(of_name.mean(axis=0) + 0.5).astype(np.uint8)
        assert decode(png)[..., :3].tolist() == as_shown(expected)[0]


@pytest.mark.parametrize("split", IMAGES)
def test_extremes_show_the_images_of_their_captions(split, raw, surveys):
    drawn = draw_extremes(raw, surveys[split], split)
    assert {name: indices for name, indices, _ in drawn} == surveys[split].extremes()
    for name, indices, png in drawn:
        picture = decode(png)[..., :3]
        shown = [picture[:, 34 * number : 34 * number + 32].tolist() for number in range(8)]
        assert shown == as_shown(*IMAGES[split][indices]), name


def test_pairs_show_an_image_and_its_train_image(raw):
    pairs = [make_pair("test", 4, 2), make_pair("val", 5, 20), make_pair("test", 1, 0)]
    pictures = draw_pairs(raw, pairs)
    assert [picture.pair for picture in pictures] == pairs
    assert [picture.class_name for picture in pictures] == ["class_0", "class_1", "class_1"]
    assert [picture.train_class for picture in pictures] == ["class_0", "class_0", "class_0"]
    for picture in pictures:
        pair, shown = picture.pair, decode(picture.png)[..., :3]
        expected = as_shown(IMAGES[pair.split][pair.index], IMAGES["train"][pair.train])
        assert [shown[:, :32].tolist(), shown[:, 34:].tolist()] == expected


def test_samples_are_shown_before_and_after_normalizing(tmp_path):
    pixels = np.zeros((4, 1, 2, 2), np.uint8)
    pixels[0, 0, 0] = 255
    raw = write_raw_set(tmp_path / "raw", pixels, num_classes=1)
    ((name, before, after),) = draw_samples(raw, np.linspace(-2, 2, 256, dtype=np.float32)[None])
    assert (name, before.width, before.height) == ("class_0", 4 * 2 + 3 * 2, 2)
    assert before == after
    shown = decode(before)
    assert shown[:, 0].tolist() == [[255, 255, 255, 255], [0, 0, 0, 255]]
    assert shown[0, 2].tolist() == [0, 0, 0, 0]  # the gap is transparent


def test_samples_after_normalizing_share_one_scale(raw):
    table = UNIT_TABLE * np.array([[1], [2], [4]], np.float32)  # values in [0, 4]
    for _, before, after in draw_samples(raw, table):
        opaque = decode(before)[..., 3] > 0
        expected = decode(before)[opaque][:, :3] * np.array([0.25, 0.5, 1])
        assert np.abs(decode(after)[opaque][:, :3] - expected).max() <= 0.5


def test_samples_are_the_first_of_each_class_in_train(raw):
    drawn = draw_samples(raw, UNIT_TABLE)
    assert [name for name, _, _ in drawn] == ["class_0", "class_1"]
    for number, (_, before, _) in enumerate(drawn):
        picture = decode(before)[..., :3]
        shown = [picture[:, 34 * index : 34 * index + 32].tolist() for index in range(8)]
        assert shown == as_shown(*IMAGES["train"][number::2][:8])


@pytest.mark.parametrize(("num_channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_colours_are_the_first_three_channels_or_grey(num_channels, shown):
    images = make_images(2, (num_channels, 8, 6))
    png = draw_images(images)
    assert (png.width, png.height) == (2 * 6 + 2, 8)
    assert decode(png)[:, :6, :3].tolist() == images[0, shown].transpose(1, 2, 0).tolist()


def test_pairs_are_split_into_closest_and_farthest():
    num_pairs = CLOSEST_PAIRS + FARTHEST_PAIRS + 5
    pairs = [make_pair(index=index, distance=index / 100) for index in range(num_pairs)]
    closest, farthest = closest_and_farthest(pairs[::-1])
    assert closest == pairs[:CLOSEST_PAIRS]
    assert farthest == pairs[-FARTHEST_PAIRS:]


def test_few_pairs_are_all_among_the_closest():
    pairs = [make_pair("test", 1, 3), make_pair("test", 1, 4), make_pair("test", 2, 0), make_pair("val", 0, 9)]
    assert closest_and_farthest(pairs[::-1]) == (pairs, [])
    assert closest_and_farthest([]) == ([], [])
