import mmap
import os
import sys
from typing import Any

import numpy as np
import pytest

from pipeline.stages.normalize import normalize_shards
from pipeline.stages.stats import write_stats
from shardset import open_shards
from shardset.split import OpenSplit, _Pieces
from tests.helpers.shard_sets import make_images, make_params, write_raw_set

ORDER = np.array([7, 0, 24, 7, 13])
CHOSEN = np.array([3, 24, 11])


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize(
    ("side", "in_pieces"),
    [
        (32, True),  # a page and an image have pieces of 1,024 bytes in common
        (33, False),  # of one byte
    ],
)
def test_images_are_taken_in_the_given_order(side, in_pieces, preload, tmp_path):
    images = make_images(25, (3, side, side))
    raw = write_raw_set(tmp_path / "raw", images)
    write_stats(raw.dir, tmp_path / "stats.json")
    params = make_params(dtype="uint8", samples_per_shard=10)
    normalize_shards(raw.dir, tmp_path / "stats.json", tmp_path / "shards", params)
    opened = OpenSplit(open_shards(tmp_path / "shards"), "train", preload)
    assert (opened._pieces is not None) is (in_pieces or preload)
    assert np.array_equal(opened.take(ORDER, np.empty((5, 3, side, side), np.uint8)), images[ORDER])
    assert np.array_equal(opened.image(13), images[13])
    chosen = OpenSplit(open_shards(tmp_path / "shards"), "train", preload, CHOSEN)
    taken = chosen.take(ORDER % 3, np.empty((5, 3, side, side), np.uint8))
    assert np.array_equal(taken, images[CHOSEN[ORDER % 3]])
    assert np.array_equal(chosen.image(1), images[24])


@pytest.mark.skipif(sys.platform != "linux", reason="reserves address space as Linux does")
def test_shards_far_apart_in_memory_are_read(tmp_path):
    images = make_images(25)
    path = tmp_path / "images"
    path.write_bytes(images.tobytes())
    os.truncate(path, 2**31 // images[0].nbytes * images[0].nbytes)  # too large for the gaps between other maps
    first = np.memmap(path, np.uint8, "r").reshape(-1, 3, 32, 32)[:10]
    reserve: Any = mmap.mmap  # mypy checks the arguments that it takes on Windows, too
    between = reserve(-1, 2**45, flags=mmap.MAP_PRIVATE, prot=0)  # takes no memory
    second = np.memmap(path, np.uint8, "r").reshape(-1, 3, 32, 32)[10:]
    assert abs(first.ctypes.data - second.ctypes.data) > 2**45
    pieces = _Pieces([np.asarray(first), np.asarray(second)])
    taken = np.empty((5, 3, 32, 32), np.uint8)
    pieces.take(ORDER, taken)
    assert np.array_equal(taken, images[ORDER])
    between.close()
