import numpy as np
import pytest

from pipeline.audit.descriptors import compute_descriptors
from pipeline.audit.outlines import compute_outlines
from pipeline.audit.search_index import SearchIndex
from pipeline.numerics.reduce import resize_images
from tests.helpers.shard_sets import make_images, write_raw_set


@pytest.fixture
def raw(tmp_path):
    return write_raw_set(tmp_path / "raw", make_images(50), make_images(7, seed=1))


@pytest.fixture
def index(raw, tmp_path):
    """An index to which the images were added in blocks, not in order."""
    (tmp_path / "scratch").mkdir()
    index = SearchIndex(raw, tmp_path / "scratch")
    for start in (30, 0, 40, 10, 20):
        index.add("train", start, make_images(50)[start : start + 10])
    index.add("test", 0, make_images(7, seed=1))
    return index


def test_rows_are_those_of_the_images(index):
    images = make_images(50)
    assert np.array_equal(index.images.read("train", 5, 45), images[5:45])
    assert np.array_equal(index.descriptors.read("train", 0, 50), compute_descriptors(images))
    assert np.array_equal(index.outlines.read("test", 2, 3), compute_outlines(make_images(7, seed=1)[2:3]))


@pytest.mark.parametrize("rows_per_read", [3, 2048])
@pytest.mark.parametrize("indices", [[], [49], [7, 3, 49, 3, 0]])
def test_rows_are_taken_in_the_order_asked_for(indices, rows_per_read, index, monkeypatch):
    monkeypatch.setattr("pipeline.audit.search_index.ROWS_PER_READ", rows_per_read)
    indices = np.array(indices, np.int64)
    expected = make_images(50)[indices]
    assert np.array_equal(index.images.take("train", indices), expected)
    assert np.array_equal(index.images.take_each("train", indices), expected)


def test_an_error_names_the_file(index, tmp_path):
    path = tmp_path / "scratch/train.outlines"
    path.unlink()
    for read in (
        lambda: index.outlines.read("train", 0, 1),
        lambda: index.outlines.take_each("train", np.array([0])),
        lambda: index.outlines.write("train", 0, np.zeros((1, 2, 13, 13))),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            read()
        assert caught.value.filename == str(path)


@pytest.mark.parametrize("size", [(8, 8), (17, 32), (60, 20)])
def test_images_of_any_size_are_kept_at_32_pixels(size, tmp_path):
    images = make_images(4, (3, *size))
    (tmp_path / "scratch").mkdir()
    index = SearchIndex(write_raw_set(tmp_path / "raw", images), tmp_path / "scratch")
    index.add("train", 0, images)
    assert np.array_equal(index.images.read("train", 0, 4), resize_images(images, 32, 32))
