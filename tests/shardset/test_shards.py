import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.sources.registry import DATASETS
from shardset.errors import CorruptDataError
from shardset.manifest import render_manifest, save_manifest
from shardset.shards import ShardSet, hash_content, open_shards, split_range, verify_shards, write_shards
from tests.helpers.shard_sets import make_manifest


@pytest.fixture(scope="module")
def shards_copy(tiny_raw, tmp_path_factory):
    """A copy of the tiny shard set, to be damaged and mended by one test."""
    return shutil.copytree(tiny_raw, tmp_path_factory.mktemp("copy") / "set")


@pytest.fixture
def shards_dir(synthetic_raw, tmp_path):
    """A copy of a shard set, to be damaged."""
    return shutil.copytree(synthetic_raw, tmp_path / "set")


@pytest.mark.parametrize(
    ("start", "stop", "size", "ranges"),
    [
        (0, 6, 3, [(0, 3), (3, 6)]),
        (0, 7, 3, [(0, 3), (3, 6), (6, 7)]),  # the last one is shorter
        (2, 5, 9, [(2, 5)]),  # larger than all there is
        (4, 4, 3, []),  # nothing
    ],
)
def test_split_range(start, stop, size, ranges):
    assert split_range(start, stop, size) == ranges


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 1001))
def test_ranges_partition_what_they_split(start, length, size):
    ranges = split_range(start, start + length, size)
    assert [i for first, last in ranges for i in range(first, last)] == list(range(start, start + length))


def test_a_whole_set_verifies_and_its_content_hash_is_that_of_its_arrays(synthetic_raw):
    shards = verify_shards(synthetic_raw)
    arrays = [
        (
            np.concatenate([np.load(synthetic_raw / shard.images.path) for shard in shards.shards(split)]),
            shards.labels(split),
        )
        for split in ("train", "test")
    ]
    assert hash_content(arrays) == shards.manifest.content_sha256 == DATASETS["synthetic"].content_sha256


def test_plain_numpy_reads_a_shard(synthetic_raw):
    images = np.load(synthetic_raw / "train/images-00001-of-00002.npy", mmap_mode="r")
    labels = np.load(synthetic_raw / "train/labels-00001-of-00002.npy")
    assert (images.dtype, images.shape, labels.dtype, labels.shape) == (np.uint8, (2000, 3, 32, 32), np.int64, (2000,))


def test_the_header_is_the_same_on_every_machine(synthetic_raw):
    header = (synthetic_raw / "test/labels-00000-of-00001.npy").read_bytes()[:128]
    text = b"{'descr': '<i8', 'fortran_order': False, 'shape': (2000,), }"
    assert header == b"\x93NUMPY\x01\x00v\x00" + text + b" " * (117 - len(text)) + b"\n"


@given(st.data())
def test_blocks_are_the_samples_asked_for(synthetic_raw, data):
    start = data.draw(st.integers(0, 11_999))
    stop = data.draw(st.sampled_from([12_000, min(12_000, start + 300)]) | st.integers(start, 12_000))
    shards = open_shards(synthetic_raw)
    blocks = [block.copy() for block in shards.image_blocks("train", start, stop)]
    everything = np.concatenate([shards.images(shard) for shard in shards.shards("train")])
    assert sum(map(len, blocks)) == stop - start
    assert not blocks or np.array_equal(np.concatenate(blocks), everything[start:stop])


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_what_is_written_is_what_is_read(dtype, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (7, 1, 2, 3)).astype(dtype)
    labels = {"train": np.arange(7), "test": np.arange(3)}
    splits = write_shards(
        tmp_path,
        labels,
        lambda _, start, stop: [images[start:stop]],
        dtype=dtype,
        image_shape=(1, 2, 3),
        samples_per_shard=3,
    )
    assert [shard.samples for shard in splits["train"].shards] == [3, 3, 1]
    assert splits["train"].shards[2].images.path == "train/images-00002-of-00003.npy"
    read = np.concatenate([np.load(tmp_path / shard.images.path) for shard in splits["train"].shards])
    assert read.dtype == dtype
    assert np.array_equal(read, images)


def damage(path, how):
    content = path.read_bytes()
    if how == "a flipped bit":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])
    elif how == "a cut end":
        path.write_bytes(content[:-1])
    elif how == "bytes added":
        path.write_bytes(content + b"\0")
    elif how == "an empty file":
        path.write_bytes(b"")
    elif how == "a changed header":
        path.write_bytes(content.replace(b"False", b"True ", 1))
    elif how == "another format":
        path.write_bytes(b"PK\x03\x04" + content[4:])
    elif how == "no file":
        path.unlink()


@pytest.mark.parametrize("name", ["train/images-00001-of-00002.npy", "test/labels-00000-of-00001.npy"])
@pytest.mark.parametrize(
    "how",
    ["a flipped bit", "a cut end", "bytes added", "an empty file", "a changed header", "another format", "no file"],
)
def test_a_damaged_file_is_named_and_no_other(name, how, shards_dir):
    damage(shards_dir / name, how)
    with pytest.raises(CorruptDataError) as caught:
        verify_shards(shards_dir)
    assert str(caught.value).startswith(f"{shards_dir} differs from its manifest:\n  {shards_dir / name}: ")
    assert str(caught.value).count(".npy:") == 1


@given(st.integers(0, 127), st.integers(0, 255))
def test_any_wrong_byte_in_a_header_is_found(tiny_raw, shards_copy, position, byte):
    path = shards_copy / "test/labels-00000-of-00001.npy"
    content = (tiny_raw / "test/labels-00000-of-00001.npy").read_bytes()
    path.write_bytes(content[:position] + bytes([byte]) + content[position + 1 :])
    if byte == content[position]:
        verify_shards(shards_copy)
    else:
        with pytest.raises(CorruptDataError, match=r"test/labels-00000-of-00001\.npy: not an \.npy file of int64"):
            verify_shards(shards_copy)


def test_labels_of_many_shards_do_not_exhaust_the_open_files(tmp_path):
    resource = pytest.importorskip("resource", reason="limits are POSIX's")
    labels = {"train": np.arange(300), "test": np.arange(1)}
    images = np.zeros((1, 1, 1, 1), np.uint8)
    splits = write_shards(
        tmp_path, labels, lambda *_: [images], dtype="uint8", image_shape=(1, 1, 1), samples_per_shard=1
    )
    manifest = make_manifest(splits, image_shape=(1, 1, 1), channels=("gray",))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        assert np.array_equal(ShardSet(tmp_path, manifest).labels("train"), labels["train"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_every_damaged_file_is_named(shards_dir):
    names = ["test/images-00000-of-00001.npy", "train/images-00000-of-00002.npy", "train/labels-00000-of-00002.npy"]
    for name in names:
        damage(shards_dir / name, "a flipped bit")
    (shards_dir / "train/extra.npy").touch()
    with pytest.raises(CorruptDataError) as caught:
        verify_shards(shards_dir)
    found = [line.split(": ")[0].removeprefix(f"  {shards_dir}/") for line in str(caught.value).splitlines()[1:-1]]
    assert sorted(found) == sorted([*names, "train/extra.npy"])


def test_labels_that_are_no_class_are_found_even_under_a_right_hash(tmp_path):
    labels = {"train": np.array([0, 10]), "test": np.array([-1])}
    images = np.zeros((2, 3, 32, 32), np.uint8)
    splits = write_shards(
        tmp_path,
        labels,
        lambda _, start, stop: [images[start:stop]],
        dtype="uint8",
        image_shape=(3, 32, 32),
        samples_per_shard=9,
    )
    save_manifest(make_manifest(splits), tmp_path)
    with pytest.raises(CorruptDataError, match=r"train/labels.*labels should be in \[0, 10\)") as caught:
        verify_shards(tmp_path)
    assert "test/labels" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version: should be 1, got 2"),
        ({"dtype": "float64"}, "dtype: should be"),
        ({"unknown": 1}, "unknown: unknown key"),
        ({"channels": ["red"]}, "channels: should be as many as image_shape says"),
        ({"content_sha256": "0"}, "content_sha256: "),
        ({"image_shape": [3, 32, 0]}, "image_shape.2: should be a whole number >= 1, got 0"),
        ({"normalization": {"scheme": "unit", "mean": [0.0], "std": [1.0]}}, "a mean and a std for each channel"),
        ({"normalization": {"scheme": "z", "mean": [], "std": []}}, "normalization.scheme: should be 'dataset' or"),
        ({"splits": {}}, "splits: should be train and test"),
    ],
)
def test_a_broken_manifest_is_named_with_the_key(change, message, shards_dir):
    path = shards_dir / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CorruptDataError) as caught:
        open_shards(shards_dir)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_shard_path_can_not_lead_out_of_the_set(shards_dir):
    path = shards_dir / "manifest.json"
    path.write_text(path.read_text().replace("test/images-00000", "test/../../images-00000"))
    with pytest.raises(CorruptDataError, match=r"splits\.\*\.shards\.0\.images\.path: should be a string matching"):
        open_shards(shards_dir)


def test_samples_that_do_not_add_up_are_found(shards_dir):
    path = shards_dir / "manifest.json"
    path.write_text(path.read_text().replace('"samples": 12000', '"samples": 12001'))
    with pytest.raises(CorruptDataError, match=r"splits\.\*\.samples: should be 12000, which is what the shards hold"):
        open_shards(shards_dir)


def test_a_manifest_survives_json(synthetic_raw):
    content = (synthetic_raw / "manifest.json").read_bytes()
    assert render_manifest(open_shards(synthetic_raw).manifest).encode() == content


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"dataset": "synthetic"', '"dataset": "cifar10"'),  # valid, but not what was hashed
        lambda text: text[: text.index(',\n  "manifest_sha256"')] + "\n}\n",  # without the hash
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("  ", "\t"),
        lambda text: text + "\n",
        lambda text: text.replace('"format_version"', '"format_version": 1,\n  "format_version"'),
    ],
)
def test_a_manifest_with_any_other_byte_is_refused(change, shards_dir):
    path = shards_dir / "manifest.json"
    path.write_bytes(change(path.read_text()).encode())
    with pytest.raises(CorruptDataError, match=r"manifest\.json: manifest_sha256: .*: remove .* and run `dvc repro`"):
        open_shards(shards_dir)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 200_000, b"[]", b"null", b'{"format_version":'])
def test_what_is_no_manifest_is_named_in_one_line(content, shards_dir):
    (shards_dir / "manifest.json").write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"^[^\n]*/manifest\.json: [^\n]*$"):
        open_shards(shards_dir)


def test_a_content_hash_that_is_not_that_of_the_pixels_is_found(shards_dir):
    save_manifest(replace(open_shards(shards_dir).manifest, content_sha256="0" * 64), shards_dir)
    with pytest.raises(
        CorruptDataError, match=r"manifest\.json: content_sha256: expected 0{64}, the shards have b8a0c6"
    ):
        verify_shards(shards_dir)


def test_what_a_file_manager_leaves_is_no_part_of_a_set(shards_dir):
    for name in (".DS_Store", "train/Thumbs.db"):
        (shards_dir / name).touch()
    verify_shards(shards_dir)


def test_a_file_in_place_of_a_set_is_named(tmp_path):
    (tmp_path / "shards").touch()
    with pytest.raises(CorruptDataError, match="shards is no whole shard set"):
        open_shards(tmp_path / "shards")
