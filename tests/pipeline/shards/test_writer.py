import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.resume import Step, open_step
from pipeline.runtime.tasks import map_tasks
from pipeline.shards.writer import (
    ShardJob,
    ShardTask,
    plan_shards,
    save_manifest,
    write_set_file,
    write_shard,
    write_shards,
)
from shardset.manifest import load_manifest
from shardset.shards import open_shards, verify_shards
from tests.helpers.array_shards import ArraySource, in_blocks, write_arrays
from tests.helpers.shard_sets import content_hash, make_images, make_manifest, read_images, write_raw_set
from tests.helpers.workspace import hash_files


def test_plan_shards_numbers_the_shards():
    assert plan_shards("val", 7, 3) == [
        ShardTask("val", 0, 3, "00000-of-00003.npy"),
        ShardTask("val", 3, 6, "00001-of-00003.npy"),
        ShardTask("val", 6, 7, "00002-of-00003.npy"),
    ]


@given(st.integers(1, 10_000), st.integers(1, 12_000))
def test_planned_shards_cover_the_split_and_sort_by_name(num_samples, samples_per_shard):
    tasks = plan_shards("train", num_samples, samples_per_shard)
    assert [tasks[0].start, *(task.stop for task in tasks)] == [*(task.start for task in tasks), num_samples]
    assert all(task.stop - task.start == samples_per_shard for task in tasks[:-1])
    assert 0 < tasks[-1].stop - tasks[-1].start <= samples_per_shard
    names = [task.name for task in tasks]
    assert names == sorted(names)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("in_blocks_of", [1, 2, 10])
def test_written_shards_are_read_back_by_numpy(dtype, in_blocks_of, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (7, 1, 2, 3)).astype(dtype)
    images, labels = {"train": values, "test": values[:3]}, {"train": np.arange(7), "test": np.arange(3)}
    splits = write_arrays(tmp_path, images, labels, 3, dtype, in_blocks_of)
    assert [shard.samples for shard in splits["train"].shards] == [3, 3, 1]
    assert splits["train"].shards[2].images.path == "train/images-00002-of-00003.npy"
    for split, of_split in splits.items():
        for kind, expected in (("images", images[split]), ("labels", labels[split])):
            files = [getattr(shard, kind) for shard in of_split.shards]
            read = np.concatenate([np.load(tmp_path / file.path) for file in files])
            assert read.dtype == expected.dtype
            assert np.array_equal(read, expected)
            for file in files:
                content = (tmp_path / file.path).read_bytes()
                assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_values_of_other_layout_are_stored_in_c_order(tmp_path):
    values = np.asfortranarray(np.arange(24, dtype=">f4").reshape(2, 3, 2, 2))
    splits = write_arrays(tmp_path, {"train": values}, {"train": np.arange(2, dtype=">i8")}, 2, "float32")
    (shard,) = splits["train"].shards
    images, labels = np.load(tmp_path / shard.images.path), np.load(tmp_path / shard.labels.path)
    assert (images.dtype.str, labels.dtype.str) == ("<f4", "<i8")
    assert images.flags.c_contiguous
    assert np.array_equal(images, values)


@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize("in_blocks_of", [1, 5])
def test_shards_do_not_depend_on_threads_or_blocks(threads, in_blocks_of, tmp_path, monkeypatch):
    images = {"train": make_images(20), "val": make_images(9, seed=1)}
    labels = {split: np.arange(len(of_split)) for split, of_split in images.items()}
    expected = write_arrays(tmp_path / "expected", images, labels, 6)
    monkeypatch.setenv("PIPELINE_THREADS", threads)
    assert write_arrays(tmp_path / "other", images, labels, 6, block_size=in_blocks_of) == expected


@pytest.mark.parametrize("splits", [("train",), ("train", "val"), ("train", "test"), ("train", "val", "test")])
def test_set_of_any_splits_is_written_in_order(splits, tmp_path):
    images = {split: make_images(5 + index, seed=index) for index, split in enumerate(splits)}
    raw = write_raw_set(tmp_path / "raw", **images)
    assert tuple(raw.manifest.splits) == splits
    assert verify_shards(tmp_path / "raw").manifest == raw.manifest
    for split, of_split in images.items():
        assert np.array_equal(read_images(raw, split), of_split)
        assert raw.manifest.splits[split].samples == len(of_split)


def test_failing_images_leave_the_finished_shards(tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_THREADS", "1")
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    made = []

    def write(failing=()):
        def source_of(task):
            def blocks():
                made.append(task.start)
                if task.start in failing:
                    raise OSError("no space left")
                yield images[task.start : task.stop]

            return ArraySource(np.arange(task.start, task.stop), blocks)

        step = open_step(tmp_path, "set")
        sizes = {"dtype": "uint8", "image_shape": (1, 1, 1), "samples_per_shard": 2}
        return write_shards(step, {"train": 6}, source_of, **sizes, map_tasks=map_tasks)

    with pytest.raises(OSError, match="no space left"):
        write(failing=(4,))
    splits = write()
    assert made == [0, 2, 4, 4]
    (set_dir,) = (path for path in tmp_path.iterdir() if path.suffix != ".records")
    read = [np.load(set_dir / shard.images.path) for shard in splits["train"].shards]
    assert np.array_equal(np.concatenate(read), images)


@pytest.fixture
def job(tmp_path):
    """A shard of three samples, to be written into the test's folder."""
    (tmp_path / "train").mkdir()
    task, images = ShardTask("train", 0, 3, "00000-of-00001.npy"), make_images(3)
    return ShardJob(Step(tmp_path), task, "uint8", (3, 32, 32), ArraySource(np.arange(3), lambda: in_blocks(images, 1)))


def with_blocks(job, make_blocks):
    return replace(job, source=replace(job.source, make_blocks=make_blocks))


def test_copy_of_a_task_that_fails_leaves_the_shard_complete(job):
    def failing():
        yield next(iter(job.source.blocks()))
        raise RuntimeError("the worker ends")

    shard = write_shard(job)
    with pytest.raises(RuntimeError, match="the worker ends"):
        write_shard(with_blocks(job, failing))
    for file in shard.files:
        content = (job.step.dir / file.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)


def test_copies_of_a_task_at_the_same_time_agree(job):
    both_began = Barrier(2)

    def blocks():
        first, *others = job.source.blocks()
        yield first
        both_began.wait(20)
        yield from others

    with ThreadPoolExecutor(2) as pool:
        shards = list(pool.map(write_shard, [with_blocks(job, blocks)] * 2))
    before = hash_files(job.step.dir)
    assert shards == [write_shard(job)] * 2
    assert hash_files(job.step.dir) == before
    assert len(before) == 2  # no temporary file is left


@pytest.mark.parametrize("text", ["", "# Card\n", "données 数据\n"])
def test_text_file_is_written_with_its_hash(text, tmp_path):
    file = write_set_file(tmp_path, "README.md", text)
    content = (tmp_path / "README.md").read_bytes()
    assert content == text.encode()
    assert (file.path, file.bytes, file.sha256) == ("README.md", len(content), hashlib.sha256(content).hexdigest())


def test_saved_manifest_makes_the_set_complete(tmp_path):
    images, labels = {"train": make_images(3)}, {"train": np.arange(3)}
    splits = write_arrays(tmp_path, images, labels, 2)
    card = write_set_file(tmp_path, "README.md", "# Card\n")
    content_sha256 = content_hash(images, labels)
    manifest = make_manifest(splits, files=(card,), content_sha256=content_sha256)
    save_manifest(manifest, tmp_path)
    assert load_manifest(tmp_path) == manifest == open_shards(tmp_path).manifest
    verify_shards(tmp_path)
