import numpy as np
import pytest

from pipeline.audit.oddities import NUM_LISTED, find_oddities
from tests.helpers.audits import survey
from tests.helpers.shard_sets import make_images, write_raw_set


def find(path, **images):
    raw = write_raw_set(path / "raw", **images)
    oddities = find_oddities(survey(raw))
    return {(oddity.split, oddity.name): oddity for oddity in oddities}


def test_images_that_stand_out_are_found(tmp_path):
    images = make_images(20) // 2 + 60
    images[3] = images[3, :1]  # grey
    images[5, :, :16] = 255  # half of it clipped
    images[7, :, [0, 1, 2, 29, 30, 31]] = 128  # bars of 6 in 32 rows: too thin
    images[9, :, :5], images[9, :, -5:] = 128, 128  # of 10
    images[11] = 40
    images[11, :, ::2, ::2] = 44
    found = find(tmp_path, train=images, test=make_images(3, seed=1))
    assert found["train", "grey"].indices == (3, 11)  # the one of higher contrast first
    assert found["train", "clipped"].indices == (5,)
    assert found["train", "clipped"].values == (pytest.approx(0.5, abs=0.01),)
    assert found["train", "plain borders"].indices == (11, 9)
    assert found["train", "plain borders"].values == (1, 0.3125)
    assert found["train", "low entropy"].indices[0] == 11
    assert found["train", "darkest"].indices[0] == found["train", "lowest contrast"].indices[0] == 11
    assert found["train", "brightest"].indices[0] == found["train", "highest contrast"].indices[0] == 5
    assert [oddity.count for (split, _), oddity in found.items() if split == "test"] == [None] * 4


def test_rankings_go_to_the_lower_index_when_equal(tmp_path):
    images = np.full((12, 3, 8, 8), 100, np.uint8)
    images[5], images[6] = 0, 255
    found = find(tmp_path, train=images)
    assert found["train", "darkest"].indices == (5, 0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 6)
    assert found["train", "brightest"].indices[:2] == (6, 0)


def test_grey_images_of_a_grey_dataset_do_not_stand_out(tmp_path):
    images = make_images(6).mean(axis=1, keepdims=True).astype(np.uint8).repeat(3, axis=1)
    assert ("train", "grey") not in find(tmp_path, train=images)


def test_only_the_first_are_listed_but_all_are_counted(tmp_path):
    clipped = np.zeros((NUM_LISTED + 9, 1, 8, 8), np.uint8)
    oddity = find(tmp_path, train=clipped)["train", "clipped"]
    assert (len(oddity.indices), oddity.count) == (NUM_LISTED, NUM_LISTED + 9)
