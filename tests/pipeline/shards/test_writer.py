import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from tests.helpers.shard_sets import content_hash, make_images, make_manifest, read_images, write_raw_set
from tests.helpers.workspace import hash_files


def write(path, images, labels, samples_per_shard, dtype="uint8", in_blocks_of=10_000):
    def image_blocks(split, start, stop):
        for first in range(start, stop, in_blocks_of):
            yield images[split][first : min(first + in_blocks_of, stop)]

    path.mkdir(exist_ok=True)
    return write_shards(
        path,
        labels,
        image_blocks,
        dtype=dtype,
        image_shape=images["train"].shape[1:],
        samples_per_shard=samples_per_shard,
    )


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
    splits = write(tmp_path, images, labels, 3, dtype, in_blocks_of)
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
    splits = write(tmp_path, {"train": values}, {"train": np.arange(2, dtype=">i8")}, 2, "float32")
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
    expected = write(tmp_path / "expected", images, labels, 6)
    monkeypatch.setenv("PIPELINE_THREADS", threads)
    assert write(tmp_path / "other", images, labels, 6, in_blocks_of=in_blocks_of) == expected


@pytest.mark.parametrize("splits", [("train",), ("train", "val"), ("train", "test"), ("train", "val", "test")])
def test_set_of_any_splits_is_written_in_order(splits, tmp_path):
    images = {split: make_images(5 + index, seed=index) for index, split in enumerate(splits)}
    raw = write_raw_set(tmp_path / "raw", **images)
    assert tuple(raw.manifest.splits) == splits
    assert verify_shards(tmp_path / "raw").manifest == raw.manifest
    for split, of_split in images.items():
        assert np.array_equal(read_images(raw, split), of_split)
        assert raw.manifest.splits[split].samples == len(of_split)


def test_failing_images_leave_no_manifest(tmp_path):
    def image_blocks(split, start, stop):
        if start == 2:
            raise OSError("no space left")
        yield np.zeros((stop - start, 1, 1, 1), np.uint8)

    labels = {"train": np.arange(6)}
    with pytest.raises(OSError, match="no space left"):
        write_shards(tmp_path, labels, image_blocks, dtype="uint8", image_shape=(1, 1, 1), samples_per_shard=2)
    assert not (tmp_path / "manifest.json").exists()


@pytest.fixture
def job(tmp_path):
    """A shard of three samples, to be written into the test's folder."""
    (tmp_path / "train").mkdir()
    task = ShardTask("train", 0, 3, "00000-of-00001.npy")
    return ShardJob(tmp_path, task, "uint8", (3, 32, 32), np.arange(3), [make_images(3)])


def test_copy_of_a_task_that_fails_leaves_the_shard_complete(job):
    def failing():
        yield job.blocks[0][:1]
        raise RuntimeError("the worker ends")

    shard = write_shard(job)
    with pytest.raises(RuntimeError, match="the worker ends"):
        write_shard(replace(job, blocks=failing()))
    for file in (shard.images, shard.labels):
        content = (job.shards_dir / file.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)


def test_copies_of_a_task_at_the_same_time_agree(job):
    both_began = Barrier(2)

    def blocks():
        yield job.blocks[0][:1]
        both_began.wait(20)
        yield job.blocks[0][1:]

    with ThreadPoolExecutor(2) as pool:
        shards = list(pool.map(write_shard, [replace(job, blocks=blocks()) for _ in range(2)]))
    before = hash_files(job.shards_dir)
    assert shards == [write_shard(job)] * 2
    assert hash_files(job.shards_dir) == before
    assert len(before) == 2  # no temporary file is left


@pytest.mark.parametrize("text", ["", "# Card\n", "données 数据\n"])
def test_text_file_is_written_with_its_hash(text, tmp_path):
    file = write_set_file(tmp_path, "README.md", text)
    content = (tmp_path / "README.md").read_bytes()
    assert content == text.encode()
    assert (file.path, file.bytes, file.sha256) == ("README.md", len(content), hashlib.sha256(content).hexdigest())


def test_saved_manifest_makes_the_set_complete(tmp_path):
    images, labels = {"train": make_images(3)}, {"train": np.arange(3)}
    splits = write(tmp_path, images, labels, 2)
    card = write_set_file(tmp_path, "README.md", "# Card\n")
    content_sha256 = content_hash(images, labels)
    manifest = make_manifest(splits, files=(card,), content_sha256=content_sha256)
    save_manifest(manifest, tmp_path)
    assert load_manifest(tmp_path) == manifest == open_shards(tmp_path).manifest
    verify_shards(tmp_path)
