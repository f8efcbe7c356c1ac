import gc
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.sources.stored import ArrayReader, load_rows, save_arrays, save_rows
from tests.helpers.shard_sets import make_images


@pytest.fixture
def stored(tmp_path):
    """Images, labels, and a reader of them: three parts of train, one of test."""
    images, labels = make_images(50, (3, 4, 4)), np.arange(50)
    parts = {"train": ((0, 7), (7, 8), (8, 30)), "test": ((30, 50),)}
    names = {
        split: tuple(
            save_arrays(tmp_path, f"{split}{first}", images[first:last], labels[first:last]) for first, last in of_split
        )
        for split, of_split in parts.items()
    }
    return images, labels, ArrayReader(tmp_path, names)


@pytest.mark.parametrize(("start", "stop"), [(0, 30), (6, 9), (7, 8), (0, 1), (29, 30), (3, 25)])
def test_range_over_parts_is_read(start, stop, stored):
    images, labels, reader = stored
    blocks = [pixels for pixels, _ in reader.blocks("train", start, stop, map)]
    assert np.array_equal(np.concatenate(blocks), images[start:stop])
    assert np.array_equal(reader.labels("train", start, stop), labels[start:stop])
    assert np.array_equal(reader.labels("test", 0, 20), labels[30:])


def test_images_are_read_in_blocks(stored, monkeypatch):
    monkeypatch.setattr("pipeline.sources.stored.BLOCK_VALUES", 100)
    images, _, reader = stored
    blocks = [pixels for pixels, _ in reader.blocks("train", 0, 30, map)]
    assert {len(block) for block in blocks} == {1, 2}
    assert np.array_equal(np.concatenate(blocks), images[:30])


def test_reader_is_small(stored):
    assert len(pickle.dumps(stored[2])) < 1000


def test_missing_array_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        load_rows(tmp_path / "x.npy", 0, 1)
    assert raised.value.filename == str(tmp_path / "x.npy")


class Cycle:
    """Garbage that lets other threads run when it is collected."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        time.sleep(0)


@pytest.mark.slow
def test_rows_are_loaded_by_many_threads(tmp_path):
    # Without the lock, some of these fail on Python 3.11.7: "AST constructor recursion depth mismatch".
    save_rows(tmp_path / "rows.npy", np.arange(40))

    def load(_):
        Cycle()
        return load_rows(tmp_path / "rows.npy", 3, 5).tolist()

    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(3)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(rows == [3, 4] for rows in pool.map(load, range(6_000)))
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
