import shutil

import numpy as np
import pytest

from pipeline.audit.search_index import open_index
from pipeline.audit.shard_survey import measures_dtype, read_digests, read_measures, survey_shards
from pipeline.numerics.reduce import reduce_images
from pipeline.runtime.resume import open_step
from pipeline.runtime.tasks import map_tasks
from shardset.content import hash_images
from shardset.errors import CorruptDataError
from shardset.shards import open_shards
from tests.helpers.memory import traced_peak
from tests.helpers.shard_sets import make_images, read_images, write_raw_set
from tests.helpers.workspace import hash_files


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A raw set of three splits, in shards of 16 images and fewer."""
    images = {"train": make_images(40), "val": make_images(11, seed=1), "test": make_images(17, seed=2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 16)
        return write_raw_set(tmp_path_factory.mktemp("survey") / "raw", **images)


def survey(raw, path, map_tasks=map_tasks, done=lambda num_images: None):
    step = open_step(path, "survey")
    survey_shards(raw, step, map_tasks, done)
    return step


def test_measures_hold_what_numpy_computes(raw, tmp_path):
    step = survey(raw, tmp_path)
    for split in raw.manifest.splits:
        pixels = read_images(raw, split)
        flat, wide = pixels.reshape(len(pixels), -1), pixels.astype(np.int64)
        stop = 0
        for rows, shard, measures, pixel_counts in read_measures(raw, step, split):
            assert (rows.start, rows.stop) == (stop, stop + shard.samples)
            stop = rows.stop
            assert np.array_equal(measures["sums"], wide[rows].sum(axis=(2, 3)))
            assert np.array_equal(measures["squares"], (wide[rows] ** 2).sum(axis=(2, 3)))
            assert np.array_equal(measures["clipped"], ((flat[rows] == 0) | (flat[rows] == 255)).sum(axis=1))
            assert pixel_counts[1].tolist() == np.bincount(pixels[rows, 1].ravel(), minlength=256).tolist()
        assert stop == len(pixels)
        assert np.array_equal(read_digests(raw, step, split), hash_images(pixels))


def test_each_reduced_image_is_indexed(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 7)
    monkeypatch.setattr("pipeline.audit.shard_survey.REDUCED_PER_BATCH", 3)
    images = make_images(40, (3, 64, 32))
    raw = write_raw_set(tmp_path / "raw", images, images[:9])
    done: list[int] = []
    index = open_index(raw, survey(raw, tmp_path, done=done.append).dir)
    assert np.array_equal(index.images.read("train", 0, 40), reduce_images(images, 32))
    assert np.array_equal(index.images.read("test", 0, 9), reduce_images(images[:9], 32))
    assert sum(done) == 49


def test_survey_does_not_depend_on_threads(raw, tmp_path, monkeypatch):
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("PIPELINE_THREADS", threads)
        (tmp_path / threads).mkdir()
        found.append(hash_files(survey(raw, tmp_path / threads).dir.parent))
    assert found[0] == found[1]
    assert len(found[0]) == (3 + 1 + 2) * (1 + 3)


def test_finished_shard_is_not_read_again(raw, tmp_path):
    raw_dir = shutil.copytree(raw.dir, tmp_path / "raw")
    before = hash_files(survey(open_shards(raw_dir), tmp_path).dir)
    for path in raw_dir.glob("*/images-*"):
        path.unlink()
    assert hash_files(survey(open_shards(raw_dir), tmp_path).dir) == before


@pytest.mark.parametrize("damage", ["changed", "removed"])
def test_damaged_file_of_the_index_is_written_again(damage, raw, tmp_path):
    step = survey(raw, tmp_path)
    before = hash_files(step.dir)
    path = step.dir / "train-00001.outlines"
    content = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    survey(raw, tmp_path)
    assert hash_files(step.dir) == before


def test_memory_does_not_grow_with_shards_times_classes(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.shards.raw.MAX_SAMPLES_PER_SHARD", 1)
    raw = write_raw_set(tmp_path / "raw", make_images(40, (1, 64, 64)), num_classes=200)
    assert len(raw.shards("train")) == 40
    assert traced_peak(survey, raw, tmp_path) < 5_000_000


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_flipped_bit_in_an_image_is_found(split, raw, tmp_path):
    raw_dir = shutil.copytree(raw.dir, tmp_path / "raw")
    path = raw_dir / f"{split}/images-00000-of-{len(raw.shards(split)):05d}.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=f"{split}/{path.name}: expected SHA-256"):
        survey(open_shards(raw_dir), tmp_path)
    assert (tmp_path / "survey.records" / f"{split}-00000").exists() is False


def test_measures_of_an_image_are_small():
    assert measures_dtype(3).itemsize == 105
