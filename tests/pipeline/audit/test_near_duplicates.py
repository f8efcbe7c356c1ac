import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from pipeline.audit.candidates import NUM_CANDIDATES
from pipeline.audit.near_duplicates import MAX_DISTANCE, find_near_duplicates
from pipeline.runtime.resume import open_step
from pipeline.runtime.tasks import map_tasks
from tests.helpers.scenes import draw_scene, recompress, take_view
from tests.helpers.search import make_index, search
from tests.helpers.shard_sets import write_raw_set

NUM_SCENES = 500
NUM_PER_KIND = 20
MIN_RECALL = {"recompressed": 0.9, "all at once": 0.7}  # 1 for the other kinds


def brighten(image):
    return np.minimum(image.astype(int) * 5 // 4 + 20, 255).astype(np.uint8)


KINDS = {
    "exact": take_view,
    "shifted": lambda scene: take_view(scene, shift=(2, -1)),
    "mirrored": lambda scene: take_view(scene)[..., ::-1],
    "scaled by 0.87": lambda scene: take_view(scene, zoom=(0.87, 0.87)),
    "scaled by 1.15": lambda scene: take_view(scene, zoom=(1.15, 1.15)),
    "stretched": lambda scene: take_view(scene, zoom=(1.15, 1)),
    "brightened": lambda scene: brighten(take_view(scene)),
    "recoloured": lambda scene: (take_view(scene) * np.array([0.9, 0.6, 0.7])[:, None, None]).astype(np.uint8),
    "recompressed": lambda scene: recompress(take_view(scene), quality=40),
    "all at once": lambda scene: recompress(brighten(take_view(scene, (0.9, 1.1), (1, 1)))[..., ::-1], quality=60),
}


def images_of(pairs):
    return [(pair.split, pair.index, pair.other_split, pair.other_index) for pair in pairs]


def make_scenes(count, shape=(3, 32, 32), seed=0):
    rng = np.random.default_rng(seed)
    views = np.stack([take_view(draw_scene(rng), size=shape[1:]) for _ in range(count)])
    return views[:, np.arange(shape[0]) % 3]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A raw set of scenes, whose test split has NUM_PER_KIND changed views of train scenes for each of KINDS."""
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng) for _ in range(NUM_SCENES)]
    train = np.stack([take_view(scene) for scene in scenes])
    changed = [change(scenes[number]) for change in KINDS.values() for number in range(NUM_PER_KIND)]
    return write_raw_set(tmp_path_factory.mktemp("planted") / "raw", train, np.stack(changed))


@pytest.fixture(scope="module")
def found(planted, tmp_path_factory):
    return search(planted, tmp_path_factory.mktemp("found") / "scratch")


def test_planted_duplicates_are_found_and_no_others(found):
    leaks = [pair for pair in found if pair.other_split != pair.split]
    planted_pairs = {("test", number, "train", number % NUM_PER_KIND) for number in range(len(KINDS) * NUM_PER_KIND)}
    assert {*images_of(leaks)} <= planted_pairs
    num_found = Counter([*KINDS][pair.index // NUM_PER_KIND] for pair in leaks)
    recall = {kind: num_found[kind] / NUM_PER_KIND for kind in KINDS}
    print(recall)
    assert [kind for kind in KINDS if recall[kind] < MIN_RECALL.get(kind, 1)] == []


def test_copies_within_a_split_are_pairs_with_earlier_images(found):
    twins = images_of(pair for pair in found if pair.other_split == pair.split)
    assert all(split == "test" and index > other for split, index, _, other in twins)
    exact, mirrored = 3, 2 * NUM_PER_KIND + 3
    assert ("test", mirrored, "test", exact) in twins
    assert {index % NUM_PER_KIND - other % NUM_PER_KIND for _, index, _, other in twins} == {0}


def test_distance_and_mirroring_tell_how_a_copy_was_changed(found):
    leaks = {pair.index: pair for pair in found if pair.other_split != pair.split}
    for index, pair in leaks.items():
        kind = [*KINDS][index // NUM_PER_KIND]
        assert pair.mirrored == (kind in {"mirrored", "all at once"})
        assert 0 <= pair.distance <= MAX_DISTANCE
        if kind in {"exact", "mirrored"}:
            assert pair.distance == 0
        if "scaled" in kind:
            assert 0.05 < pair.distance < 0.1


def test_each_pair_is_found_once(found):
    assert len({*images_of(found)}) == len(found)


def test_each_split_is_compared_with_itself_and_earlier_ones(tmp_path):
    images = make_scenes(12)
    sets = {"train": [0, 1, 2, 0], "val": [4, 1, 4], "test": [6, 4, 2]}
    raw = write_raw_set(tmp_path / "raw", **{split: images[numbers] for split, numbers in sets.items()})
    pairs = search(raw, tmp_path / "scratch")
    assert images_of(pairs) == [
        ("train", 3, "train", 0),
        ("val", 1, "train", 1),
        ("val", 2, "val", 0),
        ("test", 1, "val", 0),
        ("test", 1, "val", 2),
        ("test", 2, "train", 2),
    ]
    assert {pair.distance for pair in pairs} == {0}


def test_copies_are_listed_up_to_the_limit(tmp_path):
    images = make_scenes(20)
    train = images[[*range(20), *[5] * NUM_CANDIDATES]]
    pairs = search(write_raw_set(tmp_path / "raw", train, images[[5]]), tmp_path / "scratch")
    copies = [5, *range(20, 20 + NUM_CANDIDATES)]
    assert [pair.other_index for pair in pairs if pair.split == "test"] == copies[:-1]  # ties go to the lower index
    assert [(pair.index, pair.other_index) for pair in pairs if pair.split == "train"] == [
        (later, earlier) for later in copies for earlier in copies if earlier < later
    ]


SCRIPT = """
import sys
from pathlib import Path
from shardset.shards import open_shards
from tests.helpers.search import make_index, search
print([tuple(vars(pair).values()) for pair in search(open_shards(sys.argv[1]), Path(sys.argv[2]))])
"""


@pytest.mark.parametrize(("threads", "blas_threads"), [("1", "4"), ("2", "1"), ("7", "4")])
def test_pairs_do_not_depend_on_threads(threads, blas_threads, planted, found, tmp_path):
    variables = {"PIPELINE_THREADS": threads, "OPENBLAS_NUM_THREADS": blas_threads, "OMP_NUM_THREADS": blas_threads}
    command = [sys.executable, "-c", SCRIPT, planted.dir, tmp_path / "scratch"]
    result = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    assert result.stdout == f"{[tuple(vars(pair).values()) for pair in found]}\n"


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 28, 28), (3, 45, 60), (2, 17, 40), (4, 32, 32), (3, 224, 224)])
def test_copies_are_found_at_any_size(shape, tmp_path):
    train = make_scenes(60, shape)
    test = np.stack([train[5], train[6][..., ::-1], make_scenes(1, shape, seed=1)[0]])
    pairs = search(write_raw_set(tmp_path / "raw", train, test), tmp_path / "scratch")
    exact = [
        (pair.index, pair.other_index, pair.mirrored) for pair in pairs if pair.split == "test" and not pair.distance
    ]
    assert exact == [(0, 5, False), (1, 6, True)]


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 1, 1), (1, 7, 100)])
def test_images_that_are_too_small_are_not_searched(shape, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    assert search(write_raw_set(tmp_path / "raw", images, images), tmp_path / "scratch") == []


def test_flat_images_are_not_near_duplicates(tmp_path):
    images = np.array([0, 50, 77, 200, 255], np.uint8)[:, None, None, None] * np.ones((3, 32, 32), np.uint8)
    assert search(write_raw_set(tmp_path / "raw", images, images), tmp_path / "scratch") == []


def test_equal_frames_make_no_duplicates(tmp_path):
    images = make_scenes(40)
    images[..., :3, :] = images[..., -3:, :] = images[..., :3] = images[..., -3:] = 255
    assert search(write_raw_set(tmp_path / "raw", images[:30], images[30:]), tmp_path / "scratch") == []


def test_progress_reaches_the_number_of_images(planted, tmp_path):
    index = make_index(planted, tmp_path / "index")
    done: list[int] = []
    find_near_duplicates(index, open_step(tmp_path, "search"), map_tasks, done.append)
    assert sum(done) == NUM_SCENES + len(KINDS) * NUM_PER_KIND
