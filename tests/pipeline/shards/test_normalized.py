import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shards.normalized import NormalizedShard, Piece, files_verified_on_read, plan_pieces, read_pixels
from pipeline.shards.writer import plan_shards
from shardset.errors import CorruptDataError
from shardset.manifest import Normalization, SetFile, Shard, SplitShards
from shardset.normalization import normalization_table
from shardset.shards import ShardSet, open_shards
from tests.helpers.array_shards import write_arrays
from tests.helpers.shard_sets import make_images, make_manifest, read_images

NORMALIZATION = Normalization(scheme="custom", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))

shard_sizes = st.lists(st.integers(1, 20), min_size=1, max_size=8)


def make_raw(sizes):
    """A raw set of shards of these sizes, without files."""

    def make_shard(index, size):
        images, labels = (
            SetFile(path=f"train/{kind}-{index}.npy", bytes=0, sha256="0" * 64) for kind in ("images", "labels")
        )
        return Shard(samples=size, images=images, labels=labels)

    shards = tuple(make_shard(index, size) for index, size in enumerate(sizes))
    return ShardSet(Path("nowhere"), make_manifest({"train": SplitShards(samples=sum(sizes), shards=shards)}))


@pytest.fixture(scope="module")
def small_shards(tmp_path_factory):
    """A raw set of 20 train images in shards of 6."""
    path = tmp_path_factory.mktemp("raw")
    images = make_images(20)
    splits = write_arrays(path, {"train": images}, {"train": np.arange(20) % 10}, 6)
    return ShardSet(path, make_manifest(splits))


@given(shard_sizes, st.data())
def test_pieces_are_the_samples_of_a_range_in_order(sizes, data):
    raw = make_raw(sizes)
    start = data.draw(st.integers(0, sum(sizes) - 1))
    stop = data.draw(st.integers(start + 1, sum(sizes)))  # no shard is empty
    pieces = plan_pieces(raw, "train", start, stop)
    samples = [(shard.images.path, i) for shard in raw.shards("train") for i in range(shard.samples)]
    assert [(piece.shard.images.path, i) for piece in pieces for i in range(piece.start, piece.stop)] == samples[
        start:stop
    ]
    for piece in pieces:
        assert 0 <= piece.start < piece.stop <= piece.shard.samples
        assert piece.is_complete == ((piece.start, piece.stop) == (0, piece.shard.samples))
    assert len({piece.shard for piece in pieces}) == len(pieces)


@given(shard_sizes, st.integers(1, 200))
def test_pieces_of_all_new_shards_cover_each_sample_once(sizes, samples_per_shard):
    raw = make_raw(sizes)
    covered = [
        (piece.shard.images.path, i)
        for task in plan_shards("train", sum(sizes), samples_per_shard)
        for piece in plan_pieces(raw, "train", task.start, task.stop)
        for i in range(piece.start, piece.stop)
    ]
    assert covered == [(shard.images.path, i) for shard in raw.shards("train") for i in range(shard.samples)]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, 6, [(0, 0, 6)]),  # exactly one raw shard
        (6, 18, [(1, 0, 6), (2, 0, 6)]),
        (4, 8, [(0, 4, 6), (1, 0, 2)]),
        (7, 8, [(1, 1, 2)]),  # inside one raw shard
        (18, 20, [(3, 0, 2)]),  # the shorter last one
        (6, 6, []),
    ],
)
def test_plan_pieces(start, stop, expected, small_shards):
    shards = small_shards.shards("train")
    assert plan_pieces(small_shards, "train", start, stop) == [Piece(shards[i], *samples) for i, *samples in expected]


def test_time_to_plan_is_linear_in_the_number_of_shards():
    def cpu_time(num_shards):
        raw = make_raw([1] * num_shards)
        start = time.process_time()
        files_verified_on_read(raw, 1)
        return time.process_time() - start

    cpu_time(10)
    assert cpu_time(8000) < 16 * 3 * cpu_time(500)  # 16 times the shards; a quadratic plan takes 256 times as long


@given(st.integers(0, 20), st.integers(0, 20))
def test_pixels_read_are_those_of_the_range(small_shards, first, second):
    start, stop = sorted((first, second))
    pieces = plan_pieces(small_shards, "train", start, stop)
    blocks = [block.copy() for block in read_pixels(small_shards.reader, pieces)]
    expected = read_images(small_shards, "train")[start:stop]
    assert sum(map(len, blocks)) == stop - start
    assert not blocks or np.array_equal(np.concatenate(blocks), expected)


@pytest.mark.parametrize(("start", "stop"), [(0, 12_000), (0, 10_000), (9_900, 10_300), (37, 11_999)])
def test_long_ranges_are_read_in_blocks(start, stop, synthetic_raw):
    raw = open_shards(synthetic_raw)
    blocks = [block.copy() for block in read_pixels(raw.reader, plan_pieces(raw, "train", start, stop))]
    assert max(map(len, blocks)) <= raw.block_samples
    assert np.array_equal(np.concatenate(blocks), read_images(raw, "train")[start:stop])


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_normalized_blocks_are_the_values_of_the_table(dtype, synthetic_raw):
    raw = open_shards(synthetic_raw)
    pieces = plan_pieces(raw, "test", 100, 700)
    blocks = [block.copy() for block in NormalizedShard(raw.reader, pieces, NORMALIZATION, dtype).blocks()]
    assert {block.dtype for block in blocks} == {np.dtype(dtype)}
    pixels = read_images(raw, "test")[100:700]
    table = normalization_table(NORMALIZATION, dtype)
    values = np.stack([table[channel][pixels[:, channel]] for channel in range(3)], axis=1)
    assert np.concatenate(blocks).tobytes() == (pixels if dtype == "uint8" else values.astype(dtype)).tobytes()


def test_complete_piece_is_verified_while_it_is_read(small_shards, tmp_path):
    raw = ShardSet(shutil.copytree(small_shards.dir, tmp_path / "raw"), small_shards.manifest)
    path = raw.dir / raw.shards("train")[1].images.path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match="train/images-00001-of-00004.npy: expected SHA-256"):
        list(read_pixels(raw.reader, plan_pieces(raw, "train", 4, 13)))
    list(read_pixels(raw.reader, plan_pieces(raw, "train", 12, 20)))
