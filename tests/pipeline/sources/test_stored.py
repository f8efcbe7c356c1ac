import pickle

import numpy as np
import pytest

from pipeline.sources.stored import ArrayReader, load_rows, save_arrays
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
