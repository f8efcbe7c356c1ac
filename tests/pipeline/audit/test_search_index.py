import numpy as np
import pytest

from pipeline.audit.descriptors import compute_descriptors
from pipeline.audit.outlines import compute_outlines
from pipeline.audit.search_index import open_index, part_name, write_part
from pipeline.numerics.reduce import resize_images
from pipeline.runtime.files import hash_file
from tests.helpers.search import make_index
from tests.helpers.shard_sets import make_images, write_raw_set

NUM_TRAIN, NUM_TEST = 50, 7


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index of shards of 20 images and fewer."""
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 20)
    raw = write_raw_set(tmp_path / "raw", make_images(NUM_TRAIN), make_images(NUM_TEST, seed=1))
    assert [shard.samples for shard in raw.shards("train")] == [20, 20, 10]
    return make_index(raw, tmp_path / "index")


@pytest.mark.parametrize(("start", "stop"), [(0, 50), (5, 45), (19, 20), (20, 40), (39, 41), (49, 50)])
def test_rows_are_those_of_the_images(start, stop, index):
    images = make_images(NUM_TRAIN)[start:stop]
    assert np.array_equal(index.images.read("train", start, stop), images)
    assert np.array_equal(index.descriptors.read("train", start, stop), compute_descriptors(images))
    assert np.array_equal(index.outlines.read("train", start, stop), compute_outlines(images))


def test_splits_have_rows_of_their_own(index):
    assert np.array_equal(index.outlines.read("test", 2, 3), compute_outlines(make_images(NUM_TEST, seed=1)[2:3]))


@pytest.mark.parametrize("rows_per_read", [3, 2048])
@pytest.mark.parametrize("indices", [[], [49], [7, 3, 49, 3, 0, 20, 19]])
def test_rows_are_taken_in_the_order_asked_for(indices, rows_per_read, index, monkeypatch):
    monkeypatch.setattr("pipeline.audit.search_index.ROWS_PER_READ", rows_per_read)
    indices = np.array(indices, np.int64)
    expected = make_images(NUM_TRAIN)[indices]
    assert np.array_equal(index.images.take("train", indices), expected)
    assert np.array_equal(index.images.take_each("train", indices), expected)


@pytest.mark.parametrize("sizes", [[20], [1, 12, 7]])
def test_files_of_a_part_do_not_depend_on_batches(sizes, index, tmp_path):
    batches = np.split(make_images(NUM_TRAIN)[:20], np.cumsum(sizes)[:-1])
    files = write_part(tmp_path, "again", batches)
    assert [file.path for file in files] == ["again.descriptors", "again.outlines", "again.images"]
    for file in files:
        path = tmp_path / "index" / file.path.replace("again", part_name("train", 0))
        assert (file.bytes, file.sha256) == (path.stat().st_size, hash_file(path))
        assert (tmp_path / file.path).read_bytes() == path.read_bytes()


def test_size_is_known_before_writing(index, tmp_path):
    assert index.total == NUM_TRAIN + NUM_TEST
    assert index.num_bytes == sum(path.stat().st_size for path in (tmp_path / "index").iterdir())


@pytest.mark.parametrize("change", ["removed", "truncated"])
def test_an_error_names_the_file(change, index, tmp_path):
    path = tmp_path / "index/train-00001.outlines"
    if change == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    for read in (
        lambda: index.outlines.read("train", 10, 45),
        lambda: index.outlines.take_each("train", np.array([39])),
    ):
        with pytest.raises(OSError, match="No such file|Too short") as caught:
            read()
        assert caught.value.filename == str(path)


@pytest.mark.parametrize("size", [(8, 8), (17, 32), (60, 20)])
def test_images_of_any_size_are_kept_at_32_pixels(size, tmp_path):
    images = make_images(4, (3, *size))
    raw = write_raw_set(tmp_path / "raw", images)
    write_part(tmp_path, part_name("train", 0), [images])
    assert np.array_equal(open_index(raw, tmp_path).images.read("train", 0, 4), resize_images(images, 32, 32))
