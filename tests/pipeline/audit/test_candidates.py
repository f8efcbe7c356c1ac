import numpy as np
import pytest

from pipeline.audit.candidates import MIN_SIMILARITY, NUM_CANDIDATES, find_candidates
from pipeline.audit.descriptors import EXACT_SUM, count_even
from tests.helpers.search import make_index
from tests.helpers.shard_sets import make_images, write_raw_set

NUM_TRAIN, NUM_TEST = 150, 40


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Few coarse scenes, many of them equal or mirrored, so that images have more candidates than are kept."""
    path = tmp_path_factory.mktemp("candidates")
    scenes = make_images(12) // 2 + make_images(1) // 2
    rng = np.random.default_rng(0)
    images = scenes[rng.integers(0, len(scenes), NUM_TRAIN + NUM_TEST)]
    is_noisy = rng.random(len(images)) < 0.7
    noise = rng.integers(-20, 21, images.shape) * is_noisy[:, None, None, None]
    images = np.clip(images + noise, 0, 255).astype(np.uint8)
    images[::5] = images[::5, :, :, ::-1]
    return make_index(write_raw_set(path / "raw", images[:NUM_TRAIN], images[NUM_TRAIN:]), path / "scratch")


def find_slowly(index, split, start, stop, other_split):
    """Find the candidates of images one by one, in exact integers."""
    num_even, num_images = count_even(3), index.num_images[other_split]
    others = index.descriptors.read(other_split, 0, num_images).astype(np.int64)
    pairs = []
    for row, query in enumerate(index.descriptors.read(split, start, stop).astype(np.int64)):
        products = others * query
        similarities = products[:, :num_even].sum(axis=1) + abs(products[:, num_even:].sum(axis=1))
        earlier = range(start + row) if split == other_split else range(num_images)
        near = [other for other in earlier if similarities[other] > MIN_SIMILARITY * EXACT_SUM]
        best = sorted(near, key=lambda other: (-similarities[other], other))[:NUM_CANDIDATES]
        pairs += [(row, other) for other in sorted(best)]
    return pairs


@pytest.mark.parametrize("rows_per_read", [64, 2048])
@pytest.mark.parametrize("rows_per_product", [7, 128])
@pytest.mark.parametrize("other_split", ["train", "test"])
def test_best_earlier_images_are_found(other_split, rows_per_product, rows_per_read, index, monkeypatch):
    monkeypatch.setattr("pipeline.audit.candidates.ROWS_PER_READ", rows_per_read)
    monkeypatch.setattr("pipeline.audit.candidates.ROWS_PER_PRODUCT", rows_per_product)
    found = np.transpose(find_candidates(index, "test", 0, NUM_TEST, other_split)).tolist()
    expected = find_slowly(index, "test", 0, NUM_TEST, other_split)
    assert list(map(tuple, found)) == expected
    full = [row for row in range(NUM_TEST) if sum(pair[0] == row for pair in expected) == NUM_CANDIDATES]
    assert len(full) > NUM_TEST // 2 or other_split == "test"


@pytest.mark.parametrize("start", [0, 1, 60, 149])
def test_images_of_a_later_task_have_earlier_candidates(start, index):
    found = np.transpose(find_candidates(index, "train", start, NUM_TRAIN, "train")).tolist()
    assert list(map(tuple, found)) == find_slowly(index, "train", start, NUM_TRAIN, "train")


def test_the_first_image_has_no_candidates(index):
    rows, indices = find_candidates(index, "train", 0, 1, "train")
    assert (len(rows), len(indices)) == (0, 0)
